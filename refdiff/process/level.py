"""One noise level: x_t = alpha x_0 + sigma eps, with eps ~ N(0, I).

Every family is a pair (alpha, sigma): DDPM (sqrt(abar), sqrt(1 - abar)), EDM (1, sigma), flow (1 - t, t).
"""
import math
import sys
from dataclasses import dataclass

import numpy as np

from .. import backend


def expand(value, x):
    """`value` ready to multiply x[n, ...]: (n,) becomes (n, 1, ...) in x's dtype, where x lives; a number stays one.

    Raises ValueError if an array has not one entry per row of x.
    """
    if isinstance(value, (int, float)):
        return float(value)                    # np.float64 is a float too, and would turn float32 into float64
    value = backend.of(x=x).asarray(value, dtype=x.dtype)
    if value.shape != x.shape[:1]:
        raise ValueError(f"level: one entry per row is wanted, got {value.shape} for x of shape {x.shape}")
    return value.reshape(value.shape + (1,) * (x.ndim - 1))


def alike(what, **arrays):
    """The array module of named arrays of one shape and one dtype: nothing is broadcast, shared or cast in silence.

    Raises ValueError, naming `what` asked and the array that is unlike the first.
    """
    (name, first), *others = arrays.items()
    for other, array in others:
        if getattr(array, "shape", None) != first.shape or array.real.dtype != first.real.dtype:
            got = f"{array.dtype}{array.shape}" if hasattr(array, "shape") else f"a {type(array).__name__}"
            raise ValueError(f"{what}: {other} is {got} but {name} is {first.dtype}{first.shape}; wanted one shape and "
                             "one dtype, so that no row shares another's and nothing is cast")
    return backend.of(**arrays)


def anywhere(condition):
    """Whether a condition on a level's numbers or arrays holds for any of them."""
    return condition if isinstance(condition, bool) else bool(condition.any())


def everywhere(condition):
    """Whether a condition on a level's numbers or arrays holds for all of them."""
    return condition if isinstance(condition, bool) else bool(condition.all())


def hypot(a, b):
    """sqrt(a^2 + b^2) of numbers or of arrays, without their squares, which leave float64 from 1e-154 and 1e154 on."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.hypot(a, b)
    return backend.of(array=b if isinstance(a, (int, float)) else a).hypot(a, b)


def _number(value):
    """A Python number for any scalar (0-d arrays too); an array as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


@dataclass(frozen=True)
class Level:
    """A noise level (t, alpha, sigma): Python numbers, or arrays (n,) with one level per row of a batch.

    t is the family's own time (1..T, sigma, ...), what a network is told. alpha, sigma >= 0, finite, not both 0; NaN is
    refused in all three.
    """

    t: object
    alpha: object
    sigma: object

    def __post_init__(self):
        object.__setattr__(self, "t", _number(self.t))
        for name in ("alpha", "sigma"):
            value = _number(getattr(self, name))
            object.__setattr__(self, name, float(value) if isinstance(value, int) else value)
        shapes = [getattr(value, "shape", ()) for value in (self.t, self.alpha, self.sigma)]
        if len(set(shapes)) != 1 or len(shapes[0]) > 1:
            raise ValueError(f"level: t, alpha and sigma have shapes {shapes}, "
                             "wanted three numbers or three (n,) arrays")
        if shapes[0]:
            backend.of(alpha=self.alpha, sigma=self.sigma)
        size = self.alpha + self.sigma
        if not everywhere(self.t == self.t):
            raise ValueError(f"level: t is {self.t}, wanted a number")
        if not everywhere((self.alpha >= 0) & (self.sigma >= 0) & (size > 0) & (size < math.inf)):
            raise ValueError(f"level: alpha {self.alpha} and sigma {self.sigma} at t {self.t}: "
                             "both must be finite and >= 0, and not both 0")

    @property
    def ratio(self):
        """sigma/alpha: the noise level of x/alpha = x_0 + (sigma/alpha) eps, EDM's sigma. inf where alpha = 0, and
        where it is above 1.8e308.
        """
        if isinstance(self.alpha, float):
            return self.sigma / self.alpha if self.alpha else math.inf
        with np.errstate(divide="ignore", over="ignore"):
            return self.sigma / self.alpha

    @property
    def snr(self):
        """alpha^2/sigma^2, the signal-to-noise ratio. inf where sigma = 0, and where it is above 1.8e308."""
        if isinstance(self.alpha, float):
            root = self.alpha / self.sigma if self.sigma else math.inf
            return root * root                                  # a Python float's ** 2 raises where this is inf
        with np.errstate(divide="ignore", over="ignore"):
            return (self.alpha / self.sigma) ** 2

    @property
    def lam(self):
        """lambda = log(alpha/sigma), half the log-SNR. inf where sigma = 0, -inf where alpha = 0, and there alone."""
        number = isinstance(self.alpha, float)
        xp = np if number else backend.of(alpha=self.alpha)
        alpha, sigma, ratio = xp.asarray(self.alpha), xp.asarray(self.sigma), xp.asarray(self.ratio)
        normal = (ratio > sys.float_info.min) & (ratio < math.inf)
        with np.errstate(divide="ignore"):
            lam = xp.where(normal, -xp.log(ratio), xp.log(alpha) - xp.log(sigma))
        return float(lam) if number else lam

    def expand(self, x):
        """(alpha, sigma) ready to multiply x[n, ...]; see `expand`."""
        return expand(self.alpha, x), expand(self.sigma, x)

    def rows(self, index):
        """The level of the rows `index` (a slice): itself if it is one level for all rows."""
        if isinstance(self.alpha, float):
            return self
        return Level(self.t[index], self.alpha[index], self.sigma[index])


def ve(sigma):
    """The variance-exploding level x = x_0 + sigma eps with t = sigma: a number, or an array (n,)."""
    return Level(sigma, 1.0 if getattr(sigma, "ndim", 0) == 0 else sigma * 0 + 1, sigma)
