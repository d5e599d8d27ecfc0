"""Running a torch library's own code with its noise supplied, and with float64 wherever it asks for float32 by name."""
import contextlib
import importlib
import warnings

import numpy as np


class Changed:
    """A module in which some names stand for something else."""

    def __init__(self, module, names):
        self.module, self.names = module, names

    def __getattr__(self, name):
        return self.names[name] if name in self.names else getattr(self.module, name)


@contextlib.contextmanager
def running(modules, widen=True, noise=None, x=None, draws=("randn_tensor",)):
    """Gives torch. Inside, the modules' float32 is float64 if `widen`, and their functions named in `draws`, and
    torch.randn_like, answer noise(0), noise(1), .., one for every call; without a noise they raise.

    A draw beyond those supplied is zero: nothing can be said of it but that it was made. One thread at a time.
    """
    torch = importlib.import_module("torch")
    made = [0]

    def draw(like, *args, dtype=None, **named):
        i, made[0] = made[0], made[0] + 1
        if noise is None:
            raise RuntimeError("this run draws noise and none was supplied")
        try:
            value = noise(i)
        except IndexError:
            value = np.zeros_like(x)
        return torch.from_numpy(np.ascontiguousarray(value)).to(
            dtype or getattr(like, "dtype", torch.get_default_dtype()))

    kept, default = [], torch.get_default_dtype()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            for module in modules:
                wider = {"float32": torch.float64} if widen else {}
                news = {name: draw for name in draws if hasattr(module, name)}
                news["torch"] = Changed(torch, {"randn_like": draw, **wider})
                if widen and hasattr(module, "np"):
                    news["np"] = Changed(np, {"float32": np.float64})
                kept += [(module, name, vars(module)[name]) for name in news]
                for name, new in news.items():
                    setattr(module, name, new)
            if widen:
                torch.set_default_dtype(torch.float64)
            yield torch
        finally:
            torch.set_default_dtype(default)
            for module, name, old in kept:
                setattr(module, name, old)
