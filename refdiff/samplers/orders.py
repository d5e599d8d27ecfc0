"""The order of convergence that each solver claims, and how it is observed: on an exact world, against the exact flow.

    observed = observe(CLAIMS[0])            # error against N, and the slope of log error over log N

Deterministic solvers are judged on a mixture of Gaussians in one dimension, whose PF-ODE carries quantiles to
quantiles, with no solver in sight. The slope is the least-squares one over the counts from `since` on.
"""
import math
from dataclasses import dataclass, field

import numpy as np

from ..process import families, grids
from ..process.exact import Mixture
from .ddim import ddim
from .edm import euler, heun
from .state import run

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
    """`sampler(denoiser, grid, x, **options)` has error O(N^-order) from N = since steps on."""

    name: str
    sampler: object
    order: float
    options: dict = field(default_factory=dict)
    since: int = COUNTS[0]


@dataclass(frozen=True)
class Observed:
    """What was measured: the root mean square error at each count, and the order, the slope from `since` on."""

    claim: Claim
    grid: str
    counts: tuple
    errors: tuple
    order: float


def observe(claim, grid="karras", counts=COUNTS):
    """The observed order of a claim on a grid of GRIDS, whose name is given."""
    errors = []
    for N in counts:
        levels = GRIDS[grid](N)
        a, b = levels.level(0), levels.level(N)
        x = np.linspace(-2, 2, 9)[:, None] * math.hypot(a.alpha, a.sigma)
        out = run(claim.sampler(LINE, levels, x, **claim.options))
        errors.append(float(np.sqrt(np.mean((out - LINE.quantile_map(x, a, b)) ** 2))))
    used = [(math.log(N), math.log(e)) for N, e in zip(counts, errors) if N >= claim.since]
    return Observed(claim, grid, tuple(counts), tuple(errors), -float(np.polyfit(*np.transpose(used), 1)[0]))


CLAIMS = [
    Claim("euler", euler, 1),
    Claim("ddim", ddim, 1),
    Claim("heun", heun, 2),
]
