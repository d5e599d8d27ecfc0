"""Families in continuous time, by name. What each can be asked is in family.py; SNR is alpha^2/sigma^2 everywhere.

    family               alpha          sigma                   t            what it is
    VarianceExploding    1              t                       0 ..         EDM's
    Geometric            1              sigma_min (max/min)^t   0 .. 1       the VE SDE
    Flow                 1 - t          t                       0 .. 1       rectified flow, shifted by resolution
    TrigFlow             cos t          sigma_data sin t        0 .. pi/2    the straight path on a circle
    VP                   exp(-B/2)      sqrt(1 - exp(-B))       0 .. 1       B = int beta, beta linear
    SubVP                exp(-B/2)      1 - exp(-B)             0 .. 1       does not preserve the variance
    Cosine               cos w/cos u    sqrt(1 - alpha^2)       0 .. 1       shifted by resolution
    Laplace              of log SNR     sqrt(1 - alpha^2)       0 .. 1
    Interpolated         of a discrete schedule                 1 .. T       t linear in lambda in between

The last five are in preserving.py.
"""
import math
from dataclasses import dataclass

from .family import Family, positive
from .preserving import VP, Cosine, Interpolated, Laplace, SubVP, preserving, split

__all__ = ["VarianceExploding", "EDM", "Geometric", "Flow", "dynamic_shift", "TrigFlow", "VP", "SubVP", "Cosine",
           "Laplace", "Interpolated", "FAMILIES"]


@dataclass(frozen=True)
class VarianceExploding(Family):
    """alpha = 1, sigma = t, 0 <= t: EDM's family, f = 0, g^2 = 2 t."""

    t_max = math.inf
    rule = "ve"

    @property
    def lam_range(self):
        return -math.inf, math.inf

    def _alpha(self, t, xp):
        return t * 0 + 1

    def _sigma(self, t, xp):
        return t * 1

    def _alpha_dot(self, t, xp):
        return t * 0

    def _sigma_dot(self, t, xp):
        return t * 0 + 1

    def _time(self, lam, xp):
        return xp.exp(-lam)

    def _pair(self, lam, xp):
        return xp.ones_like(lam), xp.exp(-lam)


EDM = VarianceExploding


@dataclass(frozen=True)
class Geometric(VarianceExploding):
    """The VE SDE: alpha = 1, f = 0, g^2 = d(sigma_min^2 r^2t)/dt, r = sigma_max/sigma_min. [SDE eq. 9]

    Started on clean data at t = 0, that SDE has sigma^2 = sigma_min^2 (r^2t - 1) [SDE sec. B]. from_clean=False drops
    the -1, as common code does, so that the process starts with noise sigma_min. Both have the same f and g^2.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    from_clean: bool = True

    t_max = 1.0

    def __post_init__(self):
        positive(self.rule, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"family {self.rule}: wanted sigma_min < sigma_max")

    @property
    def rule(self):
        return f"geometric(sigma_min={self.sigma_min:g}, sigma_max={self.sigma_max:g}, from_clean={self.from_clean})"

    @property
    def lam_range(self):
        return self.lam(1.0), self.lam(0.0)

    @property
    def log_ratio(self):
        """log r."""
        return math.log(self.sigma_max) - math.log(self.sigma_min)

    def _grown(self, t, xp):
        """sigma_min r^t, in halves: r alone may be beyond the largest number."""
        half = xp.exp(self.log_ratio * t / 2)
        return self.sigma_min * half * half

    def _rest(self, t, xp):
        """sigma/(sigma_min r^t): sqrt(1 - r^-2t), or 1 if the process starts with noise."""
        return xp.sqrt(-xp.expm1(-2 * self.log_ratio * t)) if self.from_clean else 1.0

    def _sigma(self, t, xp):
        return self._grown(t, xp) * self._rest(t, xp)

    def _g2(self, t, xp):
        return 2 * self.log_ratio * self._grown(t, xp) ** 2

    def _sigma_dot(self, t, xp):
        return self.log_ratio * self._grown(t, xp) / self._rest(t, xp)

    def _time(self, lam, xp):
        grown = -lam - math.log(self.sigma_min)                                   # log(sigma/sigma_min)
        return (xp.logaddexp(0.0, 2 * grown) / 2 if self.from_clean else grown) / self.log_ratio


@dataclass(frozen=True)
class Flow(Family):
    """alpha = 1 - tau, sigma = tau with tau = t: the straight path, dx/dt = eps - x_0. [RF eq. 1] [SD3 eq. 13]

    A shift for the resolution moves the time: tau = s t^p/(s t^p + (1 - t)^p), so lambda is p lambda(t) - log s. With
    p = 1, tau = s t/(1 + (s - 1) t); s = sqrt(pixels/base pixels), or tuned, or `dynamic_shift`. [SD3 eq. 23]
    A network that was trained with a shift is told tau, so on its levels use Flow() at times `tau`.
    """

    shift: float = 1.0
    power: float = 1.0

    def __post_init__(self):
        positive(self.rule, shift=self.shift, power=self.power)

    @property
    def rule(self):
        return "flow" if self.shift == self.power == 1 else f"flow(shift={self.shift:g}, power={self.power:g})"

    def tau(self, t):
        """The shifted time, which is sigma."""
        return self.sigma(t)

    def _sum(self, t):
        """s t^p + (1 - t)^p."""
        return 1.0 if self.shift == self.power == 1 else self.shift * t ** self.power + (1 - t) ** self.power

    def _alpha(self, t, xp):
        return (1 - t) ** self.power / self._sum(t)

    def _sigma(self, t, xp):
        return self.shift * t ** self.power / self._sum(t)

    def _sigma_dot(self, t, xp):
        return self.power * self.shift * (t * (1 - t)) ** (self.power - 1) / self._sum(t) ** 2

    def _alpha_dot(self, t, xp):
        return -self._sigma_dot(t, xp)

    def _time(self, lam, xp):
        return 1 / (1 + xp.exp((lam + math.log(self.shift)) / self.power))

    def _pair(self, lam, xp):
        return split(lam, xp, lambda r: 1 / (1 + r))


def dynamic_shift(tokens, base=(256, 0.5), top=(4096, 1.15)):
    """The shift e^mu of an image in tokens: mu is the line through (tokens, mu) = base and top. [SD3 sec. 5.3.2]"""
    positive("flow, dynamic shift", tokens=tokens)
    if not (all(map(math.isfinite, (*base, *top))) and base[0] != top[0]):
        raise ValueError(f"flow, dynamic shift: base {base} and top {top}, wanted finite numbers and different tokens")
    mu = base[1] + (top[1] - base[1]) / (top[0] - base[0]) * (tokens - base[0])
    if not abs(mu) < 700:
        raise ValueError(f"flow, dynamic shift: mu is {mu:g} at {tokens:g} tokens, and e^mu is no number; wanted "
                         "|mu| < 700")
    return math.exp(mu)


@dataclass(frozen=True)
class TrigFlow(Family):
    """alpha = cos t, sigma = sigma_data sin t, 0 <= t <= pi/2, refused beyond; alpha(pi/2) is 0. [TRIG sec. 3]

    With sigma_data the data's standard deviation, x_t keeps it at every t. dx/dt = -sin t x_0 + cos t sigma_data eps.
    """

    sigma_data: float = 1.0

    t_max = math.pi / 2

    def __post_init__(self):
        positive(self.rule, sigma_data=self.sigma_data)

    @property
    def rule(self):
        return "trigflow" if self.sigma_data == 1 else f"trigflow(sigma_data={self.sigma_data:g})"

    def _alpha(self, t, xp):
        return xp.cos(t) * (t < self.t_max)

    def _sigma(self, t, xp):
        return self.sigma_data * xp.sin(t)

    def _alpha_dot(self, t, xp):
        return -xp.sin(t)

    def _sigma_dot(self, t, xp):
        return self.sigma_data * self._alpha(t, xp)

    def _time(self, lam, xp):
        return xp.arctan(xp.exp(-lam) / self.sigma_data)

    def _pair(self, lam, xp):
        cos, sin = preserving(lam + math.log(self.sigma_data), xp)
        return cos, self.sigma_data * sin


FAMILIES = {"ve": VarianceExploding, "geometric": Geometric, "vp": VP, "subvp": SubVP, "flow": Flow,
            "trigflow": TrigFlow, "cosine": Cosine, "laplace": Laplace}
