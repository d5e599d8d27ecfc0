"""The order of convergence that each solver claims, and how it is observed: on an exact world, against the exact flow.

    observed = observe(CLAIMS[0])            # error against N, and the slope of log error over log N

Deterministic solvers are judged on a mixture of Gaussians in one dimension, whose PF-ODE carries quantiles to
quantiles, with no solver in sight. Stochastic ones are judged by their output law on Gaussian data, exact by the probe
of their affine map, against the data's: the weak order. The slope is the least-squares one from N = `since` on.
"""
import math
from dataclasses import dataclass, field

import numpy as np

from ..process import affine, families, grids
from ..process.exact import Gaussian, Mixture
from . import (ancestral, churn, ddim, ddpm, deis, dpm, dpmpp, euler, euler_ancestral, euler_maruyama, heun, lms, plms,
               predictor_corrector, reverse_diffusion, run, sde_dpmpp, unipc)

POINT = Gaussian([.7], [[.3]])
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
COUNTS = (64, 128, 256, 512, 1024)


def karras(N):
    """N steps of EDM's grid, sigma from 10 to 0.05."""
    return grids.karras(N + 1, .05, 10., final=None)


def circle(N):
    """N steps of a variance-preserving grid, uniform in the angle."""
    return grids.on(families.TrigFlow(), np.linspace(1.5, .1, N + 1), f"circle({N})")


GRIDS = {"karras": karras, "circle": circle}


@dataclass(frozen=True)
class Claim:
    """`sampler(denoiser, grid, x, **options)` has error O(N^-order) from N = since steps on.

    weak: the error is that of the output's mean and variance on Gaussian data, with up to `draws` draws in each step.
    counts: the numbers of steps at which it is observed.
    """

    name: str
    sampler: object
    order: float
    options: dict = field(default_factory=dict)
    since: int = COUNTS[0]
    weak: bool = False
    draws: int = 1
    counts: tuple = COUNTS


@dataclass(frozen=True)
class Observed:
    """What was measured: the error at each count (root mean square, or of the law), and the order, their slope."""

    claim: Claim
    grid: str
    counts: tuple
    errors: tuple
    order: float


def flow_error(claim, levels):
    """The root mean square distance from the flow's end, over nine trajectories of LINE."""
    a, b = levels.level(0), levels.level(len(levels))
    x = np.linspace(-2, 2, 9)[:, None] * math.hypot(a.alpha, a.sigma)
    out = run(claim.sampler(LINE, levels, x, **claim.options))
    return float(np.sqrt(np.mean((out - LINE.quantile_map(x, a, b)) ** 2)))


def law_error(claim, levels):
    """The distance of the output's (mean, variance) from those of POINT at the last level, begun with the first's."""
    a, b = POINT.marginal(levels.level(0)), POINT.marginal(levels.level(len(levels)))
    read = affine.probe(lambda x, noise: run(claim.sampler(POINT, levels, x, noise=noise, **claim.options)),
                        claim.draws * len(levels), 1)
    mean, cov = read.law(a.mean, a.cov)
    return math.hypot(float(mean[0] - b.mean[0]), float(cov[0, 0] - b.cov[0, 0]))


def observe(claim, grid="karras", counts=None):
    """The observed order of a claim on a grid of GRIDS, whose name is given, at its own counts or at others."""
    counts = counts or claim.counts
    error = law_error if claim.weak else flow_error
    errors = [error(claim, GRIDS[grid](N)) for N in counts]
    used = [(math.log(N), math.log(e)) for N, e in zip(counts, errors) if N >= claim.since]
    return Observed(claim, grid, tuple(counts), tuple(errors), -float(np.polyfit(*np.transpose(used), 1)[0]))


FULL = {"start": "rk4", "lower_order_final": "never"}      # what the papers' first and last steps cost is left out
NOISY = {"end": "noise"}                                   # the last step as the others, for the law at a noisy level

CLAIMS = [
    Claim("euler", euler, 1),
    Claim("ddim", ddim, 1),
    Claim("heun", heun, 2),
    *(Claim(f"unip-{p}", unipc, p, {"order": p, "corrector": "never", **FULL}) for p in (1, 2, 3)),
    *(Claim(f"unipc-{p}", unipc, p + 1, {"order": p, "corrector": "every", **FULL}, since)
      for p, since in ((1, 64), (2, 64), (3, 128))),
    # errors of these are small soon: at 1024 steps the highest orders would show rounding
    *(Claim(f"unip-{p}", unipc, p, {"order": p, "corrector": "never", **FULL}, since, counts=counts)
      for p, since, counts in ((4, 64, COUNTS[:3]), (5, 128, COUNTS[1:4]), (6, 256, COUNTS[1:4]))),
    *(Claim(f"unipc-{p}", unipc, p + 1, {"order": p, "corrector": "every", **FULL}, counts=counts)
      for p, counts in ((4, COUNTS[:3]), (5, COUNTS[:3]), (6, (64, 96, 128)))),
    Claim("unipc-2 B1", unipc, 3, {"order": 2, "B": "B1", "corrector": "every", **FULL}),
    Claim("unipc-3 eps", unipc, 4, {"order": 3, "kind": "eps", "corrector": "every", **FULL}, 512),
    Claim("unipc-3 with its paper's options", unipc, 2, {"order": 3}),
    *(Claim(f"deis-{k} in t", deis, k, {"order": k, "variable": "t", "start": "rk4"}) for k in (2, 3, 4)),
    *(Claim(f"deis-{k} in lambda", deis, k, {"order": k, "variable": "lambda", "start": "rk4"}, since)
      for k, since in ((2, 64), (3, 256))),
    Claim("deis-4 in lambda", deis, 4, {"order": 4, "variable": "lambda", "start": "rk4"}, 1024,
          counts=(1024, 2048)),
    *(Claim(f"lms-{k}", lms, k, {"order": k, "start": "rk4"}, since) for k, since in ((1, 64), (2, 64), (3, 256))),
    Claim("lms-4", lms, 4, {"order": 4, "start": "rk4"}, 1024, counts=(1024, 2048)),
    Claim("plms", plms, 2, {"order": 4}),
    Claim("plms-2", plms, 2, {"order": 2}),
    *(Claim(f"dpm-{k}", dpm, k, {"order": k}) for k in (1, 2, 3)),
    Claim("dpm-3, r2 = 1/2", dpm, 2, {"order": 3, "r1": .25, "r2": .5}),
    Claim("dpm-2m", dpm, 2, {"order": 2, "form": "multi"}),
    Claim("dpm-3m, single-step start", dpm, 3, {"order": 3, "form": "multi", "start": "single"}, 256),
    *(Claim(f"dpm++{k}s", dpmpp, k, {"order": k, "form": "single"}) for k in (2, 3)),
    *(Claim(f"dpm++{k}s exact", dpmpp, k, {"order": k, "form": "single", "rule": "exact"}) for k in (2, 3)),
    Claim("dpm++2m", dpmpp, 2, {"order": 2}),
    Claim("dpm++2m exact", dpmpp, 2, {"order": 2, "rule": "exact"}),
    Claim("dpm++3m, single-step start", dpmpp, 3, {"order": 3, "start": "single"}),
    Claim("dpm++3m, last steps lowered", dpmpp, 2, {"order": 3, "start": "single", "lower_order_final": "always"}, 256),
    Claim("dpm++3m, its paper's start", dpmpp, 2, {"order": 3}, 1024, counts=(1024, 2048, 4096)),
    Claim("dpm++3m, its code's rule", dpmpp, 2, {"order": 3, "start": "single", "rule": "truncated"}, 1024,
          counts=(1024, 2048, 4096)),
    Claim("dpm++3m as its authors' code", dpmpp, 2, {"order": 3, "rule": "truncated"}, 256),
    Claim("ddpm", ddpm, 1, weak=True),
    Claim("ddpm large", ddpm, 1, {"variance": "large"}, weak=True),
    Claim("ddim, eta = 1", ddim, 1, {"eta": 1.0}, weak=True),
    Claim("euler-maruyama", euler_maruyama, 1, NOISY, weak=True),
    Claim("reverse diffusion", reverse_diffusion, 1, NOISY, weak=True),
    Claim("ancestral", ancestral, 1, NOISY, weak=True),
    Claim("euler ancestral", euler_ancestral, 1, weak=True),
    Claim("predictor and corrector, snr = .01", predictor_corrector, 1, {"size": "expected", "snr": .01}, weak=True,
          draws=2),
    Claim("sde-dpm++1", sde_dpmpp, 1, {"order": 1, **NOISY}, weak=True),
    Claim("sde-dpm++2m", sde_dpmpp, 2, NOISY, weak=True),
    Claim("sde-dpm++2m exact", sde_dpmpp, 2, {"rule": "exact", **NOISY}, weak=True),
    Claim("sde-dpm++2m, tau = 1/2", sde_dpmpp, 2, {"tau": 0.5, **NOISY}, weak=True),
    Claim("churn, S_churn = 10", churn, 2, {"S_churn": 10.0, "S_tmax": 8.0}, weak=True),
]
