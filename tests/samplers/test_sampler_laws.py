"""Every sampler on worlds whose answers are known: order, output law, identities, noise. And mutants that must die.

Each check takes the functions it judges as arguments, so that the mutants at the end run through the same checks.
"""
import importlib
import inspect
import math
import types

import numpy as np
import pytest

from refdiff import samplers
from refdiff.process import affine, grids, schedules
from refdiff.process.exact import Gaussian, Mixture
from refdiff.process.gaussian import posterior, posterior_mean
from refdiff.process.grids import Grid
from refdiff.process.level import ve
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key

SOURCES = {name: importlib.import_module(f"refdiff.samplers.{name}") for name in ("ddpm", "ddim", "edm", "consistency")}
WORLD = Gaussian([.7, -.4], [[.5, .2], [.2, .3]])
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])


def original(name, function):
    return getattr(SOURCES[name], function)


def circle(S, first=1.5, last=.1):
    """A variance-preserving grid, uniform in the angle."""
    angle = np.linspace(first, last, S + 1)
    return Grid(angle, np.cos(angle), np.sin(angle), "circle")


def short_grids():
    linear, cosine = schedules.linear(1000), schedules.cosine(60)
    flow = np.linspace(.95, 0, 8)
    yield from (grids.discrete(linear, S, rule) for S, rule in ((1, "trailing"), (5, "leading"), (7, "linspace")))
    yield grids.discrete(linear, 12, "trailing", final=1)
    yield grids.every(cosine)
    yield grids.karras(9, .01, 20.)
    yield grids.karras(6, .05, 10., final=None)
    yield Grid(flow, 1 - flow, flow, "flow")


# ---- checks, of any implementation

def check_law(sampler, step, grids_, **options):
    """The affine map read off the sampler's code has the output law of the recursion on closed-form coefficients."""
    for grid in grids_:
        def run(x, noise):
            return samplers.run(sampler(WORLD, grid, x, noise=noise, **options))

        read = affine.probe(run, len(grid), 2)
        for start in (Gaussian([0., 0.], np.eye(2)), WORLD.marginal(grid.level(0))):
            mean, cov = affine.affine_law(step, grid, WORLD, start.mean, start.cov)
            got_mean, got_cov = read.law(start.mean, start.cov)
            np.testing.assert_allclose(got_mean, mean, rtol=1e-10, atol=1e-10, err_msg=grid.rule)
            np.testing.assert_allclose(got_cov, cov, rtol=1e-10, atol=1e-10, err_msg=grid.rule)
        assert not read.gains[-1].any(), "the last step drew noise"


def check_ddpm_law(ddpm):
    for variance in ("small", "large"):
        check_law(ddpm, affine.ddpm_step(variance), short_grids(), variance=variance)


def check_ddim_law(ddim):
    for eta in (0.0, .3, 1.0):
        check_law(ddim, affine.ddim_step(eta), short_grids(), eta=eta)


def observed_order(sampler, make_grid, counts):
    """The least-squares slope of log error against log N, to the exact quantile map of a mixture."""
    errors = []
    for N in counts:
        grid = make_grid(N)
        a, b = grid.level(0), grid.level(N)
        x = np.linspace(-2, 2, 9)[:, None] * math.hypot(a.alpha, a.sigma)
        out = samplers.run(sampler(LINE, grid, x))
        errors.append(np.sqrt(np.mean((out - LINE.quantile_map(x, a, b)) ** 2)))
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0], errors


FAMILIES = {"karras": lambda N: grids.karras(N + 1, .05, 10., final=None), "circle": circle}


def check_order(sampler, order):
    for name, make_grid in FAMILIES.items():
        slope, errors = observed_order(sampler, make_grid, [64, 128, 256, 512, 1024])
        assert abs(slope - order) < .15, (name, slope, errors)


def check_euler_order(euler):
    check_order(euler, 1)


def check_heun_order(heun):
    check_order(heun, 2)


def check_heun_to_zero(heun):
    """The last Euler step to sigma = 0 is exact to first order in sigma_min: the end is the flow's end."""
    grid = grids.karras(400, 1e-4, 10.)
    x = np.linspace(-15, 15, 9)[:, None]
    np.testing.assert_allclose(samplers.run(heun(LINE, grid, x)), LINE.quantile_map(x, ve(10.), ve(0.)), atol=2e-4)


def exact_consistency(world, sigma_min):
    return lambda x, sigma: world.flow(x, ve(sigma), ve(sigma_min))


def check_consistency_law(consistency):
    """On Gaussian data the exact consistency function, in any number of steps, gives the law at sigma_min."""
    for sigmas in ([20.], [20., .8], [20., 2.5, .8, .3]):
        f, start = exact_consistency(WORLD, .1), WORLD.marginal(ve(20.))
        read = affine.probe(lambda x, noise: samplers.run(consistency(f, sigmas, x, sigma_min=.1, noise=noise)),
                            len(sigmas), 2)
        mean, cov = read.law(start.mean, start.cov)
        np.testing.assert_allclose(mean, WORLD.mean, atol=1e-12)
        np.testing.assert_allclose(cov, WORLD.cov + .01 * np.eye(2), atol=1e-12)
        assert not read.gains[-1].any() and all(read.gains[i].any() for i in range(len(sigmas) - 1))


# ---- facts

def test_ddpm_output_law_is_the_affine_recursion():
    check_ddpm_law(original("ddpm", "ddpm"))


def test_ddim_output_law_is_the_affine_recursion():
    check_ddim_law(original("ddim", "ddim"))


def test_a_thousand_steps_have_the_law_of_the_recursion():
    grid = grids.every(schedules.linear(1000))
    check_law(samplers.ddpm, affine.ddpm_step("large"), [grid], variance="large")
    check_law(samplers.ddim, affine.ddim_step(.5), [grid], eta=.5)


def test_euler_is_first_order_on_a_mixture():
    check_euler_order(original("edm", "euler"))


def test_ddim_without_noise_is_first_order_on_a_mixture():
    check_euler_order(original("ddim", "ddim"))


def test_heun_is_second_order_on_a_mixture():
    check_heun_order(original("edm", "heun"))


def test_heun_ends_at_zero_noise_on_the_flow():
    check_heun_to_zero(original("edm", "heun"))


def test_exact_consistency_function_reproduces_the_law_in_any_number_of_steps():
    check_consistency_law(original("consistency", "consistency"))


def test_one_consistency_step_of_a_mixture_is_the_flow():
    x = np.linspace(-30, 30, 7)[:, None]
    out = samplers.run(samplers.consistency(exact_consistency(LINE, .002), [10.], x))
    np.testing.assert_array_equal(out, LINE.flow(x, ve(10.), ve(.002)))


def start(grid, n=6, dtype=np.float64):
    level = grid.level(0)
    return Key(1).normal((n, 2), dtype) * math.hypot(level.alpha, level.sigma)


def test_ddim_with_eta_one_is_the_ddpm_step_with_the_posterior_s_variance():
    for grid in short_grids():
        x = start(grid)
        noise = samplers.noise_from(Key(2), x)
        ddim = samplers.run(samplers.ddim(WORLD, grid, x, eta=1.0, noise=noise))
        ddpm = samplers.run(samplers.ddpm(WORLD, grid, x, variance="small", noise=noise))
        # eps enters DDIM by (x - alpha x0)/sigma: up to alpha/sigma = 100 near the clean end, twice u each
        np.testing.assert_allclose(ddim, ddpm, rtol=1e-11, atol=1e-11)


def test_one_ddpm_step_is_the_posterior_mean_and_its_noise():
    grid = grids.discrete(schedules.linear(100), 4)
    x = start(grid)
    z = Key(3).normal(x.shape)
    state = next(samplers.ddpm(WORLD, grid, x, noise=lambda step: z))
    t, s = grid.level(0), grid.level(1)
    expected = posterior_mean(WORLD(x, t).x0, x, s, t) + math.sqrt(posterior(s, t).variance) * z
    np.testing.assert_allclose(state.x, expected, rtol=1e-14)
    assert state.level == s and state.step == 0 and state.prediction.level == t and state.prediction.x is x


def test_ddim_without_noise_repeats_bit_for_bit_and_draws_nothing():
    def forbidden(step):
        raise AssertionError("drew")
    for grid in short_grids():
        x = start(grid)
        first = samplers.run(samplers.ddim(WORLD, grid, x.copy()))
        assert np.array_equal(first, samplers.run(samplers.ddim(WORLD, grid, x.copy(), noise=forbidden)))


def test_euler_is_ddim_without_noise():
    for grid in short_grids():
        x = start(grid)
        ddim = samplers.run(samplers.ddim(WORLD, grid, x))
        np.testing.assert_allclose(samplers.run(samplers.euler(WORLD, grid, x)), ddim, rtol=1e-11, atol=1e-11)


def test_ddim_and_ddpm_start_from_a_level_without_signal():
    grid = Grid([2, 1, 0], [0., .7, 1.], [1., .8, 0.], "zero terminal SNR")
    x = start(grid)
    for variance in ("small", "large"):
        check_law(samplers.ddpm, affine.ddpm_step(variance), [grid], variance=variance)
    check_law(samplers.ddim, affine.ddim_step(.5), [grid], eta=.5)
    with pytest.raises(ValueError, match="starts at alpha = 0"):
        next(samplers.heun(WORLD, grid, x))


def stochastic():
    """(name, sampler(denoiser, x, noise)) of every sampler that draws, each with 6 steps."""
    grid = grids.discrete(schedules.linear(100), 6)
    sigmas = [20., 5., 2., 1., .5, .2]
    for name, sampler, options in (("ddpm", samplers.ddpm, {}),
                                   ("ddpm", samplers.ddpm, {"variance": "large"}),
                                   ("ddim", samplers.ddim, {"eta": .7})):
        yield name, lambda d, x, noise, f=sampler, o=options: f(d, grid, x, noise=noise, **o)
    yield "consistency", lambda d, x, noise: samplers.consistency(
        lambda y, sigma: d(y, ve(sigma)).x0, sigmas, x, noise=noise)


def test_noise_is_drawn_once_per_step_in_order_and_never_on_the_last():
    for name, sampler in stochastic():
        drawn, evaluated = [], []
        x = Key(1).normal((3, 2))

        def noise(step):
            drawn.append(step)
            return Key(9).fold(step).normal(x.shape)

        def denoiser(y, level):
            evaluated.append(level)
            return WORLD(y, level)

        states = list(sampler(denoiser, x, noise))
        assert drawn == [0, 1, 2, 3, 4] and len(evaluated) == 6 and [s.step for s in states] == list(range(6)), name
        for a, b in zip(states[-2:], list(sampler(WORLD, x, lambda step: 2 * noise(step)))[-2:]):
            assert not np.array_equal(a.x, b.x)                   # and every draw reaches the result


def test_noise_that_is_missing_or_of_another_shape_or_type_is_refused():
    x = Key(1).normal((3, 2))
    for name, sampler in stochastic():
        with pytest.raises(ValueError, match=f"{name}: 5 steps draw noise and none was given"):
            next(sampler(WORLD, x, None))
        for z in (np.ones(2), np.ones((1, 2)), np.ones((3, 2), np.float32)):
            with pytest.raises(ValueError, match=f"{name}: noise\\(0\\) is"):
                samplers.run(sampler(WORLD, x, lambda step: z))


def everything():
    yield from ((name, lambda d, x, noise, s=sampler: s(d, x, noise)) for name, sampler in stochastic())
    grid = grids.karras(6, .02, 20.)
    for f in (samplers.heun, samplers.euler, samplers.ddim):
        yield f.__name__, lambda d, x, noise, f=f: f(d, grid, x)


def test_rows_of_a_batch_do_not_mix():
    x = Key(4).normal((5, 2))
    z = Key(5).normal((6, 5, 2))
    for name, sampler in everything():
        whole = samplers.run(sampler(WORLD, x, lambda step: z[step]))
        for i in range(5):
            alone = samplers.run(sampler(WORLD, x[i:i + 1], lambda step: z[step, i:i + 1]))
            # a one-row matrix product may sum in another order
            np.testing.assert_allclose(whole[i:i + 1], alone, rtol=1e-11, atol=1e-12, err_msg=name)


def test_dtype_of_x_is_kept_and_x_is_left_alone():
    for dtype in (np.float32, np.float64):
        for name, sampler in everything():
            x = Key(4).normal((5, 2), dtype)
            before = x.copy()
            states = list(sampler(WORLD, x, samplers.noise_from(Key(6), x)))
            assert all(s.x.dtype == dtype for s in states), name
            assert np.array_equal(x, before)


def test_float32_is_float64_rounded():
    for name, sampler in everything():
        x = Key(4).normal((5, 2))
        noise = samplers.noise_from(Key(6), x)
        fine = samplers.run(sampler(WORLD, x, noise))
        x32 = x.astype(np.float32)
        coarse = samplers.run(sampler(WORLD, x32, samplers.noise_from(Key(6), x32)))
        np.testing.assert_allclose(coarse, fine, atol=2e-4, err_msg=name)   # eps magnifies 6e-8 by alpha/sigma


def test_every_prediction_of_the_same_network_gives_the_same_samples():
    grid = grids.discrete(schedules.linear(100), 6)
    x = start(grid)
    noise = samplers.noise_from(Key(6), x)
    for sampler, options in ((samplers.ddpm, {"noise": noise}), (samplers.ddim, {"noise": noise, "eta": .4}),
                             (samplers.heun, {})):
        expected = samplers.run(sampler(WORLD, grid, x, **options))
        for kind in ("eps", "v", "score", "velocity"):
            def denoiser(y, level):
                return Prediction(kind, getattr(WORLD(y, level), kind), y, level)
            np.testing.assert_allclose(samplers.run(sampler(denoiser, grid, x, **options)), expected, rtol=1e-10)


def test_heun_evaluates_twice_per_step_but_the_last():
    for grid, calls in ((grids.karras(18), 35), (grids.karras(18, final=None), 34)):
        seen = []

        def denoiser(x, level):
            seen.append(level.sigma)
            return WORLD(x, level)

        samplers.run(samplers.heun(denoiser, grid, start(grid)))
        assert len(seen) == calls and min(seen) == .002


@pytest.mark.parametrize("make, message", [
    (lambda x, g: samplers.ddim(WORLD, g, x, eta=1.5), "eta is 1.5"),
    (lambda x, g: samplers.ddim(WORLD, g, x, eta=-.1), "eta is -0.1"),
    (lambda x, g: samplers.ddpm(WORLD, g, x, "medium", noise=lambda i: x), "variance is 'medium'"),
    (lambda x, g: samplers.ddim(WORLD, g, np.ones((2, 2), int)), "x is int64"),
    (lambda x, g: samplers.consistency(None, [], x), "at least one"),
    (lambda x, g: samplers.consistency(None, [1., 1.], x), "strictly decreasing"),
    (lambda x, g: samplers.consistency(None, [1., .001], x), "above sigma_min")])
def test_impossible_options_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        next(make(np.ones((2, 2)), grids.karras(3)))


def test_samplers_are_named_for_the_command_line():
    assert {"ddpm", "ddim", "euler", "heun", "consistency"} <= set(samplers.SAMPLERS)
    assert samplers.SAMPLERS["ddim"] is samplers.ddim


# ---- planted mutants: one coefficient rewritten, and the check above must fail

def mutant(name, function, old, new):
    source = inspect.getsource(SOURCES[name])
    assert source.count(old) == 1, f"the mutant of {name} no longer applies: {old!r}"
    module = types.ModuleType(f"refdiff.samplers.{name}")
    module.__package__ = "refdiff.samplers"
    exec(compile(source.replace(old, new), f"mutant of {name}", "exec"), module.__dict__)
    return getattr(module, function)


MUTANTS = [
    (check_ddpm_law, "ddpm", "ddpm", "c_x0 * prediction.x0", "s.alpha * prediction.x0"),
    (check_ddpm_law, "ddpm", "ddpm", "+ c_xt * x", "+ 1.001 * c_xt * x"),
    (check_ddpm_law, "ddpm", "ddpm", "** 0.5", "** 1.0"),
    (check_ddpm_law, "ddpm", "ddpm", "fixed_variance(variance,", "fixed_variance('small',"),
    (check_ddpm_law, "ddpm", "ddpm", "denoiser(x, t)", "denoiser(x, s if s.sigma else t)"),
    (check_ddpm_law, "ddpm", "ddpm", "if i < last:", "if i < last + (variance == 'large'):"),
    (check_ddpm_law, "ddpm", "ddpm", "if i < last:", "if i < last - 1:"),
    (check_ddpm_law, "ddpm", "ddpm", "noise, i, x)", "noise, 0, x)"),
    (check_ddim_law, "ddim", "ddim", "std = eta * (s.sigma / t.sigma)", "std = eta * s.sigma"),
    (check_ddim_law, "ddim", "ddim", "math.sqrt(var_ts)", "var_ts"),
    (check_ddim_law, "ddim", "ddim", "(1 - eta) * (1 + eta) + (eta * r) ** 2", "1"),
    (check_ddim_law, "ddim", "ddim", "(eta * r) ** 2", "(eta * alpha_ts) ** 2"),
    (check_ddim_law, "ddim", "ddim", "return s.alpha, s.sigma", "return s.alpha, t.sigma"),
    (check_ddim_law, "ddim", "ddim", "return s.alpha, s.sigma", "return t.alpha, s.sigma"),
    (check_ddim_law, "ddim", "ddim", "x + std *", "x + 1.001 * std *"),
    (check_heun_order, "edm", "heun", "(0.5 * d_cur + 0.5 * d_prime)", "(0.51 * d_cur + 0.49 * d_prime)"),
    (check_heun_order, "edm", "heun", "denoiser(x, there).eps", "denoiser(x, here).eps"),
    (check_heun_order, "edm", "heun", "denoiser(x, there).eps", "denoiser(there.alpha * xbar, there).eps"),
    (check_heun_order, "edm", "heun", "here, there = grid.level(i), grid.level(i + 1)",
     "here, there = grid.level(i), grid.level(min(i + 1, len(grid) - 1))"),
    (check_heun_to_zero, "edm", "heun", "if correct and there.sigma > 0:", "if False:"),
    (check_euler_order, "edm", "euler", "there.ratio - here.ratio", "there.sigma - here.sigma"),
    (check_euler_order, "edm", "euler", "h * d_cur)\n        if", "1.01 * h * d_cur)\n        if"),
    (check_consistency_law, "consistency", "consistency", "(sigma - sigma_min) * (sigma + sigma_min)", "sigma ** 2"),
    (check_consistency_law, "consistency", "consistency", "noise, i - 1, x)", "noise, 0, x)"),
    (check_consistency_law, "consistency", "consistency", "x, f(x, sigma)", "x, f(x, sigmas[0])"),
]


@pytest.mark.parametrize("check, name, function, old, new", MUTANTS, ids=[f"{m[2]}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, name, function, old, new):
    planted = mutant(name, function, old, new)                 # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, ValueError)) as death:
        check(planted)
    # killed by a figure or by the probe, not by code that cannot run
    assert death.type is AssertionError or "probe: the sampler drew" in str(death.value)
