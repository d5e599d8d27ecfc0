"""Every operation of a network and of a loss as a formula of tape.py's operations: no backward is written here.

Arguments are Vars, channels-last; labels and other integers are arrays. Settings of an operation on which papers differ
(`order`, `eps`, ..) are arguments; `settings` replaces them by what a convention says.
"""
import numpy as np

from .tape import (Var, by_mpmath, concat, constant, context, evaluate, exp, expm1, gradients, leaf, log, matmul, ncdf,
                   pad, sqrt, tanh)


# ---- linear maps

def linear(x, w, b):
    """y = x w + b over the last axis."""
    *rows, c = x.shape
    return matmul(x.reshape(-1, c), w).reshape(*rows, w.shape[1]) + b


def conv2d(x, w, b, stride=1, padding=(1, 1)):
    """y[p, q] = sum_ij x[s p + i, s q + j] w[i, j] + b, with `padding` = (before, after) zeros on both image axes."""
    k, _, c, d = w.shape
    x = pad(x, *(int(p) for p in padding))
    n, height, width, _ = x.shape
    p, q = (height - k) // stride + 1, (width - k) // stride + 1
    y = None
    for i in range(k):
        for j in range(k):
            part = x[:, i:i + stride * (p - 1) + 1:stride, j:j + stride * (q - 1) + 1:stride]
            term = matmul(part.reshape(n * p * q, c), w[i, j])
            y = term if y is None else y + term
    return y.reshape(n, p, q, d) + b


def embedding(table, labels):
    """The rows of a table."""
    return table[np.asarray(labels, dtype=np.int64)]


# ---- entry by entry

def silu(x):
    """y = x/(1 + e^-x)."""
    return x / (1 + exp(-x))


def gelu(x, form="exact"):
    """y = x Phi(x); form "tanh": x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))/2."""
    if form == "tanh":
        root = constant(lambda mp: mp.sqrt(2 / mp.pi), x.kind)
        cubic = constant(lambda mp: mp.mpf("0.044715"), x.kind)
        return x * (1 + tanh(root * (x + cubic * x * x * x))) * 0.5
    return x * ncdf(x)


def add(a, b, scale=1.0):
    """y = scale (a + b)."""
    return scale * (a + b)


def dropout(x, mask):
    """y = x mask."""
    return x * mask


def shift(x, shift):
    """y = x + shift, per image and channel."""
    return x + shift.reshape(shift.shape[0], 1, 1, -1)


def scale_shift(x, scale, shift):
    """y = x (1 + scale) + shift, per image and channel."""
    return x * (1 + scale.reshape(scale.shape[0], 1, 1, -1)) + shift.reshape(shift.shape[0], 1, 1, -1)


# ---- normalisation

def _normalised(x, axes, eps):
    centred = x - x.mean(axes)
    return centred / sqrt((centred * centred).mean(axes) + eps)


def group_norm(x, gamma, beta, groups, eps):
    """y = gamma (x - mu)/sqrt(var + eps) + beta, over the pixels and channels of a group."""
    n, h, w, c = x.shape
    groups = min(int(groups), c)
    return _normalised(x.reshape(n, h * w, groups, c // groups), (1, 3), eps).reshape(n, h, w, c) * gamma + beta


def layer_norm(x, gamma, beta, eps):
    """The same over the last axis."""
    return _normalised(x, (x.value.ndim - 1,), eps) * gamma + beta


# ---- attention

def softmax(s):
    """p = e^s/sum e^s over the last axis; the greatest entry is taken off first, as a constant."""
    e = exp(s - leaf(s.value.max(-1, keepdims=True), s.kind))
    return e / e.sum((s.value.ndim - 1,))


def attention(q, k, v, scale="1/sqrt(d)"):
    """o = softmax(scale q k^T) v per image and head; q, k, v (n, tokens, heads, d)."""
    q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, k, v))
    d = q.shape[-1]
    power = {"1/sqrt(d)": 0.5, "1/d": 1, "none": 0}[scale]
    factor = constant(lambda mp: mp.mpf(d) ** -power, q.kind)
    return matmul(softmax(factor * matmul(q, k.transpose(0, 1, 3, 2))), v).transpose(0, 2, 1, 3)


# ---- sizes, channels, time

def upsample(x, form="nearest"):
    """Every pixel becomes 2x2; form "bilinear": weights 3/4 and 1/4 of the nearest two, edges repeated."""
    for _ in range(2):                                      # columns, then rows
        n, h, w, c = x.shape
        if form == "nearest":
            y = concat([x, x]).reshape(n, h, 2 * w, c)
        else:
            at = np.arange(w)
            columns = x.transpose(2, 0, 1, 3)
            left, right = (columns[np.clip(at + by, 0, w - 1)].transpose(1, 2, 0, 3) for by in (-1, 1))
            y = concat([0.75 * x + 0.25 * left, 0.75 * x + 0.25 * right]).reshape(n, h, 2 * w, c)
        x = y.transpose(0, 2, 1, 3)
    return x


def avg_pool(x):
    """The mean of every 2x2 block."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)).reshape(n, h // 2, w // 2, c)


def joined(a, b):
    """The channels of a, then those of b."""
    return concat([a, b])


def sinusoid(t, width, order="sin_cos", denominator="half-1", period=10000.0):
    """[sin t f, cos t f], f_k = period^(-k/(half - 1)) or, for denominator "half", period^(-k/half)."""
    half = width // 2
    last = half - 1 if denominator == "half-1" else half
    if t.kind == "exact":                                   # the phase, too: t f is large
        def wave(time, k):
            mp = context()
            f = mp.power(mp.mpf(period), -k / last)
            return mp.sin(time * f), mp.cos(time * f), f
        times, ks = np.broadcast_arrays(t.value[:, None], np.arange(half, dtype=np.longdouble))
        sin, cos, f = by_mpmath(wave, times, ks)
    else:
        f = np.power(t.value.dtype.type(period), -np.arange(half, dtype=t.value.dtype) / last)
        sin, cos = evaluate("sin", t.value[:, None] * f, t.kind), evaluate("cos", t.value[:, None] * f, t.kind)
    s = Var(sin, t.kind, ((t, lambda d: (d * cos * f).sum(1)),))
    c = Var(cos, t.kind, ((t, lambda d: -(d * sin * f).sum(1)),))
    return concat([s, c] if order == "sin_cos" else [c, s])


# ---- losses

def _row_sums(x):
    return x.sum(tuple(range(1, x.value.ndim))).reshape(-1)


def _row_mean(x):
    """The mean over the rows, a number."""
    return x.mean((0,)).reshape()


def mse(pred, target, weight):
    """mean_n w_n mean_i (pred - target)^2."""
    r = pred - target
    return _row_mean(weight * _row_sums(r * r) / float(np.prod(r.shape[1:])))


def pseudo_huber(pred, target, weight, c=0.03):
    """mean_n w_n (sqrt(|r_n|^2 + c^2) - c)."""
    r, c = pred - target, leaf(c, pred.kind)
    square = _row_sums(r * r)
    return _row_mean(weight * square / (sqrt(square + c * c) + c))


def cross_entropy(s, labels):
    """mean_n (log sum_k e^s_nk - s_n,label)."""
    n, v = s.shape
    picked = s.reshape(n * v)[np.arange(n) * v + np.asarray(labels, dtype=np.int64)]
    return _row_mean(log(exp(s).sum((1,))).reshape(n) - picked)


def gaussian_kl(mean, log_var, q_mean, q_log_var):
    """KL(N(q_mean, e^q_log_var) || N(mean, e^log_var)), entry by entry."""
    d, r = q_log_var - log_var, mean - q_mean
    return 0.5 * (expm1(d) - d + r * r * exp(-log_var))


def binned_normal(mean, log_var, x, cdf="exact", levels=256):
    """-log of the probability of the bin of x, one of `levels` grey levels in -1..1, the outer two open outwards."""
    half = 1 / context().mpf(levels - 1)

    def bin_of(mean, log_var, x):
        mp = context()
        std = mp.exp(log_var / 2)
        root, cubic = mp.sqrt(2 / mp.pi), mp.mpf("0.044715")

        def F(z):
            return mp.ncdf(z) if cdf == "exact" else (1 + mp.tanh(root * (z + cubic * z ** 3))) / 2

        def f(z):
            return mp.npdf(z) if cdf == "exact" else (
                root * (1 + 3 * cubic * z ** 2) / (2 * mp.cosh(root * (z + cubic * z ** 3)) ** 2))

        with mp.workdps(80):                                # a difference of two numbers near 1
            b, a = (x + half - mean) / std, (x - half - mean) / std
            inner_b, inner_a = x < 1 - half, x > half - 1
            P = (F(b) if inner_b else 1) - (F(a) if inner_a else 0)
            at_b, at_a = f(b) * inner_b / P, f(a) * inner_a / P
            return -mp.log(P), (at_b - at_a) / std, (at_b * b - at_a * a) / 2

    y, dmean, dlog_var = (part.astype(mean.value.dtype) for part in
                          by_mpmath(bin_of, mean.value, log_var.value, x.value))
    return Var(y, mean.kind, ((mean, lambda d: d * dmean), (log_var, lambda d: d * dlog_var)))


# ---- by name: the function, its inputs with a gradient, its other arrays

OPS = {
    "add": (add, ("a", "b"), ()),
    "attention": (attention, ("q", "k", "v"), ()),
    "avg_pool": (avg_pool, ("x",), ()),
    "binned_normal": (binned_normal, ("mean", "log_var"), ("x",)),
    "concat": (joined, ("a", "b"), ()),
    "conv2d": (conv2d, ("x", "w", "b"), ()),
    "cross_entropy": (cross_entropy, ("s",), ()),
    "dropout": (dropout, ("x",), ("mask",)),
    "embedding": (embedding, ("table",), ()),
    "gaussian_kl": (gaussian_kl, ("mean", "log_var"), ("q_mean", "q_log_var")),
    "gelu": (gelu, ("x",), ()),
    "gelu_tanh": (lambda x: gelu(x, "tanh"), ("x",), ()),
    "group_norm": (group_norm, ("x", "gamma", "beta"), ()),
    "layer_norm": (layer_norm, ("x", "gamma", "beta"), ()),
    "linear": (linear, ("x", "w", "b"), ()),
    "mse": (mse, ("pred", "target"), ("weight",)),
    "pseudo_huber": (pseudo_huber, ("pred", "target"), ("weight",)),
    "scale_shift": (scale_shift, ("x", "scale", "shift"), ()),
    "shift": (shift, ("x", "shift"), ()),
    "silu": (silu, ("x",), ()),
    "sinusoid": (sinusoid, ("t",), ()),
    "softmax": (softmax, ("s",), ()),
    "upsample": (upsample, ("x",), ()),
}


def op(name, inputs, kind):
    """{"y": .., "d<input>": ..} of an operation for the cotangent inputs["dy"]."""
    function, real, others = OPS[name]
    given = {key: leaf(value, kind) if key in real + others else value for key, value in inputs.items() if key != "dy"}
    y = function(**given)
    if y.shape != np.shape(inputs["dy"]):
        raise ValueError(f"{name}: y is {y.shape} and dy {np.shape(inputs['dy'])}, wanted one shape")
    found = gradients(y, leaf(inputs["dy"], kind).value, [given[key] for key in real])
    return {"y": y.value, **{f"d{key}": d for key, d in zip(real, found)}}
