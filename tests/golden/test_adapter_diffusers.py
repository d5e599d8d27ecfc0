"""The diffusers adapter against the installed library: it answers, and known facts of its classes hold."""
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the diffusers adapter needs torch")
diffusers = pytest.importorskip("diffusers", reason="the diffusers adapter needs diffusers")

from refdiff.golden import oracles, store                                               # noqa: E402
from refdiff.golden.adapter import load, shipped                                        # noqa: E402
from refdiff.golden.adapters import _diffusers_unet                                     # noqa: E402
from refdiff.golden.adapters._diffusers import Scheduler                                # noqa: E402
from refdiff.golden.adapters.diffusers import Diffusers, parallel                       # noqa: E402
from refdiff.golden.adapters.diffusers import shipped as as_it_comes                    # noqa: E402
from refdiff.golden.audit import judge                                                  # noqa: E402
from refdiff.golden.reference import steps as solver                                    # noqa: E402
from refdiff.golden.reference.levels import Level                                       # noqa: E402
from refdiff.golden.reference.numbers import FLOAT                                      # noqa: E402
from refdiff.golden.reference.worlds import predict                                     # noqa: E402
from refdiff.golden.settings import Setting                                             # noqa: E402
from refdiff.process import grids, schedules                                            # noqa: E402
from refdiff.process.exact import Mixture                                               # noqa: E402
from refdiff.process.level import Level as Place                                        # noqa: E402
from refdiff.process.parameterization import Prediction                                 # noqa: E402
from refdiff.samplers import dpmpp, run, unipc                                          # noqa: E402

ADAPTER = Diffusers()
VP = {"schedule": "linear", "T": 1000}


def judged(oracle, **setting):
    return oracles.judge(oracle, ADAPTER, Setting.of(setting))


def test_it_is_shipped_under_its_name_and_says_its_version():
    assert shipped()["diffusers"].endswith("adapters.diffusers")
    assert load("diffusers").version == diffusers.__version__
    assert ADAPTER.subject("trajectory", {"sampler": "ddim", "T": 1000}) == "diffusers.DDIMScheduler"
    assert ADAPTER.subject("trajectory", {"sampler": "euler", "T": None}) == "diffusers.EDMEulerScheduler"


def test_widened_tables_are_refdiffs_and_its_own_are_float32():
    truth = schedules.linear(1000).alpha_bar
    np.testing.assert_allclose(ADAPTER.schedule("linear", 1000)["alpha_bar"], truth, rtol=1e-13)
    own = as_it_comes().schedule("linear", 1000)["alpha_bar"]
    assert own.dtype == np.float32
    error = abs((1 - own[1:].astype(float)) / (1 - truth[1:]) - 1)
    assert 1e-5 < error.max() < 1e-3                                    # four digits of 1 - abar are left at small t


def test_nothing_of_the_library_stays_widened_after_a_run():
    import torch
    from diffusers.schedulers import scheduling_ddim
    judged("network", sampler="ddim", **VP, rule="trailing", eta=0.0)
    assert scheduling_ddim.torch is torch and torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("rule, times", [("leading", [751, 501, 251, 1]), ("trailing", [1000, 750, 500, 250]),
                                         ("linspace", [1000, 667, 334, 1])])
def test_ddim_spacings_are_the_papers(rule, times):
    assert list(ADAPTER.grid("linear", 1000, rule, 4, "zero")["t"]) == [*times, 0]


def test_ddim_ends_on_the_first_entry_of_the_table_unless_alpha_is_set_to_one():
    x, told = np.full((1, 1), 0.7), []

    def nothing(x, t):
        told.append(t)
        return np.zeros_like(x)
    ends = {final: ADAPTER.trajectory("ddim", "linear", 1000, 10, "trailing", final, x, nothing, None)[-1][0, 0]
            for final in ("zero", "first")}
    assert math.isclose(ends["first"] / ends["zero"], math.sqrt(1 - 1e-4), rel_tol=1e-12)
    assert told[:10] == told[10:] == list(range(1000, 0, -100))


@pytest.mark.parametrize("setting", [
    {"sampler": "ddim", "eta": 0.0}, {"sampler": "heun"}, {"sampler": "dpm", "order": 2, "form": "single"},
    {"sampler": "dpmpp", "order": 2}, {"sampler": "unipc", "order": 2}, {"sampler": "lms", "order": 4},
    {"sampler": "deis", "order": 2, "variable": "lambda", "final": "first"}], ids=lambda s: s["sampler"])
def test_on_trailing_times_deterministic_classes_are_the_published_solvers(setting):
    for oracle in ("network", "flow"):
        found = judged(oracle, **VP, rule="trailing", **setting)
        assert found.status == "pass", found.cause
    assert found.digits > 9


def test_a_run_beyond_the_supplied_noise_draws_zero_and_a_missing_option_is_not_implemented():
    x = np.ones((2, 1))
    few = [np.ones((2, 1))]
    ADAPTER.trajectory("euler_ancestral", "linear", 1000, 3, "trailing", "zero", x, lambda x, t: x, lambda i: few[i])
    with pytest.raises(NotImplementedError, match="DPMSolverMultistepScheduler has no tau"):
        ADAPTER.trajectory("sde_dpmpp", "linear", 1000, 3, "trailing", "zero", x, lambda x, t: x, None, tau=0.5)
    with pytest.raises(NotImplementedError, match="no schedule quadratic"):
        ADAPTER.schedule("quadratic", 10)


def test_consistency_models_have_their_boundary_and_renoise_with_what_is_missing():
    assert ADAPTER.consistency_boundary(0.002, 0.002, 0.5) == {"c_skip": 1.0, "c_out": 0.0}
    got = ADAPTER.consistency_multistep([80.0, 1.0], np.ones((1, 1)), lambda i: np.full((1, 1), 3.0 - 2 * i),
                                        lambda x, sigma: np.zeros_like(x))

    def c_skip(sigma):
        return 0.25 / ((sigma - 0.002) ** 2 + 0.25)
    want = (c_skip(80) + 3 * math.sqrt(1 - 0.002 ** 2)) * c_skip(1)
    np.testing.assert_allclose(got, [[want]], rtol=1e-13)


NETWORKS = [case for case in store.load("network/*") if case.verdict == "valid"]
EXPRESSIBLE = [case for case in NETWORKS if case.id.startswith(("network/ddpm", "network/adm"))]


@pytest.mark.parametrize("case", EXPRESSIBLE, ids=lambda case: case.id)
def test_unet2dmodel_is_the_papers_network_with_every_gradient_once_it_embeds_time_in_float64(case):
    answered = ADAPTER.network(**case.inputs)
    assert set(answered) == set(case.expected)
    found = judge(ADAPTER, case)
    assert (found.status, found.subject) == ("pass", "diffusers.UNet2DModel"), found.cause


def test_its_own_embedding_of_time_is_float32():
    case = next(case for case in EXPRESSIBLE if case.id == "network/ddpm/n2")
    found = judge(as_it_comes(), case)
    assert found.status == "fail" and 3 < found.digits < 8


def test_what_unet2dmodel_has_not_is_not_implemented():
    others = [case for case in NETWORKS if case not in EXPRESSIBLE]
    causes = {case.id: judge(ADAPTER, case).cause for case in others}
    assert "time_scale=16" in causes["network/edm/n2"] and "is no mlp" in causes["network/mlp/n3"]
    assert len(EXPRESSIBLE) == 8 and {judge(ADAPTER, case).status for case in others} == {"not-implemented"}


def test_another_norm_eps_in_its_configuration_is_caught_and_named(monkeypatch):
    case = next(case for case in EXPRESSIBLE if case.id == "network/ddpm/n2")
    plain = _diffusers_unet.from_unet
    monkeypatch.setattr(_diffusers_unet, "from_unet", lambda config: {**plain(config), "norm_eps": 1e-5})
    found = judge(ADAPTER, case)
    assert found.status == "fail" and "norm_epsilon=1e-5" in found.cause, found.cause


# ---- what no case asks: classes with a counterpart here, against the equations and the exact flow

LINEAR = schedules.linear(1000)
WORLD = {"world": "mixture", "weights": [0.3, 0.7], "means": [-1, 0.8], "stds": [0.4, 0.5]}
MIXTURE = Mixture([0.3, 0.7], [-1, 0.8], [0.16, 0.25])
X = np.linspace(-1.6, 1.6, 9)[:, None]


def said(x, alpha, sigma, world=WORLD):
    """(x0, eps) of a perfect network."""
    return predict(world, x, Level(0, alpha, sigma, sigma * sigma), FLOAT)


def steps(name, config, x, network, noise=None, S=None):
    """([x after each step], the class) of a class; network(x, time, index, the class) -> its prediction."""
    scheduler = Scheduler(name, config)
    with scheduler.running(noise, x) as torch:
        made, states = scheduler.made, []
        made.set_timesteps(S)
        for i, t in enumerate(made.timesteps):
            value = network(x, float(t), i, made)
            x = made.step(torch.tensor(value), t, torch.tensor(x)).prev_sample.numpy()
            states.append(x)
    return states, made


def rms(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("glob", ["step/ddim/*", "step/ddpm/*", "sampler/ddim/*", "sampler/ddpm/*"])
def test_the_parallel_classes_answer_what_their_serial_ones_do(glob):
    other = parallel()
    for case in store.load(glob):
        a, b = judge(ADAPTER, case), judge(other, case)
        assert (a.status, a.digits) == (b.status, b.digits), case.id
        assert "Parallel" in b.subject


def test_learned_variances_are_between_beta_and_beta_tilde_in_their_logarithms():
    found = {case.id: judge(ADAPTER, case) for case in store.load("bound/log_variance/*")}
    assert {f.status for f in found.values()} == {"pass", "convention"}
    assert all("first_variance=tiny" in f.cause for f in found.values() if f.status == "convention")


def test_dynamic_thresholding_is_the_papers_once_its_bound_is_raised():
    found = [judge(ADAPTER, case) for glob in ("threshold/*", "step/ddim/eta0/thresholded/*")
             for case in store.load(glob) if case.verdict == "valid"]
    assert sum(f.status == "pass" for f in found) == 10 and {f.status for f in found} == {"pass", "not-implemented"}


@pytest.mark.parametrize("S", [1, 2, 4, 8])
def test_lcm_keeps_the_law_given_the_exact_consistency_function(S):
    mean, std = 0.7, 0.3 ** 0.5

    def end(x, draws):
        def network(x, t, i, made):
            level = LINEAR.level(int(t) + 1)
            f = mean + std * (x - level.alpha * mean) / np.sqrt((level.alpha * std) ** 2 + level.sigma ** 2)
            c_skip, c_out = made.get_scalings_for_boundary_condition_discrete(t)
            return (f - c_skip * x) / c_out
        return steps("LCMScheduler", {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
                                      "prediction_type": "sample", "clip_sample": False}, np.full((1, 1), x), network,
                     lambda i: np.full((1, 1), draws[i]), S)[0][-1].item()

    rest = end(0.0, np.zeros(S - 1))
    gains = [end(1.0, np.zeros(S - 1)) - rest, *(end(0.0, row) - rest for row in np.eye(S - 1))]
    first = LINEAR.level(1000)                             # N(0, 1) stands for the law at T: so much is lost, once
    missed = float(first.alpha) * mean * gains[0]
    scale = (float(first.alpha) * std) ** 2 + float(first.sigma) ** 2
    assert rest == pytest.approx(mean - missed, abs=1e-12)
    assert sum(g * g for g in gains) == pytest.approx(std ** 2 + gains[0] ** 2 * (1 - scale), abs=1e-12)


def test_ipndm_is_plms_of_v_after_its_first_step_which_knows_nothing_of_the_network():
    def v(x, t, i, made):
        alpha, sigma = float(made.alphas[i]), float(made.betas[i])
        x0, eps = said(x, alpha, sigma)
        told.append(eps)
        return alpha * eps - sigma * x0
    told = []
    states, made = steps("IPNDMScheduler", {}, X, v, S=10)
    visited = [Level(0, float(a), float(b), float(b) ** 2) for a, b in zip(made.alphas, made.betas)]
    np.testing.assert_allclose(states[0], visited[1].sigma * X, rtol=1e-15)
    for i in range(1, 10):
        x0, eps = said(states[i - 1], visited[i].alpha, visited[i].sigma)
        earlier = [(None, None, e) for e in told[max(i - 3, 0):i][::-1]]
        want = solver.plms(states[i - 1], x0, eps, visited[i], visited[i + 1], None, FLOAT, None, 4, earlier)
        np.testing.assert_allclose(states[i], want, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("rule", ["leading", "trailing"])
def test_the_inverse_of_ddim_is_its_step_upwards_and_of_order_1(rule):
    clean = MIXTURE.quantile_map(X, LINEAR.level(1000), LINEAR.level(0))
    errors = []
    for S in (50, 100):
        def network(x, t, i, made):
            level = LINEAR.level(int(t) + 1)
            return said(x, float(level.alpha), float(level.sigma))[1]
        states, made = steps("DDIMInverseScheduler", {"clip_sample": False, "timestep_spacing": rule}, clean, network,
                             S=S)
        times = [0, *(int(t) + 1 for t in made.timesteps)]
        s, t = LINEAR.level(times[4]), LINEAR.level(times[5])
        eps = network(states[3], times[5] - 1, 0, None)
        x0 = (states[3] - s.sigma * eps) / s.alpha
        np.testing.assert_allclose(states[4], t.alpha * x0 + t.sigma * eps, rtol=1e-13)
        errors.append(rms(states[-1], MIXTURE.quantile_map(clean, LINEAR.level(0), LINEAR.level(times[-1]))))
    assert 0.8 < math.log2(errors[0] / errors[1]) < 1.2, errors


@pytest.mark.parametrize("order, least", [(1, 0.85), (2, 1.5), (3, 1.55)])
def test_the_inverse_of_the_multistep_solver_converges_upwards(order, least):
    errors = []
    for S in (80, 160):
        made = Scheduler("DPMSolverMultistepInverseScheduler", {"solver_order": order, "lower_order_final": False}).made
        made.set_timesteps(S)
        first, last = (Place(0, 1 / math.hypot(1, r), r / math.hypot(1, r)) for r in (
            float(made.sigmas[0]), float(made.sigmas[-1])))
        clean = MIXTURE.quantile_map(X, LINEAR.level(1000), first)

        def network(x, t, i, made):
            level = LINEAR.level(int(t) + 1)
            return said(x, float(level.alpha), float(level.sigma))[1]
        states, _ = steps("DPMSolverMultistepInverseScheduler", {"solver_order": order, "lower_order_final": False},
                          clean, network, S=S)
        errors.append(rms(states[-1], MIXTURE.quantile_map(clean, first, last)))
    assert least < math.log2(errors[0] / errors[1]) < 2.2, errors


@pytest.mark.parametrize("name, sampler, options, rtol", [
    ("DPMSolverMultistepScheduler", dpmpp, {"order": 2}, 1e-13),
    ("UniPCMultistepScheduler", unipc, {"order": 2}, 1e-10)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sigmas_are_the_straight_path_of_the_published_solvers(name, sampler, options, rtol, shift):
    def network(x, t, i, made):
        sigma = float(made.sigmas[i])                      # the level that the state has; told is floor(1000 sigma)
        x0, eps = said(x, 1 - sigma, sigma)
        assert t == math.floor(1000 * sigma)
        return eps - x0
    states, made = steps(name, {"use_flow_sigmas": True, "flow_shift": shift, "prediction_type": "flow_prediction"}, X,
                         network, S=20)
    sigma = made.sigmas.numpy().astype(float)
    grid = grids.Grid(sigma, 1 - sigma, sigma, "flow")
    want = run(sampler(lambda x, level: Prediction("eps", said(x, level.alpha, level.sigma)[1], x, level), grid, X,
                       **options))
    np.testing.assert_allclose(states[-1], want, rtol=rtol)
