"""Files of other libraries written by hand: torch's zip archives opcode by opcode, and safetensors byte by byte."""
import json
import struct
import zipfile

import numpy as np

STORAGES = {"f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage",
            "u2": "BFloat16Storage"}


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    return b"J" + struct.pack("<i", value) if value < 2 ** 31 else b"\x8a\x08" + struct.pack("<q", value)


def named(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


def many(*items):
    return b"(" + b"".join(items) + b"t"


def strided(key, code, count, offset, shape, strides):
    """The opcodes of one tensor, as torch.save writes them."""
    persistent = many(text("storage"), named("torch", STORAGES[code]), text(key), text("cpu"), integer(count)) + b"Q"
    return (named("torch._utils", "_rebuild_tensor_v2")
            + many(persistent, integer(offset), many(*map(integer, shape)), many(*map(integer, strides)), b"\x89",
                   named("collections", "OrderedDict") + b")R") + b"R")


def table(items):
    """The opcodes of {name: value}, values being opcodes."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def program(body):
    return b"\x80\x02" + body + b"."


def dense(key, x, code=None):
    strides = [stride // x.itemsize for stride in np.array(x, order="C").strides]
    return strided(key, code or x.dtype.str[1:], x.size, 0, x.shape, strides)


def archive(path, pickle, storages=None, byteorder="little", root="archive"):
    """A torch zip checkpoint of a pickle and of {key: bytes}."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr(f"{root}/data.pkl", pickle)
        file.writestr(f"{root}/byteorder", byteorder)
        for key, raw in (storages or {}).items():
            file.writestr(f"{root}/data/{key}", raw)
    return path


def checkpoint(path, arrays, wrap=None):
    """A torch zip checkpoint of {name: array}; wrap puts the opcodes of its table into others."""
    body = table({name: dense(str(i), x) for i, (name, x) in enumerate(arrays.items())})
    return archive(path, program(wrap(body) if wrap else body),
                   {str(i): np.ascontiguousarray(x).tobytes() for i, x in enumerate(arrays.values())})


def safetensors(path, header, data=b""):
    """A file of a header (a table, or the bytes to put in its place) and of data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path
