"""What every sampler shares: the state it yields, where its noise comes from, and how to run it to the end.

A sampler is a generator over any denoiser, a callable (x, level) -> Prediction. Its noise is an argument: a callable
noise(step) -> an array like x, called once per stochastic step and never on the last.
"""
from collections import deque
from dataclasses import dataclass

from .. import backend
from ..process.level import Level
from ..process.parameterization import Prediction


@dataclass(frozen=True, eq=False)
class State:
    """After step `step`: x at `level`, and the prediction the step was made with (at the level before)."""

    step: int
    level: Level
    x: object
    prediction: Prediction


def run(sampler):
    """The last x of a sampler."""
    return deque(sampler, maxlen=1).pop().x


def noise_from(key, x):
    """The noise of a key: step -> standard normal draws of x's shape and dtype, step i's from key.fold("noise", i)."""
    return lambda step: key.fold("noise", step).normal(x.shape, x.dtype)


def check(name, x, noise, draws):
    """Refuse, before any work, an x that cannot be sampled from or a missing noise; draws: the number there will be."""
    if x.dtype.kind != "f":
        raise ValueError(f"{name}: x is {x.dtype}, wanted float64 or float32 noise to start from")
    if draws > 0 and noise is None:
        raise ValueError(f"{name}: {draws} steps draw noise and none was given; pass noise=noise_from(key, x), "
                         "a callable step -> array like x")


def draw(name, noise, step, x):
    """noise(step), refused unless it is an array like x: a smaller one would give all rows the same draw."""
    z = noise(step)
    backend.of(x=x, noise=z)
    if z.shape != x.shape or z.dtype != x.dtype:
        raise ValueError(f"{name}: noise({step}) is {z.dtype} {z.shape}, wanted {x.dtype} {x.shape}, like x")
    return z
