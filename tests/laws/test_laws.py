"""Every registered op, and every faster route of it, under every law. A new op needs only an oracle."""
import pytest
from draw import cases, option_sets
from hypothesis import HealthCheck, given, settings
from laws import LAWS, implementations
from oracles import ORACLES

from refdiff.ops.op import REGISTRY

EXAMPLES = {"forward_equals_the_scalar_loop": 6}          # per set of options; slow loops get fewer


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_op_obeys(name, law):
    op = REGISTRY[name]
    options = option_sets(op)
    for chosen in options:
        @settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
                  max_examples=EXAMPLES.get(law, 8 if len(options) > 4 else 16))
        @given(case=cases(op, chosen))
        def holds(case):
            for implementation in implementations(op, law):
                LAWS[law](implementation, case)

        holds()


def test_every_op_has_an_oracle_and_every_oracle_an_op():
    assert set(ORACLES) == set(REGISTRY), "write the missing loop in tests/laws/oracles.py"
