"""A small diffusion library as somebody else would write it: tables that count from 0, and an adapter at its end.

It shares no code with refdiff. test_planted_mistakes.py rewrites one line of it at a time.
"""
import numpy as np


def betas(kind, T, **params):
    if kind == "linear":
        table = np.linspace(params.get("beta_start", 1e-4), params.get("beta_end", 0.02), T)
    elif kind == "scaled_linear":
        low, high = params.get("beta_start", 0.00085), params.get("beta_end", 0.012)
        table = np.linspace(low ** 0.5, high ** 0.5, T) ** 2
    elif kind == "cosine":
        s = params.get("s", 0.008)
        f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
        table = np.minimum(1 - f[1:] / f[:-1], params.get("beta_max", 0.999))
    else:
        raise NotImplementedError(kind)
    if np.any(table <= 0) or np.any(table >= 1):
        raise ValueError("beta outside (0, 1)")
    return table.astype(np.float64)


class Tables:
    """Everything by index i = 0..T-1, where i stands for time i + 1."""

    def __init__(self, kind, T):
        self.betas = betas(kind, T)
        self.bars = np.cumprod(1 - self.betas)
        self.T = T

    def bar(self, i):
        return self.bars[i] if i >= 0 else 1.0


def indices(rule, T, n):
    if not 1 <= n <= T:
        raise ValueError("number of steps")
    if rule == "trailing":
        found = np.round(np.arange(1, n + 1) * T / n).astype(int) - 1
    elif rule == "leading":
        found = (np.arange(n) * T / n + 1e-9).astype(int)
    elif rule == "linspace":
        found = np.round(np.linspace(0, T - 1, n)).astype(int)
    else:
        raise NotImplementedError(rule)
    return list(found[::-1])


def split(kind, y, x, a, s):
    """(x0, eps) of a prediction y at x = a x0 + s eps."""
    if kind == "eps":
        x0, eps = (x - s * y) / a, y
    elif kind == "x0":
        x0, eps = y, (x - a * y) / s
    elif kind == "v":
        x0, eps = a * x - s * y, s * x + a * y
    else:
        raise NotImplementedError(kind)
    return x0, eps


def clipped(x0, eps, x, a, s, limit):
    if limit is not None:
        x0 = np.clip(x0, -limit, limit)
        eps = (x - a * x0) / s
    return x0, eps


def move(tables, i, j, x, y, z, sampler, eta=0.0, variance="small", kind="eps", limit=None):
    """From index i to j < i (j = -1: the data) with the prediction y and the noise z (None: no noise)."""
    bar_t, bar_s = tables.bar(i), tables.bar(j)
    alpha = bar_t / bar_s
    x0, eps = split(kind, y, x, bar_t ** 0.5, (1 - bar_t) ** 0.5)
    x0, eps = clipped(x0, eps, x, bar_t ** 0.5, (1 - bar_t) ** 0.5, limit)
    small = (1 - bar_s) / (1 - bar_t) * (1 - alpha)
    if sampler == "ddim":
        std = eta * small ** 0.5
        mean = bar_s ** 0.5 * x0 + (1 - bar_s - std ** 2) ** 0.5 * eps
    elif sampler == "ddpm":
        std = (small if variance == "small" else 1 - alpha) ** 0.5
        mean = (bar_s ** 0.5 * (1 - alpha) * x0 + alpha ** 0.5 * (1 - bar_s) * x) / (1 - bar_t)
    else:
        raise NotImplementedError(sampler)
    return mean if z is None else mean + std * z


def sample(tables, times, network, x, noise, sampler, **options):
    """times: indices, the largest first. noise(k) is the k-th draw."""
    random = sampler == "ddpm" or options.get("eta", 0) > 0
    x = x * 1.0
    for k, i in enumerate(times):
        last = k == len(times) - 1
        y = network(x, i + 1)
        z = noise(k) if random and not last else None
        x = move(tables, i, -1 if last else times[k + 1], x, y, z, sampler, **options).astype(x.dtype)
    return x


def adam(theta, grads, lr, b1, b2, eps, decay):
    m = v = np.zeros_like(theta)
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g ** 2
        update = (m / (1 - b1 ** t)) / (np.sqrt(v / (1 - b2 ** t)) + eps)
        theta = theta - lr * update - decay * theta
    return theta, m, v


def karras(n, low, high, rho):
    """n levels of sigma, the largest first."""
    ramp = np.linspace(0, 1, n) if n > 1 else np.zeros(1)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def group_norm(x, gamma, beta, groups, eps):
    n, c = x.shape[0], x.shape[-1]
    parts = x.reshape(n, -1, groups, c // groups)
    mean = parts.mean((1, 3), keepdims=True)
    variance = ((parts - mean) ** 2).mean((1, 3), keepdims=True)
    return ((parts - mean) / np.sqrt(variance + eps)).reshape(x.shape) * gamma + beta


def attend(q, k, v):
    """q, k, v[n, tokens, heads, d]"""
    weights = np.einsum("nihd,njhd->nhij", q * q.shape[-1] ** -0.5, k)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    return np.einsum("nhij,njhd->nihd", weights / weights.sum(-1, keepdims=True), v)


def embed(t, width, first, denominator, period):
    half = width // 2
    angles = t[:, None] * np.exp(-np.log(period) * np.arange(half) / (half - 1 if denominator == "half-1" else half))
    waves = [np.sin(angles), np.cos(angles)]
    return np.concatenate(waves if first == "sin" else waves[::-1], 1)


# ---- the adapter

name, version, prediction = "homemade", "1.0", "eps"


def schedule(name, T, **params):
    beta = betas(name, T, **params)
    return {"beta": np.append(0, beta), "alpha_bar": np.append(1, np.cumprod(1 - beta))}


def grid(schedule, T, rule, steps, final, rho=7.0, sigma_min=0.002, sigma_max=80.0):
    if (schedule, rule) == ("edm", "karras"):
        if steps < 1 or not 0 < sigma_min < sigma_max:
            raise ValueError("levels")
        sigma = karras(steps + (final == "none"), sigma_min, sigma_max, rho)
        return {"sigma": np.append(sigma, 0) if final == "zero" else sigma}
    if final != "zero":
        raise NotImplementedError(final)
    tables, found = Tables(schedule, T), indices(rule, T, steps) + [-1]
    return {"t": np.array(found) + 1, "alpha_bar": [tables.bar(i) for i in found]}


def q_sample(x0, eps, alpha, sigma):
    return alpha * x0 + sigma * eps


def posterior(x0, x_t, schedule, T, t):
    tables = Tables(schedule, T)
    bar, before, beta = tables.bar(t - 1), tables.bar(t - 2), tables.betas[t - 1]
    return {"mean": (before ** 0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - before) * x_t) / (1 - bar),
            "variance": beta * (1 - before) / (1 - bar)}


def convert(kind, to, value, x, alpha, sigma):
    if to not in ("x0", "eps"):
        raise NotImplementedError(to)
    x0, eps = split(kind, value, x, alpha, sigma)
    return x0 if to == "x0" else eps


def step(sampler, schedule, T, t, s, x, prediction, kind="eps", noise=None, **options):
    return move(Tables(schedule, T), t - 1, s - 1, x, prediction, noise, sampler, kind=kind, **options)


def trajectory(sampler, schedule, T, steps, rule, final, x, denoiser, noise, **options):
    if sampler not in ("ddim", "ddpm") or final != "zero":
        raise NotImplementedError(sampler)
    tables = Tables(schedule, T)
    return sample(tables, indices(rule, T, steps), denoiser, x, noise, sampler, **options)


def configurations():
    return [{"sampler": "ddim", "schedule": "linear", "T": 1000, "rule": rule, "eta": eta}
            for rule, eta in (("trailing", 0.0), ("leading", 0.0), ("trailing", 0.7))] + [
           {"sampler": "ddpm", "variance": variance} for variance in ("small", "large")]


def loss_weight(weight, kind, alpha, sigma, gamma=5.0):
    snr = alpha ** 2 / sigma ** 2
    if weight != "min_snr":
        raise NotImplementedError(weight)
    return min(snr, gamma) / {"eps": snr, "x0": 1.0, "v": snr + 1}[kind]


def adamw(theta, grads, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    theta, m, v = adam(theta, grads, lr, beta1, beta2, eps, weight_decay)
    return {"theta": theta, "m": m, "v": v}


def ema(average, theta, decay, step=None):
    rate = decay if step is None else min(decay, (1 + step) / (10 + step))
    return rate * average + (1 - rate) * theta


def clip(grad, max_norm):
    norm = np.sqrt(np.sum(grad ** 2))
    return {"grad": grad * min(1.0, max_norm / norm), "norm": norm}


def learning_rate(step, steps, peak, warmup=0, floor=0.0):
    if step < warmup:
        return peak * (step + 1) / warmup
    return floor + (peak - floor) * (1 + np.cos(np.pi * (step - warmup) / (steps - warmup))) / 2


def op_group_norm(x, gamma, beta, dy, groups, eps=1e-6):
    return {"y": group_norm(x, gamma, beta, groups, eps)}


def op_attention(q, k, v, dy):
    if q.shape[2] != k.shape[2]:
        raise ValueError("heads")
    return {"y": attend(q, k, v)}


def op_sinusoid(t, dy, width, order, denominator, period):
    if width % 2:
        raise NotImplementedError
    return {"y": embed(t, width, order[:3], denominator, period)}


def guidance(conditional, unconditional, scale):
    return unconditional + scale * (conditional - unconditional)
