"""Where random draws do not go: extreme scores, constant inputs, small differences, defaults, windows at the edge."""
import inspect
import math

import mpmath
import numpy as np
import pytest
from draw import Case, cases
from hypothesis import HealthCheck, given, settings
from laws import LAWS
from mutate_source import guarded_windows
from oracles import ORACLES, tanh_cdf

from refdiff.ops import REGISTRY, attention, cross_entropy, group_norm, layer_norm, pseudo_huber, sinusoid, softmax
from refdiff.ops import binned_normal, conv2d, gelu, gelu_tanh, silu


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_defaults_are_the_definitions_defaults(name):
    def defaults(function):
        return {k: p.default for k, p in inspect.signature(function).parameters.items() if p.default is not p.empty}
    assert defaults(REGISTRY[name].forward) == defaults(ORACLES[name])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_option_of_the_signature_is_drawn_and_none_beside(name):
    op = REGISTRY[name]
    accepted = set(inspect.signature(op.forward).parameters) - {spec.name for spec in op.inputs}
    assert accepted == set(op.options)


@pytest.mark.parametrize("op", [silu, gelu, gelu_tanh], ids=lambda op: op.name)
def test_activations_of_huge_inputs_are_finite_and_right(op):
    x = np.array([-1000.0, -40.0, -1e-300, 0.0, 1e-300, 40.0, 1000.0])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, saved = op.forward(x)
        slope = op.backward(saved, np.ones_like(x))
    np.testing.assert_allclose(y, ORACLES[op.name](x), atol=40 * 2.3e-16, rtol=1e-15)    # sigma(-40) is below 2^-52
    np.testing.assert_allclose(slope, [0, 0, 0.5, 0.5, 0.5, 1, 1], atol=1600 * 2.3e-16)


def test_softmax_of_huge_scores_does_not_overflow():
    s = np.array([[[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4], [1e300, 0.0, -1e300]]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        p, saved = softmax.forward(s)
        ds = softmax.backward(saved, np.array([[[1.0, -2, 3]] * 3]))
    e = math.exp(-1)
    np.testing.assert_allclose(p[0], [[1 / (1 + e), e / (1 + e), 0], [1 / 3] * 3, [1, 0, 0]], rtol=1e-15)
    np.testing.assert_allclose(ds[0, 1], np.array([1, -8, 7]) / 9, rtol=1e-15)
    assert np.isfinite(ds).all()


def test_softmax_does_not_see_a_shift_of_all_scores():
    s = np.random.default_rng(0).standard_normal((2, 3, 5))
    np.testing.assert_allclose(softmax.forward(s + 2.0**10)[0], softmax.forward(s)[0], rtol=1e-12)


def test_attention_to_one_dominant_key_returns_its_value():
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((1, 5, 2, 3)), rng.standard_normal((1, 5, 2, 4))
    k /= np.sqrt((k * k).sum(-1, keepdims=True))
    o, _ = attention.forward(1e6 * k[:, 2:3], k, v)
    np.testing.assert_allclose(o, v[:, 2:3], rtol=1e-15)


def test_cross_entropy_of_huge_scores_is_finite_and_right():
    s = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, saved = cross_entropy.forward(s, np.array([1, 1]))
    assert loss == 1e4
    np.testing.assert_array_equal(cross_entropy.backward(saved, np.float64(2)), [[1, -1, 0], [0, 0, 0]])


@pytest.mark.parametrize("level", [0.0, 1.0, 1e4])
def test_a_constant_image_is_normalised_to_beta(level):
    """Var = 0: xhat is the rounding of the mean (eps_64 level) over sqrt(eps), and the gradient is finite."""
    gamma, beta = np.array([2.0, -1, 3, 0.5]), np.array([1.0, 2, 3, 4])
    allowed = 4 * 2.3e-16 * level * 1e3 * 3
    for op, x, options in ((group_norm, np.full((2, 3, 5, 4), level), {"groups": 2}),
                           (layer_norm, np.full((2, 3, 4), level), {"eps": 1e-6})):
        y, saved = op.forward(x, gamma, beta, **options)
        np.testing.assert_allclose(y, np.broadcast_to(beta, y.shape), atol=allowed, rtol=0)
        dx, _, _ = op.backward(saved, np.random.default_rng(0).standard_normal(y.shape))
        assert np.isfinite(dx).all()


def test_norms_do_not_lose_a_small_signal_on_a_large_constant():
    """The mean is taken away before the square: 1 + 1e-4 noise loses 4 digits, E x^2 - mu^2 would lose 8."""
    x = 1e4 + np.random.default_rng(0).standard_normal((1, 4, 4, 4))
    for op, image, options in ((group_norm, x, {"groups": 1}), (layer_norm, x.reshape(1, 16, 4), {})):
        y, _ = op.forward(image, np.ones(4), np.zeros(4), **options)
        np.testing.assert_allclose(y, ORACLES[op.name](image, np.ones(4), np.zeros(4), **options), atol=1e-10)


def test_pseudo_huber_of_equal_inputs_is_zero_with_zero_gradient():
    a = np.random.default_rng(0).standard_normal((2, 3))
    loss, saved = pseudo_huber.forward(a, a.copy(), np.ones(2))
    assert loss == 0 and not np.any(pseudo_huber.backward(saved, np.float64(1)))


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6])
def test_pseudo_huber_does_not_cancel(size):
    a, b = size * np.random.default_rng(0).standard_normal((2, 1, 3)), np.zeros((1, 3))
    a = a[0]
    loss, _ = pseudo_huber.forward(a, b, np.ones(1), c=0.03)
    c, square = mpmath.mpf(0.03), mpmath.fsum(mpmath.mpf(float(v))**2 for v in a.ravel())
    assert abs(loss / float(mpmath.sqrt(square + c * c) - c) - 1) < 1e-14


@pytest.mark.parametrize("cdf", ["exact", "tanh"])
def test_a_bin_far_in_either_tail_has_its_probability_and_gradient(cdf):
    """700 standard deviations away P is below e^-200000; the slope is checked against mpmath's derivative."""
    mean = np.array([[-3.0, 3.0, 0.52, 0.48, 3.0, -3.0, 0.9, -0.9]])
    log_var, x = np.full_like(mean, math.log(5.4532e-5)), np.array([[129, 129, 191, 191, 255, 0, 255, 0]]) / 127.5 - 1
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, saved = binned_normal.forward(mean, log_var, x, cdf=cdf)
        slopes = binned_normal.backward(saved, np.ones_like(y))
    np.testing.assert_allclose(y, ORACLES["binned_normal"](mean, log_var, x, cdf=cdf), rtol=1e-12, atol=1e-300)
    for k in range(mean.size):
        for i, slope in enumerate(slopes):
            with mpmath.workdps(60):
                at = [mpmath.mpf(mean[0, k]), mpmath.mpf(log_var[0, k])]
                h = mpmath.mpf(10)**-25
                up, down = (nll(*(v + s * h * (i == j) for j, v in enumerate(at)), x[0, k], cdf) for s in (1, -1))
                want = float((up - down) / (2 * h))
            assert slope[0, k] == pytest.approx(want, rel=1e-11, abs=1e-200)


def nll(mean, log_var, x, cdf):
    """-log P of x's bin in mpmath numbers, from the tail that is small."""
    F, std = {"exact": mpmath.ncdf, "tanh": tanh_cdf}[cdf], mpmath.exp(log_var / 2)
    low, high = (mpmath.mpf(x) - mpmath.mpf(1) / 255 - mean) / std, (mpmath.mpf(x) + mpmath.mpf(1) / 255 - mean) / std
    if abs(x) == 1:
        return -mpmath.log(F(-low) if x > 0 else F(high))
    return -mpmath.log(F(high) - F(low) if low + high < 0 else F(-low) - F(-high))


@pytest.mark.parametrize("dtype, allowed", [(np.float64, 999 * 4e-16), (np.float32, 999 * 2e-7)])
def test_sinusoid_of_the_last_timestep_is_as_good_as_its_dtype(dtype, allowed):
    t = np.array([0.0, 1.0, 999.0], dtype)
    y, _ = sinusoid.forward(t, width=128)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, ORACLES["sinusoid"](t, width=128), atol=allowed)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pad", ["same", "ddpm"])
@pytest.mark.parametrize("law", LAWS)
def test_a_5x5_kernel_obeys_too(law, pad, stride):
    sizes = {"n": 2, "h": 4, "w": 7, "c": 2, "k": 5, "d": 3}
    LAWS[law](conv2d, Case("conv2d", sizes, {"stride": stride, "pad": pad}, seed=5))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_view_reaches_outside_its_array(name):
    @settings(derandomize=True, database=None, max_examples=20, suppress_health_check=list(HealthCheck))
    @given(case=cases(REGISTRY[name], {k: v[-1] for k, v in REGISTRY[name].options.items()}))
    def holds(case):
        with guarded_windows():
            LAWS["memory_layout_does_not_matter"](REGISTRY[name], case)
    holds()


def test_the_window_guard_refuses_a_view_outside():
    with guarded_windows(), pytest.raises(AssertionError, match="reaches outside"):
        np.lib.stride_tricks.as_strided(np.zeros((3, 3)), (3, 4), (24, 8))
