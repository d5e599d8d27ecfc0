"""The audits of diffusers and k-diffusion: what is expected to deviate has a reason, the counts are the last ones.

`.ci/run` audits both libraries whole and then runs this with REFDIFF_AUDITS, the folder of the findings as JSON.
"""
import json
import os
import re
from pathlib import Path

import pytest

from refdiff.golden.expected import Expected, read_expected
from refdiff.golden.finding import Finding, Report
from refdiff.golden.reports import text

GOLDEN = Path(__file__).parents[2] / "golden"
REPORTS = {"diffusers": "diffusers-0.42.1.md", "kdiffusion": "k-diffusion-0.1.1.md"}
REASON = re.compile(r"(finding (\d+)|convention|rounding|not refused): \w")


def page(name):
    return (GOLDEN / "reports" / REPORTS[name]).read_text()


def count(name):
    """The last section of a report: its sentence and its table."""
    sentence, _, rest = page(name).partition("## The audit's own count")[2].strip().partition(".")
    return " ".join(sentence.split()), [line for line in rest.splitlines() if line.startswith("|")]


def audited(name):
    folder = os.environ.get("REFDIFF_AUDITS")
    if not folder:
        pytest.skip("needs whole audits: .ci/run makes them and names their folder in REFDIFF_AUDITS")
    return Report(name, [Finding(**found) for found in json.loads((Path(folder) / f"{name}.json").read_text())])


@pytest.mark.parametrize("name", REPORTS)
def test_what_is_expected_names_a_finding_of_the_report_or_says_what_else_it_is(name):
    expected = read_expected(GOLDEN / "expected" / f"{name}.toml")
    for glob, reason in expected.items():
        reason = Expected.of(reason).reason
        found = REASON.match(reason)
        assert found, f"{glob}: {reason!r}, wanted 'finding N: .', 'convention: .', 'rounding: .' or 'not refused: .'"
        assert not found[2] or f"\n**{found[2]}. " in page(name), f"{glob}: the report has no finding {found[2]}"
        assert glob.strip("*/"), "what matches everything expects nothing"


@pytest.mark.parametrize("name", REPORTS)
def test_the_table_of_a_report_adds_up_to_its_sentence(name):
    sentence, rows = count(name)
    columns = list(zip(*([int(cell) for cell in row.split("|")[2:-1]] for row in rows[2:])))
    said = {status: int(n) for n, status in re.findall(r"(\d+) (pass|convention|deviation|fail)\b", sentence)}
    assert {s: n for s, n in zip(("pass", "convention", "deviation", "fail"), map(sum, columns)) if n} == said


@pytest.mark.parametrize("name", REPORTS)
def test_the_counts_of_a_report_are_those_of_the_audit(name):
    report = audited(name)
    wanted = text.table(("class or function", *text.JUDGED), text.subjects(report.findings))
    judged = report.summary.partition(";")[0]                       # a new case that a library has not is no news
    assert count(name) == (judged, wanted), "\n".join(
        [f"golden/reports/{REPORTS[name]} must end on:", "", f"{judged}.", "", *wanted])
