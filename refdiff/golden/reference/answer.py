"""The one door to the reference: any scalar operation of a golden case, in any numbers, under any conventions.

    answer("schedule", {"name": "linear", "T": 1000})                       {"beta": ..., "alpha_bar": ...}
    answer("step", inputs, numbers.exact(50), eta_meaning="variance")       {"x": ...}

An operation is what an adapter's method of that name does; its inputs are the method's arguments, with a world (see
worlds.py) for a denoiser and a list of arrays for noise. Answers are dicts of numbers, lists and arrays.
"""
from ..conventions import choose
from . import levels, networks, others, process, tables, training, trajectories
from .numbers import FLOAT, SINGLE


def _schedule(num, c, name, T, **params):
    made = tables.table(name, T, SINGLE if c.table_dtype == "float32" else num, c, **params)
    return {"beta": made.beta, "alpha_bar": made.alpha_bar, "one_minus_alpha_bar": made.noise}


def _grid(num, c, schedule, T, rule, steps, final, **params):
    visited = levels.grid(schedule, T, rule, steps, final, num, c, **params)
    return {"t": [level.t for level in visited], "alpha_bar": [level.alpha ** 2 for level in visited],
            "sigma": [level.sigma for level in visited]}


def _plain(field, function):
    return lambda num, c, **inputs: {field: function(num=num, c=c, **inputs)}


OPERATIONS = {
    "schedule": _schedule,
    "grid": _grid,
    "q_sample": _plain("x", process.q_sample),
    "posterior": lambda num, c, **inputs: process.posterior(num=num, c=c, **inputs),
    "convert": _plain("value", process.convert),
    "threshold": lambda num, c, **inputs: process.threshold(num=num, c=c, **inputs),
    "step": _plain("x", trajectories.step),
    "trajectory": lambda num, c, states=False, **inputs: {
        "states" if states else "x": trajectories.trajectory(num=num, c=c, states=states, **inputs)},
    **training.OPERATIONS,
    **others.OPERATIONS,
    **networks.OPERATIONS,
}


def answer(operation, inputs, num=FLOAT, **conventions):
    """{field: value} of an operation. Raises ValueError for what it refuses, KeyError for an unknown operation."""
    if operation not in OPERATIONS:
        raise KeyError(f"golden: {operation!r} is none of {', '.join(OPERATIONS)}")
    try:
        return OPERATIONS[operation](num, choose(**conventions), **inputs)
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"{operation}: {error}") from error
