"""How samples are spread over the classes."""
import numpy as np

from .. import backend


def class_histogram(labels, classes):
    """Number of labels (n,) in each of `classes` classes: int64 (classes,)."""
    labels = np.asarray(backend.to_host(labels))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"class_histogram: labels are {labels.dtype} {labels.shape}, wanted integers (n,)")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"class_histogram: labels span {labels.min()}..{labels.max()}, wanted 0..{classes - 1}")
    return np.bincount(labels, minlength=classes)


def total_variation(counts, reference):
    """1/2 sum_k |p_k - q_k| of the shares p of counts (classes,) and q of reference (classes,): 0 equal, 1 disjoint."""
    p, q = (np.asarray(c, dtype=np.float64) for c in (counts, reference))
    if p.shape != q.shape or p.sum() <= 0 or q.sum() <= 0:
        raise ValueError(f"total_variation: counts {p.shape} summing to {p.sum():g} and {q.shape} summing to "
                         f"{q.sum():g}; wanted equal classes and at least one label each")
    return float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)
