"""One trajectory in every family: at levels of one SNR a sampler's x/alpha is the same, or its docstring says it isn't.

The data are a ring of Gaussians, so that the predictions are not linear; the start is alpha times one x/alpha and the
noises z are the same. In exact arithmetic x/alpha then agrees after each step.
"""
import numpy as np
import pytest

from refdiff import samplers
from refdiff.process import families, family_grids, grids
from refdiff.process.exact import ring
from refdiff.rng import Key
from refdiff.samplers import SAMPLERS

FAMILIES = [families.VP(), families.Flow(), families.TrigFlow()]
WORLD, X, Z = ring(std=.2), 8 * Key(1).normal((5, 2)), Key(2).normal((40, 5, 2))
STEPS = 9
ENDS = [grids.karras(STEPS + 1, .05, 8., final=None), grids.karras(STEPS, .05, 8.)]

SAME = [("ddpm", {}), ("ddim", {}), ("ddim", {"eta": .4}), ("ddim", {"eta": 1.}), ("euler", {}), ("heun", {}),
        ("dpm", {"order": 3}), ("dpm", {"order": 2, "form": "multi"}), ("dpmpp", {"order": 3}),
        ("dpmpp", {"order": 2, "form": "single"}), ("unipc", {}), ("unipc", {"kind": "eps", "B": "B1"}),
        ("deis", {"variable": "rho"}), ("deis", {"variable": "lambda"}), ("lms", {}),
        ("plms", {"start": "lower"}), ("plms", {"start": "rk4"}),
        ("predictor_corrector", {"predictor": "ancestral", "corrections": 0}), ("churn", {"S_churn": 2., "S_tmax": 7.}),
        ("ancestral", {}),
        ("euler_ancestral", {"eta": .5}), ("sde_dpmpp", {}), ("sde_dpmpp", {"order": 1, "tau": .5}),
        ("adaptive", {"rtol": 1e-4})]
APART = [("ddpm", {"variance": "large"}), ("ancestral", {"variance": "large"}), ("predictor_corrector", {}),
         ("predictor_corrector", {"size": "expected"}), ("predictor_corrector", {"corrections": 0}),
         ("reverse_diffusion", {}), ("euler_maruyama", {}), ("deis", {"variable": "t"}), ("plms", {})]


def trajectory(name, grid, options):
    """x/alpha after each step, (S, n, 2), from the same x/alpha and with the same noise."""
    first = grid.level(0)
    if name in ("ddpm", "ddim", "churn", "ancestral", "euler_ancestral", "sde_dpmpp", "predictor_corrector",
                "reverse_diffusion", "euler_maruyama"):
        options = {**options, "noise": lambda step: Z[step]}
    states = list(SAMPLERS[name](WORLD, grid, first.alpha * X, **options))
    return np.array([state.x / state.level.alpha for state in states])


def label(case):
    name, options = case
    return "-".join([name, *map(str, options.values())])


@pytest.mark.parametrize("case", SAME, ids=label)
def test_x_over_alpha_is_the_same_in_every_family(case):
    for exploding in ENDS:
        wanted = trajectory(case[0], exploding, case[1])
        for family in FAMILIES:
            found = trajectory(case[0], family_grids.onto(exploding, family), case[1])
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9, err_msg=f"{exploding.rule}: {family.rule}")


@pytest.mark.parametrize("case", APART, ids=label)
def test_a_sampler_that_depends_on_the_family_says_so(case):
    exploding = ENDS[0]
    wanted = trajectory(case[0], exploding, case[1])
    for family in FAMILIES:
        found = trajectory(case[0], family_grids.onto(exploding, family), case[1])
        assert np.abs(found - wanted).max() > 1e-3, family.rule
    assert "depends on the family" in " ".join(SAMPLERS[case[0]].__doc__.split())


def test_no_sampler_is_left_out():
    assert {name for name, _ in SAME + APART} == set(samplers.SAMPLERS) - {"consistency"}
