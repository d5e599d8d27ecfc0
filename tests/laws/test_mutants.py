"""The laws can fail: every planted mistake dies, and by the law that is meant to notice it."""
import importlib
import warnings

import numpy as np
import pytest
from draw import fixed_cases
from laws import LAWS
from mutants import (CONSISTENT, PLANTED, consistent, guarded_windows, is_another_op, ops_of, source_mutants, users)

from refdiff.ops.op import REGISTRY

MODULES = sorted({op.forward.__module__ for op in REGISTRY.values()})

# A change of the source that changes no result: (function, change) -> why.
EQUIVALENT = {
    ("", "k // 2 => k // 3"): "the same for 1x1 and 3x3; test_corners has the 5x5 kernel",
    ("conv2d_forward", "k == 1 => k == 2"): "the route of a 1x1 kernel saves a copy, the windows give the same",
    ("conv2d_backward", "k > 1 => k > 2"): "as in the forward",
    ("conv2d_jvp", "0 * bdot => 0 / bdot"): "zero either way",
    ("spread", "stride * (p - 1) + 1 => stride * (p - 1) + 2"): "a further zero row, which the padding leaves out",
    ("spread", "stride * (q - 1) + 1 => stride * (q - 1) + 2"): "a further zero column, likewise",
    ("add_forward", "scale == 1.0 => scale == 1.000001"): "the product with 1 is saved, not needed",
    ("add_backward", "scale == 1.0 => scale == 1.000001"): "as in the forward",
}


def killed_by(name, mutant, cases):
    """Why the law named fails for the mutant, or None. A crash counts: the law's test would be red."""
    for case in cases:
        try:
            LAWS[name](mutant, case)
        except Exception as error:
            return error
    return None


def table(op, mutants, cases):
    rows = [f"{name}: " + (", ".join(k for k in LAWS if killed_by(k, mutant, cases)) or "NOTHING")
            for name, mutant in mutants]
    return f"\n{op.name}: mutant: the laws that kill it\n" + "\n".join(rows)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_mistake_planted_in_an_op_is_noticed_by_its_law(name):
    op, cases = REGISTRY[name], fixed_cases(REGISTRY[name])
    mutants = [(m, law, make(op, m)) for m, (law, make) in PLANTED.items() if is_another_op(m, op, cases)]
    alive = [(m, law) for m, law, mutant in mutants if killed_by(law, mutant, cases) is None]
    assert not alive, f"{alive} live" + table(op, [(m, mutant) for m, _, mutant in mutants], cases)


def test_every_law_has_a_mutant_that_only_it_is_asked_to_notice():
    assert {law for law, _ in PLANTED.values()} == set(LAWS)


@pytest.mark.parametrize("name", sorted(CONSISTENT))
def test_another_definition_with_a_right_gradient_is_noticed_by_the_scalar_loop(name):
    op, cases = REGISTRY[name], fixed_cases(REGISTRY[name])
    for mutant_name, mutant in consistent(op):
        noticed = killed_by("forward_equals_the_scalar_loop", mutant, cases)
        assert noticed, f"{mutant_name} lives" + table(op, [(mutant_name, mutant)], cases)
        for law in ("jvp_is_the_complex_step", "backward_is_the_transpose_of_jvp", "derivatives_are_linear"):
            error = killed_by(law, mutant, cases)
            assert error is None, f"{mutant_name} is not consistent, {law} fails: {error}"


def test_every_op_has_another_definition():
    assert set(CONSISTENT) == set(REGISTRY), "plant a wrong definition in tests/laws/mutants.py"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_op_itself_passes_where_its_mutants_die(name):
    cases = fixed_cases(REGISTRY[name])
    assert {law: e for law in LAWS if (e := killed_by(law, REGISTRY[name], cases))} == {}


@pytest.mark.parametrize("path", MODULES)
def test_no_operator_sign_or_number_of_the_source_can_change_unseen(path):
    module = importlib.import_module(path)
    uses, seen, alive = users(module), set(), []
    with guarded_windows():
        for function, change, load in source_mutants(module):
            seen.add((function, change))
            if (function, change) in EQUIVALENT:
                continue
            try:
                changed = load()
            except Exception:                                      # it does not even load
                continue
            names = uses.get(function, [op.name for op in ops_of(module)])
            if not any(killed_by(law, changed[n], fixed_cases(REGISTRY[n])) for n in names for law in LAWS):
                alive.append(f"in {function}: {change}")
    assert not alive, (f"{path}: these changes of the source go unseen; either a law has a hole, or the change is "
                       "harmless and belongs in EQUIVALENT with its reason:\n" + "\n".join(alive))
    stale = [key for key in EQUIVALENT if key[0] in uses and path.endswith(_home(key[0])) and key not in seen]
    assert not stale, f"EQUIVALENT names changes that are not possible any more: {stale}"


def _home(function):
    """The last part of the name of the module that defines a function."""
    homes = [m for m in MODULES if hasattr(importlib.import_module(m), function)]
    return homes[0].rpartition(".")[2] if homes else "nowhere"
