"""The kernels of refdiff/cuda, compiled for this processor and run here (emulator.h); no device is needed.

    run = Emulator()                                     # or Emulator(rewrite=...) for a mutant's source
    run("norm", "group_norm_forward", np.float32, blocks, threads, arguments)

Every array is copied into a buffer with NaN and a number in turn before and after it, so that a kernel which reads
beyond an array gives NaN and one which writes there, or into a const array, is found.
"""
import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from refdiff import cuda

COMPILER = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
HEADER = Path(__file__).with_name("emulator.h")
GUARD = 2048                                             # entries on each side of an array
_FOLDER = tempfile.TemporaryDirectory(prefix="refdiff-emulator-")


class BarrierError(AssertionError):
    """A barrier that not every thread of the block reached."""


@functools.lru_cache(None)
def library(text):
    """The shared library of a source: run_<kernel>(grid, block, order, its arguments)."""
    runs = ""
    for name, parameters in cuda.kernels(text).items():
        places = [f"{name}_{i}" for i in range(len(parameters))]
        runs += "".join(f"static {kind} {place};\n" for (kind, _), place in zip(parameters, places))
        runs += f"static void body_{name}() {{ {name}({', '.join(places)}); }}\n"
        runs += (f'extern "C" int run_{name}(int grid, int block, int order, '
                 + ", ".join(f"{kind} p{i}" for i, (kind, _) in enumerate(parameters)) + ")\n{ "
                 + " ".join(f"{place} = p{i};" for i, place in enumerate(places))
                 + f" return launch(grid, block, order, body_{name}); }}\n")
    path = Path(_FOLDER.name) / (hashlib.sha1(text.encode()).hexdigest() + ".so")
    path.with_suffix(".cpp").write_text(f'#include "{HEADER}"\n{text}\n{runs}')
    subprocess.run([COMPILER, "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-ffp-contract=off", "-U_FORTIFY_SOURCE",
                    "-o", path, path.with_suffix(".cpp")], check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(path))


def guarded(array):
    """(the whole buffer, the array inside it at a multiple of 16 bytes)."""
    whole = np.full(array.size + 2 * GUARD + 16, np.nan, array.dtype)
    whole[::2] = 12345                                   # so that NaN, read there and written back there, shows
    first = GUARD + (-(whole.ctypes.data + GUARD * array.itemsize) % 16) // array.itemsize
    inside = whole[first:first + array.size]
    inside[...] = array.reshape(-1)
    return whole, inside


class Emulator:
    """A launcher as backend.launch calls it, for host arrays."""

    def __init__(self, order=0, rewrite=None, unwrap=lambda a: a):
        self.order, self.rewrite, self.unwrap = order, rewrite, unwrap

    def text(self, name, dtype):
        text = cuda.source(name, dtype)
        if self.rewrite and self.rewrite[0] in (name, "prelude"):
            _, old, new = self.rewrite
            assert text.count(old) == 1, f"the mutant of {name}.cu no longer applies: {old!r}"
            text = text.replace(old, new)
        return text

    def __call__(self, name, kernel, dtype, blocks, threads, given):
        text = self.text(name, dtype)
        parameters = cuda.kernels(text)[kernel]
        values, buffers = [], []
        for (kind, label), value in zip(parameters, given):
            if kind.endswith("*"):
                array = self.unwrap(value)
                whole, inside = guarded(array)
                buffers.append((kind, label, array, whole, inside, whole.copy()))
                values.append(ctypes.c_void_p(inside.ctypes.data))
            else:
                values.append(np.ctypeslib.as_ctypes_type(value.dtype)(value.item()))
        if getattr(library(text), f"run_{kernel}")(int(blocks), int(threads), self.order, *values):
            raise BarrierError(f"{kernel}: a barrier that not every thread reaches")
        for kind, label, array, whole, inside, before in buffers:
            if not kind.startswith("const"):
                array[...] = inside.reshape(array.shape)
                inside[...] = before[(start := (inside.ctypes.data - whole.ctypes.data) // whole.itemsize):
                                     start + inside.size]
            assert np.array_equal(whole, before, equal_nan=whole.dtype.kind == "f"), \
                f"{kernel}: wrote outside of {label}, or into it where it is const"
