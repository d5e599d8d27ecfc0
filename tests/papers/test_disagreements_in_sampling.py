"""Where sources disagree about solvers, grids and editing: the difference in numbers."""
import math

import numpy as np
import pytest

from refdiff import samplers
from refdiff.guidance import edit, gradient
from refdiff.process import families, grids, schedules
from refdiff.process.exact import Gaussian
from refdiff.process.gaussian import transition
from refdiff.process.grids import Grid
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import Prediction
from refdiff.process.polynomial import PolynomialDenoiser
from refdiff.samplers.deis import lambda_weights
from refdiff.samplers.exponential import multi, plan
from refdiff.samplers.langevin import step_size
from refdiff.samplers.lms import weights as rho_weights
from refdiff.samplers.plms import weights as plms_weights
from refdiff.samplers.unipc import BS
from refdiff.samplers.unipc import weights as unipc_weights

LINEAR = schedules.linear()
WORLD = Gaussian([.7], [[.3]])


def levels_at(*lam):
    """The VP family's levels at given lambda."""
    return [families.VP().at(value) for value in lam]


def through(levels, family=None):
    """The grid of these levels."""
    return Grid(*np.transpose([(level.t, level.alpha, level.sigma) for level in levels]), "given", family)


# ---- exponential integrators

def test_half_of_the_curvature_leaves_a_parabola_inexact():
    """Three predictions on lambda^2 + 3 lambda + 1 at -.3, .1, .35, and a step to .8."""
    *before, s, t = levels_at(-.3, .1, .35, .8)
    world = PolynomialDenoiser([1., 3., 1.])
    m = [float(world(np.zeros(1), level).x0[0]) for level in (s, *before[::-1])]
    wanted, x = world.flow(np.zeros(1), s, t), np.zeros(1)
    history = [(level.lam, value) for level, value in zip(before[::-1], m[1:])]
    missed = [float((wanted - multi("x0", x, s, t, m[0], history, rule))[0]) / t.alpha
              for rule in ("truncated", "exact")]
    h = t.lam - s.lam
    curvature = (math.exp(-h) - 1 + h) / h ** 2 - .5            # the weight of h^2 times the second derivative, 2
    np.testing.assert_allclose(missed, [-curvature * h ** 2, 0], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(missed[0], .0136219, rtol=1e-5)


def test_B_matters_only_where_one_half_stands_for_the_solved_coefficient():
    """UniP-2 at h = .5: a_1 = 1/2 with B_1 = h and B_2 = 1 - e^-h; solved, a_1 B is h phi_2(-h) for both."""
    s, t, before = levels_at(0., .5, -.5)
    w = {B: unipc_weights("x0", s, t, [before], B)[0] for B in BS}
    np.testing.assert_allclose([w["B1"], w["B2"]], [-.25, -(1 - math.exp(-.5)) / 2], rtol=1e-12)
    solved = -(math.exp(-.5) - 1 + .5) / .5                     # u^1 integrated over the node, -1
    np.testing.assert_allclose(w["exact"], solved, rtol=1e-12)
    np.testing.assert_allclose([-solved / .5, -solved / (1 - math.exp(-.5))], [.426123, .541494], rtol=1e-6)
    two = [before, *levels_at(-1.)]
    np.testing.assert_allclose(*(unipc_weights("x0", s, t, two, B) for B in ("B1", "B2")), rtol=1e-15)


def test_the_last_orders_are_lowered_below_15_steps_or_below_10_or_always():
    lowered = {}
    for S in (9, 10, 14, 15):
        grid = through(levels_at(*np.linspace(-2, 2, S + 1)))
        named = {name: plan("dpmpp", grid, 3, "multi", lower_order_final=name).orders
                 for name in ("paper", "always", "never")}
        code = named["always"] if S < 10 else named["never"]
        lowered[S] = [sum(3 - order for order in orders[-2:])
                      for orders in (named["paper"], code, named["always"])]
    np.testing.assert_array_equal([lowered[S] for S in (9, 10, 14, 15)], [[3, 3, 3], [3, 0, 3], [3, 0, 3], [0, 0, 3]])


def test_a_discrete_network_s_labels_are_met_by_one_of_three_maps():
    """t = n/N of VP is level n, whose network is told n - 1."""
    n, N = np.array([1, 500, 1000]), 1000
    t = n / N
    first, section, second = 1000 * np.maximum(t - 1 / N, 0), (N - 1) * t, 1000 * (N - 1) * t / N
    np.testing.assert_allclose([first, section, second], [[0, 499, 999], [.999, 499.5, 999], [.999, 499.5, 999]],
                               rtol=1e-12, atol=1e-12)
    N = 100                                                     # labels in thousandths, whatever N is
    np.testing.assert_allclose([1000 * max(.5 - 1 / N, 0), (N - 1) * .5, 1000 * (N - 1) * .5 / N], [490, 49.5, 495])


def test_a_cut_at_minus_5_1_takes_four_levels_of_the_cosine_schedule_and_moves_the_labels():
    lam = schedules.cosine().level(np.arange(1, 1001)).lam
    cos = [math.cos((t / 1000 + .008) / 1.008 * math.pi / 2) for t in (0, 997, 998, 999)]
    abar = (np.array(cos[1:]) / cos[0]) ** 2
    abar = np.append(abar, abar[-1] * (1 - .999))
    np.testing.assert_allclose(lam[lam < -5.1], (np.log(abar) - np.log1p(-abar)) / 2, rtol=1e-6)
    np.testing.assert_allclose(lam[lam < -5.1], [-5.3654, -5.7709, -6.4641, -9.9179], rtol=1e-5)
    np.testing.assert_allclose(LINEAR.level(1000).lam, -5.0588, rtol=1e-5)
    kept = int(np.sum(lam >= -5.1))
    np.testing.assert_allclose([kept - 1, (1 - 1 / kept) * 1000], [995, 998.996], rtol=1e-6)     # the last one's label


def test_the_middle_of_a_step_is_that_of_log_sigma_or_of_its_cube_root():
    """From sigma 10 to 1 DPM-Solver-2 evaluates at the geometric mean; code named after it at the other."""
    s, t = ve(10.), ve(1.)
    grid, seen = through([s, t], families.VarianceExploding()), []

    def denoiser(x, level):
        seen.append(level.sigma)
        return WORLD(x, level)
    samplers.run(samplers.dpm(denoiser, grid, np.ones((1, 1)), order=2))
    np.testing.assert_allclose([seen[1], ((10 ** (1 / 3) + 1) / 2) ** 3], [math.sqrt(10), 3.923509], rtol=1e-6)


# ---- Adams

def test_the_polynomial_of_deis_in_rho_or_in_log_rho():
    """The line through the values at 3 and 2, from rho = 2 to 1: exact for eps = rho, or for eps = log rho."""
    before, s, t = (ve(sigma) for sigma in (3., 2., 1.))
    w = [module(s, t, [before])[0] for module in (rho_weights, lambda_weights)]
    np.testing.assert_allclose(w, [.5, (1 - math.log(2)) / math.log(1.5)], rtol=1e-12)
    exact = [-1.5, 1 - 2 * math.log(2)]                         # the integrals of rho and of log rho
    found = [[-eps(2.) + each * (eps(3.) - eps(2.)) for each in w] for eps in (float, math.log)]
    np.testing.assert_allclose([found[0][0], found[1][1]], exact, rtol=1e-12)
    np.testing.assert_allclose([found[0][1] - exact[0], found[1][0] - exact[1]], [.256792, -.104120], rtol=1e-5)


def test_pseudo_numerical_methods_start_with_nine_evaluations_more_or_with_lower_orders():
    grid = grids.on(families.VP(), np.linspace(.9, .1, 21))
    x, count = np.ones((3, 1)), {}
    for start in ("prk", "lower"):
        seen = []

        def denoiser(y, level):
            seen.append(level.t)
            return WORLD(y, level)
        samplers.run(samplers.plms(denoiser, grid, x, start=start))
        count[start] = len(seen)
    np.testing.assert_array_equal([count["prk"], count["lower"]], [20 + 9, 20])
    e = [5., 3., 2.]                                            # latest first
    t, s = grid.level(2), grid.level(3)
    for n, formula in ((1, (3 * 5 - 3) / 2), (2, (23 * 5 - 16 * 3 + 5 * 2) / 12)):
        w = plms_weights(t, s, [grid.level(1), grid.level(0)][:n])
        np.testing.assert_allclose(5 + sum(a * (b - 5) for a, b in zip(w, e[1:])) / (s.ratio - t.ratio), formula,
                                   rtol=1e-12)


# ---- stochastic samplers

def test_the_same_stream_of_noise_is_used_otherwise_where_it_is_drawn_at_every_step():
    """Churn at the second of two steps: its noise is the stream's first draw, or its second; S_noise multiplies it."""
    grid, x = grids.karras(2, 1., 10.), np.array([[3.]])
    kick = {}
    for draws in ("used", "every"):
        for S_noise in (1., 1.007):
            stream = iter([np.array([[1.]]), np.array([[-2.]])])
            states = list(samplers.churn(WORLD, grid, x, S_churn=.4, S_tmax=2., S_noise=S_noise, draws=draws,
                                         noise=lambda step: next(stream)))
            kick[draws, S_noise] = float((states[1].prediction.x - states[0].x)[0, 0])
    gamma = .4 / 2
    up = math.sqrt((1 + gamma) ** 2 - 1)                        # from sigma 1 to 1 + gamma
    np.testing.assert_allclose([kick["used", 1.], kick["every", 1.], kick["used", 1.007]],
                               [up, -2 * up, 1.007 * up], rtol=1e-12)


def test_euler_maruyama_s_step_is_the_grid_s_or_one_nth():
    """N times from 1 to eps are N - 1 steps of (1 - eps)/(N - 1); the authors' code makes N of 1/N."""
    for N, eps, spacing in ((10, 1e-3, .111), (1000, 1e-3, .001), (1000, 1e-5, .00100099099)):
        grid = grids.on(families.VP(), np.append(np.linspace(1, eps, N), eps / 2))
        f = float(grid.family.f(1.))
        x, found = np.array([[2.]]), []
        silent = lambda y, level: Prediction("eps", 0 * y, y, level)           # noqa: E731
        for dt in ("spacing", "T/N"):
            state = next(samplers.euler_maruyama(silent, grid, x, dt=dt, noise=lambda step: 0 * x))
            found.append(float(1 - state.x[0, 0] / 2) / f)
        np.testing.assert_allclose(found, [spacing, 1 / N], rtol=1e-7)


def test_langevin_s_step_is_each_row_s_or_the_batch_s():
    z, score = np.array([[3., 4.], [0., 1.]]), np.array([[1., 0.], [0., 10.]])
    own = step_size("norm", .16, 1., 1., score, z)
    batch = step_size("batch-norm", .16, 1., 1., score, z)
    np.testing.assert_allclose(own[:, 0], [2 * (.16 * 5) ** 2, 2 * (.16 * .1) ** 2], rtol=1e-14)
    np.testing.assert_allclose(batch, 2 * (.16 * 3 / 5.5) ** 2, rtol=1e-14)


# ---- grids and ends

def test_ten_of_a_thousand_steps_are_four_grids():
    """As public code counts, t = 0 being one step of noise; then alpha_bar where they begin."""
    named = {"stride": range(0, 1000, 100), "linspace": range(0, 1000, 111), "trailing": range(99, 1000, 100),
             "quadratic": [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]}
    for rule, times in named.items():
        np.testing.assert_array_equal(grids.discrete(LINEAR, 10, rule).t[:-1][::-1] - 1, times)
    first = [float(grids.discrete(LINEAR, 10, rule).alpha[0]) ** 2 for rule in named]
    np.testing.assert_allclose(first, [math.prod(1 - LINEAR.beta[1:t + 1]) for t in (901, 1000, 1000, 801)], rtol=1e-12)


def test_the_end_of_a_grid_is_clean_or_keeps_the_first_step_s_noise():
    stable = schedules.scaled_linear()
    ends = [grids.discrete(stable, 20, final=final).alpha[-1] ** 2 for final in ("zero", "first")]
    np.testing.assert_allclose(ends, [1, .99915], rtol=1e-12)


def test_a_start_of_sigma_max_or_of_its_root_with_one():
    """Data of variance .25 have neither at sigma = 80: 80.0016."""
    np.testing.assert_allclose([80, Gaussian([0.], [[.25]]).marginal(ve(80.)).cov[0, 0] ** .5, math.sqrt(80 ** 2 + 1)],
                               [80, 80.0015625, 80.00625], rtol=1e-8)


def test_zero_terminal_snr_is_zero_or_2_to_the_minus_24():
    level = schedules.zero_terminal_snr(LINEAR).level(1000)
    kept = Level(1000, 2. ** -12, math.sqrt(1 - 2. ** -24))
    np.testing.assert_allclose([level.snr, kept.snr, kept.ratio], [0, 2. ** -24, 4096], rtol=1e-7)
    assert level.ratio == math.inf


def test_trigflow_starts_below_the_quarter_circle_or_a_little_above():
    family = families.TrigFlow(.5)
    np.testing.assert_allclose([family.time(-math.log(80.)), math.cos(1.57080)], [1.564546, -3.6732e-6], rtol=1e-5)
    with pytest.raises(ValueError, match="t is 1.5708"):
        family.level(1.57080)


def test_two_papers_shift_by_one_amount_in_pixels_a_side_and_in_all():
    d, t = 256, np.array([.2, .5, .9])
    shift = 2 * math.log(64 / d)                                # of log SNR; m = d^2 and n = 64^2 pixels
    np.testing.assert_allclose([shift, -math.log(d ** 2 / 64 ** 2)], [-2.772589] * 2, rtol=1e-6)
    for moved, plain in ((families.Cosine(shift=d / 64), families.Cosine()),
                         (families.Flow(math.sqrt(d ** 2 / 64 ** 2)), families.Flow())):
        np.testing.assert_allclose(moved.log_snr(t) - plain.log_snr(t), shift, rtol=1e-12)


# ---- editing and guidance

def test_a_strength_is_rounded_to_steps_or_cut():
    strengths, S = (.05, .5, .75, .99), 50
    found = [[edit.strength_steps(grids.karras(S), strength), int(strength * S)] for strength in strengths]
    np.testing.assert_array_equal(found, [[2, 2], [25, 25], [38, 37], [50, 49]])


def test_the_known_part_is_noised_to_the_level_after_the_step_or_before():
    """A step of DDPM's schedule from t = 501 to 401 with noise 0: alpha of 401 or of 501, times the known 2."""
    grid = grids.at_times(LINEAR, [501, 401, 0])
    x = known = np.full((1, 1), 2.)
    state = next(edit.inpaint(WORLD, grid, x, known, np.array([[True]]), noise=lambda step: 0 * x))
    before, after = (math.sqrt(math.prod(1 - b for b in LINEAR.beta[1:t + 1])) for t in (501, 401))
    np.testing.assert_allclose([state.x[0, 0], 2 * before], [2 * after, .557841], rtol=1e-6)


def test_the_step_back_has_the_variance_of_the_step_it_undoes():
    """From t - 1 to t it is beta_t in DDPM's index; with the printed beta_(t-1) x_t's variance is not kept."""
    s, t = LINEAR.level(1), LINEAR.level(2)
    alpha, variance = transition(s, t)
    np.testing.assert_allclose([variance, LINEAR.beta[1]], [1e-4 + .0199 / 999, 1e-4], rtol=1e-9)
    printed = (1 - 1e-4) * s.sigma ** 2 + 1e-4
    np.testing.assert_allclose([alpha ** 2 * s.sigma ** 2 + variance, printed], [t.sigma ** 2, 1.9999e-4], rtol=1e-9)


def test_the_scale_multiplies_the_classifier_s_gradient():
    level, x = LINEAR.level(300), np.array([[.5]])
    shifts = [gradient.classifier(WORLD, lambda y, lev: y * 0 + 2., scale)(x, level).eps - WORLD(x, level).eps
              for scale in (1., 3.)]
    np.testing.assert_allclose(shifts, [[[-2 * level.sigma]], [[-6 * level.sigma]]], rtol=1e-12)
