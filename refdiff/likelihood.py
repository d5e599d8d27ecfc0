"""The likelihood of images under a checkpoint, in bits per dimension: by the PF-ODE of its network, or a bound.

    figures = likelihood(checkpoint, dataset, count=100, trace="hutchinson", seed=0)
    figures = bound(checkpoint, dataset, count=100, seed=0)           # of the chain that a discrete schedule has

The ODE's density is that of the model's least noisy level sigma_min, at the images dequantised evenly over their grey
bins; the prior at sigma_max is N(0, (s^2 + sigma_max^2) I), s the standard deviation of the training data.
"""
import math

import numpy as np

from . import backend
from .denoiser import restore
from .parallel import Workers
from .process.bound import variational_bound
from .process.level import ve
from .process.likelihood import (Adaptive, NotConverged, bits_per_dim, dequantise, exact_trace, hutchinson,
                                 log_likelihood, normal_prior)
from .rng import Key

TRACES = ("exact", "hutchinson")
METHODS = ("ode", "bound")


def likelihood(checkpoint, dataset, count=None, trace="hutchinson", probes=1, seed=0, rtol=1e-4, tolerance=0.01,
               rows=32, threads=0):
    """Bits per dimension of `count` images of a Dataset, drawn without replacement (None: all), as a dict of figures.

    trace: "exact", a product per pixel, or "hutchinson" with `probes` rows of random signs per image. Images with
    labels are taken given them, where the network knows classes. `rows` images are integrated side by side, to a
    relative error of rtol per step and then of rtol/10; where the two differ in an image by more than `tolerance`
    bits per dimension NotConverged is raised. Raises ValueError for a distilled checkpoint: it has no ODE of its own.
    """
    if trace not in TRACES or probes < 1 or rows < 1 or not tolerance > 0:
        raise ValueError(f"likelihood: trace {trace!r}, probes {probes}, rows {rows}, tolerance {tolerance}; wanted "
                         f"one of {', '.join(TRACES)}, probes and rows >= 1 and tolerance > 0")
    key = Key(seed).fold("likelihood")
    denoiser, theta, images, labels = choose(checkpoint, dataset, count, key)
    theta = theta.astype(np.float64)
    x, count = backend.asarray(images.images, np.float64), len(images)
    if images.levels:
        x = dequantise(x, images.levels, key.fold("dequantise").uniform(x.shape))
    x = x - checkpoint.config["data"]["center"]
    dim, least_most = math.prod(dataset.shape), denoiser.sigma_range()
    prior, solver = normal_prior(denoiser.config.sigma_data), Adaptive(rtol, rtol, "RK45")
    signs = (2.0 * (key.fold("probes").uniform((probes, *x.shape)) < 0.5) - 1) if trace == "hutchinson" else None
    found = []
    with Workers(threads) as workers:
        for i in range(0, count, rows):
            row = slice(i, i + rows)
            linearised = denoiser.linearise(theta, None if labels is None else labels[row], "jvp", workers)
            try:
                found.append(log_likelihood(linearised, x[row], *map(ve, least_most), prior,
                                            exact_trace if signs is None else hutchinson(signs[:, row]), solver,
                                            tolerance * dim * math.log(2)))
            except NotConverged as error:
                raise NotConverged(f"{error}; images {i + 1} to {min(i + rows, count)} of {count}") from error
    log_p = np.concatenate([part.log_p for part in found])
    return {**summary(images, labels, bits_per_dim(log_p, dim, images.levels)), "nats": float(log_p.mean()),
            "bin_bits": float(bits_per_dim(0.0, dim, images.levels)),
            "trace": trace, "probes": probes if signs is not None else dim,
            "sigma_min": least_most[0], "sigma_max": least_most[1], "prior_std": denoiser.config.sigma_data,
            "rtol": rtol / 10, "tolerance": tolerance, "converged_to": max(p.gap for p in found) / (dim * math.log(2)),
            "evaluations": sum(part.evaluations for part in found)}


def bound(checkpoint, dataset, count=None, variance="large", seed=0, rows=256, threads=0):
    """The variational bound of the T steps of DDPM's chain for `count` images of a Dataset, as a dict of figures.

    Of grey levels where the data have them, by the decoder's bins, else of the density. One draw of noise per image
    and time. Raises ValueError for a checkpoint without a discrete schedule, or a distilled one.
    """
    key = Key(seed).fold("bound")
    denoiser, theta, images, labels = choose(checkpoint, dataset, count, key)
    schedule, center = denoiser.schedule, checkpoint.config["data"]["center"]
    if schedule is None:
        raise ValueError("likelihood: the bound is of the chain of a discrete schedule, and this checkpoint was "
                         f"trained with process {denoiser.config.process!r}, which has none; leave --by away")
    x0 = backend.asarray(images.images, np.float64) - center

    with Workers(threads) as workers:
        denoise = denoiser.bind(theta, labels, workers, rows)
        found = variational_bound(denoise, schedule, x0, lambda t: key.fold("eps", t).normal(x0.shape), variance,
                                  levels=images.levels, center=center)
    prior, terms, total = (backend.to_host(part) for part in found)
    return {**summary(images, labels, total), "T": schedule.T, "variance": variance, "prior": float(prior.mean()),
            "decoder": float(terms[0].mean())}


def choose(checkpoint, dataset, count, key):
    """(denoiser, theta, images, labels) of a checkpoint that has a density, and of `count` images drawn by key."""
    denoiser = open_likelihood(checkpoint, dataset)
    count = len(dataset) if count is None else count
    if not 1 <= count <= len(dataset):
        raise ValueError(f"likelihood: count is {count}, wanted 1..{len(dataset)}, the images of {dataset.source}")
    images = dataset.take(np.sort(backend.to_host(key.fold("images").permutation(len(dataset))[:count])))
    theta = checkpoint.parameters(denoiser.network.layout, "ema")
    return denoiser, theta, images, given_labels(denoiser, images)


def summary(images, labels, bits):
    """What every figure comes with; bits (n,)."""
    n = len(images)
    return {"images": n, "source": images.source, "given": "nothing" if labels is None else "labels",
            "levels": images.levels, "bits_per_dim": float(bits.mean()),
            "standard_error": float(bits.std(ddof=1) / math.sqrt(n)) if n > 1 else None}


def open_likelihood(checkpoint, dataset):
    """The denoiser of a checkpoint that has a likelihood, for images of the size it was trained on."""
    if checkpoint.kind != "training":
        raise ValueError(f"likelihood: a checkpoint of kind {checkpoint.kind!r}, wanted 'training': a consistency "
                         "function jumps along the ODE of its teacher and has no density of its own; give the "
                         "checkpoint that it was distilled from")
    denoiser = restore(checkpoint.config)
    config = denoiser.network.config
    wanted = (config.image_size, config.image_size, config.in_channels)
    if dataset.shape != wanted:
        raise ValueError(f"likelihood: images of {dataset.source} are {dataset.shape}, the checkpoint's {wanted}; "
                         "a density is of images of one size")
    return denoiser


def given_labels(denoiser, dataset):
    """The images' own labels where the network knows classes, the null class where they have none, else None."""
    classes = denoiser.network.config.classes
    if not classes or dataset.labels is None:
        return None
    if dataset.labels.max() >= classes:
        raise ValueError(f"likelihood: a label of {dataset.source} is {dataset.labels.max()}, the checkpoint knows "
                         f"0..{classes - 1}")
    return backend.asarray(dataset.labels)
