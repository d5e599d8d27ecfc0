"""Why an answer differs: the convention that explains it to all its digits, else the quantity that first departs.

    explain("step", inputs, fields)     "agrees to 15 digits with final_alpha=abar_0: abar of the level to end on ..."

The reference computes the same operation under every other value of every convention that matters to it, one at a time
and then in pairs. An explanation must agree where the paper's answer does not, so one that changes nothing is none.
What no convention explains is looked at piece by piece: is it a constant times the answer, which entry of the schedule,
which level of the grid, which coefficient of the step, which call of the network departs first; and beside that,
whether so many digits are what float32 has.
"""
import itertools
from dataclasses import dataclass

import numpy as np

from . import conventions
from .adapter import call
from .case import digits
from .handed import handed
from .reference.answer import OPERATIONS, answer
from .variations import variations

ENOUGH = 9.0                # digits of an explanation in float64: wrong conventions agree to 1 to 4, right ones to 12
SINGLE = 5.0                # of one in float32
EACH, ALL = 24_000, 300_000     # what all pairs of one answer may cost, and those of an audit, in steps of a sampler
PRICES = {"network": 1000, "block_attention": 50, "block_res": 50, "schedule": 50}      # of one answer; a step: 0.03 ms
OTHERS = 3


@dataclass(frozen=True)
class Cause:
    """Conventions that explain an answer, to so many digits, in words; none of them where it is only described."""

    says: str
    conventions: dict
    digits: float | None = None


class Budget:
    """What searches for pairs may still cost: counted, not timed, so that causes are the same on any machine."""

    def __init__(self, left=ALL):
        self.left = left

    def pairs(self, operation, inputs):
        """How many answers one search may compute, and the price of each."""
        price = inputs["steps"] if operation == "trajectory" else PRICES.get(operation, OTHERS)
        return max(min(EACH, self.left), 0) // price, price


def agreement(fields, expected):
    """The least digits over the fields answered; None for a field that is not expected or has another shape."""
    if len(fields) == len(expected) == 1 and next(iter(fields)) in ("", "x", "states"):
        fields = {next(iter(expected)): next(iter(fields.values()))}
    if not fields or not set(fields) <= set(expected):
        return None
    found = []
    for name, got in fields.items():
        wanted = np.array(expected[name], dtype=np.float64)
        got = np.asarray(got)
        if got.shape != wanted.shape and got.ndim == wanted.ndim + 1 and got.shape[1:] == wanted.shape:
            got = got[-1]                                    # a list of states, where the last one is wanted
        elif name == "states" and got.shape == wanted.shape[1:]:
            wanted = wanted[-1]
        found.append(digits(got.reshape(wanted.shape) if got.size == wanted.size == 1 else got, wanted))
    return None if None in found else min(found)


def single(fields):
    """Whether an answer came in float32."""
    return any(np.asarray(value).dtype == np.float32 for value in fields.values())


def explain(operation, inputs, fields, flags=(), known=(), budget=None):
    """The Cause of an answer that differs, or None. known: the conventions of earlier causes, tried before pairs.

    The flags of a case are tried first; among explanations the one with the most digits is taken, flags first.
    """
    if operation not in OPERATIONS or not all(np.isfinite(np.asarray(value)).all() for value in fields.values()):
        return None                         # NaN agrees with the NaN of many a convention, and explains nothing
    needed = SINGLE if single(fields) else ENOUGH
    base = agrees(operation, inputs, fields, {})
    tried = [(chosen, agrees(operation, inputs, fields, chosen)) for chosen in _singles(operation, flags)]
    found = [(chosen, d) for chosen, d in tried if d is not None and d >= needed and d > (base or 0) + 1]
    if not found:
        found = [(chosen, d) for chosen in known if (d := agrees(operation, inputs, fields, chosen)) is not None
                 and d >= needed and d > (base or 0) + 1][:1]
    if not found:
        if other := _varied(operation, inputs, fields, needed, base):
            return other
        if (base or 0) <= ENOUGH:                                # where more is lost, nothing but digits is
            tried.sort(key=lambda one: one[1] == base)           # first those that change something by themselves
            singles = [chosen for chosen, _ in tried]
            found = _pairs(operation, inputs, fields, singles, max(needed, (base or 0) + 1), budget or Budget())
    if not found:
        return None
    best = max(d for _, d in found)
    near = [chosen for chosen, d in found if d > best - 2]
    return Cause(_words(near, best), near[0], best)


def _singles(operation, flags):
    """Every other value of every convention that matters to an operation; those that the flags name first."""
    mine = [c for c in conventions.CONVENTIONS if operation in c.operations or c.name in flags]
    mine.sort(key=lambda c: c.name not in flags)
    return [{c.name: value} for c in mine for value in c.others if c.name != "table_dtype"]


def _pairs(operation, inputs, fields, singles, needed, budget):
    """The first two conventions that explain an answer together, those first that are first by themselves."""
    most, price = budget.pairs(operation, inputs)
    order = sorted(itertools.combinations(range(len(singles)), 2), key=sum)
    pairs = [(singles[i], singles[j]) for i, j in order if not set(singles[i]) & set(singles[j])][:most]
    for a, b in pairs:
        d = agrees(operation, inputs, fields, a | b)
        if d is not None and d >= needed:
            return [(a | b, d)]
    budget.left -= price * len(pairs)
    return []


def agrees(operation, inputs, fields, chosen=None):
    """The digits in which an answer agrees with the reference under conventions; None where they do not compare."""
    try:
        with np.errstate(all="ignore"):
            return agreement(fields, answer(operation, _for_reference(inputs), **(chosen or {})))
    except (ValueError, KeyError, TypeError, ArithmeticError, IndexError):
        return None


def _for_reference(inputs):
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in inputs.items()}


def _varied(operation, inputs, fields, needed, base):
    """The answer to another question: another parameter, or two arguments exchanged."""
    found = [(words, d) for words, other in variations(operation, inputs)
             if (d := agrees(operation, other, fields, {})) is not None and d >= needed and d > (base or 0) + 1]
    if not found:
        return None
    best = max(d for _, d in found)
    near = [words for words, d in found if d > best - 2]
    return Cause(f"agrees to {whole(best)} digits with the answer {' or '.join(near[:3])}", {}, best)


def _words(near, best):
    one, *others = [", ".join(f"{name}={value}" for name, value in chosen.items()) for chosen in near]
    says = "; ".join(conventions.BY_NAME[name].says for name in near[0])
    also = f" (as with {' or '.join(others[:3])})" if others else ""
    return f"agrees to {whole(best)} digits with {one}{also}: {says}"


def whole(digits):
    return "all" if digits >= 17 else int(digits)


# ---- what departs, where no convention explains it

def described(adapter, operation, inputs, fields, calls=()):
    """Words for what departs, and beside it what so many digits look like, which proves nothing; "" for neither."""
    base = agrees(operation, inputs, fields)
    if base is not None and base > ENOUGH:
        return (f"agrees to {base:.1f} digits: digits are lost, in a difference of near numbers or to a small constant "
                "that is added")
    said = departure(adapter, operation, inputs, fields, calls), "" if base is None else _looks(operation, inputs, base)
    return "; ".join(filter(None, said))


def _looks(operation, inputs, base):
    """An answer as near to the paper's as float32 tables would be, or nearer."""
    try:
        rough = answer(operation, _for_reference(inputs), table_dtype="float32")
        with_tables = agreement({name: np.array(v, dtype=np.float64) for name, v in rough.items()},
                                answer(operation, _for_reference(inputs)))
    except (ValueError, KeyError, TypeError):
        with_tables = None
    if with_tables is not None and 2.5 < base and abs(base - with_tables) < 1.5:
        return f"it agrees to {base:.1f} digits, as tables in float32 do ({with_tables:.1f}): table_dtype=float32"
    return f"it agrees to {base:.1f} digits, as if something on the way were in float32" if base >= 5.5 else ""


def departure(adapter, operation, inputs, fields, calls=()):
    """Words for the first quantity that departs: schedule, grid, coefficient, state, or factor; "" where none does."""
    for look in (_schedule, _grid, _coefficient, _state):
        said = look(adapter, operation, inputs, calls)
        if said:
            return said
    return _factor(operation, inputs, fields)


def _expected(operation, inputs):
    try:
        return answer(operation, _for_reference(inputs))
    except (ValueError, KeyError, TypeError):
        return None


def _factor(operation, inputs, fields):
    """Words for how the field that departs most differs: by a factor, by a constant, or from which entry on."""
    expected = _expected(operation, inputs)
    if not expected or not fields:
        return ""
    pairs = [(name, np.ravel(got), np.ravel(np.array(expected.get(name or next(iter(expected)), []), dtype=np.float64)))
             for name, got in fields.items()]
    pairs = [(name, got, wanted) for name, got, wanted in pairs if got.shape == wanted.shape and got.size]
    if not pairs or not all(np.isfinite(got).all() for _, got, _ in pairs):
        return ""
    name, got, wanted = min(pairs, key=lambda pair: digits(*pair[1:]))
    it = name if len(fields) > 1 else "it"
    k = float(got @ wanted / (wanted @ wanted)) if np.any(wanted) else 0
    if k and digits(got / k, wanted) > ENOUGH and wanted.size > 1:
        return f"{it} is {k:.10g} times the answer"
    shift = got - wanted
    if wanted.size > 1 and np.ptp(shift) < 1e-12 * np.abs(wanted).max():
        return f"{it} is the answer {shift[0]:+.10g}"
    i = next(iter(np.flatnonzero(~np.isclose(got, wanted, rtol=1e-9, atol=0))), 0)
    entry = f"entry {i}" + (f" of {name}" if len(fields) > 1 else "") if got.size > 1 else it
    return f"{entry} is {got[i]:.10g}, wanted {wanted[i]:.10g}"


def _schedule(adapter, operation, inputs, calls):
    if operation not in ("grid", "posterior", "step", "trajectory") or inputs.get("T") is None:
        return ""
    return _first(adapter, "schedule", {"name": inputs["schedule"], "T": inputs["T"]}, "schedule", "t")


def _grid(adapter, operation, inputs, calls):
    if operation != "trajectory":
        return ""
    asked = {name: inputs[name] for name in ("schedule", "T", "rule", "steps", "final")} | inputs.get(
        "grid_options", {})
    return _first(adapter, "grid", asked, "grid", "level")


def _first(adapter, operation, inputs, what, index):
    """"the grid departs first: t at level 3 is 700, wanted 699"."""
    fields, expected = call(adapter, operation, handed(operation, inputs)).fields, _expected(operation, inputs)
    if not fields or not expected:
        return ""
    for name, got in fields.items():
        wanted = np.array(expected.get(name, []), dtype=np.float64)
        if np.shape(got) != wanted.shape:
            continue
        wrong = np.flatnonzero(~np.isclose(got, wanted, rtol=1e-9, atol=1e-14))
        if len(wrong):
            i = int(wrong[0])
            return f"the {what} departs first: {name} at {index} {i} is {got[i]:.10g}, wanted {wanted[i]:.10g}"
    return ""


def _coefficient(adapter, operation, inputs, calls):
    """The step is linear in x, in the prediction and in the noise: each with 1 for it and 0 for the others."""
    if operation == "trajectory" and callable(getattr(adapter, "step", None)) and inputs.get("T"):
        grid = _expected("grid", {name: inputs[name] for name in ("schedule", "T", "rule", "steps", "final")})
        if not grid:
            return ""
        skip = ("steps", "rule", "final", "denoiser", "noise", "x", "grid_options", "states")
        rest = {name: value for name, value in inputs.items() if name not in skip}
        for i in range(len(grid["t"]) - 1):
            said = _coefficient(adapter, "step", rest | {"t": grid["t"][i], "s": grid["t"][i + 1], "x": 0.0,
                                                         "prediction": 0.0, "noise": 0.0}, ())
            if said:
                return f"step {i}: {said}"
        return ""
    if operation != "step":
        return ""
    asked = {**inputs, "kind": inputs.get("kind", "eps")}
    zero = [[0.0]]
    for name in ("x", "prediction", "noise"):
        if inputs.get(name) is None:
            continue
        probe = {**asked, "x": zero, "prediction": zero, "noise": None if inputs.get("noise") is None else zero}
        probe[name] = [[1.0]]
        fields, expected = call(adapter, "step", handed("step", probe)).fields, _expected("step", probe)
        if not fields or not expected:
            return ""
        got = float(np.ravel(next(iter(fields.values())))[0])
        wanted = float(np.ravel(np.array(expected["x"], dtype=np.float64))[0])
        if abs(got - wanted) > 1e-9 * max(abs(wanted), 1e-3):
            return f"the coefficient of {name} is {got:.10g}, wanted {wanted:.10g}"
    return ""


def _state(adapter, operation, inputs, calls):
    """The first call of the network at which t or x is another than in the reference's trajectory."""
    if operation != "trajectory" or not calls:
        return ""
    expected = _expected("trajectory", {**inputs, "states": True})
    grid = _expected("grid", {name: inputs[name] for name in ("schedule", "T", "rule", "steps", "final")}
                     | inputs.get("grid_options", {}))
    if not expected or not grid or len(calls) != len(grid["t"]) - 1:
        return ""
    x = np.array(inputs["x"], dtype=np.float64)
    states = [x, *(np.array(s, dtype=np.float64) for s in expected["states"])]
    for k, ((t, got), wanted) in enumerate(zip(calls, states)):
        if abs(t - grid["t"][k]) > 1e-6 * max(1.0, abs(grid["t"][k])):
            return f"the network is told t = {t:g} at step {k}, wanted {grid['t'][k]:g}"
        if got.shape == wanted.shape and digits(got, wanted) < 8:
            return f"the state departs first: x at call {k} of the network (t = {t:g}), made by step {k - 1}"
    return f"the state departs first in the last step, {len(calls) - 1}"
