"""Levels (t, alpha, sigma) of every schedule at a time, and the grids that visit them, in fractions and integers.

Discrete schedules (tables.py) have t = 1..T. Without a T there are

    edm     alpha = 1, sigma = t          flow    alpha = 1 - t, sigma = t
    vp      alpha^2 = exp(-B), sigma^2 = 1 - exp(-B), B = 0.1 t + 19.9 t^2/2, 0 <= t <= 1
"""
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

from ..conventions import choose
from . import tables
from .numbers import SINGLE

CONTINUOUS = ("edm", "flow", "vp")
BETA_MIN, BETA_MAX = "0.1", "20"


class Level(NamedTuple):
    """x = alpha x_0 + sigma eps at time t; var is sigma^2, kept where it is known better than by squaring."""

    t: Any
    alpha: Any
    sigma: Any
    var: Any

    @property
    def ratio(self):
        return self.sigma / self.alpha


class Levels:
    """The levels of one schedule: `at(t)`, and the level to end on."""

    def __init__(self, schedule, T, num, c=None):
        self.schedule, self.T, self.c, self.stored = schedule, T, c or choose(), {}
        self.num = num = SINGLE if self.c.table_dtype == "float32" else num
        if schedule in CONTINUOUS:
            if T is not None:
                raise ValueError(f"schedule {schedule}: T is {T!r}, wanted none: its time is continuous")
            self.table = None
        else:
            self.table = tables.cached(schedule, T, num, self.c)

    def at(self, t):
        """The level at time t. Raises ValueError for a time that the schedule does not have."""
        num = self.num
        if self.table is None:
            return self._continuous(num.real(t))
        if isinstance(t, float) and t == int(t):
            t = int(t)
        if not isinstance(t, int) or not 0 <= t <= self.T:
            raise ValueError(f"schedule {self.schedule}: t is {t!r}, wanted an integer in 0..{self.T}")
        if t == 0:
            entry = {"one": 0, "abar_0": 1, "abar_1": min(2, self.T)}[self.c.final_alpha]
        else:
            entry = min(max(t + {"t": 0, "t+1": 1, "t-1": -1}[self.c.index_base], 0), self.T)
        if entry not in self.stored:
            alpha_bar, noise = self.table.alpha_bar[entry], self.table.noise[entry]
            if num.base and 0 < alpha_bar < 1:
                alpha_bar = num.stored(alpha_bar)
                if self.table.steepness[entry]:                                # its angle is rounded as well
                    alpha_bar = alpha_bar * num.stored(num.real(1)) ** self.table.steepness[entry]
                noise = 1 - alpha_bar
            self.stored[entry] = num.sqrt(alpha_bar), num.sqrt(noise), noise
        return Level(t, *self.stored[entry])

    def _continuous(self, t):
        num, one = self.num, self.num.real(1)
        if self.schedule == "edm":
            if not t >= 0:
                raise ValueError(f"schedule edm: sigma is {t}, wanted >= 0")
            return Level(t, one, t, t * t)
        if not 0 <= t <= 1:
            raise ValueError(f"schedule {self.schedule}: t is {t}, wanted 0..1")
        if self.schedule == "flow":
            return Level(t, 1 - t, t, t * t)
        low, high = num.real(BETA_MIN), num.real(BETA_MAX)
        log = -(low * t + (high - low) * t * t / 2)
        var = -num.expm1(log)
        return Level(t, num.exp(log / 2), num.sqrt(var), var)

    def of_lambda(self, lam):
        """The level at lambda = log(alpha/sigma); between the entries of a table it has no time."""
        num = self.num
        ratio = num.exp(-lam)
        if self.table is not None:
            alpha = 1 / num.sqrt(1 + ratio * ratio)
            return Level(None, alpha, ratio * alpha, (ratio * alpha) ** 2)
        if self.schedule == "edm":
            return self.at(ratio)
        if self.schedule == "flow":
            return self.at(ratio / (1 + ratio))
        low, high = num.real(BETA_MIN), num.real(BETA_MAX)
        B = num.log1p(ratio ** 2)                                    # abar = 1/(1 + ratio^2) = exp(-B)
        t = 2 * B / (low + num.sqrt(low ** 2 + 2 * (high - low) * B))
        return self.at(min(t, num.real(1)))


def lam(level, num):
    """log(alpha/sigma)."""
    return num.log(level.alpha / level.sigma)


# ---- the times of discrete schedules

ROUNDINGS = {"floor": floor, "ceil": lambda q: -floor(-q), "even": round, "up": lambda q: floor(q + Fraction(1, 2))}
OWN = {"leading": "floor", "stride": "floor", "trailing": "even", "linspace": "even", "quadratic": "floor"}


def times(rule, T, S, rounding="own"):
    """S increasing times by a rule; exact fractions are rounded, so no tie is missed."""
    if rule not in OWN:
        raise ValueError(f"grid: rule is {rule!r}, wanted one of {', '.join(OWN)}")
    whole = ROUNDINGS[OWN[rule] if rounding == "own" else rounding]
    if rule == "leading":
        return [1 + whole(Fraction(k * T, S)) for k in range(S)]
    if rule == "stride":
        return [1 + k * (T // S) for k in range(S)]
    if rule == "trailing":
        return [whole(Fraction(k * T, S)) for k in range(1, S + 1)]
    if rule == "linspace":
        return [1 + whole(Fraction(k * (T - 1), S - 1)) for k in range(S)] if S > 1 else [T]
    return [1 + whole(Fraction(4 * T * k * k, 5 * (S - 1) ** 2)) for k in range(S)] if S > 1 else [
        1 + whole(Fraction(4 * T, 5))]


def discrete(levels, rule, S, final, rounding=None):
    """The levels of S steps, noise first, then the final one: "zero" t = 0, "first" t = 1, "none" the rule's own."""
    c, T = levels.c, levels.T
    rule = rule if c.spacing == "given" else c.spacing
    extra = final == "none"
    if isinstance(S, bool) or not isinstance(S, int) or not 1 <= S <= T - extra:
        raise ValueError(f"grid {rule}: steps is {S!r}, wanted an integer in 1..{T - extra}")
    if final not in ("zero", "first", "none"):
        raise ValueError(f"grid {rule}: final is {final!r}, wanted zero, first or none")
    chosen = times(rule, T, S + extra, c.rounding if c.rounding != "own" else rounding or "own")[::-1]
    if rule in ("leading", "stride"):
        chosen = [t + int(c.steps_offset) for t in chosen]
    chosen += [] if extra else [0 if final == "zero" else 1]
    if any(a <= b for a, b in zip(chosen, chosen[1:])) or chosen[0] > T:
        raise ValueError(f"grid {rule}: the times {chosen} do not fall, or exceed T = {T}")
    return [levels.at(t) for t in chosen]


# ---- the levels of continuous schedules

def _ends(first, last, inner):
    """The ends as given, what is between by its formula."""
    return [first, *inner[1:-1], last] if len(inner) > 1 else [first]


def continuous(levels, rule, S, final, sigma_min="0.002", sigma_max="80", rho=None, start="1", end="0.001",
               shift="1", power="1"):
    """The levels of S steps: n = S of them and the clean one for final = "zero", n = S + 1 for "none".

    karras            sigma^(1/rho) in equal steps (rho 7)      exponential       log sigma in equal steps
    polyexponential   log sigma in (i/(n-1))^rho (rho 1)         uniform_lambda    log(alpha/sigma) from start to end
    uniform           t^(1/power) in equal steps from start to end, then shift t/(1 + (shift - 1) t)
    """
    num, c = levels.num, levels.c
    final = final if c.final_sigma == "given" else c.final_sigma
    if isinstance(S, bool) or not isinstance(S, int) or S < 1 or final not in ("zero", "none"):
        raise ValueError(f"grid {rule}: steps {S!r} with final {final!r}, wanted steps >= 1 and final zero or none")
    n = S + (final == "none")
    w = [num.real(i) / max(n - 1, 1) for i in range(n)]
    low, high, start, end, shift, power = (num.real(v) for v in (sigma_min, sigma_max, start, end, shift, power))
    rho = num.real(rho if rho is not None else {"karras": 7}.get(rule, 1))
    if rule in ("karras", "exponential", "polyexponential"):
        if levels.schedule != "edm" or not (0 < low < high and rho > 0):
            raise ValueError(f"grid {rule}: wanted schedule edm, 0 < sigma_min < sigma_max and rho > 0")
        if rule == "karras":
            q = 1 / rho if c.rho_placement == "power" else rho
            sigma = [(high ** q + u * (low ** q - high ** q)) ** (1 / q) for u in w]
        else:
            q = rho if rule == "polyexponential" else 1
            sigma = [low * num.exp((1 - u) ** q * num.log(high / low)) for u in w]
        made = [levels.at(s) for s in _ends(high, low, sigma)]
    elif rule == "uniform_lambda":
        a, b = levels.at(start), levels.at(end)
        if not start > end > 0 or not a.alpha > 0:
            raise ValueError("grid uniform_lambda: wanted start > end > 0, with signal at start")
        f, g = lam(a, num), lam(b, num)
        made = _ends(a, b, [levels.of_lambda(f + u * (g - f)) for u in w])
    elif rule == "uniform":
        if not (start > end >= 0 and shift > 0 and power > 0):
            raise ValueError("grid uniform: wanted start > end >= 0, shift > 0 and power > 0")
        if final == "zero" and end == 0 and n > 1:
            raise ValueError("grid uniform: it visits t = 0 before its final level")
        t = _ends(start, end, [(start ** (1 / power) + u * (end ** (1 / power) - start ** (1 / power))) ** power
                               for u in w])
        made = [levels.at(shift * u / (1 + (shift - 1) * u)) for u in t]
    else:
        raise ValueError(f"grid: rule is {rule!r} for schedule {levels.schedule}")
    return made + ([levels.at(num.real(0))] if final == "zero" else [])


def grid(schedule, T, rule, steps, final, num, c=None, **params):
    """The levels that a sampler of so many steps visits, noise first."""
    levels = Levels(schedule, T, num, c)
    make = continuous if levels.table is None else discrete
    return make(levels, rule, steps, final, **params)
