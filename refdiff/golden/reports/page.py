"""The audit as one HTML file that needs no network: the table, every difference with its numbers, the plots."""
import base64
import math

import jinja2

from ... import figures
from ..finding import shown
from .text import HEAD, missing, number, rows, sections, stale

PANELS = 9                      # charts, failures and deviations first
TRUTH = "published solver"


def curves(report):
    """{title: [(label, steps, errors, order)]} of the order oracles: the published solver's line and this one's."""
    found = [f for f in report.findings if f.check.startswith("oracle/order/") and _drawable(f)]
    found.sort(key=lambda f: {"fail": 0, "deviation": 1}.get(f.status, 2))
    panels = {}
    for f in found[:PANELS]:
        e = f.evidence
        label = f.check.removeprefix("oracle/order/").replace("/zero", "").replace("1000", "").replace("/eta0.0", "")
        title = label if len(label) < 34 else label[:32] + ".."
        power = max(1, round(e["expected_order"]))
        panels[f"{title}: {f.status}"] = [(TRUTH, e["steps"], e["expected_errors"], power),
                                          (report.name, e["steps"], e["errors"], power)]
    return panels


def _drawable(finding):
    e = finding.evidence
    return all(name in e for name in ("steps", "errors", "expected_errors", "expected_order")) and all(
        isinstance(v, float) and math.isfinite(v) and v > 0 for v in (*e["errors"], *e["expected_errors"]))


def page(report):
    """The HTML."""
    panels = curves(report)
    picture = figures.slope_panels(None, panels, "steps N", "error against the exact flow",
                                   beneath=TRUTH) if panels else None
    environment = jinja2.Environment(loader=jinja2.PackageLoader("refdiff"), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("audit.html").render(
        report=report, head=HEAD, rows=rows(report), sections=sections(report), shown=shown, number=number,
        missing=missing(report), stale=stale(report),
        picture=base64.b64encode(picture).decode() if picture else "")
