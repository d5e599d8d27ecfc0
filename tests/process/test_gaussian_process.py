"""q(x_t | x_s), its chain and its posterior, against Bayes, 50 digits and brute composition."""
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import gaussian, schedules
from refdiff.process.level import Level, ve

U = 2.0 ** -53

angles = st.floats(1e-3, np.pi / 2 - 1e-3)


def level_of(family, a):
    if family == "vp":
        return Level(a, float(np.cos(a)), float(np.sin(a)))
    if family == "ve":
        return ve(float(np.tan(a)))
    t = float(2 * a / np.pi)
    return Level(t, 1 - t, t)


families = st.sampled_from(["vp", "ve", "flow"])


@given(families, st.lists(angles, min_size=3, max_size=3, unique=True))
def test_two_transitions_compose_to_one(family, three):
    s, m, t = (level_of(family, a) for a in sorted(three))
    if not s.ratio < m.ratio < t.ratio:
        return
    ts, tm, ms = gaussian.transition(s, t), gaussian.transition(m, t), gaussian.transition(s, m)
    assert ts.alpha == pytest.approx(tm.alpha * ms.alpha, rel=8 * U)
    # each variance is a difference of squares no larger than sigma_t^2
    assert ts.variance == pytest.approx(tm.alpha ** 2 * ms.variance + tm.variance, abs=16 * U * t.sigma ** 2)


@given(families, st.lists(angles, min_size=2, max_size=2, unique=True))
def test_marginal_of_the_transition_is_the_marginal(family, two):
    s, t = (level_of(family, a) for a in sorted(two))
    if not s.ratio < t.ratio:
        return
    alpha, variance = gaussian.transition(s, t)
    assert alpha * s.alpha == pytest.approx(t.alpha, rel=8 * U)
    assert alpha ** 2 * s.sigma ** 2 + variance == pytest.approx(t.sigma ** 2, rel=16 * U)


@given(families, st.lists(angles, min_size=2, max_size=2, unique=True))
def test_transition_variance_equals_50_digits_up_to_its_condition(family, two):
    s, t = (level_of(family, a) for a in sorted(two))
    if not s.ratio < t.ratio:
        return
    with mp.workdps(50):
        r = mp.mpf(t.alpha) / mp.mpf(s.alpha) * mp.mpf(s.sigma)
        exact = mp.mpf(t.sigma) ** 2 - r ** 2
        condition = float(t.sigma / (t.sigma - r)) if r < t.sigma else np.inf
        error = abs(mp.mpf(gaussian.transition(s, t).variance) - exact) / exact if exact else 0
    assert error <= 4 * U * (condition + 2)              # r carries two roundings, r - sigma none or one


def test_chain_of_single_steps_is_the_closed_marginal():
    """1000 steps of q(x_t | x_{t-1}), mean coefficient and variance propagated one by one."""
    for s in (schedules.linear(), schedules.cosine(), schedules.scaled_linear()):
        coefficient, variance = 1.0, 0.0
        for t in range(1, s.T + 1):
            alpha, step = gaussian.transition(s.level(t - 1), s.level(t))
            coefficient, variance = alpha * coefficient, alpha ** 2 * variance + step
            assert coefficient == pytest.approx(s.alpha[t], rel=4 * t * U)
            assert variance == pytest.approx(s.one_minus_alpha_bar[t], rel=1e-12)


def test_single_step_variance_is_beta():
    for s in (schedules.linear(), schedules.cosine(), schedules.scaled_linear()):
        got = [gaussian.transition(s.level(t - 1), s.level(t)).variance for t in range(1, s.T + 1)]
        # alpha and sigma are rounded at u, beta is their relative difference: condition sigma^2/beta <= 1e4
        np.testing.assert_allclose(got, s.beta[1:], rtol=2e-12)


@given(families, st.lists(angles, min_size=2, max_size=2, unique=True), st.floats(-3, 3), st.floats(-3, 3))
def test_posterior_is_bayes_rule(family, two, x0, x_t):
    """Precisions add: q(x_s | x_t, x_0) is proportional to q(x_s | x_0) q(x_t | x_s), at 50 digits."""
    s, t = (level_of(family, a) for a in sorted(two))
    if not t.ratio > s.ratio * (1 + 1e-6):
        return
    with mp.workdps(50):
        a_s, s_s, a_t, s_t = (mp.mpf(v) for v in (s.alpha, s.sigma, t.alpha, t.sigma))
        a, var = a_t / a_s, s_t ** 2 - (a_t / a_s * s_s) ** 2
        precision = 1 / s_s ** 2 + a ** 2 / var
        mean = (a_s * mp.mpf(x0) / s_s ** 2 + a * mp.mpf(x_t) / var) / precision
        condition = float(s_t ** 2 / var) + 4
    c_x0, c_xt, variance = gaussian.posterior(s, t)
    scale = abs(c_x0 * x0) + abs(c_xt * x_t)
    assert abs(c_x0 * x0 + c_xt * x_t - float(mean)) <= 16 * U * condition * scale + 1e-280
    assert variance == pytest.approx(float(1 / precision), rel=16 * U * condition)


def test_posterior_variance_never_exceeds_beta():
    for s in (schedules.linear(100), schedules.cosine(100)):
        for t in range(1, s.T + 1):
            small = gaussian.fixed_variance("small", s.level(t - 1), s.level(t))
            large = gaussian.fixed_variance("large", s.level(t - 1), s.level(t))
            assert 0 <= small < large


def test_beta_tilde_constant_and_formula():
    s = schedules.linear(1000)
    assert f"{gaussian.posterior(s.level(1), s.level(2)).variance:.4e}" == "5.4532e-05"
    for t in (2, 3, 500, 1000):
        expected = s.one_minus_alpha_bar[t - 1] / s.one_minus_alpha_bar[t] * s.beta[t]
        assert gaussian.fixed_variance("small", s.level(t - 1), s.level(t)) == pytest.approx(expected, rel=2e-12)


def test_posterior_at_the_clean_end_is_x0():
    s = schedules.linear(10)
    assert gaussian.posterior(s.level(0), s.level(1)) == (1.0, 0.0, 0.0)
    assert gaussian.posterior(ve(0.0), ve(3.0)) == (1.0, 0.0, 0.0)


def test_rows_of_different_levels_equal_their_own_level():
    rng = np.random.default_rng(5)
    s, t = schedules.linear(50).level(np.array([0, 3, 20])), schedules.linear(50).level(np.array([1, 9, 50]))
    x0, x_t, eps = rng.standard_normal((3, 3, 2, 2, 1))
    mean, noisy = gaussian.posterior_mean(x0, x_t, s, t), gaussian.q_sample(x0, eps, t)
    for i in range(3):
        one_s, one_t, row = Level(0, s.alpha[i], s.sigma[i]), Level(0, t.alpha[i], t.sigma[i]), slice(i, i + 1)
        # a scalar power and an array power may round differently, once each
        np.testing.assert_allclose(mean[row], gaussian.posterior_mean(x0[row], x_t[row], one_s, one_t), rtol=1e-14)
        np.testing.assert_array_equal(noisy[row], gaussian.q_sample(x0[row], eps[row], one_t))


def test_dtype_is_kept():
    x = np.ones((2, 3), np.float32)
    for s, t in ((ve(1.), ve(2.)), (ve(np.ones(2)), ve(2 * np.ones(2)))):
        assert gaussian.q_sample(x, x, t).dtype == np.float32
        assert gaussian.posterior_mean(x, x, s, t).dtype == np.float32


def test_levels_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="noisier"):
        gaussian.transition(ve(2.), ve(1.))
    with pytest.raises(ValueError, match="alpha = 0"):
        gaussian.transition(Level(1, 0., 1.), Level(1, 0., 1.))
    with pytest.raises(ValueError, match="no noise to remove"):
        gaussian.posterior(ve(0.), ve(0.))
    with pytest.raises(ValueError, match="small, large"):
        gaussian.fixed_variance("medium", ve(1.), ve(2.))
