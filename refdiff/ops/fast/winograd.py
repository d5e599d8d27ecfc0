"""A 3x3 convolution with a quarter of the products: Winograd's F(4x4, 3x3), channels-last.

A tile of 4x4 outputs y is made of a tile of 6x6 inputs x, and per channel pair

    Y = A' [ (G w G') * (B' X B) ] A,     * entry by entry     [WINOGRAD sec. 4.3]

36 products instead of 144. Summed over channels, the middle is a matrix product for each of the 36 entries, (tiles, c)
by (c, d); and a transform on both sides is one small matrix on the 36 (or 16, or 9) entries, B' (x) B', applied to
all tiles and channels at once. So everything here is a matrix product. Some tiles at a time stay in the cache.

The backward goes through the same middle. dx = dy * t(w) is a convolution with the turned kernel, t(w)[i,j,d,c] =
w[2-i,2-j,c,d]. And <dx, x> = <dy, x * w> is linear in the kernel: dw is the cotangent of t(w), turned back, where x is
that of dx. So tiles of dy, transformed once, serve dx and dw.

The matrices hold numbers from 1/24 to 8, which costs digits: in float32 about 1e-5 of the largest y, and up to 2e-5
of the largest dx, where the direct sum has 6e-7. float64 takes the direct way. A NaN or an infinity spreads to the
whole of the tiles that see it.
"""
from functools import lru_cache

import numpy as np

from ..op import sum_rows
from .gemm import SMALL
from .scratch import apart, overlapping, scratch

TILES = 64                 # of a block, at least
NUMBERS = 8192             # per entry of the tiles of a block: more tiles where channels are few
CUT = 24576                # numbers per entry of a tile in a slice of the kernel and of its products
COLUMNS = 512              # of a transform: 36 x 36 x 512 products are few enough for OpenBLAS to copy nothing first

# The points 0, 1, 2, -1, -2 and infinity, in this order.
B = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, -2, -1, 2, 1, 0],
              [0, 4, -4, -1, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])                      # B'
G = np.array([[6, 0, 0], [-4, -4, -4], [1, 2, 4], [-4, 4, -4], [1, -2, 4], [0, 0, 24]]) / 24
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, 2, -1, -2, 0], [0, 1, 4, 1, 4, 0], [0, 1, 8, -1, -8, 1]])    # A'


@lru_cache
def matrices(dtype):
    """G (x) G (36, 9), A' (x) A' (16, 36) and its transpose."""
    return [np.kron(*pair).astype(dtype) for pair in ((G, G), (A, A), (A.T, A.T))]


@lru_cache
def halves(dtype):
    """Of B' (x) B': (even, odd, last), of even rows of a tile and of odd ones; (18, 18), (12, 18), (6, 18).

    At opposite points the even rows of a tile add up to the same, and the odd ones to opposites.
    """
    parts = (slice(0, 3), 0), (slice(1, 3), 1), (slice(5, 6), 1)
    return [np.kron(B[points, rows::2], B).astype(dtype) for points, rows in parts]


@lru_cache
def one_tile(h, w, dtype):
    """B' (x) B' (36, h w) of images that are one tile or less: what pads them is zero."""
    return np.kron(B[:, 1:h + 1], B[:, 1:w + 1]).astype(dtype)


@lru_cache
def to_turned(dtype):
    """G' (x) G' (9, 36), the rows reversed: from the transformed kernel's cotangent to that of the flipped kernel."""
    return np.kron(G, G).T[::-1].astype(dtype, order="C")


def blocks(n, th, tw, w):
    """(images, rows of tiles), as slices, of TILES tiles each; of more for few channels or a large kernel."""
    tiles = max(TILES, NUMBERS // max(w.shape[2:]))
    if w.size >= 9 * 256 * 256:                                             # it costs more than the tiles
        tiles = 2 * TILES
    if th * tw <= tiles:
        many = tiles // (th * tw)
        return [(slice(i, min(i + many, n)), slice(0, th)) for i in range(0, n, many)]
    rows = max(1, tiles // tw)
    return [(slice(i, i + 1), slice(r, min(r + rows, th))) for i in range(n) for r in range(0, th, rows)]


def kernel(w, name=None):
    """G w G' of every pair of channels, (36, c, d), in scratch of this name, or in new memory."""
    _, _, c, d = w.shape
    return transform(matrices(w.dtype)[0], w.reshape(9, c * d), apart(name, 36, (c, d), w.dtype))


def transform(matrix, tiles, out):
    """out[i] = sum_j matrix[i, j] tiles[j], entries i and j of a tile, for all tiles and channels at once."""
    x, y = (a.reshape(m, -1) for a, m in ((tiles, matrix.shape[1]), (out, matrix.shape[0])))
    if x.shape[1] % COLUMNS == 0:                                           # the same, some columns at a time
        x, y = (a.reshape(len(a), -1, COLUMNS).swapaxes(0, 1) for a in (x, y))
    np.matmul(matrix, x, out=y)
    return out


def input_tiles(x, images, rows, tw, out):
    """out[36, tiles, c] = B' X B of every tile of a block."""
    x = x[images]
    n, h, w, c = x.shape
    if max(h, w) <= 4:
        tiles = scratch("tiles", (h, w, n, c), x.dtype)
        np.copyto(tiles, x.transpose(1, 2, 0, 3))
        return transform(one_tile(h, w, x.dtype), tiles, out)
    top, t = 4 * rows.start - 1, rows.stop - rows.start
    first, stop = max(top, 0), min(top + 4 * t + 2, h)                      # the rows of x that the tiles see
    xpad = scratch("pad", (n, 4 * t + 2, 4 * tw + 2, c), x.dtype)
    xpad[:, :first - top] = xpad[:, stop - top:] = xpad[:, :, :1] = xpad[:, :, w + 1:] = 0
    xpad[:, first - top:stop - top, 1:w + 1] = x[:, first:stop]
    sn, sh, sw, sc = xpad.strides
    tiles, shape = apart("tiles", 36, (n, t, tw, c), x.dtype), (2, 3, 6, n, t, tw, c)         # even rows, then odd
    np.copyto(tiles.reshape(shape), overlapping(xpad, shape, (sh, 2 * sh, sw, sn, 4 * sh, 4 * sw, sc)))
    even, odd, last = halves(x.dtype)
    transform(even, tiles[:18], out[:18])
    at_one_and_two = transform(odd, tiles[18:], apart("odd", 12, out.shape[1:], x.dtype))
    transform(last, tiles[18:], out[30:])
    np.subtract(out[6:18], at_one_and_two, out=out[18:30])
    out[6:18] += at_one_and_two
    return out


def split(image):
    """(n, 4 t, 4 s, c) seen as (n, t, 4, s, 4, c)."""
    n, h, w, c = image.shape
    return image.reshape(n, h // 4, 4, w // 4, 4, c)


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


def forward(x, w, b):
    """y = x * w + b for w (3, 3, c, d), one pixel of zeros around x; any height and width."""
    return sweep(x, w, b)[0]


def backward(x, w, dy):
    """dx, dw, db: dx = dy * turned(w) is a convolution again, and <dx, x> as a function of turned(w) tells dw."""
    dx, dw = sweep(dy, w[::-1, ::-1].swapaxes(2, 3), None, x)
    return dx, dw, sum_rows(dy)


def sweep(x, w, b, other=None):
    """y = x * w + b, block by block; for an `other` of y's shape also d<y, other>/dw, turned: flipped, axes swapped."""
    n, h, wd, c = x.shape
    d, th, tw = w.shape[3], -(-h // 4), -(-wd // 4)
    todo, some = blocks(n, th, tw, w), cuts(n * th * tw, d, c)
    whole = kernel(w) if len(some) == 1 else None                           # (36, c, d)
    y, dw = np.empty((n, h, wd, d), x.dtype), None
    if other is not None:
        dw = (np.empty if todo else np.zeros)((3, 3, d, c), x.dtype)
    for images, rows in todo:
        many = (images.stop - images.start) * (rows.stop - rows.start) * tw
        u = input_tiles(x, images, rows, tw, apart("input", 36, (many, c), x.dtype))
        for s in some:
            small = kernel(w[..., s], "kernel") if whole is None else whole
            m = product(u, small, apart("product", 36, (many, small.shape[2]), x.dtype))
            output_tiles(m, rows, tw, b if b is None else b[s], y[images, 4 * rows.start:4 * rows.stop, :, s])
            if other is None:
                continue
            dm = output_cotangents(other[images, 4 * rows.start:4 * rows.stop, :, s], rows, tw, m)
            dsmall = scratch("kernel's", (36, m.shape[2], c), x.dtype)
            if images.start == rows.start == 0:
                sum_tiles(dm, u, dsmall)
            else:
                dsmall += sum_tiles(dm, u, scratch("kernel's part", dsmall.shape, x.dtype))
            if images.stop == n and rows.stop == th:
                if whole is None:
                    dw[:, :, s] = transform(to_turned(x.dtype), dsmall, scratch("dw", (3, 3, m.shape[2], c), x.dtype))
                else:
                    transform(to_turned(x.dtype), dsmall, dw)
    return y, dw


def product(u, v, out, widths=(64,)):
    """out[i] = u[i] v[i] of all 36 entries, 64 columns of v (or 32) at a time where OpenBLAS then packs neither."""
    (e, rows, inner), columns = u.shape, v.shape[2]
    width = next((k for k in widths if columns % k == 0 and rows * inner * k <= SMALL), columns)
    parts = [a.reshape(e, -1, columns // width, width).swapaxes(1, 2) for a in (v, out)]
    np.matmul(u[:, None], parts[0], out=parts[1])
    return out


def sum_tiles(dm, u, out):
    """out[36, d, c] = sum over tiles of dm[36, tiles, d] u[36, tiles, c]."""
    return product(dm.swapaxes(1, 2), u, out, (64, 32))


def output_tiles(m, rows, tw, b, y):
    """y = A' M A + b of every tile of a block."""
    n, h, w, d = y.shape
    t = rows.stop - rows.start
    tiles = transform(matrices(m.dtype)[1], m, apart("tiles", 16, (n, t, tw, d), m.dtype))
    tiles = tiles.reshape(4, 4, n, t, tw, d).transpose(2, 3, 0, 4, 1, 5)    # (n, t, 4, tw, 4, d)
    if h < 4 * t or w < 4 * tw:                                             # less of the last tiles
        tiles = tiles.reshape(n, 4 * t, 4 * tw, d)[:, :h, :w]
    else:
        y = split(y)
    if b is None:
        np.copyto(y, tiles)
    else:
        np.add(tiles, b, out=y)


def output_cotangents(dy, rows, tw, out):
    """out[36, tiles, d] = A dY A' of every tile of a block: the adjoint of output_tiles."""
    n, h, w, d = dy.shape
    t = rows.stop - rows.start
    if h < 4 * t or w < 4 * tw:                                             # zeros beyond the image
        whole = np.zeros((n, 4 * t, 4 * tw, d), dy.dtype)
        whole[:, :h, :w] = dy
        dy = whole
    tiles = apart("tiles", 16, (n, t, tw, d), dy.dtype)
    np.copyto(tiles.reshape(4, 4, n, t, tw, d), split(dy).transpose(2, 4, 0, 1, 3, 5))
    return transform(matrices(dy.dtype)[2], tiles, out)
