"""Every solver converges at the order that it claims, on two grids, and its docstring makes the claim."""
import re

import pytest

from refdiff.samplers.orders import CLAIMS, GRIDS, observe


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_observed_order_is_the_claimed_one(claim, grid):
    observed = observe(claim, grid)
    assert abs(observed.order - claim.order) < .15, observed


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_docstring_says_the_order_and_from_how_many_steps_on(claim):
    """In the sentences about order: the number itself, or k, p, p + 1 of the option `order`; and the steps."""
    text = " ".join(claim.sampler.__doc__.split())
    said = " ".join(sentence for sentence in re.split(r"(?<=[a-z0-9)\"][.]) ", text)
                    if re.search(r"\b[Oo]rder|steps", sentence))
    numbers = {int(n) for n in re.findall(r"(?<![\d.])\d+(?![\d.]*\d)", said)}
    named, general = claim.options.get("order"), re.search(r"[Oo]rder( of convergence:?)? [kp]\b", said)
    generally = {named, named + 1 if "p + 1" in said else named} if general and named else set()
    assert claim.order in numbers | generally, f"{claim.sampler.__name__} does not say order {claim.order}"
    assert claim.since in numbers, f"{claim.sampler.__name__} does not say from {claim.since} steps on"
