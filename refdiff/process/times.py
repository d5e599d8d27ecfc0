"""Where a loss is evaluated: distributions of the training time, each with its draw, its density and its quantiles.

    L = int w(t) l(t) dt = E_{t ~ p} (w(t)/p(t)) l(t)

so that another p with weights 1/p changes the variance of the estimate and not what is estimated. Times are drawn from
uniform numbers through the quantile function, so that every distribution can be stratified. All on the host, float64.
"""
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri

from .. import backend

LEAST = 2.0 ** -54                     # stands for the draw 0, where quantiles are infinite: half the draws' step


def uniforms(key, n, stratified=False):
    """n >= 1 uniform numbers in (0, 1): independent, or u_i = (u_0 + i/n) mod 1, one in each n-th, stratified.

    Stratified (VDM's low discrepancy), each is uniform, and the error of a mean falls as 1/n, not as 1/sqrt(n).
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"uniforms: n is {n!r}, wanted an integer >= 1")
    if stratified:
        u = (float(backend.to_host(key.uniform(1))[0]) + np.arange(n) / n) % 1.0
    else:
        u = backend.to_host(key.uniform(n))
    return np.maximum(u, LEAST)


class Times:
    """What the distributions share: `quantile(u)` and `density(t)`, and so a draw of n times."""

    def draw(self, key, n, stratified=False):
        """n times, (n,)."""
        return self.quantile(uniforms(key, n, stratified))


def _check(name, good, **values):
    if not (good and all(map(math.isfinite, values.values()))):
        raise ValueError(f"{name}: got " + ", ".join(f"{k} = {v}" for k, v in values.items())
                         + f", wanted {WANTED[name]}")


WANTED = {"Uniform": "finite ends, low < high", "LogNormal": "finite numbers, std > 0",
          "LogitNormal": "finite numbers, scale > 0", "Mode": "-1 <= s <= 2/(pi - 2) = 1.75: beyond, times turn back"}


@dataclass(frozen=True)
class Uniform(Times):
    """p(t) = 1/(high - low) on (low, high)."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        _check("Uniform", self.low < self.high, low=self.low, high=self.high)

    def quantile(self, u):
        return self.low + u * (self.high - self.low)

    def density(self, t):
        return np.where((t >= self.low) & (t <= self.high), 1 / (self.high - self.low), 0.0)


def _normal_density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class LogNormal(Times):
    """ln sigma ~ N(mean, std^2), sigma the time. [EDM table 1]"""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self):
        _check("LogNormal", self.std > 0, mean=self.mean, std=self.std)

    def quantile(self, u):
        return np.exp(self.mean + self.std * ndtri(u))

    def density(self, t):
        """phi((ln t - mean)/std)/(t std), 0 for t <= 0."""
        inside = np.where(t > 0, t, 1.0)
        return np.where(t > 0, _normal_density((np.log(inside) - self.mean) / self.std) / (inside * self.std), 0.0)


@dataclass(frozen=True)
class LogitNormal(Times):
    """log(t/(1 - t)) ~ N(loc, scale^2), t in (0, 1), 1 the noise. [SD3 eq. 19]"""

    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        _check("LogitNormal", self.scale > 0, loc=self.loc, scale=self.scale)

    def quantile(self, u):
        return expit(self.loc + self.scale * ndtri(u))

    def density(self, t):
        """phi((logit t - loc)/scale)/(scale t (1 - t)), 0 at both ends."""
        inside = np.where((t > 0) & (t < 1), t, 0.5)
        found = _normal_density((logit(inside) - self.loc) / self.scale) / (self.scale * inside * (1 - inside))
        return np.where((t > 0) & (t < 1), found, 0.0)


@dataclass(frozen=True)
class Mode(Times):
    """t = f(u) = 1 - u - s (cos^2(pi u/2) - 1 + u), u uniform: s > 0 prefers the middle, s < 0 the ends. [SD3 eq. 20]

    f runs from 1 to 0, so the quantile is f(1 - u). The density at both ends is not 0, unlike the logit-normal's.
    """

    s: float = 1.29

    def __post_init__(self):
        _check("Mode", -1 <= self.s <= 2 / (math.pi - 2), s=self.s)

    def quantile(self, u):
        """f(1 - u) = (1 + s) u - s sin^2(pi u/2), in which nothing cancels at 0."""
        return (1 + self.s) * u - self.s * np.sin(math.pi / 2 * u) ** 2

    def density(self, t):
        """1/|f'(u)| at f(u) = t, found by bisection: |f'| = 1 + s - s (pi/2) sin(pi u)."""
        low, high = np.zeros(np.shape(t)), np.ones(np.shape(t))
        for _ in range(60):
            u = (low + high) / 2
            below = self.quantile(u) < t
            low, high = np.where(below, u, low), np.where(below, high, u)
        slope = np.maximum(1 + self.s - self.s * math.pi / 2 * np.sin(math.pi * (low + high) / 2), 0)
        with np.errstate(divide="ignore"):                       # infinite at 1/2 for the largest s
            return np.where((t >= 0) & (t <= 1), 1 / slope, 0.0)


@dataclass(frozen=True)
class CosMap(Times):
    """t = 1 - 1/(tan(pi u/2) + 1), u uniform: the straight path at the log-SNRs of the cosine schedule. [SD3 eq. 21]"""

    def quantile(self, u):
        """tan/(1 + tan) of pi u/2, or 1/(1 + cot) beyond the middle."""
        tan = np.tan(math.pi / 2 * np.minimum(u, 1 - u))
        return np.where(u < 0.5, tan, 1.0) / (1 + tan)

    def density(self, t):
        """2/(pi (1 - 2 t + 2 t^2))."""
        return np.where((t >= 0) & (t <= 1), 2 / (math.pi * (1 - 2 * t + 2 * t * t)), 0.0)


# ---- importance of the steps of a discrete schedule

def _real(name, values):
    """Values in float64, of integers or floats alone: no imaginary part is dropped in silence."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"SecondMoment: {name} are {values.dtype}, wanted real numbers")
    return values.astype(np.float64)


class SecondMoment:
    """p_t ~ sqrt(E L_t^2) over t = 1..T, from the last `history` losses at every t; uniform until all are known.

    [IDDPM eq. 18]. The loss of a drawn t is weighted by 1/(T p_t), so that the mean estimates (1/T) sum_t L_t whatever
    p is; p ~ sqrt(E L_t^2) has the least variance. `uniform`, which the paper does not have, mixes in that share of the
    uniform distribution, so that no p_t is 0 (.001 in its authors' code).
    """

    def __init__(self, T, history=10, uniform=0.0):
        for name, value in (("T", T), ("history", history)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"SecondMoment: {name} is {value!r}, wanted an integer >= 1")
        if not 0 <= uniform <= 1:
            raise ValueError(f"SecondMoment: uniform is {uniform!r}, wanted a share in [0, 1]")
        self.T, self.history, self.uniform = int(T), int(history), float(uniform)
        self.losses, self.counts = np.zeros((self.T, self.history)), np.zeros(self.T, np.int64)

    def update(self, t, losses):
        """Remember the losses (n,) at the times t (n,), the oldest of a time forgotten first."""
        t, losses = np.asarray(backend.to_host(t)), _real("losses", backend.to_host(losses))
        if t.ndim != 1 or t.shape != losses.shape or t.dtype.kind not in "iu":
            raise ValueError(f"SecondMoment: t {t.dtype}{t.shape}, losses {losses.shape}, wanted integers (n,) and "
                             "numbers (n,)")
        if t.size and (t.min() < 1 or t.max() > self.T) or not np.all(np.isfinite(losses)):
            raise ValueError(f"SecondMoment: wanted t in 1..{self.T} and finite losses")
        for i, loss in zip(t - 1, losses):
            self.losses[i, self.counts[i] % self.history] = loss
            self.counts[i] += 1

    def probabilities(self):
        """p_1..p_T, (T,)."""
        top = np.abs(self.losses).max()
        if np.any(self.counts < self.history) or not top > 0:
            return np.full(self.T, 1 / self.T)
        root = np.hypot.reduce(np.abs(self.losses) / top, axis=1)        # of squares that neither overflow nor vanish
        return (1 - self.uniform) * root / root.sum() + self.uniform / self.T

    def draw(self, key, n, stratified=False):
        """(t, weight): n times in 1..T and 1/(T p_t) of each."""
        p = self.probabilities()
        cumulative = np.cumsum(p)
        t = 1 + np.searchsorted(cumulative / cumulative[-1], uniforms(key, n, stratified), side="right")
        return t, 1 / (self.T * p[t - 1])

    def state(self):
        """What `load` needs, as arrays."""
        return {"losses": self.losses.copy(), "counts": self.counts.copy()}

    def load(self, state):
        """Go on from a `state` of the same T and history."""
        losses, counts = _real("losses", state["losses"]).copy(), np.array(state["counts"])
        if losses.shape != self.losses.shape or counts.shape != self.counts.shape:
            raise ValueError(f"SecondMoment: the state has losses {losses.shape} and counts {counts.shape}, wanted "
                             f"{self.losses.shape} and {self.counts.shape}: another T or history")
        if counts.dtype.kind not in "iu" or np.any(counts < 0) or not np.all(np.isfinite(losses)):
            raise ValueError("SecondMoment: no `update` leaves the losses or counts of this state; wanted finite "
                             "losses and integer counts >= 0")
        self.losses, self.counts = losses, counts.astype(np.int64)


TIMES = {"uniform": Uniform, "log_normal": LogNormal, "logit_normal": LogitNormal, "mode": Mode, "cos_map": CosMap}
