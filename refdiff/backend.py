"""Where arrays live: NumPy by default, CuPy on request. The only module that imports CuPy.

    backend.use("cupy")          # or REFDIFF_BACKEND=cupy, or --backend cupy
    backend.use("cupy", matmul="tf32")      # products of float32 matrices in TF32 (11 bits), or REFDIFF_MATMUL=tf32
    xp = backend.xp()            # the module that makes new arrays
    xp = backend.of(x=x, w=w)    # the module that x and w already live in

The switch decides only where *new* arrays are made. Every operation infers its module from the
arrays it is given, so both kinds may live in one process; mixing them in one call is an error.

What a device can do beyond NumPy's functions goes through here too: `launch` runs a kernel of refdiff/cuda, `product`
multiplies matrices without copying transposed ones, `record` makes one launch of a whole function.
"""
import os
from functools import lru_cache

import numpy
import scipy.special

from . import cuda
from .cuda.blas import Blas
from .cuda.graph import Record

NAMES = ("numpy", "cupy")
MATMULS = ("float32", "tf32")

_MODULES = {numpy.ndarray: numpy}      # array type -> the module that makes it
_SPECIAL = {numpy: scipy.special}      # array module -> its special functions
_DEVICES = {}                          # array module -> its Device, where it has one
_chosen = None


class BackendError(RuntimeError):
    """The backend cannot be had here, or arrays of two backends met in one call."""


class Device:
    """What a device does beyond NumPy's functions; this one is CuPy's, and the tests have one without a device."""

    def __init__(self, cupy):
        self.cupy = cupy
        self.blas = None                       # made at the first product
        self.matmul = "float32"
        self._module = lru_cache(None)(lambda name, dtype: cupy.RawModule(
            code=cuda.source(name, dtype), options=("--std=c++17",)))
        self._function = lru_cache(None)(lambda name, kernel, dtype: self._module(name, dtype).get_function(kernel))

    def launch(self, name, kernel, dtype, blocks, threads, arguments):
        """Run `blocks` blocks of `threads` threads of a kernel of refdiff/cuda/<name>.cu, compiled at its first use."""
        self._function(name, kernel, dtype)((blocks,), (threads,), tuple(arguments))

    def product(self, a, b, out):
        """out = a b by cuBLAS, on the current stream."""
        if self.blas is None:
            self.cupy.cuda.device.get_cublas_handle()                # loads the library, wherever it is installed
            major = self.cupy.cuda.runtime.runtimeGetVersion() // 1000
            library = f"libcublas.so.{major}" if os.name == "posix" else f"cublas64_{major}.dll"
            try:
                self.blas = Blas(library, self.cupy.cuda.alloc)
            except OSError as error:
                raise BackendError(f"backend 'cupy': {library} cannot be loaded ({error}); install the cuBLAS of CUDA "
                                   f"{major} (pip install nvidia-cublas)") from error
        self.blas.product(a, b, out, self.cupy.cuda.get_current_stream().ptr, self.matmul == "tf32",
                          lambda array: array.data.ptr)

    def capturing(self):
        """Whether the current stream records rather than runs."""
        return bool(self.cupy.cuda.get_current_stream().is_capturing())


def register(array_type, module, special=scipy.special, device=None):
    """Teach `of` a further array type, the NumPy-like module that makes it, and what its device does."""
    _MODULES[array_type] = module
    _SPECIAL[module] = special
    if device is not None:
        _DEVICES[module] = device


def _load(name):
    if name not in NAMES:
        raise BackendError(f"backend: got {name!r}, wanted one of {', '.join(NAMES)}")
    if name == "numpy":
        return numpy
    try:
        import cupy
        import cupyx.scipy.special
    except ImportError as error:
        raise BackendError(
            "backend 'cupy': CuPy is not installed (" + str(error) + "); "
            "pip install 'refdiff[gpu]' on a machine with an NVIDIA GPU, or use 'numpy'") from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        devices, reason = 0, str(error)
    else:
        reason = "the driver lists no device"
    if not devices:
        raise BackendError(f"backend 'cupy': no CUDA device is usable here ({reason}); "
                           "install an NVIDIA driver, or use 'numpy'")
    if cupy not in _DEVICES:
        register(cupy.ndarray, cupy, cupyx.scipy.special, Device(cupy))
    return cupy


def use(name, matmul=None):
    """Make new arrays on `name` ("numpy" or "cupy") from now on. Raises BackendError if it cannot be had.

    matmul "tf32": the device's products of float32 matrices round their factors to TF32, 11 significant bits, and sum
    in float32; "float32" rounds nothing away. None: REFDIFF_MATMUL, else "float32". The host knows float32 alone.
    """
    global _chosen
    device_matmul = matmul or os.environ.get("REFDIFF_MATMUL", "float32")
    if device_matmul not in MATMULS:
        raise BackendError(f"matmul: got {device_matmul!r}, wanted one of {', '.join(MATMULS)}")
    module = _load(name)
    if module in _DEVICES:
        _DEVICES[module].matmul = device_matmul
    elif matmul == "tf32":
        raise BackendError(f"matmul 'tf32' is for a device; the backend {name!r} multiplies float32 as float32")
    _chosen = module
    return _chosen


def xp():
    """The module that makes new arrays: that of the last `use`, else of REFDIFF_BACKEND, else NumPy."""
    return _chosen if _chosen is not None else use(os.environ.get("REFDIFF_BACKEND", "numpy"))


def name():
    """The name of the module that makes new arrays."""
    return xp().__name__


def _module(label, array):
    module = _MODULES.get(type(array))
    if module is not None:
        return module
    for array_type, module in _MODULES.items():
        if isinstance(array, array_type):
            return module
    if type(array).__module__.partition(".")[0] == "cupy":
        return _load("cupy")
    raise BackendError(f"{label} is a {type(array).__name__}, wanted an array of "
                       + " or ".join(m.__name__ for m in _MODULES.values())
                       + "; make one with backend.asarray")


def of(**arrays):
    """The module of the named arrays. Raises BackendError naming each argument's place if they differ."""
    found = None
    for label, array in arrays.items():
        module = _module(label, array)
        if found is None:
            found = module
        elif module is not found:
            places = ", ".join(f"{k} is on {_module(k, a).__name__}" for k, a in arrays.items())
            raise BackendError(f"arrays of two backends in one call: {places}; "
                               "move them together with backend.asarray or backend.to_host")
    return found


def asarray(values, dtype=None):
    """`values` as an array where new arrays are made (copied to the device if need be)."""
    module = xp()
    if not isinstance(values, numpy.ndarray) and type(values) in _MODULES:
        if _MODULES[type(values)] is not module:
            values = to_host(values)
    return module.asarray(values, dtype=dtype)


def to_host(array):
    """`array` as a NumPy array: itself if it is one, a copy if it lives on a device."""
    return array.get() if hasattr(array, "get") and not isinstance(array, numpy.ndarray) else numpy.asarray(array)


def kernels(x):
    """Whether kernels of refdiff/cuda run where x lives."""
    return type(x) is not numpy.ndarray and of(x=x) in _DEVICES


def launch(name, kernel, blocks, threads, *arguments):
    """Run a kernel of refdiff/cuda/<name>.cu on device arrays; its REAL is the dtype of the first one."""
    first = next(a for a in arguments if hasattr(a, "shape"))
    parameters = cuda.kernels(cuda.source(name, first.dtype))[kernel]
    made = cuda.arguments(kernel, parameters, first.dtype, arguments)
    if blocks:
        _DEVICES[of(first=first)].launch(name, kernel, first.dtype, blocks, threads, made)


def product(a, b):
    """a b for matrices a[..., m, k], b[..., k, n]; on a device transposed ones are read as they lie."""
    xp = of(a=a, b=b)
    if xp not in _DEVICES or a.dtype != b.dtype or a.dtype not in cuda.REAL:
        return a @ b
    out = xp.empty(a.shape[:-1] + b.shape[-1:], a.dtype)
    _DEVICES[xp].product(a, b, out)
    return out


def graphs():
    """Whether networks are to run as graphs: REFDIFF_GRAPHS=1, where new arrays are made on a device."""
    return os.environ.get("REFDIFF_GRAPHS") == "1" and xp() in _DEVICES


def capturing(x):
    """Whether what is done to x now is recorded into a graph: nothing may be read back to the host then."""
    return kernels(x) and _DEVICES[of(x=x)].capturing()


def record(function, arrays):
    """`function` of device arrays as one launch, a Record of these arrays' shapes (cuda/graph.py says which may be)."""
    xp = of(**{f"array {i}": a for i, a in enumerate(arrays)})
    if xp not in _DEVICES or not hasattr(xp, "cuda"):
        raise BackendError(f"record: the arrays are on {xp.__name__}, which has no graphs; call the function itself")
    return Record(xp, function, arrays)


def concatenate(parts):
    """[a | b | ...] on the last axis.

    On a device one copy each: its own function first sends a list of addresses there, which no graph can hold.
    """
    xp = of(**{f"part {i}": part for i, part in enumerate(parts)})
    if xp not in _DEVICES:
        return xp.concatenate(parts, axis=-1)
    out = xp.empty(parts[0].shape[:-1] + (sum(part.shape[-1] for part in parts),), parts[0].dtype)
    first = 0
    for part in parts:
        out[..., first:first + part.shape[-1]] = part
        first += part.shape[-1]
    return out


def erf(x):
    """The error function where x lives."""
    return special(x=x).erf(x)


def special(**arrays):
    """The special functions (scipy.special's names) where the named arrays live."""
    return _SPECIAL[of(**arrays)]
