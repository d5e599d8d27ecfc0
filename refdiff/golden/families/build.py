"""How a scalar case is made: the answer at 50 digits, its condition number by perturbation, tolerances from it."""
import numpy as np

from ..case import Case, tolerances
from ..reference.answer import answer
from ..reference.numbers import exact, perturbed

DIGITS = 50
DRAWS = 3
DELTA = "1e-20"


def build(name, operation, inputs, equation, flags=(), accept=(), operations=10, invalid=False, oracle=None):
    """The Case of an operation on inputs: decimal strings, integers, names and nested lists of them.

    accept: {convention: value} of each other published answer; it makes the case "acceptable". invalid: it must be
    refused, which the reference does too. operations: how many roundings an implementation makes in a row.
    """
    num = exact(DIGITS)
    if invalid:
        try:
            answer(operation, inputs, num)
        except (ValueError, TypeError):
            return Case(name, operation, inputs, {}, equation, "by definition", 0.0, {}, tuple(flags), "invalid")
        raise ValueError(f"case {name}: wanted as invalid, and the reference answers it")
    truth = answer(operation, inputs, num)
    accepted = tuple({"convention": ",".join(f"{k}={v}" for k, v in one.items()),
                      "expected": answer(operation, inputs, num, **one)} for one in accept)
    cond = condition(operation, inputs, truth, num)
    return Case(name, operation, inputs, truth, equation, oracle or f"mpmath, {DIGITS} digits", cond,
                tolerances(cond, operations), tuple(flags), "acceptable" if accepted else "valid", accepted)


def condition(operation, inputs, truth, num):
    """The greatest error of an answer over its largest entry, per relative error of inputs, tables and states.

    Every number that is given (integers apart, which are exact), every abar that is looked up and every state between
    steps is off by up to DELTA of itself at random; DRAWS times, the worst counts, times 2 for what so few draws miss.
    """
    worst = 0.0
    for seed in range(DRAWS):
        noisy, known = perturbed(num, seed, DELTA), {}
        moved = answer(operation, {name: _moved(value, noisy, known) for name, value in inputs.items()}, noisy)
        for field, value in truth.items():
            worst = max(worst, distance(value, moved[field]) / float(DELTA))
    return max(1.0, 2 * worst)


def _moved(value, num, known):
    """The inputs' decimal strings with an error, the same for the same string; integers and names as they are."""
    if isinstance(value, list):
        return [_moved(part, num, known) for part in value]
    if isinstance(value, dict):
        return {key: _moved(part, num, known) for key, part in value.items()}
    if isinstance(value, str) and is_number(value) and float(value) != round(float(value)):
        return known.setdefault(value, num.stored(num.real(value)))
    return value


def is_number(text):
    """Whether a string is a decimal number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def flat(value):
    """The entries of nested lists and arrays, in order."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [entry for part in value for entry in flat(part)]
    return [value]


def distance(value, other):
    """Greatest difference over the largest entry of the first, a float."""
    value, other = flat(value), flat(other)
    top = max(abs(v) for v in value)
    return float(max(abs(a - b) for a, b in zip(value, other)) / top) if top else 0.0


def numbers(seed, shape, low=-2.0, high=2.0, digits=3):
    """Nested lists of decimal strings, drawn by a generator that is written here, so that files stay the same."""
    state = [seed * 2654435761 % 2 ** 32 or 1]

    def draw():
        state[0] = (1103515245 * state[0] + 12345) % 2 ** 31
        return f"{low + (high - low) * (state[0] >> 8) / (2 ** 23):.{digits}f}"

    def fill(shape):
        return [fill(shape[1:]) for _ in range(shape[0])] if shape else draw()

    for _ in range(8):
        draw()
    return fill(tuple(shape))
