"""Scalar losses: weighted mean square, pseudo-Huber on the vector norm, cross-entropy.

Rows are weighted by a constant w[n]; every loss is the mean over the n rows, and within a row the
mean (MSE) or the norm (pseudo-Huber) over all other axes.
"""
from .. import backend
from .op import Op, check_labels, wanted


def _rows(a):
    return a.reshape(a.shape[0], -1)


def _check(op, pred, target, weight):
    xp = backend.of(pred=pred, target=target, weight=weight)
    if pred.shape != target.shape or weight.shape != pred.shape[:1]:
        raise wanted(op, "pred, target, weight", f"{pred.shape}, {target.shape}, {weight.shape}",
                     "two equal shapes (n, ...) and (n,)")
    return xp


# ---- mean square error: L = mean_n w_n mean_i (pred - target)^2

def mse_forward(pred, target, weight):
    """L = (1/n) sum_n w_n (1/m) sum_i (pred_ni - target_ni)^2, m entries a row."""
    _check("mse", pred, target, weight)
    r = pred - target
    scale = (weight / r.size).reshape((-1,) + (1,) * (r.ndim - 1))              # w_n/(n m)
    return (scale * r * r).sum(), (r, scale)


def mse_backward(saved, dy):
    """dpred = 2 w_n (pred - target)/(n m) dy;  dtarget = -dpred."""
    r, scale = saved
    d = (2 * dy) * scale * r
    return d, -d


def mse_jvp(saved, preddot, targetdot):
    """ydot = sum 2 w_n (pred - target)(preddot - targetdot)/(n m)."""
    r, scale = saved
    return (2 * scale * r * (preddot - targetdot)).sum()


mse = Op("mse", mse_forward, mse_backward, mse_jvp, "pred[n,h,c] target[n,h,c] weight:constant[n] -> loss[]")


# ---- pseudo-Huber: L = mean_n w_n (sqrt(|pred - target|^2 + c^2) - c), the norm over the whole row

def pseudo_huber_forward(pred, target, weight, c=0.03):
    """L = (1/n) sum_n w_n (sqrt(|r_n|_2^2 + c^2) - c), r = pred - target [ICT sec. 3.3].

    Between the square (|r| << c) and the norm (|r| >> c). The difference is written
    |r|^2/(sqrt(|r|^2 + c^2) + c), which does not cancel for small r.
    """
    xp = _check("pseudo_huber", pred, target, weight)
    if not c > 0:
        raise wanted("pseudo_huber", "c", c, "a number > 0")
    r = pred - target
    square = (_rows(r) * _rows(r)).sum(1)                                       # |r_n|^2, (n,)
    root = xp.sqrt(square + c * c)
    scale = weight / r.shape[0]
    return (scale * (square / (root + c))).sum(), (r, (scale / root).reshape((-1,) + (1,) * (r.ndim - 1)))


def pseudo_huber_backward(saved, dy):
    """dpred = w_n r_n/(n sqrt(|r_n|^2 + c^2)) dy;  dtarget = -dpred."""
    r, slope = saved
    d = dy * slope * r
    return d, -d


def pseudo_huber_jvp(saved, preddot, targetdot):
    """ydot = sum w_n r_n (preddot - targetdot)/(n sqrt(|r_n|^2 + c^2))."""
    r, slope = saved
    return (slope * r * (preddot - targetdot)).sum()


pseudo_huber = Op("pseudo_huber", pseudo_huber_forward, pseudo_huber_backward, pseudo_huber_jvp,
                  "pred[n,h,c] target[n,h,c] weight:constant[n] -> loss[]", options={"c": (0.03, 0.5)})


# ---- cross-entropy: L = mean_n (log sum_k e^(s_nk) - s_n,label)

def cross_entropy_forward(s, labels):
    """L = -(1/n) sum_n log softmax(s_n)[labels_n]: s (n, v) scores, labels (n,) integers in 0..v-1."""
    xp = backend.of(s=s, labels=labels)
    check_labels("cross_entropy", labels, s.shape[:1], s.shape[1], f"the columns of s {s.shape}")
    s = s - s.real.max(1, keepdims=True)
    e = xp.exp(s)
    total = e.sum(1, keepdims=True)
    one_hot = (labels[:, None] == xp.arange(s.shape[1])).astype(s.dtype)        # (n, v)
    return (xp.log(total[:, 0]) - (s * one_hot).sum(1)).mean(), (e / total - one_hot) / s.shape[0]


def cross_entropy_backward(slope, dy):
    """ds = (softmax(s) - one_hot)/n dy."""
    return slope * dy


def cross_entropy_jvp(slope, sdot):
    """ydot = sum (softmax(s) - one_hot) sdot/n."""
    return (slope * sdot).sum()


cross_entropy = Op("cross_entropy", cross_entropy_forward, cross_entropy_backward, cross_entropy_jvp,
                   "s[n,v] labels:index(v)[n] -> loss[]")
