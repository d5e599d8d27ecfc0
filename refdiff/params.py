"""theta: every parameter of a network in one contiguous vector, with named views.

    layout = Layout()
    w = layout.add("out.w", (3, 3, 16, 1), init)      # a Handle
    theta = layout.init(Key(0), np.float32)           # a Theta
    theta[w]                                          # a view of shape (3, 3, 16, 1)
    grad = theta.zeros_like();  grad[w] += dw         # the gradient under the same name

Adam, EMA, clipping and a checkpoint are then one line each on `theta.flat`.
"""
from typing import NamedTuple

import numpy as np

from . import backend


class Handle(NamedTuple):
    """Where a parameter lies: theta.flat[start:stop] reshaped."""

    name: str
    start: int
    stop: int
    shape: tuple


class Layout:
    """The names, shapes and initialisers of a network's parameters, in order."""

    def __init__(self):
        self.handles = {}
        self.inits = {}
        self.size = 0

    def add(self, name, shape, init):
        """Append a parameter; `init(key, shape)` draws its first value. Returns its Handle."""
        if name in self.handles:
            raise ValueError(f"Layout.add: {name!r} is already there; parameter names are unique")
        shape = tuple(int(s) for s in shape)
        stop = self.size + int(np.prod(shape, dtype=np.int64))
        self.handles[name] = handle = Handle(name, self.size, stop, shape)
        self.inits[name] = init
        self.size = stop
        return handle

    def handle(self, key):
        """The Handle of a name; a Handle is its own."""
        if isinstance(key, Handle):
            return key
        try:
            return self.handles[key]
        except KeyError:
            raise KeyError(f"no parameter {key!r}; there are {', '.join(self.handles)}") from None

    def init(self, key, dtype=np.float32):
        """First values, one named draw per parameter: adding a layer leaves the others' draws alone."""
        theta = Theta(self, backend.xp().zeros(self.size, dtype))
        for name in self.handles:
            theta[name] = self.inits[name](key.fold(name), self.handles[name].shape).astype(dtype)
        return theta

    def index(self):
        """[(name, shape), ...]: what a checkpoint stores beside the vector, and what makes two layouts equal."""
        return [(h.name, h.shape) for h in self.handles.values()]


class Theta:
    """A vector with the views of a Layout."""

    def __init__(self, layout, flat):
        if flat.shape != (layout.size,):
            raise ValueError(f"Theta: the vector has shape {flat.shape}, the layout needs ({layout.size},)")
        self.layout = layout
        self.flat = flat

    def __getitem__(self, key):
        handle = self.layout.handle(key)
        return self.flat[handle.start:handle.stop].reshape(handle.shape)

    def __setitem__(self, key, value):
        self[key][...] = value

    def with_flat(self, flat):
        """Another vector under the same layout."""
        return Theta(self.layout, flat)

    def zeros_like(self):
        return self.with_flat(backend.of(theta=self.flat).zeros_like(self.flat))

    def copy(self):
        return self.with_flat(self.flat.copy())

    def astype(self, dtype):
        return self.with_flat(self.flat.astype(dtype))
