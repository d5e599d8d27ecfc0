"""Reverse mode for a few array operations, in numbers better than those that are judged by it.

    x, w = leaf(x, "exact"), leaf(w, "exact")
    y = matmul(x, w) + 1
    dx, dw = gradients(y, dy, (x, w))

Kinds of numbers: "exact" is np.longdouble (64 bits of mantissa) whose sums run in one written order and whose
functions are mpmath's, so that a result has the same bits wherever longdouble has 64; "longdouble" takes the C
library's functions; "float64" is NumPy's own, for audits. No backward is written for any layer: layers are formulas of
these operations.
"""
import itertools
from functools import lru_cache

import numpy as np
import scipy.special

DTYPES = {"exact": np.longdouble, "longdouble": np.longdouble, "float64": np.float64}
_order = itertools.count()


class Var:
    """A value and how its cotangent reaches its parents: back = ((parent, cotangent -> parent's cotangent), ...)."""

    __array_ufunc__ = None                                  # so that ndarray + Var is Var's

    def __init__(self, value, kind, back=()):
        self.value, self.kind, self.back, self.order = value, kind, back, next(_order)

    @property
    def shape(self):
        return self.value.shape

    def __add__(self, other):
        other = self._var(other)
        return Var(self.value + other.value, self.kind, ((self, lambda d: _fit(d, self)),
                                                         (other, lambda d: _fit(d, other))))

    def __mul__(self, other):
        other = self._var(other)
        return Var(self.value * other.value, self.kind, ((self, lambda d: _fit(d * other.value, self)),
                                                         (other, lambda d: _fit(d * self.value, other))))

    def __truediv__(self, other):
        other = self._var(other)
        y = self.value / other.value
        return Var(y, self.kind, ((self, lambda d: _fit(d / other.value, self)),
                                  (other, lambda d: _fit(-d * y / other.value, other))))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return Var(-self.value, self.kind, ((self, lambda d: -d),))

    def __sub__(self, other):
        return self + -self._var(other)

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return self._var(other) / self

    def __getitem__(self, index):
        def back(d):
            placed = np.zeros_like(self.value)
            if isinstance(index, np.ndarray):
                np.add.at(placed, index, d)                 # rows may repeat
            else:
                placed[index] = d
            return placed
        return Var(self.value[index], self.kind, ((self, back),))

    def _var(self, other):
        return other if isinstance(other, Var) else leaf(other, self.kind)

    def reshape(self, *shape):
        return Var(self.value.reshape(shape), self.kind, ((self, lambda d: d.reshape(self.shape)),))

    def transpose(self, *axes):
        return Var(self.value.transpose(axes), self.kind, ((self, lambda d: d.transpose(np.argsort(axes))),))

    def sum(self, axes):
        return Var(add_up(self.value, axes), self.kind, ((self, lambda d: np.broadcast_to(d, self.shape)),))

    def mean(self, axes):
        """The mean over axes, which are kept with size 1."""
        return self.sum(axes) / float(np.prod([self.shape[a] for a in axes]))


def leaf(value, kind):
    """A Var without parents, of nested lists, numbers or an array."""
    return value if isinstance(value, Var) else Var(np.asarray(value, dtype=DTYPES[kind]), kind)


def add_up(value, axes):
    """The sum over axes, kept with size 1; in better numbers than float64, one term after the other."""
    if value.dtype == np.float64 or not axes:
        return value.sum(axis=axes, keepdims=True)
    shape = [1 if a in axes else size for a, size in enumerate(value.shape)]
    rows = np.moveaxis(value, axes, range(len(axes))).reshape(-1, *[s for a, s in enumerate(value.shape)
                                                                    if a not in axes])
    total = rows[0].copy()
    for row in rows[1:]:
        total = total + row
    return total.reshape(shape)


def _fit(d, like):
    """A cotangent summed over the axes along which its operand was repeated."""
    extra = d.ndim - like.value.ndim
    axes = tuple(range(extra)) + tuple(a + extra for a, size in enumerate(like.shape)
                                       if size == 1 and d.shape[a + extra] != 1)
    return (add_up(d, axes) if axes else d).reshape(like.shape)


def product(a, b):
    """The matrix product a[..., m, k] b[..., k, n], its terms added in the order of k."""
    if a.dtype == np.float64:
        return a @ b
    total = a[..., :, 0, None] * b[..., None, 0, :]
    for k in range(1, a.shape[-1]):
        total = total + a[..., :, k, None] * b[..., None, k, :]
    return total


def matmul(a, b):
    """The matrix product over the last two axes; all others are equal."""
    return Var(product(a.value, b.value), a.kind, (
        (a, lambda d: product(d, b.value.swapaxes(-1, -2))), (b, lambda d: product(a.value.swapaxes(-1, -2), d))))


def concat(parts):
    """Parts joined on the last axis."""
    ends = np.cumsum([0] + [part.shape[-1] for part in parts])
    return Var(np.concatenate([part.value for part in parts], axis=-1), parts[0].kind,
               tuple((part, lambda d, i=i, j=j: d[..., i:j]) for part, i, j in zip(parts, ends, ends[1:])))


def pad(x, before, after):
    """x[n,h,w,c] with so many rows and columns of zeros before and after."""
    n, h, w, c = x.shape
    value = np.zeros((n, h + before + after, w + before + after, c), x.value.dtype)
    value[:, before:before + h, before:before + w] = x.value
    return Var(value, x.kind, ((x, lambda d: d[:, before:before + h, before:before + w]),))


# ---- functions of every entry

@lru_cache(1)
def context():
    """mpmath at 40 digits, in a context of its own. Raises ImportError where mpmath is not installed."""
    try:
        import mpmath
    except ImportError as error:
        raise ImportError("golden: the truth is computed with mpmath; install refdiff[test]") from error
    mp = mpmath.MPContext()
    mp.dps = 40
    return mp


def to_mp(value):
    """mpmath's number equal to a longdouble: its float64 part and the rest."""
    high = float(value)
    return context().mpf(high) + float(value - np.longdouble(high))


def from_mp(value):
    """The longdouble next to mpmath's number."""
    high = float(value)
    return np.longdouble(high) + np.longdouble(float(value - high))


def by_mpmath(function, *arrays):
    """function(*numbers of mpmath) of every entry, as longdouble; a tuple of results gives a tuple of arrays."""
    results = [function(*(to_mp(v) for v in values)) for values in zip(*(a.astype(np.longdouble).flat for a in arrays))]
    many = isinstance(results[0], tuple)
    columns = zip(*results) if many else [results]
    made = tuple(np.array([from_mp(v) for v in column], dtype=np.longdouble).reshape(arrays[0].shape)
                 for column in columns)
    return made if many else made[0]


def evaluate(name, value, kind):
    """exp, expm1, log, sqrt, tanh, sin, cos or ncdf of every entry."""
    if name == "sqrt":
        return np.sqrt(value)                               # exactly rounded everywhere
    if name == "ncdf" and kind == "float64":
        return scipy.special.ndtr(value)
    if kind == "exact" or name == "ncdf":
        return by_mpmath(getattr(context(), name), value)
    return getattr(np, name)(value)


def constant(formula, kind):
    """A number from a formula of mpmath's context: constant(lambda mp: mp.sqrt(2/mp.pi), kind)."""
    return DTYPES[kind](from_mp(formula(context()))) if kind != "float64" else float(formula(context()))


def _function(name, slope):
    def apply(x):
        y = evaluate(name, x.value, x.kind)
        return Var(y, x.kind, ((x, lambda d: d * slope(x.value, y, x.kind)),))
    return apply


exp = _function("exp", lambda x, y, kind: y)
expm1 = _function("expm1", lambda x, y, kind: y + 1)
log = _function("log", lambda x, y, kind: 1 / x)
sqrt = _function("sqrt", lambda x, y, kind: 1 / (2 * y))
tanh = _function("tanh", lambda x, y, kind: 1 - y * y)
ncdf = _function("ncdf", lambda x, y, kind: evaluate("exp", -x * x / 2, kind)
                 * constant(lambda mp: 1 / mp.sqrt(2 * mp.pi), kind))


def gradients(y, dy, leaves):
    """d<y, dy>/dleaf for every leaf, zero where y does not depend on it."""
    cotangents, nodes, stack = {id(y): np.asarray(dy, dtype=y.value.dtype)}, {}, [y]
    while stack:
        node = stack.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            stack += [parent for parent, _ in node.back]
    for node in sorted(nodes.values(), key=lambda node: -node.order):
        d = cotangents.get(id(node))
        for parent, back in node.back:
            part = back(d)
            cotangents[id(parent)] = cotangents[id(parent)] + part if id(parent) in cotangents else part
    return [cotangents.get(id(one), np.zeros_like(one.value)) for one in leaves]
