"""Layers: one op, its parameters, and where their gradients go.

    y, saved = layer.forward(theta, x)
    dx = layer.backward(saved, dy, grad)      # adds dw, db into grad under the handles of w, b

A layer is made on a Layout, which names its parameters, and holds handles only: student, teacher
and EMA target are one layer object and three thetas.
"""
from dataclasses import dataclass

from .. import backend
from ..ops.fast import conv2d, embedding, group_norm, linear, norm_silu, upsample_conv2d
from ..params import Handle
from . import init


@dataclass(frozen=True)
class Linear:
    """y = x w + b over the last axis."""

    w: Handle
    b: Handle

    @classmethod
    def make(cls, layout, name, c, d, w_init=init.fan_average):
        return cls(layout.add(f"{name}.w", (c, d), w_init), layout.add(f"{name}.b", (d,), init.zeros))

    def forward(self, theta, x):
        return linear.forward(x, theta[self.w], theta[self.b])

    def backward(self, saved, dy, grad):
        dx, dw, db = linear.backward(saved, dy)
        grad[self.w] += dw
        grad[self.b] += db
        return dx


@dataclass(frozen=True)
class Conv2d:
    """y = x * w + b: a k x k convolution of (n, h, w, c), or of that image doubled by repetition."""

    w: Handle
    b: Handle
    stride: int = 1
    pad: str = "same"
    doubled: bool = False

    @classmethod
    def make(cls, layout, name, k, c, d, stride=1, pad="same", doubled=False, w_init=init.fan_average):
        return cls(layout.add(f"{name}.w", (k, k, c, d), w_init), layout.add(f"{name}.b", (d,), init.zeros),
                   stride, pad, doubled)

    def forward(self, theta, x):
        if self.doubled:
            return upsample_conv2d.forward(x, theta[self.w], theta[self.b])
        return conv2d.forward(x, theta[self.w], theta[self.b], stride=self.stride, pad=self.pad)

    def backward(self, saved, dy, grad):
        dx, dw, db = (upsample_conv2d if self.doubled else conv2d).backward(saved, dy)
        grad[self.w] += dw
        grad[self.b] += db
        return dx


@dataclass(frozen=True)
class GroupNorm:
    """y = gamma xhat + beta, normalised per image and group of channels."""

    gamma: Handle
    beta: Handle
    groups: int
    eps: float

    @classmethod
    def make(cls, layout, name, c, groups, eps):
        return cls(layout.add(f"{name}.gamma", (c,), init.ones), layout.add(f"{name}.beta", (c,), init.zeros),
                   groups, eps)

    def forward(self, theta, x):
        return group_norm.forward(x, theta[self.gamma], theta[self.beta], groups=self.groups, eps=self.eps)

    def backward(self, saved, dy, grad):
        dx, dgamma, dbeta = group_norm.backward(saved, dy)
        grad[self.gamma] += dgamma
        grad[self.beta] += dbeta
        return dx


@dataclass(frozen=True)
class NormSiLU(GroupNorm):
    """y = SiLU((gamma xhat + beta)(1 + scale) + shift), xhat of x + e; e, scale and shift (n,c), or None for zeros."""

    def forward(self, theta, x, e=None, scale=None, shift=None):
        zero = backend.of(x=x).zeros((x.shape[0], x.shape[-1]), x.dtype)
        e, scale, shift = (zero if a is None else a for a in (e, scale, shift))
        return norm_silu.forward(x, e, theta[self.gamma], theta[self.beta], scale, shift,
                                 groups=self.groups, eps=self.eps)

    def backward(self, saved, dy, grad):
        """dx, de, dscale, dshift."""
        dx, de, dgamma, dbeta, dscale, dshift = norm_silu.backward(saved, dy)
        grad[self.gamma] += dgamma
        grad[self.beta] += dbeta
        return dx, de, dscale, dshift


@dataclass(frozen=True)
class Embedding:
    """y[n] = table[labels[n]]."""

    table: Handle

    @classmethod
    def make(cls, layout, name, rows, c, w_init):
        return cls(layout.add(f"{name}.table", (rows, c), w_init))

    def forward(self, theta, labels):
        return embedding.forward(theta[self.table], labels)

    def backward(self, saved, dy, grad):
        grad[self.table] += embedding.backward(saved, dy)
