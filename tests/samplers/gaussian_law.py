"""Helpers of the sampler tests: grids of every kind, and the law of a sampler's code against the affine recursion."""
import numpy as np

from refdiff import samplers
from refdiff.process import affine, families, family_grids, grids, schedules
from refdiff.process.exact import Gaussian

WORLD = Gaussian([.7, -.4], [[.5, .2], [.2, .3]])
LINEAR, COSINE = schedules.linear(1000), schedules.cosine(1000)


def few():
    """Small grids of every family and ending: where mutants are judged."""
    yield grids.discrete(LINEAR, 5, "leading")
    yield grids.discrete(COSINE, 12, "trailing", final=1)
    yield grids.karras(9, .01, 20.)
    yield grids.karras(6, .05, 10., final=None)
    yield grids.on(families.Flow(), np.linspace(.95, 0, 8))


def many():
    """From 5 to 1000 steps: every rule of a schedule, with both endings, of sigma, of lambda and of a family's time."""
    yield from few()
    for schedule in (LINEAR, COSINE):
        for rule in ("leading", "trailing", "linspace", "stride"):
            yield from (grids.discrete(schedule, S, rule) for S in (5, 37, 200))
        yield from (grids.discrete(schedule, S, "quadratic", final) for S, final in ((5, 0), (20, None)))
        yield grids.discrete(schedule, 50, "trailing", final=1)
        yield grids.every(schedule)
    yield grids.karras(1000, final=None)
    yield grids.karras(40)
    yield grids.exponential(30, .01, 50.)
    yield grids.polyexponential(50, .02, 20., rho=1.5, final=None)
    yield family_grids.uniform_lambda(families.VP(), 100, .001)
    yield family_grids.uniform_lambda(families.VP(), 20, .01, final="zero")
    shifted = family_grids.shifted_flow(41, 3.)
    yield grids.Grid(shifted.t[1:], shifted.alpha[1:], shifted.sigma[1:], f"{shifted.rule} from its second level",
                     shifted.family)
    yield grids.on(families.Flow(), np.linspace(.99, .01, 300))
    yield grids.on(families.TrigFlow(), np.linspace(1.5, .1, 64))


def check_law(sample, moves, grid, draws, world=WORLD):
    """The map read off sample(x, noise) has the law of the moves() to 1e-10, from N(0, I) and from the true marginal.

    Each of the draws is asked for, once; another would be refused by the probe.
    """
    asked = []

    def run(x, noise):
        return samplers.run(sample(x, lambda k: asked.append(k) or noise(k)))

    read = affine.probe(run, draws, world.dim)
    assert len(asked) == draws, f"{grid.rule}: {len(asked)} draws, wanted {draws}"
    for start in (Gaussian([0., 0.], np.eye(2)), world.marginal(grid.level(0))):
        mean, cov = affine.law(moves(), start.mean, start.cov)
        got_mean, got_cov = read.law(start.mean, start.cov)
        tolerance = 1e-10 * max(1.0, np.abs(cov).max())
        np.testing.assert_allclose(got_mean, mean, rtol=1e-10, atol=tolerance, err_msg=grid.rule)
        np.testing.assert_allclose(got_cov, cov, rtol=1e-10, atol=tolerance, err_msg=grid.rule)


def share(all_grids, options):
    """(grid, option) of all pairs on grids of up to 60 steps; on a longer grid one of the options, in turn."""
    for i, grid in enumerate(all_grids()):
        yield from ((grid, option) for option in (options if len(grid) <= 60 else [options[i % len(options)]]))


def noisy(grid, end="mean"):
    """How many steps add noise."""
    return len(grid) - (end == "mean" or grid.sigma[-1] == 0)
