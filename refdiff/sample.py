"""Samples from a checkpoint: a sampler's name and a number of steps, made into images.

    images, labels = sample(checkpoint, "heun", steps=18, count=100, label=7, seed=0)
"""
import inspect
from typing import NamedTuple

import numpy as np

from . import backend
from .denoiser import OF_ANY_LEVEL, Denoiser, restore
from .distill.consistency import Consistency
from .guidance import cfg_labels
from .metrics.floors import balanced_labels
from .models import UNetConfig
from .models.compat import DEVIATIONS, unet
from .parallel import Workers
from .process import grids
from .process.parameterization import LABELS
from .rng import Key
from .samplers import SAMPLERS, noise_from
from .samplers.compat import names

# Noise levels at which a consistency function is evaluated, by the number of steps.
SIGMAS = {1: (20.0,), 2: (20.0, 0.8), 4: (20.0, 2.5, 0.8, 0.3)}


class Sampling(NamedTuple):
    """What `sample` and the report need of a checkpoint: the denoiser or consistency function and its levels."""

    denoiser: object
    theta: object
    sigma_min: float
    sigma_max: float
    rho: float
    center: float
    classes: int
    distilled: bool

    def bind(self, labels=None, workers=None):
        """The denoiser (x, level) -> Prediction with labels fixed; if distilled, f (x, sigma) -> f(x, sigma)."""
        network = Consistency(self.denoiser, self.sigma_min) if self.distilled else self.denoiser
        return network.bind(self.theta, labels, workers)


def open_sampling(checkpoint):
    """The moving average of a checkpoint, ready to sample."""
    if checkpoint.kind not in ("training", "distillation"):
        raise ValueError(f"sample: a checkpoint of kind {checkpoint.kind!r}, wanted one written by train or distill")
    config = checkpoint.config
    denoiser = restore(config)
    levels = config.get("consistency", config["denoiser"])
    return Sampling(denoiser, checkpoint.parameters(denoiser.network.layout, "ema"),
                    levels["sigma_min"], levels["sigma_max"], levels["rho"],
                    config["data"]["center"], denoiser.network.config.classes, checkpoint.kind == "distillation")


def consistency_sigmas(steps, sigma_max=20.0, sigma_min=0.02, last=0.3):
    """The levels of a multistep consistency sample: SIGMAS where it has them, else spaced evenly in log sigma.

    They end at `last`, or halfway (in log sigma) between a student's own two ends where those leave it out.
    """
    if steps in SIGMAS and SIGMAS[steps][0] == sigma_max:
        return SIGMAS[steps]
    last = last if sigma_min < last < sigma_max else float(np.sqrt(sigma_min * sigma_max))
    return tuple(np.geomspace(sigma_max, last, steps).tolist())


def make_grid(sampling, steps):
    """The levels that `steps` steps visit: EDM's spacing of sigma [EDM eq. 5], or trailing times of the schedule."""
    if sampling.denoiser.schedule is None:
        return grids.karras(steps, sampling.sigma_min, sampling.sigma_max, sampling.rho)
    return grids.discrete(sampling.denoiser.schedule, steps, "trailing")


class ToldDenoiser(Denoiser):
    """A Denoiser that says what its network does, told the level's own t whatever alpha and sigma are."""

    def precondition(self, level):
        """As of Denoiser; c_noise is t, or t - 1, where the network knows the times of a schedule."""
        *c, c_noise = super().precondition(level)
        return *c, c_noise if self.config.prediction in OF_ANY_LEVEL else level.t - LABELS[self.config.time_label]

    def bind(self, *args):
        """The denoiser (x, level) -> Prediction of the network's own kind."""
        bound, kind = super().bind(*args), self.config.prediction
        sigma_data = self.config.sigma_data if kind == "F" else None
        return lambda x, level: bound(x, level).to(kind, sigma_data)


def deviating(sampling, sampler, compat):
    """(a Sampling with the network's deviations among `compat`, the names of those that are the sampler's).

    ValueError for a name that is neither, with all that are.
    """
    config = sampling.denoiser.network.config
    of_sampler, of_network = names(sampler), tuple(DEVIATIONS) if isinstance(config, UNetConfig) else ()
    for name in compat:
        if name not in of_sampler + of_network:
            raise ValueError(f"sample: compat: no deviation {name!r}, wanted some of {', '.join(of_sampler)} "
                             f"(of {sampler})" + f", {', '.join(of_network)} (of the U-Net)" * bool(of_network))
    chosen, others = ([name for name in compat if name in own] for own in (of_sampler, of_network))
    network = unet(config, others) if others else sampling.denoiser.network
    kind = ToldDenoiser if chosen and not sampling.distilled else Denoiser
    return sampling._replace(denoiser=kind(network, sampling.denoiser.config)), tuple(chosen)


def check_options(sampler, options):
    """Refuse an option that a sampler has not: its own come after (denoiser, grid, x).

    The noise is drawn by the seed, and what consistency sampling is given follows from the checkpoint and its sigmas.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sample: sampler is {sampler!r}, wanted one of {', '.join(SAMPLERS)}")
    own = list(inspect.signature(SAMPLERS[sampler]).parameters)[3:]
    own = [name for name in own if name not in ("noise", "compat")]
    own = [] if sampler == "consistency" else own
    for name in options:
        if name not in own:
            raise ValueError(f"sample: {sampler}: there is no {name!r} to be chosen, wanted one of its options: "
                             f"{', '.join(own) or 'none'}")


def guided(sampling, labels, scale, workers=None):
    """The denoiser under classifier-free guidance u + scale (c - u), u being the null class that training drops to."""
    if sampling.distilled or labels is None:
        why = "a distilled checkpoint" if sampling.distilled else "a network without classes"
        raise ValueError(f"sample: guidance scale {scale} for {why}; it needs a conditional and an unconditional "
                         "denoiser, so a checkpoint of train with classes")

    bound = {}

    def labelled(x, level, both):
        key = backend.to_host(both).tobytes()
        if key not in bound:
            bound[key] = sampling.bind(both, workers)
        return bound[key](x, level)

    return cfg_labels(labelled, labels, labels * 0 + sampling.classes, scale=scale)


def states(sampling, sampler, steps, labels, key, workers=None, count=None, sigmas=None, scale=None, options=None,
           compat=(), rows=slice(None)):
    """The generator of a sampler's States on `count` rows; labels (count,) or None. State and noise in float64.

    options: a dict of the sampler's own. scale s: classifier-free guidance u + s (c - u), two evaluations for one; None
    or 1 is none. compat: deviations by name, of samplers/compat.py and models/compat.py. rows: some of them alone, with
    the noise that they have among all.
    """
    options = dict(options or {})
    check_options(sampler, options)
    if compat:
        sampling, chosen = deviating(sampling, sampler, compat)
        options |= {"compat": chosen} if chosen else {}
    if sampling.distilled != (sampler == "consistency"):
        raise ValueError(f"sample: sampler {sampler!r} needs a checkpoint that refdiff "
                         f"{'train' if sampling.distilled else 'distill'} wrote")
    if steps < 1:
        raise ValueError(f"sample: steps is {steps}, wanted an integer >= 1")
    if sigmas is not None and (sampler != "consistency" or len(sigmas) != steps):
        raise ValueError(f"sample: {len(sigmas)} sigmas for {sampler} in {steps} steps; they belong to consistency "
                         "sampling, one for each step")
    config = sampling.denoiser.network.config
    shape = (count or len(labels), config.image_size, config.image_size, config.in_channels)
    of_all = key.fold("x").normal(shape)
    draw = noise_from(key, of_all)
    z, noise, labels = of_all[rows], lambda step: draw(step)[rows], None if labels is None else labels[rows]
    if scale is not None and sampling.distilled:
        guided(sampling, labels, scale)
    if sampler == "consistency":
        sigmas = sigmas or consistency_sigmas(steps, sampling.sigma_max, sampling.sigma_min)
        if max(sigmas) > sampling.sigma_max:
            raise ValueError(f"sample: sigma {max(sigmas):g} is above {sampling.sigma_max:g}, the most noise that the "
                             "student has seen; start there or lower")
        return SAMPLERS[sampler](sampling.bind(labels, workers), sigmas, sigmas[0] * z, sampling.sigma_min, noise,
                                 **options)
    grid = make_grid(sampling, steps)
    start = grid.level(0).sigma if sampling.denoiser.schedule is None else 1.0          # x_T ~ N(0, I) [DDPM alg. 2]
    if "noise" in inspect.signature(SAMPLERS[sampler]).parameters:
        options["noise"] = noise
    denoiser = sampling.bind(labels, workers) if scale is None else guided(sampling, labels, scale, workers)
    return SAMPLERS[sampler](denoiser, grid, start * z, **options)


def to_images(sampling, x):
    """A sampler's state as images: the data's mean added, clipped to [-1, 1], float32 on the host."""
    images = backend.to_host(x) + sampling.center
    if not np.isfinite(images).all():
        raise FloatingPointError("sample: the sampler left numbers that are not finite; the checkpoint has diverged, "
                                 "or the sampler is asked outside the noise levels it was trained on")
    return np.clip(images, -1, 1).astype(np.float32)


def choose_labels(classes, count, label=None):
    """Labels (count,): one class for all, or every class in turn; None for a network without classes."""
    if not classes:
        if label is not None:
            raise ValueError(f"sample: label {label} for a network without classes; leave --label away")
        return None
    if label is None:
        return backend.asarray(balanced_labels(count, classes))
    if not 0 <= label <= classes:
        raise ValueError(f"sample: label is {label}, wanted 0..{classes - 1}, or {classes} for no class")
    return backend.asarray(np.full(count, label))


def sample(checkpoint, sampler, steps, count, label=None, seed=0, threads=0, sigmas=None, scale=None, options=None,
           compat=()):
    """(images float32 (count, h, w, c) in [-1, 1], labels (count,) or None) from a checkpoint's moving average.

    options: a dict of the sampler's own, such as {"eta": 0.5}. compat: names of deviations, the sampler's or the
    network's, such as ("float32_state", "padding").
    """
    check_options(sampler, options or {})
    if count < 1:
        raise ValueError(f"sample: count is {count}, wanted an integer >= 1")
    sampling = open_sampling(checkpoint)
    labels = choose_labels(sampling.classes, count, label)
    with Workers(threads) as workers:
        x = None
        for state in states(sampling, sampler, steps, labels, Key(seed).fold("sample"), workers, count, sigmas,
                            scale, options, compat):
            x = state.x
    return to_images(sampling, x), None if labels is None else backend.to_host(labels)
