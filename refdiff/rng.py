"""Counter-based noise: a draw is a function of a seed and of the draw's own name.

    key = Key(7)
    eps = key.fold("train", step, "eps").normal((n, 8, 8, 1))

There is no hidden state to save or to share: two runs, two threads or two backends that name the
same draw get the same numbers. The name is hashed to the 128-bit key of Philox-4x64 [PHILOX]; the
numbers are made on the host, so that a GPU gets the very same bits, and moved to where
the backend makes new arrays.
"""
import hashlib
from dataclasses import dataclass

import numpy as np

from . import backend


@dataclass(frozen=True)
class Key:
    """A seed and the path of names folded into it."""

    seed: int
    path: tuple = ()

    def __post_init__(self):
        if not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise ValueError(f"Key: seed is {self.seed!r}, wanted an integer >= 0")

    def fold(self, *names):
        """The key of a named child: fold("eps", 3) and fold("eps").fold(3) are the same."""
        for part in names:
            if not isinstance(part, (str, int, np.integer)):
                raise TypeError(f"Key.fold: {part!r} is a {type(part).__name__}, wanted a string or an integer")
        return Key(self.seed, self.path + tuple(p if isinstance(p, str) else int(p) for p in names))

    def generator(self):
        """The NumPy generator of this key (a new one each call, always at its start)."""
        name = repr((int(self.seed),) + self.path).encode()
        key = np.frombuffer(hashlib.blake2b(name, digest_size=16).digest(), dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def normal(self, shape, dtype=np.float64):
        """Standard normal draws. float32 draws are the float64 draws, rounded."""
        return backend.asarray(self.generator().standard_normal(shape).astype(dtype, copy=False))

    def uniform(self, shape, dtype=np.float64):
        """Uniform draws in [0, 1): multiples of 2^-53; in float32 cut (not rounded: that could reach 1) to 2^-24."""
        steps = 2.0**(np.finfo(dtype).nmant + 1)
        return backend.asarray((np.floor(self.generator().random(shape) * steps) / steps).astype(dtype, copy=False))

    def integers(self, low, high, shape):
        """Uniform integers in low..high-1."""
        return backend.asarray(self.generator().integers(low, high, shape))

    def permutation(self, n):
        """A random order of 0..n-1."""
        return backend.asarray(self.generator().permutation(n))
