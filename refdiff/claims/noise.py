"""Claims about the noise and the schedules: 1 to 5."""
import math

import numpy as np

from ..process import affine, grids, schedules
from ..process.exact import FiniteData, Gaussian, Mixture
from ..rng import Key
from ..samplers import ddim, run
from .settled import claim

LINE = Mixture([.3, .7], [-1., .8], [.16, .25])


@claim(1, "The network predicts the noise that was added in this step")
def noise_of_this_step():
    """The chain is run to t; both noises are predicted by the posterior mean of the accumulated one and of the last."""
    schedule, world, n, key = schedules.linear(), FiniteData([-1., .2, 1.]), 20000, Key(0)
    figures = []
    x0 = world.sample(key.fold("x0"), n)
    for t in (2, 100, 500, 1000):
        before, level = schedule.level(t - 1), schedule.level(t)
        beta = float(schedule.beta[t])
        z = key.fold("z", t).normal((n, 1))
        x = math.sqrt(1 - beta) * (before.alpha * x0 + before.sigma * key.fold("eps", t).normal((n, 1))) \
            + math.sqrt(beta) * z
        accumulated = (x - level.alpha * x0) / level.sigma
        eps = world(x, level).eps
        share = math.sqrt(beta) / level.sigma
        figures += [(f"t = {t}: error of E[eps given x_t] as a guess of eps (variance 1)",
                     np.mean((eps - accumulated) ** 2)),
                    (f"t = {t}: as a guess of the noise of step t (variance 1)", np.mean((eps - z) ** 2)),
                    (f"t = {t}: of the best guess of that noise, sqrt(beta_t)/sigma_t E[eps given x_t]",
                     np.mean((share * eps - z) ** 2)),
                    (f"t = {t}: sqrt(beta_t)/sigma_t", share)]
    return "wrong", ("It predicts the eps of x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, all the noise since the "
                     "datum. Only at t = 1 is that the noise of the step; later the step's noise is nearly "
                     "unpredictable, and its posterior mean is the network's times sqrt(beta_t/(1 - abar_t))."), figures


@claim(2, "alpha_t = cos^2(...) in the cosine schedule")
def cosine_is_abar():
    """The cosine is of abar, before its normalisation and the clip."""
    T, s = 1000, .008
    schedule, plain = schedules.cosine(T), np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return "wrong", ("cos^2 is abar_t before it is divided by its value at t = 0 and before beta is clipped at .999; "
                     "the step's alpha_t = 1 - beta_t is the ratio of two neighbours."), [
        ("cos^2 at t = 500", plain[500]), ("abar_500", schedule.level(500).alpha ** 2),
        ("alpha_500 = 1 - beta_500", 1 - schedule.beta[500]), ("cos^2 at t = 0", f"{plain[0]:.6f}"),
        ("cos^2 at t = T", plain[T]), ("abar_T after the clip", schedule.level(T).alpha ** 2),
        ("steps that the clip changes", int((schedule.beta >= .999).sum()))]


@claim(3, "x_{t-1} = sqrt(alpha_{t-1}) x_0 + ... : the alpha of DDIM's formulas is DDPM's alpha")
def ddim_alpha():
    """DDIM in 50 steps with its alpha read as abar, and as the step's 1 - beta, on an exact world."""
    schedule = schedules.linear()
    grid = grids.discrete(schedule, 50)
    x = np.linspace(-2, 2, 9)[:, None]
    exact = LINE.quantile_map(x, grid.level(0), grid.level(50))
    step = grids.Grid(grid.t, np.sqrt(1 - schedule.beta[grid.t]), np.sqrt(schedule.beta[grid.t]), "1 - beta")
    right, wrong = (np.abs(run(ddim(LINE, g, x)) - exact).max() for g in (grid, step))
    return "wrong", ("DDIM's alpha_t is DDPM's abar_t, with alpha_0 = 1. Read as 1 - beta_t, the levels have hardly "
                     "any noise, and the sampler hardly moves."), [
        ("t = 500: DDIM's alpha, which is abar_500", schedule.level(500).alpha ** 2),
        ("t = 500: DDPM's alpha, 1 - beta_500", 1 - schedule.beta[500]),
        ("greatest error of 50 steps, alpha = abar", right), ("greatest error, alpha = 1 - beta", wrong)]


@claim(4, "Linear: beta_1 = .0001, beta_2 = .0002, ..., beta_T = .02")
def linear_betas():
    """The second beta of T = 1000, and the T for which the claim's would be right."""
    schedule, steps = schedules.linear(), (.02 - 1e-4) / 1e-4 + 1
    return "wrong", "The ends are right, the step is (beta_T - beta_1)/(T - 1): .0000199 for T = 1000.", [
        ("beta_1", f"{schedule.beta[1]:.8f}"), ("beta_2", f"{schedule.beta[2]:.8f}"),
        ("beta_T", f"{schedule.beta[1000]:.8f}"), ("T for which beta_2 would be .0002", int(round(steps)))]


@claim(5, "x_T is pure Gaussian noise")
def terminal_noise():
    """What signal is left at T, and what starting from N(0, I) costs: the exact output law on Gaussian data."""
    figures = []
    world = Gaussian([.5], [[.0625]])
    for name, schedule in (("linear", schedules.linear()), ("scaled_linear", schedules.scaled_linear()),
                           ("cosine", schedules.cosine())):
        last, grid = schedule.level(1000), grids.every(schedule)
        mean, cov = affine.affine_law(affine.ddpm_step("small"), grid, world)
        started, _ = affine.affine_law(affine.ddpm_step("small"), grid, world, *_moments(world, last))
        flow, _ = affine.affine_law(affine.ddim_step(0.), grid, world)
        straight, _ = affine.affine_law(affine.ddim_step(0.), grid, world, *_moments(world, last))
        figures += [(f"{name}: sqrt(abar_T), the factor of x_0 in x_T", last.alpha), (f"{name}: SNR at T", last.snr),
                    (f"{name}: error of the mean .5 after DDPM's 1000 steps from N(0, 1)", mean[0] - started[0]),
                    (f"{name}: after DDIM's 1000 steps from N(0, 1)", flow[0] - straight[0])]
    return "true under a condition", (
        "Only where the terminal SNR is zero. Else x_T keeps sqrt(abar_T) of the datum, and samples that start from "
        "N(0, I) are pulled towards mean 0. With the ideal denoiser that costs DDIM on scaled_linear about one of 255 "
        "grey levels, and DDPM less, which forgets its start. Data are N(.5, .25^2); the error is that against the "
        "same sampler from the right law of x_T."), figures


def _moments(world, level):
    marginal = world.marginal(level)
    return marginal.mean, marginal.cov
