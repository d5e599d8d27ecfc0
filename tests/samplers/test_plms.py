"""PLMS against its paper's formulas written out, and the order that it has and has not. Mutants must die."""
import math

import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff import samplers
from refdiff.process import families, grids, schedules
from refdiff.process.exact import Mixture
from refdiff.process.grids import Grid
from refdiff.process.parameterization import LimitError, Prediction
from refdiff.rng import Key
from refdiff.samplers import orders
from refdiff.samplers.orders import Claim, observe

PLMS = mutant("samplers.plms")
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
SCHEDULE = schedules.linear(1000)
COEFFICIENTS = {1: [1.], 2: [1.5, -.5], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}


def eps(x, t, s):
    """The exact eps of a constant: a function of x and the level alone."""
    return (x - t.alpha * .3) / t.sigma + .1 * math.sin(t.lam)


def denoiser(x, level):
    return Prediction("eps", eps(x, level, None), x, level)


def phi(x, e, t, s):
    """The transfer as the paper writes it, in alpha_bar."""
    a_t, a_s = t.alpha ** 2, s.alpha ** 2
    root = math.sqrt(a_t) * (math.sqrt((1 - a_s) * a_t) + math.sqrt((1 - a_t) * a_s))
    return math.sqrt(a_s / a_t) * x - (a_s - a_t) / root * e


# ---- checks, of any implementation

def check_transfer(module):
    """[PNDM eq. 9] in its own cancelling form, at 50 digits, of a level to the next."""
    for a, b in ((1000, 900), (500, 499), (20, 1), (1, 0)):
        t, s = SCHEDULE.level(a), SCHEDULE.level(b)
        x, e = Key(1).normal((3, 1)), Key(2).normal((3, 1))
        with mp.workdps(50):
            a_t, a_s = (1 - mp.mpf(level.sigma) ** 2 for level in (t, s))
            over = x / (mp.sqrt(a_t) * (mp.sqrt(a_s) + mp.sqrt(a_t)))
            slope = e / (mp.sqrt(a_t) * (mp.sqrt((1 - a_s) * a_t) + mp.sqrt((1 - a_t) * a_s)))
            wanted = (x + (a_s - a_t) * (over - slope)).astype(np.float64)
        np.testing.assert_allclose(module.transfer(x, e, t, s), wanted, rtol=1e-11, atol=1e-12)


def check_multistep(module):
    for order in (1, 2, 3, 4):
        for start in ("prk", "lower"):
            grid, e = grids.at_times(SCHEDULE, range(960, -1, -120)), []
            x = Key(3).normal((3, 1))
            for i, state in enumerate(module.plms(denoiser, grid, x, order=order, start=start)):
                t, s = grid.level(i), grid.level(i + 1)
                e = [eps(x, t, None), *e][:order]
                if start == "lower" or len(e) == order:
                    e_prime = sum(c * e_m for c, e_m in zip(COEFFICIENTS[len(e)], e))
                else:
                    middle = SCHEDULE.level(int(t.t + s.t) // 2)
                    e2 = eps(phi(x, e[0], t, middle), middle, None)
                    e3 = eps(phi(x, e2, t, middle), middle, None)
                    e4 = eps(phi(x, e3, t, s), s, None)
                    e_prime = (e[0] + 2 * e2 + 2 * e3 + e4) / 6
                x = phi(x, e_prime, t, s)
                np.testing.assert_allclose(state.x, x, rtol=1e-10, err_msg=f"{order} {start} {i}")
                x = state.x


def check_dark(module):
    """From a level without signal the paper's start takes DDIM's step, alpha_s x0 + sigma_s eps, here with x = eps."""
    grid = grids.on(families.Flow(), [1., .8, .6, .4, .2, .1])
    x = Key(3).normal((3, 1))

    def denoiser(x, level):
        return Prediction("v", .2 * x + .1, x, level)              # at pure noise v = -x0
    states = list(module.plms(denoiser, grid, x))
    np.testing.assert_allclose(states[0].x, .2 * -(.2 * x + .1) + .8 * x, rtol=1e-13)
    assert np.isfinite(states[-1].x).all()


def check_order(module):
    for grid, order in (("karras", 4), ("circle", 4), ("karras", 2)):
        coarse, fine = observe(Claim("", module.plms, 2, {"order": order}), grid, (256, 512)).errors
        assert abs(math.log2(coarse / fine) - 2) < .1, (grid, order, coarse, fine)


def check_ending(module):
    grid, x = grids.karras(7, .05, 10., final=None), Key(1).normal((3, 1)) * 10
    kept, lowered, never = (list(module.plms(LINE, grid, x, order=3, lower_order_final=how))
                            for how in ("paper", "always", "never"))
    assert np.array_equal(kept[-1].x, never[-1].x)
    assert [np.array_equal(a.x, b.x) for a, b in zip(kept, lowered)] == [True] * 4 + [False] * 2


# ---- facts

def test_the_transfer_is_the_paper_s_at_50_digits():
    check_transfer(PLMS)


def test_steps_and_both_starts_are_the_paper_s_formulas_written_out():
    check_multistep(PLMS)


def test_order_two_on_smooth_grids():
    check_order(PLMS)


def test_the_order_is_kept_to_the_end_unless_asked():
    check_ending(PLMS)


def uniform(N):
    return grids.on(families.VarianceExploding(), np.linspace(10., .05, N + 1))


def alternating(N):
    """EDM's grid, but every second step twice as long in its variable sigma^(1/7)."""
    part = np.append(0, np.cumsum(np.tile([1., 2.], N // 2))) / (1.5 * N)
    return grids.on(families.VarianceExploding(), (10 ** (1 / 7) + part * (.05 ** (1 / 7) - 10 ** (1 / 7))) ** 7)


def test_where_sigma_over_alpha_is_uniform_it_is_linear_multistep():
    grid, x = uniform(20), Key(1).normal((3, 1)) * 10
    for order in (1, 2, 3, 4):
        plms, lms = (samplers.run(f(LINE, grid, x, order=order, start="rk4")) for f in (samplers.plms, samplers.lms))
        np.testing.assert_allclose(plms, lms, rtol=1e-10)


def test_order_four_where_sigma_over_alpha_is_uniform(monkeypatch):
    monkeypatch.setitem(orders.GRIDS, "uniform", uniform)
    coarse, fine = observe(Claim("", samplers.plms, 4, {"order": 4}), "uniform", (1024, 2048)).errors
    assert abs(math.log2(coarse / fine) - 4) < .15


def test_order_one_where_steps_alternate(monkeypatch):
    """Its coefficients hold for steps that change slowly: with lengths 1 : 2 it does worse than linear multistep."""
    monkeypatch.setitem(orders.GRIDS, "alternating", alternating)
    for order in (2, 4):
        coarse, fine = observe(Claim("", samplers.plms, 1, {"order": order}), "alternating", (128, 256)).errors
        assert abs(math.log2(coarse / fine) - 1) < .1
    lms = observe(Claim("", samplers.lms, 4, {"order": 4, "start": "rk4"}), "alternating", (128, 256)).errors
    assert coarse > 1000 * lms[0]


def test_four_evaluations_in_each_step_of_the_start():
    for start, calls in (("prk", 4 * 3 + 5), ("rk4", 4 * 3 + 5), ("lower", 8)):
        seen = []

        def counting(x, level):
            seen.append(level)
            return LINE(x, level)

        samplers.run(samplers.plms(counting, grids.discrete(SCHEDULE, 8), Key(1).normal((2, 1)), start=start))
        assert len(seen) == calls


BARE = Grid([3, 2, 1], [1., 1., 1.], [3., 2., 1.], "bare")


def test_levels_that_are_not_the_family_s_at_their_times_are_refused():
    wrong = Grid([3., 2., 1.], [1., 1., 1.], [4., 2., 1.], "wrong", families.VarianceExploding())
    with pytest.raises(ValueError, match="plms: the levels of grid wrong are not those of its family ve"):
        samplers.plms(None, wrong, np.ones((2, 1)))
    assert len(list(samplers.plms(LINE, wrong, np.ones((2, 1)), start="rk4"))) == 2


@pytest.mark.parametrize("options, message", [
    ({"order": 5}, "order is 5, wanted an integer in 1..4"), ({"start": "heun"}, "wanted one of prk, lower, rk4"),
    ({}, "start 'prk' evaluates between the grid's levels and grid bare names no family"),
    ({"start": "lower", "lower_order_final": 1}, "lower_order_final is 1")])
def test_impossible_options_are_refused_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        samplers.plms(None, BARE, np.ones((2, 1)), **options)


def test_a_level_without_signal_is_left_by_ddim_s_step():
    check_dark(PLMS)


# ---- planted mutants

MUTANTS = [
    *((check_multistep, old, new) for old, new in (
        ("(3 / 2, -1 / 2)", "(4 / 3, -1 / 3)"), ("23 / 12, -16 / 12", "22 / 12, -15 / 12"),
        ("-16 / 12, 5 / 12", "-17 / 12, 6 / 12"), ("55 / 24, -59 / 24", "54 / 24, -58 / 24"),
        ("-59 / 24, 37 / 24", "-60 / 24, 38 / 24"), ("37 / 24, -9 / 24", "36 / 24, -8 / 24"),
        ("(s.ratio - t.ratio) * c", "(s.sigma - t.sigma) * c"), ("(t.t + s.t) / 2", "(t.t + 2 * s.t) / 3"),
        ("transfer(x, e1, t, middle)", "transfer(x, e1, t, s)"),
        ("transfer(x, e2, t, middle)", "transfer(x, e1, t, middle)"),
        ("transfer(x, e3, t, s)", "transfer(x, e2, t, s)"), ("(e1 + 2 * e2 + 2 * e3 + e4)", "(e1 + 3 * e2 + e3 + e4)"),
        ("2 * e3 + e4) / 6", "2 * e3 + e4) / 6.01"), ("level, prediction.eps", "level, -prediction.eps"))),
    (check_dark, "t.alpha == 0", "t.alpha < 0"),
    (check_transfer, "first_order(Prediction(", "-first_order(Prediction("),
    (check_transfer, 'Prediction("eps", e,', 'Prediction("v", e,'),
    (check_order, "(3 / 2, -1 / 2)", "(4 / 3, -1 / 3)"),
    (check_order, "55 / 24, -59 / 24", "54 / 24, -58 / 24"),
    (check_ending, 'lower_order_final == "always"', 'lower_order_final == "paper"'),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    planted = mutant("samplers.plms", (old, new))            # outside: one that no longer applies is not a kill
    with pytest.raises((AssertionError, LimitError)):       # eps is refused where it is divided by alpha = 0
        check(planted)
