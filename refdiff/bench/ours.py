"""refdiff's side of a network: the whole product path of a training step and of a sampling step."""
import itertools

import numpy as np

from .. import backend
from ..fit import TrainConfig
from ..process.grids import Grid
from ..samplers import run
from ..samplers.ddim import ddim
from ..steps import Steps
from ..train import DenoisingObjective
from .gemms import gemm_task
from .networks import NETWORKS, problem
from .task import Task, synchronise

# AdamW as PyTorch's defaults are, but for the rate: at 1e-3 the weights would leave their start within the rounds.
# PyTorch multiplies its decay by the rate, the paper and refdiff do not.
LR, BETAS, DECAY, EMA = 1e-5, (0.9, 0.999), 1e-2, 0.999


def sampling_grid(denoiser):
    """One step in the middle of the noise levels: (t, s)."""
    if denoiser.schedule is None:
        return Grid(np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([1.0, 0.5]), "bench")
    T = denoiser.schedule.T
    t, s = denoiser.schedule.level(T // 2), denoiser.schedule.level(T // 2 - T // 50)
    return Grid(np.array([t.t, s.t]), np.array([t.alpha, s.alpha]), np.array([t.sigma, s.sigma]), "bench")


class Network:
    """train, sample, and the matrix products of either alone."""

    def __init__(self, name, workers, batch=None):
        self.workers, self.problem = workers, problem(NETWORKS[name], batch)

    def task(self, kind):
        if kind.startswith("gemms"):
            return gemm_task(self.problem.network, self.problem.case.batch, kind == "gemms train", self.workers)
        return {"train": self.train, "sample": self.sample}[kind]()

    def train(self):
        p = self.problem
        config = TrainConfig(batch=p.case.batch, lr=LR, beta1=BETAS[0], beta2=BETAS[1], weight_decay=LR * DECAY,
                             ema=EMA, clip=1e9, weighting=p.case.weighting)         # PyTorch's side clips nothing
        objective = DenoisingObjective(p.denoiser, None, config)
        objective.draw = lambda step: p.batch
        first = {"theta": p.theta.copy, "ema": p.theta.copy, "m": p.theta.zeros_like, "v": p.theta.zeros_like}
        steps = Steps(objective, ((name, make()) for name, make in first.items()), config, self.workers)
        count = itertools.count()

        def step():
            _, norm = steps.gradient(0)
            steps.update(next(count), LR, norm)
            synchronise()

        def answers():
            loss, _ = steps.gradient(0)
            grad = steps.collected()
            return {"loss": np.array(loss), **{name: backend.to_host(grad[name]) for name in p.network.layout.handles}}

        return Task(step, answers)

    def sample(self):
        p = self.problem
        denoise = p.denoiser.bind(p.theta, p.batch.labels, self.workers)
        grid = sampling_grid(p.denoiser)

        def once():
            return run(ddim(denoise, grid, p.x))

        return Task(lambda: (once(), synchronise()), lambda: {"x": backend.to_host(once())})
