"""The stand-in device with kernels and products of its own: refdiff/cuda run on this processor.

`device()` gives it to the stand-in's module as backend.Device is given to the real one; `Cublas` stands for the library
behind cuda/blas.py: column-major products, straight from cuBLAS's manual.
"""
import contextlib
import ctypes

import numpy as np
import standin
from emulator import Emulator

from refdiff import backend
from refdiff.cuda.blas import Blas


class Cublas:
    """cuBLAS as its manual describes it, on host memory: C = alpha op(A) op(B) + beta C, all column-major."""

    def __init__(self):
        self.compute_types = []

    def cublasCreate_v2(self, handle):
        return 0

    def cublasSetStream_v2(self, handle, stream):
        return 0

    def cublasSetWorkspace_v2(self, handle, pointer, size):
        return 0

    def cublasGemmEx(self, handle, op_a, op_b, m, n, k, alpha, a, type_a, ld_a, b, type_b, ld_b, beta, c, type_c, ld_c,
                     compute, algorithm):
        none = ctypes.c_longlong(0)
        return self.cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, ld_a, none, b, type_b,
                                               ld_b, none, beta, c, type_c, ld_c, none, 1, compute, algorithm)

    def cublasGemmStridedBatchedEx(self, handle, op_a, op_b, m, n, k, alpha, a, type_a, ld_a, stride_a, b, type_b, ld_b,
                                   stride_b, beta, c, type_c, ld_c, stride_c, batch, compute, algorithm):
        if ld_a < max(1, k if op_a else m) or ld_b < max(1, n if op_b else k) or ld_c < max(1, m):
            return 7                                                     # CUBLAS_STATUS_INVALID_VALUE
        self.compute_types.append(compute)
        real = {0: np.float32, 1: np.float64}[type_a]

        def matrix(pointer, ld, rows, columns):
            memory = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(np.ctypeslib.as_ctypes_type(real))),
                                           (ld * (columns - 1) + rows,))
            return np.lib.stride_tricks.as_strided(memory, (rows, columns), (memory.itemsize, ld * memory.itemsize))

        def op(pointer, ld, flag, rows, columns):
            return matrix(pointer, ld, columns, rows).T if flag else matrix(pointer, ld, rows, columns)

        size = np.dtype(real).itemsize
        for i in range(batch):
            at = [p.value + i * s.value * size for p, s in ((a, stride_a), (b, stride_b), (c, stride_c))]
            out = matrix(at[2], ld_c, m, n)
            out[...] = op(at[0], ld_a, op_a, m, k) @ op(at[1], ld_b, op_b, k, n)
        return 0


def blas(library):
    made = object.__new__(Blas)
    made.__init__(None, lambda size: type("Memory", (), {"ptr": 0}))     # CDLL(None): this process; replaced below
    made.routines = library
    return made


class Device:
    """What backend.Device is to the real device."""

    def __init__(self, order=0, rewrite=None):
        self.run = Emulator(order, rewrite, unwrap=standin._host)
        self.blas = blas(Cublas())
        self.matmul = "float32"
        self.launched = []

    def launch(self, name, kernel, dtype, blocks, threads, arguments):
        self.launched.append(kernel)
        self.run(name, kernel, dtype, blocks, threads, arguments)

    def product(self, a, b, out):
        self.launched.append("product")
        self.blas.product(*(standin._host(x) for x in (a, b, out)), 0, self.matmul == "tf32",
                          lambda array: array.ctypes.data)

    def capturing(self):
        return False


@contextlib.contextmanager
def device(order=0, rewrite=None):
    """The stand-in device runs kernels inside this block."""
    made = backend._DEVICES[standin.xp] = Device(order, rewrite)
    try:
        yield made
    finally:
        del backend._DEVICES[standin.xp]
