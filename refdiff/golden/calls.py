"""The oracles of how a sampler is run: its draws, the calls of its network, odd inputs, and types. See oracles.py."""
import math

import numpy as np

from ..rng import Key
from ..samplers.orders import LINE, POINT
from .adapter import dtypes_of
from .case import digits
from .judging import STEPS, kind_of, rms
from .settings import Noise, seeded, start
from .visited import Visited

HARMLESS = 1e-8                 # relative: what a draw after the last step may change, such as a variance kept off 0


def noise(judge, steps=STEPS):
    """Which draws are asked for: those of refdiff's sampler, in order, each once."""
    setting = judge.setting
    grid = setting.grid(steps)
    x = start(grid)
    wanted = seeded(x)
    setting.ours(LINE, grid, x, wanted)
    states, _, asked = judge.run(steps, x)
    evidence = {"steps": steps, "draws": asked.asked, "expected": wanted.asked}
    if asked.asked == wanted.asked:
        return judge.finding("pass", **evidence)
    counted = {i: asked.asked.count(i) for i in asked.asked}
    repeated = sorted(i for i, n in counted.items() if n > 1)
    skipped = sorted(set(wanted.asked) - set(asked.asked))
    extra = sorted(set(asked.asked) - set(wanted.asked))
    last = len(grid) - 1
    said = [f"draws after the last step ({', '.join(map(str, extra))}) are made" if wanted.asked and extra == [last]
            else f"draws {extra} are made, which no step uses" if extra else "",
            f"draws {repeated} are used more than once" if repeated else "",
            f"draws {skipped} are never made" if skipped else ""]
    said = "; ".join(filter(None, said)) or "the draws come in another order"
    if extra and not repeated and not skipped:
        other = Noise(lambda i: (-3 if i in extra else 1) * Key(1).fold("noise", i).normal(x.shape))
        effect = float(np.max(abs(judge.run(steps, x, noise=other)[0][-1] - states[-1])) / np.max(abs(states[-1])))
        if effect <= HARMLESS:
            said += ", and have no effect but on the generator" if not effect else f", and change x by {effect:.0e}"
            return judge.finding("convention", said, **evidence)
    return judge.finding("fail", said, **evidence)


def network(judge, steps=STEPS):
    """The times and the states at which the network is called, against refdiff's calls."""
    setting = judge.setting
    grid = setting.grid(steps)
    x = start(grid)
    wanted = []
    setting.ours(LINE, grid, x, seeded(x), wanted)
    states, net, _ = judge.run(steps, x)
    times, expected = [t for t, _ in net.calls], [t for t, _ in wanted]
    evidence = {"steps": steps, "times": times, "expected": expected}
    if len(times) != len(expected) or not np.allclose(times, expected, rtol=1e-6, atol=1e-9):
        said, named = _times_cause(setting, steps, times, expected)
        agreed = None if named else _on_own_levels(judge, steps)
        if agreed is not None:
            return judge.finding("convention", f"the published solver on levels of its own: {said}", agreed, **evidence)
        return judge.finding("fail", said, **evidence)
    for k, ((_, got), (_, want)) in enumerate(zip(net.calls, wanted)):
        if got.shape != want.shape:
            return judge.finding("fail", f"call {k} of the network has x of shape {got.shape}, wanted {want.shape}",
                                 **evidence)
        agreed = digits(got, want)
        if agreed < (6 if states[-1].dtype == np.float64 else 4):
            ratio = float(np.sum(got * want) / np.sum(want * want))
            scaled = digits(got / ratio, want) if ratio else 0
            scaled = abs(ratio - 1) > 1e-5 and scaled and scaled > 6
            what = f"it is {ratio:.6g} times what was due" if scaled else "the step before departs"
            return judge.finding("fail", f"the x at call {k} of the network (t = {times[k]:g}) is another: {what}"
                                 + (", the initial scale" if k == 0 else ""), agreed, **evidence)
    return judge.finding("pass", **evidence)


def _on_own_levels(judge, steps):
    """The digits in which the run is the published solver's on the levels that it visits; None where it is not.

    A time between two entries of the table is a level that implementations interpolate in different ways.
    """
    setting = Visited.of(judge.setting, judge.adapter)
    grid = setting.grid(steps)
    x = start(grid)
    states, *_ = judge.run(steps, x)
    if np.array_equal(grid.t, judge.setting.grid(steps).t):
        return None
    agreed = digits(states[-1], setting.ours(LINE, grid, x, seeded(x))[-1])
    whole = setting.T is None or np.all(grid.t == np.rint(grid.t))
    return agreed if agreed > (4 if not whole or states[-1].dtype == np.float32 else 9) else None


def _times_cause(setting, steps, times, expected):
    """(what the called times are, if not those of the grid; whether it is a mistake with a name)."""
    if len(times) == len(expected):
        shift = np.array(times) - expected
        if np.ptp(shift) < 1e-9 and abs(shift[0]) < 1.5:
            return f"the network is told t{shift[0]:+g} for t", True
        if np.allclose(times[:-1], expected[1:]) and len(expected) > 1:
            return "the network is told the time of the level that it steps to", True
        with np.errstate(all="ignore"):
            ratio = np.array(times) / expected
        if np.ptp(ratio) < 1e-9:
            return f"the network is told {ratio[0]:.6g} t for t", True
    for rule in ("leading", "stride", "trailing", "linspace", "quadratic"):
        for offset in (0, 1, -1):
            if setting.T is None:
                break
            try:
                other = type(setting)(setting.sampler, setting.schedule, setting.T, rule).grid(steps)
            except ValueError:
                continue
            if len(times) == len(other) and np.allclose(times, other.t[:-1] + offset):
                shifted = f", {offset:+d}" if offset else ""
                return f"the network is called at the times of spacing={rule}{shifted}", True
    first = next((k for k, (a, b) in enumerate(zip(times, expected)) if not math.isclose(a, b, rel_tol=1e-6)), None)
    counted = f"the network is called {len(times)} times, wanted {len(expected)}"
    if first is None:
        return counted, False
    return (f"call {first} of the network is at t = {times[first]:g}, wanted {expected[first]:g}"
            + (f"; {counted}" if len(times) != len(expected) else "")), False


def fuzz(judge):
    """Finite numbers and no exception over counts of steps, sizes of x and worlds."""
    tried = 0
    for steps in (1, 2, 3, 7, 20, 100):
        try:
            grid = judge.setting.grid(steps)
        except ValueError:
            continue                                             # no such grid: nothing to ask for
        for scale in (1.0, 1e-3, 30.0):
            x = scale * start(grid, 3)
            states, *_ = judge.run(steps, x, LINE if scale < 2 else POINT)
            if not np.isfinite(states[-1]).all():
                return judge.finding("fail", f"not finite after {steps} steps from x of size {scale:g}", steps=steps,
                                     scale=scale, kind="not finite")
            tried += 1
    return judge.finding("pass", runs=tried)


def dtype(judge, steps=STEPS):
    """The type of x is kept, and both types agree to what float32 can hold; one type for both is a choice."""
    works_in = dtypes_of(judge.adapter)
    if "float32" not in works_in:
        return judge.finding("not-implemented", "the adapter works in float64 alone")
    grid = judge.setting.grid(steps)
    x = start(grid)
    fine, *_ = judge.run(steps, x)
    single = x.astype(np.float32)
    coarse, *_ = judge.run(steps, single)
    for given, states in ((x, fine), (single, coarse)):
        if not np.isfinite(states[-1]).all():
            return judge.finding("fail", f"what comes out for {given.dtype} is not finite", steps=steps,
                                 kind="not finite")
    kind = kind_of(judge.adapter)
    ours = [judge.setting.ours(LINE, grid, y, seeded(y), kind=kind)[-1] for y in (single, x)]
    agreed = digits(coarse[-1], fine[-1])
    limit = 10 * rms(*ours) + 1e-5
    error = rms(coarse[-1], fine[-1])
    evidence = {"float32_in": str(coarse[-1].dtype), "float64_in": str(fine[-1].dtype), "difference": error,
                "limit": limit}
    out = coarse[-1].dtype, fine[-1].dtype
    if out[0] != out[1] and out != (np.float32, np.float64):
        return judge.finding("fail", f"float32 in is {out[0]} out, float64 in is {out[1]} out", agreed, **evidence)
    if not error <= limit:
        return judge.finding("fail", f"float32 and float64 differ by {error:.1e}, rounding explains {limit:.1e}",
                             agreed, **evidence)
    if out[0] == out[1] and works_in != (str(out[0]),):
        return judge.finding("convention", f"{out[0]} out, whatever comes in; if that is meant, let the adapter say "
                             f"dtypes = (\"{out[0]}\",)", agreed, **evidence)
    return judge.finding("pass", "", agreed, **evidence)
