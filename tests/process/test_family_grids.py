"""Grids of families: uniform in lambda or in time, shifted flows, and one family's grid at another's levels."""
import math

import mpmath as mp
import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import families, family_grids, grids, schedules
from refdiff.process.level import Level

LINEAR = families.Interpolated(schedules.linear(1000))
# name: (family, an early end, a start with some signal)
FAMILIES = {"ve": (families.VarianceExploding(), .01, 80.), "geometric": (families.Geometric(), 1e-3, None),
            "vp": (families.VP(), 1e-3, None), "subvp": (families.SubVP(), 1e-3, .9),
            "flow": (families.Flow(), .01, .99), "shifted": (families.Flow(3., 1.2), .01, .99),
            "trigflow": (families.TrigFlow(), .05, 1.5), "cosine": (families.Cosine(), .02, .98),
            "laplace": (families.Laplace(), .01, .99), "linear": (LINEAR, 1., None)}


def check_uniform_lambda(module=family_grids):
    for family, end, start in FAMILIES.values():
        for S, final in ((1, None), (2, None), (9, None), (9, "zero"), (2, "zero")):
            grid = module.uniform_lambda(family, S, end, start, final)
            n = S + (final is None)
            lam = [grid.level(i).lam for i in range(n)]
            a, b = family.lam(family.t_max if start is None else start), family.lam(end)
            wanted = [a + (b - a) * i / (n - 1) for i in range(n)]
            np.testing.assert_allclose(lam, wanted, rtol=0, atol=1e-13 * (1 + abs(a) + abs(b)))
            assert len(grid) == S and grid.level(0) == family.level(family.t_max if start is None else start)
            assert grid.family is family and (grid.sigma[-1] == 0) == (final == "zero")


def test_uniform_lambda_has_equal_steps_between_the_ends():
    check_uniform_lambda()


def test_vp_times_uniform_in_lambda_equal_50_digits():
    """The inverse of lambda in the solver's paper, 2 log(e^-2lam + 1)/(sqrt(b0^2 + 2 (b1 - b0) log(..)) + b0)."""
    grid = family_grids.uniform_lambda(families.VP(), 20, 1e-3)
    with mp.workdps(50):
        def lam(t):
            B = mp.mpf(.1) * t + (20 - mp.mpf(.1)) * t ** 2 / 2
            return -mp.log(mp.expm1(B)) / 2

        def time(x):
            L = mp.log(mp.exp(-2 * x) + 1)
            return 2 * L / (mp.sqrt(mp.mpf(.1) ** 2 + 2 * (20 - mp.mpf(.1)) * L) + mp.mpf(.1))

        a, b = lam(mp.mpf(1)), lam(mp.mpf(1e-3))
        exact = [float(time(a + (b - a) * i / 20)) for i in range(21)]
    np.testing.assert_allclose(grid.t, exact, rtol=1e-13)


def check_uniform_time(module=family_grids):
    for family, end, start in FAMILIES.values():
        for S, power, final in ((1, 1., None), (8, 1., None), (8, 2., None), (8, 7., "zero"), (1, 3., "zero")):
            grid = module.uniform_time(family, S, end, start, power, final)
            n, top = S + (final is None), family.t_max if start is None else start
            with mp.workdps(30):
                a, b = mp.mpf(top) ** (1 / mp.mpf(power)), mp.mpf(end) ** (1 / mp.mpf(power))
                t = [float((a + (b - a) * i / max(n - 1, 1)) ** mp.mpf(power)) for i in range(n)]
            np.testing.assert_allclose(grid.t, t + [0.] * (final == "zero"), rtol=1e-12)
            levels = family.level(grid.t[:n])
            np.testing.assert_allclose([grid.alpha[:n], grid.sigma[:n]], [levels.alpha, levels.sigma], rtol=1e-13)
            assert len(grid) == S


def test_uniform_time_has_equal_steps_of_a_root_of_t():
    check_uniform_time()


def test_karras_is_uniform_time_of_edms_family():
    a, b = grids.karras(18, final=None), family_grids.uniform_time(families.EDM(), 17, .002, 80., 7.)
    np.testing.assert_allclose(b.sigma, a.sigma, rtol=1e-13)


def check_shifted(module=family_grids):
    """SD3's t' = s t/(1 + (s - 1) t) at equal t; alpha = 1 - sigma and the network's time is sigma."""
    for s in (.5, 1., 3.):
        t = np.linspace(1, 0, 6)
        grid = module.shifted_flow(5, s)
        np.testing.assert_allclose(grid.sigma, s * t / (1 + (s - 1) * t), rtol=1e-14)
        assert np.array_equal(grid.t, grid.sigma) and np.array_equal(grid.alpha, 1 - grid.sigma)
    moved = module.shifted_flow(7, 2., 1.5)
    u = np.linspace(1, 0, 8)[1:-1]
    np.testing.assert_allclose(np.log(moved.alpha[1:-1] / moved.sigma[1:-1]), 1.5 * np.log((1 - u) / u) - math.log(2),
                               rtol=1e-12, atol=1e-13)
    assert moved.level(0) == Level(1., 0., 1.) and moved.level(7) == Level(0., 1., 0.)


def test_a_shifted_flow_tells_the_network_its_sigma():
    check_shifted()


def test_edms_grid_for_a_vp_network():
    """Every level keeps its SNR, also through the clean end, and the way back is the identity."""
    karras = grids.karras(18, .002, 80.)
    for name in ("flow", "trigflow", "cosine", "subvp", "vp"):
        family = families.FAMILIES[name]()
        there = family_grids.onto(karras, family)
        np.testing.assert_allclose(there.sigma[:-1] / there.alpha[:-1], karras.sigma[:-1], rtol=1e-14)
        assert there.level(18) == Level(0., 1., 0.) and there.family is family
        np.testing.assert_allclose(family.level(there.t).alpha, there.alpha, rtol=1e-9)
        back = family_grids.onto(there, families.EDM())
        np.testing.assert_allclose(back.sigma, karras.sigma, rtol=1e-13)
    with pytest.raises(ValueError, match="vp.*lambda is"):
        family_grids.onto(grids.karras(5, .002, 200.), families.VP())      # more noise than VP ends with


def test_the_schedules_own_levels_map_onto_themselves():
    grid = grids.discrete(schedules.linear(1000), 12)
    again = family_grids.onto(grid, LINEAR)
    np.testing.assert_allclose(again.t, grid.t, rtol=1e-11)
    np.testing.assert_allclose(again.alpha, grid.alpha, rtol=1e-13)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 60), st.sampled_from(["lambda", "time"]),
       st.floats(.2, 8), st.sampled_from([None, "zero"]))
def test_any_grid_of_a_family_has_its_steps_and_strictly_less_noise(name, S, rule, power, final):
    family, end, start = FAMILIES[name]
    grid = (family_grids.uniform_lambda(family, S, end, start, final) if rule == "lambda" else
            family_grids.uniform_time(family, S, end, start, power, final))
    assert len(grid) == S and np.all(np.diff(grid.t) < 0) and np.all(np.isfinite(grid.alpha + grid.sigma))
    assert np.all(np.diff(np.arctan2(grid.sigma, grid.alpha)) < 0)


@pytest.mark.parametrize("make, message", [
    (lambda: family_grids.uniform_lambda(families.VP(), 0, .1), "steps is 0"),
    (lambda: family_grids.uniform_lambda(families.VP(), 4, 0.), "lambda is -5.* and inf"),
    (lambda: family_grids.uniform_lambda(families.Flow(), 4, .1), "lambda is -inf at t = 1"),
    (lambda: family_grids.uniform_lambda(families.VP(), 4, .5, .4), "goes from t = 0.4 to 0.5"),
    (lambda: family_grids.uniform_lambda(families.EDM(), 4, .5), "start finite"),
    (lambda: family_grids.uniform_lambda(families.VP(), 4, .1, final="first"), "final is 'first'"),
    (lambda: family_grids.uniform_time(families.VP(), 4, -.1), "to -0.1"),
    (lambda: family_grids.uniform_time(families.VP(), True, .1), "steps is True"),
    (lambda: family_grids.uniform_time(families.VP(), 4, .1, power=0.), "power > 0"),
    (lambda: family_grids.uniform_time(families.VP(), 4, 0., final="zero"), "visits t = 0 before its final level"),
    (lambda: family_grids.uniform_lambda(families.Geometric(from_clean=False), 4, .1, final="zero"), "lambda is inf"),
    (lambda: family_grids.shifted_flow(0), "steps is 0"), (lambda: family_grids.shifted_flow(4, 0.), "shift is 0")])
def test_impossible_grids_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match="(?s)" + message):
        make()


MUTANTS = [(check_uniform_lambda, "a + x * (b - a)", "a + x * b"),
           (check_uniform_lambda, "int(steps) + (final", "int(steps) + 0 * (final"),
           (check_uniform_lambda, "[family.level(end)]", "[family.level(end / 2 + start / 2)]"),
           (check_uniform_lambda, "[family.level(start)]", "[family.level(start / 2 + end / 2)]"),
           (check_uniform_time, "+ w * (end ** (1 / power)", "+ w * (end"),
           (check_uniform_time, "start ** (1 / power))) ** power", "start ** (1 / power)))"),
           (check_uniform_time, "n = int(steps) + (final is None)", "n = int(steps) + 1"),
           (check_shifted, "moved = Flow(shift, power)", "moved = Flow(shift)"),
           (check_shifted, "moved = Flow(shift, power)", "moved = Flow(1.0, power)")]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises((AssertionError, ValueError)):
        check(planted.mutant("process.family_grids", (old, new)))
