"""The exact consistency function gives the data's law in any number of steps, and what each step says of itself."""
import numpy as np
import pytest
from gaussian_law import WORLD
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import mutant
from scipy.special import ndtri

from refdiff import samplers
from refdiff.process import affine
from refdiff.process.exact import Mixture
from refdiff.process.level import ve
from refdiff.rng import Key

LOW, HIGH = .1, 20.
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])


def exact(world):
    return lambda x, sigma: world.flow(x, ve(sigma), ve(LOW))


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.lists(st.floats(.11, 19.9), max_size=19, unique=True))
def test_any_number_of_steps_gives_the_law_of_gaussian_data(between):
    """From the true marginal at 20 to the law at .1, in 1 to 20 steps at any levels between."""
    sigmas, start = [HIGH, *sorted(between, reverse=True)], WORLD.marginal(ve(HIGH))
    read = affine.probe(lambda x, noise: samplers.run(
        samplers.consistency(exact(WORLD), sigmas, x, sigma_min=LOW, noise=noise)), len(sigmas), 2)
    mean, cov = read.law(start.mean, start.cov)
    np.testing.assert_allclose(mean, WORLD.mean, atol=1e-12)
    np.testing.assert_allclose(cov, WORLD.cov + LOW ** 2 * np.eye(2), atol=1e-12)


@pytest.mark.parametrize("sigmas", [[20.], [20., 3., .4], [20., 8., 3., 1., .4, .2]])
def test_any_number_of_steps_gives_the_law_of_a_mixture(sigmas):
    """The share of samples below each quantile of p at .1: a fair coin's, within 5 standard errors of 5,000 rows."""
    n, key = 5_000, Key(4)
    x = LINE.sample(key.fold("x0"), n) + HIGH * key.fold("eps").normal((n, 1))
    out = samplers.run(samplers.consistency(exact(LINE), sigmas, x, LOW, samplers.noise_from(key, x)))
    level, shares = ve(LOW), np.array([.01, .1, .3, .5, .9, .99])
    below = (np.exp(LINE.log_cdf(out, level)) < shares).mean(axis=0)
    assert np.all(np.abs(below - shares) < 5 * np.sqrt(shares * (1 - shares) / n)), below
    uniform = np.sort(np.exp(LINE.log_cdf(out[:, 0], level)))
    assert abs(ndtri(uniform).std() - 1) < 5 / np.sqrt(2 * n)


def check_states(module):
    """x and the level of f's output; the prediction is that output, of the x and at the sigma that f was asked."""
    sigmas, asked, x = [20., 3., .4], [], 20 * Key(1).normal((4, 2))

    def f(x, sigma):
        asked.append((x, sigma))
        return exact(WORLD)(x, sigma)
    states = list(module.consistency(f, sigmas, x, LOW, samplers.noise_from(Key(2), x)))
    assert [state.step for state in states] == [0, 1, 2] and [sigma for _, sigma in asked] == sigmas
    for state, (noisy, sigma) in zip(states, asked):
        assert state.level == ve(LOW) and state.prediction.level == ve(sigma) and state.prediction.kind == "x0"
        np.testing.assert_array_equal(state.x, exact(WORLD)(noisy, sigma))
        np.testing.assert_array_equal(state.prediction.x0, state.x)
        np.testing.assert_array_equal(state.prediction.x, noisy)
        np.testing.assert_allclose(state.prediction.eps, (noisy - state.x) / sigma, rtol=1e-14)


def test_a_step_says_what_was_asked_and_answered():
    check_states(samplers)


@pytest.mark.parametrize("old, new", [
    ('Prediction("x0", x, noisy, ve(sigma))', 'Prediction("x0", x, x, ve(sigma))'),
    ('Prediction("x0", x, noisy, ve(sigma))', 'Prediction("x0", noisy, noisy, ve(sigma))'),
    ('Prediction("x0", x, noisy, ve(sigma))', 'Prediction("x0", x, noisy, ve(sigma_min))'),
    ('Prediction("x0", x, noisy, ve(sigma))', 'Prediction("eps", x, noisy, ve(sigma))'),
    ("i, ve(sigma_min), x, Prediction", "i, ve(sigma), x, Prediction"),
    ("ve(sigma_min), x, Prediction", "ve(sigma_min), noisy, Prediction")])
def test_every_mutant_is_killed(old, new):
    planted = mutant("samplers.consistency", (old, new))
    with pytest.raises(AssertionError):
        check_states(planted)
