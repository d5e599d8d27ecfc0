"""The likelihood of a denoiser by its probability-flow ODE, in nats and in bits per dimension, or no figure at all.

    log p_a(x_a) = log p_b(x_b) + int_a^b div f,      x_b the end of the PF-ODE dx = f from x_a         [a to noise b]

In the angle theta = atan(sigma/alpha) and xhat = x/sqrt(alpha^2 + sigma^2) every family is one circle (as in exact.py):

    dxhat/dtheta = v = cot(theta) xhat - D/sin(theta),       div v = d cot(theta) - tr(dD/dxhat)/sin(theta)

with D = E[x_0 | xhat] and d the number of coordinates of a row; log p(x) = log p(xhat) - d log sqrt(alpha^2 + sigma^2).

A denoiser enters *linearised*: a callable (x, level) -> (D, product), where product(v) is (dD/dx) v for v[n, ...], or
the transpose times v: a trace is the same by either. What stands for p_b is an argument too, the prior.
A coarse integrator gives any figure one likes, so none is returned that a finer one does not confirm: NotConverged.
"""
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from .. import backend
from .bound import check_levels, grey_levels
from .level import Level, alike


class NotConverged(ArithmeticError):
    """The integrator has not converged, so there is no likelihood to report."""


# ---- the trace of dD/dx, (n,): from products with basis vectors, or with random ones

def exact_trace(product, x):
    """tr(dD/dx) = sum_j e_j' (dD/dx) e_j: one product per coordinate, for all rows of x[n, ...] at once."""
    total = 0
    for j in range(math.prod(x.shape[1:])):
        e = backend.of(x=x).zeros_like(x)
        e.reshape(len(x), -1)[:, j] = 1
        total = total + product(e).reshape(len(x), -1)[:, j]
    return total


def hutchinson(probes):
    """The trace as the mean of z' (dD/dx) z over probes z[k, n, ...] that the caller drew, E[z z'] = I. [SDE sec. D.2]

    Exact in the mean over any complete set of orthogonal probes with |z|^2 = d. They stay the same along a trajectory,
    so that its slope is a function. Rademacher probes (entries +-1) have a smaller variance than Gaussian ones.
    """
    if probes.ndim < 2 or not len(probes):
        raise ValueError(f"hutchinson: probes have shape {probes.shape}, wanted (k, n, ...) with k >= 1")

    def trace(product, x):
        if probes.shape[1:] != x.shape:
            raise ValueError(f"hutchinson: probes have shape {probes.shape}, wanted k of {x.shape}, the shape of x")
        return sum((z * product(z)).reshape(len(x), -1).sum(axis=1) for z in probes) / len(probes)

    return trace


# ---- what stands for the density at the noisy end

def normal_prior(std):
    """(x, level) -> log N(x; 0, (alpha^2 std^2 + sigma^2) I), (n,): right at an end where the noise drowns the data.

    With std the standard deviation of centred data the first two moments are right too. std = 0 is N(0, sigma^2).
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"normal_prior: std is {std}, wanted >= 0 and finite")

    def log_density(x, level):
        total = math.hypot(level.alpha * std, level.sigma)
        nats = 0.5 * (x / total) ** 2 + (math.log(total) + 0.5 * math.log(2 * math.pi))
        return -nats.reshape(len(x), -1).sum(axis=1)

    return log_density


# ---- integrators: solve(slope, (theta_a, theta_b), y[n, m]) -> y at theta_b, for slope(theta, y) -> [n, m]

METHODS = ("RK23", "RK45", "DOP853")


@dataclass(frozen=True)
class Adaptive:
    """One of scipy's adaptive solvers over all rows at once, with the error of every row below its tolerance.

    scipy bounds the root mean square over all rows of error/(atol + rtol |y|); with both divided by sqrt(n), that of
    each single row is below its bound. Gives up with NotConverged after `limit` evaluations.
    """

    rtol: float = 1e-6
    atol: float = 1e-6
    method: str = "DOP853"
    limit: int = 20_000

    def __post_init__(self):
        if self.method not in METHODS or not (0 < self.rtol < 1 and 0 < self.atol < math.inf and self.limit > 0):
            raise ValueError(f"{self}: wanted method {', '.join(METHODS)}, 0 < rtol < 1, atol > 0 and limit >= 1")

    def finer(self):
        return replace(self, rtol=self.rtol / 10, atol=self.atol / 10)

    def solve(self, slope, span, y):
        evaluations = 0

        def counted(theta, flat):
            nonlocal evaluations
            evaluations += 1
            found = slope(theta, flat.reshape(y.shape))
            if evaluations > self.limit or not np.isfinite(found).all():
                raise NotConverged(f"likelihood: {self}: " + (
                    f"more than {self.limit} evaluations at angle {theta:.6g}; raise rtol, or compute in float64"
                    if np.isfinite(found).all() else f"the slope is not finite at angle {theta:.6g}; look at the "
                    "denoiser there: it has diverged, or was not trained at that level"))
            return found.ravel()

        root = math.sqrt(len(y))
        solution = solve_ivp(counted, span, y.ravel(), method=self.method, rtol=max(self.rtol / root, 3e-14),
                             atol=self.atol / root)
        if not solution.success:
            raise NotConverged(f"likelihood: {self}: from angle {span[0]:g} to {span[1]:g}: {solution.message}")
        return solution.y[:, -1].reshape(y.shape), evaluations


@dataclass(frozen=True)
class Euler:
    """`steps` equal steps of the angle: what a few-step sampler does, for showing that it gives no likelihood."""

    steps: int

    def __post_init__(self):
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"Euler: steps is {self.steps!r}, wanted an integer >= 1")

    def finer(self):
        return Euler(2 * self.steps)

    def solve(self, slope, span, y):
        h = (span[1] - span[0]) / self.steps
        for i in range(self.steps):
            y = y + h * slope(span[0] + i * h, y)
        return y, self.steps


# ---- the likelihood

class Likelihood(NamedTuple):
    """log_p = prior + divergence + the change of scale, (n,) each in nats; gap: the change that a finer solve made."""

    log_p: np.ndarray
    prior: np.ndarray        # log p_b(x_b)
    divergence: np.ndarray   # the integral of div v over theta
    x: np.ndarray            # x_b [n, ...]
    evaluations: int         # of the linearised denoiser
    gap: float = math.nan    # nats, the largest over the rows; nan where nobody looked


def _per_row(what, value, n):
    if getattr(value, "shape", None) != (n,):
        raise ValueError(f"likelihood: {what} has shape {getattr(value, 'shape', ())}, wanted ({n},), one per row of x")
    return value


def change_of_variables(linearised, x, a, b, prior, trace=exact_trace, solver=Adaptive()):
    """log p_a(x) by one integration of the PF-ODE from level a to the noisier b: a Likelihood that nothing guards.

    log p_a(x) = prior(x_b, b) + int div v dtheta + d log(norm_b/norm_a), norm = sqrt(alpha^2 + sigma^2). [SDE eq. 39]
    x[n, ...] a point per row; levels in numbers, 0 < sigma at a; prior(x_b, b) -> (n,), such as `normal_prior`.
    """
    if not (isinstance(a.alpha, float) and isinstance(b.alpha, float) and x.size and bool((abs(x) < math.inf).all())):
        raise ValueError(f"likelihood: x{tuple(x.shape)} between {a} and {b}: wanted at least one row of at least one "
                         "number, all of x finite and levels in numbers")
    span = math.atan2(a.sigma, a.alpha), math.atan2(b.sigma, b.alpha)
    if not 0 < span[0] < span[1]:
        raise ValueError(f"likelihood: from sigma/alpha = {a.ratio:g} to {b.ratio:g}, wanted 0 < start < end: "
                         "x has no PF-ODE slope at sigma = 0, and the prior is that of the noisy end")
    xp, n, d = backend.of(x=x), len(x), math.prod(x.shape[1:])
    norm_a, norm_b = math.hypot(a.alpha, a.sigma), math.hypot(b.alpha, b.sigma)

    def slope(theta, y):
        cos, sin = max(math.cos(theta), 0.0), math.sin(theta)
        xhat = xp.asarray(y[:, :d].reshape(x.shape))
        D, product = linearised(xhat, Level(theta, cos, sin))
        alike("likelihood", x=xhat, D=D)
        v = (cos * xhat - D) / sin
        div = (d * cos - _per_row("the trace", trace(product, xhat), n)) / sin
        return np.concatenate([backend.to_host(v).reshape(n, d), backend.to_host(div)[:, None]], axis=1)

    start = backend.to_host(x).astype(np.float64).reshape(n, d) / norm_a
    y, evaluations = solver.solve(slope, span, np.concatenate([start, np.zeros((n, 1))], axis=1))
    end, divergence = y[:, :d].reshape(x.shape) * norm_b, y[:, d]
    log_prior = _per_row("the prior's log density", prior(end, b), n)
    return Likelihood(log_prior + divergence + d * math.log(norm_b / norm_a), log_prior, divergence, end, evaluations)


def log_likelihood(linearised, x, a, b, prior, trace=exact_trace, solver=Adaptive(), tolerance=1e-3):
    """log p_a(x) as `change_of_variables`, computed by `solver` and by solver.finer(), whose Likelihood is returned.

    Raises NotConverged where the two differ, in any row, by more than `tolerance` nats, or a solver fails.
    """
    if not tolerance > 0:
        raise ValueError(f"likelihood: tolerance is {tolerance}, wanted > 0 nats")
    coarse, fine = (change_of_variables(linearised, x, a, b, prior, trace, s) for s in (solver, solver.finer()))
    apart = np.abs(coarse.log_p - fine.log_p)
    if not np.all(apart <= tolerance):
        row = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        raise NotConverged(f"likelihood: {solver} gives log p = {coarse.log_p[row]:.6g} nats in row {row} and "
                           f"{solver.finer()} gives {fine.log_p[row]:.6g}, wanted within {tolerance:g}: the integral "
                           "has not converged; use smaller tolerances or more steps")
    return fine._replace(gap=float(apart.max(initial=0.0)), evaluations=coarse.evaluations + fine.evaluations)


# ---- whole numbers of grey, and their unit

def dequantise(x, levels, u):
    """x + (u - 1/2) w: each grey level spread evenly over its bin, whose width is w = 2/(levels - 1).

    x[n, ...] of grey levels g = 0..levels-1 stored as 2 g/(levels - 1) - 1, and u uniform in [0, 1) like x.
    """
    alike("dequantise", x=x, u=u)
    if not ((u >= 0) & (u < 1)).all():
        raise ValueError("dequantise: u leaves [0, 1), wanted 0 <= u < 1")
    return grey_levels(x, levels) + (u - 0.5) * (2 / (levels - 1))


def bits_per_dim(log_p, dim, levels=0):
    """-log2 p/dim + log2((levels - 1)/2): the nats of a density as bits per coordinate of grey levels in [-1, 1].

    A grey level's bin is w = 2/(levels - 1) wide, so that log P(g) >= E_u log p(x + (u - 1/2) w) + dim log w, by
    Jensen: in the mean over u the figure is an upper bound of -log2 P(g)/dim. The uniform density has exactly
    log2(levels). levels = 0 is for continuous data: no bin, no second term. (The offset 7 = log2(256/2) that codes
    add for 8 bits belongs to bins of width 2/256, of images scaled as 2 (g + u)/256 - 1.)
    """
    check_levels(levels, continuous=True)
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
        raise ValueError(f"bits_per_dim: dim is {dim!r}, wanted an integer >= 1, the coordinates of a row")
    return -log_p / (dim * math.log(2)) + (math.log2((levels - 1) / 2) if levels else 0.0)


# ---- worlds whose derivative is known

def exact(world):
    """A Gaussian world or a mixture, linearised, at levels in numbers: dE[x_0 | x]/dx in closed form.

    With V = alpha^2 cov + sigma^2 I, a component's is alpha cov V^-1; a mixture's, with responsibilities r_k, means
    m_k and scores s_k at x, is sum_k r_k (alpha cov_k V_k^-1 + m_k (s_k - sum_j r_j s_j)').
    """
    components = getattr(world, "components", [world])
    weights = getattr(world, "weights", np.ones(1))

    def linearised(x, level):
        xp = backend.of(x=x)
        log_r = xp.stack([math.log(w) + c.log_density(x, level) for w, c in zip(weights, components)])
        r = xp.exp(log_r - log_r.max(axis=0))
        r = (r / r.sum(axis=0))[:, :, None]
        means, scores = (xp.stack([getattr(c, name)(x, level) for c in components])
                         for name in ("posterior_mean", "score"))                  # (k, n, d)
        pull, J = scores - (r * scores).sum(axis=0), 0
        size = math.hypot(level.alpha, level.sigma)
        alpha, sigma = level.alpha / size, level.sigma / size
        for k, c in enumerate(components):
            V = alpha ** 2 * c.cov + sigma ** 2 * np.eye(world.dim)
            own = xp.asarray(alpha * np.linalg.solve(V, c.cov) / size)
            J = J + r[k, :, :, None] * (own + means[k, :, :, None] * pull[k, :, None])
        return (r * means).sum(axis=0), lambda v: (J @ v[:, :, None])[:, :, 0]

    return linearised
