"""Discrete schedules with the papers' index: t = 1..T, and t = 0 the clean datum (beta_0 = 0, abar_0 = 1).

    abar_t = prod_{s<=t} (1 - beta_s) = exp(sum log1p(-beta_s)),    1 - abar_t = -expm1(sum log1p(-beta_s))

so that neither end loses digits: a product of float32 (1 - beta) leaves 1 - abar with four digits at small t.
Tables have T+1 entries, float64, read-only. The ends of beta are used as given, whatever T is: they are not
rescaled by 1000/T.
"""
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import backend
from .level import Level


def _cumsum(values):
    """Prefix sums as accurate as in twice the precision: each addition's rounding error (Knuth's two-sum) is added."""
    total = np.cumsum(values)
    before = np.concatenate([[0.0], total[:-1]])
    added = total - before
    return total + np.cumsum((before - (total - added)) + (values - added))


def _frozen(table):
    table.setflags(write=False)
    return table


@dataclass(frozen=True, eq=False)
class Schedule:
    """A table beta[0..T] with beta[0] = 0, and all that follows from it. `rule` says how it was made.

    Raises ValueError unless 0 < beta_t < 1 (beta_T = 1, a last step that leaves no signal, is allowed).
    """

    rule: str
    beta: np.ndarray         # (T+1,)

    def __post_init__(self):
        beta = np.array(self.beta, dtype=np.float64)
        if beta.ndim != 1 or len(beta) < 2 or beta[0] != 0:
            raise ValueError(f"schedule {self.rule}: beta has shape {beta.shape}, "
                             "wanted (T+1,) with T >= 1 and beta[0] = 0")
        if not (np.all(beta[1:] > 0) and np.all(beta[1:-1] < 1) and beta[-1] <= 1):
            raise ValueError(f"schedule {self.rule}: beta_1..beta_T run from {beta[1:].min():g} to {beta[1:].max():g}, "
                             "wanted 0 < beta < 1")
        object.__setattr__(self, "beta", _frozen(beta))

    @property
    def T(self):
        """The number of noisy levels."""
        return len(self.beta) - 1

    @cached_property
    def log_alpha_bar(self):
        """log abar_t = sum_{s<=t} log(1 - beta_s). [DDPM eq. 4]"""
        with np.errstate(divide="ignore"):
            steps = np.log1p(-self.beta)
        if np.isinf(steps[-1]):                # beta_T = 1 adds -inf, which a compensated sum cannot hold
            return _frozen(np.append(_cumsum(steps[:-1]), -np.inf))
        return _frozen(_cumsum(steps))

    @cached_property
    def alpha_bar(self):
        """abar_t, the square of the signal's coefficient alpha_t."""
        return _frozen(np.exp(self.log_alpha_bar))

    @cached_property
    def one_minus_alpha_bar(self):
        """1 - abar_t, the variance of the noise, to full relative precision."""
        return _frozen(-np.expm1(self.log_alpha_bar))

    @cached_property
    def alpha(self):
        """alpha_t = sqrt(abar_t)."""
        return _frozen(np.exp(self.log_alpha_bar / 2))

    @cached_property
    def sigma(self):
        """sigma_t = sqrt(1 - abar_t)."""
        return _frozen(np.sqrt(self.one_minus_alpha_bar))

    @cached_property
    def log_snr(self):
        """log(abar_t/(1 - abar_t)), strictly decreasing from +inf at t = 0."""
        with np.errstate(divide="ignore"):
            return _frozen(self.log_alpha_bar - np.log(self.one_minus_alpha_bar))

    def level(self, t):
        """The level at t, an integer or an integer array (n,), 0 <= t <= T. Raises ValueError otherwise."""
        array = getattr(t, "ndim", 0) > 0
        kind = t.dtype.kind if hasattr(t, "dtype") else "i" if type(t) is int else type(t).__name__
        if kind not in ("i", "u"):
            raise ValueError(f"level of {self.rule}: t is {t!r}, wanted an integer or an integer array, 0..{self.T}")
        low, high = (int(t.min()), int(t.max())) if array and t.size else (0, 0) if array else (int(t), int(t))
        if low < 0 or high > self.T:
            raise ValueError(f"level of {self.rule}: t runs from {low} to {high}, wanted 0..{self.T} (t = 0 is clean)")
        if not array:
            return Level(int(t), self.alpha[t], self.sigma[t])
        xp = backend.of(t=t)
        return Level(t, xp.asarray(self.alpha)[t], xp.asarray(self.sigma)[t])


def _check_T(rule, T):
    if isinstance(T, bool) or not isinstance(T, (int, np.integer)) or T < 1:
        raise ValueError(f"schedule {rule}: T is {T!r}, wanted an integer >= 1")


def linear(T=1000, beta_start=1e-4, beta_end=0.02):
    """beta_t from beta_start to beta_end in equal steps; T = 1 is beta_start alone. [DDPM sec. 4]"""
    rule = f"linear(T={T}, beta_start={beta_start:g}, beta_end={beta_end:g})"
    _check_T(rule, T)
    return Schedule(rule, np.concatenate([[0.0], np.linspace(beta_start, beta_end, T)]))


def scaled_linear(T=1000, beta_start=0.00085, beta_end=0.012):
    """sqrt(beta_t) from sqrt(beta_start) to sqrt(beta_end) in equal steps: what latent diffusion calls "linear"."""
    rule = f"scaled_linear(T={T}, beta_start={beta_start:g}, beta_end={beta_end:g})"
    _check_T(rule, T)
    if not (beta_start > 0 and beta_end > 0):
        raise ValueError(f"schedule {rule}: wanted beta_start and beta_end > 0")
    return Schedule(rule, np.concatenate([[0.0], np.linspace(beta_start ** 0.5, beta_end ** 0.5, T) ** 2]))


def cosine(T=1000, s=0.008, beta_max=0.999):
    """abar_t = f(t)/f(0), f(t) = cos^2((t/T + s)/(1 + s) pi/2), with beta_t <= beta_max. [IDDPM eq. 17, sec. 3.2]

    With the angles u < w of t-1 and t, beta_t = 1 - cos^2 w/cos^2 u = sin(w + u) sin(w - u)/cos^2 u, which keeps
    its digits at small t. To keep them at large t too, cos u is the sine of pi/2 - u, made from T - t, and so is
    sin(w + u) of pi - (w + u) where w + u is beyond pi/2.
    The clip changes only the last steps (one of 1000), and abar_T with them.
    """
    rule = f"cosine(T={T}, s={s:g}, beta_max={beta_max:g})"
    _check_T(rule, T)
    if not (s >= 0 and 0 < beta_max <= 1):
        raise ValueError(f"schedule {rule}: wanted s >= 0 and 0 < beta_max <= 1")
    t = np.arange(1, T + 1)
    quarter = np.pi / 2 / (1 + s)
    both = (2 * t - 1) / T + 2 * s                                                 # (w + u)/quarter
    sin_sum = np.sin(quarter * np.where(both < 1 + s, both, (2 * (T - t) + 1) / T))
    cos_u = np.sin(quarter * (T - t + 1) / T)
    beta = sin_sum * np.sin(quarter / T) / cos_u ** 2
    return Schedule(rule, np.concatenate([[0.0], np.minimum(beta, beta_max)]))


def quadratic(T=1000, beta_start=1e-4, beta_end=0.02):
    """scaled_linear between the ends of the linear schedule: what the DDIM code calls "quad"."""
    made = scaled_linear(T, beta_start, beta_end)
    return Schedule(f"quadratic(T={T}, beta_start={beta_start:g}, beta_end={beta_end:g})", made.beta)


def sigmoid(T=1000, beta_start=1e-4, beta_end=0.02, span=6.0):
    """beta_t = beta_start + (beta_end - beta_start) S(x_t), x_t from -span to span in equal steps, S(x) = 1/(1 + e^-x).

    The sigmoid is that of beta (Xu et al. 2022, GeoDiff); `sigmoid_alpha_bar` is the other schedule of this name.
    """
    rule = f"sigmoid(T={T}, beta_start={beta_start:g}, beta_end={beta_end:g}, span={span:g})"
    _check_T(rule, T)
    if not 0 < span < np.inf:
        raise ValueError(f"schedule {rule}: wanted a finite span > 0")
    S = 1 / (1 + np.exp(-np.linspace(-span, span, T)))
    return Schedule(rule, np.concatenate([[0.0], beta_start + (beta_end - beta_start) * S]))


def sigmoid_alpha_bar(T=1000, start=-3.0, end=3.0, tau=1.0, beta_max=0.999):
    """abar_t = (S(v_T) - S(v_t))/(S(v_T) - S(v_0)), v_t = (start + (end - start) t/T)/tau, with beta_t <= beta_max.

    S(x) = 1/(1 + e^-x) is of abar itself [SIGMOID]. With S(a) - S(b) = sinh((a-b)/2)/(2 cosh(a/2) cosh(b/2)),

        beta_t = 1 - abar_t/abar_{t-1} = sinh((v_t - v_{t-1})/2) cosh(v_T/2)/(sinh((v_T - v_{t-1})/2) cosh(v_t/2))

    in which nothing cancels. The clip changes the last step alone.
    """
    rule = f"sigmoid_alpha_bar(T={T}, start={start:g}, end={end:g}, tau={tau:g}, beta_max={beta_max:g})"
    _check_T(rule, T)
    if not (start < end and 0 < tau < np.inf and 0 < beta_max <= 1):
        raise ValueError(f"schedule {rule}: wanted start < end, tau > 0 and 0 < beta_max <= 1")
    t = np.arange(1, T + 1)
    half = (end - start) / (2 * tau * T)                            # half of v_t - v_{t-1}
    cosh = np.cosh((start + (end - start) * (t / T)) / (2 * tau))
    beta = np.sinh(half) * np.cosh(end / (2 * tau)) / (np.sinh(half * (T - t + 1)) * cosh)
    return Schedule(rule, np.concatenate([[0.0], np.minimum(beta, beta_max)]))


def zero_terminal_snr(schedule):
    """The schedule with alpha shifted and scaled so that alpha_T = 0 and alpha_1 stays. [ZTSNR alg. 1]

        alpha'_t = (alpha_t - alpha_T) alpha_1/(alpha_1 - alpha_T),   t = 1..T

    beta'_t = (alpha'_{t-1} - alpha'_t)(alpha'_{t-1} + alpha'_t)/alpha'_{t-1}^2, in which the scale cancels; alpha_t -
    alpha_T is the sum of the drops from t on, none of which is a difference. beta'_T = 1: at T an eps prediction says
    nothing about x_0, so use v or x0. Raises ValueError for T = 1, where both cannot hold.
    """
    rule = f"zero_terminal_snr({schedule.rule})"
    if schedule.T < 2:
        raise ValueError(f"schedule {rule}: wanted T >= 2: alpha_1 is kept and alpha_T is 0")
    with np.errstate(divide="ignore"):                                          # beta_T = 1: alpha_T is 0 already
        drop = schedule.alpha[1:-1] * -np.expm1(np.log1p(-schedule.beta[2:]) / 2)         # alpha_{t-1} - alpha_t
    shifted = np.append(_cumsum(drop[::-1])[::-1], 0.0)                         # alpha_t - alpha_T
    beta = drop / shifted[:-1] * (1 + shifted[1:] / shifted[:-1])
    return Schedule(rule, np.concatenate([[0.0, schedule.beta[1]], beta[:-1], [1.0]]))


SCHEDULES = {"linear": linear, "scaled_linear": scaled_linear, "quadratic": quadratic, "cosine": cosine,
             "sigmoid": sigmoid, "sigmoid_alpha_bar": sigmoid_alpha_bar}
