"""Softmax and multi-head scaled-dot-product attention."""
import math

from .. import backend
from .op import Op, wanted


# ---- softmax over the last axis: p = e^s / sum e^s;  ds = p (dp - sum dp p)

def softmax_forward(s):
    """p = e^(s - max s)/sum e^(s - max s) over the last axis; the shift changes nothing but the overflow.

    The maximum is taken of the real part: a constant of the derivative, and complex-clean.
    """
    xp = backend.of(s=s)
    p = s - s.real.max(-1, keepdims=True)
    xp.exp(p, out=p)
    p /= p.sum(-1, keepdims=True)
    return p, p


def softmax_backward(p, dp):
    """ds = p (dp - sum dp p)."""
    return p * (dp - (dp * p).sum(-1, keepdims=True))


def softmax_jvp(p, sdot):
    """pdot = p (sdot - sum sdot p): the derivative is symmetric."""
    return p * (sdot - (sdot * p).sum(-1, keepdims=True))


softmax = Op("softmax", softmax_forward, softmax_backward, softmax_jvp, "s[n,t,m] -> p[n,t,m]")


# ---- attention: o = softmax(q k^T / sqrt d) v, per image and head

def heads_first(x):
    """(n, t, a, d) -> (n, a, t, d): the layout in which matmul works per image and head."""
    return x.transpose(0, 2, 1, 3)


def check_attention(q, k, v):
    """Refuse what is no queries, keys and values."""
    backend.of(q=q, k=k, v=v)
    if q.ndim != 4 or q.shape[::2] != k.shape[::2] or q.shape[3] != k.shape[3] or k.shape[:3] != v.shape[:3]:
        raise wanted("attention", "q, k, v", f"{q.shape}, {k.shape}, {v.shape}",
                     "(n, t, heads, d), (n, m, heads, d), (n, m, heads, e)")


def attention_forward(q, k, v):
    """o = softmax(q k^T/sqrt d) v per image and head [ATTN eq. 1].

    q (n,t,a,d), k (n,m,a,d), v (n,m,a,e) with a heads; returns o (n,t,a,e).
    """
    check_attention(q, k, v)
    q, k, v = heads_first(q), heads_first(k), heads_first(v)
    scale = 1 / math.sqrt(q.shape[-1])
    p, _ = softmax_forward((q @ k.swapaxes(2, 3)) * scale)        # (n, a, t, m)
    return heads_first(p @ v), (q, k, v, p, scale)


def attention_backward(saved, do):
    """dv = p^T do;  ds = softmax'(do v^T);  dq = ds k/sqrt d;  dk = ds^T q/sqrt d."""
    q, k, v, p, scale = saved
    do = heads_first(do)                                          # (n, a, t, e)
    dv = p.swapaxes(2, 3) @ do
    ds = softmax_backward(p, do @ v.swapaxes(2, 3)) * scale       # (n, a, t, m)
    dq, dk = ds @ k, ds.swapaxes(2, 3) @ q
    return heads_first(dq), heads_first(dk), heads_first(dv)


def attention_jvp(saved, qdot, kdot, vdot):
    """odot = pdot v + p vdot, pdot = softmax'((qdot k^T + q kdot^T)/sqrt d)."""
    q, k, v, p, scale = saved
    qdot, kdot, vdot = heads_first(qdot), heads_first(kdot), heads_first(vdot)
    pdot = softmax_jvp(p, (qdot @ k.swapaxes(2, 3) + q @ kdot.swapaxes(2, 3)) * scale)
    return heads_first(pdot @ v + p @ vdot)


attention = Op("attention", attention_forward, attention_backward, attention_jvp,
               "q[n,t,a,d] k[n,m,a,d] v[n,m,a,e] -> o[n,t,a,e]", sizes={"a": (1, 2, 3)})
