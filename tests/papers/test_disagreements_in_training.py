"""Where sources disagree about losses, variances, weights and what a network is told: the difference in numbers."""
import math

import numpy as np

from refdiff import losses, optim
from refdiff.ops import attention, gelu, gelu_tanh, group_norm, pseudo_huber, sinusoid
from refdiff.process import bound, schedules, times, weights
from refdiff.process.level import ve
from refdiff.process.parameterization import PRECONDITIONINGS, Prediction
from refdiff.rng import Key

LINEAR = schedules.linear()
FIRST = np.array([1])


# ---- variances and the bound

def test_the_least_log_variance_at_t_1_is_that_of_t_2_or_of_1e_20():
    """And so a learned variance, which lies between it and log beta_1: halfway, at the output 0."""
    for first, least in (("next", -9.816725), ("tiny", -46.051702)):
        small, large = bound.log_variances(LINEAR, FIRST, first)
        np.testing.assert_allclose([small[0], large[0]], [least, math.log(1e-4)], rtol=1e-7)
        out = np.array([[-1., 0., 1.]])
        np.testing.assert_allclose(bound.learned_log_variance(out, small, large),
                                   [[least, (least + math.log(1e-4)) / 2, math.log(1e-4)]], rtol=1e-7)


def test_a_network_s_output_is_v_or_twice_v_less_one():
    small, large = bound.log_variances(LINEAR, np.array([2]))
    out = np.array([[.5]])
    paper = large * .5 + small * .5                             # v = .5
    code = bound.learned_log_variance(out, small, large)        # v = (.5 + 1)/2
    np.testing.assert_allclose([*small, *large], [-9.816725, math.log(1e-4 + .0199 / 999)], rtol=1e-7)
    np.testing.assert_allclose([paper, code[0]], [(large + small) / 2, (3 * large + small) / 4], rtol=1e-14)


def test_the_decoder_s_normal_distribution_or_its_tanh_form():
    """A pixel 0.03 off the mean costs .4 bits more; a probability below 1e-12, or 1e-15, is no longer told apart."""
    x = np.array([[127 / 127.5 - 1]])
    log_var = float(bound.log_variances(LINEAR, FIRST)[0][0])
    paper, code = (float(bound.bits(bound.bin_nats(x, x + .03, log_var, cdf))[0]) for cdf in ("exact", "tanh"))
    np.testing.assert_allclose([paper, code], [12.255998, 12.670357], rtol=1e-7)
    far = float(bound.bits(bound.bin_nats(x, x + .2, log_var))[0])
    np.testing.assert_allclose([far, *(-math.log2(least) for least in (1e-12, 1e-15))],
                               [514.63208, 39.863137, 49.828921], rtol=1e-7)


def test_the_mean_over_entries_is_a_3072nd_of_their_sum_on_cifar():
    class Zero:
        """A network that predicts no noise."""

        weight = staticmethod(lambda weighting, level: np.ones(2))
        target = staticmethod(lambda x0, eps, level: eps)
        evaluate = staticmethod(lambda theta, x, level, labels, masks: (np.zeros_like(x), None))

    x0, eps = Key(1).normal((2, 2, 32, 32, 3))
    mean = losses.denoising_loss(Zero, None, x0, LINEAR.level(np.array([3, 700])), eps)
    summed = np.mean([np.sum(row ** 2) for row in eps])
    np.testing.assert_allclose(summed / mean, 32 * 32 * 3, rtol=1e-12)


def test_a_slip_of_precedence_makes_the_bound_s_weight_of_x0_a_half_where_it_is_infinite():
    """.5 sqrt(abar)/(2*1 - abar), as it stands in public code, for .5 abar/(1 - abar): half the SNR."""
    level = LINEAR.level(np.array([1, 500, 1000]))
    intended = weights.convert(weights.simple(level), "x0", level) / 2
    abar = LINEAR.alpha_bar[[1, 500, 1000]]
    found = .5 * abar ** .5 / (2 * 1 - abar)
    np.testing.assert_allclose(intended, [4999.5, .042644972, 2.0179963e-5], rtol=1e-7)
    np.testing.assert_allclose(found, [.49992501, .072950011, .0015882366], rtol=1e-7)


# ---- weights

def test_soft_min_snr_of_x0_and_of_the_preconditioned_network_are_two_formulas_for_one_weight():
    """gamma SNR/(SNR + gamma) of x_0 is r/(1 + r)^2 of F, r = sigma_data^2 SNR, where sigma_data = gamma^-1/2.

    The second, with its 4, is also given as the weight of x_0: there it is smaller by 1 + r."""
    sigma = np.array([.05, .5, 5.])
    level, snr = ve(sigma), sigma ** -2.
    weight = weights.soft_min_snr(level)
    np.testing.assert_allclose(weights.convert(weight, "x0", level), 4 * snr / (snr + 4), rtol=1e-12)
    r = .25 * snr
    np.testing.assert_allclose(weights.convert(weight, "F", level, sigma_data=.5), r / (1 + r) ** 2, rtol=1e-12)
    np.testing.assert_allclose(4 * snr / (snr + 4) / (4 * r / (1 + r) ** 2), (1 + r), rtol=1e-12)
    np.testing.assert_allclose(1 + r, [101, 2, 1.01], rtol=1e-12)


def test_snr_is_the_square_of_what_some_code_calls_so():
    level = LINEAR.level(np.array([1, 500, 1000]))
    np.testing.assert_allclose(level.snr, [9999, .085289944, 4.0359927e-5], rtol=1e-7)
    np.testing.assert_allclose(level.alpha / level.sigma, [99.995, .29204442, .0063529463], rtol=1e-7)


def test_pseudo_huber_of_a_vector_is_not_the_sum_of_its_entries_pseudo_hubers():
    r, c = np.array([[3., 4., 0., 0.]]), .5
    whole = pseudo_huber.forward(r, 0 * r, np.ones(1), c=c)[0]
    each = sum(float(pseudo_huber.forward(r[:, [i]], 0 * r[:, [i]], np.ones(1), c=c)[0]) for i in range(4))
    np.testing.assert_allclose([whole, each], [math.sqrt(25.25) - .5, math.sqrt(9.25) + math.sqrt(16.25) - 1],
                               rtol=1e-13)


def test_the_decay_of_the_target_has_n_or_n_minus_1_below_it():
    """mu(k) = exp(s_0 log mu_0/N(k)), s_0 = 2, mu_0 = .95; the authors' code divides by N - 1."""
    for N, paper, code in ((2, .95, .9025), (107, .9990417, .9990327)):
        np.testing.assert_allclose([math.exp(2 * math.log(.95) / n) for n in (N, N - 1)], [paper, code], rtol=1e-7)


def test_a_moving_average_forgets_its_start_at_once_or_in_ten_thousand_steps():
    """What is left of the random start after 100 updates: by a fixed decay of .9999, and by (1 + n)/(10 + n)."""
    left = [math.prod(optim.ema_decay(n, .9999, warmup) for n in range(100)) for warmup in (False, True)]
    np.testing.assert_allclose(left, [.9999 ** 100, 1 / math.comb(109, 9)], rtol=1e-12)
    np.testing.assert_allclose(left, [.990049, 2.345534e-13], rtol=1e-4)


def test_a_clipped_gradient_has_the_norm_asked_for_or_a_millionth_less():
    clipped = np.array([3e-6, 4e-6])
    optim.clip_by_global_norm(clipped, 1e-6)
    np.testing.assert_allclose([math.hypot(*clipped), 5e-6 * 1e-6 / (5e-6 + 1e-6)], [1e-6, .833333e-6], rtol=1e-6)


def test_times_by_importance_leave_a_thousandth_uniform_or_nothing():
    """Losses 3 and 0 at two times: the second is never drawn again, or once in two thousand."""
    for uniform, wanted in ((0., [1, 0]), (.001, [.9995, .0005])):
        sampler = times.SecondMoment(2, history=1, uniform=uniform)
        sampler.update(np.array([1, 2]), np.array([3., 0.]))
        np.testing.assert_allclose(sampler.probabilities(), wanted, rtol=1e-14)


# ---- what a network is told and how it is built

def test_the_sinusoids_are_sines_or_cosines_first_and_have_two_denominators():
    """And the paper has sine and cosine in turn. t = 10, width 8."""
    t = np.array([10.])
    ddpm = sinusoid.forward(t, 8)[0][0]
    other = sinusoid.forward(t, 8, "cos_sin", "half")[0][0]
    f = [10000 ** (-k / 4) for k in range(4)]
    paper = [wave(10 * w) for w in f for wave in (math.sin, math.cos)]
    np.testing.assert_allclose(other, paper[1::2] + paper[::2], rtol=1e-12)
    slower = [10000 ** (-k / 3) for k in range(4)]
    np.testing.assert_allclose(ddpm, [math.sin(10 * w) for w in slower] + [math.cos(10 * w) for w in slower],
                               rtol=1e-12)
    np.testing.assert_allclose([other[1], ddpm[1], paper[1]], [.54030, .44767, -.83907], rtol=1e-5)


def test_the_first_noisy_level_is_called_one_or_zero():
    level = LINEAR.level(np.array([1, 500, 1000]))
    told = [PRECONDITIONINGS["eps"](level, label=label).c_noise for label in ("t", "t-1")]
    np.testing.assert_array_equal(told, [[1, 500, 1000], [0, 499, 999]])


def test_the_logarithm_of_sigma_is_told_in_two_units():
    """EDM tells its network log(sigma)/4, consistency models theirs 250 log(sigma): a thousandfold."""
    for sigma in (.002, 80.):
        told = PRECONDITIONINGS["F"](ve(sigma)).c_noise
        np.testing.assert_allclose(told, math.log(sigma) / 4, rtol=1e-14)
        np.testing.assert_allclose(250 * math.log(sigma) / told, 1000, rtol=1e-13)
    np.testing.assert_allclose([PRECONDITIONINGS["F"](ve(sigma)).c_noise for sigma in (.002, 80.)],
                               [-1.55365, 1.09551], rtol=1e-5)


def test_edm_s_network_predicts_minus_v_when_the_data_s_deviation_is_one():
    level = LINEAR.level(400)
    x0, eps = Key(2).normal((2, 3, 4))
    x = level.alpha * x0 + level.sigma * eps
    both = Prediction("x0", x0, x, level, sigma_data=1.0)
    np.testing.assert_allclose(both.v, level.alpha * eps - level.sigma * x0, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(both.F, -both.v, rtol=1e-12)


def test_attention_s_scale_is_taken_of_the_product_or_of_its_factors():
    """d^-1/2 of q k^T or d^-1/4 of both: one number, but where 64 products of 40 and 40 leave sixteen bits."""
    q = 40 * np.ones((1, 1, 1, 64))
    scores = attention.forward(q, q, q)[1]
    product = float((scores[0] @ scores[1].swapaxes(2, 3))[0, 0, 0, 0])
    factors = q[0, 0, 0] * 64 ** -.25
    np.testing.assert_allclose([product * scores[-1], float(factors @ factors)], [12800, 12800], rtol=1e-14)
    with np.errstate(over="ignore"):
        half = [np.float16(product) * np.float16(64 ** -.5), np.float16(factors @ factors)]
    np.testing.assert_allclose(half, [np.inf, 12800], rtol=1e-3)


def test_two_values_of_epsilon_are_seen_where_a_group_is_nearly_constant():
    x = np.array([-1., 1.]).reshape(1, 1, 1, 2)
    for deviation, ratio in ((1., 1.0000045), (1e-2, 1.0436038), (1e-3, 2.3452079)):
        outs = [group_norm.forward(deviation * x, np.ones(2), np.zeros(2), groups=1, eps=eps)[0][0, 0, 0, 1]
                for eps in (1e-6, 1e-5)]
        np.testing.assert_allclose(outs[0] / outs[1], ratio, rtol=1e-7)


def test_three_functions_are_called_gelu():
    x = np.linspace(-6, 6, 120_001).reshape(1, 1, -1)
    exact, tanh, quick = gelu.forward(x)[0], gelu_tanh.forward(x)[0], x / (1 + np.exp(-1.702 * x))
    found = [float(np.abs(other - exact).max()) for other in (tanh, quick)]
    np.testing.assert_allclose(found, [4.7323552e-4, .020334869], rtol=1e-6)
