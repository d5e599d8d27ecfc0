"""The probability-flow ODE by adaptive solvers: the exact flow to the tolerance, each row by itself. And mutants."""
import importlib
import math

import numpy as np
import pytest
from gaussian_law import LINEAR, WORLD
from planted import mutant

from refdiff import samplers
from refdiff.process import families, grids
from refdiff.process.exact import Mixture
from refdiff.process.grids import Grid
from refdiff.process.likelihood import NotConverged
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key

module = importlib.import_module("refdiff.samplers.adaptive")
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
FLOOR = {"floor": LINEAR.level(1).ratio}


def some_grids():
    """(grid, options): noisy and clean ends, a start without signal, and a discrete schedule down to its t = 1."""
    yield grids.karras(4, .05, 10., final=None), {}
    yield grids.karras(4, .02, 40.), {}
    yield grids.on(families.Flow(), [1., .5, .2, 0.]), {}
    yield grids.on(families.TrigFlow(), [math.pi / 2, .5, 0.]), {}
    yield grids.on(families.SubVP(), [1., .6, .2]), {}
    yield grids.discrete(LINEAR, 3, final=1), {}


def start(grid, dim, n=3):
    return Key(1).normal((n, dim)) * math.hypot(grid.alpha[0], grid.sigma[0])


def check_flow(module, **options):
    """Global error: 1e-11 in each step grows by at most 1e2 on these worlds; floor^2/2 = 5e-13."""
    options = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-11, **options}
    for grid, more in some_grids():
        for world in (WORLD, LINE):
            x = start(grid, world.dim)
            for state in module.adaptive(world, grid, x, **options, **more):
                want = world.flow(x, grid.level(0), grid.level(state.step + 1))
                np.testing.assert_allclose(state.x, want, rtol=1e-9, atol=1e-9, err_msg=grid.rule)


def test_every_state_is_the_exact_flow():
    check_flow(module)


def test_every_method_keeps_its_tolerance_within_a_factor_of_a_hundred():
    grid = grids.on(families.Flow(), [.95, .4, .05])
    x = start(grid, 1)
    want = LINE.flow(x, grid.level(0), grid.level(2))
    for method in module.METHODS:
        for tol in (1e-4, 1e-8):
            error = np.abs(samplers.run(module.adaptive(LINE, grid, x, method, tol, tol)) - want).max()
            assert error < 100 * tol, (method, tol, error)


def test_a_discrete_schedule_ends_on_zero_by_the_denoised_x_of_its_first_level():
    """Between sigma_1 and 0 the schedule has no level: the flow to t = 1, then x0hat, whatever kind is predicted."""
    grid = grids.discrete(LINEAR, 3)
    x = start(grid, 2)
    first = WORLD.flow(x, grid.level(0), LINEAR.level(1))
    want = WORLD(first, LINEAR.level(1)).x0
    for kind in ("x0", "eps", "v", "score"):
        def denoiser(y, level):
            return Prediction(kind, getattr(WORLD(y, level), kind), y, level)
        got = samplers.run(module.adaptive(denoiser, grid, x, "DOP853", 1e-11, 1e-11, **FLOOR))
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_each_row_has_its_own_steps_and_does_not_see_the_others():
    grid = grids.karras(4, .05, 10., final=None)
    x = start(grid, 2, 4)
    whole = samplers.run(module.adaptive(WORLD, grid, x, rtol=1e-3, atol=1e-3))
    for n in range(4):
        np.testing.assert_array_equal(
            samplers.run(module.adaptive(WORLD, grid, x[n:n + 1], rtol=1e-3, atol=1e-3)), whole[n:n + 1])
    far = np.concatenate([x[:1], 1e3 * x[1:2]])        # a row that needs smaller steps leaves the first row's alone
    np.testing.assert_array_equal(samplers.run(module.adaptive(WORLD, grid, far, rtol=1e-3, atol=1e-3))[:1], whole[:1])


def test_images_keep_their_shape_and_float32():
    grid = grids.karras(3, .05, 10., final=None)
    x = Key(1).normal((2, 2, 2, 1), np.float32)

    def denoiser(y, level):
        return Prediction("x0", y / (1 + level.sigma ** 2), y, level)          # of data N(0, 1)
    states = list(module.adaptive(denoiser, grid, x, rtol=1e-6, atol=1e-6))
    assert len(states) == 2 and all(s.x.shape == x.shape and s.x.dtype == np.float32 for s in states)
    np.testing.assert_allclose(states[-1].x, x * math.hypot(1, .05) / math.hypot(1, 10.), rtol=1e-4)


def test_what_cannot_be_is_refused_by_name():
    x, grid = np.ones((2, 2)), grids.karras(3)
    nameless = Grid([2., 1.], [1., 1.], [2., 1.], "mine")
    for make, message in (
            (lambda: module.adaptive(WORLD, grid, x, "euler"), "method is 'euler'"),
            (lambda: module.adaptive(WORLD, grid, x, rtol=0.), "rtol is 0"),
            (lambda: module.adaptive(WORLD, grid, x, atol=math.inf), "atol is inf"),
            (lambda: module.adaptive(WORLD, grid, x, floor=.002), "floor is 0.002"),
            (lambda: module.adaptive(WORLD, nameless, x), "names no family"),
            (lambda: module.adaptive(WORLD, grid, x.astype(int)), "x is int64")):
        with pytest.raises(ValueError, match=message):
            next(make())


def test_a_solver_that_gives_up_says_where():
    grid, x = grids.karras(3, .05, 10., final=None), np.ones((2, 2))

    def nowhere(y, level):
        return Prediction("x0", y * math.nan if level.sigma < 1 else y * 0, y, level)

    def explodes(y, level):                                        # d xhat/d theta = -9 xhat^2, infinite half-way
        return Prediction("v", -9 * y ** 2 / math.hypot(level.alpha, level.sigma), y, level)
    with pytest.raises(FloatingPointError, match="not finite at t = 0"):
        samplers.run(module.adaptive(nowhere, grid, x))
    with pytest.raises(NotConverged, match="row 0 from t = 1.15.* to t = 0.05 by RK45"):
        samplers.run(module.adaptive(explodes, grid, x))


MUTANTS = [
    ("math.tan(theta)", "1 / math.tan(theta)"),
    ("(norm * flat)", "flat"),
    (".ravel() / norm", ".ravel()"),
    (".reshape(len(x), -1) / math.hypot(t.alpha, t.sigma)", ".reshape(len(x), -1) / math.hypot(s.alpha, s.sigma)"),
    ("math.hypot(end.alpha, end.sigma) * rows", "math.hypot(t.alpha, t.sigma) * rows"),
    ("(angle(t), angle(end)), rows[n]", "(angle(t), angle(end)), rows[0]"),
    ("if end != t else prediction).x0", "if end != t else prediction).eps"),
    ("_between(grid, FLOOR", "_between(grid, 1e3 * FLOOR"),
    ("rtol=rtol, atol=atol", "rtol=1e-5, atol=1e-5"),
    ("return math.atan2(level.sigma, level.alpha)", "return math.atan2(level.sigma, 1)"),
]


@pytest.mark.parametrize("old, new", MUTANTS)
def test_every_mutant_is_killed(old, new):
    planted = mutant("samplers.adaptive", (old, new))           # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, ValueError)) as death:
        check_flow(planted)
    assert death.type is AssertionError or "lambda is" in str(death.value)         # led out of the family
