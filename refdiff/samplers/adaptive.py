"""The probability-flow ODE by scipy's adaptive solvers, each row by itself, to a tolerance."""
import math

import numpy as np
from scipy.integrate import solve_ivp

from .. import backend
from ..process.families import Interpolated
from ..process.likelihood import NotConverged
from .state import NotFinite, after, check, number, one_of

FLOOR = 1e-6
METHODS = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")


def angle(level):
    """theta = atan(sigma/alpha): pi/2 for pure noise, 0 for clean data."""
    return math.atan2(level.sigma, level.alpha)


def _slope(denoiser, grid, shape, like, ends):
    """d xhat/d theta of one row = v/norm, where x = norm xhat, norm = hypot(alpha, sigma); see `adaptive`."""
    xp = backend.of(x=like)

    def slope(theta, flat):
        level = next((level for level in ends if angle(level) == theta), None)      # as given, not as rounded
        if level is None:
            level = _between(grid, math.tan(theta), f"a level between t = {ends[0].t} and t = {ends[1].t}")
        norm = math.hypot(level.alpha, level.sigma)
        x = xp.asarray((norm * flat).reshape((1,) + shape), dtype=like.dtype)
        v = backend.to_host(denoiser(x, level).v).astype(np.float64).ravel() / norm
        if not np.all(np.isfinite(v)):
            raise NotFinite(f"adaptive: the denoiser's v is not finite at t = {level.t}")
        return v
    return slope


def _between(grid, ratio, what):
    """The family's level of this sigma/alpha."""
    try:
        return grid.at(-math.log(ratio))
    except ValueError as error:
        raise ValueError(f"adaptive: {what}: {error}") from None


def _bottom(grid, floor):
    """The level at which a grid that ends on sigma = 0 is solved to."""
    last = grid.level(len(grid) - 1)
    if floor is not None:
        if not floor < last.ratio:
            raise ValueError(f"adaptive: floor is {floor}, wanted less than the last noisy level's sigma/alpha = "
                             f"{last.ratio:g}")
        return _between(grid, floor, f"floor is {floor}")
    if isinstance(grid.family, Interpolated):
        lowest = grid.family.level(1.0)
    else:
        lowest = _between(grid, FLOOR, f"floor is {FLOOR}")
    return lowest if lowest.ratio < last.ratio else last


def adaptive(denoiser, grid, x, method="RK45", rtol=1e-5, atol=1e-5, floor=None):
    """d xhat/d theta = v, theta = atan(sigma/alpha), xhat = x/hypot(alpha, sigma), level to level. [SDE eq. 13]

    In the angle the ODE is finite at both ends. Each row is a problem of its own, with its own steps and rtol, atol on
    xhat (by default those of the paper's code), so rows do not mix; the denoiser is asked for one row at a time, at
    levels of the grid's family, and at the start of each step once for all rows. The denoiser decides what is had: in
    float32 no tolerance below 1e-6 is met.

    At sigma = 0 most predictions do not determine v. A grid that ends there is solved to sigma/alpha = floor, then
    x0hat is taken: an error of floor^2/2 times the score. floor must be a level that the family has. None is 1e-6, or
    the level t = 1 of a discrete schedule, or the grid's last noisy level where that is lower still.
    `method`: of scipy.integrate.solve_ivp. x[n, ...] is noise at grid.level(0). Yields a State per step of the grid.
    Raises NotConverged, naming row and levels, where the solver gives up.
    """
    one_of("adaptive: method", method, METHODS)
    for name, value in (("rtol", rtol), ("atol", atol), ("floor", FLOOR if floor is None else floor)):
        if not number(f"adaptive: {name}", value) > 0:
            raise ValueError(f"adaptive: {name} is {value}, wanted > 0")
    if grid.family is None:
        raise ValueError(f"adaptive: grid {grid.rule} names no family, and the solver evaluates between its levels; "
                         "pass Grid(..., family=...)")
    bottom = _bottom(grid, floor) if grid.sigma[-1] == 0 else None
    denoiser = check("adaptive", denoiser, x, None, 0)
    xp = backend.of(x=x)
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        end = s if s.sigma > 0 else bottom
        prediction = denoiser(x, t)
        rows = backend.to_host(x).astype(np.float64).reshape(len(x), -1) / math.hypot(t.alpha, t.sigma)
        slope = _slope(denoiser, grid, x.shape[1:], x, (t, end))
        for n in range(len(rows)) if end != t else ():
            solution = solve_ivp(slope, (angle(t), angle(end)), rows[n], method=method, rtol=rtol, atol=atol)
            if not solution.success or not np.all(np.isfinite(solution.y[:, -1])):
                raise NotConverged(f"adaptive: row {n} from t = {t.t} to t = {end.t} by {method}: {solution.message}")
            rows[n] = solution.y[:, -1]
        x = xp.asarray(math.hypot(end.alpha, end.sigma) * rows.reshape(x.shape), dtype=x.dtype)
        if s.sigma == 0:
            x = xp.asarray(s.alpha * (denoiser(x, end) if end != t else prediction).x0, dtype=x.dtype)
        yield after("adaptive", i, s, x, prediction)
