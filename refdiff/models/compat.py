"""The U-Net with one published mistake or another convention, on purpose: to match an implementation and see the cost.

    network = unet(config, compat=("padding", "time_offset"))       # config is the right one

A deviation is named in DEVIATIONS. The network has the parameters of the right one, so the same theta runs in both,
and a backward of its own.

What one of them changes in the output, |F' - F|/|F| in float64, of DDPM's network for CIFAR-10 at an eighth of its
width, 16 x 16 pixels, with random weights, over five times from 0 to 999; tests/foreign/test_compat.py measures it:

    padding                 0.79
    norm_groups             0.48
    norm_epsilon            1.2e-5
    head_width              0.18
    embedding_order         0.19
    embedding_half          0.15
    time_offset             0.068
    attention_unscaled      0.38
    attention_scaled_twice  0.13
    embedding_float32       1.0e-6

The last and norm_epsilon are beyond what a comparison in float32 can see.
"""
import math
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from .. import backend
from ..nn.embedding import Conditioning
from .unet import UNet


@dataclass(frozen=True)
class Deviation:
    """What a deviation changes of a configuration, and of what cannot be configured."""

    says: str
    change: Callable = lambda config: {}            # UNetConfig -> the settings that differ
    later: float = 0.0                              # added to what the network is told
    scores: Callable = lambda config, d: 1.0        # (config, head width) -> factor of attention's scores
    single: bool = False                            # time embedded in float32


def _other(setting, *values):
    """A change that puts the second value where the first is, and the other way round."""
    return lambda config: {setting: values[1] if getattr(config, setting) == values[0] else values[0]}


DEVIATIONS = {
    "padding": Deviation("strided convolutions pad (1,1,1,1) for (0,1,0,1), or the other way round",
                         _other("down_pad", "ddpm", "same")),
    "norm_groups": Deviation("half as many groups of channels are normalised",
                             lambda config: {"groups": max(1, config.groups // 2)}),
    "norm_epsilon": Deviation("1e-5 is added to the variance for 1e-6, or the other way round",
                              _other("norm_eps", 1e-6, 1e-5)),
    "head_width": Deviation("8 channels per head of attention, a default of others",
                            lambda config: {"head_channels": 8}),
    "embedding_order": Deviation("cos and sin change places", _other("embedding_order", "sin_cos", "cos_sin")),
    "embedding_half": Deviation("frequencies by k/half for k/(half - 1), or the other way round",
                                _other("embedding_denominator", "half-1", "half")),
    "time_offset": Deviation("told t + 1 for t", later=1.0),
    "attention_unscaled": Deviation("scores of attention without 1/sqrt(d)", scores=lambda config, d: d ** 0.5),
    "attention_scaled_twice": Deviation("1/sqrt(d) on q and on k, where each has its fourth root",
                                        scores=lambda config, d: d ** -0.5),
    "embedding_float32": Deviation("time is embedded in float32, frequencies and phases too", single=True),
}


def unet(config, compat=()):
    """The UNet of a UNetConfig with the deviations named in compat, applied in that order. ValueError for others."""
    if not compat:
        return UNet(config)
    for name in compat:
        if name not in DEVIATIONS:
            raise ValueError(f"compat: no deviation {name!r}, wanted some of {', '.join(DEVIATIONS)}")
        config = replace(config, **DEVIATIONS[name].change(config))
    return DeviatingUNet(config, tuple(compat))


class SingleConditioning(Conditioning):
    """Conditioning on waves whose every step is rounded to float32, in the order that PyTorch code usually has.

    exp, sin and cos are rounded from float64: libraries' own float32 ones differ from each other in the last bit.
    """

    def waves(self, c_noise):
        """[sin(t f), cos(t f)], f = exp(-ln(period) k/denominator), all in float32: t f is off by 2^-24 and more."""
        width, order, denominator, period = self.sinusoid
        xp, half = backend.of(c_noise=c_noise), width // 2
        k = xp.arange(half, dtype=np.float32)
        exponent = np.float32(-math.log(period)) * k / np.float32(half - (denominator == "half-1"))
        f = xp.exp(exponent.astype(np.float64)).astype(np.float32)
        phase = ((self.time_scale * c_noise).astype(np.float32)[:, None] * f).astype(np.float64)
        sin, cos = xp.sin(phase).astype(np.float32), xp.cos(phase).astype(np.float32)
        return xp.concatenate([sin, cos] if order == "sin_cos" else [cos, sin], axis=1), (sin, cos, f, order)


class DeviatingUNet(UNet):
    """A UNet with deviations of which some are no settings: of the time it is told and of attention's scores.

    A factor r of the scores q k^T is one of q, so of the first third of the columns of qkv: the network runs with
    theta' = r theta there, and dtheta = r dtheta'.
    """

    def __init__(self, config, compat):
        super().__init__(config)
        self.compat = compat
        found = [DEVIATIONS[name] for name in compat]
        self.later = sum(one.later for one in found)
        if any(one.single for one in found):
            self.conditioning = SingleConditioning(**vars(self.conditioning))
        self.factors = {}
        for block in (b for chain in (*self.down, self.mid, *self.up) for b in chain if hasattr(b, "qkv")):
            d = block.qkv.w.shape[0] // block.heads
            r = float(np.prod([one.scores(config, d) for one in found]))
            if r != 1.0:
                self.factors.update({block.qkv.w: r, block.qkv.b: r})

    def scale(self, theta):
        """theta with its columns of q multiplied by r in place; tangents likewise."""
        for handle, r in self.factors.items():
            theta[handle][..., :handle.shape[-1] // 3] *= r
        return theta

    def forward(self, theta, x, c_noise, labels=None, masks=None, keep=True):
        """F as of UNet, with the deviations."""
        return super().forward(self.scale(theta.copy()) if self.factors else theta, x, c_noise + self.later, labels,
                               masks, keep)

    def backward(self, saved, dF, grad, keep=True):
        """Adds d<F, dF>/dtheta into grad; returns d<F, dF>/dx. Without keep, saved is empty afterwards."""
        own = grad.zeros_like()
        dx = super().backward(saved, dF, own, keep)
        for handle in self.layout.handles.values():
            part = own[handle]
            if handle in self.factors:
                part = part.copy()
                part[..., :handle.shape[-1] // 3] *= self.factors[handle]
            grad[handle] += part
        return dx
