"""The bound of DDPM's chain on worlds with known entropy: above -log p in the mean, and tending to it as 1/T.

Means over x_0 and eps are by cubature, so that no Monte Carlo hides a coefficient: for a Gaussian world the bound is
quadratic in them, and 2k points at +-sqrt(k) on the axes have the mean of any quadratic of k normal numbers.
"""
import math

import numpy as np
import pytest
from planted import mutant
from scipy.special import ndtr

from refdiff.process import affine, bound, exact, grids, schedules
from refdiff.process.parameterization import Prediction

GAUSSIANS = {d: exact.Gaussian(np.linspace(-0.3, 0.4, d), np.diag(np.linspace(0.2, 0.8, d))) for d in (1, 2, 5)}
MIXTURES = {1: exact.Mixture([1, 2, 1], [-0.8, 0.1, 0.7], [0.04, 0.09, 0.02]),
            2: exact.Mixture([1, 2], [[-0.5, 0.2], [0.4, -0.3]], [0.2 * np.eye(2), [[0.1, 0.05], [0.05, 0.2]]]),
            5: exact.Mixture([1, 2], [[0.5] * 5, [-0.3] * 5], [0.2 * np.eye(5), np.diag(np.linspace(0.1, 0.5, 5))])}


def cubature(k):
    """2k equally weighted points whose mean is right for quadratics of k standard normal numbers."""
    return math.sqrt(k) * np.concatenate([np.eye(k), -np.eye(k)])


def gauss(k, dim):
    """Gauss-Hermite nodes and weights for dim standard normal numbers, (k^dim, dim) and (k^dim,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(k)
    grids_ = np.meshgrid(*[nodes] * dim, indexing="ij")
    product = np.prod(np.meshgrid(*[weights / weights.sum()] * dim, indexing="ij"), axis=0)
    return np.stack([g.ravel() for g in grids_], axis=1), product.ravel()


def gaussian_gap(world, T, variance="large", module=bound):
    """E[bound] - entropy in bits per dimension, exact."""
    d, z = world.dim, cubature(2 * world.dim)
    x0 = world.mean + np.sqrt(world.w) * z[:, :d] @ world.U.T
    found = module.variational_bound(world, schedules.cosine(T), x0, lambda t: z[:, d:], variance, levels=0)
    return found.total.mean() - np.sum(np.log(2 * math.pi * math.e * world.w)) / (2 * d * math.log(2))


def check_rate(module=bound, dim=2):
    """Variance "large": above the entropy, and half as far with twice the steps (0.019 to 0.0012 bits in 2-D)."""
    gaps = [gaussian_gap(GAUSSIANS[dim], T, module=module) for T in (32, 64, 128, 256, 512)]
    assert all(gap > 0 for gap in gaps), gaps
    rates = np.log2(np.array(gaps[:-1]) / gaps[1:])
    np.testing.assert_allclose(rates[1:], 1.0, atol=0.02, err_msg=str(gaps))
    assert gaps[-1] < 0.003


@pytest.mark.parametrize("dim", GAUSSIANS)
def test_the_bound_tends_to_the_entropy_as_one_over_T(dim):
    check_rate(dim=dim)


def check_white(module=bound):
    """x_0 ~ N(0, I): beta_t is the true variance and the prior is exact, so there is no gap, at any T."""
    for T in (2, 7, 100):
        gap = gaussian_gap(exact.Gaussian(np.zeros(2), np.eye(2)), T, module=module)
        np.testing.assert_allclose(gap, 0.0, rtol=0, atol=1e-13)


def test_the_bound_of_white_data_is_tight_at_any_T():
    check_white()


def check_chain_law(module=bound, T=20):
    """At every x_0, above -log p of the chain's own law: affine, from N(0, I), with the decoder's noise at the end.

    Under N(0, I) data they are equal: the chain then has the data's law.
    """
    for world in (GAUSSIANS[2], exact.Gaussian(np.zeros(2), np.eye(2))):
        schedule = schedules.cosine(T)
        mean, cov = affine.affine_law(affine.ddpm_step("large"), grids.every(schedule), world)
        chain = exact.Gaussian(mean, cov + schedule.beta[1] * np.eye(2))
        points = np.array([[0.0, 0.0], [0.5, -0.5], [-1.5, 1.0], [2.0, 2.0]])
        eps = cubature(2)
        x0 = np.repeat(points, len(eps), axis=0)
        found = module.variational_bound(world, schedule, x0, lambda t: np.tile(eps, (len(points), 1)), "large",
                                         levels=0)
        bits = found.total.reshape(len(points), -1).mean(axis=1)
        y = np.linalg.solve(chain.cov, (points - chain.mean).T).T
        want = (0.5 * np.sum((points - chain.mean) * y, axis=1)
                + 0.5 * math.log((2 * math.pi) ** 2 * np.linalg.det(chain.cov))) / (2 * math.log(2))
        assert np.all(bits > want - 1e-12) and np.all(bits - want < 0.5)
    np.testing.assert_allclose(bits, want, rtol=1e-12)


def test_the_bound_is_above_the_chains_own_log_density_everywhere():
    check_chain_law()


@pytest.mark.parametrize("dim, nodes, Ts, tolerance", [(1, 24, (16, 64, 256), 0.01), (2, 9, (16, 64), 0.02),
                                                       (5, 3, (16, 64), 0.02)])
def test_the_bound_of_a_mixture_is_above_its_entropy_and_tends_to_it(dim, nodes, Ts, tolerance):
    """E over each component's normals and the noise by Gauss-Hermite; both sides are means over the same x_0."""
    world, gaps = MIXTURES[dim], []
    z, w = gauss(nodes, dim)
    x0 = np.concatenate([c.mean + np.sqrt(c.w) * z @ c.U.T for c in world.components])
    weight = np.concatenate([p * w for p in world.weights])
    if dim == 5:                                                # 3^10 products of nodes are too many: eps by cubature
        eps, v = cubature(5), np.full(10, 0.1)
    else:
        eps, v = z, w
    rows, both = np.repeat(x0, len(eps), axis=0), (weight[:, None] * v).ravel()
    entropy = -weight @ world.log_density(x0, schedules.cosine(4).level(0)) / (dim * math.log(2))
    for T in Ts:
        found = bound.variational_bound(world, schedules.cosine(T), rows,
                                        lambda t: np.tile(eps, (len(x0), 1)), "large", levels=0)
        gaps.append(both @ found.total - entropy)
    assert all(gap > 0 for gap in gaps) and all(a > 2 * b for a, b in zip(gaps, gaps[1:])), gaps
    assert gaps[-1] < tolerance, gaps


def grey_levels(levels):
    """Grey levels of a rounded normal of std 0.3 in [-1, 1], and their probabilities, edge bins open."""
    x, half = np.linspace(-1, 1, levels), 1 / (levels - 1)
    upper, lower = np.where(x > 0.999, np.inf, x + half), np.where(x < -0.999, -np.inf, x - half)
    return x, ndtr(upper / 0.3) - ndtr(lower / 0.3)


def check_discrete(module=bound, levels=256, center=0.0, variance="large", T=400):
    """E[bound] - entropy of grey levels, whose posterior mean is a finite world's; bits."""
    x, p = grey_levels(levels)
    world = exact.FiniteData(x - center, p)
    z, w = gauss(7, 1)
    rows, both = np.repeat(x[:, None] - center, 7, axis=0), (p[:, None] * w).ravel()
    found = module.variational_bound(world, schedules.cosine(T), rows, lambda t: np.tile(z, (levels, 1)), variance,
                                     levels=levels, center=center)
    return both @ found.total + p @ np.log2(p)


def check_fine_bins(module=bound):
    """256 grey levels, 400 steps: 0.009 bits above their entropy."""
    assert 0 < check_discrete(module) < 0.01


def check_centring(module=bound, levels=17):
    """Data given about another centre have the same bound, but for what the prior sees of it (below 1e-8 bits)."""
    gaps = [check_discrete(module, levels, center) for center in (0.0, 0.2)]
    assert gaps[0] > 0
    np.testing.assert_allclose(gaps[1], gaps[0], rtol=0, atol=1e-8)


def test_the_bound_of_grey_levels_is_above_their_entropy():
    check_fine_bins()


@pytest.mark.parametrize("levels", [5, 17])
def test_the_bound_of_grey_levels_does_not_depend_on_the_centre(levels):
    check_centring(levels=levels)


def test_few_grey_levels_need_the_small_variance():
    """x_0 of 5 levels is certain long before t = 1: beta-tilde is the true variance, beta costs half a bit."""
    gaps = [check_discrete(levels=5, variance="small", T=T) for T in (100, 200, 400)]
    np.testing.assert_allclose(np.log2(np.array(gaps[:-1]) / gaps[1:]), 1.0, atol=0.1, err_msg=str(gaps))
    assert 0 < gaps[-1] < 0.05 < 0.4 < check_discrete(levels=5, T=400)


def test_each_time_has_a_noise_of_its_own_and_a_term():
    asked, seen = [], []

    def noise(t):
        asked.append(t)
        return np.full((3, 2), float(t))

    def denoiser(x, level):
        seen.append(level.t)
        return Prediction("x0", 0 * x, x, level)

    found = bound.variational_bound(denoiser, schedules.linear(6), np.zeros((3, 2)), noise, levels=0)
    assert asked == seen == [1, 2, 3, 4, 5, 6] and found.terms.shape == (6, 3)
    np.testing.assert_allclose(found.total, found.prior + found.terms.sum(axis=0), rtol=1e-15)


def test_data_that_are_no_grey_levels_are_refused():
    with pytest.raises(ValueError, match="wanted whole grey levels, before any centring"):
        bound.variational_bound(MIXTURES[1], schedules.cosine(2), np.full((1, 1), 0.1), lambda t: np.zeros((1, 1)),
                                levels=17)


MUTANTS = [
    (check_white, "0.5 * ((x0 - mean) ** 2", "((x0 - mean) ** 2"),
    (check_white, "(log_var + math.log(2 * math.pi))", "(log_var + math.log(math.pi))"),
    (check_white, "(log_var + math.log(2 * math.pi))", "(0.5 * log_var + math.log(2 * math.pi))"),
    (check_white, "xp.asarray(-log_var, x0.dtype)", "xp.asarray(-0.5 * log_var, x0.dtype)"),
    (check_white, "else fixed_log_variance(variance,", "else fixed_log_variance('small',"),
    (check_rate, "clean = t == 1", "clean = t <= 2"),
    (check_chain_law, "prior + terms.sum(axis=0))", "terms.sum(axis=0))"),
    (check_chain_law, "denoiser(x_t, level)", "denoiser(x0, level)"),
    (check_rate, "x_t = q_sample(x0, noise(t), level)", "x_t = q_sample(x0, 0.9 * noise(t), level)"),
    (check_centring, "mean + center", "mean"),
    (check_centring, "grey_levels(x0 + center, levels).clip", "grey_levels(x0, levels).clip"),
    (check_fine_bins, "log_var, cdf, levels)\n    xp", "log_var, cdf, 128)\n    xp"),
    (check_fine_bins, "decoder = decoder_nats(x0, mean, log_var, cdf, levels, center)",
     "decoder = decoder_nats(x0, mean, log_var, cdf, 0, center)"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=[f"{m[0].__name__}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, old, new):
    module = mutant("process.bound", (old, new))
    with pytest.raises((AssertionError, ValueError)):
        check(module)
