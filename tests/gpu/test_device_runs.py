"""A training step and sampling on a device: the host's numbers, and nothing left behind on the host.

Every test runs on the stand-in device, everywhere, without kernels and (where there is a C++ compiler) with them, and
on CuPy where there is a GPU.
"""
from dataclasses import replace

import numpy as np
import pytest
import standin
from devices import Device
from emulator import COMPILER

from refdiff import backend
from refdiff.checkpoint import load_checkpoint
from refdiff.data import digits
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.distill.consistency import ConsistencyConfig, distil
from refdiff.evaluate import Reference
from refdiff.fit import TrainConfig
from refdiff.losses import denoising_loss
from refdiff.models import UNet, UNetConfig
from refdiff.optim import AdamW, clip_by_global_norm, ema_update
from refdiff.process import grids
from refdiff.process.schedules import SCHEDULES
from refdiff.rng import Key
from refdiff.sample import choose_labels, sample
from refdiff.samplers.ddim import ddim
from refdiff.samplers.edm import heun
from refdiff.train import train

# Every kind of layer in 8x8: two levels, attention, labels, dropout, both ways of adding time and of resampling.
DDPM = UNetConfig(image_size=8, in_channels=1, out_channels=1, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
                  heads=2, groups=4, classes=3, dropout=0.2, zero_init=False)
ADM = replace(DDPM, scale_shift=True, resblock_updown=True, embedding_order="cos_sin", embedding_denominator="half")
DENOISERS = {"EDM, DDPM's U-Net": (DDPM, DenoiserConfig(prediction="F", process="edm")),
             "eps, ADM's U-Net": (ADM, DenoiserConfig(prediction="eps", process="linear", T=50))}


WITH_KERNELS = pytest.param("stand-in with kernels",
                            marks=pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here"))
ON_A_GPU = pytest.param("cupy", marks=pytest.mark.gpu)


@pytest.fixture(params=["stand-in", WITH_KERNELS, ON_A_GPU])
def device(request, monkeypatch):
    """Chooses the device's backend when called; gives the type of its arrays."""
    def choose():
        if request.param == "cupy":
            return backend.use("cupy").ndarray
        if request.param == "stand-in with kernels":
            monkeypatch.setitem(backend._DEVICES, standin.xp, Device())
        monkeypatch.setattr(backend, "_chosen", standin.xp)
        return standin.StandIn
    return choose


def on_both(device, run):
    """run() on the host and on the device: dictionaries of arrays that must agree."""
    backend.use("numpy")
    here = run()
    array_type = device()
    there = run()
    assert set(here) == set(there)
    for name, value in there.items():
        assert isinstance(value, array_type), f"{name} left the device: {type(value)}"
    return here, {name: backend.to_host(value) for name, value in there.items()}


def batch(denoiser, dtype):
    key, n = Key(5), 4
    x0 = key.fold("x0").normal((n, 8, 8, 1), dtype)
    return (x0, denoiser.draw_levels(key.fold("level"), n), key.fold("eps").normal(x0.shape, dtype),
            backend.asarray([0, 1, 2, 3]), denoiser.network.masks(key.fold("masks"), n, dtype))


# Rounding, not truth, differs between the two: matrix products are summed in another order.
@pytest.mark.parametrize("dtype, allowed", [(np.float64, 1e-10), (np.float32, 1e-3)])
@pytest.mark.parametrize("name", DENOISERS)
def test_training_steps_on_the_device_are_the_hosts(device, name, dtype, allowed):
    network, config = DENOISERS[name]

    def run():
        denoiser = Denoiser(UNet(network), config)
        theta = denoiser.network.layout.init(Key(0), dtype)
        ema, optimiser = theta.copy(), AdamW(lr=1e-3, eps=1e-3)      # eps: gradients near 0 keep their rounding small
        state, losses = optimiser.init(theta.flat), []
        for _ in range(2):
            grad = theta.zeros_like()
            losses.append(denoising_loss(denoiser, theta, *batch(denoiser, dtype), grad=grad))
            clip_by_global_norm(grad.flat, 1.0)
            optimiser.update(state, theta.flat, grad.flat)
            ema_update(ema.flat, theta.flat, 0.9)
        return {"theta": theta.flat, "ema": ema.flat, "grad": grad.flat, "m": state.m, "v": state.v,
                "losses": backend.asarray(losses)}

    here, there = on_both(device, run)
    assert np.abs(here["grad"]).max() > 1e-3
    for key, value in here.items():
        assert there[key].dtype == value.dtype
        np.testing.assert_allclose(there[key], value, rtol=0, atol=allowed * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize("name", DENOISERS)
def test_samples_made_on_the_device_are_the_hosts(device, name):
    network, config = DENOISERS[name]

    def run():
        denoiser = Denoiser(UNet(network), config)
        theta = denoiser.network.layout.init(Key(0), np.float64)
        bound = denoiser.bind(theta, backend.asarray([0, 1, 3]))
        if config.process == "edm":
            deterministic = grids.karras(3, sigma_min=0.02, sigma_max=20.0)
        else:
            deterministic = grids.discrete(SCHEDULES[config.process](config.T), 3)
        start = Key(1).normal((3, 8, 8, 1)) * deterministic.level(0).sigma
        found = {}
        for sampler, states in {
                "heun": heun(bound, deterministic, start), "ddim": ddim(bound, deterministic, start),
                "ddim eta 1": ddim(bound, deterministic, start, 1.0,
                                   lambda i: Key(1).fold("noise", i).normal(start.shape))}.items():
            for state in states:
                found[f"{sampler} step {state.step}"] = state.x
        return found

    here, there = on_both(device, run)
    assert len(here) == 9
    for key, value in here.items():
        np.testing.assert_allclose(there[key], value, rtol=0, atol=1e-10 * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize("device", ["stand-in", ON_A_GPU], indirect=True)       # every kernel runs in the tests above
def test_the_whole_path_runs_on_the_device(device, tmp_path):
    """Train, distil, sample, compare with real images: the host's figures, and every file whole."""
    network = replace(DDPM, dropout=0.1)
    training = TrainConfig(steps=3, batch=8, warmup=1, threads=1)

    def run(out):
        train(digits(), network, DenoiserConfig(), training, out, progress=False)
        student = distil(out / "checkpoint.h5", digits(), ConsistencyConfig(), training, out, progress=False)
        drawn = {"heun": sample(load_checkpoint(out / "checkpoint.h5"), "heun", 2, 20),
                 "consistency": sample(load_checkpoint(out / "distilled.h5"), "consistency", 2, 20)}
        labels = choose_labels(10, 20)
        found = {name: Reference(digits()).compare(images, labels) for name, (images, _) in drawn.items()}
        return student.vectors["ema"], drawn, found

    backend.use("numpy")
    here, drawn_here, found_here = run(tmp_path / "here")
    device()
    there, drawn_there, found_there = run(tmp_path / "there")
    assert np.abs(there - here).max() < 1e-3 * np.abs(here).max()
    for name, (images, labels) in drawn_there.items():
        np.testing.assert_allclose(images, drawn_here[name][0], atol=1e-2)
        np.testing.assert_array_equal(labels, drawn_here[name][1])
        assert found_there[name]["frechet"]["train"] == pytest.approx(found_here[name]["frechet"]["train"], rel=0.05)
        assert found_there[name]["label_agreement"] == pytest.approx(found_here[name]["label_agreement"], abs=0.11)
