"""Guidance as maps of denoisers, on Gaussian worlds where the guided score, its flow and its law are known.

Each check takes the functions it judges as arguments, so that the mutants at the end run through the same checks.
"""
import math
import types

import mpmath as mp
import numpy as np
import planted
import pytest
from scipy.integrate import solve_ivp

from refdiff import guidance, samplers
from refdiff.guidance import exact, free, gradient, threshold
from refdiff.process import affine, grids, schedules
from refdiff.process.exact import Gaussian, Mixture
from refdiff.process.grids import Grid
from refdiff.process.level import Level, ve
from refdiff.process.maps import in_batches
from refdiff.process.parameterization import KINDS, LimitError, Prediction
from refdiff.rng import Key

U = 2.0 ** -53
C = Gaussian([.7, -.4], [[.3, .1], [.1, .2]])
W = Gaussian([-.2, .3], [[.9, -.2], [-.2, .6]])
LINE_C, LINE_U = Gaussian(.5, .09), Gaussian(-.2, .64)
MIX = Mixture([.2, .5, .3], [[-1.5, 0.], [.3, .6], [1., -1.]],
              [.1 * np.eye(2), [[.3, .1], [.1, .2]], [[.05, 0.], [0., .4]]])
LEVELS = [ve(.05), ve(3.), Level(1, .8, .6), Level(2, .03, .9995), Level(.5, .5, .5)]
X = np.random.default_rng(7).standard_normal((6, 2)) * 1.5


def as_kind(world, kind):
    return lambda x, level: Prediction(kind, getattr(world(x, level), kind), x, level)


def rows(n):
    angle = np.linspace(.2, 1.4, n)
    return Level(angle, np.cos(angle), np.sin(angle))


def product_score(x, level, s):
    """The score of the normal law with precision s P_c + (1 - s) P_u, by inverses of the noised covariances."""
    a = level.alpha
    P_c, P_u = (np.linalg.inv(a ** 2 * world.cov + level.sigma ** 2 * np.eye(2)) for world in (C, W))
    P = s * P_c + (1 - s) * P_u
    mean = np.linalg.solve(P, s * P_c @ (a * C.mean) + (1 - s) * P_u @ (a * W.mean))
    return -(x - mean) @ P


# ---- checks, of any implementation

def check_cfg(cfg):
    """In either convention and in every kind, the guided score is that of the product of the noised densities."""
    for level in LEVELS:
        for s in (-.5, 0., .4, 1., 2., 7.5):
            expected = product_score(X, level, s)
            for kind in KINDS:
                c, u = as_kind(C, kind), as_kind(W, kind)
                for guided in (cfg(c, u, scale=s), cfg(c, u, w=s - 1)):
                    p = guided(X, level)
                    assert p.kind == kind
                    # the other kinds reach the score by (alpha x0 - x)/sigma^2: alpha/sigma^2 = 400 roundings at most
                    np.testing.assert_allclose(p.score, expected, rtol=1e-11, atol=1e-11)


def check_cfg_in_terms_of_its_two_halves(cfg):
    """The conventions as they are written in the papers, on predictions that have nothing to do with a world."""
    a, b = Key(1).normal((6, 2)), Key(2).normal((6, 2))
    one, other = (lambda x, level, v=v: Prediction("eps", v, x, level) for v in (a, b))
    for s in (-1., .5, 3.):
        np.testing.assert_allclose(cfg(one, other, scale=s)(X, ve(1.)).eps, b + s * (a - b), rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(cfg(one, other, w=s)(X, ve(1.)).eps, (1 + s) * a - s * b, rtol=1e-13, atol=1e-14)


def check_mixed_kinds(cfg):
    for level in LEVELS:
        p = cfg(as_kind(C, "v"), as_kind(W, "eps"), scale=3.)(X, level)
        np.testing.assert_allclose(p.score, product_score(X, level, 3.), rtol=1e-11, atol=1e-11)


def check_rescale(cfg):
    """phi = 1 gives every row the conditional's standard deviation; the direction stays; phi mixes linearly."""
    x, level = Key(3).normal((4, 3, 2)), Level(1, .8, .6)
    values = Key(4).normal((4, 3, 2)) + .5, 2 * Key(5).normal((4, 3, 2))
    c, u = (lambda y, lev, v=v: Prediction("v", v, y, lev) for v in values)
    g = values[1] + 4 * (values[0] - values[1])
    whole = cfg(c, u, scale=4, rescale=1.0)(x, level).v

    def std(rows_):
        flat = rows_.reshape(4, 6)
        return np.array([math.sqrt(sum((v - sum(r) / 6) ** 2 for v in r) / 6) for r in flat])[:, None, None]

    np.testing.assert_allclose(std(whole), std(values[0]), rtol=1e-13)
    np.testing.assert_allclose(whole, g * std(values[0]) / std(g), rtol=1e-12)
    part = cfg(c, u, scale=4, rescale=.7)(x, level).v
    np.testing.assert_allclose(part, .7 * whole + .3 * g, rtol=1e-12, atol=1e-14)
    x0 = cfg(c, u, scale=4, rescale=1.0, kind="x0")(x, level).x0
    np.testing.assert_allclose(std(x0), std(c(x, level).x0), rtol=1e-12)
    assert abs(std(cfg(c, u, scale=4, rescale=1.0)(x, level).x0) / std(x0) - 1).max() > .01     # the kind matters


def network(x, level, labels):
    """A labelled world: label k is component k of MIX, the null label 3 all of it. One evaluation of all rows."""
    out = MIX.posterior_mean(x, level)
    for k, component in enumerate(MIX.components):
        out = np.where((labels == k)[:, None], component.posterior_mean(x, level), out)
    return Prediction("x0", out, x, level)


def check_one_evaluation(cfg_labels):
    labels, null = np.array([0, 1, 2, 2, 1, 0]), np.array([3, 3, 3, 0, 0, 1])
    calls = []

    def counted(x, level, y):
        calls.append(len(x))
        return network(x, level, y)

    for level in (ve(.8), rows(6)):
        for options in ({"scale": 2.5}, {"w": -.4}, {"scale": 3., "rescale": .6, "kind": "eps"}):
            calls.clear()
            got = cfg_labels(counted, labels, null, **options)(X, level)
            assert calls == [12]
            wanted = guidance.cfg(lambda x, lev: network(x, lev, labels), lambda x, lev: network(x, lev, null),
                                  **options)(X, level)
            np.testing.assert_allclose(got.x0, wanted.x0, rtol=1e-12, atol=1e-13)
            assert got.x is X and got.level is level


def check_interval(interval):
    c, g = as_kind(C, "eps"), as_kind(W, "eps")
    in_sigma, in_lam = interval(g, c, sigma=(.3, 2.)), interval(g, c, lam=(-math.log(2.), -math.log(.3)))
    for ratio, inside in ((.1, False), (.3, False), (.301, True), (1., True), (2., True), (2.001, False), (50., False)):
        for alpha in (1., .25):
            level = Level(0, alpha, alpha * ratio)
            for denoiser in (in_sigma, in_lam):
                np.testing.assert_array_equal(denoiser(X, level).eps, (g if inside else c)(X, level).eps)
    ratio = np.array([.1, .3, .5, 2., 2.5, 80.])
    many = Level(ratio, ratio * 0 + .5, ratio * .5)
    expected = np.where((np.array([0, 0, 1, 1, 0, 0]) == 1)[:, None], g(X, many).eps, c(X, many).eps)
    for denoiser in (in_sigma, in_lam, interval(g, W, sigma=(.3, 2.))):
        got = denoiser(X, many).eps
        np.testing.assert_allclose(got[[2, 3]], expected[[2, 3]], rtol=1e-12)
    np.testing.assert_array_equal(in_sigma(X, many).eps, expected)
    assert interval(g, c, sigma=(0., math.inf))(X, ve(9.)).value is not None


def check_classifier(classify):
    """With the exact p(y | x_t), classifier guidance is classifier-free guidance at the same scale."""
    exact_classifier = guidance.MixtureClassifier(MIX)
    for level in [*LEVELS, rows(6)]:
        for k, component in enumerate(MIX.components):
            for s in (0., 1., 3.):
                got = classify(MIX, exact_classifier.gradient(k), s)(X, level)
                wanted = guidance.cfg(component, MIX, scale=s)(X, level)
                # eps = (x - alpha x0)/sigma: 20 roundings of numbers up to 20 at sigma = .05
                np.testing.assert_allclose(got.eps, wanted.eps, rtol=1e-11, atol=1e-12)


def check_responsibility(make):
    """Its gradient is the complex step of its own formula, written anew."""
    judge = make(MIX)
    for level in LEVELS:
        noisy = [(w, level.alpha * c.mean, np.linalg.inv(level.alpha ** 2 * c.cov + level.sigma ** 2 * np.eye(2)))
                 for w, c in zip(MIX.weights, MIX.components)]

        def log_joint(x):
            return np.array([math.log(w) + .5 * math.log(np.linalg.det(P))
                             - .5 * np.einsum("na,ab,nb->n", x - m, P, x - m) for w, m, P in noisy])

        def log_p(x):
            joint = log_joint(x)
            top = joint.real.max(axis=0)
            return joint - top - np.log(np.exp(joint - top).sum(axis=0))

        log_probability = judge.log_probability(X, level)
        for k in range(3):
            np.testing.assert_allclose(log_probability[:, k], log_p(X)[k], rtol=1e-11, atol=1e-12)
            slope = [log_p(X + 1e-30j * e)[k].imag / 1e-30 for e in np.eye(2)]
            # differences of scores up to 1e3 at sigma = .05
            np.testing.assert_allclose(judge.gradient(k)(X, level), np.transpose(slope), rtol=1e-9, atol=1e-10)


def slope_of_C(x, level):
    """log p(y | x_t) of the Gaussians C within W: the difference of their scores, by inverses."""
    return product_score(x, level, 1.) - product_score(x, level, 0.)


def shifted_step(s, t, variance, scale):
    """x_s = A x_t + b + std z of ADM's algorithm 1, from Bayes, with W's posterior mean as x0hat."""
    a, c, std = affine.ddpm_step(variance)(s, t)
    identity = np.eye(2)
    gain = t.alpha * np.linalg.solve(t.alpha ** 2 * W.cov + t.sigma ** 2 * identity, W.cov)
    zero = slope_of_C(np.zeros((1, 2)), t)[0]
    slope = np.array([slope_of_C(e[None], t)[0] - zero for e in identity]).T
    A = a * identity + c * gain + scale * std ** 2 * slope
    return A, c * (W.mean - t.alpha * gain @ W.mean) + scale * std ** 2 * zero, std


def short_grids():
    yield grids.discrete(schedules.linear(1000), 6, "trailing")
    yield grids.karras(7, .02, 20.)
    flow = np.linspace(.95, 0, 6)
    yield Grid(flow, 1 - flow, flow, "flow")


def check_mean_shift(mean_shift):
    for grid in short_grids():
        for variance in ("small", "large"):
            for scale in (0., 1., 2.):
                read = affine.probe(lambda x, noise: samplers.run(
                    mean_shift(W, slope_of_C, grid, x, scale, variance, noise=noise)), len(grid), 2)
                mean, cov = np.zeros(2), np.eye(2)
                for i in range(len(grid)):
                    A, b, std = shifted_step(grid.level(i + 1), grid.level(i), variance, scale)
                    mean, cov = A @ mean + b, A @ cov @ A.T + (std ** 2 * np.eye(2) if i < len(grid) - 1 else 0)
                got = read.law(np.zeros(2), np.eye(2))
                size = 1 + abs(cov).max()
                np.testing.assert_allclose(got[0], mean, rtol=1e-10, atol=1e-10 * size)
                np.testing.assert_allclose(got[1], cov, rtol=1e-10, atol=1e-10 * size)


def check_static(static):
    x0 = np.array([[-3., -.99, .2], [1., 1.01, 9.]])
    wanted = np.array([[-1., -.99, .2], [1., 1., 1.]])
    x, level = Key(8).normal((2, 3)), Level(1, .6, .8)
    world = lambda y, lev: Prediction("x0", x0, y, lev)  # noqa: E731
    derived, kept = static(world)(x, level), static(world, eps="kept")(x, level)
    for p in (derived, kept):
        np.testing.assert_array_equal(p.x0, wanted)
    np.testing.assert_allclose(derived.eps, (x - .6 * wanted) / .8, rtol=1e-14)
    np.testing.assert_allclose(kept.eps, (x - .6 * x0) / .8, rtol=1e-14)
    np.testing.assert_array_equal(static(world, 3.)(x, level).x0, x0.clip(-3, 3))


def check_kept_or_derived(static):
    """x = 3, eps = 0 at t = 501 of DDPM's schedule, one step to t = 481: 3.004 if eps follows the clip, .308 if not."""
    grid = grids.at_times(schedules.linear(), [501, 481])
    x = np.full((1, 1), 3.0)
    zero = lambda y, level: Prediction("eps", 0 * y, y, level)  # noqa: E731
    ends = [samplers.run(samplers.ddim(static(zero, eps=eps), grid, x)).item() for eps in ("derived", "kept")]
    with mp.workdps(50):
        abar = [mp.mpf(1)]
        for t in range(1, 502):
            abar.append(abar[-1] * (1 - (mp.mpf("1e-4") + (mp.mpf("0.02") - mp.mpf("1e-4")) * (t - 1) / 999)))
        (a_t, s_t), (a_s, s_s) = ((mp.sqrt(abar[t]), mp.sqrt(1 - abar[t])) for t in (501, 481))
        wanted = [float(a_s + s_s * (3 - a_t) / s_t), float(a_s)]
    np.testing.assert_allclose(ends, wanted, rtol=1e-12)
    assert round(wanted[0], 3) == 3.004 and round(wanted[1], 3) == .308


def check_dynamic(dynamic):
    x0 = np.array([[-3., 1., .2, .5, 0.], [.9, -.8, .1, .2, .3], [-1.6, 1.2, 1.4, .2, 2.]])
    world = lambda y, lev: Prediction("x0", x0, y, lev)  # noqa: E731
    level = Level(1, .6, .8)
    # of five numbers the .75 quantile is the second largest, the .875 one halfway from it to the largest
    for limit, s, thresholded in ((1., [1., 1., 1.6], dynamic(world, .75)),
                                  (1., [3., 1., 2.], dynamic(world, 1.0)),
                                  (1., [1., 1., 1.5], dynamic(world, .75, cap=1.5)),
                                  (.25, [2., .85, 1.8], dynamic(world, .875, limit=.25))):
        s = np.array(s)[:, None]
        np.testing.assert_allclose(thresholded(x0, level).x0, x0.clip(-s, s) * limit / s, rtol=1e-14)
    np.testing.assert_array_equal(dynamic(world, .75, cap=1.0)(x0, level).x0, x0.clip(-1, 1))   # capped: static
    np.testing.assert_array_equal(dynamic(world, .75, eps="kept")(x0, level).x0, dynamic(world, .75)(x0, level).x0)


def check_autoguidance(autoguidance):
    """w D1 + (1 - w) D0, D1 the good one."""
    for w in (1., 1.7, 3.):
        for level in LEVELS:
            got = autoguidance(C, W, scale=w)(X, level).x0
            np.testing.assert_allclose(got, w * C(X, level).x0 + (1 - w) * W(X, level).x0, rtol=1e-12, atol=1e-13)


def check_guided_flow(Guided):
    """The closed flow of one dimension, against mpmath's solution of the ODE in rho at 25 digits."""
    world = Guided(LINE_C, LINE_U, scale=2.5)
    a, b = ve(4.), ve(.1)
    gain, shift = world.affine_flow(a, b)
    with mp.workdps(25):
        s, m_c, m_u, v_c, v_u = (mp.mpf(float(v)) for v in (2.5, .5, -.2, .09, .64))

        def g(rho):
            return (v_c + rho ** 2) ** (s / 2) * (v_u + rho ** 2) ** ((1 - s) / 2)

        def source(rho):
            return -rho * (s * m_c / (v_c + rho ** 2) + (1 - s) * m_u / (v_u + rho ** 2))

        ratio = g(mp.mpf(.1)) / g(4)
        forced = g(mp.mpf(.1)) * mp.quad(lambda rho: source(rho) / g(rho), [4, 2, 1, .5, .3, .1])
    np.testing.assert_allclose([gain, shift], [float(ratio), float(forced)], rtol=1e-13)
    x = np.linspace(-12, 12, 7)[:, None]
    np.testing.assert_allclose(world.flow(x, a, b), float(ratio) * x + float(forced), rtol=1e-12)
    # the same in every family, and from pure noise to clean data
    vp = [Level(r, math.cos(math.atan(r)), math.sin(math.atan(r))) for r in (4., .1)]
    np.testing.assert_allclose(world.flow(x * vp[0].alpha, *vp) / vp[1].alpha, world.flow(x, a, b), rtol=1e-12)
    gain, shift = world.affine_flow(Level(1, 0., 1.), Level(0, 1., 0.))
    assert gain == pytest.approx(.09 ** 1.25 * .64 ** -.75, rel=1e-14)
    far = world.affine_flow(ve(1e6), ve(0.))
    np.testing.assert_allclose([gain, shift], [far[0] * 1e6, far[1]], rtol=1e-5)


def check_guided_world(Guided):
    """The score, the posterior mean, the law at a level; and the flow in two dimensions against scipy in sigma."""
    for s in (.4, 1.5, 2.):
        world = Guided(C, W, scale=s)
        for level in LEVELS:
            expected = product_score(X, level, s)
            np.testing.assert_allclose(world.score(X, level), expected, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(world.marginal(level).score(X, level=Level(0, 1., 0.)), expected, rtol=1e-11,
                                       atol=1e-11)
            np.testing.assert_allclose(world(X, level).score, expected, rtol=1e-11, atol=1e-11)
    world = Guided(C, W, w=1.)

    def slope(sigma, flat):
        return (-sigma * product_score(flat.reshape(X.shape), ve(sigma), 2.)).ravel()

    wanted = solve_ivp(slope, (5., .1), X.ravel(), method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1].reshape(X.shape)
    np.testing.assert_allclose(world.flow(X, ve(5.), ve(.1)), wanted, rtol=1e-8, atol=1e-8)


# ---- facts

def test_the_guided_score_is_that_of_the_product_of_the_noised_densities():
    check_cfg(guidance.cfg)


def test_the_two_conventions_are_the_papers():
    check_cfg_in_terms_of_its_two_halves(guidance.cfg)


def test_halves_of_two_kinds_of_prediction_are_guided_as_one():
    check_mixed_kinds(guidance.cfg)


def test_the_guided_score_is_the_gradient_of_the_product_at_50_digits():
    """s log p_c + (1 - s) log p_u, differentiated by mpmath."""
    s, level = 3., Level(1, .8, .6)
    guided = guidance.cfg(LINE_C, LINE_U, scale=s)
    points = np.array([[-2.], [-.3], [.1], [1.5]])
    with mp.workdps(50):
        def log_product(x):
            v_c, v_u = (mp.mpf(.8) ** 2 * mp.mpf(v) + mp.mpf(.6) ** 2 for v in (.09, .64))
            return (-mp.mpf(s) * (x - mp.mpf(.8) * mp.mpf(.5)) ** 2 / (2 * v_c)
                    - (1 - mp.mpf(s)) * (x + mp.mpf(.8) * mp.mpf(.2)) ** 2 / (2 * v_u))
        wanted = [float(mp.diff(log_product, mp.mpf(float(x)))) for x in points[:, 0]]
    np.testing.assert_allclose(guided(points, level).score[:, 0], wanted, rtol=1e-13)


def test_rescaled_rows_have_the_conditional_s_standard_deviation():
    check_rescale(guidance.cfg)


def test_both_halves_in_one_evaluation_are_the_two():
    check_one_evaluation(guidance.cfg_labels)


def test_guidance_in_an_interval_is_off_outside_it():
    check_interval(guidance.interval)


def test_autoguidance_is_the_paper_s():
    check_autoguidance(guidance.autoguidance)


def test_no_guidance_evaluates_the_conditional_alone():
    def forbidden(*args):
        raise AssertionError("evaluated")
    np.testing.assert_array_equal(guidance.cfg(C, forbidden, scale=1)(X, ve(1.)).x0, C(X, ve(1.)).x0)
    assert guidance.cfg(C, forbidden, w=0) is C and guidance.autoguidance(C, forbidden, scale=1) is C
    labels = np.arange(6) % 3
    alone = guidance.cfg_labels(network, labels, labels * 0 + 3, scale=1)(X, ve(1.))
    np.testing.assert_array_equal(alone.x0, network(X, ve(1.), labels).x0)


def test_classifier_guidance_with_the_exact_classifier_is_classifier_free_guidance():
    check_classifier(guidance.classifier)


def test_the_exact_classifier_of_a_mixture_and_its_gradient():
    check_responsibility(guidance.MixtureClassifier)


def test_a_mixture_of_one_has_nothing_to_classify():
    judge = guidance.MixtureClassifier(Mixture([2.], [0.], [1.]))
    assert not judge.log_probability(X[:, :1], ve(1.)).any() and not judge.gradient(0)(X[:, :1], ve(1.)).any()


def test_the_mean_shift_s_law_is_the_affine_recursion():
    check_mean_shift(guidance.mean_shift)


def test_the_two_forms_of_classifier_guidance_differ_by_the_transition_s_coefficient():
    """One ancestral step: the eps form moves the mean by scale var_ts/alpha_ts times the gradient."""
    z = Key(5).normal(X.shape)
    for grid in short_grids():
        t, s = grid.level(0), grid.level(1)
        alpha_ts = t.alpha / s.alpha
        var_ts = t.sigma ** 2 - (alpha_ts * s.sigma) ** 2
        by_eps = next(samplers.ddpm(guidance.classifier(W, slope_of_C, 2.), grid, X, noise=lambda step: z)).x
        plain = next(samplers.ddpm(W, grid, X, noise=lambda step: z)).x
        np.testing.assert_allclose(by_eps - plain, 2 * var_ts / alpha_ts * slope_of_C(X, t), rtol=1e-9, atol=1e-12)
        for variance, factor in (("large", alpha_ts), ("small", alpha_ts * (s.sigma / t.sigma) ** 2)):
            plain = next(samplers.ddpm(W, grid, X, variance, noise=lambda step: z)).x
            shifted = next(guidance.mean_shift(W, slope_of_C, grid, X, 2., variance, noise=lambda step: z)).x
            np.testing.assert_allclose(shifted - plain, factor * 2 * var_ts / alpha_ts * slope_of_C(X, t), rtol=1e-9,
                                       atol=1e-12)


def test_static_thresholding_clips_and_eps_follows_or_stays():
    check_static(guidance.static)


def test_a_clipped_step_ends_on_3_004_or_on_0_308():
    check_kept_or_derived(guidance.static)


def test_dynamic_thresholding_is_static_below_its_percentile_and_under_a_cap():
    check_dynamic(guidance.dynamic)


def test_guided_gaussians_have_the_product_s_law_at_each_level():
    check_guided_world(guidance.Guided)


def test_the_guided_flow_of_a_line_is_closed():
    check_guided_flow(guidance.Guided)


def test_guidance_of_equal_covariances_moves_the_mean_and_no_more():
    """Then, and only then, the guided flow is that of one law of data, p_c^s p_u^(1-s)."""
    other = Gaussian(W.mean, C.cov)
    world = guidance.Guided(C, other, scale=4)
    moved = Gaussian(W.mean + 4 * (C.mean - W.mean), C.cov)
    for level in LEVELS:
        np.testing.assert_allclose(world.marginal(level).cov, moved.marginal(level).cov, rtol=1e-12)
        np.testing.assert_allclose(world.marginal(level).mean, moved.marginal(level).mean, rtol=1e-11)
    np.testing.assert_allclose(world.flow(X, ve(9.), ve(.1)), moved.flow(X, ve(9.), ve(.1)), rtol=1e-9, atol=1e-10)
    line = guidance.Guided(LINE_C, Gaussian(-.2, .09), scale=4)
    at = line.affine_flow(ve(9.), ve(0.))
    assert at[0] == pytest.approx(.3 / math.hypot(.3, 9), rel=1e-13) and at[1] == pytest.approx(2.6 * (1 - at[0]))


def test_guided_samples_have_the_geometric_mean_of_the_variances_not_the_product_s():
    """DDIM in 4000 steps from pure noise: C_c^s C_u^(1-s) = (.09/.64)^1.5 of .09 is left; p_c^s p_u^(1-s) has more."""
    s = 2.5
    guided = guidance.cfg(LINE_C, LINE_U, scale=s)
    angle = np.linspace(math.pi / 2, 0, 4001)
    grid = Grid(angle, np.append(0., np.cos(angle[1:])), np.append(np.sin(angle[:-1]), 0.), "circle")
    read = affine.probe(lambda x, noise: samplers.run(samplers.ddim(guided, grid, x)), 0, 1)
    exact_gain, exact_shift = guidance.Guided(LINE_C, LINE_U, scale=s).affine_flow(grid.level(0), grid.level(4000))
    variance = .09 ** s * .64 ** (1 - s)
    assert exact_gain ** 2 == pytest.approx(variance, rel=1e-13)
    assert variance == pytest.approx(.09 * (.09 / .64) ** 1.5) and round(variance / .09, 4) == .0527
    product = 1 / (s / .09 + (1 - s) / .64)
    assert round(product / .09, 4) == .4369 and product > 8 * variance
    assert read.A[0, 0] == pytest.approx(exact_gain, rel=2e-3)            # first order in 1/4000
    assert read.b[0] == pytest.approx(exact_shift, rel=2e-3)


def test_a_guided_precision_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="not positive"):
        guidance.Guided(LINE_U, LINE_C, scale=3).marginal(ve(.1))


def test_maps_compose_with_each_other_and_with_batches():
    """interval of rescaled cfg, thresholded both ways, three rows at a time: the same as all at once."""
    seen = []

    def watched(x, level):
        seen.append(len(x))
        return as_kind(C, "eps")(x, level)

    for level in (ve(1.), rows(6)):
        for eps in threshold.EPS:
            guided = guidance.interval(guidance.cfg(watched, W, scale=3, rescale=.5), C, sigma=(.4, 8.))
            whole = guidance.dynamic(guided, .9, limit=.3, eps=eps)
            seen.clear()
            parts = in_batches(whole, 4)(X, level)
            assert set(seen) == {4, 2}
            wanted = whole(X, level)
            np.testing.assert_allclose(parts.x0, wanted.x0, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(parts.eps, wanted.eps, rtol=1e-12, atol=1e-13)
            again = guidance.cfg(whole, W, scale=2)(X, level)                          # eps, kept, is guided too
            np.testing.assert_allclose(again.eps, 2 * wanted.eps - W(X, level).eps, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(again.x0, 2 * wanted.x0 - W(X, level).x0, rtol=1e-11, atol=1e-12)


def everything():
    mixture = guidance.MixtureClassifier(MIX)
    yield guidance.cfg(C, W, scale=2.)
    yield guidance.cfg(C, W, w=.5, rescale=.7)
    yield guidance.cfg_labels(lambda x, level, y: network(x, level, y), np.arange(6) % 3, np.full(6, 3), scale=2.)
    yield guidance.autoguidance(C, W, scale=2.)
    yield guidance.interval(C, W, sigma=(.5, 2.))
    yield guidance.classifier(MIX, mixture.gradient(1), 2.)
    yield guidance.static(C)
    yield guidance.dynamic(C, eps="kept")


def pair(prediction):
    return np.concatenate([prediction.x0, prediction.eps])


def check_the_pair_of_a_thresholded_denoiser_survives(maps):
    """eps = "kept" makes a pair (x0, eps) of another point than x: every map hands on what it is given of it."""
    kept, level = guidance.static(C, .5, eps="kept"), Level(1, .8, .6)
    both = Level(*(np.array([a, b]) for a, b in zip((1, 1., .3), (2, 1., 9.))))
    for x in (X[:2], 3 * X[2:4]):
        want = pair(kept(x, level))
        assert abs(want - pair(guidance.static(C, .5)(x, level))).max() > .1
        for made in (maps.classifier(kept, lambda y, lev: 0 * y), guidance.static(kept, 100.),
                     guidance.dynamic(kept, 1., limit=100.)):
            np.testing.assert_allclose(pair(made(x, level)), want, rtol=1e-12, atol=1e-12)
        for kind in KINDS:
            plain, little = (pair(maps.cfg(kept, W, scale=3., rescale=phi, kind=kind)(x, level)) for phi in (0, 1e-12))
            np.testing.assert_allclose(little, plain, rtol=1e-9, atol=1e-9)
        made = maps.interval(kept, W, sigma=(.2, 5.))
        rows_, alone = made(x, both), [made(x[i:i + 1], Level(both.t[i], both.alpha[i], both.sigma[i])) for i in (0, 1)]
        for name in ("x0", "eps"):
            np.testing.assert_allclose(getattr(rows_, name), np.concatenate([getattr(p, name) for p in alone]),
                                       rtol=1e-12, atol=1e-12)

        def labelled(y, lev, labels):
            halves = guidance.static(C, .5, eps="kept")(y, lev), guidance.static(W, .3, eps="kept")(y, lev)
            on = (np.asarray(labels) == 1)[:, None]
            return Prediction("x0", np.where(on, *(p.x0 for p in halves)), np.where(on, *(p.x for p in halves)), lev)
        two = maps.cfg(*(lambda y, lev, k=k: labelled(y, lev, np.full(2, k)) for k in (1, 0)), w=2.)(x, level)
        one = maps.cfg_labels(labelled, np.ones(2, int), np.zeros(2, int), w=2.)(x, level)
        np.testing.assert_allclose(pair(one), pair(two), rtol=1e-12, atol=1e-12)


def test_the_pair_of_a_thresholded_denoiser_survives_every_map():
    check_the_pair_of_a_thresholded_denoiser_survives(guidance)


@pytest.mark.parametrize("module, old, new", [
    (free, "if p.x is twice else (p.x[:n], p.x[n:])", "if True else None"),
    (free, "phi), g.x, level)", "phi), x, level)"),
    (free, "point = x if first.x is x and second.x is x else", "point = x if True else"),
    (gradient, "gradient, x, level), p.x, level)", "gradient, x, level), x, level)")])
def test_a_map_that_drops_the_point_of_the_pair_is_killed(module, old, new):
    name = module.__name__.removeprefix("refdiff.")
    made = vars(planted.mutant(name, (old, new)))
    with pytest.raises(AssertionError):
        check_the_pair_of_a_thresholded_denoiser_survives(types.SimpleNamespace(**{**vars(guidance), **made}))


def test_unipc_of_first_order_is_ddim_on_a_kept_pair_too():
    kept, grid = guidance.static(C, .5, eps="kept"), grids.karras(6, .05, 10., final=None)
    x = 10 * X
    want = samplers.run(samplers.ddim(kept, grid, x))
    for kind in ("x0", "eps"):
        got = samplers.run(samplers.unipc(kept, grid, x, order=1, kind=kind, corrector="never"))
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_dtype_is_kept_rows_do_not_mix_and_x_is_left_alone():
    for denoiser in everything():
        for level in (ve(1.), rows(6)):
            for dtype in (np.float32, np.float64):
                x = X.astype(dtype)
                before = x.copy()
                p = denoiser(x, level)
                assert p.value.dtype == dtype and p.x0.dtype == dtype and np.array_equal(x, before)
            changed = X.copy()
            changed[3:] += 1
            np.testing.assert_allclose(denoiser(changed, level).value[:3], p.value[:3], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make, message", [
    (lambda: guidance.cfg(C, W), "exactly one of scale=s"), (lambda: guidance.cfg(C, W, scale=1, w=1), "exactly one"),
    (lambda: guidance.cfg(C, W, scale=math.inf), "scale is inf"), (lambda: guidance.cfg(C, W, w=math.nan), "w is nan"),
    (lambda: guidance.cfg(C, W, scale="3"), "wanted a finite number"),
    (lambda: guidance.cfg(C, W, scale=True), "wanted a finite number"),
    (lambda: guidance.cfg(C, W, scale=2, rescale=1.5), "rescale is 1.5"),
    (lambda: guidance.cfg(C, W, scale=2, rescale=.5, kind="noise"), "kind is 'noise'"),
    (lambda: guidance.cfg(LINE_C, LINE_U, scale=2, rescale=.5)(X[:, :1], ve(1.)), "standard deviation is 0"),
    (lambda: guidance.autoguidance(C, W, scale=None), "exactly one"),
    (lambda: guidance.cfg_labels(network, np.zeros(3, int), np.zeros(4, int), scale=2), "labels has shape"),
    (lambda: guidance.cfg_labels(network, np.zeros(3, int), np.zeros(3, int), scale=2)(X, ve(1.)), "x has 6 rows"),
    (lambda: guidance.interval(C, W, sigma="ab"), "an end is 'a'"),
    (lambda: guidance.interval(C, W, sigma=(None, 1)), "an end is None"),
    (lambda: guidance.interval(C, W, lam=(1, 2, 3)), "wanted two numbers"),
    (lambda: guidance.interval(C, W, sigma=3.), "wanted two numbers"),
    (lambda: guidance.cfg(C, W, w=2, kind=[1]), "kind is"), (lambda: guidance.static(C, eps=[1]), "eps is"),
    (lambda: guidance.interval(C, W), "exactly one"), (lambda: guidance.interval(C, W, sigma=(1, 1)), "low < high"),
    (lambda: guidance.interval(C, W, sigma=(0, 1), lam=(0, 1)), "exactly one"),
    (lambda: guidance.classifier(C, slope_of_C, math.inf), "scale is inf"),
    (lambda: guidance.classifier(C, lambda x, level: x[:, :1])(X, ve(1.)), "the gradient has shape"),
    (lambda: next(guidance.mean_shift(C, slope_of_C, grids.karras(3), X, math.nan)), "scale is nan"),
    (lambda: next(guidance.mean_shift(C, slope_of_C, grids.karras(3), X)), "2 steps draw noise and none was given"),
    (lambda: guidance.MixtureClassifier(MIX).gradient(3), "integer in 0..2"),
    (lambda: guidance.MixtureClassifier(MIX).gradient(1.), "integer in 0..2"),
    (lambda: guidance.static(C, 0.), "limit is 0.0"), (lambda: guidance.static(C, eps="old"), "eps is 'old'"),
    (lambda: guidance.dynamic(C, 99.5), "a fraction"), (lambda: guidance.dynamic(C, 0.), "a fraction"),
    (lambda: guidance.dynamic(C, .9, cap=.5), "cap is 0.5"),
    (lambda: guidance.dynamic(C, .9, cap=math.nan), "cap is nan"),
    (lambda: guidance.Guided(C, LINE_U, scale=2), "dimensions 2 and 1"), (lambda: guidance.Guided(C, W), "exactly one"),
    (lambda: guidance.Guided(MIX, C, scale=2).marginal(ve(1.)), "two Gaussians only"),
    (lambda: guidance.Guided(C, W, scale=2).affine_flow(ve(1.), ve(.1)), "one dimension"),
    (lambda: guidance.Guided(Gaussian(0, 0), LINE_U, scale=2).affine_flow(ve(1.), ve(.1)), "variances > 0")])
def test_illegal_combinations_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_limits_are_refused_not_clamped():
    p = guidance.classifier(C, lambda x, level: 0 * x)(X, Level(1, 0., 1.))
    assert np.isfinite(p.eps).all()
    with pytest.raises(LimitError, match="alpha = 0"):
        p.x0


# ---- planted mutants: one coefficient rewritten, and the check above must fail

MUTANTS = [
    (check_cfg, free, "cfg", "a + w * (a - b)", "a + w * (b - a)"),
    (check_cfg, free, "cfg", "a + w * (a - b)", "b + w * (a - b)"),
    (check_cfg, free, "cfg", 'name}: scale", scale) - 1.0', 'name}: scale", scale)'),
    (check_cfg_in_terms_of_its_two_halves, free, "cfg", 'name}: w", w) if', 'name}: w", w) - 1 if'),
    (check_mixed_kinds, free, "cfg", 'return "x0", None, one.x0, other.x0',
     'return "x0", None, one.value, other.value'),
    (check_rescale, free, "cfg", "phi * (std_c / std_g)", "phi * (std_g / std_c)"),
    (check_rescale, free, "cfg", "+ (1 - phi) * guided", "+ (1 - phi) * conditional"),
    (check_rescale, free, "cfg", "+ (1 - phi) * guided", "+ guided"),
    (check_rescale, free, "cfg", "tuple(range(1, guided.ndim))", "tuple(range(guided.ndim))"),
    (check_rescale, free, "cfg", "rescaled(getattr(g, kind), getattr(c, kind), phi)", "rescaled(g.v, c.v, phi)"),
    (check_one_evaluation, free, "cfg_labels", "concatenate([labels, null])", "concatenate([null, labels])"),
    (check_one_evaluation, free, "cfg_labels", "(p.value[:n], p.value[n:])", "(p.value[:n], p.value[:n])"),
    (check_interval, free, "interval", "level.ratio > low", "level.ratio >= low"),
    (check_interval, free, "interval", "level.ratio <= high", "level.ratio < high"),
    (check_interval, free, "interval", "level.lam >= low", "level.lam > low + .01"),
    (check_interval, free, "interval", "level.lam < high", "level.lam < high + .01"),
    (check_interval, free, "interval", "(inside if here else outside)", "(outside if here else inside)"),
    (check_interval, free, "interval", "xp.where(here, one,", "xp.where(~here, one,"),
    (check_autoguidance, free, "autoguidance", "(good(x, level), bad(x, level))", "(bad(x, level), good(x, level))"),
    (check_classifier, gradient, "classifier", "eps - scale * sigma", "eps + scale * sigma"),
    (check_classifier, gradient, "classifier", "eps - scale * sigma", "eps - scale * sigma ** 2"),
    (check_classifier, gradient, "classifier", "eps - scale * sigma", "eps - sigma"),
    (check_mean_shift, gradient, "mean_shift", "+ scale * var *", "- scale * var *"),
    (check_mean_shift, gradient, "mean_shift", "+ scale * var *", "+ scale * math.sqrt(var) *"),
    (check_mean_shift, gradient, "mean_shift", "+ scale * var *", "+ var *"),
    (check_mean_shift, gradient, "mean_shift", "gradient, x, t)", "gradient, x, s if s.sigma else t)"),
    (check_mean_shift, gradient, "mean_shift", "+ math.sqrt(var) *", "+ var *"),
    (check_mean_shift, gradient, "mean_shift", "c_xt * x +", "c_xt * 1.001 * x +"),
    (check_mean_shift, gradient, "mean_shift", "c_x0 * prediction.x0", "s.alpha * prediction.x0"),
    (check_mean_shift, gradient, "mean_shift", "fixed_variance(variance,", "fixed_variance('small',"),
    (check_responsibility, gradient, "MixtureClassifier", "(own - c.score(x, level))", "own"),
    (check_responsibility, gradient, "MixtureClassifier", "log_joint - log_total", "log_joint"),
    (check_responsibility, gradient, "MixtureClassifier", "if j != k]", "if j > k]"),
    (check_static, threshold, "static", "x0.clip(-limit, limit)", "x0.clip(-limit, 2 * limit)"),
    (check_static, threshold, "static", "x0.clip(-limit, limit)", "x0.clip(0, limit)"),
    (check_kept_or_derived, threshold, "static", 'if eps == "derived":', "if True:"),
    (check_kept_or_derived, threshold, "static", "alpha * x0 + sigma * prediction.eps", "x0 + sigma * prediction.eps"),
    (check_static, threshold, "static", "alpha * x0 + sigma * prediction.eps", "alpha * x0 + prediction.eps"),
    (check_dynamic, threshold, "dynamic", "* (limit / s)", "/ s"),
    (check_dynamic, threshold, "dynamic", "* (limit / s)", "* limit"),
    (check_dynamic, threshold, "dynamic", "s.clip(limit, cap)", "s.clip(None, cap)"),
    (check_dynamic, threshold, "dynamic", "s.clip(limit, cap)", "s.clip(limit, None)"),
    (check_dynamic, threshold, "dynamic", "abs(x0).reshape(len(x0), -1)", "x0.reshape(len(x0), -1)"),
    (check_dynamic, threshold, "dynamic", "xp.clip(x0, -s, s)", "x0"),
    (check_guided_world, exact, "Guided", "self.scale * c + (1 - self.scale) * u", "self.scale * c - self.scale * u"),
    (check_guided_world, exact, "Guided", "self._mix(P_c @ self.c.mean, P_u @ self.u.mean) * level.alpha",
     "self._mix(P_c @ self.c.mean, P_u @ self.u.mean)"),
    (check_guided_world, exact, "Guided", "level.alpha ** 2 * world.cov + noise", "level.alpha * world.cov + noise"),
    (check_guided_flow, exact, "Guided", "V_c(alpha, sigma) ** (self.scale / 2)", "V_c(alpha, sigma) ** self.scale"),
    (check_guided_flow, exact, "Guided", "((1 - self.scale) / 2)", "(-self.scale / 2)"),
    (check_guided_flow, exact, "Guided", "return sigma / (V_c(", "return alpha / (V_c("),
    (check_guided_flow, exact, "Guided", "(b.alpha - gain * a.alpha) * m_u", "b.alpha * m_u"),
    (check_guided_flow, exact, "Guided", "- self.scale * (m_c - m_u) * G_b", "- (m_c - m_u) * G_b"),
]


@pytest.mark.parametrize("check, module, name, old, new", MUTANTS, ids=[f"{m[2]}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, module, name, old, new):
    wrong = getattr(planted.mutant(module.__name__.removeprefix("refdiff."), (old, new)), name)
    with pytest.raises(AssertionError):
        check(wrong)


def test_guidance_of_a_network_that_predicts_edms_F_is_that_of_its_x0():
    level, x = ve(1.3), Key(4).normal((3, 2))
    rows = Level(np.array([.5, 1., 2.]), np.ones(3), np.array([.5, 1., 2.]))
    c, u = (Gaussian([m, -m], [[.3, .1], [.1, .4]]) for m in (.5, -.2))

    def as_F(world, sigma_data):
        return lambda x, level: world(x, level).to("F", sigma_data)

    for sigma_data in (.5, .8):                     # of one scale, and of two: then in x0
        got = free.cfg(as_F(c, .5), as_F(u, sigma_data), scale=3.)(x, level)
        assert got.kind == ("F" if sigma_data == .5 else "x0")
        np.testing.assert_allclose(got.x0, u(x, level).x0 + 3 * (c(x, level).x0 - u(x, level).x0), rtol=1e-12)
        part = free.interval(as_F(c, .5), as_F(u, sigma_data), sigma=(.7, 1.5))(x, rows)
        wanted = np.where(np.array([0, 1, 0])[:, None], c(x, rows).x0, u(x, rows).x0)
        np.testing.assert_allclose(part.x0, wanted, rtol=1e-12, atol=1e-14)
