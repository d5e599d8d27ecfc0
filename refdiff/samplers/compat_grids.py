"""Grids with one deviation or another: maps from the grid that a sampler is given to the one that is visited."""
from dataclasses import dataclass, replace

import numpy as np

from ..process.families import Flow, Interpolated
from ..process.grids import Grid, at_times, on
from ..process.level import Level


def schedule_of(name, grid):
    """The discrete schedule of a grid, which a deviation needs to know other levels. ValueError where there is none."""
    if not isinstance(grid.family, Interpolated):
        raise ValueError(f"compat: {name} is of grids of a discrete schedule, not of {grid.rule}; use grids.discrete, "
                         "or for refdiff sample a checkpoint of refdiff train --process linear --prediction eps (or "
                         f"another schedule); of this one, sample without --compat {name}")
    return grid.family.schedule


def of_levels(levels, rule, family):
    """The Grid of a list of Levels."""
    t, alpha, sigma = ([getattr(level, field) for level in levels] for field in ("t", "alpha", "sigma"))
    return Grid(t, alpha, sigma, rule, family)


def _visiting(name, grid, times):
    """The schedule's levels at other times, noise first, and the end that the grid has."""
    return at_times(schedule_of(name, grid), [*np.asarray(times).tolist(), int(grid.t[-1])], f"{name}, {grid.rule}")


@dataclass(frozen=True, eq=False)
class Ended(Grid):
    """A Grid for which `asked` steps were asked; one without length is not among its own."""

    asked: int = 0


def stride(grid):
    """T // S, S the steps that were asked for."""
    return grid.family.schedule.T // getattr(grid, "asked", len(grid))


def final_abar_0(grid):
    """Ends on t = 1, the table's first entry. A step from t = 1 has no length and is left out."""
    first = schedule_of("final_abar_0", grid).level(1)
    levels = [level for level in map(grid.level, range(len(grid))) if level.t > 1]
    made = of_levels([*levels, first], f"final_abar_0, {grid.rule}", grid.family)
    return Ended(made.t, made.alpha, made.sigma, made.rule, made.family, len(grid))


def integer_stride(grid):
    """1 + k (T // S), k = S-1 .. 0."""
    S = len(grid)
    return _visiting("integer_stride", grid, 1 + np.arange(S)[::-1] * (schedule_of("integer_stride", grid).T // S))


def leading_of_more(grid):
    """1 + k (T // (S+1)), k = S .. 1: the S noisy ones of S + 1 leading times."""
    S = len(grid)
    stride = schedule_of("leading_of_more", grid).T // (S + 1)
    return _visiting("leading_of_more", grid, 1 + np.arange(S, 0, -1) * stride)


def linspace_of_more(grid):
    """1 + round(k (T-1)/S), k = S .. 1: the S noisy ones of S + 1 times from end to end."""
    S, T = len(grid), schedule_of("linspace_of_more", grid).T
    return _visiting("linspace_of_more", grid, 1 + np.rint(np.linspace(0, T - 1, S + 1))[:0:-1].astype(np.int64))


def linspace_unrounded(grid):
    """1 + k (T-1)/(S-1), k = S-1 .. 0, sigma/alpha a straight line between the table's entries; S = 1: t = 1 alone."""
    schedule = schedule_of("linspace_unrounded", grid)
    if schedule.alpha[-1] == 0:
        raise ValueError(f"compat: linspace_unrounded has levels by sigma/alpha, infinite at T of {schedule.rule}")
    t = 1 + np.linspace(0, schedule.T - 1, len(grid))[::-1]
    index = np.arange(1, schedule.T + 1)
    ratio = np.interp(t, index, schedule.level(index).ratio)
    norm = np.hypot(1, ratio)
    return Grid([*t, grid.t[-1]], [*(1 / norm), grid.alpha[-1]], [*(ratio / norm), grid.sigma[-1]],
                f"linspace_unrounded, {grid.rule}", grid.family)


def one_step_clean(grid):
    """A grid of one step starts at t = 1; others are left."""
    return grid if len(grid) > 1 else _visiting("one_step_clean", grid, [1])


def shifted_twice(grid):
    """t' = 1 - (1 - t) (1 - tau(t_min))/(1 - t_min): times run to the shifted t_min, and are shifted again."""
    if not isinstance(grid.family, Flow) or grid.family.shift == 1:
        raise ValueError(f"compat: shifted_twice is of grids of Flow(shift=s), s other than 1, not of {grid.rule}")
    noisy = grid.t[grid.sigma > 0]
    t_min = noisy[-1]
    times = 1 - (1 - noisy) * (1 - grid.family.tau(t_min)) / (1 - t_min)
    return on(grid.family, [*times, *grid.t[len(noisy):]], f"shifted_twice, {grid.rule}")


def float32_table(grid):
    """abar = cumprod(1 - beta) and its roots in float32; where there are no betas, alpha and sigma rounded to it."""
    alpha, sigma = grid.alpha.astype(np.float32), grid.sigma.astype(np.float32)
    if isinstance(grid.family, Interpolated) and np.all(grid.t == np.rint(grid.t)):
        abar = np.cumprod(1 - grid.family.schedule.beta.astype(np.float32), dtype=np.float32)[grid.t.astype(np.int64)]
        alpha, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    return replace(grid, alpha=alpha, sigma=sigma, rule=f"float32_table, {grid.rule}")


def overshoots(grid):
    """Whether arange(T, 0, -T/S) has S + 1 entries for this grid's S."""
    T, S = schedule_of("trailing_overshoot", grid).T, len(grid)
    return len(np.arange(T, 0, -T / S)) > S


def extra_time(grid):
    """One level more before the end, where arange overshoots: that of t = 1, told t = 0."""
    first = schedule_of("trailing_overshoot", grid).level(1)
    levels = [grid.level(i) for i in range(len(grid) + 1)]
    extra = [Level(0, first.alpha, first.sigma)] if overshoots(grid) else []
    return of_levels([*levels[:-1], *extra, levels[-1]], f"trailing_overshoot, {grid.rule}", grid.family)
