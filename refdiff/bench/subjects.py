"""The single operations that are timed, at the sizes that the networks have, and the points of the sweep.

A Subject is sizes and numbers of operations; ops.py and theirs_ops.py compute it, each in its own way.
"""
from dataclasses import dataclass, field

import numpy as np

from ..models.unet import UNetConfig
from ..nn.blocks import ResBlock
from ..params import Layout
from ..rng import Key

BOTH = ("forward", "backward")


@dataclass(frozen=True)
class Subject:
    """One operation: family names its formula, sizes its shapes."""

    network: str
    name: str
    family: str
    sizes: dict
    kind: str = "op"
    directions: tuple = BOTH
    facts: dict = field(default_factory=dict)       # what its rows say besides

    @property
    def label(self):
        """The name that contenders know it by."""
        return f"{self.network} {self.name}"

    @property
    def shared(self):
        """Names of what all rows have in common, as weights; the other arrays have a row per image."""
        return {*SHARED.get(self.family, ()), *self.weights}

    @property
    def weights(self):
        """Names of parameters that are no input: those of a ResBlock."""
        return tuple(res_block(self)[1].layout.handles) if self.family == "res_block" else ()

    def arrays(self):
        """{name: float32 array} in refdiff's layouts, inputs first; "dy" is the cotangent."""
        shapes, key = SHAPES[self.family](**self.sizes), Key(0).fold(self.name)
        return {name: key.fold(name).normal(shape, np.float32) * (len(shape) > 3 or 0.1)
                for name, shape in shapes.items()}

    def flops(self, direction):
        """Multiplications and additions by the textbook's formula, or None where memory is what counts."""
        if self.family not in FLOPS:
            return None
        forward = FLOPS[self.family](**self.sizes)
        return {"forward": forward, "backward": 2 * forward}.get(direction, 3 * forward)


def _conv(n, size, c, d, k=3, stride=1):
    return {"x": (n, size, size, c), "w": (k, k, c, d), "b": (d,), "dy": (n, size // stride, size // stride, d)}


SHAPES = {
    "conv": _conv,
    "norm_silu": lambda n, size, c, groups: {"x": (n, size, size, c), "gamma": (c,), "beta": (c,),
                                             "dy": (n, size, size, c)},
    "attention": lambda n, t, heads, d: {name: (n, t, heads, d) for name in ("q", "k", "v", "dy")},
    "linear": lambda n, t, c, d: {"x": (n, t, c), "w": (c, d), "b": (d,), "dy": (n, t, d)},
    "upsample": lambda n, size, c: {"x": (n, size, size, c), "dy": (n, 2 * size, 2 * size, c)},
    "concat": lambda n, size, c, d: {"a": (n, size, size, c), "b": (n, size, size, d), "dy": (n, size, size, c + d)},
    "adamw": lambda size: {"theta": (size,), "grad": (size,)},
    "ema": lambda size: {"theta": (size,), "grad": (size,)},
    "res_block": lambda n, size, c, groups: {"x": (n, size, size, c), "emb": (n, 4 * c),
                                             "dy": (n, size, size, c)},
}
SHARED = {"conv": ("w", "b"), "linear": ("w", "b"), "norm_silu": ("gamma", "beta")}
FLOPS = {
    "conv": lambda n, size, c, d, k=3, stride=1: 2 * n * (size // stride) ** 2 * k * k * c * d,
    "attention": lambda n, t, heads, d: 4 * n * heads * t * t * d,
    "linear": lambda n, t, c, d: 2 * n * t * c * d,
    "res_block": lambda n, size, c, groups: 2 * 2 * n * size * size * 9 * c * c,
}


def _convs(network, n, *sizes):
    return [Subject(network, f"conv {k}x{k} {c}->{d}{f' /{stride}' * (stride > 1)}, {size}x{size}", "conv",
                    dict(n=n, size=size, c=c, d=d, k=k, stride=stride)) for size, c, d, k, stride in sizes]


def _others(network, n, groups, norms, attentions, linears, parameters):
    return [*(Subject(network, f"norm+silu {c}, {size}x{size}", "norm_silu", dict(n=n, size=size, c=c, groups=groups))
              for size, c in norms),
            *(Subject(network, f"attention {t} tokens, {d}", "attention", dict(n=n, t=t, heads=1, d=d))
              for t, d in attentions),
            *(Subject(network, f"linear {c}->{d}, {t} tokens", "linear", dict(n=n, t=t, c=c, d=d))
              for t, c, d in linears),
            Subject(network, f"AdamW, {parameters / 1e6:.1f}M", "adamw", dict(size=parameters), directions=("step",)),
            Subject(network, f"EMA, {parameters / 1e6:.1f}M", "ema", dict(size=parameters), directions=("step",))]


UNET64 = [*_convs("unet64", 32, (32, 3, 64, 3, 1), (32, 64, 64, 3, 1), (32, 192, 64, 3, 1), (32, 128, 128, 3, 1),
                  (16, 64, 128, 3, 1), (16, 128, 128, 3, 1), (16, 256, 128, 3, 1), (8, 128, 128, 3, 1),
                  (32, 64, 64, 3, 2), (32, 192, 64, 1, 1), (32, 64, 3, 3, 1)),
          *_others("unet64", 32, 32, ((32, 64), (32, 192), (16, 128), (8, 128)), ((256, 128), (64, 128)),
                   ((256, 128, 384),), 4_359_683),
          Subject("unet64", "upsample 128, 16x16", "upsample", dict(n=32, size=16, c=128)),
          Subject("unet64", "concat 128+64, 32x32", "concat", dict(n=32, size=32, c=128, d=64))]
CIFAR = [*_convs("ddpm-cifar10", 8, (32, 128, 128, 3, 1), (32, 256, 128, 3, 1), (16, 256, 256, 3, 1),
                 (16, 512, 256, 3, 1), (8, 256, 256, 3, 1), (4, 512, 256, 3, 1)),
         *_others("ddpm-cifar10", 8, 32, ((32, 128), (16, 256)), ((256, 256),), (), 35_746_307)]
DEMO = [*_convs("demo", 128, (8, 1, 16, 3, 1), (8, 16, 16, 3, 1), (4, 32, 32, 3, 1), (8, 48, 16, 3, 1)),
        *_others("demo", 128, 8, ((8, 16), (4, 32)), ((16, 32),), ((16, 32, 96),), 81_297)]
QUICK = ("conv 3x3 64->64, 32x32", "conv 3x3 128->128, 16x16", "norm+silu 64, 32x32", "attention 256 tokens, 128",
         "AdamW, 4.4M", "conv 3x3 16->16, 8x8")

SGEMM = {"cpu": 1024, "cuda": 8192}             # rows of the square product that tells the machine's peak

CHANNELS, SIZES = (16, 32, 64, 128, 256), (8, 16, 32, 64)


def sweep(channels=CHANNELS, sizes=SIZES):
    """Residual blocks c -> c: forward and backward, images enough for a million entries, 2 to 128."""
    return [Subject("sweep", f"ResBlock {c}, {size}x{size}", "res_block",
                    dict(n=min(128, max(2, 2 ** 20 // (c * size * size))), size=size, c=c, groups=min(32, c // 2)),
                    kind="sweep", directions=("both",), facts={"channels": c, "size": size})
            for c in channels for size in sizes]


def subjects(part, quick=False):
    """The Subjects of a part: "ops" or "sweep"."""
    if part == "sweep":
        return sweep((16, 256), (8, 32)) if quick else sweep()
    every = UNET64 + CIFAR + DEMO
    return [s for s in every if s.name in QUICK] if quick else every


def find(kind):
    """(Subject, direction) of "LABEL: DIRECTION"."""
    label, _, direction = kind.rpartition(": ")
    return next(s for s in [*UNET64, *CIFAR, *DEMO, *sweep()] if s.label == label), direction


def res_block(subject):
    """(block, theta) of a family "res_block": c -> c, told an emb of 4 c, without dropout."""
    c, groups, layout = subject.sizes["c"], subject.sizes["groups"], Layout()
    block = ResBlock.make(layout, "res", c, c, 4 * c, subject.sizes["size"],
                          UNetConfig(channels=c, groups=groups, attention=(), zero_init=False))
    return block, layout.init(Key(0).fold("res_block"))
