"""compat= on samplers against the libraries that deviate: the trajectory's end, to rounding; without it, it differs.

The libraries' float32 is widened, so that what is left is float64's rounding; float32 itself is compared as shipped.
"""
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from refdiff import samplers
from refdiff.golden.settings import Network, Setting
from refdiff.process import grids, schedules
from refdiff.process.exact import Mixture
from refdiff.process.families import Flow, Interpolated
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers.compat_grids import float32_table, shifted_twice

WORLD = Mixture([.3, .7], [-1., .8], [.16, .25])
LINEAR = schedules.linear(1000)
X = 1.2 * Key(7).normal((9, 1))
BETAS = {"beta_start": 1e-4, "beta_end": .02, "beta_schedule": "linear"}
TRAILING, LEADING, LINSPACE = ({"timestep_spacing": name} for name in ("trailing", "leading", "linspace"))
NO_CLIP = {"clip_sample": False}


def noise(i):
    return Key(11).fold("noise", i).normal(X.shape)


def network():
    """eps of a perfect network, by the time it is told."""
    return Network(WORLD, Setting("ddim"))


def from_time(net):
    return lambda x, level: Prediction("eps", net(x, level.t), x, level)


def diffusers_end(name, config, steps, x=X, told=None, options=None, widen=True, draws=noise, **asked):
    pytest.importorskip("diffusers", reason="diffusers is what is matched")
    pytest.importorskip("torch")
    from refdiff.golden.adapters._diffusers import Scheduler
    return Scheduler(name, config, widen).run(x, told or network(), draws, steps, options, asked)[-1]


def rms(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


def own(S, rule, final="zero"):
    return grids.discrete(LINEAR, S, rule, final)


# name, sampler, options here, grid, compat, class, configuration there, options of its step, least difference without
CASES = [
    ("ddim linspace", "ddim", {}, own(20, "linspace"), ("stride_stepping",),
     "DDIMScheduler", {**LINSPACE, **NO_CLIP}, {}, .01),
    ("ddim trailing 300", "ddim", {}, own(300, "trailing"), ("stride_stepping",),
     "DDIMScheduler", {**TRAILING, **NO_CLIP}, {}, .02),
    ("ddim trailing 30, eta", "ddim", {"eta": .7}, own(30, "trailing"), ("stride_stepping",),
     "DDIMScheduler", {**TRAILING, **NO_CLIP}, {"eta": .7}, 1e-3),
    ("ddim 61", "ddim", {}, own(61, "trailing"), ("trailing_overshoot",),
     "DDIMScheduler", {**TRAILING, **NO_CLIP}, {}, 100.),
    ("ddim leading 30", "ddim", {}, own(30, "leading"), ("integer_stride",),
     "DDIMScheduler", {**LEADING, **NO_CLIP}, {}, 4e-4),
    ("ddim abar_0", "ddim", {}, own(20, "trailing"), ("final_abar_0",),
     "DDIMScheduler", {**TRAILING, **NO_CLIP, "set_alpha_to_one": False}, {}, 1e-4),
    ("ddim abar_0, leading", "ddim", {}, own(20, "leading"), ("final_abar_0",),
     "DDIMScheduler", {**LEADING, **NO_CLIP, "set_alpha_to_one": False}, {}, 1e-5),
    ("ddim abar_0, linspace", "ddim", {"eta": .5}, own(20, "linspace"), ("stride_stepping", "final_abar_0"),
     "DDIMScheduler", {**LINSPACE, **NO_CLIP, "set_alpha_to_one": False}, {"eta": .5}, .01),
    ("pndm as configured", "plms", {}, own(30, "leading"), ("improved_euler_start", "final_abar_0", "integer_stride"),
     "PNDMScheduler", {**LEADING, "skip_prk_steps": True}, {}, 1e-5),
    ("pndm abar_0, linspace", "plms", {}, own(20, "linspace"), ("stride_stepping", "final_abar_0"),
     "PNDMScheduler", {**LINSPACE, "skip_prk_steps": True}, {}, .01),
    ("ddim one step", "ddim", {}, own(1, "linspace"), ("one_step_clean",),
     "DDIMScheduler", {**LINSPACE, **NO_CLIP}, {}, .1),
    ("ddim clip", "ddim", {}, own(20, "trailing"), ("clipped_eps_kept",), "DDIMScheduler", {**TRAILING}, {}, .01),
    ("ddim clip, eps anew", "ddim", {}, own(20, "trailing"), ("clipped",),
     "DDIMScheduler", {**TRAILING}, {"use_clipped_model_output": True}, .01),
    ("ddpm clip", "ddpm", {"variance": "small"}, own(20, "trailing"), ("clipped", "last_step_noise"),
     "DDPMScheduler", TRAILING, {}, .01),
    ("ddpm large", "ddpm", {"variance": "large"}, own(20, "trailing"), ("last_step_noise",),
     "DDPMScheduler", {**TRAILING, **NO_CLIP, "variance_type": "fixed_large"}, {}, .05),
    ("pndm leading", "plms", {}, own(20, "leading"), ("improved_euler_start",),
     "PNDMScheduler", {**LEADING, "skip_prk_steps": True, "set_alpha_to_one": True}, {}, 2e-5),
    ("pndm linspace", "plms", {}, own(20, "linspace"), ("stride_stepping",),
     "PNDMScheduler", {**LINSPACE, "skip_prk_steps": True, "set_alpha_to_one": True}, {}, .01),
    ("pndm trailing 30", "plms", {}, own(30, "trailing"), ("stride_stepping",),
     "PNDMScheduler", {**TRAILING, "skip_prk_steps": True, "set_alpha_to_one": True}, {}, 1e-3),
    ("pndm 61", "plms", {}, own(61, "trailing"), ("trailing_overshoot",),
     "PNDMScheduler", {**TRAILING, "skip_prk_steps": True, "set_alpha_to_one": True}, {}, 100.),
    ("euler linspace", "euler", {}, own(20, "linspace"), ("linspace_unrounded",),
     "EulerDiscreteScheduler", LINSPACE, {}, 1e-4),
    ("heun linspace", "heun", {}, own(20, "linspace"), ("linspace_unrounded",),
     "HeunDiscreteScheduler", LINSPACE, {}, 3e-5),
    ("lms linspace", "lms", {}, own(20, "linspace"), ("linspace_unrounded",),
     "LMSDiscreteScheduler", LINSPACE, {}, 1e-4),
    ("euler one step", "euler", {}, own(1, "linspace"), ("linspace_unrounded",),
     "EulerDiscreteScheduler", LINSPACE, {}, .1),
    ("euler 61", "euler", {}, own(61, "trailing"), ("trailing_overshoot",),
     "EulerDiscreteScheduler", TRAILING, {}, 1e-4),
    ("lms 61", "lms", {}, own(61, "trailing"), ("trailing_overshoot",), "LMSDiscreteScheduler", TRAILING, {}, 4e-5),
    ("dpmpp 61", "dpmpp", {}, own(61, "trailing"), ("trailing_overshoot",),
     "DPMSolverMultistepScheduler", {**TRAILING, "solver_type": "midpoint"}, {}, 1e-4),
    ("unipc 61", "unipc", {"order": 2}, own(61, "trailing"), ("trailing_overshoot",),
     "UniPCMultistepScheduler", TRAILING, {}, 1e-4),
    ("dpmpp leading", "dpmpp", {}, own(20, "leading"), ("leading_of_more",),
     "DPMSolverMultistepScheduler", LEADING, {}, 1e-3),
    ("dpmpp linspace", "dpmpp", {}, own(20, "linspace"), ("linspace_of_more",),
     "DPMSolverMultistepScheduler", LINSPACE, {}, 1e-3),
    ("unipc linspace", "unipc", {"order": 2}, own(20, "linspace"), ("linspace_of_more",),
     "UniPCMultistepScheduler", LINSPACE, {}, 1e-3),
    ("deis short", "deis", {"order": 3, "variable": "lambda"}, own(10, "trailing", "first"), ("order_lowered",),
     "DEISMultistepScheduler", {**TRAILING, "solver_order": 3}, {}, 1e-4),
    ("deis abar_0", "deis", {"order": 3, "variable": "lambda"}, own(20, "trailing"), ("final_abar_0",),
     "DEISMultistepScheduler", {**TRAILING, "solver_order": 3}, {}, 1e-4),
    ("sde 3", "sde_dpmpp", {}, own(20, "trailing"), ("third_order_sign",), "DPMSolverMultistepScheduler",
     {**TRAILING, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}, {}, .01),
    ("sde draws", "sde_dpmpp", {}, own(20, "trailing"), ("draws_every_step",), "DPMSolverMultistepScheduler",
     {**TRAILING, "algorithm_type": "sde-dpmsolver++", "solver_order": 2}, {}, 0.),
    ("dpmpp 3", "dpmpp", {"order": 3}, own(20, "trailing"), ("halved_difference",),
     "DPMSolverMultistepScheduler", {**TRAILING, "solver_order": 3}, {}, 1e-4),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_deviation_is_the_librarys_trajectory(case):
    _, sampler, options, grid, compat, name, config, step, least = case
    betas = {} if name.startswith("EDM") else BETAS
    there = diffusers_end(name, {**betas, **config}, len(grid), options=step)
    given = {"noise": noise} if sampler in ("ddpm", "sde_dpmpp") or "eta" in options else {}
    here, plain = (samplers.run(samplers.SAMPLERS[sampler](from_time(network()), grid, X, compat=names, **options,
                                                           **given)) for names in (compat, ()))
    scale = max(1, np.abs(there).max())
    assert rms(plain, there) >= least, rms(plain, there)
    np.testing.assert_allclose(here, there, rtol=0, atol=2e-12 * scale)


# ---- levels between the table's

@pytest.mark.parametrize("spacing, deviation, least", [
    ("use_exponential_sigmas", "times_floored", 5e-4), ("use_karras_sigmas", "times_rounded", 1e-5)])
@pytest.mark.parametrize("name, sampler", [("DPMSolverMultistepScheduler", "dpmpp"),
                                           ("UniPCMultistepScheduler", "unipc")])
def test_times_that_are_integers_are_told_as_there(spacing, deviation, least, name, sampler):
    """The grid here is the library's sigmas; without the deviation the network is told the levels' own times."""
    net = network()
    there = diffusers_end(name, {**BETAS, spacing: True}, 50, told=net)
    from refdiff.golden.adapters._diffusers import Scheduler
    made = Scheduler(name, {**BETAS, spacing: True})
    made.times(50)
    ratio = made.made.sigmas.numpy()[:-1]
    family = Interpolated(LINEAR)
    times = [*family.time(np.clip(-np.log(ratio), family.lam(1000.), family.lam(1.))), 0]
    grid = grids.on(family, times)
    here, plain = (samplers.run(samplers.SAMPLERS[sampler](from_time(network()), grid, X, order=2, compat=names))
                   for names in ((deviation,), ()))
    told = [t for t, _ in net.calls]
    assert all(t == int(t) for t in told)
    assert rms(plain, there) >= least
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-10)


# ---- flows

def flow_network(x, t):
    """The velocity eps - x0 of a perfect network at time t of the straight path."""
    return Prediction("x0", WORLD.posterior_mean(x, Level(t, 1 - t, t)), x, Level(t, 1 - t, t)).velocity


def of_flow(x, level):
    """The same at a level of a flow, shifted or not: the network is told sigma."""
    return Prediction("velocity", flow_network(x, level.sigma), x, level)


def test_flows_shifted_twice_are_the_librarys():
    there = diffusers_end("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 20, told=flow_network)
    family, calls = Flow(3.0), []
    grid = grids.on(family, [*np.linspace(1, 1e-3, 20), 0])
    here, plain = (samplers.run(samplers.ddim(of_flow, grid, X, compat=names)) for names in (("shifted_twice",), ()))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)
    assert rms(plain, there) > 1e-3

    def watched(x, t):
        calls.append(t)
        return flow_network(x, t)
    diffusers_end("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, 20, told=watched)
    twice = shifted_twice(grid).sigma[:-1]
    np.testing.assert_allclose([calls[0], *calls[1::2]], twice, rtol=0, atol=1e-14)
    assert (round(twice[-1], 6), round(grid.sigma[-2], 6)) == (.008929, .002994)              # as the report says


STRAIGHT = grids.on(Flow(), [*np.linspace(1, 1e-3, 20), 0])


def test_x0_noised_anew_is_the_librarys_stochastic_sampling():
    there = diffusers_end("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, 20, told=flow_network)
    here, plain = (samplers.run(samplers.ddim(of_flow, STRAIGHT, X, noise=noise, compat=names))
                   for names in (("renoised",), ()))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)
    assert rms(plain, there) > .5


def test_churn_on_flows_is_the_librarys():
    """It draws twice in a step, and drops the second draw: its draws 0, 2, 4, .. are ours 0, 1, 2, .."""
    options = {"s_churn": 5.0, "s_noise": 1.003, "s_tmax": .8}
    there = diffusers_end("FlowMatchHeunDiscreteScheduler", {}, 20, told=flow_network, options=options,
                          draws=lambda i: noise(drawing[i]))
    here = samplers.run(samplers.churn(of_flow, STRAIGHT, X, S_churn=5.0, S_noise=1.003, S_tmax=.8, noise=noise,
                                       compat=("churn_on_flow",)))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)


# steps with sigma <= .8 draw: the first of them is the fifth, index 4, and each but the last draws twice
drawing = [step for step in range(20) if STRAIGHT.sigma[step] <= .8 for _ in range(1 + (step < 19))]


# ---- sigmas

EDM = {"sigma_min": .05, "sigma_max": 10.0, "sigma_data": 0.5}
KARRAS = grids.karras(20, .05, 10.0)


def edm_network(x, sigma):
    """What EDM's classes call a prediction, F, from a perfect network at x = x0 + sigma eps."""
    return WORLD(x, ve(sigma)).to("F", .5).value


def of_edm(x, level):
    return WORLD(x, level).to("F", .5)


def test_churn_with_a_stale_prediction_is_the_librarys():
    options, first = {"s_churn": 10.0, "s_noise": 1.003, "s_tmax": 8.0}, int((KARRAS.sigma > 8).sum())
    there = diffusers_end("EDMEulerScheduler", EDM, 20, x=10 * X, told=edm_network, options=options,
                          draws=lambda i: noise(i + first))
    here, plain = (samplers.run(samplers.churn(of_edm, KARRAS, 10 * X, S_churn=10., S_noise=1.003, S_tmax=8.,
                                               noise=noise, compat=names)) for names in (("churn_stale",),
                                                                                         ("churn_euler",)))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-11)
    assert rms(plain, there) > .01


def test_churn_of_euler_on_a_schedule_is_the_librarys():
    grid, options = own(20, "trailing"), {"s_churn": 10.0, "s_tmax": 50.0}
    first = int(np.flatnonzero(np.array([grid.level(i).ratio for i in range(20)]) <= 50)[0])
    there = diffusers_end("EulerDiscreteScheduler", {**BETAS, **TRAILING}, 20, options=options,
                          draws=lambda i: noise(i + first))
    here = samplers.run(samplers.churn(from_time(network()), grid, X, S_churn=10., S_tmax=50., noise=noise,
                                       compat=("churn_stale",)))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-11)


def test_a_last_step_of_no_length_is_the_librarys():
    calls = []

    def watched(x, sigma):
        calls.append(sigma)
        return edm_network(x, sigma)
    there = diffusers_end("EDMEulerScheduler", {**EDM, "final_sigmas_type": "sigma_min"}, 20, x=10 * X, told=watched)
    grid, asked = grids.karras(20, .05, 10.0, final=None), []

    def counted(x, level):
        asked.append(level.sigma)
        return of_edm(x, level)
    here = samplers.run(samplers.euler(counted, grid, 10 * X, compat=("last_level_twice",)))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)
    np.testing.assert_allclose(asked, calls, rtol=1e-12)
    assert len(asked) == 20 == len(grid) + 1


@pytest.mark.parametrize("name, config, grid, sampler, deviation, unit", [
    ("EulerDiscreteScheduler", {**BETAS, **TRAILING}, own(20, "trailing"), "euler", "start_sigma_max", True),
    ("LMSDiscreteScheduler", {**BETAS, **LINSPACE}, own(20, "linspace"), "lms", "start_sigma_max", True),
    ("EDMEulerScheduler", EDM, KARRAS, "euler", "start_root", False)])
def test_a_start_is_the_librarys_init_noise_sigma(name, config, grid, sampler, deviation, unit):
    pytest.importorskip("diffusers")
    from refdiff.golden.adapters._diffusers import Scheduler
    made = Scheduler(name, config)
    made.times(20)
    level, seen = grid.level(0), []

    def watched(x, level):
        seen.append(x)
        return WORLD(x, level)
    start = X if unit else level.sigma * X
    samplers.run(samplers.SAMPLERS[sampler](watched, grid, start, compat=(deviation,)))
    with made.running():
        wanted = float(made.made.init_noise_sigma)
    np.testing.assert_allclose(seen[0] / level.alpha, wanted * X, rtol=1e-10)


# ---- float32

@pytest.mark.parametrize("sampler, name, options", [("ddim", "DDIMScheduler", {}),
                                                    ("dpmpp", "DPMSolverMultistepScheduler", {})])
def test_float32_is_as_near_the_library_as_its_rounding(sampler, name, options):
    """As shipped against float64: 3e-7 and more. Rounded in the same places: nearer, never the same bits."""
    config = {**BETAS, **TRAILING, **(NO_CLIP if sampler == "ddim" else {})}
    there = diffusers_end(name, config, 50, x=X.astype(np.float32), widen=False)
    here, plain = (samplers.run(samplers.SAMPLERS[sampler](from_time(network()), own(50, "trailing"), X, compat=names))
                   for names in (("float32_table", "float32_state"), ()))
    assert here.dtype == np.float32 and rms(here, there) < 1e-6 and rms(plain, there) < 3e-6


def test_tables_in_float32_are_the_librarys():
    pytest.importorskip("diffusers")
    from refdiff.golden.adapters._diffusers import Scheduler
    abar = Scheduler("DDIMScheduler", BETAS, widen=False).made.alphas_cumprod.numpy()
    got, exact = (grid.alpha[:-1][::-1] ** 2 for grid in (float32_table(own(1000, "trailing")), own(1000, "trailing")))
    assert abar.dtype == np.float32
    off, left = np.abs(exact / abar - 1).max(), np.abs(got / abar - 1).max()
    assert left < 2e-6 and off < 1e-4, (off, left)


# ---- k-diffusion

def k_end(name, grid, x, widen=True, **named):
    pytest.importorskip("torch")
    if importlib.util.find_spec("k_diffusion") is None:
        pytest.skip("k_diffusion is what is matched")
    from refdiff.golden.adapters.kdiffusion import KDiffusion
    return KDiffusion(widen).run(name, x, list(grid.sigma), lambda y, sigma: WORLD(y, ve(sigma)).x0, noise, **named)


@pytest.mark.parametrize("grid", [KARRAS, grids.karras(21, .05, 10.0, final=None)], ids=["to 0", "to sigma_min"])
@pytest.mark.parametrize("sampler, compat, options, name, named, least", [
    ("sde_dpmpp", ("third_order",), {"end": "noise", "rule": "exact"}, "sample_dpmpp_3m_sde", {"eta": 1.0}, 1e-3),
    ("sde_dpmpp", ("third_order",), {"end": "noise", "rule": "exact", "tau": .5}, "sample_dpmpp_3m_sde",
     {"eta": .5}, 1e-3),
    ("sde_dpmpp", ("third_order",), {"rule": "exact", "tau": 0.}, "sample_dpmpp_3m_sde", {"eta": 0.0}, 1e-3),
    ("churn", ("churn_euler",), {"S_churn": 10.0, "S_noise": 1.003}, "sample_euler",
     {"s_churn": 10.0, "s_noise": 1.003}, 1e-3)])
def test_a_deviation_is_k_diffusions_trajectory(grid, sampler, compat, options, name, named, least):
    there = k_end(name, grid, 10 * X, **named)
    here, plain = (samplers.run(samplers.SAMPLERS[sampler](WORLD, grid, 10 * X, noise=noise, compat=names, **options))
                   for names in (compat, ()))
    assert rms(plain, there) >= least, rms(plain, there)
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-11)


def test_the_order_is_kept_as_k_diffusion_keeps_it():
    grid = grids.karras(9, .05, 10.0, final=None)
    there = k_end("sample_dpmpp_2m", grid, 10 * X)
    here, plain = (samplers.run(samplers.dpmpp(WORLD, grid, 10 * X, compat=names)) for names in (("order_kept",), ()))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)
    assert rms(plain, there) > 1e-3


def test_sigmas_in_float32_are_k_diffusions():
    k_end("sample_euler", grids.karras(2), X)
    from refdiff.golden.adapters.kdiffusion import load
    sigma = load().get_sigmas_karras(10, .002, 80.0).numpy()
    exact = grids.karras(10)
    got = float32_table(exact).sigma
    assert sigma.dtype == np.float32 and 0 < np.abs(exact.sigma[1:-1] / sigma[1:-1] - 1).max() < 2e-6
    np.testing.assert_allclose(got[:-1], sigma[:-1], rtol=2e-6)


def test_the_readmes_example_is_the_librarys():
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    block, = (part for part in re.findall(r"```python\n(.*?)```", text, re.S) if "stride_stepping" in part)
    names = {}
    exec(block, names)
    betas = {**BETAS, **LINSPACE, **NO_CLIP}
    there = diffusers_end("DDIMScheduler", betas, 20, x=names["z"])
    np.testing.assert_allclose(names["theirs"], there, rtol=0, atol=3e-12)
    assert rms(names["paper"], there) > .02
