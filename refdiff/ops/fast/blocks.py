"""Which images, and which rows of them, a route takes at a time, so that what it makes of them stays in a cache."""


def blocks(n, rows, width, most):
    """(images, rows), as slices, of n images whose rows take `width` numbers: `most` numbers at a time, or one row.

    As few blocks as that allows, and all of about one size: the last of a batch of 64 would else be a small one, and
    the others of sizes that products (gemm.py) cannot cut evenly.
    """
    if rows * width <= most:
        return [(images, slice(0, rows)) for images in evenly(n, most // max(rows * width, 1))]
    return [(slice(i, i + 1), part) for i in range(n) for part in evenly(rows, max(1, most // width))]


def evenly(n, most):
    """Slices of 0..n-1, no more of them than with `most` in each but the last, and none longer than the first."""
    if not n:
        return []
    size = -(-n // -(-n // most))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
