"""Schedules: beta, abar and 1 - abar at t = 0..T of every named schedule, and what is no schedule."""
from .build import build

LINEAR = "DDPM eq. 4"
TAGS = {"linear": LINEAR, "scaled_linear": LINEAR, "quadratic": LINEAR, "cosine": "IDDPM eq. 17", "sigmoid": LINEAR,
        "sigmoid_alpha_bar": "SIGMOID"}
FLAGS = {"linear": ("index_base", "schedule_ends", "table_dtype"), "scaled_linear": ("schedule_spacing", "table_dtype"),
         "quadratic": ("schedule_spacing",), "cosine": ("cosine_clip", "index_base", "table_dtype"),
         "sigmoid": ("schedule_spacing",), "sigmoid_alpha_bar": ("cosine_clip",)}

VALID = [(name, T, {}) for name in ("linear", "scaled_linear", "quadratic", "cosine", "sigmoid", "sigmoid_alpha_bar")
         for T in (2, 10, 1000)] + [
    ("linear", 1, {}), ("cosine", 1, {}), ("cosine", 50, {}), ("cosine", 100, {}),
    ("linear", 1000, {"beta_start": "0.00085", "beta_end": "0.012"}),
    ("linear", 20, {"beta_start": "0.005", "beta_end": "0.5"}),
    ("scaled_linear", 100, {"beta_start": "0.0001", "beta_end": "0.3"}),
    ("cosine", 100, {"s": "0"}), ("cosine", 100, {"s": "0.2", "beta_max": "0.9"}),
    ("sigmoid", 100, {"span": "3"}), ("sigmoid_alpha_bar", 100, {"tau": "0.3"}),
    ("sigmoid_alpha_bar", 100, {"start": "0", "end": "3"}),
    ("linear", 1000, {"zero_terminal": True}), ("scaled_linear", 1000, {"zero_terminal": True}),
    ("linear", 10, {"beta_end": "0.3", "zero_terminal": True})]
SCALED = [("linear", 50), ("linear", 100), ("linear", 250)]
INVALID = [
    ("t0", "linear", 0, {}), ("t-1", "cosine", -1, {}), ("half-a-step", "linear", "10.5", {}),
    ("beta-above-1", "linear", 10, {"beta_end": "1.5"}), ("beta-0", "linear", 10, {"beta_start": "0"}),
    ("beta-negative", "linear", 10, {"beta_start": "-0.001"}),
    ("beta-negative", "scaled_linear", 10, {"beta_start": "-0.001"}),
    ("beta-nan", "linear", 10, {"beta_end": "nan"}), ("s-negative", "cosine", 10, {"s": "-0.1"}),
    ("beta_max-0", "cosine", 10, {"beta_max": "0"}), ("start-beyond-end", "sigmoid_alpha_bar", 10, {"start": "4"}),
    ("tau-0", "sigmoid_alpha_bar", 10, {"tau": "0"}), ("unknown", "nosuch", 10, {}),
    ("zero-terminal-of-one-step", "linear", 1, {"zero_terminal": True})]


def _id(name, T, params):
    return "/".join(["schedule", name, f"t{T}", *(f"{key}{value}".lower() for key, value in params.items())])


def _roundings(name, T):
    """How many in a row: T factors of abar; the cosine's angle, of few, outweighs them."""
    return min(T, 10) if name == "cosine" else T


def cases():
    """The cases of the family, for store.make."""
    made = [build(_id(name, T, params), "schedule", {"name": name, "T": T, **params},
                  "ZTSNR alg. 1" if "zero_terminal" in params else TAGS[name], FLAGS[name],
                  operations=_roundings(name, T))
            for name, T, params in VALID]
    made += [build(_id(name, T, {}), "schedule", {"name": name, "T": T}, "DDPM sec. 4", FLAGS[name],
                   [{"schedule_ends": "scaled"}], operations=T) for name, T in SCALED]
    return made + [build(f"schedule/{name}/invalid/{what}", "schedule", {"name": name, "T": T, **params},
                         TAGS.get(name, LINEAR), invalid=True) for what, name, T, params in INVALID]
