"""One step of every sampler, with the prediction and the noise given; multistep methods with their history."""
from .build import build, numbers

VP = {"schedule": "linear", "T": 1000}
JUMPS = ((1000, 900), (500, 480), (2, 1), (20, 0))
NOISE_FLAGS = ("variance", "variance_meaning", "index_base", "final_alpha", "table_dtype")

# sampler, options, tag, flags: with noise, one evaluation
STOCHASTIC = [
    ("ddpm", {"variance": "small"}, "DDPM alg. 2", NOISE_FLAGS),
    ("ddpm", {"variance": "large"}, "DDPM alg. 2", NOISE_FLAGS),
    ("ddim", {"eta": "0"}, "DDIM eq. 12", ("index_base", "final_alpha", "prediction")),
    ("ddim", {"eta": "0.5"}, "DDIM eq. 16", ("eta_meaning", "direction", "variance_meaning")),
    ("ddim", {"eta": "1"}, "DDIM eq. 16", ("eta_meaning", "direction", "variance_meaning")),
    ("reverse_diffusion", {}, "SDE sec. E", ("variance_meaning",)),
    ("ancestral", {"variance": "small"}, "SDE eq. 47", NOISE_FLAGS),
    ("ancestral", {"variance": "large"}, "SDE eq. 47", NOISE_FLAGS),
    ("euler_ancestral", {"eta": "1"}, "DDIM eq. 16", ("eta_meaning",)),
    ("euler_ancestral", {"eta": "0.4"}, "DDIM eq. 16", ("eta_meaning",)),
    ("sde_dpmpp", {"order": 1, "tau": "1"}, "DPMPP sec. 5", ("variance_meaning",)),
    ("sde_dpmpp", {"order": 1, "tau": "0.5"}, "DPMPP sec. 5", ("variance_meaning",))]
SIGMAS = (("80", "40"), ("2", "1"), ("0.01", "0.002"))
KINDS = (("x0", "DDIM eq. 9"), ("v", "PD sec. 4"), ("score", "EDM eq. 3"), ("velocity", "RF eq. 1"))


def _given(sampler, place, t, s, seed, kind="eps", noise=False, **options):
    return {"sampler": sampler, **place, "t": t, "s": s, "x": numbers(seed, (2, 2)),
            "prediction": numbers(seed + 1, (2, 2)), "kind": kind,
            "noise": numbers(seed + 2, (2, 2)) if noise else None, **options}


def _name(options):
    return "-".join(f"{key.replace('solver_', '')}{value}".lower() for key, value in options.items()) or "plain"


def _stochastic():
    for i, (sampler, options, tag, flags) in enumerate(STOCHASTIC):
        for t, s in JUMPS:
            noise = s > 0 and options.get("eta") != "0"
            yield build(f"step/{sampler}/{_name(options)}/linear/at{t}-{s}", "step",
                        _given(sampler, VP, t, s, 3 * t + i, noise=noise, **options), tag, flags)
    for kind, tag in KINDS:
        yield build(f"step/ddim/eta0/predicts-{kind}/linear/at500-480", "step",
                    _given("ddim", VP, 500, 480, 31, kind, eta="0"), tag, ("prediction", "prediction_sign"))
        yield build(f"step/ddpm/small/predicts-{kind}/linear/at500-480", "step",
                    _given("ddpm", VP, 500, 480, 32, kind, True, variance="small"), tag,
                    ("prediction", "prediction_sign"))
    for schedule in ("cosine", "scaled_linear"):
        for t, s in ((1000, 950), (300, 250)):
            yield build(f"step/ddim/eta0/{schedule}/at{t}-{s}", "step",
                        _given("ddim", {"schedule": schedule, "T": 1000}, t, s, t, eta="0"), "DDIM eq. 12",
                        ("schedule_spacing", "cosine_clip", "index_base"))
    for keep in (False, True):
        yield build(f"step/ddim/eta0/clipped/{'eps-kept' if keep else 'eps-derived'}", "step",
                    _given("ddim", VP, 501, 481, 33, eta="0", clip="1", keep_eps=keep), "DDIM eq. 12",
                    ("clip", "rederive_eps"), [] if keep else [{"rederive_eps": "no"}])


def _deterministic():
    for sampler, tag in (("euler", "EDM alg. 1"), ("heun", "EDM alg. 1")):
        for place, jumps in ((VP, ((1000, 900), (500, 480), (20, 0))), ({"schedule": "edm", "T": None}, SIGMAS),
                             ({"schedule": "flow", "T": None}, (("0.9", "0.8"), ("0.1", "0"))),
                             ({"schedule": "vp", "T": None}, (("1", "0.9"), ("0.2", "0.1")))):
            for t, s in jumps:
                extra = {"prediction_s": numbers(91, (2, 2))} if sampler == "heun" and s not in (0, "0") else {}
                yield build(f"step/{sampler}/{place['schedule']}/at{t}-{s}", "step",
                            _given(sampler, place, t, s, 40, **extra), tag, ("heun_last", "index_base"))


def _multistep():
    history = {1: (), 2: (520,), 3: (520, 560), 4: (520, 560, 600)}
    methods = [("dpmpp", "x0", k, options, "DPMPP alg. 2" if k < 3 else "DPMPP sec. 4.2")
               for k, options in ((1, {}), (2, {}), (2, {"solver_rule": "exact"}), (3, {"solver_rule": "exact"}),
                                  (3, {"solver_rule": "truncated"}))]
    methods += [("lms", "eps", k, {}, "LMS") for k in (1, 2, 3, 4)]
    methods += [("plms", "eps", k, {}, "PNDM sec. 3") for k in (1, 2, 3, 4)]
    methods += [("deis", "eps", k, {"variable": variable}, "DEIS sec. 4" if variable == "rho" else "DEIS sec. 3")
                for k in (2, 3, 4) for variable in ("rho", "lambda")]
    methods += [("unipc", "x0", k, {"B": B}, "UNIPC sec. 3.4") for k in (1, 2, 3) for B in ("B1", "B2")]
    methods += [("sde_dpmpp", "x0", 2, {"solver_rule": rule, "tau": "1"}, "DPMPP sec. 5")
                for rule in ("truncated", "exact")]
    for sampler, kind, order, options, tag in methods:
        for s in (480, 0) if order > 1 else (480,):
            before = {"earlier_t": list(history[order]), "earlier": [
                numbers(60 + j, (2, 2)) for j in range(order - 1)]}
            noise = sampler == "sde_dpmpp" and s > 0
            yield build(f"step/{sampler}/order{order}/{_name(options)}/linear/at500-{s}", "step",
                        _given(sampler, VP, 500, s, 50 + order, kind, noise, order=order, **before, **options), tag,
                        ("multistep_ratio", "solver_rule", "B"))
    for order in (1, 2, 3):
        for B in ("B1", "B2"):
            before = {"earlier_t": list(history[order]), "earlier": [
                numbers(60 + j, (2, 2)) for j in range(order - 1)]}
            yield build(f"step/unipc/order{order}/corrected-b{B[1]}/linear/at500-480", "step",
                        _given("unipc", VP, 500, 480, 57, "x0", order=order, B=B, prediction_s=numbers(58, (2, 2)),
                               **before), "UNIPC sec. 3.2", ("B", "corrector"))


def _single():
    for order, options in ((2, {}), (2, {"solver_rule": "exact"}), (3, {}), (3, {"solver_rule": "exact"})):
        for place, jumps in ((VP, ((1000, 900), (500, 480), (20, 0))), ({"schedule": "edm", "T": None}, SIGMAS)):
            for t, s in jumps:
                inside = [numbers(93 + j, (2, 2)) for j in range(order - 1)] if s else []
                yield build(f"step/dpm/order{order}/{_name(options)}/{place['schedule']}/at{t}-{s}", "step",
                            _given("dpm", place, t, s, 90, order=order, predictions_inside=inside, **options),
                            f"DPM alg. {order - 1}" if not options else "DPM eq. 3.6", ("solver_rule", "index_base"))


def _in_time():
    for order in (2, 3, 4):
        for schedule, t, earlier, s in (
                ("vp", "0.5", ("0.55", "0.6", "0.7"), "0.45"), ("vp", "0.1", ("0.2", "0.3", "0.5"), "0"),
                ("flow", "0.5", ("0.6", "0.7", "0.8"), "0.4")):
            yield build(f"step/deis/order{order}/variablet/{schedule}/at{t}-{s}", "step", _given(
                "deis", {"schedule": schedule, "T": None}, t, s, 95 + order, order=order, variable="t",
                earlier_t=list(earlier[:order - 1]), earlier=[numbers(60 + j, (2, 2)) for j in range(order - 1)]),
                "DEIS sec. 3", ("multistep_ratio",))


def _thresholded():
    for percentile in ("0.995", "0.5"):
        for keep in (False, True):
            given = {**_given("ddim", VP, 501, 481, 33, eta="0", clip="1", percentile=percentile, keep_eps=keep),
                     "x": numbers(97, (2, 5), -3, 3), "prediction": numbers(98, (2, 5))}
            yield build(f"step/ddim/eta0/thresholded/p{percentile}/{'eps-kept' if keep else 'eps-derived'}", "step",
                        given, "DYNTHR sec. 2.3", ("rederive_eps", "clip"))


def _sde():
    for schedule, jumps in (("vp", (("1", "0.9"), ("0.5", "0.45"))), ("edm", (("80", "70"), ("1", "0.9")))):
        for t, s in jumps:
            yield build(f"step/euler_maruyama/{schedule}/at{t}-{s}", "step",
                        _given("euler_maruyama", {"schedule": schedule, "T": None}, t, s, 70, noise=True),
                        "SDE eq. 6", ("variance_meaning", "maruyama_dt"))
    for name, options in (("mild", {"S_churn": "2", "steps": 18}), ("capped", {"S_churn": "80", "steps": 18}),
                          ("louder", {"S_churn": "40", "steps": 256, "S_noise": "1.003"}),
                          ("out-of-range", {"S_churn": "40", "steps": 18, "S_tmin": "0.05", "S_tmax": "1"})):
        for t, s in (("5", "4"), ("0.3", "0")):
            yield build(f"step/churn/{name}/edm/at{t}-{s}", "step", _given(
                "churn", {"schedule": "edm", "T": None}, t, s, 71, noise=True, prediction_s=numbers(72, (2, 2)),
                **options), "EDM alg. 2", ("churn_cap", "noise_index"))


def _invalid():
    for what, sampler, t, s, options in (
            ("to-more-noise", "ddim", 480, 500, {"eta": "0"}), ("in-place", "ddim", 500, 500, {"eta": "0"}),
            ("beyond", "ddim", 1001, 900, {"eta": "0"}), ("before-clean", "ddim", 20, -1, {"eta": "0"}),
            ("eta-2", "ddim", 500, 480, {"eta": "2"}), ("eta-negative", "ddim", 500, 480, {"eta": "-0.5"}),
            ("eta-nan", "ddim", 500, 480, {"eta": "nan"}), ("variance", "ddpm", 500, 480, {"variance": "nosuch"}),
            ("order-9", "dpmpp", 500, 480, {"order": 9}), ("unknown", "nosuch", 500, 480, {})):
        yield build(f"step/{sampler}/invalid/{what}", "step", _given(sampler, VP, t, s, 80, noise=True, **options),
                    "DDIM eq. 12", invalid=True)


def cases():
    """The cases of the family, for store.make."""
    return [*_stochastic(), *_deterministic(), *_multistep(), *_single(), *_in_time(), *_thresholded(), *_sde(),
            *_invalid()]
