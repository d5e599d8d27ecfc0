"""Judges that need no stored answer: what a sampler must do on worlds whose flow and law are known exactly.

    order     the slope of log error over log N, N = 16..256, against the flow's quantile map on a mixture
    flow      the error against the exact flow at 20 steps, beside the published solver's own
    law       the mean and variance of what comes out for N(0, 1) in, by the affine superposition: no sampling error
    noise     every draw made once, in its step, and none after the last step (a convention if it has no effect)
    network   the times and the x that the network is called with, call by call; where both belong together, being the
              published solver's on other levels, it is a convention, and order, flow and law are judged on those
    fuzz      finite numbers of x's shape, and no exception, for 1 to 100 steps and large and small x
    dtype     float32 in is float32 out, float64 in float64 out, and both agree (a convention if it knows one type)

Each takes (adapter, setting) and returns a Finding. The solver to compare with is refdiff's on the same levels, in
float64; where refdiff has none of that name, only what needs none is judged.
"""
from dataclasses import replace

import numpy as np

from ..process import affine
from ..samplers.orders import LINE, POINT
from .calls import dtype, fuzz, network, noise
from .case import digits
from .judging import STEPS, Judge, Judged, rms
from .settings import Noise, start
from .visited import Visited

COUNTS = (16, 32, 64, 128, 256)
SLACK = 0.25                    # of an observed order, against that of the published solver on the same levels
EXACT = 1e-9                    # relative: two float64 evaluations of one affine map, over a few steps
SINGLE = 1e-4                   # the same of float32: 1e-7, times 160 for x0 = (x - sigma eps)/alpha at the first level


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
        theirs.append(rms(states[-1], end))
        ours.append(rms(setting.ours(LINE, grid, x)[-1], end))
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
    error, wanted = rms(states[-1], truth[-1]), rms(ours[-1], truth[-1])
    evidence = {"steps": steps, "error": error, "expected_error": wanted}
    if len(states) == len(grid):
        evidence["errors_by_step"] = [rms(a, b) for a, b in zip(states, truth)]
        evidence["expected_errors_by_step"] = [rms(a, b) for a, b in zip(ours, truth)]
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
    theirs, single = _affine(lambda x, noise: judge.run(steps, x, POINT, noise)[0][-1], draws)
    ours, _ = _affine(lambda x, noise: setting.ours(POINT, grid, x, noise)[-1], draws)
    mean, cov = affine.start(grid, POINT)
    got, wanted = (np.array([float(m), float(v)]) for m, v in (_law(read, mean, cov) for read in (theirs, ours)))
    agreed, near = digits(got, wanted), SINGLE if single else EXACT
    evidence = {"steps": steps, "mean_and_variance": got.tolist(), "expected": wanted.tolist(),
                "gains": theirs.gains.ravel().tolist(), "expected_gains": ours.gains.ravel().tolist()}
    if np.allclose(got, wanted, rtol=near, atol=near * abs(wanted).max()) and np.allclose(
            abs(theirs.gains), abs(ours.gains), rtol=near, atol=near):
        return judge.finding("pass", "", agreed, **evidence)
    if np.allclose(abs(theirs.gains), abs(ours.gains), rtol=SINGLE, atol=SINGLE / 10) and agreed > 5:
        return judge.finding("fail", f"the law to {agreed:.1f} digits: something on the way is in float32", agreed,
                             **evidence)
    return judge.finding("fail", _law_cause(theirs, ours, got, wanted), agreed, **evidence)


def _affine(run, draws):
    """(affine.probe of a sampler that may ask for a draw twice, or for one that it should not; whether in float32)."""
    kept, types = {}, []

    def tolerant(x, noise):

        def again(i):
            if i not in kept:
                kept[i] = noise(i) if 0 <= i < draws else np.zeros_like(x)
            return kept[i]
        out = run(x, Noise(again))
        types.append(out.dtype)
        return out
    return affine.probe(tolerant, draws, 1), np.float32 in types


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


ORACLES = {"order": order, "flow": flow, "law": law, "noise": noise, "network": network, "fuzz": fuzz, "dtype": dtype}
AFTER_FLOW = ("order", "flow")                # of samplers without noise
RANDOM = ("law",)                             # of samplers with it


def applies(name, setting):
    """Whether an oracle says anything about a setting."""
    random = setting.stochastic(None, STEPS)
    return not (random and name in AFTER_FLOW or not random and name in RANDOM)


def judge(name, adapter, setting, spec=""):
    """The finding of an oracle on a setting; None where it does not apply.

    Order, flow and law are the solver's: what fails them on the levels that were asked for is judged again on those
    that it visits.
    """
    if not applies(name, setting):
        return None
    found = _judged(name, adapter, setting, spec)
    if found.status == "fail" and name in (*AFTER_FLOW, *RANDOM):
        other = _judged(name, adapter, Visited.of(setting, adapter), spec)
        if other.status == "pass":
            return replace(other, cause=f"on the levels that it visits, which are not those of {setting.rule}"
                           + (f"; {other.cause}" if other.cause else ""))
    return found


def _judged(name, adapter, setting, spec):
    judging = Judge(name, adapter, setting, spec)
    try:
        return ORACLES[name](judging)
    except Judged as judged:
        return judged.finding
    except ValueError as error:                  # refdiff has no such sampler, grid or schedule to compare with
        return judging.finding("not-implemented", f"nothing to compare with: {error}")
