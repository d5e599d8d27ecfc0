"""GroupNorm, alone and with the SiLU after it, on the host: the plain formulas, some images at a time.

Three things make them several times faster than whole arrays in a row. Sums over pixels are products with ones. Every
step writes into a buffer (`out=`) of a few images, which stays in the cache. And a factor per channel is repeated
until it is 8192 numbers wide: narrower ones NumPy copies through a buffer of that size, row by row.
"""
import functools

import numpy as np

from .. import group_norm as plain_group_norm
from .. import norm_silu as plain_norm_silu
from ..norm import check_group_norm
from ..norm_silu import affine_backward, check_norm_silu
from .routed import Routed
from .scratch import scratch

BLOCK = 1 << 17             # numbers of the images that are worked on at a time, at least one image
WIDE = 1 << 13              # least width that a factor per channel is repeated to


@functools.lru_cache(256)
def _tiles(n, hw, c):
    """(slices of the batch, pixels per row) for n images of hw pixels and c channels."""
    images = max(1, BLOCK // (hw * c))
    pixels = min(k for k in range(1, hw + 1) if hw % k == 0 and (k == hw or k * c >= WIDE))
    return [slice(i, i + images) for i in range(0, n, images)], pixels


@functools.lru_cache(64)
def _ones(hw, dtype):
    return np.ones((1, hw), dtype)


@functools.lru_cache(64)
def _members(c, groups, dtype):
    """(c, groups): 1 where the channel is one of the group."""
    return np.repeat(np.eye(groups, dtype=dtype), c // groups, axis=0)


def _sum_pixels(rows, c):
    """(m, r, k c) -> (m, 1, c)."""
    rows = rows.reshape(len(rows), -1, c)
    return _ones(rows.shape[1], rows.dtype) @ rows


def _group_mean(sums, groups, hw):
    """Sums over pixels (m, 1, c) -> means over pixels and the channels of a group, given back per channel."""
    m, _, c = sums.shape
    members = _members(c, groups, sums.dtype)
    means = sums.reshape(m, c) @ members / (hw * (c // groups)) @ members.T
    return means.reshape(m, 1, c)


def _wide(a, pixels):
    """(m, 1, c) -> (m, 1, pixels c): the factors of a row of pixels."""
    m, _, c = a.shape
    return np.repeat(a, pixels, axis=1).reshape(m, 1, pixels * c)


def _centred(x, e, groups, pixels, eps, out, work):
    """centre and 1/s (m, 1, c) of x (m, r, k c) + e; x - centre goes into out."""
    c, hw = x.shape[2] // pixels, x.shape[1] * pixels
    centre = _group_mean(_sum_pixels(x, c) + hw * e, groups, hw) - e
    np.subtract(x, _wide(centre, pixels), out=out)
    var = _group_mean(_sum_pixels(np.multiply(out, out, out=work), c), groups, hw)
    return centre, 1 / np.sqrt(var + eps)


def group_norm_forward(x, gamma, beta, groups=32, eps=1e-6):
    """As the plain one."""
    check_group_norm(x, gamma, beta, groups)
    n, h, w, c = x.shape
    blocks, pixels = _tiles(n, h * w, c)
    x = np.ascontiguousarray(x).reshape(n, h * w // pixels, pixels * c)
    y, xhat, rs = np.empty_like(x), np.empty_like(x), np.empty((n, 1, c), x.dtype)
    a, b = _wide(gamma[None, None], pixels), _wide(beta[None, None], pixels)
    for block in blocks:
        u, z = xhat[block], y[block]
        _, rs[block] = _centred(x[block], 0, groups, pixels, eps, u, z)
        u *= _wide(rs[block], pixels)
        np.multiply(u, a, out=z)
        z += b
    return y.reshape(n, h, w, c), (xhat.reshape(n, h * w, c), rs, gamma, groups)


def group_norm_backward(saved, dy):
    """As the plain one, with the terms of dx collected: dx = A dy + B xhat + C."""
    xhat, rs, gamma, groups = saved
    n, hw, c = xhat.shape
    blocks, pixels = _tiles(n, hw, c)
    xhat, dys = (np.ascontiguousarray(a).reshape(n, hw // pixels, pixels * c) for a in (xhat, dy))
    dx = np.empty_like(dys)
    dgamma, dbeta = np.empty((2, n, 1, c), dy.dtype)
    for block in blocks:
        u, d = xhat[block], dx[block]
        dbeta[block] = _sum_pixels(dys[block], c)
        dgamma[block] = _sum_pixels(np.multiply(dys[block], u, out=d), c)
        A = gamma * rs[block]
        B, C = (-rs[block] * _group_mean(gamma * sums[block], groups, hw) for sums in (dgamma, dbeta))
        np.multiply(dys[block], _wide(A, pixels), out=d)
        d += np.multiply(u, _wide(B, pixels), out=scratch("norm t", d.shape, d.dtype))
        d += _wide(C, pixels)
    return dx.reshape(dy.shape), dgamma.sum((0, 1)), dbeta.sum((0, 1))


def norm_silu_forward(x, e, gamma, beta, scale, shift, groups=32, eps=1e-6):
    """As the plain one."""
    check_norm_silu(x, e, gamma, beta, scale, shift, groups)
    n, h, w, c = x.shape
    hw = h * w
    blocks, pixels = _tiles(n, hw, c)
    x = np.ascontiguousarray(x).reshape(n, hw // pixels, pixels * c)
    y, slope = np.empty_like(x), np.empty_like(x)
    e, gain = e[:, None], 0.5 + 0.5 * scale[:, None]                            # (n, 1, c)
    factor, offset = gamma * gain, beta * gain + 0.5 * shift[:, None]           # v = factor xhat + offset
    centre, rs = np.empty((2, n, 1, c), x.dtype)
    for block in blocks:
        v, t = (scratch(name, x[block].shape, x.dtype) for name in ("norm v", "norm t"))
        centre[block], rs[block] = _centred(x[block], e[block], groups, pixels, eps, v, t)
        v *= _wide(factor[block] * rs[block], pixels)
        v += _wide(offset[block], pixels)
        np.tanh(v, out=t)
        t += 1
        np.multiply(v, t, out=y[block])
        d = np.subtract(2, t, out=slope[block])
        d *= y[block]
        d += t
    return y.reshape(n, h, w, c), (x.reshape(n, hw, c), centre, rs, gamma, beta, gain, slope.reshape(n, hw, c), groups)


def norm_silu_backward(saved, dy):
    """As the plain one, with the terms of dx collected: dx = A dv + B (x - centre) + C."""
    x, centre, rs, gamma, beta, gain, slope, groups = saved
    n, hw, c = x.shape
    blocks, pixels = _tiles(n, hw, c)
    x, slope, dys = (np.ascontiguousarray(a).reshape(n, hw // pixels, pixels * c) for a in (x, slope, dy))
    dx = np.empty_like(dys)
    de, dv_xhat, dv_sum = np.empty((3, n, 1, c), dy.dtype)
    A = gamma * gain * rs
    for block in blocks:
        dv, u = (scratch(name, x[block].shape, dy.dtype) for name in ("norm t", "norm v"))
        d = dx[block]
        np.multiply(dys[block], slope[block], out=dv)
        np.subtract(x[block], _wide(centre[block], pixels), out=u)
        dv_sum[block] = _sum_pixels(dv, c)
        dv_xhat[block] = _sum_pixels(np.multiply(dv, u, out=d), c) * rs[block]
        B = -rs[block] * _group_mean(A[block] * dv_xhat[block], groups, hw)
        C = -_group_mean(A[block] * dv_sum[block], groups, hw)
        np.multiply(dv, _wide(A[block], pixels), out=d)
        u *= _wide(B, pixels)
        u += _wide(C, pixels)
        d += u
        de[block] = _sum_pixels(d, c)
    return dx.reshape(dy.shape), de[:, 0], *affine_backward(gamma, beta, gain, dv_xhat[:, 0], dv_sum[:, 0])


group_norm = Routed(plain_group_norm, host=(group_norm_forward, group_norm_backward))
norm_silu = Routed(plain_norm_silu, host=(norm_silu_forward, norm_silu_backward))
