"""Data whose denoiser is known in closed form: what a perfect network would say, at any level and in any precision.

    {"world": "gaussian", "mean": m, "std": s}                     every entry of x_0 is N(m, s^2)
    {"world": "mixture", "weights": [..], "means": [..], "stds": [..]}      every entry is drawn from the mixture
    {"world": "polynomial", "kind": "eps", "variable": "ratio", "coefficients": [..]}
                     not of data: the prediction is sum_k c_k u^k whatever x is, u = sigma/alpha ("ratio"),
                     log(alpha/sigma) ("lambda") or t ("t"), so that solvers can be exact
"""
from .process import pair


def predict(world, x, level, num):
    """(x0, eps) that the world's denoiser gives for x[n, d] at a Level."""
    name = world["world"]
    if name == "gaussian":
        return _gaussian(num.real(world["mean"]), num.real(world["std"]), x, level)
    if name == "mixture":
        parts = [tuple(num.real(v) for v in part) for part in zip(world["weights"], world["means"], world["stds"])]
        x0 = num.each(lambda value: _mixture(parts, value, level, num), x)
        return x0, (x - level.alpha * x0) / level.sigma
    if name == "polynomial":
        u = {"ratio": lambda: level.ratio, "t": lambda: num.real(level.t),
             "lambda": lambda: num.log(level.alpha / level.sigma)}[world["variable"]]()
        value = sum((num.real(c) * u ** k for k, c in enumerate(world["coefficients"])), num.real(0))
        return pair(world["kind"], x * 0 + value, x, level.alpha, level.sigma, num)
    raise ValueError(f"world is {name!r}, wanted gaussian, mixture or polynomial")


def _gaussian(mean, std, x, level):
    var = level.alpha ** 2 * std ** 2 + level.var
    rest = x - level.alpha * mean
    return mean + level.alpha * std ** 2 / var * rest, level.sigma / var * rest


def _mixture(parts, x, level, num):
    """E[x_0 | x] of one entry: every part's Gaussian answer, weighted by how likely the part is."""
    logs, answers = [], []
    for weight, mean, std in parts:
        var = level.alpha ** 2 * std ** 2 + level.var
        rest = x - level.alpha * mean
        logs.append(num.log(weight) - num.log(var) / 2 - rest ** 2 / (2 * var))
        answers.append(mean + level.alpha * std ** 2 / var * rest)
    top = max(logs)
    likely = [num.exp(value - top) for value in logs]
    return sum(p * a for p, a in zip(likely, answers)) / sum(likely)


def exact_flow(world, x, start, end):
    """Where the probability-flow ODE takes x from one level to another, for a Gaussian world.

    (x - alpha m)/sqrt(alpha^2 s^2 + sigma^2) is the same all along a trajectory.
    """
    if world["world"] != "gaussian":
        raise ValueError("exact_flow: in closed form for the gaussian world alone")
    mean, std = world["mean"], world["std"]
    scale = [(level.alpha ** 2 * std ** 2 + level.var) for level in (start, end)]
    return end.alpha * mean + (scale[1] / scale[0]) ** 0.5 * (x - start.alpha * mean)
