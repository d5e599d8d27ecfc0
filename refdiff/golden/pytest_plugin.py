"""pytest: one test per golden case and oracle of an adapter.

    import refdiff.golden.pytest_plugin as golden

    @golden.parametrize(MyAdapter(), expected="deviations.toml")
    def test_golden(check):
        check()

A failure raises AssertionError with the cause and the command that shows it again; what the adapter has not is skipped,
an expected deviation is an xfail with the user's reason. Where all checks are asked for, every entry of the table of
expected deviations is a test too, the last ones, which fail once nothing that the entry matches deviates any more.
"""
import fnmatch
import shlex

from . import oracles
from .adapter import load, name_in_python
from .audit import Memory, judge, matches, with_cause
from .expected import as_expected, read_expected, unexpected_passes
from .settings import settings_of
from .store import load as load_cases


class Check:
    """One case or oracle, ready to run; its id is the test's."""

    def __init__(self, name, run, expected):
        self.name, self.run, self.expected, self.found = name, run, expected, None

    def finding(self):
        self.found = self.found or as_expected(self.run(), self.expected)
        return self.found

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


class Expectation:
    """An entry of the user's table: fails where every check that it matches passes, or it matches none."""

    def __init__(self, glob, reason, checks):
        self.name, self.table = f"expected/{glob}", {glob: reason}
        self.checks = [check for check in checks if fnmatch.fnmatchcase(check.name, glob)]

    def __call__(self):
        for glob, reason, passed in unexpected_passes([check.finding() for check in self.checks], self.table):
            raise AssertionError(f"unexpected pass: {glob} ({reason}): " + (
                f"{len(passed)} checks pass; take the entry out" if passed
                else "matches no check; correct the entry or take it out"))

    def __repr__(self):
        return self.name


def checks(adapter, only=None, expected=None, cases=None, with_oracles=True):
    """[Check] of an adapter, by object or by name; expected: {glob: reason}, or the path of a TOML file with it.

    Without `only` and `cases`, every entry of `expected` that can match is checked last.
    """
    spec = shlex.quote(adapter) if isinstance(adapter, str) else name_in_python(adapter)
    adapter = load(adapter) if isinstance(adapter, str) else adapter
    expected = expected if isinstance(expected, dict) or expected is None else read_expected(expected)
    memory, whole = Memory(), not only and cases is None
    made = [Check(case.id, lambda case=case: judge(adapter, case, spec, memory), expected or {})
            for case in (load_cases() if cases is None else cases) if matches(case.id, only)]
    for setting in settings_of(adapter) if with_oracles else ():
        for name in oracles.ORACLES:
            check = f"oracle/{name}/{setting.id}"
            if oracles.applies(name, setting) and matches(check, only):
                made.append(Check(check, lambda name=name, setting=setting: with_cause(
                    oracles.judge(name, adapter, setting, spec), adapter, setting, memory), expected or {}))
    return made + [Expectation(glob, reason, made) for glob, reason in (expected or {}).items()
                   if whole and (with_oracles or not glob.startswith("oracle"))]


def parametrize(adapter, only=None, expected=None, cases=None, with_oracles=True):
    """A decorator: the test's argument `check` is every check of the adapter in turn."""
    import pytest
    made = checks(adapter, only, expected, cases, with_oracles)
    return pytest.mark.parametrize("check", made, ids=[check.name for check in made])
