"""Losses of any prediction, of flows and of learned variances: values, and gradients by complex step or difference."""
import math

import mpmath
import numpy as np
import pytest
import standin
from mpmath import mpf
from planted import mutant

from refdiff import objectives
from refdiff.denoiser import WEIGHTINGS, Denoiser, DenoiserConfig
from refdiff.losses import denoising_loss
from refdiff.models import MLP, MLPConfig, UNet, UNetConfig
from refdiff.nn.layers import Linear
from refdiff.ops import concat, silu
from refdiff.params import Layout
from refdiff.process import bound, exact, weights
from refdiff.process.gaussian import q_sample
from refdiff.process.level import Level
from refdiff.process.parameterization import Prediction
from refdiff.process.schedules import linear
from refdiff.process.times import LogitNormal, SecondMoment
from refdiff.rng import Key

mpmath.mp.dps = 50
H = 2.0 ** -100                  # the complex step: h^2 is lost in rounding


class Wide:
    """A tiny network of points with twice as many outputs as coordinates: h = silu(W [x, t/10] + b), F = V h + c."""

    def __init__(self, dim=2, width=8):
        self.layout = Layout()
        self.first = Linear.make(self.layout, "first", dim + 1, width)
        self.last = Linear.make(self.layout, "last", width, 2 * dim)

    def forward(self, theta, x, c_noise, labels=None, masks=None, keep=True):
        h, s_cat = concat.forward(x, (c_noise / 10)[:, None])
        h, s_first = self.first.forward(theta, h)
        h, s_silu = silu.forward(h)
        F, s_last = self.last.forward(theta, h)
        return F, (s_cat, s_first, s_silu, s_last)

    def backward(self, saved, dF, grad, keep=True):
        s_cat, s_first, s_silu, s_last = saved
        dh = silu.backward(s_silu, self.last.backward(s_last, dF, grad))
        return concat.backward(s_cat, self.first.backward(s_first, dh, grad))[0]


NET, POINTS = Wide(), MLP(MLPConfig(width=16, depth=2, embedding=8))
T = 12


def setting(prediction="eps", process="cosine", n=9, network=NET, seed=5):
    """A denoiser away from its initialisation, and data of 256 grey levels; t = 1 and T among the times."""
    key = Key(seed)
    denoiser = Denoiser(network, DenoiserConfig(prediction=prediction, process=process, T=T))
    theta = network.layout.init(key.fold("theta"), np.float64)
    theta.flat += 0.3 * key.fold("away").normal(theta.flat.shape)
    t = np.array([1, T, 2, 1, 5, 7, 3, 11, 9])[:n]
    x0 = key.fold("x0").integers(0, 256, (n, 2)) / 127.5 - 1
    return denoiser, theta, x0, denoiser.schedule.level(t), key.fold("eps").normal((n, 2))


def slope(loss, theta, v, h=1e-5):
    """A central difference along v: error h^2, rounding 1e-16/h."""
    return (loss(theta.with_flat(theta.flat + h * v)) - loss(theta.with_flat(theta.flat - h * v))) / (2 * h)


# ---- the square error of any prediction

KINDS = ("eps", "x0", "v", "score", "velocity", "data_velocity")


def any_prediction(seed=1, n=7):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.1, 1.4, n)
    level = Level(angle, np.cos(angle) * 1.3, np.sin(angle) * 0.8)
    return level, *rng.standard_normal((3, n, 2, 3)), rng.uniform(0.5, 2, n)


def check_matching(module):
    level, x0, eps, value, w = any_prediction()
    x_t = q_sample(x0, eps, level)
    for kind in KINDS:
        target = getattr(Prediction("x0", x0, x_t, level), kind)
        loss, slope_ = module.matching_loss(kind, value, x0, eps, level, w)
        want = mpmath.fsum(mpf(w[n]) * mpmath.fsum((mpf(a) - mpf(b)) ** 2 for a, b in zip(value[n].ravel(),
                                                                                         target[n].ravel())) / 6
                           for n in range(7)) / 7
        np.testing.assert_allclose(loss, float(want), rtol=1e-12, err_msg=kind)
        v = np.random.default_rng(2).standard_normal(value.shape)
        want = np.mean(w[:, None, None] * (value + 1j * H * v - target) ** 2).imag / H
        np.testing.assert_allclose((slope_ * v).sum(), want, rtol=1e-12, err_msg=kind)


def test_the_square_error_of_every_prediction_and_its_gradient():
    check_matching(objectives)


@pytest.mark.parametrize("weighting", sorted(weights.WEIGHTS))
def test_one_weighting_is_one_loss_in_all_predictions_and_one_gradient(weighting):
    """The same x0_hat said as eps, v, score and velocity, each with the converted weight; the gradients agree too."""
    level, x0, eps, value, _ = any_prediction()
    x_t = q_sample(x0, eps, level)
    made = Prediction("x0", value, x_t, level)
    w = weights.WEIGHTS[weighting](level)
    found = {kind: objectives.matching_loss(kind, getattr(made, kind), x0, eps, level, weights.convert(w, kind, level))
             for kind in KINDS}
    np.testing.assert_allclose([loss for loss, _ in found.values()], found["eps"][0], rtol=1e-11)
    per_eps = {"x0": -1 / np.sqrt(level.snr), "v": (level.alpha ** 2 + level.sigma ** 2) / level.alpha,
               "score": -1 / level.sigma, "velocity": (level.alpha + level.sigma) / level.alpha,
               "data_velocity": -(level.alpha + level.sigma) / level.alpha}
    for kind, factor in per_eps.items():
        np.testing.assert_allclose(found[kind][1] * factor[:, None, None], found["eps"][1], rtol=1e-9, atol=1e-12)


def test_score_matching_weighted_by_sigma_squared_is_the_simple_loss_and_by_g_squared_the_bound():
    level, x0, eps, value, _ = any_prediction()
    score = -value / level.sigma[:, None, None]
    simple = objectives.matching_loss("eps", value, x0, eps, level, 1.0)[0]
    found = objectives.matching_loss("score", score, x0, eps, level, level.sigma ** 2)[0]
    assert found == pytest.approx(simple, rel=1e-12)
    dalpha, dsigma = -np.sin(level.t) * 1.3, np.cos(level.t) * 0.8
    g2 = weights.squared_diffusion(level, dalpha, dsigma)
    bound_ = objectives.matching_loss("eps", value, x0, eps, level, weights.likelihood(level, dalpha, dsigma))[0]
    assert objectives.matching_loss("score", score, x0, eps, level, g2 / 2)[0] == pytest.approx(bound_, rel=1e-12)


def test_the_least_score_matching_loss_is_at_the_score():
    """At the exact score of Gaussian data no random change lowers the loss, over 100,000 draws."""
    world = exact.Gaussian(np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.4]]))
    key, n = Key(8), 100_000
    x0, eps, level = world.sample(key.fold("x0"), n), key.fold("eps").normal((n, 2)), Level(0.5, 0.8, 0.6)
    x = q_sample(x0, eps, level)
    best, slope_ = objectives.matching_loss("score", world.score(x, level), x0, eps, level, 1.0)
    for k in range(4):
        change = 0.1 * x @ key.fold("change", k).normal((2, 2))
        assert objectives.matching_loss("score", world.score(x, level) + change, x0, eps, level, 1.0)[0] > best
        # the gradient along it is zero in expectation: within 5 standard errors
        terms = n * (slope_ * change).sum(1)
        assert abs(terms.mean()) < 5 * terms.std() / math.sqrt(n)


@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS))
@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "F"])
def test_training_with_every_weighting_minimises_its_error_of_the_noise(weighting, prediction):
    """denoising_loss = E w |eps - eps_hat|^2, with eps_hat from D, whatever the network predicts; and its gradient."""
    denoiser, theta, x0, level, eps = setting(prediction, "cosine", network=POINTS)
    x = q_sample(x0, eps, level)
    D, _ = denoiser.forward(theta, x, level)
    eps_hat = (x - level.alpha[:, None] * D) / level.sigma[:, None]
    w = weights.WEIGHTS[weighting](level)
    loss = denoising_loss(denoiser, theta, x0, level, eps, weighting=weighting)
    assert loss == pytest.approx(np.mean(w[:, None] * (eps_hat - eps) ** 2), rel=1e-9)
    assert denoising_loss(denoiser, theta, x0, level, eps, weighting=weights.WEIGHTS[weighting]) == \
        pytest.approx(loss, rel=1e-12)
    grad, v = theta.zeros_like(), Key(6).normal(theta.flat.shape)
    denoising_loss(denoiser, theta, x0, level, eps, weighting=weighting, grad=grad)
    assert slope(lambda th: denoising_loss(denoiser, th, x0, level, eps, weighting=weighting), theta, v) == \
        pytest.approx(grad.flat @ v, rel=1e-5)


# ---- flow matching

def check_flow(module):
    """x_t and its derivative in t at 50 digits, in both directions of time, with and without sigma_min."""
    rng = np.random.default_rng(4)
    data, noise = rng.standard_normal((2, 5, 3))
    t = rng.uniform(0, 1, 5)
    for direction in ("to_data", "to_noise"):
        for sigma_min in (0.0, 0.1):
            def x(u, k, j):
                u = 1 - u if direction == "to_noise" else u
                return u * mpf(data[k, j]) + (1 - (1 - mpf(sigma_min)) * u) * mpf(noise[k, j])
            x_t, velocity = module.flow_path(data, noise, t, direction, sigma_min)
            np.testing.assert_allclose(x_t, [[float(x(mpf(t[k]), k, j)) for j in range(3)] for k in range(5)],
                                       rtol=1e-13, atol=1e-15)
            want = [[float(mpmath.diff(lambda u: x(u, k, j), mpf(t[k]))) for j in range(3)] for k in range(5)]
            np.testing.assert_allclose(velocity, want, rtol=1e-13, atol=1e-15)


def test_the_velocity_is_the_derivative_of_the_path():
    check_flow(objectives)


def test_paths_run_between_noise_and_data():
    data, noise = np.random.default_rng(4).standard_normal((2, 2, 3))
    ends = np.array([0.0, 1.0])
    for direction, (first, last) in (("to_data", (noise, data)), ("to_noise", (data, noise))):
        x, _ = objectives.flow_path(data, noise, ends, direction)
        np.testing.assert_array_equal(x, [first[0], last[1]])
    x, _ = objectives.flow_path(data, noise, np.ones(2), sigma_min=0.1)
    np.testing.assert_allclose(x, data + 0.1 * noise, rtol=1e-14)         # FM's path ends sigma_min short of the datum


def flow_setting():
    key = Key(3)
    theta = POINTS.layout.init(key.fold("theta"), np.float64)
    theta.flat += 0.2 * key.fold("away").normal(theta.flat.shape)
    data, noise = key.fold("data").normal((8, 2)), key.fold("noise").normal((8, 2))
    return theta, data, noise, LogitNormal().draw(key.fold("t"), 8)


def check_flow_loss(module):
    theta, data, noise, t = flow_setting()
    v = Key(6).normal(theta.flat.shape)
    for options in (dict(), dict(direction="to_noise"), dict(sigma_min=0.1), dict(weight=np.linspace(0.5, 2, 8)),
                    dict(time_scale=10.0, share=0.25)):
        share = options.pop("share", 1.0)
        loss = module.flow_matching_loss(POINTS, theta, data, noise, t, **options)
        sign, s = (-1 if options.get("direction") == "to_noise" else 1), 1 - options.get("sigma_min", 0.0)
        u = t if sign > 0 else 1 - t
        x = u[:, None] * data + (1 - s * u)[:, None] * noise
        moved, time = theta.with_flat(theta.flat + 1j * H * v), options.get("time_scale", 1000.0) * t
        F = POINTS.forward(moved, x.astype(complex), time.astype(complex))[0]
        w = np.asarray(options.get("weight", np.ones(8)))[:, None]
        want = np.mean(w * (F - sign * (data - s * noise)) ** 2)
        np.testing.assert_allclose(loss, want.real, rtol=1e-12)
        grad = theta.zeros_like()
        module.flow_matching_loss(POINTS, theta, data, noise, t, **options, grad=grad, share=share)
        np.testing.assert_allclose(grad.flat @ v, share * want.imag / H, rtol=1e-11)


def test_the_flow_matching_loss_and_its_gradient():
    check_flow_loss(objectives)


def test_the_conditional_velocity_averages_to_the_marginal_one():
    """E[data - noise | x_t] is the velocity of the PF-ODE: the least loss, on Gaussian data, over 100,000 draws."""
    world = exact.Gaussian(np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.4]]))
    key, n = Key(8), 100_000
    data, noise = world.sample(key.fold("x0"), n), key.fold("noise").normal((n, 2))
    x, target = objectives.flow_path(data, noise, np.full(n, 0.4))
    level = Level(0.6, 0.4, 0.6)
    marginal = -Prediction("x0", world.posterior_mean(x, level), x, level).velocity
    residual = marginal - target
    for k in range(4):
        terms = (residual * (x @ key.fold("change", k).normal((2, 2)))).sum(1)
        assert abs(terms.mean()) < 5 * terms.std() / math.sqrt(n)


# ---- learned variances

def check_steps(module):
    """Nats of bound.py, whose own oracle is mpmath; slopes by the complex step; both kinds of terms in one batch."""
    denoiser, _, x0, level, eps = setting()
    rng = np.random.default_rng(7)
    x_t = q_sample(x0, eps, level)
    x0_hat, (v, w) = x0 + 0.1 * rng.standard_normal(x0.shape), rng.standard_normal((2, *x0.shape))
    small, large = bound.log_variances(denoiser.schedule, level.t)
    log_var = bound.learned_log_variance(rng.uniform(-1, 1, x0.shape), small, large)
    for cdf in ("exact", "tanh"):
        nats, saved = module.step_forward(denoiser.schedule, level.t, x0, x_t, x0_hat, log_var, cdf=cdf)
        want = bound.term_bits(denoiser.schedule, level.t, x0, x_t, x0_hat, log_var, cdf)
        np.testing.assert_allclose(bound.bits(nats), want, rtol=1e-11)
        u = rng.standard_normal(nats.shape)
        moved, _ = module.step_forward(denoiser.schedule, level.t, x0, x_t, x0_hat + 1j * H * v, log_var + 1j * H * w,
                                       cdf=cdf)
        dx0_hat, dlog_var = module.step_backward(saved, u)
        np.testing.assert_allclose((dx0_hat * v + dlog_var * w).sum(), (moved.imag / H * u).sum(), rtol=1e-11)


def test_a_step_of_the_bound_and_its_gradient():
    check_steps(objectives)


def test_losses_stay_where_their_arrays_live():
    """On the stand-in device: the same numbers, as arrays there."""
    denoiser, _, x0, level, eps = setting()
    put = standin.xp.asarray

    def run(there):
        found = [objectives.matching_loss(kind, there(2 * eps), there(x0), there(eps), level, 1.0)[1] for kind in KINDS]
        found += objectives.flow_path(there(x0), there(eps), level.t / T)
        nats, saved = objectives.step_forward(denoiser.schedule, level.t, there(x0), there(eps), there(0.9 * x0),
                                              there(-5 + eps))
        return [*found, nats, *objectives.step_backward(saved, there(eps))]
    for host, there in zip(run(lambda a: a), run(put)):
        np.testing.assert_array_equal(there.get(), host)


def parts(denoiser, theta, x0, level, eps, first="next"):
    """(|eps - eps_hat|^2 per row, L_{t-1} in bits/dim per row), from the definitions and bound.py."""
    x_t = q_sample(x0, eps, level)
    out, _ = denoiser.evaluate(theta, x_t, level)
    F, out_var = out[:, :2], out[:, 2:]
    c_skip, c_out, _, _ = denoiser.precondition(level)
    x0_hat = c_skip[:, None] * x_t + c_out[:, None] * F
    eps_hat = (x_t - level.alpha[:, None] * x0_hat) / level.sigma[:, None]
    small, large = bound.log_variances(denoiser.schedule, level.t, first)
    v = (out_var + 1) / 2
    log_var = v * large[:, None] + (1 - v) * small[:, None]
    return np.mean((eps - eps_hat) ** 2, 1), bound.term_bits(denoiser.schedule, level.t, x0, x_t, x0_hat, log_var)


def check_hybrid(module):
    for prediction in ("eps", "v"):
        denoiser, theta, x0, level, eps = setting(prediction)
        simple, terms = parts(denoiser, theta, x0, level, eps)
        found = module.hybrid_loss(denoiser, theta, x0, level, eps)
        np.testing.assert_allclose(found.simple, simple.mean(), rtol=1e-10)
        np.testing.assert_allclose(found.terms, terms, rtol=1e-10)
        np.testing.assert_allclose(found.loss, simple.mean() + 1e-3 * T * terms.mean(), rtol=1e-10)
        importance = np.linspace(0.2, 2, 9)
        for options, want in ((dict(scale="term"), (simple + 1e-3 * terms).mean()),
                              (dict(lam=1.0, scale="term"), (simple + terms).mean()),
                              (dict(units="nats"), (simple + 1e-3 * T * math.log(2) * terms).mean()),
                              (dict(importance=importance), (importance * (simple + 1e-3 * T * terms)).mean()),
                              (dict(weighting=lambda level: 0 * level.t, lam=1.0), T * terms.mean())):
            found = module.hybrid_loss(denoiser, theta, x0, level, eps, **options)
            np.testing.assert_allclose(found.loss, want, rtol=1e-10)


def test_the_hybrid_loss_is_the_simple_loss_and_a_thousandth_of_the_sum_over_T():
    check_hybrid(objectives)


def check_hybrid_gradient(module):
    """The whole gradient where nothing is stopped; where the mean is, that of a loss whose bound holds F at theta."""
    denoiser, theta, x0, level, eps = setting()
    v = Key(6).normal(theta.flat.shape)
    importance = np.linspace(0.2, 2, 9)

    def whole(th, **options):
        return module.hybrid_loss(denoiser, th, x0, level, eps, lam=0.1, importance=importance, **options).loss

    grad = theta.zeros_like()
    module.hybrid_loss(denoiser, theta, x0, level, eps, lam=0.1, importance=importance, stop_gradient=False, grad=grad,
                       share=0.5)
    np.testing.assert_allclose(grad.flat @ v, 0.5 * slope(whole, theta, v), rtol=1e-6)

    out0, _ = denoiser.evaluate(theta, q_sample(x0, eps, level), level)

    class Stopped:
        """The network whose first half stays what it is at theta."""
        def forward(self, th, x, c_noise, labels=None, masks=None, keep=True):
            out, saved = NET.forward(th, x, c_noise)
            return np.concatenate([out0[:, :2], out[:, 2:]], 1), saved

    held = Denoiser(Stopped(), denoiser.config)

    def stopped(th):
        simple = module.hybrid_loss(denoiser, th, x0, level, eps, lam=0.1, importance=importance).simple
        made = module.hybrid_loss(held, th, x0, level, eps, lam=0.1, importance=importance)
        return simple + made.loss - made.simple

    grad = theta.zeros_like()
    module.hybrid_loss(denoiser, theta, x0, level, eps, lam=0.1, importance=importance, grad=grad)
    np.testing.assert_allclose(grad.flat @ v, slope(stopped, theta, v), rtol=1e-6)
    assert abs(slope(whole, theta, v) / (grad.flat @ v) - 1) > 1e-3             # the two gradients do differ


def test_the_gradient_of_the_hybrid_loss_stops_at_the_mean_and_only_there():
    check_hybrid_gradient(objectives)


def test_of_the_bound_no_gradient_reaches_the_mean():
    """With the simple loss weighted 0, the rows of the last layer that predict have gradient 0, those of v have not."""
    denoiser, theta, x0, level, eps = setting()
    grad = theta.zeros_like()
    objectives.hybrid_loss(denoiser, theta, x0, level, eps, weighting=lambda level: 0 * level.t, grad=grad)
    last = grad[NET.last.w]
    assert not np.any(last[:, :2]) and np.all(last[:, 2:])


def test_weights_of_the_second_term_in_use_differ_by_a_thousand():
    """lam T of the paper is 1 at T = 1000; .001 of one term, which other code has, is a thousandth of it."""
    denoiser, theta, x0, level, eps = setting()
    base, *others = (objectives.hybrid_loss(denoiser, theta, x0, level, eps, lam=lam, scale=scale)
                     for lam, scale in ((1e-3, "sum"), (1e-3, "term"), (1.0, "term")))
    second = [made.loss - made.simple for made in (base, *others)]
    np.testing.assert_allclose(np.array(second) / second[0], [1, 1 / T, 1000 / T], rtol=1e-9)


def test_the_first_log_variance_is_a_choice_with_a_price():
    """log beta-tilde_1 = log 1e-20 makes the decoder of t = 1 too sure of itself: its term grows tenfold and more."""
    denoiser, theta, x0, level, eps = setting()
    two = [objectives.hybrid_loss(denoiser, theta, x0, level, eps, first=first).terms for first in ("next", "tiny")]
    for found, first in zip(two, ("next", "tiny")):
        np.testing.assert_allclose(found, parts(denoiser, theta, x0, level, eps, first)[1], rtol=1e-9)
    clean = level.t == 1
    assert np.all(two[1][clean] > 10 * two[0][clean])
    np.testing.assert_array_equal(two[0][~clean], two[1][~clean])


def test_rows_of_a_batch_share_the_gradient():
    denoiser, theta, x0, level, eps = setting()
    whole, both = theta.zeros_like(), theta.zeros_like()
    objectives.hybrid_loss(denoiser, theta, x0, level, eps, grad=whole)
    for rows in (slice(0, 4), slice(4, 9)):
        share = (rows.stop - rows.start) / 9
        objectives.hybrid_loss(denoiser, theta, x0[rows], level.rows(rows), eps[rows], grad=both, share=share)
    np.testing.assert_allclose(both.flat, whole.flat, rtol=1e-10, atol=1e-12)


def test_importance_sampled_times_estimate_the_same_bound():
    """The weighted mean over t from SecondMoment is the uniform mean over t; a network of images, in float32."""
    network = UNet(UNetConfig(image_size=4, in_channels=1, out_channels=2, channels=4, multipliers=(1,), blocks=1,
                              attention=(), groups=2, dropout=0.0))
    denoiser = Denoiser(network, DenoiserConfig(prediction="eps", process="linear", T=6))
    theta = network.layout.init(Key(0), np.float32)
    x0 = (Key(1).integers(0, 256, (1, 4, 4, 1)) / 127.5 - 1).astype(np.float32)

    def terms(t, key):
        level = denoiser.schedule.level(t)
        n = len(t)
        eps = key.normal((n, 4, 4, 1), np.float32)
        return objectives.hybrid_loss(denoiser, theta, np.repeat(x0, n, 0), level, eps).terms

    sampler = SecondMoment(6)
    t = np.repeat(np.arange(1, 7), 40)
    uniform = terms(t, Key(2))
    sampler.update(t, uniform)
    drawn, weight = sampler.draw(Key(3), 240)
    weighted = weight * terms(drawn, Key(4))
    error = math.hypot(uniform.reshape(6, 40).std(1).mean() / math.sqrt(240), weighted.std() / math.sqrt(240))
    assert abs(weighted.mean() - uniform.mean()) < 5 * error
    assert weighted.std() < uniform.std() / 2 and uniform.dtype == np.float32


def test_a_bound_learned_denoiser_has_the_terms_that_training_saw():
    denoiser, theta, x0, _, _ = setting()
    denoise, log_variance = objectives.bind_learned(denoiser, theta)
    found = bound.variational_bound(denoise, denoiser.schedule, x0, lambda t: Key(9).fold(t).normal(x0.shape),
                                    log_variance)
    for t in range(1, T + 1):
        level = denoiser.schedule.level(np.full(len(x0), t))
        want = objectives.hybrid_loss(denoiser, theta, x0, level, Key(9).fold(t).normal(x0.shape)).terms
        np.testing.assert_allclose(found.terms[t - 1], want, rtol=1e-9)


def test_a_short_training_lowers_the_bound_and_learns_the_variance():
    """Plain gradient descent on L_vlb of one Gaussian: the bound falls, and v leaves its initialisation."""
    denoiser, theta, _, level, _ = setting()
    x0 = np.round((0.2 + 0.1 * Key(1).normal((9, 2))) * 127.5) / 127.5
    losses = []
    for step in range(150):
        grad = theta.zeros_like()
        eps = Key(2).fold(step % 10).normal(x0.shape)
        losses.append(objectives.hybrid_loss(denoiser, theta, x0, level, eps, lam=0.01, grad=grad).loss)
        theta.flat -= 0.05 * grad.flat / max(1, np.linalg.norm(grad.flat))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


@pytest.mark.parametrize("change, message", [
    (dict(scale="mean"), "scale is 'mean', wanted one of sum, term"), (dict(units="nat"), "units is 'nat'"),
    (dict(first="zero"), "first is 'zero'"), (dict(cdf="erf"), "cdf is 'erf'"),
    (dict(x0=np.full((9, 2), 1.1)), "leaves"),
    (dict(x0=np.full((9, 2), np.nan)), "leaves"), (dict(denoiser=setting(network=POINTS)[0]), "twice the channels"),
    (dict(denoiser=Denoiser(NET, DenoiserConfig())), "no discrete steps")])
def test_impossible_hybrid_losses_are_refused_by_name(change, message):
    denoiser, theta, x0, level, eps = setting()
    arguments = dict(denoiser=denoiser, theta=theta, x0=x0, level=level, eps=eps) | change
    if arguments["denoiser"].network is POINTS:
        arguments["theta"] = setting(network=POINTS)[1]
    with pytest.raises(ValueError, match=message):
        objectives.hybrid_loss(**arguments)


@pytest.mark.parametrize("make, message", [
    (lambda a: objectives.matching_loss("noise", a, a, a, Level(0.5, 0.5, 0.5), 1.0), "kind is 'noise'"),
    (lambda a: objectives.matching_loss("score", a, a, a, Level(0.0, 1.0, 0.0), 1.0), "sigma = 0"),
    (lambda a: objectives.flow_path(a, a, np.array([0.5, 1.5])), "t runs from 0.5 to 1.5"),
    (lambda a: objectives.flow_path(a, a, np.array([0.5, np.nan])), "t runs from"),
    (lambda a: objectives.flow_path(a, a, np.array([0.5, 0.5]), "forwards"), "direction is 'forwards'"),
    (lambda a: objectives.flow_path(a, a, np.array([0.5, 0.5]), sigma_min=1.0), "sigma_min is 1.0")])
def test_impossible_arguments_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make(np.ones((2, 3)))


def test_a_row_is_not_spoilt_by_the_term_that_it_does_not_have():
    """A wild x0_hat at t = 1 is certain of its open bin: 0 nats and no slope, though the divergence is infinite."""
    schedule, t = linear(20), np.array([1, 1, 2])
    x0 = np.array([[1.0, -1.0], [1.0, 1.0], [0.2, 0.6]])
    x0_hat = np.array([[1e180, -1e180], [1e200, 1e155], [0.1, 0.5]])
    with np.errstate(all="ignore"):
        nats, saved = objectives.step_forward(schedule, t, x0, x0, x0_hat, np.full_like(x0, -4.0))
        slopes = objectives.step_backward(saved, np.random.default_rng(0).standard_normal(x0.shape))
    for found in (nats, *slopes):
        np.testing.assert_array_equal(found[:2], 0)
        assert np.all(np.isfinite(found[2])) and np.all(found[2] != 0)


# ---- planted mutants

MUTANTS = [
    (check_matching, "level.alpha, x0) * eps - ", "level.alpha, x0) * eps + "),
    (check_matching, "expand(level.sigma, x0) * x0", "expand(level.alpha, x0) * x0"),
    (check_matching, "-eps / expand", "eps / expand"),
    (check_matching, "eps - x0,", "x0 - eps,"),
    (check_matching, "x0 - eps}", "eps - x0}"),
    (check_matching, "mse.backward(saved, 1.0)", "mse.backward(saved, 2.0)"),
    (check_flow, 'share = t if direction == "to_data"', 'share = t if direction == "to_noise"'),
    (check_flow, "expand(1 - (1 - sigma_min) * share", "expand(1 - share"),
    (check_flow, "velocity = data - (1 - sigma_min) * noise", "velocity = data - noise"),
    (check_flow, "else -velocity", "else velocity"),
    (check_flow_loss, "time_scale * t", "1000.0 * t"), (check_flow_loss, "weight, data)", "1.0, data)"),
    (check_flow_loss, "mse.backward(s_loss, share)", "mse.backward(s_loss, 1)"),
    (check_steps, "schedule.level(t - 1), schedule", "schedule.level(t // 2), schedule"),
    (check_steps, "where(clean, nll, kl)", "where(clean, kl, kl)"),
    (check_steps, "where(clean, nll, kl)", "where(clean, nll, nll)"),
    (check_steps, "where(clean, b, a)", "where(clean, a, a)"),
    (check_steps, "where(clean, b, a)", "where(clean, b, b)"),
    (check_steps, "c_x0 * dmean", "dmean"),
    (check_steps, "cdf=cdf, levels=levels", "levels=levels"),
    (check_hybrid, "lam=1e-3", "lam=1e-2"), (check_hybrid, '"sum": lambda T: T', '"sum": lambda T: T - 1'),
    (check_hybrid, '"bits": 1 / math.log(2)', '"bits": 1.0'),
    (check_hybrid, "importance * denoiser.weight", "denoiser.weight"), (check_hybrid, "importance * (lam", "(lam"),
    (check_hybrid, "c_skip * x_t + c_out * F,", "c_skip * x_t + F,"),
    (check_hybrid, "learned_log_variance(out_var, small, large)", "learned_log_variance(out_var, large, small)"),
    (check_hybrid, "out[..., :x.shape[-1]], out", "out[..., x.shape[-1]:], out"),
    (check_hybrid_gradient, "if not stop_gradient", "if True"),
    (check_hybrid_gradient, "if not stop_gradient", "if False"),
    (check_hybrid_gradient, "dF + c_out * dx0_hat", "dF + dx0_hat"),
    (check_hybrid_gradient, "(large - small) / 2, x0) * dlog_var", "(large - small), x0) * dlog_var"),
    (check_hybrid_gradient, "step_backward(s_step, share * w_vlb)", "step_backward(s_step, w_vlb)"),
    (check_hybrid_gradient, "mse.backward(s_mse, share)", "mse.backward(s_mse, 1.0)"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=[f"{m[0].__name__}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, old, new):
    made = mutant("objectives", (old, new))
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check(made)
