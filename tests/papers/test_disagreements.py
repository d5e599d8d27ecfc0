"""Where two papers, or a paper and its own code, say different things about one quantity: the difference in numbers."""
import math

import numpy as np
import pytest

from refdiff.distill.consistency import boundary
from refdiff.process import families, gaussian, schedules


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
    assert formula[-1] < 1e-32 and s.alpha_bar[-1] == pytest.approx(2.4288e-9, rel=1e-4)
    assert np.sum(1 - formula[1:] / formula[:-1] > .999) == 1


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
