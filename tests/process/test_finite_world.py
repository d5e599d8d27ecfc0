"""A finite data set as a world, and the polynomial oracle: against 50-digit arithmetic, and mutants that must die."""
import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff.process import exact, families
from refdiff.process.exact import FiniteData, Mixture
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import LimitError
from refdiff.process.polynomial import PolynomialDenoiser
from refdiff.rng import Key

POINTS = np.random.default_rng(1).standard_normal((5, 3))
WEIGHTS = np.array([1., 2., .5, 1., 3.])
LEVELS = [ve(.05), ve(3.), Level(1, .8, .6), Level(2, .03, .9995), Level(3, 0., 1.)]
X = np.random.default_rng(2).standard_normal((4, 3))


def truth(level):
    """log density, score and posterior mean of X's rows at 50 digits, from sums over the points."""
    out = []
    with mp.workdps(50):
        a, s = mp.mpf(level.alpha), mp.mpf(level.sigma)
        for x in X:
            x = [mp.mpf(float(c)) for c in x]
            terms = []
            for w, point in zip(WEIGHTS, POINTS):
                p = [mp.mpf(float(c)) for c in point]
                square = mp.fsum((u - a * v) ** 2 for u, v in zip(x, p))
                terms.append((mp.mpf(float(w)) / mp.mpf(7.5) * mp.exp(-square / (2 * s ** 2)), p))
            total = mp.fsum(t for t, _ in terms)
            mean = [mp.fsum(t * p[i] for t, p in terms) / total for i in range(3)]
            score = [mp.fsum(-t * (x[i] - a * p[i]) for t, p in terms) / (s ** 2 * total) for i in range(3)]
            out.append((mp.log(total) - 3 * mp.log(s * mp.sqrt(2 * mp.pi)), score, mean))
    return [np.array([[float(c) for c in np.atleast_1d(row[k])] for row in out]) for k in range(3)]


def check_world(kind, level):
    world = kind(POINTS, WEIGHTS)
    log_p, score, mean = truth(level)
    # |x - x_i|^2/(2 sigma^2), up to 5e3 at sigma .05, is rounded at u and weighs the points: 1e-12
    np.testing.assert_allclose(world.log_density(X, level)[:, None], log_p, rtol=1e-12)
    np.testing.assert_allclose(world.posterior_mean(X, level), mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(world.score(X, level), score, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_density_score_and_posterior_mean_of_a_data_set_equal_50_digits(level):
    check_world(FiniteData, level)


def test_a_data_set_is_a_mixture_of_points():
    """Two worlds that share no formula: responsibilities of singular Gaussians, softmax of distances."""
    mixture, world = Mixture(WEIGHTS, POINTS, np.zeros((5, 3, 3))), FiniteData(POINTS, WEIGHTS)
    for level in LEVELS:
        np.testing.assert_allclose(world.posterior_mean(X, level), mixture.posterior_mean(X, level), atol=1e-12)
        np.testing.assert_allclose(world.log_density(X, level), mixture.log_density(X, level), rtol=1e-12)


def test_the_ends_are_the_mean_of_the_data_and_the_nearest_point():
    world = FiniteData(POINTS)
    np.testing.assert_allclose(world.posterior_mean(X, ve(1e9)), np.tile(POINTS.mean(0), (4, 1)), atol=1e-8)
    nearest = POINTS[np.argmin(((X[:, None] - POINTS) ** 2).sum(-1), axis=1)]
    np.testing.assert_array_equal(world.posterior_mean(X, ve(1e-3)), nearest)


def test_the_flow_of_a_data_set_ends_near_its_points_and_is_the_quantile_map_on_a_line():
    line = FiniteData([-1., .2, 1.], [1, 2, 1])
    x = np.linspace(-12, 12, 9)[:, None]
    np.testing.assert_allclose(exact.integrate(line, x, ve(5.), ve(.2)), line.flow(x, ve(5.), ve(.2)), atol=1e-9)
    # at sigma the remaining distance to a point is the quantile's: a few sigma
    end = line.flow(x, ve(5.), ve(1e-3))
    assert np.all(np.abs(end - line.points.T).min(axis=1) < 5e-3)
    plane = FiniteData(POINTS)
    assert np.all(np.abs(plane.flow(4 * X, ve(4.), ve(.01))[:, None] - POINTS).max(-1).min(1) < .1)


def test_a_level_per_row_and_blocks_of_rows_change_nothing(monkeypatch):
    world = FiniteData(POINTS, WEIGHTS)
    rows = Level(np.arange(4.), np.array([1., .8, .6, 0.]), np.array([.5, .6, .8, 1.]))
    whole = [f(X, rows) for f in (world.posterior_mean, world.log_density)]
    for i in range(4):
        one = Level(i, rows.alpha[i], rows.sigma[i])
        np.testing.assert_allclose(whole[0][i:i + 1], world.posterior_mean(X[i:i + 1], one), rtol=1e-13)
        np.testing.assert_allclose(whole[1][i:i + 1], world.log_density(X[i:i + 1], one), rtol=1e-13)
    monkeypatch.setattr(FiniteData, "BLOCK", 31)             # two rows of 15 differences at a time
    for before, f in zip(whole, (world.posterior_mean, world.log_density)):
        np.testing.assert_array_equal(f(X, rows), before)
    assert world(X.astype(np.float32), rows).x0.dtype == np.float32


def test_samples_are_points_as_often_as_their_weights_say():
    world, n = FiniteData(POINTS, WEIGHTS), 20000
    x = world.sample(Key(1), n)
    counts = (x[:, None] == POINTS).all(-1).sum(0)
    p = WEIGHTS / WEIGHTS.sum()
    assert counts.sum() == n and np.all(np.abs(counts - n * p) < 5 * np.sqrt(n * p * (1 - p)))


@pytest.mark.parametrize("make, message", [
    (lambda: FiniteData(np.zeros((2, 2, 2))), "flatten"), (lambda: FiniteData([]), "shape"),
    (lambda: FiniteData([1., np.nan]), "finite"), (lambda: FiniteData([1., 2.], [1.]), "weights have shape"),
    (lambda: FiniteData([1., 2.], [1., 0.]), "every one > 0"),
    (lambda: FiniteData(POINTS).score(X, ve(0.)), "sigma = 0"),
    (lambda: FiniteData(POINTS).score(X[:, :2], ve(1.)), r"wanted \(n, 3\)"),
    (lambda: PolynomialDenoiser([1.], "v"), "kind is 'v'")])
def test_impossible_data_sets_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- the polynomial oracle

COEFFICIENTS = [.3, -.7, .2, 1.1]
PAIRS = [(families.Flow(), -1., -.4), (families.VarianceExploding(), -2., 1.), (families.TrigFlow(), .5, 3.)]


def poly(u):
    return mp.fsum(c * u ** k for k, c in enumerate(COEFFICIENTS))


def check_polynomial(kind_of_denoiser):
    x = np.array([[1.3], [-.2]])
    for kind in ("x0", "eps"):
        for family, start, end in PAIRS:
            a, b = family.at(start), family.at(end)
            denoiser = kind_of_denoiser(COEFFICIENTS, kind, center=start)
            assert denoiser(x, b).kind == kind
            expected = []
            with mp.workdps(50):
                p = poly(mp.mpf(b.lam) - start)
                sign = 1 if kind == "x0" else -1
                integral = mp.quad(lambda u: mp.exp(sign * u) * poly(u - mp.mpf(start)),
                                   [mp.mpf(a.lam), mp.mpf(b.lam)])
                scale, here = (b.sigma, a.sigma) if kind == "x0" else (b.alpha, a.alpha)
                expected = [float(scale * (mp.mpf(float(one)) / mp.mpf(here) + sign * integral)) for one in x[:, 0]]
            np.testing.assert_allclose(denoiser(x, b).value, float(p), rtol=1e-13)
            np.testing.assert_allclose(denoiser.flow(x, a, b)[:, 0], expected, rtol=1e-12)


def test_the_flow_of_a_polynomial_is_the_integral_at_50_digits():
    check_polynomial(PolynomialDenoiser)


def test_the_flow_of_a_constant_is_ddims_step_and_flows_compose():
    a, m, b = (families.Flow().at(lam) for lam in (-1., .2, 1.))
    x = np.array([[.4]])
    constant = PolynomialDenoiser([.7])
    step = b.alpha * .7 + b.sigma / a.sigma * (x - a.alpha * .7)
    np.testing.assert_allclose(constant.flow(x, a, b), step, rtol=1e-14)
    for kind in ("x0", "eps"):
        d = PolynomialDenoiser(COEFFICIENTS, kind)
        np.testing.assert_allclose(d.flow(d.flow(x, a, m), m, b), d.flow(x, a, b), rtol=1e-13)


WORLD_MUTANTS = [("log_w - xp.concatenate(squares) / 2", "log_w - xp.concatenate(squares)"),
                 ("return log_w - xp", "return -xp"), ("x[part, None, :] - a * points", "x[part, None, :] - points"),
                 ("total - self.dim * (", "total - ("), ("(alpha * self.posterior_mean(x, level) - x) / sigma",
                                                         "(self.posterior_mean(x, level) - x) / sigma")]


@pytest.mark.parametrize("old, new", WORLD_MUTANTS)
def test_every_mutant_of_the_data_set_is_killed(old, new):
    with pytest.raises(AssertionError):
        check_world(mutant("process.exact", (old, new)).FiniteData, LEVELS[2])


@pytest.mark.parametrize("old, new", [
    ("q + term, sign * term.deriv()", "q + term, -sign * term.deriv()"),
    ("- b.sigma * math.exp(a.lam)", "- b.sigma * math.exp(b.lam)"),
    ("- b.alpha * math.exp(-a.lam)", "- b.alpha * math.exp(a.lam)"), ("b.sigma / a.sigma * x", "b.alpha / a.alpha * x"),
    ("b.alpha / a.alpha * x", "b.sigma / a.sigma * x"), ("self.p(level.lam - self.center)", "self.p(level.lam)")])
def test_every_mutant_of_the_polynomial_is_killed(old, new):
    with pytest.raises(AssertionError):
        check_polynomial(mutant("process.polynomial", (old, new)).PolynomialDenoiser)


def test_a_polynomial_is_refused_where_lambda_is_infinite():
    for level in (Level(0, 1., 0.), Level(1, 0., 1.)):
        with pytest.raises(LimitError, match="infinite"):
            PolynomialDenoiser([1., 2.])(np.ones((1, 1)), level)
