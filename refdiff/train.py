"""Training a denoiser on images."""
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import figures
from .checkpoint import load_checkpoint
from .denoiser import restore
from .fit import Images, fit, start
from .losses import denoising_loss
from .parallel import Workers
from .process.level import Level
from .resume import check_new, check_same, fingerprint
from .rng import Key


class Batch(NamedTuple):
    """One step's random numbers: images, noise, levels, labels (or None), dropout masks (or None)."""

    x0: object
    eps: object
    level: Level
    labels: object
    masks: object

    def rows(self, row):
        return Batch(self.x0[row], self.eps[row], self.level.rows(row),
                     None if self.labels is None else self.labels[row],
                     None if self.masks is None else [mask[row] for mask in self.masks])


class DenoisingObjective:
    """Train a denoiser on images [DDPM alg. 1]: x_t = alpha x_0 + sigma eps at random levels."""

    kind = "training"

    def __init__(self, denoiser, images, config):
        self.denoiser, self.images, self.config = denoiser, images, config
        self.averages = {"ema": config.ema}
        self.key = Key(config.seed).fold("train")

    def draw(self, step):
        key, n = self.key, self.config.batch
        x0, labels = self.images.draw(key, step)
        return Batch(x0, key.fold("eps", step).normal(x0.shape, x0.dtype),
                     self.denoiser.draw_levels(key.fold("level", step), n), labels,
                     self.denoiser.network.masks(key.fold("masks", step), n, x0.dtype))

    def loss(self, thetas, batch, rows, grad, share):
        x0, eps, level, labels, masks = batch.rows(rows)
        return denoising_loss(self.denoiser, thetas["theta"], x0, level, eps, labels, masks,
                              self.config.weighting, grad, share)


def train(dataset, network, denoising, config, out, resume=False, progress=True):
    """Train a denoiser on a Dataset and leave out/checkpoint.h5; returns the Checkpoint.

    network: a UNetConfig, its sizes and classes set to the data's; denoising: a DenoiserConfig, whose
    sigma_data is replaced by the data's; config: a TrainConfig. With resume, out/checkpoint.h5 goes on
    where it stopped, under the same configuration (`steps` too: the learning rate's course depends on it), or begins.
    """
    h, w, c = dataset.shape
    if h != w:
        raise ValueError(f"train: images are {h}x{w}, wanted square ones; crop or pad them")
    classes = len(dataset.classes)
    missing = sorted(set(range(classes)) - set(np.unique(dataset.labels).tolist())) if classes else []
    if missing:
        raise ValueError(f"train: of {classes} classes, {len(missing)} have no image (the first is {missing[0]}); "
                         "number the classes of the labels 0, 1, 2, ... without gaps")
    if dataset.images.min() == dataset.images.max():
        raise ValueError("train: all pixels of all images are equal, so there is nothing to learn; look at the data")
    network = replace(network, image_size=h, in_channels=c, out_channels=c, classes=classes)
    center = float(dataset.images.mean(dtype=np.float64))
    denoising = replace(denoising, sigma_data=float(dataset.images.std(dtype=np.float64)))
    config = replace(config, threads=min(Workers(config.threads).threads, config.batch))
    resolved = {"network": {"name": "unet", **asdict(network)}, "denoiser": asdict(denoising), "train": asdict(config),
                "data": {"center": center, "levels": dataset.levels, "classes": list(dataset.classes),
                         "source": dataset.source, "images": len(dataset), "fingerprint": fingerprint(dataset)}}
    path = Path(out) / "checkpoint.h5"
    denoiser = restore(resolved)
    if resume and path.exists():
        checkpoint = load_checkpoint(path, "training")
        check_same(resolved, checkpoint.config, path)
    else:
        check_new(path)
        theta = denoiser.network.layout.init(Key(config.seed).fold("init"))
        checkpoint = start(denoiser, theta, ("ema",), "training", resolved, config.seed)
    images = Images(dataset, center, classes, config)
    checkpoint = fit(DenoisingObjective(denoiser, images, config), checkpoint, config, path, progress)
    figures.loss_curve(path.with_name("loss.png"), checkpoint.history, "Training")
    return checkpoint
