"""The ops' routes on a device: kernels of refdiff/cuda and products of matrices in place of chains of array functions.

Each pair takes and gives what the plain op does, `saved` included, in float32 and float64; DEVICE lists them. What the
plain op refuses is refused by it. Everything here can be recorded into a graph (backend.graph): nothing is read back.
"""
import math

from ... import backend
from ...cuda import THREADS
from .. import attention as plain_attention
from .. import avg_pool as plain_avg_pool
from .. import concat as plain_concat
from .. import embedding as plain_embedding
from .. import group_norm as plain_group_norm
from .. import linear as plain_linear
from .. import scale_shift as plain_scale_shift
from .. import shift as plain_shift
from .. import sinusoid as plain_sinusoid
from .. import upsample as plain_upsample
from ..attention import heads_first
from ..conv import PADS, check_conv2d
from ..norm_silu import check_norm_silu

WARP = 32
WIDE = 16                                           # bytes that one thread moves at once


def whole(x):
    """x in one piece of memory, rows contiguous."""
    return x if x.flags.c_contiguous else backend.of(x=x).ascontiguousarray(x)


def like(x, shape=None):
    """Fresh memory of x's dtype, on its device."""
    return backend.of(x=x).empty(x.shape if shape is None else shape, x.dtype)


def each(kernel, total, *arguments):
    """Launch a kernel of elementwise.cu over `total` entries, four or more of them per thread."""
    backend.launch("elementwise", kernel, min(-(-total // (4 * THREADS)), 1 << 14), THREADS, *arguments, total)


def summed(x, y=None):
    """x[b,rows,c] -> [b,c]: the sum over the rows of x, or of x y, in two launches where there are many."""
    b, rows, c = x.shape
    strips = -(-c // WARP)
    parts = max(1, min(rows // 64, 2048 // (b * strips) or 1))
    out = like(x, (b, parts, c))
    if y is None:
        backend.launch("reduce", "sum_rows", b * parts * strips, THREADS, x, out, rows, c, parts)
    else:
        backend.launch("reduce", "dot_rows", b * parts * strips, THREADS, x, y, out, rows, c, parts)
    return summed(out) if parts > 1 else out[:, 0]


def sum_rows(x):
    """The sum over every axis but the last."""
    return summed(whole(x).reshape(1, -1, x.shape[-1]))[0]


def sum_pixels(x, y=None):
    """(n, h, w, c) -> (n, c)."""
    n, h, w, c = x.shape
    return summed(whole(x).reshape(n, h * w, c), None if y is None else whole(y).reshape(n, h * w, c))


def block_sum(x, scale=1.0):
    """(n, 2h, 2w, c) -> (n, h, w, c): scale times the sum of every 2x2 block, in one launch."""
    n, h, w, c = x.shape
    y = like(x, (n, h // 2, w // 2, c))
    each("block_sum", y.size, whole(x), y, h // 2, w // 2, c, scale)
    return y


def adamw_step(optimiser, step, theta, m, v, grad, lr=None, factor=1.0, ema=None, keep=0.0):
    """One update of theta, m and v by AdamW (optim.py) from factor grad, and of ema if given, in one launch.

    step counts the updates done before; keep is the moving average's decay.
    """
    rate, t = optimiser.lr if lr is None else float(lr), step + 1
    decay = optimiser.weight_decay * (rate if optimiser.decay == "rate" else rate / optimiser.lr)
    numbers = (factor, optimiser.beta1, optimiser.beta2, 1 - optimiser.beta1 ** t, 1 - optimiser.beta2 ** t, rate,
               optimiser.eps, decay)
    blocks = min(-(-theta.size // (4 * THREADS)), 1 << 14)
    if ema is None:
        backend.launch("optim", "adamw", blocks, THREADS, theta, grad, m, v, *numbers, theta.size)
    else:
        backend.launch("optim", "adamw_ema", blocks, THREADS, theta, grad, m, v, ema, *numbers, keep, theta.size)


# ---- convolution: the windows in one launch, then one product

def windows(x, k, step, spread, top, size):
    """The (n p q, k k c) matrix of windows of the spread-out x, p and q given by size (cuda/conv.cu)."""
    x = whole(x)
    n, h, w, c = x.shape
    p, q = size
    rows = like(x, (n * p * q, k * k * c))
    wide = c % (WIDE // x.itemsize) == 0            # the memory of an array begins at a multiple of far more than 16
    units = q * k * c // (WIDE // x.itemsize if wide else 1)
    threads = min(THREADS, -(-units // WARP) * WARP)
    if wide and not aligned(x):
        x = x.copy()
    backend.launch("conv", "windows_wide" if wide else "windows", n * p * k, threads, x, rows, h, w, c, p, q, k, step,
                   spread, top)
    return rows


def aligned(x):
    """Whether x begins at a multiple of 16 bytes of its memory: a part of an array may not."""
    return getattr(getattr(x, "data", None), "ptr", 0) % WIDE == 0


def conv2d_forward(x, w, b, stride=1, pad="same"):
    """y = windows(x) w + b; neither padding nor windows of one pixel are ever copied."""
    p, q = check_conv2d(x, w, b, stride, pad)
    k, _, c, d = w.shape
    if k == 1:
        rows = whole(x[:, ::stride, ::stride]).reshape(-1, c)
    else:
        rows = windows(x, k, stride, 1, PADS[pad](k)[0], (p, q))
    y = backend.product(rows, w.reshape(k * k * c, d))
    y += b
    return y.reshape(len(x), p, q, d), (x, w, stride, pad)


def conv2d_backward(saved, dy):
    """dx = windows(u) flip(w), dw = windows(u)^T x, db = sum dy: one gathering of u, dy spread out, serves both."""
    x, w, stride, pad = saved
    n, height, width, c = x.shape
    k, _, _, d = w.shape
    if k == 1 and stride == 1:
        rows = whole(dy).reshape(-1, d)
    else:
        rows = windows(dy, k, 1, stride, k - 1 - PADS[pad](k)[0], (height, width))
    w_flip = whole(w[::-1, ::-1].transpose(0, 1, 3, 2)).reshape(k * k * d, c)
    dx = backend.product(rows, w_flip).reshape(x.shape)
    dw = backend.product(rows.T, whole(x).reshape(-1, c)).reshape(k, k, d, c)[::-1, ::-1].transpose(0, 1, 3, 2)
    return dx, dw, sum_rows(dy)


# ---- linear

def linear_forward(x, w, b):
    """y = x w + b."""
    backend.of(x=x, w=w, b=b)
    if w.ndim != 2 or x.shape[-1] != w.shape[0] or b.shape != w.shape[1:]:
        return plain_linear.forward(x, w, b)
    y = backend.product(whole(x).reshape(-1, w.shape[0]), w)
    y += b
    return y.reshape(x.shape[:-1] + b.shape), (x, w)


def linear_backward(saved, dy):
    """dx = dy w^T;  dw = x^T dy;  db = sum dy."""
    x, w = saved
    rows = whole(dy).reshape(-1, dy.shape[-1])
    dw = backend.product(whole(x).reshape(-1, x.shape[-1]).T, rows)
    return backend.product(rows, w.T).reshape(x.shape), dw, sum_rows(rows)


# ---- GroupNorm, and SiLU after it

def norm_grid(n, c, groups):
    """(channels per group, channels per block, blocks, threads): as many whole groups as make a row of 32 threads."""
    group = c // groups
    together = max(k for k in range(1, groups + 1) if groups % k == 0 and (k == 1 or k * group <= WARP))
    width = together * group
    lanes = min(width, WARP)
    return group, width, n * (c // width), lanes * (THREADS // lanes)


def group_norm_forward(x, gamma, beta, groups=32, eps=1e-6):
    """y = gamma (x - mu)/sqrt(var + eps) + beta in one launch."""
    backend.of(x=x, gamma=gamma, beta=beta)
    if x.ndim != 4 or x.shape[3] % groups or not gamma.shape == beta.shape == x.shape[3:]:
        return plain_group_norm.forward(x, gamma, beta, groups, eps)
    n, h, w, c = x.shape
    x, gamma, beta = whole(x), whole(gamma), whole(beta)
    group, width, blocks, threads = norm_grid(n, c, groups)
    y, xhat, rs = like(x), like(x, (n, h * w, c)), like(x, (n, 1, c))
    backend.launch("norm", "group_norm_forward", blocks, threads, x, gamma, beta, y, xhat, rs, h * w, c, group, width,
                   eps)
    return y, (xhat, rs, gamma, groups)


def group_norm_backward(saved, dy):
    """dx = (g - mean g - xhat mean(g xhat))/s with g = gamma dy, and sums for dgamma, dbeta, in one launch."""
    xhat, rs, gamma, groups = saved
    n, hw, c = xhat.shape
    dy, xhat, rs = whole(dy), whole(xhat), whole(rs)
    group, width, blocks, threads = norm_grid(n, c, groups)
    dx, dgamma, dbeta = like(dy), like(dy, (1, n, c)), like(dy, (1, n, c))
    backend.launch("norm", "group_norm_backward", blocks, threads, dy, xhat, rs, gamma, dx, dgamma, dbeta, hw, c,
                   group, width)
    return dx, summed(dgamma)[0], summed(dbeta)[0]


def norm_silu_forward(x, e, gamma, beta, scale, shift, groups=32, eps=1e-6):
    """y = SiLU((gamma xhat + beta)(1 + scale) + shift) in one launch."""
    check_norm_silu(x, e, gamma, beta, scale, shift, groups)
    n, h, w, c = x.shape
    x, e, gamma, beta, gain, half = (whole(a) for a in (x, e, gamma, beta, 0.5 + 0.5 * scale, 0.5 * shift))
    group, width, blocks, threads = norm_grid(n, c, groups)
    y, centre, rs = like(x), like(x, (n, 1, c)), like(x, (n, 1, c))
    backend.launch("norm", "norm_silu_forward", blocks, threads, x, e, gamma, beta, gain, half, y, centre, rs, h * w, c,
                   group, width, eps)
    return y, (x.reshape(n, h * w, c), centre, rs, gamma, beta, gain[:, None], half[:, None], groups)


def norm_silu_backward(saved, dy):
    """dx and the sums over the pixels of all others, in one launch; one each sums dgamma and dbeta over the images."""
    x, centre, rs, gamma, beta, gain, half, groups = saved
    n, hw, c = x.shape
    dy, x, centre, rs, gamma, beta, gain, half = (whole(a) for a in (dy, x, centre, rs, gamma, beta, gain, half))
    group, width, blocks, threads = norm_grid(n, c, groups)
    dx, sums = like(dy), like(dy, (5, 1, n, c))
    de, dgamma, dbeta, dscale, dshift = sums
    backend.launch("norm", "norm_silu_backward", blocks, threads, dy, x, centre, rs, gamma, beta, gain, half, dx, de,
                   dgamma, dbeta, dscale, dshift, hw, c, group, width)
    return dx, de[0], summed(dgamma)[0], summed(dbeta)[0], dscale[0], dshift[0]


def silu_forward(x):
    """y = x sigma(x) in one launch."""
    x = whole(x)
    y, s = like(x), like(x)
    each("silu_forward", x.size, x, y, s)
    return y, (x, s)


def silu_backward(saved, dy):
    """dx = sigma (1 + x (1 - sigma)) dy in one launch."""
    x, s = saved
    dx = like(x)
    each("silu_backward", x.size, whole(x), whole(s), whole(dy), dx)
    return dx


# ---- softmax and attention

def softmax_launch(kernel, *arrays, scale):
    """One warp per row of the last axis; the last array is the result."""
    m = arrays[-1].shape[-1]
    rows = arrays[-1].size // m
    backend.launch("softmax", kernel, -(-rows // (THREADS // WARP)), THREADS, *arrays, rows, m, scale)
    return arrays[-1]


def softmax_forward(s):
    """p = e^s/sum e^s."""
    p = softmax_launch("softmax_forward", whole(s), like(s), scale=1.0)
    return p, p


def softmax_backward(p, dp):
    """ds = p (dp - sum dp p)."""
    return softmax_launch("softmax_backward", whole(p), whole(dp), like(p), scale=1.0)


def attention_forward(q, k, v):
    """o = softmax(q k^T/sqrt d) v: two products that read q, k and v where they lie, and one launch between."""
    backend.of(q=q, k=k, v=v)
    if q.ndim != 4 or q.shape[::2] != k.shape[::2] or q.shape[3] != k.shape[3] or k.shape[:3] != v.shape[:3]:
        return plain_attention.forward(q, k, v)
    q, k, v = heads_first(q), heads_first(k), heads_first(v)
    scale = 1 / math.sqrt(q.shape[-1])
    scores = backend.product(q, k.swapaxes(2, 3))
    p = softmax_launch("softmax_forward", scores, like(scores), scale=scale)
    return heads_first(backend.product(p, v)), (q, k, v, p, scale)


def attention_backward(saved, do):
    """dv = p^T do;  ds = softmax'(do v^T)/sqrt d;  dq = ds k;  dk = ds^T q."""
    q, k, v, p, scale = saved
    do, p = heads_first(do), whole(p)
    dv = backend.product(p.swapaxes(2, 3), do)
    dp = backend.product(do, v.swapaxes(2, 3))
    ds = softmax_launch("softmax_backward", p, dp, like(p), scale=scale)
    dq, dk = backend.product(ds, k), backend.product(ds.swapaxes(2, 3), q)
    return heads_first(dq), heads_first(dk), heads_first(dv)


# ---- shift and scale per image and channel

def shift_forward(x, shift):
    """y = x + shift, one launch as it is."""
    return plain_shift.forward(x, shift)


def shift_backward(saved, dy):
    """dx = dy;  dshift = sum_hw dy."""
    return dy, sum_pixels(dy)


def scale_shift_forward(x, scale, shift):
    """y = x (1 + scale) + shift in one launch."""
    backend.of(x=x, scale=scale, shift=shift)
    if x.ndim != 4 or not scale.shape == shift.shape == (x.shape[0], x.shape[-1]):
        return plain_scale_shift.forward(x, scale, shift)
    n, h, w, c = x.shape
    x, gain, y = whole(x), whole(1 + scale), like(x)
    each("scale_shift_forward", x.size, x, gain, whole(shift), y, h * w, c)
    return y, (x, gain[:, None, None, :])


def scale_shift_backward(saved, dy):
    """dx = dy (1 + scale);  dscale = sum_hw dy x;  dshift = sum_hw dy."""
    x, gain = saved
    return dy * gain, sum_pixels(dy, x), sum_pixels(dy)


# ---- resampling

def avg_pool_forward(x):
    """y = mean of every 2x2 block in one launch."""
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        return plain_avg_pool.forward(x)
    return block_sum(x, 0.25), None


def upsample_backward(saved, dy):
    """dx = the sum of every 2x2 block of dy in one launch."""
    return block_sum(dy)


def upsample_conv2d_forward(x, w, b):
    """y = upsample(x) * w + b."""
    return conv2d_forward(plain_upsample.forward(x)[0], w, b)[0], (x, w)


def upsample_conv2d_backward(saved, dy):
    """dx, dw, db."""
    x, w = saved
    dx, dw, db = conv2d_backward((plain_upsample.forward(x)[0], w, 1, "same"), dy)
    return block_sum(dx), dw, db


# ---- joining, looking up, waves: the plain maps without what a graph cannot hold

def concat_forward(a, b):
    """y = [a, b]."""
    backend.of(a=a, b=b)
    if a.shape[:-1] != b.shape[:-1]:
        return plain_concat.forward(a, b)
    return backend.concatenate((a, b)), a.shape[-1]


def embedding_forward(table, labels):
    """y[n] = table[labels[n]]. A recorded call cannot look at the labels: whoever replays it has checked them."""
    if not backend.capturing(labels):
        return plain_embedding.forward(table, labels)
    return table[labels], (labels, table.shape[0])


def embedding_backward(saved, dy):
    """dtable = the one-hot matrix times dy."""
    labels, v = saved
    xp = backend.of(labels=labels, dy=dy)
    one_hot = (xp.arange(v)[:, None] == labels[None, :]).astype(dy.dtype)
    return backend.product(one_hot, dy)


def sinusoid_forward(t, width=64, order="sin_cos", denominator="half-1", period=10000.0):
    """y = [sin(t f), cos(t f)] or [cos, sin]."""
    xp, half = backend.of(t=t), width // 2
    last = half - 1 if denominator == "half-1" else half
    if (t.ndim != 1 or t.dtype.kind != "f" or width % 2 or half < 2 or order not in ("sin_cos", "cos_sin")
            or denominator not in ("half-1", "half")):
        return plain_sinusoid.forward(t, width, order, denominator, period)
    f = xp.exp(-math.log(period) / last * xp.arange(half)).astype(t.dtype)
    phase = t[:, None] * f
    sin, cos = xp.sin(phase), xp.cos(phase)
    return backend.concatenate((sin, cos) if order == "sin_cos" else (cos, sin)), (sin, cos, f, order)


DEVICE = {"conv2d": (conv2d_forward, conv2d_backward), "linear": (linear_forward, linear_backward),
          "group_norm": (group_norm_forward, group_norm_backward),
          "norm_silu": (norm_silu_forward, norm_silu_backward), "silu": (silu_forward, silu_backward),
          "softmax": (softmax_forward, softmax_backward), "attention": (attention_forward, attention_backward),
          "shift": (shift_forward, shift_backward), "scale_shift": (scale_shift_forward, scale_shift_backward),
          "avg_pool": (avg_pool_forward, plain_avg_pool.backward),
          "upsample": (plain_upsample.forward, upsample_backward),
          "upsample_conv2d": (upsample_conv2d_forward, upsample_conv2d_backward),
          "concat": (concat_forward, plain_concat.backward), "embedding": (embedding_forward, embedding_backward),
          "sinusoid": (sinusoid_forward, plain_sinusoid.backward)}
