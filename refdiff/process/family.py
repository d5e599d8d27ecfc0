"""What every family in continuous time shares: x_t = alpha(t) x_0 + sigma(t) eps, noise growing with t.

    family.level(t)                    the Level at a time
    family.at(lam), family.time(lam)   the Level, and the time, at a half log-SNR lambda = log(alpha/sigma)
    family.f(t), family.g2(t)          its SDE dx = f(t) x dt + g(t) dw, see sde.py

A family writes down private formulas of (t, xp), xp being the array module; what is public checks the range, computes
in float64 and returns a Python number for a number, an array for an array. Times and lambdas outside the family are
refused with ValueError. At its ends a derivative may be infinite; one that has no value there raises LimitError.
"""
import math

import numpy as np

from .. import backend
from .level import Level, everywhere
from .parameterization import LimitError

SLACK = 1e-9            # lambdas beyond an end by no more than this are that end: they were rounded on their way


def positive(rule, **values):
    """Refuses parameters of a family that are not finite and > 0."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"family {rule}: {name} is {value}, wanted finite and > 0")


def _float64(name, value):
    """(array module, value in float64): a number becomes np.float64, so that 1/0 is inf as in an array."""
    if getattr(value, "ndim", 0):
        xp = backend.of(**{name: value})
        return xp, xp.asarray(value, dtype=np.float64)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating, np.ndarray)):
        raise ValueError(f"family: {name} is {value!r}, wanted a number or an array of numbers")
    return np, np.float64(value)


def _plain(value):
    return value if getattr(value, "ndim", 0) else float(value)


class Family:
    """A family has a `rule`, the range [t_min, t_max] of its times and the formulas

    _alpha, _sigma, _alpha_dot, _sigma_dot of (t, xp);   _time, _pair of (lam, xp), _pair giving (alpha, sigma).
    """

    t_min, t_max = 0.0, 1.0

    # ---- of time

    def level(self, t):
        """The Level at time t, a number or an array (n,)."""
        return Level(t, self.alpha(t), self.sigma(t))

    def alpha(self, t):
        """The coefficient of the data."""
        return self._evaluate(t, "alpha")

    def sigma(self, t):
        """The coefficient of the noise."""
        return self._evaluate(t, "sigma")

    def lam(self, t):
        """lambda = log(alpha/sigma); inf where sigma = 0, -inf where alpha = 0."""
        return self._evaluate(t, "lam")

    def log_snr(self, t):
        """log(alpha^2/sigma^2) = 2 lambda."""
        return 2 * self.lam(t)

    def alpha_dot(self, t):
        """d alpha/dt."""
        return self._evaluate(t, "alpha_dot")

    def sigma_dot(self, t):
        """d sigma/dt; infinite where the variance leaves 0 with a slope."""
        return self._evaluate(t, "sigma_dot")

    def lam_dot(self, t):
        """d lambda/dt = alpha'/alpha - sigma'/sigma < 0."""
        return self._evaluate(t, "lam_dot")

    def f(self, t):
        """The drift's coefficient d log alpha/dt, -inf where alpha = 0."""
        return self._evaluate(t, "f")

    def g2(self, t):
        """The diffusion's square g^2 = d sigma^2/dt - 2 f sigma^2 = -2 sigma^2 d lambda/dt. [DPM eq. 3.2]"""
        return self._evaluate(t, "g2")

    # ---- of lambda

    def time(self, lam):
        """The time at lambda, the inverse of lam(t)."""
        xp, lam = self._check_lam(lam)
        with np.errstate(all="ignore"):
            t = self._time(lam, xp)
            return _plain(xp.minimum(xp.maximum(t, self.t_min), self.t_max))

    def at(self, lam):
        """The Level at lambda, a number or an array (n,): alpha and sigma to full precision, whatever t resolves.

        Down to the least numbers there are: from |lambda| = 745 on the smaller of the two is 0.
        """
        t = self.time(lam)
        xp, lam = self._check_lam(lam)
        with np.errstate(all="ignore"):
            alpha, sigma = self._pair(lam, xp)
        return Level(t, _plain(alpha), _plain(sigma))

    @property
    def lam_range(self):
        """(lowest, highest) lambda: at t_max and at t_min."""
        return self.lam(self.t_max), self.lam(self.t_min)

    # ---- what the families' formulas give

    def _lam(self, t, xp):
        return xp.log(self._alpha(t, xp)) - xp.log(self._sigma(t, xp))

    def _lam_dot(self, t, xp):
        return self._alpha_dot(t, xp) / self._alpha(t, xp) - self._sigma_dot(t, xp) / self._sigma(t, xp)

    def _f(self, t, xp):
        return self._alpha_dot(t, xp) / self._alpha(t, xp)

    def _g2(self, t, xp):
        sigma = self._sigma(t, xp)
        return 2 * sigma * (self._sigma_dot(t, xp) - self._f(t, xp) * sigma)

    # ---- checks

    def _evaluate(self, t, name):
        xp, t = self._check_time(t)
        with np.errstate(all="ignore"):
            value = getattr(self, "_" + name)(t, xp)
        if not everywhere(value == value):
            raise LimitError(f"{self.rule}: {name} has no value at an end (t = {t}); ask inside "
                             f"{self.t_min:g} < t < {self.t_max:g}")
        return _plain(value)

    def _check_time(self, t):
        xp, t = _float64("t", t)
        if not everywhere((t >= self.t_min) & (t <= self.t_max) & (t < np.inf)):
            raise ValueError(f"{self.rule}: t is {t}, wanted {self.t_min:.17g} <= t <= {self.t_max:.17g}, finite")
        return xp, t

    def _check_lam(self, lam):
        """lam in float64, brought back to an end that it has left by rounding alone."""
        xp, lam = _float64("lam", lam)
        low, high = self.lam_range
        if not everywhere((lam >= low - SLACK) & (lam <= high + SLACK)):
            raise ValueError(f"{self.rule}: lambda is {lam}, wanted {low:g} (t = {self.t_max:g}) "
                             f"to {high:g} (t = {self.t_min:g})")
        return xp, xp.minimum(xp.maximum(lam, low), high)
