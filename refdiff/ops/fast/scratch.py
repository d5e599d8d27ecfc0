"""Memory that a route works in: asked for by name, kept per thread, and written over by the next call; views of it."""
import math
import threading

import numpy as np

LINE = 64                           # bytes that a cache loads together

_kept = threading.local()


def scratch(name, shape, dtype):
    """An array with whatever is in it, contiguous; the same memory whenever this thread asks by this name."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffers = _kept.__dict__
    if name not in buffers or buffers[name].size < size:
        buffers[name] = _aligned(size)
    return buffers[name][:size].view(dtype).reshape(shape)


def apart(name, entries, shape, dtype):
    """The same of shape (entries, *shape), an entry ending a line before the next begins; by None: new memory.

    A power of two apart, entries would share a few places of the cache, and drive one another out.
    """
    size, gap = math.prod(shape), LINE // np.dtype(dtype).itemsize
    if name is None:
        array = _aligned(entries * (size + gap) * np.dtype(dtype).itemsize).view(dtype).reshape(entries, size + gap)
    else:
        array = scratch(name, (entries, size + gap), dtype)
    return array[:, :size].reshape(entries, *shape)


def _aligned(size):
    """Bytes from the beginning of a line on."""
    buffer = np.empty(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start:start + size]


def overlapping(array, shape, strides):
    """A view of a whole contiguous array whose entries may overlap: as_strided, without its overhead."""
    return np.ndarray(shape, array.dtype, array, 0, strides)
