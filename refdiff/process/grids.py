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
        if t.dtype.kind not in "iuf" or not np.all(np.isfinite(t)):
            raise ValueError(f"grid {self.rule}: the times t are {t.dtype} {t}, wanted finite numbers")
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


ROUNDINGS = {"even": np.rint, "floor": np.floor, "up": lambda x: np.floor(x + 0.5)}      # halves: to even, -, upwards


def _leading(T, S, to_integer):
    """1 + floor(k T/S), k = 0..S-1: each time opens its interval; the noise end T is not visited unless S = T."""
    return 1 + to_integer(np.arange(S) * T / S)


def _stride(T, S, to_integer):
    """1 + k floor(T/S), k = 0..S-1: leading with one integer stride; where S does not divide T a rest is left out."""
    return 1.0 + np.arange(S) * (T // S)


def _trailing(T, S, to_integer):
    """round(k T/S), k = 1..S (halves to even): each time closes its interval; T is visited, 1 is not unless S = T."""
    return to_integer(np.arange(1, S + 1) * T / S)


def _linspace(T, S, to_integer):
    """1 + round(k (T-1)/(S-1)), k = 0..S-1 (halves to even): both ends are visited; one step alone visits T."""
    return 1 + to_integer(np.arange(S) * (T - 1) / (S - 1)) if S > 1 else np.array([T])


def _quadratic(T, S, to_integer):
    """1 + floor(0.8 T (k/(S-1))^2), k = 0..S-1: DDIM's "quad", dense near the data; one step alone visits the last."""
    return 1 + to_integer(0.8 * T * np.arange(S) ** 2 / (S - 1) ** 2 if S > 1 else np.array([0.8 * T]))


RULES = {"leading": (_leading, "floor"), "stride": (_stride, None), "trailing": (_trailing, "even"),
         "linspace": (_linspace, "even"), "quadratic": (_quadratic, "floor")}     # and how each rounds by default
FINALS = {"zero": 0, "first": 1, "none": None}


def discrete(schedule, steps, rule="trailing", final=0, rounding=None):
    """`steps` distinct times of a schedule, 1 <= steps <= T, by a rule of RULES, then the final level. [ZTSNR table 2],
    [DDIM sec. 4.2]

    For T = 1000 and ten steps: leading and stride 901, 801, .., 1; trailing 1000, 900, .., 100; linspace 1000, 889,
    .., 1; quadratic 801, 633, 484, .., 10, 1. Implementations that count from 0 say one less. All but trailing and
    linspace begin where some signal is left, so pure noise is not quite the right start for them.

    rounding: "even", "floor" or "up" (halves upwards); None is the rule's own. Public code rounds trailing with "even"
    or "floor" and linspace with "even"; integer strides ("stride") are as frequent as `leading`, and both are the
    paper's where S divides T (its arange has more than S entries elsewhere).
    final: the time of the level to end on. 0 or "zero" is the clean datum with abar = 1; 1 or "first" ends on abar_1,
    as Stable Diffusion's configurations do; None or "none" ends on the rule's own last time, of steps + 1 then.
    Raises ValueError if a time would come twice: final = 1 after t = 1, or `quadratic` with many steps.
    """
    if rule not in RULES:
        raise ValueError(f"grid: rule is {rule!r}, wanted one of {', '.join(RULES)}")
    if isinstance(final, str) and final not in FINALS:
        raise ValueError(f"grid {rule}: final is {final!r}, wanted a time or one of {', '.join(FINALS)}")
    final = FINALS[final] if isinstance(final, str) else final
    choose, own = RULES[rule]
    if rounding is not None and (own is None or rounding not in ROUNDINGS):
        raise ValueError(f"grid {rule}: rounding is {rounding!r}, wanted " +
                         (f"one of {', '.join(ROUNDINGS)}" if own else "None: its times are integers"))
    T = schedule.T
    most = T - (final is None)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= most:
        raise ValueError(f"grid {rule}: steps is {steps!r}, wanted an integer in 1..{most} "
                         f"({schedule.rule} has {T} noisy levels)")
    times = choose(T, int(steps) + (final is None), ROUNDINGS.get(rounding or own)).astype(np.int64)[::-1]
    named = f"{rule}(steps={steps}, final={final}" + (f", rounding={rounding})" if rounding else ")")
    if np.any(np.diff(times) >= 0) or times[0] > T:
        raise ValueError(f"grid {named} of {schedule.rule}: it would visit a time twice or one beyond T; take fewer "
                         "steps, another rounding, or another rule")
    return at_times(schedule, [*times.tolist(), *([] if final is None else [final])], named)


def every(schedule):
    """All T steps: t = T, T-1, .., 1, 0. [DDPM alg. 2]"""
    return at_times(schedule, range(schedule.T, -1, -1), "every")


def at_times(schedule, times, rule="at_times"):
    """A schedule's levels at given integer times, strictly decreasing, the last being the level to end on."""
    times = np.asarray(list(times))
    rule = f"{rule} of {schedule.rule}"
    if times.dtype.kind not in "iu":
        raise ValueError(f"grid {rule}: times are {times.tolist()!r}, wanted integers, at least two")
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

    Variance exploding: alpha = 1, t = sigma. `final` is appended as the level to end on (0 or "zero", as in the paper,
    makes n steps; None or "sigma_min" appends nothing and makes n-1 steps that end on sigma_min). n = 1 is sigma_max.
    """
    rule = f"karras(n={n}, sigma_min={sigma_min:g}, sigma_max={sigma_max:g}, rho={rho:g}, final={final})"
    _check_sigmas(rule, n, sigma_min, sigma_max, rho)
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _of_sigmas((start + np.arange(n) / max(n - 1, 1) * (end - start)) ** rho, rule, sigma_min, sigma_max, final)


def polyexponential(n, sigma_min=0.002, sigma_max=80.0, rho=1.0, final=0.0):
    """sigma_i = sigma_min (sigma_max/sigma_min)^(w_i^rho), w_i = 1 - i/(n-1), i = 0..n-1; ends and final as in karras.

    log sigma falls in equal steps for rho = 1, the exponential grid, which is uniform in log-SNR.
    """
    rule = f"polyexponential(n={n}, sigma_min={sigma_min:g}, sigma_max={sigma_max:g}, rho={rho:g}, final={final})"
    _check_sigmas(rule, n, sigma_min, sigma_max, rho)
    w = (1 - np.arange(n) / max(n - 1, 1)) ** rho
    return _of_sigmas(sigma_min * np.exp(w * np.log(sigma_max / sigma_min)), rule, sigma_min, sigma_max, final)


def exponential(n, sigma_min=0.002, sigma_max=80.0, final=0.0):
    """sigma_i from sigma_max to sigma_min in equal ratios: polyexponential with rho = 1."""
    return polyexponential(n, sigma_min, sigma_max, 1.0, final)


def _check_sigmas(rule, n, sigma_min, sigma_max, rho):
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"grid {rule}: n is {n!r}, wanted an integer >= 1")
    if not (0 < sigma_min < sigma_max < np.inf and 0 < rho < np.inf):
        raise ValueError(f"grid {rule}: wanted 0 < sigma_min < sigma_max and rho > 0, all finite")


def _of_sigmas(sigma, rule, sigma_min, sigma_max, final):
    sigma[-1], sigma[0] = sigma_min, sigma_max        # the ends as given, not as rounded
    if isinstance(final, str):
        if final not in ("zero", "sigma_min"):
            raise ValueError(f"grid {rule}: final is {final!r}, wanted a sigma, 'zero' or 'sigma_min'")
        final = 0.0 if final == "zero" else None
    if final is not None:
        sigma = np.append(sigma, final)
    return Grid(sigma, np.ones_like(sigma), sigma, rule, VarianceExploding())
