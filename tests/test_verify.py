"""`refdiff verify`: what it measures, and that an equation whose proof fails, skips or is missing does not hold."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refdiff import papers, verify

ROOT = Path(__file__).resolve().parents[1]

PAPER = '''title = "T"
authors = "A"
source = "S"
numbering = "N"
'''
ENTRY = '''
[[equation]]
tag = "eq. {0}"
says = "says {0}"
tex = '\\frac{{a}}{{b}} < {0}'
status = "implemented"
tests = ["tests/test_all.py::{1}"]
'''
TESTS = '''import numpy as np, pytest

@pytest.mark.parametrize("error", [1e-12, 1e-6])
def test_close(error):
    np.testing.assert_allclose(2 * (1 + error), 2.0, rtol=1e-3)

def test_approx():
    assert 1.0 + 1e-9 == pytest.approx(1.0) and np.ones(2) == pytest.approx(np.ones(2) + 1e-8, rel=1e-6)

def test_fact():
    assert 1 < 2

def test_wrong():
    np.testing.assert_allclose(1.0, 2.0)

def test_skipped():
    pytest.skip("not here")

@pytest.mark.parametrize("law", ["same", "near"])
@pytest.mark.parametrize("name", ["good", "bad", "good_too"])
def test_many(name, law):
    np.testing.assert_allclose({"good": 1 + 1e-9, "good_too": 1 + 1e-3, "bad": 2.0}[name], 1.0, rtol=1e-2)
'''


@pytest.fixture
def house(tmp_path):
    """A small checkout, with an equation whose proof passes, one without figures, one that fails, one that skips."""
    for folder in ("papers", "tests", "refdiff"):
        (tmp_path / folder).mkdir()
    names = ("test_close", "test_fact", "test_wrong", "test_skipped", "test_approx")
    entries = "".join(ENTRY.format(i, name) for i, name in enumerate(names))
    (tmp_path / "papers" / "KEY.toml").write_text(PAPER + entries)
    (tmp_path / "refdiff" / "code.py").write_text('def f():\n    """Says. [KEY eq. 0-4]"""\n')
    (tmp_path / "tests" / "test_all.py").write_text(TESTS)
    return tmp_path


def test_digits_are_relative_to_the_largest_entry_wanted():
    assert verify.digits([1.0, 2.0], [1.0, 2.0]) == verify.EXACT
    np.testing.assert_allclose(verify.digits([1.0, 100.1], [1.0, 100.0]), 3, atol=1e-9)
    np.testing.assert_allclose(verify.digits(1 + 1e-8j, 1.0), 8, atol=1e-6)
    np.testing.assert_allclose(verify.digits([1e-9, 0.0], 0.0), 9, atol=1e-9)
    assert verify.digits([np.inf, 1.0], [np.inf, 1.0]) == verify.EXACT
    assert verify.digits(["a"], ["a"]) is None and verify.digits([], []) is None
    assert verify.digits(5.0, 1.0) == 0.0


def test_the_verdicts_of_a_small_house(house):
    script = f'''import sys
from refdiff import verify
rows, problems = verify.verify(root={str(house)!r})
print(problems, *[f"{{r.equation.tag}} {{r.holds}} {{verify.shown(r.digits)}}" for r in rows], sep="\\n")
print(*verify.table(rows), sep="\\n")
print(rows[2].proofs[0].why)
open({str(house / "page.html")!r}, "w").write(verify.page(rows, problems))
open({str(house / "page.md")!r}, "w").write(verify.markdown(rows))
'''
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    assert lines[:6] == ["[]", "eq. 0 True 6.0", "eq. 1 True -", "eq. 2 False 0.3", "eq. 3 False -", "eq. 4 True 8.0"]
    assert any("KEY eq. 2" in line and "FAILS" in line and "code.py:f" in line for line in lines)
    assert "test_all.py:14: " in lines[-1] and "Mismatched elements: 1 / 1" in lines[-1]        # where and by how much
    page = (house / "page.html").read_text()
    assert page.count("<math") == 5 and "<mfrac>" in page and "test_wrong" in page
    assert "://" not in page.replace("http://www.w3.org/1998/Math/MathML", "")      # nothing is loaded from elsewhere
    assert (house / "page.md").read_text().count("| holds |") == 3


def test_a_name_with_the_start_of_an_id_is_proved_by_those_cases_alone(house):
    """One broken case fails the equations that name it, and those that name the whole test, and no others."""
    names = ["test_many", "test_many[good-", "test_many[bad-", "test_many[good_too-", "test_many[absent-"]
    (house / "papers" / "KEY.toml").write_text(PAPER + "".join(ENTRY.format(i, n) for i, n in enumerate(names)))
    script = f'''from refdiff import verify
rows, problems = verify.verify(root={str(house)!r})
print(problems, *[(r.holds, r.proofs[0].cases, verify.shown(r.digits)) for r in rows], sep="\\n")
print(rows[4].proofs[0].why)
'''
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["[]", "(False, 6, '0.0')", "(True, 2, '9.0')", "(False, 2, '0.0')",
                                        "(True, 2, '3.0')", "(False, 0, '-')",
                                        "tests/test_all.py::test_many[absent-: no case ran"], done.stderr


def test_every_formula_is_typeset_without_a_command_left_over():
    for paper in papers.every():
        for equation in paper.equations:
            assert "\\" not in verify.mathml(equation.tex), f"{paper.key} {equation.tag}: {equation.tex}"


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "refdiff.cli", "verify", *arguments], capture_output=True, text=True,
                          cwd=ROOT)


def test_the_command_runs_a_paper_s_proofs_and_says_what_holds():
    done = command("minsnr")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MINSNR sec. 3.4" in done.stdout and "process/weights.py:min_snr" in done.stdout
    assert done.stdout.rstrip().endswith("equations hold")


def test_a_paper_that_is_not_there_is_refused_by_name():
    done = command("DDIMM")
    assert done.returncode == 2 and "paper is 'DDIMM', wanted one of" in done.stderr


def test_an_equation_without_a_test_that_ran_does_not_hold():
    proof = verify.Proof("a", cases=2, skipped=2)
    assert not proof.holds and not verify.Row(None, None, []).holds
    assert verify.Proof("a", cases=2, skipped=1).holds and not verify.Proof("a", cases=2, failed=1).holds
