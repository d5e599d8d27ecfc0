"""Memory that a route works in: asked for by name, kept per thread, and written over by the next call; views of it."""
import math
import threading

import numpy as np

_kept = threading.local()


def scratch(name, shape, dtype):
    """An array with whatever is in it, contiguous; the same memory whenever this thread asks by this name."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffers = _kept.__dict__
    if name not in buffers or buffers[name].size < size:
        buffers[name] = np.empty(size, np.uint8)
    return buffers[name][:size].view(dtype).reshape(shape)


def overlapping(array, shape, strides):
    """A view of a whole contiguous array whose entries may overlap: as_strided, without its overhead."""
    return np.ndarray(shape, array.dtype, array, 0, strides)
