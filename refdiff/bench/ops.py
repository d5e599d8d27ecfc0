"""refdiff's side of single operations: a subject over parts of its batch, one per thread, as training does it."""
import numpy as np

from ..ops import fast
from ..optim import AdamW, ema_update
from ..parallel import slices
from .ours import BETAS, DECAY, EMA, LR
from .subjects import find, res_block
from .task import Task


class NormSilu:
    """SiLU(GroupNorm(x)), by two operations."""

    @staticmethod
    def forward(x, gamma, beta, groups):
        h, s_norm = fast.group_norm.forward(x, gamma, beta, groups=groups)
        y, s_silu = fast.silu.forward(h)
        return y, (s_norm, s_silu)

    @staticmethod
    def backward(saved, dy):
        return fast.group_norm.backward(saved[0], fast.silu.backward(saved[1], dy))


class Block:
    """A ResBlock without dropout; its weights are of one theta, and every part has a gradient of its own."""

    def __init__(self, subject):
        self.block, self.theta, self.emb = res_block(subject)

    def forward(self, x):
        return self.block.forward(self.theta, x, self.emb[:len(x)])

    def backward(self, saved, dy):
        grad = self.theta.zeros_like()
        return (self.block.backward(saved, dy, grad)[0], *(grad[name] for name in self.theta.layout.handles))


def operation(subject):
    """(op, options): what has forward(*inputs, **options) and backward(saved, dy)."""
    sizes = subject.sizes
    if subject.family == "res_block":
        return Block(subject), {}
    if subject.family == "conv":
        return fast.conv2d, {"stride": sizes["stride"], "pad": "ddpm" if sizes["stride"] > 1 else "same"}
    if subject.family == "norm_silu":
        return getattr(fast, "norm_silu", NormSilu), {"groups": sizes["groups"]}
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

        return Task(lambda: self.workers.map(run, range(len(parts))), answers)


def update(subject):
    """A step of AdamW or of the moving average on a vector."""
    theta, grad = subject.arrays().values()
    if subject.family == "ema":
        ema = theta.copy()
        return Task(lambda: ema_update(ema, grad, EMA), dict)
    optimiser = AdamW(LR, *BETAS, weight_decay=LR * DECAY)
    state = optimiser.init(theta)
    return Task(lambda: optimiser.update(state, theta, grad), dict)


def sgemm(workers, n=1024):
    """A square product per thread: the machine's peak, as refdiff's BLAS reaches it."""
    a = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    out = [np.empty_like(a) for _ in range(workers.threads)]
    return Task(lambda: workers.map(lambda y: np.matmul(a, a, out=y), out), dict)
