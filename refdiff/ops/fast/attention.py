"""Attention on the host: the plain products and softmax, some images at a time, whose scores stay in the cache."""
import math

import numpy as np

from .. import attention as plain
from ..attention import check_attention, heads_first
from .blocks import evenly
from .routed import Routed
from .scratch import scratch

SCORES = 1 << 16            # scores of a block of images
SHORT = 64                  # keys up to which the largest score of a row is found in many rows at once


def _blocks(q, k):
    """Slices of the batch."""
    n, t, heads, _ = q.shape
    return evenly(n, max(1, SCORES // max(1, heads * t * k.shape[1])))


def attention_forward(q, k, v):
    """As the plain one; 1/sqrt d is a factor of q, smaller than the scores."""
    check_attention(q, k, v)
    (n, t, heads, d), m = q.shape, k.shape[1]
    scale = 1 / math.sqrt(d)
    p, o = np.empty((n, heads, t, m), q.dtype), np.empty((n, t, heads, v.shape[3]), q.dtype)
    blocks, ones = _blocks(q, k), np.ones((m, 1), q.dtype)
    q, k, v, o = heads_first(q), heads_first(k), heads_first(v), heads_first(o)
    for block in blocks:
        s = np.matmul(q[block] * scale, k[block].swapaxes(2, 3), out=p[block])
        s -= row_max(s)
        np.exp(s, out=s)
        s *= 1 / (s @ ones)
        np.matmul(s, v[block], out=o[block])
    return heads_first(o), (q, k, v, p, scale)


def row_max(s):
    """(.., m) -> (.., 1), contiguous s: NumPy takes one row after the other, which costs 50 ns each, however short."""
    m = s.shape[-1]
    if m > SHORT:
        return s.max(-1, keepdims=True)
    return np.ascontiguousarray(s.reshape(-1, m).T).max(0).reshape(*s.shape[:-1], 1)


def attention_backward(saved, do):
    """As the plain one."""
    q, k, v, p, scale = saved
    blocks, ones = _blocks(heads_first(q), heads_first(k)), np.ones((k.shape[2], 1), do.dtype)
    do = heads_first(do)
    dq, dk, dv = (heads_first(np.empty(heads_first(a).shape, do.dtype)) for a in (q, k, v))
    for block in blocks:
        weights = p[block]
        np.matmul(weights.swapaxes(2, 3), do[block], out=dv[block])
        ds, work = (scratch(name, weights.shape, do.dtype) for name in ("attention ds", "attention work"))
        np.matmul(do[block], v[block].swapaxes(2, 3), out=ds)
        ds -= np.multiply(ds, weights, out=work) @ ones                       # ds = p (dp - sum dp p)
        ds *= weights
        np.matmul(ds, k[block], out=dq[block])
        np.matmul(ds.swapaxes(2, 3), q[block], out=dk[block])
    dq *= scale
    dk *= scale
    return heads_first(dq), heads_first(dk), heads_first(dv)


attention = Routed(plain, host=(attention_forward, attention_backward))
