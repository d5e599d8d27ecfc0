"""Nearest neighbours: precision, recall, and how close the samples come to the training images."""
import numpy as np
from scipy.spatial.distance import cdist

from .frechet import vectors

BLOCK = 2 ** 24          # distances held at once (128 MiB)


def _blocks(a, b):
    """Euclidean distances of rows of a to all of b, (start, (rows, len(b))) at a time."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"neighbours: vectors of {a.shape[1]} and of {b.shape[1]} numbers; "
                         "compute both with the same features")
    rows = max(BLOCK // len(b), 1)
    for start in range(0, len(a), rows):
        yield start, cdist(a[start:start + rows], b)


def radii(points, k=3):
    """Distance of each point (n, d) to its k-th nearest other point: (n,). Needs n > k."""
    points = vectors(points, "points")
    if not 1 <= k < len(points):
        raise ValueError(f"radii: k is {k} for {len(points)} points, wanted 1 <= k < {len(points)}")
    # The nearest of all is the point itself (or its duplicate, which is as near), so place k is the k-th other.
    return np.concatenate([np.partition(d, k, axis=1)[:, k] for _, d in _blocks(points, points)])


def coverage(points, centres, radius):
    """Share of points (m, d) that lie in a ball around at least one centre (n, d): |p - c| <= radius (n,)."""
    points, centres = vectors(points, "points"), vectors(centres, "centres")
    return float(np.concatenate([(d <= radius).any(axis=1) for _, d in _blocks(points, centres)]).mean())


def precision_recall(real, samples, k=3, real_radii=None):
    """(precision, recall): a set is the union of the balls that reach its points' k-th neighbours. [PR sec. 2]

    precision  share of samples inside the real set;  recall  share of real images inside the samples' set
    real_radii: radii(real, k), where they are known.
    """
    real_radii = radii(real, k) if real_radii is None else real_radii
    return coverage(samples, real, real_radii), coverage(real, samples, radii(samples, k))


def nearest(samples, training):
    """For each sample the nearest training image: (distances (m,), indices (m,)).

    On images in [-1, 1] the distance is the l2 norm over pixels and channels: 0 is a copy, and one pixel that
    differs by one of L grey levels is 2 / (L - 1).
    """
    samples, training = vectors(samples, "samples"), vectors(training, "training")
    distances, indices = np.empty(len(samples)), np.empty(len(samples), np.int64)
    for start, d in _blocks(samples, training):
        rows = slice(start, start + len(d))
        indices[rows] = d.argmin(axis=1)
        distances[rows] = d.min(axis=1)
    return distances, indices
