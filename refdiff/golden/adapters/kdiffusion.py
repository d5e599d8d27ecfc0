"""The samplers and grids of k-diffusion under the names of golden cases: `refdiff audit kdiffusion`.

Needs torch and k-diffusion, which refdiff does not install. Its package imports what training needs, so the module of
its samplers is loaded alone (`pip install --no-deps k-diffusion` is enough), with stand-ins for the Brownian tree and
the ODE solver, which are never called: noise is handed over. Its grids use torch's default type, widened to float64
here; `shipped` leaves it.

    levels sigma, x = x0 + sigma eps: schedule "edm", T = None          network: (x, sigma) -> x0
    S steps of a grid end on sigma = 0 ("zero"), or on the S+1-th level before that ("none")
"""
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from . import _torch

STANDINS = {"torchsde": ("BrownianTree",), "torchdiffeq": ("odeint",)}
GRIDS = {"karras": "get_sigmas_karras", "exponential": "get_sigmas_exponential",
         "polyexponential": "get_sigmas_polyexponential"}
CHURN = {"S_churn": "s_churn", "S_tmin": "s_tmin", "S_tmax": "s_tmax", "S_noise": "s_noise"}
RULES = {"truncated": "midpoint", "exact": "heun"}


def load(name="refdiff_k_diffusion"):
    """k_diffusion/sampling.py as a module of its own, whatever else of the package can be imported or not."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise ModuleNotFoundError("No module named 'k_diffusion': pip install --no-deps k-diffusion")
    if f"{name}.sampling" in sys.modules:
        return sys.modules[f"{name}.sampling"]
    package, utils = ModuleType(name), ModuleType(f"{name}.utils")
    package.__path__, package.utils = list(spec.submodule_search_locations), utils
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    made = {name: package, f"{name}.utils": utils}
    for missing, functions in STANDINS.items():
        if missing not in sys.modules and importlib.util.find_spec(missing) is None:
            made[missing] = ModuleType(missing)
            for function in functions:
                setattr(made[missing], function, None)
    path = Path(package.__path__[0]) / "sampling.py"
    file = importlib.util.spec_from_file_location(f"{name}.sampling", path)
    sampling = importlib.util.module_from_spec(file)
    sys.modules.update({**made, f"{name}.sampling": sampling})
    try:
        file.loader.exec_module(sampling)
    except BaseException:
        del sys.modules[f"{name}.sampling"]
        raise
    finally:
        for missing in set(made) & set(STANDINS):
            del sys.modules[missing]
    return sampling


class KDiffusion:
    """All samplers that have a counterpart here, chosen by the sampler that a case asks for."""

    prediction = "x0"

    def __init__(self, widen=True):
        self.sampling, self.widen, self.name = load(), widen, "k-diffusion"
        self.version = importlib.metadata.version("k-diffusion")

    def subject(self, operation, inputs):
        """The function that answers."""
        if operation == "grid":
            return f"k_diffusion.{GRIDS.get(inputs.get('rule'), 'get_sigmas_vp')}"
        asked = {k: v for k, v in inputs.items() if k in (*CHURN, "order", "form", "solver_rule", "eta", "tau")}
        return f"k_diffusion.{self.choose(inputs.get('sampler'), asked)[0]}"

    def running(self, noise=None, x=None):
        return _torch.running([self.sampling], self.widen, noise, x)

    def choose(self, sampler, options):
        """(function, its named arguments) of a sampler with its options."""
        options = dict(options)
        order = options.pop("order", {"lms": 4, "dpm": 3}.get(sampler, 2))
        form = options.pop("form", "multi" if sampler == "dpmpp" else "single")
        rule = options.pop("solver_rule", None)
        lowered = options.pop("lower_order_final", "never")
        named, name = {}, None
        if sampler in ("euler", "heun"):
            name = f"sample_{sampler}"
        if sampler == "churn":
            name, named = "sample_heun", {CHURN[k]: float(options.pop(k)) for k in CHURN if k in options}
        if sampler == "lms":
            name, named = "sample_lms", {"order": order}
        if sampler == "dpm" and (order, form) == (2, "single") and rule in (None, "truncated"):
            name = "sample_dpm_2"
        if sampler == "dpmpp" and order == 2 and rule in (None, "truncated"):
            name = "sample_dpmpp_2m" if form == "multi" else "sample_dpmpp_2s_ancestral"
            named = {} if form == "multi" else {"eta": 0.0}
        if sampler == "dpmpp" and (order, form) == (3, "multi"):
            name, named = "sample_dpmpp_3m_sde", {"eta": 0.0}
        if sampler == "euler_ancestral":
            name, named = "sample_euler_ancestral", {"eta": float(options.pop("eta", 1.0))}
        if sampler == "sde_dpmpp" and order == 2:
            name = "sample_dpmpp_2m_sde"
            named = {"eta": float(options.pop("tau", 1.0)), "solver_type": RULES[rule or "truncated"]}
        if name is None or options or lowered == "always":
            left = ", ".join(f"{k}={v}" for k, v in options.items())
            raise NotImplementedError(f"k-diffusion has no {sampler} of order {order} {left}".strip())
        return name, named

    def sigmas(self, schedule, rule, steps, final, params):
        """The levels of so many steps, as a tensor."""
        if schedule not in ("edm", "karras") or rule not in GRIDS or final not in ("zero", "none"):
            raise NotImplementedError(f"k-diffusion has no grid {rule} of {schedule} with final={final}")
        given = {"sigma_min": 0.002, "sigma_max": 80.0} | {k: float(v) for k, v in params.items()}
        with self.running():
            return getattr(self.sampling, GRIDS[rule])(steps + (final == "none"), **given)[:steps + 1]

    def grid(self, schedule, T, rule, steps, final, **params):
        """The levels of the functions get_sigmas_*."""
        if T is not None:
            raise NotImplementedError("k-diffusion's grids are of sigma alone")
        if schedule == "vp" and rule == "uniform" and set(params) <= {"end", "start"} and float(
                params.get("start", 1)) == 1 and final in ("zero", "none"):
            end = float(params.get("end", 1e-3))
            with self.running():
                ratio = self.sampling.get_sigmas_vp(steps + (final == "none"), eps_s=end).numpy()[:steps + 1]
            alpha_bar = 1 / (1 + ratio ** 2)
            return {"alpha_bar": alpha_bar, "sigma": ratio * np.sqrt(alpha_bar)}
        sigma = self.sigmas(schedule, rule, steps, final, params).numpy()
        return {"t": sigma, "sigma": sigma, "alpha_bar": np.ones_like(sigma)}

    def run(self, name, x, sigmas, denoiser, noise=None, **named):
        """x at the last of the sigmas, of the function `name`; noise(i) is its i-th draw."""
        with self.running(noise, x) as torch:
            def model(y, sigma):
                return torch.from_numpy(np.ascontiguousarray(denoiser(y.numpy(), float(sigma[0]))))

            y = torch.from_numpy(np.ascontiguousarray(x))
            if name.endswith("_sde"):
                named["noise_sampler"] = lambda *levels: self.sampling.torch.randn_like(y)
            sigmas = torch.as_tensor(sigmas, dtype=y.dtype if self.widen else None)
            return getattr(self.sampling, name)(model, y, sigmas, disable=True, **named).numpy()

    def step(self, sampler, schedule, T, t, s, x, prediction, kind="eps", noise=None, prediction_s=None, steps=1,
             **options):
        """One step from sigma = t to sigma = s of the methods without history; churn's S_churn/N with N = steps."""
        if T is not None or schedule != "edm" or kind not in ("eps", "x0") or sampler not in (
                "euler", "heun", "euler_ancestral", "churn"):
            raise NotImplementedError(f"k-diffusion: no single step of {sampler} from a given t to a given s")
        if "S_churn" in options:
            options["S_churn"] = float(options["S_churn"]) / steps
        name, named = self.choose(sampler, options)
        values = iter([prediction, prediction_s])

        def model(y, sigma):
            value = np.array(next(values), dtype=np.float64)
            return value if kind == "x0" else y - sigma * value
        return self.run(name, np.array(x, dtype=np.float64), [float(t), float(s)], model,
                        lambda i: np.array(noise, dtype=np.float64) if noise is not None else np.zeros_like(x), **named)

    def trajectory(self, sampler, schedule, T, steps, rule, final, x, denoiser, noise, **options):
        """x at the last level."""
        if T is not None:
            raise NotImplementedError("k-diffusion's samplers are of sigma alone")
        sigmas = self.sigmas(schedule, rule, steps, final, dict(options.pop("grid_options", None) or {}))
        name, named = self.choose(sampler, options)
        return self.run(name, x, sigmas, denoiser, noise, **named)

    def configurations(self):
        """The settings that its functions allow, for the oracles."""
        for rule in ("karras", "exponential"):
            edm = {"schedule": "edm", "T": None, "rule": rule}
            for sampler in ("euler", "heun", "euler_ancestral"):
                yield {"sampler": sampler, **edm}
            yield {"sampler": "euler_ancestral", **edm, "eta": 0.5}
            yield {"sampler": "churn", **edm, "S_churn": 10.0, "S_tmax": 8.0, "S_noise": 1.003}
            yield {"sampler": "dpm", **edm, "order": 2, "form": "single"}
            for order in (1, 2, 3, 4):
                yield {"sampler": "lms", **edm, "order": order}
            yield {"sampler": "dpmpp", **edm, "order": 2, "lower_order_final": "never"}
            yield {"sampler": "dpmpp", **edm, "order": 2, "form": "single"}
            yield {"sampler": "dpmpp", **edm, "order": 3, "lower_order_final": "never"}
            yield {"sampler": "sde_dpmpp", **edm, "order": 2}
            yield {"sampler": "sde_dpmpp", **edm, "order": 2, "tau": 0.5}


def shipped():
    """The adapter that leaves torch's default type as it comes."""
    return KDiffusion(widen=False)


adapter = KDiffusion
