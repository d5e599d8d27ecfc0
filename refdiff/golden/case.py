"""One golden case: what to compute from what, what the answer is, who says so, and what a failure usually means.

A case's `operation` is the name of the method that an adapter answers it with, its `inputs` are that method's keyword
arguments, and `expected` holds the answer's fields. A verdict is

    valid        the answer must agree within the tolerance of the dtype it was computed in
    acceptable   two published conventions: `accepted` lists the others, each with its own answer
    invalid      must be refused with an error, or at least not answered with finite numbers
"""
import math
from dataclasses import dataclass, field

import numpy as np

VERDICTS = ("valid", "acceptable", "invalid")
UNIT = {"float64": 2.0 ** -53, "float32": 2.0 ** -24}


@dataclass(frozen=True, eq=False)
class Case:
    """A case. Raises ValueError for an id that is no path, an unknown verdict, or tolerances that are missing."""

    id: str
    operation: str
    inputs: dict
    expected: dict
    equation: str               # "DDIM eq. 12", as in papers/
    oracle: str                 # "mpmath, 50 digits", "closed form", "refdiff, extended precision"
    condition: float            # relative error of the answer per relative error of the inputs
    tolerance: dict             # {"float64": .., "float32": ..}: relative to the largest entry expected
    flags: tuple = ()           # the mistakes that a failure usually means, by name of their convention
    verdict: str = "valid"
    accepted: tuple = field(default=())         # ({"convention": name, "expected": {...}}, ...)

    def __post_init__(self):
        if not self.id or any(not part or set(part) - set("abcdefghijklmnopqrstuvwxyz0123456789_.+-")
                              for part in self.id.split("/")):
            raise ValueError(f"case: id is {self.id!r}, wanted a path of small letters, digits and _.+-")
        if self.verdict not in VERDICTS:
            raise ValueError(f"case {self.id}: verdict is {self.verdict!r}, wanted one of {', '.join(VERDICTS)}")
        if (self.verdict == "acceptable") != bool(self.accepted):
            raise ValueError(f"case {self.id}: verdict is {self.verdict} with {len(self.accepted)} accepted answers")
        if self.verdict != "invalid" and (not self.expected or set(self.tolerance) != set(UNIT)):
            raise ValueError(f"case {self.id}: wanted expected values and a tolerance for each of {', '.join(UNIT)}")


def tolerances(condition, operations=1):
    """{dtype: tolerance} for an answer of this condition number after so many rounded operations, with a factor 8."""
    return {name: 8 * unit * max(1.0, condition) * math.sqrt(max(1, operations)) + 8 * unit
            for name, unit in UNIT.items()}


def digits(got, expected):
    """-log10 of the greatest error relative to the largest entry expected, 0 to 17; None where shapes differ.

    A number that is not finite where a finite one is expected (or the other way round) agrees in no digit.
    """
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if got.shape != expected.shape:
        return None
    if not expected.size:
        return 17.0
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    if same.all():
        return 17.0
    finite = np.isfinite(got) & np.isfinite(expected)
    if not (finite | same).all():
        return 0.0
    scale = np.abs(expected[np.isfinite(expected)]).max() or 1.0
    error = np.abs(got[finite] - expected[finite]).max() / scale
    return float(min(17.0, max(0.0, -math.log10(error)))) if error > 0 else 17.0
