"""Every solver converges at the order that it claims, on two grids."""
import pytest

from refdiff.samplers.orders import CLAIMS, GRIDS, observe


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_observed_order_is_the_claimed_one(claim, grid):
    observed = observe(claim, grid)
    assert abs(observed.order - claim.order) < .15, observed
