"""Likelihoods: the PF-ODE's against closed densities, the trace's estimators, the guard, and the unit."""
import itertools
import math

import mpmath
import numpy as np
import pytest
import standin
from planted import mutant
from scipy.special import ndtr

from refdiff.process import exact, likelihood
from refdiff.process.level import Level, ve
from refdiff.rng import Key


def random_world(dim, k=3):
    """A mixture of k Gaussians in general position; k = 1 is a Gaussian."""
    key = Key(20).fold(dim, k)
    roots = key.fold("cov").normal((k, dim, dim)) * 0.5
    covs = roots @ roots.transpose(0, 2, 1) / dim + 0.1 * np.eye(dim)
    means = key.fold("mean").normal((k, dim))
    if k == 1:
        return exact.Gaussian(means[0], covs[0])
    return exact.Mixture(1 + np.arange(k), means, covs)


WORLDS = {f"{name} in {dim}-D": random_world(dim, k)
          for name, k in (("gaussian", 1), ("mixture", 3)) for dim in (1, 2, 5)}
SPANS = {"exploding": (ve(0.02), ve(50.0)),
         "preserving": (Level(1, math.sqrt(1 - 1e-4), 1e-2), Level(1000, 6e-3, math.sqrt(1 - 36e-6))),
         "flow to pure noise": (Level(0.05, 0.95, 0.05), Level(1.0, 0.0, 1.0))}
TIGHT = likelihood.Adaptive(rtol=1e-10, atol=1e-10)


# ---- the oracle's own derivative

def tweedie(world, x, level):
    """dE[x_0 | x]/dx = alpha/sigma^2 Cov[x_0 | x], the covariance from the moments of the components' posteriors."""
    components, weights = getattr(world, "components", [world]), getattr(world, "weights", [1.0])
    a, s2 = level.alpha, level.sigma ** 2
    p = np.array([w * np.exp(c.log_density(x, level)) for w, c in zip(weights, components)])
    second, first = 0, 0
    for r, c in zip(p / p.sum(axis=0), components):
        cov = np.linalg.inv(np.linalg.inv(c.cov) + a ** 2 / s2 * np.eye(world.dim))
        mean = (np.linalg.solve(c.cov, c.mean) + a / s2 * x) @ cov
        first = first + r[:, None] * mean
        second = second + r[:, None, None] * (cov + mean[:, :, None] * mean[:, None])
    return a / s2 * (second - first[:, :, None] * first[:, None])


def matrix(product, x):
    return np.stack([product(np.broadcast_to(e, x.shape)) for e in np.eye(x.shape[1])], axis=2)


def check_derivative(module=likelihood, name="mixture in 2-D", level=Level(0, 0.8, 0.6)):
    """By Tweedie, twice. The identity takes a difference of second moments: rounding of 1e-16 |m|^2/sigma^2."""
    world = WORLDS[name]
    x = 1.5 * Key(1).normal((6, world.dim))
    D, product = module.exact(world)(x, level)
    want = tweedie(world, x, level)
    np.testing.assert_allclose(matrix(product, x), want, rtol=0, atol=1e-12 * np.abs(want).max())
    np.testing.assert_allclose(D, world.posterior_mean(x, level), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("level", [ve(0.3), Level(0, 0.8, 0.6), Level(0, 0.1, 0.9)])
def test_the_exact_derivative_is_the_posterior_covariance(name, level):
    check_derivative(name=name, level=level)


# ---- the trace

def traces(name, level=Level(0, 0.8, 0.6)):
    world = WORLDS[name]
    x = Key(2).normal((4, world.dim))
    _, product = likelihood.exact(world)(x, level)
    return x, product, np.trace(tweedie(world, x, level), axis1=1, axis2=2)


def check_exact_trace(module=likelihood, name="mixture in 5-D"):
    x, product, want = traces(name)
    np.testing.assert_allclose(module.exact_trace(product, x), want, rtol=1e-12)


def check_hutchinson(module=likelihood, name="mixture in 5-D"):
    """The mean over a complete set of probes is the trace: all 2^d signs, and sqrt(d) times an orthogonal matrix."""
    x, product, want = traces(name)
    d = x.shape[1]
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=d)))
    rotation = math.sqrt(d) * np.linalg.qr(Key(3).normal((d, d)))[0]
    for probes in (signs, rotation):
        probes = np.broadcast_to(probes[:, None, :], (len(probes), *x.shape))
        np.testing.assert_allclose(module.hutchinson(probes)(product, x), want, rtol=1e-12)


@pytest.mark.parametrize("name", WORLDS)
def test_the_trace_by_basis_vectors_is_the_trace(name):
    check_exact_trace(name=name)


@pytest.mark.parametrize("name", WORLDS)
def test_hutchinsons_estimate_is_unbiased(name):
    check_hutchinson(name=name)


def test_hutchinsons_variance_is_that_of_the_theory():
    """For symmetric J: Gaussian probes have variance 2 |J|_F^2, Rademacher 2 (|J|_F^2 - sum J_ii^2); 40,000 draws."""
    world, level, n = WORLDS["mixture in 5-D"], Level(0, 0.8, 0.6), 40_000
    x = np.repeat(Key(2).normal((1, 5)), n, axis=0)
    _, product = likelihood.exact(world)(x, level)
    J = tweedie(world, x[:1], level)[0]
    frobenius, diagonal = np.sum(J ** 2), np.sum(np.diag(J) ** 2)
    z = Key(4).normal((n, 5))
    for probes, variance in ((z, 2 * frobenius), (np.sign(z), 2 * (frobenius - diagonal))):
        found = likelihood.hutchinson(probes[None])(product, x)
        assert abs(found.mean() - np.trace(J)) < 5 * np.sqrt(variance / n)
        assert found.var() == pytest.approx(variance, rel=0.1)


# ---- the PF-ODE's likelihood

def check_closed_form(module=likelihood, name="mixture in 2-D", span="preserving", prior=None):
    """From level a to b and the exact density there: log p_a to 1e-8, since the solver's bound is 1e-10 per step."""
    world, (a, b) = WORLDS[name], SPANS[span]
    x = a.alpha * world.sample(Key(5), 5)
    solver = module.Adaptive(rtol=1e-10, atol=1e-10)
    found = module.log_likelihood(likelihood.exact(world), x, a, b, prior or world.log_density, module.exact_trace,
                                  solver, tolerance=1e-8)
    np.testing.assert_allclose(found.log_p, world.log_density(x, a), rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.x, world.flow(x, a, b), rtol=0, atol=1e-8 * b.sigma)
    assert found.gap < 1e-8


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("span", SPANS)
def test_the_pf_odes_likelihood_is_the_density(name, span):
    """Where no signal is left at the end, the prior is exactly N(0, sigma^2 I)."""
    check_closed_form(name=name, span=span, prior=likelihood.normal_prior(0.7) if "flow" in span else None)


def test_the_likelihood_of_a_mixture_equals_50_digits():
    """One point of a 1-D mixture at sigma = 0.05: the density at 50 digits, and the solver's own 1e-10."""
    weights, means, variances, x, sigma = (0.3, 0.7), (-1.0, 0.5), (0.04, 0.09), 0.4, 0.05
    with mpmath.workdps(50):
        want = mpmath.log(sum(mpmath.mpf(w) * mpmath.npdf(mpmath.mpf(x), mpmath.mpf(m),
                                                          mpmath.sqrt(mpmath.mpf(v) + mpmath.mpf(sigma) ** 2))
                              for w, m, v in zip(weights, means, variances)))
    world = exact.Mixture(weights, means, variances)
    found = likelihood.log_likelihood(likelihood.exact(world), np.array([[x]]), ve(sigma), ve(100.0),
                                      world.log_density, solver=likelihood.Adaptive(1e-12, 1e-12), tolerance=1e-9)
    np.testing.assert_allclose(found.log_p, [float(want)], rtol=1e-10)


def test_hutchinsons_likelihood_averages_to_the_exact_one():
    """With one pair of orthogonal probes each estimate is off, and the mean over both is the density."""
    world, (a, b) = WORLDS["mixture in 2-D"], SPANS["exploding"]
    x = world.sample(Key(6), 4)
    c, s = math.cos(0.4), math.sin(0.4)
    each = [likelihood.log_likelihood(likelihood.exact(world), x, a, b, world.log_density, solver=TIGHT, tolerance=1e-8,
                                      trace=likelihood.hutchinson(np.broadcast_to(z, (1, *x.shape)))).log_p
            for z in math.sqrt(2) * np.array([[c, s], [-s, c]])]
    want = world.log_density(x, a)
    assert np.all(np.abs(each[0] - want) > 1e-3)
    np.testing.assert_allclose((each[0] + each[1]) / 2, want, rtol=0, atol=1e-8)


def check_prior(module=likelihood):
    """Data N(0, s^2 I) have exactly this prior, at any level."""
    world = exact.Gaussian(np.zeros(3), 0.49 * np.eye(3))
    x = Key(7).normal((4, 3))
    for level in (ve(2.0), Level(0, 0.3, 0.8)):
        np.testing.assert_allclose(module.normal_prior(0.7)(x, level), world.log_density(x, level), rtol=1e-13)


def test_the_normal_prior_is_exact_for_normal_data():
    check_prior()


def test_the_normal_priors_error_falls_with_the_last_sigma():
    """Of a symmetric mixture the moments match to the third, so that what is left in log p is O(1/sigma^4)."""
    world, a = exact.Mixture([1, 1], [-0.7, 0.7], [0.02, 0.02]), ve(0.05)
    x = world.sample(Key(8), 3)
    prior, errors = likelihood.normal_prior(math.sqrt(0.51)), []
    for sigma in (5.0, 10.0, 20.0):
        found = likelihood.log_likelihood(likelihood.exact(world), x, a, ve(sigma), prior,
                                          solver=likelihood.Adaptive(1e-9, 1e-9), tolerance=1e-6)
        errors.append(np.abs(found.log_p - world.log_density(x, a)).max())
    assert errors[0] < 2e-4
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 16, rtol=0.05)


def test_rows_are_solved_to_the_same_figure_alone_and_together():
    """The steps are shared, but every row keeps its bound: 1e-8 of log p, whatever its neighbours: one is far out."""
    world, (a, b) = WORLDS["mixture in 2-D"], SPANS["exploding"]
    x = world.sample(Key(9), 9)
    x[3] = [4.0, -3.0]
    found = likelihood.log_likelihood(likelihood.exact(world), x, a, b, world.log_density, solver=TIGHT,
                                      tolerance=1e-7)
    np.testing.assert_allclose(found.log_p, world.log_density(x, a), rtol=1e-9, atol=1e-8)
    alone = likelihood.log_likelihood(likelihood.exact(world), x[3:4], a, b, world.log_density, solver=TIGHT,
                                      tolerance=1e-7)
    np.testing.assert_allclose(found.log_p[3], alone.log_p[0], rtol=1e-9)


def test_a_likelihood_is_the_same_on_a_device():
    """The denoiser and the trace stay where x lives; the solver is on the host, and so are the figures."""
    world, x, z = WORLDS["mixture in 2-D"], Key(12).normal((3, 2)), np.sign(Key(13).normal((2, 3, 2)))

    def figures(there):
        return [likelihood.log_likelihood(likelihood.exact(world), there(x), ve(0.1), ve(9.0), world.log_density,
                                          trace, tolerance=0.1).log_p
                for trace in (likelihood.exact_trace, likelihood.hutchinson(there(z)))]

    host, there = figures(lambda a: a), figures(standin.xp.asarray)
    assert all(type(log_p) is np.ndarray for log_p in there)
    np.testing.assert_array_equal(there, host)


# ---- the guard

def ring_likelihood(solver, module=likelihood, guarded=True):
    world = exact.ring()
    x = world.sample(Key(10), 5)
    args = (likelihood.exact(world), x, ve(0.02), ve(20.0), world.log_density, likelihood.exact_trace, solver)
    found = module.log_likelihood(*args) if guarded else module.change_of_variables(*args)
    return found.log_p, world.log_density(x, ve(0.02))


def check_few_steps(module=likelihood):
    """Euler's error in bits/dim grows as steps fall: 3.5 at one step, 0.5 at 16, where models differ by hundredths."""
    errors = []
    for steps in (1, 4, 16, 64):
        found, want = ring_likelihood(module.Euler(steps), module, guarded=False)
        errors.append(float(np.abs(likelihood.bits_per_dim(found - want, 2)).max()))
        with pytest.raises(module.NotConverged, match="wanted within 0.001"):
            ring_likelihood(module.Euler(steps), module)
    assert errors == sorted(errors, reverse=True) and errors[0] > 3 and errors[2] > 0.4, errors


def test_few_step_likelihoods_are_meaningless_and_are_refused():
    check_few_steps()


@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_what_is_reported_is_within_the_tolerance_and_what_is_not_is_refused(rtol):
    """At each tolerance of the solver: either the figure is right to the stated 1e-3 nats, or there is none."""
    try:
        found, want = ring_likelihood(likelihood.Adaptive(rtol, rtol, "RK45"))
    except likelihood.NotConverged as refused:
        assert rtol > 1e-5 and "use smaller tolerances" in str(refused)
    else:
        assert rtol < 1e-1 and np.abs(found - want).max() < 1e-3


def test_a_solver_that_fails_gives_no_figure():
    with pytest.raises(likelihood.NotConverged, match="more than 50 evaluations at angle"):
        ring_likelihood(likelihood.Adaptive(limit=50))
    linearised = likelihood.exact(exact.ring())

    def diverged(x, level):
        D, product = linearised(x, level)
        return (D if level.sigma < 0.5 else np.nan * D), product

    for solver in (likelihood.Adaptive(), likelihood.Euler(8)):
        with pytest.raises(likelihood.NotConverged):
            likelihood.log_likelihood(diverged, np.ones((2, 2)), ve(0.1), ve(9.0), likelihood.normal_prior(0.7),
                                      solver=solver)


# ---- the unit

def check_uniform(module=likelihood):
    """All L^d images equally probable: log2 L bits per dimension, for the density that dequantisation makes."""
    for levels in (2, 17, 256):
        log_p = np.array([-3 * math.log(levels * 2 / (levels - 1))])
        np.testing.assert_allclose(module.bits_per_dim(log_p, 3, levels), math.log2(levels), rtol=1e-15)


def test_the_uniform_density_has_log2_of_the_levels():
    check_uniform()


def check_jensen(module=likelihood):
    """The mean over u is above -log2 P(g), and tends to it as the bins narrow, as w^2 (second derivative of log p)."""
    gaps = []
    for levels in (9, 17, 33):
        w = 2 / (levels - 1)
        x = np.full((2001, 1), 0.25)
        u = (np.arange(2001)[:, None] + 0.5) / 2001
        moved = module.dequantise(x, levels, u)
        log_p = -0.5 * (moved[:, 0] / 0.3) ** 2 - math.log(0.3 * math.sqrt(2 * math.pi))
        bits = module.bits_per_dim(log_p, 1, levels).mean()
        mean_square = 0.25 ** 2 + w ** 2 / 12                        # of x + (u - 1/2) w
        want = math.log2(0.3 * math.sqrt(2 * math.pi) / w) + mean_square / (2 * 0.3 ** 2 * math.log(2))
        assert bits == pytest.approx(want, rel=1e-6)                 # the midpoint rule over u: 1/2001^2
        gaps.append(bits + math.log2(ndtr((0.25 + w / 2) / 0.3) - ndtr((0.25 - w / 2) / 0.3)))
    assert gaps[0] > gaps[1] > gaps[2] > 0, gaps
    np.testing.assert_allclose([gaps[0] / gaps[1], gaps[1] / gaps[2]], 4, rtol=0.02)


def test_the_mean_over_dequantisation_bounds_the_probability_of_a_grey_level():
    check_jensen()


def test_a_density_without_levels_is_in_bits_alone():
    np.testing.assert_allclose(likelihood.bits_per_dim(np.array([-2.0]), 4), 0.5 / math.log(2), rtol=1e-15)


@pytest.mark.parametrize("call, message", [
    (lambda: likelihood.bits_per_dim(np.zeros(1), 2, 1), "levels is 1, wanted an integer >= 2"),
    (lambda: likelihood.dequantise(np.zeros((1, 2)), 17, np.ones((1, 2))), "wanted 0 <= u < 1"),
    (lambda: likelihood.dequantise(np.full((1, 2), 0.03), 17, np.zeros((1, 2))), "wanted whole grey levels"),
    (lambda: likelihood.hutchinson(np.zeros(3)), "wanted \\(k, n, ...\\) with k >= 1"),
    (lambda: likelihood.hutchinson(np.zeros((1, 2, 2)))(lambda v: v, np.zeros((3, 2))), "wanted k of \\(3, 2\\)"),
    (lambda: likelihood.Adaptive(method="LSODA"), "wanted method RK23, RK45, DOP853"),
    (lambda: likelihood.Adaptive(rtol=0.0), "0 < rtol < 1"),
    (lambda: likelihood.Euler(0), "wanted an integer >= 1"),
    (lambda: likelihood.normal_prior(-1.0), "wanted >= 0"),
    (lambda: ring_from(ve(0.0), ve(1.0)), "wanted 0 < start < end"),
    (lambda: ring_from(ve(1.0), ve(0.1)), "wanted 0 < start < end"),
    (lambda: ring_from(ve(np.array([0.1])), ve(1.0)), "levels in numbers"),
    (lambda: ring_from(ve(0.1), ve(1.0), np.ones((0, 2))), "wanted at least one row"),
    (lambda: ring_from(ve(0.1), ve(1.0), np.array([[1.0, np.nan]])), "all of x finite"),
])
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def ring_from(a, b, x=np.ones((1, 2))):
    return likelihood.log_likelihood(likelihood.exact(exact.ring()), x, a, b, likelihood.normal_prior(1))


# ---- planted mutants

MUTANTS = [
    (check_derivative, "scores - (r * scores).sum(axis=0)", "scores"),
    (check_derivative, "(own + means[k", "(own - means[k"),
    (check_derivative, "(r * means).sum(axis=0)", "means.mean(axis=0)"),
    (check_derivative, "alpha * np.linalg.solve", "np.linalg.solve"),
    (check_derivative, "sigma ** 2 * np.eye", "sigma * np.eye"),
    (check_derivative, "alpha ** 2 * c.cov", "alpha * c.cov"),
    (check_derivative, "math.log(w) + c.log_density", "c.log_density"),
    (check_closed_form, "(d * cos - _per_row", "(d * cos + _per_row"),
    (check_closed_form, "(d * cos - _per_row", "(d - _per_row"),
    (check_closed_form, "trace(product, xhat), n)) / sin", "trace(product, xhat), n)) / sin ** 2"),
    (check_closed_form, "(cos * xhat - D) / sin", "(cos * xhat - D) / (1.001 * sin)"),
    (check_closed_form, "log_prior + divergence", "log_prior - divergence"),
    (check_closed_form, "d * math.log(norm_b / norm_a)", "d * math.log(norm_a / norm_b)"),
    (check_closed_form, "reshape(x.shape) * norm_b", "reshape(x.shape) * norm_a"),
    (check_closed_form, "reshape(n, d) / norm_a", "reshape(n, d) / norm_b"),
    (check_closed_form, "atan2(b.sigma, b.alpha)", "atan2(b.sigma, 1.001 * b.alpha)"),
    (check_closed_form, "atan2(a.sigma, a.alpha)", "atan2(a.sigma, 1.001 * a.alpha)"),
    (check_prior, "math.hypot(level.alpha * std,", "math.hypot(level.alpha * std ** 2,"),
    (check_prior, "math.hypot(level.alpha * std,", "math.hypot(std,"),
    (check_prior, "* std, level.sigma)", "* std, level.sigma ** 2)"),
    (check_prior, "0.5 * (x / total)", "(x / total)"),
    (check_prior, "(math.log(total) + 0.5 * math.log(2 * math.pi))", "(math.log(total) + 0.5 * math.log(math.pi))"),
    (check_exact_trace, ".reshape(len(x), -1)[:, j]\n    return", ".reshape(len(x), -1)[:, 0]\n    return"),
    (check_hutchinson, "/ len(probes)", "/ x.shape[1]"),
    (check_hutchinson, "(z * product(z))", "(abs(z) * product(z))"),
    (check_few_steps, "np.all(apart <= tolerance)", "np.all(apart >= 0)"),
    (check_few_steps, "Euler(2 * self.steps)", "Euler(self.steps)"),
    (check_uniform, "math.log2((levels - 1) / 2)", "math.log2(levels / 2)"),
    (check_uniform, "-log_p / (dim * math.log(2))", "-log_p / math.log(2)"),
    (check_uniform, "-log_p / (dim * math.log(2))", "-log_p / dim"),
    (check_jensen, "(u - 0.5) * (2 / (levels - 1))", "u * (2 / (levels - 1))"),
    (check_jensen, "(u - 0.5) * (2 / (levels - 1))", "(u - 0.5) * (4 / (levels - 1))"),
]


def check_closed_form_ve(module):
    check_closed_form(module, span="exploding")


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=[f"{m[0].__name__}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, old, new):
    module = mutant("process.likelihood", (old, new))
    with pytest.raises((AssertionError, pytest.fail.Exception, ArithmeticError)):
        (check_closed_form_ve if check is check_closed_form else check)(module)
