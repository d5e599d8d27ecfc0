"""Editing: from a noised image instead of noise (SDEdit), and with a part of it given (replacement, RePaint)."""
import inspect

from .. import backend
from ..process.gaussian import q_sample, transition
from ..process.grids import Grid
from ..samplers.ddim import coefficients
from ..samplers.state import after, check, draw, integer, number


# ---- SDEdit

def tail(grid, steps):
    """The grid's last `steps` steps, 1..S."""
    steps = integer(f"tail of {grid.rule}: steps", steps, 1, len(grid))
    first = len(grid) - steps
    return Grid(grid.t[first:], grid.alpha[first:], grid.sigma[first:], f"the last {steps} steps of {grid.rule}",
                grid.family)


def strength_steps(grid, strength):
    """round(strength S) steps (halves to even) for 0 < strength <= 1; refused if that is none."""
    strength = number("strength", strength)
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}, wanted 0 < strength <= 1 (1 starts at the grid's first level)")
    steps = round(strength * len(grid))
    if steps == 0:
        raise ValueError(f"strength {strength} of {len(grid)} steps rounds to none; wanted at least "
                         f"{0.5 / len(grid):g}, or a grid of more steps")
    return steps


def sdedit(sampler, denoiser, grid, x0, strength, start, **options):
    """x_t = alpha_t x0 + sigma_t start, then the sampler from that same level t down. [SDEDIT sec. 3]

    t is where round(strength S) of the grid's S steps remain. x0 is the guide; start, like x0, standard normal and
    independent of the sampler's noise; options go to sampler(denoiser, grid, x, ...). Yields the sampler's states.
    """
    rest = tail(grid, strength_steps(grid, strength))
    try:
        inspect.signature(sampler).bind(denoiser, rest, x0, **options)
    except TypeError as error:
        raise ValueError(f"sdedit: {getattr(sampler, '__name__', sampler)}: {error}") from None
    backend.of(x0=x0, start=start)
    if start.shape != x0.shape or start.dtype != x0.dtype:
        raise ValueError(f"sdedit: start is {start.dtype} {start.shape}, wanted {x0.dtype} {x0.shape}, like x0")
    return sampler(denoiser, rest, q_sample(x0, start, rest.level(0)), **options)


# ---- a part is given

def jumps(steps, length=1, resamples=1):
    """The levels that RePaint visits, as indices of a grid of S = steps steps: [0, 1, .., S] with walks back.

    When 1, 1 + length, 1 + 2 length, .. steps remain, up to S - length, it walks back `length` levels and comes down
    again, resamples - 1 times each. length = 1 repeats every step but the last `resamples` times. [REPAINT alg. 1]
    """
    length, resamples = integer("jumps: length", length, 1, steps), integer("jumps: resamples", resamples, 1)
    back = {steps - remaining: resamples - 1 for remaining in range(1, steps - length + 1, length)}
    path, i = [0], 0
    while i < steps:
        i += 1
        path.append(i)
        if back.get(i):
            back[i] -= 1
            path += range(i - 1, i - length - 1, -1)
            i -= length
    return path


def inpaint(denoiser, grid, x, known, mask, eta=1.0, resamples=1, length=1, noise=None):
    """Where mask is True, x_s = alpha_s known + sigma_s z; elsewhere DDIM's step with eta. [REPAINT alg. 1]

    The known part has the noise of the level s after the step, which is the unknown part's. known: like x, clean; mask:
    booleans that broadcast to x. resamples = 1 is replacement: the known part never learns of the unknown, so the
    result is not the conditional law. With more, x_t = alpha_ts x_s + sqrt(var_ts) z takes a step back, and the step is
    made again, by `jumps`: the mean comes to the conditional one; the variance keeps the error of the steps, which a
    repeated step repeats and only a finer grid removes. eta = 1, DDPM's step, is the paper's.
    One draw a step down or up: the two parts share no entry. The last step draws nothing and ends on alpha known.
    Yields a State per step, up or down; a step up repeats the last prediction.
    """
    eta = number("inpaint: eta", eta, 0, 1)
    if getattr(mask, "dtype", None) != bool:
        raise ValueError(f"inpaint: mask is {getattr(mask, 'dtype', mask)}, wanted booleans, True where known")
    xp = backend.of(x=x, known=known, mask=mask)
    if known.shape != x.shape or known.dtype != x.dtype:
        raise ValueError(f"inpaint: known is {known.dtype} {known.shape}, wanted {x.dtype} {x.shape}, like x")
    try:
        mask = xp.broadcast_to(mask, x.shape)
    except ValueError:
        raise ValueError(f"inpaint: mask has shape {mask.shape}, which does not broadcast to x, {x.shape}") from None
    path = jumps(len(grid), length, resamples)
    if resamples > 1 and len(path) == len(grid) + 1:
        raise ValueError(f"inpaint: resamples is {resamples}, and no walk back of {length} levels fits into the "
                         f"{len(grid)} steps; wanted length < {len(grid)}, or resamples=1")
    last = len(path) - 2
    denoiser = check("inpaint", denoiser, x, noise, last)
    prediction = None
    for step, (i, j) in enumerate(zip(path, path[1:])):
        here, there = grid.level(i), grid.level(j)
        z = draw("inpaint", noise, step, x) if step < last else xp.zeros_like(x)
        if j > i:
            on_x0, on_eps, std = coefficients(there, here, eta)
            prediction = denoiser(x, here)
            free = on_x0 * prediction.x0 + on_eps * prediction.eps + std * z
            x = xp.where(mask, there.alpha * known + there.sigma * z, free)
        else:
            alpha_ts, var_ts = transition(here, there)
            x = alpha_ts * x + var_ts ** 0.5 * z
        yield after("inpaint", step, there, x, prediction)
