"""Frechet distance between two sets of vectors, each seen as a Gaussian.

    d^2 = |m_a - m_b|^2 + tr C_a + tr C_b - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2

is the squared 2-Wasserstein distance between N(m_a, C_a) and N(m_b, C_b) (Dowson & Landau 1982), and, as in
FID, d^2 itself is the number reported. It is biased upwards by sampling: compare
only at equal n, and beside the floors (floors.py).
"""
from typing import NamedTuple

import numpy as np

from .. import backend


class Moments(NamedTuple):
    """Mean (d,) and covariance (d, d) with divisor n - 1, in float64."""

    mean: np.ndarray
    cov: np.ndarray


def vectors(x, name="features"):
    """x (n, ...) on the host as float64 (n, d). Raises ValueError unless it is finite and n, d >= 1."""
    x = np.asarray(backend.to_host(x), dtype=np.float64)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{name} have shape {x.shape}, wanted (n, d) with n and d at least 1")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: row {int(np.argwhere(~np.isfinite(x))[0][0])} is not finite; drop or clip it")
    return x.reshape(len(x), -1)


def moments(features):
    """Moments of features (n, ...), n >= 2."""
    x = vectors(features)
    if len(x) < 2:
        raise ValueError("moments: one vector has no covariance, wanted n >= 2")
    mean = x.mean(axis=0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1))


def _root(cov):
    """The symmetric square root of a covariance; eigenvalues that are rounding (or below 0) count as 0."""
    values, axes = np.linalg.eigh((cov + cov.T) / 2)
    values = np.where(values > len(values) * np.finfo(float).eps * np.abs(values).max(), values, 0.0)
    return (axes * np.sqrt(values)) @ axes.T


def distance(a, b):
    """The squared Frechet distance of two feature sets (n, ...), or of two Moments; a float >= 0. [FID eq. 6]

    The trace of the square root is the sum of the singular values of C_a^1/2 C_b^1/2, which stays real and
    accurate where the covariances have no inverse (n <= d, or features that are constant).
    """
    a, b = (x if isinstance(x, Moments) else moments(x) for x in (a, b))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"frechet.distance: features of {a.mean.size} and of {b.mean.size} numbers; "
                         "compute both with the same features")
    shift = a.mean - b.mean
    overlap = np.linalg.svd(_root(a.cov) @ _root(b.cov), compute_uv=False).sum()
    return max(float(shift @ shift + np.trace(a.cov) + np.trace(b.cov) - 2 * overlap), 0.0)
