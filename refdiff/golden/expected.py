"""The user's table of expected deviations: which failures are known, and why.

    "sampler/ddim/*" = "we end at abar_0"                                   numbers that differ
    "grid/*" = {reason = "tables in float32", digits = 3}                   numbers that agree in 3 digits or more
    "oracle/fuzz/*" = {reason = "one step raises", kind = "exception"}      an exception; or "not finite"

An entry expects one kind of failure, numbers unless it says so: an exception, or an answer that is not finite, never
hides under a reason that is about numbers.
"""
import fnmatch
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from .finding import KINDS


@dataclass(frozen=True)
class Expected:
    """One entry: its reason, the kind of failure that is expected, the digits in which numbers must agree still."""

    reason: str
    kind: str = "numbers"
    digits: float | None = None

    @classmethod
    def of(cls, given):
        """From a reason, or a dict of these names. Raises ValueError for what is neither."""
        given = {"reason": given} if isinstance(given, str) else given
        if not isinstance(given, dict) or not isinstance(given.get("reason"), str) or not given["reason"].strip():
            raise ValueError('has no reason, wanted "id-glob" = "reason", the id in quotes')
        unknown = set(given) - {"reason", "kind", "digits"}
        if unknown:
            raise ValueError(f"has {', '.join(sorted(unknown))}, wanted reason, and kind or digits")
        made = cls(**given)
        if made.kind not in KINDS:
            raise ValueError(f"has the kind {made.kind!r}, wanted one of {', '.join(KINDS)}")
        number = isinstance(made.digits, (int, float)) and not isinstance(made.digits, bool)
        if made.digits is not None and not (number and 0 < made.digits <= 17 and made.kind == "numbers"):
            raise ValueError(f"has digits = {made.digits!r}, wanted a number in 0..17, of numbers")
        return made

    @property
    def wanted(self):
        """"numbers", "numbers that agree in 3 digits", "exception"."""
        return self.kind + ("" if self.digits is None else f" that agree in {self.digits:g} digits")

    def accepts(self, finding):
        return finding.kind == self.kind and (
            self.digits is None or finding.digits is not None and finding.digits >= self.digits)


def read_expected(path):
    """{glob: reason or dict} of a small TOML file. Raises ValueError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not TOML: {error}; wanted lines like \"id-glob\" = \"reason\"") from error
    whole = table.get("expected")
    flat = whole if isinstance(whole, dict) and "reason" not in whole else table
    for glob, given in flat.items():
        try:
            Expected.of(given)
        except ValueError as error:
            raise ValueError(f"{path}: {glob!r} {error}") from error
    return flat


def as_expected(finding, expected):
    """A failure that the user expects is a deviation, with the user's reason before the cause; another one says so."""
    if finding.status != "fail":
        return finding
    mine = [Expected.of(given) for glob, given in expected.items() if fnmatch.fnmatchcase(finding.check, glob)]
    for entry in mine:
        if entry.accepts(finding):
            return replace(finding, status="deviation", cause=f"expected: {entry.reason}; {finding.cause}")
    return replace(finding, cause=f"{finding.cause}; not what is expected here ({mine[0].reason}): {mine[0].wanted}"
                   ) if mine else finding


def unexpected_passes(findings, expected):
    """[(glob, reason, checks)] of the table's entries whose every finding passes: fixed, or never ran."""
    stale = []
    for glob, given in expected.items():
        mine = [f for f in findings if fnmatch.fnmatchcase(f.check, glob)]
        judged = [f for f in mine if f.status != "not-implemented"]
        if not any(f.status in ("deviation", "fail") for f in judged) and (judged or not mine):
            stale.append((glob, Expected.of(given).reason, [f.check for f in judged]))
    return stale
