"""Sampling with a consistency function f(x, sigma), which maps any point of a PF-ODE trajectory to its start."""
import math

from ..process.level import ve
from ..process.parameterization import Prediction
from .state import after, check_start, draw, number


def consistency(f, sigmas, x, sigma_min=0.002, noise=None):
    """x = f(x, sigma_1); then for each next tau, x = f(x + sqrt(tau^2 - sigma_min^2) z, tau). [CM alg. 1]

    x[n, ...] is noise at sigmas[0] (sigma_max z, in the paper); sigmas strictly decrease, all above sigma_min, the
    level of f's own output. One evaluation per sigma. Step i's x is f's output, at sigma_min; the noise that leads
    to the next evaluation is noise(i), so that the last step draws none. It must be independent of x's.
    """
    if not hasattr(sigmas, "__iter__"):
        raise ValueError(f"consistency: sigmas is {sigmas!r}, wanted the noise levels of all steps")
    sigmas = [number("consistency: sigma", sigma) for sigma in sigmas]
    sigma_min = number("consistency: sigma_min", sigma_min)
    if not sigmas or not all(a > b for a, b in zip(sigmas, [*sigmas[1:], sigma_min])) or not 0 <= sigma_min:
        raise ValueError(f"consistency: sigmas are {sigmas}, wanted at least one, strictly decreasing, "
                         f"above sigma_min = {sigma_min} >= 0")
    check_start("consistency", x, noise, len(sigmas) - 1)
    for i, sigma in enumerate(sigmas):
        if i > 0:
            x = x + math.sqrt((sigma - sigma_min) * (sigma + sigma_min)) * draw("consistency", noise, i - 1, x)
        noisy, x = x, f(x, sigma)
        yield after("consistency", i, ve(sigma_min), x, Prediction("x0", x, noisy, ve(sigma)))
