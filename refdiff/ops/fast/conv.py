"""Faster routes of conv2d and upsample_conv2d: direct in blocks that stay in the cache, Winograd's for 3x3 kernels.

    blocked   y = windows(x) w, some rows of some images at a time;  dx and dw from one gathering of dy's windows
    winograd  a quarter of the products (winograd.py), where there are enough channels and tiles to pay for it
    host      the faster of the two for these sizes

Which is faster was measured: `refdiff bench --only ops`.
"""
import numpy as np

from .. import conv2d as plain
from .. import upsample, upsample_conv2d as plain_upsample_conv2d
from ..conv import PADS, check_conv2d
from ..op import sum_rows
from . import winograd
from .blocks import blocks
from .gemm import affine, inner, multiply
from .routed import Routed
from .scratch import overlapping, scratch

BLOCK = 1 << 19                    # numbers in a matrix of windows: 2 MiB in float32
PIXELS = 256                       # at least so many, lest the kernel be read from memory for a few
PAIRS = 16                         # two pixels at once up to so many channels in and out
WINOGRAD = (32, 16, 16)            # at least so many channels in (dy's in the backward), out, and tiles of 4x4


def windows_of(n, p, q, width):
    """(images, rows) of p x q pixels, as slices: up to BLOCK numbers or PIXELS pixels, of `width` each."""
    return blocks(n, p, q * width, max(BLOCK, PIXELS * width))


def pair(k, q, stride, c, d):
    """2 where two pixels side by side are better taken at once, else 1: one window serves both, k x (k + 1).

    The kernel then stands in its matrix twice, and a third of the products are with zeros. But there is less to gather.
    What is not finite spreads by a pixel more.
    """
    return 2 if stride == 1 and k == 3 and q % 2 == 0 and max(c, d) <= PAIRS else 1


def spread(w, p):
    """The matrix of a kernel w (k, k, c, d) for windows of p pixels: (k (k + p - 1) c, p d)."""
    k, _, c, d = w.shape
    if p == 1:
        return np.ascontiguousarray(w).reshape(-1, d)
    matrix = np.zeros((k, k + p - 1, c, p, d), w.dtype)
    for j in range(p):
        matrix[:, j:j + k, :, j] = w
    return matrix.reshape(-1, p * d)


def gather(x, images, rows, q, k, stride, before, p=1):
    """The windows of some rows of pixels of some images, p at a time: (m, k (k + p - 1) c). Zeros beyond x, `before`
    of them first.
    """
    x = x[images]
    n, h, w, c = x.shape
    top, t = stride * rows.start - before, rows.stop - rows.start
    height, width = stride * (t - 1) + k, stride * (q - 1) + k              # what the windows see, of it in x:
    first, last, right = max(top, 0), min(top + height, h), min(width - before, w)
    image = scratch("padded", (n, height, width, c), x.dtype)
    image[:, :first - top] = image[:, last - top:] = image[:, :, :before] = image[:, :, before + right:] = 0
    image[:, first - top:last - top, before:before + right] = x[:, first:last, :right]
    sn, sh, sw, sc = image.strides
    out = scratch("windows", (n, t, q // p, k, k + p - 1, c), x.dtype)
    np.copyto(out, overlapping(image, out.shape, (sn, sh * stride, sw * stride * p, sh, sw, sc)))
    return out.reshape(n * t * q // p, -1)


def blocked_forward(x, w, b, stride=1, pad="same"):
    """conv2d's forward, block by block."""
    p, q = check_conv2d(x, w, b, stride, pad)
    n, (k, _, c, d) = len(x), w.shape
    two = pair(k, q, stride, c, d)
    y, matrix, b = np.empty((n, p, q, d), x.dtype), spread(w, two), np.tile(b, two)
    for images, rows in windows_of(n, p, q // two, len(matrix)):
        part = y[images, rows].reshape(-1, two * d)
        multiply(gather(x, images, rows, q, k, stride, PADS[pad](k)[0], two), matrix, part)
        part += b
    return y, (x, w, stride, pad)


def blocked_backward(saved, dy):
    """conv2d's backward, block by block, in the cheapest of three orders."""
    x, w, stride, pad = saved
    k, _, c, d = w.shape
    before = PADS[pad](k)[0]
    if stride > 1:
        return *_scattered(x, w, stride, before, dy), sum_rows(dy)
    few = 0 < dy.size // d < 9 * min(c, d)                 # pixels: a copy of w costs more than it saves
    return *(_by_offset if few else _flipped)(x, w, k - 1 - before, dy), sum_rows(dy)


def _flipped(x, w, before, dy):
    """Rows of dy's windows, u, serve both: dx = u flip(w) and dw = flip(u' x)."""
    n, h, wd, c = x.shape
    k, _, _, d = w.shape
    two = pair(k, wd, 1, c, d)
    flipped = spread(w[::-1, ::-1].transpose(0, 1, 3, 2), two)
    dx, found = np.empty(x.shape, x.dtype), np.zeros(flipped.shape, x.dtype)
    for images, rows in windows_of(n, h, wd // two, len(flipped)):
        u = gather(dy, images, rows, wd, k, 1, before, two)
        multiply(u, flipped, dx[images, rows].reshape(-1, two * c))
        found += inner(u, x[images, rows].reshape(-1, two * c))
    found = found.reshape(k, k + two - 1, d, two, c)                        # of every pixel's place in the window:
    dw = sum(found[:, j:j + k, :, j] for j in range(two))
    return dx, dw[::-1, ::-1].transpose(0, 1, 3, 2)


def _by_offset(x, w, before, dy):
    """The same, one offset of the kernel at a time: nothing of w's size is copied."""
    n, h, wd, c = x.shape
    k, _, _, d = w.shape
    dx, dw = np.empty(x.shape, x.dtype), np.empty(w.shape, x.dtype)
    for images, rows in windows_of(n, h, wd, k * k * d):
        u = gather(dy, images, rows, wd, k, 1, before)
        x_rows, dx_rows = x[images, rows].reshape(-1, c), dx[images, rows].reshape(-1, c)
        some = scratch("some", dx_rows.shape, x.dtype)
        part = scratch("part", (c, d), x.dtype)
        for o in range(k * k):
            i, j = k - 1 - o // k, k - 1 - o % k
            u_o = u[:, o * d:(o + 1) * d]
            np.matmul(u_o, w[i, j].T, out=some if o else dx_rows)
            if o:
                dx_rows += some
            begun = images.start or rows.start
            np.matmul(x_rows.T, u_o, out=part if begun else dw[i, j])
            if begun:
                dw[i, j] += part
    return dx, dw


def _scattered(x, w, stride, before, dy):
    """Windows of x give dw = windows' dy; their cotangents dy w', put back where they came from, give dx."""
    n, h, wd, c = x.shape
    k, _, _, d = w.shape
    p, q = dy.shape[1:3]
    matrix = w.reshape(k * k * c, d)
    image = np.zeros((n, max(stride * (p - 1) + k, h + before), max(stride * (q - 1) + k, wd + before), c), x.dtype)
    dw = np.zeros((k * k * c, d), x.dtype)
    for images, rows in windows_of(n, p, q, k * k * c):
        u, dy_rows = gather(x, images, rows, q, k, stride, before), dy[images, rows].reshape(-1, d)
        dw += u.T @ dy_rows
        du = np.matmul(dy_rows, matrix.T, out=u).reshape(-1, rows.stop - rows.start, q, k, k, c)
        at = image[images, stride * rows.start:]
        for i in range(k):
            for j in range(k):
                end = i + stride * (rows.stop - rows.start - 1) + 1
                at[:, i:end:stride, j:j + stride * (q - 1) + 1:stride] += du[:, :, :, i, j]
    return image[:, before:before + h, before:before + wd], dw.reshape(w.shape)


def winograd_forward(x, w, b, stride=1, pad="same"):
    """conv2d's forward by F(4x4, 3x3); what that does not do is done in blocks."""
    check_conv2d(x, w, b, stride, pad)
    if not _winograd_can(w, stride, pad):
        return blocked_forward(x, w, b, stride, pad)
    return winograd.forward(x, w, b), (x, w, stride, pad)


def winograd_backward(saved, dy):
    """conv2d's backward by F(4x4, 3x3)."""
    x, w, stride, pad = saved
    return winograd.backward(x, w, dy) if _winograd_can(w, stride, pad) else blocked_backward(saved, dy)


def _winograd_can(w, stride, pad):
    return w.shape[0] == 3 and stride == 1 and pad == "same"


def _winograd_pays(x, c, d, step=4):
    """Enough channels to pay for the transforms of c, less for those of d, and enough tiles for the kernel's.

    Between tiles of x are `step` pixels.
    """
    n, h, wd, _ = x.shape
    return c >= WINOGRAD[0] and d >= WINOGRAD[1] and n * -(-h // step) * -(-wd // step) >= WINOGRAD[2]


def pointwise_forward(x, w, b, stride=1, pad="same"):
    """conv2d's forward for a 1x1 kernel."""
    p, q = check_conv2d(x, w, b, stride, pad)
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, x.shape[3])
    return affine(rows, w[0, 0], b).reshape(len(x), p, q, len(b)), (x, w, stride, pad)


def pointwise_backward(saved, dy):
    """conv2d's backward for a 1x1 kernel: pixels that a stride leaves out have no part."""
    x, w, stride, _ = saved
    c, d = w.shape[2:]
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, c)
    dys, dx_rows = np.ascontiguousarray(dy).reshape(-1, d), np.empty(rows.shape, x.dtype)
    multiply(dys, np.ascontiguousarray(w[0, 0].T), dx_rows)
    dx = dx_rows.reshape(*dy.shape[:3], c)
    if stride > 1:
        dx = np.zeros(x.shape, x.dtype)
        dx[:, ::stride, ::stride] = dx_rows.reshape(*dy.shape[:3], c)
    return dx, inner(rows, dys).reshape(w.shape), sum_rows(dys)


def host_forward(x, w, b, stride=1, pad="same"):
    """conv2d's forward by the faster route."""
    if w.ndim != 4 or x.ndim != 4:
        return plain.forward(x, w, b, stride, pad)
    if w.shape[0] == 1:
        return pointwise_forward(x, w, b, stride, pad)
    c, d = w.shape[2:]
    return (winograd_forward if _winograd_pays(x, c, d) else blocked_forward)(x, w, b, stride, pad)


def host_backward(saved, dy):
    """conv2d's backward by the faster route."""
    x, w, _, _ = saved
    if w.shape[0] == 1:
        return pointwise_backward(saved, dy)
    c, d = w.shape[2:]
    return (winograd_backward if _winograd_pays(x, d, c) else blocked_backward)(saved, dy)


def doubled_forward(x, w, b):
    """upsample_conv2d's forward: conv2d's of the doubled image."""
    return host_forward(upsample.forward(x)[0], w, b)[0], (x, w)


def doubled_backward(saved, dy):
    """upsample_conv2d's backward, likewise."""
    x, w = saved
    dx, dw, db = host_backward((upsample.forward(x)[0], w, 1, "same"), dy)
    return upsample.backward(None, dx), dw, db


def winograd_doubled_forward(x, w, b):
    """upsample_conv2d's forward by F(4x4, 3x3) of the image as it is; of other kernels, of the doubled one."""
    check_conv2d(x, w, b, 1, "same")
    if not _winograd_can(w, 1, "same"):
        return doubled_forward(x, w, b)
    return winograd.forward(x, w, b, doubled=True), (x, w)


def winograd_doubled_backward(saved, dy):
    """upsample_conv2d's backward, likewise."""
    x, w = saved
    return winograd.backward(x, w, dy, doubled=True) if _winograd_can(w, 1, "same") else doubled_backward(saved, dy)


def host_doubled_forward(x, w, b):
    """upsample_conv2d's forward by the faster route."""
    pays = x.ndim == w.ndim == 4 and _winograd_can(w, 1, "same") and _winograd_pays(x, *w.shape[2:], step=2)
    return (winograd_doubled_forward if pays else doubled_forward)(x, w, b)


def host_doubled_backward(saved, dy):
    """upsample_conv2d's backward by the faster route."""
    x, w = saved
    pays = _winograd_can(w, 1, "same") and _winograd_pays(x, w.shape[3], w.shape[2], step=2)
    return (winograd_doubled_backward if pays else doubled_backward)(saved, dy)


plain.routes["blocked"] = (blocked_forward, blocked_backward)
plain.routes["winograd"] = (winograd_forward, winograd_backward)
conv2d = Routed(plain, host=(host_forward, host_backward))
plain_upsample_conv2d.routes["winograd"] = (winograd_doubled_forward, winograd_doubled_backward)
upsample_conv2d = Routed(plain_upsample_conv2d, host=(host_doubled_forward, host_doubled_backward))
