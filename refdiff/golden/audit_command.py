"""`refdiff audit`: the command over audit.py, the reports and the line protocol."""
import shlex
from pathlib import Path

import click
from tqdm import tqdm

from .. import files
from .adapter import load, name_of, shipped
from .audit import audit as run_audit
from .expected import read_expected, unexpected_passes
from .finding import Report
from .protocol import Program
from .reports.badge import badge as to_badge
from .reports.machine import junit as to_junit
from .reports.machine import to_json
from .reports.page import page as to_page
from .reports.text import markdown as to_markdown
from .reports.text import terminal
from .store import VERSION
from .store import load as load_cases

WRITERS = {"json": to_json, "html": to_page, "junit": to_junit, "markdown": to_markdown, "badge": to_badge}


@click.command("audit")
@click.argument("adapter", required=False)
@click.option("--command", "program", help="A program that answers the line-JSON protocol, instead of an ADAPTER.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, help=(
    "Seconds that the program may take for one answer."))
@click.option("--only", metavar="GLOB", help="Checks whose id matches, such as 'sampler/ddim/*,oracle/law/*'.")
@click.option("--expect", metavar="FILE.toml", help="Known deviations: lines of \"id-glob\" = \"reason\", or of "
              "{reason = \"...\", digits = 3}, or with kind = \"exception\" or \"not finite\".")
@click.option("--json", metavar="FILE", help="Write the findings as a JSON list.")
@click.option("--html", metavar="FILE", help="Write a page with the plots of error against steps.")
@click.option("--junit", metavar="FILE", help="Write JUnit XML for CI.")
@click.option("--markdown", metavar="FILE", help="Write a Markdown page.")
@click.option("--badge", metavar="FILE", help="Write an SVG badge.")
@click.option("--cases-only", is_flag=True, help="Leave the oracles out.")
def audit(adapter, program, timeout, only, expect, cases_only, **targets):
    """Compare an implementation with the golden cases and the exact oracles.

    Exit status 1 for a failure that --expect does not list, and for an entry of that list which nothing fails any more;
    with --only, which leaves checks out, such entries are not looked for.

    ADAPTER is a shipped one's short name, MODULE, MODULE:OBJECT, file.py or file.py:OBJECT.
    """
    if (adapter is None) == (program is None):
        raise ValueError(f"audit: wanted an ADAPTER ({', '.join(sorted(shipped())) or 'MODULE:OBJECT'}, file.py) or "
                         "--command PROGRAM, one of the two")
    for target in filter(None, targets.values()):
        files.check_writable(target)
    expected = read_expected(expect) if expect else {}
    loaded = load(adapter) if adapter else Program(program, timeout)
    spec = shlex.quote(adapter) if adapter else f"--command {shlex.quote(program)}"
    try:
        report = run(loaded, spec, only, expected, not cases_only)
    finally:
        if program:
            loaded.close()
    if not report.findings:
        raise ValueError(f"audit: no check matches --only {only!r}; refdiff golden list shows the cases' ids")
    for name, target in targets.items():
        if target:
            files.write(target, WRITERS[name](report))
    click.echo("\n".join(terminal(report)))
    if report.failed:
        raise SystemExit(1)


def run(adapter, spec="", only=None, expected=None, with_oracles=True):
    """The Report of an adapter, with a progress bar while it is made."""
    cases = load_cases()
    with tqdm(unit=" checks", leave=False, disable=None) as bar:
        found = run_audit(adapter, cases, only, expected, spec, lambda finding: bar.update(), with_oracles)
    whole = {} if only else {glob: reason for glob, reason in (expected or {}).items()
                             if with_oracles or not glob.startswith("oracle")}
    return Report(name_of(adapter), found, str(getattr(adapter, "version", "") or ""),
                  unexpected_passes(found, whole), VERSION)


def write_reports(report, folder):
    """All reports under their usual names; returns the paths."""
    names = {"json": "audit.json", "html": "audit.html", "junit": "audit.xml", "markdown": "audit.md",
             "badge": "audit.svg"}
    return [files.write(Path(folder) / names[form], write(report)) for form, write in WRITERS.items()]
