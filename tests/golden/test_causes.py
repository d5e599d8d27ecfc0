"""Every convention's other values are recognised in an answer that has them; what none explains is described."""
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

from refdiff import samplers
from refdiff.golden import audit as auditing
from refdiff.golden import causes, conventions
from refdiff.golden.case import digits
from refdiff.golden.reference.answer import OPERATIONS, answer
from refdiff.golden.store import load
from refdiff.process import grids, schedules
from refdiff.process.exact import Gaussian

ALL = [(c.name, value) for c in conventions.CONVENTIONS if set(c.operations) & set(OPERATIONS)
       for value in c.others if c.name != "table_dtype"]


@lru_cache
def cases():
    """Cases of scalar operations, without long trajectories, by operation."""
    made = {}
    for case in load():
        short = case.operation != "trajectory" or case.inputs["steps"] <= 20
        if case.verdict != "invalid" and case.operation in OPERATIONS and short:
            made.setdefault(case.operation, []).append(case)
    return made


def numbers(fields):
    return {name: np.array(value, dtype=np.float64) for name, value in fields.items()}


def that_differ(name, value, most=3):
    """(case, answer under the convention) where it changes the answer by far more than rounding."""
    found = 0
    for operation in conventions.BY_NAME[name].operations:
        for case in cases().get(operation, ()):
            try:
                with np.errstate(all="ignore"):
                    other = numbers(answer(operation, case.inputs, **{name: value}))
            except (ValueError, TypeError, IndexError):
                continue
            d = causes.agreement(other, case.expected)
            if d is not None and d < 6 and all(np.isfinite(v).all() for v in other.values()):
                yield case, other
                found += 1
                if found == most:
                    return


@pytest.mark.parametrize("name, value", ALL, ids=[f"{n}={v}" for n, v in ALL])
def test_an_answer_under_another_convention_is_explained_by_it(name, value):
    tried = list(that_differ(name, value))
    assert tried, "no case's answer changes with it"
    said = []
    for case, other in tried:
        cause = causes.explain(case.operation, case.inputs, other, (name,))
        assert cause is not None and cause.digits > 12, case.id
        said.append(cause.says)
    assert any(f"{name}={value}" in text for text in said), said


def step(**more):
    return {"sampler": "ddpm", "schedule": "linear", "T": 1000, "t": 500, "s": 400, "x": np.array([[0.3], [-1.1]]),
            "prediction": np.array([[0.4], [0.9]]), "noise": np.array([[1.2], [-0.6]]), **more}


def test_two_conventions_at_once_are_found():
    wrong = numbers(answer("step", step(), variance="large", clip="1"))
    cause = causes.explain("step", step(), wrong)
    assert cause.conventions == {"variance": "large", "clip": "1"} and cause.digits > 12


def test_an_explanation_that_changes_nothing_is_none():
    assert causes.explain("step", step(), {"x": np.array([[7.0], [8.0]])}) is None
    right = numbers(answer("step", step()))
    for off in (1e-11, 1e-7):
        assert causes.explain("step", step(), {"x": right["x"] * (1 + off)}) is None


def test_two_conventions_are_found_where_the_answer_is_as_near_as_float32_would_be():
    asked = {"theta": np.array([0.3, -1.1]), "grads": np.array([[0.4, 0.9]]), "eps": 1e-4, "weight_decay": 1e-6}
    wrong = numbers(answer("adamw", asked, adam_epsilon="inside", weight_decay="rate"))
    wrong = {"theta": wrong["theta"]}
    assert 5.5 < causes.agrees("adamw", asked, wrong) < 9
    assert causes.explain("adamw", asked, wrong).conventions == {"adam_epsilon": "inside", "weight_decay": "rate"}


def test_the_pairs_that_are_tried_are_counted_and_no_clock_is_read(monkeypatch):
    tried = []
    agrees = causes.agrees
    monkeypatch.setattr(causes, "agrees", lambda *given: tried.append(given[-1]) or agrees(*given))
    lost = {"x": np.array([[7.0], [8.0]])}
    for left, wanted in ((30, 10), (0, 0), (causes.ALL, None)):
        budget = causes.Budget(left)
        tried.clear()
        assert causes.explain("step", step(), lost, (), (), budget) is None
        pairs = sum(len(chosen) == 2 for chosen in tried)
        assert (pairs == wanted if wanted is not None else pairs > 100) and budget.left == left - 3 * pairs
    assert not hasattr(causes, "time") and not hasattr(auditing, "time")
    assert causes.Budget(100).pairs("trajectory", {"steps": 20}) == (5, 20)


def test_improved_euler_at_the_start_of_plms_is_that_of_compat_in_strides_too():
    for rule, steps, stepping, names in (("leading", 20, "visited", ("improved_euler_start",)),
                                         ("linspace", 7, "stride", ("stride_stepping",))):
        asked = trajectory(sampler="plms", rule=rule, steps=steps)
        got = numbers(answer("trajectory", asked, start="improved_euler", stepping=stepping))["x"]
        grid = grids.discrete(schedules.linear(1000), steps, rule)
        want = samplers.run(samplers.plms(Gaussian(0.5, 0.7 ** 2), grid, asked["x"], compat=names))
        np.testing.assert_allclose(got, want, rtol=1e-11)
        cause = causes.explain("trajectory", asked, {"x": want})
        assert cause.conventions == {"start": "improved_euler"} | \
            ({"stepping": stepping} if stepping == "stride" else {})


def test_another_question_is_recognised():
    assert "for variance=large" in causes._varied("step", step(variance="small"), numbers(
        answer("step", step(variance="large"))), 9, 1).says
    q = {"x0": np.ones(2), "eps": np.array([.5, 2.]), "alpha": 0.8, "sigma": 0.6}
    said = causes.explain("q_sample", q, {"": 0.6 * q["x0"] + 0.8 * q["eps"]}).says
    assert "with x0 and eps exchanged or with alpha and sigma exchanged" in said           # the same thing
    asked = {"name": "linear", "T": 100, "beta_start": 1e-3}
    assert "without beta_start" in causes.explain("schedule", asked, numbers(
        answer("schedule", {"name": "linear", "T": 100}))).says


def test_float32_tables_are_named_beside_what_departs_and_a_smaller_loss_is_not_called_so():
    asked, nobody = {"name": "linear", "T": 100}, SimpleNamespace()
    rough = numbers(answer("schedule", asked, table_dtype="float32"))
    said = causes.described(nobody, "schedule", asked, {"beta": rough["beta"]})
    assert said.startswith("entry 1 is 9.999999747e-05, wanted 0.0001; it agrees to 7.4 digits, as tables in float32")
    fine = numbers(answer("schedule", asked))
    said = causes.described(nobody, "schedule", asked, {"alpha_bar": fine["alpha_bar"] * (1 + 1e-11)})
    assert "digits are lost" in said and "float32" not in said
    said = causes.described(nobody, "schedule", asked, {"alpha_bar": fine["alpha_bar"] * (1 + 1e-8)})
    assert said == ("it is 1.00000001 times the answer; it agrees to 8.0 digits, as tables in float32 "
                    "do (7.2): table_dtype=float32")


def test_a_factor_a_shift_and_the_first_entry_are_described():
    q = {"x0": np.ones(3), "eps": np.array([.5, 2., 1.]), "alpha": 0.8, "sigma": 0.6}
    right = numbers(answer("q_sample", q))["x"]
    for wrong, says in ((right * 1.7, "it is 1.7 times the answer"), (right + 0.25, "it is the answer +0.25"),
                        (right * [1, 1.1, 1], "entry 1 is 2.2, wanted 2")):
        assert says in causes.departure(SimpleNamespace(), "q_sample", q, {"": wrong})


def test_the_field_that_departs_is_described_not_the_one_that_agrees():
    asked = {"x0": np.ones(2), "x_t": np.ones(2), "schedule": "linear", "T": 1000, "t": 500}
    right = numbers(answer("posterior", asked))
    said = causes.departure(SimpleNamespace(), "posterior", asked, right | {"variance": right["variance"] * 3})
    assert said.startswith("variance is 0.0") and "wanted 0.0" in said


def trajectory(**more):
    return {"sampler": "ddim", "schedule": "linear", "T": 1000, "rule": "trailing", "final": "zero", "steps": 5,
            "x": np.array([[0.3], [-1.1]]), "denoiser": {"world": "gaussian", "mean": 0.5, "std": 0.7}, **more}


def departs(asked=None, calls=(), operation="trajectory", **methods):
    adapter, fields = SimpleNamespace(**methods), {"x": np.zeros((2, 1))}
    return causes.departure(adapter, operation, asked or trajectory(), fields, calls)


def test_the_first_quantity_that_departs_is_the_schedule_then_the_grid_then_a_coefficient():
    def schedule(name, T):
        made = numbers(answer("schedule", {"name": name, "T": T}))["alpha_bar"]
        made[7:] *= 1.001
        return {"alpha_bar": made}

    def grid(**inputs):
        made = numbers(answer("grid", inputs))
        made["t"][2] += 1
        return made

    def move(**inputs):
        made = numbers(answer("step", inputs))["x"]
        return made + 0.1 * np.asarray(inputs["prediction"])

    assert "the schedule departs first: alpha_bar at t 7 is" in departs(schedule=schedule, grid=grid, step=move)
    assert "the grid departs first: t at level 2 is 601, wanted 600" in departs(grid=grid, step=move)
    said = departs(step=move)
    assert said.startswith("step 0: the coefficient of prediction is")
    said = departs(step(), operation="step", step=lambda **inputs: numbers(answer("step", inputs))["x"]
                   + 0.01 * np.asarray(inputs["noise"]))
    assert said.startswith("the coefficient of noise is 0."), said


def test_the_first_state_that_departs_is_read_off_the_networks_calls():
    states = answer("trajectory", trajectory(states=True))["states"]
    x = [np.array(v, dtype=np.float64) for v in (trajectory()["x"], *states)]
    calls = [(t, v) for t, v in zip((1000, 800, 600, 400, 200), x)]
    assert "departs first in the last step, 4" in departs(calls=calls)
    calls[3] = (400, x[3] * 1.01)
    assert "x at call 3 of the network (t = 400), made by step 2" in departs(calls=calls)
    calls[1] = (799, x[1])
    assert "told t = 799 at step 1, wanted 800" in departs(calls=calls)


def test_agreement_is_the_least_over_the_fields_and_takes_the_last_state():
    wanted = {"a": np.ones(2), "b": 2.0}
    assert causes.agreement({"b": np.array(2.0)}, wanted) == 17.0
    assert causes.agreement({"a": np.ones(2), "b": np.array(2 + 2e-5)}, wanted) == pytest.approx(5, abs=1e-6)
    assert causes.agreement({"c": np.ones(1)}, wanted) is None and causes.agreement({}, wanted) is None
    assert causes.agreement({"": np.ones((3, 2))}, {"x": np.ones(2)}) == 17.0
    assert causes.agreement({"": np.ones(2)}, {"states": np.stack([np.zeros(2), np.ones(2)])}) == 17.0
    assert digits(1.0, 2.0) < 1


def test_an_answer_that_is_not_finite_is_explained_by_no_convention():
    case = next(c for c in load("sampler/ddim/*") if c.verdict == "valid")
    name = next(iter(case.expected))
    nan = np.full(np.shape(case.expected[name]), np.nan)
    assert causes.explain(case.operation, case.inputs, {name: nan}) is None
