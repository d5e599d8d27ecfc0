"""The reports: exactly their fields, well-formed, self-contained, whole or not there."""
import base64
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from refdiff.golden.audit_command import WRITERS, write_reports
from refdiff.golden.finding import FIELDS, Finding, Report, shown
from refdiff.golden.reports import text
from refdiff.golden.reports.badge import badge
from refdiff.golden.reports.machine import junit, to_json
from refdiff.golden.reports.page import curves, page

STEPS = [16, 32, 64, 128, 256]


def finding(check, status="pass", digits=15.2, cause="", **evidence):
    return Finding("lib.Sampler", check, status, digits, cause, evidence, f"refdiff audit lib --only {check}")


def report(*more, stale=()):
    order = {"steps": STEPS, "errors": [1 / n for n in STEPS], "expected_errors": [1 / n ** 2 for n in STEPS],
             "order": 1.0, "expected_order": 2.0}
    return Report("lib", [
        finding("schedule/linear/t1000"), finding("step/ddim/a", digits=12.1), finding("step/ddim/b", digits=17.0),
        finding("step/ddim/c", "fail", 2.5, "agrees to 15 digits with final_alpha=abar_0: <b>abar</b> | \x01 end",
                got=[float("nan"), 1.0], expected=np.float64(2.0)),
        finding("step/ddim/d", "fail", 2.5, "agrees to 15 digits with final_alpha=abar_0: <b>abar</b> | \x01 end"),
        finding("step/ddpm/a", "deviation", 6.9, "expected: float32 tables; so it is"),
        finding("grid/a", "convention", 17.0, "agrees with spacing=leading, which is published too"),
        finding("adamw/a", "not-implemented", None, "no method adamw"),
        finding("oracle/order/heun/edm/karras/zero", "fail", None, "order 1.00 observed, 2.00 wanted", **order),
        *more], "2.0", list(stale), "2026.11")


def test_the_json_is_a_list_of_findings_with_their_seven_fields():
    read = json.loads(to_json(report()))
    assert isinstance(read, list) and all(tuple(f) == FIELDS for f in read) and len(read) == 9
    assert read[3]["evidence"] == {"got": [None, 1.0], "expected": 2.0} and read[7]["digits"] is None
    assert {f["status"] for f in read} == {"pass", "convention", "deviation", "fail", "not-implemented"}


def test_the_junit_counts_what_failed_and_what_was_skipped():
    suite = ElementTree.fromstring(junit(report())).find("testsuite")
    assert suite.attrib == {"name": "refdiff audit lib 2.0", "errors": "0", "tests": "9", "failures": "3",
                            "skipped": "2"}
    cases = suite.findall("testcase")
    assert len(cases) == 9 and len(suite.findall("testcase/failure")) == 3
    failure = cases[3].find("failure")
    assert failure.get("message").startswith("agrees to 15 digits with final_alpha=abar_0: <b>abar</b>")
    assert "refdiff audit lib --only step/ddim/c" in failure.text and "\x01" not in junit(report())
    assert cases[5].find("skipped").get("message").startswith("deviation: expected: float32 tables")


def test_an_expected_deviation_that_passes_is_red_in_the_json_and_the_junit_too():
    fixed = Report("lib", [finding("b/1")], stale=[("b/*", "older", ["b/1"]), ("c/*", "gone", [])])
    assert fixed.failed
    passed, gone = json.loads(to_json(fixed))[1:]
    assert (passed["check"], passed["status"], passed["evidence"]) == ("expected/b/*", "fail", {"passed": ["b/1"]})
    assert "older): 1 checks pass; take the entry out" in passed["cause"] and "matches no check" in gone["cause"]
    suite = ElementTree.fromstring(junit(fixed)).find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    assert [case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None] == [
        "expected/b/*", "expected/c/*"]


def test_the_badge_says_how_many_agree_in_the_colour_of_the_worst():
    for r, says, colour in ((report(), "4 of 8 agree", "#a63f00"),
                            (Report("lib", [finding("a/b")]), "1 of 1 agree", "#006b4f"),
                            (Report("lib", [finding("a/b"), finding("a/c", "deviation")]), "1 of 2 agree", "#8a6100"),
                            (Report("a<b", [finding("a/b", "not-implemented")]), "nothing judged", "#565656")):
        svg = ElementTree.fromstring(badge(r))
        words = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
        assert words == ["refdiff", says] and colour in badge(r)
        assert float(svg.get("width")) > 100 and svg.get("aria-label").startswith("refdiff audit of")


def test_the_page_needs_nothing_else_and_escapes_what_it_tells():
    html = page(report(stale=[("x/*", "older", [])]))
    assert "<b>abar</b>" not in html and "&lt;b&gt;abar" in html and "Content-Security-Policy" in html
    assert not re.search(r"(src|href)=\"(?!data:|#)", html) and "<script" not in html
    assert "and 1 more with the same cause" in html and "UNEXPECTED PASS  x/* (older)" in html
    assert html.count("<tr><td><code>") == 9
    picture = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", html)[1])
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_plot_has_a_panel_for_every_order_with_its_numbers(tmp_path):
    panels = curves(report())
    assert list(panels) == ["heun/edm/karras: fail"]
    (_, _, published, power), (name, steps, errors, _) = panels["heun/edm/karras: fail"]
    assert (name, steps, power) == ("lib", STEPS, 2) and errors[0] > published[0]
    assert curves(report(finding("oracle/order/x", steps=STEPS, errors=[float("nan")] * 5))) == panels
    (tmp_path / "p.html").write_text(page(report()))
    data = base64.b64decode(re.search(r"base64,([^\"]+)", (tmp_path / "p.html").read_text())[1])
    (tmp_path / "p.png").write_bytes(data)
    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_the_table_has_a_line_per_family_and_every_cause_once():
    lines = text.terminal(report())
    assert lines[0] == "lib 2.0" and lines[-1] == "3 pass, 1 convention, 1 deviation, 3 fail; 1 not implemented"
    assert [line.split() for line in lines if line.startswith("step/ddim")] == [
        ["step/ddim", "2", ".", ".", "2", ".", "12.1"]]
    assert sum("final_alpha=abar_0" in line for line in lines) == 1 and "Not implemented at all: adamw (1)." in lines
    assert any(line.startswith("FAIL") and line.endswith("(and 1 more)") for line in lines)


def test_input_that_is_not_refused_is_told_apart_from_wrong_numbers():
    mixed = report(finding("step/ddim/invalid/eta-2", "fail", None, "answered with finite numbers"),
                   finding("ema/invalid/x", digits=None))
    lines = text.terminal(mixed)
    assert ["invalid", "input", "1", ".", ".", "1", ".", "-"] in [line.split() for line in lines]
    assert ["step/ddim", "2", ".", ".", "2", ".", "12.1"] in [line.split() for line in lines]
    assert lines.index("Failures") < lines.index("Invalid input that is not refused") < lines.index(
        next(line for line in lines if "eta-2" in line))
    assert "4 fail (1 of them invalid input that is not refused)" in lines[-1]
    for told in (text.markdown(mixed), page(mixed)):
        assert told.index("Invalid input that is not refused") > told.index("step/ddim/c")


def test_a_long_list_of_differences_is_cut_in_the_terminal_alone():
    many = report(*(finding(f"clip/{i}", "fail", 1.0, f"cause {i}") for i in range(40)))
    assert "more; --markdown or --html tells all of them" in "\n".join(text.terminal(many))
    assert text.markdown(many).count("\n### ") == 44


def test_the_markdown_has_tables_that_hold_and_every_number():
    page_ = text.markdown(report())
    rows = [line for line in page_.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {8, 6}
    assert "| `lib.Sampler` | 3 | 1 | 1 | 3 |" in rows
    assert "| grid | . | 1 | . | . | . | - |" in rows and "- got: nan, 1" in page_ and "\\| " in page_


def test_digits_as_they_are_shown():
    assert [shown(v) for v in (None, 17.0, 15.23, 0.0)] == ["-", "all", "15.2", "0.0"]


def test_only_an_unexpected_failure_or_pass_fails():
    assert report().failed and not Report("lib", [finding("a", "deviation"), finding("b")]).failed
    assert Report("lib", [finding("b")], stale=[("b", "older", ["b"])]).failed


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    paths = write_reports(report(), tmp_path / "r")
    assert [p.name for p in paths] == ["audit.json", "audit.html", "audit.xml", "audit.md", "audit.svg"]
    before = paths[0].read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError):
        write_reports(report(finding("new/one")), tmp_path / "r")
    assert paths[0].read_bytes() == before and len(list((tmp_path / "r").iterdir())) == len(WRITERS)
