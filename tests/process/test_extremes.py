"""Where squares of alpha, sigma or their ratio leave float64's range: the values are those of 50 digits, or refused."""
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from planted import mutant

from refdiff.process import (exact, families, family_grids, gaussian, likelihood, parameterization, schedules, times,
                             weights)
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import KINDS, Prediction
from refdiff.rng import Key

mpmath.mp.dps = 50
LAMBDAS = (-744.0, -710.0, -500.0, -400.0, -355.5, -30.0, -0.3, 0.0, 0.4, 30.0, 355.5, 400.0, 500.0, 710.0, 744.0)


# ---- families at any lambda that a float64 alpha and sigma can say

def exact_pair(name, family, lam):
    """(alpha, sigma) of ratio e^lam on the curve that a family's levels lie on, in 50 digits."""
    r = mpmath.exp(mpf(lam))
    if name == "flow":
        return r / (1 + r), 1 / (1 + r)
    if name == "trigflow":
        tan = 1 / (r * mpf(family.sigma_data))
        return 1 / mpmath.sqrt(1 + tan ** 2), 1 / (r * mpmath.sqrt(1 + tan ** 2))
    if name == "subvp":
        sigma = 2 / (1 + mpmath.sqrt(1 + 4 * r ** 2))
        return r * sigma, sigma
    return r / mpmath.sqrt(1 + r ** 2), 1 / mpmath.sqrt(1 + r ** 2)


WIDE = {"vp": families.VP(0.1, 4000.0), "subvp": families.SubVP(0.1, 4000.0), "cosine": families.Cosine(),
        "laplace": families.Laplace(0.0, 40.0), "flow": families.Flow(), "trigflow": families.TrigFlow(0.5)}


@pytest.mark.parametrize("name", WIDE)
def test_levels_of_any_lambda_equal_50_digits(name):
    """To u |lambda|, which e^lambda of a rounded lambda loses, and half the least number, 2.5e-324."""
    family = WIDE[name]
    rows = family.at(np.array(LAMBDAS))
    for i, lam in enumerate(LAMBDAS):
        one, want = family.at(lam), [float(w) for w in exact_pair(name, family, lam)]
        assert min(want) > 0 and family.t_min <= one.t <= family.t_max
        np.testing.assert_allclose([one.alpha, one.sigma], want, rtol=4e-16 * (2 + abs(lam)), atol=1e-323)
        assert (rows.t[i], rows.alpha[i], rows.sigma[i]) == (one.t, one.alpha, one.sigma)


@pytest.mark.parametrize("ask, want", [
    (lambda: families.VP().at(400.0).sigma, mpmath.exp(-400)),
    (lambda: families.Laplace(0.0, 20.0).alpha(1 - 2.0 ** -53), mpf(2) ** (-52 * 10)),
    (lambda: families.Geometric(1e-160, 1e160).sigma(0.5), 1),
    (lambda: families.Geometric(1e-160, 1e160).sigma(1.0), mpf(10) ** 160),
    (lambda: families.Geometric(1e-160, 1e160, False).sigma(0.25), mpf(10) ** -80),
    (lambda: families.Geometric(1e-160, 1e160).sigma_dot(0.5), 320 * mpmath.log(10)),
    (lambda: families.Geometric(1e-160, 1e160).g2(0.5), 640 * mpmath.log(10)),
    (lambda: families.Geometric(1e-160, 1e160).time(0.0), mpf(1) / 2),
    (lambda: families.Geometric(1e-160, 1e160, False).time(80 * math.log(10)), mpf(1) / 4),
    (lambda: families.Cosine(s=0.0).at(400.0).t, mpmath.exp(-400) / (mpmath.pi / 2)),
    (lambda: families.SubVP(0.1, 4000.0).at(-900.0).t,
     (mpmath.sqrt(mpf("0.01") + 2 * mpf("3999.9") * 1800) - mpf("0.1")) / mpf("3999.9")),
], ids=range(11))
def test_families_at_extremes_equal_50_digits(ask, want):
    np.testing.assert_allclose(ask(), float(want), rtol=1e-12)


def test_the_cosine_familys_noise_at_the_least_times_equals_50_digits():
    """t = 1e-310 has 44 of its 53 bits, and sin(q t) sin(w + u) some 40: the tolerance is 2^-40."""
    t, s = 1e-310, mpf(0.008)
    f = mpmath.pi / 2 / (1 + s)
    with mpmath.workdps(700):
        want = mpmath.sqrt(1 - (mpmath.cos((mpf(t) + s) * f) / mpmath.cos(s * f)) ** 2)
    np.testing.assert_allclose(families.Cosine().sigma(t), float(want), rtol=1e-12)


def test_sub_vp_has_a_time_where_its_signal_is_far_below_its_noise():
    """alpha = e^lambda sigma and sigma = 1 to 400 digits: B = -2 lambda."""
    family = families.SubVP(beta_max=2000.0)
    B = mpf(1000)
    want = 2 * B / (mpf(0.1) + mpmath.sqrt(mpf(0.1) ** 2 + 2 * (2000 - mpf(0.1)) * B))
    np.testing.assert_allclose(family.at(-500.0).t, float(want), rtol=1e-14)


@pytest.mark.parametrize("t", [math.nan, np.array([1.0, math.nan])])
def test_a_level_without_a_time_is_refused(t):
    with pytest.raises(ValueError, match="level: t is .*nan.*, wanted a number"):
        Level(t, *np.ones((2, *np.shape(t))))


# ---- zero terminal SNR of steps that hardly add noise

def exact_zero_terminal(schedule):
    """beta' from its definition, alpha in 60 digits."""
    with mpmath.workdps(400):
        alpha = [mpf(1)]
        for beta in schedule.beta[1:]:
            alpha.append(alpha[-1] * mpmath.sqrt(1 - mpf(float(beta))))
        moved = [(a - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1]) for a in alpha[1:]]
        return [0, float(schedule.beta[1])] + [float(1 - (b / a) ** 2) for a, b in zip(moved, moved[1:])]


def check_zero_terminal(module=schedules):
    for b in (1e-3, 1e-8, 1e-15, 1e-16, 1e-100, 1e-300):
        for made in (schedules.linear(5, b, b), schedules.linear(7, b, 3 * b), schedules.linear(2, b, b)):
            with np.errstate(all="raise", under="ignore"):
                found = module.zero_terminal_snr(made)
            np.testing.assert_allclose(found.beta, exact_zero_terminal(made), rtol=1e-14)


def test_zero_terminal_snr_of_tiny_betas_equals_50_digits():
    check_zero_terminal()


def test_zero_terminal_snr_applied_twice_is_itself():
    once = schedules.zero_terminal_snr(schedules.linear(50))
    with np.errstate(all="raise"):
        np.testing.assert_allclose(schedules.zero_terminal_snr(once).beta, once.beta, rtol=1e-13)


@pytest.mark.parametrize("old, new", [("_cumsum(drop[::-1])[::-1]", "_cumsum(drop)"),
                                      ("(1 + shifted[1:] / shifted[:-1])", "(1 - shifted[1:] / shifted[:-1])"),
                                      ("np.log1p(-schedule.beta[2:]) / 2", "np.log1p(-schedule.beta[2:])")])
def test_mutants_of_zero_terminal_snr_are_killed(old, new):
    with pytest.raises((AssertionError, ValueError)):
        check_zero_terminal(mutant("process.schedules", (old, new)))


# ---- quantiles at the least draws, and the second moment of losses of any size

@pytest.mark.parametrize("u", [times.LEAST, 1e-16, 1e-12, 1e-3, 0.3, 0.5, 0.7, 1 - 1e-3, 1 - 2.0 ** -53])
def test_quantiles_at_both_ends_equal_50_digits(u):
    half = mpmath.pi / 2 * mpf(u)
    want = [mpmath.tan(half) / (1 + mpmath.tan(half))]
    found = [times.CosMap().quantile(np.array([u]))[0]]
    for s in (-1.0, -0.4, 0.0, 1.29, 1.75):
        want.append(mpf(u) - mpf(s) * (mpmath.sin(half) ** 2 - mpf(u)))
        found.append(times.Mode(s).quantile(np.array([u]))[0])
    assert min(found) > 0
    np.testing.assert_allclose(found, [float(w) for w in want], rtol=2e-15)


@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1.0, 1e200, 1e307])
def test_the_second_moment_is_that_of_losses_in_any_unit(unit):
    moment = times.SecondMoment(3, 2)
    moment.update(np.array([1, 2, 3, 1, 2, 3]), unit * np.array([3.0, 1, -0.5, 4, -1, 0.5]))
    root = np.sqrt([25, 2, 0.5])
    np.testing.assert_allclose(moment.probabilities(), root / root.sum(), rtol=1e-14)
    t, weight = moment.draw(Key(0), 20)
    np.testing.assert_allclose(weight, root.sum() / (3 * root[t - 1]), rtol=1e-14)


def test_one_huge_loss_leaves_finite_weights():
    moment = times.SecondMoment(3, 1)
    moment.update(np.array([1, 2, 3]), np.array([1e200, 1.0, 1.0]))
    t, weight = moment.draw(Key(0), 100, True)
    assert np.all(t == 1)
    np.testing.assert_allclose(weight, 1 / 3, rtol=1e-15)


# ---- grids and densities

def test_uniform_time_of_a_small_power_does_not_overflow():
    """t = (start^1000 + w (end^1000 - start^1000))^.001 of T = 5 to 1, middle at 5 2^-.001."""
    grid = family_grids.uniform_time(families.Interpolated(schedules.linear(5)), 2, 1.0, power=1e-3)
    np.testing.assert_allclose(grid.t, [5, 5 * 2 ** -0.001, 1], rtol=1e-14)


def test_the_normal_prior_and_the_likelihood_reach_any_noise():
    x, sigma = np.array([[3e160, -1e160]]), 1e160
    want = -2 * (mpmath.log(mpf(sigma)) + mpmath.log(2 * mpmath.pi) / 2) - mpf(10) / 2
    np.testing.assert_allclose(likelihood.normal_prior(1.0)(x, ve(sigma)), [float(want)], rtol=1e-14)
    found = likelihood.log_likelihood(lambda x, level: (0 * x, lambda v: 0 * v), np.ones((1, 2)), ve(1.0), ve(sigma),
                                      likelihood.normal_prior(0.0), tolerance=0.1)
    np.testing.assert_allclose(found.log_p, [-1 - math.log(2 * math.pi)], rtol=1e-3)


# ---- levels, conversions, posteriors and weights where squares leave float64

FAR = [(1.0, 1e-160), (1.0, 1e-155), (1.0, 1e160), (1e-170, 1e-170), (1e-160, 1e140), (1e160, 1e150), (1.0, 1e-320),
       (1e-320, 1.0), (1e-200, 1e200), (1e200, 1e-200)]


def rows_of(level):
    return Level(np.zeros(1), np.array([level.alpha]), np.array([level.sigma]))


@pytest.mark.parametrize("alpha, sigma", FAR)
def test_lambda_of_any_level_equals_50_digits(alpha, sigma):
    level = Level(0, alpha, sigma)
    want = float(mpmath.log(mpf(alpha) / mpf(sigma)))
    np.testing.assert_allclose([level.lam, rows_of(level).lam[0]], want, rtol=1e-15)


def exact_weights(alpha, sigma):
    snr, g = (mpf(alpha) / mpf(sigma)) ** 2, mpf(4)
    return {"simple": mpf(1), "min_snr": min(snr, mpf(5)) / snr, "soft_min_snr": g / (snr + g), "p2": 1 / (1 + snr),
            "edm": 1 + 4 / snr, "sigmoid": mpmath.exp(2) / (mpmath.exp(2) + snr), "truncated_snr": max(mpf(1), 1 / snr),
            "snr_plus_one": 1 + 1 / snr, "flow": (1 + 1 / mpmath.sqrt(snr)) ** 2}


@pytest.mark.parametrize("name", weights.WEIGHTS)
def test_weights_of_any_level_equal_50_digits_or_are_infinite_or_0_beyond_them(name):
    """To the least normal number, 2e-308."""
    with np.errstate(all="raise", under="ignore"):
        for alpha, sigma in FAR:
            level, want = Level(0, alpha, sigma), float(exact_weights(alpha, sigma)[name])
            found = [weights.WEIGHTS[name](level), weights.WEIGHTS[name](rows_of(level))[0]]
            np.testing.assert_allclose(found, want, rtol=2e-13, atol=2e-308, err_msg=f"{name} {alpha} {sigma}")
        half = weights.p2(ve(1e-155), gamma=0.5)
        np.testing.assert_allclose(half, 1e-155, rtol=1e-13)


def check_conversions(module=parameterization):
    """x0 and eps of unit size, said as every kind that float64 can hold, and back."""
    x0, eps, d = mpf("0.7"), mpf("-1.3"), mpf("0.5")
    for alpha, sigma in ((1.0, 1e-160), (1.0, 1e160), (1e-170, 1e-170), (1e160, 1e160), (3.0, 4.0)):
        level, (a, s) = Level(0, alpha, sigma), (mpf(alpha), mpf(sigma))
        x = a * x0 + s * eps
        root = mpmath.sqrt(s ** 2 + a ** 2 * d ** 2)
        said = {"eps": eps, "x0": x0, "v": a * eps - s * x0, "score": -eps / s, "velocity": eps - x0,
                "F": (s / d * x0 - a * d * eps) / root}
        for kind, value in said.items():
            made = module.Prediction(kind, np.array([[float(value)]]), np.array([[float(x)]]), level, float(d))
            rows = module.Prediction(kind, made.value, made.x, rows_of(level), float(d))
            ask = {"eps": "eps" if alpha < sigma else "x0", "score": "eps", "x0": "x0"}.get(kind)
            for name in [ask] if ask and alpha != 3.0 else ("x0", "eps", "v", "F", "velocity"):
                for one in (made, rows):
                    np.testing.assert_allclose(getattr(one, name), float(said[name]), rtol=1e-13,
                                               err_msg=f"{kind} to {name} at {alpha}, {sigma}")


def test_predictions_at_any_level_equal_50_digits():
    check_conversions()


@pytest.mark.parametrize("alpha, sigma", [(1.0, 1e160), (1e-170, 1e-170), (1e160, 1e160), (3.0, 4.0)])
def test_amplification_at_any_level_equals_50_digits(alpha, sigma):
    a, s = mpf(alpha), mpf(sigma)
    w = {"eps": a, "x0": s, "v": a ** 2 + s ** 2, "score": a / s, "velocity": a + s, "data_velocity": a + s,
         "F": mpmath.sqrt(s ** 2 * 4 + a ** 2)}
    for kind in (*KINDS, "F"):
        for target in (*KINDS, "F"):
            want = 1 / s if (kind, target) == ("eps", "score") else s if (kind, target) == ("score", "eps") else \
                mpf(1) if kind == target else w[target] / w[kind]
            found = parameterization.amplification(kind, target, Level(0, alpha, sigma), 0.5)
            np.testing.assert_allclose(found, float(want), rtol=1e-14, atol=1e-322, err_msg=f"{kind} {target}")


@pytest.mark.parametrize("name", ["v", "F"])
def test_preconditionings_at_any_level_say_x0(name):
    for alpha, sigma in ((1.0, 1e-150), (1.0, 1e150), (1e-150, 1e-150), (1e150, 1e150), (3.0, 4.0)):
        c = parameterization.PRECONDITIONINGS[name](Level(1, alpha, sigma))
        made = Prediction(name, np.array([[0.3]]), np.array([[alpha]]), Level(1, alpha, sigma), 0.5)
        np.testing.assert_allclose(c.c_skip * alpha + c.c_out * 0.3, made.x0[0, 0], rtol=1e-14)
        std = mpmath.sqrt(mpf(sigma) ** 2 + mpf(alpha) ** 2 / 4)
        np.testing.assert_allclose(c.c_in, float(1 / std) if name == "F" else 1.0, rtol=1e-15)


def check_posterior(module=gaussian):
    for s, t in ((ve(5e-164), ve(1e-163)), (ve(5e150), ve(1e151)), (Level(1, 1e-170, 3e-171), Level(2, 5e-171, 1e-170)),
                 (Level(1, 0.8, 0.6), Level(2, 0.3, 0.9))):
        alpha_s, sigma_s, alpha_t, sigma_t = map(mpf, (s.alpha, s.sigma, t.alpha, t.sigma))
        var = sigma_t ** 2 - (alpha_t / alpha_s * sigma_s) ** 2
        want = (alpha_s * var / sigma_t ** 2, alpha_t / alpha_s * (sigma_s / sigma_t) ** 2,
                sigma_s ** 2 * var / sigma_t ** 2)
        for found in (module.posterior(s, t), [c[0] for c in module.posterior(rows_of(s), rows_of(t))]):
            np.testing.assert_allclose(found, [float(w) for w in want], rtol=1e-14, atol=1e-322)
        np.testing.assert_allclose(module.transition(s, t)[1], float(var), rtol=1e-14, atol=1e-322)


def test_posteriors_at_any_level_equal_50_digits():
    check_posterior()


@pytest.mark.parametrize("old, new", [
    ("s.alpha * lost", "lost"), ("kept * (s.sigma / t.sigma)", "kept"), ("_variance(s.sigma * lost, s.sigma, s)",
                                                                        "_variance(lost, s.sigma, s)"),
    ("(t.sigma - r) / t.sigma * (1 + r", "(t.sigma - r) / t.sigma * (1 - r"),
    ("t.sigma - r, t.sigma + r, t)", "t.sigma - r, t.sigma - r, t)"), ("r = alpha_ts * s.sigma", "r = s.sigma")])
def test_mutants_of_the_posterior_are_killed(old, new):
    with pytest.raises((AssertionError, ValueError)):
        check_posterior(mutant("process.gaussian", (old, new)))


@pytest.mark.parametrize("old, new", [
    ("return expand(alpha / root / root, x) * x - ", "return expand(alpha / root, x) * x - "),
    ("- expand(sigma / root / root, x) * value", "- expand(sigma / root, x) * value"),
    ("+ expand(alpha / root / root, x) * value", "+ expand(alpha / root, x) * value"),
    ("expand(alpha * d / root * d / root, x)", "expand(alpha * d / root / root, x)"),
    ("expand(sigma / root * d, x)", "expand(sigma / root, x)"), ("(expand(sigma, x) * value)) /", "value) /"),
    ("expand(alpha * d / root, x)", "expand(alpha / root, x)"),
    ("self.level.sigma / root / self.sigma_data", "self.level.sigma / root"),
    ("hypot(self.level.sigma, self.level.alpha * self.sigma_data)", "hypot(self.level.sigma, self.level.alpha)")])
def test_mutants_of_the_conversions_are_killed(old, new):
    with pytest.raises(AssertionError):
        check_conversions(mutant("process.parameterization", (old, new)))


@pytest.mark.parametrize("ask", [lambda: gaussian.transition(ve(1e159), ve(1e160)),
                                 lambda: gaussian.posterior(ve(5e159), ve(1e160)),
                                 lambda: gaussian.transition(rows_of(ve(1e159)), rows_of(ve(1e160)))])
def test_a_variance_beyond_the_largest_number_is_refused(ask):
    with pytest.raises(ValueError, match="is above 1.8e308; rescale"):
        ask()


def test_the_weight_of_the_bound_is_of_ratios_alone():
    for unit in (1e-161, 1.0, 1e160):
        for of in (lambda x: x, rows_of):
            s, t = of(Level(1, 1.0, 0.5 * unit)), of(Level(2, 1.0, unit))
            np.testing.assert_allclose(weights.vlb(s, t), 1.5, rtol=1e-14)
            np.testing.assert_allclose(weights.vlb(s, t, "large"), 0.375, rtol=1e-14)
            np.testing.assert_allclose(weights.likelihood(t, 0.0, unit), 1.0, rtol=1e-14)


# ---- worlds at any level

def check_worlds(module=exact):
    """N(m, C) along the axes, its twin as a mixture, and two points, against sums in 50 digits."""
    m, w, points = (mpf("0.3"), mpf("-0.2")), (mpf("0.49"), mpf(2)), ((0.0, 1.0), (0.5, -0.25))
    mean, cov = [float(v) for v in m], np.diag([float(v) for v in w])
    for alpha, sigma in ((1.0, 1e-160), (1.0, 1e160), (1e-170, 1e-170), (1e160, 1e160), (0.8, 0.6)):
        level, (a, s) = Level(0, alpha, sigma), (mpf(alpha), mpf(sigma))
        x = [a * mpf(p) + s * mpf(q) for p, q in ((0.5, 0.3), (-0.25, -0.7))]
        at = np.array([[float(v) for v in x]])
        var = [a ** 2 * v + s ** 2 for v in w]
        want = {"log_density": -sum((v - a * c) ** 2 / d + mpmath.log(2 * mpmath.pi * d)
                                    for v, c, d in zip(x, m, var)) / 2,
                "score": [-(v - a * c) / d for v, c, d in zip(x, m, var)],
                "posterior_mean": [c + a * b / d * (v - a * c) for v, c, d, b in zip(x, m, var, w)]}
        mixed = module.Mixture([1, 1], [mean, mean], [cov, cov])
        for world in (module.Gaussian(mean, cov), mixed):
            for name, truth in want.items():
                for one in (level, rows_of(level)):
                    found, truth = np.ravel(getattr(world, name)(at, one)), np.array(truth, np.float64).ravel()
                    np.testing.assert_allclose(found, truth, rtol=2e-13, atol=1e-307, err_msg=f"{name} {alpha} {sigma}")
        to = Level(1, 0.6, 0.8)
        moved = module.Gaussian(mean, cov).flow(at, level, to)[0]
        np.testing.assert_allclose(moved, [float(to.alpha * c + mpmath.sqrt(to.alpha ** 2 * b + to.sigma ** 2) *
                                                 (v - a * c) / mpmath.sqrt(d)) for v, c, b, d in zip(x, m, w, var)],
                                   rtol=1e-12)
        logs = [-sum((v - a * mpf(p)) ** 2 for v, p in zip(x, point)) / (2 * s ** 2) for point in points]
        share = 1 / (1 + mpmath.exp(logs[0] - logs[1]))                                          # of the second point
        mean_of = [(1 - share) * mpf(p) + share * mpf(q) for p, q in zip(*points)]
        data = module.FiniteData(points)
        if alpha > 1 or sigma != 1e-160:
            np.testing.assert_allclose(data.posterior_mean(at, level)[0], [float(v) for v in mean_of], rtol=1e-12)
            if sigma < 1e155:
                np.testing.assert_allclose(data.score(at, level)[0],
                                           [float((a * v - u) / s ** 2) for v, u in zip(mean_of, x)], rtol=1e-9)


def test_worlds_at_any_level_equal_50_digits():
    check_worlds()


@pytest.mark.parametrize("old, new", [
    ("alpha * root / std * root * z", "alpha * root / std * z"), ("-(z / std) @ U.T", "-z @ U.T"),
    ("-(0.5 * z ** 2", "-(z ** 2"), ("+ 0.5 * math.log(2 * math.pi)).sum", "+ 0.5 * math.log(math.pi)).sum"),
    ("std = hypot(alpha * w ** 0.5, sigma)", "std = hypot(alpha * w, sigma)"),
    ("(hypot(alpha * root, sigma) * z)", "(hypot(root, sigma) * z)"), ("- x) / sigma / sigma", "- x) / sigma")])
def test_mutants_of_the_worlds_are_killed(old, new):
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check_worlds(mutant("process.exact", (old, new)))


def test_a_mixtures_quantiles_and_its_derivative_reach_any_noise():
    world = exact.Mixture([1, 2], [-0.5, 0.7], [0.04, 0.09])
    x = np.array([[-2.0], [0.3]])
    np.testing.assert_allclose(world.flow(1e160 * x, ve(1e160), ve(1e150)), 1e150 * x, rtol=1e-12)
    D, product = likelihood.exact(world)(1e160 * x, ve(1e160))
    np.testing.assert_allclose(D, (0.7 * 2 - 0.5) / 3, rtol=1e-13)
    assert np.all(np.isfinite(product(x)))


@pytest.mark.parametrize("world", [exact.Mixture([1, 1], [-1.0, 1.0], [0.0, 0.0]), exact.FiniteData([-1.0, 1.0])])
def test_an_x_that_no_datum_can_have_made_is_refused(world):
    with pytest.raises(ValueError, match="standard deviations from all of the data"), np.errstate(over="ignore"):
        world(np.array([[0.5]]), ve(1e-160))


def test_a_marginal_whose_covariance_is_no_number_is_refused():
    with pytest.raises(ValueError, match="Gaussian: mean .* wanted finite"):
        exact.Gaussian([0.0, 1.0], np.eye(2)).marginal(ve(1e160))
