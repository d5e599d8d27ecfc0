"""What every sampler shares: the state it yields, where its noise comes from, and how to run it to the end.

A sampler is a generator over any denoiser, a callable (x, level) -> Prediction. Its noise is an argument: a callable
noise(step) -> an array like x, called once per stochastic step and never on the last.
"""
import math
import sys
from collections import deque
from dataclasses import dataclass
from numbers import Integral, Real

from .. import backend
from ..process.level import Level
from ..process.parameterization import Prediction


class NotFinite(FloatingPointError):
    """x has left the finite numbers: a sampler returns a finite result or an error, never NaN."""


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


def check(name, denoiser, x, noise, draws):
    """Refuse, before any work, an x that cannot be sampled from or a missing noise; draws: the number there will be.

    Returns the denoiser as the sampler is to ask it: what it returns must be a Prediction.
    """
    check_start(name, x, noise, draws)

    def asked(x, level):
        prediction = denoiser(x, level)
        if not isinstance(prediction, Prediction):
            raise ValueError(f"{name}: the denoiser returned {_said(prediction)} at t = {level.t}, wanted a "
                             "Prediction, as Prediction('x0', value, x, level)")
        return prediction

    return asked


def check_start(name, x, noise, draws):
    """The half of `check` that is about x and its noise."""
    if getattr(getattr(x, "dtype", None), "kind", None) != "f" or x.ndim == 0:
        raise ValueError(f"{name}: x is {_said(x)}, wanted an array of rows, float64 or float32 noise to start from")
    if not bool(backend.of(x=x).isfinite(x).all()):
        raise NotFinite(f"{name}: x is not finite before the first step")
    if draws > 0 and noise is None:
        raise ValueError(f"{name}: {draws} steps draw noise and none was given; pass noise=noise_from(key, x), "
                         "a callable step -> array like x")
    if draws > 0 and not callable(noise):
        raise ValueError(f"{name}: noise is {_said(noise)}, wanted a callable step -> array like x")


def draw(name, noise, step, x):
    """noise(step), refused unless it is an array like x: a smaller one would give all rows the same draw."""
    z = noise(step)
    backend.of(x=x, noise=z)
    if z.shape != x.shape or z.dtype != x.dtype:
        raise ValueError(f"{name}: noise({step}) is {z.dtype} {z.shape}, wanted {x.dtype} {x.shape}, like x")
    return z


def after(name, step, level, x, prediction):
    """The State after a step, or NotFinite. Where x lives on a device this waits for the step: once each, no more."""
    if not bool(backend.of(x=x).isfinite(x).all()):
        raise NotFinite(f"{name}: x is not finite after step {step}, from t = {prediction.level.t} to t = {level.t}: "
                        "the denoiser (or the noise) is not, or a step is too long for it")
    return State(step, level, x, prediction)


# ---- options

def _said(value):
    dtype = getattr(value, "dtype", None)
    return f"{type(value).__name__}" if dtype is None else f"{dtype} {value.shape}"


def number(name, value, low=-math.inf, high=math.inf, finite=True):
    """value as a Python float; ValueError unless it is a number in low..high, both included, and finite if so asked."""
    good = isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high
    if not good or not (abs(value) <= sys.float_info.max or abs(value) == math.inf and not finite):
        ends = f" >= {low:g}" if high == math.inf else f" in {low:g}..{high:g}"
        raise ValueError(f"{name} is {value!r}, wanted a {'finite ' * finite}number" + ends * (low > -math.inf))
    return float(value)


def integer(name, value, low, high=math.inf):
    """value as a Python int; ValueError unless it is an integer, numpy's too but no bool, in low..high."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, wanted an integer " + (
            f">= {low}" if high == math.inf else f"in {low}..{high}"))
    return int(value)


def one_of(name, value, names):
    """value; ValueError unless it is one of the names."""
    if not (isinstance(value, str) and value in names):
        raise ValueError(f"{name} is {value!r}, wanted one of {', '.join(names)}")
    return value
