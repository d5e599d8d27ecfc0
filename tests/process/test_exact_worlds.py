"""The exact worlds against 50-digit arithmetic, linear algebra by another route, and each other."""
import math

import mpmath as mp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from refdiff.process import exact
from refdiff.process.exact import Gaussian, Mixture
from refdiff.process.level import Level, ve
from refdiff.rng import Key

U = 2.0 ** -53
LINE = Mixture([.2, .5, .3], [-1.5, .3, 2.], [.04, .25, .01])
LEVELS = [ve(.05), ve(3.), Level(1, .8, .6), Level(2, .03, .9995), Level(.5, .5, .5)]


def vp(angle):
    return Level(angle, math.cos(angle), math.sin(angle))


def mp_parts(level):
    """weights, means and variances of x_t for LINE, at 50 digits."""
    a, s = mp.mpf(level.alpha), mp.mpf(level.sigma)
    for w, c in zip(LINE.weights, LINE.components):
        yield mp.mpf(float(w)), a * mp.mpf(float(c.mean[0])), a ** 2 * mp.mpf(float(c.cov[0, 0])) + s ** 2


def mp_density(x, level):
    return mp.fsum(w * mp.npdf(x, m, mp.sqrt(v)) for w, m, v in mp_parts(level))


def mp_cdf(x, level, upper=False):
    """F(x), or its complement, through erfc: no cancellation in the tail asked for."""
    sign = -1 if upper else 1
    return mp.fsum(w * mp.erfc(-sign * (x - m) / mp.sqrt(2 * v)) / 2 for w, m, v in mp_parts(level))


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_mixture_density_score_and_posterior_mean_equal_50_digits(level):
    points = np.array([[-30.], [-1.7], [-.2], [.31], [1.1], [2.], [25.]])
    log_p, score, mean = (f(points, level) for f in (LINE.log_density, LINE.score, LINE.posterior_mean))
    with mp.workdps(50):
        for i, x in enumerate(points[:, 0]):
            x = mp.mpf(float(x))
            exact_log = mp.log(mp_density(x, level))
            exact_score = mp.diff(lambda y: mp.log(mp_density(y, level)), x)
            # exponents up to 1e5 are rounded at u, and weight one component against another
            condition = 1 + abs(float(exact_log))
            assert float(log_p[i]) == pytest.approx(float(exact_log), abs=8 * U * condition)
            assert score[i, 0] == pytest.approx(float(exact_score), rel=64 * U * condition, abs=1e-13)
            tweedie = (x + mp.mpf(level.sigma) ** 2 * exact_score) / mp.mpf(level.alpha)
            assert mean[i, 0] == pytest.approx(float(tweedie), rel=64 * U * condition, abs=1e-13)


def test_posterior_mean_is_the_integral_over_the_posterior():
    level, x = Level(1, .6, .8), mp.mpf("0.4")
    with mp.workdps(30):
        a, s = mp.mpf(level.alpha), mp.mpf(level.sigma)
        clean = Level(0, 1., 0.)
        joint = [lambda z: mp_density(z, clean) * mp.npdf(x, a * z, s),
                 lambda z: z * mp_density(z, clean) * mp.npdf(x, a * z, s)]
        below, above = (mp.quad(f, [-4, -2, -1.5, -1, .3, 1, 1.8, 2, 2.2, 5]) for f in joint)
        expected = float(above / below)
    assert LINE.posterior_mean(np.array([[.4]]), level)[0, 0] == pytest.approx(expected, rel=1e-13)


def cloud(d=3):
    rng = np.random.default_rng(2)
    covs = [(lambda a: a @ a.T / d + .1 * np.eye(d))(rng.standard_normal((d, d))) for _ in range(3)]
    return [.5, .2, .3], rng.standard_normal((3, d)), covs


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_gaussian_in_n_dimensions_equals_conditioning_of_the_joint(level):
    _, means, covs = cloud()
    world, C, m = Gaussian(means[0], covs[0]), covs[0], means[0]
    x = np.random.default_rng(4).standard_normal((6, 3)) * (level.alpha + level.sigma)
    S = level.alpha ** 2 * C + level.sigma ** 2 * np.eye(3)
    residual = np.linalg.solve(S, (x - level.alpha * m).T).T
    np.testing.assert_allclose(world.score(x, level), -residual, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(world.posterior_mean(x, level), m + level.alpha * residual @ C, rtol=1e-11, atol=1e-12)
    log_density = multivariate_normal(level.alpha * m, S).logpdf(x)
    np.testing.assert_allclose(world.log_density(x, level), log_density, rtol=1e-11)
    np.testing.assert_allclose(world.marginal(level).cov, S)


def test_mixture_in_n_dimensions_weights_its_components():
    weights, means, covs = cloud()
    world, level = Mixture(weights, means, covs), Level(1, .8, .6)
    x = np.random.default_rng(4).standard_normal((6, 3))
    S = [.64 * C + .36 * np.eye(3) for C in covs]
    p = np.array([w * multivariate_normal(.8 * m, s).pdf(x) for w, m, s in zip(weights, means, S)])
    np.testing.assert_allclose(world.log_density(x, level), np.log(p.sum(0)), rtol=1e-12)
    scores = np.array([-np.linalg.solve(s, (x - .8 * m).T).T for m, s in zip(means, S)])
    expected = (p[:, :, None] * scores).sum(0) / p.sum(0)[:, None]
    np.testing.assert_allclose(world.score(x, level), expected, rtol=1e-11)
    np.testing.assert_allclose(world.posterior_mean(x, level), (x + .36 * expected) / .8, rtol=1e-11)


def test_a_world_is_a_denoiser_for_one_level_and_for_one_per_row():
    x = np.random.default_rng(1).standard_normal((4, 2))
    rows = Level(np.arange(4.), np.array([1., .8, .6, 0.]), np.array([.5, .6, .8, 1.]))
    for world in (exact.ring(), Gaussian([1., 2.], [[2., .5], [.5, 1.]])):
        batch = world(x, rows)
        assert batch.kind == "x0"
        for i in range(4):
            one = Level(i, rows.alpha[i], rows.sigma[i])
            np.testing.assert_allclose(batch.value[i:i + 1], world(x[i:i + 1], one).x0, rtol=1e-13)
        for dtype in (np.float32, np.float64):
            for level in (rows, ve(1.)):
                assert world(x.astype(dtype), level).x0.dtype == dtype
                assert world.score(x.astype(dtype), level).dtype == dtype
            assert world.flow(x.astype(dtype), ve(2.), ve(1.)).dtype == dtype


# ---- flows

@pytest.mark.parametrize("a, b", [(ve(10.), ve(.05)), (ve(.05), ve(10.)), (vp(1.5), vp(.02)),
                                  (vp(1.2), Level(0, 1., 0.)), (Level(1, 0., 1.), Level(0, 1., 0.))])
def test_quantile_map_keeps_probability_in_both_tails_to_50_digits(a, b):
    scale = math.hypot(2 * a.alpha, a.sigma)
    x = np.concatenate([np.linspace(-12, 12, 41), [-35., -20., 20., 35.]]) * scale
    y = LINE.quantile_map(x, a, b)
    with mp.workdps(50):
        for one, image in zip(x, y):
            upper = mp_cdf(mp.mpf(float(one)), a) > .5
            wanted, got = mp_cdf(mp.mpf(float(one)), a, upper), mp_cdf(mp.mpf(float(image)), b, upper)
            # log F is good to a few u (1 + |log F|); over its slope f/F that is the error in y
            slope = mp_density(mp.mpf(float(image)), b) / wanted
            bound = 16 * U * ((1 - mp.log(wanted)) / slope + abs(mp.mpf(float(image))))
            assert abs(mp.log(got / wanted)) / slope <= bound, (one, image)


def test_quantile_map_of_one_component_is_the_gaussian_flow():
    one, world = Mixture([1.], [.7], [.09]), Gaussian(.7, .09)
    x = np.linspace(-40, 40, 81)[:, None]
    for a, b in ((ve(5.), ve(.01)), (vp(1.4), vp(.1)), (ve(.1), ve(4.))):
        np.testing.assert_allclose(one.flow(x, a, b), world.flow(x, a, b), rtol=1e-13, atol=1e-14)


def test_flow_composes_and_returns():
    # one way crosses the gaps between the modes, where the density at .3 is 1e-3 of its peak or more
    x = np.linspace(-3, 3, 13)[:, None]
    whole = LINE.flow(x, ve(2.), ve(.3))
    np.testing.assert_allclose(LINE.flow(LINE.flow(x, ve(2.), ve(.8)), ve(.8), ve(.3)), whole, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(LINE.flow(whole, ve(.3), ve(2.)), x, rtol=1e-12, atol=1e-12)
    assert np.all(np.diff(whole[:, 0]) > 0)


def test_flow_does_not_depend_on_the_family():
    x = np.linspace(-2, 2, 9)[:, None]
    expected = LINE.flow(x, ve(math.tan(1.2)), ve(math.tan(.3)))
    got = LINE.flow(x * math.cos(1.2), vp(1.2), vp(.3)) / math.cos(.3)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def test_quantile_map_solves_the_probability_flow_ode():
    """The derivative along sigma is the ideal eps, (x - D)/sigma, by a central difference of order 4."""
    x, s, h = np.linspace(-2, 2, 7)[:, None], .7, 1e-3
    f = [LINE.flow(x, ve(s), ve(s + k * h)) for k in (-2, -1, 1, 2)]
    slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    np.testing.assert_allclose(slope, LINE(x, ve(s)).eps, rtol=0, atol=1e-9)       # h^4 f^(5)/30 + u/h


def test_integration_equals_the_closed_flow_of_a_gaussian():
    world = Gaussian([.3, -1.], [[1., .6], [.6, .5]])
    x = np.random.default_rng(8).standard_normal((5, 2))
    for a, b in ((ve(20.), ve(.1)), (vp(1.5), Level(0, 1., 0.)), (Level(1, 0., 1.), vp(.2)), (vp(.2), vp(1.3))):
        start = x * a.sigma
        np.testing.assert_allclose(exact.integrate(world, start, a, b), world.flow(start, a, b), rtol=1e-10, atol=1e-10)


def test_integration_of_a_product_is_the_quantile_map_of_each_axis():
    """Independent coordinates flow independently: a 2-D mixture with a known non-linear flow."""
    other = Mixture([.6, .4], [-.5, 1.], [.09, .16])
    pairs = [(p, q) for p in zip(LINE.weights, LINE._line[0], LINE._line[1])
             for q in zip(other.weights, other._line[0], other._line[1])]
    world = Mixture([p[0] * q[0] for p, q in pairs], [[p[1], q[1]] for p, q in pairs],
                    [np.diag([p[2], q[2]]) for p, q in pairs])
    x = np.random.default_rng(9).standard_normal((12, 2)) * 3
    got = world.flow(x, ve(3.), ve(.2))
    for axis, line in enumerate((LINE, other)):
        expected = line.quantile_map(x[:, axis], ve(3.), ve(.2))
        np.testing.assert_allclose(got[:, axis], expected, rtol=0, atol=1e-9)


# ---- samples and worlds

def test_samples_have_the_world_s_moments():
    weights, means, covs = cloud()
    n = 40000
    for world, mean, second in (
            (Gaussian(means[0], covs[0]), means[0], covs[0] + np.outer(means[0], means[0])),
            (Mixture(weights, means, covs), np.dot(weights, means),
             sum(w * (c + np.outer(m, m)) for w, m, c in zip(weights, means, covs)))):
        x = world.sample(Key(3), n)
        assert x.shape == (n, 3) and np.array_equal(x, world.sample(Key(3), n))
        products = x[:, :, None] * x[:, None, :]
        assert np.all(np.abs(x.mean(0) - mean) < 5 * x.std(0) / math.sqrt(n))
        assert np.all(np.abs(products.mean(0) - second) < 5 * products.std(0) / math.sqrt(n))


def test_ring_is_eight_equal_modes_on_a_circle():
    world = exact.ring()
    means = np.array([c.mean for c in world.components])
    np.testing.assert_allclose(np.hypot(*means.T), 1)
    np.testing.assert_allclose(means[:3], [[1, 0], [.5 ** .5, .5 ** .5], [0, 1]], atol=1e-15)
    assert all(np.allclose(c.cov, .01 * np.eye(2)) for c in world.components) and np.allclose(world.weights, 1 / 8)
    x = world.sample(Key(0), 8000)
    counts = np.bincount(np.argmin(((x[:, None] - means) ** 2).sum(-1), axis=1), minlength=8)
    assert np.all(np.abs(counts - 1000) < 5 * math.sqrt(1000 * 7 / 8))
    np.testing.assert_allclose(world.posterior_mean(np.zeros((1, 2)), ve(1.)), 0, atol=1e-15)


def test_a_singular_world_is_refused_only_where_it_has_no_density():
    flat = Gaussian([0., 0.], [[1., 1.], [1., 1.]])
    x = np.array([[1., 0.]])
    np.testing.assert_allclose(flat.posterior_mean(x, ve(.5)), [[4 / 9, 4 / 9]])     # projection, then 2/(2 + 1/4)
    for method in (flat.score, flat.log_density, flat.posterior_mean):
        with pytest.raises(ValueError, match="singular"):
            method(x, ve(0.))
    points = Mixture([1., 1.], [-1., 1.], [0., 0.])
    assert points.posterior_mean(np.array([[.3]]), ve(1.))[0, 0] == pytest.approx(math.tanh(.3))
    with pytest.raises(ValueError, match="single point"):
        points.flow(np.array([[.3]]), ve(1.), ve(0.))


@pytest.mark.parametrize("make, message", [
    (lambda: Gaussian([0., 0.], [[1.]]), "shape"), (lambda: Gaussian([0., 0.], [[1., .5], [.4, 1.]]), "symmetric"),
    (lambda: Gaussian([0., 0.], [[1., 2.], [2., 1.]]), "eigenvalue"),
    (lambda: Mixture([1.], [0., 1.], [1., 1.]), "as many"),
    (lambda: Mixture([1., 0.], [0., 1.], [1., 1.]), "weight > 0"),
    (lambda: Mixture([1., 1.], [[0.], [0., 1.]], [1., np.eye(2)]), "dimensions"),
    (lambda: exact.ring().score(np.ones(2), ve(1.)), r"wanted \(n, 2\)"),
    (lambda: exact.ring()._line, "one dimension")])
def test_impossible_worlds_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
