"""The k-diffusion adapter against the installed library: it answers, and known facts of its functions hold."""
import importlib.metadata
import importlib.util
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the k-diffusion adapter needs torch")
if importlib.util.find_spec("k_diffusion") is None:
    pytest.skip("the k-diffusion adapter needs k-diffusion (pip install --no-deps)", allow_module_level=True)

from refdiff.golden import oracles                                                      # noqa: E402
from refdiff.golden.adapter import load, shipped                                        # noqa: E402
from refdiff.golden.adapters.kdiffusion import KDiffusion                               # noqa: E402
from refdiff.golden.settings import Setting                                             # noqa: E402
from refdiff.process import grids                                                       # noqa: E402

ADAPTER = KDiffusion()
EDM = {"schedule": "edm", "T": None, "rule": "karras"}


def judged(oracle, **setting):
    return oracles.judge(oracle, ADAPTER, Setting.of({**EDM, **setting}))


def test_its_samplers_are_loaded_without_what_training_needs():
    assert shipped()["kdiffusion"].endswith("adapters.kdiffusion")
    assert load("kdiffusion").version == importlib.metadata.version("k-diffusion")
    assert "k_diffusion" not in sys.modules
    assert ADAPTER.subject("trajectory", {"sampler": "dpmpp", "order": 3}) == "k_diffusion.sample_dpmpp_3m_sde"


@pytest.mark.parametrize("rule", ["karras", "exponential", "polyexponential"])
def test_grids_are_refdiffs(rule):
    ours = getattr(grids, rule)(10, sigma_min=0.01, sigma_max=50.0)
    theirs = ADAPTER.grid("edm", None, rule, 10, "zero", sigma_min="0.01", sigma_max="50")
    np.testing.assert_allclose(theirs["sigma"], ours.sigma, rtol=1e-13)


@pytest.mark.parametrize("setting", [
    {"sampler": "euler"}, {"sampler": "heun"}, {"sampler": "dpm", "order": 2, "form": "single"},
    {"sampler": "lms", "order": 4}, {"sampler": "dpmpp", "order": 2, "lower_order_final": "never"},
    {"sampler": "dpmpp", "order": 2, "form": "single"}], ids=lambda s: s["sampler"])
def test_deterministic_functions_are_the_published_solvers(setting):
    for oracle in ("network", "flow"):
        found = judged(oracle, **setting)
        assert found.status == "pass", found.cause
    assert found.digits > 9


@pytest.mark.parametrize("setting", [
    {"sampler": "euler_ancestral"}, {"sampler": "sde_dpmpp", "order": 2},
    {"sampler": "sde_dpmpp", "order": 2, "tau": 0.5},
    {"sampler": "churn", "S_churn": 10.0, "S_noise": 1.003}], ids=lambda s: f"{s['sampler']}{s.get('tau', '')}")
def test_stochastic_functions_have_the_published_law(setting):
    found = judged("law", **setting)
    assert found.status == "pass" and found.digits > 11, found.cause


def test_churn_draws_in_every_step_whether_it_is_used_or_not():
    found = judged("noise", sampler="churn", S_churn=10.0, S_tmax=1.0)
    assert found.evidence["draws"] == list(range(8)) and len(found.evidence["expected"]) < 8


def test_third_order_multistep_rule_is_the_truncated_one_of_second_order():
    found = judged("order", sampler="dpmpp", order=3, lower_order_final="never")
    assert 1.6 < found.evidence["order"] < 2.2 < found.evidence["expected_order"]


def test_stochastic_multistep_functions_refuse_one_step():
    x = np.ones((1, 1))
    for name in ("sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"):
        with pytest.raises(UnboundLocalError, match="'h'"):
            ADAPTER.run(name, x, [1.0, 0.0], lambda y, sigma: y / 2, lambda i: np.zeros_like(x))
        assert np.isfinite(ADAPTER.run(name, x, [1.0, 0.5, 0.0], lambda y, sigma: y / 2, lambda i: np.zeros_like(x)))


def test_what_it_does_not_have_is_not_implemented():
    with pytest.raises(NotImplementedError, match="no unipc"):
        ADAPTER.choose("unipc", {})
    with pytest.raises(NotImplementedError, match="sigma alone"):
        ADAPTER.trajectory("euler", "linear", 1000, 4, "trailing", "zero", np.ones((1, 1)), None, None)
