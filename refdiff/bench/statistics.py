"""From seconds to rows: medians, spreads, ratios, agreement. Pure functions of numbers."""
import numpy as np


def median(seconds):
    return float(np.median(seconds))


def spread(seconds):
    """The interquartile range over the median: half of all rounds lie within this share of one another."""
    low, middle, high = np.percentile(seconds, (25, 50, 75))
    return float((high - low) / middle)


def disagreement(ours, theirs):
    """(error, name): the worst array of two sets, by rms(a - b)/(rms(b) + rms(all)/100).

    The second term is for gradients that are 0 in exact arithmetic, as that of a bias before a normalisation. The error
    of arrays of other shapes, or with what is not finite, is inf.
    """
    if set(ours) != set(theirs):
        return np.inf, ", ".join(sorted(set(ours) ^ set(theirs)))
    everything = np.concatenate([np.ravel(b) for b in theirs.values()]) if theirs else np.zeros(0)
    finite = everything[np.isfinite(everything)]
    floor = 0.01 * rms(finite) if finite.size else 0

    def error(a, b):
        if np.shape(a) != np.shape(b) or not (np.isfinite(a).all() and np.isfinite(b).all()):
            return np.inf
        return rms(np.asarray(a, np.float64) - b) / (rms(b) + floor or 1)

    return max(((error(ours[name], b), name) for name, b in theirs.items()), default=(0.0, ""))


def rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def row(seconds, **what):
    """A row of what was measured: seconds {contender: [per step, one per round]}, "refdiff" and layouts of PyTorch.

    ratio: PyTorch's best eager layout over refdiff, of medians; a compiled PyTorch is listed, and is not the bar.
    spread: the larger of those two contenders'.
    """
    medians = {name: median(s) for name, s in seconds.items()}
    eager = [name for name in medians if name not in ("refdiff", "compile")]
    best = min(eager, key=medians.get, default=None)
    ours = medians.get("refdiff")
    return {**what, "refdiff_s": ours, "torch_s": medians.get(best), "torch_layout": best,
            "ratio": medians[best] / ours if best and ours else None,
            "spread": max(spread(seconds[name]) for name in ("refdiff", best) if name in seconds),
            "torch_all_s": {name: s for name, s in medians.items() if name != "refdiff"},
            "rounds": len(next(iter(seconds.values())))}
