"""Discrete schedules against 50-digit arithmetic and the constants that the literature states."""
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import schedules

U = 2.0 ** -53


def mp_betas(name, T, **options):
    """beta_1..beta_T at 50 digits, from the papers' formulas and the float64 values of the options."""
    o = {key: mp.mpf(value) for key, value in options.items()}
    if name == "cosine":
        f = [mp.cos((mp.mpf(t) / T + o["s"]) / (1 + o["s"]) * mp.pi / 2) ** 2 for t in range(T + 1)]
        return [min(1 - f[t] / f[t - 1], o["beta_max"]) for t in range(1, T + 1)]
    if name == "sigmoid_alpha_bar":
        S = [1 / (1 + mp.exp(-(o["start"] + (o["end"] - o["start"]) * t / T) / o["tau"])) for t in range(T + 1)]
        abar = [(S[T] - S[t]) / (S[T] - S[0]) for t in range(T + 1)]
        return [min(1 - abar[t] / abar[t - 1], o["beta_max"]) for t in range(1, T + 1)]
    a, b = o["beta_start"], o["beta_end"]
    w = [mp.mpf(i) / max(T - 1, 1) for i in range(T)]
    if name == "linear":
        return [a + x * (b - a) for x in w]
    if name == "sigmoid":
        return [a + (b - a) / (1 + mp.exp(o["span"] * (1 - 2 * x))) for x in w]
    return [(mp.sqrt(a) + x * (mp.sqrt(b) - mp.sqrt(a))) ** 2 for x in w]


CASES = [("linear", 1000, dict(beta_start=1e-4, beta_end=.02)), ("linear", 100, dict(beta_start=1e-3, beta_end=.2)),
         ("scaled_linear", 1000, dict(beta_start=.00085, beta_end=.012)),
         ("cosine", 1000, dict(s=.008, beta_max=.999)), ("cosine", 4000, dict(s=.008, beta_max=.999)),
         ("cosine", 37, dict(s=0.0, beta_max=.9)), ("cosine", 1, dict(s=.008, beta_max=.999)),
         ("linear", 1, dict(beta_start=1e-4, beta_end=.02)), ("quadratic", 1000, dict(beta_start=1e-4, beta_end=.02)),
         ("sigmoid", 1000, dict(beta_start=1e-4, beta_end=.02, span=6.0)),
         ("sigmoid", 50, dict(beta_start=1e-3, beta_end=.3, span=3.0)),
         ("sigmoid_alpha_bar", 1000, dict(start=-3.0, end=3.0, tau=1.0, beta_max=.999)),
         ("sigmoid_alpha_bar", 64, dict(start=0.0, end=3.0, tau=.7, beta_max=.99))]


def relative(table, exact):
    return max(abs((mp.mpf(float(a)) - b) / b) for a, b in zip(table, exact))


@pytest.mark.parametrize("name, T, options", CASES, ids=lambda x: x if isinstance(x, (str, int)) else "")
def test_tables_equal_50_digit_arithmetic(name, T, options):
    # beta is a product of about 8 rounded factors; where 1 - beta is small its logarithm, and so log abar, magnifies
    # that by beta/(1 - beta), 3 at the last unclipped step of the cosine. exp turns the absolute error of
    # log abar (|log abar| < 25) into a relative one of abar. Hence 16 u for beta, |log| * 48 u for abar.
    with mp.workdps(50):
        betas = mp_betas(name, T, **options)
        logs, total = [], mp.mpf(0)
        for beta in betas:
            total += mp.log1p(-beta)
            logs.append(total)
        abar = [mp.exp(x) for x in logs]
        rest = [-mp.expm1(x) for x in logs]
        s = schedules.SCHEDULES[name](T, **options)
        assert relative(s.beta[1:], betas) < 16 * U
        bound = max(1.0, float(-logs[-1])) * 48 * U
        assert bound < 1.4e-13
        np.testing.assert_allclose(s.alpha_bar[1:], [float(x) for x in abar], rtol=bound + U)
        assert relative(s.alpha_bar[1:], abar) < bound
        assert relative(s.alpha[1:], [mp.sqrt(x) for x in abar]) < bound
        assert relative(s.one_minus_alpha_bar[1:], rest) < 24 * U
        assert relative(s.sigma[1:], [mp.sqrt(x) for x in rest]) < 24 * U
        snr = [mp.log(a / b) for a, b in zip(abar, rest)]
        assert max(abs(mp.mpf(float(a)) - b) for a, b in zip(s.log_snr[1:], snr)) < bound + 24 * U


def test_prefix_sums_are_exact_to_one_rounding():
    beta = np.concatenate([[0.0], np.random.default_rng(7).uniform(1e-6, .9, 2000)])
    s = schedules.Schedule("random", beta)
    steps = np.log1p(-beta)
    exact = np.array([math.fsum(steps[:t + 1]) for t in range(2001)])
    np.testing.assert_allclose(s.log_alpha_bar, exact, rtol=2 * U)       # a plain sum is 12 u off here


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_t_zero_is_the_clean_datum(name):
    s = schedules.SCHEDULES[name](10)
    level = s.level(0)
    assert (s.alpha_bar[0], s.one_minus_alpha_bar[0], s.beta[0]) == (1, 0, 0)
    assert (level.t, level.alpha, level.sigma, level.snr, level.lam) == (0, 1.0, 0.0, np.inf, np.inf)
    assert s.log_snr[0] == np.inf and len(s.alpha) == s.T + 1 == 11


def test_linear_constants():
    s = schedules.linear(1000)
    ratio = s.sigma[1:] / s.alpha[1:]
    assert f"{s.alpha_bar[1000]:.4e}" == "4.0358e-05"
    assert f"{ratio[0]:.7f}" == "0.0100005" and f"{ratio[-1]:.3f}" == "157.407"
    assert f"{s.alpha[1000]:.5f}" == "0.00635"
    assert s.beta[1] == 1e-4 and s.beta[1000] == .02


def test_cosine_constants():
    s = schedules.cosine(1000)
    assert f"{s.alpha_bar[999]:.4e}" == "2.4288e-06" and f"{s.alpha_bar[1000]:.4e}" == "2.4288e-09"
    assert round(s.level(1000).ratio) == 20291
    assert int((s.beta == .999).sum()) == 1
    assert [f"{b:.4g}" for b in s.beta[-3:]] == ["0.5556", "0.75", "0.999"]
    assert f"{s.beta[1]:.3e}" == "4.128e-05"


def test_scaled_linear_constants():
    s = schedules.scaled_linear(1000)
    ratio = s.sigma[1:] / s.alpha[1:]
    assert f"{s.alpha_bar[1000]:.7f}" == "0.0046601" and f"{s.alpha_bar[1]:.5f}" == "0.99915"
    assert f"{ratio[0]:.6f}" == "0.029167" and f"{ratio[-1]:.4f}" == "14.6146"
    plain = schedules.linear(1000, .00085, .012)
    assert f"{plain.alpha_bar[1000]:.6f}" == "0.001579" and f"{plain.level(1000).ratio:.3f}" == "25.146"


def test_the_two_sigmoids_are_two_schedules():
    """The constants that tell them apart: abar_T 3.97e-5 against 3.0e-7, abar_500 .302 against .5."""
    beta, abar = schedules.sigmoid(), schedules.sigmoid_alpha_bar()
    assert beta.alpha_bar[[500, 1000]] == pytest.approx([.302, 3.97e-5], rel=2e-3)
    assert abar.alpha_bar[[500, 1000]] == pytest.approx([.5, 3.0e-7], rel=2e-2)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_zero_terminal_snr_equals_50_digits_and_ends_without_signal(name):
    """beta' is a product of about 10 rounded factors, but 1/shifted magnifies the error of alpha - alpha_T near T."""
    with mp.workdps(50):
        base = schedules.SCHEDULES[name]()
        made = schedules.zero_terminal_snr(base)
        alpha, product = [], mp.mpf(1)
        for beta in base.beta[1:]:
            product *= 1 - mp.mpf(float(beta))
            alpha.append(mp.sqrt(product))
        wanted = [(a - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1]) for a in alpha]
        assert made.alpha[1000] == 0 and made.beta[1000] == 1 and made.beta[1] == base.beta[1]
        np.testing.assert_allclose(made.alpha[1:], [float(w) for w in wanted], rtol=1e-9, atol=0)    # of the last but T
        for a, w, old in zip(made.alpha[1:-1], wanted, alpha):
            assert abs(mp.mpf(float(a)) - w) < 1e-12 * w * (1 + old / (old - alpha[-1]))
    assert np.all(np.diff(made.log_snr[1:]) < 0)


def test_zero_terminal_snr_needs_two_steps():
    with pytest.raises(ValueError, match="T >= 2"):
        schedules.zero_terminal_snr(schedules.linear(1))


@given(st.sampled_from(sorted(schedules.SCHEDULES)), st.integers(1, 300))
def test_snr_strictly_decreases_for_any_number_of_steps(name, T):
    s = schedules.SCHEDULES[name](T)
    assert np.all(np.diff(s.log_snr) < 0)
    assert np.all(np.diff(s.sigma / s.alpha) > 0)
    assert np.all((s.beta[1:] > 0) & (s.beta[1:] < 1))


def test_a_schedule_may_end_without_signal():
    s = schedules.cosine(50, beta_max=1.0)
    assert s.beta[50] == pytest.approx(1, abs=8 * U)
    s = schedules.Schedule("by hand", [0, .5, 1])
    assert s.level(2).alpha == 0 and s.level(2).sigma == 1 and s.level(2).lam == -np.inf and s.level(2).snr == 0
    assert s.level(2).ratio == np.inf


def test_level_of_an_array_is_the_levels_of_its_entries():
    s = schedules.linear(20)
    t = np.array([20, 1, 7, 0])
    level = s.level(t)
    for i, one in enumerate(t):
        assert (s.level(int(one)).alpha, s.level(one).sigma) == (level.alpha[i], level.sigma[i])
    assert type(s.level(np.int64(3)).alpha) is float and type(s.level(3).t) is int


@pytest.mark.parametrize("t", [-1, 21, np.array([0, 21]), np.array([-1, 3]), 3.0, np.array([1.0]), "3", None, True])
def test_times_outside_the_schedule_are_refused(t):
    with pytest.raises(ValueError, match=r"wanted.*0\.\.20"):
        schedules.linear(20).level(t)


@pytest.mark.parametrize("make", [
    lambda: schedules.linear(0), lambda: schedules.linear(2.5), lambda: schedules.linear(True),
    lambda: schedules.linear(10, -1e-4), lambda: schedules.linear(10, 1e-4, 1.5),
    lambda: schedules.scaled_linear(10, -1), lambda: schedules.cosine(10, s=-1),
    lambda: schedules.cosine(10, beta_max=1.1), lambda: schedules.cosine(10, beta_max=0),
    lambda: schedules.Schedule("bad", [.1, .2]), lambda: schedules.Schedule("bad", [0, 1, .5])])
def test_impossible_schedules_are_refused_by_name(make):
    with pytest.raises(ValueError, match="schedule .*wanted"):
        make()


def test_tables_are_read_only():
    s = schedules.linear(5)
    for table in (s.beta, s.alpha_bar, s.alpha, s.sigma, s.one_minus_alpha_bar, s.log_snr, s.log_alpha_bar):
        with pytest.raises(ValueError):
            table[0] = 1
