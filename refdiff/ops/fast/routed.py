"""Who takes which route: the plain op, or a faster one for the arrays that it serves.

A route is a second implementation of an op's forward and backward: real numbers only, the same arguments, the same
`saved`, so that either can go on where the other began (it may carry what the route's own backward need not find
again). Every route is registered on its op (Op.routes) and obeys every law of it; the plain one is what to read. The
plain one is taken for float64 and complex numbers, where digits matter more than time; for mixed types; and where
`use("plain")`, or REFDIFF_ROUTES=plain in the environment, says so.

    host    float32 arrays of NumPy
    device  arrays of float32, or of float64, where kernels run (device.py)
"""
import os

import numpy as np

from ... import backend
from .device import DEVICE

CHOICES = ("fast", "plain")
FLOAT32 = np.dtype(np.float32)
_chosen = None


def use(choice):
    """Take the fastest routes ("fast") or the plain ones ("plain") from now on, in every thread."""
    global _chosen
    if choice not in CHOICES:
        raise ValueError(f"routes (REFDIFF_ROUTES): got {choice!r}, wanted one of {', '.join(CHOICES)}")
    _chosen = choice


def chosen():
    """What the last `use` said, else REFDIFF_ROUTES, else "fast"."""
    if _chosen is None:
        use(os.environ.get("REFDIFF_ROUTES") or "fast")
    return _chosen


def _is_array(a):
    """Of any library; a single number, such as eps, is none."""
    return hasattr(a, "dtype") and not isinstance(a, np.generic)


def _all_float32(values):
    """Whether there are arrays among these, the first NumPy's own, and all of them of float32."""
    found = False
    for a in values:
        if type(a) is np.ndarray or found and isinstance(a, np.ndarray):
            if a.dtype is not FLOAT32 and a.dtype != FLOAT32:
                return False
            found = True
        elif _is_array(a):
            return False
    return found


class Routed:
    """An op with the plain forward, backward and jvp, and faster ones for the arrays that they serve."""

    def __init__(self, op, host=None):
        self.op, self.host, self.device = op, host, DEVICE.get(op.name)
        self.jvp = op.jvp
        for name, route in (("host", host), ("device", self.device)):
            if route:
                op.routes[name] = route

    def _route(self, values):
        """The route that serves the arrays among these: (forward, backward)."""
        if chosen() == "fast":
            if self.host and _all_float32(values):
                return self.host
            arrays = [a for a in values if _is_array(a)] if self.device else ()
            if arrays and backend.kernels(arrays[0]):
                if {str(a.dtype) for a in arrays if a.dtype.kind not in "iub"} in ({"float32"}, {"float64"}):
                    return self.device
        return self.op.forward, self.op.backward

    def forward(self, *inputs, **options):
        """y, saved."""
        return self._route((*inputs, *options.values()))[0](*inputs, **options)

    def backward(self, saved, dy):
        """One cotangent per real input. saved may come from any route."""
        return self._route((dy, *saved) if isinstance(saved, tuple) else (dy,))[1](saved, dy)
