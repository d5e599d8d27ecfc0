"""The exact output law of a sampler on Gaussian data: the affine superposition.

On Gaussian data the ideal denoiser is affine in x, so every unclipped sampler step is x' = A x + b + noise, and the
mean and covariance of what comes out follow without Monte Carlo. Two routes, which share nothing:

    affine_law, law   the recursion, from coefficients derived here from what a step must do to the marginals
    probe             any sampler, run on basis vectors and unit noises, which reads its affine map off its code

A step that asks the denoiser twice, draws several times or remembers earlier predictions is one affine move of a longer
vector, or several moves. The moves of the stochastic samplers are in affine_moves.py.
"""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Move(NamedTuple):
    """y' = M y + m + N z, with z ~ N(0, I) drawn for this move alone; y is x, with what is remembered after it."""

    M: np.ndarray
    m: np.ndarray
    N: np.ndarray


def law(moves, mean, cov):
    """The mean and covariance of x ~ N(mean, cov) after a sequence of moves; what is remembered starts as 0."""
    d = len(mean)
    for M, m, N in moves:
        empty = M.shape[1] - len(mean)
        if empty > 0:
            mean, cov = np.pad(mean, (0, empty)), np.pad(cov, (0, empty))
        mean, cov = M @ mean + m, M @ cov @ M.T + N @ N.T
    return mean[:d], cov[:d, :d]


def denoising(world, level):
    """(G, g) with E[x_0 | x] = G x + g, by regression: G = Cov(x_0, x) Cov(x)^-1."""
    cov_x = level.alpha ** 2 * world.cov + level.sigma ** 2 * np.eye(world.dim)
    G = level.alpha * np.linalg.solve(cov_x, world.cov)
    return G, world.mean - level.alpha * G @ world.mean


def start(grid, world, mean=None, cov=None):
    """The law to start from, by default N(0, (alpha^2 + sigma^2) I) at the first level: N(0, I) in a VP family."""
    first = grid.level(0)
    mean = np.zeros(world.dim) if mean is None else np.asarray(mean, dtype=np.float64)
    cov = (first.alpha ** 2 + first.sigma ** 2) * np.eye(world.dim) if cov is None else np.asarray(cov, np.float64)
    return mean, cov


def ddim_step(eta=0.0):
    """(a, c, std) of x_s = a x_t + c x0hat + std z for DDIM, from its defining property. [DDIM eq. 7]

    std is eta times the posterior's; the rest is `keeping`'s.
    """
    return lambda s, t: keeping(s, t, eta * _posterior_std(s, t))


def keeping(s, t, std):
    """(a, c, std) of the step that keeps the marginals of a known x_0, whatever std is.

    x_t ~ N(alpha_t x_0, sigma_t^2) must become x_s ~ N(alpha_s x_0, sigma_s^2):
    a^2 sigma_t^2 + std^2 = sigma_s^2 and a alpha_t + c = alpha_s.
    """
    a = np.sqrt(s.sigma ** 2 - std ** 2) / t.sigma
    return a, s.alpha - a * t.alpha, std


def ddpm_step(variance="small"):
    """(a, c, std) of DDPM's ancestral step, from Bayes: the precisions of q(x_s | x_0) and q(x_t | x_s) add.

    variance: "small", "large", or a function (s, t) -> its value.
    """
    if not callable(variance) and variance not in ("small", "large"):
        raise ValueError(f"ddpm_step: variance is {variance!r}, wanted 'small' or 'large'")

    def step(s, t):
        ratio, added = t.alpha / s.alpha, _added_variance(s, t)
        std = _posterior_std(s, t)
        a = std ** 2 * ratio / added
        c = s.alpha if s.sigma == 0 else std ** 2 * s.alpha / s.sigma ** 2
        if callable(variance):
            return a, c, np.sqrt(variance(s, t))
        return a, c, std if variance == "small" else np.sqrt(added)
    return step


def _added_variance(s, t):
    return t.sigma ** 2 - (t.alpha / s.alpha * s.sigma) ** 2


def _posterior_std(s, t):
    return 0.0 if s.sigma == 0 else (1 / s.sigma ** 2 + (t.alpha / s.alpha) ** 2 / _added_variance(s, t)) ** -0.5


def affine_law(step, grid, world, mean=None, cov=None, end="mean"):
    """The mean (d,) and covariance (d, d) of a sampler's output on a Gaussian world.

    step(s, t) -> (a, c, std) is one sampler step from level t to level s: x_s = a x_t + c E[x_0 | x_t] + std z.
    Its last step adds no noise, unless end = "noise". The start is `start`'s; begin on world.marginal(grid.level(0))
    to leave only the steps' own error.
    """
    return law(steps(step, grid, world, end), *start(grid, world, mean, cov))


def steps(step, grid, world, end="mean"):
    """The moves of a step(s, t) -> (a, c, std), one for each step of the grid."""
    identity = np.eye(world.dim)
    for i in range(len(grid)):
        a, c, std = step(grid.level(i + 1), grid.level(i))
        G, g = denoising(world, grid.level(i))
        yield Move(a * identity + c * G, c * g, (std if noisy(grid, i, end) else 0.0) * identity)


def noisy(grid, i, end):
    """Whether step i adds noise: all but the last do, and with end = "noise" the last too if sigma > 0 there."""
    return i < len(grid) - 1 or (end == "noise" and grid.sigma[-1] > 0)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """x_out = A x + b + sum_j gains_j z_j: A (d, d), b (d,), gains (draws, d, d), zero where nothing is drawn."""

    A: np.ndarray
    b: np.ndarray
    gains: np.ndarray

    def law(self, mean, cov):
        """The mean and covariance of x_out for x ~ N(mean, cov) and independent z_j ~ N(0, I)."""
        noise = np.einsum("jab,jcb->ac", self.gains, self.gains)
        return self.A @ mean + self.b, self.A @ cov @ self.A.T + noise


def probe(run, draws, dim):
    """The AffineMap of a sampler run(x, noise) -> x_out on rows of `dim` numbers, with draws noise(0..draws-1).

    One batch holds every question: x = 0 without noise, each unit x without noise, x = 0 with each unit of each draw.
    Raises ValueError if a draw is asked for twice or is out of range.
    """
    x = np.zeros((1 + dim + draws * dim, dim))
    x[1:1 + dim] = np.eye(dim)
    drawn = set()

    def noise(k):
        if k in drawn or not 0 <= k < draws:
            raise ValueError(f"probe: the sampler drew noise({k}), wanted each of 0..{draws - 1} at most once")
        drawn.add(k)
        z = np.zeros_like(x)
        row = 1 + dim + k * dim
        z[row:row + dim] = np.eye(dim)
        return z

    out = run(x, noise)
    b = out[0]
    gains = (out[1 + dim:] - b).reshape(draws, dim, dim).transpose(0, 2, 1)
    return AffineMap((out[1:1 + dim] - b).T, b, gains)
