"""Claims about samplers: 6 and 8."""
import numpy as np

from ..process import grids, schedules
from ..process.exact import Gaussian, Mixture
from ..rng import Key
from ..samplers import ddim, heun, noise_from, run
from .settled import claim

LINE = Mixture([.3, .7], [-1., .8], [.16, .25])


def flow_error(sampler, grid):
    """The greatest distance from the exact flow of a mixture, over starts within two deviations."""
    a, b = grid.level(0), grid.level(len(grid))
    x = np.linspace(-2, 2, 9)[:, None] * np.hypot(a.alpha, a.sigma)
    return float(np.abs(run(sampler(LINE, grid, x)) - LINE.quantile_map(x, a, b)).max())


@claim(6, "1000 steps have converged; more only waste time")
def converged():
    """Error against steps of a first- and a second-order sampler, from sigma 10 to .05."""
    figures = [(f"{name}, {N} steps ({N * calls} evaluations)",
                flow_error(sampler, grids.karras(N + 1, .05, 10., final=None)))
               for name, sampler, calls in (("DDIM", ddim, 1), ("Heun", heun, 2)) for N in (10, 50, 250, 1000, 4000)]
    return "true under a condition", (
        "DDIM's error is of first order: at 1000 steps it still falls in proportion to 1/N, and a second-order method "
        "has a smaller one after 50. What more steps buy is below what a network gets wrong, which is why none is "
        "seen."
    ), figures


@claim(8, "DDIM is deterministic")
def deterministic():
    """Bits of repeated runs, with and without noise."""
    world = Gaussian([.7, -.4], [[.5, .2], [.2, .3]])
    grid = grids.discrete(schedules.linear(), 50)
    x = Key(0).normal((1000, 2))

    def sample(eta, seed):
        return run(ddim(world, grid, x, eta=eta, noise=noise_from(Key(seed), x)))

    return "true under a condition", (
        "At eta = 0 it draws nothing and repeats bit for bit from the same x_T; at eta > 0 it is a stochastic "
        "sampler, at eta = 1 DDPM's. The same bits need the same machine, library and number of threads too."), [
        ("eta = 0: numbers of 2000 that differ between two runs", int((sample(0., 1) != sample(0., 2)).sum())),
        ("eta = .5: numbers that differ between two seeds", int((sample(.5, 1) != sample(.5, 2)).sum())),
        ("eta = .5: numbers that differ with one seed", int((sample(.5, 1) != sample(.5, 1)).sum()))]
