"""The ops once more, as slow loops over scalars, straight from the definitions.

Nothing here is shared with refdiff/ops: sums are `math.fsum` (correctly rounded), transcendental
functions are mpmath's at 40 digits, arrays are only boxes for numbers. `ORACLES[name](*inputs,
**options)` returns y.
"""
import itertools
import math

import mpmath
import numpy as np

mpmath.mp.dps = 40
ORACLES = {}


def oracle(function):
    ORACLES[function.__name__] = function
    return function


def each(*sizes):
    """Every index of an array of these sizes."""
    return itertools.product(*(range(s) for s in sizes))


def entrywise(function, x):
    y = np.empty(x.shape)
    for i in each(*x.shape):
        y[i] = function(mpmath.mpf(float(x[i])))
    return y


@oracle
def silu(x):
    return entrywise(lambda v: v / (1 + mpmath.exp(-v)), x)


@oracle
def gelu(x):
    return entrywise(lambda v: v * mpmath.ncdf(v), x)


@oracle
def gelu_tanh(x):
    c = mpmath.sqrt(2 / mpmath.pi)
    return entrywise(lambda v: v / 2 * (1 + mpmath.tanh(c * (v + mpmath.mpf("0.044715") * v**3))), x)


@oracle
def add(a, b, scale=1.0):
    y = np.empty(a.shape)
    for i in each(*a.shape):
        y[i] = scale * math.fsum((a[i], b[i]))
    return y


@oracle
def dropout(x, mask):
    y = np.empty(x.shape)
    for i in each(*x.shape):
        y[i] = float(x[i]) * float(mask[i])
    return y


@oracle
def scale_shift(x, scale, shift):
    y = np.empty(x.shape)
    for n, h, w, c in each(*x.shape):
        y[n, h, w, c] = math.fsum((x[n, h, w, c], x[n, h, w, c] * scale[n, c], shift[n, c]))
    return y


@oracle
def shift(x, b):
    y = np.empty(x.shape)
    for n, h, w, c in each(*x.shape):
        y[n, h, w, c] = math.fsum((x[n, h, w, c], b[n, c]))
    return y


@oracle
def linear(x, w, b):
    y = np.empty(x.shape[:-1] + (w.shape[1],))
    for *i, d in each(*y.shape):
        y[(*i, d)] = math.fsum([x[(*i, c)] * w[c, d] for c in range(w.shape[0])] + [b[d]])
    return y


@oracle
def embedding(table, labels):
    y = np.empty((len(labels), table.shape[1]))
    for n, c in each(*y.shape):
        y[n, c] = table[int(labels[n]), c]
    return y


@oracle
def conv2d(x, w, b, stride=1, pad="same"):
    n_rows, height, width, c_in = x.shape
    k, _, _, c_out = w.shape
    before, after = {"same": (k // 2, k // 2), "ddpm": (0, k // 2)}[pad]
    tops = range(-before, height + after - k + 1, stride)          # the image row under the kernel's first row
    lefts = range(-before, width + after - k + 1, stride)
    y = np.empty((n_rows, len(tops), len(lefts), c_out))
    for n, p, q, d in each(*y.shape):
        terms = [b[d]]
        for i, j in each(k, k):
            r, s = tops[p] + i, lefts[q] + j
            if 0 <= r < height and 0 <= s < width:
                terms += [x[n, r, s, c] * w[i, j, c, d] for c in range(c_in)]
        y[n, p, q, d] = math.fsum(terms)
    return y


def normalised(values, eps):
    """(v - mu)/sqrt(var + eps) of a list of floats, var the biased variance, as mpmath numbers."""
    values = [mpmath.mpf(v) for v in values]
    mu = mpmath.fsum(values) / len(values)
    var = mpmath.fsum((v - mu)**2 for v in values) / len(values)
    return [(v - mu) / mpmath.sqrt(var + mpmath.mpf(eps)) for v in values]


@oracle
def group_norm(x, gamma, beta, groups=32, eps=1e-6):
    n_rows, height, width, channels = x.shape
    width_of_group = channels // groups
    y = np.empty(x.shape)
    for n, g in each(n_rows, groups):
        members = [(n, h, w, g * width_of_group + c) for h, w, c in each(height, width, width_of_group)]
        for i, v in zip(members, normalised([x[i] for i in members], eps)):
            y[i] = v * float(gamma[i[3]]) + float(beta[i[3]])
    return y


@oracle
def norm_silu(x, e, gamma, beta, scale, shift, groups=32, eps=1e-6):
    n_rows, height, width, channels = x.shape
    width_of_group = channels // groups
    y = np.empty(x.shape)
    for n, g in each(n_rows, groups):
        members = [(n, h, w, g * width_of_group + c) for h, w, c in each(height, width, width_of_group)]
        for i, v in zip(members, normalised([mpmath.mpf(float(x[i])) + float(e[n, i[3]]) for i in members], eps)):
            z = (v * float(gamma[i[3]]) + float(beta[i[3]])) * (1 + mpmath.mpf(float(scale[n, i[3]])))
            z += float(shift[n, i[3]])
            y[i] = z / (1 + mpmath.exp(-z))
    return y


@oracle
def layer_norm(x, gamma, beta, eps=1e-5):
    y = np.empty(x.shape)
    for n, t in each(*x.shape[:2]):
        for c, v in enumerate(normalised(x[n, t], eps)):
            y[n, t, c] = v * float(gamma[c]) + float(beta[c])
    return y


def probabilities(scores):
    exps = [mpmath.exp(mpmath.mpf(s)) for s in scores]
    return [e / mpmath.fsum(exps) for e in exps]


@oracle
def softmax(s):
    p = np.empty(s.shape)
    for *i, in each(*s.shape[:-1]):
        for j, value in enumerate(probabilities([float(v) for v in s[tuple(i)]])):
            p[(*i, j)] = value
    return p


@oracle
def attention(q, k, v):
    n_rows, n_queries, heads, d = q.shape
    n_keys, e = v.shape[1], v.shape[3]
    o = np.empty((n_rows, n_queries, heads, e))
    for n, t, a in each(n_rows, n_queries, heads):
        scores = [mpmath.fsum(mpmath.mpf(float(q[n, t, a, i])) * float(k[n, m, a, i]) for i in range(d))
                  / mpmath.sqrt(d) for m in range(n_keys)]
        p = probabilities(scores)
        for j in range(e):
            o[n, t, a, j] = mpmath.fsum(p[m] * float(v[n, m, a, j]) for m in range(n_keys))
    return o


@oracle
def upsample(x):
    n_rows, height, width, channels = x.shape
    y = np.empty((n_rows, 2 * height, 2 * width, channels))
    for n, i, j, c in each(*y.shape):
        y[n, i, j, c] = x[n, i // 2, j // 2, c]
    return y


@oracle
def upsample_conv2d(x, w, b):
    n_rows, height, width, c_in = x.shape
    k, _, _, c_out = w.shape
    y = np.empty((n_rows, 2 * height, 2 * width, c_out))
    for n, p, q, d in each(*y.shape):
        terms = [b[d]]
        for i, j in each(k, k):
            r, s = p + i - k // 2, q + j - k // 2                  # of the doubled image
            if 0 <= r < 2 * height and 0 <= s < 2 * width:
                terms += [x[n, r // 2, s // 2, c] * w[i, j, c, d] for c in range(c_in)]
        y[n, p, q, d] = math.fsum(terms)
    return y


@oracle
def avg_pool(x):
    n_rows, height, width, channels = x.shape
    y = np.empty((n_rows, height // 2, width // 2, channels))
    for n, i, j, c in each(*y.shape):
        y[n, i, j, c] = math.fsum(x[n, r, s, c] for r in (2 * i, 2 * i + 1) for s in (2 * j, 2 * j + 1)) / 4
    return y


@oracle
def concat(a, b):
    y = np.empty(a.shape[:-1] + (a.shape[-1] + b.shape[-1],))
    for *i, c in each(*y.shape):
        y[(*i, c)] = a[(*i, c)] if c < a.shape[-1] else b[(*i, c - a.shape[-1])]
    return y


@oracle
def sinusoid(t, width=64, order="sin_cos", denominator="half-1", period=10000.0):
    half = width // 2
    last = {"half-1": half - 1, "half": half}[denominator]
    y = np.empty((len(t), width))
    for n, i in each(*y.shape):
        phase = float(t[n]) * mpmath.power(period, -mpmath.mpf(i % half) / last)
        first = i < half
        y[n, i] = mpmath.sin(phase) if first == (order == "sin_cos") else mpmath.cos(phase)
    return y


@oracle
def mse(pred, target, weight):
    rows = []
    for n in range(len(weight)):
        entries = list(each(*pred.shape[1:]))
        rows.append(mpmath.mpf(float(weight[n]))
                    * mpmath.fsum((mpmath.mpf(float(pred[(n, *i)])) - float(target[(n, *i)]))**2 for i in entries)
                    / len(entries))
    return np.float64(mpmath.fsum(rows) / len(rows))


@oracle
def pseudo_huber(pred, target, weight, c=0.03):
    rows = []
    for n in range(len(weight)):
        square = mpmath.fsum((mpmath.mpf(float(pred[(n, *i)])) - float(target[(n, *i)]))**2
                             for i in each(*pred.shape[1:]))
        rows.append(mpmath.mpf(float(weight[n])) * (mpmath.sqrt(square + mpmath.mpf(c)**2) - mpmath.mpf(c)))
    return np.float64(mpmath.fsum(rows) / len(rows))


@oracle
def cross_entropy(s, labels):
    rows = [-mpmath.log(probabilities([float(v) for v in s[n]])[int(labels[n])]) for n in range(len(labels))]
    return np.float64(mpmath.fsum(rows) / len(rows))


@oracle
def gaussian_kl(mean, log_var, q_mean, q_log_var):
    """The integral of q log(q/p), whose logarithm is quadratic: moments of q, no form with d."""
    y = np.empty(mean.shape)
    for i in each(*mean.shape):
        m, s, a, b = (mpmath.mpf(float(v[i])) for v in (mean, log_var, q_mean, q_log_var))
        cross = (s + (mpmath.exp(b) + (a - m)**2) / mpmath.exp(s)) / 2       # -E_q log p, without log(2 pi)/2
        y[i] = cross - (b + 1) / 2
    return y


def tanh_cdf(z):
    """(1 + tanh u)/2, u = sqrt(2/pi) (z + .044715 z^3), as 1/(1 + e^-2u): small, not 0, for any z < 0."""
    return 1 / (1 + mpmath.exp(-2 * mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3)))


@oracle
def binned_normal(mean, log_var, x, cdf="exact", levels=256):
    y = np.empty(mean.shape)
    F = {"exact": mpmath.ncdf, "tanh": tanh_cdf}[cdf]
    for i in each(*mean.shape):
        with mpmath.workdps(60):
            m, std = mpmath.mpf(float(mean[i])), mpmath.exp(mpmath.mpf(float(log_var[i])) / 2)
            centre = mpmath.mpf(float(x[i]))
            low, high = ((centre + k * mpmath.mpf(1) / (levels - 1) - m) / std for k in (-1, 1))
            if centre > 1 - 1 / (levels - 1):                                # 1 - F(low) = F(-low)
                p = F(-low)
            elif centre < 1 / (levels - 1) - 1:
                p = F(high)
            else:
                p = F(high) - F(low) if low + high < 0 else F(-low) - F(-high)
            y[i] = -mpmath.log(p)
    return y
