"""The probability-flow ODE by scipy's adaptive solvers, each row by itself, to a tolerance."""
import math

import numpy as np
from scipy.integrate import solve_ivp

from .. import backend
from .state import State, check

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
            level = grid.at(-math.log(math.tan(theta)))
        norm = math.hypot(level.alpha, level.sigma)
        x = xp.asarray((norm * flat).reshape((1,) + shape), dtype=like.dtype)
        v = backend.to_host(denoiser(x, level).v).astype(np.float64).ravel() / norm
        if not np.all(np.isfinite(v)):
            raise RuntimeError(f"adaptive: the denoiser's v is not finite at t = {level.t}")
        return v
    return slope


def adaptive(denoiser, grid, x, method="RK45", rtol=1e-5, atol=1e-5, floor=1e-6):
    """d xhat/d theta = v, theta = atan(sigma/alpha), xhat = x/hypot(alpha, sigma), level to level. [SDE eq. 13]

    In the angle the ODE is finite at both ends. Each row is a problem of its own, with its own steps and rtol, atol on
    xhat (by default those of the paper's code), so rows do not mix; the denoiser is asked for one row at a time, at
    levels of the grid's family, and at the start of each step once for all rows. The denoiser decides what is had: in
    float32 no tolerance below 1e-6 is met.

    At sigma = 0 most predictions do not determine v. A grid that ends there is solved to sigma/alpha = floor, then
    x0hat is taken: an error of floor^2/2 times the score. floor must be a level that the family has: for a discrete
    schedule at least that of t = 1. `method`: of scipy.integrate.solve_ivp. x[n, ...] is noise at grid.level(0). Yields
    a State per step of the grid. Raises RuntimeError, naming row and levels, where the solver gives up.
    """
    if method not in METHODS:
        raise ValueError(f"adaptive: method is {method!r}, wanted one of {', '.join(METHODS)}")
    if not (0 < rtol < math.inf and 0 < atol < math.inf and 0 < floor < math.inf):
        raise ValueError(f"adaptive: rtol {rtol}, atol {atol}, floor {floor}, wanted all finite and > 0")
    if grid.family is None:
        raise ValueError(f"adaptive: grid {grid.rule} names no family, and the solver evaluates between its levels; "
                         "pass Grid(..., family=...)")
    check("adaptive", x, None, 0)
    last = len(grid) - 1
    if grid.sigma[-1] == 0:
        bottom = grid.at(-math.log(floor))
        if bottom.ratio >= grid.level(last).ratio:
            raise ValueError(f"adaptive: floor is {floor}, wanted less than the last noisy level's sigma/alpha = "
                             f"{grid.level(last).ratio:g}")
    xp = backend.of(x=x)
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        end = s if s.sigma > 0 else bottom
        prediction = denoiser(x, t)
        rows = backend.to_host(x).astype(np.float64).reshape(len(x), -1) / math.hypot(t.alpha, t.sigma)
        slope = _slope(denoiser, grid, x.shape[1:], x, (t, end))
        for n in range(len(rows)):
            solution = solve_ivp(slope, (angle(t), angle(end)), rows[n], method=method, rtol=rtol, atol=atol)
            if not solution.success or not np.all(np.isfinite(solution.y[:, -1])):
                raise RuntimeError(f"adaptive: row {n} from t = {t.t} to t = {end.t} by {method}: {solution.message}")
            rows[n] = solution.y[:, -1]
        x = xp.asarray(math.hypot(end.alpha, end.sigma) * rows.reshape(x.shape), dtype=x.dtype)
        if s.sigma == 0:
            x = s.alpha * denoiser(x, end).x0
        yield State(i, s, x, prediction)
