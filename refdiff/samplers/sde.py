"""The reverse SDE, step by step: Euler-Maruyama in a family's own time, reverse diffusion and ancestral sampling.

    dx = [f(t) x - g(t)^2 score(x, t)] dt + g(t) dw,   t falling

Every step here is x_s = on_x x_t + on_score score(x_t, t) + std z. The last step adds no noise unless end = "noise":
its mean is what the authors' code returns, and z there is only ever seen as noise.
"""
import math

from ..process.gaussian import VARIANCES, posterior, transition
from .ddim import ddim
from .state import after, check, draw, one_of

ENDS = ("mean", "noise")


def noisy_steps(name, grid, end):
    """How many steps draw noise: all but the last, or with end = "noise" all that end on a level with noise."""
    one_of(f"{name}: end", end, ENDS)
    return len(grid) - (end == "mean" or grid.sigma[-1] == 0)


def reverse_diffusion_step(s, t):
    """(on_x, on_score, std) = (2 - alpha_ts, var_ts, sqrt(var_ts)): q(x_t | x_s) discretised backwards. [SDE sec. E]

    From the two levels alone. VE: x + (sigma_t^2 - sigma_s^2) score; VP: (2 - sqrt(1 - beta)) x + beta score.
    """
    alpha_ts, var_ts = transition(s, t)
    return 2 - alpha_ts, var_ts, math.sqrt(var_ts)


def ancestral_step(s, t, variance="small"):
    """(on_x, on_score, std) = (1/alpha_ts, var_ts/alpha_ts, std): DDPM's step, written in the score. [SDE eq. 47]

    variance "small" is the paper's for VE, "large" (var_ts, beta) its choice for VP. Refused at alpha_t = 0.
    """
    one_of("ancestral: variance", variance, VARIANCES)
    if t.alpha == 0:
        raise ValueError(f"ancestral: alpha = 0 at t = {t.t}, where the score says nothing of x_0; use ddpm")
    alpha_ts, var_ts = transition(s, t)
    var = var_ts if variance == "large" else posterior(s, t).variance
    return 1 / alpha_ts, var_ts / alpha_ts, math.sqrt(var)


PREDICTORS = {"reverse-diffusion": reverse_diffusion_step, "ancestral": ancestral_step}


def _family_step(grid, i, dt):
    """(on_x, on_score, std) = (1 + f dt, -g^2 dt, g sqrt(-dt)) at the step's start."""
    t = grid.t[i]
    f, g2 = float(grid.family.f(t)), float(grid.family.g2(t))
    dt = float(grid.t[i + 1] - t if dt == "spacing" else -grid.t[0] / len(grid))
    if not math.isfinite(f + g2):
        raise ValueError(f"euler_maruyama: f = {f} and g^2 = {g2} at t = {t}, wanted both finite; start the grid "
                         "later, or use reverse_diffusion, which needs the levels alone")
    return 1 + f * dt, -g2 * dt, math.sqrt(-g2 * dt)


def _sample(name, denoiser, grid, x, coefficients, end, noise):
    noisy = noisy_steps(name, grid, end)
    denoiser = check(name, denoiser, x, noise, noisy)
    for i, (on_x, on_score, std) in enumerate(coefficients):
        prediction = denoiser(x, grid.level(i))
        x = on_x * x + on_score * prediction.score
        if i < noisy:
            x = x + std * draw(name, noise, i, x)
        yield after(name, i, grid.level(i + 1), x, prediction)


def _pairs(grid):
    return [(grid.level(i + 1), grid.level(i)) for i in range(len(grid))]


def euler_maruyama(denoiser, grid, x, dt="spacing", end="mean", noise=None):
    """x + (f x - g^2 score) dt + g sqrt(-dt) z, in the grid's family's time t and with its f(t), g(t). [SDE eq. 6]

    It depends on the family: x/alpha at levels of the same SNR is another one with another f, g and t.
    dt: "spacing" is the difference of the grid's times; "T/N" is -t_0/N in all N steps, as in the authors' code, whose
    N times end on a small t > 0. Weak order 1, from 64 steps on.

    x[n, ...] is noise at grid.level(0). Yields a State per step.
    """
    one_of("euler_maruyama: dt", dt, ("spacing", "T/N"))
    if grid.family is None:
        raise ValueError(f"euler_maruyama: grid {grid.rule} names no family, so f(t) and g(t) are unknown; use "
                         "reverse_diffusion, which needs the levels alone")
    coefficients = [_family_step(grid, i, dt) for i in range(len(grid))]
    yield from _sample("euler_maruyama", denoiser, grid, x, coefficients, end, noise)


def reverse_diffusion(denoiser, grid, x, end="mean", noise=None):
    """(2 - alpha_ts) x + var_ts score + sqrt(var_ts) z, on any grid of any family. [SDE sec. E]

    Where 2 - alpha_ts stands for 1/alpha_ts x/alpha depends on the family: with alpha = 1 alone is it `ancestral`'s.
    Weak order 1, from 64 steps on. x[n, ...] is noise at grid.level(0). Yields a State per step.
    """
    coefficients = [reverse_diffusion_step(s, t) for s, t in _pairs(grid)]
    yield from _sample("reverse_diffusion", denoiser, grid, x, coefficients, end, noise)


def ancestral(denoiser, grid, x, variance="small", end="mean", noise=None):
    """(x + var_ts score)/alpha_ts + std z: DDPM's step as score-based models write it. [SDE eq. 47]

    variance: "small" for VE in the paper, "large" for VP; as in `ddpm`, which it is with end = "mean", "small" is the
    same x/alpha at levels of the same SNR and "large" depends on the family. Weak order 1, from 64 steps
    on. x[n, ...] is noise at grid.level(0), which must have alpha > 0. Yields a State per step.
    """
    coefficients = [ancestral_step(s, t, variance) for s, t in _pairs(grid)]
    yield from _sample("ancestral", denoiser, grid, x, coefficients, end, noise)


def euler_ancestral(denoiser, grid, x, eta=1.0, noise=None):
    """Euler's step down to sigma_down, then noise of sigma_up back to sigma_s: `ddim` with that eta, 0 <= eta <= 1.

    In x/alpha: sigma_up = eta (sigma_s/sigma_t) sqrt(sigma_t^2 - sigma_s^2), sigma_down^2 = sigma_s^2 - sigma_up^2.
    Weak order 1, from 64 steps on. x[n, ...] is noise at grid.level(0). Yields a State per step.
    """
    return ddim(denoiser, grid, x, eta, noise)
