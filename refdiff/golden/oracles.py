"""Judges that need no stored answer: what a sampler must do on worlds whose flow and law are known exactly.

    order     the slope of log error over log N, N = 16..256, against the flow's quantile map on a mixture
    flow      the error against the exact flow at 20 steps, beside the published solver's own
    law       the mean and variance of what comes out for N(0, 1) in, by the affine superposition: no sampling error
    noise     every draw made once, in its step, and none after the last step (a convention if it has no effect)
    network   the times and the x that the network is called with, call by call
    fuzz      finite numbers of x's shape, and no exception, for 1 to 100 steps and large and small x
    dtype     float32 in is float32 out, float64 in float64 out, and both agree

Each takes (adapter, setting) and returns a Finding. The solver to compare with is refdiff's on the same levels, in
float64; where refdiff has none of that name, only what needs none is judged.
"""
import math
from dataclasses import replace

import numpy as np

from ..process import affine
from ..rng import Key
from ..samplers.orders import LINE, POINT
from .adapter import subject_of
from .case import digits
from .finding import Finding
from .settings import Network, Noise, ask, seeded

COUNTS = (16, 32, 64, 128, 256)
SLACK = 0.25                    # of an observed order, against that of the published solver on the same levels
EXACT = 1e-9                    # relative: two float64 evaluations of one affine map, over a few steps
STEPS = 8                       # of the laws, the bookkeeping and the calls


def start(grid, n=5, seed=3):
    """(n, 1) points from the law at the grid's first level."""
    first = grid.level(0)
    return Key(seed).normal((n, 1)) * math.hypot(first.alpha, first.sigma)


def kind_of(adapter):
    return getattr(adapter, "prediction", "eps")


class Judge:
    """One oracle on one setting: names the finding, and turns what cannot be judged into one."""

    def __init__(self, name, adapter, setting, spec=""):
        self.name, self.adapter, self.setting, self.spec = name, adapter, setting, spec
        self.check = f"oracle/{name}/{setting.id}"

    def finding(self, status, cause="", digits=None, **evidence):
        inputs = self.setting.inputs(STEPS, None, None, None)
        return Finding(subject_of(self.adapter, "trajectory", inputs), self.check, status, digits, cause, evidence,
                       f"refdiff audit {self.spec or 'ADAPTER'} --only '{self.check}'")

    def run(self, steps, x, world=LINE, noise=None, setting=None):
        """(states, network, noise) of the adapter; raises Judged with the finding where there are none."""
        setting = setting or self.setting
        network = Network(world, setting, kind_of(self.adapter))
        noise = noise or seeded(x)
        answer, states = ask(self.adapter, setting, steps, x, network, noise)
        if answer.missing:
            raise Judged(self.finding("not-implemented", answer.missing))
        if answer.error:
            raise Judged(self.finding("fail", answer.error, steps=steps))
        if states is None or states[-1].shape != x.shape:
            got = "no states" if states is None else f"{states[-1].shape}"
            raise Judged(self.finding("fail", f"returned {got}, wanted x of shape {x.shape} or a list of them",
                                      steps=steps))
        return states, network, noise

    def finite(self, states, steps):
        if not np.isfinite(states[-1]).all():
            raise Judged(self.finding("fail", "what comes out is not finite", steps=steps,
                                      entries=int((~np.isfinite(states[-1])).sum())))


class Judged(Exception):
    """Judged before the end: holds the finding."""

    def __init__(self, finding):
        super().__init__(finding.cause)
        self.finding = finding


def _rms(a, b):
    return float(np.sqrt(np.mean((np.asarray(a, dtype=np.float64) - b) ** 2)))


def _convergence(judge, counts):
    """Errors against the exact flow: (adapter's, refdiff's) for each count."""
    setting = judge.setting
    if setting.T is not None:                       # a power of two, so that no time is rounded
        setting = replace(setting, T=1024)
    elif setting.final == "zero":                   # a last step that is as long for any N has no order
        setting = replace(setting, final="none")
    theirs, ours = [], []
    for N in counts:
        grid = setting.grid(N)
        x = start(grid, 9)
        states, *_ = judge.run(N, x, setting=setting)
        judge.finite(states, N)
        end = LINE.quantile_map(x, grid.level(0), grid.level(len(grid)))
        theirs.append(_rms(states[-1], end))
        ours.append(_rms(setting.ours(LINE, grid, x)[-1], end))
    return theirs, ours


def _slope(counts, errors):
    return -float(np.polyfit(np.log(counts), np.log(np.maximum(errors, 1e-300)), 1)[0])


def order(judge):
    """The observed order of convergence: it may be lower only where the error is lower too."""
    theirs, ours = _convergence(judge, COUNTS)
    got, wanted = _slope(COUNTS, theirs), _slope(COUNTS, ours)
    evidence = {"steps": list(COUNTS), "errors": theirs, "expected_errors": ours, "order": got,
                "expected_order": wanted}
    if got > wanted - SLACK:
        return judge.finding("pass", **evidence)
    if theirs[-1] <= 1.5 * ours[-1]:
        return judge.finding("pass", f"order {got:.2f}, lower than {wanted:.2f}, but as accurate up to N = "
                             f"{COUNTS[-1]}", **evidence)
    said = f"order {got:.2f} observed, {wanted:.2f} wanted"
    if theirs[-1] > 0.7 * theirs[-2]:
        said += f"; the error stops falling at {theirs[-1]:.1e}: a step or a level is wrong at any N"
    if theirs[0] < 0.9 * ours[0]:
        said += f"; at N = {COUNTS[0]} it is the more accurate one, {theirs[0]:.1e} against {ours[0]:.1e}"
    return judge.finding("fail", said, **evidence)


def flow(judge, steps=20):
    """The error against the exact flow at 20 steps; at most 1.5 times the published solver's."""
    setting = judge.setting
    grid = setting.grid(steps)
    x = start(grid, 9)
    states, *_ = judge.run(steps, x)
    judge.finite(states, steps)
    truth = [LINE.quantile_map(x, grid.level(0), grid.level(k + 1)) for k in range(len(grid))]
    ours = setting.ours(LINE, grid, x)
    error, wanted = _rms(states[-1], truth[-1]), _rms(ours[-1], truth[-1])
    evidence = {"steps": steps, "error": error, "expected_error": wanted}
    if len(states) == len(grid):
        evidence["errors_by_step"] = [_rms(a, b) for a, b in zip(states, truth)]
        evidence["expected_errors_by_step"] = [_rms(a, b) for a, b in zip(ours, truth)]
    agreed = digits(states[-1], ours[-1])
    if error <= 1.5 * wanted + 1e-12:
        same = agreed is not None and agreed > 4
        return judge.finding("pass", "" if same else "another rule than the published one, as near to the flow",
                             agreed if same else None, **evidence)
    return judge.finding("fail", f"{error:.1e} from the exact flow after {steps} steps, the published solver "
                         f"{wanted:.1e}", agreed, **evidence)


def law(judge, steps=STEPS):
    """The output's mean and variance for x ~ N(0, 1) and unit noises, read off the sampler's affine map exactly."""
    setting = judge.setting
    grid = setting.grid(steps)
    draws = len(grid)                                            # one more than there may be: the last step's
    theirs = _affine(lambda x, noise: judge.run(steps, x, POINT, noise)[0][-1], draws)
    ours = _affine(lambda x, noise: setting.ours(POINT, grid, x, noise)[-1], draws)
    mean, cov = affine.start(grid, POINT)
    got, wanted = (np.array([float(m), float(v)]) for m, v in (_law(read, mean, cov) for read in (theirs, ours)))
    agreed = digits(got, wanted)
    evidence = {"steps": steps, "mean_and_variance": got.tolist(), "expected": wanted.tolist(),
                "gains": theirs.gains.ravel().tolist(), "expected_gains": ours.gains.ravel().tolist()}
    if np.allclose(got, wanted, rtol=EXACT, atol=EXACT * abs(wanted).max()) and np.allclose(
            abs(theirs.gains), abs(ours.gains), rtol=EXACT, atol=EXACT):
        return judge.finding("pass", "", agreed, **evidence)
    return judge.finding("fail", _law_cause(theirs, ours, got, wanted), agreed, **evidence)


def _affine(run, draws):
    """affine.probe for a sampler that may ask for a draw twice, or for one that it should not."""
    def tolerant(x, noise):
        kept = {}

        def again(i):
            if i not in kept:
                kept[i] = noise(i) if 0 <= i < draws else np.zeros_like(x)
            return kept[i]
        return run(x, Noise(again))
    return affine.probe(tolerant, draws, 1)


def _law(read, mean, cov):
    m, c = read.law(mean, cov)
    return m[0], c[0, 0]


def _law_cause(theirs, ours, got, wanted):
    a, b = theirs.gains.ravel(), ours.gains.ravel()
    if b[-1] == 0 and a[-1] != 0:
        return f"the last step adds noise, with standard deviation {abs(a[-1]):.3g}"
    if not np.any(a) and np.any(b):
        return "no draw reaches the output: the noise is ignored, or the method is deterministic"
    differ = np.flatnonzero(~np.isclose(abs(a), abs(b), rtol=1e-9, atol=EXACT))
    if len(differ):
        i = int(differ[-1])
        return (f"the draw of step {i} reaches the output with factor {a[i]:.6g}, wanted {b[i]:.6g}"
                + (f" ({a[i] / b[i]:.6g} times)" if a[i] and b[i] else ""))
    return f"mean and variance are {got[0]:.6g}, {got[1]:.6g}, wanted {wanted[0]:.6g}, {wanted[1]:.6g}"


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
        if np.array_equal(judge.run(steps, x, noise=other)[0][-1], states[-1]):
            return judge.finding("convention", f"{said}, and have no effect but on the generator", **evidence)
    return judge.finding("fail", said, **evidence)


def network(judge, steps=STEPS):
    """The times and the states at which the network is called, against refdiff's calls."""
    setting = judge.setting
    grid = setting.grid(steps)
    x = start(grid)
    wanted = []
    setting.ours(LINE, grid, x, seeded(x), wanted)
    _, net, _ = judge.run(steps, x)
    times, expected = [t for t, _ in net.calls], [t for t, _ in wanted]
    evidence = {"steps": steps, "times": times, "expected": expected}
    if len(times) != len(expected) or not np.allclose(times, expected, rtol=1e-6, atol=1e-9):
        return judge.finding("fail", _times_cause(setting, steps, times, expected), **evidence)
    for k, ((_, got), (_, want)) in enumerate(zip(net.calls, wanted)):
        if got.shape != want.shape:
            return judge.finding("fail", f"call {k} of the network has x of shape {got.shape}, wanted {want.shape}",
                                 **evidence)
        agreed = digits(got, want)
        if agreed < 6:
            ratio = float(np.sum(got * want) / np.sum(want * want))
            scaled = digits(got / ratio, want) if ratio else 0
            what = f"it is {ratio:.6g} times what was due" if scaled and scaled > 6 else "the step before departs"
            return judge.finding("fail", f"the x at call {k} of the network (t = {times[k]:g}) is another: {what}"
                                 + (", the initial scale" if k == 0 else ""), agreed, **evidence)
    return judge.finding("pass", **evidence)


def _times_cause(setting, steps, times, expected):
    """What the called times are, if not those of the grid."""
    if len(times) == len(expected):
        shift = np.array(times) - expected
        if np.ptp(shift) < 1e-9 and abs(shift[0]) < 1.5:
            return f"the network is told t{shift[0]:+g} for t"
        if np.allclose(times[:-1], expected[1:]) and len(expected) > 1:
            return "the network is told the time of the level that it steps to"
        with np.errstate(all="ignore"):
            ratio = np.array(times) / expected
        if np.ptp(ratio) < 1e-9:
            return f"the network is told {ratio[0]:.6g} t for t"
    for rule in ("leading", "stride", "trailing", "linspace", "quadratic"):
        for offset in (0, 1, -1):
            if setting.T is None:
                break
            try:
                other = type(setting)(setting.sampler, setting.schedule, setting.T, rule).grid(steps)
            except ValueError:
                continue
            if len(times) == len(other) and np.allclose(times, other.t[:-1] + offset):
                return f"the network is called at the times of spacing={rule}" + (f", {offset:+d}" if offset else "")
    first = next((k for k, (a, b) in enumerate(zip(times, expected)) if not math.isclose(a, b, rel_tol=1e-6)), None)
    counted = f"the network is called {len(times)} times, wanted {len(expected)}"
    if first is None:
        return counted
    return (f"call {first} of the network is at t = {times[first]:g}, wanted {expected[first]:g}"
            + (f"; {counted}" if len(times) != len(expected) else ""))


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
                                     scale=scale)
            tried += 1
    return judge.finding("pass", runs=tried)


def dtype(judge, steps=STEPS):
    """The type of x is kept, and both types agree to what float32 can hold."""
    if "float32" not in getattr(judge.adapter, "dtypes", ("float32", "float64")):
        return judge.finding("not-implemented", "the adapter works in float64 alone")
    grid = judge.setting.grid(steps)
    x = start(grid)
    fine, *_ = judge.run(steps, x)
    single = x.astype(np.float32)
    coarse, *_ = judge.run(steps, single)
    kind = kind_of(judge.adapter)
    ours = [judge.setting.ours(LINE, grid, y, seeded(y), kind=kind)[-1] for y in (single, x)]
    agreed = digits(coarse[-1], fine[-1])
    limit = 10 * _rms(*ours) + 1e-5
    error = _rms(coarse[-1], fine[-1])
    evidence = {"float32_in": str(coarse[-1].dtype), "float64_in": str(fine[-1].dtype), "difference": error,
                "limit": limit}
    if coarse[-1].dtype != np.float32 or fine[-1].dtype != np.float64:
        return judge.finding("fail", f"float32 in is {coarse[-1].dtype} out, float64 in is {fine[-1].dtype} out",
                             agreed, **evidence)
    if not error <= limit:
        return judge.finding("fail", f"float32 and float64 differ by {error:.1e}, rounding explains {limit:.1e}",
                             agreed, **evidence)
    return judge.finding("pass", "", agreed, **evidence)


ORACLES = {"order": order, "flow": flow, "law": law, "noise": noise, "network": network, "fuzz": fuzz, "dtype": dtype}
AFTER_FLOW = ("order", "flow")                # of samplers without noise
RANDOM = ("law",)                             # of samplers with it


def applies(name, setting):
    """Whether an oracle says anything about a setting."""
    random = setting.stochastic(None, STEPS)
    return not (random and name in AFTER_FLOW or not random and name in RANDOM)


def judge(name, adapter, setting, spec=""):
    """The finding of an oracle on a setting; None where it does not apply."""
    if not applies(name, setting):
        return None
    judging = Judge(name, adapter, setting, spec)
    try:
        return ORACLES[name](judging)
    except Judged as judged:
        return judged.finding
    except ValueError as error:                  # refdiff has no such sampler, grid or schedule to compare with
        return judging.finding("not-implemented", f"nothing to compare with: {error}")
