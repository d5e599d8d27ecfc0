"""Which images, and which rows of them, a route takes at a time, so that what it makes of them stays in a cache."""


def blocks(n, rows, width, most):
    """(images, rows), as slices, of n images whose rows take `width` numbers: `most` numbers at a time, or one row.

    As few blocks as that allows, none larger than so few need: 64 images of which 43 fit are taken as 32 and 32, for
    products (gemm.py) of 43 or 21 cannot be cut evenly.
    """
    if rows * width <= most:
        return [(images, slice(0, rows)) for images in evenly(n, most // max(rows * width, 1))]
    return [(slice(i, i + 1), part) for i in range(n) for part in evenly(rows, max(1, most // width))]


def evenly(n, most):
    """Slices of 0..n-1, as few as there are with `most` in each, the last the shortest."""
    if not n:
        return []
    size = -(-n // -(-n // most))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
