"""What the network is told besides the image: the noise level and the class.

    emb = SiLU(W2 SiLU(W1 sinusoid(scale c_noise) + b1) + b2 + table[label])

Every block applies a Linear of its own to emb. The last row of the table is the null class, used
where a label was dropped or is not known: it makes the network unconditional. A network without one
wants every label.
"""
from dataclasses import dataclass

from .. import backend
from ..ops.fast import silu, sinusoid
from . import init
from .layers import Embedding, Linear


@dataclass(frozen=True)
class Conditioning:
    """(c_noise (n,), labels (n,) or None) -> emb (n, width)."""

    linear1: Linear
    linear2: Linear
    table: Embedding
    classes: int
    null: bool
    sinusoid: tuple         # (width, order, denominator, period)
    time_scale: float

    @classmethod
    def make(cls, layout, name, channels, width, classes, null, order, denominator, period, time_scale):
        return cls(Linear.make(layout, f"{name}.linear1", channels, width),
                   Linear.make(layout, f"{name}.linear2", width, width),
                   Embedding.make(layout, f"{name}.label", classes + null, width, init.normal(0.02))
                   if classes else None, classes, null, (channels, order, denominator, period), time_scale)

    def waves(self, c_noise):
        """sin and cos of the scaled c_noise, (n, channels)."""
        return sinusoid.forward(self.time_scale * c_noise, *self.sinusoid)

    def forward(self, theta, c_noise, labels):
        wave, s0 = self.waves(c_noise)
        h, s1 = self.linear1.forward(theta, wave.astype(theta.flat.dtype, copy=False))
        h, s2 = silu.forward(h)
        h, s3 = self.linear2.forward(theta, h)
        s4 = None
        if self.classes:
            if labels is None:
                if not self.null:
                    raise ValueError(f"labels are None, but this network has no null class; give each row one of 0.."
                                     f"{self.classes - 1}")
                labels = backend.of(c_noise=c_noise).full(c_noise.shape[0], self.classes)
            row, s4 = self.table.forward(theta, labels)
            h = h + row
        elif labels is not None:
            raise ValueError("labels were given to a network without classes; make it with classes=..., or pass None")
        emb, s5 = silu.forward(h)
        return emb, (s0, s1, s2, s3, s4, s5)

    def backward(self, saved, demb, grad):
        """Adds the parameters' gradients; returns dc_noise."""
        s0, s1, s2, s3, s4, s5 = saved
        dh = silu.backward(s5, demb)
        if self.classes:
            self.table.backward(s4, dh, grad)
        dh = self.linear2.backward(s3, dh, grad)
        dh = silu.backward(s2, dh)
        dwave = self.linear1.backward(s1, dh, grad)
        return self.time_scale * sinusoid.backward(s0, dwave)
