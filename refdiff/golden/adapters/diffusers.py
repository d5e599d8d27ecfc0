"""The schedulers of diffusers, and its U-Net, under the names of golden cases: `refdiff audit diffusers`.

    refdiff audit diffusers                                    its formulas, in float64
    refdiff audit refdiff.golden.adapters.diffusers:shipped    as it comes, its tables in float32
    refdiff audit refdiff.golden.adapters.diffusers:parallel   DDPMParallel and DDIMParallel for DDPM and DDIM

Needs torch and diffusers, which refdiff does not install. Its modules ask for float32 by name, in the tables of noise
and in the steps; `diffusers` widens that to float64 while it runs one, so that a formula can be told from a rounding,
and `shipped` leaves it. Nothing else of a scheduler is changed but where its noise comes from. A run threads the same
calls as a pipeline: set_timesteps, scale_model_input, the network, step. The state handed over is that of the first
level, alpha x0 + sigma eps with alpha^2 + sigma^2 = 1: classes whose state is x0 + sigma eps get it divided by alpha,
init_noise_sigma is not used.

    diffusers index t = 0..T-1 is the papers' t + 1          trailing, leading, linspace: timestep_spacing
    final "zero": set_alpha_to_one, final_sigmas_type        final "first": the table's first entry, t = 1
"""
import numpy as np

from . import _diffusers_unet
from ._diffusers import Scheduler

BETAS = {"linear": ("linear", 1e-4, 0.02), "scaled_linear": ("scaled_linear", 0.00085, 0.012),
         "cosine": ("squaredcos_cap_v2", 1e-4, 0.02), "sigmoid": ("sigmoid", 1e-4, 0.02)}
SPACINGS = {"leading": "leading", "stride": "leading", "trailing": "trailing", "linspace": "linspace"}
KINDS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
ONE, LAST = "set_alpha_to_one", "final_sigmas_type"
SOLVERS = {"truncated": "midpoint", "exact": "heun"}

# sampler: class, its own configuration, how it is told where to end (None: sigma = 0 alone)
CLASSES = {
    "ddpm": ("DDPMScheduler", {"clip_sample": False}, None),
    "ddim": ("DDIMScheduler", {"clip_sample": False}, ONE),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}, ONE),
    "euler": ("EulerDiscreteScheduler", {}, LAST),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}, None),
    "heun": ("HeunDiscreteScheduler", {}, None),
    "lms": ("LMSDiscreteScheduler", {}, None),
    "dpm": ("KDPM2DiscreteScheduler", {}, None),
    "dpmpp": ("DPMSolverMultistepScheduler", {}, LAST),
    "sde_dpmpp": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, LAST),
    "unipc": ("UniPCMultistepScheduler", {}, LAST),
    "deis": ("DEISMultistepScheduler", {}, None),
}
PARALLEL = {"ddpm": "DDPMParallelScheduler", "ddim": "DDIMParallelScheduler"}
EDM = {"euler": "EDMEulerScheduler", "dpmpp": "EDMDPMSolverMultistepScheduler",
       "sde_dpmpp": "EDMDPMSolverMultistepScheduler"}
DDPM = {"schedule": "alphas_cumprod", "posterior": "step", "bound_log_variance": "_get_variance",
        "threshold": "_threshold_sample"}


class Diffusers:
    """All schedulers that have a counterpart here, chosen by the sampler that a case asks for, and UNet2DModel."""

    prediction = "eps"

    def __init__(self, widen=True, others=()):
        import diffusers                                         # absent: refused here, with the import's own words
        self.name, self.version, self.widen, self.made = "diffusers", diffusers.__version__, widen, {}
        self.others = dict(others)                               # {sampler: another class of the same configuration}

    def subject(self, operation, inputs):
        if operation.startswith("consistency"):
            return "diffusers.CMStochasticIterativeScheduler"
        if operation == "network":
            return "diffusers.UNet2DModel"
        if operation in DDPM:
            return f"diffusers.DDPMScheduler.{DDPM[operation]}"
        default = "ddim" if inputs.get("T") else "euler"
        return f"diffusers.{self.choose(inputs.get('sampler', default), inputs.get('T'), {})[0]}"

    def choose(self, sampler, T, options):
        """(class, configuration, options of step, where it is told to end) of a sampler with its options."""
        if sampler not in CLASSES or T is None and sampler not in EDM:
            raise NotImplementedError(f"diffusers: no scheduler for {sampler}")
        name, config, final = CLASSES[sampler]
        name = self.others.get(sampler, name)
        name, config, options, step = EDM[sampler] if T is None else name, dict(config), dict(options), {}
        if sampler == "ddpm":
            config["variance_type"] = f"fixed_{options.pop('variance', 'small')}"
        if sampler == "ddim":
            step["eta"] = float(options.pop("eta", 0.0))
        clip, percentile = options.pop("clip", None), options.pop("percentile", None)
        if clip is not None and sampler in ("ddpm", "ddim", "heun"):
            config |= {"clip_sample": True, "clip_sample_range": float(clip)}
            if percentile is not None:
                config |= _thresholding(percentile, clip, None)
            keep = options.pop("keep_eps", False)
            if sampler == "ddim":
                step["use_clipped_model_output"] = not keep
        elif clip is not None:
            raise NotImplementedError(f"{name} does not clip")
        if sampler in ("dpmpp", "sde_dpmpp", "unipc", "deis"):
            config["solver_order"] = order = options.pop("order", {"deis": 3}.get(sampler, 2))
            config |= _ending(options.pop("lower_order_final", "paper"), sampler)
        if sampler in ("dpmpp", "sde_dpmpp"):
            rule = options.pop("solver_rule", None) or "truncated"
            config["solver_type"] = SOLVERS[rule] if order < 3 else "midpoint"
            if order == 3 and rule == "exact":
                raise NotImplementedError(f"{name}: its third order has no other rule")
            if T is None and sampler == "sde_dpmpp":
                config["algorithm_type"] = "sde-dpmsolver++"
        if sampler == "unipc":
            config["solver_type"] = options.pop("B", "B2").replace("B", "bh")
        if sampler == "deis" and options.pop("variable", "lambda") != "lambda":
            raise NotImplementedError("DEISMultistepScheduler has its polynomial in log rho alone")
        if sampler == "lms":
            step["order"] = options.pop("order", 4)
        defaults = {"plms": {"order": 4, "start": "lower"}, "dpm": {"order": 2, "form": "single"},
                    "dpmpp": {"form": "multi"}, "euler_ancestral": {"eta": 1}, "sde_dpmpp": {"tau": 1}}.get(sampler, {})
        left = {k: v for k, v in options.items() if defaults.get(k) not in (v, _number(v))}
        if left:
            raise NotImplementedError(f"{name} has no {', '.join(f'{k}={v}' for k, v in left.items())}")
        return name, config, step, final

    def scheduler(self, sampler, schedule, T, rule, final, options, kind="eps"):
        """The Scheduler of a sampler on a schedule and a grid, and the options of its step."""
        grid = dict(options.pop("grid_options", None) or {})
        name, config, step, ends = self.choose(sampler, T, options)
        if T is None:
            if schedule not in ("edm", "karras") or rule not in ("karras", "exponential"):
                raise NotImplementedError(f"{name} has no {schedule} with {rule}")
            config |= {"sigma_schedule": rule, **{k: float(v) for k, v in grid.items()}}
        else:
            config |= _betas(schedule, T) | {"prediction_type": KINDS[kind]}
            if rule not in SPACINGS or grid:
                raise NotImplementedError(f"{name} has no rule {rule}")
            config["timestep_spacing"] = SPACINGS[rule]
        wanted = "first" if sampler == "deis" else "zero"
        endings = ("zero", "none") if T is None else ("zero", "first") if ends else (wanted,)
        if final not in endings:
            raise NotImplementedError(f"{name} cannot end with final={final}")
        if T is None or ends == LAST:
            config[LAST] = "zero" if final == "zero" else "sigma_min"
        elif ends:
            config[ONE] = final == "zero"
        made = name, *sorted(config.items())                  # some take 0.1 s to make; set_timesteps begins anew
        if made not in self.made:
            self.made[made] = Scheduler(name, config, self.widen)
        return self.made[made], step

    def schedule(self, name, T, **params):
        """alpha_bar and beta for t = 0..T, of DDPMScheduler."""
        made = Scheduler("DDPMScheduler", _betas(name, T, params), self.widen).made
        beta, alpha_bar = made.betas.numpy(), made.alphas_cumprod.numpy()
        return {"beta": np.concatenate([[0], beta]).astype(beta.dtype),
                "alpha_bar": np.concatenate([[1], alpha_bar]).astype(beta.dtype)}

    def grid(self, schedule, T, rule, steps, final, **params):
        """The levels of DDIMScheduler (EDMEulerScheduler for sigmas) as its networks are told of them, and the last."""
        if T is None:
            scheduler, _ = self.scheduler("euler", schedule, T, rule, final, {"grid_options": params})
            scheduler.times(steps + (final == "none"))
            sigma = scheduler.made.sigmas.numpy()[:steps + 1]
            return {"t": sigma, "sigma": sigma, "alpha_bar": np.ones_like(sigma)}
        scheduler, _ = self.scheduler("ddim", schedule, T, rule, final, params)
        t = [int(t) for t in scheduler.times(steps)] + [0 if final == "zero" else 1]
        abar = np.concatenate([[1], scheduler.made.alphas_cumprod.numpy()])[t]
        return {"t": t, "alpha_bar": abar, "sigma": np.sqrt(1 - abar)}

    def posterior(self, x0, x_t, schedule, T, t, variance="small", **params):
        """Mean and variance of x_{t-1} given x_t and x0, of DDPMScheduler's step."""
        config = _betas(schedule, T, params) | {"clip_sample": False, "prediction_type": "sample",
                                                "variance_type": f"fixed_{variance}"}
        scheduler = Scheduler("DDPMScheduler", config, self.widen)
        x = np.array(x_t, dtype=np.float64)
        with scheduler.running(lambda i: np.zeros_like(x), x) as torch:
            mean = scheduler.made.step(torch.tensor(x0, dtype=torch.float64), t - 1, torch.from_numpy(x)).prev_sample
            return {"mean": mean.numpy(), "variance": scheduler.made._get_variance(t - 1).numpy()}

    def step(self, sampler, schedule, T, t, s, x, prediction, kind="eps", noise=None, earlier_t=(), earlier=(),
             prediction_s=None, steps=None, **options):
        """One step from t to s of the classes that can be told both times."""
        if T is None or kind not in KINDS or sampler not in ("ddpm", "ddim", "euler", "dpmpp", "sde_dpmpp"):
            raise NotImplementedError(f"diffusers: no single step of {sampler} from a given t to a given s")
        if sampler in ("dpmpp", "sde_dpmpp"):
            options["lower_order_final"] = "never"
        scheduler, extra = self.scheduler(sampler, schedule, T, "leading", "zero", options, kind)
        times = [int(v) - 1 for v in (*reversed(list(earlier_t)), t, *([s] if s else []))]
        asked = {"timesteps": times}
        if sampler == "ddim":
            stride = int(t) - int(s)
            if not 0 <= s < t or T // (T // stride) != stride:
                raise NotImplementedError(f"DDIMScheduler steps by T // steps, never by {stride} of T = {T}")
            asked = {"num_inference_steps": T // stride}
        x = np.array(x, dtype=np.float64)
        z = np.zeros_like(x) if noise is None else np.array(noise, dtype=np.float64)
        values = [*reversed([np.array(v, dtype=np.float64) for v in earlier]), np.array(prediction, dtype=np.float64)]
        times = times[:len(values)]
        image = x.shape + (1, 1) if scheduler.made.config.get("thresholding") else x.shape      # it takes no (n, d)
        with scheduler.running(lambda i: z, x) as torch:
            scheduler.made.set_timesteps(**asked)
            for at, value in zip(times, values):
                y = torch.from_numpy(x.reshape(image))
                if scheduler.divided:
                    y = y * float(scheduler.made.sigmas[0] ** 2 + 1) ** 0.5
                at = torch.tensor(at) if sampler != "euler" else scheduler.made.timesteps[0]
                scheduler.made.scale_model_input(y, at)
                y = scheduler.made.step(torch.from_numpy(value.reshape(image)), at, y, **extra).prev_sample
            if scheduler.divided:
                y = y / float(scheduler.made.sigmas[1] ** 2 + 1) ** 0.5
            return y.numpy().reshape(x.shape)

    def trajectory(self, sampler, schedule, T, steps, rule, final, x, denoiser, noise, **options):
        """x at the last level, or the list of states of a class with one call of the network in each step."""
        scheduler, extra = self.scheduler(sampler, schedule, T, rule, final, options)
        more = final == "none"                                # sigma_min twice: its last step, of length 0, is left out
        states = scheduler.run(x, self.predicting(scheduler, denoiser), noise, steps + more, extra,
                               most=steps if more else None)
        return states if len(states) == steps else states[-1]

    def threshold(self, x0, percentile=0.995, limit=1.0, cap=None):
        """x0 thresholded by DDPMScheduler, its rows as images of one pixel."""
        scheduler = Scheduler("DDPMScheduler", _thresholding(percentile, limit, cap), self.widen)
        with scheduler.running() as torch:
            return scheduler.made._threshold_sample(
                torch.tensor(np.array(x0))[:, :, None, None]).numpy()[..., 0, 0]

    def bound_log_variance(self, schedule, T, t, kind="small", out=None):
        """log of DDPMScheduler's variance of the step from t to t - 1, fixed, or between the two by the network."""
        learned = kind == "learned"
        scheduler = Scheduler("DDPMScheduler", _betas(schedule, T) | {
            "variance_type": "learned_range" if learned else f"fixed_{kind}"}, self.widen)
        with scheduler.running() as torch:
            if learned:
                return scheduler.made._get_variance(t - 1, torch.tensor(out, dtype=torch.float64)).numpy()
            return scheduler.made._get_variance(t - 1).log().numpy()

    def consistency_boundary(self, sigma, sigma_min, sigma_data):
        """c_skip and c_out of CMStochasticIterativeScheduler."""
        made = Scheduler("CMStochasticIterativeScheduler", {"sigma_min": sigma_min, "sigma_data": sigma_data}).made
        c_skip, c_out = made.get_scalings_for_boundary_condition(sigma)
        return {"c_skip": c_skip, "c_out": c_out}

    def consistency_multistep(self, sigmas, x, noise, network, sigma_min=0.002, sigma_data=0.5):
        """x after the steps of CMStochasticIterativeScheduler, its levels set to the given ones, without clipping."""
        config = {"sigma_min": sigma_min, "sigma_data": sigma_data, "clip_denoised": False}
        scheduler = Scheduler("CMStochasticIterativeScheduler", config, self.widen)
        made, levels = scheduler.made, [float(sigma) for sigma in sigmas]
        with scheduler.running(noise, np.array(x)) as torch:
            made.timesteps, made.sigmas = torch.arange(float(len(levels))), torch.tensor([*levels, float(sigma_min)])
            y = torch.tensor(np.array(x, dtype=np.float64))
            for t, sigma in zip(made.timesteps, levels):
                made.scale_model_input(y, t)
                y = made.step(torch.from_numpy(network(y.numpy(), sigma)), t, y).prev_sample
            return y.numpy()

    def network(self, config, weights, x, t, dy, labels=None):
        """y and every gradient of UNet2DModel, its time embedding in float64 too if widened."""
        return _diffusers_unet.network(config, weights, x, t, dy, labels, self.widen)

    def predicting(self, scheduler, denoiser):
        """What the class calls a prediction, from a denoiser that predicts eps."""
        if not scheduler.edm:
            return denoiser
        data = scheduler.made.config.sigma_data

        def F(x, sigma):
            x0 = x - sigma * denoiser(x, sigma)
            return (x0 - data ** 2 / (sigma ** 2 + data ** 2) * x) * (sigma ** 2 + data ** 2) ** 0.5 / (sigma * data)
        return F

    def configurations(self):
        """The settings that its classes allow, for the oracles."""
        for rule in ("leading", "trailing", "linspace"):
            vp = {"schedule": "linear", "T": 1000, "rule": rule}
            yield {"sampler": "ddpm", **vp, "variance": "small"}
            yield {"sampler": "ddim", **vp, "eta": 0.0}
            yield {"sampler": "ddim", **vp, "eta": 1.0}
            yield {"sampler": "plms", **vp, "order": 4, "start": "lower"}
            for sampler in ("euler", "euler_ancestral", "heun"):
                yield {"sampler": sampler, **vp}
            yield {"sampler": "lms", **vp, "order": 4}
            yield {"sampler": "dpm", **vp, "order": 2, "form": "single"}
            yield {"sampler": "dpmpp", **vp, "order": 2}
            yield {"sampler": "dpmpp", **vp, "order": 3}
            yield {"sampler": "sde_dpmpp", **vp, "order": 2}
            yield {"sampler": "unipc", **vp, "order": 2}
            if rule == "trailing":
                yield from ({"sampler": "deis", **vp, "final": "first", "order": order, "variable": "lambda"}
                            for order in (2, 3))
        trailing = {"schedule": "linear", "T": 1000, "rule": "trailing"}
        yield {"sampler": "ddpm", **trailing, "variance": "large"}
        yield {"sampler": "ddim", **trailing, "final": "first", "eta": 0.0}
        yield {"sampler": "dpmpp", **trailing, "final": "first", "order": 2}
        yield {"sampler": "unipc", **trailing, "order": 3}
        for schedule in ("scaled_linear", "cosine"):
            yield {"sampler": "ddim", "schedule": schedule, "T": 1000, "rule": "leading", "eta": 0.0}
            yield {"sampler": "dpmpp", "schedule": schedule, "T": 1000, "rule": "trailing", "order": 2}
        for rule in ("karras", "exponential"):
            edm = {"schedule": "edm", "T": None, "rule": rule}
            yield {"sampler": "euler", **edm}
            yield {"sampler": "dpmpp", **edm, "order": 2}
            yield {"sampler": "dpmpp", **edm, "order": 3}
            yield {"sampler": "sde_dpmpp", **edm, "order": 2}


def _number(value):
    """A decimal string as its number; anything else as it is."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _thresholding(percentile, limit, cap):
    """The configuration of dynamic thresholding; its bound, 1 unless said, is taken off where there is none."""
    if float(limit) != 1:
        raise NotImplementedError(f"diffusers thresholds to 1, not to {limit}")
    return {"thresholding": True, "dynamic_thresholding_ratio": float(percentile), "clip_sample": False,
            "sample_max_value": float("inf" if cap is None else cap)}


def _ending(lowered, sampler):
    """lower_order_final: fewer than 15 steps for DPM-Solver's and DEIS's, at any number for UniPC's."""
    if lowered == "always" and sampler != "unipc":
        raise NotImplementedError("diffusers: last steps of lower order for fewer than 15 steps alone")
    return {"lower_order_final": lowered != "never"}


def _betas(schedule, T, params=()):
    """The configuration of a table of noise."""
    params = dict(params)
    if schedule not in BETAS:
        raise NotImplementedError(f"diffusers: no schedule {schedule}")
    name, low, high = BETAS[schedule]
    config = {"num_train_timesteps": int(T) if float(T) == int(float(T)) else T, "beta_schedule": name,
              "beta_start": float(params.pop("beta_start", low)), "beta_end": float(params.pop("beta_end", high))}
    if params.pop("zero_terminal", False):
        config["rescale_betas_zero_snr"] = True
    fixed = {"s": 0.008, "beta_max": 0.999, "span": 6.0}
    if any(float(value) != fixed.get(key) for key, value in params.items()):
        raise NotImplementedError(f"diffusers: {schedule} has no {', '.join(params)}")
    return config


def parallel():
    """The adapter of the classes for parallel sampling, which are DDPM's and DDIM's with a step for many times."""
    return Diffusers(others=PARALLEL)


def shipped():
    """The adapter that leaves float32 as it comes."""
    return Diffusers(widen=False)


adapter = Diffusers
