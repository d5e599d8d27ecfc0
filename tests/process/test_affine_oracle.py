"""The affine recursion and the probe, on steps whose answer is known by hand."""
import numpy as np
import pytest

from refdiff.process import affine, grids, schedules
from refdiff.process.exact import Gaussian
from refdiff.process.gaussian import transition


def test_probe_reads_off_an_affine_map_with_noise():
    rng = np.random.default_rng(0)
    A, b, B = rng.standard_normal((2, 2)), rng.standard_normal(2), rng.standard_normal((3, 2, 2))
    B[1] = 0

    def run(x, noise):
        return x @ A.T + b + noise(0) @ B[0].T + noise(2) @ B[2].T

    got = affine.probe(run, 3, 2)
    np.testing.assert_allclose(got.A, A, atol=1e-15)
    np.testing.assert_allclose(got.b, b, atol=1e-15)
    np.testing.assert_allclose(got.gains, B, atol=1e-15)
    mean, cov = got.law(np.ones(2), np.eye(2))
    np.testing.assert_allclose(mean, A @ np.ones(2) + b)
    np.testing.assert_allclose(cov, A @ A.T + B[0] @ B[0].T + B[2] @ B[2].T)


def test_probe_refuses_a_draw_used_twice_or_out_of_range():
    for bad in (lambda x, noise: x + noise(1) + noise(1), lambda x, noise: x + noise(2)):
        with pytest.raises(ValueError, match="probe: the sampler drew"):
            affine.probe(bad, 2, 1)


def test_exact_ancestral_steps_reproduce_the_law():
    """With the true posterior variance of Gaussian data (large, for N(0, 1)), every step maps marginal to marginal."""
    schedule, world = schedules.linear(200), Gaussian([0., 0.], np.eye(2))
    grid = grids.discrete(schedule, 20)
    for last in (grid, grids.Grid(grid.t[:-1], grid.alpha[:-1], grid.sigma[:-1], "without the last")):
        mean, cov = affine.affine_law(affine.ddpm_step("large"), last, world)
        s, t = last.level(len(last)), last.level(len(last) - 1)
        missing = transition(s, t).variance            # the last step draws no noise: exactly that much is missing
        np.testing.assert_allclose(cov, (1 - missing) * np.eye(2), atol=1e-13)
        np.testing.assert_allclose(mean, 0, atol=1e-15)


def test_many_steps_converge_to_the_data():
    schedule, world = schedules.linear(1000), Gaussian([1., -.5], [[.5, .2], [.2, .3]])
    for step in (affine.ddim_step(0.), affine.ddim_step(1.), affine.ddpm_step("small"), affine.ddpm_step("large")):
        errors = []
        for S in (10, 100, 1000):
            grid = grids.discrete(schedule, S)
            start = world.marginal(grid.level(0))
            mean, cov = affine.affine_law(step, grid, world, start.mean, start.cov)
            np.testing.assert_allclose(mean, world.mean, atol=1e-12)      # the mean is exact at any number of steps
            errors.append(np.abs(cov - world.cov).max())
        assert errors[0] > 3 * errors[1] > 9 * errors[2] and errors[2] < .01


def test_unknown_variance_is_refused():
    with pytest.raises(ValueError, match="wanted 'small' or 'large'"):
        affine.ddpm_step("medium")
