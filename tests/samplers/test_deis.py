"""DEIS against its paper's integrals at 50 digits, in all three variables. Mutants must die."""
import math
from functools import lru_cache

import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff import samplers
from refdiff.process import families, grids, schedules
from refdiff.process.exact import Mixture
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.process.polynomial import PolynomialDenoiser
from refdiff.rng import Key
from refdiff.samplers.orders import Claim, observe

DEIS = mutant("samplers.deis")
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
VP = families.VP()


# ---- checks, of any implementation

@lru_cache
def coefficients(variable, times):
    """The paper's C_ij, j = 0..r, of the last step of `times`: Psi, g^2 and sigma of the VP SDE, at 50 digits."""
    with mp.workdps(50):
        times = [mp.mpf(float(time)) for time in times]
        b0, b1 = mp.mpf(VP.beta_min), mp.mpf(VP.beta_max)

        def B(t):
            return b0 * t + (b1 - b0) * t ** 2 / 2

        def sigma(t):
            return mp.sqrt(-mp.expm1(-B(t)))

        def ratio(t):
            return mp.sqrt(mp.expm1(B(t)))

        u = {"t": lambda t: t, "rho": ratio, "lambda": lambda t: -mp.log(ratio(t))}[variable]
        end, *nodes = times[::-1]
        at = [u(node) for node in nodes]

        def integrand(t, j):
            Psi, g2, u_t = mp.exp((B(t) - B(end)) / 2), b0 + (b1 - b0) * t, u(t)
            lagrange = mp.fprod((u_t - at[k]) / (at[j] - at[k]) for k in range(len(at)) if k != j)
            return Psi * g2 / (2 * sigma(t)) * lagrange

        return [float(mp.quad(lambda t: integrand(t, j), [nodes[0], end])) for j in range(len(nodes))]


def check_coefficients(module):
    for variable in ("t", "rho", "lambda"):
        for times in ((.9, .8, .74), (1., .6, .5, .31), (.35, .3, .22, .15, .08)):
            grid = grids.on(VP, times)
            levels = [grid.level(i) for i in range(len(times))]
            *earlier, t, s = levels
            w = module.VARIABLES[variable](grid)(t, s, earlier[::-1])
            got = [s.alpha * (s.ratio - t.ratio - sum(w)), *(s.alpha * w_m for w_m in w)]
            wanted = coefficients(variable, times)
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12 * np.abs(wanted).max())


def check_lambda_polynomials(module):
    """Exact for eps of degree k - 1 in lambda, to the clean level too: int_h^inf of e^-u u^k is a factorial."""
    for grid in (grids.karras(9, .05, 3.), grids.on(families.Flow(), [.8, .6, .55, .3, .28, .1, .01])):
        for k in (1, 2, 3, 4):
            world = PolynomialDenoiser(Key(k).normal((k,)), "eps")
            states = list(module.deis(world, grid, Key(2).normal((3, 1)), order=k, variable="lambda"))
            for a, b in zip(states[k - 1:-1], states[k:]):
                if b.level.sigma:
                    wanted = world.flow(a.x, a.level, b.level)
                else:                                          # e^-lambda q(lambda) is gone there
                    q, term = np.polynomial.Polynomial([0.]), world.p
                    for _ in range(k):
                        q, term = q + term, term.deriv()
                    wanted = b.level.alpha * (a.x - a.level.sigma * float(q(a.level.lam))) / a.level.alpha
                np.testing.assert_allclose(b.x, wanted, rtol=1e-12, atol=1e-12)


SLOPES = {families.Flow(): lambda t: 1 / (1 - t) ** 2, families.TrigFlow(): lambda t: mp.sec(t) ** 2,
          families.VarianceExploding(): lambda t: mp.mpf(1)}


def check_time_polynomials(module):
    """Exact for eps of degree k - 1 in t, to t = 0 too; d ratio/dt by hand."""
    for family, slope in SLOPES.items():
        grid = grids.on(family, [.9, .7, .66, .5, .2, .1, 0.])
        for k in (2, 3, 4):
            c = Key(k).normal((k,)).tolist()

            def denoiser(x, level):
                return Prediction("eps", 0 * x + float(np.polynomial.Polynomial(c)(level.t)), x, level)

            states = list(module.deis(denoiser, grid, Key(2).normal((3, 1)), order=k, variable="t"))
            for a, b in zip(states[k - 1:-1], states[k:]):
                integral = float(mp.quad(lambda t: sum(c_j * t ** j for j, c_j in enumerate(c)) * slope(t),
                                         [a.level.t, b.level.t]))
                wanted = b.level.alpha * (a.x / a.level.alpha + integral)
                np.testing.assert_allclose(b.x, wanted, rtol=1e-12, atol=1e-12)


def check_long_steps(module):
    """From almost no signal, where ratio has a pole nearby, over a fall of sigma/alpha by up to all of it."""
    for family, slope in list(SLOPES.items())[:2]:
        for first, last in ((.9999, .5), (.999, .9), (.99, 0.)):
            first, last = first * family.t_max, last * family.t_max
            t, s = family.level(first), family.level(last)
            with mp.workdps(50):
                ends = [first, *(family.time(lam) for lam in np.arange(t.lam + 1, min(s.lam, 9))), last]
                wanted = [float(mp.quad(lambda v: (v - mp.mpf(first)) ** k * slope(v), ends)) for k in (1, 2, 3)]
            np.testing.assert_allclose(module.time_moments(family, t, s, 3), wanted, rtol=1e-11)


def check_discrete(module):
    """Between a schedule's integer times log ratio is linear in t, below t = 1 ratio is; by hand, piece by piece."""
    schedule = schedules.cosine(12)
    grid = grids.at_times(schedule, [11, 10, 7, 3, 0])
    ratio = [mp.mpf(0), *(mp.mpf(schedule.level(t).ratio) for t in range(1, 13))]

    def slope(t):
        j = int(mp.floor(t))
        if j == 0:
            return ratio[1]
        log = mp.log(ratio[j + 1] / ratio[j])
        return log * ratio[j] * mp.e ** (log * (t - j))

    for i in (1, 2, 3):
        t, s = grid.level(i), grid.level(i + 1)
        pieces = list(range(int(t.t), int(s.t) - 1, -1))
        wanted = [float(mp.quad(lambda v: (v - int(t.t)) ** k * slope(v), pieces)) for k in (1, 2, 3)]
        np.testing.assert_allclose(module.time_moments(grid.family, t, s, 3), wanted, rtol=1e-12)


def check_order(module):
    for grid, variable, k in (("circle", "t", 3), ("karras", "t", 3), ("karras", "lambda", 3), ("circle", "t", 4)):
        claim = Claim("", module.deis, k, {"order": k, "variable": variable, "start": "rk4"})
        coarse, fine = observe(claim, grid, (256, 512)).errors
        assert abs(math.log2(coarse / fine) - k) < .1, (grid, variable, k, coarse, fine)


def check_ending(module):
    grid, x = grids.karras(7, .05, 10., final=None), Key(1).normal((3, 1)) * 10
    kept, lowered, never = (list(module.deis(LINE, grid, x, lower_order_final=how))
                            for how in ("paper", "always", "never"))
    assert np.array_equal(kept[-1].x, never[-1].x)
    assert [np.array_equal(a.x, b.x) for a, b in zip(kept, lowered)] == [True] * 4 + [False] * 2


# ---- facts

def test_coefficients_are_the_paper_s_integrals_at_50_digits():
    check_coefficients(DEIS)


def test_a_step_integrates_a_polynomial_in_lambda_exactly():
    check_lambda_polynomials(DEIS)


def test_a_step_integrates_a_polynomial_in_t_exactly():
    check_time_polynomials(DEIS)


def test_a_long_step_from_almost_no_signal_keeps_its_digits():
    check_long_steps(DEIS)


def test_a_discrete_schedule_is_integrated_piece_by_piece():
    check_discrete(DEIS)


def test_orders_in_t_and_lambda():
    check_order(DEIS)


def test_the_order_is_kept_to_the_end_unless_asked():
    check_ending(DEIS)


def test_the_paper_s_start_costs_all_orders_above_two():
    paper, full = (observe(Claim("", samplers.deis, 0, {"order": 3, "start": start}), "circle", (256, 512)).errors
                   for start in ("lower", "rk4"))
    assert abs(math.log2(paper[0] / paper[1]) - 2) < .1 and abs(math.log2(full[0] / full[1]) - 3) < .1
    assert paper[1] > 100 * full[1]


def test_in_rho_it_is_linear_multistep():
    for grid in (grids.karras(9), grids.discrete(schedules.linear(100), 8)):
        x = Key(1).normal((3, 1)) * grid.sigma[0]
        for k in (1, 2, 3, 4):
            np.testing.assert_array_equal(samplers.run(samplers.deis(LINE, grid, x, order=k, variable="rho")),
                                          samplers.run(samplers.lms(LINE, grid, x, order=k)))


def test_in_lambda_it_is_the_predictor_of_unipc_in_eps():
    grid, x = grids.karras(9, .05, 10., final=None), Key(1).normal((3, 1)) * 10
    for k in (1, 2, 3, 4):
        options = {"kind": "eps", "B": "exact", "corrector": "never", "lower_order_final": "never"}
        np.testing.assert_allclose(samplers.run(samplers.deis(LINE, grid, x, order=k, variable="lambda")),
                                   samplers.run(samplers.unipc(LINE, grid, x, order=k, **options)), rtol=1e-13)


def test_order_one_is_ddim_in_every_variable():
    for grid in (grids.karras(7), grids.discrete(schedules.linear(100), 8)):
        x = Key(1).normal((3, 1)) * grid.sigma[0]
        for variable in ("t", "rho", "lambda"):
            np.testing.assert_array_equal(samplers.run(samplers.deis(LINE, grid, x, order=1, variable=variable)),
                                          samplers.run(samplers.ddim(LINE, grid, x)))


BARE = Grid([3, 2, 1], [1., 1., 1.], [3., 2., 1.], "bare")
WRONG = Grid([3, 2, 1], [1., 1., 1.], [4., 2., 1.], "wrong", families.VarianceExploding())


@pytest.mark.parametrize("grid, options, message", [
    (BARE, {"order": 0}, "order is 0, wanted an integer in 1..4"), (BARE, {"variable": "x"}, "variable is 'x'"),
    (BARE, {}, "names no family; pass Grid\\(..., family=...\\), or use variable='rho'"),
    (BARE, {"variable": "rho", "start": "rk4"}, "names no family"), (WRONG, {}, "not those of its family ve"),
    (BARE, {"variable": "rho", "lower_order_final": None}, "lower_order_final is None")])
def test_impossible_options_are_refused_before_any_work(grid, options, message):
    with pytest.raises(ValueError, match=message):
        samplers.deis(None, grid, np.ones((2, 1)), **options)


# ---- planted mutants

MUTANTS = [
    (check_coefficients, "level.lam - t.lam", "level.lam - s.lam - 1e-9"),
    (check_coefficients, "(s.t - t.t) ** k *", "(s.t - t.t) *"),
    (check_coefficients, "(s.ratio - t.ratio) - float", "(s.sigma - t.sigma) - float"),
    (check_coefficients, "k * u ** (k - 1)", "u ** (k - 1)"),
    (check_coefficients, "k * u ** (k - 1)", "k * u ** k"),
    (check_coefficients, "(ratio - t.ratio)", "ratio"),
    (check_coefficients, "np.exp(-family", "np.exp(family"),
    (check_coefficients, "leggauss(32)", "leggauss(3)"),
    (check_coefficients, "level.t - t.t for level", "1.001 * level.t - t.t for level"),
    (check_time_polynomials, "half * WEIGHTS", "1.001 * half * WEIGHTS"),
    (check_time_polynomials, "np.diff(ends)[:, None] / 2", "np.diff(ends)[:, None] / 2.001"),
    (check_discrete, "ratio * np.minimum(times, 1.0)", "ratio"),
    (check_discrete, "math.floor(t.t) + 1", "math.floor(t.t) - 1"),
    (check_discrete, "np.arange(math.ceil(s.t)", "np.arange(2 + math.ceil(s.t)"),
    (check_long_steps, "t.lam + 20), 2)", "t.lam + 3), 2)"),
    (check_lambda_polynomials, "eps_moments(t, s, len(earlier))", "ratio_moments"),
    (check_order, "earlier], time_moments(family, t, s,", "earlier], eps_moments(t, s,"),
    (check_order, "grid: lambda_weights", "grid: lambda t, s, e: lambda_weights(t, s, e[:1])"),
    (check_ending, 'lower_order_final == "always"', 'lower_order_final == "never"'),
]
SHARED = [("math.factorial(k) * float", "float"), ("gammainc(k + 1,", "gammainc(k,"),
          ("-t.ratio * math", "-s.ratio * math")]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    if new == "ratio_moments":
        new = "[(s.ratio - t.ratio) ** (k + 1) / (k + 1) for k in range(1, len(earlier) + 1)]"
    with pytest.raises(AssertionError):
        check(mutant("samplers.deis", (old, new)))


@pytest.mark.parametrize("old, new", SHARED, ids=range(len(SHARED)))
def test_every_mutant_of_the_moments_is_killed(old, new):
    made = mutant("samplers.deis")
    made.eps_moments = mutant("samplers.multistep", (old, new)).eps_moments
    for check in (check_coefficients, check_lambda_polynomials):
        with pytest.raises(AssertionError):
            check(made)
