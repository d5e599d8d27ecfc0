"""Claims about samplers: 6, 7 and 8."""
import time

import numpy as np

from ..metrics.frechet import Moments, distance
from ..process import affine, grids, schedules
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
        "has a smaller one after 50. Here the denoiser is exact; a network's own error does not fall with the steps, "
        "and hides what they buy. (A mixture of two Gaussians, EDM's grid from sigma 10 to .05.)"
    ), figures


def law_error(step, steps):
    """Frechet distance of a sampler's exact output law from the data's, from N(0, I) on the linear schedule."""
    world = Gaussian([.3, -.2], [[.25, .1], [.1, .09]])
    mean, cov = affine.affine_law(step, grids.discrete(schedules.linear(), steps), world)
    return distance(Moments(mean, cov), Moments(world.mean, world.cov))


@claim(7, "DDIM needs 50 steps instead of 1000, 20 times faster, quality almost unchanged")
def fifty_steps(repeats=5):
    """Output laws on Gaussian data, distance to the exact flow on a mixture, and time, for DDIM and DDPM."""
    figures = [(f"{name}, {steps} steps: Frechet distance of the output law", law_error(step, steps))
               for name, step in (("DDPM, variance small", affine.ddpm_step("small")),
                                  ("DDPM, variance large", affine.ddpm_step("large")), ("DDIM", affine.ddim_step(0.)))
               for steps in (10, 50, 1000)]
    figures += [(f"DDIM, {steps} steps: greatest error of a sample against the exact flow",
                 flow_error(ddim, grids.discrete(schedules.linear(), steps))) for steps in (10, 50, 1000)]
    world, x, seconds = Gaussian([.7, -.4], [[.5, .2], [.2, .3]]), Key(0).normal((20000, 2)), {50: [], 1000: []}
    for _ in range(repeats):
        for steps, taken in seconds.items():
            begin = time.perf_counter()
            run(ddim(world, grids.discrete(schedules.linear(), steps), x))
            taken.append(time.perf_counter() - begin)
    figures.append(("time of 1000 steps over that of 50, median of runs in turn",
                    f"{np.median(seconds[1000]) / np.median(seconds[50]):.0f}"))
    return "true under a condition", (
        "Of the cost it is plainly true: a step is an evaluation. Of the quality too where the network's own error is "
        "the larger one: on the embedded digits (refdiff demo --full) DDIM in 50 steps is at a Frechet distance of "
        "0.090 from the training images and DDPM in 1000 at 0.098, with precision .90 and .93, recall .89 and .86. "
        "With an exact denoiser the steps show: DDIM's 50 leave an error that falls in proportion to their number, "
        "and a law further off than 1000 steps of either. (Laws of a Gaussian in the plane, flow of a mixture on a "
        "line; trailing times of the linear schedule.)"
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
