"""SDE-DPM-Solver++: its law, its coefficients at 50 digits, what it is at tau = 0 and 1. And mutants that must die."""
import importlib
import math

import mpmath as mp
import numpy as np
import pytest
from gaussian_law import COSINE, WORLD, check_law, few, many, noisy, share
from planted import mutant

from refdiff import samplers
from refdiff.process import affine_moves, families, grids
from refdiff.process.grids import Grid
from refdiff.process.polynomial import PolynomialDenoiser
from refdiff.rng import Key

module = importlib.import_module("refdiff.samplers.sde_dpmpp")

SETTINGS = [(tau, order, rule) for tau in (0.0, .3, 1.0) for order, rule in ((1, "truncated"), (2, "truncated"),
                                                                             (2, "exact"))]


def check_sde_dpmpp(module, all_grids=few):
    for grid, (tau, order, rule) in share(all_grids, SETTINGS):
        for end in ("mean", "noise") if grid.sigma[-1] > 0 else ("mean",):
            def sample(x, noise):
                return module.sde_dpmpp(WORLD, grid, x, order=order, tau=tau, rule=rule, end=end, noise=noise)
            check_law(sample, lambda: affine_moves.sde_multistep(grid, WORLD, tau, order, rule, end), grid,
                      noisy(grid, end) if tau > 0 else 0)


def test_the_law_is_that_of_the_recursion():
    check_sde_dpmpp(module, many)


def test_two_steps_of_2M_equal_50_digits():
    """The published update, on a denoiser whose x0 depends on x and on the level."""
    grid = grids.on(families.Flow(), [.9, .7, .45])
    x, z = Key(1).normal((4, 2)), Key(2).normal((2, 4, 2))
    states = list(module.sde_dpmpp(WORLD, grid, x, end="noise", noise=lambda i: z[i]))
    first, second = (state.prediction.x0 for state in states)
    with mp.workdps(50):
        alpha, sigma = ([mp.mpf(float(v)) for v in table] for table in (grid.alpha, grid.sigma))
        lam = [mp.log(a / s) for a, s in zip(alpha, sigma)]
        h = [lam[1] - lam[0], lam[2] - lam[1]]
        keep = [float(sigma[i + 1] / sigma[i] * mp.exp(-h[i])) for i in (0, 1)]
        gain = [float(alpha[i + 1] * (1 - mp.exp(-2 * h[i]))) for i in (0, 1)]
        std = [float(sigma[i + 1] * mp.sqrt(1 - mp.exp(-2 * h[i]))) for i in (0, 1)]
        over_2r = float(h[1] / h[0] / 2)
    one = keep[0] * x + gain[0] * first + std[0] * z[0]
    two = keep[1] * one + gain[1] * (second + over_2r * (second - first)) + std[1] * z[1]
    np.testing.assert_allclose(states[0].x, one, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(states[1].x, two, rtol=1e-14, atol=1e-14)


def test_coefficients_equal_50_digits():
    rng = np.random.default_rng(5)
    for _ in range(60):
        low, h, tau = rng.uniform(-6, 5), 10 ** rng.uniform(-5, 1), rng.choice([0., .01, .5, 1., 3.])
        t, s = (families.TrigFlow().at(lam) for lam in (low, low + h))
        with mp.workdps(50):
            A, B, C, D = (mp.mpf(v) for v in (t.alpha, t.sigma, s.alpha, s.sigma))
            k = mp.log(C * B / (D * A))
            std = D * mp.sqrt(1 - mp.exp(-2 * tau * k))
            want = [D / B * mp.exp(-tau * k), C * (1 - mp.exp(-(1 + tau) * k)), std, k]
            slope = C * (1 + tau) * mp.quad(lambda u: mp.exp(-(1 + tau) * (k - u)) * u, [0, k])
            want = [float(v) for v in want]
        got = module.coefficients(s, t, float(tau))
        # lambda_s - lambda_t rounds at |lambda| u: relative to h
        np.testing.assert_allclose(got, want, rtol=1e-14 + 1e-14 / h)
        np.testing.assert_allclose(module.slope_weight("exact", s.alpha, want[3], tau), float(slope), rtol=1e-13)


def test_exact_slopes_solve_the_sde_of_a_denoiser_linear_in_lambda():
    """x0hat = p(lambda) of degree 1: the mean of a second step is the SDE's; the truncated rule misses it by O(h^3)."""
    world = PolynomialDenoiser([.7, -.4])
    for tau in (0., 1.):
        residual = []
        for h in (.2, .1, .05):
            lam = np.array([-.3, -.3 + h, -.3 + 2.5 * h])
            levels = [families.VP().at(float(v)) for v in lam]
            grid = Grid([v.t for v in levels], [v.alpha for v in levels], [v.sigma for v in levels], "test")
            x = np.array([[.8]])
            quiet = {rule: list(module.sde_dpmpp(world, grid, x, tau=tau, rule=rule, noise=lambda i: 0 * x))
                     for rule in module.RULES}
            a, b = levels[1:]
            with mp.workdps(30):
                k = lam[2] - lam[1]
                want = (b.sigma / a.sigma * mp.exp(-tau * k) * mp.mpf(quiet["exact"][0].x[0, 0]) + b.alpha * (1 + tau)
                        * mp.quad(lambda u: mp.exp(-(1 + tau) * (k - u)) * (.7 - .4 * (lam[1] + u)), [0, k]))
            np.testing.assert_allclose(quiet["exact"][1].x, float(want), rtol=1e-12)
            residual.append(abs(quiet["truncated"][1].x[0, 0] - float(want)))
        assert 6.5 < residual[0] / residual[1] < 9.5 and 6.5 < residual[1] / residual[2] < 9.5


def test_first_order_is_ddpm_at_tau_one_and_ddim_at_tau_zero_on_every_grid():
    """In any family c_xt = (sigma_s/sigma_t) e^-h, c_x0 = alpha_s (1 - e^-2h), beta-tilde = sigma_s^2 (1 - e^-2h)."""
    dark = Grid([2, 1, 0], [0., .7, 1.], [1., .8, 0.], "zero terminal SNR")
    for grid in (*few(), dark):
        x = WORLD.sample(Key(3), 5)
        noise = samplers.noise_from(Key(4), x)
        for tau, twin in ((1.0, samplers.ddpm(WORLD, grid, x, "small", noise)),
                          (1.0, samplers.ddim(WORLD, grid, x, 1.0, noise)), (0.0, samplers.ddim(WORLD, grid, x))):
            got = samplers.run(module.sde_dpmpp(WORLD, grid, x, order=1, tau=tau, noise=noise))
            np.testing.assert_allclose(got, samplers.run(twin), rtol=1e-11, atol=1e-11)


def test_any_tau_in_one_step_is_ddim_with_an_eta():
    """std^2 = sigma_s^2 (1 - e^(-2 tau h)) is DDIM's with eta^2 = (1 - e^(-2 tau h))/(1 - e^(-2h))."""
    t, s = families.Flow().at(-1.1), families.Flow().at(.2)
    grid = Grid([t.t, s.t, 0.], [t.alpha, s.alpha, 1.], [t.sigma, s.sigma, 0.], "one step and the end")
    x, z = Key(3).normal((5, 2)), Key(4).normal((5, 2))
    for tau in (.1, .5, .9):
        eta = math.sqrt(math.expm1(-2 * tau * 1.3) / math.expm1(-2 * 1.3))
        got = next(module.sde_dpmpp(WORLD, grid, x, tau=tau, noise=lambda i: z))
        np.testing.assert_allclose(got.x, next(samplers.ddim(WORLD, grid, x, eta, lambda i: z)).x, rtol=1e-13)


def test_families_of_one_snr_give_one_law():
    """VP, VE and flow through the same lambdas, end scaled to x/alpha: the same samples from the same draws."""
    lam = np.linspace(-2, 2, 9)
    ends = []
    for family in (families.TrigFlow(), families.VarianceExploding(), families.Flow()):
        levels = [family.at(float(v)) for v in lam]
        grid = grids.on(family, [v.t for v in levels])
        x = Key(1).normal((4, 2)) * levels[0].sigma
        for tau, order, rule in SETTINGS:
            out = samplers.run(module.sde_dpmpp(WORLD, grid, x, order=order, tau=tau, rule=rule, end="noise",
                                                noise=samplers.noise_from(Key(2), x)))
            ends.append(out / levels[-1].alpha)
    for other in (ends[9:18], ends[18:]):
        np.testing.assert_allclose(other, ends[:9], rtol=1e-11, atol=1e-12)


def test_options_that_cannot_be_are_refused_by_name():
    x, grid = np.ones((2, 2)), grids.discrete(COSINE, 4)
    for options, message in (({"order": 3}, "order is 3"), ({"tau": -1.}, "tau is -1"),
                             ({"tau": math.inf}, "tau is inf"),
                             ({"rule": "midpoint"}, "rule is 'midpoint'"),
                             ({"end": "median"}, "end is 'median'"),
                             ({}, "3 steps draw noise and none was given")):
        with pytest.raises(ValueError, match=message):
            next(module.sde_dpmpp(WORLD, grid, x, **options))


MUTANTS = [
    ("math.exp(-tau * h)", "math.exp(-h)"),
    ("math.expm1(-(1 + tau) * h)", "math.expm1(-2 * h)"),
    ("math.expm1(-2 * tau * h)", "math.expm1(-tau * h)"),
    ("-s.alpha * math.expm1", "-t.alpha * math.expm1"),
    ("std = s.sigma", "std = t.sigma"),
    ("return s.sigma / t.sigma * decay", "return s.alpha / t.alpha * decay"),
    ("k = (1 + tau) * h", "k = 2 * h"),
    ("k * phi(2, -k)", "k * phi(2, k)"),
    ("-math.expm1(-k) / 2", "-math.expm1(-k) / 3"),
    ("if rule == \"exact\" else", "if rule == \"truncated\" else"),
    ("/ h_before *", "/ h *"),
    ("* (x0 - before)", "* (before - x0)"),
    ("order == 2 and i > 0", "order == 2 and i > 1"),
    ("before, h_before = x0, h", "before, h_before = x0, h_before or h"),
    ("noise, i, x)", "noise, 0, x)"),
]


@pytest.mark.parametrize("old, new", MUTANTS)
def test_every_mutant_is_killed(old, new):
    planted = mutant("samplers.sde_dpmpp", (old, new))           # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, ValueError)) as death:
        check_sde_dpmpp(planted)
    assert death.type is AssertionError or "probe: the sampler drew" in str(death.value)
