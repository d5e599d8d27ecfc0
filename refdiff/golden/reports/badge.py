"""A badge for a README: "refdiff | 312 of 314 agree", green, amber with expected deviations, red with a failure."""
from xml.sax.saxutils import escape

WIDTHS = {**dict.fromkeys("il.,:;|!' ", 3.6), **dict.fromkeys("ftjr-()/1I", 4.9), **dict.fromkeys("mwMW%", 10.2)}
COLOURS = {"pass": "#006b4f", "deviation": "#8a6100", "fail": "#a63f00", "nothing": "#565656"}


def width(text):
    """About what DejaVu or Verdana take at 11 px."""
    return sum(WIDTHS.get(c, 7.0) for c in text)


def badge(report):
    """The SVG."""
    counts = report.counts
    agree = counts["pass"] + counts["convention"]
    judged = agree + counts["deviation"] + counts["fail"]
    left, right = "refdiff", f"{agree} of {judged} agree" if judged else "nothing judged"
    colour = COLOURS["nothing" if not judged else next((s for s in ("fail", "deviation") if counts[s]), "pass")]
    a, b = round(width(left) + 14), round(width(right) + 14)
    said = escape(f"refdiff audit of {report.title}: {report.summary}", {'"': "&quot;"})
    return f'''<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" role="img" aria-label="{said}">
<title>{said}</title>
<clipPath id="r"><rect width="{a + b}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><rect width="{a}" height="20" fill="#1a1a1a"/>
<rect x="{a}" width="{b}" height="20" fill="{colour}"/></g>
<g fill="#fff" text-anchor="middle" font-family="Verdana,'DejaVu Sans',sans-serif" font-size="11">
<text x="{a / 2}" y="14">{left}</text><text x="{a + b / 2}" y="14">{escape(right)}</text></g>
</svg>
'''
