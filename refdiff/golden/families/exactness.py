"""Worlds in which solvers are exact: predictions that are polynomials, so that a coefficient that is off has no excuse.

A method of order k integrates a polynomial of degree k - 1 in its own variable; the oracle is the integral in closed
form where the history is long enough, and the steps at 50 digits everywhere.
"""
from .build import build, numbers

CONSTANT, LINE, PARABOLA = ["0.7"], ["0.3", "0.11"], ["0.3", "0.11", "-0.02"]

# name, sampler, options, kind and variable of the polynomial, coefficients, tag
EXACT = [
    ("ddim-constant-eps", "ddim", {"eta": "0"}, "eps", "ratio", CONSTANT, "DDIM eq. 13"),
    ("euler-constant-eps", "euler", {}, "eps", "ratio", CONSTANT, "EDM alg. 1"),
    ("euler-line", "euler", {}, "eps", "ratio", LINE, "EDM alg. 1"),
    ("heun-line", "heun", {}, "eps", "ratio", LINE, "EDM alg. 1"),
    ("heun-parabola", "heun", {}, "eps", "ratio", PARABOLA, "EDM alg. 1"),
    ("dpmpp1-constant-x0", "dpmpp", {"order": 1}, "x0", "lambda", CONSTANT, "DPMPP sec. 4.1"),
    ("dpmpp2m-line", "dpmpp", {"order": 2, "solver_rule": "exact", "lower_order_final": "never"}, "x0", "lambda", LINE,
     "DPMPP sec. 4.2"),
    ("dpmpp2m-line-truncated", "dpmpp", {"order": 2, "lower_order_final": "never"}, "x0", "lambda", LINE,
     "DPMPP alg. 2"),
    ("dpmpp3m-parabola", "dpmpp", {"order": 3, "solver_rule": "exact", "lower_order_final": "never"}, "x0", "lambda",
     PARABOLA, "DPMPP sec. 4.2"),
    ("lms2-line", "lms", {"order": 2}, "eps", "ratio", LINE, "LMS"),
    ("lms3-parabola", "lms", {"order": 3}, "eps", "ratio", PARABOLA, "LMS"),
    ("deis2-line-rho", "deis", {"order": 2, "variable": "rho"}, "eps", "ratio", LINE, "DEIS sec. 4"),
    ("deis2-line-lambda", "deis", {"order": 2, "variable": "lambda"}, "eps", "lambda", LINE, "DEIS sec. 3"),
    ("deis3-parabola-lambda", "deis", {"order": 3, "variable": "lambda"}, "eps", "lambda", PARABOLA, "DEIS sec. 3"),
    ("unipc2-line", "unipc", {"order": 2, "corrector": "every", "lower_order_final": "never"}, "x0", "lambda", LINE,
     "UNIPC sec. 3.3"),
    ("unipc3-parabola", "unipc", {"order": 3, "corrector": "every", "lower_order_final": "never"}, "x0", "lambda",
     PARABOLA, "UNIPC sec. 3.3")]


def cases():
    """The cases of the family, for store.make."""
    made = []
    for i, (name, sampler, options, kind, variable, coefficients, tag) in enumerate(EXACT):
        for S in (4, 8):
            made.append(build(f"exactness/{name}/n{S}", "trajectory", {
                "sampler": sampler, "schedule": "edm", "T": None, "steps": S, "rule": "karras", "final": "none",
                "grid_options": {"sigma_min": "0.1", "sigma_max": "10"}, "x": numbers(i, (1, 2), -10, 10),
                "denoiser": {"world": "polynomial", "kind": kind, "variable": variable, "coefficients": coefficients},
                "noise": None, **options}, tag, ("multistep_ratio", "solver_rule", "lower_order_final"), operations=S))
    return made
