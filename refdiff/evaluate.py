"""Samples against real images, and what a number would be for perfect ones.

Samples are clipped and rounded to the data's grey levels first, as the real images were. Frechet
distances are on the features of a small classifier of digits and on raw pixels; other data than 8x8
digits have raw pixels alone.
"""
import numpy as np

from . import backend
from .data import quantize
from .metrics import features, floors, frechet, neighbours
from .rng import Key


LEAST = 4           # images: each needs a third nearest neighbour


def pixels(images):
    """Raw pixels as features: (n, h w c)."""
    return images.reshape(len(images), -1).astype(np.float64)


class Reference:
    """Real training and held-out images, with everything about them that every comparison needs."""

    def __init__(self, training, heldout=None):
        for name, data in (("the real images", training), ("the held-out images", heldout)):
            if data is not None and (data.shape != training.shape or len(data) < LEAST):
                raise ValueError(f"evaluate: {name} ({data.source}) are {len(data)} of {data.shape}, wanted at least "
                                 f"{LEAST} of {training.shape}")
        self.training, self.heldout = training, heldout
        self.spaces = {"pixel_frechet": pixels}
        self.extract = None
        if training.shape == (features.SIZE, features.SIZE, 1) and training.levels == features.LEVELS:
            self.extract = features.load()
            self.spaces["frechet"] = self.extract
        self.moments = {(space, split): frechet.moments(f(data.images)) for space, f in self.spaces.items()
                        for split, data in (("train", training), ("heldout", heldout)) if data is not None}
        self.main = self.spaces.get("frechet", pixels)
        self.real = self.main(training.images)
        self.radii = neighbours.radii(self.real)

    def compare(self, images, labels=None):
        """{frechet: {train, heldout}, pixel_frechet, precision, recall, nearest_train, class_histogram} of samples."""
        if images.shape[1:] != self.training.shape:
            raise ValueError(f"evaluate: samples are {images.shape[1:]}, the data's images {self.training.shape}; "
                             "evaluate samples against the data they imitate")
        if len(images) < LEAST:
            raise ValueError(f"evaluate: {len(images)} samples, wanted at least {LEAST}: precision and recall look at "
                             "each one's third neighbour; draw more with --count")
        images = quantize(images, self.training.levels)
        found, seen = {}, {"pixel_frechet": pixels(images)}
        if self.extract is not None:
            seen["frechet"], predicted = self.extract.judge(images)
        for space, vectors in seen.items():
            moments = frechet.moments(vectors)
            found[space] = {split: frechet.distance(moments, self.moments[space, split])
                            for split in ("train", "heldout") if (space, split) in self.moments}
        found["precision"], found["recall"] = neighbours.precision_recall(
            self.real, seen.get("frechet", seen["pixel_frechet"]), real_radii=self.radii)
        found["nearest_train"] = float(neighbours.nearest(images, self.training.images)[0].min())
        if self.extract is not None:
            found["class_histogram"] = np.bincount(predicted, minlength=features.CLASSES).tolist()
            if labels is not None:
                found["label_agreement"] = float((predicted == backend.to_host(labels)).mean())
        return found

    def nearest_other(self):
        """The least distance between two different training images: what "near" means for these data."""
        images = np.unique(pixels(self.training.images), axis=0)
        return float(neighbours.radii(images, k=1).min())

    def floors(self, n, seed=0, repeats=10):
        """{frechet: {floor: {bootstrap, heldout}, baseline}, ...} at n samples: what real images and Gaussians score.

        floor.bootstrap: n training images drawn with replacement, against all of them; floor.heldout: n real training
        images, class-balanced as samples are, against real held-out ones, over stratified splits of all; floor.split:
        the same with every training image once; baseline: n samples of one Gaussian per class.
        """
        key = Key(seed).fold("floors")
        found = {}
        for space, f in self.spaces.items():
            training = f(self.training.images)
            found[space] = {"floor": {"bootstrap": float(floors.bootstrap(training, n, key, repeats).mean())}}
            if self.heldout is not None and self.training.labels is not None and self.heldout.labels is not None:
                everything = np.concatenate([training, f(self.heldout.images)])
                labels = np.concatenate([self.training.labels, self.heldout.labels])
                fraction = len(self.heldout) / len(labels)
                for name, rows in (("heldout", n), ("split", None)):
                    found[space]["floor"][name] = float(
                        floors.real_against_real(everything, labels, rows, key, fraction, repeats).mean())
            if self.training.labels is not None:
                gaussian, _ = floors.gaussian_per_class(self.training.images, self.training.labels, n, key,
                                                        self.training.levels)
                found[space]["baseline"] = frechet.distance(f(gaussian), self.moments[space, "train"])
        return found
