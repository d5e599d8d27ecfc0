"""Grids: which levels a sampler of S steps visits, by every rule, rounding and end, S dividing T or not."""
from .build import build

SPACING = "ZTSNR table 2"
TAGS = {"leading": SPACING, "stride": "DDIM sec. 4.2", "trailing": SPACING, "linspace": SPACING,
        "quadratic": "DDIM sec. 4.2"}
RULES = tuple(TAGS)

# rule, T, S, final, and the other published answers
DISCRETE = [(rule, 1000, S, "zero", ()) for rule in RULES for S in (1, 10, 20, 50)
            if (rule, S) != ("quadratic", 50)] + [
    (rule, 1000, 1000, "zero", ()) for rule in ("leading", "trailing", "linspace")] + [
    (rule, 1000, 999, "none", ()) for rule in ("leading", "trailing", "linspace")] + [
    ("leading", 1000, 7, "zero", ({"spacing": "stride"},)), ("leading", 1000, 30, "zero", ({"spacing": "stride"},)),
    ("stride", 1000, 7, "zero", ({"spacing": "leading"},)), ("stride", 100, 30, "zero", ({"spacing": "leading"},)),
    ("trailing", 1000, 7, "zero", ({"rounding": "floor"},)), ("trailing", 1000, 30, "zero", ({"rounding": "floor"},)),
    ("trailing", 1000, 16, "zero", ({"rounding": "floor"}, {"rounding": "up"})),
    ("trailing", 100, 8, "zero", ({"rounding": "floor"}, {"rounding": "up"})),
    ("linspace", 1000, 7, "zero", ({"rounding": "floor"},)), ("linspace", 1000, 11, "zero", ({"rounding": "floor"},)),
    ("leading", 1000, 10, "none", ()), ("trailing", 1000, 10, "none", ()), ("linspace", 1000, 10, "none", ()),
    ("trailing", 1000, 10, "first", ()), ("trailing", 1000, 50, "first", ()), ("quadratic", 1000, 10, "none", ())]
OTHERS = [("scaled_linear", "leading", 1000, 50, "zero"), ("scaled_linear", "trailing", 1000, 20, "zero"),
          ("cosine", "trailing", 1000, 20, "zero"), ("cosine", "linspace", 100, 10, "zero"),
          ("sigmoid", "trailing", 100, 10, "zero"), ("linear", "trailing", 10, 10, "zero"),
          ("linear", "trailing", 1, 1, "zero"), ("linear", "linspace", 2, 2, "zero")]
ENDINGS = [("scaled_linear", "leading", 1000, 20), ("linear", "leading", 1000, 10), ("linear", "trailing", 1000, 20)]
INVALID = [("s0", "trailing", 1000, 0, "zero"), ("s-beyond-t", "trailing", 1000, 1001, "zero"),
           ("s-negative", "leading", 1000, -5, "zero"), ("s-half", "linspace", 1000, "2.5", "zero"),
           ("s-is-t-without-final", "trailing", 1000, 1000, "none"), ("repeats", "quadratic", 1000, 1000, "zero"),
           ("unknown-rule", "nosuch", 1000, 10, "zero"), ("unknown-final", "trailing", 1000, 10, "nosuch"),
           ("first-after-first", "leading", 1000, 10, "first")]

SIGMAS = [("karras", S, "zero", {}) for S in (1, 2, 5, 10, 18, 40, 256)] + [
    ("karras", 10, "none", {}), ("karras", 10, "zero", {"rho": "3"}), ("karras", 10, "zero", {"rho": "1"}),
    ("karras", 10, "zero", {"sigma_min": "0.0291675", "sigma_max": "14.614641"}),
    ("karras", 20, "zero", {"sigma_min": "0.01", "sigma_max": "50", "rho": "5"}),
    ("exponential", 10, "zero", {}), ("exponential", 20, "none", {}),
    ("exponential", 10, "zero", {"sigma_min": "0.01", "sigma_max": "50"}),
    ("polyexponential", 10, "zero", {"rho": "1"}), ("polyexponential", 10, "zero", {"rho": "2"}),
    ("polyexponential", 10, "none", {"rho": "0.5"})]
TIMES = [("vp", "uniform_lambda", S, "none", {}) for S in (5, 10, 20)] + [
    ("vp", "uniform_lambda", 15, "zero", {}), ("vp", "uniform_lambda", 10, "none", {"end": "0.0001"}),
    ("vp", "uniform", 10, "none", {}), ("vp", "uniform", 10, "none", {"power": "2"}),
    ("flow", "uniform", 10, "none", {"end": "0"}), ("flow", "uniform", 28, "none", {"end": "0"}),
    ("flow", "uniform", 10, "none", {"end": "0", "shift": "3"}),
    ("flow", "uniform", 28, "none", {"end": "0", "shift": "1.15"})]
BAD_SIGMAS = [("s0", "karras", 0, "zero", {}), ("min-above-max", "karras", 10, "zero", {"sigma_min": "90"}),
              ("min-0", "karras", 10, "zero", {"sigma_min": "0"}), ("rho-0", "karras", 10, "zero", {"rho": "0"}),
              ("min-negative", "exponential", 10, "zero", {"sigma_min": "-1"}),
              ("unknown", "nosuch", 10, "zero", {})]


def _discrete(schedule, rule, T, S, final):
    return {"schedule": schedule, "T": T, "rule": rule, "steps": S, "final": final}


def _continuous(schedule, rule, S, final, params):
    return {"schedule": schedule, "T": None, "rule": rule, "steps": S, "final": final, **params}


def _params(params):
    return "/".join(f"{key}{value}" for key, value in params.items()) or "default"


def cases():
    """The cases of the family, for store.make."""
    flags = ("spacing", "rounding", "index_base", "steps_offset", "final_alpha")
    made = [build(f"grid/linear/{rule}/t{T}/n{S}/{final}", "grid", _discrete("linear", rule, T, S, final), TAGS[rule],
                  flags, accept, operations=T) for rule, T, S, final, accept in DISCRETE]
    made += [build(f"grid/{schedule}/{rule}/t{T}/n{S}/{final}/other", "grid",
                   _discrete(schedule, rule, T, S, final), TAGS[rule], flags, operations=T)
             for schedule, rule, T, S, final in OTHERS]
    made += [build(f"grid/{schedule}/{rule}/t{T}/n{S}/zero/endings", "grid",
                   _discrete(schedule, rule, T, S, "zero"), TAGS[rule], flags, ({"final_alpha": "abar_0"},),
                   operations=T) for schedule, rule, T, S in ENDINGS]
    made += [build(f"grid/invalid/{what}", "grid", _discrete("linear", rule, T, S, final), SPACING, invalid=True)
             for what, rule, T, S, final in INVALID]
    made += [build(f"grid/edm/{rule}/n{S}/{final}/{_params(params)}", "grid",
                   _continuous("edm", rule, S, final, params), "EDM eq. 5", ("rho_placement", "final_sigma"),
                   operations=20) for rule, S, final, params in SIGMAS]
    made += [build(f"grid/{schedule}/{rule}/n{S}/{final}/{_params(params)}", "grid",
                   _continuous(schedule, rule, S, final, params),
                   "DPM sec. 3.3" if rule == "uniform_lambda" else "SD3 eq. 23" if schedule == "flow" else "SDE eq. 11",
                   ("final_sigma",), operations=40) for schedule, rule, S, final, params in TIMES]
    return made + [build(f"grid/edm/invalid/{what}", "grid", _continuous("edm", rule, S, final, params), "EDM eq. 5",
                         invalid=True) for what, rule, S, final, params in BAD_SIGMAS]
