"""Thresholding: denoisers whose x_0 stays in range.

    static     x0 <- clip(x0, -limit, limit)
    dynamic    x0 <- clip(x0, -s, s) limit/s,  s = max(percentile of |x0| in the row, limit), at most `cap`

A clipped x_0 no longer fits the predicted eps. Which of the two a sampler then sees is a choice:

    eps="derived"   eps = (x - alpha x0)/sigma from the clipped x_0: the pair still makes x.
    eps="kept"      eps as it was predicted: the pair makes another point, alpha x0 + sigma eps.

A step from x = 3, eps = 0 at t = 501 of DDPM's schedule to t = 481 ends on 3.004 with the first, .308 with the second.
"""
from .. import backend
from ..process.parameterization import Prediction
from ..samplers.state import number, one_of

EPS = ("derived", "kept")


def static(denoiser, limit=1.0, eps="derived"):
    """x0 clipped to -limit..limit, for data in that range. [DYNTHR sec. 2.3], [DPMPP sec. 4.3]

    Raises ValueError unless limit > 0."""
    limit = _limit("static", limit)
    return _thresholded("static", denoiser, lambda x0: x0.clip(-limit, limit), eps)


def dynamic(denoiser, percentile=0.995, limit=1.0, cap=None, eps="derived"):
    """clip(x0, -s, s) limit/s, s = max(q, limit) with q a row's quantile of |x0|. [DYNTHR sec. 2.3]

    percentile in (0, 1]: 0.995 is the paper's; quantiles are interpolated linearly between the row's entries. s = limit
    is static thresholding. cap >= limit: s is at most that (implementations have one; their default, cap = limit,
    makes it static always); None, as in the paper, does not bound it. Raises ValueError otherwise.
    """
    limit = _limit("dynamic", limit)
    percentile = number("dynamic: percentile", percentile)
    if not 0 < percentile <= 1:
        raise ValueError(f"dynamic: percentile is {percentile}, wanted a fraction in (0, 1], as 0.995")
    if cap is not None and not number("dynamic: cap", cap) >= limit:
        raise ValueError(f"dynamic: cap is {cap}, wanted None or a number >= limit = {limit}")

    def threshold(x0):
        xp = backend.of(x0=x0)
        s = xp.quantile(abs(x0).reshape(len(x0), -1), percentile, axis=1).astype(x0.dtype)
        s = s.clip(limit, cap).reshape((-1,) + (1,) * (x0.ndim - 1))
        return xp.clip(x0, -s, s) * (limit / s)

    return _thresholded("dynamic", denoiser, threshold, eps)


def _limit(name, limit):
    limit = number(f"{name}: limit", limit)
    if not limit > 0:
        raise ValueError(f"{name}: limit is {limit}, wanted > 0")
    return limit


def _thresholded(name, denoiser, threshold, eps):
    one_of(f"{name}: eps", eps, EPS)

    def thresholded(x, level):
        prediction = denoiser(x, level)
        x0 = threshold(prediction.x0)
        if eps == "derived":
            return Prediction("x0", x0, prediction.x, level)
        alpha, sigma = level.expand(x)
        return Prediction("x0", x0, alpha * x0 + sigma * prediction.eps, level)     # the point that this pair makes

    return thresholded
