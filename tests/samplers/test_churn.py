"""EDM's stochastic sampler: its law, Heun's method without churn, its draws. And mutants that must die."""
import importlib
import math

import mpmath as mp
import numpy as np
import pytest
from gaussian_law import LINEAR, WORLD, check_law, few, many
from planted import mutant

from refdiff import samplers
from refdiff.process import affine, affine_moves, families, grids
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key

module = importlib.import_module("refdiff.samplers.churn")


class Counted:
    """noise that must be asked for at `steps` alone, each once; the probe then sees them as draws 0, 1, .."""

    def __init__(self, noise, steps):
        self.noise, self.steps = noise, steps

    def __call__(self, step):
        return self.noise(self.steps.index(step))


def settings(grid):
    """Churn at some levels, at all that the family reaches, and at its cap; below the top of a discrete schedule."""
    ratio = grid.sigma[:-1] / grid.alpha[:-1]
    top = ratio[0] / 1.6
    yield dict(S_churn=.3 * len(grid), S_tmin=1.05 * ratio[-1], S_tmax=top, S_noise=1.02)
    yield dict(S_churn=9. * len(grid), S_tmin=0., S_tmax=top, S_noise=1.)
    # both ends are levels of the grid, and are churned
    yield dict(S_churn=.2 * len(grid), S_tmin=ratio[-1], S_tmax=max(r for r in ratio if r <= top), S_noise=1.)


def check_churn(module, all_grids=few):
    for grid in all_grids():
        for options in settings(grid):
            gamma = min(options["S_churn"] / len(grid), math.sqrt(2) - 1)
            ratio = grid.sigma[:-1] / grid.alpha[:-1]
            steps = [i for i, r in enumerate(ratio) if options["S_tmin"] <= r <= options["S_tmax"]]

            def churned(tau):
                if not options["S_tmin"] <= tau <= options["S_tmax"]:
                    return tau, 0.0
                return tau * (1 + gamma), options["S_noise"] * math.sqrt((tau * (1 + gamma)) ** 2 - tau ** 2)
            check_law(lambda x, noise: module.churn(WORLD, grid, x, noise=Counted(noise, steps), **options),
                      lambda: affine_moves.churned_heun(grid, WORLD, churned), grid, len(steps))


def test_churn_has_the_law_of_the_recursion():
    check_churn(module, many)


def test_without_churn_it_is_heun_to_the_bit():
    for grid in few():
        x = WORLD.sample(Key(1), 5)
        for options in ({}, dict(S_churn=0.0, S_noise=1.5), dict(S_churn=4., S_tmin=1e6)):
            np.testing.assert_array_equal(samplers.run(module.churn(WORLD, grid, x, **options)),
                                          samplers.run(samplers.heun(WORLD, grid, x)))


def test_one_step_equals_50_digits():
    """Algorithm 2's lines in order, in one dimension, with D(x; sigma) = .3 x + sigma."""
    def denoiser(x, level):
        return Prediction("x0", .3 * x + level.sigma, x, level)

    x, z = Key(1).normal((4, 1)), Key(2).normal((4, 1))
    grid = grids.karras(4, .1, 10., final=None)
    for S_churn in (.6, 40.):
        got = next(module.churn(denoiser, grid, x, S_churn=S_churn, S_noise=1.007, noise=lambda i: z)).x
        with mp.workdps(50):
            t, nxt = mp.mpf(float(grid.sigma[0])), mp.mpf(float(grid.sigma[1]))
            that = t + min(mp.mpf(S_churn) / len(grid), mp.sqrt(2) - 1) * t
            want = []
            for xi, zi in zip(x[:, 0], z[:, 0]):
                xhat = mp.mpf(float(xi)) + mp.sqrt(that ** 2 - t ** 2) * mp.mpf(1.007) * mp.mpf(float(zi))
                d = (xhat - (mp.mpf(.3) * xhat + that)) / that
                x1 = xhat + (nxt - that) * d
                d1 = (x1 - (mp.mpf(.3) * x1 + nxt)) / nxt
                want.append(float(xhat + (nxt - that) * (d + d1) / 2))
        np.testing.assert_allclose(got[:, 0], want, rtol=1e-13)


def test_noise_is_asked_for_where_it_is_used_or_at_every_step():
    """With a source that counts its calls, as a random generator does, the two conventions are different samples."""
    grid, x = grids.karras(6, .02, 20.), WORLD.sample(Key(1), 3)
    options = dict(S_churn=2., S_tmin=.05, S_tmax=8.)
    churned = [i for i in range(6) if .05 <= grid.sigma[i] <= 8.]
    assert 0 < len(churned) < 6
    ends = {}
    for draws, wanted in (("used", churned), ("every", list(range(6)))):
        asked = []

        def counting(step):
            asked.append(step)
            return Key(7).fold(len(asked)).normal(x.shape)
        ends[draws] = samplers.run(module.churn(WORLD, grid, x, draws=draws, noise=counting, **options))
        assert asked == wanted
    assert not np.allclose(ends["used"], ends["every"])
    noise = samplers.noise_from(Key(8), x)                      # a key's noise knows its step: the same samples
    np.testing.assert_array_equal(*(samplers.run(module.churn(WORLD, grid, x, draws=draws, noise=noise, **options))
                                    for draws in ("used", "every")))


def test_churn_corrects_the_law_of_a_wrong_start():
    """Started with half the noise that it should have, Heun keeps the error; noise added and removed forgets it."""
    errors = []
    for S_churn in (0., 20.):
        grid = grids.karras(41, .02, 10., final=None)
        read = affine.probe(lambda x, noise: samplers.run(module.churn(WORLD, grid, x, S_churn, noise=noise)), 40, 2)
        _, cov = read.law(np.zeros(2), 25. * np.eye(2))
        errors.append(np.abs(cov - WORLD.cov).max())
    assert errors[1] < .05 * errors[0]


def test_families_of_one_snr_give_one_law():
    """VP, VE and flow through the same lambdas, scaled to x/alpha: the same samples from the same draws."""
    lam, ends = np.linspace(-2, 2, 9), []
    for family in (families.TrigFlow(), families.VarianceExploding(), families.Flow()):
        levels = [family.at(float(v)) for v in lam]
        grid = grids.on(family, [v.t for v in levels])
        x = Key(1).normal((4, 2)) * levels[0].sigma
        out = samplers.run(module.churn(WORLD, grid, x, S_churn=1.5, noise=samplers.noise_from(Key(2), x)))
        ends.append(out / levels[-1].alpha)
    np.testing.assert_allclose(ends[1:], [ends[0], ends[0]], rtol=1e-12, atol=1e-12)


def test_what_cannot_be_is_refused_by_name():
    x = np.ones((2, 2))
    grid, nameless = grids.karras(3), Grid([2., 1.], [1., 1.], [2., 1.], "mine")
    dark = Grid([2, 1, 0], [0., .7, 1.], [1., .8, 0.], "zero terminal SNR")
    for make, message in (
            (lambda: module.churn(WORLD, grid, x, S_churn=-1.), "S_churn is -1"),
            (lambda: module.churn(WORLD, grid, x, S_churn=math.nan), "S_churn is nan"),
            (lambda: module.churn(WORLD, grid, x, S_churn=1., S_tmin=2., S_tmax=1.), "S_tmin is 2"),
            (lambda: module.churn(WORLD, grid, x, draws="some"), "draws is 'some'"),
            (lambda: module.churn(WORLD, dark, x), "starts at alpha = 0"),
            (lambda: module.churn(WORLD, nameless, x, S_churn=1., noise=lambda i: x), "names no family"),
            (lambda: module.churn(WORLD, grids.discrete(LINEAR, 5), x, S_churn=1., noise=lambda i: x),
             "churn: .* give S_tmax below .*lambda is"),
            (lambda: module.churn(WORLD, grid, x, S_churn=1.), "3 steps draw noise and none was given")):
        with pytest.raises(ValueError, match=message):
            next(make())


MUTANTS = [
    ("S_churn / S, math", "S_churn, math"),
    ("math.sqrt(2) - 1", "math.sqrt(2)"),
    ("S_tmin <= t.ratio", "S_tmin < 1.1 * t.ratio"),
    ("t.ratio <= S_tmax", "t.ratio <= 2 * S_tmax"),
    ("S_tmin <= t.ratio", "S_tmin < t.ratio"),
    ("t.ratio <= S_tmax", "t.ratio < S_tmax"),
    ("(hat.ratio - t.ratio) * (hat.ratio + t.ratio)", "(hat.ratio - t.ratio) * (hat.ratio - t.ratio)"),
    ("* S_noise * z", "* S_noise ** 2 * z"),
    ("x = hat.alpha * (x / t.alpha", "x = hat.alpha * (x / hat.alpha"),
    ("x = hat.alpha * (x", "x = t.alpha * (x"),
    ("denoiser(x, hat)", "denoiser(x, t)"),
    ("s.ratio - hat.ratio\n", "s.ratio - t.ratio\n"),
    ("(0.5 * d_cur + 0.5 * d_prime)", "(0.6 * d_cur + 0.4 * d_prime)"),
    ("denoiser(x, s).eps", "denoiser(x, hat).eps"),
    ("\"churn\", noise, i, x)", "\"churn\", noise, 0, x)"),
]


@pytest.mark.parametrize("old, new", MUTANTS)
def test_every_mutant_is_killed(old, new):
    planted = mutant("samplers.churn", (old, new))           # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, ValueError)) as death:
        check_churn(planted)
    assert death.type is AssertionError or any(said in str(death.value) for said in (
        "probe: the sampler drew", "is not in list", "lambda is"))            # a draw too many, a level too far
