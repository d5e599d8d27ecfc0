"""The variational bound on -log p(x_0) over a discrete schedule, term by term: nats per entry, and bits per dimension.

    -log p(x_0) <= L_T + sum_{t=2}^T L_{t-1} + L_0                                      [DDPM eq. 5], [VDM eq. 11]
    L_T     = KL(q(x_T | x_0) || N(0, I))                    the prior's, no network in it
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))  two normals
    L_0     = -log p(x_0 | x_1)                              the decoder's: x_0 in one of `levels` bins of [-1, 1], or,
                                                             for continuous data (levels = 0), the normal density at it

p(x_{t-1} | x_t) has the posterior's mean at the predicted x_0, and a variance that is fixed ("small", "large") or
learned in between. Terms are per row the mean over its entries divided by log 2, so that a row's bound is bits/dim.
These are values alone; ops/variational.py has the two terms with their gradients.
"""
import math
from typing import NamedTuple

import numpy as np

from .. import backend
from .gaussian import VARIANCES, posterior_mean, q_sample
from .level import alike, expand


def bits(nats):
    """Per row (n,), the mean over all other axes of nats[n, ...], in bits."""
    return nats.reshape(len(nats), -1).mean(axis=1) / math.log(2)


# ---- the terms, entry by entry in nats

def _fitting(what, x, **values):
    """Numbers as Python's, which keep x's dtype; arrays must be in it, and like x or (n, 1, ...)."""
    per_row = x[(slice(None),) + (slice(0, 1),) * (x.ndim - 1)]
    for name, value in values.items():
        if not getattr(value, "ndim", 0):
            yield float(value)
        else:
            alike(what, x=per_row if value.shape == per_row.shape else x, **{name: value})
            yield value


def gaussian_kl(q_mean, q_log_var, mean, log_var):
    """KL(N(q_mean, e^q_log_var) || N(mean, e^log_var)) = (log_var - q_log_var - 1 + e^(q_log_var - log_var)
    + (q_mean - mean)^2 e^-log_var)/2, q_mean[n, ...]; the others like it, (n, 1, ...) or numbers. [DDPM eq. 8]
    """
    xp = backend.of(q_mean=q_mean)
    mean, q_log_var, log_var = _fitting("gaussian_kl", q_mean, mean=mean, q_log_var=q_log_var, log_var=log_var)
    d, precision = xp.asarray(q_log_var - log_var, q_mean.dtype), xp.exp(xp.asarray(-log_var, q_mean.dtype))
    return 0.5 * (xp.expm1(d) - d + (q_mean - mean) ** 2 * precision)


def _log_tanh_cdf(z):
    u = math.sqrt(8 / math.pi) * (z + 0.044715 * z ** 3)
    return -backend.of(z=z).logaddexp(0.0, -u)


def bin_nats(x, mean, log_var, cdf="exact", levels=256):
    """-log of the probability under N(mean, e^log_var) of x's bin, x[n, ...] of grey levels in [-1, 1]. [DDPM eq. 13]

    `levels` of them, 2/(levels - 1) apart: a bin is x +- 1/(levels - 1), +-1/255 for bytes; those of -1 and of 1, the
    levels beyond +-(1 - 1/(levels - 1)), are open outwards.
    cdf "exact", or "tanh" for (1 + tanh(sqrt(2/pi) (z + .044715 z^3)))/2, which the authors' code has: the
    distribution function is off by up to 1.8e-4, and 12.26 bits become 12.67 for a pixel .03 off a mean of std .0074.
    Their P >= 1e-12 (at most 39.9 bits) is not taken over. Raises ValueError for data that are not in [-1, 1].
    """
    xp = alike("bin_nats", x=x, mean=mean)
    [log_var] = _fitting("bin_nats", x, log_var=log_var)
    check_cdf(cdf)
    check_levels(levels)
    if not float(abs(x).max()) <= 1:
        raise ValueError(f"bin_nats: x runs from {float(x.min()):.4g} to {float(x.max()):.4g}, wanted grey levels in "
                         f"[-1, 1], where the decoder's bins are 2/{levels - 1} wide")
    log_cdf = backend.special(x=x).log_ndtr if cdf == "exact" else _log_tanh_cdf
    side = xp.where(x > mean, -1.0, 1.0).astype(x.dtype)           # reflected below the mean, where the digits are
    precision = xp.exp(xp.asarray(-0.5 * log_var, x.dtype))
    half = 1 / (levels - 1)
    upper, lower = ((side * (x - mean) + shift) * precision for shift in (half, -half))
    log_upper = xp.where(side * x > 1 - half, 0.0, log_cdf(upper))
    ratio = xp.where(side * x < half - 1, 0.0, xp.exp(log_cdf(lower) - log_upper))
    return -(log_upper + xp.log1p(-ratio))


def decoder_nats(x0, mean, log_var, cdf="exact", levels=256, center=0.0):
    """-log p(x_0 | x_1) entry by entry: `bin_nats` of the grey levels x0 + center, where centred data are given.

    levels = 0 is for continuous data: -log N(x_0; mean, e^log_var), a density's, which may be negative.
    """
    check_levels(levels, continuous=True)
    if levels:
        return bin_nats(grey_levels(x0 + center, levels).clip(-1, 1), mean + center, log_var, cdf, levels)
    xp = alike("decoder_nats", x0=x0, mean=mean)
    [log_var] = _fitting("decoder_nats", x0, log_var=log_var)
    return 0.5 * ((x0 - mean) ** 2 * xp.exp(xp.asarray(-log_var, x0.dtype)) + (log_var + math.log(2 * math.pi)))


def grey_levels(x, levels):
    """x rounded to 2 g/(levels - 1) - 1, from which it may differ by rounding alone; else ValueError."""
    check_levels(levels)
    grey = (x + 1) * ((levels - 1) / 2)
    whole = grey.round()
    if not (abs(grey - whole) < 1e-3).all() or whole.min() < 0 or whole.max() > levels - 1:
        raise ValueError(f"grey levels: x is not 2 g/{levels - 1} - 1 for grey levels g = 0..{levels - 1}; "
                         "wanted whole grey levels, before any centring")
    return whole * (2 / (levels - 1)) - 1


def check_levels(levels, continuous=False):
    """Refuses all but integers >= 2, and 0 where continuous data may be meant."""
    whole = isinstance(levels, (int, np.integer)) and not isinstance(levels, bool)
    if not (whole and (levels >= 2 or continuous and levels == 0)):
        raise ValueError(f"grey levels: levels is {levels!r}, wanted an integer >= 2"
                         + (", or 0 for continuous data" if continuous else ""))


def check_cdf(cdf):
    if cdf not in ("exact", "tanh"):
        raise ValueError(f"decoder: cdf is {cdf!r}, wanted 'exact' or 'tanh'")


# ---- the variance of p(x_{t-1} | x_t)

FIRST = {"next": "beta-tilde_2", "tiny": "1e-20"}


def log_variances(schedule, t, first="next"):
    """(log beta-tilde_t, log beta_t): the least and the greatest log variance of p(x_{t-1} | x_t), t in 1..T (n,).

    beta-tilde_1 is 0, so its logarithm is replaced: "next" by log beta-tilde_2, as the authors of DDPM and IDDPM do
    (-9.817 for the linear schedule of 1000), "tiny" by log 1e-20 = -46.05, as other code does.
    """
    if first not in FIRST:
        raise ValueError(f"log_variances: first is {first!r}, wanted one of {', '.join(FIRST)}")
    if first == "next" and schedule.T < 2:
        raise ValueError("log_variances: beta-tilde_2 stands for beta-tilde_1 = 0 and this schedule has T = 1; "
                         "use first='tiny'")
    t = np.asarray(backend.to_host(t))
    if t.dtype.kind not in "iu" or t.size and not (1 <= t.min() and t.max() <= schedule.T):
        raise ValueError(f"log_variances: wanted integers t in 1..{schedule.T}")
    beta = schedule.beta[1:]
    kept = schedule.one_minus_alpha_bar[:-1] / schedule.one_minus_alpha_bar[1:]
    with np.errstate(divide="ignore"):
        small = np.log(kept * beta)
    small[0] = small[1] if first == "next" else math.log(1e-20)
    return small[t - 1], np.log(beta)[t - 1]


def learned_log_variance(out, small, large):
    """v log beta + (1 - v) log beta-tilde, v = (out + 1)/2, for the network's out[n, ...]. [IDDPM eq. 15]

    small, large (n,): those of `log_variances`. Linear in out, not clipped: the slope is (large - small)/2.
    """
    small, large = expand(small, out), expand(large, out)
    return 0.5 * (large + small) + 0.5 * (large - small) * out


def fixed_log_variance(kind, schedule, t, first="next"):
    """log beta-tilde_t ("small") or log beta_t ("large"), (n,). [DDPM sec. 3.2]

    The authors' "fixed-large" is log beta_t but for t = 1, where it too is log beta-tilde_2: "large-but-first".
    """
    small, large = log_variances(schedule, t, first)
    if kind not in (*VARIANCES, "large-but-first"):
        raise ValueError(f"variance is {kind!r}, wanted one of {', '.join(VARIANCES)}, large-but-first")
    if kind == "large-but-first":
        return np.where(np.asarray(backend.to_host(t)) == 1, small, large)
    return small if kind == "small" else large


# ---- the terms of a batch, bits per dimension

def prior_bits(x0, schedule):
    """L_T, (n,): KL(N(alpha_T x_0, sigma_T^2) || N(0, 1)). [DDPM eq. 5]"""
    level = schedule.level(schedule.T)
    log_var = float(np.log1p(-schedule.alpha_bar[-1]))
    return bits(gaussian_kl(level.alpha * x0, log_var, 0.0, 0.0))


def term_bits(schedule, t, x0, x_t, x0_hat, log_var, cdf="exact", levels=256, center=0.0):
    """L_{t-1} of every row, (n,), for integer times t (n,) in 1..T: the decoder's where t = 1, else KL. [DDPM eq. 5]

    x0, x_t, x0_hat [n, ...], the last the prediction at t; log_var of p(x_{t-1} | x_t), (n,) or [n, ...]; cdf, levels
    and center are those of `decoder_nats`.
    """
    t = np.asarray(backend.to_host(t))
    alike("term_bits", x0=x0, x_t=x_t, x0_hat=x0_hat)
    s, level = schedule.level(t - 1), schedule.level(t)
    log_var = expand(log_var, x0) if getattr(log_var, "ndim", 0) == 1 else log_var
    mean = posterior_mean(x0_hat, x_t, s, level)
    target, q_log_var = posterior_mean(x0, x_t, s, level), expand(log_variances(schedule, t, "tiny")[0], x0)
    nats = gaussian_kl(target, q_log_var, mean, log_var)
    clean = t == 1
    if clean.any():
        decoder = decoder_nats(x0, mean, log_var, cdf, levels, center)
        nats = backend.of(x0=x0).where(expand(clean.astype(np.float64), x0) > 0, decoder, nats)
    return bits(nats)


class Bound(NamedTuple):
    """prior (n,), terms (T, n) with terms[t-1] = L_{t-1}, and total (n,), in bits per dimension."""

    prior: object
    terms: object
    total: object


def variational_bound(denoiser, schedule, x0, noise, variance="small", first="next", cdf="exact", levels=256,
                      center=0.0):
    """The bound over all T, one draw of x_t for every t: a Bound, in bits per dimension. [DDPM eq. 5]

    denoiser: (x, level) -> Prediction; noise(t) -> eps like x0; variance "small", "large", "large-but-first", or a
    callable (x, level) -> log variance [n, ...] for a learned one; `first` is that of `log_variances`. x0 + center are
    `levels` grey levels in [-1, 1], whole ones, or x0 is continuous (levels = 0): the bound may then be negative.
    p is the chain's law, not that of the PF-ODE: they differ until T is large.
    """
    xp, n = backend.of(x0=x0), len(x0)
    check_cdf(cdf)
    check_levels(levels, continuous=True)
    if levels:
        grey_levels(x0 + center, levels)
    terms = []
    for t in range(1, schedule.T + 1):
        level, times = schedule.level(t), np.full(n, t)
        x_t = q_sample(x0, noise(t), level)
        log_var = variance(x_t, level) if callable(variance) else fixed_log_variance(variance, schedule, times, first)
        x0_hat = denoiser(x_t, level).x0
        terms.append(term_bits(schedule, times, x0, x_t, x0_hat, log_var, cdf, levels, center))
    prior, terms = prior_bits(x0, schedule), xp.stack(terms)
    return Bound(prior, terms, prior + terms.sum(axis=0))
