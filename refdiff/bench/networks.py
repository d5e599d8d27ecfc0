"""The networks that are timed, each with weights and a batch that every contender makes for itself, to the same bits.

    unet64          4.4 million parameters: 64/128/128 channels, 32x32x3, attention at 16x16, 32 images
    ddpm-cifar10    DDPM's network of CIFAR-10, 35.7 million parameters, 8 images, 128 on a device [DDPM sec. B]
    demo            the network of `refdiff demo`: 16/32 channels, 8x8x1, ten classes, 128 images

A step of training is q_sample, forward, loss, backward, AdamW and the moving average; dropout masks are drawn before.
"""
from dataclasses import dataclass, replace

import numpy as np

from .. import backend
from ..demo import DENOISER, NETWORK
from ..denoiser import Denoiser, DenoiserConfig
from ..models.unet import UNet, UNetConfig
from ..params import Theta
from ..rng import Key
from ..train import Batch


@dataclass(frozen=True)
class Case:
    """A network, what it predicts, and how many images a step sees."""

    name: str
    network: UNetConfig
    denoising: DenoiserConfig
    batch: int
    weighting: str = "simple"
    on_device: int = 128            # images where a device does the work


DDPM = DenoiserConfig(prediction="eps", process="linear")
NETWORKS = {case.name: case for case in (
    Case("unet64", UNetConfig(channels=64, multipliers=(1, 2, 2), blocks=1, attention=(16,)), DDPM, 32),
    Case("ddpm-cifar10", UNetConfig(), DDPM, 8),
    Case("demo", replace(NETWORK, image_size=8, in_channels=1, out_channels=1, classes=10), DENOISER, 128, "edm"))}


@dataclass(frozen=True)
class Problem:
    """A Case with values: theta, one batch, and the x_t that a sampling step starts from (float64, as samplers do)."""

    case: Case
    denoiser: Denoiser
    theta: Theta
    batch: Batch
    x: object

    @property
    def network(self):
        return self.denoiser.network


def problem(case, batch=None, seed=0, dtype=np.float32):
    """The Problem of a Case, at another batch if so asked.

    No parameter is 0, as in a trained network: at zero_init's start half of the gradients would be 0 and agree.
    """
    case = replace(case, batch=batch or case.batch)
    key, n, config = Key(seed).fold("bench"), case.batch, case.network
    network = UNet(replace(config, zero_init=False))
    theta = network.layout.init(key.fold("theta"), dtype)
    theta.flat += 0.02 * key.fold("jitter").normal((theta.flat.size,), dtype)
    denoiser = Denoiser(network, case.denoising)
    shape = (n, config.image_size, config.image_size, config.in_channels)
    labels = backend.asarray(np.arange(n) % (config.classes + config.null_class)) if config.classes else None
    batch = Batch(0.5 * key.fold("x0").normal(shape, dtype), key.fold("eps").normal(shape, dtype),
                  denoiser.draw_levels(key.fold("level"), n), labels, network.masks(key.fold("masks"), n, dtype))
    return Problem(case, denoiser, theta, batch, key.fold("x").normal(shape))
