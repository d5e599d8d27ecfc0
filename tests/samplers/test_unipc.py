"""UniPC against 50 digits, against its paper's formulas written out, and against its claims. Mutants must die."""
import math

import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff import samplers
from refdiff.process import families, grids
from refdiff.process.exact import Mixture
from refdiff.process.grids import Grid
from refdiff.process.level import Level
from refdiff.process.parameterization import Prediction
from refdiff.process.polynomial import PolynomialDenoiser
from refdiff.rng import Key
from refdiff.samplers.orders import Claim, observe

UNIPC = mutant("samplers.unipc")                    # without a rewrite: the original
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
FULL = {"start": "rk4", "lower_order_final": "never"}


def uneven(S=9):
    """A flow grid whose steps differ by up to a factor of five in lambda."""
    lam = np.cumsum(.05 + .2 * Key(3).uniform((S + 1,))) - 1
    return grids.on(families.Flow(), 1 / (1 + np.exp(lam)), "uneven")


def exact_grids():
    return uneven(), grids.karras(12, .05, 10., final=None), grids.on(families.TrigFlow(), np.linspace(1.4, .2, 10))


# ---- checks, of any implementation

def check_polynomials(module):
    """Every step with a full history carries a polynomial of degree p - 1 (p, corrected) along the exact solution."""
    for grid in exact_grids():
        for kind in ("x0", "eps"):
            for p in (1, 2, 3, 4, 6):
                for corrector, degree in (("never", p - 1), ("every", p)):
                    coefficients = Key(p).normal((degree + 1,))
                    world = PolynomialDenoiser(coefficients, kind)
                    x = Key(5).normal((3, 2))
                    options = {"corrector": corrector, "kind": kind, "B": "exact", "lower_order_final": "never"}
                    states = list(module.unipc(world, grid, x, order=p, **options))
                    for before, after in zip(states[p - 1:-1], states[p:]):
                        wanted = world.flow(before.x, before.level, after.level)
                        # the weights grow with the order of extrapolation, the values with the degree
                        scale = max(1.0, np.abs(wanted).max())
                        np.testing.assert_allclose(after.x / scale, wanted / scale, rtol=1e-12, atol=1e-12)


def by_quadrature(kind, t, s, points):
    """alpha_s w_m of the Lagrange polynomials, by 50-digit quadrature of exponential times polynomial."""
    with mp.workdps(50):
        lam = [mp.log(mp.mpf(level.alpha) / mp.mpf(level.sigma)) for level in (t, s, *points)]
        nodes, h = [0, *(value - lam[0] for value in lam[2:])], lam[1] - lam[0]
        if kind == "x0":
            def exponential(u):
                return mp.mpf(s.sigma) * mp.e ** (u + lam[0])
        else:
            def exponential(u):
                return -mp.mpf(s.alpha) * mp.e ** -(u + lam[0])

        def basis(u, m):
            return mp.fprod((u - nodes[k]) / (nodes[m] - nodes[k]) for k in range(len(nodes)) if k != m)
        return [float(mp.quad(lambda u: exponential(u) * basis(u, m), [0, h])) for m in range(1, len(nodes))]


def check_weights(module):
    levels = [families.VP().level(time) for time in (.9, .83, .7, .52, .5, .31)]
    for kind in ("x0", "eps"):
        for i in (1, 2, 3, 4):
            t, s, earlier = levels[i], levels[i + 1], levels[:i][::-1]
            for points in (earlier[:1], earlier[:3], [s, *earlier[:2]], [s]):
                got = [s.alpha * w for w in module.weights(kind, t, s, points, "exact")]
                np.testing.assert_allclose(got, by_quadrature(kind, t, s, points), rtol=1e-12)


def by_hand(denoiser, grid, x, B, corrector):
    """UniPC of order 2 in x0 as in the paper's text: D_m/r_m, a_1 = 1/2 in the predictor, UniC-2's two equations."""
    m, lam = [], [grid.level(i).lam for i in range(len(grid) + 1)]
    prediction = denoiser(x, grid.level(0)).x0
    for i in range(len(grid)):
        t, s, h = grid.level(i), grid.level(i + 1), lam[i + 1] - lam[i]
        Bh = -h if B == "B1" else math.exp(-h) - 1
        base = s.sigma / t.sigma * x - s.alpha * (math.exp(-h) - 1) * prediction
        D = [(m[-1] - prediction) / ((lam[i - 1] - lam[i]) / h)] if i else []
        x = base - s.alpha * Bh * .5 * D[0] if i else base
        if i < len(grid) - 1 or corrector:
            ahead = denoiser(x, s).x0
            D.append(ahead - prediction)
            if not corrector:
                a = None
            elif i == 0:
                a = [.5]
            else:
                r = [(lam[i - 1] - lam[i]) / h, 1.]
                phi_2 = (math.exp(-h) - 1) / -h - 1
                phi_3 = phi_2 / -h - .5
                a = np.linalg.solve([[1., 1.], r], [phi_2 / Bh, 2 * phi_3 / Bh])
            if a is not None:
                x = base - s.alpha * Bh * sum(a_m * D_m for a_m, D_m in zip(a, D))
        yield x
        m.append(prediction)
        prediction = ahead


def check_paper(module):
    for B in ("B1", "B2"):
        for corrector in (False, True):
            for grid in exact_grids():
                x = Key(2).normal((4, 1)) * grid.level(0).sigma
                got = [state.x for state in module.unipc(LINE, grid, x, order=2, B=B, lower_order_final="never",
                                                         corrector="every" if corrector else "never")]
                np.testing.assert_allclose(got, list(by_hand(LINE, grid, x, B, corrector)), rtol=1e-10, atol=1e-10)


def residual(module, B, kind, h):
    """What one step of UniP-2 misses of an exact line of slope 1 in lambda, over alpha_s h^3 (sigma_s, in eps)."""
    levels = [families.VP().at(lam) for lam in (-h, 0., h)]
    grid = Grid(*np.transpose([(level.t, level.alpha, level.sigma) for level in levels]), "three", families.VP())
    world = PolynomialDenoiser([.3, 1.], kind)
    states = list(module.unipc(world, grid, np.ones((1, 1)), order=2, B=B, kind=kind, corrector="never",
                               lower_order_final="never"))
    wanted = world.flow(states[0].x, levels[1], levels[2])
    unit = levels[2].alpha if kind == "x0" else levels[2].sigma
    return float((states[1].x - wanted)[0, 0]) / (unit * h ** 3)


def check_residuals(module):
    for B, kind, constant in (("B1", "x0", 1 / 6), ("B2", "x0", -1 / 12), ("B1", "eps", 1 / 6), ("B2", "eps", -1 / 12)):
        coarse, fine = residual(module, B, kind, .02), residual(module, B, kind, .01)
        np.testing.assert_allclose(2 * fine - coarse, constant, rtol=2e-3)       # the next term, of order h, removed


def check_evaluations(module):
    """Each evaluation is at the predicted x, and is the prediction of the next step's State."""
    for corrector, extra in (("paper", 0), ("never", 0), ("every", 1), ([True] * 4 + [False] * 2, 0)):
        grid, seen = grids.karras(7, .05, 10., final=None), []

        def denoiser(x, level):
            seen.append((level.sigma, x))
            return LINE(x, level)

        states = list(module.unipc(denoiser, grid, 10 * Key(1).normal((2, 1)), corrector=corrector))
        assert [sigma for sigma, _ in seen] == grid.sigma[:6 + extra].tolist()
        for i in range(1, 6):
            corrected = corrector == "every" or corrector == "paper" or corrector != "never" and corrector[i - 1]
            assert states[i].prediction.x is seen[i][1] and (states[i - 1].x is seen[i][1]) != corrected


def last_slope(sampler, grid, counts=(256, 512), **options):
    """The order between two counts of steps."""
    coarse, fine = observe(Claim("", sampler, 0, options), grid, counts).errors
    return math.log2(coarse / fine) / math.log2(counts[1] / counts[0])


def check_orders(module):
    for grid in ("karras", "circle"):
        for p, B, corrector, order in ((2, "B2", "every", 3), (2, "B1", "never", 2), (3, "B2", "never", 3)):
            got = last_slope(module.unipc, grid, order=p, B=B, corrector=corrector, **FULL)
            assert abs(got - order) < .1, (grid, p, B, corrector, got)


# ---- facts

def test_a_step_integrates_the_polynomial_through_its_points_exactly():
    check_polynomials(UNIPC)


def test_coefficients_are_the_integrals_of_lagrange_s_polynomials_at_50_digits():
    check_weights(UNIPC)


def test_order_two_is_the_paper_s_formulas_written_out():
    check_paper(UNIPC)


def test_one_half_for_a_1_misses_a_sixth_with_B1_and_minus_a_twelfth_with_B2():
    """Of h^3 times the slope: both leave UniP-2 its order, and B2 makes half the error of B1, of the other sign."""
    check_residuals(UNIPC)


def test_S_evaluations_each_at_the_predicted_x():
    check_evaluations(UNIPC)


def test_orders_of_predictor_and_corrector():
    check_orders(UNIPC)


def test_B_cancels_wherever_the_condition_on_the_coefficients_is_solved():
    """UniPC-3 is the same sampler with B1, B2 or none: they differ in steps with one point alone, the paper's start."""
    grid, x = grids.karras(12, .05, 10., final=None), 10 * Key(1).normal((4, 1))
    for start in ("rk4", "lower"):
        first, second, exact = (samplers.run(samplers.unipc(LINE, grid, x, B=B, corrector="every", start=start,
                                                            lower_order_final="never")) for B in ("B1", "B2", "exact"))
        if start == "rk4":
            np.testing.assert_allclose(first, second, rtol=1e-13)
            np.testing.assert_allclose(first, exact, rtol=1e-13)
        else:
            assert 1e-5 < np.abs(first - second).max() < 1e-2


def test_what_the_paper_s_start_and_ending_cost():
    """A step of order 1 at the start costs UniP-3 its third order, one at the end all that is above 2."""
    ending = {"start": "rk4", "lower_order_final": "paper"}
    assert last_slope(samplers.unipc, "circle", order=3, corrector="never", lower_order_final="never") < 2.2
    assert last_slope(samplers.unipc, "circle", order=3, corrector="paper", **ending) < 2.1
    assert last_slope(samplers.unipc, "circle", order=3, corrector="every", **ending) < 3.1
    assert last_slope(samplers.unipc, "circle", order=3, corrector="paper", **FULL) > 3.85
    full = observe(Claim("", samplers.unipc, 0, {"order": 3, "corrector": "every", **FULL}), "circle", (256, 512))
    paper = observe(Claim("", samplers.unipc, 0, {"order": 3}), "circle", (256, 512))
    assert paper.errors[1] > 1000 * full.errors[1]


def test_first_order_is_ddim():
    for grid in exact_grids():
        x = Key(2).normal((4, 1)) * grid.level(0).sigma
        ddim = samplers.run(samplers.ddim(LINE, grid, x))
        for kind in ("x0", "eps"):
            out = samplers.run(samplers.unipc(LINE, grid, x, order=1, kind=kind, corrector="never"))
            np.testing.assert_array_equal(out, ddim)


def test_without_its_corrector_and_with_B2_it_is_dpm_solver_plus_plus_multistep():
    """2M is UniP-2 with a_1 = 1/2 and B_2; 3M with its polynomial integrated exactly is UniP-3 (eps: DPM-Solver)."""
    for grid in exact_grids():
        x = Key(2).normal((4, 1)) * grid.level(0).sigma
        for kind, dpm in (("x0", samplers.dpmpp), ("eps", samplers.dpm)):
            for order, B, rule in ((2, "B2", "truncated"), (2, "exact", "exact"), (3, "exact", "exact")):
                unip = samplers.unipc(LINE, grid, x, order=order, kind=kind, B=B, corrector="never",
                                      lower_order_final="never")
                multi = dpm(LINE, grid, x, order=order, form="multi", rule=rule, lower_order_final="never")
                np.testing.assert_allclose(samplers.run(unip), samplers.run(multi), rtol=1e-10, atol=1e-12)


def test_the_ending_lowers_the_order_to_one_and_leaves_the_last_step_uncorrected():
    grid, x = uneven(6), Key(1).normal((3, 1))
    states = list(samplers.unipc(LINE, grid, x, order=3))
    here = Prediction("x0", states[5].prediction.x0, states[4].x, states[4].level)
    np.testing.assert_allclose(states[5].x, grid.level(6).alpha * here.x0 + grid.level(6).sigma * here.eps, rtol=1e-14)
    full = list(samplers.unipc(LINE, grid, x, order=3, lower_order_final="never"))
    assert [np.array_equal(a.x, b.x) for a, b in zip(states, full)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("options, message", [
    ({"order": 0}, "order is 0, wanted an integer in 1..6"), ({"order": 2.0}, "order is 2.0"),
    ({"kind": "v"}, "kind is 'v'"), ({"B": "B3"}, "B is 'B3'"), ({"corrector": "on"}, "corrector is 'on'"),
    ({"corrector": [True]}, "a list of 6 bools"), ({"start": "prk"}, "start is 'prk', wanted one of lower, rk4"),
    ({"lower_order_final": True}, "lower_order_final is True, wanted one of paper, always, never")])
def test_impossible_options_are_refused_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        samplers.unipc(None, uneven(6), np.ones((2, 1)), **options)


# ---- planted mutants

MUTANTS = [
    (check_polynomials, "h ** (k + 1) * math", "h ** k * math"),
    (check_polynomials, "math.factorial(k) * phi(k + 1, -h)", "phi(k + 1, -h)"),
    (check_weights, "phi(k + 1, -h)", "phi(k + 1, h)"),
    (check_weights, "phi(k + 1, -h)", "phi(k + 2, -h)"),
    (check_weights, 'if kind == "eps":\n        return eps_moments', 'if kind == "x0":\n        return eps_moments'),
    (check_weights, "level.lam - t.lam for level in points", "level.lam - s.lam - 1e-9 for level in points"),
    (check_residuals, "-(s.ratio * h if", "-(t.ratio * h if"),
    (check_residuals, "else t.ratio - s.ratio) / (2 * r)", "else t.ratio - s.ratio) / (2.001 * r)"),
    (check_residuals, "else -math.expm1(-h)) / (2 * r)", "else -math.expm1(-h)) / (2.001 * r)"),
    (check_residuals, "(h if B ==", "(1.001 * h if B =="),
    (check_paper, "nodes[0] / (s.lam - t.lam)", "-1.0"),
    (check_paper, "(h if B ==", "(h if B !="),
    (check_paper, "-math.expm1(-h)", "math.expm1(h)"),
    (check_paper, "Prediction(kind, latest, x, t)", "prediction"),
    (check_paper, "[s, *points]", "[s, *points[:-1]]"),
    (check_paper, "[getattr(ahead, kind), *values]", "[*values[:1], getattr(ahead, kind)]"),
    (check_orders, "x = add(base, s,", "x = add(predicted, s,"),
    (check_orders, "order if s.sigma > 0 else 1) - 1", "order if s.sigma > 0 else 1) - 2"),
    (check_orders, "levels, values = [t, *levels][:order - 1]", "levels, values = [t, *levels][:1]"),
    (check_orders, "len(levels) + 1 < order", "len(levels) < order"),
    (check_evaluations, "ahead = denoiser(predicted, s)", "ahead = denoiser(predicted * 1.0, s)"),
    (check_evaluations, "if i < S - 1 or correct:", "if True:"),
    (check_evaluations, 'corrector == "paper" and i < S - 1', 'corrector == "paper"'),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises(AssertionError):
        check(mutant("samplers.unipc", (old, new)))


def test_levels_far_apart_and_a_clean_end_need_no_exponential_of_h():
    """h of 700 and more, where e^h is beyond float64: kind "eps" takes its integrals from the other side."""
    levels = [Level(3., 1., 10.), Level(2., 1., 1.), Level(1., 1., 1e-305), Level(0., 1., 0.)]
    grid = Grid(*np.transpose([(level.t, level.alpha, level.sigma) for level in levels]), "far")
    for kind in ("x0", "eps"):
        for B in ("B1", "B2", "exact"):
            out = samplers.run(samplers.unipc(LINE, grid, np.ones((2, 1)), order=3, kind=kind, B=B))
            assert np.isfinite(out).all()
