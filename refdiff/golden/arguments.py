"""From a case's inputs to what an adapter's method is called with: worlds become denoisers, lists of noise callables.

    adapter.trajectory(**arguments(case, adapter.prediction))
"""
import numpy as np

from .reference.levels import Level, Levels, lam
from .reference.numbers import FLOAT
from .reference.process import said
from .reference.worlds import predict


def arguments(case, prediction="eps"):
    """Keyword arguments of the method that answers a case; `prediction` is the kind that its networks predict.

    `denoiser` becomes a callable (x, t) -> prediction at the papers' time t (for consistency_multistep `network`, the F
    of EDM, (x, sigma) -> F), `noise` of a trajectory a callable i -> array; all else is handed over as it is loaded.
    """
    given = dict(case.inputs)
    if case.operation == "consistency_multistep":
        given["network"] = edm_network(given.pop("denoiser"), given.get("sigma_data", 0.5))
    elif isinstance(given.get("denoiser"), dict):
        given["denoiser"] = denoiser(given["denoiser"], given["schedule"], given["T"], prediction)
    if case.operation in ("trajectory", "consistency_multistep") and given.get("noise") is not None:
        given["noise"] = Noise(given["noise"])
    return given


class Noise:
    """noise(i), the i-th of the given draws; `calls` lists what was asked for."""

    def __init__(self, draws):
        self.draws, self.calls = draws, []

    def __call__(self, i):
        self.calls.append(int(i))
        return np.array(self.draws[int(i)])


def level_at(levels, t):
    """The level of a time; between two integers of a discrete schedule, with log(alpha/sigma) linear in t."""
    t = float(t)
    if levels.T is None or t == int(t):
        return levels.at(int(t) if levels.T is not None else t)
    below = levels.at(max(int(t), 1))
    above = levels.at(int(t) + 1)
    part = t - int(t)
    snr = 2 * ((1 - part) * lam(below, FLOAT) + part * lam(above, FLOAT))
    var = 1 / (1 + FLOAT.exp(snr))
    return Level(t, FLOAT.sqrt(1 / (1 + FLOAT.exp(-snr))), FLOAT.sqrt(var), var)


def denoiser(world, schedule, T, prediction="eps"):
    """(x, t) -> what a perfect network predicts at x[n, d] and time t, in x's dtype."""
    levels = Levels(schedule, T, FLOAT)

    def predicts(x, t):
        values = np.asarray(x)
        level = level_at(levels, np.asarray(t).reshape(-1)[0])
        if level.sigma == 0:
            raise ValueError(f"denoiser: called at t = {t}, the clean level; the papers' times are 1..{T}")
        x0, eps = predict(world, values.astype(np.float64), level, FLOAT)
        return said(prediction, x0, eps, level.alpha, level.sigma, FLOAT).astype(values.dtype)

    return predicts


def edm_network(world, sigma_data):
    """(x, sigma) -> F of EDM, with D = c_skip x + c_out F the world's denoiser."""
    levels = Levels("edm", None, FLOAT)

    def F(x, sigma):
        level = levels.at(float(sigma))
        x0, eps = predict(world, np.asarray(x, dtype=np.float64), level, FLOAT)
        return said("F", x0, eps, level.alpha, level.sigma, FLOAT, sigma_data)

    return F
