"""What is in an image file, before it means anything: bytes to (images, labels, grey levels, class names).

    read(path)         -> Raw     a folder of pictures, .npy, .npz, HDF5, IDX (gzip too)
    read_labels(path)  -> array   the labels alone, from any of the file formats

A format is told by its first bytes, not by its name. Nothing is ever unpickled: a pickle, and a NumPy
file that holds Python objects, are refused. Values and shapes are judged in data.py, in one place.
"""
import gzip
import math
import struct
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_NAMES, LABEL_NAMES = ("images", "x"), ("labels", "y")


class DataError(ValueError):
    """A data file or array that cannot be used: what, where, got, wanted, what to do."""


class Raw(NamedTuple):
    """What a file holds: images as stored, labels or None, grey levels and class names if it says them."""

    images: np.ndarray
    labels: np.ndarray | None = None
    levels: int | None = None
    classes: tuple | None = None
    heldout: np.ndarray | None = None      # True for the images that a split holds out


def read(path):
    """The images at `path` and what is stored with them. Raises FileNotFoundError or DataError."""
    path = _existing(path)
    if path.is_dir():
        return read_folder(path)
    kind = sniff(path)
    if kind == "idx":
        return read_idx_pair(path)
    found, attributes = ARRAYS[kind](path)
    images = _pick(path, found, IMAGE_NAMES, "images")
    labels = next((found[name] for name in LABEL_NAMES if name in found), None)
    classes = attributes.get("classes")
    if classes is not None:
        classes = tuple(str(name) for name in np.atleast_1d(classes))
    levels = attributes.get("grey_levels")
    if levels is not None:
        if np.ndim(levels) or not isinstance(levels, (int, np.integer)):
            raise DataError(f"{path}: attribute grey_levels is {levels!r}, wanted one integer")
        levels = int(levels)
    return Raw(images, labels, levels, classes, found.get("heldout"))


def read_labels(path):
    """The labels stored in a .npy, .npz, HDF5 or IDX file. Raises FileNotFoundError or DataError."""
    path = _existing(path)
    if path.is_dir():
        raise DataError(f"{path}: labels are in a folder, wanted a file (.npy, .npz, .h5 or IDX)")
    kind = sniff(path)
    if kind == "idx":
        return read_idx(path, (1,))
    return _pick(path, ARRAYS[kind](path)[0], LABEL_NAMES, "labels")


def _existing(path):
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder; check the path")
    return path


def sniff(path):
    """The format of a file by its first bytes: "npy", "npz", "h5" or "idx" (plain or gzip)."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    for magic, kind in ((b"\x93NUMPY", "npy"), (b"PK\x03\x04", "npz"), (b"PK\x05\x06", "npz"), (b"\x89HDF\r\n", "h5"),
                        (b"\x1f\x8b", "idx"), (b"\x00\x00", "idx")):
        if head.startswith(magic):
            return kind
    if head[0] == 0x80:
        raise DataError(f"{path}: this is a pickle, which may run code when opened: refused; "
                        "save the array with numpy.save(path, x, allow_pickle=False)")
    if path.suffix.lower() in PICTURES:
        raise DataError(f"{path}: this is one picture, wanted many; give the folder that holds them")
    raise DataError(f"{path}: the first bytes {head[:4]!r} are of no format known here; "
                    "wanted a folder of pictures, .npy, .npz, .h5 or MNIST's IDX")


def _pick(path, found, names, what):
    """The array under one of `names`, or the only one there is."""
    for name in names:
        if name in found:
            return found[name]
    if len(found) == 1:
        return next(iter(found.values()))
    raise DataError(f"{path}: no array named {' or '.join(names)} for the {what}; "
                    f"it holds {', '.join(sorted(found)) or 'nothing'}; rename one")


def _broken(path, kind, error):
    """The DataError for a file whose bytes cannot be read as what they claim to be."""
    if "allow_pickle" in str(error) or "Python objects" in str(error) or "pickle" in str(error):
        return DataError(f"{path}: the array holds pickled Python objects, which may run code when opened: refused; "
                         "save numbers: numpy.save(path, x.astype('uint8'), allow_pickle=False)")
    return DataError(f"{path}: cannot be read as {kind}, it is truncated or damaged "
                     f"({type(error).__name__}: {error}); copy or write it again")


# A damaged file can make a parser raise nearly anything, so the three readers below catch Exception and say
# which file it was.

def _npy(path):
    try:
        # Mapping checks the promised size against the file's before any memory is taken.
        return {"array": np.array(np.load(path, mmap_mode="r", allow_pickle=False))}, {}
    except Exception as error:
        raise _broken(path, ".npy", error) from error


def _npz(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, {}
    except Exception as error:
        raise _broken(path, ".npz", error) from error


def _h5(path):
    try:
        with h5py.File(path, "r") as file:
            found = {name: item[()] for name, item in file.items() if isinstance(item, h5py.Dataset)}
            return found, dict(file.attrs)
    except Exception as error:
        raise _broken(path, "HDF5", error) from error


ARRAYS = {"npy": _npy, "npz": _npz, "h5": _h5}


def read_idx(path, axes):
    """An IDX file of unsigned bytes with a number of axes in `axes`, gzip or plain, as a uint8 array.

    Layout: two zero bytes, the type (8: unsigned byte), the number of axes, the axes' sizes (big-endian uint32),
    then the values with the last axis fastest; and not a byte more.
    """
    blob = Path(path).read_bytes()
    if blob[:2] == b"\x1f\x8b":
        try:
            blob = gzip.decompress(blob)
        except Exception as error:
            raise _broken(path, "gzip", error) from error
    if len(blob) < 4 or blob[:2] != b"\x00\x00":
        raise DataError(f"{path}: not an IDX file: it starts with {blob[:4]!r}, wanted two zero bytes, type, axes")
    kind, ndim = blob[2], blob[3]
    if kind != 8:
        raise DataError(f"{path}: IDX values have type 0x{kind:02x}, wanted 0x08 (unsigned byte)")
    if ndim not in axes:
        has = {1: " (labels)", 3: " (images)"}.get(ndim, "")
        hint = "; give the images file, its labels are found beside it" if ndim == 1 else ""
        raise DataError(f"{path}: IDX array has {ndim} axes{has}, wanted {' or '.join(map(str, axes))}{hint}")
    start = 4 + 4 * ndim
    if len(blob) < start:
        raise DataError(f"{path}: truncated IDX header: {len(blob)} bytes, wanted {start}")
    shape = struct.unpack(f">{ndim}I", blob[4:start])
    size = start + math.prod(shape)
    if len(blob) != size:
        state = "truncated" if len(blob) < size else "too long"
        raise DataError(f"{path}: {state}: {len(blob)} bytes, wanted {size} for an array of shape {shape}; "
                        "copy it again")
    return np.frombuffer(blob, np.uint8, offset=start).reshape(shape)


def read_idx_pair(path):
    """IDX images with the labels that lie beside them under MNIST's naming, if they do."""
    images = read_idx(path, (3, 4))
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    stem = name[:-3] if name.endswith(".gz") else name
    for candidate in (name, stem, stem + ".gz"):
        beside = path.with_name(candidate)
        if candidate != path.name and beside.exists():
            return Raw(images, read_idx(beside, (1,)))
    return Raw(images)


def read_folder(path):
    """The pictures in a folder, or in its subfolders, whose names are then the classes (in sorted order).

    All of one size and one mode (grey or RGB); files that are not pictures by their suffix are left alone.
    """
    files, folders = _listing(path)
    if files and folders:
        raise DataError(f"{path}: holds pictures and folders ({folders[0].name}); wanted pictures alone, "
                        "or one folder per class")
    if files:
        return Raw(_stack(files))
    if not folders:
        raise DataError(f"{path}: no pictures in this folder; wanted files ending in {', '.join(PICTURES)}")
    labels = []
    for label, folder in enumerate(folders):
        inside, deeper = _listing(folder)
        if deeper:
            raise DataError(f"{folder}: a class folder holds folders ({deeper[0].name}); "
                            "give the folder whose direct subfolders are the classes")
        if not inside:
            raise DataError(f"{folder}: no pictures for this class; wanted files ending in {', '.join(PICTURES)}")
        files += inside
        labels += [label] * len(inside)
    return Raw(_stack(files), np.array(labels), classes=tuple(folder.name for folder in folders))


def _listing(path):
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    return ([e for e in entries if e.is_file() and e.suffix.lower() in PICTURES],
            [e for e in entries if e.is_dir()])


def _stack(files):
    first = _picture(files[0])
    images = np.empty((len(files),) + first.shape, np.uint8)
    for i, file in enumerate(files):
        picture = first if i == 0 else _picture(file)
        if picture.shape != first.shape:
            raise DataError(f"{file}: picture is {_size(picture)}, but {files[0].name} is {_size(first)}; "
                            "resize or convert them to one size and one mode")
        images[i] = picture
    return images


def _size(picture):
    return f"{picture.shape[0]} x {picture.shape[1]} ({'grey' if picture.shape[2] == 1 else 'RGB'})"


def _picture(file):
    """A picture upright (EXIF) as uint8 (h, w, 1) or (h, w, 3)."""
    from PIL import Image, ImageOps
    try:
        with Image.open(file) as image:
            frames, mode = getattr(image, "n_frames", 1), image.mode
            if mode == "P" and "transparency" not in image.info:
                image = image.convert("RGB")
            elif mode == "1":
                image = image.convert("L")
            picture = np.asarray(ImageOps.exif_transpose(image))
            converted = image.mode
    except Exception as error:
        raise _broken(file, "a picture", error) from error
    if frames != 1:
        raise DataError(f"{file}: holds {frames} frames, wanted one; save them as separate pictures")
    if converted not in ("L", "RGB"):
        raise DataError(f"{file}: picture has mode {mode}, wanted grey (L) or RGB with 8 bits; "
                        "convert it, and say what a transparent pixel should be")
    return picture.reshape(picture.shape[0], picture.shape[1], -1)
