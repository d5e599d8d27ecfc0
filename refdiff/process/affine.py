"""The exact output law of a sampler on Gaussian data: the affine superposition.

On Gaussian data the ideal denoiser is affine in x, so every unclipped sampler step is x' = A x + b + noise, and the
mean and covariance of what comes out follow without Monte Carlo. Two routes, which share nothing:

    affine_law    the recursion, from coefficients derived here from what a step must do to the marginals
    probe         any sampler, run on basis vectors and unit noises, which reads its affine map off its code
"""
from dataclasses import dataclass

import numpy as np


def ddim_step(eta=0.0):
    """(a, c, std) of x_s = a x_t + c x0hat + std z for DDIM, from its defining property. [DDIM eq. 7]

    Given x_0, x_t ~ N(alpha_t x_0, sigma_t^2) must become x_s ~ N(alpha_s x_0, sigma_s^2), whatever std is:
    a^2 sigma_t^2 + std^2 = sigma_s^2 and a alpha_t + c = alpha_s. std is eta times the posterior's.
    """
    def step(s, t):
        std = eta * _posterior_std(s, t)
        a = np.sqrt(s.sigma ** 2 - std ** 2) / t.sigma
        return a, s.alpha - a * t.alpha, std
    return step


def ddpm_step(variance="small"):
    """(a, c, std) of DDPM's ancestral step, from Bayes: the precisions of q(x_s | x_0) and q(x_t | x_s) add."""
    if variance not in ("small", "large"):
        raise ValueError(f"ddpm_step: variance is {variance!r}, wanted 'small' or 'large'")

    def step(s, t):
        ratio, added = t.alpha / s.alpha, _added_variance(s, t)
        std = _posterior_std(s, t)
        a = std ** 2 * ratio / added
        c = s.alpha if s.sigma == 0 else std ** 2 * s.alpha / s.sigma ** 2
        return a, c, std if variance == "small" else np.sqrt(added)
    return step


def _added_variance(s, t):
    return t.sigma ** 2 - (t.alpha / s.alpha * s.sigma) ** 2


def _posterior_std(s, t):
    return 0.0 if s.sigma == 0 else (1 / s.sigma ** 2 + (t.alpha / s.alpha) ** 2 / _added_variance(s, t)) ** -0.5


def affine_law(step, grid, world, mean=None, cov=None):
    """The mean (d,) and covariance (d, d) of a sampler's output on a Gaussian world; its last step adds no noise.

    step(s, t) -> (a, c, std) is one sampler step from level t to level s: x_s = a x_t + c E[x_0 | x_t] + std z.
    The start is N(mean, cov), by default N(0, (alpha^2 + sigma^2) I) at the grid's first level: N(0, I) where the
    family preserves variance. Start on world.marginal(grid.level(0)) to leave only the steps' own error.
    """
    identity = np.eye(world.dim)
    first = grid.level(0)
    mean = np.zeros(world.dim) if mean is None else np.asarray(mean, dtype=np.float64)
    cov = (first.alpha ** 2 + first.sigma ** 2) * identity if cov is None else np.asarray(cov, dtype=np.float64)
    for i in range(len(grid)):
        t, s = grid.level(i), grid.level(i + 1)
        a, c, std = step(s, t)
        gain = t.alpha * np.linalg.solve(t.alpha ** 2 * world.cov + t.sigma ** 2 * identity, world.cov)
        A = a * identity + c * gain
        mean = A @ mean + c * (world.mean - t.alpha * gain @ world.mean)
        cov = A @ cov @ A.T + (std ** 2 if i < len(grid) - 1 else 0.0) * identity
    return mean, cov


@dataclass(frozen=True, eq=False)
class AffineMap:
    """x_out = A x + b + sum_j gains_j z_j: A (d, d), b (d,), gains (steps, d, d), zero where nothing is drawn."""

    A: np.ndarray
    b: np.ndarray
    gains: np.ndarray

    def law(self, mean, cov):
        """The mean and covariance of x_out for x ~ N(mean, cov) and independent z_j ~ N(0, I)."""
        noise = np.einsum("jab,jcb->ac", self.gains, self.gains)
        return self.A @ mean + self.b, self.A @ cov @ self.A.T + noise


def probe(run, steps, dim):
    """The AffineMap of a sampler run(x, noise) -> x_out on rows of `dim` numbers, drawing at most once per step.

    One batch holds every question: x = 0 without noise, each unit x without noise, x = 0 with each unit of each draw.
    Raises ValueError if a step draws twice or is out of range.
    """
    x = np.zeros((1 + dim + steps * dim, dim))
    x[1:1 + dim] = np.eye(dim)
    drawn = set()

    def noise(step):
        if step in drawn or not 0 <= step < steps:
            raise ValueError(f"probe: the sampler drew noise({step}), wanted each of 0..{steps - 1} at most once")
        drawn.add(step)
        z = np.zeros_like(x)
        row = 1 + dim + step * dim
        z[row:row + dim] = np.eye(dim)
        return z

    out = run(x, noise)
    b = out[0]
    gains = (out[1 + dim:] - b).reshape(steps, dim, dim).transpose(0, 2, 1)
    return AffineMap((out[1:1 + dim] - b).T, b, gains)
