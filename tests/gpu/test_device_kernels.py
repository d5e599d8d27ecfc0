"""The device's routes, products, TF32 and graphs on a GPU: the plain ops' numbers. Skipped where there is none.

tests/cuda runs the same kernels, routes and records without a device.
"""
import numpy as np
import pytest
import test_device_routes as without

from refdiff import backend
from refdiff.cuda.graph import GraphError
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.losses import denoising_loss
from refdiff.models import UNet, UNetConfig
from refdiff.models.recorded import Recorded
from refdiff.ops.fast import use
from refdiff.ops.fast import device as routes
from refdiff.ops.op import REGISTRY
from refdiff.optim import AdamW
from refdiff.rng import Key

pytestmark = pytest.mark.gpu

CONFIG = UNetConfig(image_size=8, in_channels=1, out_channels=1, channels=32, multipliers=(1, 2), blocks=1,
                    attention=(4,), heads=2, groups=8, classes=3, dropout=0.1, zero_init=False)


@pytest.fixture
def cupy():
    return backend.use("cupy", matmul="float32")


def off(cupy, got, want):
    return float(np.abs(cupy.asnumpy(got) - want).max()) if want.size else 0.0


@pytest.mark.parametrize("dtype, allowed", [(np.float64, 1e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("name", sorted(routes.DEVICE))
def test_a_route_gives_the_plain_numbers(cupy, name, dtype, allowed):
    op, route = REGISTRY[name], without.route(name)
    for case in without.cases(name):
        if dtype == np.float32 and case.scale > 4:
            continue
        inputs, options, dy, _ = without.arguments(op, case)
        want = without.results(without.variant(op, "plain", jvp=None, routes={}), inputs, options, dy, ())
        given = [cupy.asarray(a if a.dtype.kind in "iu" else a.astype(dtype)) for a in (*inputs, dy)]
        got = without.results(route, given[:-1], options, given[-1], ())
        again = without.results(route, given[:-1], options, given[-1], ())
        for key, value in want.items():
            assert isinstance(got[key], cupy.ndarray) and got[key].dtype == dtype
            scale = max(without.size(value, dy, *inputs), 1)
            limit = 1e-3 if dtype == np.float32 and "norm" in name else allowed
            assert off(cupy, got[key], value) <= limit * scale, f"{name}: {key}\n{case}"
            np.testing.assert_array_equal(cupy.asnumpy(got[key]), cupy.asnumpy(again[key]), f"{name}: {key} twice")


@pytest.mark.parametrize("name, sizes, options", [
    ("conv2d", {"n": 4, "h": 32, "w": 32, "k": 3, "c": 64, "d": 128}, {"stride": 1, "pad": "same"}),
    ("conv2d", {"n": 4, "h": 32, "w": 32, "k": 3, "c": 64, "d": 64}, {"stride": 2, "pad": "ddpm"}),
    ("norm_silu", {"n": 8, "h": 32, "w": 32, "c": 128}, {"groups": 32, "eps": 1e-6}),
    ("attention", {"n": 8, "t": 256, "m": 256, "a": 1, "d": 64, "e": 64}, {}),
    ("linear", {"n": 8, "t": 256, "c": 64, "d": 192}, {})])
def test_a_route_at_the_sizes_of_a_network_keeps_float32s_digits(cupy, name, sizes, options):
    case, op = without.Case(name, sizes, options, 1), REGISTRY[name]
    inputs, options, dy, _ = without.arguments(op, case)
    want = without.results(without.variant(op, "plain", jvp=None, routes={}), inputs, options, dy, ())
    given = [cupy.asarray(a, dtype=np.float32) for a in (*inputs, dy)]
    got = without.results(without.route(name), given[:-1], options, given[-1], ())
    for key, value in want.items():
        assert off(cupy, got[key], value) <= 2e-5 * max(1, np.abs(value).max()), key


def test_tf32_rounds_factors_to_eleven_bits_and_float32_does_not(cupy):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 256, 256)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    error = {}
    for matmul in backend.MATMULS:
        backend.use("cupy", matmul=matmul)
        error[matmul] = off(cupy, backend.product(cupy.asarray(a), cupy.asarray(b)), exact) / np.abs(exact).max()
    backend.use("cupy", matmul="float32")
    assert error["float32"] < 2e-6 < 2e-5 < error["tf32"] < 2e-3


def test_the_optimiser_on_the_device_is_the_hosts(cupy):
    rng = np.random.default_rng(3)
    theta, grad = rng.standard_normal((2, 100_003)).astype(np.float32)
    found = []
    for put in (np.array, cupy.asarray):
        vector, optimiser = put(theta), AdamW(weight_decay=0.1)
        state = optimiser.init(vector)
        for _ in range(3):
            optimiser.update(state, vector, put(grad), 1e-2)
        found.append(backend.to_host(vector))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=2e-6 * np.abs(theta).max())


# ---- graphs

def steps(denoiser, grads):
    theta, found = denoiser.network.layout.init(Key(0), np.float32), []
    grad = theta.zeros_like()
    for step in range(grads):
        k = Key(5).fold("step", step)
        x0 = k.fold("x0").normal((4, 8, 8, 1), np.float32)
        batch = (x0, denoiser.draw_levels(k.fold("level"), 4), k.fold("eps").normal(x0.shape, np.float32),
                 backend.asarray([0, step, 2, 3]), denoiser.network.masks(k.fold("masks"), 4, np.float32))
        grad.flat[...] = 0
        loss = denoising_loss(denoiser, theta, *batch, grad=grad)
        found.append((loss, backend.to_host(grad.flat)))
        theta.flat[...] -= 0.01 * grad.flat
    return found


def test_training_by_graphs_gives_the_losses_and_gradients_of_training_without(cupy):
    config = DenoiserConfig(prediction="F", process="edm")
    plain = steps(Denoiser(UNet(CONFIG), config), 3)
    recorded = steps(Denoiser(Recorded(UNet(CONFIG)), config), 3)
    for (loss, grad), (want_loss, want_grad) in zip(recorded, plain):
        assert loss == pytest.approx(want_loss, rel=1e-5)
        np.testing.assert_allclose(grad, want_grad, rtol=0, atol=1e-5 * np.abs(want_grad).max())


def test_a_function_that_reads_back_cannot_be_recorded(cupy):
    with pytest.raises(GraphError, match="could not be recorded"):
        backend.record(lambda x: x * float(x.sum()), (cupy.ones(3),))
    assert float(cupy.ones(3).sum()) == 3                                        # the stream is whole again


def test_a_networks_gradients_by_the_routes_are_those_of_the_plain_ops(cupy):
    config = DenoiserConfig(prediction="F", process="edm")
    found = {}
    try:
        for choice in ("plain", "fast"):
            use(choice)
            found[choice] = steps(Denoiser(UNet(CONFIG), config), 1)[0][1]
    finally:
        use("fast")
    np.testing.assert_allclose(found["fast"], found["plain"], rtol=0, atol=1e-4 * np.abs(found["plain"]).max())
