"""Products of matrices by cuBLAS itself, called through ctypes.

The array module's own product copies transposed operands, has no TF32 for batches, and refuses to be recorded into a
graph. cuBLAS reads matrices by columns, so that a row-major C = A B is asked for as C^T = B^T A^T: a matrix whose
rows are contiguous is, read by columns, its transpose already, and one whose columns are is transposed by a flag.
"""
import ctypes
import threading

NONE, TRANSPOSE = 0, 1                              # cublasOperation_t
REALS = {"float32": (0, 68, ctypes.c_float), "float64": (1, 70, ctypes.c_double)}     # cudaDataType, compute, scalar
TF32 = 77                                           # CUBLAS_COMPUTE_32F_FAST_TF32
DEFAULT = -1                                        # CUBLAS_GEMM_DEFAULT
WORKSPACE = 32 << 20                                # bytes, what cuBLAS recommends for Hopper; a graph needs it to stay


class BlasError(RuntimeError):
    """cuBLAS returned a status other than success."""


def lies(matrix):
    """(flag, leading dimension) of a matrix [..., r, c] that cuBLAS can read in place, or None. In entries."""
    (r, c), size = matrix.shape[-2:], matrix.itemsize
    down, along = (s // size for s in matrix.strides[-2:])
    if (along == 1 or c == 1) and (down >= c or r == 1):
        return NONE, max(c, down if r > 1 else c)
    if (down == 1 or r == 1) and (along >= r or c == 1):
        return TRANSPOSE, max(r, along if c > 1 else r)
    return None


def readable(matrix):
    """The matrix, or a contiguous copy where cuBLAS cannot read it in place; batches from one stride each."""
    good = lies(matrix) and all(s > 0 or n == 1 for s, n in zip(matrix.strides, matrix.shape))
    return matrix if good else matrix.copy("C")


def calls(a, b, out):
    """The calls that give out = a b: (flags, sizes, (matrix, ld, stride) of b, a and out, batch), one per outer index.

    a[..., m, k], b[..., k, n] and out[..., m, n] have equal leading axes. The first of them is the batch of a call;
    each index of the others (the heads of attention) is a call of its own.
    """
    if out.ndim > 3:
        for i in range(out.shape[1]):
            yield from calls(a[:, i], b[:, i], out[:, i])
        return
    a, b = readable(a), readable(b)
    (flag_a, ld_a), (flag_b, ld_b), (flag, ld) = lies(a), lies(b), lies(out)
    if flag != NONE:
        raise ValueError(f"product: out has strides {out.strides}, wanted contiguous rows")
    (m, k), n = a.shape[-2:], b.shape[-1]

    def stride(matrix):
        return matrix.strides[0] // matrix.itemsize if matrix.ndim > 2 else 0

    batch = out.shape[0] if out.ndim > 2 else 1
    yield (flag_b, flag_a), (n, m, k), ((b, ld_b, stride(b)), (a, ld_a, stride(a)), (out, ld, stride(out))), batch


class Blas:
    """cuBLAS by the file name of its library; `allocate(bytes)` gives device memory with a `ptr`."""

    def __init__(self, library, allocate):
        self.routines = ctypes.CDLL(library)
        self.allocate = allocate
        self.own = threading.local()                # a handle serves one thread

    def _check(self, what, status):
        if status:
            raise BlasError(f"{what}: cuBLAS returned status {status}")

    def handle(self, stream):
        """This thread's handle, set to a stream; its workspace is its own, so that a graph can keep it."""
        own = self.own
        if not hasattr(own, "handle"):
            own.handle, own.stream, own.memory = ctypes.c_void_p(), None, self.allocate(WORKSPACE)
            self._check("cublasCreate", self.routines.cublasCreate_v2(ctypes.byref(own.handle)))
        if own.stream != stream:                    # setting the stream takes the workspace away
            self._check("cublasSetStream", self.routines.cublasSetStream_v2(own.handle, ctypes.c_void_p(stream)))
            self._check("cublasSetWorkspace", self.routines.cublasSetWorkspace_v2(
                own.handle, ctypes.c_void_p(own.memory.ptr), ctypes.c_size_t(WORKSPACE)))
            own.stream = stream
        return own.handle

    def product(self, a, b, out, stream, tf32, pointer):
        """out = a b, enqueued on a stream. Float32 products of TF32 factors if tf32. Raises BlasError."""
        if not out.size:
            return
        if not a.shape[-1]:
            out[...] = 0
            return
        kind, compute, scalar = REALS[out.dtype.name]
        compute = TF32 if tf32 and out.dtype.name == "float32" else compute
        handle, one, zero, word = self.handle(stream), scalar(1), scalar(0), ctypes.c_longlong
        for flags, sizes, matrices, batch in calls(a, b, out):
            (b_, ld_b, stride_b), (a_, ld_a, stride_a), (c_, ld_c, stride_c) = matrices
            b_, a_, c_ = ctypes.c_void_p(pointer(b_)), ctypes.c_void_p(pointer(a_)), ctypes.c_void_p(pointer(c_))
            if batch == 1:
                self._check("cublasGemmEx", self.routines.cublasGemmEx(
                    handle, *flags, *sizes, ctypes.byref(one), b_, kind, ld_b, a_, kind, ld_a, ctypes.byref(zero),
                    c_, kind, ld_c, compute, DEFAULT))
            else:
                self._check("cublasGemmStridedBatchedEx", self.routines.cublasGemmStridedBatchedEx(
                    handle, *flags, *sizes, ctypes.byref(one), b_, kind, ld_b, word(stride_b), a_, kind, ld_a,
                    word(stride_a), ctypes.byref(zero), c_, kind, ld_c, word(stride_c), batch, compute, DEFAULT))
