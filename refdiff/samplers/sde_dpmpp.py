"""SDE-DPM-Solver++: the reverse SDE with its linear part and its noise exact, x0hat constant or linear in lambda."""
import math

from .phi import phi
from .sde import noisy_steps
from .state import after, check, draw, integer, number, one_of

RULES = ("truncated", "exact")


def coefficients(s, t, tau):
    """(on_x, on_x0, std, h) of the first-order step, h = lambda_s - lambda_t.

    on_x = (sigma_s/sigma_t) e^(-tau h), on_x0 = alpha_s (1 - e^(-(1+tau) h)), std = sigma_s sqrt(1 - e^(-2 tau h)):
    exact for constant x0hat. h is infinite from alpha_t = 0 or to sigma_s = 0, where all have their limits.
    """
    h = s.lam - t.lam
    decay = math.exp(-tau * h) if tau > 0 else 1.0                # tau h is 0 * inf at the ends of the ODE
    on_x0 = -s.alpha * math.expm1(-(1 + tau) * h)
    std = s.sigma * math.sqrt(-math.expm1(-2 * tau * h)) if tau > 0 else 0.0
    return s.sigma / t.sigma * decay, on_x0, std, h


def slope_weight(rule, alpha_s, h, tau):
    """The weight of d x0hat/d lambda, with k = (1+tau) h: alpha_s (1+tau) int_0^h e^(-(1+tau)(h-u)) u du, or near it.

    "exact": alpha_s h k phi_2(-k) is that integral. "truncated": alpha_s h (1 - e^-k)/2, as published, has u = h/2.
    """
    k = (1 + tau) * h
    return alpha_s * h * (k * phi(2, -k) if rule == "exact" else -math.expm1(-k) / 2)


def sde_dpmpp(denoiser, grid, x, order=2, tau=1.0, rule="truncated", end="mean", noise=None):
    """on_x x + on_x0 x0hat + weight (x0hat - x0hat_before)/(lambda_t - lambda_before) + std z. [DPMPP sec. 5]

    order 1 has no slope term: SDE-DPM-Solver++1; order 2 is its (2M). tau is the variance of the noise as a multiple of
    the reverse SDE's: 1 the paper's, 0 the probability-flow ODE (DPM-Solver++1 and 2M). rule, of the slope term:
    "truncated", the paper's, or "exact" for x0hat linear in lambda. The first step and a last one to sigma = 0 are of
    order 1. end: "mean" adds no noise in the last step, "noise" does. Order 1 is `ddim` with eta = 0 (tau = 0) and
    `ddpm` (tau = 1), on every grid of every family.

    Weak order 1 and 2 on Gaussian data from 64 steps on, with end = "noise": at a noisy level a last step without is
    short of O(1/N). x[n, ...] is noise at grid.level(0). Yields a State per step.
    """
    order = integer("sde_dpmpp: order", order, 1, 2)
    tau = number("sde_dpmpp: tau", tau, 0)
    one_of("sde_dpmpp: rule", rule, RULES)
    noisy = noisy_steps("sde_dpmpp", grid, end) * (tau > 0)
    denoiser = check("sde_dpmpp", denoiser, x, noise, noisy)
    before, h_before = None, None
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        on_x, on_x0, std, h = coefficients(s, t, tau)
        prediction = denoiser(x, t)
        x0 = prediction.x0
        x = on_x * x + on_x0 * x0
        if order == 2 and i > 0 and s.sigma > 0:
            x = x + slope_weight(rule, s.alpha, h, tau) / h_before * (x0 - before)
        if i < noisy:
            x = x + std * draw("sde_dpmpp", noise, i, x)
        before, h_before = x0, h
        yield after("sde_dpmpp", i, s, x, prediction)
