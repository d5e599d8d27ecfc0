"""A sampler returns finite numbers or a typed error that says which and what, before any work where it can."""
import inspect
import math
import types

import numpy as np
import pytest

from refdiff import guidance, samplers
from refdiff.guidance.gradient import mean_shift
from refdiff.process import grids, preserving, schedules
from refdiff.process.exact import Gaussian
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers import SAMPLERS, phi, state
from refdiff.samplers.dpm import budget

WORLD = Gaussian([.7, -.4], [[.5, .2], [.2, .3]])
GRID = grids.on(preserving.VP(), np.linspace(.9, .05, 7), "six steps")
X = Key(1).normal((3, 2))
NAMES = sorted(set(SAMPLERS) - {"consistency"})


def flat(name, denoiser, x, **options):
    """The sampler by its name, with noise where it takes any."""
    if "noise" in inspect.signature(SAMPLERS[name]).parameters:
        options.setdefault("noise", samplers.noise_from(Key(2), X))
    return SAMPLERS[name](denoiser, GRID, x, **options)


def unasked(x, level):
    raise AssertionError("the denoiser was asked before the options were checked")


# ---- what is not finite

def broken(at):
    """A denoiser that is right but for one entry at levels below t = at."""
    def denoiser(x, level):
        value = WORLD(x, level).x0
        if level.t < at:
            value[-1, -1] = math.nan
        return Prediction("x0", value, x, level)
    return denoiser


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_that_is_not_finite_ends_the_sampler_with_its_name_step_and_level(name):
    said = "ddim" if name == "euler_ancestral" else name
    with pytest.raises(FloatingPointError, match=f"^{said}: .*not finite.* t = "):
        samplers.run(flat(name, broken(.5), X))
    for wrong in (math.nan, math.inf):
        x = X.copy()
        x[2, 1] = wrong
        with pytest.raises(FloatingPointError, match=f"{said}: x is not finite before the first step"):
            next(flat(name, unasked, x))


def test_so_do_editing_inversion_mean_shift_and_consistency():
    noise, mask = samplers.noise_from(Key(2), X), np.array([True, False])
    for name, run in (
            ("inpaint", lambda d, x: guidance.inpaint(d, GRID, x, X, mask, noise=noise)),
            ("invert", lambda d, x: guidance.invert(d, GRID, x)),
            ("mean_shift", lambda d, x: mean_shift(d, lambda x, level: 0 * x, GRID, x, noise=noise)),
            ("ddim", lambda d, x: samplers.ddim(guidance.dynamic(d), GRID, x)),
            ("ddim", lambda d, x: samplers.ddim(guidance.classifier(d, lambda x, level: 0 * x), GRID, x))):
        with pytest.raises(FloatingPointError, match=f"{name}: x is not finite after step"):
            samplers.run(run(broken(2.), X))
        with pytest.raises(FloatingPointError, match=f"{name}: x is not finite before"):
            samplers.run(run(unasked, X * math.nan))
    with pytest.raises(FloatingPointError, match="consistency: x is not finite after step 1"):
        samplers.run(samplers.consistency(lambda x, sigma: x * (.1 if sigma > 2 else math.nan), [4., 1.], X,
                                          noise=noise))


def test_x_is_looked_at_once_at_the_start_and_once_a_step_whatever_is_evaluated_within(monkeypatch):
    looks = []
    monkeypatch.setattr(state, "backend", types.SimpleNamespace(of=lambda **arrays: types.SimpleNamespace(
        isfinite=lambda x: looks.append(x) or np.isfinite(x))))
    for order in (1, 3):
        looks.clear()
        samplers.run(samplers.dpm(WORLD, GRID, X, order=order))
        assert len(looks) == 1 + len(GRID)


# ---- what is no option, no start and no denoiser

JUNK = ["abc", [1.5], {}, 1j, True, b"x", object(), np.ones(2), None, 10 ** 400, -1, math.nan]
RIGHT = {("dpm", "r1"): [None], ("dpm", "r2"): [None], ("dpm", "rule"): [None], ("dpm", "start"): [None],
         ("dpm", "lower_order_final"): [None], ("adaptive", "floor"): [None]}
RIGHT.update({("dpmpp", option): values for (name, option), values in list(RIGHT.items()) if name == "dpm"})
OPTIONS = [(name, option) for name in NAMES for option in list(inspect.signature(SAMPLERS[name]).parameters)[3:]
           if option != "noise"]


@pytest.mark.parametrize("name, option", OPTIONS)
def test_an_option_of_another_type_is_a_value_error_before_any_work(name, option):
    for value in JUNK:
        if any(value is good for good in RIGHT.get((name, option), [])):
            continue
        if option == "corrections" and isinstance(value, int) and value > 1:
            continue                                        # as many as one likes
        with pytest.raises(ValueError, match=option):
            next(flat(name, unasked, X, **{option: value}))


def test_levels_of_consistency_sampling_are_numbers():
    for sigmas in ("20", None, 20., [None], ["a"], [True], [1j], [math.inf]):
        with pytest.raises(ValueError, match="consistency: sigma"):
            next(samplers.consistency(unasked, sigmas, X))
    with pytest.raises(ValueError, match="consistency: sigma_min is 'x'"):
        next(samplers.consistency(unasked, [1.], X, sigma_min="x"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_or_no_prediction_is_said(name):
    for x in ([[1., 2.]], None, 3., np.float64(1.), "x"):
        with pytest.raises(ValueError, match="x is .*, wanted an array of rows"):
            next(flat(name, unasked, x))
    for value in (None, X, (X, X)):
        with pytest.raises(ValueError, match="the denoiser returned .*, wanted a Prediction"):
            next(flat(name, lambda x, level: value, X))


def test_integers_of_numpy_are_orders_and_bools_are_not():
    expected = samplers.run(samplers.dpmpp(WORLD, GRID, X, order=2))
    np.testing.assert_array_equal(samplers.run(samplers.dpmpp(WORLD, GRID, X, order=np.int64(2))), expected)
    orders = tuple(np.array([1, 2, 3, 3, 2, 1]))
    assert np.isfinite(samplers.run(samplers.dpm(WORLD, GRID, X, order=orders))).all()
    assert budget(np.int64(7)) == (3, 3, 1)
    for name in ("dpm", "dpmpp", "sde_dpmpp", "unipc", "deis", "lms", "plms"):
        for order in (True, 2.0, np.bool_(True), "2"):
            with pytest.raises(ValueError, match="order is"):
                next(flat(name, unasked, X, order=order))


# ---- what cannot be had is known before the first evaluation

def test_a_variance_of_no_such_name_is_refused_before_the_denoiser_is_asked():
    with pytest.raises(ValueError, match="ddpm: variance is 'x'"):
        next(flat("ddpm", unasked, X, variance="x"))
    with pytest.raises(ValueError, match="mean_shift: variance is 'x'"):
        next(mean_shift(unasked, None, GRID, X, variance="x", noise=samplers.noise_from(Key(2), X)))


def test_a_runge_kutta_start_between_levels_that_are_not_is_refused_by_name():
    dark = grids.discrete(schedules.zero_terminal_snr(schedules.linear(50)), 50)
    for name in ("lms", "deis", "unipc", "plms"):
        with pytest.raises(ValueError, match=f"{name}: start 'rk4' evaluates between t = 50 and t = 49"):
            next(iter(SAMPLERS[name](unasked, dark, X, order=3, start="rk4")))
        assert np.isfinite(samplers.run(SAMPLERS[name](WORLD, dark, X, order=3, start="lower"))).all()


def test_a_step_beyond_float64_is_refused_by_name_before_the_denoiser_is_asked():
    grid = grids.Grid([3., 2., 1.], [1e-307, .5, 1.], [1., .5, .1], "far")
    with pytest.raises(ValueError, match="dpm: the step from t = 3.0 to t = 2.0 is 706.* long in lambda"):
        next(samplers.dpm(unasked, grid, X, order=1))


def test_phi_of_a_high_order_and_weights_of_nodes_too_close_are_refused():
    assert phi.phi(170, 0.) == 1 / math.factorial(170)
    with pytest.raises(ValueError, match="phi: k is 200"):
        phi.phi(200, 1.)
    with pytest.raises(ValueError, match="too close"):
        phi.weights([0, 1e-320, -1], 1.)


# ---- discrete schedules

LINEAR = schedules.linear(100)


@pytest.mark.parametrize("grid", [grids.discrete(LINEAR, 5), grids.discrete(LINEAR, 5, "leading"),
                                  grids.discrete(LINEAR, 1)], ids=lambda grid: grid.rule)
def test_the_adaptive_solver_goes_down_to_a_discrete_schedule_s_last_level_by_default(grid):
    """The flow to the last noisy level is exact to the tolerance, and x0hat there is what is returned."""
    level = grid.level(0)
    x = level.alpha * WORLD.sample(Key(3), 3) + level.sigma * X
    lowest = LINEAR.level(1)
    wanted = WORLD(WORLD.flow(x, level, lowest), lowest).x0
    got = samplers.run(samplers.adaptive(WORLD, grid, x, rtol=1e-9, atol=1e-9))
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


def test_a_floor_that_the_family_has_not_is_named():
    with pytest.raises(ValueError, match="adaptive: floor is 1e-06: interpolated"):
        next(samplers.adaptive(unasked, grids.discrete(LINEAR, 5), X, floor=1e-6))


def test_the_adaptive_solver_ends_in_the_type_of_x():
    def coarse(x, level):
        made = Prediction.__new__(Prediction)               # by hand: what a denoiser of another type would say
        for name, value in zip(("kind", "value", "x", "level", "sigma_data"),
                               ("x0", WORLD(x, level).x0.astype(np.float32), x, level, None)):
            object.__setattr__(made, name, value)
        return made
    assert samplers.run(samplers.adaptive(coarse, grids.karras(3), 80 * X, rtol=1e-3, atol=1e-3)).dtype == np.float64
