"""The PyTorch twin is the same network: same outputs, same gradients, same updates, same work."""
from dataclasses import replace

import numpy as np
import pytest

from refdiff.bench import gemms
from refdiff.bench.networks import NETWORKS, Case, problem
from refdiff.bench.statistics import disagreement, rms
from refdiff.bench.subjects import DEMO, sweep
from refdiff.denoiser import DenoiserConfig
from refdiff.models.unet import UNet, UNetConfig
from refdiff.ops import mse
from refdiff.parallel import Workers

torch = pytest.importorskip("torch")
SMALL = UNetConfig(image_size=8, in_channels=2, out_channels=2, channels=8, multipliers=(1, 2), blocks=1,
                   attention=(4,), groups=4)
SWITCHES = {
    "ddpm": {}, "two heads": dict(heads=2), "head channels": dict(head_channels=4), "no dropout": dict(dropout=0.0),
    "adm": dict(scale_shift=True, resblock_updown=True), "labels": dict(classes=3), "same pad": dict(down_pad="same"),
    "other embedding": dict(embedding_order="cos_sin", embedding_denominator="half", time_scale=3.0,
                            embedding_period=50.0)}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=list(SWITCHES))
@pytest.mark.parametrize("channels_last", (False, True))
def test_the_twin_has_our_output_and_every_gradient_in_float64(switches, channels_last):
    from refdiff.bench.twin import Twin, images
    p = problem(Case("small", replace(SMALL, **switches), DenoiserConfig(prediction="eps", process="linear"), 3),
                dtype=np.float64)
    assert min(rms(p.theta[name]) for name in p.network.layout.handles) > 1e-3      # or a gradient could hide behind 0
    b, c_noise = p.batch, np.array([3.0, 500.0, 1000.0])
    F, saved = p.network.forward(p.theta, b.x0, c_noise, b.labels, b.masks)
    grad = p.theta.zeros_like()
    dx = p.network.backward(saved, mse.backward(mse.forward(F, b.eps, np.ones(3))[1], 1.0)[0], grad)

    twin = Twin(p.network.layout, p.theta.flat, channels_last)
    x = images(b.x0, channels_last).requires_grad_(True)
    masks = None if b.masks is None else [images(m, channels_last) for m in b.masks]
    labels = None if b.labels is None else torch.from_numpy(b.labels)
    G = twin.unet(p.network, x, torch.from_numpy(c_noise), labels, masks)
    ((G - images(b.eps, channels_last)) ** 2).mean().backward()
    np.testing.assert_allclose(G.permute(0, 2, 3, 1).detach(), F, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(x.grad.permute(0, 2, 3, 1), dx, rtol=1e-9, atol=1e-12)
    error, name = disagreement({name: grad[name] for name in p.network.layout.handles}, twin.gradients())
    assert error < 1e-11, name


def sides(workers):
    from refdiff.bench import ours, theirs
    torch.set_num_threads(1)
    return ours.Network("demo", workers), theirs.Network("demo", "channels_last")


@pytest.mark.parametrize("kind", ("train", "sample"))
def test_both_sides_of_a_step_agree_in_float32(kind):
    with Workers(2) as workers:
        mine, other = (side.task(kind).answers() for side in sides(workers))
    error, name = disagreement(mine, other)
    assert error < 1e-5, name


def test_both_sides_update_their_weights_alike():
    """After some steps gradients have moved by percents, and by the same: weights, decay and rate are one."""
    with Workers(2) as workers:
        tasks = [side.task("train") for side in sides(workers)]
        first = tasks[0].answers()
        for task in tasks:
            for _ in range(6):
                task.step()
        mine, other = (task.answers() for task in tasks)
    apart, moved = disagreement(mine, other)[0], disagreement(mine, first)[0]
    assert moved > 0.03 and apart < 0.02 * moved, (apart, moved)


@pytest.mark.parametrize("subject", [*DEMO, *sweep((16,), (8,))], ids=lambda s: s.name)
def test_operations_agree(subject):
    from refdiff.bench import ops, theirs_ops
    with Workers(2) as workers:
        for direction in subject.directions:
            kind = f"{subject.label}: {direction}"
            mine, other = (side.task(kind).answers() for side in (ops.Ours(workers),
                                                                 theirs_ops.Theirs("channels_last")))
            error, name = disagreement(mine, other)
            assert error < 1e-4, (direction, name)


@pytest.mark.parametrize("network", (SMALL, NETWORKS["demo"].network))
@pytest.mark.parametrize("train", (False, True))
def test_the_products_are_those_that_pytorch_counts(network, train):
    """A network without strides, so that a step is three times a forward; the time's wave needs no gradient."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from refdiff.bench.twin import Twin, images
    p = problem(Case("small", replace(network, resblock_updown=True, dropout=0.0),
                     DenoiserConfig(prediction="eps", process="linear"), 3))
    twin = Twin(p.network.layout, p.theta.flat)
    x = images(p.batch.x0, False).requires_grad_(True)
    labels = None if p.batch.labels is None else torch.from_numpy(p.batch.labels)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        y = twin.unet(p.network, x, torch.full((3,), 5.0), labels)
        if train:
            y.sum().backward()
    wave = 2 * 3 * network.channels * 4 * network.channels
    assert counter.get_total_flops() == gemms.flops(gemms.products(p.network, 3, train)) - train * wave


def test_a_network_of_the_bench_is_the_one_it_says():
    sizes = {name: UNet(case.network).layout.size for name, case in NETWORKS.items()}
    assert sizes == {"unet64": sizes["unet64"], "ddpm-cifar10": 35_746_307, "demo": sizes["demo"]}
    assert 4.3e6 < sizes["unet64"] < 4.5e6 and 5e4 < sizes["demo"] < 2e5
