"""Grids: the levels that a sampler visits, noise first, with the rule that chose them.

    t_0 > t_1 > ... > t_S      S steps, the last level being the one that the sampler ends on

A sampler reads its next level from the grid; it never subtracts a stride from a time.
"""
from dataclasses import dataclass

import numpy as np

from .families import Interpolated, VarianceExploding
from .level import Level


@dataclass(frozen=True, eq=False)
class Grid:
    """S+1 levels in visiting order: arrays t, alpha, sigma of S+1 entries, and the rule that made them.

    `family` gives the levels between them, for solvers that evaluate there; None if the grid has none.

    Raises ValueError unless there is a step, and every level has a strictly larger SNR than the one before it.
    """

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray
    rule: str
    family: object = None

    def __post_init__(self):
        t = np.array(self.t)
        alpha, sigma = (np.array(a, dtype=np.float64) for a in (self.alpha, self.sigma))
        if t.ndim != 1 or len(t) < 2 or alpha.shape != t.shape or sigma.shape != t.shape:
            raise ValueError(f"grid {self.rule}: t, alpha, sigma have shapes {t.shape}, {alpha.shape}, {sigma.shape}, "
                             "wanted (S+1,) each with S >= 1 steps")
        if not (np.all(alpha >= 0) and np.all(sigma >= 0) and np.all(np.isfinite(alpha + sigma))):
            raise ValueError(f"grid {self.rule}: alpha and sigma must be finite and >= 0")
        flat = np.flatnonzero(~(alpha[1:] * sigma[:-1] > alpha[:-1] * sigma[1:]))    # alpha/sigma must grow
        if len(flat):
            i = int(flat[0])
            raise ValueError(f"grid {self.rule}: SNR does not grow from level {i} (t = {t[i]}) to level {i + 1} "
                             f"(t = {t[i + 1]}); wanted strictly less noise at every step")
        for name, table in (("t", t), ("alpha", alpha), ("sigma", sigma)):
            table.setflags(write=False)
            object.__setattr__(self, name, table)

    def __len__(self):
        """S, the number of steps."""
        return len(self.t) - 1

    def level(self, i):
        """The i-th level visited, i = 0 (most noise) .. S (the end), in Python numbers."""
        if not 0 <= i <= len(self):
            raise IndexError(f"grid {self.rule}: level {i}, wanted 0..{len(self)}")
        return Level(self.t[i], self.alpha[i], self.sigma[i])

    def at(self, lam):
        """The family's Level at lambda = log(alpha/sigma), between two levels of the grid."""
        if self.family is None:
            raise ValueError(f"grid {self.rule}: it names no family, so nothing is known between its levels; pass "
                             "Grid(..., family=...), or use a solver that evaluates at the grid's levels alone")
        return self.family.at(lam)


def _leading(T, S):
    """1 + floor(k T/S), k = 0..S-1: each time opens its interval; the noise end T is not visited unless S = T."""
    return 1 + np.arange(S) * T // S


def _trailing(T, S):
    """round(k T/S), k = 1..S (halves to even): each time closes its interval; T is visited, 1 is not unless S = T."""
    return np.rint(np.arange(1, S + 1) * T / S).astype(np.int64)


def _linspace(T, S):
    """1 + round(k (T-1)/(S-1)), k = 0..S-1 (halves to even): both ends are visited; one step alone visits T."""
    return 1 + np.rint(np.arange(S) * (T - 1) / (S - 1)).astype(np.int64) if S > 1 else np.array([T])


RULES = {"leading": _leading, "trailing": _trailing, "linspace": _linspace}


def discrete(schedule, steps, rule="trailing", final=0):
    """S = steps distinct times of a schedule, 1 <= S <= T, by a rule of RULES, then the final level.

    For T = 1000, S = 10: leading 901, 801, .., 1; trailing 1000, 900, .., 100; linspace 1000, 889, .., 1. Leading
    begins where some signal is left, so pure noise is not quite the right start for it. `final` is the time of the
    level to end on: 0, the clean datum with abar = 1; 1 ends on abar_1, as Stable Diffusion's configurations do, and
    is refused if t = 1 is visited before it.
    """
    T = schedule.T
    if rule not in RULES:
        raise ValueError(f"grid: rule is {rule!r}, wanted one of {', '.join(RULES)}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= T:
        raise ValueError(f"grid {rule}: steps is {steps!r}, wanted an integer in 1..{T} "
                         f"({schedule.rule} has {T} noisy levels)")
    return at_times(schedule, [*RULES[rule](T, int(steps))[::-1], final], f"{rule}(steps={steps}, final={final})")


def every(schedule):
    """All T steps: t = T, T-1, .., 1, 0. [DDPM alg. 2]"""
    return at_times(schedule, range(schedule.T, -1, -1), "every")


def at_times(schedule, times, rule="at_times"):
    """A schedule's levels at given integer times, strictly decreasing, the last being the level to end on."""
    times = np.asarray(list(times))
    rule = f"{rule} of {schedule.rule}"
    if times.ndim == 1 and np.any(np.diff(times) >= 0):
        i = int(np.flatnonzero(np.diff(times) >= 0)[0])
        raise ValueError(f"grid {rule}: t = {times[i + 1]} follows t = {times[i]}, wanted strictly decreasing times")
    level = schedule.level(times)
    return Grid(times, level.alpha, level.sigma, rule, Interpolated(schedule))


def on(family, times, rule="on"):
    """A family's levels at given times, noise first."""
    t = np.asarray(list(times), dtype=np.float64)
    return Grid(t, family.alpha(t), family.sigma(t), f"{rule} of {family.rule}", family)


def karras(n, sigma_min=0.002, sigma_max=80.0, rho=7.0, final=0.0):
    """sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, i = 0..n-1. [EDM eq. 5]

    Variance exploding: alpha = 1, t = sigma. `final` is appended as the level to end on (0, as in the paper, makes
    n steps; None appends nothing and makes n-1 steps that end on sigma_min). n = 1 is sigma_max alone.
    """
    rule = f"karras(n={n}, sigma_min={sigma_min:g}, sigma_max={sigma_max:g}, rho={rho:g}, final={final})"
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"grid {rule}: n is {n!r}, wanted an integer >= 1")
    if not (0 < sigma_min < sigma_max < np.inf and rho > 0):
        raise ValueError(f"grid {rule}: wanted 0 < sigma_min < sigma_max and rho > 0")
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigma = (start + np.arange(n) / max(n - 1, 1) * (end - start)) ** rho
    sigma[-1], sigma[0] = sigma_min, sigma_max        # the ends as given, not as rounded
    if final is not None:
        sigma = np.append(sigma, final)
    return Grid(sigma, np.ones_like(sigma), sigma, rule, VarianceExploding())
