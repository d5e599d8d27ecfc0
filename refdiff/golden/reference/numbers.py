"""Numbers of any precision behind one set of functions: float64 for audits, mpmath's at 50 digits for the files.

Arrays are NumPy arrays, of float64 or of mpmath's numbers, so that the same formulas serve both.

    num.real("0.02"), num.sqrt(a), num.array([["0.1"]]), num.each(num.exp, x)

`stored` is called on what an implementation keeps in tables and states between steps: the identity; a rounding to
float32; or, to measure a condition number, a relative error of size `delta` with a random sign and magnitude.
"""
import math
import random
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Any, Callable

import numpy as np


@dataclass(frozen=True)
class Numbers:
    """One kind of number: how they are made, their functions, pi, and what becomes of a stored one."""

    name: str
    make: Callable
    sqrt: Callable
    exp: Callable
    log: Callable
    log1p: Callable
    expm1: Callable
    sin: Callable
    cos: Callable
    tanh: Callable
    atan: Callable
    tan: Callable
    erfc: Callable
    pi: Any
    dtype: Any
    stored: Callable = staticmethod(lambda value: value)
    naive: bool = False            # 1 - abar is computed from the stored abar, as most code does
    base: Any = None               # of perturbed numbers: those whose tables are looked up, and perturbed then

    def real(self, value):
        """A number of this kind from an int, a float, a decimal string, or a number of it."""
        return self.make(value)

    def array(self, values):
        """An array of these numbers from nested lists or arrays."""
        values = np.asarray(values, dtype=object)
        made = np.empty(values.shape, dtype=self.dtype)
        for index in np.ndindex(*values.shape):
            made[index] = self.real(values[index])
        return made

    def each(self, function, array):
        """The function of every entry."""
        made = np.empty(np.shape(array), dtype=self.dtype)
        for index in np.ndindex(*made.shape):
            made[index] = function(array[index])
        return made

    def keep(self, array):
        """Every entry of an array `stored`."""
        return self.each(self.stored, array)


FLOAT = Numbers("float64", float, math.sqrt, math.exp, math.log, math.log1p, math.expm1, math.sin, math.cos, math.tanh,
                math.atan, math.tan, math.erfc, math.pi, np.float64)
SINGLE = replace(FLOAT, name="float32 tables", stored=lambda value: float(np.float32(value)), naive=True)
_EXACT = {}


def _no_array(value):
    raise TypeError("an array is no number")


def exact(digits=50):
    """mpmath's numbers with so many decimal digits. Raises ImportError where mpmath is not installed."""
    if digits not in _EXACT:
        try:
            import mpmath
        except ImportError as error:
            raise ImportError("golden: the truth is computed with mpmath; install refdiff[test]") from error
        mp = mpmath.MPContext()
        mp.dps = digits
        mp.npconvert = _no_array                        # mpmath's own words hold the array's repr, which takes long
        _EXACT[digits] = Numbers(
            f"mpmath, {digits} digits", lambda v: mp.mpf(v.item() if isinstance(v, np.generic) else v), mp.sqrt, mp.exp,
            mp.log, mp.log1p, mp.expm1, mp.sin, mp.cos, mp.tanh, mp.atan, mp.tan, mp.erfc, +mp.pi, object)
    return _EXACT[digits]


def perturbed(num, seed, delta="1e-20"):
    """The numbers whose inputs and stored values carry relative errors in -delta..delta, by a seed."""
    draw, delta = random.Random(seed), num.real(delta)

    def stored(value):
        return value * (1 + delta * num.real(draw.uniform(-1, 1)))

    return replace(num, name=f"{num.name}, perturbed", stored=stored, naive=True, base=num)


def decimal(value, digits=20):
    """A decimal string with so many significant digits, as short as it can be: "0.02", "-1.5e-9", "3"."""
    text = f"{_as_decimal(value):.{digits - 1}e}"
    mantissa, exponent = text.split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    e = int(exponent)
    figures = mantissa.replace("-", "").replace(".", "")
    sign = "-" if mantissa.startswith("-") else ""
    if set(figures) == {"0"}:
        return "0"
    if not -5 <= e <= digits:
        return f"{mantissa}e{e}"
    if e < 0:
        return f"{sign}0.{'0' * (-e - 1)}{figures}"
    figures = figures.ljust(e + 1, "0")
    whole, part = figures[:e + 1], figures[e + 1:]
    return f"{sign}{whole}" + (f".{part}" if part else "")


def _as_decimal(value):
    if isinstance(value, (int, float, np.number)):
        return Decimal(value.item() if isinstance(value, np.number) else value)
    sign, man, exp, _ = value._mpf_                     # mpmath's number: (-1)^sign man 2^exp, exactly
    context = Context(prec=120)
    scale = context.power(Decimal(2), Decimal(int(exp)))
    return context.multiply(Decimal(int(man)) * (-1 if sign else 1), scale)
