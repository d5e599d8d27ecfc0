"""An audit judges as it says: what passes, what is a convention, a deviation, a failure, or not there at all."""
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import homemade
import numpy as np
import pytest
from click.testing import CliRunner

from refdiff.cli import main
from refdiff.golden import adapter as adapters
from refdiff.golden import audit as auditing
from refdiff.golden import expected as expecting
from refdiff.golden import pytest_plugin
from refdiff.golden.case import Case
from refdiff.golden.finding import Finding, Report
from refdiff.golden.reports.text import missing
from refdiff.golden.store import load

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
HOME = ROOT / "tests" / "golden" / "homemade.py"


def case(verdict="valid", expected=None, accepted=(), operation="ema", **inputs):
    return Case("ema/one", operation, inputs or {"average": np.ones(2), "theta": np.zeros(2), "decay": 0.5},
                {"average": np.array([0.5, 0.5])} if expected is None else expected, "", "closed form", 1.0, TOLERANCE,
                ("ema_weights",), verdict, accepted)


def judged(method, asked=None, **attributes):
    return auditing.judge(SimpleNamespace(name="mine", ema=method, **attributes), asked or case(), "mine.py")


# ---- one answer

def test_what_an_adapter_writes_into_its_arguments_stays_its_own():
    def ema(average, theta, decay):
        average *= decay
        average += (1 - decay) * theta
        theta[:] = 7
        return average
    asked = case()
    for _ in range(2):
        assert judged(ema, asked).status == "pass"
    np.testing.assert_array_equal(asked.inputs["theta"], [0, 0])


def test_an_adapter_that_exits_fails_and_the_audit_goes_on(tmp_path):
    def ema(average, theta, decay):
        sys.exit(0)
    found = judged(ema)
    assert (found.status, found.cause) == ("fail", "SystemExit: 0")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ValueError, match="cannot be imported: SystemExit: 0"):
        adapters.load(str(tmp_path / "script.py"))


def test_an_answer_may_be_bare_a_dict_a_list_or_a_tensor():
    class Tensor:
        dtype = "float32"

        def __init__(self, value):
            self.value = value

        def detach(self):
            return self

        cpu = detach

        def numpy(self):
            return np.asarray(self.value, dtype=np.float32)

    for value in ([0.5, 0.5], {"average": np.array([0.5, 0.5])}, Tensor([0.5, 0.5]), [Tensor(0.5), Tensor(0.5)],
                  {"average": [0.5, 0.5]}, (0.5, 0.5)):
        found = judged(lambda average, theta, decay, value=value: value)
        assert (found.status, found.digits) == ("pass", 17.0)


def test_the_tolerance_is_that_of_the_type_it_came_in():
    value = np.array([0.5, 0.5]) * (1 + 1e-6)
    assert judged(lambda average, theta, decay: value).status == "fail"
    assert judged(lambda average, theta, decay: value.astype(np.float32)).status == "pass"


def test_what_is_missing_is_not_implemented_and_never_a_failure():
    def refuses(average, theta, decay):
        raise NotImplementedError("no averages")

    for found, says in ((judged(None), "no method ema"), (judged(refuses), "no averages"),
                        (judged(lambda average, theta: 0), "takes no argument decay"),
                        (judged(lambda **inputs: NotImplemented), "returned NotImplemented")):
        assert found.status == "not-implemented" and says in found.cause and found.digits is None


def test_an_exception_is_a_failure_with_its_last_line():
    def breaks(average, theta, decay):
        raise KeyError("beta")

    assert judged(breaks).status == "fail" and judged(breaks).cause == "KeyError: 'beta'"
    assert "is None" in judged(lambda **inputs: None).cause
    assert "real numbers" in judged(lambda **inputs: "half").cause


def test_fields_and_shapes_that_are_not_wanted_are_said():
    assert "average has shape (3,), wanted (2,)" in judged(lambda **inputs: np.ones(3)).cause
    assert "answered mean, wanted some of average" in judged(lambda **inputs: {"mean": 1.0}).cause
    many = case(expected={"a": 1.0, "b": 2.0})
    assert "a bare value" in judged(lambda **inputs: 1.0, many).cause
    assert judged(lambda **inputs: {"b": 2.0}, many).status == "pass"


def test_two_published_answers_are_both_right():
    both = case("acceptable", accepted=({"convention": "ema_warmup=no", "expected": {"average": np.zeros(2)}},))
    found = judged(lambda **inputs: np.zeros(2), both)
    assert found.status == "convention" and "ema_warmup=no" in found.cause and found.digits == 17.0
    assert judged(lambda **inputs: np.full(2, .5), both).status == "pass"
    assert judged(lambda **inputs: np.full(2, .7), both).status == "fail"


def test_what_has_no_answer_must_be_refused_or_at_least_not_look_right():
    invalid = case("invalid", expected={})

    def refuses(**inputs):
        raise ValueError("decay")

    assert judged(refuses, invalid).status == "pass"
    assert judged(lambda **inputs: np.array([np.nan, 1]), invalid).status == "pass"
    assert judged(lambda **inputs: np.ones(2), invalid).status == "fail"


def test_what_is_not_finite_fails_and_is_called_so():
    assert judged(lambda **inputs: np.array([np.nan, .5])).cause == "the answer is not finite"


def test_the_cause_names_the_convention_and_its_digits():
    found = judged(lambda average, theta, decay: (1 - decay) * average + decay * theta,
                   case(average=np.ones(2), theta=np.zeros(2), decay=0.9, expected={"average": np.full(2, .9)}))
    assert "digits with ema_weights=1-decay" in found.cause and found.evidence["got"] != found.evidence["expected"]


def test_the_adapter_says_what_was_audited():
    found = judged(lambda **inputs: np.ones(2), subject=lambda operation, inputs: f"lib.EMA.{operation}")
    assert found.subject == "lib.EMA.ema" and judged(lambda **inputs: 1).subject == "mine.ema"
    assert found.reproduce == "refdiff audit mine.py --only ema/one"


def test_a_finding_has_a_status_of_the_five():
    with pytest.raises(ValueError, match="status is 'ok', wanted one of pass"):
        Finding("a", "b", "ok", None, "")


class Cosine:
    """homemade.py with nothing but a cosine table."""

    def __init__(self, samplers=("ddim", "ddpm")):
        self.samplers, self.home = samplers, adapters.load(str(HOME))

    def trajectory(self, sampler, schedule, denoiser, noise, **rest):
        if schedule != "cosine" or sampler not in self.samplers or float(rest.get("eta", 0)) and len(self.samplers) < 2:
            raise NotImplementedError
        return self.home.trajectory(sampler=sampler, schedule=schedule, denoiser=denoiser, noise=noise, **rest)


def test_an_adapter_with_another_table_of_noise_is_judged_on_it_stochastic_samplers_too():
    found = [f for f in auditing.audit(Cosine(), only="oracle/law*") if f.status != "not-implemented"]
    assert [f.check for f in found] == [f"oracle/law/{name}" for name in (
        "ddim/cosine1000/trailing/zero/eta0.5", "ddim/cosine1000/trailing/zero/eta1.0",
        "ddpm/cosine1000/trailing/zero/variancesmall", "ddpm/cosine1000/trailing/zero/variancelarge")]
    assert {f.status for f in found} == {"pass"}, [f.cause for f in found]


@pytest.mark.parametrize("given, says", [
    (3, "not iterable; wanted a list of dicts"), ([3], "3 names no sampler"), ([{}], "names no sampler"),
    ([{"sampler": "ddmi"}], "sampler is 'ddmi', wanted one of"), ([{"sampler": "ddim", "T": 0}], "T is 0, wanted"),
    ([{"sampler": "ddim", "schedule": "cosinus"}], "schedule is 'cosinus', wanted one of"),
    ([{"sampler": "ddim", "foo": 1}], "ddim has no option 'foo', wanted some of eta, noise"),
    (lambda: 1 / 0, "configurations: ZeroDivisionError")])
def test_configurations_that_cannot_be_asked_for_are_refused(given, says):
    mine = SimpleNamespace(name="mine", trajectory=homemade.trajectory, configurations=given)
    with pytest.raises(ValueError, match=says):
        auditing.audit(mine)


def test_configurations_may_be_a_list_and_a_prediction_is_one_that_there_is():
    mine = SimpleNamespace(name="mine", trajectory=homemade.trajectory, configurations=[{"sampler": "ddim"}])
    assert [f.status for f in auditing.audit(mine, only="oracle/flow/*")] == ["pass"]
    mine.prediction = "epsilon"
    with pytest.raises(ValueError, match="adapter mine: prediction is 'epsilon', wanted one of eps, x0, v"):
        auditing.audit(mine)


def test_an_audit_says_that_it_saw_no_stochastic_sampler():
    found = auditing.audit(Cosine(("ddim",)), only="oracle/law*")
    assert [f.check for f in found if "no stochastic sampler was judged" in f.cause] == ["oracle/law"]
    assert {f.status for f in found} == {"not-implemented"} and "configurations()" in found[-1].cause
    assert "configurations()" in missing(Report("mine", found))
    assert not any(f.check == "oracle/law" for f in auditing.audit(Cosine(), only="oracle/law*"))


# ---- expected deviations

FOUND = [Finding("m", f"ema/{i}", status, None, "c") for i, status in enumerate(("fail", "pass", "not-implemented"))]


def test_a_failure_that_is_expected_is_a_deviation_with_its_reason():
    made = [expecting.as_expected(f, {"ema/*": "ours is older"}) for f in FOUND]
    assert [f.status for f in made] == ["deviation", "pass", "not-implemented"]
    assert made[0].cause == "expected: ours is older; c"


def test_a_reason_about_numbers_hides_no_exception_and_nothing_that_is_not_finite():
    def raises(**inputs):
        raise KeyError("beta")

    found = {"exception": judged(raises), "not finite": judged(lambda **inputs: np.array([np.nan, .5])),
             "numbers": judged(lambda **inputs: np.full(2, .5001))}
    for kind, finding in found.items():
        assert finding.kind == kind
        for wanted in found:
            made = expecting.as_expected(finding, {"ema/*": {"reason": "older", "kind": wanted}})
            assert made.status == ("deviation" if wanted == kind else "fail")
    made = expecting.as_expected(found["exception"], {"ema/*": "older"})
    assert made.status == "fail" and made.cause == "KeyError: 'beta'; not what is expected here (older): numbers"
    for digits, status in ((3, "deviation"), (4, "fail")):
        made = expecting.as_expected(found["numbers"], {"ema/*": {"reason": "older", "digits": digits}})
        assert made.status == status and ("(older): numbers that agree in 4 digits" in made.cause) == (digits == 4)


def test_an_oracle_that_meets_an_exception_or_infinity_says_which():
    for method, kind in ((lambda **inputs: 1 / 0, "exception"), (lambda x, **inputs: x * np.inf, "not finite")):
        mine = SimpleNamespace(name="mine", trajectory=method, configurations=[
            {"sampler": "ddim"}, {"sampler": "ddim", "eta": 1.0}])
        with np.errstate(all="ignore"):
            found = auditing.audit(mine, only="oracle/[oflu]*")
        assert len(found) > 4 and {f.kind for f in found if f.status == "fail"} == {kind}, [f.evidence for f in found]


def test_an_expectation_that_nothing_meets_is_reported():
    stale = expecting.unexpected_passes(FOUND, {"ema/*": "a", "ema/1": "b", "ema/2": "c", "nowhere": "d"})
    assert [glob for glob, *_ in stale] == ["ema/1", "nowhere"]


def test_a_table_that_is_no_table_of_reasons_is_refused(tmp_path):
    for text, says in (("ema/* = 'x'", "is not TOML"), ('"ema/*" = ""', "has no reason"), ('"a" = 3', "no reason"),
                       ('"a" = {digits = 3}', "no reason"), ('"a" = {reason = "x", digit = 3}', "has digit, wanted"),
                       ('"a" = {reason = "x", kind = "nan"}', "kind 'nan', wanted one of numbers, not finite, exc"),
                       ('"a" = {reason = "x", digits = true}', "digits = True"),
                       ('"a" = {reason = "x", digits = 3, kind = "exception"}', "digits = 3, wanted")):
        (tmp_path / "e.toml").write_text(text)
        with pytest.raises(ValueError, match=says):
            expecting.read_expected(tmp_path / "e.toml")
    (tmp_path / "e.toml").write_text('expected = "a reason of what is called so"')
    assert list(expecting.read_expected(tmp_path / "e.toml")) == ["expected"]
    (tmp_path / "e.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="e.toml: is not TOML"):
        expecting.read_expected(tmp_path / "e.toml")
    (tmp_path / "e.toml").write_text('[expected]\n"ema/*" = "why"\n')
    assert expecting.read_expected(tmp_path / "e.toml") == {"ema/*": "why"}
    (tmp_path / "e.toml").write_text('"ema/*" = {reason = "why", digits = 3}\n')
    assert expecting.read_expected(tmp_path / "e.toml") == {"ema/*": {"reason": "why", "digits": 3}}


# ---- loading

def test_an_adapter_is_found_by_file_module_object_and_short_name(tmp_path, monkeypatch):
    (tmp_path / "mine_here.py").write_text("class Mine:\n    def ema(self, **inputs):\n        return 1\n"
                                           "thing = Mine()\ndef clip(**inputs):\n    return 2\n")
    monkeypatch.chdir(tmp_path)
    for name in ("mine_here.py", str(tmp_path / "mine_here.py")):
        assert adapters.load(name).clip() == 2
    for name in ("mine_here:Mine", "mine_here:thing"):
        assert adapters.load(name).ema() == 1
    assert set(adapters.shipped()) == {"diffusers", "example-ddim", "kdiffusion", "own"}
    assert adapters.name_of(adapters.load("own")) == "refdiff"
    assert not any(name.startswith(("_", "-")) for name in adapters.shipped())


@pytest.mark.parametrize("name, text, says", [
    ("no_such_module_here", "", "ModuleNotFoundError"), ("gone.py", "", "there is no file gone.py"),
    ("bad.py", "import no_such_library", "No module named 'no_such_library'"), ("bad.py", "1/0", "ZeroDivisionError"),
    ("bad:Thing", "x = 1", "has no 'Thing'"), ("bad.py", "x = 1", "has none of the methods"),
    ("bad.py", "def f(:", "SyntaxError"),
    ("bad:Needs", "class Needs:\n    def __init__(self, a):\n        pass", "Needs\\(\\) failed: TypeError")])
def test_an_adapter_that_cannot_be_had_is_refused_with_the_reason(name, text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("bad", None)
    if text:
        (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=f"adapter {name}.*{says}"):
        adapters.load(name)


# ---- the command

def run(*arguments):
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


def test_the_command_passes_writes_every_report_and_exits_with_0(tmp_path):
    targets = [part for name in ("json", "html", "junit", "markdown", "badge")
               for part in (f"--{name}", tmp_path / "out" / name)]
    done = run(HOME, "--only", "q_sample/*,oracle/noise/*", *targets)
    assert done.exit_code == 0, done.output
    assert "homemade 1.0" in done.output and "pass" in done.output.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["badge", "html", "json", "junit", "markdown"]


def test_the_command_exits_with_1_for_a_failure_and_0_for_an_expected_one(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(HOME.read_text().replace("return alpha * x0 + sigma * eps", "return alpha * x0 + sigma ** 2 * eps"))
    done = run(bad, "--only", "q_sample/*")
    assert done.exit_code == 1 and "FAIL" in done.output
    (tmp_path / "e.toml").write_text('"q_sample/*" = "sigma is a variance here"\n"guidance/scale*" = "long gone"\n')
    done = run(bad, "--only", "q_sample/*", "--expect", tmp_path / "e.toml")
    assert done.exit_code == 0 and "sigma is a variance here" in done.output and "UNEXPECTED" not in done.output
    done = run(HOME, "--cases-only", "--expect", tmp_path / "e.toml")
    assert done.output.count("UNEXPECTED PASS") == 2 and done.exit_code == 1, done.output
    assert "with --only, which leaves checks out" in " ".join(run("--help").output.split())
    (tmp_path / "e.toml").write_text('"oracle/law/*" = "never asked for here"\n')
    assert "UNEXPECTED" not in run(HOME, "--cases-only", "--expect", tmp_path / "e.toml").output


def test_the_command_refuses_what_it_cannot_do_in_one_line(tmp_path):
    for arguments, says in (((), "wanted an ADAPTER"), ((HOME, "--command", "cat"), "one of the two"),
                            ((HOME, "--only", "nosuch/*"), "no check matches"),
                            (("no_such_adapter",), "cannot be imported")):
        done = run(*arguments)
        assert done.exit_code == 2 and says in done.output and "Traceback" not in done.output
    target = tmp_path / "found.json"
    assert run(HOME, "--only", "nosuch/*", "--json", target).exit_code == 2 and not target.exists()


# ---- pytest

def test_parametrize_makes_a_test_of_every_check(tmp_path):
    (tmp_path / "test_it.py").write_text(f"""
import sys
sys.path.insert(0, {str(HOME.parent)!r})
import homemade, refdiff.golden

@refdiff.golden.parametrize(homemade, only="clip/*,sampler/heun/*,q_sample/snr1,oracle/noise/*",
                            expected={{"clip/invalid/*": "nobody asks for that"}})
def test_golden(check):
    check()
""")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", tmp_path],
                          capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert "PASSED test_it.py::test_golden[q_sample/snr1]" in done.stdout, done.stdout
    assert "XFAIL test_it.py::test_golden[clip/invalid/norm-0]" in done.stdout and "nobody asks" in done.stdout
    assert "not implemented: heun" in done.stdout and " failed" not in done.stdout


def test_an_expected_deviation_that_passes_is_a_failing_test(monkeypatch):
    quick = load("guidance/scale*") + load("clip/invalid/*")
    monkeypatch.setattr(pytest_plugin, "load_cases", lambda: quick)
    table = {"guidance/scale*": "long fixed", "clip/invalid/*": "nobody asks for that", "nosuch/*": "gone",
             "oracle/*": "unasked"}
    made = {check.name: check for check in pytest_plugin.checks(homemade, expected=table, with_oracles=False)}
    assert list(made)[-3:] == ["expected/guidance/scale*", "expected/clip/invalid/*", "expected/nosuch/*"]
    with pytest.raises(AssertionError, match="long fixed.*checks pass; take the entry out"):
        made["expected/guidance/scale*"]()
    with pytest.raises(AssertionError, match="matches no check"):
        made["expected/nosuch/*"]()
    made["expected/clip/invalid/*"]()
    narrow = pytest_plugin.checks(homemade, only="guidance/scale*", expected=table, with_oracles=False)
    assert not [check.name for check in narrow if check.name.startswith("expected")]


def test_a_check_in_pytest_can_be_repeated_on_the_command_line():
    def commands(adapter):
        return {check.finding().reproduce for check in pytest_plugin.checks(adapter, "ema/*", with_oracles=False)[:1]}
    assert all(said.startswith("refdiff audit homemade --only ema/") for said in commands(homemade))
    assert all(said.startswith(f"refdiff audit {Given.__module__}:Given --only ema/") for said in commands(Given()))
    assert all(said.startswith("refdiff audit ADAPTER ") for said in commands(SimpleNamespace(ema=homemade.ema)))


class Given:
    """An adapter whose class a module has."""

    ema = staticmethod(homemade.ema)


def test_the_commands_of_a_file_with_a_space_in_its_name_are_quoted(tmp_path):
    (tmp_path / "a b.py").write_text(HOME.read_text())
    run(tmp_path / "a b.py", "--only", "ema/*", "--json", tmp_path / "f.json")
    for found in json.loads((tmp_path / "f.json").read_text()):
        assert shlex.split(found["reproduce"])[:3] == ["refdiff", "audit", str(tmp_path / "a b.py")]


# ---- the adapter that the README shows

def test_the_example_in_torch_passes_all_that_it_has():
    pytest.importorskip("torch", reason="the example is a DDIM in PyTorch")
    found = auditing.audit("example-ddim", load("sampler/*"), only="sampler/*,oracle/*/ddim/*")
    judged = [f for f in found if f.status != "not-implemented"]
    assert len(judged) > 20 and all(f.status == "pass" for f in judged), [(f.check, f.cause) for f in judged]


def test_the_examples_adapter_has_at_most_ten_lines():
    text = (ROOT / "refdiff" / "golden" / "adapters" / "example_ddim.py").read_text().partition("# ---- the adapter")[2]
    assert len([line for line in text.splitlines()[1:] if line.strip()]) <= 10


def test_a_function_that_makes_an_adapter_is_called(tmp_path):
    path = tmp_path / "made.py"
    path.write_text("class Mine:\n    def q_sample(self, x0, eps, alpha, sigma):\n        return x0\n\n"
                    "def make():\n    return Mine()\n")
    assert type(adapters.load(f"{path}:make")).__name__ == "Mine"
