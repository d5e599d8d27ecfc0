"""What training computes: weights of the loss, terms of the bound, Adam, moving averages, clipping, learning rates."""
from .levels import Levels
from .process import bayes

# ---- weights of the loss


def _snr(alpha, sigma, num, c):
    ratio = num.real(alpha) / num.real(sigma)
    return {"squared": ratio ** 2, "ratio": ratio, "half_log": num.log(ratio)}[c.snr_meaning]


def loss_weight(weight, kind, alpha, sigma, num, c, **options):
    """The weight of |y - y_hat|^2, y of a kind of prediction (eps, x0, v), in a variance-preserving family."""
    if not (num.real(alpha) > 0 and num.real(sigma) > 0):
        raise ValueError(f"loss_weight: alpha = {alpha} and sigma = {sigma}, wanted both > 0")
    snr = _snr(alpha, sigma, num, c)
    o = {name: num.real(value) for name, value in options.items()}
    if any(not value > 0 for name, value in o.items() if name != "bias"):
        raise ValueError(f"loss_weight {weight}: {options}, wanted positive numbers")
    one = num.real(1)
    if weight == "min_snr" and kind == "v" and c.min_snr_v == "snr+1":
        return min(snr + 1, o.get("gamma", one * 5)) / (snr + 1)
    on_x0 = {"simple": lambda: snr, "min_snr": lambda: min(snr, o.get("gamma", one * 5)),
             "soft_min_snr": lambda: snr * o.get("gamma", one * 4) / (snr + o.get("gamma", one * 4)),
             "p2": lambda: snr / (o.get("k", one) + snr) ** o.get("gamma", one),
             "edm": lambda: snr + 1 / o.get("sigma_data", one / 2) ** 2,
             "sigmoid": lambda: snr / (1 + snr * num.exp(-o.get("bias", one * 2))),
             "truncated_snr": lambda: max(snr, one), "snr_plus_one": lambda: snr + 1}
    if weight not in on_x0 or kind not in ("eps", "x0", "v"):
        raise ValueError(f"loss_weight: {weight!r} of {kind!r}, wanted one of {', '.join(on_x0)} of eps, x0 or v")
    return on_x0[weight]() / {"x0": 1, "eps": snr, "v": snr + 1}[kind]


# ---- the variational bound, in bits per dimension

def _bits(nats, num, c):
    """Per row the mean over its entries, in bits."""
    unit = num.log(num.real(2)) if c.bound_unit == "bits" else 1
    return [sum(row) / len(row) / unit for row in nats.reshape(len(nats), -1)]


def _kl(d, shift, log_var, num):
    """KL(N(m, e^(log_var - d)) || N(m + shift, e^log_var)) of one entry."""
    return (num.expm1(-d) + d + shift * shift * num.exp(-log_var)) / 2


def bound_prior(x0, schedule, T, num, c):
    """KL(q(x_T | x_0) || N(0, I)). (DDPM eq. 5)"""
    level = Levels(schedule, T, num, c).at(T)
    log_var = num.log(level.var)
    return _bits(num.each(lambda v: _kl(-log_var, level.alpha * v, num.real(0), num), num.array(x0)), num, c)


def log_variances(schedule, T, t, num, c):
    """(log beta-tilde_t, log beta_t); at t = 1, where beta-tilde is 0, what stands for its logarithm."""
    levels = Levels(schedule, T, num, c)
    if not isinstance(t, int) or not 1 <= t <= T:
        raise ValueError(f"bound: t is {t!r}, wanted 1..{T}")
    if t == 1 and c.first_variance == "next" and T < 2:
        raise ValueError("bound: no t = 2 whose variance could stand for that of t = 1")
    large = bayes(levels.at(t - 1), levels.at(t))[3]
    u = 2 if t == 1 else t
    small = bayes(levels.at(u - 1), levels.at(u))[2] if t > 1 or c.first_variance == "next" else num.real("1e-20")
    return num.log(small), num.log(large)


def bound_log_variance(schedule, T, t, num, c, kind="small", out=None):
    """log of the variance of p(x_{t-1} | x_t): "small", "large", or "learned" between by v = (out + 1)/2."""
    small, large = log_variances(schedule, T, t, num, c)
    if kind == "learned":
        v = (num.real(out) + 1) / 2
        return v * large + (1 - v) * small
    if kind not in ("small", "large"):
        raise ValueError(f"bound: kind is {kind!r}, wanted small, large or learned")
    return small if kind == "small" else large


def bound_term(x0, x_t, x0_hat, schedule, T, t, num, c, kind="small", out=None):
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), t = 2..T. (DDPM eq. 5)"""
    levels = Levels(schedule, T, num, c)
    if not 2 <= t <= T:
        raise ValueError(f"bound: t is {t!r}, wanted 2..{T}; the term of t = 1 is the decoder's")
    on_x0, on_xt, variance, _ = bayes(levels.at(t - 1), levels.at(t))
    log_var = bound_log_variance(schedule, T, t, num, c, kind, out)
    means = [num.keep(on_x0 * num.array(datum) + on_xt * num.array(x_t)) for datum in (x0, x0_hat)]
    shift = means[0] - means[1]
    return _bits(num.each(lambda v: _kl(log_var - num.log(variance), v, log_var, num), shift), num, c)


def bound_decoder(x0, mean, log_var, num, c, levels=256):
    """-log p(x_0 | x_1): the mass on x_0's bin of +-1/(levels - 1), open outwards at -1 and 1. (DDPM eq. 13)"""
    x0, mean, std = num.array(x0), num.array(mean), num.exp(num.real(log_var) / 2)
    edge, half = num.real("0.999"), num.real(1) / (levels - 1)
    if any(abs(v) > 1 for v in x0.ravel()):
        raise ValueError("bound_decoder: x0 is outside [-1, 1]")

    def above(z):                                     # P(Z > z)
        if c.decoder_cdf == "tanh":
            return (1 - num.tanh(num.sqrt(2 / num.pi) * (z + num.real("0.044715") * z ** 3))) / 2
        return num.erfc(z / num.sqrt(num.real(2))) / 2

    nats = x0 * 0
    for index, value in enumerate(x0.ravel()):
        m = mean.ravel()[index]
        side = 1 if value >= m else -1                # bins above the mean, so that no tail is 1 - (1 - p)
        near = num.real(1) if side * value < -edge else above((side * (value - m) - half) / std)
        far = num.real(0) if side * value > edge else above((side * (value - m) + half) / std)
        nats.ravel()[index] = -num.log(near - far)
    return _bits(nats, num, c)


# ---- the optimiser and its averages

def adamw(theta, grads, num, c, lr="0.001", beta1="0.9", beta2="0.999", eps="1e-8", weight_decay="0", rates=None):
    """theta after the updates by grads[0], grads[1], ..; rates are the updates' own learning rates. (ADAM alg. 1)"""
    lr, b1, b2, eps, decay = (num.real(v) for v in (lr, beta1, beta2, eps, weight_decay))
    if not (lr > 0 and 0 <= b1 < 1 and 0 <= b2 < 1 and eps > 0 and decay >= 0):
        raise ValueError("adamw: wanted lr > 0, 0 <= beta < 1, eps > 0, weight_decay >= 0")
    theta = num.array(theta)
    m, v = theta * 0, theta * 0
    for i, grad in enumerate(grads):
        rate = lr if rates is None else num.real(rates[i])
        g = num.array(grad) + (decay * theta if c.weight_decay == "coupled" else 0)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        t = i + {"t": 1, "t-1": 0, "none": 1}[c.bias_correction]
        first, second = (1 - b1 ** t, 1 - b2 ** t) if c.bias_correction != "none" and t > 0 else (1, 1)
        root = num.each(num.sqrt, v / second + (eps if c.adam_epsilon == "inside" else 0))
        below = {"outside": root + eps, "inside": root,
                 "uncorrected": (num.each(num.sqrt, v) + eps) / num.sqrt(num.real(1) * second)}[c.adam_epsilon]
        shrink = {"paper": rate / lr * decay, "rate": rate * decay, "coupled": 0}[c.weight_decay]
        theta = num.keep(theta - rate * (m / first) / below - shrink * theta)
    return {"theta": theta, "m": m, "v": v}


def ema(average, theta, decay, num, c, step=None):
    """decay average + (1 - decay) theta; with `step` from 0, decay is at most (1 + step)/(10 + step). (CM eq. 8)"""
    decay = num.real(decay)
    if not 0 <= decay <= 1 or step is not None and step < 0:
        raise ValueError(f"ema: decay is {decay} and step {step}, wanted 0..1, and step >= 0")
    if step is not None and c.ema_warmup == "yes":
        decay = min(decay, num.real(1 + step) / (10 + step))
    decay = 1 - decay if c.ema_weights == "1-decay" else decay
    return {"average": decay * num.array(average) + (1 - decay) * num.array(theta)}


def clip(grad, max_norm, num, c):
    """{"grad", "norm"}: the gradient by a global norm of at most max_norm, and its norm before. (PASCANU alg. 1)"""
    grad, most = num.array(grad), num.real(max_norm)
    if not most > 0:
        raise ValueError(f"clip: max_norm is {max_norm}, wanted > 0")
    norm = num.sqrt(sum(g * g for g in grad.ravel()))
    if c.clip_kind == "value":
        return {"grad": num.each(lambda g: max(-most, min(most, g)), grad), "norm": norm}
    factor = most / (norm + num.real(c.clip_epsilon)) if norm > 0 else num.real(1)
    return {"grad": grad * min(factor, num.real(1)), "norm": norm}


def learning_rate(step, steps, peak, num, c, warmup=0, floor="0"):
    """Linear warm-up, then half a cosine down to the floor. (SGDR eq. 5)"""
    peak, floor = num.real(peak), num.real(floor)
    if not (0 <= step <= steps and 0 <= warmup <= steps and 0 <= floor <= peak):
        raise ValueError(f"learning_rate: step {step} of {steps}, warmup {warmup}, floor {floor}, peak {peak}")
    if step < warmup:
        return peak * (step + int(c.warmup_offset)) / warmup
    if step == steps:
        return floor
    return floor + (peak - floor) * (1 + num.cos(num.pi * (step - warmup) / (steps - warmup))) / 2


def _field(name, function):
    return lambda num, c, **inputs: {name: function(num=num, c=c, **inputs)}


OPERATIONS = {
    "loss_weight": _field("weight", loss_weight),
    "bound_prior": _field("bits", bound_prior), "bound_term": _field("bits", bound_term),
    "bound_decoder": _field("bits", bound_decoder), "bound_log_variance": _field("log_variance", bound_log_variance),
    "adamw": lambda num, c, **inputs: adamw(num=num, c=c, **inputs),
    "ema": lambda num, c, **inputs: ema(num=num, c=c, **inputs),
    "clip": lambda num, c, **inputs: clip(num=num, c=c, **inputs),
    "learning_rate": _field("rate", learning_rate),
}
