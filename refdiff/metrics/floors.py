"""What a Frechet number is read against: two floors that real images reach, and a baseline to beat.

A Frechet number alone says nothing: it depends on the features and on n. Compute these with the same features
and the same n, and quote ratios.
"""
import numpy as np

from .. import backend
from ..data import quantize, stratified_split
from . import frechet


def bootstrap(features, n, key, repeats=10):
    """Distances of n rows drawn with replacement from features (m, d) to all of them: (repeats,).

    What n perfect samples of the training distribution would score: the finite-sample floor.
    """
    features = frechet.vectors(features)
    whole = frechet.moments(features)
    return np.array([frechet.distance(features[key.fold("bootstrap", i).generator().integers(0, len(features), n)],
                                      whole) for i in range(repeats)])


def real_against_real(features, labels, n, key, fraction=0.2, repeats=10):
    """Distances of n real training rows to real held-out rows, over `repeats` stratified splits: (repeats,).

    What real training images would score against held-out ones in place of n class-balanced samples: n rows drawn
    with replacement from the training part, every class in turn, as samples are. features (m, d) and labels (m,) are
    of all real images; `fraction` is held out each time. n None: the training part itself, each row once. A single
    split is noisy, and splits or draws that are not stratified about double the floor.
    """
    features, labels = frechet.vectors(features), np.asarray(labels)
    classes, labels = np.unique(labels, return_inverse=True)
    distances = []
    for i in range(repeats):
        train, heldout = stratified_split(labels, fraction, key.fold("split", i))
        if n is None:
            distances.append(frechet.distance(features[train], features[heldout]))
            continue
        generator = key.fold("draw", i).generator()
        rows = np.empty(n, np.int64)
        drawn = balanced_labels(n, len(classes))
        for label in range(len(classes)):
            rows[drawn == label] = generator.choice(train[labels[train] == label], np.sum(drawn == label))
        distances.append(frechet.distance(features[rows], features[heldout]))
    return np.array(distances)


def balanced_labels(n, classes):
    """Labels 0, 1, ..., classes-1, 0, 1, ...: int64 (n,), counts equal to within one."""
    return np.arange(n, dtype=np.int64) % classes


def gaussian_per_class(images, labels, n, key, levels=0):
    """n class-balanced samples of one Gaussian per class, fitted to the pixels: the baseline, float32 like images.

    images (m, h, w, c), labels (m,) with at least two images of each class. Clipped and rounded to `levels` as
    samples are. Returns (samples (n, h, w, c), their labels (n,)).

    With the m_k centred images of class k as rows of X, x = mean + X' z / sqrt(m_k - 1) with z ~ N(0, I) has
    exactly the class's covariance, without its ever being formed or inverted.
    """
    images, labels = (np.asarray(backend.to_host(a)) for a in (images, labels))
    drawn = balanced_labels(n, int(labels.max()) + 1)
    samples = np.empty((n,) + images.shape[1:], np.float32)
    for label in np.unique(drawn):
        members = images[labels == label]
        if len(members) < 2:
            raise ValueError(f"gaussian_per_class: class {label} has {len(members)} images, wanted at least 2")
        members = frechet.vectors(members, f"images of class {label}")
        mean = members.mean(axis=0)
        rows = drawn == label
        z = key.fold("gaussian", int(label)).generator().standard_normal((rows.sum(), len(members)))
        x = mean + z @ (members - mean) / np.sqrt(len(members) - 1)
        samples[rows] = x.reshape((-1,) + images.shape[1:])
    return quantize(samples, levels), drawn
