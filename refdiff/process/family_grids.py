"""Grids in a family's own time or in lambda, and any grid at the levels of another family. See grids.py for the rest.

Here `steps` is the number of steps S whatever the end: with final=None the rule makes S + 1 levels, the last at the
time `end`; with final="zero" it makes S, and the clean level (alpha_0, 0) is the one to end on.
"""
import numpy as np

from .families import Flow
from .grids import Grid, on


def _weights(rule, steps, final):
    """0 .. 1 in equal steps, one per level that the rule makes."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"grid {rule}: steps is {steps!r}, wanted an integer >= 1")
    if final not in (None, "zero"):
        raise ValueError(f"grid {rule}: final is {final!r}, wanted None (end at `end`) or 'zero'")
    n = int(steps) + (final is None)
    return np.arange(n) / max(n - 1, 1)


def _ends(rule, family, start, end):
    start = family.t_max if start is None else start
    if not family.t_min <= end < start <= family.t_max or not start < np.inf:
        raise ValueError(f"grid {rule}: it goes from t = {start:g} to {end:g}, wanted {family.t_max:g} >= start > "
                         f"end >= {family.t_min:g} and start finite")
    return float(start), float(end)


def _finish(family, levels, rule, final):
    levels = levels + ([family.at(np.inf)] if final == "zero" else [])
    return Grid(*(np.array([getattr(level, name) for level in levels]) for name in ("t", "alpha", "sigma")),
                f"{rule} of {family.rule}", family)


def uniform_lambda(family, steps, end, start=None, final=None):
    """lambda in equal steps from that of time `start` (t_max if None) to that of time `end` > 0. [DPM sec. 3.3]

    The two ends are the family's levels themselves. Raises ValueError where lambda is infinite.
    """
    rule = f"uniform_lambda(steps={steps}, final={final})"
    w = _weights(rule, steps, final)
    start, end = _ends(rule, family, start, end)
    a, b = family.lam(start), family.lam(end)
    if not np.isfinite(b - a):
        raise ValueError(f"grid {rule} of {family.rule}: lambda is {a:g} at t = {start:g} and {b:g} at t = {end:g}, "
                         "wanted both finite; start where there is signal and end where there is noise")
    levels = [family.level(start)] + [family.at(float(a + x * (b - a))) for x in w[1:-1]]
    return _finish(family, levels + ([family.level(end)] if len(w) > 1 else []), rule, final)


def uniform_time(family, steps, end=0.0, start=None, power=1.0, final=None):
    """t^(1/power) in equal steps from `start` (t_max if None) to `end`; power = 1 is uniform in t, 2 quadratic."""
    rule = f"uniform_time(steps={steps}, power={power:g}, final={final})"
    if not 0 < power < np.inf:
        raise ValueError(f"grid {rule}: wanted a finite power > 0")
    w = _weights(rule, steps, final)
    start, end = _ends(rule, family, start, end)
    if final == "zero" and end == family.t_min and len(w) > 1:
        raise ValueError(f"grid {rule} of {family.rule}: it visits t = {end:g} before its final level; wanted end > "
                         f"{end:g}, or final=None")
    t = start * (1 + w * ((end / start) ** (1 / power) - 1)) ** power
    t[-1], t[0] = end, start
    return _finish(family, [family.level(float(x)) for x in t], rule, final)


def shifted_flow(steps, shift=1.0, power=1.0, end=0.0):
    """Flow() at the times tau(t), t from 1 to `end` in equal steps: the network is told tau, its sigma. [SD3 eq. 23]"""
    rule = f"shifted_flow(steps={steps}, shift={shift:g}, power={power:g})"
    w = _weights(rule, steps, None)
    moved = Flow(shift, power)
    start, end = _ends(rule, moved, 1.0, end)
    return on(Flow(), [float(moved.tau(float(start + x * (end - start)))) for x in w], rule)


def onto(grid, family):
    """The grid's levels of the same SNR in another family, with that family's t: EDM's grid for a VP network, say.

    Raises ValueError, naming the family, for a level that it does not have.
    """
    levels = [family.at(grid.level(i).lam) for i in range(len(grid) + 1)]
    return _finish(family, levels, f"{grid.rule} onto", None)
