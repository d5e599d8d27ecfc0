"""EDM's deterministic samplers: Euler and Heun on the PF-ODE in sigma.

EDM solves dx/dsigma = (x - D(x; sigma))/sigma for x = x_0 + sigma eps. [EDM sec. 3] The slope is the predicted eps, and
any family is that one in x/alpha with sigma/alpha for sigma, so both run on any grid.
"""
from .state import after, check


def euler(denoiser, grid, x):
    """Euler's method: xbar' = xbar + (sigma' - sigma) d, d = epshat. [EDM alg. 1, without its correction]

    Order 1, from 64 steps on.

    Here xbar = x/alpha and sigma stands for sigma/alpha. x[n, ...] is noise at grid.level(0), which must have
    alpha > 0. Yields a State per step. The same steps as DDIM with eta = 0. [DDIM eq. 13]
    """
    return _solve("euler", denoiser, grid, x, correct=False)


def heun(denoiser, grid, x):
    """Heun's method: Euler's step, then the mean of the slopes at its two ends. [EDM alg. 1]

    Order 2, from 64 steps on.

    The last step is Euler's alone if it ends at sigma = 0, where the slope is 0/0: 2S - 1 evaluations for S steps,
    2S otherwise. x[n, ...] and what is yielded as for `euler`; the prediction is the one at the step's start.
    """
    return _solve("heun", denoiser, grid, x, correct=True)


def _solve(name, denoiser, grid, x, correct):
    denoiser = check(name, denoiser, x, None, 0)
    if grid.level(0).alpha == 0:
        raise ValueError(f"{name}: the grid starts at alpha = 0, where sigma/alpha is infinite; "
                         "start at a level with signal, or use ddim")
    for i in range(len(grid)):
        here, there = grid.level(i), grid.level(i + 1)
        prediction = denoiser(x, here)
        xbar, h = x / here.alpha, there.ratio - here.ratio
        d_cur = prediction.eps
        x = there.alpha * (xbar + h * d_cur)
        if correct and there.sigma > 0:
            d_prime = denoiser(x, there).eps
            x = there.alpha * (xbar + h * (0.5 * d_cur + 0.5 * d_prime))
        yield after(name, i, there, x, prediction)
