"""The diffusers adapter against the installed library: it answers, and known facts of its classes hold."""
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the diffusers adapter needs torch")
diffusers = pytest.importorskip("diffusers", reason="the diffusers adapter needs diffusers")

from refdiff.golden import oracles, store                                               # noqa: E402
from refdiff.golden.adapter import load, shipped                                        # noqa: E402
from refdiff.golden.adapters import _diffusers_unet                                     # noqa: E402
from refdiff.golden.adapters.diffusers import Diffusers                                 # noqa: E402
from refdiff.golden.adapters.diffusers import shipped as as_it_comes                    # noqa: E402
from refdiff.golden.audit import judge                                                  # noqa: E402
from refdiff.golden.settings import Setting                                             # noqa: E402
from refdiff.process import schedules                                                   # noqa: E402

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
