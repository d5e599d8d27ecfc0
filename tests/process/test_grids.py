"""Grids: the times the rules give, and every number of steps without a repeated or missing one."""
from fractions import Fraction
from math import floor

import mpmath as mp
import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import grids, schedules
from refdiff.process.level import Level

TEN = {"leading": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0],
       "trailing": [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0],
       "linspace": [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0],
       "stride": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0],
       "quadratic": [801, 633, 484, 356, 247, 159, 89, 40, 10, 1, 0]}


@pytest.mark.parametrize("rule", TEN)
def test_ten_steps_of_a_thousand(rule):
    s = schedules.linear(1000)
    grid = grids.discrete(s, 10, rule)
    assert grid.t.tolist() == TEN[rule] and len(grid) == 10
    assert grid.alpha.tolist() == s.alpha[grid.t].tolist() and grid.sigma.tolist() == s.sigma[grid.t].tolist()
    assert rule in grid.rule and s.rule in grid.rule


@pytest.mark.parametrize("rule, times", [("leading", [858, 715, 572, 429, 286, 143, 1, 0]),
                                         ("trailing", [1000, 857, 714, 571, 429, 286, 143, 0]),
                                         ("linspace", [1000, 833, 667, 501, 334, 167, 1, 0]),
                                         ("stride", [853, 711, 569, 427, 285, 143, 1, 0])])
def test_seven_steps_of_a_thousand_spread_evenly(rule, times):
    assert grids.discrete(schedules.linear(1000), 7, rule).t.tolist() == times


def exact_times(rule, T, S, rounding):
    """The rule's times in fractions, ascending: no float, no table of the code."""
    def rounded(x):
        below = floor(x)
        if rounding == "floor" or x - below < Fraction(1, 2):
            return below
        if x - below == Fraction(1, 2) and rounding == "even":
            return below + below % 2
        return below + 1

    if rule == "leading":
        return [1 + rounded(Fraction(k * T, S)) for k in range(S)]
    if rule == "stride":
        return [1 + k * (T // S) for k in range(S)]
    if rule == "trailing":
        return [rounded(Fraction(k * T, S)) for k in range(1, S + 1)]
    if rule == "linspace":
        return [1 + rounded(Fraction(k * (T - 1), S - 1)) for k in range(S)] if S > 1 else [T]
    return [1 + rounded(Fraction(4 * T * k * k, 5 * (S - 1) ** 2)) for k in range(S)] if S > 1 else (
        [1 + rounded(Fraction(4 * T, 5))])


OWN = {"leading": "floor", "stride": None, "trailing": "even", "linspace": "even", "quadratic": "floor"}
CHEAP = {"linear": schedules.linear, "cosine": schedules.cosine, "sigmoid": schedules.sigmoid,
         "zero terminal": lambda T: schedules.zero_terminal_snr(schedules.linear(T))}


def check_any_grid(module, T, S, rule, rounding, final, schedule="linear"):
    """Exactly S steps through the rule's times and the final one, or a refusal by name for a stated reason."""
    made = CHEAP[schedule](T)
    wanted = exact_times(rule, T, S + (final in (None, "none")), rounding or OWN[rule])[::-1]
    last = {"zero": 0, "first": 1, "none": None}.get(final, final)
    wanted += [] if last is None else [last]
    reasons = [S + (last is None) > T, rule == "stride" and rounding is not None, max(wanted) > T, last == T + 1,
               any(b >= a for a, b in zip(wanted, wanted[1:]))]
    if any(reasons):
        try:
            made = module.discrete(made, S, rule, final, rounding)
        except ValueError as refusal:
            assert f"grid {rule}" in str(refusal) or "level of" in str(refusal)
            return
        raise AssertionError(f"{made.rule} was not refused")          # pytest.raises would end a mutant's check too
    grid = module.discrete(made, S, rule, final, rounding)
    assert len(grid) == S and grid.t.tolist() == wanted, (rule, T, S, rounding, final)
    assert np.array_equal(grid.alpha, made.alpha[wanted]) and np.array_equal(grid.sigma, made.sigma[wanted])


@given(st.integers(2, 120), st.data(), st.sampled_from(sorted(OWN)),
       st.sampled_from([None, "even", "floor", "up"]), st.sampled_from([0, 1, None, "zero", "first", "none", 2]),
       st.sampled_from(sorted(CHEAP)))
def test_any_number_of_steps_visits_that_many_distinct_times(T, data, rule, rounding, final, schedule):
    check_any_grid(grids, T, data.draw(st.integers(1, T)), rule, rounding, final, schedule)


def check_all_small_grids(module):
    for T in (1, 2, 3, 7, 10, 24):
        for S in range(1, T + 1):
            for rule in OWN:
                for rounding in (None, "even", "floor", "up"):
                    for final in (0, 1, "none"):
                        check_any_grid(module, T, S, rule, rounding, final)


def test_all_small_grids_are_their_rules():
    check_all_small_grids(grids)


def test_every_step_of_a_schedule_is_any_rule_with_T_steps():
    s = schedules.linear(37)
    for rule in set(OWN) - {"quadratic"}:
        assert grids.discrete(s, 37, rule).t.tolist() == list(range(37, -1, -1)) == grids.every(s).t.tolist()


@pytest.mark.parametrize("rule, options, from_zero", [          # as public code counts, t = 0 being one step of noise
    ("stride", {}, list(range(0, 1000, 100))),                  # an integer stride
    ("linspace", {}, [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]),       # a fractional stride, halves to even
    ("quadratic", {}, [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]),          # int() of (linspace(0, sqrt(.8 T)))^2
    ("trailing", {"rounding": "floor"}, [int(x) for x in np.linspace(-1, 999, 11)][1:]),
    ("trailing", {}, [99, 199, 299, 399, 499, 599, 699, 799, 899, 999])])
def test_the_ten_step_grids_of_public_code_have_names(rule, options, from_zero):
    grid = grids.discrete(schedules.linear(1000), 10, rule, **options)
    assert (grid.t[:-1][::-1] - 1).tolist() == from_zero


def test_roundings_differ_where_they_should():
    s = schedules.linear(10)
    times = {name: grids.discrete(s, 4, "trailing", rounding=name).t.tolist() for name in grids.ROUNDINGS}
    assert times == {"even": [10, 8, 5, 2, 0], "floor": [10, 7, 5, 2, 0], "up": [10, 8, 5, 3, 0]}


def test_the_first_time_of_leading_still_has_signal():
    """S = 10, 20, 50 begin at 900, 950, 980 counted from 0; the quadratic rule at 800, where abar = .0015."""
    s = schedules.linear(1000)
    assert [grids.discrete(s, S, "leading").t[0] - 1 for S in (10, 20, 50)] == [900, 950, 980]
    assert f"{grids.discrete(s, 10, 'quadratic').alpha[0] ** 2:.4f}" == "0.0015"


def test_one_step_starts_where_the_rule_says():
    s = schedules.linear(1000)
    assert [grids.discrete(s, 1, rule).t[0] for rule in ("leading", "trailing", "linspace")] == [1, 1000, 1000]


def test_final_level_is_explicit():
    s = schedules.scaled_linear(1000)
    assert grids.discrete(s, 4, final=0).level(4) == Level(0, 1.0, 0.0)
    assert grids.discrete(s, 4, final=1).level(4) == s.level(1)
    with pytest.raises(ValueError, match="t = 1 follows t = 1"):
        grids.discrete(s, 4, "leading", final=1)
    assert grids.discrete(s, 4, final="zero").t.tolist() == [1000, 750, 500, 250, 0]
    assert grids.discrete(s, 4, final="first").t.tolist() == [1000, 750, 500, 250, 1]
    assert grids.discrete(s, 4, final="none").t.tolist() == [1000, 800, 600, 400, 200]


def test_level_is_python_numbers():
    grid = grids.discrete(schedules.linear(10), 3)
    assert [type(v) for v in (grid.level(0).t, grid.level(0).alpha, grid.level(0).sigma)] == [int, float, float]
    for i in (-1, 4):
        with pytest.raises(IndexError, match=r"wanted 0\.\.3"):
            grid.level(i)


@pytest.mark.parametrize("n, low, high, rho", [(18, .002, 80., 7.), (2, .02, 20., 7.), (5, .1, 3., 1.),
                                                (40, .002, 80., 3.)])
def test_karras_equals_50_digits(n, low, high, rho):
    grid = grids.karras(n, low, high, rho)
    with mp.workdps(50):
        a, b = mp.mpf(high) ** (1 / mp.mpf(rho)), mp.mpf(low) ** (1 / mp.mpf(rho))
        exact = [float((a + mp.mpf(i) / (n - 1) * (b - a)) ** mp.mpf(rho)) for i in range(n)] + [0.0]
    # the base, a sum of magnitude a, is raised to rho: relative error a few rho a/b u
    np.testing.assert_allclose(grid.sigma, exact, rtol=4 * rho * (high / low) ** (1 / rho) * 2 ** -53)
    assert (grid.sigma[0], grid.sigma[-2], grid.sigma[-1]) == (high, low, 0) and np.all(grid.alpha == 1)
    assert len(grid) == n and grid.t.tolist() == grid.sigma.tolist()


def check_polyexponential(module=grids):
    for n, low, high, rho in ((18, .002, 80., 1.), (5, .1, 3., 2.), (9, .02, 20., .5)):
        grid = module.polyexponential(n, low, high, rho)
        with mp.workdps(50):
            top, bottom = mp.log(mp.mpf(high)), mp.log(mp.mpf(low))
            w = [1 - mp.mpf(i) / (n - 1) for i in range(n)]
            exact = [float(mp.exp(bottom + x ** mp.mpf(rho) * (top - bottom))) for x in w]
        np.testing.assert_allclose(grid.sigma[:-1], exact, rtol=64 * 2 ** -53)       # log(high/low) < 11, a few u of it
        assert len(grid) == n and grid.sigma[-1] == 0


def test_polyexponential_equals_50_digits():
    check_polyexponential()


def test_the_exponential_grid_is_uniform_in_log_snr():
    grid = grids.exponential(12, .01, 40., final="sigma_min")
    np.testing.assert_allclose(np.diff(np.log(grid.sigma)), np.log(.01 / 40) / 11, rtol=1e-12)
    assert len(grid) == 11 and grid.sigma[-1] == .01 and grid.family.at(0.).sigma == 1
    assert grids.exponential(4, final="zero").sigma.tolist() == grids.polyexponential(4).sigma.tolist()


def test_karras_ends():
    assert grids.karras(1).sigma.tolist() == [80, 0]
    assert grids.karras(3, final=None).sigma[-1] == .002 and len(grids.karras(3, final=None)) == 2
    assert grids.karras(3, final=.001).sigma[-1] == .001


@pytest.mark.parametrize("make, message", [
    (lambda s: grids.discrete(s, 0), "steps is 0"), (lambda s: grids.discrete(s, 11), "steps is 11"),
    (lambda s: grids.discrete(s, 2.0), "steps is 2.0"), (lambda s: grids.discrete(s, 2, "middle"), "rule is 'middle'"),
    (lambda s: grids.discrete(s, 10, final=-1), "t runs from -1"), (lambda s: grids.at_times(s, [3, 3, 0]), "strictly"),
    (lambda s: grids.at_times(s, [3]), "S >= 1"), (lambda s: grids.at_times(s, [11, 0]), "t runs from 0 to 11"),
    (lambda s: grids.karras(0), "n is 0"), (lambda s: grids.karras(4, 80, .002), "sigma_min < sigma_max"),
    (lambda s: grids.karras(4, final=.002), "SNR does not grow"), (lambda s: grids.karras(1, final=None), "S >= 1"),
    (lambda s: grids.karras(4, final=-1.), ">= 0"), (lambda s: grids.karras(4, rho=0), "rho > 0"),
    (lambda s: grids.discrete(s, 2, "stride", rounding="floor"), "rounding is 'floor', wanted None"),
    (lambda s: grids.discrete(s, 2, rounding="down"), "rounding is 'down'"),
    (lambda s: grids.discrete(s, 2, final="last"), "final is 'last'"),
    (lambda s: grids.discrete(s, 10, final=None), r"steps is 10, wanted an integer in 1\.\.9"),
    (lambda s: grids.discrete(s, 10, "quadratic"), "quadratic.*visit a time twice"),
    (lambda s: grids.karras(4, final="none"), "final is 'none'"), (lambda s: grids.karras(4, rho=np.inf), "finite"),
    (lambda s: grids.exponential(4, 1., 1.), "sigma_min < sigma_max"),
    (lambda s: grids.polyexponential(4, rho=-1.), "rho > 0"),
    (lambda s: grids.Grid([2., 1.], [1., 1.], [1., 1.], "flat"), "SNR does not grow"),
    (lambda s: grids.Grid([2., 1.], [1., 1.], [1.], "short"), "shapes")])
def test_impossible_grids_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match="(?s)(grid|level).*" + message):
        make(schedules.linear(10))


# ---- planted mutants

MUTANTS = [(check_all_small_grids, "1 + to_integer(np.arange(S) * T / S)", "to_integer(np.arange(S) * T / S)"),
           (check_all_small_grids, "1.0 + np.arange(S) * (T // S)", "1.0 + np.arange(S) * (T // (S + 1))"),
           (check_all_small_grids, "to_integer(np.arange(1, S + 1) * T / S)", "to_integer(np.arange(S) * T / S)"),
           (check_all_small_grids, "* (T - 1) / (S - 1)) if S", "* T / (S - 1)) if S"),
           (check_all_small_grids, "0.8 * T * np.arange(S) ** 2", "T * np.arange(S) ** 2"),
           (check_all_small_grids, "np.array([0.8 * T])", "np.array([0.0])"),
           (check_all_small_grids, '"trailing": (_trailing, "even")', '"trailing": (_trailing, "up")'),
           (check_all_small_grids, "np.floor(x + 0.5)", "np.ceil(x)"),
           (check_all_small_grids, '"first": 1, "none": None', '"first": 1, "none": 0'),
           (check_all_small_grids, "int(steps) + (final is None)", "int(steps)"),
           (check_polyexponential, "np.arange(n) / max(n - 1, 1)) ** rho", "np.arange(n) / max(n - 1, 1))"),
           (check_polyexponential, "np.exp(w * np.log(sigma_max / sigma_min))", "np.exp(w * np.log(sigma_max))")]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises((AssertionError, ValueError)):
        check(planted.mutant("process.grids", (old, new)))
