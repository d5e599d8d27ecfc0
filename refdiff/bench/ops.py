"""refdiff's side of single operations: a subject over parts of its batch, one per thread, as training does it."""
import numpy as np

from .. import backend
from ..ops import fast
from ..optim import AdamW, ema_update
from ..parallel import slices
from ..rng import Key
from .ours import BETAS, DECAY, EMA, LR
from .subjects import SGEMM, find, res_block
from .task import Task, side_by_side, synchronise


class NormSilu:
    """SiLU(GroupNorm(x)): norm_silu without a time embedding."""

    @staticmethod
    def forward(x, gamma, beta, groups):
        none = np.zeros((len(x), x.shape[3]), x.dtype)
        return fast.norm_silu.forward(x, none, gamma, beta, none, none, groups=groups)

    @staticmethod
    def backward(saved, dy):
        dx, _, dgamma, dbeta, *_ = fast.norm_silu.backward(saved, dy)
        return dx, dgamma, dbeta


class Block:
    """A ResBlock without dropout; its weights are of one theta, and every part has a gradient of its own."""

    def __init__(self, subject):
        self.block, self.theta = res_block(subject)

    def forward(self, x, emb):
        return self.block.forward(self.theta, x, emb)

    def backward(self, saved, dy):
        grad = self.theta.zeros_like()
        return (*self.block.backward(saved, dy, grad), *(grad[name] for name in self.theta.layout.handles))


def operation(subject):
    """(op, options): what has forward(*inputs, **options) and backward(saved, dy)."""
    sizes = subject.sizes
    if subject.family == "res_block":
        return Block(subject), {}
    if subject.family == "conv":
        return fast.conv2d, {"stride": sizes["stride"], "pad": "ddpm" if sizes["stride"] > 1 else "same"}
    if subject.family == "norm_silu":
        return NormSilu, {"groups": sizes["groups"]}
    return getattr(fast, subject.family), {}


class Ours:
    """Tasks by name: "NETWORK OPERATION: direction", or "sgemm"."""

    def __init__(self, workers):
        self.workers = workers

    def task(self, kind):
        if kind == "sgemm":
            return sgemm(self.workers)
        subject, direction = find(kind)
        return update(subject) if subject.family in ("adamw", "ema") else self.op(subject, direction)

    def op(self, subject, direction):
        op, options = operation(subject)
        arrays = subject.arrays()
        parts = [{name: a if name in subject.shared else a[rows] for name, a in arrays.items()}
                 for rows in slices(subject.sizes["n"], self.workers.threads)]
        dys = [part.pop("dy") for part in parts]
        names = [*parts[0], *subject.weights]

        def forward(i):
            return op.forward(*parts[i].values(), **options)

        saved = [forward(i)[1] for i in range(len(parts))]

        def backward(i):
            return op.backward(saved[i], dys[i])

        def both(i):
            return op.backward(forward(i)[1], dys[i])

        run = {"forward": forward, "backward": backward, "both": both}[direction]

        def answers():
            found = [run(i) for i in range(len(parts))]
            if direction == "forward":
                return {"y": np.concatenate([y for y, _ in found])}
            found = zip(*(g if isinstance(g, tuple) else (g,) for g in found))
            return {name: np.concatenate(gs) if name in parts[0] and name not in subject.shared else sum(gs)
                    for name, gs in zip(names, found)}

        return Task(side_by_side(self.workers, run, len(parts)), answers)


def update(subject):
    """A step of AdamW or of the moving average on a vector."""
    theta, grad = subject.arrays().values()
    if subject.family == "ema":
        ema = theta.copy()
        return Task(lambda: ema_update(ema, grad, EMA), dict)
    optimiser = AdamW(LR, *BETAS, weight_decay=LR * DECAY)
    state = optimiser.init(theta)
    return Task(lambda: optimiser.update(state, theta, grad), dict)


def sgemm(workers):
    """A square product per thread: the machine's peak, as refdiff's BLAS reaches it."""
    n = SGEMM["cpu" if backend.name() == "numpy" else "cuda"]
    a = Key(0).normal((n, n), np.float32)
    step = side_by_side(workers, lambda i: backend.product(a, a), workers.threads)
    return Task(lambda: (step(), synchronise()), dict)
