"""What holds for all multistep solvers alike: identities, families, both ends, evaluations, rows, types; and fuzz."""
import inspect
import math

import numpy as np
import pytest
import standin
from hypothesis import given, settings
from hypothesis import strategies as st

from refdiff import samplers
from refdiff.process import families, grids, schedules
from refdiff.process.exact import Gaussian
from refdiff.process.grids import Grid
from refdiff.process.parameterization import KINDS, LimitError, Prediction
from refdiff.rng import Key

WORLD = Gaussian([.7, -.4], [[.5, .2], [.2, .3]])
SOLVERS = {"unipc": samplers.unipc, "deis": samplers.deis, "lms": samplers.lms, "plms": samplers.plms}


def predicting(kind, world=WORLD):
    return lambda x, level: Prediction(kind, getattr(world(x, level), kind), x, level)


def every_option():
    """(name, solver, options) of each solver in each of its forms, at order 3."""
    for kind in ("x0", "eps"):
        for B in ("B1", "B2", "exact"):
            for corrector in ("paper", "every", "never"):
                yield "unipc", samplers.unipc, {"kind": kind, "B": B, "corrector": corrector}
    for variable in ("t", "rho", "lambda"):
        yield "deis", samplers.deis, {"variable": variable, "order": 3}
    yield "lms", samplers.lms, {"order": 3}
    yield "plms", samplers.plms, {"order": 3, "start": "lower"}


def same_levels():
    """One trajectory's levels in three families: sigma/alpha from 10 to 0.05."""
    ratio = grids.karras(9, .05, 10., final=None).sigma
    return [grids.on(families.VarianceExploding(), ratio), grids.on(families.Flow(), ratio / (1 + ratio)),
            grids.on(families.TrigFlow(), np.arctan(ratio))]


def test_families_give_the_same_trajectory_after_rescaling():
    """All but the methods that mention the family's own time: DEIS in t, PLMS started at times halfway."""
    z = Key(1).normal((4, 2))
    for name, solver, options in every_option():
        for start in ("lower", "rk4"):
            if options.get("variable") != "t":
                paths = []
                for grid in same_levels():
                    states = solver(WORLD, grid, 10 * grid.level(0).alpha * z, **{**options, "start": start})
                    paths.append([state.x / state.level.alpha for state in states])
                for path in paths[1:]:
                    np.testing.assert_allclose(path, paths[0], rtol=1e-11, atol=1e-11, err_msg=f"{name} {options}")


def test_deis_in_t_and_plms_at_times_halfway_do_depend_on_the_family():
    z = Key(1).normal((4, 2))
    for solver, options in ((samplers.deis, {"variable": "t"}), (samplers.plms, {})):
        ve, flow, _ = [samplers.run(solver(WORLD, grid, 10 * grid.level(0).alpha * z, **options)) / grid.alpha[-1]
                       for grid in same_levels()]
        assert np.abs(ve - flow).max() > 1e-4


def test_every_prediction_of_the_same_network_gives_the_same_samples():
    grid, z = grids.discrete(schedules.linear(100), 6), Key(1).normal((4, 2))
    for name, solver, options in every_option():
        wanted = samplers.run(solver(WORLD, grid, z, **options))
        for kind in KINDS:
            np.testing.assert_allclose(samplers.run(solver(predicting(kind), grid, z, **options)), wanted, rtol=1e-9,
                                       err_msg=f"{name} {options} {kind}")


def test_the_step_to_the_clean_level_is_taken():
    """To sigma = 0: in lambda an infinite step. UniPC's is of order 1, in x0 just x0hat; the others' keep theirs."""
    grid, z = grids.discrete(schedules.linear(100), 6), Key(1).normal((4, 2))
    for name, solver, options in every_option():
        last = list(solver(WORLD, grid, z, **options))[-1]
        assert last.level.sigma == 0 and np.isfinite(last.x).all()
        if options.get("kind") == "x0":
            np.testing.assert_array_equal(last.x, last.prediction.x0)
    one = Grid([2., 1., 0.], [1., 1., 1.], [2., 1., 0.], "two steps", families.VarianceExploding())
    for name, solver, options in every_option():              # steps to 0 among the first: the start gives way
        for start in ("lower", "rk4"):
            assert len(list(solver(WORLD, one, z, **{**options, "start": start}))) == 2


def test_a_start_without_signal_is_left_by_ddim_s_step_or_refused():
    angle = np.linspace(np.pi / 2, .1, 7)
    grid, z = grids.on(families.TrigFlow(), angle), Key(1).normal((4, 2))
    assert grid.alpha[0] == 0
    ddim = next(samplers.ddim(predicting("v"), grid, z)).x
    for name, solver, options in every_option():
        for kind in ("x0", "v", "velocity"):
            states = list(solver(predicting(kind), grid, z, **options))
            np.testing.assert_allclose(states[0].x, ddim, rtol=1e-13)
            np.testing.assert_allclose(states[-1].x, WORLD.flow(z, grid.level(0), grid.level(6)), atol=.2)
            assert np.isfinite(samplers.run(solver(predicting(kind), grid, z, **{**options, "start": "rk4"}))).all()
        with pytest.raises(LimitError, match="alpha = 0"):
            next(solver(lambda x, level: Prediction("eps", x, x, level), grid, z, **options))


def test_one_evaluation_per_step_and_three_more_in_each_step_of_the_start():
    grid, z = grids.karras(9, .05, 10., final=None), 10 * Key(1).normal((4, 2))
    for name, solver, options in every_option():
        for start in ("lower", "rk4"):
            seen = []

            def counting(x, level):
                seen.append(level)
                return WORLD(x, level)

            assert len(list(solver(counting, grid, z, **{**options, "start": start}))) == 8
            extra = (options.get("corrector") == "every") + (6 if start == "rk4" else 0)
            assert len(seen) == 8 + extra, (name, options, start)


def test_rows_do_not_mix_types_are_kept_and_x_is_left_alone():
    grid = grids.karras(8, .05, 10.)
    for name, solver, options in every_option():
        options = {**options, "start": "rk4"}
        for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 2e-3)):
            x = (10 * Key(1).normal((4, 2))).astype(dtype)
            before, states = x.copy(), list(solver(WORLD, grid, x, **options))
            assert all(state.x.dtype == dtype for state in states), (name, options)
            assert np.array_equal(x, before)
            for i in range(4):
                alone = samplers.run(solver(WORLD, grid, x[i:i + 1], **options))
                np.testing.assert_allclose(alone, states[-1].x[i:i + 1], rtol=tolerance, atol=tolerance)


def test_steps_levels_and_predictions_of_the_states():
    grid, z = grids.karras(8, .05, 10.), 10 * Key(1).normal((4, 2))
    for name, solver, options in every_option():
        for i, state in enumerate(solver(WORLD, grid, z, **options)):
            assert state.step == i and state.level == grid.level(i + 1) and state.prediction.level == grid.level(i)


def test_on_a_device_the_same_bits():
    grid, z = grids.karras(8, .05, 10.), 10 * Key(1).normal((4, 2))
    for name, solver, options in every_option():
        for start in ("lower", "rk4"):
            options = {**options, "start": start}
            there = samplers.run(solver(WORLD, grid, standin.xp.asarray(z), **options))
            assert isinstance(there, standin.StandIn)
            np.testing.assert_array_equal(there.get(), samplers.run(solver(WORLD, grid, z, **options)))


def test_integers_to_start_from_are_refused():
    for solver in SOLVERS.values():
        with pytest.raises(ValueError, match="x is int64"):
            solver(WORLD, grids.karras(8), np.ones((2, 2), int))


# ---- fuzz

@st.composite
def levels(draw):
    steps = draw(st.integers(1, 20))
    which = draw(st.sampled_from(["linear", "cosine", "zero terminal", "karras", "flow", "trigflow", "random"]))
    if which == "karras":
        return grids.karras(steps, final=draw(st.sampled_from([0., 1e-3])))
    if which in ("flow", "trigflow"):
        family = families.Flow() if which == "flow" else families.TrigFlow()
        first, last = draw(st.sampled_from([family.t_max, .95])), draw(st.sampled_from([0., .02]))
        return grids.on(family, np.linspace(first, last, steps + 1))
    if which == "random":
        lam = np.cumsum([draw(st.floats(1e-6, 3)) for _ in range(steps + 1)]) - 5
        t = 1 / (1 + np.exp(lam))
        return Grid(t, 1 / (1 + np.exp(-lam)), t, "random", draw(st.sampled_from([None, families.Flow()])))
    schedule = {"linear": schedules.linear(100), "cosine": schedules.cosine(40),
                "zero terminal": schedules.zero_terminal_snr(schedules.linear(50))}[which]
    return grids.discrete(schedule, steps, draw(st.sampled_from(["leading", "trailing", "linspace"])))


OPTIONS = {
    "order": st.sampled_from([1, 2, 3, 4, 4, 3, 2, 6]), "B": st.sampled_from(["B1", "B2", "exact"]),
    "start": st.sampled_from(["lower", "rk4", "lower", "rk4", "prk"]), "kind": st.sampled_from(["x0", "eps"]),
    "lower_order_final": st.sampled_from(["paper", "always", "never"]),
    "corrector": st.sampled_from(["paper", "every", "never"]), "variable": st.sampled_from(["t", "rho", "lambda"])}


@settings(derandomize=True, database=None, max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SOLVERS)), levels(), st.sampled_from(KINDS), st.data())
def test_any_combination_is_finite_in_as_many_steps_or_refused(name, grid, kind, data):
    solver = SOLVERS[name]
    own = [option for option in inspect.signature(solver).parameters if option in OPTIONS]
    options = {option: data.draw(OPTIONS[option], label=option) for option in own}
    z = Key(1).normal((2, 2)) * math.hypot(grid.alpha[0], grid.sigma[0])
    with np.errstate(all="raise", under="ignore"):
        try:
            states = list(solver(predicting(kind), grid, z, **options))
        except ValueError as refusal:
            said = str(refusal)
            assert (options["order"] > 4 and "wanted an integer in 1..4" in said
                    or options["start"] == "prk" and "start is 'prk', wanted one of lower, rk4" in said
                    or grid.family is None and "names no family" in said
                    or grid.alpha[0] == 0 and kind in ("eps", "score") and isinstance(refusal, LimitError)
                    or grid.alpha[0] == 0 and "interpolated" in grid.family.rule and options["start"] != "lower"), said
            return
    assert len(states) == len(grid) and [state.step for state in states] == list(range(len(grid)))
    assert all(np.isfinite(state.x).all() for state in states)
