"""The line-JSON protocol: the worked example in C++, a Python program, and the ways in which a program breaks it."""
import json
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from refdiff.cli import main
from refdiff.golden import audit as auditing
from refdiff.golden import protocol
from refdiff.golden.adapter import call
from refdiff.golden.protocol import Program, ProtocolError, from_json, to_json
from refdiff.golden.store import load

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "notebooks" / "protocol" / "ddim.cpp"


def compiled(folder, source):
    compiler = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: g++, c++ or clang++")
    (folder / "ddim.cpp").write_text(source)
    subprocess.run([compiler, "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-o", folder / "ddim",
                    folder / "ddim.cpp"], check=True, capture_output=True, text=True)
    return str(folder / "ddim")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("cpp"), SOURCE.read_text())


def program(tmp_path, body, **options):
    """A Program whose source is `body`, which may use read() and say(**message)."""
    (tmp_path / "p.py").write_text(textwrap.dedent("""
        import json, sys, time
        def read():
            line = sys.stdin.readline()
            if not line: sys.exit(0)
            return json.loads(line)
        def say(**message):
            print(json.dumps(message), flush=True)
        hello = read()
        say(id=hello["id"], error="not-implemented")
        """) + textwrap.dedent(body))
    return Program([sys.executable, "-u", str(tmp_path / "p.py")], **{"timeout": 10.0, **options})


# ---- the worked example

def test_the_example_in_cpp_passes_all_that_it_has(example):
    made = Program(example)
    try:
        found = auditing.audit(made, load("schedule/linear/*") + load("sampler/ddim/*") + load("grid/linear/*"))
    finally:
        made.close()
    judged = [f for f in found if f.status != "not-implemented"]
    assert made.name == "ddim.cpp" and len(judged) > 40
    assert [f for f in judged if f.status != "pass"] == [], [(f.check, f.cause) for f in judged]
    oracles = {f.check.split("/")[1] for f in judged if f.check.startswith("oracle")}
    assert oracles == {"order", "flow", "law", "noise", "network", "fuzz"}


def test_a_mistake_in_the_example_is_named_on_the_command_line(tmp_path):
    text = SOURCE.read_text()
    old = "noise(static_cast<int>(i))"
    assert text.count(old) == 1
    bad = compiled(tmp_path, text.replace(old, "noise(0)"))
    done = CliRunner().invoke(main, ["audit", "--command", shlex.quote(bad), "--only", "oracle/*"])
    assert done.exit_code == 1 and "draws [0] are used more than once" in done.output, done.output


def test_the_readme_beside_it_shows_the_command_that_was_run():
    assert "g++ -std=c++17 -O2 -o ddim ddim.cpp" in (SOURCE.parent / "README.md").read_text()


# ---- a program in Python, by `serve`

def served(tmp_path):
    (tmp_path / "s.py").write_text(f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests' / 'golden')!r}]\n"
                                   "import homemade\nfrom refdiff.golden.protocol import serve\n"
                                   "serve(homemade, sys.stdin, sys.stdout)\n")
    return [sys.executable, str(tmp_path / "s.py")]


def test_a_program_answers_as_the_adapter_that_it_serves_bit_for_bit(tmp_path):
    import homemade
    made = Program(served(tmp_path))
    assert (made.name, made.version) == ("homemade", "1.0")
    some = ("schedule", "step", "trajectory", "adamw", "guidance", "convert")
    cases = [case for case in load() if case.operation in some][::9]
    here, there = (auditing.audit(a, cases, with_oracles=False) for a in (homemade, made))
    assert [(f.check, f.status, f.digits) for f in here] == [(f.check, f.status, f.digits) for f in there]
    assert sum(f.status == "pass" for f in there) > 15
    made.close()
    assert made.process is None


def test_numbers_that_json_has_not_go_both_ways():
    value = {"a": np.array([1.0, np.inf, -np.inf, np.nan]), "b": 3, "c": None, "d": "linear", "e": np.float64(0.1)}
    text = json.dumps(to_json(value), allow_nan=False)
    back = from_json(json.loads(text))
    np.testing.assert_array_equal(back["a"], value["a"])
    assert (back["b"], back["c"], back["d"], back["e"]) == (3, None, "linear", 0.1)
    x = np.random.default_rng(0).standard_normal(100)
    assert np.array_equal(np.array(from_json(json.loads(json.dumps(to_json(x))))), x)


def test_the_network_and_the_noise_are_called_back(tmp_path):
    made = program(tmp_path, """
        r = read()
        say(id=r["id"], call="denoiser", x=r["inputs"]["x"], t=7)
        eps = read()["value"]
        say(id=r["id"], call="noise", i=2)
        z = read()["value"]
        say(id=r["id"], answer={"x": [[e[0] + n[0]] for e, n in zip(eps, z)]})
        read()
        """)
    got = made.trajectory(x=np.array([[1.0], [2.0]]), denoiser=lambda x, t: 10 * x * t,
                          noise=lambda i: np.full((2, 1), i))
    np.testing.assert_array_equal(got["x"], [[72.0], [142.0]])
    made.close()


# ---- programs that break it

@pytest.mark.parametrize("body, says", [
    ("read(); print('Segmentation', flush=True)", "replied 'Segmentation' to schedule, wanted one line of JSON"),
    ("read(); print('[1, 2]', flush=True)", 'wanted an object with "id": 2'),
    ("r = read(); say(id=r['id'] + 1, answer=1)", 'wanted an object with "id": 2'),
    ("r = read(); say(id=r['id'])", "one of answer, error, call"),
    ("r = read(); say(id=r['id'], call='denoiser', x=[[0]], t=1)", "called 'denoiser', wanted no call"),
    ("read(); sys.exit('no memory left')", "ended without a reply to schedule (exit status 1); it said: no memory"),
    ("read(); print('[' * 100000, flush=True)", "wanted one line of JSON"),
    ("import os; read(); os.close(1); time.sleep(60)", "closed its standard output without a reply to schedule, and"),
    ("time.sleep(60)", "no reply to schedule in 0.4 s")])
def test_a_program_that_breaks_the_protocol_fails_with_what_it_did(body, says, tmp_path):
    made = program(tmp_path, body, timeout=10.0)
    made.timeout = 0.4 if "sleep" in body else 10.0
    with pytest.raises(ProtocolError) as error:
        made.schedule(name="linear", T=10)
    assert says in str(error.value)
    answer = call(made, "nosuch", {})
    assert answer.missing and made.process is None


def test_a_program_that_does_not_read_is_not_waited_for(tmp_path):
    made = program(tmp_path, "import os; os.close(0); time.sleep(60)")
    with pytest.raises(ProtocolError, match="closed its standard input before it was asked, and ran on"):
        for _ in range(100):                                     # the first goes into the pipe, perhaps
            made._write({"x": "0" * 1000})
            time.sleep(0.01)
    made = program(tmp_path, "time.sleep(60)")
    made.timeout = 0.4
    with pytest.raises(ProtocolError, match="did not read a question in 0.4 s"):
        made.schedule(x=np.zeros(10 ** 6))                       # more than a pipe holds


def test_an_answer_that_calls_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "CALLS", 20)
    made = program(tmp_path, """
        r = read()
        while True:
            say(id=r["id"], call="noise", i=0)
            read()
        """)
    with pytest.raises(ProtocolError, match="called 'noise' once more after 20 calls for one trajectory"):
        made.trajectory(noise=lambda i: np.zeros(1))


def test_a_program_that_ended_is_started_anew_for_the_next_question(tmp_path):
    made = program(tmp_path, """
        r = read()
        sys.exit(3) if r["inputs"]["T"] == 3 else say(id=r["id"], answer=r["inputs"]["T"])
        read()
        """)
    assert "exit status 3" in call(made, "schedule", {"T": 3}).error
    assert made.process is None
    assert call(made, "schedule", {"T": 4}).missing == "not-implemented"      # its reply to whatever comes first
    assert made.process is not None
    made.close()


def test_its_own_errors_and_what_it_has_not_are_told_apart(tmp_path):
    made = program(tmp_path, """
        for said in ("not-implemented", "not-implemented: heun", "T must be positive"):
            say(id=read()["id"], error=said)
        say(id=read()["id"], answer="twelve")
        read()
        """)
    assert [call(made, "schedule", {"T": 1}).missing for _ in range(2)] == ["not-implemented", "not-implemented: heun"]
    assert call(made, "schedule", {"T": 1}).error == "RuntimeError: T must be positive"
    assert "is not numbers" in call(made, "schedule", {"T": 1}).error
    made.close()


@pytest.mark.parametrize("answer", ["None", "[1.0, None]", "[[None]]", "{'alpha_bar': [None, 1]}"])
def test_null_is_refused_where_a_number_is_due(answer, tmp_path):
    made = program(tmp_path, f"say(id=read()['id'], answer={answer}); read()")
    said = call(made, "schedule", {"T": 1})
    assert said.fields is None and 'null where a number is due; write nan as "NaN"' in said.error
    made.close()


def test_a_program_that_is_not_there_or_says_nothing_is_refused_in_one_line():
    with pytest.raises(ValueError, match="cannot be started: No such file"):
        Program("./no_such_program --flag")
    with pytest.raises(ValueError, match="wanted a line as for a shell: No closing quotation"):
        Program("./mine 'a file")
    with pytest.raises(ValueError, match="--command is empty"):
        Program("  ")
    for timeout in ("nan", "inf", "1e12"):
        done = CliRunner().invoke(main, ["audit", "--command", "cat", "--timeout", timeout])
        assert done.exit_code == 2 and f"--timeout is {float(timeout):g}, wanted seconds" in done.output
    with pytest.raises(ValueError, match="wanted one line of JSON"):
        Program([sys.executable, "-c", "print('hello')"])


def test_hello_says_what_a_program_has(tmp_path):
    made = Program([sys.executable, "-c", textwrap.dedent("""
        import json, sys
        r = json.loads(sys.stdin.readline())
        print(json.dumps({"id": r["id"], "answer": {"name": "x", "prediction": "v", "operations": ["ema"],
                          "configurations": [{"sampler": "ddim"}]}}), flush=True)
        sys.stdin.read()""")])
    assert (made.name, made.prediction, made.configurations()) == ("x", "v", [{"sampler": "ddim"}])
    assert hasattr(made, "ema") and not hasattr(made, "schedule") and "ema" in dir(made)
    made.close()
