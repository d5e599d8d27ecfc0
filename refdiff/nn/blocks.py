"""Blocks of the U-Net: residual block, attention, down- and upsampling. Backward in mirror order.

All share one contract, so that the U-Net is a list of them:

    y, saved = block.forward(theta, x, emb, mask)
    dx, demb = block.backward(saved, dy, grad)          # dx is a new array

emb (n, width) is the conditioning, mask the dropout mask of the block or None. A block that does not
look at emb returns demb = 0.
"""
from dataclasses import dataclass
from operator import iadd

from ..backend import concatenate
from ..ops.fast import add, attention, avg_pool, dropout, upsample
from . import init
from .layers import Conv2d, GroupNorm, Linear, NormSiLU


@dataclass(frozen=True)
class ResBlock:
    """x -> shortcut(x) + conv2(drop(SiLU(norm2(conv1(SiLU(norm1(x))) <- emb)))).

    "<- emb" is + W emb (the DDPM's) or norm2(h) (1 + scale) + shift with (scale, shift) = W emb (scale_shift
    [ADM sec. 3.1]). resample "down" (average 2x2) or "up" (nearest x2) acts on both branches before conv1.
    """

    norm1: NormSiLU
    conv1: Conv2d
    time: Linear
    norm2: NormSiLU
    conv2: Conv2d
    shortcut: Conv2d            # 1x1, or None where the channels stay
    scale_shift: bool
    resample: object            # the op avg_pool or upsample, or None
    width: int                  # output channels
    size: int                   # output height and width: what a dropout mask has to fit

    @classmethod
    def make(cls, layout, name, c, d, emb, size, config, resample=None):
        def norm(part, channels):
            return NormSiLU.make(layout, f"{name}.{part}", channels, config.groups, config.norm_eps)
        return cls(norm("norm1", c),
                   Conv2d.make(layout, f"{name}.conv1", 3, c, d),
                   Linear.make(layout, f"{name}.time", emb, 2 * d if config.scale_shift else d),
                   norm("norm2", d),
                   Conv2d.make(layout, f"{name}.conv2", 3, d, d,
                               w_init=init.zeros if config.zero_init else init.fan_average),
                   Conv2d.make(layout, f"{name}.shortcut", 1, c, d) if c != d else None,
                   config.scale_shift, {None: None, "down": avg_pool, "up": upsample}[resample], d, size)

    def forward(self, theta, x, emb, mask=None):
        h, s_norm1 = self.norm1.forward(theta, x)
        s_res = None
        if self.resample:
            h, s_res = self.resample.forward(h)
            x, _ = self.resample.forward(x)
        h, s_conv1 = self.conv1.forward(theta, h)
        e, s_time = self.time.forward(theta, emb)                               # (n, d) or (n, 2d)
        told = (None, e[:, :self.width], e[:, self.width:]) if self.scale_shift else (e,)
        h, s_norm2 = self.norm2.forward(theta, h, *told)
        s_drop = None
        if mask is not None:
            h, s_drop = dropout.forward(h, mask)
        h, s_conv2 = self.conv2.forward(theta, h)
        s_short = None
        if self.shortcut:
            x, s_short = self.shortcut.forward(theta, x)
        y, s_add = add.forward(x, h)
        return y, (s_norm1, s_res, s_conv1, s_time, s_norm2, s_drop, s_conv2, s_short, s_add)

    def backward(self, saved, dy, grad):
        s_norm1, s_res, s_conv1, s_time, s_norm2, s_drop, s_conv2, s_short, s_add = saved
        dx, dh = add.backward(s_add, dy)
        if self.shortcut:
            dx = self.shortcut.backward(s_short, dx, grad)
        dh = self.conv2.backward(s_conv2, dh, grad)
        if s_drop is not None:
            dh = dropout.backward(s_drop, dh)
        dh, de, dscale, dshift = self.norm2.backward(s_norm2, dh, grad)
        demb = self.time.backward(s_time, concatenate((dscale, dshift)) if self.scale_shift else de, grad)
        dh = self.conv1.backward(s_conv1, dh, grad)
        if self.resample:
            dh = self.resample.backward(s_res, dh)
            dx = self.resample.backward(s_res, dx)
        return iadd(self.norm1.backward(s_norm1, dh, grad)[0], dx), demb


@dataclass(frozen=True)
class AttentionBlock:
    """x -> x + proj(attention(q, k, v)), (q, k, v) = linear(norm(x)); every pixel is a token."""

    norm: GroupNorm
    qkv: Linear                 # channels of the output in the order (q | k | v), heads within each
    proj: Linear
    heads: int

    @classmethod
    def make(cls, layout, name, c, config):
        heads = max(1, c // config.head_channels) if config.head_channels else config.heads
        if c != heads * (config.head_channels or c // heads):
            parts = f"heads of {config.head_channels} channels" if config.head_channels else f"{heads} heads"
            raise ValueError(f"attention {name}: {c} channels do not divide into {parts}")
        return cls(GroupNorm.make(layout, f"{name}.norm", c, config.groups, config.norm_eps),
                   Linear.make(layout, f"{name}.qkv", c, 3 * c),
                   Linear.make(layout, f"{name}.proj", c, c,
                               w_init=init.zeros if config.zero_init else init.fan_average), heads)

    def forward(self, theta, x, emb=None, mask=None):
        n, h, w, c = x.shape
        y, s_norm = self.norm.forward(theta, x)
        y, s_qkv = self.qkv.forward(theta, y.reshape(n, h * w, c))
        y = y.reshape(n, h * w, 3, self.heads, c // self.heads)
        o, s_att = attention.forward(y[:, :, 0], y[:, :, 1], y[:, :, 2])        # (n, t, heads, d)
        o, s_proj = self.proj.forward(theta, o.reshape(n, h * w, c))
        y, s_add = add.forward(x, o.reshape(x.shape))
        return y, (s_norm, s_qkv, s_att, s_proj, s_add)

    def backward(self, saved, dy, grad):
        s_norm, s_qkv, s_att, s_proj, s_add = saved
        n, h, w, c = dy.shape
        dx, do = add.backward(s_add, dy)
        do = self.proj.backward(s_proj, do.reshape(n, h * w, c), grad)
        dqkv = attention.backward(s_att, do.reshape(n, h * w, self.heads, c // self.heads))
        dh = self.qkv.backward(s_qkv, concatenate([d.reshape(n, h * w, c) for d in dqkv]), grad)
        return iadd(self.norm.backward(s_norm, dh.reshape(dy.shape), grad), dx), 0


@dataclass(frozen=True)
class Resample:
    """Another size of the image by a 3x3 convolution."""

    conv: Conv2d

    def forward(self, theta, x, emb=None, mask=None):
        return self.conv.forward(theta, x)

    def backward(self, saved, dy, grad):
        return self.conv.backward(saved, dy, grad), 0


class Downsample(Resample):
    """Halve the image by a strided 3x3 convolution."""

    @classmethod
    def make(cls, layout, name, c, config):
        return cls(Conv2d.make(layout, f"{name}.conv", 3, c, c, stride=2, pad=config.down_pad))


class Upsample(Resample):
    """Double the image by repetition, then a 3x3 convolution."""

    @classmethod
    def make(cls, layout, name, c):
        return cls(Conv2d.make(layout, f"{name}.conv", 3, c, c, doubled=True))
