"""DPM-Solver against the paper's formulas at 50 digits, and the rules it shares with DPM-Solver++ on polynomials.

Each check takes the module that it judges, refdiff.samplers.exponential, so that the mutants run through the same.
"""
import importlib
import math

import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff.process import families, grids
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.process.polynomial import PolynomialDenoiser
from refdiff.samplers.dpm import budget, dpm
from refdiff.samplers.orders import Claim, observe

EXPONENTIAL = importlib.import_module("refdiff.samplers.exponential")
KINDS = ("x0", "eps")
LAMBDAS = np.cumsum([-1.3, .4, .7, .25, .5, .35])                         # irregular, six levels
COEFFICIENTS = [.7, -1.1, .45]


def on_ve(lambdas):
    return grids.on(families.VarianceExploding(), np.exp(-np.asarray(lambdas)), "lambdas")


def on_flow(lambdas):
    return grids.on(families.Flow(), 1 / (1 + np.exp(lambdas)), "lambdas")


def on_circle(lambdas):
    return grids.on(families.TrigFlow(), np.arctan(np.exp(-np.asarray(lambdas))), "lambdas")


FAMILIES = (on_ve, on_flow, on_circle)


# ---- checks, of the module of rules

EXACT = [({"order": 1, "form": "single"}, 0), ({"order": 1, "form": "multi"}, 0),
         ({"order": 2, "form": "single", "rule": "exact"}, 1),
         ({"order": 2, "form": "single", "rule": "exact", "r1": .8}, 1),
         ({"order": 2, "form": "multi", "rule": "exact", "start": "single"}, 1),
         ({"order": 3, "form": "single"}, 1),                              # truncated, its curvature is not exact
         ({"order": 3, "form": "single", "rule": "exact"}, 2),
         ({"order": 3, "form": "single", "rule": "exact", "r1": .2, "r2": .9}, 2),
         ({"order": 3, "form": "multi", "rule": "exact", "start": "single"}, 2)]


def check_exact(module):
    """Where a rule integrates exactly, each step on a polynomial of that degree is the flow from where it began."""
    for kind in KINDS:
        for family in FAMILIES:
            grid = family(LAMBDAS)
            for options, degree in EXACT:
                denoiser = PolynomialDenoiser(COEFFICIENTS[:degree + 1], kind, center=-.2)
                x = np.array([[1.3, -.4]])
                never = {"lower_order_final": "never"} if options["form"] == "multi" and degree else {}
                for i, state in enumerate(module.solve("test", kind, denoiser, grid, x, **options, **never)):
                    np.testing.assert_allclose(state.x, denoiser.flow(x, grid.level(i), grid.level(i + 1)),
                                               rtol=1e-12, atol=1e-12, err_msg=f"{kind} {options}, step {i}")
                    x = state.x


TRUNCATED = [({"order": 2, "form": "single"}, 1, 3), ({"order": 2, "form": "single", "r1": .8}, 1, 3),
             ({"order": 2, "form": "multi"}, 1, 3), ({"order": 3, "form": "single"}, 2, 4),
             ({"order": 3, "form": "single", "r1": .25, "r2": .5}, 2, 3),
             ({"order": 3, "form": "multi", "rule": "truncated"}, 2, 3)]


def check_truncation(module):
    """One step of a truncating rule on a polynomial of degree k-1 misses the flow by O(h^(k+1)), what order k needs.

    But for two: order 3 with r2 other than 2/3, and the multistep order 3 of the authors' code, miss by O(h^3).
    """
    for kind in KINDS:
        for options, degree, power in TRUNCATED:
            denoiser = PolynomialDenoiser(COEFFICIENTS[:degree + 1], kind, center=-.2)
            never = {"lower_order_final": "never"} if options["form"] == "multi" else {}
            h, missed = 2.0 ** -np.arange(3, 8), []
            for width in h:
                grid = on_circle(.3 + width * np.array([-2.1, -1.3, 0, 1] if never else [0, 1]))
                x = np.array([[1.3, -.4]])
                states = list(module.solve("test", kind, denoiser, grid, x, **options, **never))
                before = states[-2].x if never else x
                end = denoiser.flow(before, grid.level(len(grid) - 1), grid.level(len(grid)))
                missed.append(np.abs(states[-1].x - end).max())
            slope = np.polyfit(np.log(h), np.log(missed), 1)[0]
            assert abs(slope - power) < .15, (kind, options, slope, missed)


ANGLES = [1.35, 1.0, .8, .35]


def exact_level(lam):
    """(alpha, sigma) of the circle at lambda, in mpmath."""
    return 1 / mp.sqrt(1 + mp.exp(-2 * lam)), 1 / mp.sqrt(1 + mp.exp(2 * lam))


def exact_lambda(angle):
    return mp.log(mp.cos(mp.mpf(angle)) / mp.sin(mp.mpf(angle)))


def curved(kind):
    """A denoiser that is curved in x and in lambda, in float64; and the same function in mpmath."""
    def denoiser(x, level):
        return Prediction(kind, np.sin(2 * x) + .3 * level.lam * x - .2, x, level)
    return denoiser, lambda x, lam: mp.sin(2 * x) + mp.mpf(.3) * lam * x - mp.mpf(.2)


def exact_dpm(order, x, angles, r1, r2):
    """DPM-Solver of the paper's algorithms, as it spells them, in mpmath."""
    _, eps = curved("eps")
    for here, there in zip(angles, angles[1:]):
        lam_s, lam_t = exact_lambda(here), exact_lambda(there)
        h = lam_t - lam_s
        (a_s, _), (a_t, s_t) = exact_level(lam_s), exact_level(lam_t)
        e_s = eps(x, lam_s)
        if order > 1:
            a_1, s_1 = exact_level(lam_s + r1 * h)
            u1 = a_1 / a_s * x - s_1 * (mp.exp(r1 * h) - 1) * e_s
            e_1 = eps(u1, lam_s + r1 * h)
        if order == 1:
            x = a_t / a_s * x - s_t * (mp.exp(h) - 1) * e_s
        elif order == 2:
            x = a_t / a_s * x - s_t * (mp.exp(h) - 1) * e_s - s_t / (2 * r1) * (mp.exp(h) - 1) * (e_1 - e_s)
        else:
            a_2, s_2 = exact_level(lam_s + r2 * h)
            u2 = (a_2 / a_s * x - s_2 * (mp.exp(r2 * h) - 1) * e_s
                  - s_2 * r2 / r1 * ((mp.exp(r2 * h) - 1) / (r2 * h) - 1) * (e_1 - e_s))
            e_2 = eps(u2, lam_s + r2 * h)
            x = (a_t / a_s * x - s_t * (mp.exp(h) - 1) * e_s
                 - s_t / r2 * ((mp.exp(h) - 1) / h - 1) * (e_2 - e_s))
    return x


ALGORITHMS = [(1, {}, (0, 0)), (2, {}, (.5, 0)), (2, {"r1": .3}, (.3, 0)), (3, {}, (mp.mpf(1) / 3, mp.mpf(2) / 3)),
              (3, {"r1": .2, "r2": .7}, (.2, .7))]


def check_algorithms(module):
    grid = grids.on(families.TrigFlow(), ANGLES)
    denoiser, _ = curved("eps")
    starts = [1.3, -.4, .25]
    for order, options, (r1, r2) in ALGORITHMS:
        x = np.array(starts)[:, None]
        got = [state.x for state in module.solve("test", "eps", denoiser, grid, x, order, "single", **options)][-1]
        with mp.workdps(50):
            exact = [float(exact_dpm(order, mp.mpf(x), ANGLES, mp.mpf(r1), mp.mpf(r2))) for x in starts]
        np.testing.assert_allclose(got[:, 0], exact, rtol=1e-13, err_msg=f"order {order} {options}")


def check_orders(module):
    """2 and 3 evaluations inside a step make orders 2 and 3 on a mixture: the intermediate levels are right."""
    for order in (2, 3):
        def sampler(denoiser, grid, x):
            return module.solve("test", "eps", denoiser, grid, x, order, "single")
        observed = observe(Claim(f"order {order}", sampler, order), "circle", (32, 64, 128))
        np.testing.assert_allclose(observed.order, order, rtol=0, atol=.15, err_msg=str(observed))


def check_ends(module):
    """To sigma = 0: the denoised x0. From alpha = 0: sigma_t/sigma_s x + alpha_t x0, and no such level in the history.

    In between, the multistep rule of the levels that there are, on polynomials: the flow.
    """
    angle = np.array([np.pi / 2, 1.2, .9, .5, 0.])
    alpha = np.cos(angle)
    alpha[0] = 0.0
    grid = Grid(angle, alpha, np.sin(angle), "both ends", families.TrigFlow())
    denoiser = Finite([.7, -1.1])
    x = np.array([[1.3, -.4]])
    for kind, form, options in (("x0", "single", {}), ("x0", "multi", {"start": "single"}), ("eps", "single", {})):
        states = list(module.solve("test", kind, denoiser, grid, x, 2, form, rule="exact", **options))
        first = grid.level(1).sigma * x + grid.level(1).alpha * denoiser(x, grid.level(0)).x0
        np.testing.assert_allclose(states[0].x, first, rtol=1e-14)
        np.testing.assert_allclose(states[-1].x, denoiser(states[-2].x, grid.level(3)).x0, rtol=1e-13)
        if kind == "x0" and form == "single":
            for i in (1, 2):
                flow = denoiser.inside.flow(states[i - 1].x, grid.level(i), grid.level(i + 1))
                np.testing.assert_allclose(states[i].x, flow, rtol=1e-12)
        if form == "multi":             # step 1 of order 2 by evaluating inside; step 2 lowered: two are left of four
            flow = denoiser.inside.flow(states[0].x, grid.level(1), grid.level(2))
            np.testing.assert_allclose(states[1].x, flow, rtol=1e-12)


class Finite:
    """x0 polynomial in lambda where lambda is finite, and .3 at both ends."""

    def __init__(self, coefficients):
        self.inside = PolynomialDenoiser(coefficients)

    def __call__(self, x, level):
        return self.inside(x, level) if math.isfinite(level.lam) else Prediction("x0", x * 0 + .3, x, level)


# ---- facts

def test_rules_that_integrate_exactly_are_the_flow_on_polynomials():
    check_exact(EXPONENTIAL)


def test_rules_that_truncate_miss_by_the_order_that_they_need():
    check_truncation(EXPONENTIAL)


def test_dpm_solver_is_the_paper_s_algorithms_at_50_digits():
    check_algorithms(EXPONENTIAL)


def test_single_steps_have_their_order_on_a_mixture():
    check_orders(EXPONENTIAL)


def test_ends_of_the_schedule_are_first_order_steps():
    check_ends(EXPONENTIAL)


def test_dpm_is_these_rules_in_eps():
    grid = grids.on(families.TrigFlow(), ANGLES)
    denoiser, _ = curved("eps")
    x = np.array([[1.3], [-.4]])
    for options in ({}, {"order": 2, "r1": .3}, {"order": (3, 2, 1)}, {"order": 3, "form": "multi", "start": "single"}):
        asked = {"order": 3, "form": "single", **options}
        for a, b in zip(dpm(denoiser, grid, x, **options), EXPONENTIAL.solve("", "eps", denoiser, grid, x, **asked)):
            np.testing.assert_array_equal(a.x, b.x)


@pytest.mark.parametrize("evaluations, orders", [(1, (1,)), (2, (2,)), (3, (2, 1)), (4, (3, 1)), (5, (3, 2)),
                                                 (6, (3, 2, 1)), (10, (3, 3, 3, 1)), (11, (3, 3, 3, 2)),
                                                 (12, (3, 3, 3, 2, 1))])
def test_a_budget_of_evaluations_is_spent_to_the_last(evaluations, orders):
    np.testing.assert_array_equal(budget(evaluations), orders)
    seen = []

    def denoiser(x, level):
        seen.append(level)
        return Prediction("eps", x / 2, x, level)

    lambdas = np.linspace(-2, 2, len(orders) + 1)
    assert len(list(dpm(denoiser, on_ve(lambdas), np.ones((1, 1)), order=budget(evaluations)))) == len(orders)
    np.testing.assert_array_equal([len(seen), sum(orders)], evaluations)
    assert len(orders) == evaluations // 3 + 1 - (evaluations < 1)


def test_a_budget_that_is_no_number_of_evaluations_is_refused():
    for wrong in (0, -3, 2.0, True):
        with pytest.raises(ValueError, match="budget"):
            budget(wrong)


GRID = grids.karras(6, .05, 10.)
BARE = Grid([2., 1., .5], [1., 1., 1.], [2., 1., .5], "bare")


@pytest.mark.parametrize("grid, options, message", [
    (GRID, {"order": 4}, "order is 4"), (GRID, {"order": 0}, "order is 0"), (GRID, {"order": 2.0}, "order is 2.0"),
    (GRID, {"order": True}, "order is True"), (GRID, {"order": (3, 2)}, "2 orders for the 6 steps"),
    (GRID, {"order": (2,) * 6, "form": "multi"}, "6 orders for the 6 steps"),
    (GRID, {"form": "double"}, "form is 'double'"), (GRID, {"rule": "best"}, "rule is 'best'"),
    (GRID, {"form": "multi", "start": "high"}, "start is 'high'"),
    (GRID, {"form": "multi", "lower_order_final": True}, "lower_order_final is True"),
    (GRID, {"start": "lower"}, "start = 'lower' would be ignored"),
    (GRID, {"lower_order_final": "never"}, "would be ignored"),
    (GRID, {"form": "multi", "r1": .5}, "r1 = 0.5 would be ignored"),
    (GRID, {"order": 1, "rule": "exact"}, "rule = 'exact' would be ignored"),
    (GRID, {"order": 1, "r1": .5}, "r1 = 0.5 would be ignored"), (GRID, {"order": 2, "r2": .5}, "r2 = 0.5 would be"),
    (GRID, {"order": 2, "r1": 0.}, "r1 = 0: wanted"), (GRID, {"order": 2, "r1": 1.5}, "r1 = 1.5: wanted"),
    (GRID, {"order": 3, "r1": .7}, "r1 = 0.7, r2 = 0.666667"), (GRID, {"order": 3, "r2": 1.1}, "r2 = 1.1"),
    (GRID, {"order": 2, "r1": math.nan}, "r1 is nan"), (BARE, {}, "grid bare: it names no family"),
    (BARE, {"form": "multi", "start": "single"}, "grid bare: it names no family")])
def test_options_that_are_unknown_or_would_be_ignored_are_refused_before_any_work(grid, options, message):
    def denoiser(x, level):
        raise AssertionError("evaluated")
    with pytest.raises(ValueError, match=message):
        next(dpm(denoiser, grid, np.ones((1, 1)), **options))


def test_a_grid_without_a_family_serves_what_evaluates_on_it():
    denoiser, _ = curved("eps")
    x = np.ones((1, 1))
    for options in ({"order": 1}, {"order": 2, "form": "multi"}, {"order": 3, "form": "multi"}):
        assert len(list(dpm(denoiser, BARE, x, **options))) == 2


# ---- planted mutants: one coefficient rewritten, and the check must fail

MUTANTS = [
    (check_exact, "t.sigma / s.sigma, t.alpha * h, -h", "t.sigma / s.sigma, t.alpha * h, h"),
    (check_exact, "t.sigma / s.sigma, t.alpha * h, -h", "t.sigma / s.sigma, s.alpha * h, -h"),
    (check_exact, "t.sigma / s.sigma, t.alpha * h, -h", "t.alpha / s.alpha, t.alpha * h, -h"),
    (check_exact, "t.alpha / s.alpha, -t.sigma * h, h", "t.alpha / s.alpha, -t.sigma * h, -h"),
    (check_exact, "t.alpha / s.alpha, -t.sigma * h, h", "t.alpha / s.alpha, t.sigma * h, h"),
    (check_exact, "t.alpha / s.alpha, -t.sigma * h, h", "t.sigma / s.sigma, -t.sigma * h, h"),
    (check_exact, "phi(2, z)\n    return", "phi(2, -z)\n    return"),
    (check_exact, "return phi(1, z) - slope / u, slope / u", "return phi(1, z) - slope, slope / u"),
    (check_exact, "return phi(1, z) - slope / u, slope / u", "return phi(1, z) - slope / u, slope"),
    (check_exact, "second(r2, z, \"exact\")", "second(r1, z, \"exact\")"),
    (check_exact, "second(r2, z, \"exact\")", "second(r2, z, \"truncated\")"),
    (check_exact, "return weights([0.0, r1, r2], z)", "return weights([0.0, r2, r1], z)"),
    (check_exact, "w = weights([0.0, u1, u2], z)", "w = weights([0.0, u1, u2 - u1], z)"),
    (check_exact, "return advance(kind, x, s, t, [phi(1, z)], [m0])",
     "return advance(kind, x, s, t, [1.0], [m0])"),
    (check_exact, "        w = [phi(1, z)]", "        w = [phi(0, z)]"),
    (check_exact, "(lam - s.lam) / h for", "(lam - t.lam) / h for"),
    (check_exact, "w = second(u[0], z, rule)", "w = second(-u[0], z, rule)"),
    (check_exact, "third_multi(u[0], u[1], z, rule)", "third_multi(u[1], u[0], z, rule)"),
    (check_truncation, "phi(1, z) / 2 if", "phi(1, z) / 1.98 if"),
    (check_algorithms, "phi(1, z) / 2 if", "phi(0, z) / 2 if"),
    (check_truncation, "half = phi(3, z)", "half = 0 * phi(3, z)"),
    (check_truncation, "w[0] - half / (u1 * u2)", "w[0] - half / (u1 * u1)"),
    (check_truncation, "half / (u1 * (u1 - u2))", "half / (u1 * (u2 - u1))"),
    (check_truncation, "half / (u2 * (u2 - u1))", "half / (u1 * (u2 - u1))"),
    (check_algorithms, "1 / 2 if order == 2 else 1 / 3", "1 / 2 if order == 2 else 1 / 4"),
    (check_algorithms, "1 / 2 if order == 2 else 1 / 3", "1 / 3 if order == 2 else 1 / 3"),
    (check_algorithms, "r2 = 2 / 3 if r2 is None", "r2 = 3 / 4 if r2 is None"),
    (check_algorithms, "between(s.lam + r1 * h)", "between(s.lam + .9 * r1 * h)"),
    (check_algorithms, "between(s.lam + r2 * h)", "between(s.lam + .9 * r2 * h)"),
    (check_algorithms, "[phi(1, r1 * z)]", "[phi(1, z)]"),
    (check_algorithms, "second(r1 / r2, r2 * z, \"exact\")", "second(r1, r2 * z, \"exact\")"),
    (check_algorithms, "second(r1 / r2, r2 * z, \"exact\")", "second(r1 / r2, z, \"exact\")"),
    (check_algorithms, "second(r1 / r2, r2 * z, \"exact\")", "second(r1 / r2, r2 * z, \"truncated\")"),
    (check_orders, "second(r1 / r2, r2 * z, \"exact\"), [m0, m1]", "[phi(1, r2 * z)], [m0]"),
    (check_orders, "r2 = 2 / 3 if r2 is None", "r2 = 3 / 4 if r2 is None"),
    (check_ends, "keep = t.sigma / s.sigma\n", "keep = t.alpha / max(s.alpha, 1e-9)\n"),
    (check_ends, "(t.alpha - s.alpha * keep) * prediction.x0", "t.alpha * (1 - keep) * prediction.x0"),
    (check_ends, "history) >= order - 1", "history) >= order - 2"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises(AssertionError):
        check(mutant("samplers.exponential", (old, new)))
