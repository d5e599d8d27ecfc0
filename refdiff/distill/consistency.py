"""Consistency distillation: a network that jumps along the probability-flow ODE to its end [CM alg. 2].

    f(x, sigma) = c_skip(sigma) x + c_out(sigma) F,   f(x, sigma_min) = x

All in the variance-exploding family x = x_0 + sigma eps, to which any denoiser can be put.
"""
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from .. import backend, figures
from ..checkpoint import load_checkpoint
from ..config import check, setting
from ..denoiser import restore
from ..ops import mse, pseudo_huber
from ..parallel import Workers
from ..process.grids import karras
from ..process.level import expand, ve
from ..resume import check_new, check_same, fingerprint
from ..rng import Key
from ..fit import Images, TrainConfig, fit, start


@dataclass(frozen=True)
class ConsistencyConfig:
    """What is distilled: the teacher's noise levels, their number, and the distance between two outputs."""

    sigma_min: float | None = setting(None, "least noise, where f(x) = x; none: the teacher's", "(0, inf)")
    sigma_max: float | None = setting(None, "most noise, where sampling starts; none: the teacher's", "(0, inf)")
    rho: float | None = setting(None, "levels are spaced evenly in sigma^(1/rho); none: the teacher's", "(0, inf)")
    levels_first: int = setting(8, "number of noise levels at first; it doubles ...", "[2, inf)")
    levels_last: int = setting(64, "... up to this one, in equal parts of the training", "[2, inf)")
    P_mean: float = setting(0.0, "which step is trained: the mean of ln sigma", "(-inf, inf)")
    P_std: float = setting(1.8, "and its standard deviation", "(0, inf)")
    distance: str = setting("pseudo_huber", "between the outputs at a step's ends", choices=("pseudo_huber", "l2"))
    huber: float = setting(0.03, "pseudo-Huber's c over sqrt(d), d the numbers of an image", "(0, inf)")
    target_ema: float = setting(0.95, "decay per update of the network that gives the target", "[0, 1)")

    def __post_init__(self):
        check(self)
        given = self.sigma_min is not None and self.sigma_max is not None
        if given and not self.sigma_min < self.sigma_max or self.levels_first > self.levels_last:
            raise ValueError(f"ConsistencyConfig: sigma from {self.sigma_min} to {self.sigma_max} and "
                             f"{self.levels_first} to {self.levels_last} levels, wanted both to grow")

    def of(self, denoiser):
        """The same, with the teacher's noise levels where none are given."""
        least, most = denoiser.sigma_range()
        teachers = {"sigma_min": least, "sigma_max": most, "rho": denoiser.config.rho}
        mine = replace(self, **{name: value for name, value in teachers.items() if getattr(self, name) is None})
        for sigma in (mine.sigma_min, mine.sigma_max):
            denoiser.precondition(ve(sigma))            # refused here, not at the first step that meets it
        return mine


def boundary(sigma, sigma_min, sigma_data):
    """c_skip = s^2/((sigma - sigma_min)^2 + s^2), c_out = s (sigma - sigma_min)/sqrt(s^2 + sigma^2) [CM sec. C].

    s = sigma_data. At sigma_min they are exactly 1 and 0.
    """
    shifted = sigma - sigma_min
    return (sigma_data ** 2 / (shifted ** 2 + sigma_data ** 2),
            sigma_data * shifted / (sigma_data ** 2 + sigma ** 2) ** 0.5)


class Consistency:
    """f = c_skip x + c_out F [CM eq. 5], for any denoiser D.

    EDM's network is F = (D - a x)/b, a = s^2/(sigma^2 + s^2), b = sigma s/sqrt(sigma^2 + s^2); put into f:
        f = (c_skip - a B) x + B D,   B = c_out/b = (sigma - sigma_min)/sigma
    which needs D alone, so an eps, x0 or v network becomes a consistency function just as well.
    """

    def __init__(self, denoiser, sigma_min):
        self.denoiser, self.sigma_min = denoiser, sigma_min
        self.network = denoiser.network

    def coefficients(self, sigma):
        """(A, B) of f = A x + B D."""
        s = self.denoiser.config.sigma_data
        c_skip, _ = boundary(sigma, self.sigma_min, s)
        B = (sigma - self.sigma_min) / sigma
        return c_skip - B * s ** 2 / (sigma ** 2 + s ** 2), B

    def forward(self, theta, x, sigma, labels=None, masks=None, keep=True):
        """f(x, sigma): x (n, ...), sigma a number or (n,), >= sigma_min. keep: whether a backward may follow."""
        if np.min(sigma) < self.sigma_min:
            raise ValueError(f"consistency: sigma is {np.min(sigma)}, wanted >= sigma_min = {self.sigma_min}")
        A, B = (expand(c, x) for c in self.coefficients(sigma))
        D, s_D = self.denoiser.forward(theta, x, ve(sigma), labels, masks, keep)
        return A * x + B * D, (s_D, A, B)

    def backward(self, saved, df, grad, keep=True):
        """Adds d<f, df>/dtheta into grad; returns dx. keep: the network's."""
        s_D, A, B = saved
        return A * df + self.denoiser.backward(s_D, B * df, grad, keep)

    def bind(self, theta, labels=None, workers=None, rows=None):
        """(x, sigma) -> f(x, sigma) for sampling: theta and labels fixed, one sigma for all rows."""
        denoise = self.denoiser.bind(theta, labels, workers, rows)

        def f(x, sigma):
            A, B = self.coefficients(float(sigma))
            return A * x + B * denoise(x, ve(float(sigma))).x0 if B else A * x
        return f


def levels(step, steps, config):
    """sigma_1 < .. < sigma_N at a training step [EDM eq. 5] [CM sec. 4], N doubling first to last [ICT sec. 3.4]."""
    doublings = math.ceil(math.log2(config.levels_last / config.levels_first))
    N = min(config.levels_first * 2 ** (step * (doublings + 1) // steps), config.levels_last)
    return karras(N, config.sigma_min, config.sigma_max, config.rho, final=None).sigma[::-1]


def step_probabilities(sigmas, P_mean, P_std):
    """p(n) of the step sigma_{n+1} -> sigma_n: the mass of ln sigma ~ N(P_mean, P_std^2) between [ICT sec. 3.5]."""
    mass = np.diff(erf((np.log(sigmas) - P_mean) / (math.sqrt(2) * P_std)))
    if not mass.sum() > 0:
        raise ValueError(f"consistency: ln sigma ~ N({P_mean:g}, {P_std:g}^2) has no mass between sigma = "
                         f"{sigmas[0]:g} and {sigmas[-1]:g}; choose P_mean and P_std where ln sigma runs from "
                         f"{math.log(sigmas[0]):.3g} to {math.log(sigmas[-1]):.3g}")
    return mass / mass.sum()


def heun_step(denoise, x, sigma, sigma_next):
    """One Heun step of dx/dsigma = (x - D)/sigma from sigma to sigma_next, both (n,) [EDM alg. 1]; [CM eq. 3, 6]."""
    def slope(x, s):
        return (x - denoise(x, s)) / expand(s, x)
    h = expand(sigma_next - sigma, x)
    d = slope(x, sigma)
    return x + h * (0.5 * (d + slope(x + h * d, sigma_next)))


class Jumps(NamedTuple):
    """One step's random numbers: images, noise, and for every row a pair of neighbouring noise levels."""

    x0: object
    eps: object
    sigma: object           # sigma_{n+1}
    sigma_next: object      # sigma_n
    labels: object

    def rows(self, row):
        return Jumps(*(None if a is None else a[row] for a in self))


class ConsistencyObjective:
    """d(f_theta(x', sigma_{n+1}), f_theta^-(x_hat, sigma_n)), x_hat one teacher step from x' [CM eq. 7].

    Weighted by 1/(sigma_{n+1} - sigma_n) [ICT sec. 3.1]; theta^- is a moving average of theta [CM eq. 8].
    d is pseudo-Huber of the norm of a whole image, or "l2", the mean square over its entries.
    teacher: (thetas, x, sigma (n,), labels) -> D. The target is a constant: no gradient flows through it.
    """

    kind = "distillation"

    def __init__(self, consistency, teacher, images, config, training):
        self.consistency, self.teacher, self.images = consistency, teacher, images
        self.config, self.training = config, training
        self.denoiser = consistency.denoiser
        self.averages = {"ema": training.ema, "target": config.target_ema}      # target: theta^-
        self.key = Key(training.seed).fold("distil")

    def draw(self, step):
        """Images once per epoch, the step n of every row by `step_probabilities`."""
        key, config = self.key, self.config
        x0, labels = self.images.draw(key, step)
        sigmas = levels(step, self.training.steps, config)
        below = np.cumsum(step_probabilities(sigmas, config.P_mean, config.P_std))
        n = np.searchsorted(below[:-1], backend.to_host(key.fold("n", step).uniform(len(x0))), side="right")
        return Jumps(x0, key.fold("eps", step).normal(x0.shape, x0.dtype), sigmas[n + 1], sigmas[n], labels)

    def loss(self, thetas, batch, rows, grad, share):
        x0, eps, sigma, sigma_next, labels = batch.rows(rows)
        x = x0 + expand(sigma, x0) * eps
        x_hat = heun_step(lambda x, s: self.teacher(thetas, x, s, labels), x, sigma, sigma_next)
        target = self.consistency.forward(thetas["target"], x_hat, sigma_next, labels, keep=False)[0]
        f, s_f = self.consistency.forward(thetas["theta"], x, sigma, labels)
        weight = backend.of(x=x).asarray(1 / (sigma - sigma_next), dtype=x.dtype)
        if self.config.distance == "l2":
            loss, saved = mse.forward(f, target, weight)
            df, _ = mse.backward(saved, share)
        else:
            c = self.config.huber * math.sqrt(x[0].size)
            loss, saved = pseudo_huber.forward(f, target, weight, c=c)
            df, _ = pseudo_huber.backward(saved, share)
        self.consistency.backward(s_f, df, grad, keep=False)
        return float(loss)


def network_teacher(denoiser):
    """The teacher of a trained denoiser: the theta that thetas["teacher"] holds."""
    return lambda thetas, x, sigma, labels: denoiser.forward(thetas["teacher"], x, ve(sigma), labels, keep=False)[0]


# What a distillation trains with unless told otherwise.
TRAINING = TrainConfig(steps=900, lr=2e-3, warmup=0, ema=0.997, label_dropout=0.0, save_every=100)


def distil(path, dataset, config, training, out, resume=False, progress=True):
    """Distil the checkpoint at `path` (of `train`) on its data, and leave out/distilled.h5; returns the Checkpoint."""
    teacher = load_checkpoint(path, "training")
    denoiser = restore(teacher.config)
    if fingerprint(dataset) != teacher.config["data"]["fingerprint"]:
        raise ValueError(f"distil: {dataset.source} is not the data that {path} was trained on "
                         f"({teacher.config['data']['source']}); give that file with --data")
    config = config.of(denoiser)
    training = replace(training, threads=min(Workers(training.threads).threads, training.batch))
    resolved = {**teacher.config, "consistency": asdict(config), "distil": asdict(training)}
    target = Path(out) / "distilled.h5"
    if resume and target.exists():
        checkpoint = load_checkpoint(target, "distillation")
        check_same(resolved, checkpoint.config, target)
    else:
        check_new(target)
        theta = teacher.parameters(denoiser.network.layout, "ema")
        checkpoint = start(denoiser, theta, ("ema", "target"), "distillation", resolved, training.seed,
                           teacher=backend.to_host(theta.flat).copy())
    images = Images(dataset, teacher.config["data"]["center"], denoiser.network.config.classes, training)
    objective = ConsistencyObjective(Consistency(denoiser, config.sigma_min), network_teacher(denoiser),
                                     images, config, training)
    checkpoint = fit(objective, checkpoint, training, target, progress)
    figures.loss_curve(target.with_name("distilled_loss.png"), checkpoint.history, "Consistency distillation")
    return checkpoint
