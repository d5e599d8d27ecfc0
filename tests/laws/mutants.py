"""Wrong ops, to prove that the laws can fail.

`PLANTED`: one mistake per law, put into every op from outside, with the law that must notice.
`CONSISTENT`: another op than the definition with a right backward and jvp of its own, so that only
the scalar loop can tell. (mutate_source.py changes the source itself.)
"""
import math
from dataclasses import dataclass
from typing import Callable

import numpy as np
from laws import cotangents, leaves, size, variant
from standin import StandIn

from refdiff.ops.op import REGISTRY

FACTOR = 1 + 1e-9                     # a mistake a thousand times the tolerance


# ---- changes from outside

def around(op, name, forward=None, backward=None, jvp=None):
    """The op with its results passed through functions: y, (dx...) and ydot each through its own."""
    def changed_forward(*inputs, **options):
        y, saved = op.forward(*inputs, **options)
        return (forward(y) if forward else y), saved

    def changed_backward(saved, dy):
        found = cotangents(op, saved, dy)
        found = tuple(backward(*found)) if backward else found
        return found if len(found) > 1 else found[0]

    def changed_jvp(saved, *tangents):
        ydot = op.jvp(saved, *tangents)
        return jvp(ydot) if jvp else ydot

    return variant(op, name, forward=changed_forward, backward=changed_backward, jvp=changed_jvp)


def every(function):
    return lambda *found: tuple(function(a) for a in found)


def on_inputs(op, name, function):
    """The op fed with function(x) in place of each real input."""
    def forward(*inputs, **options):
        return op.forward(*(function(x) if spec.kind == "real" else x for spec, x in zip(op.inputs, inputs)), **options)
    return variant(op, name, forward=forward)


def remembers(op, name):
    """backward uses what the last forward saved, whatever it is given."""
    last = []

    def forward(*inputs, **options):
        y, saved = op.forward(*inputs, **options)
        last[:] = [saved]
        return y, saved
    return variant(op, name, forward=forward, backward=lambda saved, dy: op.backward(last[0], dy))


def counts(op, name):
    """backward depends on how often it ran."""
    calls = []

    def count(*found):
        calls.append(1)
        return [a * (1 + 1e-9 * len(calls)) for a in found]
    return around(op, name, backward=count)


def spoils(op, name, where, what):
    """`where` ("forward", "backward", "jvp") doubles what it was given: "first", "saved" or "last"."""
    function = getattr(op, where)

    def changed(*args, **options):
        result = function(*args, **options)
        target = {"first": args[0], "saved": (leaves(args[0]) or [None])[-1], "last": args[-1]}[what]
        if isinstance(target, np.ndarray) and target.dtype.kind == "f":
            target *= 2
        return result
    return variant(op, name, **{where: changed})


def mixes_rows(op, name):
    def mix(a):
        return a + 1e-9 * a.mean(0)
    if op.output_axes[:1] == ("n",):
        return around(op, name, forward=mix)
    real = [spec for spec in op.inputs if spec.kind == "real"]
    return around(op, name, backward=lambda *found: [mix(a) if spec.axes[:1] == ("n",) else a
                                                     for spec, a in zip(real, found)])


def buffer_of(x):
    """The memory behind a view, read from its start: what code that ignores strides sees."""
    base = getattr(x, "base", None)
    return x if base is None or base.size < x.size else base.reshape(-1)[:x.size].reshape(x.shape)


def to_host(a):
    return a.get() if isinstance(a, StandIn) else a


def on_host(op, name):
    """Brings everything to the host in silence."""
    def forward(*inputs, **options):
        return op.forward(*(to_host(a) for a in inputs), **options)
    return variant(op, name, forward=forward)


def with_route(op, name, forward=None, backward=None):
    wrong = around(op, "wrong route", forward, backward)
    return variant(op, name, routes={"wrong": (wrong.forward, wrong.backward)})


def off(a):
    return a * FACTOR


# mutant -> (the law that must notice it, op -> mutant)
PLANTED = {
    "jvp of the wrong sign": ("jvp_is_the_complex_step", lambda op, m: around(op, m, jvp=lambda a: -a)),
    "jvp off by 1e-9": ("jvp_is_the_complex_step", lambda op, m: around(op, m, jvp=off)),
    "forward of the real part": ("jvp_is_the_complex_step", lambda op, m: on_inputs(op, m, lambda x: x.real)),
    "backward off by 1e-9": ("backward_is_the_transpose_of_jvp", lambda op, m: around(op, m, backward=every(off))),
    "last cotangent forgotten": ("backward_is_the_transpose_of_jvp",
                                 lambda op, m: around(op, m, backward=lambda *d: d[:-1] + (0 * d[-1],))),
    "backward with a constant": ("derivatives_are_linear",
                                 lambda op, m: around(op, m, backward=every(lambda a: a + 1e-9))),
    "jvp with a constant": ("derivatives_are_linear", lambda op, m: around(op, m, jvp=lambda a: a + 1e-9)),
    "backward remembers the last forward": ("passes_interleave", remembers),
    "backward counts its calls": ("passes_interleave", counts),
    "forward writes into its input": ("arguments_are_left_alone", lambda op, m: spoils(op, m, "forward", "first")),
    "backward writes into dy": ("arguments_are_left_alone", lambda op, m: spoils(op, m, "backward", "last")),
    "backward writes into saved": ("arguments_are_left_alone", lambda op, m: spoils(op, m, "backward", "saved")),
    "jvp writes into its tangent": ("arguments_are_left_alone", lambda op, m: spoils(op, m, "jvp", "last")),
    "rows mixed": ("rows_do_not_mix", mixes_rows),
    "y in float64": ("dtype_is_kept", lambda op, m: around(op, m, forward=lambda a: a * np.float64(1))),
    "cotangents in float64": ("dtype_is_kept",
                              lambda op, m: around(op, m, backward=every(lambda a: a * np.float64(1)))),
    "jvp in float64": ("dtype_is_kept", lambda op, m: around(op, m, jvp=lambda a: a * np.float64(1))),
    "y through float32": ("forward_equals_the_scalar_loop",
                          lambda op, m: around(op, m, forward=lambda a: a.astype(np.float32).astype(a.dtype))),
    "strides ignored": ("memory_layout_does_not_matter", lambda op, m: on_inputs(op, m, buffer_of)),
    "y on the host": ("results_stay_on_the_device", lambda op, m: around(op, m, forward=to_host)),
    "a host array in backward": ("results_stay_on_the_device",
                                 lambda op, m: around(op, m, backward=every(lambda a: a + np.zeros(a.shape)))),
    "everything brought to the host": ("host_and_device_do_not_mix", on_host),
    "a route with another y": ("routes_equal_the_plain_one", lambda op, m: with_route(op, m, forward=off)),
    "a route with another backward": ("routes_equal_the_plain_one",
                                      lambda op, m: with_route(op, m, backward=every(off))),
    "y with an axis too many": ("shapes_follow_the_signature", lambda op, m: around(op, m, forward=lambda a: a[None])),
    "a cotangent summed over its first axis": ("shapes_follow_the_signature",
                                               lambda op, m: around(op, m, backward=every(lambda a: a.sum(0)))),
    "everything off by 1e-9": ("forward_equals_the_scalar_loop",
                               lambda op, m: around(op, m, off, every(off), off)),
}


def is_another_op(name, op, cases):
    """Whether a planted mistake changes this op at all."""
    if name == "everything brought to the host":
        return len(op.inputs) > 1
    if name in ("backward remembers the last forward", "backward writes into saved"):
        saved = [op.forward(*case.inputs, **case.options)[1] for case in cases[:1]]
        floats = [a for a in leaves(saved) if name.endswith("forward") or a.dtype.kind == "f"]
        return size(*floats) > 0
    return True


# ---- another op, consistently

@dataclass(frozen=True)
class Linear:
    """A linear change of variables and its transpose."""

    apply: Callable
    transpose: Callable = None

    def back(self, a):
        return (self.transpose or self.apply)(a)


def flipped(*axes):
    return Linear(lambda a: np.flip(a, axes))


def swapped(i, j):
    return Linear(lambda a: a.swapaxes(i, j))


def times(factor):
    return Linear(lambda a: a * factor)


SAME = times(1)


def through(op, name, inputs=None, output=SAME, options=lambda chosen: chosen, constants=lambda *inputs: inputs):
    """output(op(A x)) with a right jvp and a right backward: {position: A} over the real inputs."""
    change = [(inputs or {}).get(i, SAME) for i in range(sum(spec.kind == "real" for spec in op.inputs))]

    def forward(*arrays, **chosen):
        arrays = constants(*arrays)
        fed, left = [], iter(change)
        for spec, x in zip(op.inputs, arrays):
            fed.append(next(left).apply(x) if spec.kind == "real" else x)
        y, saved = op.forward(*fed, **options(dict(chosen)))
        return output.apply(y), saved

    def backward(saved, dy):
        found = [c.back(a) for c, a in zip(change, cotangents(op, saved, output.back(dy)))]
        return tuple(found) if len(found) > 1 else found[0]

    def jvp(saved, *tangents):
        return output.apply(op.jvp(saved, *(c.apply(v) for c, v in zip(change, tangents))))

    return variant(op, name, forward=forward, backward=backward, jvp=jvp)


def option(key, function):
    return lambda chosen: {**chosen, key: function(chosen[key])}


def other_of(*pair):
    return lambda value: pair[1 - pair.index(value)]


# op -> {mutant: keyword arguments of `through`, or the op that stands in}
CONSISTENT = {
    "silu": {"quick GELU, x sigma(1.702 x)": dict(inputs={0: times(1.702)}, output=times(1 / 1.702))},
    "gelu": {"the tanh form": "gelu_tanh"},
    "gelu_tanh": {"the exact form": "gelu"},
    "add": {"scale forgotten": dict(options=option("scale", lambda s: 1.0)),
            "a difference": dict(inputs={1: times(-1)})},
    "dropout": {"mask without 1/(1-p)": dict(constants=lambda x, mask: (x, 1.0 * (mask > 0))),
                "kept and dropped swapped": dict(constants=lambda x, mask: (x, 1.0 * (mask == 0)))},
    "shift": {"shift subtracted": dict(inputs={1: times(-1)})},
    "scale_shift": {"x scale + shift": dict(constants=lambda x, scale, shift: (x, scale - 1, shift)),
                    "shift subtracted": dict(inputs={2: times(-1)})},
    "linear": {"bias doubled": dict(inputs={2: times(2)}), "weight rows reversed": dict(inputs={1: flipped(0)})},
    "embedding": {"counted from the end": dict(inputs={0: flipped(0)})},
    "conv2d": {"kernel transposed in space": dict(inputs={1: swapped(0, 1)}),
               "convolution for correlation": dict(inputs={1: flipped(0, 1)}),
               "padding on the other side": dict(inputs={0: flipped(1, 2), 1: flipped(0, 1)}, output=flipped(1, 2)),
               "same for ddpm padding": dict(options=option("pad", lambda p: "same")),
               "bias subtracted": dict(inputs={2: times(-1)})},
    "group_norm": {"eps of another paper": dict(options=option("eps", other_of(1e-6, 1e-5))),
                   "one group for all": dict(options=option("groups", lambda g: 1)),
                   "channels reversed in gamma": dict(inputs={1: flipped(0)})},
    "norm_silu": {"eps of another paper": dict(options=option("eps", other_of(1e-6, 1e-5))),
                  "one group for all": dict(options=option("groups", lambda g: 1)),
                  "e forgotten": dict(inputs={1: times(0)}),
                  "beta subtracted": dict(inputs={3: times(-1)}),
                  "z scale, not z (1 + scale)": dict(inputs={4: times(-1)}),
                  "shift subtracted": dict(inputs={5: times(-1)}),
                  "SiLU of half of z": dict(inputs={2: times(0.5), 3: times(0.5), 5: times(0.5)}, output=times(2))},
    "layer_norm": {"eps of another paper": dict(options=option("eps", other_of(1e-6, 1e-5))),
                   "beta subtracted": dict(inputs={2: times(-1)})},
    "softmax": {"base 2 for e": dict(inputs={0: times(np.log(2))}),
                "entries in reverse": dict(inputs={0: flipped(-1)})},
    "attention": {"scores not divided by sqrt d": dict(inputs={0: Linear(lambda q: q * math.sqrt(q.shape[-1]))}),
                  "queries and keys of two heads": dict(inputs={1: flipped(2)}),
                  "values in reverse": dict(inputs={2: flipped(1)})},
    "upsample": {"tiled, not repeated": dict(output=Linear(
        lambda y: np.concatenate([y[:, 0::2], y[:, 1::2]], 1),
        lambda y: np.stack(np.split(y, 2, 1), 2).reshape(y.shape)))},
    "upsample_conv2d": {"kernel transposed in space": dict(inputs={1: swapped(0, 1)}),
                        "convolution for correlation": dict(inputs={1: flipped(0, 1)}),
                        "bias subtracted": dict(inputs={2: times(-1)})},
    "avg_pool": {"sum for mean": dict(output=times(4))},
    "concat": {"second first": dict(output=Linear(lambda y: np.roll(y, 1, -1), lambda y: np.roll(y, -1, -1)))},
    "sinusoid": {"the other denominator": dict(options=option("denominator", other_of("half", "half-1"))),
                 "the other order": dict(options=option("order", other_of("sin_cos", "cos_sin"))),
                 "t in other units": dict(inputs={0: times(1.001)})},
    "mse": {"half of it": dict(output=times(0.5)),
            "weights forgotten": dict(constants=lambda p, t, w: (p, t, 0 * w + 1))},
    "pseudo_huber": {"another c": dict(options=option("c", lambda c: c * 1.0001)),
                     "weights squared": dict(constants=lambda p, t, w: (p, t, w * w))},
    "cross_entropy": {"in bits": dict(output=times(1 / np.log(2))),
                      "labels counted from 1": dict(constants=lambda s, k: (s, (k + 1) % s.shape[1]))},
    "gaussian_kl": {"in bits": dict(output=times(1 / np.log(2))),
                    "standard deviations for variances": dict(inputs={1: times(2)}),
                    "log variance of q in base 2": dict(constants=lambda m, s, a, b: (m, s, a, b * np.log(2))),
                    "mean of q forgotten": dict(constants=lambda m, s, a, b: (m, s, 0 * a, b))},
    "binned_normal": {"in bits": dict(output=times(1 / np.log(2))),
                      "one grey level more": dict(options=option("levels", lambda n: n + 1)),
                      "the other distribution function": dict(options=option("cdf", other_of("exact", "tanh"))),
                      "standard deviations for variances": dict(inputs={1: times(2)}),
                      "closed outer bins": dict(constants=lambda m, s, x: (m, s, x * .998)),
                      "pixels in [0, 1]": dict(constants=lambda m, s, x: (m, s, (x + 1) / 2))},
}


def consistent(op):
    """(mutant's name, the mutant) for each wrong definition of this op."""
    for name, change in CONSISTENT.get(op.name, {}).items():
        if isinstance(change, str):
            other = REGISTRY[change]
            yield name, variant(op, name, forward=other.forward, backward=other.backward, jvp=other.jvp)
        else:
            yield name, through(op, name, **change)
