"""The .safetensors format: 8 bytes with the length of a JSON header, the header, then the tensors' bytes.

    {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {"key": "text"}}

All little-endian, rows first. The tensors must cover the bytes without a gap and without sharing any.
"""
import json
import math
import struct
from pathlib import Path

import numpy as np

from ..files import replacing
from .tensors import ForeignError, widen_bfloat16

LONGEST_HEADER = 100_000_000                # bytes, the format's own limit
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def read(path):
    """({name: array}, {key: text}): the tensors, BF16 as the float32 of the same value, and the metadata.

    Raises ForeignError for a file that is truncated, overlapping or otherwise not as the format wants it, and for
    dtypes other than F64, F32, F16, BF16 and I64.
    """
    with open(path, "rb") as file:
        size = Path(path).stat().st_size
        start, header = _header(path, file, size)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise ForeignError(f"{path}: __metadata__ is not a table of texts")
        places = {name: _place(path, name, entry) for name, entry in header.items()}
        end = 0
        for name, (begin, stop, _, _) in sorted(places.items(), key=lambda item: item[1][:2]):
            if begin != end:
                raise ForeignError(f"{path}: tensor {name!r} begins at byte {begin} of the data, wanted {end}: tensors "
                                   f"{'overlap' if begin < end else 'leave a gap'}")
            end = stop
        if end != size - start:
            raise ForeignError(f"{path}: the header tells of {end} bytes of data and the file has {size - start}; is "
                               "it truncated?")
        tensors = {}
        for name, (begin, stop, dtype, shape) in places.items():
            file.seek(start + begin)
            raw = np.frombuffer(file.read(stop - begin), DTYPES[dtype]).reshape(shape)
            tensors[name] = widen_bfloat16(raw) if dtype == "BF16" else raw
    return tensors, metadata


def write(path, tensors, metadata=None):
    """Write {name: array of float64, float32, float16 or int64} and {key: text} as one file, atomically."""
    names = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}
    header, end = ({"__metadata__": metadata} if metadata else {}), 0
    for name, x in sorted(tensors.items()):
        if x.dtype not in names:
            raise ForeignError(f"safetensors: tensor {name!r} is of {x.dtype}, wanted {' or '.join(map(str, names))}")
        header[name] = {"dtype": names[x.dtype], "shape": list(x.shape), "data_offsets": [end, end + x.nbytes]}
        end += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)                                 # the data begin at a multiple of 8 bytes
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, x in sorted(tensors.items()):
            file.write(np.asarray(x, x.dtype.newbyteorder("<"), order="C").tobytes())


def _header(path, file, size):
    """(where the data begin, the header's table)."""
    head = file.read(8)
    if len(head) < 8:
        raise ForeignError(f"{path}: the file has {size} bytes, wanted 8 that tell the header's length and then the "
                           "header; it is truncated or no safetensors file")
    length = struct.unpack("<Q", head)[0]
    if not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise ForeignError(f"{path}: a header of {length} bytes in a file of {size}, wanted 2 to {LONGEST_HEADER} and "
                           "within the file; it is truncated or no safetensors file")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ForeignError(f"{path}: the header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise ForeignError(f"{path}: the header is a {type(header).__name__}, wanted a table of tensors")
    return 8 + length, header


def _unique(pairs):
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is there twice")
    return table


def _place(path, name, entry):
    """(first byte, byte after the last, dtype, shape) of a tensor, as its entry says, checked against each other."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise ForeignError(f"{path}: the entry of tensor {name!r} does not have just {', '.join(sorted(keys))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ForeignError(f"{path}: tensor {name!r} is of dtype {dtype!r}, wanted one of {', '.join(DTYPES)}")
    if not all(isinstance(numbers, list) and all(type(i) is int and 0 <= i < 2 ** 63 for i in numbers)
               for numbers in (shape, offsets)) or len(offsets) != 2 or len(shape) > 32:
        raise ForeignError(f"{path}: tensor {name!r} has a shape or offsets that are not lists of sizes")
    begin, stop = offsets
    wanted = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if stop - begin != wanted:
        raise ForeignError(f"{path}: tensor {name!r} has {stop - begin} bytes, {dtype} {tuple(shape)} needs {wanted}")
    return begin, stop, dtype, tuple(shape)
