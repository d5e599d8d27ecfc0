"""DEIS: eps is a polynomial through its last values, and the rest of the PF-ODE is integrated exactly."""
import math

import numpy as np

from ..process.families import Interpolated
from .lms import weights as ratio_weights
from .multistep import STARTS, check_options, check_times, eps_moments, explicit, solve
from .state import one_of

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(32)


def lambda_weights(t, s, earlier):
    """w_m of the polynomial in lambda = log(alpha/sigma): against e^-lambda, in closed form."""
    return solve([level.lam - t.lam for level in earlier], eps_moments(t, s, len(earlier)))


def time_moments(family, t, s, n):
    """int u^k d ratio, k = 1..n, u = t - t_t, by parts u_s^k (ratio_s - ratio_t) - int k u^(k-1) (ratio - ratio_t) du.

    By Gauss-Legendre with 32 points on pieces of 2 in lambda, to about 1e-12. A discrete schedule is smooth between
    integers only, so there they are the pieces; in the last one, from t = 1 to the clean level t = 0, sigma/alpha is
    taken as a straight line.
    """
    discrete = isinstance(family, Interpolated)
    if discrete:
        between = np.arange(math.ceil(s.t), math.floor(t.t) + 1)
    else:
        between = family.time(np.arange(t.lam + 2, min(s.lam, t.lam + 20), 2))
    ends = np.unique(np.concatenate([[t.t, s.t], between]))[::-1]
    half = np.diff(ends)[:, None] / 2
    times = ends[:-1, None] + half * (1 + POINTS)
    ratio = np.exp(-family.lam(np.maximum(times, 1.0) if discrete else times))
    if discrete:
        ratio = ratio * np.minimum(times, 1.0)
    u, rise = times - t.t, half * WEIGHTS * (ratio - t.ratio)
    return [(s.t - t.t) ** k * (s.ratio - t.ratio) - float((k * u ** (k - 1) * rise).sum()) for k in range(1, n + 1)]


def time_weights(grid):
    """A map (t, s, earlier) -> w_m of the polynomial in t, the time of the grid's family."""
    family = grid.family
    if family is None:
        raise ValueError(f"deis: variable 't' integrates over the times between the grid's levels and grid {grid.rule} "
                         "names no family; pass Grid(..., family=...), or use variable='rho' or 'lambda'")
    check_times("deis", grid)
    return lambda t, s, earlier: solve([level.t - t.t for level in earlier], time_moments(family, t, s, len(earlier)))


VARIABLES = {"t": time_weights, "rho": lambda grid: ratio_weights, "lambda": lambda grid: lambda_weights}


def deis(denoiser, grid, x, order=3, variable="t", start="lower", lower_order_final="paper"):
    """xbar' = xbar + int p d(sigma/alpha), p the polynomial through the last `order` predicted eps. [DEIS sec. 3]

    order k = 1..4 is the paper's r + 1; 1 is DDIM. x[n, ...] is noise at grid.level(0). One evaluation per step but at
    the start by "rk4". Yields a State per step.

    variable           of the polynomial: "t", the time of the grid's family (tAB-DEIS), which depends on the family;
                       "rho", sigma/alpha (rhoAB-DEIS [DEIS sec. 4], the same as `lms`); "lambda", log(alpha/sigma)
    start              "lower": orders 1, 2, .. as evaluations come in; "rk4": k - 1 steps of a Runge-Kutta method, with
                       three more evaluations each, at levels that the grid's family gives
    lower_order_final  "paper" and "never": the order is kept to the end; "always": it falls to 1

    Order of convergence k with start="rk4", from 64 steps on in t; for k = 3 in rho and lambda from 256, for k = 4 from
    1024. The paper's start, "lower", has order 2 in the end, as its first step is of order 1: at k = 3 2.04 on a grid
    uniform in the angle, where "rk4" has 3.01 and at 1024 steps an error 400 times smaller. The step to sigma = 0 is a
    step like any other (in lambda infinitely long, with finite integrals); alpha = 0 is left by DDIM's step.
    """
    denoiser = check_options("deis", denoiser, grid, x, order, 4, start, STARTS, lower_order_final)
    one_of("deis: variable", variable, VARIABLES)
    weights = VARIABLES[variable](grid)
    return explicit("deis", denoiser, grid, x, order, weights, STARTS[start], lower_order_final == "always")
