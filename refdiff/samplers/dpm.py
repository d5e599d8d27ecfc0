"""DPM-Solver: the PF-ODE in eps, its linear part exact, the integral of e^-lambda eps by orders 1 to 3.

In all formulas h = lambda_t - lambda_s, lambda = log(alpha/sigma). The paper's grid is uniform in lambda; any grid of
any family will do.
"""
from .exponential import solve
from .state import integer


def budget(evaluations):
    """The orders of DPM-Solver-3 with that many evaluations: as many 3s as fit, then what is left. [DPM sec. D.3]

    floor(K/3) + 1 steps: 3, .., 3, 2, 1 if 3 divides K; 3, .., 3, 1 if K - 1; 3, .., 3, 2 if K - 2. They are the
    `order` of `dpm`, or of `dpmpp` with form "single", on a grid of that many steps. K is an integer >= 1.
    """
    threes, left = divmod(integer("budget: the number of evaluations", evaluations, 1), 3)
    return (3,) * (threes - 1) + (2, 1) if left == 0 else (3,) * threes + (left,)


def dpm(denoiser, grid, x, order=3, form="single", rule=None, r1=None, r2=None, start=None, lower_order_final=None):
    """DPM-Solver of order 1, 2 or 3, single-step, or with the multistep rules of DPM-Solver++ put in eps.

    order=1: x_t = alpha_t/alpha_s x - sigma_t (e^h - 1) eps_s, which is DDIM with eta = 0. [DPM eq. 3.7, 4.1]

    order=2: u = alpha_s1/alpha_s x - sigma_s1 (e^(r1 h) - 1) eps_s at lambda_s + r1 h, with r1 = 1/2, then
    x_t = alpha_t/alpha_s x - sigma_t (e^h - 1) (eps_s + (eps(u) - eps_s)/(2 r1)). [DPM alg. 1, 4]

    order=3: u1 as u, with r1 = 1/3, and u2 at lambda_s + r2 h, with r2 = 2/3; D_i = eps(u_i) - eps_s,
    u2 = alpha_s2/alpha_s x - sigma_s2 (e^(r2 h) - 1) eps_s - sigma_s2 r2/r1 ((e^(r2 h) - 1)/(r2 h) - 1) D1, and
    x_t = alpha_t/alpha_s x - sigma_t (e^h - 1) eps_s - sigma_t/r2 ((e^h - 1)/h - 1) D2. [DPM alg. 2, 5]

    Single-step order k evaluates k times per step and has order k, from 64 steps on. [DPM sec. 3.2] Alg. 5 takes any
    r1, r2, but its third order stands on r2 = 2/3: with r1, r2 = 1/4, 1/2 it is 2.0, whatever the rule. form="multi"
    evaluates once per step: order 2 from 64 steps on; order 3 from 256 on, with start="single".

    The options, and what a step to sigma = 0 or from alpha = 0 does: see `dpmpp`. order may be one number per step
    with form "single", as `budget` gives. x[n, ...] is noise at grid.level(0). Yields a State per step, with the
    prediction at its start.
    """
    return solve("dpm", "eps", denoiser, grid, x, order, form, rule, r1, r2, start, lower_order_final)
