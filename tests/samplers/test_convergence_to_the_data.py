"""With more steps the law that a stochastic sampler's own code gives approaches the data's, on every schedule.

The law is read off the code by affine.probe, begun with the true marginal, and ends on clean Gaussian data.
"""
import inspect
import math

import numpy as np
import pytest

from refdiff import samplers
from refdiff.process import affine, families, grids, schedules
from refdiff.process.exact import Gaussian
from refdiff.samplers import SAMPLERS

WORLD = Gaussian([.7], [[.3]])
COUNTS = (64, 256, 1000)
SCHEDULES = {"linear": schedules.linear(1000), "cosine": schedules.cosine(1000)}
GRIDS = {f"{name}, {rule}": lambda N, schedule=SCHEDULES[name], rule=rule: grids.discrete(schedule, N, rule)
         for name, rule in (("linear", "trailing"), ("linear", "leading"), ("cosine", "trailing"),
                            ("cosine", "linspace"))}
FLOWS = {f"flow, shift {s:g}": lambda N, s=s: grids.on(families.Flow(s), np.linspace(.98, 0, N + 1)) for s in (1., 3.)}

# the sampler, its options, its weak order
CASES = [("ddpm", {}, 1), ("ddpm", {"variance": "large"}, 1), ("ddim", {"eta": .5}, 1), ("ddim", {"eta": 1.}, 1),
         ("euler_maruyama", {}, 1), ("reverse_diffusion", {}, 1), ("ancestral", {}, 1),
         ("ancestral", {"variance": "large"}, 1), ("euler_ancestral", {}, 1), ("sde_dpmpp", {"order": 1}, 1),
         ("predictor_corrector", {"size": "expected", "snr": .01}, 1), ("sde_dpmpp", {}, 2),
         ("churn", {"S_churn": 5., "S_tmax": 2.}, 2)]


def error(name, options, grid):
    """The distance of the output's (mean, variance) from the data's."""
    start = WORLD.marginal(grid.level(0))
    read = affine.probe(lambda x, noise: samplers.run(SAMPLERS[name](WORLD, grid, x, noise=noise, **options)),
                        2 * len(grid), 1)
    mean, cov = read.law(start.mean, start.cov)
    return math.hypot(float(mean[0]) - .7, float(cov[0, 0]) - .3)


@pytest.mark.parametrize("name, options, order", CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_more_steps_come_closer_to_the_data(name, options, order):
    """A schedule's last steps are its own whatever N; on the straight path the order is seen as well."""
    for label, make in {**GRIDS, **FLOWS}.items():
        errors = [error(name, options, make(N)) for N in COUNTS]
        assert all(b < a or b < 1e-4 for a, b in zip(errors, errors[1:])), (label, errors)
        assert errors[-1] < .005 and errors[-1] < errors[0] / 5, (label, errors)
        if label in FLOWS:
            assert -math.log(errors[2] / errors[1]) / math.log(COUNTS[2] / COUNTS[1]) > order - .3, (label, errors)


def test_every_stochastic_sampler_is_judged():
    noisy = {name for name in SAMPLERS if "noise" in inspect.signature(SAMPLERS[name]).parameters}
    assert {name for name, _, _ in CASES} == noisy - {"consistency"}        # exact at any number of steps
