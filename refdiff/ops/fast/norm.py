"""GroupNorm, alone and with the SiLU after it, on the host: the plain formulas, some images at a time.

Sums over pixels are products with ones. All that is affine is collected, in x itself: x factor + offset, the mean and
1/s in the factors. Every step writes into a buffer (`out=`), for a chunk that stays in the cache and is long enough
for the calls not to count; a factor per channel is repeated, to a whole chunk where an image has several, else until
it is so wide that NumPy's loop over rows does not count. The statistics of many chunks are found together, by
products: what is not finite in one group spreads to all groups of its image. The backward computes v and tanh v again,
but for small arrays, whose memory does not count.
"""
import functools
from typing import NamedTuple

import numpy as np

from .. import group_norm as plain_group_norm
from .. import norm_silu as plain_norm_silu
from ..norm import check_group_norm
from ..norm_silu import check_norm_silu
from .routed import Routed
from .scratch import scratch

BLOCK = 1 << 19             # numbers of the images whose statistics are found together, at least one image
CHUNK = 1 << 16             # numbers that one step works on, at most
WIDE = 1 << 7               # least width that a factor per channel is repeated to
KEPT = 200_000              # numbers up to which 1 + tanh v is kept: a quarter less time in the backward
STEEP = 16                  # mean squares above this many variances cost too many digits of square - mean^2


class Cut(NamedTuple):
    """x[n,h,w,c] as (n, rows, pixels c), cut into blocks of images, those into chunks: [images of the block, rows]."""
    shape: tuple
    pixels: int
    blocks: tuple       # slices of the batch
    chunks: tuple       # (slices of the images of a block, slices of the rows)
    chunk: tuple        # the shape of the first, the largest


@functools.lru_cache(256)
def _cut(n, hw, c):
    """A chunk is some whole images, or one row of one of them."""
    images = min(n, CHUNK // (hw * c))
    divisors = [k for k in range(1, hw + 1) if hw % k == 0]
    if images:
        pixels, rows = min(k for k in divisors if k == hw or k * c >= WIDE), (slice(None),)
    else:
        pixels = max((k for k in divisors if CHUNK // 8 <= k * c <= CHUNK), default=hw)
        images, rows = 1, tuple(slice(j, j + 1) for j in range(hw // pixels))
    block = max(1, min(n, BLOCK // (hw * c)) // images) * images
    return Cut((n, hw // pixels, pixels * c), pixels, tuple(slice(i, i + block) for i in range(0, n, block)),
               (tuple(slice(i, i + images) for i in range(0, block, images)), rows),
               (images, hw // pixels // len(rows), pixels * c))


@functools.lru_cache(64)
def _ones(hw, dtype):
    return np.ones((1, hw), dtype)


@functools.lru_cache(64)
def _members(c, groups, hw, dtype):
    """(c, groups): one over the numbers of a group where the channel is one of it; and (groups, c): 1 there."""
    members = np.repeat(np.eye(groups, dtype=dtype), c // groups, axis=0)
    return members / (hw * (c // groups)), members.T


def _sum_pixels(rows, c, out=None):
    """(m, r, k c) -> (m, 1, c)."""
    rows = rows.reshape(len(rows), -1, c)
    return np.matmul(_ones(rows.shape[1], rows.dtype), rows, out=out)


def _group_means(sums, groups, hw):
    """Sums over the pixels (.., m, 1, c) -> means over pixels and the channels of a group, given back per channel."""
    gather, spread = _members(sums.shape[-1], groups, hw, sums.dtype)
    return (sums.reshape(-1, sums.shape[-1]) @ gather @ spread).reshape(sums.shape)


def _wide(a, pixels):
    """(.., 1, c) -> (.., 1, pixels c): the factors of a row of pixels."""
    return a.repeat(pixels, -2).reshape(*a.shape[:-1], -1)


def _chunks(cut, images, *factors):
    """For the chunks of a block of so many images: (images, rows), and factors (m, 1, c) made wide (m, 1, pixels c)."""
    parts, rows = cut.chunks
    for part in parts:
        if part.start >= images:                                           # the last block may be shorter
            return
        wide = [_wide(factor[part], cut.pixels) for factor in factors]
        for row in rows:
            yield (part, row), wide


def _statistics(x, e, pixels, groups, eps, work):
    """centre and 1/s (m, 1, c) of x (m, r, k c) + e. work, of x's size, is written over."""
    c, hw = x.shape[2] // pixels, x.shape[1] * pixels
    second, total, both = sums = np.empty((3, len(x), 1, c), x.dtype)          # of x^2, x + e and (x + e)^2
    first = _sum_pixels(x, c)
    _sum_pixels(np.square(x, out=work), c, out=second)
    np.add(first, hw * e, out=total)
    first += total
    first *= e
    np.add(second, first, out=both)
    of_x, mean, square = _group_means(sums, groups, hw)
    var, centre = square - mean * mean, mean - e
    steep = ~(of_x + square <= STEEP * var)                                     # also what is not a number
    if steep.any():
        np.subtract(x, _wide(centre, pixels), out=work)
        var = np.where(steep, _group_means(_sum_pixels(np.square(work, out=work), c), groups, hw), var)
    return centre, 1 / np.sqrt(var + float(eps))


def group_norm_forward(x, gamma, beta, groups=32, eps=1e-6):
    """As the plain one, with xhat = a x + b."""
    check_group_norm(x, gamma, beta, groups)
    n, h, w, c = x.shape
    cut = _cut(n, h * w, c)
    x = np.ascontiguousarray(x).reshape(cut.shape)
    y, xhat, rs = np.empty_like(x), np.empty_like(x), np.empty((n, 1, c), x.dtype)
    gain, shift = _wide(gamma[None, None], cut.pixels), _wide(beta[None, None], cut.pixels)
    for block in cut.blocks:
        centre, rs[block] = _statistics(x[block], 0, cut.pixels, groups, eps, y[block])
        xs, us, ys = x[block], xhat[block], y[block]
        for at, (a, b) in _chunks(cut, len(xs), rs[block], -centre * rs[block]):
            u = np.multiply(xs[at], a, out=us[at])
            u += b
            z = np.multiply(u, gain, out=ys[at])
            z += shift
    return y.reshape(n, h, w, c), (xhat.reshape(n, h * w, c), rs, gamma, groups)


def group_norm_backward(saved, dy):
    """As the plain one, with the terms of dx collected: dx = A dy + B xhat + C."""
    xhat, rs, gamma, groups = saved
    n, hw, c = xhat.shape
    cut, shape = _cut(n, hw, c), dy.shape
    xhat, dy = (np.ascontiguousarray(a).reshape(cut.shape) for a in (xhat, dy))
    dx, (t_of,) = np.empty_like(dy), scratch("norm", (1, *cut.chunk), dy.dtype)
    sums = np.empty((2, *rs.shape), dy.dtype)                                   # of dy xhat and of dy
    for block in cut.blocks:
        sums[0, block] = _sum_pixels(np.multiply(dy[block], xhat[block], out=dx[block]), c)
        sums[1, block] = _sum_pixels(dy[block], c)
        B, C = -_group_means(gamma * sums[:, block], groups, hw) * rs[block]
        us, dys, ds = xhat[block], dy[block], dx[block]
        for at, (A, B, C) in _chunks(cut, len(us), gamma * rs[block], B, C):
            t = np.multiply(us[at], B, out=t_of[:len(us[at])])
            t += C
            d = np.multiply(dys[at], A, out=ds[at])
            d += t
    return dx.reshape(shape), *sums.sum((1, 2))


class Saved(tuple):
    """What the plain op saves, and beside it gate: (y, 1 + tanh v) where they were kept, else ().

    y is the very array that the forward returned: nobody may write into it before the backward.
    """
    gate = ()


def _gate(x, a, b, y, t):
    """v = a x + b -> y = v t and t = 1 + tanh v, into the arrays of these names."""
    np.multiply(x, a, out=y)
    y += b
    np.tanh(y, out=t)
    t += 1
    y *= t
    return y, t


def norm_silu_forward(x, e, gamma, beta, scale, shift, groups=32, eps=1e-6):
    """As the plain one, with v = a x + b."""
    check_norm_silu(x, e, gamma, beta, scale, shift, groups)
    n, h, w, c = x.shape
    cut = _cut(n, h * w, c)
    x = np.ascontiguousarray(x).reshape(cut.shape)
    y, kept = np.empty_like(x), np.empty_like(x) if x.size <= KEPT else None
    e, gain, shift = e[:, None], 0.5 + 0.5 * scale[:, None], 0.5 * shift[:, None]               # (n, 1, c)
    factor, offset = gamma * gain, beta * gain + shift                          # v = factor xhat + offset
    centre, rs = np.empty((2, n, 1, c), x.dtype)
    for block in cut.blocks:
        centre[block], rs[block] = _statistics(x[block], e[block], cut.pixels, groups, eps, y[block])
        a = factor[block] * rs[block]
        xs, ys = x[block], y[block]
        for at, (a, b) in _chunks(cut, len(xs), a, offset[block] - centre[block] * a):
            _gate(xs[at], a, b, ys[at], scratch("norm", xs[at].shape, x.dtype) if kept is None else kept[block][at])
    saved = Saved((x.reshape(n, h * w, c), centre, rs, gamma, beta, gain, shift, groups))
    if kept is not None:
        saved.gate = y, kept
    return y.reshape(n, h, w, c), saved


def norm_silu_backward(saved, dy):
    """As the plain one, with the terms of dx collected: dx = a dv + B x + C. dy/dv = t + y (2 - t)."""
    x, centre, rs, gamma, beta, gain, shift, groups = saved
    n, hw, c = x.shape
    cut, shape, gate = _cut(n, hw, c), dy.shape, getattr(saved, "gate", ())
    x, dy = (np.ascontiguousarray(a).reshape(cut.shape) for a in (x, dy))
    dx, (s_of, t_of) = np.empty_like(dy), scratch("norm", (2, *cut.chunk), dy.dtype)
    sums, de = np.empty((2, *rs.shape), dy.dtype), np.empty_like(rs)            # of dv xhat and of dv; of dx
    a = gamma * gain * rs
    factors = () if gate else (a, beta * gain + shift - centre * a)             # of v = a x + b
    for block in cut.blocks:
        dv_x = np.zeros((len(x[block]), 1, c), dy.dtype)                        # its sum
        xs, dys, ds = x[block], dy[block], dx[block]
        for at, wide in _chunks(cut, len(xs), *(factor[block] for factor in factors)):
            m = len(xs[at])
            y, t = (kept[block][at] for kept in gate) if gate else _gate(xs[at], *wide, ds[at], t_of[:m])
            s = np.subtract(2, t, out=s_of[:m])
            s *= y
            s += t
            dv = np.multiply(s, dys[at], out=ds[at])
            dv_x[at[0]] += _sum_pixels(np.multiply(dv, xs[at], out=s), c)
        sums[1, block] = _sum_pixels(dx[block], c)
        sums[0, block] = (dv_x - centre[block] * sums[1, block]) * rs[block]
        B, C = -_group_means(a[block] * sums[:, block], groups, hw)
        B *= rs[block]
        C -= B * centre[block]
        for at, (A, B, C) in _chunks(cut, len(xs), a[block], B, C):
            t = np.multiply(xs[at], B, out=t_of[:len(xs[at])])
            t += C
            d = ds[at]
            d *= A
            d += t
        de[block] = _sum_pixels(dx[block], c)
    dgamma, dbeta = np.add.reduce(sums * gain, (1, 2))
    dv_xhat, dv = sums[:, :, 0]
    return dx.reshape(shape), de[:, 0], dgamma, dbeta, 0.5 * (dv_xhat * gamma + dv * beta), 0.5 * dv


group_norm = Routed(plain_group_norm, host=(group_norm_forward, group_norm_backward))
norm_silu = Routed(plain_norm_silu, host=(norm_silu_forward, norm_silu_backward))
