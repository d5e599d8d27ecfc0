"""pytest: one test per golden case and oracle of an adapter.

    import refdiff.golden.pytest_plugin as golden

    @golden.parametrize(MyAdapter(), expected="deviations.toml")
    def test_golden(check):
        check()

A failure raises AssertionError with the cause and the command that shows it again; what the adapter has not is skipped,
an expected deviation is an xfail with the user's reason.
"""
from . import oracles
from .adapter import load
from .audit import Memory, as_expected, judge, matches, read_expected, with_cause
from .settings import settings_of
from .store import load as load_cases


class Check:
    """One case or oracle, ready to run; its id is the test's."""

    def __init__(self, name, run, expected):
        self.name, self.run, self.expected = name, run, expected

    def finding(self):
        return as_expected(self.run(), self.expected)

    def __call__(self):
        import pytest
        found = self.finding()
        if found.status == "not-implemented":
            pytest.skip(f"not implemented: {found.cause}")
        if found.status == "deviation":
            pytest.xfail(found.cause)
        assert found.status != "fail", f"{found.check}: {found.cause}\n{found.evidence}\n{found.reproduce}"

    def __repr__(self):
        return self.name


def checks(adapter, only=None, expected=None, cases=None, with_oracles=True):
    """[Check] of an adapter, by object or by name; expected: {glob: reason}, or the path of a TOML file with it."""
    spec = adapter if isinstance(adapter, str) else ""
    adapter = load(adapter) if isinstance(adapter, str) else adapter
    expected = expected if isinstance(expected, dict) or expected is None else read_expected(expected)
    memory = Memory()
    made = [Check(case.id, lambda case=case: judge(adapter, case, spec, memory), expected or {})
            for case in (load_cases() if cases is None else cases) if matches(case.id, only)]
    for setting in settings_of(adapter) if with_oracles else ():
        for name in oracles.ORACLES:
            check = f"oracle/{name}/{setting.id}"
            if oracles.applies(name, setting) and matches(check, only):
                made.append(Check(check, lambda name=name, setting=setting: with_cause(
                    oracles.judge(name, adapter, setting, spec), adapter, setting, memory), expected or {}))
    return made


def parametrize(adapter, only=None, expected=None, cases=None, with_oracles=True):
    """A decorator: the test's argument `check` is every check of the adapter in turn."""
    import pytest
    made = checks(adapter, only, expected, cases, with_oracles)
    return pytest.mark.parametrize("check", made, ids=[check.name for check in made])
