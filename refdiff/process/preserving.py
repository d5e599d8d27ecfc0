"""Families with alpha^2 + sigma^2 = 1, and sub-VP, which shares VP's drift. What each can be asked is in family.py."""
import math
from dataclasses import dataclass

import numpy as np

from .family import SLACK, Family, positive
from .level import anywhere


def split(lam, xp, larger):
    """(alpha, sigma) of the ratio e^lam, whose larger one is larger(r) and the other r larger(r), r = e^-|lam|.

    No e^2|lam| is formed, which overflows from |lam| = 355 on; r is 0 from 745 on.
    """
    r = xp.exp(-xp.abs(lam))
    big = larger(r)
    return xp.where(lam >= 0, big, r * big), xp.where(lam >= 0, r * big, big)


def preserving(lam, xp):
    """(alpha, sigma) at lambda where alpha^2 + sigma^2 = 1: 1/sqrt(1 + e^-2lam) and 1/sqrt(1 + e^2lam)."""
    return split(lam, xp, lambda r: 1 / xp.sqrt(1 + r * r))


@dataclass(frozen=True)
class _LinearBeta(Family):
    """alpha = exp(-B/2), B(t) = int_0^t beta, f = -beta/2."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        positive(self.rule, beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_max < self.beta_min:
            raise ValueError(f"family {self.rule}: wanted beta_min <= beta_max")

    @property
    def rule(self):
        return f"{type(self).__name__.lower()}(beta_min={self.beta_min:g}, beta_max={self.beta_max:g})"

    def beta(self, t):
        """beta_min + t (beta_max - beta_min). [SDE sec. 3.4]"""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def B(self, t):
        """int_0^t beta."""
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def _when(self, B, xp):
        """The time of an integral B: the quadratic's root in the form that does not cancel. [DPM sec. D.4]"""
        return 2 * B / (self.beta_min + xp.sqrt(self.beta_min ** 2 + 2 * (self.beta_max - self.beta_min) * B))

    def _alpha(self, t, xp):
        return xp.exp(-self.B(t) / 2)

    def _alpha_dot(self, t, xp):
        return self._f(t, xp) * self._alpha(t, xp)

    def _f(self, t, xp):
        return -self.beta(t) / 2


class VP(_LinearBeta):
    """alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B = int beta: f = -beta/2, g^2 = beta. [SDE eq. 11]

    The limit of DDPM's linear schedule with beta_t = beta(t/T)/T as T grows. It ends with some signal left: alpha(1)
    is 0.00657 by default, where the discrete schedule of 1000 steps has 0.00635.
    """

    def _sigma(self, t, xp):
        return xp.sqrt(-xp.expm1(-self.B(t)))

    def _lam(self, t, xp):
        return -(self.B(t) + xp.log(-xp.expm1(-self.B(t)))) / 2

    def _sigma_dot(self, t, xp):
        return self.beta(t) * xp.exp(-self.B(t)) / (2 * self._sigma(t, xp))

    def _lam_dot(self, t, xp):
        return self.beta(t) / (2 * xp.expm1(-self.B(t)))

    def _g2(self, t, xp):
        return self.beta(t)

    def _time(self, lam, xp):
        return self._when(xp.log1p(xp.exp(-2 * xp.abs(lam))) + xp.maximum(-2 * lam, 0), xp)

    def _pair(self, lam, xp):
        return preserving(lam, xp)


class SubVP(_LinearBeta):
    """alpha = exp(-B/2), sigma = 1 - exp(-B): f = -beta/2, g^2 = beta (1 - exp(-2B)). [SDE eq. 12]

    Its sigma is VP's squared, so it does not preserve the variance: alpha^2 + sigma^2 = 1 - alpha^2 + alpha^4 < 1.
    """

    def _sigma(self, t, xp):
        return -xp.expm1(-self.B(t))

    def _lam(self, t, xp):
        return -self.B(t) / 2 - xp.log(-xp.expm1(-self.B(t)))

    def _sigma_dot(self, t, xp):
        return self.beta(t) * xp.exp(-self.B(t))

    def _lam_dot(self, t, xp):
        return -self.beta(t) * (0.5 + 1 / xp.expm1(self.B(t)))

    def _g2(self, t, xp):
        return -self.beta(t) * xp.expm1(-2 * self.B(t))

    def _pair(self, lam, xp):
        """alpha = e^lam sigma and sigma = 1 - alpha^2, so, with r = e^-|lam|, sigma = 2/(1 + sqrt(1 + 4 r^2)) for
        lam < 0, and else alpha = 2/(r + sqrt(r^2 + 4)).
        """
        return split(lam, xp, lambda r: 2 / xp.where(lam >= 0, r + xp.sqrt(r * r + 4), 1 + xp.sqrt(1 + 4 * r * r)))

    def _time(self, lam, xp):
        _, sigma = self._pair(lam, xp)
        return self._when(xp.where(sigma < 0.5, -xp.log1p(-sigma), -2 * (lam + xp.log(sigma))), xp)


class Preserving(Family):
    """alpha^2 + sigma^2 = 1. All follows from `_lam` and `_lam_dot`, in which nothing cancels at either end:

    alpha' = alpha sigma^2 lam',  sigma' = -sigma alpha^2 lam',
    f = sigma^2 lam',  g^2 = -2 f.
    """

    def _pair(self, lam, xp):
        return preserving(lam, xp)

    def _alpha(self, t, xp):
        return preserving(self._lam(t, xp), xp)[0]

    def _sigma(self, t, xp):
        return preserving(self._lam(t, xp), xp)[1]

    def _alpha_dot(self, t, xp):
        return self._alpha(t, xp) * self._f(t, xp)

    def _sigma_dot(self, t, xp):
        return -self._sigma(t, xp) * self._alpha(t, xp) ** 2 * self._lam_dot(t, xp)

    def _f(self, t, xp):
        return self._sigma(t, xp) ** 2 * self._lam_dot(t, xp)

    def _g2(self, t, xp):
        return -2 * self._f(t, xp)


@dataclass(frozen=True)
class Cosine(Preserving):
    """alpha = cos w/cos u, u = q s, w = q (t + s), q = pi/2/(1 + s): the cosine schedule, unclipped. [IDDPM eq. 17]

    It ends without signal. s = 0 is alpha = cos(pi t/2), sigma = sin(pi t/2) (written alpha = sin(pi t/2) where t runs
    from noise to data). `shift` = d/base multiplies sigma/alpha for images of side d after a schedule made for side
    base: log SNR falls by 2 log(shift) [SIMPLEDIFF sec. 3.1]. With alpha_0, sigma_0 unshifted and
    N^2 = alpha_0^2 + shift^2 sigma_0^2: alpha = alpha_0/N, sigma = shift sigma_0/N.
    """

    s: float = 0.008
    shift: float = 1.0

    def __post_init__(self):
        positive(self.rule, shift=self.shift)
        if not 0 <= self.s < math.inf:
            raise ValueError(f"family {self.rule}: wanted s >= 0")

    @property
    def rule(self):
        return f"cosine(s={self.s:g}, shift={self.shift:g})"

    def _angles(self, t, xp):
        """sin w, cos w, cos u, and sigma_0 cos u/sin w = sqrt(sin(w + u) sin(w - u))/sin w, which is 1 if s = 0."""
        q = math.pi / 2 / (1 + self.s)
        sin_w, cos_w = xp.cos(q * (1 - t)), xp.sin(q * (1 - t))                 # of pi/2 - w: 0 is 0 at the end
        both = xp.where(2 * self.s + t < 1, xp.sin(q * (2 * self.s + t)), xp.sin(q * (2 - t)))      # sin(w + u)
        sin_w = xp.where(t + self.s < 0.5, xp.sin(q * (t + self.s)), sin_w)
        return sin_w, cos_w, math.cos(q * self.s), 1.0 if self.s == 0 else xp.sqrt(both * xp.sin(q * t)) / sin_w

    def _unshifted(self, t, xp):
        """q, sin w, cos u, the root, alpha_0, sigma_0 and N."""
        sin_w, cos_w, cos_u, root = self._angles(t, xp)
        alpha, sigma = cos_w / cos_u, root * sin_w / cos_u
        return (math.pi / 2 / (1 + self.s), sin_w, cos_u, root, alpha, sigma,
                xp.sqrt(alpha ** 2 + (self.shift * sigma) ** 2))

    def _lam(self, t, xp):
        *_, alpha, sigma, _ = self._unshifted(t, xp)
        return xp.log(alpha) - xp.log(self.shift * sigma)

    def _alpha_dot(self, t, xp):
        q, sin_w, cos_u, *_, N = self._unshifted(t, xp)
        return -self.shift ** 2 * q * sin_w / (cos_u * N ** 3)

    def _sigma_dot(self, t, xp):
        q, _, _, root, alpha, _, N = self._unshifted(t, xp)
        return self.shift * q * alpha / (root * N ** 3)

    def _f(self, t, xp):
        q, sin_w, cos_u, _, alpha, _, N = self._unshifted(t, xp)
        return -self.shift ** 2 * q * sin_w / (cos_u * alpha * N ** 2)

    def _lam_dot(self, t, xp):
        q, sin_w, cos_u, root, alpha, *_ = self._unshifted(t, xp)
        return -q * cos_u / (alpha * sin_w * root ** 2)

    def _time(self, lam, xp):
        """tan^2 w = (sin^2 u + cos^2 u sigma_0^2)/(cos^2 u alpha_0^2); while w is near u, w - u from its sine."""
        q = math.pi / 2 / (1 + self.s)
        alpha, sigma = self._pair(lam + math.log(self.shift), xp)
        sin_u, cos_u = math.sin(q * self.s), math.cos(q * self.s)
        w = xp.arctan2(xp.hypot(sin_u, cos_u * sigma), cos_u * alpha)
        if self.s == 0:
            return w / q
        sine = xp.minimum((cos_u * sigma) ** 2 / xp.sin(w + q * self.s), 1.0)
        return xp.where(w < 0.5, xp.arcsin(sine), w - q * self.s) / q


@dataclass(frozen=True)
class Laplace(Preserving):
    """log SNR = mean - scale sign(1/2 - t) log(1 - |1 - 2t|), Laplace distributed for uniform t. [LAPLACE sec. 3]

    All signal at t = 0, none at t = 1, most times near log SNR = mean. Derivatives at the two ends raise LimitError.
    """

    mean: float = 0.0
    scale: float = 0.5

    def __post_init__(self):
        positive(self.rule, scale=self.scale)
        if not math.isfinite(self.mean):
            raise ValueError(f"family {self.rule}: mean is {self.mean}, wanted finite")

    @property
    def rule(self):
        return f"laplace(mean={self.mean:g}, scale={self.scale:g})"

    def _lam(self, t, xp):
        return (self.mean - self.scale * xp.sign(0.5 - t) * xp.log(2 * xp.minimum(t, 1 - t))) / 2

    def _lam_dot(self, t, xp):
        return -self.scale / (2 * xp.minimum(t, 1 - t))

    def _time(self, lam, xp):
        z = (2 * lam - self.mean) / self.scale
        half = xp.exp(-xp.abs(z)) / 2
        return xp.where(z >= 0, half, 1 - half)


@dataclass(frozen=True)
class Interpolated(Preserving):
    """A discrete schedule between its integer times 1 <= t <= T: t is linear in lambda from one to the next.

    Linear in lambda is linear in log(sigma/alpha), as noise conditioning by sigma mostly does it; linear in sigma/alpha
    itself is another convention. t = 0 and, where alpha_T = 0, t = T are levels too, but alone: nothing is between
    them and the next. lam_dot is that of the piece on the clean side of t.
    """

    schedule: object

    def __post_init__(self):
        ends = self.schedule.alpha[-1] == 0
        table = self.schedule.log_snr[1:-1 if ends else None] / 2                # falls with t = 1, 2, ..
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "t_max", float(self.schedule.T))
        if not len(table):
            raise ValueError(f"family {self.rule}: no level has both signal and noise")

    @property
    def rule(self):
        return f"interpolated {self.schedule.rule}"

    @property
    def lam_range(self):
        return (-math.inf if self.schedule.alpha[-1] == 0 else self._table[-1]), math.inf

    def _check_time(self, t):
        xp, t = super()._check_time(t)
        last = len(self._table)
        if anywhere((t != 0) & (t < 1) | (t > last) & (t < self.t_max)):
            raise ValueError(f"{self.rule}: t is {t}, wanted 0 or 1 <= t <= {last}" +
                             (f" or {self.t_max:g}" if last < self.t_max else ""))
        return xp, t

    def _check_lam(self, lam):
        xp, lam = super()._check_lam(lam)
        low, high = self._table[-1], self._table[0]
        inside = (lam >= low - SLACK) & (lam <= high + SLACK)
        if anywhere(~inside & (xp.abs(lam) < math.inf)):
            raise ValueError(f"{self.rule}: lambda is {lam}, wanted {low:g} (t = {len(self._table)}) to {high:g} "
                             "(t = 1), or that of an end without noise or signal")
        return xp, xp.where(inside, xp.minimum(xp.maximum(lam, low), high), lam)

    def _lam(self, t, xp):
        between = xp.interp(t, xp.arange(1.0, len(self._table) + 1), xp.asarray(self._table))
        return xp.where(t < 1, math.inf, xp.where(t > len(self._table), -math.inf, between))

    def _lam_dot(self, t, xp):
        if len(self._table) < 2:
            return t * math.nan
        slopes = xp.asarray(np.diff(self._table))
        piece = xp.minimum(xp.maximum(xp.ceil(t).astype(np.int64) - 2, 0), len(slopes) - 1)
        return xp.where((t < 1) | (t > len(self._table)), math.nan, slopes[piece])

    def _time(self, lam, xp):
        t = xp.interp(-lam, -xp.asarray(self._table), xp.arange(1.0, len(self._table) + 1))
        return xp.where(lam == math.inf, 0.0, xp.where(lam == -math.inf, self.t_max, t))
