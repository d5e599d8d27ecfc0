"""What an adapter is handed for a case, with a network that remembers its calls and noise that is always there."""
from types import SimpleNamespace

import numpy as np

from .arguments import arguments
from .settings import Noise


class Watched:
    """A denoiser, and the (t, x) of every call of it."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, []

    def __call__(self, x, t):
        self.calls.append((float(np.ravel(np.asarray(t, dtype=np.float64))[0]), np.array(x, dtype=np.float64)))
        return self.denoiser(x, t)


def handed(operation, inputs, kind="eps", quiet=True):
    """The keyword arguments of adapter.<operation> for a case's inputs; without draws, noise(i) is zero if `quiet`."""
    made = arguments(SimpleNamespace(operation=operation, inputs=inputs), kind)
    if callable(made.get("denoiser")):
        made["denoiser"] = Watched(made["denoiser"])
    if operation == "trajectory" and made.get("noise") is None:
        made["noise"] = Noise(lambda i: np.zeros_like(made["x"])) if quiet else None
    return made
