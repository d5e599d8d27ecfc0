"""DDIM: one family of samplers from deterministic (eta = 0) to DDPM's (eta = 1), on any grid of any family."""
import math

from ..process.gaussian import transition
from .state import after, check, draw, number


def coefficients(s, t, eta):
    """(on x0, on eps, std) of the step from level t to level s. [DDIM eq. 12, 16]

    std = eta (sigma_s/sigma_t) sqrt(var_ts), and on eps sqrt(sigma_s^2 - std^2). With r = alpha_ts sigma_s/sigma_t,
    var_ts = sigma_t^2 (1 - r^2), so that sigma_s^2 - std^2 = sigma_s^2 (1 - eta^2 + eta^2 r^2): nothing cancels.
    """
    alpha_ts, var_ts = transition(s, t)
    std = eta * (s.sigma / t.sigma) * math.sqrt(var_ts)
    r = alpha_ts * s.sigma / t.sigma
    return s.alpha, s.sigma * math.sqrt((1 - eta) * (1 + eta) + (eta * r) ** 2), std


def ddim(denoiser, grid, x, eta=0.0, noise=None):
    """x_s = alpha_s x0hat + sqrt(sigma_s^2 - std^2) epshat + std z, std by eta; z = 0 on the last step. [DDIM eq. 12]

    0 <= eta <= 1: 0 draws nothing and is Euler's method on the PF-ODE in sigma/alpha; 1 is DDPM's small variance.
    Order 1, from 64 steps on; with noise weak order 1, on Gaussian data.

    x[n, ...] is noise at grid.level(0). Yields a State per step.
    """
    eta = number("ddim: eta", eta, 0, 1)
    last = len(grid) - 1
    denoiser = check("ddim", denoiser, x, noise, last if eta > 0 else 0)
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        on_x0, on_eps, std = coefficients(s, t, eta)
        prediction = denoiser(x, t)
        x = on_x0 * prediction.x0 + on_eps * prediction.eps
        if i < last and eta > 0:
            x = x + std * draw("ddim", noise, i, x)
        yield after("ddim", i, s, x, prediction)
