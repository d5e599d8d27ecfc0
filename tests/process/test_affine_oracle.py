"""The affine recursion and the probe, on steps whose answer is known by hand."""
import numpy as np
import pytest

from refdiff.process import affine, affine_moves, families, grids, schedules
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


def test_a_memory_is_a_longer_vector():
    """x' = x - .5 G_before x_before + .3 z over four steps, against the sum over paths of its noises, term by term."""
    G, identity = np.array([[.4, .1], [-.2, .3]]), np.eye(2)
    M = np.block([[identity, -.5 * identity], [G, 0 * identity]])
    moves = [affine.Move(M, np.array([1., 0., 0., 2.]), np.vstack([.3 * identity, 0 * identity]))] * 4
    mean, cov = affine.law(moves, np.array([1., -1.]), np.array([[2., .5], [.5, 1.]]))

    def forward(x, draws, m=1.0):                                       # the same recursion on plain vectors
        before = np.zeros(2)
        for z in draws:
            x, before = x - .5 * before + m * np.array([1., 0.]) + .3 * z, G @ x + m * np.array([0., 2.])
        return x
    start = np.array([forward(e, np.zeros((4, 2)), 0.) for e in identity]).T
    gains = [np.array([forward(np.zeros(2), [e * (j == k) for k in range(4)], 0.) for e in identity]).T
             for j in range(4)]
    np.testing.assert_allclose(mean, forward(np.array([1., -1.]), np.zeros((4, 2))), rtol=1e-14)
    np.testing.assert_allclose(cov, start @ [[2., .5], [.5, 1.]] @ start.T + sum(g @ g.T for g in gains), rtol=1e-13)


WORLD = Gaussian([1., -.5], [[.5, .2], [.2, .3]])


def test_regression_and_precision_are_the_worlds_denoiser_and_score():
    x = np.random.default_rng(1).standard_normal((5, 2))
    for level in (families.TrigFlow().level(.7), families.Flow().level(.2), families.VarianceExploding().level(30.)):
        G, g = affine.denoising(WORLD, level)
        np.testing.assert_allclose(x @ G.T + g, WORLD.posterior_mean(x, level), rtol=1e-12)
        M, m, N = affine_moves.uphill(WORLD, level, 1., .3, .1)
        np.testing.assert_allclose(x @ M.T + m, x + .3 * WORLD.score(x, level), rtol=1e-12)
        np.testing.assert_array_equal(N, .1 * np.eye(2))


def test_langevin_dynamics_settle_on_a_law_that_is_too_wide_by_half_a_step():
    """x + e score + sqrt(2 e) z keeps the covariance P^-1 (I - e P/2)^-1, P the precision, and the right mean."""
    level, e = families.TrigFlow().level(.7), .05
    P = affine_moves.precision(WORLD, level)
    mean, cov = affine.law([affine_moves.uphill(WORLD, level, 1., e, np.sqrt(2 * e))] * 2000, np.zeros(2), np.eye(2))
    np.testing.assert_allclose(mean, WORLD.marginal(level).mean, rtol=1e-12)
    np.testing.assert_allclose(cov, np.linalg.inv(P) @ np.linalg.inv(np.eye(2) - e * P / 2), rtol=1e-12)


def moves_of_every_sampler(grid):
    tan = np.tan
    yield affine_moves.reverse_diffusion(grid, WORLD, "noise"), 1
    yield affine_moves.ancestral(grid, WORLD, "small", "noise"), 1
    yield affine_moves.euler_maruyama(grid, WORLD, lambda t: -tan(t), lambda t: 2 * tan(t), np.diff(grid.t), "noise"), 1
    yield affine_moves.sde_multistep(grid, WORLD, 1.0, 2, "exact", "noise"), 2
    yield affine_moves.churned_heun(grid, WORLD, lambda tau: (
        tau * (1 + 5 / len(grid)), tau * np.sqrt((1 + 5 / len(grid)) ** 2 - 1))), 2


def test_the_moves_lead_from_marginal_to_marginal_as_the_steps_shrink():
    """So they are steps of the reverse SDE, whatever the samplers do: weak orders 1 and 2 of the recursions alone."""
    def errors(N):
        grid = grids.on(families.TrigFlow(), np.linspace(1.4, .1, N + 1))
        first, last = WORLD.marginal(grid.level(0)), WORLD.marginal(grid.level(N))
        for moves, order in moves_of_every_sampler(grid):
            mean, cov = affine.law(moves, first.mean, first.cov)
            yield np.abs(cov - last.cov).max() + np.abs(mean - last.mean).max(), order
    for (coarse, order), (fine, _) in zip(errors(100), errors(400)):
        assert 4 ** (order - .15) < coarse / fine < 4 ** (order + .15), (order, coarse, fine)


def test_the_last_step_adds_noise_only_where_it_is_asked_to_and_some_is_left():
    clean, noisy = grids.karras(4), grids.karras(4, final=None)
    assert [affine.noisy(clean, i, "noise") for i in range(4)] == [True, True, True, False]
    assert [affine.noisy(noisy, i, "noise") for i in range(3)] == [True, True, True]
    assert [affine.noisy(noisy, i, "mean") for i in range(3)] == [True, True, False]


def test_unknown_variance_is_refused():
    with pytest.raises(ValueError, match="wanted 'small' or 'large'"):
        affine.ddpm_step("medium")
