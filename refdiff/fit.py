"""The training loop that every objective shares, and its checkpoints.

    objective.kind, .denoiser, .averages                    its name, what is trained, {moving average: decay}
    objective.draw(step)                                    every random number of a step, by name
    objective.loss(thetas, batch, rows, grad, share)        the loss of some rows of it, gradient added into grad

`fit` runs any such objective: its steps (steps.py), the learning rate's course, checkpoints. A draw is a function of
(seed, step), so a run that is killed and resumed meets the same numbers and ends on the same bits.
"""
import math
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from . import backend
from .checkpoint import Checkpoint, save_checkpoint
from .config import check, setting
from .data import batch_indices
from .denoiser import WEIGHTINGS
from .files import check_writable
from .optim import AdamW, learning_rate
from .parallel import Workers
from .steps import Steps


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is no longer a number, or has exploded."""


@dataclass(frozen=True)
class TrainConfig:
    """How any objective is optimised."""

    steps: int = setting(3000, "updates of theta; the learning rate's course depends on it", "[1, inf)")
    batch: int = setting(128, "images per update", "[1, inf)")
    lr: float = setting(4e-3, "largest learning rate, reached after the warm-up", "(0, inf)")
    warmup: int = setting(100, "updates over which the rate rises; half a cosine follows", "[0, inf)")
    beta1: float = setting(0.9, "AdamW's decay of the mean gradient", "[0, 1)")
    beta2: float = setting(0.99, "AdamW's decay of the mean squared gradient", "[0, 1)")
    weight_decay: float = setting(0.0, "AdamW's decay of theta at the largest rate, per update", "[0, inf)")
    clip: float = setting(1.0, "largest global norm of the gradient", "(0, inf)")
    ema: float = setting(0.999, "decay per update of the average that is sampled; (1+n)/(10+n) at first", "[0, 1)")
    weighting: str = setting("edm", (
        "of |eps - eps_hat|^2: simple 1; min_snr min(SNR,5)/SNR; soft_min_snr 4/(SNR+4); p2 1/(1+SNR); edm so that "
        "F has 1; sigmoid e^2/(e^2+SNR); truncated_snr max(1,1/SNR); snr_plus_one 1+1/SNR; flow so that velocity "
        "has 1"), choices=WEIGHTINGS)
    label_dropout: float = setting(0.1, "share of labels replaced by the null class", "[0, 1]")
    explode: float = setting(100.0, "a loss this many times the median of the last 100 stops the run", "(1, inf)")
    seed: int = setting(0, "of every random number of the run", "[0, inf)")
    threads: int = setting(0, "parts of a batch side by side; 0: one per core", "[0, inf)")
    save_every: int = setting(500, "updates between checkpoints", "[1, inf)")

    __post_init__ = check

    def optimiser(self):
        return AdamW(self.lr, self.beta1, self.beta2, weight_decay=self.weight_decay)


class Images:
    """What both teacher and student see of a data set: centred images, and labels with some dropped."""

    def __init__(self, dataset, center, classes, config):
        self.images = backend.asarray(dataset.images) - center
        self.labels, self.classes, self.config = dataset.labels, classes, config

    def draw(self, key, step):
        """(x0, labels) of a step: every image once per epoch, labels dropped to the null class [CFG alg. 1]."""
        config = self.config
        index = batch_indices(key, step, len(self.images), config.batch)
        labels = None
        if self.classes:
            dropped = backend.to_host(key.fold("drop", step).uniform(config.batch)) < config.label_dropout
            labels = backend.asarray(np.where(dropped, self.classes, self.labels[index]))
        return self.images[backend.asarray(index)], labels


def fit(objective, checkpoint, config, path, progress=True):
    """Run an objective from a checkpoint (step 0: the start) to config.steps; returns the last checkpoint.

    checkpoint.vectors holds theta, the moments m and v, every average the objective names, and what
    else it needs (a teacher); none of them is changed. Saved to `path` every save_every steps and at the end. Raises
    TrainingDiverged, naming the step, the loss and the last good checkpoint, before theta is touched.
    """
    check_writable(path)
    layout = objective.denoiser.network.layout
    losses = list(checkpoint.history.get("loss", []))
    saved = f"the last good checkpoint is {path}, step {checkpoint.step}" if checkpoint.step else "none is saved yet"

    def snapshot(step):
        vectors = {name: backend.to_host(t.flat).copy() for name, t in steps.thetas.items()}
        return replace(checkpoint, vectors=vectors, step=step, history={"loss": np.array(losses)})

    with Workers(config.threads) as workers, tqdm(total=config.steps, initial=checkpoint.step, unit="step",
                                                  desc=objective.kind, disable=not progress) as bar:
        ours = () if workers.processes else ("theta", "m", "v", *objective.averages)    # else Steps makes shared copies
        thetas = ((name, checkpoint.parameters(layout, name, copy=name in ours)) for name in checkpoint.vectors)
        steps = Steps(objective, thetas, config, workers)
        for step in range(checkpoint.step, config.steps):
            loss, norm = steps.gradient(step)
            usual = float(np.median(losses[-100:])) if len(losses) >= 10 else math.inf
            if not (math.isfinite(loss) and math.isfinite(norm)) or loss > config.explode * usual:
                raise TrainingDiverged(
                    f"{objective.kind}: step {step}: loss {loss:g}, gradient norm {norm:g} (median loss of the last "
                    f"100 steps {usual:g}); {saved}; lower lr, now {config.lr:g}, or look at the data of that step")
            lr = learning_rate(step, config.steps, config.lr, min(config.warmup, config.steps))
            steps.update(step, lr, norm)
            losses.append(loss)
            bar.update()
            if step % 10 == 0:
                rate = (bar.format_dict["rate"] or 0) * config.batch
                bar.set_postfix_str(f"loss {np.mean(losses[-100:]):.4f}, {rate:.0f} images/s", refresh=False)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                if not math.isfinite(float(steps.thetas["theta"].flat.sum())):
                    raise TrainingDiverged(f"{objective.kind}: step {step}: theta is no longer finite, loss {loss:g}; "
                                           f"{saved}; lower lr, now {config.lr:g}")
                save_checkpoint(path, snapshot(step + 1))
                saved = f"the last good checkpoint is {path}, step {step + 1}"
    return snapshot(config.steps)


def start(denoiser, theta, averages, kind, resolved, seed, **extra):
    """The checkpoint of step 0: averages begin at theta, moments at 0; extra vectors (a teacher) as given."""
    host = backend.to_host(theta.flat)
    vectors = {"theta": host, **{name: host.copy() for name in averages},
               "m": np.zeros_like(host), "v": np.zeros_like(host), **extra}
    return Checkpoint(kind, resolved, theta.layout.index(), vectors, seed=seed)
