"""One line of an audit: what was looked at, how it was judged, why, and the command that shows it again."""
from dataclasses import asdict, dataclass, field

import numpy as np

STATUSES = ("pass", "convention", "deviation", "fail", "not-implemented")
JUDGED = STATUSES[:4]
KINDS = ("numbers", "not finite", "exception")
FIELDS = ("subject", "check", "status", "digits", "cause", "evidence", "reproduce")


@dataclass(frozen=True, eq=False)
class Finding:
    """A judgement. Statuses:

    pass              agrees within the tolerance of the dtype it was computed in
    convention        agrees with another published convention, which `cause` names
    deviation         disagrees, and the user's table of expected deviations says why
    fail              disagrees, raises, or returns what is not finite; `cause` says what it probably is
    not-implemented   the adapter has no such method, or refuses these arguments with NotImplementedError
    """

    subject: str                # the class or function audited
    check: str                  # the case's id, or the oracle's
    status: str
    digits: float | None        # of agreement; None where nothing was compared
    cause: str
    evidence: dict = field(default_factory=dict)        # numbers, as plain JSON
    reproduce: str = ""

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"finding {self.check}: status is {self.status!r}, wanted one of {', '.join(STATUSES)}")

    @property
    def kind(self):
        """What a failure is: numbers (or shapes) that differ, what is not finite, or an exception."""
        finite = all(np.isfinite(value).all() for value in self.evidence.values()
                     if np.asarray(value).dtype.kind in "fiu")
        return self.evidence.get("kind", "numbers" if finite else "not finite")

    @property
    def of_invalid(self):
        """Whether it is about input that has no answer: a failure is a refusal that is missing, no wrong number."""
        return "/invalid/" in self.check

    def as_dict(self):
        """The seven fields, as plain JSON."""
        return {name: asdict(self)[name] for name in FIELDS}


def counts(findings):
    """{status: how many}, in the order of STATUSES."""
    return {status: sum(f.status == status for f in findings) for status in STATUSES}


def shown(digits):
    """Digits as they are printed."""
    return "-" if digits is None else "all" if digits >= 17 else f"{digits:.1f}"


@dataclass(frozen=True, eq=False)
class Report:
    """All that an audit found of one implementation, as the reports tell it."""

    name: str
    findings: list
    version: str = ""
    stale: list = field(default_factory=list)       # [(glob, reason, checks)]: expected deviations that pass now
    cases: str = ""                                 # the calendar version of the golden cases

    @property
    def title(self):
        return f"{self.name} {self.version}".strip()

    @property
    def counts(self):
        return counts(self.findings)

    @property
    def failed(self):
        """Whether there is a failure that nobody expects, or an expected one that is none: exit status 1."""
        return bool(self.stale) or any(f.status == "fail" for f in self.findings)

    @property
    def unexpected(self):
        """The expected deviations that pass now, as findings that fail, for JSON and JUnit."""
        return [Finding(self.name, f"expected/{glob}", "fail", None, f"unexpected pass: {glob} ({reason}): " + (
            f"{len(checks)} checks pass; take the entry out" if checks else
            "matches no check; correct the entry or take it out"), {"passed": list(checks)})
            for glob, reason, checks in self.stale]

    @property
    def summary(self):
        """"312 pass, 4 convention, 5 fail (3 of them invalid input that is not refused); 40 not implemented"."""
        said = ", ".join(f"{n} {status}" + self._refusals(status) for status, n in self.counts.items()
                         if n and status != "not-implemented")
        missing = self.counts["not-implemented"]
        return (said or "nothing judged") + (f"; {missing} not implemented" if missing else "")

    def _refusals(self, status):
        n = sum(f.of_invalid and f.status == status for f in self.findings) if status in ("fail", "deviation") else 0
        return f" ({n} of them invalid input that is not refused)" if n else ""

    def groups(self):
        """{family of checks: [findings]}: a table's lines; of samplers, steps and oracles by the second part too.

        What is asked with invalid input is one family, the last.
        """
        made = {}
        for f in sorted(self.findings, key=lambda f: f.of_invalid):
            parts = f.check.split("/")
            family = "/".join(parts[:2 if parts[0] in ("sampler", "step", "oracle") else 1])
            made.setdefault("invalid input" if f.of_invalid else family, []).append(f)
        return made
