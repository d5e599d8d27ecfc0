"""The terminal's table and the Markdown page: a line per family of checks, then every difference with its cause."""
import textwrap

from ..finding import JUDGED, STATUSES, counts, shown

HEAD = ("check", "pass", "convention", "deviation", "fail", "not impl.", "digits")
MOST = 12                           # differences told in full in the terminal, one for each subject and cause


def rows(report):
    """One row of cells per family of which anything is implemented; digits are the least of what passes."""
    made = []
    for group, findings in report.groups().items():
        if all(f.status == "not-implemented" for f in findings):
            continue
        numbers = [sum(f.status == status for f in findings) for status in STATUSES]
        agreed = [f.digits for f in findings if f.status == "pass" and f.digits is not None]
        made.append((group, *(str(n) if n else "." for n in numbers), shown(min(agreed)) if agreed else "-"))
    return made


def subjects(findings):
    """One row of cells per class or function: its checks by status, without those that are not implemented."""
    made = {}
    for f in findings:
        made.setdefault(f.subject, []).append(f)
    rows = [(f"`{name}`", *(str(counts(mine)[status]) for status in JUDGED)) for name, mine in sorted(made.items())]
    return [row for row in rows if any(cell != "0" for cell in row[1:])]


def table(head, rows):
    """The lines of a Markdown table, its numbers to the right."""
    return ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|",
            *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)]


def missing(report):
    """The families of which nothing is implemented and what no oracle could look at, as a line; "" if there is none."""
    names = [f"{group} ({len(findings)})" for group, findings in report.groups().items()
             if all(f.status == "not-implemented" for f in findings)]
    unseen = [f"{f.check}: {f.cause}." for f in report.findings if f.check == "oracle/law"]
    return " ".join([*([f"Not implemented at all: {', '.join(names)}."] if names else []), *unseen])


def columns(lines):
    """Rows of cells as lines of text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def together(findings):
    """[(finding, others)]: findings of one subject, status and cause as one, with how many there are besides."""
    made = {}
    for f in findings:
        made.setdefault((f.subject, f.status, f.cause), []).append(f)
    return [(same[0], len(same) - 1) for same in made.values()]


SECTIONS = (("fail", False, "Failures"), ("fail", True, "Invalid input that is not refused"),
            ("deviation", False, "Expected deviations"),
            ("deviation", True, "Expected deviations: invalid input that is not refused"),
            ("convention", False, "Other published conventions"))


def sections(report):
    """[(status, title, [(finding, others)])] of the findings that differ, failures first; what has none is left out."""
    made = [(status, title, together(f for f in report.findings if (f.status, f.of_invalid) == (status, invalid)))
            for status, invalid, title in SECTIONS]
    return [section for section in made if section[2]]


def terminal(report, most=MOST):
    """The report as lines of text."""
    lines = [report.title, "", *columns([HEAD, *rows(report)]), ""]
    if missing(report):
        lines += [*textwrap.wrap(missing(report), 110), ""]
    left, cut = most, 0
    for _, title, found in sections(report):
        lines += [title] if left else []
        for f, others in found[:left]:
            lines += [f"{f.status.upper():10} {f.check}" + (f"  (and {others} more)" if others else ""),
                      f"           {f.subject}: {f.cause or 'no cause found'}",
                      f"           {shown(f.digits)} digits; {f.reproduce}"]
        cut += max(len(found) - left, 0)
        left = max(left - len(found), 0)
    lines += [f"... and {cut} more; --markdown or --html tells all of them"] if cut else []
    lines += stale(report)
    return [*lines, *([""] if lines[-1] else []), report.summary]


def stale(report):
    """What was expected to deviate and does not."""
    return [f"UNEXPECTED PASS  {f.cause.partition(': ')[2]}" for f in report.unexpected]


def _cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def markdown(report):
    """The same as a page, with the numbers of every difference."""
    lines = [f"# Audit of {report.title}", "",
             f"{report.summary}. Written by `refdiff audit`"
             + (f", golden cases {report.cases}" if report.cases else "") + ".",
             "Digits: the least agreement of the checks that pass, relative to the largest entry wanted; `all`: the",
             "same bits.", "", *table(HEAD, rows(report)), "",
             *([_cell(missing(report)), ""] if missing(report) else []),
             "## By class or function", "", *table(("class or function", *JUDGED), subjects(report.findings)), ""]
    for _, title, chosen in sections(report):
        lines += [f"## {title}", ""]
        for f, others in chosen:
            lines += [f"### `{f.check}`" + (f" and {others} more" if others else ""), "",
                      f"{_cell(f.subject)}: {_cell(f.cause or 'no cause found')}.", "",
                      f"- digits: {shown(f.digits)}",
                      *(f"- {_cell(name)}: {_cell(number(value))}" for name, value in f.evidence.items()),
                      f"- `{f.reproduce}`", ""]
    lines += [f"- {_cell(line)}" for line in stale(report)]
    return "\n".join(lines).rstrip() + "\n"


def number(value):
    """Evidence as it is printed: floats with six digits, at most eight of a list."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(number(v) for v in value[:8]) + (", ..." if len(value) > 8 else "")
    return str(value)
