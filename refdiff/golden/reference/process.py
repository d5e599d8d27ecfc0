"""The forward process, its posterior, and every prediction as (x0, eps), straight from the definitions."""
from ..conventions import choose
from .levels import Levels

KINDS = ("eps", "x0", "v", "score", "velocity", "data_velocity", "F")


def q_sample(x0, eps, alpha, sigma, num, c=None):
    """alpha x0 + sigma eps."""
    return num.real(alpha) * num.array(x0) + num.real(sigma) * num.array(eps)


def bayes(s, t):
    """q(x_s | x_t, x_0) as (c_x0, c_xt, variance, var_ts), by the precisions of its two factors.

    x_s given x_0 has precision 1/sigma_s^2 about alpha_s x_0, and x_t = a x_s + sqrt(v) z adds a^2/v about x_t/a.
    """
    a = t.alpha / s.alpha
    v = (t.sigma - a * s.sigma) * (t.sigma + a * s.sigma)
    both = v + a * a * s.var                                   # sigma_t^2
    return s.alpha * v / both, a * s.var / both, s.var * v / both, v


def posterior(x0, x_t, schedule, T, t, num, c=None, s=None, variance="small"):
    """{"mean", "variance"} of q(x_s | x_t, x_0), s = t - 1 if it is not given."""
    c = c or choose()
    levels = Levels(schedule, T, num, c)
    here, there = levels.at(t), levels.at(t - 1 if s is None else s)
    if here.t == 0 or not here.ratio > there.ratio:
        raise ValueError(f"posterior: from t = {t} to {s}, wanted a step to less noise")
    on_x0, on_xt, small, large = bayes(there, here)
    kind = variance if c.variance == "given" else c.variance
    if kind not in ("small", "large"):
        raise ValueError(f"posterior: variance is {kind!r}, wanted small or large")
    return {"mean": on_x0 * num.array(x0) + on_xt * num.array(x_t), "variance": small if kind == "small" else large}


def pair(kind, value, x, alpha, sigma, num, sign=1, sigma_data=None):
    """(x0, eps) of a prediction; None for what it does not say at an end."""
    if kind not in KINDS:
        raise ValueError(f"prediction: kind is {kind!r}, wanted one of {', '.join(KINDS)}")
    if kind == "score":
        kind, value = "eps", -sigma * value
    if kind == "data_velocity":
        kind, value = "velocity", -value
    if kind == "eps":
        return (None if alpha == 0 else (x - sigma * value) / alpha), value
    if kind == "x0":
        return value, (None if sigma == 0 else (x - alpha * value) / sigma)
    value = sign * value
    if kind == "v":                                # v = alpha eps - sigma x0 and x = alpha x0 + sigma eps, solved
        norm = alpha * alpha + sigma * sigma
        return (alpha * x - sigma * value) / norm, (sigma * x + alpha * value) / norm
    if kind == "velocity":
        return (x - sigma * value) / (alpha + sigma), (x + alpha * value) / (alpha + sigma)
    d = num.real(sigma_data)                       # x0 = c_skip x + c_out F (EDM)
    norm = sigma * sigma + alpha * alpha * d * d
    return ((alpha * d * d * x + sigma * d * num.sqrt(norm) * value) / norm,
            (sigma * x - alpha * d * num.sqrt(norm) * value) / norm)


def said(kind, x0, eps, alpha, sigma, num, sigma_data=None):
    """The prediction of a kind made from the pair (x0, eps). Raises ValueError where it has no value."""
    if (x0 is None and kind not in ("eps", "score")) or (eps is None and kind != "x0") or (
            kind == "score" and sigma == 0):
        raise ValueError(f"convert: {kind} cannot be had at alpha = {alpha}, sigma = {sigma}")
    if kind == "F":
        d = num.real(sigma_data)
        return (sigma / d * x0 - alpha * d * eps) / num.sqrt(sigma * sigma + alpha * alpha * d * d)
    return {"x0": lambda: x0, "eps": lambda: eps, "v": lambda: alpha * eps - sigma * x0,
            "score": lambda: -eps / sigma, "velocity": lambda: eps - x0, "data_velocity": lambda: x0 - eps}[kind]()


def convert(kind, to, value, x, alpha, sigma, num, c=None, sigma_data=None):
    """The prediction `value` of a kind, made at x, as another kind."""
    c = c or choose()
    if to not in KINDS:
        raise ValueError(f"convert: to is {to!r}, wanted one of {', '.join(KINDS)}")
    alpha, sigma = num.real(alpha), num.real(sigma)
    if not (alpha >= 0 and sigma >= 0 and alpha + sigma > 0):
        raise ValueError(f"convert: alpha = {alpha} and sigma = {sigma}, wanted both >= 0 and not both 0")
    if "F" in (kind, to) and (sigma_data is None or not num.real(sigma_data) > 0):
        raise ValueError("convert: F needs sigma_data > 0")
    sign = -1 if c.prediction_sign == "-" else 1
    value, x = num.array(value), num.array(x)
    if kind == to:
        return value
    if (kind, to) == ("eps", "score") and sigma > 0:
        return -value / sigma
    return said(to, *pair(kind, value, x, alpha, sigma, num, sign, sigma_data), alpha, sigma, num, sigma_data)


def read(kind, value, x, level, num, c, following=None):
    """(x0, eps) as a sampler reads a prediction, under the conventions of clipping and of what is predicted.

    following: the level that the step goes to, whose alpha or sigma is mistaken for the level's own.
    """
    kind = kind if c.prediction == "given" else c.prediction
    if following is not None and c.x0_from != "own":
        level = level._replace(**{"sigma_s": {"sigma": following.sigma}, "alpha_s": {"alpha": following.alpha}}[
            c.x0_from])
    x0, eps = pair(kind, value, x, level.alpha, level.sigma, num, -1 if c.prediction_sign == "-" else 1)
    if c.clip == "1" and x0 is not None:
        one = num.real(1)
        x0 = num.each(lambda v: max(-one, min(one, v)), x0)
        if c.rederive_eps == "yes":
            eps = (x - level.alpha * x0) / level.sigma
    return x0, eps


def threshold(x0, num, c=None, percentile="0.995", limit="1", cap=None):
    """{"x0"}: every row clipped to -s..s and divided by s/limit, s the row's quantile of |x0|. (DYNTHR sec. 2.3)

    s is at least limit, and at most cap; between two entries in order the quantile is a straight line.
    """
    p, limit = num.real(percentile), num.real(limit)
    if not (0 < p <= 1 and limit > 0 and (cap is None or num.real(cap) >= limit)):
        raise ValueError(f"threshold: percentile {percentile}, limit {limit}, cap {cap}: wanted 0 < percentile <= 1, "
                         "limit > 0 and cap >= limit")
    rows = []
    for row in num.array(x0):
        sizes = sorted(abs(v) for v in row)
        place = p * (len(sizes) - 1)
        below = min(int(place), max(len(sizes) - 2, 0))
        s = sizes[below] + (place - below) * (sizes[min(below + 1, len(sizes) - 1)] - sizes[below])
        s = max(s, limit) if cap is None else min(max(s, limit), num.real(cap))
        rows.append([max(-s, min(s, v)) * limit / s for v in row])
    return {"x0": num.array(rows)}
