"""Schedules: beta_1..beta_T by their published formulas, and abar_t = prod (1 - beta_s). Index 0 is the clean datum."""
from functools import lru_cache
from typing import NamedTuple

from ..conventions import choose, of


class Table(NamedTuple):
    """beta, alpha_bar and 1 - alpha_bar at t = 0..T, and the relative error of alpha_bar per that of its angle."""

    beta: list
    alpha_bar: list
    noise: list
    steepness: list

    @property
    def T(self):
        return len(self.beta) - 1


CHOICES = of("schedule")
DEFAULTS = {
    "linear": {"beta_start": "0.0001", "beta_end": "0.02"},
    "quadratic": {"beta_start": "0.0001", "beta_end": "0.02"},
    "scaled_linear": {"beta_start": "0.00085", "beta_end": "0.012"},
    "cosine": {"s": "0.008", "beta_max": "0.999"},
    "sigmoid": {"beta_start": "0.0001", "beta_end": "0.02", "span": "6"},
    "sigmoid_alpha_bar": {"start": "-3", "end": "3", "tau": "1", "beta_max": "0.999"},
}


def table(name, T, num, c=None, zero_terminal=False, **params):
    """The Table of a schedule. Raises ValueError for what is no schedule: T < 1, a beta outside (0, 1)."""
    c = c or choose()
    if name not in DEFAULTS:
        raise ValueError(f"schedule {name!r}, wanted one of {', '.join(DEFAULTS)}")
    if isinstance(T, bool) or not isinstance(T, int) or T < 1:
        raise ValueError(f"schedule {name}: T is {T!r}, wanted an integer >= 1")
    unknown = set(params) - set(DEFAULTS[name])
    if unknown:
        raise ValueError(f"schedule {name}: {', '.join(sorted(unknown))} is no parameter of it")
    p = {key: num.real(value) for key, value in (DEFAULTS[name] | params).items()}
    if c.schedule_ends == "scaled" and "beta_end" in p:
        p["beta_start"], p["beta_end"] = (p[key] * 1000 / T for key in ("beta_start", "beta_end"))
    if name == "linear" and c.schedule_spacing == "sqrt_beta":
        name = "scaled_linear"
    elif name in ("scaled_linear", "quadratic") and c.schedule_spacing == "sqrt_beta":
        name = "linear"                                       # the other way round: the two names exchanged
    if name == "cosine" and c.cosine_clip != "0.999":
        p["beta_max"] = num.real("1" if c.cosine_clip == "none" else "0.99")
        p["beta_min"] = num.real("0" if c.cosine_clip == "none" else "0.01")
    beta = [num.real(0)] + [num.stored(b) for b in FORMULAS[name](T, num, **p)]
    if not all(0 < b < 1 for b in beta[1:-1]) or not 0 < beta[-1] <= 1:
        raise ValueError(f"schedule {name}: beta runs from {float(min(beta[1:]))} to {float(max(beta))}, wanted (0, 1)")
    made = _accumulate(beta, num, _cosine_steepness(T, num, beta, p) if name == "cosine" else [0] * (T + 1))
    return _zero_terminal(made, num) if zero_terminal else made


@lru_cache(maxsize=256)
def _cached(name, T, num, choices, params):
    return table(name, T, num, choose(**dict(choices)), **dict(params))


def cached(name, T, num, c, **params):
    """`table`, computed once for the same arguments and the conventions that matter to it."""
    choices = tuple((convention.name, getattr(c, convention.name)) for convention in CHOICES)
    return _cached(name, T, num.base or num, choices, tuple(sorted(params.items())))


# ---- the betas, t = 1..T

def _fraction(num, t, T):
    """(t - 1)/(T - 1); 0 where there is one step."""
    return num.real(t - 1) / (T - 1) if T > 1 else num.real(0)


def _linear(T, num, beta_start, beta_end):
    return [beta_start + (beta_end - beta_start) * _fraction(num, t, T) for t in range(1, T + 1)]


def _scaled_linear(T, num, beta_start, beta_end):
    if not (beta_start > 0 and beta_end > 0):
        raise ValueError("schedule: beta must be positive")
    a, b = num.sqrt(beta_start), num.sqrt(beta_end)
    return [(a + (b - a) * _fraction(num, t, T)) ** 2 for t in range(1, T + 1)]


def _cosine(T, num, s, beta_max, beta_min=0):
    """1 - cos^2 w/cos^2 u = sin(w - u) sin(w + u)/cos^2 u, angles u of t - 1 and w of t."""
    if not (s >= 0 and 0 < beta_max <= 1):
        raise ValueError("cosine: wanted s >= 0 and 0 < beta_max <= 1")
    quarter = num.pi / 2 / (1 + s)
    gaps = [quarter * (T - t) / T for t in range(T + 1)]                  # pi/2 - u, so that cos u = sin(gap)
    if num.base:                                                          # the angle is rounded as well
        gaps = [num.pi / 2 - num.stored(num.pi / 2 - gap) for gap in gaps]
    made = []
    for gap, next_gap in zip(gaps, gaps[1:]):
        step = gap - next_gap if num.base else quarter / T
        beta = num.sin(step) * num.sin(2 * gap - step) / num.sin(gap) ** 2
        made.append(max(min(beta, beta_max), beta_min))
    return made


def _cosine_steepness(T, num, beta, p):
    """d log cos^2 u/d log u = -2 u tan u at every t; where betas are cut, that of the last one before.

    An angle that is a few roundings off by 1 + d makes abar_t = cos^2 u/cos^2 u_0 off by 1 - 2 u tan(u) d: at t = 999
    of 1000 that is 2000 d. The betas that are cut, always the last ones, add none.
    """
    made, cut = [num.real(0)], p["beta_max"] * (1 - num.real("1e-6"))
    for t in range(1, T + 1):
        gap = num.pi / 2 * (T - t) / T / (1 + p["s"])
        made.append(made[-1] if beta[t] >= cut or gap == 0 else 2 * (num.pi / 2 - gap) / num.tan(gap))
    return made


def _sigmoid(T, num, beta_start, beta_end, span):
    if not span > 0:
        raise ValueError("sigmoid: wanted span > 0")
    return [beta_start + (beta_end - beta_start) / (1 + num.exp(span * (1 - 2 * _fraction(num, t, T))))
            for t in range(1, T + 1)]


def _sigmoid_alpha_bar(T, num, start, end, tau, beta_max):
    """1 - abar_t/abar_{t-1} with abar_t proportional to S(v_T) - S(v_t), S(a) - S(b) written without cancellation."""
    if not (start < end and tau > 0 and 0 < beta_max <= 1):
        raise ValueError("sigmoid_alpha_bar: wanted start < end, tau > 0, 0 < beta_max <= 1")
    v = [(start + (end - start) * t / T) / tau for t in range(T + 1)]

    def rise(k, t):                                                       # S(v_t) - S(v_k), from k to t
        return -num.expm1((v[k] - v[t])) / ((1 + num.exp(-v[t])) * (1 + num.exp(v[k])))

    return [min(rise(t - 1, t) / rise(t - 1, T), beta_max) for t in range(1, T + 1)]


FORMULAS = {"linear": _linear, "quadratic": _scaled_linear, "scaled_linear": _scaled_linear, "cosine": _cosine,
            "sigmoid": _sigmoid, "sigmoid_alpha_bar": _sigmoid_alpha_bar}


# ---- from beta to abar

def _accumulate(beta, num, steepness):
    """abar as the exponential of a sum of log(1 - beta), summed with its rounding errors (Neumaier)."""
    one = num.real(1)
    alpha_bar, noise, total, lost = [one], [num.real(0)], num.real(0), num.real(0)
    for b in beta[1:]:
        if b == 1:
            alpha_bar.append(num.real(0))
            noise.append(one)
            continue
        term = num.log1p(-b)
        new = total + term
        lost += (total - new) + term if abs(total) >= abs(term) else (term - new) + total
        total = new
        log = total + lost
        alpha_bar.append(num.stored(num.exp(log)))
        noise.append(num.stored(1 - alpha_bar[-1]) if num.naive else -num.expm1(log))
    return Table(beta, alpha_bar, noise, steepness)


def _zero_terminal(made, num):
    """alpha' = (alpha - alpha_T) alpha_1/(alpha_1 - alpha_T) at t >= 1."""
    if made.T < 2:
        raise ValueError("zero terminal SNR: wanted T >= 2")
    alpha = [num.sqrt(a) for a in made.alpha_bar]
    scale = alpha[1] / (alpha[1] - alpha[-1])
    abar = [num.real(1)] + [(scale * (a - alpha[-1])) ** 2 for a in alpha[1:]]
    abar[1] = made.alpha_bar[1]
    beta = [num.real(0)] + [1 - b / a for a, b in zip(abar, abar[1:])]
    beta[1] = made.beta[1]
    noise = [1 - a for a in abar]
    noise[1] = made.noise[1]
    return Table(beta, abar, noise, made.steepness)
