"""The kernels of the device, as text: CUDA C++ that is compiled where it runs, at its first use.

    text = source("norm", np.float32)       # prelude.cuh and norm.cu, with REAL = float
    kernels(text)["group_norm_forward"]     # its parameters: (("const REAL*", "x"), ..., ("int", "hw"))

Each file reads like the formula of its op; tests/cuda compiles the same text for a processor and runs it there.
"""
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
SOURCES = tuple(sorted(path.stem for path in FOLDER.glob("*.cu")))
REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
THREADS = 256                                   # of a block, at most (THREADS of prelude.cuh)

_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_SCALARS = {"int": np.dtype(np.int32), "long long": np.dtype(np.int64), "double": np.dtype(np.float64)}


@lru_cache(None)
def source(name, dtype):
    """The whole text of one file for one floating dtype. Raises ValueError for another dtype or an unknown name."""
    if name not in SOURCES or np.dtype(dtype) not in REAL:
        raise ValueError(f"cuda: got {name!r} in {np.dtype(dtype)}, wanted one of {', '.join(SOURCES)} in "
                         "float32 or float64")
    head = f"typedef {REAL[np.dtype(dtype)]} REAL;\n"
    return head + "".join(f'#line 1 "{path.name}"\n{path.read_text()}'
                          for path in (FOLDER / "prelude.cuh", FOLDER / f"{name}.cu"))


@lru_cache(None)
def kernels(text):
    """{kernel: ((type, name), ...)} of the kernels in a text, as they are declared there."""
    found = {}
    for name, parameters in _KERNEL.findall(text):
        words = [p.replace("__restrict__", " ").split() for p in parameters.split(",")]
        found[name] = tuple((" ".join(w[:-1]), w[-1]) for w in words)
    return found


def arguments(kernel, parameters, dtype, given):
    """The given values as the parameters declare them: arrays checked, numbers in the declared type.

    Raises ValueError, naming the parameter, for an array of another dtype or with gaps, and for a number that is none.
    """
    if len(given) != len(parameters):
        raise ValueError(f"{kernel}: got {len(given)} arguments, wanted {', '.join(name for _, name in parameters)}")
    made = []
    for (kind, name), value in zip(parameters, given):
        if kind.endswith("*"):
            wanted = {"REAL": np.dtype(dtype), **_SCALARS}[kind.replace("const", "").strip("* ")]
            if getattr(value, "dtype", None) != wanted or not value.flags.c_contiguous:
                raise ValueError(f"{kernel}: {name} is {getattr(value, 'dtype', type(value).__name__)}, wanted a "
                                 f"contiguous array of {wanted}")
        else:
            wanted = {"REAL": np.dtype(dtype), **_SCALARS}[kind]
            value = wanted.type(value)
        made.append(value)
    return made
