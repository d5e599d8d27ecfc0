"""A 3x3 convolution with a quarter of the products: Winograd's F(4x4, 3x3), channels-last.

A tile of 4x4 outputs y is made of a tile of 6x6 inputs x, and per channel pair

    Y = A' [ (G w G') * (B' X B) ] A,     * entry by entry     [WINOGRAD sec. 4.3]

36 products instead of 144. Summed over channels, the middle is a matrix product for each of the 36 entries, (tiles, c)
by (c, d); and a transform on both sides is one small matrix on the 36 (or 16, or 9) entries, B' (x) B', applied to
all tiles and channels at once. So everything here is a matrix product. The backward is the exact adjoint: the same
matrices, transposed, in the other order. Some tiles at a time stay in the cache.

The matrices hold numbers from 1/24 to 8, which costs digits: in float32 about 5e-6 of the largest output, where the
direct sum has 6e-7. float64 takes the direct way. A NaN or an infinity spreads to the whole of the tiles that see it.
"""
from functools import lru_cache

import numpy as np

from ..op import sum_rows
from .scratch import overlapping, scratch

TILES = 64                 # of a block; twice as many where the kernel is large, and costs more than the tiles
COLUMNS = 512              # of a transform: 36 x 36 x 512 products are few enough for OpenBLAS to copy nothing first

B = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
              [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])                      # B'
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])    # A'


@lru_cache
def matrices(dtype):
    """B' (x) B' (36, 36), G (x) G (36, 9), A' (x) A' (16, 36) and their transposes, as (m, m') each."""
    pairs = [np.kron(m, m).astype(dtype) for m in (B, G, A)]
    return [(m, np.ascontiguousarray(m.T)) for m in pairs]


def blocks(n, th, tw, w):
    """(images, rows of tiles) of about TILES tiles each, as slices."""
    tiles = TILES if w.size < 9 * 256 * 256 else 2 * TILES
    if th * tw <= tiles:
        many = tiles // (th * tw)
        return [(slice(i, min(i + many, n)), slice(0, th)) for i in range(0, n, many)]
    rows = max(1, tiles // tw)
    return [(slice(i, i + 1), slice(r, min(r + rows, th))) for i in range(n) for r in range(0, th, rows)]


def kernel(w):
    """G w G' of every pair of channels: (36, c, d)."""
    _, _, c, d = w.shape
    return transform(matrices(w.dtype)[1][0], w.reshape(9, c * d), np.empty((36, c, d), w.dtype))


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
    top, t = 4 * rows.start - 1, rows.stop - rows.start
    first, last = max(top, 0), min(top + 4 * t + 2, h)                      # the rows of x that the tiles see
    xpad = scratch("pad", (n, 4 * t + 2, 4 * tw + 2, c), x.dtype)
    xpad[:, :first - top] = xpad[:, last - top:] = xpad[:, :, :1] = xpad[:, :, w + 1:] = 0
    xpad[:, first - top:last - top, 1:w + 1] = x[:, first:last]
    sn, sh, sw, sc = xpad.strides
    tiles = scratch("tiles", (6, 6, n, t, tw, c), x.dtype)
    np.copyto(tiles, overlapping(xpad, tiles.shape, (sh, sw, sn, 4 * sh, 4 * sw, sc)))
    return transform(matrices(x.dtype)[0][0], tiles, out)


def split(image):
    """(n, 4 t, 4 s, c) seen as (n, t, 4, s, 4, c)."""
    n, h, w, c = image.shape
    return image.reshape(n, h // 4, 4, w // 4, 4, c)


def forward(x, w, b):
    """y = x * w + b for w (3, 3, c, d), one pixel of zeros around x; any height and width."""
    n, h, wd, c = x.shape
    d, th, tw = w.shape[3], -(-h // 4), -(-wd // 4)
    small, (to_output, _) = kernel(w), matrices(x.dtype)[2]
    y = np.empty((n, h, wd, d), x.dtype)
    for images, rows in blocks(n, th, tw, w):
        many, t = images.stop - images.start, rows.stop - rows.start
        u = input_tiles(x, images, rows, tw, scratch("input", (36, many * t * tw, c), x.dtype))
        m = np.matmul(u, small, out=scratch("product", (36, many * t * tw, d), x.dtype))
        tiles = transform(to_output, m, scratch("tiles", (4, 4, many, t, tw, d), x.dtype)).transpose(2, 3, 0, 4, 1, 5)
        part = y[images, 4 * rows.start:4 * rows.stop]
        if h % 4 or wd % 4:
            np.add(tiles.reshape(many, 4 * t, 4 * tw, d)[:, :part.shape[1], :wd], b, out=part)
        else:
            np.add(tiles, b, out=split(part))
    return y


def backward(x, w, dy):
    """dx, dw, db: the adjoint of `forward`, read from its last line to its first."""
    n, h, wd, c = x.shape
    d, th, tw = w.shape[3], -(-h // 4), -(-wd // 4)
    (_, from_input), (_, from_kernel), _ = matrices(x.dtype)
    small, dx = kernel(w.swapaxes(2, 3)), np.empty(x.shape, x.dtype)        # (36, d, c)
    dsmall = part = None
    for images, rows in blocks(n, th, tw, w):
        many, t = images.stop - images.start, rows.stop - rows.start
        u = input_tiles(x, images, rows, tw, scratch("input", (36, many * t * tw, c), x.dtype))
        dm = output_cotangents(dy, images, rows, tw, scratch("product", (36, many * t * tw, d), x.dtype))
        if dsmall is None:
            dsmall = u.swapaxes(1, 2) @ dm
        else:
            part = np.matmul(u.swapaxes(1, 2), dm, out=part)
            dsmall += part
        du = np.matmul(dm, small, out=u)
        tiles = transform(from_input, du, scratch("tiles", (6, 6, many, t, tw, c), x.dtype))
        if rows.start == 0:
            image = scratch("image", (many, th + 1, 4, tw + 1, 4, c), x.dtype)
            image[...] = 0
        put_back(tiles.transpose(2, 3, 0, 4, 1, 5), image, rows, tw)
        if rows.stop == th:
            dx[images] = image.reshape(many, 4 * th + 4, 4 * tw + 4, c)[:, 1:h + 1, 1:wd + 1]
    return dx, transform(from_kernel, dsmall, np.empty(w.shape, w.dtype)), sum_rows(dy)


def output_cotangents(dy, images, rows, tw, out):
    """out[36, tiles, d] = A dY A' of every tile of a block."""
    dy = dy[images, 4 * rows.start:4 * rows.stop]
    n, h, w, d = dy.shape
    t = rows.stop - rows.start
    if h < 4 * t or w < 4 * tw:                                             # zeros beyond the image
        whole = np.zeros((n, 4 * t, 4 * tw, d), dy.dtype)
        whole[:, :h, :w] = dy
        dy = whole
    tiles = scratch("tiles", (4, 4, n, t, tw, d), dy.dtype)
    np.copyto(tiles, split(dy).transpose(2, 4, 0, 1, 3, 5))
    return transform(matrices(dy.dtype)[2][1], tiles, out)


def put_back(tiles, image, rows, tw):
    """Add tiles[n, t, 6, tw, 6, c] to image[n, th + 1, 4, tw + 1, 4, c]: each overlaps the next by two pixels."""
    here, below = slice(rows.start, rows.stop), slice(rows.start + 1, rows.stop + 1)
    image[:, here, :, :tw] += tiles[:, :, :4, :, :4]
    image[:, below, :2, :tw] += tiles[:, :, 4:, :, :4]
    image[:, here, :, 1:, :2] += tiles[:, :, :4, :, 4:]
    image[:, below, :2, 1:, :2] += tiles[:, :, 4:, :, 4:]
