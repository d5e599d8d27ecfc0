"""Claims about the loss and guidance: 11 and 13."""
import numpy as np
from scipy.special import ndtri

from ..guidance import cfg
from ..process import grids, schedules, weights
from ..process.bound import variational_bound
from ..process.exact import FiniteData, Gaussian, Mixture
from ..process.parameterization import Prediction
from ..rng import Key
from ..samplers import heun, run
from .settled import claim


def disturbed(world, times, size):
    """The ideal denoiser with `size` added to its eps at some times."""
    def denoise(x, level):
        eps = world(x, level).eps
        return Prediction("eps", eps + size if level.t in times else eps, x, level)
    return denoise


@claim(11, "The training loss is just MSE")
def reweighted_bound():
    """The bound's weights on the same square error, and what one error costs in bits at different times."""
    schedule = schedules.linear()
    figures = [(f"t = {t}: weight of the square error of eps in the bound, in nats",
                weights.vlb(schedule.level(t - 1), schedule.level(t))) for t in (2, 10, 100, 500, 1000)]
    world = FiniteData(np.array([-201., -51., 3., 129.]) / 255)
    x0 = world.sample(Key(0).fold("x0"), 200)

    def noise(t):
        return Key(0).fold("noise", t).normal(x0.shape)

    ideal = variational_bound(world, schedule, x0, noise)
    bound = ideal.total.mean()
    figures += [("bits/dim of the ideal denoiser on four grey levels, whose entropy is 2", bound),
                ("of these in L_0, where the decoder's variance is fixed", ideal.terms[0].mean())]
    for first, last in ((2, 11), (491, 500), (991, 1000)):
        times = range(first, last + 1)
        worse = variational_bound(disturbed(world, times, .1), schedule, x0, noise).total.mean()
        figures.append((f"error .1 in eps at t = {first}..{last}, .0001 of L_simple: bits/dim added", worse - bound))
    return "true under a condition", (
        "It is a mean square error of eps, and that is the variational bound with every term's weight replaced by 1. "
        "The bound's own weights fall by two orders of magnitude from t = 2 to the middle, so the same error costs "
        "bits where there is little noise and next to none later: L_simple gives up likelihood for what is seen."
    ), figures


def guided(conditional, unconditional, s, n=1000):
    """The PF-ODE's samples under guidance of scale s, from n quantiles of pure noise at sigma 80 to .001."""
    grid = grids.karras(151, .001, 80., final=None)
    x = 80. * ndtri((np.arange(n) + .5) / n)[:, None]
    return run(heun(cfg(conditional, unconditional, scale=s), grid, x))[:, 0]


@claim(13, "Guidance scale 3 to 8, typically 7.5")
def guidance_scale():
    """Mean, deviation and clipped share of guided samples, where the right ones are known."""
    conditional, figures = Gaussian([.5], [[.0625]]), []
    unconditional = Mixture([.5, .5], [-.5, .5], [.0625, .0625])
    for s in (1., 2., 4., 7.5, 8.5):
        x = guided(conditional, unconditional, s)
        figures += [(f"s = {s:g} (w = {s - 1:g}): mean, standard deviation of the samples",
                     f"{x.mean():.3f}, {x.std():.3f}"),
                    (f"s = {s:g}: share outside [-1, 1], in percent", f"{100 * np.mean(np.abs(x) > 1):.1f}")]
    return "true under a condition", (
        "The number means nothing without its formula: 7.5 is s in u + s (c - u), as most code has it, which is w = "
        "6.5 in the paper's (1 + w) c - w u. And it is no longer sampling from the class: the data of the class are "
        "N(.5, .25^2) beside another class at -.5, and samples guided along the probability flow move away from it "
        "and lose their spread."
    ), figures
