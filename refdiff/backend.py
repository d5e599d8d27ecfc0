"""Where arrays live: NumPy by default, CuPy on request. The only module that imports CuPy.

    backend.use("cupy")          # or REFDIFF_BACKEND=cupy, or --backend cupy
    xp = backend.xp()            # the module that makes new arrays
    xp = backend.of(x=x, w=w)    # the module that x and w already live in

The switch decides only where *new* arrays are made. Every operation infers its module from the
arrays it is given, so both kinds may live in one process; mixing them in one call is an error.
"""
import os

import numpy
import scipy.special

NAMES = ("numpy", "cupy")

_MODULES = {numpy.ndarray: numpy}      # array type -> the module that makes it
_SPECIAL = {numpy: scipy.special}      # array module -> its special functions
_chosen = None


class BackendError(RuntimeError):
    """The backend cannot be had here, or arrays of two backends met in one call."""


def register(array_type, module, special=scipy.special):
    """Teach `of` a further array type and the NumPy-like module that makes it."""
    _MODULES[array_type] = module
    _SPECIAL[module] = special


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
    register(cupy.ndarray, cupy, cupyx.scipy.special)
    return cupy


def use(name):
    """Make new arrays on `name` ("numpy" or "cupy") from now on. Raises BackendError if it cannot be had."""
    global _chosen
    _chosen = _load(name)
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


def erf(x):
    """The error function where x lives."""
    return special(x=x).erf(x)


def special(**arrays):
    """The special functions (scipy.special's names) where the named arrays live."""
    return _SPECIAL[of(**arrays)]
