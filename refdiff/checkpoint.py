"""HDF5 files that are always whole: what was written is read back to the last bit, or refused.

    save(path, arrays, meta, kind)      load(path, kind)            any named arrays, and JSON beside them
    save_checkpoint(path, c)            load_checkpoint(path)       a Checkpoint: everything a run needs to go on

A file is written under another name in the same folder, flushed to the disk and renamed over the old one: a process
killed at any moment leaves the old file or the new one. A digest of the content is stored with it. Nothing is pickled.
"""
import hashlib
import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import h5py
import numpy as np

from . import __version__, backend
from .files import replacing, writing
from .params import Theta

FORMAT = 1                  # raised when an older refdiff could not read the file
_OURS = "refdiff"           # the group that holds what is not an array
_KEPT = "biufc"             # the dtypes that HDF5 returns as they were: bool, integers, floats, complex


class CheckpointError(ValueError):
    """A file that cannot be used: missing pieces, damage, another kind or another network."""


@dataclass
class Checkpoint:
    """A run at one moment. `kind` says of what: "training", "distillation", "classifier", ...

    config:  the full resolved configuration, JSON-able
    index:   [(parameter name, shape), ...], the order of every vector (Layout.index())
    vectors: name -> flat vector: "theta", and what goes with it ("ema", "m", "v", "target", ...)
    step, seed: updates done and the run's seed. Noise is counter-based, so these two are the whole random state
    history: column -> one number per update or per logged update ("loss", ...)
    extras:  other arrays that belong to the network (a mean image, class counts, ...)
    """

    kind: str
    config: dict
    index: list
    vectors: dict
    step: int = 0
    seed: int = 0
    history: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)

    def __post_init__(self):
        self.index = [(str(name), tuple(int(s) for s in shape)) for name, shape in self.index]
        size = self.size
        if "theta" not in self.vectors:
            raise CheckpointError(f"Checkpoint: there is no vector 'theta', only {sorted(self.vectors)}")
        for name, vector in self.vectors.items():
            if vector.shape != (size,):
                raise CheckpointError(f"Checkpoint: vector {name!r} has shape {vector.shape}, "
                                      f"the {len(self.index)} parameters of the index need ({size},)")

    @property
    def size(self):
        """The number of parameters."""
        return sum(int(np.prod(shape, dtype=np.int64)) for _, shape in self.index)

    def parameters(self, layout, name="theta", copy=False):
        """Vector `name` under a network's layout, where new arrays are made: a Theta; with copy, of memory of its own.

        Raises CheckpointError that lists the missing, unused and mis-shaped parameters if the network is another.
        """
        check_index(self.index, layout.index())
        if name not in self.vectors:
            raise CheckpointError(f"Checkpoint: no vector {name!r}; there are {', '.join(sorted(self.vectors))}")
        flat = backend.asarray(self.vectors[name])
        return Theta(layout, flat.copy() if copy and isinstance(flat, np.ndarray) else flat)    # a device's is a copy


def check_index(got, wanted):
    """Raise CheckpointError unless the parameters of a file (got) are those of a network (wanted), in order."""
    got, wanted = ([(name, tuple(shape)) for name, shape in index] for index in (got, wanted))
    if got == wanted:
        return
    there, needed = dict(got), dict(wanted)
    lists = {"missing": [f"{n} {s}" for n, s in wanted if n not in there],
             "unused": [f"{n} {s}" for n, s in got if n not in needed],
             "mis-shaped": [f"{n} is {there[n]}, wanted {s}" for n, s in wanted if there.get(n, s) != s]}
    said = [f"{what}: " + ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")
            for what, names in lists.items() if names] or ["the names are the same, in another order"]
    raise CheckpointError("the file's parameters do not fit this network: " + "; ".join(said)
                          + "; build the network from the checkpoint's own configuration")


def save_checkpoint(path, checkpoint):
    """Write a Checkpoint, atomically."""
    groups = ("vectors", "history", "extras")
    arrays = {f"{group}/{name}": array for group in groups for name, array in getattr(checkpoint, group).items()}
    meta = {"config": checkpoint.config, "index": checkpoint.index, "step": int(checkpoint.step),
            "seed": int(checkpoint.seed)}
    save(path, arrays, meta, checkpoint.kind)


def load_checkpoint(path, kind=None):
    """The Checkpoint in a file, arrays on the host; `kind`, or a tuple of kinds, if only those will do."""
    arrays, meta, found = read(path, kind)
    groups = {"vectors": {}, "history": {}, "extras": {}}
    try:
        for name, array in arrays.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = array
        return Checkpoint(found, meta["config"], meta["index"], step=meta["step"], seed=meta["seed"], **groups)
    except KeyError as error:
        raise CheckpointError(f"{path}: a file of kind {found!r} holds no network ({error} is not what a checkpoint "
                              "has); wanted one written by refdiff train or distill") from None


# ---- files

def _json(meta):
    try:
        return json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"save: meta is not JSON ({error}); numbers, strings, lists and dicts only, "
                              "no NaN: keep arrays in `arrays`") from None


def _digest(arrays, meta, kind):
    """BLAKE2b of the content in a fixed order: equal digests, equal bits."""
    total = hashlib.blake2b(json.dumps([kind, json.loads(meta)], sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        x = arrays[name]
        total.update(json.dumps([name, x.dtype.str, x.shape]).encode())
        total.update(x.reshape(-1).view(np.uint8).data if x.size else b"")
    return total.hexdigest()


def save(path, arrays, meta=None, kind="arrays"):
    """Write named arrays (host or device, "a/b" makes groups) and JSON-able meta as one HDF5 file, atomically.

    The folder is made if need be. Raises CheckpointError for what a file cannot hold, before anything is written,
    and OSError if the disk refuses; the old file is then still there.
    """
    host = {}
    for name, array in arrays.items():
        host[name] = x = np.asarray(backend.to_host(array), order="C")
        if x.dtype.kind not in _KEPT:
            raise CheckpointError(f"save: array {name!r} is of dtype {x.dtype}, wanted numbers or bools")
        if not name or name.split("/")[0] == _OURS:
            raise CheckpointError(f"save: an array cannot be named {name!r}")
    meta = _json({} if meta is None else meta)
    with replacing(path) as partial, writing(partial) as file:
        file.attrs.update(refdiff_format=FORMAT, refdiff_version=__version__, kind=kind)
        file.attrs["digest"] = _digest(host, meta, kind)
        for name, x in host.items():
            file.create_dataset(name, data=x, track_times=False)
        file.create_dataset(f"{_OURS}/meta", data=meta, track_times=False)


def load(path, kind=None):
    """(arrays, meta) of a file that `save` wrote; `kind`, or a tuple of kinds, if only those will do.

    Raises FileNotFoundError, or CheckpointError for a file that is not HDF5, not refdiff's, of a newer format, of
    another kind, truncated or damaged.
    """
    return read(path, kind)[:2]


def open_file(path):
    """The HDF5 file at path, or an error that says why not."""
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder, wanted a file; it holds {_listing(path)}")
    if not path.exists():
        near = get_close_matches(path.name, _names(path.parent), 1)
        raise FileNotFoundError(f"{path}: no such file; " + (f"did you mean {path.with_name(near[0])}?" if near else
                                                             f"the folder holds {_listing(path.parent)}"))
    if not h5py.is_hdf5(path):
        size = path.stat().st_size
        raise CheckpointError(f"{path}: is not an HDF5 file" + (f" ({size} bytes)" if size else ", it is empty"))
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); restore it from a copy") from error


def is_ours(path):
    """Whether there is a file at path that `save` wrote."""
    try:
        with h5py.File(path, "r") as file:
            return "refdiff_format" in file.attrs
    except OSError:
        return False


def _names(folder):
    return sorted(p.name for p in folder.glob("*") if p.is_file()) if folder.is_dir() else []


def _listing(folder):
    names = [name for name in _names(folder) if name.endswith((".h5", ".hdf5"))]
    return ", ".join(names[-8:]) or "no .h5 file"


def datasets(file):
    """name -> dataset of an open file, groups walked, refdiff's own left out."""
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset)
                    and name.split("/")[0] != _OURS else None)
    return found


def read(path, wanted=None):
    """(arrays, meta, kind) of a file that `save` wrote, checked; raises as `load` does."""
    with open_file(path) as file:
        version = file.attrs.get("refdiff_format")
        if version is None:
            raise CheckpointError(f"{path}: is HDF5 but was not written by refdiff; `refdiff info` lists its content")
        if version > FORMAT:
            raise CheckpointError(f"{path}: has format {version}, written by refdiff {file.attrs['refdiff_version']}; "
                                  f"this is {__version__}, which reads up to {FORMAT}: upgrade refdiff")
        kind = file.attrs.get("kind")
        kinds = (wanted,) if isinstance(wanted, str) else wanted
        if kinds and kind not in kinds:
            raise CheckpointError(f"{path}: is of kind {kind!r}, wanted {' or '.join(map(repr, kinds))}")
        try:
            arrays = {name: np.asarray(item[()], dtype=item.dtype) for name, item in datasets(file).items()}
            meta = file[f"{_OURS}/meta"].asstr()[()]
            whole = file.attrs["digest"] == _digest(arrays, meta, kind)
        except Exception as error:              # HDF5 reports damage as OSError, KeyError, RuntimeError, ...
            raise CheckpointError(f"{path}: damaged ({error}); restore it from a copy") from error
    if not whole:
        raise CheckpointError(f"{path}: damaged, its content does not have the digest it was saved with; "
                              "restore it from a copy")
    return arrays, json.loads(meta), kind
