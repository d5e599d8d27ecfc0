"""Features of digits: the penultimate layer of a small classifier, trained here and shipped with refdiff.

    extract = features.load()
    f = extract(images)              # (n, 32) float64: centred on the training images, one global deviation 1
    labels = extract.predict(images)

The classifier is made of refdiff's own layers and trained by data/make_classifier.py on the training digits:

    8x8x1 - conv 3x3 - SiLU - conv 3x3 - SiLU - linear - norm - SiLU (the features) - linear - scores

The norm (over the features of each image) keeps any single direction from ruling the distance: it doubles
how far apart real digits and one Gaussian per class lie, counted in finite-sample floors.
"""
import functools
from dataclasses import dataclass

import h5py
import numpy as np

from .. import backend
from ..data import DataError, asset
from ..nn.layers import Conv2d, GroupNorm, Linear
from ..ops import silu
from ..params import Layout, Theta

SIZE, LEVELS, CHANNELS, WIDTH, CLASSES = 8, 17, (16, 32), 32, 10
BLOCK = 512              # images at a time: bounds the memory


@dataclass(frozen=True)
class Classifier:
    """scores = out(f), f = SiLU(norm(hidden(SiLU(conv2(SiLU(conv1(x))))))), of x (n, 8, 8, 1) in [-1, 1]."""

    layout: Layout
    conv1: Conv2d
    conv2: Conv2d
    hidden: Linear
    norm: GroupNorm
    out: Linear

    @classmethod
    def make(cls):
        layout, (c, d) = Layout(), CHANNELS
        return cls(layout,
                   Conv2d.make(layout, "conv1", 3, 1, c),
                   Conv2d.make(layout, "conv2", 3, c, d),
                   Linear.make(layout, "hidden", SIZE * SIZE * d, WIDTH),
                   GroupNorm.make(layout, "norm", WIDTH, groups=1, eps=1e-5),
                   Linear.make(layout, "out", WIDTH, CLASSES))

    def forward(self, theta, x):
        """((scores (n, 10), features (n, 32)), saved)."""
        h, s_conv1 = self.conv1.forward(theta, x)
        h, s_silu1 = silu.forward(h)
        h, s_conv2 = self.conv2.forward(theta, h)
        h, s_silu2 = silu.forward(h)
        h, s_hidden = self.hidden.forward(theta, h.reshape(len(x), 1, 1, -1))         # (n, 1, 1, 32)
        h, s_norm = self.norm.forward(theta, h)
        f, s_silu3 = silu.forward(h)
        scores, s_out = self.out.forward(theta, f)
        return ((scores.reshape(len(x), -1), f.reshape(len(x), -1)),
                (s_conv1, s_silu1, s_conv2, s_silu2, s_hidden, s_norm, s_silu3, s_out))

    def backward(self, saved, dscores, grad):
        """Adds the gradient of the scores' cotangent into grad; returns dx."""
        s_conv1, s_silu1, s_conv2, s_silu2, s_hidden, s_norm, s_silu3, s_out = saved
        n = len(dscores)
        df = self.out.backward(s_out, dscores.reshape(n, 1, 1, -1), grad)
        dh = self.norm.backward(s_norm, silu.backward(s_silu3, df), grad)
        dh = self.hidden.backward(s_hidden, dh, grad).reshape(n, SIZE, SIZE, -1)
        dh = self.conv2.backward(s_conv2, silu.backward(s_silu2, dh), grad)
        return self.conv1.backward(s_conv1, silu.backward(s_silu1, dh), grad)


def centring(features):
    """(mean (d,), scale): the mean over the rows, and one standard deviation over all entries about it."""
    mean = features.mean(axis=0)
    return mean, float(np.sqrt(((features - mean) ** 2).mean()))


@dataclass(frozen=True)
class Extractor:
    """A trained classifier with the centring of its features."""

    net: Classifier
    theta: Theta
    mean: np.ndarray
    scale: float

    def _run(self, images):
        images = backend.asarray(images, dtype=np.float32)
        if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 1):
            raise ValueError(f"features: images have shape {images.shape}, wanted (n, {SIZE}, {SIZE}, 1); "
                             "the classifier knows 8x8 digits only, use raw pixels for other images")
        if not len(images):
            raise ValueError("features: there are no images, wanted at least one")
        theta = self.theta.with_flat(backend.asarray(self.theta.flat))
        parts = [self.net.forward(theta, images[i:i + BLOCK])[0] for i in range(0, len(images), BLOCK)]
        return (np.concatenate([backend.to_host(part) for part in column]) for column in zip(*parts))

    def judge(self, images):
        """(features, labels) of images (n, 8, 8, 1) in [-1, 1]: float64 (n, 32) and int64 (n,)."""
        scores, penultimate = self._run(images)
        return (penultimate.astype(np.float64) - self.mean) / self.scale, scores.argmax(axis=1)

    def __call__(self, images):
        """The features: (penultimate - mean) / scale."""
        return self.judge(images)[0]

    def predict(self, images):
        """The classifier's labels."""
        return self.judge(images)[1]


@functools.lru_cache(maxsize=1)
def load():
    """The shipped Extractor, data/digits_features.h5. Raises DataError if the file is of another network."""
    path = asset("digits_features.h5")
    net = Classifier.make()
    with h5py.File(path, "r") as file:
        index = [(name, tuple(shape)) for name, shape in zip(file["names"].asstr()[()], file["shapes"][()])]
        wanted = [(name, shape + (0,) * (4 - len(shape))) for name, shape in net.layout.index()]
        if index != wanted:
            raise DataError(f"{path}: holds the parameters {index}, wanted {wanted}; write it again with "
                            "data/make_classifier.py")
        return Extractor(net, Theta(net.layout, file["theta"][()]), file["mean"][()], float(file["scale"][()]))
