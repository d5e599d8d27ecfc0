"""What holds of every sampler by its name: fuzz over all that can be combined, noise, rows, dtypes and predictions.

Each sampler's own tests judge its numbers. Here each is asked for what none may do: to return a number that is not
finite, to take another number of steps than the grid has, to mix the rows of a batch, or to use a draw twice.
"""
import inspect
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refdiff import samplers
from refdiff.process import affine, families, family_grids, grids, preserving, schedules
from refdiff.process.exact import FiniteData, Gaussian, ring
from refdiff.process.gaussian import VARIANCES
from refdiff.process.parameterization import KINDS, LimitError
from refdiff.rng import Key
from refdiff.samplers import SAMPLERS
from refdiff.samplers.orders import CLAIMS

NAMES = sorted(set(SAMPLERS) - {"consistency"})           # which takes a consistency function: its tests are its own
NOISY = [name for name in NAMES if "noise" in inspect.signature(SAMPLERS[name]).parameters]

# Every value of every option; drawn together, legal or not.
OPTIONS = {
    "adaptive": {"method": ["RK45", "DOP853", "LSODA"], "rtol": [1e-3, 1e-6]},
    "ancestral": {"variance": [*VARIANCES], "end": ["mean", "noise"]},
    "churn": {"S_churn": [0., 2., 40.], "S_tmin": [0., .1], "S_tmax": [1., np.inf], "S_noise": [1., 1.003],
              "draws": ["used", "every"]},
    "ddim": {"eta": [0., .4, 1.]},
    "ddpm": {"variance": [*VARIANCES]},
    "deis": {"order": [1, 2, 3, 4], "variable": ["t", "rho", "lambda"], "start": ["lower", "rk4"],
             "lower_order_final": ["paper", "always", "never"]},
    "dpm": {"order": [1, 2, 3], "form": ["single", "multi"], "rule": [None, "truncated", "exact"],
            "start": [None, "lower", "single"], "lower_order_final": [None, "paper", "always", "never"],
            "r1": [None, .4], "r2": [None, .7]},
    "euler_ancestral": {"eta": [0., .5, 1.]},
    "euler_maruyama": {"dt": ["spacing", "T/N"], "end": ["mean", "noise"]},
    "lms": {"order": [1, 2, 3, 4], "start": ["lower", "rk4"], "lower_order_final": ["paper", "always", "never"]},
    "plms": {"order": [1, 2, 3, 4], "start": ["prk", "lower", "rk4"],
             "lower_order_final": ["paper", "always", "never"]},
    "predictor_corrector": {"predictor": ["reverse-diffusion", "ancestral"], "corrections": [0, 1, 2],
                            "size": ["norm", "batch-norm", "expected"], "snr": [.01, .16],
                            "first": ["predictor", "corrector"]},
    "reverse_diffusion": {"end": ["mean", "noise"]},
    "sde_dpmpp": {"order": [1, 2], "tau": [0., .5, 1.], "rule": ["truncated", "exact"], "end": ["mean", "noise"]},
    "unipc": {"order": [1, 2, 3, 4, 5, 6], "kind": ["x0", "eps"], "B": ["B1", "B2", "exact"],
              "corrector": ["paper", "every", "never"], "start": ["lower", "rk4"],
              "lower_order_final": ["paper", "always", "never"]},
}
OPTIONS["dpmpp"] = OPTIONS["dpm"]

WORLDS = {"gaussian": Gaussian([.7, -.4], [[.5, .2], [.2, .3]]), "ring": ring(),
          "finite": FiniteData([[0., 1.], [.5, -.2], [1.5, .3]])}
SCHEDULES = [schedules.linear(1000), schedules.scaled_linear(50), schedules.cosine(100), schedules.sigmoid(30),
             schedules.sigmoid_alpha_bar(40), schedules.quadratic(25),
             schedules.zero_terminal_snr(schedules.scaled_linear(60))]
FAMILIES = [preserving.VP(), preserving.SubVP(), families.Flow(), families.TrigFlow(), preserving.Cosine(),
            preserving.Laplace(), families.Geometric(.01, 50.),
            families.VarianceExploding()]

# Who refuses, in the words that a refusal begins with: a sampler, its grid, their family, or the prediction.
PARTS = [*NAMES, "grid", "interpolated", *(family.rule.partition("(")[0] for family in FAMILIES)]
REFUSES = re.compile(rf"({'|'.join(PARTS)})\b"
                     rf"|({'|'.join(KINDS)}|F) cannot be had from ({'|'.join(KINDS)}|F) at t = ")


@st.composite
def any_grid(draw):
    steps = draw(st.integers(1, 20))
    kind = draw(st.sampled_from(["discrete", "sigmas", "family", "lambda"]))
    if kind == "discrete":
        return grids.discrete(draw(st.sampled_from(SCHEDULES)), steps, draw(st.sampled_from(sorted(grids.RULES))),
                              draw(st.sampled_from(["zero", "first", "none"])))
    if kind == "sigmas":
        make = draw(st.sampled_from([grids.karras, grids.exponential, grids.polyexponential]))
        return make(steps + 1, draw(st.sampled_from([1e-4, .002, .05])), draw(st.sampled_from([1., 80.])),
                    final=draw(st.sampled_from([0.0, None])))
    family = draw(st.sampled_from(FAMILIES))
    make = family_grids.uniform_time if kind == "family" else family_grids.uniform_lambda
    return make(family, steps, draw(st.sampled_from([0.0, .01])), draw(st.sampled_from([None, .8])),
                final=draw(st.sampled_from([None, "zero"])))


def as_kind(world, kind):
    """The world's prediction as a network of another kind makes it."""
    return lambda x, level: world(x, level) if kind == "x0" else world(x, level).to(kind, .5)


def begin(grid, world, n=3):
    level = grid.level(0)
    return level.alpha * world.sample(Key(3), n) + level.sigma * Key(1).normal((n, 2))


@pytest.mark.parametrize("name", NAMES)
def test_any_combination_is_finite_with_the_grids_steps_or_is_refused(name):
    reached = []

    @settings(derandomize=True, database=None, deadline=None, max_examples=60,
              suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data):
        options = {key: data.draw(st.sampled_from(values), label=key) for key, values in OPTIONS.get(name, {}).items()
                   if data.draw(st.booleans(), label=f"give {key}")}
        kind = data.draw(st.sampled_from([*KINDS, "F"]), label="prediction")
        world = WORLDS[data.draw(st.sampled_from(sorted(WORLDS)), label="world")]
        try:
            grid = data.draw(any_grid(), label="grid")
            x = begin(grid, world)
            if name in NOISY:
                options["noise"] = samplers.noise_from(Key(2), x)
            with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"):
                warnings.simplefilter("error")
                states = list(SAMPLERS[name](as_kind(world, kind), grid, x, **options))
        except ValueError as refusal:                     # LimitError too: a refusal by name, and not by numpy or math
            assert type(refusal) in (ValueError, LimitError) and REFUSES.match(str(refusal)), repr(refusal)
            return
        assert len(states) == len(grid) and [s.step for s in states] == list(range(len(grid)))
        assert states[-1].level == grid.level(len(grid))
        assert all(np.isfinite(s.x).all() for s in states), (grid.rule, options)
        reached.append(grid.rule)

    run()
    assert len(reached) >= 20, f"{name}: only {len(reached)} of 60 combinations were not refused"


GRID = grids.on(preserving.VP(), np.linspace(.9, .05, 7), "six steps")


@pytest.mark.parametrize("name", NOISY)
def test_every_draw_is_used_once_and_none_after_the_last_step(name):
    options = {"eta": 1.} if name == "ddim" else {"S_churn": 5.} if name == "churn" else \
        {"size": "expected"} if name == "predictor_corrector" else {}
    drawn = []

    def run(x, noise):
        def counted(step):
            drawn.append(step)
            return noise(step)
        return samplers.run(SAMPLERS[name](WORLDS["gaussian"], GRID, x, noise=counted, **options))

    steps = 2 * len(GRID) if name == "predictor_corrector" else len(GRID)
    read = affine.probe(run, steps, 2)                    # refuses a second draw of the same step
    assert drawn == sorted(drawn) and drawn
    for step in range(steps):
        assert read.gains[step].any() == (step in drawn), "a draw that does not reach the result, or one unasked for"
    if name != "predictor_corrector":
        assert len(GRID) - 1 not in drawn or name == "churn"      # churn raises the level of its last step too


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_mix_and_the_dtype_and_x_are_kept(name):
    world, x = WORLDS["gaussian"], 1.1 * Key(4).normal((4, 2))
    z = Key(5).normal((20, 4, 2))
    for dtype in (np.float64, np.float32):
        noisy = name in NOISY
        start = x.astype(dtype)
        before = start.copy()
        options = {"noise": lambda step: z[step].astype(dtype)} if noisy else {}
        whole = samplers.run(SAMPLERS[name](world, GRID, start, **options))
        assert whole.dtype == dtype and np.array_equal(start, before)
        for i in range(4):
            options = {"noise": lambda step: z[step, i:i + 1].astype(dtype)} if noisy else {}
            alone = samplers.run(SAMPLERS[name](world, GRID, start[i:i + 1], **options))
            np.testing.assert_allclose(whole[i:i + 1], alone, atol=1e-11 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_kind_of_prediction_does_not_matter(name):
    world, x = WORLDS["ring"], begin(GRID, WORLDS["ring"])
    options = {"noise": samplers.noise_from(Key(6), x)} if name in NOISY else {}
    expected = samplers.run(SAMPLERS[name](world, GRID, x, **options))
    for kind in [*KINDS, "F"]:
        got = samplers.run(SAMPLERS[name](as_kind(world, kind), GRID, x, **options))
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8, err_msg=kind)


def test_every_sampler_claims_an_order():
    claimed = {claim.sampler for claim in CLAIMS}
    without = {name for name in NAMES if SAMPLERS[name] not in claimed} - {"adaptive"}      # its own tolerance
    assert not without, f"no claim in samplers/orders.py: {sorted(without)}"
