"""Consistency distillation: the boundary, the loss, and the exact flow map on a world where it is known."""
from dataclasses import replace

import numpy as np
import pytest
from mpmath import mp, mpf
from ring import SIGMA_DATA, WORLD, distil_ring, exact_teacher, rmse

from refdiff import samplers
from refdiff.checkpoint import load_checkpoint
from refdiff.data import digits
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.distill.consistency import (TRAINING, Consistency, ConsistencyConfig, ConsistencyObjective, Jumps,
                                         boundary, distil, heun_step, levels, network_teacher, step_probabilities)
from refdiff.fit import TrainConfig, fit, start
from refdiff.losses import denoising_loss
from refdiff.models import MLP, MLPConfig, UNet, UNetConfig
from refdiff.parallel import may_fork
from refdiff.process.level import ve
from refdiff.rng import Key
from refdiff.train import train

LEVELS = ConsistencyConfig(sigma_min=0.02, sigma_max=20.0, rho=7.0)
NET = MLP(MLPConfig(width=16, depth=2, embedding=8))
CASES = [("F", "edm"), ("eps", "linear"), ("v", "cosine")]


def consistency(prediction="F", process="edm", sigma_min=0.02):
    denoiser = Denoiser(NET, DenoiserConfig(prediction=prediction, process=process, sigma_data=0.7))
    theta = NET.layout.init(Key(1), np.float64)
    theta.flat += 0.3 * Key(2).normal(theta.flat.shape)
    return Consistency(denoiser, sigma_min), theta


def test_the_boundary_coefficients_are_the_papers():
    """50 digits of c_skip and c_out, as the appendix prints them; at sigma_min they are 1 and 0 without rounding."""
    mp.dps = 50
    for sigma in (0.02, 0.0200001, 0.5, 20.0):
        e, s, t = mpf(0.02), mpf(0.7), mpf(sigma)
        wanted = s ** 2 / ((t - e) ** 2 + s ** 2), s * (t - e) / mp.sqrt(s ** 2 + t ** 2)
        assert boundary(sigma, 0.02, 0.7) == pytest.approx([float(w) for w in wanted], rel=1e-14)
    assert boundary(0.02, 0.02, 0.7) == (1.0, 0.0)


@pytest.mark.parametrize("prediction, process", CASES)
def test_the_boundary_holds_to_the_last_bit(prediction, process):
    f, theta = consistency(prediction, process)
    x = Key(3).normal((5, 2))
    np.testing.assert_array_equal(f.forward(theta, x, np.full(5, 0.02))[0], x)
    np.testing.assert_array_equal(f.bind(theta)(x, 0.02), x)


def test_for_edms_network_f_is_c_skip_x_plus_c_out_F():
    f, theta = consistency()
    sigma, x = np.array([0.02, 0.03, 0.5, 3.0, 20.0]), Key(3).normal((5, 2))
    F, _ = f.denoiser.evaluate(theta, x, ve(sigma))
    c_skip, c_out = boundary(sigma[:, None], 0.02, 0.7)
    np.testing.assert_allclose(f.forward(theta, x, sigma)[0], c_skip * x + c_out * F, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("prediction, process", CASES)
def test_the_backward_of_a_consistency_function_is_its_derivative(prediction, process):
    """A central difference along random directions of theta and x: error h^2 = 1e-10 and rounding 1e-16/h = 1e-11."""
    f, theta = consistency(prediction, process)
    sigma, x, key, h = np.array([0.02, 0.1, 1.0, 15.0]), Key(4).normal((4, 2)), Key(5), 1e-5
    y, saved = f.forward(theta, x, sigma)
    dy, grad = key.fold("dy").normal(y.shape), theta.zeros_like()
    dx = f.backward(saved, dy, grad)
    v, vx = key.fold("v").normal(theta.flat.shape), key.fold("vx").normal(x.shape)
    up, down = (np.sum(dy * f.forward(theta.with_flat(theta.flat + s * v), x + s * vx, sigma)[0]) for s in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(grad.flat @ v + np.sum(dx * vx), rel=1e-6)


def test_the_heun_step_is_the_heun_samplers_step():
    """One rule written twice: per-row levels here, a grid's numbers there."""
    grid = samplers_grid(3.0, 1.0)
    x = 3 * Key(6).normal((7, 2))
    wanted = samplers.run(samplers.SAMPLERS["heun"](WORLD, grid, x))
    found = heun_step(lambda x, s: WORLD.posterior_mean(x, ve(s)), x, np.full(7, 3.0), np.full(7, 1.0))
    np.testing.assert_allclose(found, wanted, rtol=1e-13)


def samplers_grid(*sigmas):
    from refdiff.process.grids import Grid
    sigma = np.array(sigmas)
    return Grid(sigma, np.ones_like(sigma), sigma, "by hand")


def test_the_number_of_levels_doubles_in_equal_parts():
    config = LEVELS
    counts = [len(levels(step, 900, config)) for step in range(900)]
    np.testing.assert_array_equal(counts, np.repeat([8, 16, 32, 64], 225))
    first = levels(0, 900, config)
    assert np.all(np.diff(first) > 0) and (first[0], first[-1]) == (0.02, 20.0)


def test_the_last_number_of_levels_is_reached_where_doubling_does_not_meet_it():
    config = replace(LEVELS, levels_first=8, levels_last=60)
    assert sorted({len(levels(step, 400, config)) for step in range(400)}) == [8, 16, 32, 60]


def test_the_step_probabilities_are_the_masses_of_the_normal_law():
    mp.dps = 30
    sigmas = levels(0, 1, LEVELS)
    mass = [mp.ncdf((mp.log(mpf(float(b))) - mpf("0.3")) / mpf("1.8")) - mp.ncdf((mp.log(mpf(float(a))) - mpf("0.3"))
            / mpf("1.8")) for a, b in zip(sigmas, sigmas[1:])]
    wanted = [float(m / sum(mass)) for m in mass]
    np.testing.assert_allclose(step_probabilities(sigmas, 0.3, 1.8), wanted, rtol=1e-11)


def objective(config, batch=64, net=NET):
    class Points:
        def draw(self, key, step):
            return WORLD.sample(key.fold("x", step), batch), None
    denoiser = Denoiser(net, DenoiserConfig(sigma_data=SIGMA_DATA))
    return ConsistencyObjective(Consistency(denoiser, config.sigma_min), exact_teacher, Points(), config,
                                TrainConfig(steps=100, batch=batch))


@pytest.mark.parametrize("distance", ["pseudo_huber", "l2"])
def test_the_loss_is_the_papers(distance):
    """Written out again from the definition, row by row."""
    config = replace(LEVELS, distance=distance)
    it = objective(config)
    thetas = {name: NET.layout.init(Key(i), np.float64) for i, name in enumerate(("theta", "target"))}
    for i, theta in enumerate(thetas.values()):
        theta.flat += 0.2 * Key(i).fold("away").normal(theta.flat.shape)
    batch, rows = it.draw(3), slice(0, 64)
    total = 0.0
    f = [it.consistency.bind(thetas[name]) for name in ("theta", "target")]
    for x0, eps, s, s_next in zip(batch.x0, batch.eps, batch.sigma, batch.sigma_next):
        x = (x0 + s * eps)[None]
        d = (x - WORLD.posterior_mean(x, ve(s))) / s
        y = x + (s_next - s) * d
        x_hat = x + (s_next - s) * (d + (y - WORLD.posterior_mean(y, ve(s_next))) / s_next) / 2
        r = f[0](x, s) - f[1](x_hat, s_next)
        c = 0.03 * np.sqrt(2)
        total += (np.sqrt(np.sum(r * r) + c * c) - c if distance == "pseudo_huber" else np.mean(r * r)) / (s - s_next)
    assert it.loss(thetas, batch, rows, thetas["theta"].zeros_like(), 1.0) == pytest.approx(total / 64, rel=1e-10)


@pytest.mark.parametrize("distance", ["pseudo_huber", "l2"])
def test_no_gradient_flows_through_the_target(distance):
    it = objective(replace(LEVELS, distance=distance))
    thetas = {name: NET.layout.init(Key(i), np.float64) for i, name in enumerate(("theta", "target"))}
    thetas["theta"].flat += 0.1 * Key(9).normal(thetas["theta"].flat.shape)
    batch, grad, h = it.draw(0), thetas["theta"].zeros_like(), 1e-6
    it.loss(thetas, batch, slice(0, 64), grad, 1.0)
    v = Key(10).normal(grad.flat.shape)
    up, down = (it.loss({**thetas, "theta": thetas["theta"].with_flat(thetas["theta"].flat + s * v)}, batch,
                        slice(0, 64), grad.zeros_like(), 1.0) for s in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(grad.flat @ v, rel=1e-5)


@pytest.mark.parametrize("distance", ["pseudo_huber", "l2"])
def test_student_teacher_and_target_see_the_labels_each_with_its_own_theta(distance):
    """The loss again for a conditional network: other labels, or another theta, in any of the three would show."""
    unet = UNet(UNetConfig(image_size=4, in_channels=1, out_channels=1, channels=4, multipliers=(1,), blocks=1,
                           attention=(), groups=2, classes=3, dropout=0.0, zero_init=False))
    denoiser, n = Denoiser(unet, DenoiserConfig(sigma_data=0.7)), 5
    it = ConsistencyObjective(Consistency(denoiser, 0.02), network_teacher(denoiser), None,
                              replace(LEVELS, distance=distance), TrainConfig(batch=n))
    key = Key(40)
    thetas = {name: unet.layout.init(key.fold(name), np.float64) for name in ("theta", "target", "teacher")}
    for name, theta in thetas.items():
        theta.flat += 0.3 * key.fold(name, "away").normal(theta.flat.shape)
    x0, eps = key.fold("x0").normal((n, 4, 4, 1)), key.fold("eps").normal((n, 4, 4, 1))
    sigma, below, labels = np.array([20.0, 3.0, 1.0, 0.3, 0.1]), np.array([15.0, 2.0, 0.8, 0.2, 0.02]), np.arange(n) % 4

    def wanted(student, teacher, target):
        x = x0 + sigma[:, None, None, None] * eps
        x_hat = heun_step(lambda x, s: denoiser.forward(thetas["teacher"], x, ve(s), teacher)[0], x, sigma, below)
        r = (it.consistency.forward(thetas["theta"], x, sigma, student)[0]
             - it.consistency.forward(thetas["target"], x_hat, below, target)[0]).reshape(n, -1)
        c = 0.03 * 4
        d = np.mean(r * r, 1) if distance == "l2" else np.sqrt(np.sum(r * r, 1) + c * c) - c
        return np.mean(d / (sigma - below))
    loss = it.loss(thetas, Jumps(x0, eps, sigma, below, labels), slice(0, n), thetas["theta"].zeros_like(), 1.0)
    assert loss == pytest.approx(wanted(labels, labels, labels), rel=1e-10)
    for others in ((None, labels, labels), (labels, None, labels), (labels, labels, None)):
        assert abs(wanted(*others) / loss - 1) > 1e-6


def test_only_what_a_backward_follows_is_kept():
    """The network is asked to keep nothing by the teacher, the target and samplers; but by losses and derivatives."""
    denoiser, asked = Denoiser(NET, DenoiserConfig(sigma_data=0.7)), []

    class Watched:
        layout, config = NET.layout, NET.config

        def forward(self, theta, x, c_noise, labels=None, masks=None, keep=True):
            asked.append(keep)
            return NET.forward(theta, x, c_noise, labels, masks)

        def backward(self, saved, dF, grad, keep=True):
            return NET.backward(saved, dF, grad)

    denoiser.network = Watched()
    theta, x = NET.layout.init(Key(1), np.float64), Key(2).normal((3, 2))
    function = Consistency(denoiser, 0.02)
    it = ConsistencyObjective(function, network_teacher(denoiser), None, LEVELS, TrainConfig(batch=3))
    jumps = Jumps(x, x, np.full(3, 2.0), np.full(3, 1.0), None)
    it.loss(dict.fromkeys(("theta", "target", "teacher"), theta), jumps, slice(0, 3), theta.zeros_like(), 1.0)
    assert asked == [False, False, False, True]                                 # Heun's two, the target, the student
    asked.clear()
    denoiser.bind(theta)(x, ve(2.0))
    function.bind(theta)(x, 2.0)
    assert asked == [False, False]
    denoising_loss(denoiser, theta, x, ve(np.full(3, 2.0)), x, grad=theta.zeros_like())
    denoiser.linearise(theta, by="vjp")(x, ve(2.0))
    assert asked[2:] == [True, True]


def test_the_steps_drawn_are_neighbours_with_the_probabilities_of_the_normal_law():
    it = objective(replace(LEVELS, P_mean=0.3), batch=20_000)
    batch, sigmas = it.draw(0), levels(0, 100, LEVELS)
    n = np.searchsorted(sigmas, batch.sigma_next)
    np.testing.assert_array_equal(sigmas[n], batch.sigma_next)
    np.testing.assert_array_equal(sigmas[n + 1], batch.sigma)
    mass = np.diff([float(mp.ncdf((mp.log(mpf(float(s))) - mpf("0.3")) / mpf("1.8"))) for s in sigmas])
    p = mass / mass.sum()
    assert np.all(np.abs(np.bincount(n, minlength=7) / n.size - p) < 5 * np.sqrt(p * (1 - p) / n.size))


def test_every_step_draws_its_own_numbers_again_when_asked():
    it = objective(LEVELS)
    first, again, other = it.draw(3), it.draw(3), it.draw(4)
    for name in ("x0", "eps", "sigma"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name)), name
    z = np.stack([first.eps, other.eps]).reshape(2, -1)
    assert abs(np.corrcoef(z)[0, 1]) < 5 / np.sqrt(z.shape[1])


@pytest.mark.parametrize("threads, kind", [(1, "threads"), (2, "threads"), pytest.param(
    2, "processes", marks=pytest.mark.skipif(not may_fork(), reason="no processes here"))])
def test_what_a_run_begins_with_is_not_changed_and_only_what_it_changes_is_copied(threads, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("REFDIFF_PARALLEL", kind)
    it, met = objective(LEVELS, batch=8), {}
    theta = NET.layout.init(Key(0), np.float64)
    before = theta.flat.copy()
    begun = start(it.denoiser, theta, ("ema", "target"), "distillation", {}, 0, teacher=theta.flat.copy())
    real = it.loss

    def loss(thetas, *rest):
        met.update(thetas)
        return real(thetas, *rest)
    it.loss = loss
    end = fit(it, begun, replace(it.training, steps=2, threads=threads), tmp_path / "c.h5", progress=False)
    assert not np.array_equal(end.vectors["theta"], before) and begun.step == 0
    np.testing.assert_array_equal(theta.flat, before, err_msg="the caller's theta")
    for name, vector in begun.vectors.items():
        np.testing.assert_array_equal(vector, 0 if name in ("m", "v") else before, err_msg=name)
    assert np.shares_memory(met["teacher"].flat, begun.vectors["teacher"]) == (kind == "threads")


def test_the_target_and_the_average_follow_theta_at_their_own_decays(tmp_path):
    """theta^- <- mu theta^- + (1 - mu) theta after every update, mu = min(decay, (1 + n)/(10 + n)), replayed."""
    it, seen = objective(LEVELS, batch=8), []
    it = ConsistencyObjective(it.consistency, exact_teacher, it.images, replace(LEVELS, target_ema=0.3),
                              TrainConfig(steps=14, batch=8, lr=1e-2, warmup=0, ema=0.5, threads=1))
    real = it.loss

    def loss(thetas, *rest):
        seen.append({name: thetas[name].flat.copy() for name in ("theta", "target", "ema")})
        return real(thetas, *rest)
    it.loss = loss
    theta = NET.layout.init(Key(0), np.float64)
    end = fit(it, start(it.denoiser, theta, ("ema", "target"), "distillation", {}, 0), it.training,
              tmp_path / "c.h5", progress=False)
    seen.append({name: end.vectors[name] for name in ("theta", "target", "ema")})
    assert len(seen) == 15
    for name, decay in (("target", 0.3), ("ema", 0.5)):
        average = seen[0]["theta"]
        for n, after in enumerate(seen[1:]):
            mu = min(decay, (1 + n) / (10 + n))
            average = mu * average + (1 - mu) * after["theta"]
            np.testing.assert_allclose(after[name], average, rtol=1e-12, atol=1e-15)
    assert np.abs(seen[-1]["target"] - seen[-1]["ema"]).max() > 1e-4


def test_the_exact_consistency_function_has_a_loss_that_only_the_teachers_error_leaves():
    """With f the exact flow map, f(x', s') - f(x_hat, s) is Heun's local error: O(h^3), 8x less per halving."""
    x0, eps = WORLD.sample(Key(20), 200), Key(21).normal((200, 2))
    errors = []
    for s_next in (1.6, 1.8, 1.9):
        x = x0 + 2.0 * eps
        x_hat = heun_step(lambda x, s: WORLD.posterior_mean(x, ve(s)), x, np.full(200, 2.0), np.full(200, s_next))
        gap = WORLD.flow(x, ve(2.0), ve(0.02)) - WORLD.flow(x_hat, ve(s_next), ve(0.02))
        errors.append(np.median(np.linalg.norm(gap, axis=1)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 2.6)


def test_the_distilled_map_approaches_the_exact_flow_map(tmp_path):
    """The ring: under .15 after 1000 steps of a small MLP, and falling."""
    error = {steps: rmse(distil_ring(tmp_path / f"{steps}.h5", steps)[0]) for steps in (250, 1000)}
    assert error[1000] < 0.15
    assert error[1000] < 0.7 * error[250]


def test_more_steps_come_closer_to_the_data(tmp_path):
    """Noise between the steps is new: with the initial noise used again, two steps would be worse than one."""
    f, _ = distil_ring(tmp_path / "ring.h5", 400)
    z = Key(30).normal((4000, 2))

    def off_ring(sigmas):
        x = samplers.run(samplers.SAMPLERS["consistency"](f, sigmas, sigmas[0] * z, 0.02,
                                                          samplers.noise_from(Key(31), z)))
        return np.mean((np.linalg.norm(x, axis=1) - 1) ** 2)
    one, two, four = off_ring((10.0,)), off_ring((10.0, 0.8)), off_ring((10.0, 2.5, 0.8, 0.3))
    assert two < one and four < one


def test_a_trained_network_is_distilled_and_resumed_to_the_same_bits(tmp_path, monkeypatch):
    from refdiff import fit as loop
    net = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, dropout=0.0)
    train(digits(), net, DenoiserConfig(), TrainConfig(steps=3, batch=16, warmup=1, threads=2), tmp_path,
          progress=False)
    training = replace(TRAINING, steps=8, batch=16, save_every=4, threads=2)

    def run(out, resume=False, save_every=4):
        return distil(tmp_path / "checkpoint.h5", digits(), ConsistencyConfig(),
                      replace(training, save_every=save_every), tmp_path / out, resume, progress=False)
    whole, save = run("whole"), loop.save_checkpoint

    def save_and_stop(path, checkpoint):
        save(path, checkpoint)
        raise KeyboardInterrupt
    monkeypatch.setattr(loop, "save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run("parts")
    monkeypatch.undo()
    resumed = run("parts", resume=True, save_every=8)       # how often it is saved changes no number
    assert set(whole.vectors) == {"theta", "ema", "target", "teacher", "m", "v"}
    for name in whole.vectors:
        np.testing.assert_array_equal(whole.vectors[name], resumed.vectors[name])
    np.testing.assert_array_equal(whole.vectors["teacher"], load_checkpoint(tmp_path / "checkpoint.h5").vectors["ema"])
    with pytest.raises(ValueError, match="is not the data that"):
        distil(tmp_path / "checkpoint.h5", digits("heldout"), ConsistencyConfig(), training, tmp_path / "x")


def test_levels_below_sigma_min_are_refused():
    f, theta = consistency()
    with pytest.raises(ValueError, match="wanted >= sigma_min = 0.02"):
        f.forward(theta, np.zeros((2, 2)), np.array([0.01, 1.0]))


@pytest.mark.parametrize("prediction, process, least, most", [
    ("F", "edm", 0.002, 80.0), ("eps", "linear", 0.0100005, 80.0), ("x0", "scaled_linear", 0.0291672, 14.6146),
    ("v", "cosine", 0.00642541, 80.0)])
def test_a_distillation_stays_between_the_levels_its_teacher_knows(prediction, process, least, most):
    denoiser = Denoiser(NET, DenoiserConfig(prediction=prediction, process=process))
    config = ConsistencyConfig().of(denoiser)
    assert (config.sigma_min, config.sigma_max, config.rho) == (pytest.approx(least, rel=1e-5),
                                                                pytest.approx(most, rel=1e-5), 7.0)
    denoiser.precondition(ve(levels(0, 1, config)))                             # refuses a level it does not know
    if prediction != "F":
        with pytest.raises(ValueError, match="sample on levels within that range"):
            ConsistencyConfig(sigma_min=0.001).of(denoiser)


def test_steps_that_are_never_trained_are_refused():
    with pytest.raises(ValueError, match="no mass between sigma = 1 and 3"):
        step_probabilities(np.array([1., 2, 3]), 200.0, 1.0)


def test_levels_that_do_not_grow_are_refused():
    with pytest.raises(ValueError, match="wanted both to grow"):
        ConsistencyConfig(sigma_min=1.0, sigma_max=0.5)
    with pytest.raises(ValueError, match="wanted both to grow"):
        ConsistencyConfig(levels_first=64, levels_last=8)
