"""From a gradient to the next theta: AdamW, the learning rate's course, clipping, and the moving average.

Everything works in place on flat vectors of one dtype, and element by element, so the same inputs give the same
bits on every run; `step` always counts the updates already done, 0, 1, 2, ... On the host a formula is worked out for
BLOCK elements at a time, which stay in the cache from its first step to its last.

    optimiser = AdamW(lr=4e-3, beta2=.99)
    state = optimiser.init(theta.flat)
    norm = clip_by_global_norm(grad.flat, 1.)
    optimiser.update(state, theta.flat, grad.flat, learning_rate(state.step, 3000, 4e-3, warmup=100))
    ema_update(ema.flat, theta.flat, ema_decay(state.step - 1, .999))
"""
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import backend
from .ops.fast.device import adamw_step


def _same_kind(where, **arrays):
    """The array module, after checking that all are vectors of one shape and one floating dtype."""
    xp = backend.of(**arrays)
    (first, x), *others = arrays.items()
    if x.dtype.kind != "f" or x.ndim != 1:
        raise ValueError(f"{where}: {first} is {x.dtype} of shape {x.shape}, wanted a flat vector of floats")
    for name, y in others:
        if y.shape != x.shape or y.dtype != x.dtype:
            raise ValueError(f"{where}: {name} is {y.dtype} of shape {y.shape}, wanted {first}'s {x.dtype} {x.shape}; "
                             "all vectors of one network share its layout and dtype")
    return xp


BLOCK = 1 << 15


def block_size(vector):
    """How many elements to take at a time: BLOCK, or on a device all of them."""
    return BLOCK if backend.of(vector=vector) is np else max(1, len(vector))


def _blocks(*vectors):
    """The same elements of every vector, a block at a time."""
    size = block_size(vectors[0])
    return ([a[i:i + size] for a in vectors] for i in range(0, len(vectors[0]), size))


@dataclass
class AdamState:
    """The running moments of the gradient, shaped as theta, and the number of updates done."""

    m: Any
    v: Any
    step: int = 0


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay; with weight_decay = 0, Adam. [ADAM alg. 1]

        m <- beta1 m + (1 - beta1) g             mhat = m / (1 - beta1^t)
        v <- beta2 v + (1 - beta2) g^2           vhat = v / (1 - beta2^t)          t = 1, 2, ...
        theta <- theta - lr_t mhat / (sqrt(vhat) + eps) - d_t theta
               = (1 - d_t) theta - lr_t r/(1 - beta1^t) m / (sqrt(v) + eps r),     r = sqrt(1 - beta2^t)

    [ADAMW alg. 2], where lr_t = eta_t lr. Its decay is d_t = eta_t weight_decay: changing lr does
    not change it. Most frameworks use d_t = lr_t weight_decay instead; ask for that by decay="rate".

    lr: the schedule's peak, > 0; beta1, beta2 in [0, 1); eps > 0, in the gradient's unit; weight_decay >= 0.
    Every parameter decays. Raises ValueError for values out of range.
    """

    lr: float = 1e-3
    beta1: float = .9
    beta2: float = .999
    eps: float = 1e-8
    weight_decay: float = 0.
    decay: str = "paper"

    def __post_init__(self):
        for name, good, wanted in (("lr", 0 < self.lr < math.inf, "a number > 0"),
                                   ("beta1", 0 <= self.beta1 < 1, "0 <= beta1 < 1"),
                                   ("beta2", 0 <= self.beta2 < 1, "0 <= beta2 < 1"),
                                   ("eps", 0 < self.eps < math.inf, "a number > 0"),
                                   ("weight_decay", 0 <= self.weight_decay < math.inf, "a number >= 0"),
                                   ("decay", self.decay in ("paper", "rate"), "'paper' or 'rate'")):
            if not good:
                raise ValueError(f"AdamW: {name} is {getattr(self, name)!r}, wanted {wanted}")

    def init(self, theta):
        """The state before the first update: zero moments."""
        xp = _same_kind("AdamW.init", theta=theta)
        return AdamState(xp.zeros_like(theta), xp.zeros_like(theta))

    def update(self, state, theta, grad, lr=None):
        """One update of theta and of the state, in place. lr is this step's rate lr_t; None: self.lr."""
        xp = _same_kind("AdamW.update", theta=theta, grad=grad, m=state.m, v=state.v)
        lr = self.lr if lr is None else float(lr)
        if backend.kernels(theta):
            adamw_step(self, state.step, theta, state.m, state.v, grad, lr)
            state.step += 1
            return
        state.step += 1
        t, r = state.step, math.sqrt(1 - self.beta2 ** state.step)
        for theta, grad, m, v in _blocks(theta, grad, state.m, state.v):
            m *= self.beta1
            m += (term := (1 - self.beta1) * grad)
            v *= self.beta2
            xp.multiply(grad, 1 - self.beta2, out=term)
            term *= grad
            v += term
            root = xp.sqrt(v)
            root += self.eps * r
            xp.divide(m, root, out=term)
            term *= lr * r / (1 - self.beta1 ** t)
            if self.weight_decay:
                theta *= 1 - self.weight_decay * (lr if self.decay == "rate" else lr / self.lr)
            theta -= term


def learning_rate(step, steps, peak, warmup=0, floor=0.):
    """The rate of update number `step` (from 0): linear warm-up, then half a cosine. [SGDR eq. 5]

        step < warmup:   peak (step + 1) / warmup
        after:           floor + (peak - floor) (1 + cos(pi s)) / 2,     s = (step - warmup) / (steps - warmup)

    The first update already moves (a rate of 0 would waste it); `floor` is reached at step = steps, one after the
    last update. warmup in 0..steps; 0 <= floor <= peak. Raises ValueError outside those and outside 0 <= step <= steps.
    """
    if not 0 <= step <= steps:
        raise ValueError(f"learning_rate: step is {step}, wanted 0..{steps} (steps = {steps})")
    if not 0 <= warmup <= steps:
        raise ValueError(f"learning_rate: warmup is {warmup}, wanted 0..{steps} (steps = {steps})")
    if not 0 <= floor <= peak:
        raise ValueError(f"learning_rate: floor is {floor} and peak {peak}, wanted 0 <= floor <= peak")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step == steps:
        return float(floor)
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def clip_by_global_norm(grad, max_norm=math.inf):
    """grad <- grad min(1, max_norm / |grad|), in place; returns |grad| as it was. [PASCANU alg. 1]

    The norm is summed in float64. One that is NaN or infinite is returned and grad left alone: no factor mends such a
    gradient, and the caller has to see it. max_norm > 0; inf only measures. Raises ValueError otherwise.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_by_global_norm: max_norm is {max_norm}, wanted a number > 0 (inf: only measure)")
    xp = _same_kind("clip_by_global_norm", grad=grad)
    wide = (part.astype(xp.float64) for part, in _blocks(grad))
    norm = math.sqrt(sum(float(part @ part) for part in wide))
    if max_norm < norm < math.inf:
        grad *= max_norm / norm
    return norm


def ema_update(ema, theta, decay):
    """ema <- decay ema + (1 - decay) theta, in place [CM eq. 8]. decay in [0, 1]: 0 copies theta, 1 keeps ema.

    Raises ValueError for another decay.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"ema_update: decay is {decay}, wanted 0 <= decay <= 1")
    _same_kind("ema_update", ema=ema, theta=theta)
    for ema, theta in _blocks(ema, theta):
        ema *= float(decay)
        ema += (1 - float(decay)) * theta


def ema_decay(step, decay, warmup=True):
    """The decay of moving-average update number `step` (from 0): min(decay, (1 + step) / (10 + step)).

    The early average would otherwise remember the random start for 1 / (1 - decay) updates. Without warm-up: decay,
    the fixed one of the DDPM code. Raises ValueError for step < 0 or decay outside [0, 1].
    """
    if step < 0 or not 0 <= decay <= 1:
        raise ValueError(f"ema_decay: step is {step} and decay {decay}, wanted step >= 0 and 0 <= decay <= 1")
    return min(decay, (1 + step) / (10 + step)) if warmup else decay
