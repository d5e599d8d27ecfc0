"""The laws can fail: every planted mistake dies, and by the law that is meant to notice it."""
import importlib
import warnings

import numpy as np
import pytest
from draw import fixed_cases
from laws import LAWS, implementations, variant
from mutants import CONSISTENT, PLANTED, consistent, is_another_op
from mutate_source import guarded_windows, ops_of, run, shared_function, source_mutants, users

import refdiff.ops.op
from refdiff.ops.op import REGISTRY

MODULES = sorted({op.forward.__module__ for op in REGISTRY.values()})

# A change of the source that changes no result: (module, function, change) -> why.
EQUIVALENT = {
    ("conv", "", "k // 2 => k // 3"): "the same for 1x1 and 3x3; test_corners has the 5x5 kernel",
    ("conv", "conv2d_forward", "k == 1 => k == 2"): "the route of a 1x1 kernel saves a copy, the windows give the same",
    ("conv", "conv2d_backward", "k > 1 => k > 2"): "as in the forward",
    ("conv", "conv2d_jvp", "0 * bdot => 0 / bdot"): "zero either way",
    ("conv", "spread", "stride * (p - 1) + 1 => stride * (p - 1) + 2"): "a further row, which the padding leaves out",
    ("conv", "spread", "stride * (q - 1) + 1 => stride * (q - 1) + 2"): "a further column, likewise",
    ("op", "sum_pixels", "backend.of(a=a).ones((1, h * w), a.dtype) => backend.of(a=a).ones((2, h * w), a.dtype)"):
        "the sum twice, of which the first is taken",
    ("elementwise", "add_forward", "scale == 1.0 => scale == 1.000001"): "the product with 1 is saved, not needed",
    ("elementwise", "add_backward", "scale == 1.0 => scale == 1.000001"): "as in the forward",
    ("variational", "_tanh_log_cdf", "u.real < 0 => u.real >= 0"): "the same but for overflow; test_corners goes there",
    ("variational", "_tanh_log_cdf", "u.real < 0 => u.real < 1"): "likewise",
    ("variational", "binned_normal_forward", "d.real > 0 => d.real > 1"): "the same but for digits; as above",
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


def test_a_route_is_under_every_law_and_a_right_one_passes():
    op = REGISTRY["conv2d"]
    for right in (True, False):
        def backward(saved, dy):
            dx, dw, db = op.backward(saved, dy)
            return dx, dw, db if right else db.astype(np.float64)
        routed = variant(op, "routed", routes={"other": (op.forward, backward)})
        cases = fixed_cases(op)
        broken = {law for law in LAWS for one in implementations(routed) if killed_by(law, one, cases)}
        assert broken == (set() if right else {"dtype_is_kept"})


def noticed(names, ops):
    return any(killed_by(law, ops[name], fixed_cases(REGISTRY[name])) for name in names for law in LAWS)


def judge(module, dies):
    """Run dies(function, tree) on every change of a module; complain of those that live, and of stale exceptions."""
    home, alive, seen = module.__name__.rpartition(".")[2], [], set()
    with guarded_windows():
        for function, change, tree in source_mutants(module):
            seen.add((home, function, change))
            if (home, function, change) not in EQUIVALENT and not dies(function, tree):
                alive.append((home, function, change))
    assert not alive, (f"{home}.py: these changes of the source go unseen; either a law has a hole, or the change is "
                       "harmless and belongs in EQUIVALENT with its reason:\n" + "\n".join(map(str, alive)))
    stale = [key for key in EQUIVALENT if key[0] == home and key not in seen]
    assert not stale, f"EQUIVALENT names changes that are not possible any more: {stale}"


@pytest.mark.parametrize("path", MODULES)
def test_no_operator_sign_or_number_of_the_source_can_change_unseen(path):
    module = importlib.import_module(path)
    home, uses = path.rpartition(".")[2], users()

    def dies(function, tree):
        try:
            _, changed = run(tree, module)
        except Exception:                                          # it does not even load
            return True
        return noticed(uses.get((home, function), [op.name for op in ops_of(module)]), changed)

    judge(module, dies)


def test_no_operator_sign_or_number_of_the_shared_functions_can_change_unseen():
    uses = users()

    def dies(function, tree):
        if ("op", function) not in uses or function.startswith(("wanted", "check_")):
            return True                                            # no computation; test_op_errors judges the checks
        with shared_function(function, run(tree, refdiff.ops.op)[0][function]):
            return noticed(uses["op", function], REGISTRY)

    judge(refdiff.ops.op, dies)
