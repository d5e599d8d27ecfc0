"""Images to train on: one Dataset from an array, a file or a folder, in one scale.

    Dataset            images float32 (n, h, w, c) in [-1, 1], labels int64 (n,) or None
    digits(split)      the embedded 8x8 digits
    load(path)         a folder of pictures, .npy, .npz, HDF5 or MNIST's IDX (gzip too)
    from_array(x)      an array in memory
    quantize(x, L)     back to L grey levels
    batch_indices(...) which images are in a training step's batch

Black is -1 and white is +1: a grey level g of L becomes x = 2 g / (L - 1) - 1.
"""
import functools
import importlib.resources
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import backend, readers
from .files import replacing, writing
from .readers import DataError

MAX_CLASSES = 2 ** 20          # a label above this is a mistake, not a class


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in [-1, 1] and what is known about them. The arrays are read-only and live on the host.

    images  float32 (n, h, w, c);  labels  int64 (n,) in 0..len(classes)-1, or None
    levels  number of grey levels the images were stored with (17, 256), 0 for continuous
    classes names of the classes, () without labels;  source  where the images came from
    """

    images: np.ndarray
    labels: np.ndarray | None
    levels: int
    classes: tuple
    source: str

    def __len__(self):
        return len(self.images)

    @property
    def shape(self):
        """(h, w, c) of one image."""
        return self.images.shape[1:]

    def take(self, indices):
        """The data set of some of the images, in the order of `indices`."""
        labels = None if self.labels is None else _readonly(self.labels[indices])
        return Dataset(_readonly(self.images[indices]), labels, self.levels, self.classes, self.source)


def asset(name):
    """The path of a file that comes with refdiff: in the installed package, else in data/ of the source tree."""
    places = [Path(__file__).resolve().parents[1] / "data" / name]
    try:
        places.insert(0, Path(str(importlib.resources.files("refdiff.assets") / name)))
    except ModuleNotFoundError:
        pass                    # a source tree: data/ is not yet a package
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name}: not among refdiff's files; looked in {', '.join(str(p.parent) for p in places)}; "
                            "reinstall refdiff")


def digits(split="train"):
    """The 1,797 8x8 digits of the UCI set, or the 1,437 of "train", or the 360 of "heldout" (stratified)."""
    return load(asset("digits.h5"), split=split)


def load(path, labels=None, split="all"):
    """The data set at `path`: a folder of pictures, .npy, .npz, HDF5 or IDX.

    Folder: pictures of one size, or one subfolder per class. .npz and HDF5: arrays `images` (or x) and `labels`
    (or y); HDF5 may have the attributes grey_levels and classes, and `heldout`, True where split="heldout".
    IDX: the labels are found beside the images under MNIST's naming. `labels` gives them instead: an array or
    a file. Raises FileNotFoundError, or DataError saying what is wrong with which file.
    """
    if split not in ("train", "heldout", "all"):
        raise ValueError(f"split is {split!r}, wanted 'train', 'heldout' or 'all'")
    raw = readers.read(path)
    if labels is None:
        labels = raw.labels
    elif isinstance(labels, (str, os.PathLike)):
        labels = readers.read_labels(labels)
    data = from_array(raw.images, labels, raw.levels, raw.classes, source=str(path))
    if split == "all":
        return data
    heldout = raw.heldout
    if heldout is None:
        raise DataError(f"{path}: holds no split, so no {split!r} part; wanted an array heldout (n,) of booleans")
    if heldout.dtype != bool or heldout.shape != (len(data),):
        raise DataError(f"{path}: heldout is {heldout.dtype} {heldout.shape}, wanted bool ({len(data)},)")
    return data.take(np.flatnonzero(heldout == (split == "heldout")))


def from_array(images, labels=None, levels=None, classes=None, source="array"):
    """A Dataset of images (n, h, w) or (n, h, w, c).

    uint8: grey levels 0..levels-1 (256 unless given), scaled to [-1, 1].
    float: must lie in [-1, 1] already, and is not guessed to: values that are never negative are refused as a
    likely [0, 1], unless `levels` is given (0: continuous). Raises DataError.
    """
    images = np.asarray(backend.to_host(images))
    images = _channels_last(images, source)
    if levels is not None and (levels < 0 or levels == 1 or levels > 256):
        raise DataError(f"{source}: {levels} grey levels, wanted 2..256, or 0 for continuous values")
    if images.dtype == np.uint8:
        levels = levels or 256
        if images.max() >= levels:
            raise DataError(f"{source}: a grey level is {images.max()}, wanted 0..{levels - 1} for {levels} levels")
        half = (levels - 1) / 2
        images = images.astype(np.float32) / half - 1
    elif images.dtype.kind == "f":
        _check_scale(images, levels, source)
        images = images.astype(np.float32)
        levels = levels or 0
    else:
        raise DataError(f"{source}: images are {images.dtype}, wanted uint8 (0..255) or floats in [-1, 1]; "
                        "convert with x.astype('uint8'), or scale to [-1, 1]")
    if labels is None:
        return Dataset(_readonly(images), None, int(levels), tuple(classes or ()), source)
    labels, classes = _checked_labels(labels, classes, len(images), source)
    return Dataset(_readonly(images), _readonly(labels), int(levels), classes, source)


def _readonly(array):
    view = array.view()
    view.flags.writeable = False
    return view


def _channels_last(images, source):
    if images.dtype == object:
        raise DataError(f"{source}: images are Python objects, wanted one numeric array; "
                        "are they of different sizes?")
    shape = images.shape
    if images.ndim not in (3, 4):
        raise DataError(f"{source}: images have shape {shape}, wanted (n, h, w) or (n, h, w, c)"
                        + ("; reshape the rows to h x w" if images.ndim == 2 else ""))
    if 0 in shape:
        raise DataError(f"{source}: images have shape {shape}: there are none")
    if images.ndim == 3:
        if shape[2] <= 4:
            raise DataError(f"{source}: images have shape {shape}, which looks like one colour image; "
                            "wanted (n, h, w) or (n, h, w, c); add the axis with x[None]")
        return images[..., None]
    if shape[1] <= 4 < shape[3]:
        raise DataError(f"{source}: images have shape {shape}, which looks channels-first; "
                        "wanted (n, h, w, c): x.transpose(0, 2, 3, 1)")
    return images


def _check_scale(images, levels, source):
    low, high = float(images.min()), float(images.max())
    if not np.isfinite(images).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(images))[0])
        raise DataError(f"{source}: image value {images[index]} at {index}, wanted finite numbers; remove that image")
    guess = "x * 2 - 1" if high <= 1 else "x / 127.5 - 1" if high <= 255 else "(x - low) / (high - low) * 2 - 1"
    if low < -1 or high > 1:
        raise DataError(f"{source}: float images span [{low:g}, {high:g}], wanted [-1, 1]; "
                        f"rescale them{', perhaps by ' + guess if low >= 0 else ''}")
    if low >= 0 and levels is None:
        raise DataError(f"{source}: float images span [{low:g}, {high:g}] and are never negative, so [0, 1] and "
                        f"[-1, 1] cannot be told apart; rescale by {guess}, or give levels=0 if this is [-1, 1]")


def _checked_labels(labels, classes, n, source):
    labels = np.asarray(backend.to_host(labels))
    if labels.dtype.kind not in "iu":
        raise DataError(f"{source}: labels are {labels.dtype}, wanted integers")
    if labels.shape != (n,):
        raise DataError(f"{source}: labels have shape {labels.shape}, wanted ({n},): one for each of the {n} images")
    low, high = int(labels.min()), int(labels.max())
    below = len(classes) if classes is not None else MAX_CLASSES
    if low < 0 or high >= below:
        at = int(np.argmax((labels < 0) | (labels >= below)))
        raise DataError(f"{source}: label {labels[at]} at {at}, wanted 0..{below - 1}; number the classes from 0")
    return labels.astype(np.int64), tuple(classes) if classes is not None else tuple(map(str, range(high + 1)))


def save(path, images, labels=None, levels=0, classes=(), **attributes):
    """Write images in [-1, 1] to HDF5, as `load` reads them: whole or not there.

    Further attributes (seed, sampler, ...) are strings or numbers. The same arguments give the same bytes.
    """
    data = from_array(images, labels, levels, classes or None, source=str(path))
    with replacing(path) as partial, writing(partial) as file:
        file.create_dataset("images", data=data.images, track_times=False)
        if data.labels is not None:
            file.create_dataset("labels", data=data.labels, track_times=False)
            file.attrs["classes"] = list(data.classes)
        file.attrs["grey_levels"] = data.levels
        file.attrs.update(attributes)


def save_npy(path, images):
    """Write images as one .npy array, as `load` reads it: whole or not there."""
    with replacing(path) as partial, open(partial, "wb") as file:
        np.save(file, np.asarray(images), allow_pickle=False)


def quantize(x, levels):
    """x clipped to [-1, 1] and rounded to the nearest of `levels` grey levels: 2 g / (levels - 1) - 1.

    levels 0: clipped only. Keeps dtype and device, and leaves x alone.
    """
    if levels < 0 or levels == 1:
        raise ValueError(f"quantize: levels is {levels}, wanted >= 2, or 0 for continuous values")
    xp = backend.of(x=x)
    x = xp.clip(x, -1.0, 1.0)
    half = (levels - 1) / 2
    return xp.rint((x + 1) * half) / half - 1 if levels else x


@functools.lru_cache(maxsize=2)
def _epoch_order(key, epoch, n):
    return _readonly(key.fold("epoch", epoch).generator().permutation(n))


def batch_indices(key, step, n, batch):
    """The images of step 0, 1, ...: int64 (batch,) in 0..n-1, a function of the arguments alone.

    The steps walk through one shuffle of all n after another, so every image is seen once per epoch, the last
    batch of an epoch takes the rest from the next, and a resumed run meets the same batches.
    """
    if step < 0 or n < 1 or batch < 1:
        raise ValueError(f"batch_indices: step {step}, n {n}, batch {batch}; wanted step >= 0, n >= 1, batch >= 1")
    start, stop = step * batch, (step + 1) * batch
    parts = []
    for epoch in range(start // n, (stop - 1) // n + 1):
        order = _epoch_order(key, epoch, n)
        parts.append(order[max(start - epoch * n, 0):stop - epoch * n])
    return np.concatenate(parts)


def stratified_split(labels, fraction, key):
    """Two sorted index arrays (kept, held out) with the classes in equal shares.

    round(fraction n) are held out, and of a class of size n_k either floor or ceil of n_k times that share;
    which images, is drawn from `key`.
    """
    labels = np.asarray(labels)
    if not 0 < fraction < 1:
        raise ValueError(f"stratified_split: fraction is {fraction}, wanted between 0 and 1")
    n = len(labels)
    total = round(fraction * n)
    classes, sizes = np.unique(labels, return_counts=True)
    counts, rest = np.divmod(sizes * total, n)
    counts[np.argsort(-rest, kind="stable")[:total - counts.sum()]] += 1     # largest remainders first
    heldout = np.zeros(n, bool)
    for label, count in zip(classes, counts):
        members = np.flatnonzero(labels == label)
        heldout[key.fold("split", int(label)).generator().permutation(members)[:count]] = True
    return np.flatnonzero(~heldout), np.flatnonzero(heldout)
