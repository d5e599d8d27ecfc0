"""Ancestral sampling of DDPM, on any grid of any family."""
from ..process.gaussian import VARIANCES, fixed_variance, posterior
from .state import after, check, draw, one_of
from .variances import checked


def ddpm(denoiser, grid, x, variance="small", noise=None):
    """x_s = E[x_s | x_t, x0hat] + sqrt(variance) z from each level t to the next, s; z = 0 on the last. [DDPM alg. 2]

    With x0hat for x_0 in the mean of q(x_s | x_t, x_0) this is the paper's in eps. [DDPM eq. 11] variance: "small",
    beta-tilde, or "large", beta, for the two levels of the grid: on a sub-sequence they are those of the longer jump;
    or a function (prediction, s, t) -> variance, a number, (n,) or like x, such as those of variances.py.
    Weak order 1 on Gaussian data with either of the two, from 64 steps on.
    With "small" x/alpha is the same in every family with levels of the same SNR. "large" depends on the family: over
    alpha_s its std is alpha_ts sqrt(ratio_t^2 - ratio_s^2), ratio = sigma/alpha, with alpha_ts = 1 in VE alone.

    x[n, ...] is noise at grid.level(0). Yields a State per step; x0hat is not clipped.
    """
    last = len(grid) - 1
    if not callable(variance):
        one_of("ddpm: variance", variance, VARIANCES)
    choose = checked(variance) if callable(variance) else lambda prediction, s, t: fixed_variance(variance, s, t)
    denoiser = check("ddpm", denoiser, x, noise, last)
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        c_x0, c_xt, _ = posterior(s, t)
        prediction = denoiser(x, t)
        std = choose(prediction, s, t) ** 0.5
        x = c_x0 * prediction.x0 + c_xt * x
        if i < last:
            x = x + std * draw("ddpm", noise, i, x)
        yield after("ddpm", i, s, x, prediction)
