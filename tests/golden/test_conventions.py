"""The conventions: named once, with a default that is one of the values, and every one of them changes an answer."""
import numpy as np
import pytest

from refdiff.golden import conventions, store
from refdiff.golden.families.build import flat
from refdiff.golden.reference.answer import OPERATIONS, answer

CHOICES = [(c.name, value) for c in conventions.CONVENTIONS for value in c.others
           if set(c.operations) & set(OPERATIONS)]


def test_names_are_unique_and_defaults_are_values():
    names = [c.name for c in conventions.CONVENTIONS]
    assert len(set(names)) == len(names)
    for c in conventions.CONVENTIONS:
        assert c.default in c.values and c.default not in c.mistakes and set(c.mistakes) <= set(c.values)
        assert len(set(c.values)) == len(c.values) >= 2 and c.says and c.operations


def test_every_value_is_published_or_a_mistake():
    c = conventions.BY_NAME["final_alpha"]
    assert c.published == ("one", "abar_0") and c.mistakes == ("abar_1",) and c.others == ("abar_0", "abar_1")


def test_what_is_not_chosen_is_the_papers():
    c = conventions.choose(variance="large")
    assert c.variance == "large" and c.final_alpha == "one" and c.adam_epsilon == "outside"
    assert conventions.replaced(c, clip="1").variance == "large" and conventions.replaced(c, clip="1").clip == "1"


@pytest.mark.parametrize("given", [{"nosuch": "1"}, {"variance": "nosuch"}])
def test_unknown_names_and_values_are_refused(given):
    with pytest.raises(ValueError, match="nosuch"):
        conventions.choose(**given)


def changes(operation, inputs, name, value):
    """Whether a convention changes an answer, or makes the reference refuse it."""
    plain = answer(operation, inputs)
    try:
        other = answer(operation, inputs, **{name: value})
    except (ValueError, TypeError):
        return True
    for field in plain:
        a, b = (np.array([float(v) for v in flat(made[field])]) for made in (plain, other))
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-7, atol=0):
            return True
    return False


@pytest.mark.parametrize("name, value", CHOICES, ids=[f"{name}={value}" for name, value in CHOICES])
def test_every_value_of_every_convention_changes_some_case(name, value):
    c = conventions.BY_NAME[name]
    mine = [case for case in store.load() if case.operation in c.operations and case.verdict != "invalid"]
    assert mine
    mine.sort(key=lambda case: (name not in case.flags, _size(case.inputs)))
    assert any(changes(case.operation, _lists(case.inputs), name, value) for case in mine), \
        f"{name}={value} changes none of {len(mine)} cases"


def _size(value):
    """How long a case's inputs are: the small ones are asked first."""
    return sum(map(_size, value.values())) if isinstance(value, dict) else np.size(value)


def _lists(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return value
