"""How a case of arrays is made: the answer by the tape's exact numbers, its condition by perturbation, drawn inputs.

Inputs are decimals of a generator that is written in build.py, weights among them, so that nothing depends on a
library's random numbers. The answer is rounded to float64 once, at the end.
"""
import math

import numpy as np

from ..case import Case, tolerances
from .build import numbers

DELTA = 2.0 ** -30
DRAWS = 2
ORACLE = "reverse mode on formulas, 64-bit mantissa, functions by mpmath"


def draw(seed, shape, scale=1.0, digits=3):
    """A float64 array of decimals in -2 scale..2 scale."""
    return np.array(numbers(seed, shape, -2 * scale, 2 * scale, digits), dtype=np.float64).reshape(shape)


def build(name, operation, answer, inputs, equation, flags=(), operations=10, least=1.0):
    """The Case of answer(inputs, kind) -> {field: array}. Raises ValueError where longdouble is no better than float64.

    operations: how many roundings an implementation makes in a row. least: of the condition number, where numbers on
    the way to the answer cancel that no input's error shows.
    """
    if np.finfo(np.longdouble).nmant < 63:
        raise ValueError("golden: the cases of arrays are made where np.longdouble has 64 bits of mantissa (x86)")
    truth = {field: np.asarray(value, dtype=np.float64) for field, value in answer(inputs, "exact").items()}
    cond = max(least, condition(answer, inputs))
    return Case(name, operation, inputs, truth, equation, ORACLE, cond, tolerances(cond, operations), tuple(flags))


def refused(name, operation, inputs, equation, flags=()):
    """The Case of inputs that have no answer: their shapes or settings do not fit."""
    return Case(name, operation, inputs, {}, equation, "by definition", 0.0, {}, tuple(flags), "invalid")


def condition(answer, inputs):
    """Greatest error of a field over its largest entry, per relative error of the inputs' entries; at least 1.

    Every entry of a float array is off by up to DELTA of itself at random, DRAWS times; the worst counts, times 2 for
    what so few draws miss. A field that is zero by algebra would have no condition; none of the cases has one.
    """
    plain, worst = answer(inputs, "longdouble"), 0.0
    for seed in range(DRAWS):
        moved = answer(_moved(inputs, [seed]), "longdouble")
        worst = max([worst, *(_distance(plain[field], moved[field]) / DELTA for field in plain)])
    return max(1.0, 2 * float(worst))


def _moved(value, count):
    """The inputs with an error in every entry, also in whole times, which stands for that of the frequencies."""
    if isinstance(value, dict):
        return {key: part if key == "config" else _moved(part, count) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        count[0] += 1000
        errors = np.array(numbers(count[0], value.shape, -1, 1, 6), dtype=np.float64).reshape(value.shape)
        return value.astype(np.longdouble) * (1 + DELTA * errors)
    return value


def _distance(value, other):
    top = np.abs(value).max() if np.size(value) else 0
    return np.abs(value - other).max() / top if top else 0.0


def weights(shapes, seed=0):
    """{name: array} of drawn weights: gains about 1, biases about 0, matrices of variance about 1/fan_in."""
    made = {}
    for i, (name, shape) in enumerate(sorted(shapes.items() if isinstance(shapes, dict) else shapes)):
        scale = 0.15 if len(shape) == 1 else 0.5 if name.endswith("table") else 0.8 / math.sqrt(math.prod(shape[:-1]))
        made[name] = draw(100 * seed + i + 1000, shape, scale, 4) + (1.0 if name.endswith("gamma") else 0.0)
    return made
