"""The bound's terms at 50 digits, its weights on the simple loss, closed forms on Gaussian data, and that it bounds."""
import importlib
import math

import mpmath
import numpy as np
import pytest
import standin
from mpmath import mpf
from planted import mutant

from refdiff.process import bound, exact, weights
from refdiff.process.gaussian import posterior, q_sample
from refdiff.process.parameterization import Prediction
from refdiff.process.schedules import SCHEDULES, Schedule, linear
from refdiff.rng import Key

mpmath.mp.dps = 50
LN2 = mpmath.log(2)
SCHEDULE = linear(20, 1e-3, 0.4)


def rows(*shape, seed=0, low=-1.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def alpha_bars(schedule):
    """alpha_bar_0..T in 50 digits."""
    product = [mpf(1)]
    for beta in schedule.beta[1:]:
        product.append(product[-1] * (1 - mpf(float(beta))))
    return product


# ---- the two terms

def check_kl(module):
    """The integral of q log(q/p) by quadrature."""
    for q_mean, q_log_var, mean, log_var in ((0.3, -2.0, -0.4, -1.1), (0.3, -1.0, 0.3, -3.0), (-1.0, 0.5, 1.0, 0.4)):
        a, b, m, s = map(mpf, (q_mean, q_log_var, mean, log_var))

        def log_density(x, mu, log_var):
            return -(log_var + (x - mu) ** 2 / mpmath.exp(log_var) + mpmath.log(2 * mpmath.pi)) / 2
        std = mpmath.exp(b / 2)
        want = mpmath.quad(lambda x: mpmath.exp(log_density(x, a, b)) * (log_density(x, a, b) - log_density(x, m, s)),
                           [a + k * std for k in (-16, -8, -4, 0, 4, 8, 16)])
        found = module.gaussian_kl(np.array([q_mean]), np.array([q_log_var]), np.array([mean]), np.array([log_var]))
        np.testing.assert_allclose(found, [float(want)], rtol=1e-14)
        found = module.gaussian_kl(np.array([q_mean]), q_log_var, mean, log_var)
        np.testing.assert_allclose(found, [float(want)], rtol=1e-14)


def test_the_divergence_of_normals_is_its_integral():
    check_kl(bound)


def exact_bin(x, mean, log_var, cdf, levels=256):
    """-log of the probability of x's bin with mpmath.erf (or tanh) from the tail that is small."""
    def F(z):
        if cdf == "exact":
            return mpmath.erfc(-z / mpmath.sqrt(2)) / 2
        return 1 / (1 + mpmath.exp(-2 * mpmath.sqrt(2 / mpmath.pi) * (z + mpf("0.044715") * z ** 3)))
    x, mean, std = mpf(x), mpf(mean), mpmath.exp(mpf(log_var) / 2)
    low, high = ((x + k * mpf(1) / (levels - 1) - mean) / std for k in (-1, 1))
    if x == 1 or x == -1:
        return -mpmath.log(F(-low) if x > 0 else F(high))
    return -mpmath.log(F(high) - F(low) if low + high < 0 else F(-low) - F(-high))


def check_bins(module):
    grey = np.array([0, 1, 2, 100, 127, 128, 200, 254, 255]) / 127.5 - 1
    for cdf in ("exact", "tanh"):
        for log_var in (-9.8167, -6.0, -1.0):
            for offset in (-0.4, -0.01, 0.0, 0.003, 0.3, 3.0):
                found = module.bin_nats(grey[None], grey[None] + offset, log_var, cdf)
                want = [[float(exact_bin(x, x + offset, log_var, cdf)) for x in grey]]
                np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-13, err_msg=f"{cdf} {log_var} {offset}")
    found = module.bin_nats(*np.full((2, 1, 1), 2 * 4094 / 4095 - 1), -8.0, levels=4096)
    np.testing.assert_allclose(found, 4.5433, rtol=1e-5)
    x, mean = np.linspace(-1, 1, 17)[None], np.linspace(-1.1, 0.9, 17)[None]
    want = [[float(exact_bin(a, b, -5.0, "exact", 17)) for a, b in zip(x[0], mean[0])]]
    np.testing.assert_allclose(module.bin_nats(x, mean, -5.0, levels=17), want, rtol=1e-12)
    for levels in (2, 3, 1001, 4096, 65536):              # the neighbours of +-1 have bins of two ends, however near
        g = np.array([0, 1, levels // 2, levels - 2, levels - 1])
        x = (2 * g / (levels - 1) - 1)[None]
        for mean in (x, x + 0.001, x - 0.001):
            want = [[float(exact_bin(a, b, -8.0, "exact", levels)) for a, b in zip(x[0], mean[0])]]
            np.testing.assert_allclose(module.bin_nats(x, mean, -8.0, levels=levels), want, rtol=1e-9, atol=1e-40)


def test_the_decoder_is_the_probability_of_a_bin():
    check_bins(bound)


@pytest.mark.parametrize("cdf", ["exact", "tanh"])
def test_the_256_bins_together_have_probability_one(cdf):
    x = (np.arange(256) / 127.5 - 1)[None]
    for mean, log_var in ((0.1, -9.0), (-0.98, -4.0), (2.0, 0.5)):
        assert np.exp(-bound.bin_nats(x, np.full_like(x, mean), log_var, cdf)).sum() == pytest.approx(1, rel=1e-12)


def test_the_tanh_approximation_costs_two_fifths_of_a_bit_where_its_authors_use_it():
    """At |x - mean| = .03 and std = sqrt(beta-tilde_2) = .0074; its greatest error in F is 1.8e-4."""
    log_var = float(bound.log_variances(linear(), np.array([1]))[0][0])
    x = np.array([[127]]) / 127.5 - 1
    found = [float(bound.bin_nats(x, x + 0.03, log_var, cdf)[0, 0] / np.log(2)) for cdf in ("exact", "tanh")]
    np.testing.assert_allclose(found, [12.26, 12.67], atol=0.005)
    z = np.linspace(-6, 6, 20_001)
    error = np.exp(bound._log_tanh_cdf(z)) - np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    assert np.abs(error).max() == pytest.approx(1.79e-4, rel=0.01)


def test_the_ops_of_training_have_the_same_values():
    from refdiff.ops import binned_normal, gaussian_kl
    x = np.random.default_rng(3).integers(0, 256, (3, 4, 2)) / 127.5 - 1
    mean, log_var, q_mean, q_log_var = (rows(3, 4, 2, seed=k, low=-3.0) for k in range(4))
    for cdf in ("exact", "tanh"):
        np.testing.assert_allclose(binned_normal.forward(mean, log_var, x, cdf=cdf)[0],
                                   bound.bin_nats(x, mean, log_var, cdf), rtol=1e-12)
    np.testing.assert_allclose(gaussian_kl.forward(mean, log_var, q_mean, q_log_var)[0],
                               bound.gaussian_kl(q_mean, q_log_var, mean, log_var), rtol=1e-13)


def check_fine_op(module):
    """The op and its gradient at the outer two levels of either side; slopes by mpmath's differences in 50 digits."""
    for levels in (2, 4096, 65536):
        g = np.array([0, 1, levels - 2, levels - 1])
        x, std = (2 * g / (levels - 1) - 1)[None], math.exp(-4)
        mean, log_var, dy = x + 0.3 * std, np.full_like(x, -8.0), rows(1, 4, seed=levels)
        y, saved = module.binned_normal_forward(mean, log_var, x, levels=levels)
        want = [[float(exact_bin(*p, "exact", levels)) for p in zip(x[0], mean[0], log_var[0])]]
        np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-40)
        slopes = [[float(mpmath.diff(f, at)) for f, at in (
            (lambda m: exact_bin(a, m, v, "exact", levels), mpf(float(b))),
            (lambda w: exact_bin(a, b, w, "exact", levels), mpf(float(v))))]
                  for a, b, v in zip(x[0], mean[0], log_var[0])]
        for found, want in zip(module.binned_normal_backward(saved, dy), np.transpose(slopes)):
            np.testing.assert_allclose(found, dy * want, rtol=1e-8, atol=1e-30)


def test_the_decoder_of_many_grey_levels_has_the_right_bins_and_slopes():
    check_fine_op(importlib.import_module("refdiff.ops.variational"))


@pytest.mark.parametrize("old, new", [("pixel < 1 - half", "pixel < .999"), ("pixel > half - 1", "pixel > -.999"),
                                      ("pixel < 1 - half", "pixel < 2"), ("pixel > half - 1", "pixel > -2")])
def test_the_ops_open_bins_are_the_outermost_alone(old, new, monkeypatch):
    monkeypatch.setattr("refdiff.ops.op.REGISTRY", {})               # the mutant's ops are not registered twice
    with pytest.raises(AssertionError):
        check_fine_op(mutant("ops.variational", (old, new)))


# ---- variances

def check_variances(module):
    alpha_bar, t = alpha_bars(SCHEDULE), np.arange(1, 21)
    beta = [mpf(float(b)) for b in SCHEDULE.beta]
    tilde = [None, None] + [(1 - alpha_bar[k - 1]) / (1 - alpha_bar[k]) * beta[k] for k in range(2, 21)]
    for first, start in (("next", tilde[2]), ("tiny", mpf("1e-20"))):
        small, large = module.log_variances(SCHEDULE, t, first)
        np.testing.assert_allclose(small, [float(mpmath.log(v)) for v in [start] + tilde[2:]], rtol=1e-13)
        np.testing.assert_allclose(large, [float(mpmath.log(v)) for v in beta[1:]], rtol=1e-13)
        np.testing.assert_array_equal(module.fixed_log_variance("small", SCHEDULE, t, first), small)
        np.testing.assert_array_equal(module.fixed_log_variance("large", SCHEDULE, t, first), large)
        np.testing.assert_array_equal(module.fixed_log_variance("large-but-first", SCHEDULE, t, first),
                                      [small[0], *large[1:]])
    out = rows(20, 3, low=-1.5, high=1.5)
    v = (out + 1) / 2
    want = [[float(mpf(a) * mpmath.log(beta[k + 1]) + (1 - mpf(a)) * mpmath.log(start if k == 0 else tilde[k + 1]))
             for a in v[k]] for k in range(20)]
    np.testing.assert_allclose(module.learned_log_variance(out, small, large), want, rtol=1e-12)


def test_log_variances_equal_50_digit_arithmetic():
    check_variances(bound)


def test_constants_of_the_first_variance():
    """beta-tilde_1 = 0 is replaced by beta-tilde_2 = 5.4532e-5 of the linear schedule, log -9.8167, or by 1e-20."""
    found = [bound.log_variances(linear(), np.array([1]), first)[0][0] for first in ("next", "tiny")]
    np.testing.assert_allclose(found, [-9.8167, -46.0517], atol=5e-5)
    assert math.exp(found[0]) == pytest.approx(5.4532e-5, rel=1e-4)
    assert bound.fixed_log_variance("large", linear(), np.array([1]))[0] == pytest.approx(-9.21034, abs=1e-5)


def test_learned_variances_at_their_ends_are_the_two_fixed_ones():
    small, large = bound.log_variances(SCHEDULE, np.arange(1, 21))
    for value, want in ((-1.0, small), (1.0, large), (0.0, (small + large) / 2)):
        found = bound.learned_log_variance(np.full((20, 2), value), small, large)
        np.testing.assert_allclose(found[:, 1], want, rtol=1e-14)


# ---- terms of a batch

def check_terms(module):
    """Every L_{t-1} and L_T at 50 digits from the betas, by Bayes for precisions; bits per dimension."""
    alpha_bar = alpha_bars(SCHEDULE)
    x0 = np.random.default_rng(1).integers(0, 256, (20, 3)) / 127.5 - 1
    eps, hat = np.random.default_rng(2).standard_normal((2, 20, 3))
    t = np.arange(1, 21)
    x_t, x0_hat = q_sample(x0, eps, SCHEDULE.level(t)), x0 + 0.1 * hat
    log_var = rows(20, 3, seed=4, low=-8.0, high=-2.0)
    want = []
    for k in range(20):
        ab, before, beta = alpha_bar[k + 1], alpha_bar[k], mpf(float(SCHEDULE.beta[k + 1]))
        total = mpf(0)
        for j in range(3):
            x, xt, xh, lv = (mpf(float(a[k, j])) for a in (x0, x_t, x0_hat, log_var))
            if k == 0:
                total += exact_bin(x, xh, lv, "exact")
                continue
            precision = (1 - beta) / beta + 1 / (1 - before)
            mean, model = ((mpmath.sqrt(1 - beta) * xt / beta + mpmath.sqrt(before) * y / (1 - before)) / precision
                           for y in (x, xh))
            total += (lv + mpmath.log(precision) - 1 + (1 / precision + (mean - model) ** 2) / mpmath.exp(lv)) / 2
        want.append(float(total / 3 / LN2))
    np.testing.assert_allclose(module.term_bits(SCHEDULE, t, x0, x_t, x0_hat, log_var), want, rtol=1e-11)
    ab = alpha_bar[-1]
    prior = [float(sum((ab * mpf(float(x)) ** 2 - ab - mpmath.log(1 - ab)) / 2 for x in row) / 3 / LN2) for row in x0]
    np.testing.assert_allclose(module.prior_bits(x0, SCHEDULE), prior, rtol=1e-12)


def test_terms_of_the_bound_equal_50_digit_arithmetic():
    check_terms(bound)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_simple_loss_is_the_bound_reweighted(variance):
    """L_{t-1} = w_t |eps - eps_hat|^2/log 2 + the divergence of the variances, w that of `vlb`: bits per dimension."""
    t = np.arange(2, 21)
    s, level = SCHEDULE.level(t - 1), SCHEDULE.level(t)
    x0, eps, eps_hat = np.random.default_rng(5).uniform(-1, 1, (3, 19, 4))
    x_t = q_sample(x0, eps, level)
    x0_hat = Prediction("eps", eps_hat, x_t, level).x0
    log_var = bound.fixed_log_variance(variance, SCHEDULE, t)
    found = bound.term_bits(SCHEDULE, t, x0, x_t, x0_hat, log_var)
    ratio = posterior(s, level).variance / np.exp(log_var)
    weighted = weights.vlb(s, level, variance) * np.mean((eps - eps_hat) ** 2, axis=1)
    np.testing.assert_allclose(found, (weighted + (ratio - 1 - np.log(ratio)) / 2) / math.log(2), rtol=1e-9)
    if variance == "small":
        np.testing.assert_allclose(found, weighted / math.log(2), rtol=1e-9)


# ---- worlds

def check_gaussian_world(module):
    """E L_{t-1} of the ideal denoiser on N(m, c): c_x0^2 Var(x_0 | x_t)/(2 variance) + the variances' divergence.

    In closed form, and from refdiff by Gauss-Hermite with 3 x 3 nodes, exact for what is quadratic in (x_0, eps).
    """
    m, c = 0.1, 0.04
    world = exact.Gaussian(np.array([m]), np.array([[c]]))
    node, weight = np.polynomial.hermite_e.hermegauss(3)
    a, b = (g.ravel()[:, None] for g in np.meshgrid(node, node))
    w = np.outer(weight, weight).ravel() / (2 * np.pi)
    alpha_bar = alpha_bars(SCHEDULE)
    for variance in ("small", "large"):
        made = module.variational_bound(
            lambda x, level: Prediction("x0", world.posterior_mean(x, level), x, level), SCHEDULE,
            m + math.sqrt(c) * a, lambda t: b, variance, levels=0)
        for t in range(2, 21):
            ab, before, beta = alpha_bar[t], alpha_bar[t - 1], mpf(float(SCHEDULE.beta[t]))
            tilde = (1 - before) / (1 - ab) * beta
            model = tilde if variance == "small" else beta
            unknown = c * (1 - ab) / (ab * mpf(c) + 1 - ab)                     # Var(x_0 | x_t)
            want = before * (beta / (1 - ab)) ** 2 * unknown / model
            want = (want + tilde / model - 1 - mpmath.log(tilde / model)) / 2 / LN2
            np.testing.assert_allclose(made.terms[t - 1] @ w, float(want), rtol=1e-9)
        want = (alpha_bar[-1] * (mpf(m) ** 2 + mpf(c) - 1) - mpmath.log(1 - alpha_bar[-1])) / 2 / LN2
        np.testing.assert_allclose(made.prior @ w, float(want), rtol=1e-12)
        np.testing.assert_allclose(made.total, made.prior + made.terms.sum(0), rtol=1e-14)


def test_the_expected_terms_on_a_gaussian_world_are_closed_forms():
    check_gaussian_world(bound)


def two_pixels(T, first="tiny"):
    """The bound of the ideal denoiser of x_0 = +-.2 (grey 102 and 153), equally likely: (mean, its standard error)."""
    schedule, n = linear(T, 0.1 / T, 20 / T), 400
    x0 = np.where(np.arange(n) % 2, 153, 102)[:, None] / 127.5 - 1

    def denoise(x, level):
        return Prediction("x0", 0.2 * np.tanh(0.2 * level.alpha * x / level.sigma ** 2), x, level)
    made = bound.variational_bound(denoise, schedule, x0, lambda t: Key(6).fold(t).normal(x0.shape),
                                   first=first)
    return made.total.mean(), made.total.std() / math.sqrt(n)


def test_the_bound_lies_above_the_entropy_and_approaches_it_with_more_steps():
    """Two equally likely values: 1 bit. No model codes for less; the ideal one in 800 steps needs hardly more.

    A decoder of std sqrt(beta-tilde_2), which the first step's is by custom, spends more than a further bit.
    """
    (few, few_error), (many, error), (custom, _) = two_pixels(40), two_pixels(800), two_pixels(800, "next")
    assert many > 1 - 3 * error and many < 1.1 and error < 0.04
    assert few - many > 3 * few_error
    assert custom - many > 1.2


def test_a_wrong_denoiser_has_a_larger_bound():
    schedule, x0 = linear(30, 1e-3, 0.3), np.full((50, 2), 0.2)
    made = [bound.variational_bound(lambda x, level: Prediction("x0", 0 * x + guess, x, level), schedule, x0,
                                    lambda t: Key(1).fold(t).normal(x0.shape)).total.mean() for guess in (0.2, 0.3)]
    assert made[1] > made[0] + 1


def test_a_learned_variance_enters_as_a_function_of_x_and_level():
    schedule, x0 = linear(10, 1e-3, 0.4), np.full((3, 2), 51 / 127.5 - 1)
    small, large = bound.log_variances(schedule, np.arange(1, 11))

    def run(variance):
        return bound.variational_bound(lambda x, level: Prediction("x0", 0.5 * x, x, level), schedule, x0,
                                       lambda t: Key(2).fold(t).normal(x0.shape), variance)
    for value, name in ((-1.0, "small"), (1.0, "large")):
        learned = run(lambda x, level: bound.learned_log_variance(
            np.full(x.shape, value), np.full(len(x), small[level.t - 1]), np.full(len(x), large[level.t - 1])))
        np.testing.assert_allclose(learned.terms, run(name).terms, rtol=1e-12)


def test_the_bound_stays_where_its_data_live():
    x0, eps = np.random.default_rng(0).integers(0, 256, (4, 2)) / 127.5 - 1, rows(4, 2)

    def run(there):
        return bound.variational_bound(lambda x, level: Prediction("x0", 0.5 * x, x, level), SCHEDULE, there(x0),
                                       lambda t: there(eps))
    for host, there in zip(run(lambda a: a), run(standin.xp.asarray)):
        np.testing.assert_array_equal(there.get(), host)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_terms_keep_the_dtype_of_the_data(dtype):
    x0 = np.full((4, 2), 153 / 127.5 - 1, dtype)
    level = SCHEDULE.level(np.array([1, 2, 3, 20]))
    x_t = q_sample(x0, np.ones_like(x0), level)
    log_var = bound.fixed_log_variance("small", SCHEDULE, level.t)
    assert bound.term_bits(SCHEDULE, level.t, x0, x_t, x0, log_var).dtype == dtype
    assert bound.prior_bits(x0, SCHEDULE).dtype == dtype


@pytest.mark.parametrize("process", sorted(SCHEDULES))
def test_the_bound_is_finite_on_every_schedule(process):
    schedule, x0 = SCHEDULES[process](12), np.array([[-1.0, 1.0], [0.2, -0.6]])
    for variance in ("small", "large", "large-but-first"):
        for first in bound.FIRST:
            for cdf in ("exact", "tanh"):
                made = bound.variational_bound(lambda x, level: Prediction("x0", 0 * x, x, level), schedule, x0,
                                               lambda t: np.ones_like(x0), variance, first, cdf)
                assert np.all(np.isfinite(made.total)) and np.all(made.terms >= -1e-12) and np.all(made.prior >= 0)


@pytest.mark.parametrize("make, message", [
    (lambda: bound.bin_nats(np.array([[1.2]]), np.zeros((1, 1)), -1.0), "1.2, wanted grey levels"),
    (lambda: bound.bin_nats(np.array([[math.nan]]), np.zeros((1, 1)), -1.0), "wanted grey levels"),
    (lambda: bound.bin_nats(np.zeros((1, 1)), np.zeros((1, 1)), -1.0, "erf"), "cdf is 'erf'"),
    (lambda: bound.bin_nats(np.zeros((1, 1)), np.zeros((1, 1)), -1.0, levels=1), "levels is 1"),
    (lambda: bound.log_variances(SCHEDULE, np.array([0])), "1..20"),
    (lambda: bound.log_variances(SCHEDULE, np.array([21])), "1..20"),
    (lambda: bound.log_variances(SCHEDULE, np.array([1.0])), "integers"),
    (lambda: bound.log_variances(SCHEDULE, np.array([1]), "zero"), "first is 'zero'"),
    (lambda: bound.log_variances(Schedule("one", np.array([0.0, 0.5])), np.array([1])), "T = 1"),
    (lambda: bound.fixed_log_variance("learned", SCHEDULE, np.array([1])), "variance is 'learned'")])
def test_impossible_arguments_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- planted mutants

MUTANTS = [
    (check_kl, "0.5 * (xp.expm1(d)", "(xp.expm1(d)"), (check_kl, "xp.expm1(d) - d", "xp.expm1(d) + d"),
    (check_kl, "q_log_var - log_var, q_mean", "log_var - q_log_var, q_mean"),
    (check_kl, "(q_mean - mean) ** 2", "abs(q_mean - mean)"),
    (check_kl, "-log_var, q_mean.dtype", "-q_log_var, q_mean.dtype"),
    (check_bins, "half = 1 / (levels - 1)", "half = 1 / levels"), (check_bins, "(half, -half)", "(half, half)"),
    (check_bins, "> 1 - half", "> .999"), (check_bins, "< half - 1", "< -.999"),
    (check_bins, "> 1 - half", "> 1"), (check_bins, "< half - 1", "< -1"),
    (check_bins, "> 1 - half", "> .99"), (check_bins, "< half - 1", "< -.99"),
    (check_bins, "math.sqrt(8 / math.pi)", "math.sqrt(2 / math.pi)"),
    (check_bins, "0.044715", "0.0447"), (check_bins, "-0.5 * log_var", "-log_var"),
    (check_bins, "xp.where(x > mean, -1.0, 1.0)", "xp.where(x > mean, 1.0, -1.0)"),
    (check_bins, "side * x > 1", "x > 1"), (check_bins, "side * x < half", "x < half"),
    (check_bins, "xp.log1p(-ratio)", "xp.log1p(ratio)"),
    (check_variances, "schedule.one_minus_alpha_bar[:-1] /", "schedule.one_minus_alpha_bar[1:] /"),
    (check_variances, "math.log(1e-20)", "math.log(1e-12)"), (check_variances,
     "small[0] = small[1]", "small[0] = small[2]"),
    (check_variances, "return small[t - 1], np.log(beta)[t - 1]", "return small[t - 1], np.log(beta)[t - 2]"),
    (check_variances, "0.5 * (large - small) * out", "(large - small) * out"),
    (check_variances, "0.5 * (large + small)", "small"),
    (check_variances, "== 1, small, large)", "== 2, small, large)"),
    (check_terms, "mean(axis=1) / math.log(2)", "mean(axis=1)"),
    (check_terms, "mean(axis=1) / math.log", "sum(axis=1) / math.log"),
    (check_terms, "gaussian_kl(level.alpha * x0,", "gaussian_kl(x0,"),
    (check_terms, "np.log1p(-schedule", "np.log(schedule"),
    (check_terms, "schedule.level(t - 1), schedule", "schedule.level(t // 2), schedule"),
    (check_terms, "posterior_mean(x0_hat, x_t, s, level)", "posterior_mean(x0_hat, x_t, level, level)"),
    (check_terms, "clean = t == 1", "clean = t == 0"),
    (check_terms, "gaussian_kl(target, q_log_var", "gaussian_kl(mean, q_log_var"),
    (check_gaussian_world, "q_sample(x0, noise(t), level)", "q_sample(x0, 0 * noise(t), level)"),
    (check_gaussian_world, "prior + terms.sum(axis=0)", "terms.sum(axis=0)"),
    (check_gaussian_world, "range(1, schedule.T + 1)", "range(1, schedule.T)"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=[f"{m[0].__name__}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, old, new):
    made = mutant("process.bound", (old, new))
    with pytest.raises((AssertionError, IndexError)), np.errstate(all="ignore"):
        check(made)
