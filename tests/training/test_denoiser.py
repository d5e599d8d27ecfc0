"""Denoisers: every prediction on every family, the loss as the papers write it, and the exact network recovered."""
import numpy as np
import pytest
from scipy.special import ndtr

from refdiff.denoiser import Denoiser, DenoiserConfig, restore
from refdiff.losses import denoising_loss
from refdiff.models import MLP, MLPConfig
from refdiff.objectives import flow_matching_loss
from refdiff.process import exact
from refdiff.process.gaussian import q_sample
from refdiff.process.level import Level, expand, ve
from refdiff.process.schedules import SCHEDULES
from refdiff.process.times import LogitNormal
from refdiff.rng import Key

NET = MLP(MLPConfig(width=16, depth=2, embedding=8))
CASES = [("F", "edm"), ("F", "linear"), ("eps", "linear"), ("x0", "cosine"), ("v", "scaled_linear"),
         ("velocity", "flow"), ("velocity", "edm"), ("velocity", "linear"), ("F", "flow")]


def setting(prediction, process, n=6):
    key = Key(5)
    denoiser = Denoiser(NET, DenoiserConfig(prediction=prediction, process=process, sigma_data=0.7))
    theta = NET.layout.init(key.fold("theta"), np.float64)
    theta.flat += 0.1 * key.fold("away").normal(theta.flat.shape)
    level = denoiser.draw_levels(key.fold("level"), n)
    return denoiser, theta, key.fold("x0").normal((n, 2)), level, key.fold("eps").normal((n, 2))


@pytest.mark.parametrize("prediction, process", CASES)
def test_the_simple_loss_is_the_error_of_the_noise(prediction, process):
    """|eps - eps_hat|^2, with eps_hat from D by x = alpha D + sigma eps_hat, whatever the network predicts."""
    denoiser, theta, x0, level, eps = setting(prediction, process)
    x = q_sample(x0, eps, level)
    D, _ = denoiser.forward(theta, x, level)
    eps_hat = (x - level.alpha[:, None] * D) / level.sigma[:, None]
    loss = denoising_loss(denoiser, theta, x0, level, eps, weighting="simple")
    assert loss == pytest.approx(np.mean((eps_hat - eps) ** 2), rel=1e-11)


@pytest.mark.parametrize("prediction, process", CASES)
def test_the_edm_loss_is_lambda_times_the_error_of_the_denoised_image(prediction, process):
    denoiser, theta, x0, level, eps = setting(prediction, process)
    s = level.sigma / level.alpha
    D, _ = denoiser.forward(theta, q_sample(x0, eps, level), level)
    weight = (s ** 2 + 0.7 ** 2) / (s * 0.7) ** 2
    loss = denoising_loss(denoiser, theta, x0, level, eps, weighting="edm")
    assert loss == pytest.approx(np.mean(weight[:, None] * (D - x0) ** 2), rel=1e-11)


@pytest.mark.parametrize("process", ["flow", "edm", "linear"])
def test_the_velocitys_loss_of_weight_one_is_that_of_flow_matching(process):
    denoiser, theta, x0, level, eps = setting("velocity", process)
    t, grad, wanted = level.sigma / (level.alpha + level.sigma), theta.zeros_like(), theta.zeros_like()
    loss = denoising_loss(denoiser, theta, x0, level, eps, weighting="flow", grad=grad)
    assert loss == pytest.approx(flow_matching_loss(NET, theta, x0, eps, t, direction="to_noise", grad=wanted), 1e-11)
    np.testing.assert_allclose(grad.flat, wanted.flat, rtol=0, atol=1e-11 * np.abs(wanted.flat).max())


@pytest.mark.parametrize("prediction, process", CASES)
@pytest.mark.parametrize("weighting", ["simple", "edm"])
def test_the_gradient_of_the_loss_is_a_central_difference(prediction, process, weighting):
    """The loss is a float, so a central difference judges: error h^2 = 1e-10, rounding 1e-16/h = 1e-11."""
    denoiser, theta, x0, level, eps = setting(prediction, process)
    grad = theta.zeros_like()
    denoising_loss(denoiser, theta, x0, level, eps, weighting=weighting, grad=grad)
    v, h = Key(6).normal(theta.flat.shape), 1e-5
    up, down = (denoising_loss(denoiser, theta.with_flat(theta.flat + s * v), x0, level, eps, weighting=weighting)
                for s in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(grad.flat @ v, rel=1e-5)


@pytest.mark.parametrize("prediction, process", CASES)
def test_the_backward_of_a_denoiser_is_the_transpose_of_its_derivative(prediction, process):
    denoiser, theta, x0, level, eps = setting(prediction, process)
    x, key, h = q_sample(x0, eps, level), Key(7), 1e-30
    D, saved = denoiser.forward(theta, x, level)
    dD, grad = key.fold("dD").normal(D.shape), theta.zeros_like()
    dx = denoiser.backward(saved, dD, grad)
    v, vx = key.fold("v").normal(theta.flat.shape), key.fold("vx").normal(x.shape)
    # c_in x stays complex in the network; the level's coefficients are numbers
    c_skip, c_out, c_in, c_noise = denoiser.precondition(level)
    inputs = (expand(c_in, x) * (x + 1j * h * vx), c_noise.astype(complex))
    F, _ = NET.forward(theta.with_flat(theta.flat + 1j * h * v), *inputs)
    Ddot = expand(c_skip, x) * vx + expand(c_out, x) * F.imag / h
    assert np.sum(Ddot * dD) == pytest.approx(grad.flat @ v + np.sum(dx * vx), rel=1e-11)


@pytest.mark.parametrize("prediction, process", CASES)
def test_a_denoiser_sees_the_same_point_in_every_family(prediction, process):
    """x/alpha at noise level sigma/alpha is all that matters: (a x, a alpha, a sigma) has the same D."""
    denoiser, theta, x0, level, eps = setting(prediction, process)
    x = q_sample(x0, eps, level)
    D, _ = denoiser.forward(theta, x, level)
    for a in (0.3, 5.0):
        moved = Level(level.t, a * level.alpha, a * level.sigma)
        np.testing.assert_allclose(denoiser.forward(theta, a * x, moved)[0], D, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", sorted(SCHEDULES))
def test_the_time_told_to_the_network_is_the_schedules_own(process):
    denoiser = Denoiser(NET, DenoiserConfig(prediction="eps", process=process))
    t = np.arange(1, 1001)
    _, _, c_in, c_noise = denoiser.precondition(denoiser.schedule.level(t))
    np.testing.assert_allclose(c_noise, t, rtol=0, atol=1e-9)
    np.testing.assert_allclose(c_in, 1, rtol=1e-14)


def test_a_level_outside_the_schedule_is_refused():
    denoiser = Denoiser(NET, DenoiserConfig(prediction="eps", process="linear"))
    theta = NET.layout.init(Key(0), np.float64)
    for sigma in (0.009, 158.0):
        with pytest.raises(ValueError, match="trained on sigma/alpha from 0.0100005 to 157.407"):
            denoiser.forward(theta, np.zeros((1, 2)), ve(sigma))


@pytest.mark.parametrize("prediction, process", CASES)
def test_a_bound_denoiser_is_the_same_in_any_number_of_parts(prediction, process):
    denoiser, theta, x0, _, eps = setting(prediction, process, n=7)
    level = ve(1.5)
    whole = denoiser.forward(theta, x0 + 1.5 * eps, level)[0]
    for rows in (1, 3, 7, 100):
        found = denoiser.bind(theta, rows=rows)(x0 + 1.5 * eps, level).x0
        np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-13)


def test_a_bound_denoiser_runs_in_thetas_dtype_and_answers_in_xs():
    denoiser, theta, x0, _, _ = setting("F", "edm")
    found = denoiser.bind(theta.astype(np.float32))(x0, ve(1.0)).x0
    wanted = denoiser.bind(theta)(x0, ve(1.0)).x0
    assert found.dtype == np.float64
    assert 0 < np.abs(found - wanted).max() < 1e-5


def test_the_minimiser_of_the_loss_is_the_posterior_mean():
    """At the exact D of Gaussian data no random change of D lowers the loss, in expectation over 200,000 draws."""
    world = exact.Gaussian(np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.4]]))
    key, n = Key(8), 200_000
    x0 = world.sample(key.fold("x0"), n)
    level = Level(np.zeros(n), np.full(n, 0.8), np.full(n, 0.6))
    x = q_sample(x0, key.fold("eps").normal((n, 2)), level)
    D = world.posterior_mean(x, level)
    best = np.mean((D - x0) ** 2)
    for k in range(5):
        change = 0.1 * x @ key.fold("change", k).normal((2, 2)) + 0.1 * key.fold("shift", k).normal(2)
        assert np.mean((D + change - x0) ** 2) > best


def test_the_levels_of_training_have_the_laws_they_are_named_for():
    """ln sigma ~ N(P_mean, P_std^2), its distribution function within 1.95/sqrt(n) (Kolmogorov, once in a thousand);
    that of flow's t too; t uniform in 1..T, every count within five standard deviations.
    """
    n = 20_000
    drawn = Denoiser(NET, DenoiserConfig(P_mean=-0.8, P_std=1.3)).draw_levels(Key(9), n)
    z = np.sort((np.log(drawn.sigma) + 0.8) / 1.3)
    assert np.all(drawn.alpha == 1) and np.abs(ndtr(z) - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)
    drawn = Denoiser(NET, DenoiserConfig(process="flow")).draw_levels(Key(9), n)
    assert np.abs(np.sort(drawn.t) - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)
    assert np.all(drawn.sigma == drawn.t) and np.all(drawn.alpha == 1 - drawn.t)
    for process in sorted(SCHEDULES):
        denoiser = Denoiser(NET, DenoiserConfig(prediction="v", process=process, T=7))
        level = denoiser.draw_levels(Key(9), n)
        counts = np.bincount(level.t, minlength=8)
        assert counts[0] == 0 and len(counts) == 8
        assert np.all(np.abs(counts[1:] - n / 7) < 5 * np.sqrt(n * 6 / 49))
        np.testing.assert_array_equal(level.sigma, denoiser.schedule.sigma[level.t])


def test_process_edm_has_the_logit_normal_times_of_the_straight_path():
    sigma = Denoiser(NET, DenoiserConfig(P_mean=-0.4, P_std=1.1)).draw_levels(Key(9), 500).sigma
    z = Key(9).normal(500)
    np.testing.assert_allclose(sigma / (1 + sigma), LogitNormal(-0.4, 1.1).quantile(ndtr(z)), rtol=1e-12)


def test_an_unknown_network_is_refused_by_name():
    with pytest.raises(ValueError, match="name is 'vit', wanted one of unet"):
        restore({"network": {"name": "vit"}, "denoiser": {}})


@pytest.mark.parametrize("process", ["edm", "flow"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_predictions_that_need_a_time_are_refused_without_a_schedule(prediction, process):
    with pytest.raises(ValueError, match=f"{process}' has none; .* prediction 'F' or 'velocity'"):
        DenoiserConfig(prediction=prediction, process=process)
