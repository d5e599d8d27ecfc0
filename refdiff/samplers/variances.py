"""Variances of DDPM's step beyond its fixed two: learned in between, and right for Gaussian data.

    ddpm(denoiser, grid, x, variance=learned(lambda prediction: prediction.out), noise=noise)

A variance is a function (prediction, s, t) of the prediction made from x_t and the levels of the step, s the cleaner;
a number, one per row (n,), or one per entry, like x.
"""
import math

from .. import backend
from ..process.gaussian import fixed_variance, posterior
from ..process.level import expand
from .state import number


def checked(variance):
    """The same variance, ready to multiply x, and refused unless finite and >= 0 (on a device: a wait in each step)."""
    def ready(prediction, s, t):
        value, x = variance(prediction, s, t), prediction.x
        if not getattr(value, "shape", ()):
            return number("ddpm: the variance", value, 0)
        xp = backend.of(x=x, variance=value)
        if value.shape not in (x.shape, x.shape[:1]) or value.dtype.kind != "f":
            raise ValueError(f"ddpm: the variance is {value.dtype} {value.shape} at t = {t.t}, wanted a number, or "
                             f"floats of shape {x.shape[:1]}, one per row, or {x.shape}, like x")
        if not bool((xp.isfinite(value) & (value >= 0)).all()):
            raise ValueError(f"ddpm: the variance at t = {t.t} is negative or not finite somewhere")
        return expand(value, x) if value.shape == x.shape[:1] else value.astype(x.dtype)
    return ready


def learned(out):
    """exp(v log beta + (1 - v) log beta-tilde) with v = (out + 1)/2, for out(prediction) [n, ...]. [IDDPM eq. 15]

    beta and beta-tilde are those of the step's two levels, so that a network trained on all T serves a sub-sequence.
    out is the network's second half: -1 is "small", 1 is "large"; it is not clipped. A denoiser hands it over with its
    prediction, or `out` asks for it. To sigma_s = 0, where beta-tilde = 0, the variance is 0.
    """
    def variance(prediction, s, t):
        if s.sigma == 0:
            return 0.0
        small, large = (math.log(fixed_variance(kind, s, t)) for kind in ("small", "large"))
        value = out(prediction)
        if value.shape != prediction.x.shape:
            raise ValueError(f"learned: out has shape {value.shape}, wanted {prediction.x.shape}, like x")
        return backend.of(x=prediction.x, out=value).exp(0.5 * (large + small) + 0.5 * (large - small) * value)
    return variance


def gaussian_data(std):
    """beta-tilde + c_x0^2 Var(x_0 | x_t), the variance of q(x_s | x_t) for data of independent entries N(m, std^2).

    Var(x_0 | x_t) = std^2 sigma_t^2/(alpha_t^2 std^2 + sigma_t^2). 0 is "small", 1 in a VP family "large". With it a
    step is exact on such data, however long it is.
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"gaussian_data: std is {std}, wanted finite and >= 0")

    def variance(prediction, s, t):
        c_x0, _, small = posterior(s, t)
        return small + (c_x0 * std * t.sigma) ** 2 / ((t.alpha * std) ** 2 + t.sigma ** 2)
    return variance
