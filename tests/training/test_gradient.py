"""What training steps gather: the numbers of a flat vector, however many members add them up, and nobody's arrays."""
import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from refdiff import gradient, optim
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.fit import TrainConfig
from refdiff.gradient import FlatGradient, Gradient, TeamGradient
from refdiff.losses import denoising_loss
from refdiff.models import MLP, MLPConfig, UNet, UNetConfig
from refdiff.models.compat import unet
from refdiff.nn import init
from refdiff.ops import concat
from refdiff.parallel import Workers, may_fork
from refdiff.params import Layout, Theta
from refdiff.rng import Key
from refdiff.steps import Steps
from refdiff.train import Batch

NET = UNetConfig(image_size=8, in_channels=2, out_channels=2, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
                 groups=4, heads=2, classes=3, dropout=0.0, zero_init=False)
KINDS = ["threads", pytest.param("processes", marks=pytest.mark.skipif(not may_fork(), reason="no processes here"))]
KEY = Key(7).fold("test_gradient")


def layout(*shapes):
    made = Layout()
    handles = [made.add(f"p{i}", shape, init.zeros) for i, shape in enumerate(shapes)]
    return made, handles


def whole(grad):
    """The vector that a Gradient stands for."""
    return np.array(grad.part(0, grad.layout.size))


# ---- one Gradient

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_additions_have_the_bits_of_a_flat_vector(dtype):
    made, handles = layout((3, 4), (5,), (2, 2, 2), (), (0, 4), (7,))
    for trial in range(20):
        grad, flat = Gradient(made, dtype), Theta(made, np.zeros(made.size, dtype))
        key = KEY.fold("additions", trial)
        for n in range(trial):
            handle = handles[int(key.fold(n).integers(0, len(handles) - 1, 1)[0])]          # never the last
            dw = np.asarray(key.fold(n, "dw").normal(handle.shape), dtype)
            dw = dw.T.copy().T if n % 3 == 0 else dw                                        # in another order
            grad[handle] += dw
            flat[handle.name] += dw
        np.testing.assert_array_equal(whole(grad), flat.flat)
        assert whole(grad).dtype == dtype
        for name in made.handles:
            np.testing.assert_array_equal(grad[name], flat[name])
        for start in range(made.size + 1):
            for stop in range(start, made.size + 1):
                found = np.full(made.size, np.nan, dtype)
                for at, piece in grad.pieces(start, stop):
                    found[at] = piece
                np.testing.assert_array_equal(found[start:stop], flat.flat[start:stop])
                assert np.isnan(found[:start]).all() and np.isnan(found[stop:]).all()


def test_the_first_array_is_kept_and_neither_copied_nor_written_to():
    made, (a, b) = layout((3, 4), (3, 4))
    grad, dw = Gradient(made, np.float32), np.ones((3, 4), np.float32)
    grad[a] += dw
    grad[b] += dw                                           # the same array under two handles
    assert np.shares_memory(grad.part(0, 12), dw) and np.shares_memory(grad.part(12, 24), dw)
    grad[a] += 2 * dw
    grad[a] += 3 * dw
    np.testing.assert_array_equal(dw, 1)
    np.testing.assert_array_equal(whole(grad), np.repeat(np.float32([6, 1]), 12))
    assert np.shares_memory(grad.part(12, 24), dw) and dw.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        grad[b][0] = 5                                      # it may be somebody else's
    grad.clear()
    assert not whole(grad).any()


def test_what_cannot_be_kept_is_copied():
    made, (a,) = layout((3, 4))
    larger, scratch = np.ones((2, 3, 4), np.float32), np.ones(48, np.uint8)
    transposed = np.ones((4, 3), np.float32).T
    for dw in (larger[0], scratch.view(np.float32).reshape(3, 4), transposed, np.ones((3, 4)), np.float32(1),
               np.ones(4, np.float32)):
        grad = Gradient(made, np.float32)
        grad[a] += dw
        assert not np.shares_memory(grad.part(0, 12), dw) and grad[a].dtype == np.float32
        np.testing.assert_array_equal(whole(grad), np.broadcast_to(dw, (3, 4)).ravel())


def test_what_does_not_fit_is_refused_as_by_a_vector():
    made, (a,) = layout((3, 4))
    for grad in (Gradient(made, np.float32), Theta(made, np.zeros(12, np.float32))):
        with pytest.raises(ValueError, match="broadcast"):
            grad[a] += np.ones((4, 3), np.float32)
        with pytest.raises(TypeError, match="Cannot cast"):
            grad[a] += np.ones((3, 4), complex)
        with pytest.raises(KeyError, match="no parameter 'p9'; there are p0"):
            grad["p9"] += 1
    grad = Gradient(made, np.float32)
    grad[a] += np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        grad[a] += np.ones((2, 3, 4), np.float32)


def test_what_is_dropped_is_zero_and_the_rest_stays():
    made, handles = layout((4,), (3,), (5,))
    grad = Gradient(made, np.float64)
    for handle in handles:
        grad[handle] += np.ones(handle.shape)
    grad.drop(6)                                            # in the middle of the second
    np.testing.assert_array_equal(whole(grad), np.repeat([0.0, 1.0], [4, 8]))
    grad.drop(7)
    np.testing.assert_array_equal(whole(grad), np.repeat([0.0, 1.0], [7, 5]))


# ---- networks that add to it

def problem(config, n=6, dtype=np.float32):
    theta = UNet(config).layout.init(KEY.fold("theta"), dtype)
    theta.flat[...] += 0.05 * KEY.fold("away").normal(theta.flat.shape).astype(dtype)
    draw = KEY.fold("x").normal((2, n, config.image_size, config.image_size, config.in_channels), dtype)
    return theta, *draw, np.linspace(0.1, 2, n).astype(dtype), np.arange(n) % 4 if config.classes else None


@pytest.mark.parametrize("change", [{}, {"scale_shift": True, "resblock_updown": True}], ids=["ddpm", "adm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compat", [(), ("attention_unscaled", "padding")], ids=["right", "deviating"])
def test_without_keep_a_backward_gives_the_same_and_empties_saved(change, dtype, compat):
    net = unet(replace(NET, **change), compat)
    theta, x, dF, t, labels = problem(net.config, dtype=dtype)
    F, saved = net.forward(theta, x, t, labels)
    wanted, again, spent = theta.zeros_like(), theta.zeros_like(), Gradient(theta.layout, dtype)
    before = dF.copy()
    dx = net.backward(saved, dF, wanted)
    np.testing.assert_array_equal(net.backward(saved, dF, again), dx)           # any number of times
    np.testing.assert_array_equal(net.backward(saved, dF, spent, keep=False), dx)
    np.testing.assert_array_equal(again.flat, wanted.flat)
    np.testing.assert_array_equal(whole(spent), wanted.flat)
    np.testing.assert_array_equal(dF, before)
    assert len(saved) == 0
    with pytest.raises(ValueError, match="keep=False has used it up"):
        net.backward(saved, dF, again)
    np.testing.assert_array_equal(net.forward(theta, x, t, labels)[0], F)       # theta is as it was
    alone, nothing = net.forward(theta, x, t, labels, keep=False)
    np.testing.assert_array_equal(alone, F)
    with pytest.raises(ValueError, match="saved nothing"):
        net.backward(nothing, dF, again)


def test_memory_is_let_go_block_by_block(monkeypatch):
    """When the backward of conv_in begins, nothing is left of what the blocks had saved, nor of the dx between them."""
    net = UNet(NET)
    theta, x, dF, t, labels = problem(NET)
    F, saved = net.forward(theta, x, t, labels)
    arrays = [weakref.ref(a) for s in saved[2:] for a in flat(s) if a.ndim > 2 and a.base is None]
    assert len(arrays) > 30
    left = []
    real = type(net.conv_in).backward

    def watched(layer, saved, dy, grad):
        if layer is net.conv_in:
            left.append(sum(a() is not None for a in arrays))
        return real(layer, saved, dy, grad)

    monkeypatch.setattr(type(net.conv_in), "backward", watched)
    gc.disable()                                            # no cycles: memory is to go at once
    try:
        net.backward(saved, dF, Gradient(theta.layout, np.float32), keep=False)
    finally:
        gc.enable()
    skips = 1                                               # conv_in's output is the first block's input
    assert left[0] <= skips


def test_a_forward_that_keeps_nothing_holds_the_skips_alone(monkeypatch):
    """Alive of the convolutions' outputs when the one of a doubled image begins: conv_in's, a skip. At the end none."""
    config = replace(NET, attention=())
    net, met, left = UNet(config), [], []
    theta, x, _, t, labels = problem(config)
    real = type(net.conv_in).forward

    def watched(layer, theta, x):
        if layer.doubled or layer is net.conv_out:
            left.append(sum(y() is not None for y in met))
        y, saved = real(layer, theta, x)
        met.append(weakref.ref(y if y.base is None else y.base))
        return y, saved

    monkeypatch.setattr(type(net.conv_in), "forward", watched)
    gc.disable()
    try:
        net.forward(theta, x, t, labels, keep=False)
    finally:
        gc.enable()
    assert len(met) > 20 and left == [1, 0]


def test_a_skip_keeps_its_own_part_of_a_cotangent_alone(monkeypatch):
    net, met, left = UNet(NET), [], []
    theta, x, dF, t, labels = problem(NET)
    F, saved = net.forward(theta, x, t, labels)

    def backward(c, dy):
        met.append(weakref.ref(dy if dy.base is None else dy.base))
        return concat.backward(c, dy)

    def stop(*args):
        left.append(sum(dy() is not None for dy in met))
        raise StopIteration

    monkeypatch.setattr("refdiff.models.unet.concat", SimpleNamespace(backward=backward))
    monkeypatch.setattr(net, "down", [[SimpleNamespace(backward=stop)]])
    with pytest.raises(StopIteration):
        net.backward(saved, dF, Gradient(theta.layout, np.float32), keep=False)
    assert len(met) == 4 and left == [0]


def flat(s):
    if isinstance(s, (tuple, list)):
        return [a for part in s for a in flat(part)]
    return [s] if isinstance(s, np.ndarray) else []


class Twice:
    """F = W (W x + b) + b: one layer, two additions under its handles."""

    def __init__(self):
        self.net = MLP(MLPConfig(width=4, depth=2, embedding=4))
        self.layout = self.net.layout
        self.layer = self.net.hidden[1]

    def gradient(self, theta, x, dF, grad):
        h, s = self.layer.forward(theta, x)
        _, s2 = self.layer.forward(theta, h)
        return self.layer.backward(s, self.layer.backward(s2, dF, grad), grad)


def test_a_layer_that_is_applied_twice_adds_twice():
    net = Twice()
    theta = net.layout.init(KEY.fold("twice"), np.float32)
    x, dF = KEY.fold("twice x").normal((2, 5, 4), np.float32)
    flat, grad = theta.zeros_like(), Gradient(net.layout, np.float32)
    np.testing.assert_array_equal(net.gradient(theta, x, dF, flat), net.gradient(theta, x, dF, grad))
    np.testing.assert_array_equal(whole(grad), flat.flat)
    assert flat.flat.any()


# ---- the sum over a team

@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setenv("REFDIFF_PARALLEL", request.param)
    return request.param


def summed(members, grads, made, block=4, flat=False):
    """What members have of the sum after all rounds, and their union."""
    with Workers(members) as workers:
        theta = Theta(made, np.zeros(made.size, np.float32))
        team_gradient = TeamGradient(theta, members, workers)
        if flat:                                            # as on a device
            team_gradient.grads = [FlatGradient(made, np.zeros_like(theta.flat)) for _ in range(members)]

        def work(i, phase, r):
            if phase == 0:
                for handle, dw in grads[i]:
                    team_gradient.grads[i][handle] += dw
                team_gradient.show(i, 0)
            elif phase == 1:
                team_gradient.add(i, int(r))
            elif phase == 2:
                team_gradient.show_total(i, r)
            else:
                return sum(float(np.sum(g * g, dtype=np.float64)) for _, g in team_gradient.blocks(i, block))
            return 0.0

        team = workers.team(work, members)
        team(0, 0)
        for r in range(len(team_gradient.rounds)):
            team(1, r)
        found = team_gradient.collect(theta.zeros_like(), lambda r: team(2, r))
        return found.flat, sum(team(3, 0)), len(team_gradient.rounds)


@pytest.mark.parametrize("members", [1, 2, 3, 5])
@pytest.mark.parametrize("room", [3, 10, 64, 1 << 20])
def test_a_team_s_sum_is_taken_in_order_whatever_the_rounds(members, room, kind, monkeypatch):
    monkeypatch.setattr(gradient, "ROUND", room)
    made, handles = layout((3, 4), (5,), (2, 2, 2), (7,), (1,))
    grads = [[(h, KEY.fold("team", i, h.name).normal(h.shape, np.float32)) for h in handles
              if h is not handles[3] and (h is not handles[0] or i != 1)] for i in range(members)]
    wanted = None
    for of_member in grads:
        flat = Theta(made, np.zeros(made.size, np.float32))
        for handle, dw in of_member:
            flat[handle] += dw
        wanted = flat.flat if wanted is None else wanted + flat.flat
    found, square, rounds = summed(members, grads, made)
    np.testing.assert_array_equal(found, wanted)
    assert square == pytest.approx(float(np.sum(wanted.astype(float) ** 2)), rel=1e-6)
    assert rounds == (-(-made.size // room) if members > 1 else 1)
    np.testing.assert_array_equal(summed(members, grads, made, flat=True)[0], wanted)


def test_more_members_than_elements(kind):
    made, (a,) = layout((2,))
    found, _, _ = summed(4, [[(a, np.full(2, i, np.float32))] for i in range(4)], made)
    np.testing.assert_array_equal(found, [6, 6])


# ---- whole steps

def training(threads, batch=6, dtype=np.float32, averages=("ema",), clip=1e9, updates=3, config=NET, before=None):
    """{name: vector} after some updates, [(loss, norm)], the last gradient; from `before`, another run's vectors."""
    theta, x0, eps, t, labels = problem(config, batch, dtype)
    denoiser = Denoiser(UNet(config), DenoiserConfig())
    level = denoiser.draw_levels(KEY.fold("level"), batch)

    class Objective:
        def draw(self, step):
            return Batch(x0, (1 + step) * eps, level, labels, None)

        def loss(self, thetas, batch, rows, grad, share):
            x0, eps, level, labels, masks = batch.rows(rows)
            return denoising_loss(denoiser, thetas["theta"], x0, level, eps, labels, masks, "edm", grad, share)

    objective = Objective()
    objective.averages = {name: 0.9 + 0.05 * i for i, name in enumerate(averages)}
    settings = TrainConfig(batch=batch, threads=threads, lr=1e-3, clip=clip, weight_decay=0.1)
    thetas = {"theta": theta, "m": theta.zeros_like(), "v": theta.zeros_like(),
              **{name: theta.copy() for name in averages}}
    begin, losses = 0, []
    if before is not None:
        begin, vectors = before
        thetas = {name: theta.with_flat(vectors[name].copy()) for name in thetas}
    with Workers(threads) as workers:
        steps = Steps(objective, thetas.items(), settings, workers)
        for step in range(begin, begin + updates):
            losses.append(steps.gradient(step))
            grad = steps.collected().flat
            steps.update(step, 1e-3, losses[-1][1])
        found = {name: np.array(one.flat) for name, one in steps.thetas.items()}
        rounds = len(steps.sum.rounds)
    return SimpleNamespace(vectors=found, losses=losses, grad=grad, rounds=rounds)


def flat_training(batch=6, dtype=np.float32, averages=("ema",), clip=1e9, updates=3, config=NET):
    """The same on flat vectors, by the public functions of optim, on one thread (of the BLAS too, as in a team)."""
    theta, x0, eps, t, labels = problem(config, batch, dtype)
    denoiser = Denoiser(UNet(config), DenoiserConfig())
    level = denoiser.draw_levels(KEY.fold("level"), batch)
    optimiser = optim.AdamW(1e-3, 0.9, 0.99, weight_decay=0.1)
    state, means = optimiser.init(theta.flat), {name: theta.flat.copy() for name in averages}
    for step in range(updates):
        grad = theta.zeros_like()
        with threadpoolctl.threadpool_limits(1, "blas"):
            denoising_loss(denoiser, theta, x0, level, (1 + step) * eps, labels, None, "edm", grad, 1.0)
        met = grad.flat.copy()
        norm = optim.clip_by_global_norm(grad.flat)
        if norm > clip:
            grad.flat[...] *= clip / norm
        optimiser.update(state, theta.flat, grad.flat, 1e-3)
        for i, name in enumerate(averages):
            optim.ema_update(means[name], theta.flat, optim.ema_decay(step, 0.9 + 0.05 * i))
    return SimpleNamespace(vectors={"theta": theta.flat, "m": state.m, "v": state.v, **means}, grad=met)


def assert_same(a, b):
    np.testing.assert_array_equal(a.grad, b.grad)
    assert a.vectors.keys() == b.vectors.keys()
    for name in a.vectors:
        np.testing.assert_array_equal(a.vectors[name], b.vectors[name], err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_thread_has_the_bits_of_flat_vectors(dtype):
    options = dict(dtype=dtype, averages=("ema", "target"))
    assert_same(training(1, **options), flat_training(**options))


def test_clipping_is_by_the_norm_of_the_flat_gradient():
    """To rounding: the norm is put together of blocks' norms, not of their squares' sums."""
    options = dict(dtype=np.float64, clip=0.01, updates=1)
    found, wanted = training(1, **options), flat_training(**options)
    assert found.losses[0][1] == pytest.approx(float(np.linalg.norm(wanted.grad)), rel=1e-12)
    for name in wanted.vectors:
        np.testing.assert_allclose(found.vectors[name], wanted.vectors[name], rtol=1e-10, atol=1e-16)
    assert not np.allclose(found.vectors["m"], training(1, **{**options, "clip": 1e9}).vectors["m"])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_processes_and_any_rounds_give_the_same_bits(threads, monkeypatch):
    found = []
    for kind in ("threads", "processes") if may_fork() else ("threads",):
        for room in (1 << 20, 1000):
            monkeypatch.setenv("REFDIFF_PARALLEL", kind)
            monkeypatch.setattr(gradient, "ROUND", room)
            found.append(training(threads, clip=0.01))
            assert (found[-1].rounds > 1) == (room == 1000)
    for other in found[1:]:
        assert_same(found[0], other)
        assert [loss for loss, _ in other.losses] == [loss for loss, _ in found[0].losses]
        np.testing.assert_allclose([n for _, n in other.losses], [n for _, n in found[0].losses], rtol=1e-12)
    flat = flat_training(clip=0.01, updates=1)
    one = training(threads, clip=0.01, updates=1)
    np.testing.assert_allclose(one.grad, flat.grad, rtol=1e-3, atol=1e-5 * np.abs(flat.grad).max())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_goes_on_from_its_vectors_as_if_it_had_not_stopped(threads):
    first = training(threads, updates=2)
    assert_same(training(threads, updates=1, before=(2, first.vectors)), training(threads, updates=3))


@pytest.mark.parametrize("threads", [1, 2])
def test_looking_at_the_gradient_changes_nothing_and_a_gradient_may_be_asked_for_twice(threads):
    theta, *_ = problem(NET)
    with Workers(threads) as workers:
        class Objective:
            averages = {}

            def draw(self, step):
                return None

            def loss(self, thetas, batch, rows, grad, share):
                grad["conv_in.b"] += np.full(8, share, np.float32)
                return 1.0

        steps = Steps(Objective(), {"theta": theta, "m": theta.zeros_like(), "v": theta.zeros_like()}.items(),
                      TrainConfig(batch=2, threads=threads), workers)
        for _ in range(3):
            assert steps.gradient(0) == (1.0, pytest.approx(8 ** 0.5))
            for _ in range(2):
                found = steps.collected()
                np.testing.assert_array_equal(found["conv_in.b"], 1)
                assert found.flat.sum() == 8
