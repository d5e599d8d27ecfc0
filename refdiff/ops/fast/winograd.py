"""A 3x3 convolution with a quarter of the products: Winograd's F(4x4, 3x3), channels-last.

A tile of 4x4 outputs y is made of a tile of 6x6 inputs x, and per channel pair

    Y = A' [ (G w G') * (B' X B) ] A,     * entry by entry     [WINOGRAD sec. 4.3]

36 products instead of 144. Summed over channels, the middle is a matrix product for each of the 36 entries, (tiles, c)
by (c, d); and a transform on both sides is one small matrix on the 36 (or 16, or 9) entries, B' (x) B', applied to
all tiles and channels at once. So everything here is a matrix product. Some tiles at a time stay in the cache.

The backward goes through the same middle. dx = dy * t(w) is a convolution with the turned kernel, t(w)[i,j,d,c] =
w[2-i,2-j,c,d]. And <dx, x> = <dy, x * w> is linear in the kernel: dw is the cotangent of t(w), turned back, where x is
that of dx. So tiles of dy, transformed once, serve dx and dw.

An image that is first doubled by repetition needs 25 of the 36 entries, forward and backward (DOUBLED and SUMMED): read
25 for 36 below.

The matrices hold numbers from 1/24 to 8, which costs digits: in float32 about 1e-5 of the largest y, and up to 2e-5
of the largest dx, where the direct sum has 6e-7. float64 takes the direct way. A NaN or an infinity spreads to the
whole of the tiles that see it.
"""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..op import sum_rows
from .blocks import blocks
from .gemm import SMALL
from .scratch import apart, overlapping, scratch

TILES = 64                 # of a block, unless there is reason for more
NUMBERS = 8192             # per entry of the tiles of a block: more tiles where channels are few
CUT = 24576                # numbers per entry of a tile in a slice of the kernel and of its products
COLUMNS = 512              # of a transform: 36 x 36 x 512 products are few enough for OpenBLAS to copy nothing first

# The points 0, 1, 2, -1, -2 and infinity, in this order.
B = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, -2, -1, 2, 1, 0],
              [0, 4, -4, -1, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])                      # B'
G = np.array([[6, 0, 0], [-4, -4, -4], [1, 2, 4], [-4, 4, -4], [1, -2, 4], [0, 0, 24]]) / 24
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, 2, -1, -2, 0], [0, 1, 4, 1, 4, 0], [0, 1, 8, -1, -8, 1]])    # A'


@dataclass(frozen=True, eq=False)
class Form:
    """A convolution y = x * w, alone or with an image doubled by repetition, as tiles of y made of tiles of x."""
    size: int           # of a tile of x
    step: int           # between tiles of x
    out: int            # size of a tile of y, and between them
    B: np.ndarray       # B', points by size
    G: np.ndarray       # points by 3
    A: np.ndarray       # A', out by points


# Pixels of a doubled x are alike by twos, but for the first and the last of a tile of six; its tiles have nothing at
# -1: the rest are 25 products of tiles 4x4. Nor does -1 count for sums by twos of y, the transpose of doubling.
TWICE = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
BY_TWOS = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
REST = [0, 1, 2, 4, 5]
SAME = Form(6, 4, 4, B, G, A)                                               # y = x * w
DOUBLED = Form(4, 2, 4, (B @ TWICE)[REST], G[REST], A[:, REST])             # y = doubled(x) * w
SUMMED = Form(6, 4, 2, B[REST], G[REST], (BY_TWOS @ A)[:, REST])            # y = sums by twos of x * w


@lru_cache
def matrices(form, dtype):
    """B' (x) B', G (x) G, A' (x) A' and its transpose; G' (x) G' with rows reversed: for a flipped kernel's cotangent.

    SAME: (36, 36), (36, 9), (16, 36), (36, 16), (9, 36).
    """
    B, G, A = (np.kron(a, a) for a in (form.B, form.G, form.A))
    return [a.astype(dtype, order="C") for a in (B, G, A, A.T, G.T[::-1])]


@lru_cache
def halves(dtype):
    """Of B' (x) B': (even, odd, last), of even rows of a tile and of odd ones; (18, 18), (12, 18), (6, 18).

    At opposite points the even rows of a tile add up to the same, and the odd ones to opposites.
    """
    parts = (slice(0, 3), 0), (slice(1, 3), 1), (slice(5, 6), 1)
    return [np.kron(SAME.B[points, rows::2], SAME.B).astype(dtype) for points, rows in parts]


@lru_cache
def one_tile(h, w, dtype):
    """B' (x) B' (36, h w) of images that are one tile or less: what pads them is zero."""
    return np.kron(SAME.B[:, 1:h + 1], SAME.B[:, 1:w + 1]).astype(dtype)


def tiles_of(n, th, tw, w):
    """(images, rows of tiles), as slices, of up to TILES tiles; of more for few channels or a large kernel."""
    most = max(TILES, NUMBERS // max(w.shape[2:]))
    if w.size >= 9 * 256 * 256:                                             # it costs more than the tiles
        most = 2 * TILES
    return blocks(n, th, tw, most)


def kernel(w, form, name=None):
    """G w G' of every pair of channels, (36, c, d), in scratch of this name, or in new memory."""
    _, _, c, d = w.shape
    matrix = matrices(form, w.dtype)[1]
    return transform(matrix, w.reshape(9, c * d), apart(name, len(matrix), (c, d), w.dtype))


def transform(matrix, tiles, out):
    """out[i] = sum_j matrix[i, j] tiles[j], entries i and j of a tile, for all tiles and channels at once."""
    x, y = (a.reshape(m, -1) for a, m in ((tiles, matrix.shape[1]), (out, matrix.shape[0])))
    if x.shape[1] % COLUMNS == 0:                                           # the same, some columns at a time
        x, y = (a.reshape(len(a), -1, COLUMNS).swapaxes(0, 1) for a in (x, y))
    np.matmul(matrix, x, out=y)
    return out


def input_tiles(x, images, rows, tw, form, out):
    """out[36, tiles, c] = B' X B of every tile of a block."""
    x = x[images]
    n, h, w, c = x.shape
    if form is SAME and max(h, w) <= 4:
        tiles = scratch("tiles", (h, w, n, c), x.dtype)
        np.copyto(tiles, x.transpose(1, 2, 0, 3))
        return transform(one_tile(h, w, x.dtype), tiles, out)
    step, top, t = form.step, form.step * rows.start - 1, rows.stop - rows.start
    height, width = (step * (k - 1) + form.size for k in (t, tw))
    first, stop = max(top, 0), min(top + height, h)                         # the rows of x that the tiles see
    xpad = scratch("pad", (n, height, width, c), x.dtype)
    xpad[:, :first - top] = xpad[:, stop - top:] = xpad[:, :, :1] = xpad[:, :, w + 1:] = 0
    xpad[:, first - top:stop - top, 1:w + 1] = x[:, first:stop]
    sn, sh, sw, sc = xpad.strides
    tiles, strides = apart("tiles", form.size ** 2, (n, t, tw, c), x.dtype), (sw, sn, step * sh, step * sw, sc)
    if form is not SAME:
        shape = form.size, form.size, n, t, tw, c
        np.copyto(tiles.reshape(shape), overlapping(xpad, shape, (sh, *strides)))
        return transform(matrices(form, x.dtype)[0], tiles, out)
    shape = 2, 3, 6, n, t, tw, c                                            # even rows, then odd ones
    np.copyto(tiles.reshape(shape), overlapping(xpad, shape, (sh, 2 * sh, *strides)))
    even, odd, last = halves(x.dtype)
    transform(even, tiles[:18], out[:18])
    at_one_and_two = transform(odd, tiles[18:], apart("odd", 12, out.shape[1:], x.dtype))
    transform(last, tiles[18:], out[30:])
    np.subtract(out[6:18], at_one_and_two, out=out[18:30])
    out[6:18] += at_one_and_two
    return out


def split(image, p):
    """(n, p t, p s, c) seen as (n, t, p, s, p, c)."""
    n, h, w, c = image.shape
    return image.reshape(n, h // p, p, w // p, p, c)


def cuts(n, c, other):
    """Slices of c channels to work on one after the other, where there are n tiles, and `other` channels besides.

    With few tiles the transformed kernel is the largest array: a slice of it is used at once, while in the cache. That
    pays up to 32 tiles, and as long as those of a slice fit beside it. More than one slice means a single block.
    """
    if n > TILES or n > 32 and n * other > 1 << 14:
        return [slice(0, c)]
    fit = min(CUT // (other + 2 * n), SMALL // max(n * other, 1))
    size = 1 << (max(16, fit).bit_length() - 1)                             # a power of two
    return [slice(i, min(i + size, c)) for i in range(0, c, size)]


def forward(x, w, b, doubled=False):
    """y = x * w + b for w (3, 3, c, d), one pixel of zeros around x; any height and width. doubled: x by repetition."""
    return sweep(x, w, b, DOUBLED if doubled else SAME)[0]


def backward(x, w, dy, doubled=False):
    """dx, dw, db: dx = dy * turned(w) is a convolution again, and <dx, x> as a function of turned(w) tells dw."""
    dx, dw = sweep(dy, w[::-1, ::-1].swapaxes(2, 3), None, SUMMED if doubled else SAME, x)
    return dx, dw, sum_rows(dy)


def sweep(x, w, b, form, other=None):
    """y = x * w + b, block by block; for an `other` of y's shape also d<y, other>/dw, turned: flipped, axes swapped."""
    n, h, wd, c = x.shape
    d, th, tw, p = w.shape[3], -(-h // form.step), -(-wd // form.step), form.out
    todo, some = tiles_of(n, th, tw, w), cuts(n * th * tw, d, c)
    whole = kernel(w, form) if len(some) == 1 else None                     # (36, c, d)
    entries, to_turned = len(form.B) ** 2, matrices(form, x.dtype)[4]
    y, dw = np.empty((n, h * p // form.step, wd * p // form.step, d), x.dtype), None
    if other is not None:
        dw = (np.empty if todo else np.zeros)((3, 3, d, c), x.dtype)
    for images, rows in todo:
        many = (images.stop - images.start) * (rows.stop - rows.start) * tw
        u = input_tiles(x, images, rows, tw, form, apart("input", entries, (many, c), x.dtype))
        at = images, slice(p * rows.start, p * rows.stop)
        for s in some:
            small = kernel(w[..., s], form, "kernel") if whole is None else whole
            m = product(u, small, apart("product", entries, (many, small.shape[2]), x.dtype))
            output_tiles(m, rows, tw, b if b is None else b[s], form, y[(*at, slice(None), s)])
            if other is None:
                continue
            dm = output_cotangents(other[(*at, slice(None), s)], rows, tw, form, m)
            dsmall = scratch("kernel's", (entries, m.shape[2], c), x.dtype)
            if images.start == rows.start == 0:
                sum_tiles(dm, u, dsmall)
            else:
                dsmall += sum_tiles(dm, u, scratch("kernel's part", dsmall.shape, x.dtype))
            if images.stop == n and rows.stop == th:
                if whole is None:
                    dw[:, :, s] = transform(to_turned, dsmall, scratch("dw", (3, 3, m.shape[2], c), x.dtype))
                else:
                    transform(to_turned, dsmall, dw)
    return y, dw


def product(u, v, out, widths=(64,)):
    """out[i] = u[i] v[i] of all entries, 64 columns of v (or 32) at a time where OpenBLAS then packs neither."""
    (e, rows, inner), columns = u.shape, v.shape[2]
    width = next((k for k in widths if columns % k == 0 and rows * inner * k <= SMALL), columns)
    parts = [a.reshape(e, -1, columns // width, width).swapaxes(1, 2) for a in (v, out)]
    np.matmul(u[:, None], parts[0], out=parts[1])
    return out


def sum_tiles(dm, u, out):
    """out[36, d, c] = sum over tiles of dm[36, tiles, d] u[36, tiles, c]."""
    return product(dm.swapaxes(1, 2), u, out, (64, 32))


def output_tiles(m, rows, tw, b, form, y):
    """y = A' M A + b of every tile of a block."""
    (n, h, w, d), t, p = y.shape, rows.stop - rows.start, form.out
    tiles = transform(matrices(form, m.dtype)[2], m, apart("tiles", p * p, (n, t, tw, d), m.dtype))
    tiles = tiles.reshape(p, p, n, t, tw, d).transpose(2, 3, 0, 4, 1, 5)    # (n, t, p, tw, p, d)
    if h < p * t or w < p * tw:                                             # less of the last tiles
        tiles = tiles.reshape(n, p * t, p * tw, d)[:, :h, :w]
    else:
        y = split(y, p)
    if b is None:
        np.copyto(y, tiles)
    else:
        np.add(tiles, b, out=y)


def output_cotangents(dy, rows, tw, form, out):
    """out[36, tiles, d] = A dY A' of every tile of a block: the adjoint of output_tiles."""
    (n, h, w, d), t, p = dy.shape, rows.stop - rows.start, form.out
    if h < p * t or w < p * tw:                                             # zeros beyond the image
        whole = np.zeros((n, p * t, p * tw, d), dy.dtype)
        whole[:, :h, :w] = dy
        dy = whole
    tiles = apart("tiles", p * p, (n, t, tw, d), dy.dtype)
    np.copyto(tiles.reshape(p, p, n, t, tw, d), split(dy, p).transpose(2, 4, 0, 1, 3, 5))
    return transform(matrices(form, dy.dtype)[3], tiles, out)
