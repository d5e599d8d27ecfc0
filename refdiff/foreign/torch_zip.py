"""torch's checkpoints since 1.6 (.pt, .pth, .bin, .ckpt): a zip archive of a pickle and of raw storages.

    <root>/data.pkl     which tensors there are, read by torch_pickle without running it
    <root>/data/<key>   the storages' bytes
    <root>/byteorder    little or big; little if it is not there

The formats before (a tar archive, or one bare pickle) are refused: save the file again with a newer torch, or as
safetensors.
"""
import math
import zipfile

import numpy as np

from .tensors import ForeignError, widen_bfloat16
from .torch_pickle import Strided, interpret

LONGEST_PICKLE = 64 * 2 ** 20               # bytes; a thousand tensors need about 0.1 MiB


def read(path, key=None):
    """({name: array}, {}) of a torch zip checkpoint, without running anything in it; bfloat16 as float32.

    The checkpoint must be a table of tensors, or hold one under `key` ("ema" or "a.b" for a table in a table); entries
    of that table that are no tensors are left out. Raises ForeignError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive, key), {}
    except ForeignError:
        raise
    except Exception as error:              # zipfile reports damage in many ways: BadZipFile, NotImplementedError, ...
        raise ForeignError(f"{path}: damaged, or no zip archive of torch ({type(error).__name__}: {error})") from None


def _read(path, archive, key):
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise ForeignError(f"{path}: an entry of the archive is there twice")
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ForeignError(f"{path}: a zip archive with {len(pickles)} entries <root>/data.pkl, wanted one: it is no "
                           "checkpoint of torch")
    root = pickles[0][:-len("data.pkl")]

    def content(name, wanted=None):
        info = entries.get(root + name)
        if info is None:
            raise ForeignError(f"{path}: there is no entry {root + name} in the archive")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ForeignError(f"{path}: entry {root + name} is compressed or encrypted, which torch never does")
        if wanted is not None and info.file_size != wanted:
            raise ForeignError(f"{path}: entry {root + name} has {info.file_size} bytes, wanted {wanted}")
        return archive.read(info)

    if entries[root + "data.pkl"].file_size > LONGEST_PICKLE:
        raise ForeignError(f"{path}: {root}data.pkl has more than {LONGEST_PICKLE} bytes, which tables of tensors "
                           "do not need")
    order = content("byteorder").strip() if root + "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise ForeignError(f"{path}: {root}byteorder is neither little nor big")
    table = _select(path, interpret(content("data.pkl"), f"{path}: {root}data.pkl"), key)
    storages = {}

    def numbers(storage):
        if storage.key not in storages:
            dtype = np.dtype("u2" if storage.dtype == "bf16" else storage.dtype)
            raw = np.frombuffer(content(f"data/{storage.key}", storage.count * dtype.itemsize),
                                dtype.newbyteorder("<" if order == b"little" else ">"))
            storages[storage.key] = storage, raw.astype(dtype, copy=False)
        known, raw = storages[storage.key]
        if known != storage:
            raise ForeignError(f"{path}: entry data/{storage.key} is used with two dtypes or sizes")
        return raw

    return {name: _gather(path, name, x, numbers(x.storage)) for name, x in table.items()}


def _gather(path, name, x, numbers):
    """The array of a Strided: within its storage, and no larger than it."""
    last = x.offset + sum((n - 1) * stride for n, stride in zip(x.shape, x.strides))
    size = math.prod(x.shape)
    if size and (last >= len(numbers) or size > len(numbers)):
        raise ForeignError(f"{path}: tensor {name!r} of shape {x.shape} with strides {x.strides} from {x.offset} does "
                           f"not fit into its storage of {len(numbers)} numbers")
    if not size:
        return widen(x, np.zeros(x.shape, numbers.dtype))
    steps = tuple(stride * numbers.itemsize if n > 1 else 0 for n, stride in zip(x.shape, x.strides))
    view = np.lib.stride_tricks.as_strided(numbers[x.offset:], x.shape, steps, writeable=False)
    return widen(x, np.array(view, order="C"))


def widen(x, array):
    """The array of a Strided, bfloat16 as float32."""
    return widen_bfloat16(array) if x.storage.dtype == "bf16" else array


def _select(path, tree, key):
    """The tensors of the table under `key`."""
    for part in key.split(".") if key else ():
        if not isinstance(tree, dict) or part not in tree:
            raise ForeignError(f"{path}: there is no table {key!r} in the file; {_told(tree)}")
        tree = tree[part]
    tensors = {name: x for name, x in tree.items() if isinstance(x, Strided)} if isinstance(tree, dict) else {}
    if not tensors:
        raise ForeignError(f"{path}: the file{f' has no tensors under {key!r}' if key else ' is no table of tensors'}; "
                           f"{_told(tree)}")
    if not all(isinstance(name, str) for name in tensors):
        raise ForeignError(f"{path}: tensors are numbered, wanted names")
    return tensors


def _told(tree):
    if not isinstance(tree, dict):
        return f"it is a {type(tree).__name__}"
    names = [str(name) for name, value in tree.items() if isinstance(value, dict)]
    return f"choose the table with key: {', '.join(names[:20])}" if names else f"it has {len(tree)} entries, no tables"
