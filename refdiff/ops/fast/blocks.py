"""Which images, and which rows of them, a route takes at a time, so that what it makes of them stays in a cache."""


def blocks(n, rows, width, most):
    """(images, rows), as slices, of n images whose rows take `width` numbers: at most `most` at a time, or one row.

    No more blocks than that takes, and then all as small as they can be: 64 images of which 43 fit are taken as 32 and
    32, for the products (gemm.py) of 43 or 21 cannot be cut evenly.
    """
    if rows * width <= most:
        return [(images, slice(0, rows)) for images in evenly(n, most // max(rows * width, 1))]
    return [(slice(i, i + 1), part) for i in range(n) for part in evenly(rows, max(1, most // width))]


def evenly(n, most):
    """As few slices of 0..n-1 as there can be of at most `most`; the first is as short as that allows."""
    if not n:
        return []
    size = -(-n // -(-n // most))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
