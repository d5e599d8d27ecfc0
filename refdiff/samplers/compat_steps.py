"""Samplers with one deviation or another in their steps: what the network is told, where a step ends, their noise.

A deviation is a map from a sampler to a sampler (denoiser, grid, x, **options): it hands on another denoiser, another
grid or other noise, or goes step by step. All of them keep the sampler's own formulas where these are not what differs.
"""
import math
from dataclasses import replace

from ..process.gaussian import fixed_variance
from ..process.level import Level
from ..process.parameterization import Prediction
from . import compat_grids
from .compat_grids import of_levels, overshoots, schedule_of, stride
from .ddim import coefficients as ddim_coefficients
from .plms import ADAMS, transfer
from .state import State, after, check, draw, integer


def of_grid(change):
    """The deviation that visits the grid change(grid)."""
    return lambda sampler: lambda denoiser, grid, x, **options: sampler(denoiser, change(grid), x, **options)


def of_denoiser(change):
    """The deviation that asks the denoiser change(denoiser, grid)."""
    return lambda sampler: lambda denoiser, grid, x, **options: sampler(change(denoiser, grid), grid, x, **options)


def reread(prediction, x, level):
    """The same number of the same kind, taken for what was said of another x or level."""
    return Prediction(prediction.kind, prediction.value, x, level, prediction.sigma_data)


def told(name, rounding):
    """A network told an integer for the time of a level; what it says is read at the level itself."""
    def change(denoiser, grid):
        schedule = schedule_of(name, grid)

        def asked(x, level):
            t = min(max(int(rounding(level.t)), 1), schedule.T)
            return reread(denoiser(x, schedule.level(t)), x, level)
        return asked
    return of_denoiser(change)


# ---- steps that do not end where the next one starts

def _own(grid):
    return [(grid.level(i), grid.level(i + 1)) for i in range(len(grid))]


def _strided(grid):
    """From each time t to t - T // S, or to the grid's end where that is below 1."""
    schedule = schedule_of("stride_stepping", grid)
    h = stride(grid)
    return [(t, schedule.level(int(t.t) - h) if t.t > h else grid.level(len(grid))) for t, _ in _own(grid)]


def _overshot(grid):
    """The same, and where arange overshoots a step more, from the noisiest level, told t = 0, to the end."""
    schedule = schedule_of("trailing_overshoot", grid)
    noisiest = schedule.level(schedule.T)
    return _strided(grid) + [(Level(0, noisiest.alpha, noisiest.sigma), grid.level(len(grid)))] * overshoots(grid)


def by_pairs(pairs_of):
    """A sampler without history, each step between two levels of its own."""
    def deviate(sampler):
        def stepping(denoiser, grid, x, noise=None, **options):
            pairs = pairs_of(grid)
            for i, (t, s) in enumerate(pairs):
                beyond = [] if i == len(pairs) - 1 or s.sigma == 0 else [Level(s.t - 1, 1.0, 0.0)]     # or no noise
                own = of_levels([t, s, *beyond], f"step {i} of {grid.rule}", grid.family)
                options["noise"] = None if noise is None else lambda _, i=i: noise(i)
                state = next(iter(sampler(denoiser, own, x, **options)))
                x = state.x
                yield replace(state, step=i)
        return stepping
    return deviate


def pndm(pairs_of):
    """PLMS that begins with improved Euler: the second level is told twice, before and after the first step is mended.

    The correction is made from the second time plus the stride to the second time, whatever the first step was.
    """
    def deviate(sampler):
        def stepping(denoiser, grid, x, order=4, start=None, lower_order_final="paper"):
            if start not in (None, "lower") or lower_order_final == "always":
                raise ValueError(f"plms: start is {start!r} and lower_order_final {lower_order_final!r}; compat brings "
                                 "a start of its own and keeps the order to the end: leave them away")
            return _pndm(denoiser, grid, x, integer("plms: order", order, 1, 4), pairs_of(grid), pairs_of is not _own)
        return stepping
    return deviate


def _pndm(denoiser, grid, x, order, pairs, strided):
    denoiser, earlier = check("plms", denoiser, x, None, 0), []
    for i, (t, s) in enumerate(pairs):
        prediction = denoiser(x, t)
        e = [prediction.eps, *earlier][:order]
        if i == 0 and order > 1 and len(grid) > 1:
            second = grid.level(1)
            e2 = denoiser(transfer(x, e[0], t, s), second).eps
            if strided:
                schedule = grid.family.schedule
                above = int(second.t) + stride(grid)
                if above > schedule.T:
                    raise ValueError(f"compat: PLMS in strides is mended from t = {above}, above T = {schedule.T}, on "
                                     f"{grid.rule}; take linspace, leading or trailing times")
                t = schedule.level(above)
            x, s = transfer(x, (e[0] + e2) / 2, t, second), second
        else:
            x = transfer(x, sum(c * value for c, value in zip(ADAMS[len(e)], e)), t, s)
        earlier = e
        yield after("plms", i, s, x, prediction)


OWN, STRIDED, OVERSHOT = _own, _strided, _overshot


def last_level_twice(sampler):
    """One evaluation more, at the level that the grid ends on, for a step of no length."""
    def twice(denoiser, grid, x, **options):
        if grid.sigma[-1] == 0:
            raise ValueError(f"compat: last_level_twice is of grids that end on noise, not of {grid.rule}")
        for state in sampler(denoiser, grid, x, **options):
            yield state
        yield State(len(grid), state.level, state.x, denoiser(state.x, state.level))
    return twice


# ---- noise and states

def final_abar_0(sampler):
    """`ddim` on the grid that ends on t = 1; the step to it draws noise where another, of no length, would follow."""
    def ended(denoiser, grid, x, eta=0.0, noise=None):
        made = compat_grids.final_abar_0(grid)
        last = len(made) - 1
        for state in sampler(denoiser, made, x, eta=eta, noise=noise):
            if state.step == last and made.asked > len(made) and eta > 0:
                _, _, std = ddim_coefficients(state.level, made.level(last), eta)
                moved = state.x + std * draw("ddim", noise, last, state.x)
                state = after("ddim", last, state.level, moved, state.prediction)
            yield state
    return ended


def last_step_noise(sampler):
    """sqrt(variance) z, of at least 1e-20, after the last step too."""
    def noisy(denoiser, grid, x, variance="small", noise=None):
        last = len(grid) - 1
        for state in sampler(denoiser, grid, x, variance=variance, noise=noise):
            if state.step == last:
                std = max(fixed_variance(variance, grid.level(last + 1), grid.level(last)), 1e-20) ** 0.5
                z = draw("ddpm", noise, last, state.x)
                state = after("ddpm", last, state.level, state.x + std * z, state.prediction)
            yield state
    return noisy


def draws_every_step(option, default):
    """A draw for the last step too, not used; none where the option (eta, tau) is 0."""
    def deviate(sampler):
        def drawing(denoiser, grid, x, noise=None, **options):
            for state in sampler(denoiser, grid, x, noise=noise, **options):
                if state.step == len(grid) - 1 and options.get(option, default) > 0:
                    draw("compat: draws_every_step", noise, state.step, state.x)
                yield state
        return drawing
    return deviate


def renoised(sampler):
    """x_s = alpha_s x0hat + sigma_s z: eps is drawn anew in every step, as if none had been predicted."""
    def drawing(denoiser, grid, x, eta=0.0, noise=None):
        denoiser, drawn = check("ddim", denoiser, x, noise, len(grid) - 1), []

        def asked(x, level):
            prediction, i = denoiser(x, level), len(drawn)
            drawn.append(level)
            if i == len(grid) - 1:
                return prediction
            alpha, sigma = level.expand(x)
            return Prediction("x0", prediction.x0, alpha * prediction.x0 + sigma * draw("ddim", noise, i, x), level)
        return sampler(asked, grid, x, eta=eta)
    return drawing


def float32_state(sampler):
    """x and its noise in float32; the denoiser is asked in it."""
    def single(denoiser, grid, x, noise=None, **options):
        if noise is not None:
            options["noise"] = lambda i: noise(i).astype("float32")
        return sampler(denoiser, grid, x.astype("float32") if hasattr(x, "astype") else x, **options)
    return single


def start(name, unit):
    """x times sigma where alpha^2 + sigma^2 = 1 (unit), times sqrt(sigma^2 + 1)/sigma where alpha = 1."""
    def deviate(sampler):
        def scaled(denoiser, grid, x, **options):
            level = grid.level(0)
            if abs(math.hypot(level.alpha, level.sigma) - 1) > 1e-9 if unit else level.alpha != 1:
                raise ValueError(f"compat: {name} is of levels with alpha{'^2 + sigma^2' * unit} = 1, not of "
                                 f"{grid.rule}")
            factor = level.sigma if unit else math.hypot(1, level.sigma) / level.sigma
            return sampler(denoiser, grid, x * factor, **options)
        return scaled
    return deviate
