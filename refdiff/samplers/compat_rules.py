"""Samplers with another rule: other options, third orders of SDE-DPM-Solver++, other ways of churning."""
import math

from ..process.parameterization import Prediction
from .compat_grids import of_levels
from .compat_steps import OWN, of_denoiser, reread
from .phi import phi
from .sde_dpmpp import coefficients, slope_weight
from .state import after, check, draw, number


def option(**chosen):
    """The deviation that is an option of the sampler here."""
    return lambda sampler: lambda denoiser, grid, x, **options: sampler(denoiser, grid, x, **{**options, **chosen})


def order_lowered(sampler):
    """lower_order_final = "always" with fewer than 15 steps, "never" with more."""
    return lambda denoiser, grid, x, **options: option(lower_order_final="always" if len(grid) < 15 else "never")(
        sampler)(denoiser, grid, x, **options)


def third_order(shift):
    """The step of SDE-DPM-Solver++ with the parabola through three x0hat, the first-order one on a changed x0hat.

    With k = (1+tau) h, D1 and D2 the differences at lambda_t in units of h: k phi_2(-k) D1 + (k phi_3(-k) + shift) D2
    is added to (1 - e^-k) x0hat. shift = 0: half of the second difference that order 3 needs, as in DPM-Solver++ (3M).
    """
    def deviate(sampler):
        def third(denoiser, grid, x, order=2, tau=1.0, rule="truncated", **options):
            history, ends = [], (grid.level(i + 1) for i in range(len(grid)))       # (x0hat, lambda), newest first

            def asked(x, t):
                s, prediction = next(ends), denoiser(x, t)
                x0, before = prediction.x0, history[:2]
                if t.alpha > 0:
                    history.insert(0, (x0, t.lam))
                if not before or s.sigma == 0:
                    return prediction
                _, on_x0, _, h = coefficients(s, t, tau)
                (one, at), k = before[0], (1 + tau) * h
                slope = (x0 - one) / (t.lam - at)
                if len(before) == 1:
                    added = slope_weight(rule, s.alpha, h, tau) * slope
                else:
                    (two, first), d1 = before[1], h * slope
                    rest = (d1 - h * (one - two) / (at - first)) / (t.lam - first)
                    added = s.alpha * (k * phi(2, -k) * (d1 + (t.lam - at) * rest)
                                       + (k * phi(3, -k) + shift) * h * rest)
                return Prediction("x0", x0 + added / on_x0, x, t)
            return sampler(asked, grid, x, order=1, tau=tau, rule=rule, **options)
        return third
    return deviate


def churn_euler(sampler):
    """Churn, then Euler's step: the slope at its end is taken for the one at its start."""
    def change(denoiser, grid):
        ends, said = iter(grid.sigma[1:]), []

        def asked(x, level):
            if said:
                return Prediction("eps", said.pop().eps, x, level)
            prediction = denoiser(x, level)
            if next(ends) > 0:
                said.append(prediction)
            return prediction
        return asked
    return of_denoiser(change)(sampler)


def churn_stale(sampler):
    """Euler's step from x with noise added, the network asked before it was."""
    def stale(denoiser, grid, x, S_churn=0.0, noise=None, **options):
        euler = churn_euler(sampler)
        for i, (t, s) in enumerate(OWN(grid)):
            prediction = denoiser(x, t)
            own = of_levels([t, s], f"step {i} of {grid.rule}", grid.family)
            x = next(iter(euler(lambda y, level: reread(prediction, y, level), own, x, S_churn=S_churn / len(grid),
                                noise=None if noise is None else lambda _, i=i: noise(i), **options))).x
            yield after("churn", i, s, x, prediction)
    return stale


def churn_on_flow(sampler):
    """xhat = x + sqrt(sigmahat^2 - sigma^2) S_noise z, as if alpha were 1, of x = (1 - sigma) x0 + sigma eps.

    sigmahat = (1 + gamma) sigma, gamma = min(S_churn/(2S - 1), sqrt(2) - 1). Heun's method from there, with the
    velocity at (x, sigma) times sigma/sigmahat for its first slope.
    """
    def flowing(denoiser, grid, x, S_churn=0.0, S_tmin=0.0, S_tmax=math.inf, S_noise=1.0, draws="used", noise=None):
        if any(abs(grid.alpha + grid.sigma - 1) > 1e-12) or draws != "used":
            raise ValueError("compat: churn_on_flow is of the straight path, alpha = 1 - sigma, with draws='used', not "
                             f"of {grid.rule}, draws={draws!r}")
        S_churn, S_noise = number("churn: S_churn", S_churn, 0), number("churn: S_noise", S_noise, 0)
        S = len(grid)
        denoiser = check("churn", denoiser, x, noise, S if S_churn > 0 else 0)
        for i, (t, s) in enumerate(OWN(grid)):
            prediction = denoiser(x, t)
            gamma = min(S_churn / (2 * S - 1), math.sqrt(2) - 1) if S_tmin <= t.sigma <= S_tmax else 0.0
            hat = (1 + gamma) * t.sigma
            if gamma > 0:
                x = x + math.sqrt(hat ** 2 - t.sigma ** 2) * S_noise * draw("churn", noise, i, x)
            d_cur, h = prediction.velocity * (t.sigma / hat), s.sigma - hat
            euler = x + h * d_cur
            x = x + h * (0.5 * d_cur + 0.5 * denoiser(euler, s).velocity) if s.sigma > 0 else euler
            yield after("churn", i, s, x, prediction)
    return flowing
