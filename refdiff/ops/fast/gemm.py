"""Matrix products in slices, where OpenBLAS is faster on small matrices than on one large one.

Up to SMALL products OpenBLAS multiplies without first packing both factors into its own order. For tall and narrow
factors, such as the pixels of an image by its few channels, the packing costs as much as the product.
"""
import numpy as np

from .scratch import scratch

SMALL = 1_000_000


def slices(rows, size):
    """Rows per slice of `rows` rows that are multiplied by a matrix of `size` numbers; 0: all at once."""
    most = min(SMALL // max(size, 1), 512)
    return next((r for r in range(most // 64 * 64, 63, -64) if rows % r == 0), 0)


def multiply(u, w, out):
    """out = u w for u (m, k), w (k, d), out (m, d)."""
    r = slices(len(u), w.size)
    if r:
        u, out = u.reshape(-1, r, u.shape[1]), out.reshape(-1, r, out.shape[1])
    np.matmul(u, w, out=out)


def inner(u, v):
    """u' v for u (m, k), v (m, d): a new (k, d)."""
    (m, k), d = u.shape, v.shape[1]
    r = slices(m, k * d)                                    # each slice gives a (k, d), which has to be added up
    if not r:
        return u.T @ v
    parts = scratch("inner", (m // r, k, d), u.dtype)
    np.matmul(u.reshape(-1, r, k).swapaxes(1, 2), v.reshape(-1, r, d), out=parts)
    return parts.sum(0)


def affine(x, w, b):
    """x w + b for x (m, c), w (c, d), b (d,): a new (m, d), the bias added while a piece is in the cache."""
    y = np.empty((len(x), len(b)), x.dtype)
    for i in range(0, len(x), 2048):
        piece = y[i:i + 2048]
        multiply(x[i:i + 2048], w, piece)
        piece += b
    return y
