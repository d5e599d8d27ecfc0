"""Worlds whose answers are known: data that are Gaussian, a mixture of Gaussians, or a finite set, in any dimension.

    x_0 ~ N(mean, cov):   x_t = alpha x_0 + sigma eps ~ N(alpha mean, alpha^2 cov + sigma^2 I)

For each: samples, and at any level the density of x_t, its score, the posterior mean E[x_0 | x_t] (the ideal
denoiser) and the flow of the probability-flow ODE between two levels. A world is itself a denoiser: world(x, level).
Points are rows, x[n, d]; levels hold numbers or one entry per row.
"""
import math
from functools import cached_property

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import log_ndtr, logsumexp, ndtri_exp

from .. import backend
from .level import Level, anywhere, everywhere, hypot
from .parameterization import Prediction


class World:
    """What all worlds share. A world has `dim`, `log_density`, `score`, `posterior_mean`, `flow` and `sample`."""

    def __call__(self, x, level):
        """The ideal denoiser: E[x_0 | x] as a Prediction of kind "x0"."""
        return Prediction("x0", self.posterior_mean(x, level), x, level)

    def _check(self, x):
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"{type(self).__name__}: x has shape {x.shape}, wanted (n, {self.dim})")


class Gaussian(World):
    """x_0 ~ N(mean, cov): mean (d,), cov (d, d), symmetric, not negative. Numbers make a one-dimensional world.

    All is done along the eigenvectors of cov, cov = U diag(w) U', where x_t has independent parts of
    standard deviation sqrt(alpha^2 w + sigma^2).
    """

    def __init__(self, mean, cov):
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        self.cov = np.atleast_2d(np.asarray(cov, dtype=np.float64))
        self.dim = len(self.mean)
        if self.mean.ndim != 1 or self.cov.shape != (self.dim, self.dim):
            raise ValueError(f"Gaussian: mean has shape {self.mean.shape} and cov {self.cov.shape}, "
                             "wanted (d,) and (d, d)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.cov).all()):
            raise ValueError(f"Gaussian: mean {self.mean} and cov {self.cov.tolist()}, wanted finite numbers")
        if not np.allclose(self.cov, self.cov.T, rtol=1e-12, atol=0):
            raise ValueError("Gaussian: cov is not symmetric")
        self.w, self.U = np.linalg.eigh(self.cov)
        if self.w[0] < -1e-12 * abs(self.w[-1]):
            raise ValueError(f"Gaussian: cov has the eigenvalue {self.w[0]:g}, wanted none below 0")
        self.w = np.where(self.w > 1e-14 * self.dim * self.w[-1], self.w, 0.0)       # a rounded zero is a zero

    def sample(self, key, n):
        """n independent points, (n, d)."""
        z = key.normal((n, self.dim))
        mean, U, std = self._like(z, self.mean, self.U, np.sqrt(self.w))
        return mean + (std * z) @ U.T

    @staticmethod
    def _like(x, *tables):
        return [backend.of(x=x).asarray(table, dtype=x.dtype) for table in tables]

    def _parts(self, x, level):
        """z = U'(x - alpha mean)/std, its std, and what they were made from, all ready to broadcast with x."""
        self._check(x)
        if anywhere(level.sigma == 0) and self.w[0] == 0:
            raise ValueError("Gaussian: cov is singular, so x has no density at sigma = 0; stop at a level with noise")
        mean, U, w = self._like(x, self.mean, self.U, self.w)
        alpha, sigma = level.expand(x)
        std = hypot(alpha * w ** 0.5, sigma)
        return (x - alpha * mean) @ U / std, std, alpha, mean, U, w ** 0.5

    def log_density(self, x, level):
        """log p_t(x), (n,)."""
        z, std, *_ = self._parts(x, level)
        return -(0.5 * z ** 2 + backend.of(x=x).log(std) + 0.5 * math.log(2 * math.pi)).sum(axis=1)

    def score(self, x, level):
        """The gradient of log p_t at x: -(alpha^2 cov + sigma^2 I)^-1 (x - alpha mean)."""
        z, std, _, _, U, _ = self._parts(x, level)
        return -(z / std) @ U.T

    def posterior_mean(self, x, level):
        """E[x_0 | x] = mean + alpha cov (alpha^2 cov + sigma^2 I)^-1 (x - alpha mean)."""
        z, std, alpha, mean, U, root = self._parts(x, level)
        return mean + (alpha * root / std * root * z) @ U.T

    def flow(self, x, a, b):
        """The PF-ODE from level a to b: each independent part is rescaled by its standard deviations. [EDM eq. 4]"""
        z, _, _, mean, U, root = self._parts(x, a)
        alpha, sigma = b.expand(x)
        return alpha * mean + (hypot(alpha * root, sigma) * z) @ U.T

    def marginal(self, level):
        """The law of x_t, a Gaussian too; level in numbers. Refused where its covariance is above 1.8e308."""
        return Gaussian(level.alpha * self.mean, level.alpha * level.alpha * self.cov
                        + np.diag([level.sigma * level.sigma] * self.dim))


def _some(log_p, world):
    """The largest log-probabilities, refused where even they are below -1.8e308: nothing can be said of such an x."""
    if not everywhere(log_p > -math.inf):
        raise ValueError(f"{world}: an x lies more than 1e154 standard deviations from all of the data; wanted an x of "
                         "the level's own size")
    return log_p


def _sizes(weights):
    """Whether they can be normalised: every one > 0, and their sum finite."""
    with np.errstate(over="ignore"):
        return bool(np.all(weights > 0)) and math.isfinite(weights.sum())


class Mixture(World):
    """x_0 ~ sum_k weights_k N(means_k, covs_k): weights (k,), means (k, d), covs (k, d, d); in 1-D all may be (k,).

    The weights are normalised. The responsibility of a component is its posterior probability given x_t; means
    and scores are the components' own, so weighted.
    """

    def __init__(self, weights, means, covs):
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim != 1 or not len(weights) == len(means) == len(covs) > 0 or not _sizes(weights):
            raise ValueError("Mixture: wanted as many means and covs as weights, at least one, and every weight > 0 "
                             "and finite")
        self.weights = weights / weights.sum()
        self.components = [Gaussian(mean, cov) for mean, cov in zip(means, covs)]
        self.dim = self.components[0].dim
        if any(component.dim != self.dim for component in self.components):
            raise ValueError(f"Mixture: components of dimensions {[c.dim for c in self.components]}, wanted one")

    def sample(self, key, n):
        """n independent points, (n, d)."""
        u = key.fold("component").uniform((n,))
        xp = backend.of(u=u)
        chosen = xp.searchsorted(xp.asarray(np.cumsum(self.weights)[:-1]), u, side="right")[:, None]
        point = key.fold("point")                  # the same z for all: each row is read from one component only
        return sum((chosen == k) * c.sample(point, n) for k, c in enumerate(self.components))

    def _log_parts(self, x, level):
        """log(weight_k p_k(x)), (k, n), and its logsumexp, (n,)."""
        xp = backend.of(x=x)
        log_p = xp.stack([math.log(w) + c.log_density(x, level) for w, c in zip(self.weights, self.components)])
        top = _some(log_p.max(axis=0), "Mixture")
        return log_p, top + xp.log(xp.exp(log_p - top).sum(axis=0))

    def _average(self, x, level, of):
        log_p, total = self._log_parts(x, level)
        weight = backend.of(x=x).exp(log_p - total)[..., None]
        return sum(weight[k] * of(c) for k, c in enumerate(self.components))

    def log_density(self, x, level):
        """log p_t(x), (n,)."""
        return self._log_parts(x, level)[1]

    def score(self, x, level):
        """The gradient of log p_t at x."""
        return self._average(x, level, lambda c: c.score(x, level))

    def posterior_mean(self, x, level):
        """E[x_0 | x]."""
        return self._average(x, level, lambda c: c.posterior_mean(x, level))

    def flow(self, x, a, b):
        """The PF-ODE from level a to b: the quantile map in one dimension, else an integration to about 1e-12."""
        self._check(x)
        return self.quantile_map(x, a, b) if self.dim == 1 else integrate(self, x, a, b)

    # ---- one dimension

    @cached_property
    def _line(self):
        """(means, variances) of a one-dimensional mixture, (k,) each."""
        if self.dim != 1:
            raise ValueError(f"Mixture: quantiles need one dimension, this world has {self.dim}")
        return np.array([c.mean[0] for c in self.components]), np.array([c.w[0] for c in self.components])

    def _normals(self, level):
        """Means and standard deviations of the components of x_t."""
        means, variances = self._line
        if level.sigma == 0 and not np.all(variances > 0):
            raise ValueError("Mixture: a component is a single point, so x has no quantiles at sigma = 0")
        return level.alpha * means, np.hypot(level.alpha * np.sqrt(variances), level.sigma)

    def log_cdf(self, x, level, upper=False):
        """log F_t(x), or log(1 - F_t(x)) if upper, for x of any shape; full relative precision in that tail."""
        means, stds = self._normals(level)
        z = (np.asarray(x, dtype=np.float64)[..., None] - means) / stds
        return logsumexp(log_ndtr(-z if upper else z) + np.log(self.weights), axis=-1)

    def quantile_map(self, x, a, b):
        """F_b^-1(F_a(x)): the exact PF-ODE trajectory in one dimension, for x of any shape, levels in numbers.

        The smaller tail's log-probability is carried over, so both tails keep their digits. Its quantile under b lies
        between the components' own and is found by bisection to the last bit: the error is the rounding of
        log F (a few u |log F|) over d log F/dx.
        """
        host = backend.to_host(x).astype(np.float64)
        upper = self.log_cdf(host, a) > math.log(0.5)
        tail = np.where(upper, self.log_cdf(host, a, upper=True), self.log_cdf(host, a))
        means, stds = self._normals(b)
        sign = np.where(upper, -1.0, 1.0)
        own = means + stds * (sign * ndtri_exp(tail))[..., None]       # each component's quantile for that tail
        low, high = own.min(axis=-1), own.max(axis=-1)
        for _ in range(80):                                            # 80 halvings end on neighbouring floats
            middle = low + (high - low) / 2
            at = np.where(upper, self.log_cdf(middle, b, upper=True), self.log_cdf(middle, b))
            beyond = (at > tail) != upper                              # middle lies above the quantile
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        return backend.of(x=x).asarray(low + (high - low) / 2, dtype=x.dtype)


class FiniteData(World):
    """x_0 is one of the rows of points (k, d), each with its weight, by default 1/k: a data set itself.

        p_t(x) = sum_i w_i N(x; alpha x_i, sigma^2 I)
        E[x_0 | x] = sum_i softmax_i(log w_i - |x - alpha x_i|^2/(2 sigma^2)) x_i

    A network that minimised its loss on the data set to the end would be this denoiser, and would sample the data set
    itself. All but `sample` need sigma > 0. points (k,) make a one-dimensional world.
    """

    BLOCK = 2 ** 22          # differences held in memory at a time

    def __init__(self, points, weights=None):
        points = np.asarray(points, dtype=np.float64)
        self.points = points[:, None] if points.ndim == 1 else points
        if self.points.ndim != 2 or not self.points.size or not np.isfinite(self.points).all():
            raise ValueError(f"FiniteData: points have shape {points.shape}, wanted (k, d), finite; flatten images")
        weights = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
        if weights.shape != points.shape[:1] or not _sizes(weights):
            raise ValueError(f"FiniteData: weights have shape {weights.shape}, wanted ({len(points)},), every one > 0 "
                             "and finite")
        self.weights = weights / weights.sum()
        self.dim = self.points.shape[1]

    def sample(self, key, n):
        """n points drawn with replacement, (n, d)."""
        u = key.uniform((n,))
        xp = backend.of(u=u)
        chosen = xp.searchsorted(xp.asarray(np.cumsum(self.weights)[:-1]), u, side="right")
        return xp.asarray(self.points, dtype=u.dtype)[chosen]

    def _posterior(self, x, level):
        """log w_i - |x - alpha x_i|^2/(2 sigma^2), (n, k): from differences, since the expanded square cancels."""
        self._check(x)
        if anywhere(level.sigma == 0):
            raise ValueError("FiniteData: x has no density at sigma = 0; stop at a level with noise")
        xp = backend.of(x=x)
        points, log_w = xp.asarray(self.points, dtype=x.dtype), xp.asarray(np.log(self.weights), dtype=x.dtype)
        alpha, sigma = (c if isinstance(c, float) else c[..., None] for c in level.expand(x))
        rows = max(1, self.BLOCK // self.points.size)
        squares = []
        for i in range(0, len(x), rows):
            part = slice(i, i + rows)
            a, s = (c if isinstance(c, float) else c[part] for c in (alpha, sigma))
            squares.append((((x[part, None, :] - a * points) / s) ** 2).sum(axis=2))
        return log_w - xp.concatenate(squares) / 2

    def _total(self, log_p):
        xp = backend.of(log_p=log_p)
        top = _some(log_p.max(axis=1), "FiniteData")[:, None]
        return top + xp.log(xp.exp(log_p - top).sum(axis=1))[:, None]

    def log_density(self, x, level):
        """log p_t(x), (n,)."""
        total = self._total(self._posterior(x, level))[:, 0]
        _, sigma = level.expand(x)
        sigma = sigma if isinstance(sigma, float) else sigma[:, 0]
        log = math.log if isinstance(sigma, float) else backend.of(x=x).log
        return total - self.dim * (log(sigma) + 0.5 * math.log(2 * math.pi))

    def posterior_mean(self, x, level):
        """E[x_0 | x], the mean of the points, weighted by how probable each is given x."""
        xp, log_p = backend.of(x=x), self._posterior(x, level)
        return xp.exp(log_p - self._total(log_p)) @ xp.asarray(self.points, dtype=x.dtype)

    def score(self, x, level):
        """The gradient of log p_t at x: (alpha E[x_0 | x] - x)/sigma^2."""
        alpha, sigma = level.expand(x)
        return (alpha * self.posterior_mean(x, level) - x) / sigma / sigma

    def flow(self, x, a, b):
        """The PF-ODE from level a to b: the quantile map in one dimension, else an integration to about 1e-12."""
        self._check(x)
        if self.dim > 1:
            return integrate(self, x, a, b)
        return Mixture(self.weights, self.points[:, 0], np.zeros(len(self.points))).quantile_map(x, a, b)


def integrate(world, x, a, b, rtol=1e-12, atol=1e-13):
    """The PF-ODE of any world from level a to b, by an adaptive Runge-Kutta of order 8 over all rows at once.

    In the angle theta = atan(sigma/alpha) and xhat = x/sqrt(alpha^2 + sigma^2), every family is the circle
    xhat = cos(theta) x_0 + sin(theta) eps, and its slope is
    d xhat/d theta = E[v | xhat] = -sin(theta) (cos(theta) score + E[x_0 | xhat]),
    finite from pure noise to clean data. Levels in numbers; x[n, d]. Raises RuntimeError if the integration fails.
    """
    def slope(theta, flat):
        level = Level(theta, max(math.cos(theta), 0.0), math.sin(theta))
        points = flat.reshape(x.shape)
        return (-level.sigma * (level.alpha * world.score(points, level) + world.posterior_mean(points, level))).ravel()

    start = backend.to_host(x).astype(np.float64).ravel() / math.hypot(a.alpha, a.sigma)
    span = math.atan2(a.sigma, a.alpha), math.atan2(b.sigma, b.alpha)
    solution = solve_ivp(slope, span, start, method="DOP853", rtol=rtol, atol=atol)
    if not solution.success:
        raise RuntimeError(f"integrate: from angle {span[0]:g} to {span[1]:g}: {solution.message}")
    end = solution.y[:, -1].reshape(x.shape) * math.hypot(b.alpha, b.sigma)
    return backend.of(x=x).asarray(end, dtype=x.dtype)


def ring(k=8, radius=1.0, std=0.1):
    """k equal round Gaussians of one standard deviation, evenly spaced on a circle in the plane from (radius, 0)."""
    angle = 2 * np.pi * np.arange(k) / k
    means = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Mixture(np.ones(k), means, np.tile(np.diag([std * std] * 2), (k, 1, 1)))
