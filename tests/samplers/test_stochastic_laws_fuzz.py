"""Every stochastic sampler has the law of its recursion whatever the grid, options, prediction and device."""
import math

import numpy as np
import pytest
import standin
from gaussian_law import COSINE, LINEAR, WORLD, check_law, many, noisy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refdiff import samplers
from refdiff.process import affine, affine_moves, families, grids
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers import variances


@st.composite
def any_grid(draw):
    """Levels of a random family at random places, or a random subset of a schedule's times."""
    if draw(st.booleans()):
        schedule = draw(st.sampled_from([LINEAR, COSINE]))
        times = draw(st.lists(st.integers(1, 990), min_size=4, max_size=60, unique=True))
        return grids.at_times(schedule, [*sorted(times, reverse=True), *([0] if draw(st.booleans()) else [])])
    family = draw(st.sampled_from([families.VP(), families.SubVP(), families.Flow(), families.TrigFlow(),
                                   families.VarianceExploding(), families.Geometric(.01, 50.)]))
    places = draw(st.lists(st.integers(1, 998), min_size=4, max_size=60, unique=True))
    t_max = min(family.t_max, 20.)
    return grids.on(family, [t_max * place / 1000 for place in sorted(places, reverse=True)])


def of_kind(kind):
    return lambda x, level: Prediction(kind, getattr(WORLD(x, level), kind), x, level)


def case(name, grid, denoiser, draw):
    """(sample, moves, draws) of a sampler with random options."""
    end = draw(st.sampled_from(["mean", "noise"]))
    if name == "ddpm":
        kind = draw(st.sampled_from(["small", "large"]))
        return (lambda x, noise: samplers.ddpm(denoiser, grid, x, kind, noise),
                lambda: affine.steps(affine.ddpm_step(kind), grid, WORLD), len(grid) - 1)
    if name == "ddim":
        eta = draw(st.floats(.01, 1))
        return (lambda x, noise: samplers.ddim(denoiser, grid, x, eta, noise),
                lambda: affine.steps(affine.ddim_step(eta), grid, WORLD), len(grid) - 1)
    if name == "reverse_diffusion":
        return (lambda x, noise: samplers.reverse_diffusion(denoiser, grid, x, end, noise),
                lambda: affine_moves.reverse_diffusion(grid, WORLD, end), noisy(grid, end))
    if name == "ancestral":
        kind = draw(st.sampled_from(["small", "large"]))
        return (lambda x, noise: samplers.ancestral(denoiser, grid, x, kind, end, noise),
                lambda: affine_moves.ancestral(grid, WORLD, kind, end), noisy(grid, end))
    if name == "sde_dpmpp":
        tau, order, rule = (draw(st.floats(.01, 3)), draw(st.sampled_from([1, 2])),
                            draw(st.sampled_from(["truncated", "exact"])))
        return (lambda x, noise: samplers.sde_dpmpp(denoiser, grid, x, order, tau, rule, end, noise),
                lambda: affine_moves.sde_multistep(grid, WORLD, tau, order, rule, end), noisy(grid, end))
    if name == "predictor_corrector":
        snr, n, first = draw(st.floats(.01, .3)), draw(st.integers(0, 3)), draw(st.sampled_from(["predictor",
                                                                                                "corrector"]))
        return (lambda x, noise: samplers.predictor_corrector(denoiser, grid, x, "ancestral", n, snr, "expected", first,
                                                              noise),
                lambda: affine_moves.langevin(grid, WORLD, affine_moves.ancestral(grid, WORLD), snr, n, first),
                len(grid) - 1 + n * (len(grid) - (first == "predictor")))
    S_churn, S_noise = draw(st.floats(.1, 100)), draw(st.floats(.9, 1.1))
    gamma = min(S_churn / len(grid), math.sqrt(2) - 1)
    ratio = grid.sigma / grid.alpha
    top = ratio[0] / 1.6                                         # within the family also after churning
    steps = [i for i in range(len(grid)) if ratio[i] <= top]

    def churned(tau):
        return (tau * (1 + gamma), S_noise * tau * math.sqrt(gamma * (2 + gamma))) if tau <= top else (tau, 0.0)
    return (lambda x, noise: samplers.churn(denoiser, grid, x, S_churn, S_tmax=top, S_noise=S_noise,
                                            noise=lambda i: noise(steps.index(i))),
            lambda: affine_moves.churned_heun(grid, WORLD, churned), len(steps))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "reverse_diffusion", "ancestral", "sde_dpmpp", "predictor_corrector",
                                  "churn"])
def test_the_law_is_that_of_the_recursion_for_any_grid_options_and_prediction(name):
    @settings(derandomize=True, database=None, deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data):
        grid = data.draw(any_grid())
        kind = data.draw(st.sampled_from(["x0", "eps", "v", "score", "velocity"]))
        sample, moves, draws = case(name, grid, of_kind(kind), data.draw)
        check_law(sample, moves, grid, draws)
    run()


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_has_the_law_of_its_recursion_on_every_grid(variance):
    for grid in many():
        check_law(lambda x, noise: samplers.ddpm(WORLD, grid, x, variance, noise),
                  lambda: affine.steps(affine.ddpm_step(variance), grid, WORLD), grid, len(grid) - 1)


@pytest.mark.parametrize("eta", [0., .3, 1.])
def test_ddim_has_the_law_of_its_recursion_on_every_grid(eta):
    for grid in many():
        check_law(lambda x, noise: samplers.ddim(WORLD, grid, x, eta, noise),
                  lambda: affine.steps(affine.ddim_step(eta), grid, WORLD), grid, len(grid) - 1 if eta else 0)


def test_the_grids_of_the_law_are_of_every_rule_and_of_5_to_1000_steps():
    made = list(many())
    exponential = grids.exponential(30, .01, 50.).rule
    for rule in [*grids.RULES, "every", "karras", "on", exponential, "polyexponential(n=50", "uniform_lambda",
                 "shifted_flow"]:
        assert any(grid.rule.startswith(rule) for grid in made), rule
    assert min(map(len, made)) == 5 and max(map(len, made)) == 1000


def test_sde_dpmpp_starts_from_a_level_without_signal():
    dark = Grid([2, 1, 0], [0., .7, 1.], [1., .8, 0.], "zero terminal SNR")
    for tau in (0., .4, 1.):
        check_law(lambda x, noise: samplers.sde_dpmpp(WORLD, dark, x, tau=tau, noise=noise),
                  lambda: affine_moves.sde_multistep(dark, WORLD, tau), dark, 1 if tau else 0)


# ---- on the stand-in for a device: the same bits, where x lives

CASES = [("churn", {"S_churn": 1.}), ("churn", {"S_churn": 1., "draws": "every"}), ("euler_maruyama", {}),
         ("euler_maruyama", {"dt": "T/N", "end": "noise"}), ("reverse_diffusion", {}), ("ancestral", {}),
         ("euler_ancestral", {}), ("predictor_corrector", {}), ("predictor_corrector", {"size": "batch-norm"}),
         ("predictor_corrector", {"size": "expected", "first": "corrector"}), ("sde_dpmpp", {}),
         ("sde_dpmpp", {"rule": "exact", "tau": .5}), ("ddpm", {"variance": variances.gaussian_data(.5)}),
         ("ddpm", {"variance": variances.learned(lambda prediction: prediction.x * .1)}), ("adaptive", {})]


@pytest.mark.parametrize("name, options", CASES)
def test_samples_stay_where_x_lives_with_the_same_bits(name, options):
    grid, x, z = grids.karras(4, .05, 10.), Key(1).normal((4, 2)), Key(2).normal((20, 4, 2))
    ends = []
    for place in (lambda a: a, standin.xp.asarray):
        if name != "adaptive":
            options = {**options, "noise": lambda k: place(z[k])}
        ends.append(samplers.run(samplers.SAMPLERS[name](WORLD, grid, place(x), **options)))
    assert isinstance(ends[1], standin.StandIn)
    np.testing.assert_array_equal(ends[1].get(), ends[0])
