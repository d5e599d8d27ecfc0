"""The forward process between any two levels s <= t of one family x_t = alpha_t x_0 + sigma_t eps.

    q(x_t | x_s)      = N(alpha_ts x_s, var_ts),  alpha_ts = alpha_t/alpha_s,  var_ts = sigma_t^2 - (alpha_ts sigma_s)^2
    q(x_s | x_t, x_0) = N(c_x0 x_0 + c_xt x_t, variance)

Levels hold numbers or arrays (n,); what is returned per level has the same form.
"""
import math
from typing import NamedTuple

import numpy as np

from .level import alike, anywhere, expand


class Transition(NamedTuple):
    alpha: object            # alpha_ts
    variance: object         # var_ts; beta_t where s = t - 1 in a discrete schedule


class Posterior(NamedTuple):
    c_x0: object
    c_xt: object
    variance: object         # beta-tilde_t where s = t - 1


def q_sample(x0, eps, level):
    """x_t = alpha_t x_0 + sigma_t eps, for x0 and eps of one shape [n, ...] and dtype. [DDPM eq. 4], [FM eq. 10]"""
    alike("q_sample", x0=x0, eps=eps)
    alpha, sigma = level.expand(x0)
    return alpha * x0 + sigma * eps


def transition(s, t):
    """q(x_t | x_s): its coefficient and its variance, for s no noisier than t. [DDPM eq. 2]

    var_ts = (sigma_t - r)(sigma_t + r) with r = alpha_ts sigma_s: the difference of rounded squares is never taken.
    Raises ValueError if SNR_t > SNR_s, if alpha_s = 0 (x_s then says nothing about x_t), or beyond sigma_t = 1.3e154.
    """
    alpha_ts, r = _carried(s, t)
    return Transition(alpha_ts, _variance(t.sigma - r, t.sigma + r, t))


def _carried(s, t):
    """(alpha_ts, r): x_t holds r = alpha_ts sigma_s of the noise of x_s."""
    if anywhere(s.alpha == 0):
        raise ValueError(f"transition: level s (t = {s.t}) has alpha = 0, so x_t is no function of x_s; "
                         "start from a level with signal")
    alpha_ts = t.alpha / s.alpha
    r = alpha_ts * s.sigma
    if anywhere(r > t.sigma):
        raise ValueError(f"transition: level s (t = {s.t}) is noisier than level t (t = {t.t}); wanted SNR_s >= SNR_t")
    return alpha_ts, r


def _variance(a, b, t):
    """a b, refused where it is above 1.8e308. A variance below 5e-324 is 0."""
    with np.errstate(over="ignore"):
        product = a * b
    if anywhere(product == math.inf):
        raise ValueError(f"transition: the variance at t = {t.t}, sigma = {t.sigma}, is above 1.8e308; rescale")
    return product


def noise_kept(s, t):
    """(q, 1 - q^2), q = alpha_ts sigma_s/sigma_t the part of x_t's noise that x_s has already; from ratios alone."""
    if anywhere(t.sigma == 0):
        raise ValueError(f"posterior: level t (t = {t.t}) has sigma = 0: there is no noise to remove")
    _, r = _carried(s, t)
    return r / t.sigma, (t.sigma - r) / t.sigma * (1 + r / t.sigma)


def posterior(s, t):
    """q(x_s | x_t, x_0) = N(c_x0 x_0 + c_xt x_t, variance) by Bayes, for any (alpha, sigma). [DDPM eq. 6, 7]

    c_x0 = alpha_s var_ts/sigma_t^2,  c_xt = alpha_ts sigma_s^2/sigma_t^2,  variance = sigma_s^2 var_ts/sigma_t^2,
    in the ratios q = alpha_ts sigma_s/sigma_t and 1 - q^2 = var_ts/sigma_t^2. Raises ValueError if sigma_t = 0.
    """
    kept, lost = noise_kept(s, t)
    return Posterior(s.alpha * lost, kept * (s.sigma / t.sigma), _variance(s.sigma * lost, s.sigma, s))


def posterior_mean(x0, x_t, s, t):
    """E[x_s | x_t, x_0] = c_x0 x_0 + c_xt x_t for arrays [n, ...] of one shape and dtype. [DDPM eq. 7]"""
    alike("posterior_mean", x_t=x_t, x0=x0)
    c_x0, c_xt, _ = posterior(s, t)
    return expand(c_x0, x_t) * x0 + expand(c_xt, x_t) * x_t


VARIANCES = ("small", "large")


def fixed_variance(kind, s, t):
    """The two fixed choices for the variance of p(x_s | x_t). [DDPM sec. 3.2]

    "small": beta-tilde, the posterior variance, right when x_0 is one point; "large": var_ts (beta_t when s = t - 1),
    right when x_0 ~ N(0, I) in a variance-preserving family.
    """
    if kind == "small":
        return posterior(s, t).variance
    if kind == "large":
        return transition(s, t).variance
    raise ValueError(f"variance is {kind!r}, wanted one of {', '.join(VARIANCES)}")
