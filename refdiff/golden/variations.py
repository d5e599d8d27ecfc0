"""Other questions that an answer may be right for: another schedule, another parameter, two arguments exchanged.

    variations("step", inputs)      yields (words, inputs'): ("for eta=0", ..), ("with t and s exchanged", ..)
"""
import itertools

import numpy as np

CHOICES = {
    "name": ("linear", "scaled_linear", "quadratic", "cosine", "sigmoid", "sigmoid_alpha_bar"),
    "schedule": ("linear", "scaled_linear", "quadratic", "cosine", "sigmoid", "sigmoid_alpha_bar"),
    "kind": ("eps", "x0", "v", "score", "velocity"),
    "to": ("eps", "x0", "v", "score", "velocity"),
    "variance": ("small", "large"),
    "rule": ("karras", "exponential", "polyexponential"),
    "final": ("zero", "first", "none"),
    "weight": ("simple", "min_snr", "soft_min_snr", "p2", "edm", "sigmoid", "truncated_snr", "snr_plus_one"),
    "sampler": ("ddim", "ddpm", "euler", "heun"),
    "eta": (0.0, 1.0),
    "order": (1, 2, 3),
    "rescale": (0.0, 1.0),
    "weight_decay": (0.0,),
}
PARAMETERS = {           # of schedules, which may be left out: what else is published or often written
    "cosine": {"s": (0.0, 0.001, 0.01), "beta_max": (0.99, 0.9999)},
    "sigmoid": {"span": (3.0,)},
    "sigmoid_alpha_bar": {"tau": (0.5, 0.7)},
}
ENDS = ((1e-4, 0.02), (0.00085, 0.012), (1e-4, 2e-3), (1e-5, 0.01))
SHIFTED = ("t", "s", "T", "steps", "step")


def variations(operation, inputs):
    """(words, other inputs) of every question one change away."""
    for name, values in CHOICES.items():
        if name in inputs:
            for value in values:
                if value != inputs[name] and type(value) is type(inputs[name]):
                    yield f"for {name}={_said(value)}", inputs | {name: value}
    if operation == "schedule":
        yield from _schedules(inputs)
    if inputs.get("rule") == "karras":
        for rho in (1.0, 3.0, 5.0, 7.0):
            yield f"for rho={rho:g}", inputs | {"rho": rho}
    for name in SHIFTED:
        if isinstance(inputs.get(name), int):
            for by in (-1, 1):
                yield f"for {name}{by:+d} in place of {name}", inputs | {name: inputs[name] + by}
    for name, value in inputs.items():
        if isinstance(value, (bool, float)) and value:
            yield f"without {name}", {key: part for key, part in inputs.items() if key != name}
    yield from _exchanged(inputs)


def _said(value):
    return f"{value:g}" if isinstance(value, float) else value


def _schedules(inputs):
    for parameter, values in PARAMETERS.get(inputs["name"], {}).items():
        for value in values:
            yield f"for {parameter}={value:g}", inputs | {parameter: value}
    if inputs["name"] in ("linear", "scaled_linear", "quadratic", "sigmoid"):
        for start, end in ENDS:
            yield f"for beta from {start:g} to {end:g}", inputs | {"beta_start": start, "beta_end": end}


def _exchanged(inputs):
    """Two numbers, or two arrays of one shape, in each other's place."""
    real = [name for name, value in inputs.items() if isinstance(value, (float, np.ndarray)) and name != "lr"]
    for a, b in itertools.combinations(real, 2):
        if np.shape(inputs[a]) == np.shape(inputs[b]):
            yield f"with {a} and {b} exchanged", inputs | {a: inputs[b], b: inputs[a]}
