"""First values of parameters: functions (key, shape) -> array."""
import math

from .. import backend


def zeros(key, shape):
    """All zero: biases, and the last layer of every residual branch, so that a block starts as its shortcut."""
    return backend.xp().zeros(shape)


def ones(key, shape):
    """All one: the gains of normalisation."""
    return backend.xp().ones(shape)


def normal(std):
    """N(0, std^2)."""
    return lambda key, shape: std * key.normal(shape)


def fan_average(key, shape):
    """Uniform with variance 2/(fan_in + fan_out), as the DDPM's code draws its weights.

    For w (k, k, c, d) fan_in = k k c and fan_out = k k d; for w (c, d) they are c and d.
    """
    area = math.prod(shape[:-2])
    bound = math.sqrt(3 * 2 / (area * shape[-2] + area * shape[-1]))
    return bound * (2 * key.uniform(shape) - 1)
