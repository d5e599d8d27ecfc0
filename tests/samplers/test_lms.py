"""Linear multistep against 50 digits and the classical coefficients. Mutants must die."""
import math

import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff import samplers
from refdiff.process import families, grids
from refdiff.process.exact import Mixture
from refdiff.process.grids import Grid
from refdiff.process.level import ve
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers.orders import Claim, observe

LMS = mutant("samplers.lms")
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
CLASSICAL = {2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}


def with_multistep(name, *rewrites):
    """The mutant of a solver whose shared functions are those of a mutant of multistep.py."""
    shared, made = mutant("samplers.multistep", *rewrites), mutant(f"samplers.{name}")
    for key in vars(made).keys() & vars(shared).keys():
        if callable(getattr(shared, key)) or key == "STARTS":
            setattr(made, key, getattr(shared, key))
    return made


# ---- checks, of any implementation

def check_weights(module):
    """The w_m are the integrals of Lagrange's polynomials, at 50 digits, on a grid of no pattern."""
    sigmas = np.array([9., 7.4, 4.1, 3.9, 2.2, .7, .6, 0.])
    with mp.workdps(50):
        for i in range(1, 7):
            for k in range(2, min(i, 3) + 2):
                x = [mp.mpf(sigma) for sigma in sigmas[i::-1][:k]]
                wanted = [float(mp.quad(lambda u: mp.fprod((u - x[m]) / (x[j] - x[m]) for m in range(k) if m != j),
                                        [x[0], mp.mpf(sigmas[i + 1])])) for j in range(1, k)]
                earlier = [ve(sigma) for sigma in sigmas[:i][::-1][:k - 1]]
                got = module.weights(ve(sigmas[i]), ve(sigmas[i + 1]), earlier)
                np.testing.assert_allclose(got, wanted, rtol=1e-13)


def check_polynomials(module):
    """A full step is exact for an eps that is a polynomial of degree k - 1 in sigma/alpha, in any family."""
    for grid in (grids.karras(9, .05, 3.), grids.on(families.Flow(), [.8, .6, .55, .3, .28, .1, 0.])):
        for k in (1, 2, 3, 4):
            p = np.polynomial.Polynomial(Key(k).normal((k,)))

            def denoiser(x, level):
                return Prediction("eps", 0 * x + float(p(level.ratio)), x, level)

            states = list(module.lms(denoiser, grid, Key(2).normal((3, 1)), order=k))
            for a, b in zip(states[k - 1:-1], states[k:]):
                P = p.integ()
                wanted = b.level.alpha * (a.x / a.level.alpha + float(P(b.level.ratio) - P(a.level.ratio)))
                np.testing.assert_allclose(b.x, wanted, rtol=1e-12, atol=1e-12)


def check_classical(module):
    """On levels evenly apart in sigma the coefficients are the textbook's, and the orders rise one by one."""
    grid = grids.on(families.VarianceExploding(), np.linspace(8, 1, 8))
    for k in (2, 3, 4):
        x, e = Key(1).normal((3, 1)) * 8, []
        for i, state in enumerate(module.lms(LINE, grid, x, order=k)):
            e = [LINE(x, grid.level(i)).eps, *e][:k]
            x = x - sum(c * e_m for c, e_m in zip(CLASSICAL.get(len(e), [1.]), e))
            np.testing.assert_allclose(state.x, x, rtol=1e-12)
            x = state.x


def check_ending(module):
    """lower_order_final="always": the last step is Euler's, the one before of order 2."""
    grid, x = grids.karras(7, .05, 10., final=None), Key(1).normal((3, 1)) * 10
    kept, lowered = (list(module.lms(LINE, grid, x, order=3, lower_order_final=how)) for how in ("paper", "always"))
    assert [np.array_equal(a.x, b.x) for a, b in zip(kept, lowered)] == [True] * 4 + [False] * 2
    before, after = lowered[-2:]
    slope = LINE(before.x, before.level).eps
    np.testing.assert_allclose(after.x, before.x + (after.level.sigma - before.level.sigma) * slope, rtol=1e-12)


def check_order(module):
    for grid, k, counts in (("karras", 3, (128, 256)), ("circle", 3, (512, 1024)), ("karras", 4, (128, 256))):
        coarse, fine = observe(Claim("", module.lms, 0, {"order": k, "start": "rk4"}), grid, counts).errors
        assert abs(math.log2(coarse / fine) - k) < .12, (grid, k, coarse, fine)


def check_runge_kutta(module):
    """One step of the start has a local error of order 5 in another family than the circle, and there is as written."""
    errors = []
    for h in (.1, .05, .025):
        grid = grids.on(families.Flow(), [.7, .7 - h, .1])
        x = np.linspace(-1, 1, 5)[:, None]
        state = next(iter(module.lms(LINE, grid, x, order=2, start="rk4")))
        errors.append(np.abs(state.x - LINE.quantile_map(x, grid.level(0), grid.level(1))).max())
    slopes = np.diff(-np.log2(errors))
    assert abs(slopes[1] - 5) < .4, (slopes, errors)

    def v(x, angle):
        prediction = LINE(x, families.TrigFlow().level(angle))
        return math.cos(angle) * prediction.eps - math.sin(angle) * prediction.x0

    k1 = v(x, 1.)
    k2 = v(x - .15 * k1, .85)
    k3 = v(x - .15 * k2, .85)
    k4 = v(x - .3 * k3, .7)
    state = next(iter(module.lms(LINE, grids.on(families.TrigFlow(), [1., .7, .1]), x, order=2, start="rk4")))
    np.testing.assert_allclose(state.x, x - .05 * (k1 + 2 * k2 + 2 * k3 + k4), rtol=1e-12)


# ---- facts

def test_coefficients_are_the_integrals_of_lagrange_s_polynomials_at_50_digits():
    check_weights(LMS)


def test_a_step_integrates_a_polynomial_in_sigma_over_alpha_exactly():
    check_polynomials(LMS)


def test_even_levels_have_the_textbook_s_coefficients():
    check_classical(LMS)


def test_an_ending_of_lower_orders_is_an_option():
    check_ending(LMS)


def test_orders_three_and_four():
    check_order(LMS)


def test_order_four_on_a_grid_uniform_in_the_angle_from_1024_steps_on():
    claim = Claim("", samplers.lms, 4, {"order": 4, "start": "rk4"})
    coarse, fine = observe(claim, "circle", (1024, 2048)).errors
    assert abs(math.log2(coarse / fine) - 4) < .15


def test_a_start_by_lower_orders_costs_all_orders_above_two():
    coarse, fine = observe(Claim("", samplers.lms, 0, {"order": 4}), "karras", (512, 1024)).errors
    assert abs(math.log2(coarse / fine) - 2) < .15
    full = observe(Claim("", samplers.lms, 0, {"order": 4, "start": "rk4"}), "karras", (512, 1024)).errors
    assert fine > 50 * full[1]


def test_the_start_is_a_runge_kutta_step_of_order_four():
    check_runge_kutta(LMS)


def test_order_one_is_euler():
    grid, x = grids.karras(7), 80 * Key(1).normal((3, 1))
    np.testing.assert_allclose(samplers.run(samplers.lms(LINE, grid, x, order=1)),
                               samplers.run(samplers.euler(LINE, grid, x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options, message", [
    ({"order": 5}, "order is 5, wanted an integer in 1..4"), ({"order": True}, "order is True"),
    ({"start": "heun"}, "start is 'heun'"), ({"lower_order_final": "no"}, "lower_order_final is 'no'"),
    ({"start": "rk4"}, "names no family")])
def test_impossible_options_are_refused_before_any_work(options, message):
    grid = Grid([3, 2, 1], [1., 1., 1.], [3., 2., 1.], "bare")
    with pytest.raises(ValueError, match=message):
        samplers.lms(None, grid, np.ones((2, 1)), **options)


# ---- planted mutants

MUTANTS = [
    (check_weights, "h ** (k + 1) / (k + 1)", "h ** (k + 1) / (k + 2)"),
    (check_weights, "h ** (k + 1) / (k + 1)", "h ** k / (k + 1)"),
    (check_weights, "level.ratio - t.ratio", "level.ratio - s.ratio - 1e-9"),
    (check_polynomials, "h = s.ratio - t.ratio", "h = s.sigma - t.sigma"),
    (check_classical, "h = s.ratio - t.ratio", "h = 1.01 * (s.ratio - t.ratio)"),
    (check_ending, 'lower_order_final == "always"', 'lower_order_final == "paper"'),
]
SHARED = [
    (check_polynomials, "s.alpha * prediction.x0 + s.sigma", "prediction.level.alpha * prediction.x0 + s.sigma"),
    (check_polynomials, "+ s.sigma * prediction.eps", "+ 1.001 * s.sigma * prediction.eps"),
    (check_polynomials, "x + s.alpha * weight", "x + weight"),
    (check_polynomials, "(value - latest)", "value"),
    (check_weights, "/ unit) ** powers", "/ unit) ** (powers - 1)"),
    (check_weights, "/ unit ** powers", "/ unit"),
    (check_classical, "[prediction.eps, *values]", "[*values, prediction.eps]"),
    (check_classical, "levels[:n]), values", "levels[:1]), values"),
    (check_ending, "min(order, S - i) - 1", "min(order, S - i + 1) - 1"),
    (check_order, "len(levels) + 1 < order", "len(levels) < order"),
    (check_order, "x = start(denoiser, grid, prediction, s)", "x = first_order(prediction, s)"),
    (check_runge_kutta, "s.alpha)) / 2))", "s.alpha)) / 2.1))"),
    (check_runge_kutta, "k1 + 2 * k2 + 2 * k3 + k4", "k1 + 2.01 * k2 + 1.99 * k3 + 1.01 * k4"),
    (check_runge_kutta, "h / 6", "h / 6.01"),
    (check_runge_kutta, "h / 2 * k1", "h * k1"),
    (check_runge_kutta, "h / 2 * k2", "h / 2 * k1"),
    (check_runge_kutta, "h * k3", "h * k2"),
    (check_runge_kutta, "prediction.v / r_t", "prediction.v"),
    (check_runge_kutta, "return r_s * (xhat", "return r * (xhat"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises(AssertionError):
        check(mutant("samplers.lms", (old, new)))


@pytest.mark.parametrize("check, old, new", SHARED, ids=range(len(SHARED)))
def test_every_mutant_of_what_the_solvers_share_is_killed(check, old, new):
    made = with_multistep("lms", (old, new))
    with pytest.raises((AssertionError, np.linalg.LinAlgError, NameError)) as death:
        check(made)
    assert death.type is AssertionError, death
