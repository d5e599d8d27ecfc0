"""Elementwise maps: SiLU, residual add, dropout with a given mask, shift, scale-shift.

Every forward is complex-clean: it is analytic in its inputs, so that Im f(x + ih v)/h is its exact
derivative and judges the two written beside it.
"""
import math

from .. import backend
from .op import Op, sum_pixels, tangent_of, wanted


def sigmoid(x):
    """sigma(x) = 1/(1 + e^-x), written as (1 + tanh(x/2))/2, which no x overflows."""
    y = backend.of(x=x).tanh(0.5 * x)
    y += 1
    y *= 0.5
    return y


# ---- SiLU: y = x sigma(x);  y' = sigma + x sigma (1 - sigma) = sigma + y (1 - sigma)

def silu_forward(x):
    """y = x sigma(x), any shape [GELU sec. 2; there SiLU]."""
    s = sigmoid(x)
    return x * s, (x, s)


def silu_slope(saved):
    """y' = sigma (1 + x (1 - sigma))."""
    x, s = saved
    slope = 1 - s
    slope *= x
    slope += 1
    slope *= s
    return slope


def silu_backward(saved, dy):
    """dx = y' dy."""
    return silu_slope(saved) * dy


def silu_jvp(saved, xdot):
    """ydot = y' xdot."""
    return silu_slope(saved) * xdot


silu = Op("silu", silu_forward, silu_backward, silu_jvp, "x[n,h,c] -> y[n,h,c]")


# ---- residual add: y = scale (a + b);  both cotangents are scale dy

def add_forward(a, b, scale=1.0):
    """y = scale (a + b); scale = sqrt(1/2) keeps the variance of two independent branches."""
    backend.of(a=a, b=b)
    if a.shape != b.shape:
        raise wanted("add", "the shape of b", b.shape, f"{a.shape}, that of a")
    return (a + b if scale == 1.0 else scale * (a + b)), scale


def add_backward(scale, dy):
    """da = db = scale dy."""
    d = dy if scale == 1.0 else scale * dy
    return d, d


def add_jvp(scale, adot, bdot):
    """ydot = scale (adot + bdot)."""
    return scale * (adot + bdot)


add = Op("add", add_forward, add_backward, add_jvp, "a[n,h,w,c] b[n,h,w,c] -> y[n,h,w,c]",
         options={"scale": (1.0, math.sqrt(0.5))})


# ---- dropout with a given mask: the mask holds 0 or 1/(1-p), so the expectation is kept

def dropout_forward(x, mask):
    """y = x mask. The mask is an argument (0 where dropped, 1/(1-p) elsewhere); no op draws numbers."""
    backend.of(x=x, mask=mask)
    if mask.shape != x.shape:
        raise wanted("dropout", "the shape of mask", mask.shape, f"{x.shape}, that of x")
    return x * mask, mask


def dropout_backward(mask, dy):
    """dx = dy mask, and ydot = xdot mask."""
    return dy * mask


dropout = Op("dropout", dropout_forward, dropout_backward, dropout_backward,         # its own transpose
             "x[n,h,w,c] mask:constant[n,h,w,c] -> y[n,h,w,c]")


# ---- shift: y = x + shift, per image and channel (the DDPM's way of adding time)

def shift_forward(x, shift):
    """y[n,h,w,c] = x[n,h,w,c] + shift[n,c]."""
    backend.of(x=x, shift=shift)
    if shift.shape != (x.shape[0], x.shape[-1]):
        raise wanted("shift", "the shape of shift", shift.shape, f"{(x.shape[0], x.shape[-1])}, (n, c) of x")
    return x + shift[:, None, None, :], None


def shift_backward(saved, dy):
    """dx = dy;  dshift = sum_hw dy."""
    return dy, sum_pixels(dy)


shift = Op("shift", shift_forward, shift_backward, tangent_of(shift_forward), "x[n,h,w,c] shift[n,c] -> y[n,h,w,c]")


# ---- scale-shift (FiLM): y = x (1 + scale) + shift, scale and shift per image and channel

def scale_shift_forward(x, scale, shift):
    """y[n,h,w,c] = x[n,h,w,c] (1 + scale[n,c]) + shift[n,c]."""
    backend.of(x=x, scale=scale, shift=shift)
    for name, a in (("scale", scale), ("shift", shift)):
        if a.shape != (x.shape[0], x.shape[-1]):
            raise wanted("scale_shift", f"the shape of {name}", a.shape, f"{(x.shape[0], x.shape[-1])}, (n, c) of x")
    gain = 1 + scale[:, None, None, :]
    return x * gain + shift[:, None, None, :], (x, gain)


def scale_shift_backward(saved, dy):
    """dx = dy (1 + scale);  dscale = sum_hw dy x;  dshift = sum_hw dy."""
    x, gain = saved
    return dy * gain, sum_pixels(dy * x), sum_pixels(dy)


def scale_shift_jvp(saved, xdot, scaledot, shiftdot):
    """ydot = xdot (1 + scale) + x scaledot + shiftdot."""
    x, gain = saved
    return xdot * gain + x * scaledot[:, None, None, :] + shiftdot[:, None, None, :]


scale_shift = Op("scale_shift", scale_shift_forward, scale_shift_backward, scale_shift_jvp,
                 "x[n,h,w,c] scale[n,c] shift[n,c] -> y[n,h,w,c]")
