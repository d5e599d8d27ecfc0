"""The reverse SDE step by step: laws, identities, what the paper's code does otherwise. And mutants that must die."""
import math

import mpmath as mp
import numpy as np
import pytest
from gaussian_law import LINEAR, WORLD, check_law, few, many, noisy, share
from planted import mutant

from refdiff import samplers
from refdiff.process import affine, affine_moves, families, grids
from refdiff.process.exact import Gaussian
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers import sde as module


def check_reverse_diffusion(module, all_grids=few):
    for grid, end in share(all_grids, module.ENDS):
        check_law(lambda x, noise: module.reverse_diffusion(WORLD, grid, x, end=end, noise=noise),
                  lambda: affine_moves.reverse_diffusion(grid, WORLD, end), grid, noisy(grid, end))


def check_ancestral(module, all_grids=few):
    for grid, (variance, end) in share(all_grids, [(v, end) for v in ("small", "large") for end in module.ENDS]):
        check_law(lambda x, noise: module.ancestral(WORLD, grid, x, variance=variance, end=end, noise=noise),
                  lambda: affine_moves.ancestral(grid, WORLD, variance, end), grid, noisy(grid, end))


# f and g^2 by hand: d log alpha/dt, and d sigma^2/dt - 2 f sigma^2
BY_HAND = {
    "ve": (lambda N: grids.karras(N, .01, 20.), lambda t: 0 * t, lambda t: 2 * t),
    "flow": (lambda N: grids.on(families.Flow(), np.linspace(.95, .001, N)), lambda t: -1 / (1 - t),
             lambda t: 2 * t / (1 - t)),
    "trigflow": (lambda N: grids.on(families.TrigFlow(), np.linspace(1.5, .01, N)), lambda t: -np.tan(t),
                 lambda t: 2 * np.tan(t)),
}


def check_euler_maruyama(module, counts=(6, 12)):
    for make, f, g2 in BY_HAND.values():
        for grid in map(make, counts):
            steps = {"spacing": np.diff(grid.t), "T/N": np.full(len(grid), -grid.t[0] / len(grid))}
            for dt, dts in steps.items():
                for end in module.ENDS:
                    check_law(lambda x, noise: module.euler_maruyama(WORLD, grid, x, dt=dt, end=end, noise=noise),
                              lambda: affine_moves.euler_maruyama(grid, WORLD, f, g2, dts, end), grid, noisy(grid, end))


# ---- facts

def test_reverse_diffusion_has_the_law_of_the_recursion():
    check_reverse_diffusion(module, many)


def test_ancestral_sampling_has_the_law_of_the_recursion():
    check_ancestral(module, many)


def test_euler_maruyama_has_the_law_of_the_recursion():
    check_euler_maruyama(module, (6, 41, 400))


def one_step(sampler, denoiser, grid, x, z, **options):
    return next(sampler(denoiser, grid, x, noise=lambda step: z, **options)).x


def test_one_step_of_each_equals_50_digits():
    """The paper's formulas on random x, z and score, for its own VE and VP chains."""
    x, z, g = (Key(i).normal((4, 2)) for i in range(3))

    def denoiser(y, level):
        return Prediction("score", g, y, level)

    ve, vp = grids.karras(5, .02, 20.), grids.at_times(LINEAR, range(700, 690, -1))
    with mp.workdps(50):
        high, low = mp.mpf(float(ve.sigma[0])), mp.mpf(float(ve.sigma[1]))
        beta = 1 - (mp.mpf(float(vp.alpha[0])) / mp.mpf(float(vp.alpha[1]))) ** 2
        added = mp.mpf(float(vp.sigma[0])) ** 2 - (1 - beta) * mp.mpf(float(vp.sigma[1])) ** 2
        d = high ** 2 - low ** 2
        rows = [(module.reverse_diffusion, ve, {}, (1, d, mp.sqrt(d))),
                (module.ancestral, ve, {}, (1, d, mp.sqrt(low ** 2 * d / high ** 2))),
                (module.euler_maruyama, ve, {}, (1, 2 * high * (high - low), mp.sqrt(2 * high * (high - low)))),
                (module.reverse_diffusion, vp, {}, (2 - mp.sqrt(1 - beta), added, mp.sqrt(added))),
                (module.ancestral, vp, {"variance": "large"},
                 (1 / mp.sqrt(1 - beta), added / mp.sqrt(1 - beta), mp.sqrt(added)))]
        for sampler, grid, options, want in rows:
            on_x, on_score, std = map(float, want)
            # var_ts of two rounded neighbours of a chain keeps 13 digits
            np.testing.assert_allclose(one_step(sampler, denoiser, grid, x, z, **options),
                                       on_x * x + on_score * g + std * z, rtol=1e-12, atol=1e-12)


def test_ancestral_sampling_is_ddpm_on_every_grid():
    for grid in few():
        x = WORLD.sample(Key(3), 5)
        noise = samplers.noise_from(Key(4), x)
        for variance in ("small", "large"):
            got = samplers.run(module.ancestral(WORLD, grid, x, variance=variance, noise=noise))
            # the score is (alpha x0 - x)/sigma^2, times var_ts again: alpha/sigma = 100 near the end
            np.testing.assert_allclose(got, samplers.run(samplers.ddpm(WORLD, grid, x, variance, noise)), atol=1e-10)


def test_euler_steps_to_sigma_down_and_back_up_are_ddim():
    """sigma_up and sigma_down by their definition, in x/alpha; the step is Euler's on the PF-ODE to sigma_down."""
    for grid in few():
        x = WORLD.sample(Key(3), 5)
        noise = samplers.noise_from(Key(4), x)
        for eta in (0.0, .4, 1.0):
            y = x
            for i in range(len(grid)):
                t, s = grid.level(i), grid.level(i + 1)
                high, low = t.sigma / t.alpha, s.sigma / s.alpha
                up = eta * math.sqrt(low ** 2 * (high ** 2 - low ** 2) / high ** 2)
                down = math.sqrt(low ** 2 - up ** 2)
                xbar = y / t.alpha
                xbar = xbar + (down - high) * (xbar - WORLD(y, t).x0) / high
                y = s.alpha * (xbar + (up * noise(i) if i < len(grid) - 1 else 0))
            got = samplers.run(module.euler_ancestral(WORLD, grid, x, eta, noise))
            np.testing.assert_allclose(got, y, rtol=1e-9, atol=1e-10)


def test_reverse_diffusion_in_ve_takes_no_smaller_step_than_ancestral_and_more_noise():
    grid = grids.karras(8, .02, 20.)
    for i in range(7):
        s, t = grid.level(i + 1), grid.level(i)
        (x1, g1, std1), (x2, g2, std2) = module.reverse_diffusion_step(s, t), module.ancestral_step(s, t)
        assert x1 == x2 == 1 and g1 == g2 and std1 > std2


def test_the_codes_step_is_the_spacing_of_its_times_at_the_papers_thousand_steps_and_at_no_other():
    """N times from 1 to 1e-3 are (1 - 1e-3)/(N - 1) apart, and its steps are 1/N: equal at N = 1000."""
    world, gap = Gaussian([.7], [[.3]]), {}
    for N in (100, 1000, 2000):
        grid, laws = grids.on(families.VP(), [*np.linspace(1, 1e-3, N), 0.]), []
        for dt in ("spacing", "T/N"):
            read = affine.probe(lambda x, noise: samplers.run(
                module.euler_maruyama(world, grid, x, dt=dt, noise=noise)), N, 1)
            laws.append(read.law(np.zeros(1), np.eye(1))[1][0, 0])
        gap[N] = abs(laws[0] - laws[1])
    assert gap[1000] < 1e-12 and gap[100] > 5e-4 and gap[2000] > 2e-5, gap


def test_ancestral_steps_do_not_depend_on_the_family_and_other_discretisations_do():
    """VP, VE and flow through the same lambdas, scaled to x/alpha, from the same draws."""
    lam = np.linspace(-2, 2, 9)
    for sampler, same in ((module.ancestral, True), (module.euler_ancestral, True), (module.reverse_diffusion, False),
                          (module.euler_maruyama, False)):
        ends = []
        for family in (families.TrigFlow(), families.VarianceExploding(), families.Flow()):
            levels = [family.at(float(v)) for v in lam]
            grid = grids.on(family, [v.t for v in levels])
            x = Key(1).normal((4, 2)) * levels[0].sigma
            out = samplers.run(sampler(WORLD, grid, x, noise=samplers.noise_from(Key(2), x)))
            ends.append(out / levels[-1].alpha)
        for other in ends[1:]:
            assert np.allclose(other, ends[0], rtol=1e-11, atol=1e-12) == same, sampler.__name__


def test_options_that_cannot_be_are_refused_by_name():
    x = np.ones((2, 2))
    grid, nameless = grids.karras(3), Grid([2., 1.], [1., 1.], [2., 1.], "mine")
    dark = Grid([2, 1, 0], [0., .7, 1.], [1., .8, 0.], "zero terminal SNR")
    flow = grids.on(families.Flow(), [1., .5, 0.])
    for make, message in (
            (lambda: module.euler_maruyama(WORLD, grid, x, dt="even"), "dt is 'even'"),
            (lambda: module.euler_maruyama(WORLD, nameless, x), "names no family"),
            (lambda: module.euler_maruyama(WORLD, flow, x), "wanted both finite"),
            (lambda: module.reverse_diffusion(WORLD, grid, x, end="median"), "end is 'median'"),
            (lambda: module.ancestral(WORLD, grid, x, variance="medium"), "variance is 'medium'"),
            (lambda: module.ancestral(WORLD, dark, x), "use ddpm"),
            (lambda: module.reverse_diffusion(WORLD, grid, x), "steps draw noise and none was given")):
        with pytest.raises(ValueError, match=message):
            next(make())


# ---- planted mutants

MUTANTS = [
    (check_reverse_diffusion, "return 2 - alpha_ts, var_ts, math.sqrt(var_ts)",
     "return 1 / alpha_ts, var_ts, math.sqrt(var_ts)"),
    (check_reverse_diffusion, "return 2 - alpha_ts, var_ts, math.sqrt(var_ts)",
     "return 2 - alpha_ts, var_ts / alpha_ts, math.sqrt(var_ts)"),
    (check_reverse_diffusion, "return 2 - alpha_ts, var_ts, math.sqrt(var_ts)",
     "return 2 - alpha_ts, var_ts, s.sigma / t.sigma * math.sqrt(var_ts)"),
    (check_reverse_diffusion, "len(grid) - (end == \"mean\" or grid.sigma[-1] == 0)", "len(grid) - (end == \"mean\")"),
    (check_reverse_diffusion, "len(grid) - (end == \"mean\" or grid.sigma[-1] == 0)", "len(grid) - 1"),
    (check_reverse_diffusion, "denoiser(x, grid.level(i))", "denoiser(x, grid.level(max(i - 1, 0)))"),
    (check_reverse_diffusion, "noise, i, x)", "noise, 0, x)"),
    (check_ancestral, "return 1 / alpha_ts, var_ts / alpha_ts", "return alpha_ts, var_ts / alpha_ts"),
    (check_ancestral, "return 1 / alpha_ts, var_ts / alpha_ts", "return 1 / alpha_ts, var_ts"),
    (check_ancestral, "var = var_ts if variance == \"large\" else", "var = var_ts if variance == \"small\" else"),
    (check_ancestral, "math.sqrt(var)", "var"),
    (check_euler_maruyama, "return 1 + f * dt", "return math.exp(f * dt)"),
    (check_euler_maruyama, "1 + f * dt, -g2 * dt,", "1 + f * dt, -g2 * dt / 2,"),
    (check_euler_maruyama, "math.sqrt(-g2 * dt)", "math.sqrt(g2) * -dt"),
    (check_euler_maruyama, "    t = grid.t[i]", "    t = grid.t[i + 1]"),
    (check_euler_maruyama, "-grid.t[0] / len(grid)", "-(grid.t[0] - grid.t[-1]) / len(grid)"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS)
def test_every_mutant_is_killed(check, old, new):
    planted = mutant("samplers.sde", (old, new))           # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, ValueError)) as death:
        check(planted)
    assert death.type is AssertionError or "probe: the sampler drew" in str(death.value)
