"""What the multistep solvers share: one linear system for their coefficients, their start, and the loop.

All of them are DDIM's step, plus what the polynomial through earlier evaluations f_m adds to the latest, f_0:

    x_s = alpha_s x0hat + sigma_s epshat + alpha_s sum_m w_m (f_m - f_0),    sum_m w_m u_m^k = M_k,   k = 1..n

Here u is the variable of the polynomial, counted from the step's start, u_m < 0 its value at n earlier levels, and the
moment M_k is what the step makes of f = u^k. The methods differ in f, in u, and so in M_k alone:

    f    u        M_k                                           method
    eps  ratio    int u^k d ratio   = (ratio_s - ratio_t)^(k+1)/(k+1)     linear multistep, rhoAB-DEIS
    eps  t        int u^k d ratio                                         tAB-DEIS
    eps  lambda   int u^k d ratio   = -ratio_t int_0^h e^-u u^k du        UniPC in eps, DEIS in lambda
    x0   lambda   int e^(u-h) u^k du = h^(k+1) k! phi_(k+1)(-h)           UniPC in x0
    eps  step     (ratio_s - ratio_t)/(k+1), u_m = -m                     PLMS: right where ratio is linear in the step

with ratio = sigma/alpha. Written with f_m - f_0 the first-order step is exact at both ends, sigma = 0 and alpha = 0.
"""
import math

import numpy as np
from scipy.special import gammainc

from .state import after, check, integer, one_of

FINALS = ("paper", "always", "never")


def solve(nodes, moments):
    """w with sum_m w_m nodes_m^k = moments_k, k = 1..n: Python numbers. The nodes differ from each other and from 0."""
    nodes, n = np.asarray(nodes, dtype=np.float64), len(nodes)
    unit = np.abs(nodes).max()
    powers = np.arange(1, n + 1)
    return np.linalg.solve((nodes / unit) ** powers[:, None], np.asarray(moments) / unit ** powers).tolist()


def eps_moments(t, s, n):
    """-ratio_t int_0^h e^-u u^k du, k = 1..n: int eps d ratio for eps = u^k in u = lambda - lambda_t; h = inf too."""
    return [-t.ratio * math.factorial(k) * float(gammainc(k + 1, s.lam - t.lam)) for k in range(1, n + 1)]


def first_order(prediction, s):
    """DDIM's step to the level s with eta = 0: the part of x that all these solvers share. [DDIM eq. 12]"""
    return s.alpha * prediction.x0 + s.sigma * prediction.eps


def add(x, s, weights, values, latest):
    """x + alpha_s sum_m w_m (f_m - f_0)."""
    for weight, value in zip(weights, values):
        x = x + s.alpha * weight * (value - latest)
    return x


def middle(t, s):
    """lambda at the middle angle between two levels."""
    return -math.log(math.tan((math.atan2(t.sigma, t.alpha) + math.atan2(s.sigma, s.alpha)) / 2))


def runge_kutta(denoiser, grid, prediction, s):
    """x_s by the classical Runge-Kutta method of order 4 in the angle atan(sigma/alpha), from a prediction at its x.

    In xhat = x/r, r^2 = alpha^2 + sigma^2, every family is the circle and d xhat/d angle = v, which is finite from pure
    noise to clean data. Three evaluations: two at the level of the middle angle, one at s, where sigma > 0.
    """
    t = prediction.level
    start, end = math.atan2(t.sigma, t.alpha), math.atan2(s.sigma, s.alpha)
    h, halfway = end - start, grid.at(middle(t, s))
    r_t, r, r_s = (math.hypot(level.alpha, level.sigma) for level in (t, halfway, s))
    xhat, k1 = prediction.x / r_t, prediction.v / r_t
    k2 = denoiser(r * (xhat + h / 2 * k1), halfway).v / r
    k3 = denoiser(r * (xhat + h / 2 * k2), halfway).v / r
    k4 = denoiser(r_s * (xhat + h * k3), s).v / r_s
    return r_s * (xhat + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


STARTS = {"lower": None, "rk4": runge_kutta}


def check_options(name, denoiser, grid, x, order, most, start, starts, lower_order_final):
    """Refuse, before any work, what is no option, and a start that needs levels which the grid does not know.

    Returns the denoiser as `check` does.
    """
    integer(f"{name}: order", order, 1, most)
    one_of(f"{name}: start", start, starts)
    one_of(f"{name}: lower_order_final", lower_order_final, FINALS)
    if starts[start] and order > 1 and grid.family is None:
        raise ValueError(f"{name}: start {start!r} evaluates between the grid's levels and grid {grid.rule} names no "
                         "family; pass Grid(..., family=...), or use start='lower'")
    if starts[start] is runge_kutta:
        for i in range(min(order - 1 + (grid.alpha[0] == 0), len(grid) - (grid.sigma[-1] == 0))):
            try:
                grid.at(middle(grid.level(i), grid.level(i + 1)))
            except ValueError as error:
                raise ValueError(f"{name}: start {start!r} evaluates between t = {grid.t[i]} and t = {grid.t[i + 1]}, "
                                 f"where there is no level; use start='lower': {error}") from None
    return check(name, denoiser, x, None, 0)


def check_times(name, grid):
    """Refuse a grid whose levels are not its family's at its times, where the family's time itself is used."""
    with np.errstate(divide="ignore"):
        given = np.log(grid.alpha) - np.log(grid.sigma)
    if not np.allclose(grid.family.lam(grid.t), given, rtol=1e-6, atol=1e-6):
        raise ValueError(f"{name}: the levels of grid {grid.rule} are not those of its family {grid.family.rule} at "
                         "the grid's times; choose a variable or a start that does not use them")


def explicit(name, denoiser, grid, x, order, weights, start, lowered):
    """The loop of an explicit solver in eps. weights(t, s, earlier levels, latest first) -> w_m.

    The first steps: `start`, a map (denoiser, grid, prediction at t, s) -> x_s, until order - 1 evaluations are in
    hand; None uses the order that there is. So does every step to sigma = 0 that comes so early. A level without
    signal has no ratio: its step is DDIM's (or `start`'s) and it is left out of the polynomials. With `lowered` the
    order falls to 1 at the last step.
    """
    levels, values, S = [], [], len(grid)
    for i in range(S):
        t, s = grid.level(i), grid.level(i + 1)
        prediction = denoiser(x, t)
        if start and len(levels) + 1 < order and s.sigma > 0:
            x = start(denoiser, grid, prediction, s)
        else:
            n = min(order, S - i) - 1 if lowered else order - 1
            x = first_order(prediction, s)
            if n > 0 and levels:
                x = add(x, s, weights(t, s, levels[:n]), values, prediction.eps)
        if t.alpha > 0:
            levels, values = [t, *levels][:order - 1], [prediction.eps, *values][:order - 1]
        yield after(name, i, s, x, prediction)
