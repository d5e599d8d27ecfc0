"""Whole trajectories on data whose perfect denoiser is known: a Gaussian and a mixture, 10, 20 and 50 steps."""
from .build import build, numbers

WORLDS = {"gaussian": {"world": "gaussian", "mean": "0.5", "std": "0.7"},
          "mixture": {"world": "mixture", "weights": ["0.3", "0.7"], "means": ["-1", "0.8"], "stds": ["0.2", "0.4"]}}
LEVEL = ("index_base", "spacing", "rounding", "final_alpha", "time_label", "initial_scale", "table_dtype")
NOISE = ("variance", "variance_meaning", "last_step_noise", "noise_index", "eta_meaning", "direction")

# sampler, options, tag, flags beyond LEVEL; name in the id
DISCRETE = [
    ("ddpm/small", "ddpm", {"variance": "small"}, "DDPM alg. 2", NOISE),
    ("ddpm/large", "ddpm", {"variance": "large"}, "DDPM alg. 2", NOISE),
    ("ddim/eta0", "ddim", {"eta": "0"}, "DDIM eq. 12", ("prediction",)),
    ("ddim/eta0.5", "ddim", {"eta": "0.5"}, "DDIM eq. 16", NOISE),
    ("ddim/eta1", "ddim", {"eta": "1"}, "DDIM eq. 16", NOISE),
    ("euler", "euler", {}, "EDM alg. 1", ()),
    ("heun", "heun", {}, "EDM alg. 1", ("heun_last",)),
    ("dpmpp/1", "dpmpp", {"order": 1}, "DPMPP sec. 4.1", ()),
    ("dpmpp/2m", "dpmpp", {"order": 2}, "DPMPP alg. 2", ("multistep_ratio", "lower_order_final", "solver_rule")),
    ("dpmpp/3m", "dpmpp", {"order": 3}, "DPMPP sec. 4.2", ("lower_order_final", "solver_rule")),
    ("unipc/2", "unipc", {"order": 2}, "UNIPC sec. 3.3", ("B", "corrector", "lower_order_final")),
    ("unipc/3", "unipc", {"order": 3}, "UNIPC sec. 3.3", ("B", "corrector", "lower_order_final")),
    ("deis/3rho", "deis", {"order": 3, "variable": "rho"}, "DEIS sec. 4", ()),
    ("plms/4", "plms", {"order": 4}, "PNDM sec. 3", ()),
    ("lms/4", "lms", {"order": 4}, "LMS", ()),
    ("sde_dpmpp/2", "sde_dpmpp", {"order": 2}, "DPMPP sec. 5", (*NOISE, "solver_rule"))]
SIGMAS = [
    ("euler", "euler", {}, "EDM alg. 1", ()), ("heun", "heun", {}, "EDM alg. 1", ("heun_last",)),
    ("dpmpp/2m", "dpmpp", {"order": 2}, "DPMPP alg. 2", ("multistep_ratio", "lower_order_final")),
    ("lms/4", "lms", {"order": 4}, "LMS", ()),
    ("euler_ancestral", "euler_ancestral", {}, "DDIM eq. 16", NOISE),
    ("churn/5", "churn", {"S_churn": "5"}, "EDM alg. 2", ("churn_cap", "noise_index")),
    ("churn/80", "churn", {"S_churn": "80", "S_tmin": "0.05", "S_tmax": "50", "S_noise": "1.003"}, "EDM alg. 2",
     ("churn_cap", "noise_index"))]
STOCHASTIC = ("ddpm", "ddim", "sde_dpmpp", "euler_ancestral", "churn", "reverse_diffusion", "ancestral",
              "euler_maruyama")


def _inputs(sampler, schedule, T, S, rule, final, world, options, seed, scale=1, grid_options=None, states=False):
    noise = sampler in STOCHASTIC and options.get("eta") != "0"
    x = numbers(seed, (2, 2), -2 * scale, 2 * scale)
    return {"sampler": sampler, "schedule": schedule, "T": T, "steps": S, "rule": rule, "final": final, "x": x,
            "denoiser": WORLDS[world], "noise": [numbers(seed + 100 + i, (2, 2)) for i in range(S)] if noise else None,
            **({"grid_options": grid_options} if grid_options else {}), **({"states": True} if states else {}),
            **options}


def cases():
    """The cases of the family, for store.make."""
    made = []
    for i, (name, sampler, options, tag, flags) in enumerate(DISCRETE):
        for j, (S, rule, world) in enumerate(((10, "trailing", "gaussian"), (20, "leading", "gaussian"),
                                              (50, "trailing", "gaussian"), (10, "trailing", "mixture"),
                                              (20, "linspace", "mixture"))):
            made.append(build(f"sampler/{name}/{rule}/n{S}/{world}", "trajectory", _inputs(
                sampler, "linear", 1000, S, rule, "zero", world, options, 10 * i + j), tag, (*flags, *LEVEL),
                operations=S))
    for i, (name, sampler, options, tag, flags) in enumerate(SIGMAS):
        for j, (S, world) in enumerate(((10, "gaussian"), (20, "gaussian"), (50, "gaussian"), (18, "mixture"))):
            made.append(build(f"sampler/{name}/karras/n{S}/{world}", "trajectory", _inputs(
                sampler, "edm", None, S, "karras", "zero", world, options, 500 + 10 * i + j, 80), tag,
                (*flags, "rho_placement", "initial_scale"), operations=S))
    for name, S, schedule, rule, tag in (("ddim/eta0", 20, "cosine", "trailing", "DDIM eq. 12"),
                                         ("ddim/eta0", 10, "scaled_linear", "leading", "DDIM eq. 12")):
        made.append(build(f"sampler/{name}/{rule}/n{S}/gaussian/{schedule}", "trajectory", _inputs(
            "ddim", schedule, 1000, S, rule, "zero", "gaussian", {"eta": "0"}, 900), tag,
            ("cosine_clip", "schedule_spacing", *LEVEL), operations=S))
    for name, sampler, options, tag in (("ddim/eta0", "ddim", {"eta": "0"}, "DDIM eq. 12"),
                                        ("ddpm/small", "ddpm", {"variance": "small"}, "DDPM alg. 2"),
                                        ("dpmpp/2m", "dpmpp", {"order": 2}, "DPMPP alg. 2")):
        made.append(build(f"sampler/{name}/trailing/n10/gaussian/states", "trajectory", _inputs(
            sampler, "linear", 1000, 10, "trailing", "zero", "gaussian", options, 910, states=True), tag,
            LEVEL, operations=10))
        made.append(build(f"sampler/{name}/leading/n10/gaussian/ending", "trajectory", _inputs(
            sampler, "scaled_linear", 1000, 10, "leading", "zero", "gaussian", options, 911), tag, LEVEL,
            ({"final_alpha": "abar_0"},), operations=10))
    for S in (10, 20):
        made.append(build(f"sampler/euler_maruyama/vp/n{S}/gaussian", "trajectory", _inputs(
            "euler_maruyama", "vp", None, S, "uniform", "none", "gaussian", {}, 920), "SDE eq. 6",
            ("maruyama_dt", "last_step_noise"), operations=S))
        made.append(build(f"sampler/euler/flow/n{S}/gaussian", "trajectory", _inputs(
            "euler", "flow", None, S, "uniform", "none", "gaussian", {}, 921, grid_options={
                "start": "0.999", "end": "0"}), "RF eq. 1", ("prediction_sign",), operations=S))
        made.append(build(f"sampler/dpmpp/2m/vp-uniform-lambda/n{S}/gaussian", "trajectory", _inputs(
            "dpmpp", "vp", None, S, "uniform_lambda", "none", "gaussian", {"order": 2}, 922), "DPM sec. 3.3",
            ("lower_order_final", "multistep_ratio"), operations=S))
    made.append(build("sampler/ddim/eta0/trailing/n10/gaussian/t100", "trajectory", _inputs(
        "ddim", "linear", 100, 10, "trailing", "zero", "gaussian", {"eta": "0"}, 940), "DDIM eq. 12",
        ("schedule_ends", "time_label", *LEVEL), operations=10))
    for corrector in ("paper", "every", "never"):
        made.append(build(f"sampler/unipc/2/vp-uniform-lambda/n10/gaussian/corrects-{corrector}", "trajectory", _inputs(
            "unipc", "vp", None, 10, "uniform_lambda", "none", "gaussian", {"order": 2, "corrector": corrector}, 950),
            "UNIPC sec. 3.3", ("corrector", "lower_order_final", "B"), operations=10))
    for order in (2, 3):
        for name, place, scale in (("vp-uniform-lambda", ("vp", None, 10, "uniform_lambda", "none"), 1),
                                   ("karras", ("edm", None, 10, "karras", "zero"), 80)):
            made.append(build(f"sampler/dpm/{order}s/{name}/n10/gaussian", "trajectory", _inputs(
                "dpm", *place, "gaussian", {"order": order}, 960 + order, scale), f"DPM alg. {order - 1}",
                ("solver_rule", "rho_placement" if scale > 1 else "time_label"), operations=10 * order))
        made.append(build(f"sampler/dpm/{order}s/vp-uniform-lambda/n10/mixture", "trajectory", _inputs(
            "dpm", "vp", None, 10, "uniform_lambda", "none", "mixture", {"order": order}, 965 + order),
            f"DPM alg. {order - 1}", ("solver_rule",), operations=10 * order))
    for order in (2, 3, 4):
        for name, power in (("uniform", "1"), ("uniform-power2", "2")):
            made.append(build(f"sampler/deis/{order}t/vp-{name}/n10/gaussian", "trajectory", _inputs(
                "deis", "vp", None, 10, "uniform", "none", "gaussian", {"order": order, "variable": "t"}, 970 + order,
                grid_options={"power": power}), "DEIS sec. 3", ("lower_order_final",), operations=10))
    return made + [build(f"sampler/invalid/{what}", "trajectory", {**_inputs(
        "ddim", "linear", 1000, 10, "trailing", "zero", "gaussian", {"eta": "0"}, 930), **change}, "DDIM eq. 12",
        invalid=True) for what, change in (
            ("no-noise", {"eta": "1"}), ("steps-0", {"steps": 0}), ("steps-beyond", {"steps": 1001}),
            ("eta-2", {"eta": "2"}), ("unknown-rule", {"rule": "nosuch"}), ("unknown-sampler", {"sampler": "nosuch"}))]
