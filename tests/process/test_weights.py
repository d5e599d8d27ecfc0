"""Weights: each in its paper's form at 50 digits, the same number in every prediction, and the bound as a weight."""
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from planted import mutant

from refdiff.process import weights
from refdiff.process.gaussian import q_sample
from refdiff.process.level import Level
from refdiff.process.parameterization import LimitError, Prediction, precondition_F
from refdiff.process.schedules import SCHEDULES, linear, zero_terminal_snr

mpmath.mp.dps = 50
KINDS = ("eps", "x0", "v", "score", "velocity", "data_velocity", "F")
TOL = 1e-13                       # a handful of float64 operations, none of them a difference

# What papers and codes multiply the square error of x_0 with, in the SNR s.
OF_X0 = {"simple": lambda s: s,
         "min_snr": lambda s: min(s, mpf(5)),
         "soft_min_snr": lambda s: 4 * s / (s + 4),
         "p2": lambda s: s / (1 + s),
         "edm": lambda s: (1 / s + mpf("0.25")) / (mpf("0.25") / s),            # (sigma^2 + .5^2)/(sigma .5)^2
         "sigmoid": lambda s: s / (1 + mpmath.exp(mpmath.log(s) - 2)),
         "truncated_snr": lambda s: max(s, mpf(1)),
         "snr_plus_one": lambda s: s + 1,
         "flow": lambda s: (mpmath.sqrt(s) + 1) ** 2}
# min-SNR as it is listed for networks that predict eps, x_0 and v; alpha^2 + sigma^2 = 1.
MIN_SNR = {"eps": lambda s, g: min(s, g) / s, "x0": min, "v": lambda s, g: min(s, g) / (s + 1)}


def levels(n=40, preserving=False):
    """Levels from almost clean to almost noise."""
    angle = np.linspace(0.001, math.pi / 2 - 0.001, n)
    size = 1.0 if preserving else np.random.default_rng(1).uniform(0.2, 7, n)
    return Level(angle, size * np.cos(angle), size * np.sin(angle))


def exact(level):
    """(alpha, sigma) of every row in 50 digits."""
    return [(mpf(float(a)), mpf(float(s))) for a, s in zip(level.alpha, level.sigma)]


def check_paper_forms(module):
    level = levels()
    snr = [(a / s) ** 2 for a, s in exact(level)]
    for name, form in OF_X0.items():
        np.testing.assert_allclose(module.convert(module.WEIGHTS[name](level), "x0", level),
                                   [float(form(s)) for s in snr], rtol=TOL, err_msg=name)
    np.testing.assert_allclose(module.p2(level, 0.3, 0.5), [float((mpf(0.3) + s) ** mpf(-0.5)) for s in snr], TOL)
    np.testing.assert_allclose(module.sigmoid(level, -1.0), [float(1 / (1 + s * mpmath.e)) for s in snr], TOL)


def test_every_weight_is_its_papers():
    assert set(OF_X0) == set(weights.WEIGHTS)
    check_paper_forms(weights)


def check_min_snr(module, gamma=5.0):
    level = levels(preserving=True)
    for kind, form in MIN_SNR.items():
        want = [float(form((a / s) ** 2, mpf(gamma))) for a, s in exact(level)]
        found = module.convert(module.min_snr(level, gamma), kind, level)
        np.testing.assert_allclose(found, want, rtol=TOL, err_msg=kind)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_is_one_weight_in_three_forms(gamma):
    check_min_snr(weights, gamma)


def test_two_published_min_snr_weights_for_v_differ():
    """min(SNR, 5)/(SNR+1) is the eps weight converted; min(SNR+1, 5)/(SNR+1), in use too, is 1 for all SNR <= 4.

    At the noisy end of the linear schedule the second is 24,779 times the first; at high SNR the two agree.
    """
    level = linear().level(np.arange(1, 1001))
    right = weights.convert(weights.min_snr(level), "v", level)
    other = np.minimum(level.snr + 1, 5) / (level.snr + 1)
    assert np.all(other[level.snr <= 4] == 1) and np.all(right < 5 / 6 + 1e-12)
    np.testing.assert_allclose(other[-1] / right[-1], 24779, rtol=1e-4)
    np.testing.assert_allclose(other[level.snr > 5], right[level.snr > 5], rtol=1e-14)
    assert np.sum(other / right > 1.1) == 864                   # of 1000 steps


def check_factors(module):
    """E w_kind |y - y_hat|^2 for the predictions that Prediction itself converts: one number."""
    rng = np.random.default_rng(3)
    level = levels(30)
    x0, eps = rng.standard_normal((2, 30, 4))
    x_t = q_sample(x0, eps, level)
    made = Prediction("x0", x0 + rng.standard_normal(x0.shape), x_t, level)
    true = Prediction("x0", x0, x_t, level)
    errors = {kind: getattr(made, kind) - getattr(true, kind) for kind in KINDS[:-1]}
    errors["F"] = errors["x0"] / precondition_F(level, 0.7).c_out[:, None]
    for name, weight in module.WEIGHTS.items():
        w = weight(level)
        losses = [np.mean(module.convert(w, kind, level, 0.7)[:, None] * errors[kind] ** 2) for kind in KINDS]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-10, err_msg=name)


def test_a_weighting_gives_the_same_number_in_every_prediction():
    check_factors(weights)


def test_soft_min_snr_lies_between_half_of_min_snr_and_min_snr():
    level = levels()
    ratio = weights.soft_min_snr(level, 5.0) / weights.min_snr(level, 5.0)
    assert np.all((ratio >= 0.5) & (ratio <= 1)) and ratio.min() < 0.6


def test_the_sigmoid_weight_is_soft_min_snr_at_e_to_the_bias():
    level = levels()
    np.testing.assert_allclose(weights.sigmoid(level, 1.3), weights.soft_min_snr(level, math.exp(1.3)), rtol=1e-14)


def test_the_edm_weight_of_F_the_snr_plus_one_weight_of_v_and_the_flow_weight_of_the_velocity_are_one():
    level = levels(preserving=True)
    np.testing.assert_allclose(weights.convert(weights.edm(level, 0.7), "F", level, 0.7), 1, rtol=1e-12)
    np.testing.assert_allclose(weights.convert(weights.snr_plus_one(level), "v", level), 1, rtol=1e-12)
    np.testing.assert_allclose(weights.convert(weights.flow(level), "velocity", level), 1, rtol=1e-12)


# ---- likelihood

FAMILIES = {"vp": (lambda t: mpmath.exp(-(t / 10 + mpf("9.95") * t * t / 2)),
                   lambda t: mpmath.sqrt(1 - mpmath.exp(-(t / 5 + mpf("9.95") * t * t)))),
            "ve": (lambda t: mpf(1) + 0 * t, lambda t: mpf("0.01") * 500 ** t),
            "flow": (lambda t: 1 - t, lambda t: t)}


def check_likelihood(module):
    """-(1/2) d log SNR/dt and d sigma^2/dt - 2 (log alpha)' sigma^2, by numerical derivatives at 50 digits."""
    for alpha, sigma in FAMILIES.values():
        t = [mpf(k) / 7 for k in range(1, 7)]
        level, dalpha, dsigma = (np.array([float(f(u)) for u in t]) for f in (
            lambda u: u, lambda u: mpmath.diff(alpha, u), lambda u: mpmath.diff(sigma, u)))
        level = Level(level, *(np.array([float(f(u)) for u in t]) for f in (alpha, sigma)))
        want = [float(-mpmath.diff(lambda v: mpmath.log(alpha(v) / sigma(v)), u)) for u in t]
        np.testing.assert_allclose(module.likelihood(level, dalpha, dsigma), want, rtol=1e-12)
        g2 = [float(mpmath.diff(lambda v: sigma(v) ** 2, u) - 2 * mpmath.diff(lambda v: mpmath.log(alpha(v)), u)
                    * sigma(u) ** 2) for u in t]
        np.testing.assert_allclose(module.squared_diffusion(level, dalpha, dsigma), g2, rtol=1e-12)
        # of the score's error it is g^2/2
        np.testing.assert_allclose(module.convert(module.likelihood(level, dalpha, dsigma), "score", level),
                                   np.array(g2) / 2, rtol=1e-12)


def test_the_likelihood_weight_is_half_the_loss_of_log_snr():
    check_likelihood(weights)


def test_the_diffusion_of_a_variance_preserving_process_is_beta():
    beta = 0.1 + 19.9 * 0.3
    alpha = math.exp(-(0.1 * 0.3 + 19.9 * 0.3 ** 2 / 2) / 2)
    level = Level(0.3, alpha, math.sqrt(1 - alpha ** 2))
    found = weights.squared_diffusion(level, -beta / 2 * alpha, beta / 2 * alpha ** 2 / level.sigma)
    assert found == pytest.approx(beta, rel=1e-13)


def check_vlb(module):
    """[DDPM eq. 12] for both variances, from the betas at 50 digits."""
    schedule = linear(50, 1e-3, 0.3)
    t = np.arange(2, 51)
    alpha_bar, want = [mpf(1)], {"small": [], "large": []}
    for beta in map(mpf, map(float, schedule.beta[1:])):
        alpha_bar.append(alpha_bar[-1] * (1 - beta))
        if len(alpha_bar) > 2:
            kept = (1 - alpha_bar[-2]) / (1 - alpha_bar[-1])
            for kind, variance in (("small", kept * beta), ("large", beta)):
                want[kind].append(float(beta ** 2 / (2 * variance * (1 - beta) * (1 - alpha_bar[-1]))))
    for kind in want:
        found = module.vlb(schedule.level(t - 1), schedule.level(t), kind)
        np.testing.assert_allclose(found, want[kind], rtol=1e-12, err_msg=kind)


def test_the_weights_of_the_bound_are_ddpms():
    check_vlb(weights)


def test_the_bounds_weight_with_small_variance_is_half_the_relative_drop_of_snr():
    schedule = SCHEDULES["cosine"](100)
    s, t = schedule.level(np.arange(1, 100)), schedule.level(np.arange(2, 101))
    np.testing.assert_allclose(weights.vlb(s, t), (s.snr / t.snr - 1) / 2, rtol=1e-9)
    np.testing.assert_allclose(weights.convert(weights.vlb(s, t), "x0", t), (s.snr - t.snr) / 2, rtol=1e-9)


def test_many_steps_of_the_bound_are_the_likelihood_weight():
    """T vlb(t - 1/T, t) -> likelihood(t), first order in 1/T: halving the step halves the difference."""
    def flow(t):
        return Level(t, 1 - t, t)
    want = weights.likelihood(flow(0.4), -1.0, 1.0)
    errors = [abs(n * weights.vlb(flow(0.4 - 1 / n), flow(0.4)) - want) for n in (1000, 2000, 4000)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.01) and errors[1] / errors[2] == pytest.approx(2, rel=0.01)


def check_ends_alone(module):
    """int likelihood(t) l(SNR(t)) dt for l = S^2/(1 + S)^3 is half of the integral of l/S over S, for any schedule."""
    def flow(t):
        return Level(t, 1 - t, t), -np.ones(len(t)), np.ones(len(t))

    def trigonometric(t):
        return Level(t, np.cos(t), np.sin(t)), -np.sin(t), np.cos(t)
    node, weight = np.polynomial.legendre.leggauss(60)
    low, high = 0.25, 9.0                                                       # SNR at the noisy and at the clean end
    want = mpmath.quad(lambda s: s / (1 + s) ** 3 / 2, [low, 1, high])
    for family, time in ((flow, lambda s: 1 / (1 + s ** 0.5)), (trigonometric, lambda s: math.atan(s ** -0.5))):
        a, b = time(high), time(low)
        t = a + (b - a) * (node + 1) / 2
        level, dalpha, dsigma = family(t)
        terms = module.likelihood(level, dalpha, dsigma) * level.snr ** 2 / (1 + level.snr) ** 3
        np.testing.assert_allclose(terms @ weight * (b - a) / 2, float(want), rtol=1e-12)


def test_the_continuous_bound_depends_on_a_schedule_by_its_ends_alone():
    check_ends_alone(weights)


# ---- ends, numbers, refusals

def test_weights_of_numbers_are_python_numbers_and_equal_those_of_arrays():
    array = levels(3)
    for k in range(3):
        level = Level(float(array.t[k]), float(array.alpha[k]), float(array.sigma[k]))
        for name, weight in weights.WEIGHTS.items():
            assert type(weight(level)) is float
            for kind in KINDS:
                found = weights.convert(weight(level), kind, level)
                want = weights.convert(weight(array), kind, array)[k]
                assert type(found) is float and found == pytest.approx(want, 1e-14)


def test_pure_noise_has_the_v_weights_that_exist_there_and_refuses_the_others():
    level = zero_terminal_snr(linear(10, 1e-3, 0.3)).level(np.array([3, 10]))
    for name in ("simple", "min_snr", "soft_min_snr", "p2", "sigmoid"):
        found = weights.convert(weights.WEIGHTS[name](level), "v", level)
        assert found[1] == 0 and found[0] > 0
    for name in ("edm", "truncated_snr", "snr_plus_one"):
        with pytest.raises(LimitError, match="convert: the weight of 'v' has no finite value"):
            weights.convert(weights.WEIGHTS[name](level), "v", level)


def test_the_clean_level_is_refused_in_x0_and_has_no_weight_of_likelihood():
    clean, noisy = Level(0.0, 1.0, 0.0), Level(1.0, 0.0, 1.0)
    with pytest.raises(LimitError, match="'x0'"):
        weights.convert(weights.simple(clean), "x0", clean)
    with pytest.raises(LimitError, match="sigma = 0"):
        weights.likelihood(clean, -1.0, 1.0)
    with pytest.raises(LimitError, match="alpha = 0"):
        weights.likelihood(noisy, -1.0, 1.0)
    schedule = linear(10)
    with pytest.raises(LimitError, match="decoder"):
        weights.vlb(schedule.level(0), schedule.level(1))
    assert weights.vlb(schedule.level(0), schedule.level(1), "large") > 0


@pytest.mark.parametrize("make, message", [
    (lambda level: weights.min_snr(level, 0.0), "min_snr: gamma is 0.0"),
    (lambda level: weights.min_snr(level, float("nan")), "min_snr: gamma is nan"),
    (lambda level: weights.soft_min_snr(level, -1.0), "soft_min_snr: gamma is -1.0"),
    (lambda level: weights.p2(level, 0.0), "p2: k is 0.0"),
    (lambda level: weights.p2(level, 1.0, -1.0), "p2: gamma is -1.0"),
    (lambda level: weights.edm(level, math.inf), "edm: sigma_data is inf"),
    (lambda level: weights.sigmoid(level, math.nan), "sigmoid: bias is nan"),
    (lambda level: weights.factor("noise", level), "kind is 'noise'"),
    (lambda level: weights.vlb(level, level, "learned"), "variance is 'learned'")])
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make(levels(3))


# ---- planted mutants: one coefficient rewritten, and a check above must fail

MUTANTS = [
    (check_paper_forms, "return level.alpha * 0 + 1\n\n\ndef min", "return level.alpha * 0 + 2\n\n\ndef min"),
    (check_min_snr, "_least(gamma * _inverse_snr(level), 1.0)", "_least(gamma * _inverse_snr(level), 2.0)"),
    (check_min_snr, "_least(gamma * _inverse_snr(level), 1.0)", "_least(_inverse_snr(level) / gamma, 1.0)"),
    (check_min_snr, "_least(gamma * _inverse_snr(level), 1.0)", "_least(gamma * level.snr, 1.0)"),
    (check_paper_forms, "def min_snr(level, gamma=5.0)", "def min_snr(level, gamma=4.0)"),
    (check_paper_forms, "def soft_min_snr(level, gamma=4.0)", "def soft_min_snr(level, gamma=5.0)"),
    (check_paper_forms, "expit(math.log(gamma) - 2", "expit(-math.log(gamma) - 2"),
    (check_paper_forms, "expit(math.log(gamma) - 2", "expit(math.log(gamma) - 1"),
    (check_paper_forms, "np.logaddexp(math.log(k), 2", "np.add(math.log(k), 2"),
    (check_paper_forms, "np.logaddexp(math.log(k), 2", "np.logaddexp(0, 2"),
    (check_paper_forms, "np.exp(-gamma *", "np.exp(-1 *"),
    (check_paper_forms, "np.logaddexp(math.log(k), 2", "np.logaddexp(math.log(k), 1"),
    (check_paper_forms, "level.ratio / sigma_data", "level.ratio / sigma_data ** 0.5"),
    (check_paper_forms, "return 1 + root * root", "return 2 + root * root"),
    (check_paper_forms, "expit(bias - 2", "expit(-bias - 2"),
    (check_paper_forms, "expit(bias - 2", "expit(bias - 1"),
    (check_paper_forms, "-_least(-_inverse_snr(level), -1.0)", "_least(_inverse_snr(level), 1.0)"),
    (check_paper_forms, "return 1 + _inverse_snr(level)\n", "return _inverse_snr(level)\n"),
    (check_paper_forms, "1 + level.ratio", "1 - level.ratio"), (check_paper_forms, "return root * root", "return root"),
    (check_paper_forms, "level.ratio * level.ratio", "level.ratio"),
    (check_likelihood, "2 * level.sigma * (dsigma", "level.sigma * (dsigma"),
    (check_likelihood, "(dsigma - dalpha /", "(dsigma - 2 * dalpha /"),
    (check_likelihood, "(dsigma - dalpha /", "(dsigma + dalpha /"),
    (check_likelihood, "dalpha / level.alpha * level.sigma)", "dalpha / level.alpha)"),
    (check_likelihood, "return dsigma / level.sigma - ", "return 2 * dsigma / level.sigma - "),
    (check_ends_alone, "return dsigma / level.sigma - dalpha", "return dsigma / level.sigma + dalpha"),
    (check_vlb, "lost * root * root / 2", "lost * root * root"),
    (check_vlb, 'variance == "large" else', 'variance == "small" else'),
    (check_vlb, "s.alpha / t.alpha if", "t.alpha / s.alpha if"),
    (check_vlb, "lost * root * root", "lost * root"),
    (check_factors, "level, sigma_data) ** 2", "level, sigma_data)"),
    (check_paper_forms, 'amplification(kind, "eps", ', 'amplification(kind, "x0", '),
    (check_factors, 'amplification(kind, "eps", level, sigma_data)', 'amplification(kind, "eps", level, 0.5)'),
    (check_factors, "weight * factor(kind, level, sigma_data)", "weight * factor(kind, level)"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=[m[2][:40] for m in MUTANTS])
def test_every_mutant_is_killed(check, old, new):
    made = mutant("process.weights", (old, new))
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check(made)
