"""Predictor and corrector: its law, its step size, the order of its draws. And mutants that must die."""
import math

import mpmath as mp
import numpy as np
import pytest
from gaussian_law import COSINE, LINEAR, WORLD, check_law, few, many, share
from planted import mutant

from refdiff import samplers
from refdiff.process import affine, affine_moves, grids
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers import langevin as module
from refdiff.samplers import sde

MOVES = {"reverse-diffusion": affine_moves.reverse_diffusion, "ancestral": affine_moves.ancestral}
SETTINGS = [("reverse-diffusion", 1, "predictor"), ("ancestral", 2, "predictor"), ("reverse-diffusion", 2, "corrector"),
            ("ancestral", 1, "corrector")]


def check_predictor_corrector(module, all_grids=few):
    for grid, (predictor, corrections, first) in share(all_grids, SETTINGS):
        draws = len(grid) - 1 + corrections * (len(grid) - (first == "predictor"))
        check_law(lambda x, noise: module.predictor_corrector(WORLD, grid, x, predictor, corrections, .2, "expected",
                                                              first, noise),
                  lambda: affine_moves.langevin(grid, WORLD, MOVES[predictor](grid, WORLD), .2, corrections, first),
                  grid, draws)


def check_norm_size(module):
    """Per row, and over the batch, against sums written out at 50 digits."""
    score, z = Key(1).normal((3, 2, 2)), Key(2).normal((3, 2, 2))
    with mp.workdps(50):
        norms = [[mp.sqrt(sum(mp.mpf(float(v)) ** 2 for v in row.ravel())) for row in array] for array in (z, score)]
        per_row = [2 * (mp.mpf(.16) * mp.mpf(.9) * a / b) ** 2 for a, b in zip(*norms)]
        batch = 2 * (mp.mpf(.16) * mp.mpf(.9) * sum(norms[0]) / sum(norms[1])) ** 2
        expected = 2 * (mp.mpf(.16) * mp.mpf(.9) * mp.mpf(.7)) ** 2
    np.testing.assert_allclose(module.step_size("norm", .16, .9, .7, score, z).ravel(), [float(e) for e in per_row],
                               rtol=1e-14)
    np.testing.assert_allclose(module.step_size("batch-norm", .16, .9, .7, score, z), float(batch), rtol=1e-14)
    np.testing.assert_allclose(module.step_size("expected", .16, .9, .7, score, z), float(expected), rtol=1e-14)


def test_the_law_is_that_of_the_recursion():
    check_predictor_corrector(module, many)


def test_step_sizes_equal_50_digits():
    check_norm_size(module)


def test_a_correction_equals_50_digits_and_the_papers_alpha_is_one_minus_beta():
    """Algorithms 4 and 5: one correction at the second level, the predictor without noise and with a score of 0."""
    x, z, g = Key(1).normal((1, 3)), Key(2).normal((1, 3)), Key(3).normal((1, 3))
    for grid in (grids.karras(5, .02, 20.), grids.at_times(LINEAR, range(700, 690, -1))):
        def denoiser(y, level):
            return Prediction("score", g * (level.sigma < grid.sigma[0]), y, level)
        draws = iter([0 * z, z])
        got = next(module.predictor_corrector(denoiser, grid, x, snr=.16, noise=lambda k: next(draws))).x
        keep = sde.reverse_diffusion_step(grid.level(1), grid.level(0))[0]
        with mp.workdps(50):
            one_minus_beta = (mp.mpf(float(grid.alpha[1])) / mp.mpf(float(grid.alpha[2]))) ** 2
            ratio = mp.sqrt(sum(mp.mpf(float(v)) ** 2 for v in z[0]) / sum(mp.mpf(float(v)) ** 2 for v in g[0]))
            eps = 2 * one_minus_beta * (mp.mpf(.16) * ratio) ** 2
            on_g, on_z = float(eps), float(mp.sqrt(2 * eps))
        np.testing.assert_allclose(got, keep * x + on_g * g + on_z * z, rtol=1e-13)
        if grid.rule.startswith("at_times"):
            assert math.isclose(float(one_minus_beta), 1 - LINEAR.beta[699], rel_tol=1e-12)


def test_without_corrections_it_is_the_predictor_to_the_bit():
    for grid in few():
        x = WORLD.sample(Key(1), 4)
        noise = samplers.noise_from(Key(2), x)
        for first in ("predictor", "corrector"):
            for predictor, twin in (("reverse-diffusion", sde.reverse_diffusion), ("ancestral", sde.ancestral)):
                got = samplers.run(module.predictor_corrector(WORLD, grid, x, predictor, 0, first=first, noise=noise))
                np.testing.assert_array_equal(got, samplers.run(twin(WORLD, grid, x, noise=noise)))


def test_the_papers_order_and_its_codes_differ_by_the_correction_of_the_first_level():
    grid, x = grids.karras(6, .02, 20.), WORLD.sample(Key(1), 4)
    evaluated = {}
    for first in ("predictor", "corrector"):
        seen = evaluated[first] = []

        def denoiser(y, level):
            seen.append(float(level.sigma))
            return WORLD(y, level)
        samplers.run(module.predictor_corrector(denoiser, grid, x, first=first, noise=samplers.noise_from(Key(2), x)))
    assert evaluated["corrector"] == [grid.sigma[0]] + evaluated["predictor"]
    assert evaluated["predictor"] == [grid.sigma[0], *np.repeat(grid.sigma[1:6], 2)]


def test_batch_norms_couple_the_rows_and_row_norms_do_not():
    grid, x = grids.karras(6, .02, 20.), WORLD.sample(Key(1), 4)
    z = Key(2).normal((40, 4, 2))
    for size, coupled in (("norm", False), ("expected", False), ("batch-norm", True)):
        whole = samplers.run(module.predictor_corrector(WORLD, grid, x, size=size, noise=lambda k: z[k]))
        alone = samplers.run(module.predictor_corrector(WORLD, grid, x[:1], size=size, noise=lambda k: z[k, :1]))
        assert np.allclose(whole[:1], alone, rtol=1e-10, atol=1e-12) != coupled, size


def test_langevin_dynamics_bring_a_wrong_law_back():
    """From half the variance, with few predictor steps: the more corrections, the nearer to the data's covariance."""
    grid, errors = grids.karras(11, .02, 10., final=None), []
    for corrections in (0, 2, 10):
        moves = affine_moves.langevin(grid, WORLD, affine_moves.reverse_diffusion(grid, WORLD), .2, corrections)
        errors.append(np.abs(affine.law(moves, np.zeros(2), 50. * np.eye(2))[1] - WORLD.cov).max())
    assert errors[0] > 1.3 * errors[1] > 2 * errors[2], errors


def test_what_cannot_be_is_refused_by_name():
    x, grid = np.ones((2, 2)), grids.discrete(COSINE, 4)

    def flat(y, level):
        return Prediction("score", 0 * y, y, level)
    for denoiser, options, message in (
            (WORLD, {"predictor": "heun"}, "predictor is 'heun'"), (WORLD, {"size": "large"}, "size is 'large'"),
            (WORLD, {"first": "both"}, "first is 'both'"), (WORLD, {"corrections": -1}, "corrections is -1"),
            (WORLD, {"corrections": 1.5}, "corrections is 1.5"), (WORLD, {"snr": 0.}, "snr is 0"),
            (WORLD, {"corrections": 2}, "9 steps draw noise and none was given"),
            (flat, {"noise": lambda k: x}, "the score is 0")):
        with pytest.raises(ValueError, match=message):
            next(module.predictor_corrector(denoiser, grid, x, **options))


MUTANTS = [
    (check_predictor_corrector, "return 2 * (snr * ratio * sigma) ** 2", "return (snr * ratio * sigma) ** 2"),
    (check_predictor_corrector, "return 2 * (snr * ratio * sigma) ** 2", "return 2 * snr * (ratio * sigma) ** 2"),
    (check_predictor_corrector, "level.alpha / float(grid.alpha[i + 1])", "1.0"),
    (check_predictor_corrector, "x + eps * score", "x + 2 * eps * score"),
    (check_predictor_corrector, "(2 * eps) ** 0.5", "eps ** 0.5"),
    (check_predictor_corrector, "denoiser(x, level).score", "denoiser(x, grid.level(0)).score"),
    (check_predictor_corrector, "on_x * x + on_score", "x + on_score"),
    (check_predictor_corrector, "+ on_score * prediction", "+ std * prediction"),
    (check_predictor_corrector, "x + std * z_like(x)", "x + std ** 2 * z_like(x)"),
    (check_predictor_corrector, "z_like(x), i + 1)", "z_like(x), i)"),
    (check_predictor_corrector, "if first == \"corrector\":", "if first == \"neither\":"),
    (check_predictor_corrector, "noise, drawn - 1, x)", "noise, 0, x)"),
    (check_norm_size, "axis=tuple(range(1, x.ndim))", "axis=tuple(range(0, x.ndim))"),
    (check_norm_size, "keepdims=True) ** 0.5", "keepdims=True)"),
    (check_norm_size, "(noise / slope)", "(slope / noise)"),
    (check_norm_size, "return 2 * (snr * ratio * (noise", "return 2 * (snr * (noise"),
    (check_norm_size, "noise.mean(), slope.mean()", "noise.mean(), slope"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS)
def test_every_mutant_is_killed(check, old, new):
    planted = mutant("samplers.langevin", (old, new))           # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, ValueError)) as death:
        check(planted)
    assert death.type is AssertionError or "probe: the sampler drew" in str(death.value)
