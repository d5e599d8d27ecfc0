"""DDPM's step with any variance: its law, learned ones at 50 digits, the exact one. And mutants that must die."""
import math
from dataclasses import dataclass

import mpmath as mp
import numpy as np
import pytest
from gaussian_law import LINEAR, WORLD, check_law, few, many
from planted import mutant

from refdiff import samplers
from refdiff.process import affine, families, grids
from refdiff.process.exact import Gaussian
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers import variances as module


def by_precision(std):
    """Var(x_s | x_t) for scalar data N(0, std^2), from the joint Gaussian of (x_s, x_t), not from a posterior."""
    def variance(s, t):
        r = t.alpha / s.alpha
        var_s = (s.alpha * std) ** 2 + s.sigma ** 2
        var_t = (t.alpha * std) ** 2 + t.sigma ** 2
        return var_s * (var_t - r ** 2 * var_s) / var_t
    return variance


def geometric(v):
    """beta^v beta-tilde^(1-v): beta from the two levels, beta-tilde by adding precisions."""
    def variance(s, t):
        beta = t.sigma ** 2 - (t.alpha / s.alpha * s.sigma) ** 2
        if s.sigma == 0:
            return 0.0
        return beta ** v / (1 / s.sigma ** 2 + (t.alpha / s.alpha) ** 2 / beta) ** (1 - v)
    return variance


def check_variances(module, all_grids=few):
    for grid in all_grids():
        for variance, oracle in ((module.gaussian_data(.6), by_precision(.6)), (module.gaussian_data(0.), geometric(0)),
                                 (module.learned(lambda p: np.full_like(p.x, -.4)), geometric(.3)),
                                 (module.learned(lambda p: np.full_like(p.x, 1.)), geometric(1.))):
            check_law(lambda x, noise: samplers.ddpm(WORLD, grid, x, variance, noise),
                      lambda: affine.steps(affine.ddpm_step(oracle), grid, WORLD), grid, len(grid) - 1)


def test_the_law_of_every_variance_is_that_of_the_recursion():
    check_variances(module, many)


@dataclass(frozen=True, eq=False)
class TwoHalves(Prediction):
    """A prediction with the network's second half, as a denoiser of learned variance returns it."""

    out: object = None


def test_a_learned_variance_equals_50_digits_entry_by_entry():
    """Also on a longer jump than the schedule's steps, and beyond [-1, 1], where it is not clipped."""
    x, out = Key(1).normal((3, 2)), np.array([[-1., -.2], [0., .7], [1., 1.3]])
    for times in ([400, 399, 0], [400, 250, 0]):
        grid = grids.at_times(LINEAR, times)
        z = Key(2).normal((3, 2))

        def denoiser(y, level):
            return TwoHalves("eps", 0 * y, y, level, out=out)
        quiet, loud = (next(samplers.ddpm(denoiser, grid, x, module.learned(lambda p: p.out), lambda i: scale * z)).x
                       for scale in (0, 1))
        with mp.workdps(50):
            at, st, a, s = (mp.mpf(float(v)) for v in (grid.alpha[0], grid.sigma[0], grid.alpha[1], grid.sigma[1]))
            beta = st ** 2 - (at / a * s) ** 2
            tilde = s ** 2 / st ** 2 * beta
            want = [[float(mp.exp((mp.mpf(o) + 1) / 2 * mp.log(beta) + (1 - mp.mpf(o)) / 2 * mp.log(tilde)))
                     for o in row] for row in out.tolist()]
        np.testing.assert_allclose((loud - quiet) / z, np.sqrt(want), rtol=1e-11)    # beta of rounded neighbours


def test_minus_one_is_small_and_one_is_large():
    for grid in few():
        x = WORLD.sample(Key(1), 4)
        noise = samplers.noise_from(Key(2), x)
        for value, fixed in ((-1., "small"), (1., "large")):
            got = samplers.run(samplers.ddpm(WORLD, grid, x, module.learned(lambda p: p.x * 0 + value), noise))
            np.testing.assert_allclose(got, samplers.run(samplers.ddpm(WORLD, grid, x, fixed, noise)), rtol=1e-12)


def test_the_variance_of_gaussian_data_makes_every_step_exact():
    """Marginal to marginal in any number of steps, up to the last, which adds no noise: exactly its own is missing."""
    world = Gaussian([.7, -.4], .36 * np.eye(2))
    flow = grids.on(families.Flow(), [.9, .5, .2])
    for grid in (grids.discrete(LINEAR, 3), grids.karras(4, .1, 20., final=None), flow):
        last = grid.level(len(grid)), grid.level(len(grid) - 1)
        read = affine.probe(lambda x, noise: samplers.run(samplers.ddpm(
            world, grid, x, module.gaussian_data(.6), noise)), len(grid), 2)
        start, end = world.marginal(grid.level(0)), world.marginal(grid.level(len(grid)))
        mean, cov = read.law(start.mean, start.cov)
        np.testing.assert_allclose(mean, end.mean, atol=1e-12)
        np.testing.assert_allclose(cov, end.cov - by_precision(.6)(*last) * np.eye(2), atol=1e-12)


def test_gaussian_data_of_std_0_is_small_and_of_std_1_is_large_where_variance_is_preserved():
    for grid in (grids.discrete(LINEAR, 7), grids.on(families.TrigFlow(), [1.5, 1., .4])):
        for i in range(len(grid)):
            s, t = grid.level(i + 1), grid.level(i)
            np.testing.assert_allclose(module.gaussian_data(0.)(None, s, t), module.posterior(s, t).variance)
            np.testing.assert_allclose(module.gaussian_data(1.)(None, s, t), module.fixed_variance("large", s, t),
                                       rtol=1e-12)


def test_float32_stays_float32():
    x = Key(1).normal((3, 2), np.float32)
    grid = grids.discrete(LINEAR, 5)
    for variance in (module.gaussian_data(.5), module.learned(lambda p: p.x * 0)):
        states = list(samplers.ddpm(WORLD, grid, x, variance, samplers.noise_from(Key(2), x)))
        assert all(state.x.dtype == np.float32 for state in states)


def test_what_cannot_be_is_refused_by_name():
    x, grid = np.ones((2, 2)), grids.discrete(LINEAR, 5)
    with pytest.raises(ValueError, match="std is -1"):
        module.gaussian_data(-1)
    with pytest.raises(ValueError, match="out has shape"):
        next(samplers.ddpm(WORLD, grid, x, module.learned(lambda p: np.ones(2)), lambda i: x))


def test_a_variance_per_row_belongs_to_its_row_whatever_the_shape_of_x():
    """Three rows of three entries, where a wrong axis would pass unseen: each row as if it were alone."""
    grid, x = grids.karras(3, .1, 5.), Key(1).normal((3, 3))
    z, var = Key(2).normal((3, 3)), np.array([.1, 2., .7])

    def denoiser(y, level):
        return Prediction("x0", 0 * y, y, level)
    for dtype in (np.float64, np.float32):
        got = next(samplers.ddpm(denoiser, grid, x.astype(dtype), lambda p, s, t: var, lambda i: z.astype(dtype))).x
        assert got.dtype == dtype
        for i in range(3):
            alone = next(samplers.ddpm(denoiser, grid, x[i:i + 1], lambda p, s, t: float(var[i]), lambda _: z[i:i + 1]))
            np.testing.assert_allclose(got[i:i + 1], alone.x, rtol=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("value, message", [
    (-.1, "variance is -0.1"), (math.nan, "variance is nan"), (1j, "variance is 1j"), (None, "variance is None"),
    (math.inf, "variance is inf"), (np.ones(2), r"float64 \(2,\)"), (np.ones((1, 4)), r"float64 \(1, 4\)"),
    (np.ones(3, complex), "complex128"), (np.array([1., -1., 1.]), "negative or not finite"),
    (np.array([1., np.nan, 1.]), "negative or not finite"), (np.full((3, 4), -1.), "negative or not finite")])
def test_a_variance_that_is_none_is_refused(value, message):
    x = np.ones((3, 4))
    with pytest.raises(ValueError, match=message):
        next(samplers.ddpm(lambda y, level: Prediction("x0", 0 * y, y, level), grids.karras(3), x,
                           lambda p, s, t: value, lambda i: x))


MUTANTS = [
    ("0.5 * (large + small) +", "0.5 * large +"),
    ("0.5 * (large - small) * value", "0.5 * (small - large) * value"),
    ("0.5 * (large - small) * value", "(large - small) * value"),
    ("(\"small\", \"large\")", "(\"large\", \"small\")"),
    ("return small + (c_x0", "return (c_x0"),
    ("(c_x0 * std * t.sigma) ** 2", "c_x0 * (std * t.sigma) ** 2"),
    ("(c_x0 * std * t.sigma) ** 2", "(c_x0 * std * s.sigma) ** 2"),
    ("(t.alpha * std) ** 2", "std ** 2"),
]


@pytest.mark.parametrize("old, new", MUTANTS)
def test_every_mutant_is_killed(old, new):
    planted = mutant("samplers.variances", (old, new))           # outside: one that no longer applies is not a kill
    with pytest.raises(AssertionError):
        check_variances(planted)
