"""Changing the size of an image, joining channels, embedding time: maps without parameters."""
import math

from .. import backend
from .conv import conv2d
from .op import Op, check_image, tangent_of, wanted


# ---- nearest x2: every pixel becomes a 2x2 block; the transpose sums the block

def upsample_forward(x):
    """y[n,2i+a,2j+b,c] = x[n,i,j,c] for a, b in {0, 1}."""
    check_image("upsample", x)
    n, h, w, c = x.shape
    y = backend.of(x=x).empty((n, h, 2, w, 2, c), x.dtype)
    y[...] = x[:, :, None, :, None, :]
    return y.reshape(n, 2 * h, 2 * w, c), None


def block_sum(y):
    """(n, 2h, 2w, c) -> (n, h, w, c): the sum of every 2x2 block."""
    rows = y[:, 0::2] + y[:, 1::2]                              # whole rows first: long runs of memory
    return rows[:, :, 0::2] + rows[:, :, 1::2]


def upsample_backward(saved, dy):
    """dx = the sum of every 2x2 block of dy."""
    return block_sum(dy)


upsample = Op("upsample", upsample_forward, upsample_backward, tangent_of(upsample_forward), "x[n,h,w,c] -> y[n,p,q,c]")


# ---- the same before a convolution, as U-Nets have it: nothing of the doubled image need be kept

def upsample_conv2d_forward(x, w, b):
    """y = upsample(x) * w + b: x (n,h,w,c), w (k,k,c,d) with k odd, b (d,); y (n,2h,2w,d), k//2 zeros around."""
    return conv2d.forward(upsample_forward(x)[0], w, b)[0], (x, w)


def upsample_conv2d_backward(saved, dy):
    """dx = the sum of every 2x2 block of dy * turned(w); dw and db as conv2d's."""
    x, w = saved
    dx, dw, db = conv2d.backward((upsample_forward(x)[0], w, 1, "same"), dy)
    return block_sum(dx), dw, db


def upsample_conv2d_jvp(saved, xdot, wdot, bdot):
    """ydot = upsample(xdot) * w + upsample(x) * wdot + bdot."""
    x, w = saved
    return conv2d.jvp((upsample_forward(x)[0], w, 1, "same"), upsample_forward(xdot)[0], wdot, bdot)


upsample_conv2d = Op("upsample_conv2d", upsample_conv2d_forward, upsample_conv2d_backward, upsample_conv2d_jvp,
                     "x[n,h,w,c] w[k,k,c,d] b[d] -> y[n,p,q,d]", sizes={"k": (1, 3), "h": (1, 2, 3), "w": (1, 2, 4)})


# ---- 2x average pooling: the mean of every 2x2 block; the transpose is a quarter of the upsampling

def avg_pool_forward(x):
    """y[n,i,j,c] = mean of x[n,2i..2i+1,2j..2j+1,c]; h and w even."""
    check_image("avg_pool", x)
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise wanted("avg_pool", "the image", f"{x.shape[1]}x{x.shape[2]}", "even height and width")
    return 0.25 * block_sum(x), None


def avg_pool_backward(saved, dy):
    """dx = upsample(dy)/4."""
    return upsample_forward(0.25 * dy)[0]


avg_pool = Op("avg_pool", avg_pool_forward, avg_pool_backward, tangent_of(avg_pool_forward), "x[n,h,w,c] -> y[n,p,q,c]",
              sizes={"h": (2, 4, 6), "w": (2, 4)})


# ---- concatenation of channels: y = [a, b]; the transpose splits

def concat_forward(a, b):
    """y[..., :c] = a, y[..., c:] = b."""
    xp = backend.of(a=a, b=b)
    if a.shape[:-1] != b.shape[:-1]:
        raise wanted("concat", "the shapes", f"{a.shape} and {b.shape}", "equal up to the last axis")
    return xp.concatenate([a, b], axis=-1), a.shape[-1]


def concat_backward(c, dy):
    """da = dy[..., :c], db = dy[..., c:]."""
    return dy[..., :c], dy[..., c:]


concat = Op("concat", concat_forward, concat_backward, tangent_of(concat_forward),
            "a[n,h,w,c] b[n,h,w,d] -> y[n,h,w,e]")


# ---- sinusoidal time embedding: [sin | cos] of t f_k, f_k = P^(-k/(half-1)) or P^(-k/half)

def sinusoid_forward(t, width=64, order="sin_cos", denominator="half-1", period=10000.0):
    """y[n] = [sin(t f), cos(t f)], f_k = period^(-k/denominator), k < half = width/2 [ATTN sec. 3.5].

    t (n,) in any unit. DDPM, score SDE and DDIM: order "sin_cos", denominator "half-1"; OpenAI's, DiT
    and latent diffusion: "cos_sin", "half". Frequencies are built in float64.
    """
    xp = backend.of(t=t)
    if t.ndim != 1:
        raise wanted("sinusoid", "the shape of t", t.shape, "(n,)")
    if t.dtype.kind in "iub":
        raise wanted("sinusoid", "the dtype of t", t.dtype, "a floating type, to which the frequencies are rounded")
    half = width // 2
    if width % 2 or half < 2:
        raise wanted("sinusoid", "width", width, "an even number >= 4")
    if order not in ("sin_cos", "cos_sin") or denominator not in ("half-1", "half"):
        raise wanted("sinusoid", "order, denominator", (order, denominator),
                     "'sin_cos' or 'cos_sin', and 'half-1' or 'half'")
    last = half - 1 if denominator == "half-1" else half
    f = xp.exp(-math.log(period) / last * xp.arange(half)).astype(t.real.dtype)         # (half,)
    phase = t[:, None] * f
    sin, cos = xp.sin(phase), xp.cos(phase)
    return xp.concatenate([sin, cos] if order == "sin_cos" else [cos, sin], axis=1), (sin, cos, f, order)


def sinusoid_backward(saved, dy):
    """dt = sum_k f_k (dsin_k cos - dcos_k sin)."""
    sin, cos, f, order = saved
    half = f.shape[0]
    dsin, dcos = (dy[:, :half], dy[:, half:]) if order == "sin_cos" else (dy[:, half:], dy[:, :half])
    return ((dsin * cos - dcos * sin) * f).sum(1)


def sinusoid_jvp(saved, tdot):
    """ydot = [cos(t f) f tdot, -sin(t f) f tdot]."""
    sin, cos, f, order = saved
    phase = tdot[:, None] * f
    parts = [cos * phase, -sin * phase]
    return backend.of(t=tdot).concatenate(parts if order == "sin_cos" else parts[::-1], axis=1)


sinusoid = Op("sinusoid", sinusoid_forward, sinusoid_backward, sinusoid_jvp, "t[n] -> y[n,w]",
              options={"width": (4, 6, 16), "order": ("sin_cos", "cos_sin"), "denominator": ("half-1", "half"),
                       "period": (10000.0, 100.0)})
