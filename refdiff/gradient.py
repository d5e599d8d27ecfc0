"""The gradient of a training step: what layers add to, and its sum over the members of a team.

    grad = Gradient(layout, np.float32)
    grad[w] += dw                       # as to a Theta; but there is no vector of zeros, which this would be added to
    grad.part(a, b)                     # elements a..b-1 of the vector that it stands for

A vector as long as theta for every member of a team would lie in memory while the forward fills it with activations,
and be read and written twice more per step. Here the arrays that the layers' backwards return are the gradient: they
come into being while the activations go.
"""
from bisect import bisect_right

import numpy as np

from . import backend
from .params import Theta
from .parallel import slices

ROUND = 1 << 19             # numbers that each member shows the others at a time


class _Nothing(np.ndarray):
    """Zeros without memory: with `+=` the other array itself."""

    def __iadd__(self, other):
        return other


class _Kept(np.ndarray):
    """A layer's array, which may be other people's too: with `+=` a new one."""

    def __iadd__(self, other):
        return self.view(np.ndarray) + other


class Gradient:
    """A sum of arrays by handle. The first one under a handle is kept, not copied: nobody may write to it any more.

    Nothing is written to it here either, so that one array may be given under two handles. What is read by a handle is
    for reading and `+=` alone.
    """

    def __init__(self, layout, dtype):
        self.layout, self.dtype = layout, np.dtype(dtype)
        self.handles = [h for h in layout.handles.values() if h.stop > h.start]
        self.stops = [h.stop for h in self.handles]
        zero = np.zeros((), self.dtype)
        self.nothing = {h.name: np.broadcast_to(zero, h.shape).view(_Nothing) for h in layout.handles.values()}
        self.arrays = dict(self.nothing)

    def __getitem__(self, key):
        return self.arrays[self.layout.handle(key).name]

    def __setitem__(self, key, value):
        handle = self.layout.handle(key)
        kept = (value if _fits(value, handle.shape, self.dtype) else self._copy(value, handle.shape)).view(_Kept)
        kept.flags.writeable = False
        self.arrays[handle.name] = kept

    def _copy(self, value, shape):
        array = np.empty(shape, self.dtype)
        np.copyto(array, value, casting="same_kind")
        return array

    def zeros_like(self):
        return Gradient(self.layout, self.dtype)

    def pieces(self, start, stop):
        """[(slice, 1-D array), ...] of the elements start..stop-1 in order, a piece for each handle."""
        i, found = bisect_right(self.stops, start), []
        while start < stop:
            handle = self.handles[i]
            end, array = min(stop, handle.stop), self.arrays[handle.name]
            if type(array) is _Nothing:
                piece = np.broadcast_to(np.zeros((), self.dtype), end - start)
            else:
                piece = array.view(np.ndarray).reshape(-1)[start - handle.start:end - handle.start]
            found.append((slice(start, end), piece))
            start, i = end, i + 1
        return found

    def part(self, start, stop):
        """The elements start..stop-1: a view where one handle has them all."""
        found = [piece for _, piece in self.pieces(start, stop)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def drop(self, stop):
        """Let go of the arrays of all handles that end at `stop` or before it: they are zero from now on."""
        for handle in self.handles[:bisect_right(self.stops, stop)]:
            self.arrays[handle.name] = self.nothing[handle.name]

    def clear(self):
        """Zero again."""
        self.arrays.update(self.nothing)


def _fits(value, shape, dtype):
    """Whether an array can be kept: one block of memory of this shape and dtype, and no part of a larger one."""
    base = value.base if type(value) is np.ndarray else value
    return (type(value) is np.ndarray and value.shape == shape and value.dtype == dtype and value.flags.c_contiguous
            and (base is None or type(base) is np.ndarray and base.dtype == dtype and base.size == value.size))


class FlatGradient(Theta):
    """The same by one vector, for a device: its kernels take whole vectors, and its graphs a fixed address."""

    def pieces(self, start, stop):
        return [(slice(start, stop), self.flat[start:stop])] if start < stop else []

    def part(self, start, stop):
        return self.flat[start:stop]

    def drop(self, stop):
        """It stays where it is."""

    def clear(self):
        self.flat[...] = 0


class TeamGradient:
    """The gradients of a team's members, grads[i], and their sum, of which every member comes to have a part.

    The sum is made in rounds over the vector: each member shows the others what they need of its gradient, in memory
    that all see, and adds up its own part of the round in the order of the members. All members meet between two
    rounds: what they show then lies elsewhere than what they read.
    """

    def __init__(self, theta, members, workers):
        xp, (size,), dtype = backend.of(theta=theta.flat), theta.flat.shape, theta.flat.dtype
        self.grads = [Gradient(theta.layout, dtype) if xp is np else FlatGradient(theta.layout, xp.zeros(size, dtype))
                      for _ in range(members)]
        self.rounds = slices(size, -(-size // ROUND) if members > 1 and xp is np else 1)
        self.mine = [_shares(r, members) for r in self.rounds]                  # [round][member]
        longest = max(r.stop - r.start for r in self.rounds) if members > 1 else 0
        self.shown = [workers.zeros((members, longest), dtype) for _ in self.rounds[:2]]
        self.totals = [{} for _ in range(members)]                              # [member]{round: the sum of its part}

    def show(self, i, r):
        """Member i shows what others are to have of round r."""
        if len(self.grads) > 1 and r < len(self.rounds):
            whole, mine, shown = self.rounds[r], self.mine[r][i], self.shown[r % 2][i]
            for a, b in ((whole.start, mine.start), (mine.stop, whole.stop)):
                for at, piece in self.grads[i].pieces(a, b):
                    shown[_within(whole, at)] = piece

    def add(self, i, r):
        """Member i adds up its part of round r, lets go of what it had shown, and shows the next."""
        if len(self.grads) == 1:
            return
        whole, mine, shown = self.rounds[r], self.mine[r][i], self.shown[r % 2]
        xp = backend.of(shown=shown)
        total = self.totals[i][r] = xp.empty(mine.stop - mine.start, shown.dtype)
        for at, piece in self.grads[i].pieces(mine.start, mine.stop):
            terms = list(shown[:, _within(whole, at)])
            terms[i] = piece
            out = total[_within(mine, at)]
            xp.add(terms[0], terms[1], out=out)
            for term in terms[2:]:
                out += term
        self.grads[i].drop(whole.stop)
        self.show(i, r + 1)

    def blocks(self, i, size, rounds=None):
        """(slice, those elements of the sum) of what member i has, of some rounds or all, at most `size` at a time."""
        for r in range(len(self.rounds)) if rounds is None else rounds:
            mine = self.mine[r][i]
            for start in range(mine.start, mine.stop, size):
                at = slice(start, min(start + size, mine.stop))
                yield at, (self.totals[i][r][_within(mine, at)] if len(self.grads) > 1 else
                           self.grads[i].part(at.start, at.stop))

    def show_total(self, i, r):
        """Member i shows its part of the sum of round r, for `collect`: a team's function."""
        if len(self.grads) > 1:
            whole, mine = self.rounds[int(r)], self.mine[int(r)][i]
            self.shown[0][i, _within(whole, mine)] = self.totals[i][int(r)]
        return 0.0

    def collect(self, found, team):
        """The whole sum, put into the Theta `found`; team(r) is to have every member `show_total` of round r."""
        for r, whole in enumerate(self.rounds):
            team(r)
            for i, mine in enumerate(self.mine[r]):
                found.flat[mine] = (self.shown[0][i, _within(whole, mine)] if len(self.grads) > 1 else
                                    self.grads[i].part(mine.start, mine.stop))
        return found

    def clear(self, i):
        """Member i forgets its gradient and the sum."""
        self.grads[i].clear()
        self.totals[i].clear()


def _shares(whole, members):
    """The slices of a slice that the members have; empty ones where there are more members than elements."""
    parts = [slice(whole.start + p.start, whole.start + p.stop) for p in slices(whole.stop - whole.start, members)]
    return parts + [slice(whole.stop, whole.stop)] * (members - len(parts))


def _within(whole, at):
    """A slice counted from the start of another."""
    return slice(at.start - whole.start, at.stop - whole.start)
