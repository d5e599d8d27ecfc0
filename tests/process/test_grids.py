"""Grids: the times the rules give, and every number of steps without a repeated or missing one."""
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import grids, schedules
from refdiff.process.level import Level

TEN = {"leading": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0],
       "trailing": [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0],
       "linspace": [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0]}


@pytest.mark.parametrize("rule", TEN)
def test_ten_steps_of_a_thousand(rule):
    s = schedules.linear(1000)
    grid = grids.discrete(s, 10, rule)
    assert grid.t.tolist() == TEN[rule] and len(grid) == 10
    assert grid.alpha.tolist() == s.alpha[grid.t].tolist() and grid.sigma.tolist() == s.sigma[grid.t].tolist()
    assert rule in grid.rule and s.rule in grid.rule


@pytest.mark.parametrize("rule, times", [("leading", [858, 715, 572, 429, 286, 143, 1, 0]),
                                         ("trailing", [1000, 857, 714, 571, 429, 286, 143, 0]),
                                         ("linspace", [1000, 833, 667, 501, 334, 167, 1, 0])])
def test_seven_steps_of_a_thousand_spread_evenly(rule, times):
    assert grids.discrete(schedules.linear(1000), 7, rule).t.tolist() == times


@given(st.integers(1, 400), st.data(), st.sampled_from(sorted(grids.RULES)))
def test_any_number_of_steps_visits_that_many_distinct_times(T, data, rule):
    S = data.draw(st.integers(1, T))
    t = grids.discrete(schedules.linear(T), S, rule).t
    assert len(t) == S + 1 and np.all(np.diff(t) < 0) and t[-1] == 0 and t[0] <= T
    if rule != "leading":
        assert t[0] == T
    if rule != "trailing" and S > 1:
        assert t[-2] == 1
    if S == T:
        assert t.tolist() == list(range(T, -1, -1)) == grids.every(schedules.linear(T)).t.tolist()


def test_one_step_starts_where_the_rule_says():
    s = schedules.linear(1000)
    assert [grids.discrete(s, 1, rule).t[0] for rule in ("leading", "trailing", "linspace")] == [1, 1000, 1000]


def test_final_level_is_explicit():
    s = schedules.scaled_linear(1000)
    assert grids.discrete(s, 4, final=0).level(4) == Level(0, 1.0, 0.0)
    assert grids.discrete(s, 4, final=1).level(4) == s.level(1)
    with pytest.raises(ValueError, match="t = 1 follows t = 1"):
        grids.discrete(s, 4, "leading", final=1)


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
    (lambda s: grids.Grid([2., 1.], [1., 1.], [1., 1.], "flat"), "SNR does not grow"),
    (lambda s: grids.Grid([2., 1.], [1., 1.], [1.], "short"), "shapes")])
def test_impossible_grids_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match="(?s)(grid|level).*" + message):
        make(schedules.linear(10))
