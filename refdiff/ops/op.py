"""What an operation is, and the table of all of them.

An op is a pure map with its tangent map and its transpose:

    y, saved = op.forward(*inputs, **options)
    dx, dw   = op.backward(saved, dy)          # transpose of the derivative: one cotangent per real input
    ydot     = op.jvp(saved, xdot, wdot)       # the derivative: one tangent per real input

`saved` is everything the two derivatives need; nothing is stored on the op, so the same op may run
any number of times before any backward. An op with one real input returns dx alone, not a tuple.

Each op declares its signature, from which the test suite draws random inputs and options and checks
every law (tests/laws). The grammar:

    "x[n,h,w,c] w[k,k,c,d] b[d] -> y[n,p,q,d]"
    "table[v,c] labels:index(v)[n] -> y[n,c]"        integers in 0..v-1, no cotangent
    "x[n,c] mask:constant[n,c] -> y[n,c]"            data, no cotangent

The axis n, where it comes first, is the batch: rows along it must not mix.
"""
import re
from dataclasses import dataclass, field
from typing import Callable

from .. import backend

REGISTRY = {}

_INPUT = re.compile(r"(\w+)(?::(constant|index)(?:\((\w+)\))?)?\[([\w,]*)\]")


@dataclass(frozen=True)
class Input:
    """One argument of a signature: its name, its axes, and whether it is real, constant or an index."""

    name: str
    axes: tuple
    kind: str = "real"
    below: str = ""          # for an index: the axis whose size bounds it


@dataclass(frozen=True)
class Op:
    """A registered operation. Sizes an axis may take and values an option may take bound what the laws draw."""

    name: str
    forward: Callable
    backward: Callable
    jvp: Callable
    signature: str
    options: dict = field(default_factory=dict)     # option -> the values to test it with
    sizes: dict = field(default_factory=dict)       # axis -> the sizes to test it with (others: 1, 2, 3, 5)
    routes: dict = field(default_factory=dict)      # name -> (forward, backward): faster, real-only, same op

    def __post_init__(self):
        if self.name in REGISTRY:
            raise ValueError(f"op {self.name!r} is registered twice")
        left, arrow, right = self.signature.partition("->")
        if not arrow or not _INPUT.findall(left) or len(_INPUT.findall(right)) != 1:
            raise ValueError(f"op {self.name!r}: cannot read the signature {self.signature!r}; "
                             "wanted 'x[n,c] w[c,d] -> y[n,d]'")
        REGISTRY[self.name] = self

    @property
    def inputs(self):
        """The inputs of the signature, in order."""
        return tuple(Input(name, tuple(a for a in axes.split(",") if a), kind or "real", below)
                     for name, kind, below, axes in _INPUT.findall(self.signature.partition("->")[0]))

    @property
    def output_axes(self):
        """The axes of the output; empty for a scalar."""
        axes = _INPUT.findall(self.signature.partition("->")[2])[0][3]
        return tuple(a for a in axes.split(",") if a)


def tangent_of(forward):
    """The jvp of a linear map: ydot = forward(xdot, ..)."""
    return lambda saved, *tangents: forward(*tangents)[0]


def sum_rows(a):
    """The sum over every axis but the last, as a product with ones: one pass over contiguous memory."""
    rows = a.reshape(-1, a.shape[-1])
    return backend.of(a=a).ones(len(rows), a.dtype) @ rows


def sum_pixels(a):
    """(n, h, w, c) -> (n, c), likewise."""
    n, h, w, c = a.shape
    return (backend.of(a=a).ones((1, h * w), a.dtype) @ a.reshape(n, h * w, c))[:, 0]


def check_labels(op, labels, shape, below, of_what):
    """Refuse labels that are no integers of this shape in 0..below-1: a GPU would wrap them, a mean broadcast them."""
    if labels.dtype.kind not in "iu":
        raise wanted(op, "the dtype of labels", labels.dtype, "an integer type")
    if labels.shape != shape:
        raise wanted(op, "the shape of labels", labels.shape, shape)
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= below):
        raise wanted(op, "the range of labels", f"{int(labels.min())}..{int(labels.max())}",
                     f"0..{below - 1}, {of_what}")


def check_image(op, x):
    """Refuse what is no x[n,h,w,c]."""
    if x.ndim != 4:
        raise wanted(op, "the shape of x", x.shape, "(n, h, w, c)")


def wanted(op, what, got, want, todo=""):
    """The error every op raises for bad input: what, got, wanted, what to do."""
    return ValueError(f"{op}: {what} is {got}, wanted {want}" + (f"; {todo}" if todo else ""))
