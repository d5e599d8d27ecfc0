"""Linear maps of the channel axis, and the lookup table."""
from .. import backend
from .op import Op, check_labels, sum_rows, wanted


# ---- linear: y = x w + b over the last axis

def check_linear(x, w, b):
    """ValueError where the channels of x, w and b do not fit."""
    backend.of(x=x, w=w, b=b)
    if w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise wanted("linear", f"the last axis of x {x.shape}", x.shape[-1], f"c of w (c, d) = {w.shape}")
    if b.shape != w.shape[1:]:
        raise wanted("linear", "the shape of b", b.shape, f"{w.shape[1:]}, d of w {w.shape}")


def linear_forward(x, w, b):
    """y[..., d] = sum_c x[..., c] w[c, d] + b[d]."""
    check_linear(x, w, b)
    y = x @ w
    y += b
    return y, (x, w)


def linear_backward(saved, dy):
    """dx = dy w^T;  dw = x^T dy, summed over every axis but the last;  db = sum dy."""
    x, w = saved
    rows = dy.reshape(-1, dy.shape[-1])
    return dy @ w.T, x.reshape(-1, x.shape[-1]).T @ rows, sum_rows(rows)


def linear_jvp(saved, xdot, wdot, bdot):
    """ydot = xdot w + x wdot + bdot."""
    x, w = saved
    return xdot @ w + x @ wdot + bdot


linear = Op("linear", linear_forward, linear_backward, linear_jvp, "x[n,t,c] w[c,d] b[d] -> y[n,t,d]")


# ---- embedding: y[n] = table[labels[n]]

def embedding_forward(table, labels):
    """y[n, c] = table[labels[n], c], labels integers in 0..v-1. Others are refused (a GPU would wrap them)."""
    backend.of(table=table, labels=labels)
    if labels.ndim != 1:
        raise wanted("embedding", "the shape of labels", labels.shape, "(n,)")
    check_labels("embedding", labels, labels.shape, table.shape[0], f"the rows of table {table.shape}")
    return table[labels], (labels, table.shape[0])


def embedding_backward(saved, dy):
    """dtable[v] = sum over n with labels[n] = v of dy[n]: a product with the one-hot matrix."""
    labels, v = saved
    xp = backend.of(labels=labels, dy=dy)
    one_hot = (xp.arange(v)[:, None] == labels[None, :]).astype(dy.dtype)      # (v, n)
    return one_hot @ dy


def embedding_jvp(saved, tabledot):
    """ydot[n] = tabledot[labels[n]]."""
    return tabledot[saved[0]]


embedding = Op("embedding", embedding_forward, embedding_backward, embedding_jvp,
               "table[v,c] labels:index(v)[n] -> y[n,c]")
