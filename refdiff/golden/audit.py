"""An audit: another implementation's answers to the golden cases, then the oracles, each judged with its cause.

    findings = audit(adapter.load("mypackage.golden:Mine"), cases)

An answer passes if every field it has agrees within the case's tolerance for the type it came in. The user's own
table of expected deviations (expected.py) turns a failure into a deviation.
"""
import fnmatch

import numpy as np

from . import causes, oracles
from .adapter import call, load, names_argument, prediction_of, subject_of
from .case import digits as agreeing
from .expected import as_expected
from .finding import Finding
from .handed import handed
from .settings import settings_of


def audit(adapter, cases=(), only=None, expected=None, spec="", tick=lambda finding: None, with_oracles=True):
    """[Finding] of every case and oracle whose id matches the glob `only`.

    adapter: an object, or the name of one. expected: {glob: a reason, or what expected.py says}. tick(finding) is
    called after each.
    """
    if isinstance(adapter, str):
        spec, adapter = spec or adapter, load(adapter)
    prediction_of(adapter)                          # refused before any work, as what configurations lists is
    settings = settings_of(adapter) if with_oracles else []
    found, memory = [], Memory()

    def note(finding):
        if finding is not None:
            finding = as_expected(finding, expected or {})
            found.append(finding)
            tick(finding)

    for case in cases:
        if matches(case.id, only):
            note(judge(adapter, case, spec, memory))
    if with_oracles:
        for setting in settings:
            for name in oracles.ORACLES:
                if matches(f"oracle/{name}/{setting.id}", only):
                    note(with_cause(oracles.judge(name, adapter, setting, spec), adapter, setting, memory))
        if settings and matches("oracle/law", only):
            note(_no_law(adapter, found, spec))
    return found


def _no_law(adapter, found, spec):
    """A finding that says so where no sampler with noise was judged; None where one was."""
    if any(f.check.startswith("oracle/law/") and f.status != "not-implemented" for f in found):
        return None
    return Finding(subject_of(adapter, "trajectory", {}), "oracle/law", "not-implemented", None,
                   "no stochastic sampler was judged; if there is one, let configurations() list it, such as "
                   '{"sampler": "ddim", "schedule": "cosine", "rule": "trailing", "eta": 1.0}',
                   reproduce=f"refdiff audit {spec or 'ADAPTER'} --only 'oracle/law*'")


def matches(check, only):
    """Whether an id matches a glob, or several of them separated by commas; no glob is every id."""
    return not only or any(fnmatch.fnmatchcase(check, part.strip()) for part in only.split(","))


class Memory:
    """What an audit has found out so far: conventions that explained something, and what is left for pairs."""

    def __init__(self):
        self.known, self.budget, self.settings = [], causes.Budget(), {}

    def explain(self, operation, inputs, fields, flags=()):
        cause = causes.explain(operation, inputs, fields, flags, self.known, self.budget)
        if cause and len(cause.conventions) > 1 and cause.conventions not in self.known:
            self.known.append(cause.conventions)
        return cause


def judge(adapter, case, spec="", memory=None):
    """The finding of one case."""
    inputs = handed(case.operation, case.inputs, getattr(adapter, "prediction", "eps"), case.verdict != "invalid")
    if not names_argument(adapter, case.operation, "states"):
        inputs.pop("states", None)                      # what comes back shows whether it is the states or the last x
    subject = subject_of(adapter, case.operation, inputs)
    reproduce = f"refdiff audit {spec or 'ADAPTER'} --only {case.id}"
    calls = getattr(inputs.get("denoiser"), "calls", ())

    def finding(status, digits=None, cause="", **evidence):
        return Finding(subject, case.id, status, digits, cause, evidence, reproduce)

    got = call(adapter, case.operation, inputs)
    if got.missing:
        return finding("not-implemented", cause=got.missing)
    if case.verdict == "invalid":
        return _judge_invalid(got, finding)
    if got.error:
        return finding("fail", cause=got.error, kind="exception")
    digits = causes.agreement(got.fields, case.expected)
    if digits is None:
        return finding("fail", cause=_shapes(got.fields, case.expected))
    dtype = "float32" if causes.single(got.fields) else "float64"
    tolerance = case.tolerance[dtype]
    if 10 ** -digits <= tolerance:
        return finding("pass", digits, dtype=dtype)
    evidence = {"dtype": dtype, "tolerance": tolerance, **_numbers(got.fields, case.expected)}
    for other in case.accepted:
        agreed = causes.agreement(got.fields, other["expected"])
        if agreed is not None and 10 ** -agreed <= tolerance:
            return finding("convention", agreed, f"agrees to {causes.whole(agreed)} digits with "
                           f"{other['convention']}, which is published too", **evidence)
    return finding("fail", digits, _cause(adapter, case, got.fields, calls, memory or Memory()), **evidence)


def _judge_invalid(got, finding):
    """Refused, or at least not answered with numbers that look right."""
    if got.error:
        return finding("pass", evidence_of=got.error)
    values = [value for value in got.fields.values() if value.size]
    if any(not np.isfinite(value).all() for value in values):
        return finding("pass", cause="answered with what is not finite, where an error was due")
    return finding("fail", cause="answered with finite numbers; these inputs have no answer and must be refused",
                   **{name or "answer": _few(value) for name, value in got.fields.items()})


def _cause(adapter, case, fields, calls, memory):
    if any(not np.isfinite(value).all() for value in fields.values()):
        return "the answer is not finite"
    cause = memory.explain(case.operation, case.inputs, fields, case.flags)
    if cause:
        return cause.says
    said = causes.described(adapter, case.operation, case.inputs, fields, list(calls))
    usual = ", ".join(case.flags)
    return said or (f"no convention explains it; a failure here usually means {usual}" if usual
                    else "no convention explains it")


def _shapes(fields, expected):
    if set(fields) == {""}:
        if len(expected) == 1:
            name, wanted = next(iter(expected.items()))
            return f"{name} has shape {np.shape(fields[''])}, wanted {np.shape(np.array(wanted))}"
        return f"a bare value, wanted a dict with some of {', '.join(expected)}"
    unknown = sorted(set(fields) - set(expected))
    if unknown or not fields:
        return f"answered {', '.join(unknown) or 'nothing'}, wanted some of {', '.join(expected)}"
    return "; ".join(f"{name} has shape {np.shape(got)}, wanted {np.shape(np.array(expected[name]))}"
                     for name, got in fields.items() if np.shape(got) != np.shape(np.array(expected[name])))


def _few(value, most=4):
    return [float(v) for v in np.ravel(np.array(value, dtype=np.float64))[:most]]


def _numbers(fields, expected):
    """The entries that differ most, got and expected, of the field that differs most."""
    worst = None
    for name, got in fields.items():
        name = name or next((key for key, value in expected.items() if np.size(value) == np.size(got)),
                            next(iter(expected)))
        wanted, got = (np.ravel(np.array(value, dtype=np.float64)) for value in (expected[name], got))
        wanted, got = wanted[-got.size:], got[-wanted.size:]              # a trajectory's end against its states' end
        d = agreeing(got, wanted)
        if worst is None or d < worst[0]:
            worst = d, name, got, wanted
    _, name, got, wanted = worst
    order = np.argsort(-np.nan_to_num(abs(got - wanted), nan=np.inf))[:3]
    return {"field": name, "entries": order.tolist(), "got": got[order].tolist(), "expected": wanted[order].tolist()}


def with_cause(finding, adapter, setting, memory):
    """An oracle's failure with the convention that explains a small trajectory of the same setting, if one does.

    Which draws are made is explained by a convention about draws alone.
    """
    if finding is None or finding.status != "fail" or finding.check.startswith(("oracle/fuzz", "oracle/dtype")):
        return finding
    if setting.id not in memory.settings:
        memory.settings[setting.id] = _explain_setting(adapter, setting, memory)
    said, chosen = memory.settings[setting.id]
    if finding.check.startswith("oracle/noise") and not set(chosen) & DRAWS:
        return finding
    return finding if not said else Finding(finding.subject, finding.check, finding.status, finding.digits,
                                            f"{finding.cause}; {said}", finding.evidence, finding.reproduce)


AGREES = 9.0                    # digits with which a trajectory is the published one
DRAWS = {"noise_index", "last_step_noise", "eta_meaning", "variance_meaning"}
MIXTURE = {"world": "mixture", "weights": [0.3, 0.7], "means": [-1.0, 0.8], "stds": [0.4, 0.5]}


def _explain_setting(adapter, setting, memory, steps=oracles.STEPS):
    """(words for why a trajectory of a setting departs, {convention: value} where it is one)."""
    rng = np.random.default_rng(5)
    x, noise = rng.standard_normal((4, 1)), rng.standard_normal((steps, 4, 1))
    if setting.T is None:
        x = x * 10
    kind = getattr(adapter, "prediction", "eps")
    inputs = setting.inputs(steps, x, MIXTURE, noise) | {"kind": kind}
    asked = handed("trajectory", inputs, kind)
    asked.pop("kind")
    fields = call(adapter, "trajectory", asked).fields
    if not fields:
        return "", {}
    fields = {"x": next(iter(fields.values()))}
    if fields["x"].ndim == 3:
        fields["x"] = fields["x"][-1]
    agreed = causes.agrees("trajectory", inputs, fields)
    if agreed is not None and agreed > AGREES:
        return "", {}
    cause = memory.explain("trajectory", inputs, fields)
    if cause:
        return cause.says, cause.conventions
    return causes.described(adapter, "trajectory", inputs, fields, asked["denoiser"].calls), {}
