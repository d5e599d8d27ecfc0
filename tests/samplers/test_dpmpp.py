"""DPM-Solver++ against its formulas at 50 digits; identities, rows, dtypes, counts and fuzz of both DPM-Solvers."""
import importlib
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import mutant

from refdiff import samplers
from refdiff.process import families, grids, schedules
from refdiff.process.exact import Gaussian
from refdiff.process.grids import Grid
from refdiff.process.parameterization import KINDS, LimitError, Prediction
from refdiff.rng import Key
from refdiff.samplers.dpm import dpm
from refdiff.samplers.dpmpp import dpmpp
from refdiff.samplers.orders import Claim, observe

EXPONENTIAL = importlib.import_module("refdiff.samplers.exponential")
WORLD = Gaussian([.7, -.4], [[.5, .2], [.2, .3]])
ANGLES = [1.35, 1.1, 1.0, .8, .55, .35]


# ---- the formulas, in mpmath

def mp_level(angle):
    """(lambda, alpha, sigma) of the circle at an angle."""
    a, s = mp.cos(mp.mpf(angle)), mp.sin(mp.mpf(angle))
    return mp.log(a / s), a, s


def mp_at(lam):
    return 1 / mp.sqrt(1 + mp.exp(-2 * lam)), 1 / mp.sqrt(1 + mp.exp(2 * lam))


def mp_x0(x, lam):
    return mp.sin(2 * x) + mp.mpf(.3) * lam * x - mp.mpf(.2)


def x0(x, level):
    return Prediction("x0", np.sin(2 * x) + .3 * level.lam * x - .2, x, level)


def mp_first(x, s, t, D):
    """sigma_t/sigma_s x - alpha_t (e^-h - 1) D."""
    (lam_s, _, s_s), (lam_t, a_t, s_t) = s, t
    return s_t / s_s * x - a_t * (mp.exp(lam_s - lam_t) - 1) * D


def mp_2s(x, s, t, r):
    h, m = t[0] - s[0], mp_x0(x, s[0])
    middle = (s[0] + r * h, *mp_at(s[0] + r * h))
    m_1 = mp_x0(mp_first(x, s, middle, m), middle[0])
    return mp_first(x, s, t, (1 - 1 / (2 * r)) * m + m_1 / (2 * r))


def mp_3s(x, s, t, r1, r2, rule="truncated"):
    """"exact": the parabola's slope and second derivative at the start of the step."""
    (lam, _, s_s), h = s, t[0] - s[0]
    a_1, s_1 = mp_at(lam + r1 * h)
    a_2, s_2 = mp_at(lam + r2 * h)
    m = mp_x0(x, lam)
    u_1 = s_1 / s_s * x - a_1 * (mp.exp(-r1 * h) - 1) * m
    D_1 = mp_x0(u_1, lam + r1 * h) - m
    u_2 = s_2 / s_s * x - a_2 * (mp.exp(-r2 * h) - 1) * m + a_2 * r2 / r1 * ((mp.exp(-r2 * h) - 1) / (r2 * h) + 1) * D_1
    D_2 = mp_x0(u_2, lam + r2 * h) - m
    phi_2 = (mp.exp(-h) - 1) / h + 1
    if rule == "truncated":
        return mp_first(x, s, t, m) + t[1] / r2 * phi_2 * D_2
    slope, curve = (r2 * D_1 / r1 - r1 * D_2 / r2) / (r2 - r1), 2 * (D_2 / r2 - D_1 / r1) / (r2 - r1)
    return mp_first(x, s, t, m) + t[1] * phi_2 * slope - t[1] * (phi_2 / h - mp.mpf(1) / 2) * curve


def mp_2m(x, s, t, m, before, rule):
    """before: (lambda, x0) of the step before."""
    h = t[0] - s[0]
    r = (s[0] - before[0]) / h
    if rule == "truncated":
        return mp_first(x, s, t, (1 + 1 / (2 * r)) * m - before[1] / (2 * r))
    slope = (m - before[1]) / r
    return mp_first(x, s, t, m) + t[1] * ((mp.exp(-h) - 1) / h + 1) * slope


def mp_3m(x, s, t, m, before, earlier, rule):
    """As the authors' code spells it; D_2 there is the divided difference, and the second derivative is twice that."""
    h = t[0] - s[0]
    r_0, r_1 = (s[0] - before[0]) / h, (before[0] - earlier[0]) / h
    D_10, D_11 = (m - before[1]) / r_0, (before[1] - earlier[1]) / r_1
    D_1 = D_10 + r_0 / (r_0 + r_1) * (D_10 - D_11)
    D_2 = (2 if rule == "exact" else 1) / (r_0 + r_1) * (D_10 - D_11)
    phi_2 = (mp.exp(-h) - 1) / h + 1
    return mp_first(x, s, t, m) + t[1] * phi_2 * D_1 - t[1] * (phi_2 / h - mp.mpf(1) / 2) * D_2


def mp_multi(x, order, rule, start="lower", final="never", angles=ANGLES):
    levels, history = [mp_level(angle) for angle in angles], []
    third, two = mp.mpf(1) / 3, mp.mpf(2) / 3
    for i, (s, t) in enumerate(zip(levels, levels[1:])):
        k = min(order, len(levels) - 1 - i) if final == "always" else order
        m = mp_x0(x, s[0])
        if start == "single" and len(history) < k - 1:
            x = mp_3s(x, s, t, third, two, rule) if k == 3 else mp_2s(x, s, t, mp.mpf(1) / 2)
        elif k == 1 or not history:
            x = mp_first(x, s, t, m)
        elif k == 2 or len(history) == 1:
            x = mp_2m(x, s, t, m, history[0], rule)
        else:
            x = mp_3m(x, s, t, m, history[0], history[1], rule)
        history = [(s[0], m), *history]
    return x


def judge(module, exact, order, form, angles=ANGLES, **options):
    grid = grids.on(families.TrigFlow(), angles)
    starts = [1.3, -.4, .25]
    got = [s.x for s in module.solve("test", "x0", x0, grid, np.array(starts)[:, None], order, form, **options)][-1]
    with mp.workdps(50):
        np.testing.assert_allclose(got[:, 0], [float(exact(mp.mpf(x))) for x in starts], rtol=2e-13,
                                   err_msg=f"{order} {form} {options}")


def along(step):
    """All steps of the angles by one single-step formula."""
    def run(x):
        for a, b in zip(ANGLES, ANGLES[1:]):
            x = step(x, mp_level(a), mp_level(b))
        return x
    return run


def check_2s(module):
    judge(module, along(lambda x, s, t: mp_2s(x, s, t, mp.mpf(1) / 2)), 2, "single")
    judge(module, along(lambda x, s, t: mp_2s(x, s, t, mp.mpf(.3))), 2, "single", r1=.3)


def check_3s(module):
    judge(module, along(lambda x, s, t: mp_3s(x, s, t, mp.mpf(1) / 3, mp.mpf(2) / 3)), 3, "single")
    for rule in ("truncated", "exact"):
        judge(module, along(lambda x, s, t: mp_3s(x, s, t, mp.mpf(.2), mp.mpf(.7), rule)), 3, "single", rule=rule,
              r1=.2, r2=.7)


def check_2m(module):
    for rule in ("truncated", "exact"):
        judge(module, lambda x: mp_multi(x, 2, rule), 2, "multi", rule=rule, lower_order_final="never")
    judge(module, lambda x: mp_multi(x, 2, "truncated", final="always"), 2, "multi")      # 5 steps: fewer than 15
    judge(module, lambda x: mp_multi(x, 2, "truncated", start="single"), 2, "multi", start="single",
          lower_order_final="never")


def check_3m(module):
    for rule in ("truncated", "exact"):
        judge(module, lambda x: mp_multi(x, 3, rule), 3, "multi", rule=rule, lower_order_final="never")
    judge(module, lambda x: mp_multi(x, 3, "exact", final="always"), 3, "multi")
    for rule in ("truncated", "exact"):
        for angles in (ANGLES, ANGLES[:4]):      # in three steps the second is of order 2, with one step before it
            judge(module, lambda x: mp_multi(x, 3, rule, "single", "always", angles), 3, "multi", angles, rule=rule,
                  start="single", lower_order_final="always")


def check_endings(module):
    """The last orders of third-order multistep trajectories, on both sides of 15 steps."""
    for steps, ending, last in ((14, None, (3, 2, 1)), (15, None, (3, 3, 3)), (12, "never", (3, 3, 3)),
                                (40, "always", (3, 2, 1)), (2, None, (2, 1))):
        made = module.plan("test", grids.karras(steps), 3, "multi", lower_order_final=ending)
        assert made.orders[-3:] == last and len(made.orders) == steps and set(made.orders[:-2]) <= {3}


def check_first_steps(module):
    """Order 1 of every form, in x0 and in eps, is DDIM without noise; also to sigma = 0 and from alpha = 0."""
    ends = Grid([2., 1., 0.], [0., .7, 1.], [1.3, .8, 0.], "both ends")
    for grid in (*short_grids(), ends):
        x = start(grid)
        wanted = [state.x for state in samplers.ddim(WORLD, grid, x)]
        for kind in ("x0", "eps"):
            for form in ("single", "multi"):
                got = [state.x for state in module.solve("test", kind, WORLD, grid, x, 1, form)]
                np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11, err_msg=grid.rule)


def short_grids():
    linear = schedules.linear(1000)
    flow = np.linspace(.95, 0, 8)
    yield from (grids.discrete(linear, S, rule) for S, rule in ((1, "trailing"), (5, "leading"), (7, "linspace")))
    yield grids.discrete(linear, 12, "trailing", final=1)
    yield grids.karras(9, .01, 20.)
    yield grids.karras(6, .05, 10., final=None)
    yield grids.on(families.Flow(), flow)


def start(grid, n=4, dtype=np.float64):
    level = grid.level(0)
    return Key(1).normal((n, 2), dtype) * math.hypot(level.alpha, level.sigma)


# ---- facts

def test_2s_is_its_algorithm_at_50_digits():
    check_2s(EXPONENTIAL)


def test_3s_is_its_formulas_at_50_digits():
    check_3s(EXPONENTIAL)


def test_2m_is_its_algorithm_at_50_digits():
    check_2m(EXPONENTIAL)


def test_3m_is_its_formulas_at_50_digits():
    check_3m(EXPONENTIAL)


def test_order_1_is_ddim():
    check_first_steps(EXPONENTIAL)


def test_dpmpp_is_these_rules_in_x0():
    grid = grids.on(families.TrigFlow(), ANGLES)
    x = np.array([[1.3], [-.4]])
    for options in ({}, {"order": 2, "form": "single", "r1": .3}, {"order": (3, 3, 2, 2, 1), "form": "single"},
                    {"order": 3, "start": "single", "rule": "truncated", "lower_order_final": "never", "r2": .7}):
        asked = {"order": 2, "form": "multi", **options}
        for a, b in zip(dpmpp(x0, grid, x, **options), EXPONENTIAL.solve("", "x0", x0, grid, x, **asked)):
            np.testing.assert_array_equal(a.x, b.x)


def test_the_third_order_multistep_of_the_authors_code_is_of_second_order_and_the_whole_curvature_makes_it_third():
    """Observed between 256 and 512 steps, with the same evaluations and the same start."""
    for solver in (dpm, dpmpp):
        for rule, order in (("truncated", 2), ("exact", 3)):
            claim = Claim("3M", solver, order, {"order": 3, "form": "multi", "start": "single", "rule": rule})
            for grid in ("karras", "circle"):
                observed = observe(claim, grid, (256, 512))
                assert abs(observed.order - order) < .15, (rule, observed)


def test_a_first_step_of_first_order_leaves_3m_second_order():
    """The papers' start. On a Karras grid the constant is so small that 2 is seen late: 2.4 from 256, 2.03 at 8192."""
    late = observe(Claim("3M", dpmpp, 2, {"order": 3}), "circle", (2048, 4096))
    early = observe(Claim("3M", dpmpp, 2, {"order": 3}), "karras", (256, 512))
    assert abs(late.order - 2) < .05 and 2.3 < early.order < 2.5, (late, early)


def test_few_steps_end_in_lower_orders():
    """Fewer than 15 steps, as the authors' documentation says; their code says 10, which at 12 steps is another end."""
    check_endings(EXPONENTIAL)
    grid = grids.karras(13, .05, 10., final=None)
    x = start(grid)
    documented, coded = (samplers.run(dpmpp(WORLD, grid, x, lower_order_final=e)) for e in ("paper", "never"))
    assert np.abs(documented - coded).max() > 1e-3
    assert np.array_equal(samplers.run(dpmpp(WORLD, grid, x)), documented)


def test_third_order_stands_on_r2_of_two_thirds():
    for solver in (dpm, dpmpp):
        for rule in ("truncated", "exact"):
            options = {"order": 3, "form": "single", "r1": .25, "r2": .5, "rule": rule}
            observed = observe(Claim("3S", solver, 2, options), "karras", (64, 256))
            assert abs(observed.order - 2) < .05, observed


LAMBDAS = np.linspace(-2.0, 2.6, 17)


def every_way():
    """(solver, options) of every order, form, rule, start and ending."""
    for solver in (dpm, dpmpp):
        yield solver, {"order": 1}
        yield solver, {"order": 1, "form": "multi"}
        for order in (2, 3):
            for rule in ("truncated", "exact"):
                yield solver, {"order": order, "form": "single", "rule": rule}
                for first in ("lower", "single"):
                    for ending in ("paper", "always", "never"):
                        yield solver, {"order": order, "form": "multi", "rule": rule, "start": first,
                                       "lower_order_final": ending}


WAYS = [(solver, {"form": "single", **options}) for solver, options in every_way()]


def test_every_family_gives_the_same_trajectory_in_x_over_alpha():
    """VE, VP and flow through the same lambdas: x/alpha agrees to 1e-11 at every step."""
    sigma = np.exp(-LAMBDAS)
    through = [grids.on(families.VarianceExploding(), sigma), grids.on(families.Flow(), 1 / (1 + np.exp(LAMBDAS))),
               grids.on(families.TrigFlow(), np.arctan(sigma))]
    z = Key(3).normal((4, 2))
    for solver, options in WAYS:
        paths = []
        for grid in through:
            x = z * sigma[0] * grid.level(0).alpha
            paths.append([state.x / state.level.alpha for state in solver(WORLD, grid, x, **options)])
        for path in paths[1:]:
            np.testing.assert_allclose(path, paths[0], rtol=1e-11, atol=1e-11, err_msg=f"{solver.__name__} {options}")


def test_evaluations_are_as_many_as_said():
    """Single-step: the order, each step; multistep: 1, but in the first steps with start="single"; 1 at sigma = 0."""
    for final, ending in ((None, 0), (0.0, 1)):
        grid = grids.karras(20 + (final is None), .02, 20., final=final)
        for solver, options in WAYS:
            seen, counts = [], []

            def denoiser(x, level):
                seen.append(level)
                return WORLD(x, level)

            for _ in solver(denoiser, grid, start(grid), **options):
                counts.append(len(seen))
                seen.clear()
            k = options["order"]
            if options["form"] == "single":
                wanted = [k] * 20
            else:
                wanted = [k if i < k - 1 and options.get("start") == "single" else 1 for i in range(20)]
            assert counts == wanted[:20 - ending] + [1] * ending, (solver.__name__, options)


def test_levels_inside_a_step_are_the_grid_s_family_s():
    grid = grids.discrete(schedules.linear(1000), 6)
    seen = []

    def denoiser(x, level):
        seen.append(level)
        return WORLD(x, level)

    next(dpmpp(denoiser, grid, start(grid), order=3, form="single"))
    s, t = grid.level(0), grid.level(1)
    for level, r in zip(seen, (0, 1 / 3, 2 / 3)):
        assert level.lam == pytest.approx(s.lam + r * (t.lam - s.lam), abs=1e-12)
        assert level.alpha ** 2 + level.sigma ** 2 == pytest.approx(1, abs=1e-12)


def test_rows_of_a_batch_do_not_mix():
    grid = grids.karras(7, .05, 20.)
    x = start(grid, 3)
    for solver, options in WAYS:
        whole = samplers.run(solver(WORLD, grid, x, **options))
        for i in range(3):
            alone = samplers.run(solver(WORLD, grid, x[i:i + 1], **options))
            # a one-row matrix product may sum in another order
            np.testing.assert_allclose(whole[i:i + 1], alone, rtol=1e-10, atol=1e-11, err_msg=f"{options}")


def test_dtype_is_kept_and_float32_is_float64_rounded():
    for grid in (grids.karras(7, .05, 20.), grids.discrete(schedules.linear(100), 8)):
        x = start(grid)
        for solver, options in WAYS:
            x32 = x.astype(np.float32)
            before = x32.copy()
            states = list(solver(WORLD, grid, x32, **options))
            assert all(state.x.dtype == np.float32 for state in states) and np.array_equal(x32, before)
            fine = samplers.run(solver(WORLD, grid, x, **options))
            # eps magnifies 6e-8 by alpha/sigma, and x/alpha by the start's sigma/alpha: 20 and 100 here
            np.testing.assert_allclose(states[-1].x, fine, atol=2e-4, err_msg=f"{solver.__name__} {options}")


SCHEDULES = {"linear": schedules.linear, "scaled": schedules.scaled_linear, "cosine": schedules.cosine,
             "zero": lambda T: schedules.zero_terminal_snr(schedules.linear(T))}


@st.composite
def drawn_grids(draw):
    steps = draw(st.integers(1, 20))
    which = draw(st.sampled_from(["discrete", "karras", "flow", "circle"]))
    if which == "discrete":
        schedule = SCHEDULES[draw(st.sampled_from(sorted(SCHEDULES)))](1000)
        rule = draw(st.sampled_from(sorted(grids.RULES)))
        times = sorted(set(grids.discrete(schedule, steps, rule).t.tolist()) - {0}, reverse=True)
        return grids.at_times(schedule, [*times, 0] if draw(st.booleans()) or len(times) < 2 else times)
    if which == "karras":
        return grids.karras(steps, .002, 80.) if draw(st.booleans()) else grids.karras(steps + 1, .002, 80., final=None)
    top, low = draw(st.sampled_from([1.0, .95])), draw(st.sampled_from([0.0, 1e-3, .1]))
    times = np.linspace(top, low, steps + 1)
    return grids.on(families.Flow(), times) if which == "flow" else grids.on(families.TrigFlow(), times * 1.5)


@settings(max_examples=300, deadline=None)
@given(drawn_grids(), st.sampled_from(WAYS), st.sampled_from(KINDS), st.sampled_from([np.float64, np.float32]))
def test_any_legal_combination_is_finite_or_refused_with_as_many_states_as_steps(grid, way, kind, dtype):
    solver, options = way

    def denoiser(x, level):
        return Prediction(kind, getattr(WORLD(x, level), kind), x, level)

    x = start(grid, dtype=dtype)
    try:
        states = list(solver(denoiser, grid, x, **options))
    except LimitError:
        # alpha = 0, where eps and score do not say x0; velocity and v do
        assert grid.alpha[0] == 0 and kind in ("eps", "score")
        return
    assert len(states) == len(grid) and [state.step for state in states] == list(range(len(grid)))
    assert all(state.level == grid.level(i + 1) for i, state in enumerate(states))
    assert all(np.all(np.isfinite(state.x)) and state.x.dtype == dtype for state in states)


# ---- planted mutants

MUTANTS = [
    (check_2s, "phi(1, z) / 2 if rule", "phi(2, z) if rule"),
    (check_2s, "1 / 2 if order == 2", "1 / 3 if order == 2"),
    (check_3s, "return w_0, 0.0, w_2", "return w_0, w_2, 0.0"),
    (check_3s, "second(r1 / r2, r2 * z", "second(r1 / r2, -r2 * z"),
    (check_2m, "phi(1, z) / 2 if rule == \"truncated\"", "phi(1, z) / 2 if rule == \"exact\""),
    (check_2m, "history[:order - 1], p.rule", "history[:order - 2], p.rule"),
    (check_2m, "history[:order - 1], p.rule", "history[:2], p.rule"),
    (check_2m, "p.start == \"lower\" or", "p.start == \"single\" or"),
    (check_2m, "start == \"lower\" or len(history) >= order - 1", "start == \"lower\" or len(history) >= order"),
    (check_3m, "len(history) >= order - 1", "len(history) >= max(p.orders) - 1"),
    (check_endings, "steps < FEW", "steps <= FEW"),
    (check_endings, "FEW = 15", "FEW = 10"),
    (check_2m, "steps < FEW", "steps > FEW"),
    (check_3m, "half = phi(3, z)", "half = 2 * phi(3, z)"),
    (check_3m, "*history[:1]]", "*history[1:2]]"),
    (check_3m, "history = [(s.lam, m0), *history[:1]]", "history = [*history[:1], (s.lam, m0)]"),
    (check_3m, "min(k, steps - i)", "min(k, steps - i + 1)"),
    (check_3m, "min(k, steps - i)", "min(k, max(steps - i, 2))"),
    (check_3m, "\"exact\" if form == \"multi\" and top == 3 else", "\"exact\" if form == \"single\" and top == 3 else"),
    (check_first_steps, "t.alpha - s.alpha * keep", "t.alpha - s.alpha"),
    (check_first_steps, "    keep = t.sigma / s.sigma\n", "    keep = t.sigma\n"),
    (check_first_steps, "[phi(1, z)], [m0]", "[phi(1, -z)], [m0]"),
    (check_first_steps, "if s.alpha == 0 or t.sigma == 0:", "if t.sigma == 0 or s.sigma > 0:\n            x = x * 1\n"
                        "        elif s.alpha == 0:"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises(AssertionError):
        check(mutant("samplers.exponential", (old, new)))
