"""Where two papers, or a paper and its own code, say different things about one quantity: the difference in numbers."""
import math

import numpy as np

from refdiff import samplers
from refdiff.distill.consistency import boundary
from refdiff.guidance import threshold
from refdiff.process import families, gaussian, grids, schedules
from refdiff.process.parameterization import Prediction


def silent(x, level):
    """Predicts no noise."""
    return Prediction("eps", 0 * x, x, level)


def test_fixed_large_begins_with_beta_1_in_the_paper_and_with_beta_tilde_2_in_later_code():
    s = schedules.linear()
    paper = gaussian.fixed_variance("large", s.level(0), s.level(1))
    code = gaussian.posterior(s.level(1), s.level(2)).variance
    np.testing.assert_allclose([math.log(paper), math.log(code)], [math.log(1e-4), -9.816725], rtol=1e-7)
    assert gaussian.posterior(s.level(0), s.level(1)).variance == 0      # whose log OpenAI's code replaces as well


def test_the_linear_schedule_of_fewer_steps_ends_early_unless_its_ends_are_scaled():
    as_given, scaled = schedules.linear(100), schedules.linear(100, 1e-4 * 1000 / 100, .02 * 1000 / 100)
    np.testing.assert_allclose([as_given.alpha_bar[-1], scaled.alpha_bar[-1]], [.364, 2.04e-5], rtol=2e-3)


def test_the_clip_of_beta_touches_one_step_and_keeps_alpha_bar_from_zero():
    s = schedules.cosine()
    f = [math.cos((t / 1000 + .008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    formula = np.array(f) / f[0]
    np.testing.assert_allclose(s.alpha_bar[:-1], formula[:-1], rtol=1e-10)
    np.testing.assert_allclose(s.alpha_bar[-1], formula[-2] * (1 - .999), rtol=1e-10)
    assert formula[-1] < 1e-32 and f"{s.alpha_bar[-1]:.4e}" == "2.4288e-09"
    beta = 1 - formula[1:] / formula[:-1]
    np.testing.assert_array_equal([np.sum(beta > .999), np.sum(np.clip(beta, .01, .99) == .01)], [1, 807])


def test_tables_in_single_precision_lose_four_digits_of_the_noise():
    s = schedules.linear()
    short = np.cumprod(1 - np.linspace(1e-4, .02, 1000, dtype=np.float32))
    error = np.abs((1 - short.astype(np.float64)) / s.one_minus_alpha_bar[1:] - 1)
    np.testing.assert_allclose(s.one_minus_alpha_bar[1], 1e-4, rtol=1e-15)
    assert 1e-4 < error[:10].max() < 3e-4 and error[500:].max() < 1e-6


def test_three_schedules_are_called_linear():
    """beta_t linear between DDPM's ends, between Stable Diffusion's, and its root linear between the latter."""
    made = schedules.linear(), schedules.linear(1000, .00085, .012), schedules.scaled_linear(1000, .00085, .012)
    np.testing.assert_allclose([s.alpha_bar[-1] for s in made], [4.0358e-5, .00157896, .00466010], rtol=1e-5)


def test_vp_keeps_a_little_more_signal_than_the_chain_that_it_is_the_limit_of():
    np.testing.assert_allclose([families.VP().alpha(1.), schedules.linear().alpha[-1]],
                               [math.exp(-(.1 + 20) / 4), .00635282], rtol=1e-5)


def test_between_two_levels_log_sigma_or_sigma_is_linear_in_t():
    s = schedules.linear()
    low, high = s.level(1).ratio, s.level(2).ratio
    np.testing.assert_allclose([families.Interpolated(s).level(1.5).ratio, (low + high) / 2],
                               [math.sqrt(low * high), .0124157], rtol=1e-5)


def test_ancestral_steps_clip_the_predicted_datum_in_code_and_not_in_the_algorithm():
    """x = 3 with eps = 0 at t = 501, where x_0 = 10.76: the mean of x_500."""
    s = schedules.linear()
    grid, x = grids.at_times(s, [501, 500, 0]), np.array([[3.]])
    means = [next(samplers.ddpm(denoiser, grid, x, noise=lambda step: 0 * x)).x[0, 0]
             for denoiser in (silent, threshold.static(silent))]
    abar, beta = s.alpha_bar[500:502], s.beta[501]
    clipped = (math.sqrt(abar[0]) * beta + math.sqrt(1 - beta) * (1 - abar[0]) * 3) / (1 - abar[1])
    np.testing.assert_allclose(means, [3 / math.sqrt(1 - beta), clipped], rtol=1e-12)
    np.testing.assert_allclose(means, [3.015205, 2.985371], rtol=1e-6)


def test_consistency_models_of_latents_scale_the_time_and_not_sigma():
    """sigma = t/.1 with t the index of the schedule: c_skip falls to .0025 in one step, where sigma grows by .01."""
    theirs = [.25 / ((t / .1) ** 2 + .25) for t in (0, 1)]
    ratios = [schedules.scaled_linear().level(t).ratio for t in (1, 2)]
    np.testing.assert_allclose(ratios, [.0291671, .0413146], rtol=1e-4)
    np.testing.assert_allclose([theirs, [boundary(sigma, ratios[0], .5)[0] for sigma in ratios]],
                               [[1, .00249377], [1, .99941]], rtol=1e-5)


def test_consistency_models_coefficients_are_not_edms():
    edm = [(.25 / (s ** 2 + .25), .5 * s / math.sqrt(s ** 2 + .25)) for s in (.002, .5)]
    np.testing.assert_allclose(edm, [(.99998, .0020000), (.5, .353553)], rtol=1e-5)
    np.testing.assert_allclose([boundary(s, .002, .5) for s in (.002, .5)], [(1, 0), (.502004, .352139)], rtol=1e-6)


def test_flow_matchings_time_and_velocity_are_the_negatives_of_the_later_papers():
    """psi_t = t x_1 + (1 - t) x_0 of noise x_0, whose slope is x_1 - x_0, is z_(1-t), whose slope is eps - x0."""
    rng = np.random.default_rng(1)
    x0, eps = rng.standard_normal((2, 5))
    for t in (.1, .5, .8):
        level = families.Flow().level(1 - t)
        np.testing.assert_allclose(level.alpha * x0 + level.sigma * eps, t * x0 + (1 - t) * eps, rtol=1e-14)
        h = 1e-6
        later = families.Flow().level(1 - t - h)
        slope = ((later.alpha - level.alpha) * x0 + (later.sigma - level.sigma) * eps) / h
        np.testing.assert_allclose(slope, x0 - eps, rtol=1e-8)


def test_two_papers_lambda_is_twice_the_third_ones():
    level = schedules.linear().level(np.arange(1, 1001))
    np.testing.assert_allclose(np.log(level.snr), 2 * level.lam, rtol=1e-12)
    np.testing.assert_allclose(level.snr, (level.alpha / level.sigma) ** 2, rtol=1e-12)
