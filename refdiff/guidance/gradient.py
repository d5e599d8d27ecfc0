"""Classifier guidance: towards where a classifier says y, by the gradient of its log-probability.

    score(x_t | y) = score(x_t) + grad log p(y | x_t)          (Bayes; scale = 1)

A gradient is a callable (x, level) -> grad_x log p(y | x_t = x), an array like x. It is used in two ways, which agree
only to first order in the step:

    classifier    as a denoiser, for every sampler: eps - scale sigma_t gradient
    mean_shift    in the ancestral sampler only: the mean of x_s moves by scale variance gradient

With the first in the ancestral sampler the mean moves by scale (var_ts/alpha_ts) gradient, the second's with
variance = var_ts, "large", but for 1/alpha_ts; with "small", less by another (sigma_s/sigma_t)^2.
"""
import math

from .. import backend
from ..process.gaussian import VARIANCES, fixed_variance, posterior
from ..process.parameterization import Prediction
from ..samplers.state import after, check, draw, integer, number, one_of


def _gradient(name, gradient, x, level):
    g = gradient(x, level)
    backend.of(x=x, gradient=g)
    if g.shape != x.shape:
        raise ValueError(f"{name}: the gradient has shape {g.shape}, wanted {x.shape}, like x")
    return g


def classifier(denoiser, gradient, scale=1.0):
    """eps - scale sigma_t grad log p(y | x_t): a denoiser guided by a classifier, for any sampler. [ADM alg. 2]

    Exact at scale = 1 on an unconditional denoiser; scale > 1 sharpens p(y | x) to p(y | x)^scale, at each level.
    The same as cfg(scale=scale) where the classifier is p(x | y) p(y)/p(x) of the two denoisers.
    """
    scale = number("classifier: scale", scale)

    def guided(x, level):
        _, sigma = level.expand(x)
        p = denoiser(x, level)
        return Prediction("eps", p.eps - scale * sigma * _gradient("classifier", gradient, x, level), p.x, level)

    return guided


def mean_shift(denoiser, gradient, grid, x, scale=1.0, variance="small", noise=None):
    """x_s = E[x_s | x_t, x0hat] + scale variance grad log p(y | x_t) + sqrt(variance) z; z = 0 last. [ADM alg. 1]

    DDPM's ancestral step with its mean shifted; variance "small" or "large" as there. The gradient is taken at x_t.
    On a deterministic sampler there is no variance to shift by: use `classifier`. Yields a State per step, whose
    prediction is the unguided one.
    """
    scale = number("mean_shift: scale", scale)
    one_of("mean_shift: variance", variance, VARIANCES)
    last = len(grid) - 1
    denoiser = check("mean_shift", denoiser, x, noise, last)
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        c_x0, c_xt, _ = posterior(s, t)
        var = fixed_variance(variance, s, t)
        prediction = denoiser(x, t)
        x = c_x0 * prediction.x0 + c_xt * x + scale * var * _gradient("mean_shift", gradient, x, t)
        if i < last:
            x = x + math.sqrt(var) * draw("mean_shift", noise, i, x)
        yield after("mean_shift", i, s, x, prediction)


class MixtureClassifier:
    """The exact classifier of a mixture of Gaussians: p(k | x_t), the responsibility of component k at any level.

        log p(k | x_t) = log w_k p_k(x_t) - log sum_j w_j p_j(x_t)
        grad           = sum_j p(j | x_t) (score_k - score_j)
    """

    def __init__(self, mixture):
        self.mixture = mixture

    def log_probability(self, x, level):
        """log p(k | x_t) of every component, (n, k)."""
        log_joint, log_total = self.mixture._log_parts(x, level)
        return (log_joint - log_total).T

    def gradient(self, k):
        """The gradient of log p(k | x_t), for `classifier`; k one component for all rows."""
        k = integer("MixtureClassifier: the component", k, 0, len(self.mixture.components) - 1)

        def gradient(x, level):
            xp = backend.of(x=x)
            p = xp.exp(self.log_probability(x, level))
            own = self.mixture.components[k].score(x, level)
            others = [(j, c) for j, c in enumerate(self.mixture.components) if j != k]
            return sum((p[:, j, None] * (own - c.score(x, level)) for j, c in others), start=xp.zeros_like(x))

        return gradient
