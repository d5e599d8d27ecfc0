"""Inputs for an op, drawn from nothing but its signature.

A `Case` is four small facts (sizes, options, seed, scale); every array follows from them, so that a
failure is reproduced by pasting the case that it prints:

    case = Case("conv2d", {"n": 1, "h": 3, ...}, {"stride": 2, "pad": "same"}, seed=4, scale=1.0)
    y, saved = REGISTRY["conv2d"].forward(*case.inputs, **case.options)
"""
import itertools
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

import refdiff.ops.fast  # noqa: F401  (fills the registry, and the routes of its ops)
from refdiff.ops.op import REGISTRY

SIZES = (1, 2, 3, 5)              # of an axis that the op says nothing about: batch 1 and odd sizes among them
SCALES = (1.0, 0.1, 4.0, 300.0)   # of the real inputs: scores beyond e^709 and timesteps among them
TAME = {"gaussian_kl": (1.0, 0.1, 4.0), "binned_normal": (1.0, 0.1)}   # e^(+-log variance), which is large in no use


def grey(rng, shape):
    """Grey levels of [-1, 1], the two open bins among them as often as all others."""
    return np.where(rng.random(shape) < 0.5, rng.integers(0, 256, shape), rng.choice([0, 255], shape)) / 127.5 - 1


CONSTANTS = {("binned_normal", "x"): grey}     # data of a kind of their own


@dataclass(frozen=True)
class Case:
    """One draw of an op's inputs. Real inputs are normal; constants lie in [0, 2], a fifth of them zero."""

    name: str
    sizes: dict
    options: dict
    seed: int
    scale: float = 1.0

    @property
    def op(self):
        return REGISTRY[self.name]

    def _generator(self, label):
        return np.random.default_rng([self.seed, *label.encode()])

    def shape(self, axes):
        return tuple(self.sizes[a] for a in axes)

    def draw(self, spec):
        """The array of one input of the signature."""
        rng, shape = self._generator("input " + spec.name), self.shape(spec.axes)
        if spec.kind == "index":
            return rng.integers(0, self.sizes[spec.below], shape)
        if (self.name, spec.name) in CONSTANTS:
            return CONSTANTS[self.name, spec.name](rng, shape)
        if spec.kind == "constant":
            return rng.uniform(0.2, 2, shape) * (rng.random(shape) > 0.2)
        return self.scale * rng.standard_normal(shape)

    @property
    def inputs(self):
        """Fresh arrays, one per input of the signature."""
        return [self.draw(spec) for spec in self.op.inputs]

    def tangents(self, label="tangent"):
        """Fresh random tangents, one per real input."""
        return [self._generator(f"{label} {spec.name}").standard_normal(self.shape(spec.axes))
                for spec in self.op.inputs if spec.kind == "real"]

    def like(self, y, label="cotangent"):
        """A random cotangent for the output y (an array also where y is a scalar)."""
        return np.asarray(self._generator(label).standard_normal(np.shape(y)))

    def with_rows(self, least):
        """The same case with at least so many rows in the batch."""
        return replace(self, sizes={**self.sizes, "n": max(least, self.sizes["n"])})

    def another(self):
        """Other values of the same shapes."""
        return replace(self, seed=self.seed + 1_000_003)


def axes_of(op):
    """The sizes each axis of the op's inputs may take."""
    names = dict.fromkeys(a for spec in op.inputs for a in spec.axes + ((spec.below,) if spec.below else ()))
    return {a: tuple(op.sizes.get(a, SIZES)) for a in names}


def option_sets(op):
    """Every combination of the values that the op lists for its options."""
    return [dict(zip(op.options, values)) for values in itertools.product(*op.options.values())]


def cases(op, options):
    """The Hypothesis strategy of an op's cases with these options; it shrinks to small shapes."""
    sizes = st.fixed_dictionaries({a: st.sampled_from(sorted(values)) for a, values in axes_of(op).items()})
    return st.builds(Case, st.just(op.name), sizes, st.just(options), st.integers(0, 9999),
                     st.sampled_from(TAME.get(op.name, SCALES)))


def fixed_cases(op, least=8):
    """A fixed list of cases over all options, the shapes as unequal as the op allows; for the mutants."""
    found, sets = [], option_sets(op)
    for i, (j, options) in enumerate(itertools.product(range(-(-least // len(sets))), sets)):
        rng = np.random.default_rng([7, i])
        sizes, left = {}, axes_of(op)
        for axis, values in left.items():
            fresh = [v for v in values if v not in sizes.values() and v > 1] or list(values)
            sizes[axis] = int(rng.choice(fresh))
        scales = TAME.get(op.name, SCALES)
        found.append(Case(op.name, sizes, options, seed=int(rng.integers(10_000)), scale=scales[j % len(scales)]))
    return found
