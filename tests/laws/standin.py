"""A device without a GPU: arrays that refuse to meet host arrays, and the module that makes them.

`StandIn` wraps an ndarray and behaves as CuPy's arrays do where it matters: it never turns into a
host array by itself (only `.get()` does), and arithmetic, functions and indexing refuse host arrays
other than 0-d ones. `xp` is its NumPy-like module. Importing this file registers both with the backend.
"""
import operator

import numpy as np
import scipy.special

from refdiff import backend


def _host(value):
    """What lies inside a stand-in; refuses a host array with axes."""
    if isinstance(value, StandIn):
        return value._inside
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"stand-in device: got a host array of shape {value.shape}")
    if isinstance(value, (tuple, list)):
        return type(value)(_host(v) for v in value)
    if isinstance(value, slice):
        return slice(*(_host(v) for v in (value.start, value.stop, value.step)))
    return value


def _device(value):
    """The result of a computation, on the device: reductions give 0-d arrays, as on a GPU."""
    if isinstance(value, (np.ndarray, np.generic)):
        return StandIn(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(_device(v) for v in value)
    return value


class StandIn:
    """An array on a device that is not there."""

    __array_ufunc__ = None                         # host + device asks the device, which refuses
    __hash__ = None

    def __init__(self, inside):
        assert type(inside) is np.ndarray
        self._inside = inside

    def __array__(self, *args, **kwargs):
        raise TypeError("stand-in device: implicit conversion to a host array; use .get()")

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"stand-in device: numpy.{function.__name__} was called on a device array")

    def get(self):
        return self._inside.copy()

    def __repr__(self):
        return f"StandIn({self._inside!r})"

    def __getattr__(self, name):
        if name in ("ctypes", "data", "tofile", "tolist") or name.startswith("__"):
            raise AttributeError(f"stand-in device: arrays have no {name!r} there")
        found = getattr(self._inside, name)
        return xp.wrap(found) if callable(found) else found if isinstance(found, np.dtype) else _device(found)

    def __getitem__(self, key):
        return _device(self._inside[_host(key)])

    def __setitem__(self, key, value):
        self._inside[_host(key)] = _host(value)

    def __len__(self):
        return len(self._inside)

    def __int__(self):
        return int(self._inside)

    def __float__(self):
        return float(self._inside)

    def __bool__(self):
        return bool(self._inside)


def _binary(name):
    do = getattr(operator, name)

    def forward(self, other):
        return _device(do(self._inside, _host(other)))

    def reflected(self, other):
        return _device(do(_host(other), self._inside))

    def in_place(self, other):
        inside = self._inside
        inside = getattr(operator, "i" + name)(inside, _host(other))
        assert inside is self._inside
        return self

    return forward, reflected, in_place


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    for _prefix, _method in zip(("", "r", "i"), _binary(_name)):
        setattr(StandIn, f"__{_prefix}{_name}__", _method)
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    setattr(StandIn, f"__{_name}__", _binary(_name)[0])
for _name in ("and_", "or_", "xor"):
    setattr(StandIn, f"__{_name.rstrip('_')}__", _binary(_name)[0])
for _name in ("neg", "pos", "abs", "invert"):
    setattr(StandIn, f"__{_name}__", lambda self, do=getattr(operator, _name): _device(do(self._inside)))


class Module:
    """A NumPy-like module whose functions take and make stand-ins only."""

    def __init__(self, name, module):
        self.__name__ = name
        self._module = module

    @staticmethod
    def wrap(function):
        def on_device(*args, **kwargs):
            kwargs = {k: _host(v) for k, v in kwargs.items()}
            return _device(function(*(_host(a) for a in args), **kwargs))
        return on_device

    def __getattr__(self, name):
        found = getattr(self._module, name)
        if isinstance(found, type(np)):                                # xp.lib, xp.linalg, ...
            return Module(f"{self.__name__}.{name}", found)
        if isinstance(found, type) or not callable(found):             # dtypes and constants
            return found
        return self.wrap(found)

    @staticmethod
    def asarray(values, dtype=None):
        """The one way in: copies host values to the device."""
        if isinstance(values, StandIn):
            return values if dtype is None else values.astype(dtype)
        return StandIn(np.array(values, dtype=dtype))


xp = Module("standin", np)
special = Module("standin.special", scipy.special)
backend.register(StandIn, xp, special)
