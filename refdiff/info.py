"""What is in a file, as lines for people: checkpoints, any HDF5 file, arrays, data sets and pictures."""
import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from . import checkpoint, readers


def describe(path):
    """The lines that `refdiff info` prints. Raises FileNotFoundError or ValueError, saying why nothing can be told."""
    path = Path(path)
    if path.is_file() and path.suffix.lower() in readers.PICTURES:
        return _picture(path)
    if path.exists() and not h5py.is_hdf5(path):
        return _data(path)
    with checkpoint.open_file(path) as file:                    # a missing file is refused here
        attributes = dict(file.attrs)
        arrays = [(name, item.dtype, item.shape) for name, item in checkpoint.datasets(file).items()]
    head = f"{path}: {path.stat().st_size:,} bytes"
    told = _ours(path, attributes) if "refdiff_format" in attributes else {n: _plain(v) for n, v in attributes.items()}
    return [head, *_table(told), *_table({"arrays": {name: f"{dtype} {shape}" for name, dtype, shape in arrays}})]


def _ours(path, attributes):
    arrays, meta, kind = checkpoint.read(path)
    told = {"kind": kind, "version": f"{attributes['refdiff_version']}, format {attributes['refdiff_format']}",
            "digest": attributes["digest"]}
    if "vectors/theta" in arrays:
        theta = arrays["vectors/theta"]
        told["parameters"] = f"{theta.size:,} in {len(meta.pop('index'))} arrays, {theta.dtype}"
        told["step"], told["seed"] = f"{meta.pop('step'):,}", str(meta.pop("seed"))
    for name, column in arrays.items():
        if name.startswith("history/") and column.ndim and column.size:
            told[f"last {name.partition('/')[2]}"] = f"{column[-1]:.6g}"
    return {**told, **meta}


def _table(tree, indent=""):
    """Names and values in two columns, a dictionary's one step to the right under its name."""
    width = max((len(name) for name, value in tree.items() if not isinstance(value, dict)), default=0)
    lines = []
    for name, value in tree.items():
        if isinstance(value, dict):
            lines += [indent + name, *_table(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<{width}}  {value if isinstance(value, str) else json.dumps(value)}")
    return lines


def _plain(value):
    return ", ".join(map(str, value)) if np.ndim(value) == 1 else str(value)


def _data(path):
    raw = readers.read(path)
    told = {"images": f"{raw.images.dtype} {raw.images.shape}"}
    if raw.images.size and raw.images.dtype.kind in "biuf":
        told["values"] = f"{raw.images.min()} to {raw.images.max()}"
    if raw.labels is not None:
        told["labels"] = f"{raw.labels.dtype} {raw.labels.shape}, {len(np.unique(raw.labels))} different"
    if raw.classes:
        told["classes"] = _plain(raw.classes)
    return [f"{path}: " + (f"{path.stat().st_size:,} bytes" if path.is_file() else "a folder"), *_table(told)]


def _picture(path):
    try:
        with Image.open(path) as picture:
            told = f"picture  {picture.format} {picture.mode}, {picture.width} x {picture.height} pixels"
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error})") from error
    return [f"{path}: {path.stat().st_size:,} bytes", told]
