"""optim.py against scalar loops in 50-digit mpmath and against closed forms."""
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, strategies as st

from refdiff import backend, optim
from refdiff.rng import Key

EPS = {np.float64: 2.0 ** -52, np.float32: 2.0 ** -23}
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def draws(name, n, dtype=np.float64):
    return Key(11).fold("test_optim", name).normal(n, dtype)


def adamw_by_hand(theta, grads, rates, lr, beta1, beta2, eps, weight_decay, decay):
    """One scalar at a time at 50 digits, moments as the explicit sums m_t = (1-b) sum b^(t-i) g_i."""
    with mpmath.workdps(50):
        b1, b2, eps, wd, lr = (mpmath.mpf(x) for x in (beta1, beta2, eps, weight_decay, lr))
        out = []
        for j in range(len(theta)):
            x = mpmath.mpf(float(theta[j]))
            for t in range(1, len(grads) + 1):
                g = [mpmath.mpf(float(grads[i][j])) for i in range(t)]
                m = (1 - b1) * mpmath.fsum(b1 ** (t - 1 - i) * g[i] for i in range(t)) / (1 - b1 ** t)
                v = (1 - b2) * mpmath.fsum(b2 ** (t - 1 - i) * g[i] ** 2 for i in range(t)) / (1 - b2 ** t)
                rate = mpmath.mpf(rates[t - 1])
                shrink = wd * (rate / lr if decay == "paper" else rate)
                x = x - rate * m / (mpmath.sqrt(v) + eps) - shrink * x
            out.append(float(x))
        return np.array(out)


@DTYPES
@pytest.mark.parametrize("decay", ["paper", "rate"])
def test_adamw_equals_the_50_digit_sums(dtype, decay):
    steps, n = 12, 7
    theta, grads = draws("theta", n, dtype), [draws(f"g{i}", n, dtype) for i in range(steps)]
    rates = [.02 * (i + 1) / steps for i in range(steps)]
    optimiser = optim.AdamW(lr=.02, beta1=.8, beta2=.95, eps=1e-3, weight_decay=.1, decay=decay)
    want = adamw_by_hand(theta, grads, rates, .02, .8, .95, 1e-3, .1, decay)
    state = optimiser.init(theta)
    for g, rate in zip(grads, rates):
        optimiser.update(state, theta, g, rate)
    assert state.step == steps and theta.dtype == dtype
    # about ten roundings per update, each of a term below 4 in size
    np.testing.assert_allclose(theta, want, rtol=0, atol=steps * 10 * 4 * EPS[dtype])


def test_the_two_decays_differ_by_the_rate():
    """With a zero gradient only the decay acts: paper theta (1 - lr_t/lr wd), rate theta (1 - lr_t wd)."""
    for decay, factor in ("paper", 1 - .5 * .1), ("rate", 1 - .01 * .1):
        theta = draws("decay", 5)
        want = theta * factor
        optimiser = optim.AdamW(lr=.02, weight_decay=.1, decay=decay)
        optimiser.update(optimiser.init(theta), theta, np.zeros(5), .01)
        np.testing.assert_allclose(theta, want, rtol=4 * EPS[np.float64])


@given(st.floats(-1e3, 1e3).filter(lambda g: abs(g) > 1e-3), st.floats(1e-6, 1.))
def test_the_first_step_is_lr_times_the_sign(g, lr):
    """t = 1: mhat = g, sqrt(vhat) = |g|, so the step is lr g / (|g| + eps) whatever the betas."""
    theta = np.zeros(1)
    optimiser = optim.AdamW(lr=lr)
    optimiser.update(optimiser.init(theta), theta, np.array([g]))
    # the bias corrections 1 - .999 lose log2(1000) = 10 bits; they cancel only up to that
    assert theta[0] == pytest.approx(-lr * g / (abs(g) + 1e-8), rel=2000 * EPS[np.float64])


def test_a_constant_gradient_gives_equal_steps():
    """mhat = g and vhat = g^2 at every t: without the corrections the first steps would differ."""
    theta, g = np.zeros(3), np.array([2., -.5, 1e-2])
    optimiser = optim.AdamW(lr=.1, eps=1e-12)
    state = optimiser.init(theta)
    for t in range(1, 40):
        optimiser.update(state, theta, g)
        np.testing.assert_allclose(theta, -.1 * t * np.sign(g), rtol=1e-9)       # eps / |g| <= 1e-10, 40 steps


def test_weight_decay_is_not_scaled_by_the_gradient():
    """Decoupled: doubling the gradient's scale leaves decay + step alone (eps aside); L2 would not."""
    a, b = draws("decoupled", 6), draws("decoupled", 6)
    g = draws("decoupled-g", 6)
    for theta, grad in (a, g), (b, 1024 * g):
        optimiser = optim.AdamW(lr=.1, eps=1e-300, weight_decay=.3)
        state = optimiser.init(theta)
        for _ in range(3):
            optimiser.update(state, theta, grad)
    assert np.array_equal(a, b)                             # 1024 is a power of two: not a bit changes


@DTYPES
def test_update_is_in_place_leaves_the_gradient_alone_and_repeats_to_the_bit(dtype):
    runs = []
    for _ in range(2):
        theta, g = draws("bits", 1001, dtype), draws("bits-g", 1001, dtype)
        before, address = g.copy(), theta.ctypes.data
        optimiser = optim.AdamW(weight_decay=.01)
        state = optimiser.init(theta)
        for _ in range(5):
            optimiser.update(state, theta, g, np.float64(1e-3))           # a NumPy scalar must not widen float32
        assert theta.ctypes.data == address and np.array_equal(g, before)
        assert theta.dtype == state.m.dtype == state.v.dtype == dtype
        runs.append(theta)
    assert runs[0].tobytes() == runs[1].tobytes()


@DTYPES
def test_an_element_does_not_see_its_neighbours(dtype):
    """The vector may be cut anywhere: what a distributed optimiser relies on."""
    whole, g = draws("cut", 37, dtype), draws("cut-g", 37, dtype)
    parts = [whole[:5].copy(), whole[5:].copy()]
    optimiser = optim.AdamW(weight_decay=.01)
    states = [optimiser.init(x) for x in [whole] + parts]
    for _ in range(3):
        for x, s, gx in zip([whole] + parts, states, [g, g[:5], g[5:]]):
            optimiser.update(s, x, gx)
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("bad", [dict(lr=0.), dict(lr=math.nan), dict(beta1=1.), dict(beta2=-.1), dict(eps=0.),
                                 dict(weight_decay=-1.), dict(decay="l2")])
def test_a_setting_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match=f"AdamW: {next(iter(bad))} is .*, wanted"):
        optim.AdamW(**bad)


def test_vectors_that_do_not_belong_together_are_refused():
    theta, optimiser = np.zeros(4), optim.AdamW()
    state = optimiser.init(theta)
    for grad in np.zeros(3), np.zeros(4, np.float32), np.zeros((4, 1)):
        with pytest.raises(ValueError, match="AdamW.update: grad is .*, wanted theta's float64"):
            optimiser.update(state, theta, grad)
    assert state.step == 0 and not theta.any(), "a refused update must leave everything as it was"
    with pytest.raises(ValueError, match="wanted a flat vector of floats"):
        optimiser.init(np.zeros(4, np.int64))
    with pytest.raises(backend.BackendError, match="grad is a list"):
        optim.clip_by_global_norm([1.])


def test_learning_rate_warms_up_linearly_then_falls_as_half_a_cosine():
    steps, peak, warmup, floor = 30, .4, 6, .1
    with mpmath.workdps(50):
        for step in range(steps + 1):
            s = mpmath.mpf(step - warmup) / (steps - warmup)
            want = (mpmath.mpf(peak) * (step + 1) / warmup if step < warmup else
                    floor + (mpmath.mpf(peak) - floor) * mpmath.cospi(s / 2) ** 2)       # (1+cos x)/2 = cos^2(x/2)
            assert optim.learning_rate(step, steps, peak, warmup, floor) == pytest.approx(float(want), rel=1e-14)


@given(st.integers(1, 500), st.data())
def test_learning_rate_peaks_at_the_end_of_the_warmup_and_never_rises_after(steps, data):
    warmup = data.draw(st.integers(0, steps))
    rates = [optim.learning_rate(i, steps, 1., warmup) for i in range(steps + 1)]
    assert rates[0] > 0 and rates[-1] == 0 and all(0 < r <= 1 for r in rates[:-1])
    assert max(rates) == 1 == rates[max(warmup - 1, 0)]
    assert all(a >= b for a, b in zip(rates[max(warmup - 1, 0):], rates[max(warmup, 1):]))


@pytest.mark.parametrize("args, what", [((-1, 10, 1.), "step"), ((11, 10, 1.), "step"), ((0, 10, 1., 11), "warmup"),
                                        ((0, 10, 1., 0, 2.), "floor")])
def test_learning_rate_refuses_what_it_cannot_mean(args, what):
    with pytest.raises(ValueError, match=f"learning_rate: {what} is"):
        optim.learning_rate(*args)


@DTYPES
def test_clipping_scales_to_the_norm_and_reports_the_old_one(dtype):
    g = draws("clip", 1000, dtype)
    with mpmath.workdps(50):
        norm = float(mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(x)) ** 2 for x in g)))
    before = g.copy()
    assert optim.clip_by_global_norm(g, 100.) == pytest.approx(norm, rel=1e-14)      # float64 pairwise sum
    assert np.array_equal(g, before), "a norm below the bound changes nothing"
    assert optim.clip_by_global_norm(g, .5) == pytest.approx(norm, rel=1e-14)
    np.testing.assert_allclose(g, before * (.5 / norm), rtol=4 * EPS[dtype])
    assert g.dtype == dtype


def test_the_norm_of_a_float32_gradient_does_not_overflow():
    """|g| = 3e20 is a float32, its square is not."""
    g = np.full(4, 3e20, np.float32)
    assert optim.clip_by_global_norm(g, 1.) == pytest.approx(6e20, rel=1e-7)
    np.testing.assert_allclose(g, .5, rtol=1e-6)


@pytest.mark.parametrize("bad, norm", [(math.nan, math.nan), (math.inf, math.inf), (-math.inf, math.inf)])
def test_clipping_reports_a_broken_gradient_and_leaves_it(bad, norm):
    g = np.array([1., bad, 3.])
    before = g.copy()
    got = optim.clip_by_global_norm(g, .1)
    assert got == norm or (math.isnan(got) and math.isnan(norm))
    np.testing.assert_array_equal(g, before)


@pytest.mark.parametrize("bound", [0., -1., math.nan])
def test_clipping_refuses_a_bound_that_is_not_positive(bound):
    with pytest.raises(ValueError, match="max_norm is"):
        optim.clip_by_global_norm(np.ones(2), bound)


@DTYPES
def test_ema_equals_the_weighted_sum_of_all_thetas(dtype):
    """ema_n = mu^n ema_0 + (1-mu) sum mu^(n-i) theta_i."""
    mu, n = .9, 20
    thetas = [draws(f"ema{i}", 5, dtype) for i in range(n + 1)]
    ema = thetas[0].copy()
    for theta in thetas[1:]:
        optim.ema_update(ema, theta, mu)
    want = mu ** n * thetas[0].astype(float)
    for i, theta in enumerate(thetas[1:], 1):
        want = want + (1 - mu) * mu ** (n - i) * theta
    np.testing.assert_allclose(ema, want, rtol=0, atol=4 * 4 * EPS[dtype] / (1 - mu))   # roundings sum to 1/(1-mu)
    assert ema.dtype == dtype


def test_ema_decay_0_copies_and_1_keeps():
    ema, theta = draws("ends-ema", 9), draws("ends-theta", 9)
    before = ema.copy()
    optim.ema_update(ema, theta, 1.)
    assert np.array_equal(ema, before)
    optim.ema_update(ema, theta, 0.)
    assert np.array_equal(ema, theta)
    for decay in -.1, 1.1, math.nan:
        with pytest.raises(ValueError, match="ema_update: decay is"):
            optim.ema_update(ema, theta, decay)


def test_ema_decay_warms_up_from_a_tenth():
    assert [optim.ema_decay(n, .999) for n in (0, 1, 2, 90)] == [.1, 2 / 11, 3 / 12, .91]
    assert optim.ema_decay(8989, .999) < .999 == optim.ema_decay(8990, .999) == optim.ema_decay(10 ** 6, .999)
    assert optim.ema_decay(0, .999, warmup=False) == .999
    for step, decay in (-1, .9), (0, 1.5):
        with pytest.raises(ValueError, match="ema_decay"):
            optim.ema_decay(step, decay)


@pytest.mark.gpu
def test_the_device_gives_the_host_s_numbers():
    """Elementwise IEEE operations: the device may only contract a*b+c into one rounding."""
    device = backend.use("cupy")
    theta, g = draws("gpu", 1000), draws("gpu-g", 1000)
    ema = theta.copy()
    host = [backend.to_host(x).copy() for x in (theta, g, ema)]
    for x, gx, e in (theta, g, ema), host:
        optimiser = optim.AdamW(weight_decay=.01)
        state = optimiser.init(x)
        for _ in range(3):
            optim.clip_by_global_norm(gx, .7)
            optimiser.update(state, x, gx)
            optim.ema_update(e, x, .9)
    assert isinstance(theta, device.ndarray)
    np.testing.assert_allclose(backend.to_host(theta), host[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(backend.to_host(ema), host[2], rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_have_the_bits_of_the_whole(dtype, monkeypatch):
    """The formulas are element by element; only the norm's float64 sum, of positive terms, is rounded elsewhere."""
    found = []
    for block in (1, 7, 1000, optim.BLOCK):
        monkeypatch.setattr(optim, "BLOCK", block)
        theta, g, ema = (draws(name, 100, dtype) for name in ("theta", "g", "ema"))
        optimiser = optim.AdamW(weight_decay=.01)
        state = optimiser.init(theta)
        for step in range(3):
            optimiser.update(state, theta, g)
            optim.ema_update(ema, theta, .9)
        norm = optim.clip_by_global_norm(g, .5)
        found.append((theta, state.m, state.v, ema))
        assert norm == pytest.approx(float(np.linalg.norm(draws("g", 100, np.float64))), rel=1e-6)
        for got, want in zip(found[-1], found[0]):
            np.testing.assert_array_equal(got, want)


def test_vectors_of_nothing_are_left_alone():
    theta, optimiser = np.zeros(0), optim.AdamW()
    optimiser.update(optimiser.init(theta), theta, np.zeros(0))
    optim.ema_update(theta, np.zeros(0), .5)
    assert optim.clip_by_global_norm(np.zeros(0), 1.) == 0
