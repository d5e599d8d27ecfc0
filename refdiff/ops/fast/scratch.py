"""Memory that a route works in: asked for by name, kept per thread, and written over by the next call; views of it."""
import math
import threading

import numpy as np

LINE = 64                           # bytes that a cache loads together
VIEWS = 1024                        # that are remembered: to make one again costs a microsecond or two


class _Kept(threading.local):
    def __init__(self):
        self.buffers, self.views = {}, {}                   # by name; by all that was asked for


_kept = _Kept()


def scratch(name, shape, dtype):
    """An array with whatever is in it, contiguous; the same memory whenever this thread asks by this name."""
    views = _kept.views
    view = views.get((name, shape, dtype))
    if view is None:
        size, buffers = math.prod(shape) * np.dtype(dtype).itemsize, _kept.buffers
        if name not in buffers or buffers[name].size < size:
            buffers[name] = _aligned(size)
            views.clear()                                   # those of the smaller one would keep it alive
        view = _remember((name, shape, dtype), buffers[name][:size].view(dtype).reshape(shape))
    return view


def apart(name, entries, shape, dtype):
    """The same of shape (entries, *shape), an entry ending a line before the next begins; by None: new memory.

    A power of two apart, entries would share a few places of the cache, and drive one another out.
    """
    key = name, entries, shape, dtype
    view = _kept.views.get(key)
    if view is None:
        size, gap = math.prod(shape), LINE // np.dtype(dtype).itemsize
        if name is None:
            array = _aligned(entries * (size + gap) * np.dtype(dtype).itemsize).view(dtype).reshape(entries, size + gap)
        else:
            array = scratch(name, (entries, size + gap), dtype)
        view = array[:, :size].reshape(entries, *shape)
        if name is not None:
            _remember(key, view)
    return view


def _remember(key, view):
    if len(_kept.views) >= VIEWS:
        _kept.views.clear()
    _kept.views[key] = view
    return view


def _aligned(size):
    """Bytes from the beginning of a line on."""
    buffer = np.empty(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start:start + size]


def overlapping(array, shape, strides):
    """A view of a whole contiguous array whose entries may overlap: as_strided, without its overhead."""
    return np.ndarray(shape, array.dtype, array, 0, strides)
