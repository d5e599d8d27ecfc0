"""Running a torch library's own code with its noise supplied, and with float64 wherever it asks for float32 by name."""
import contextlib
import importlib
import warnings

import numpy as np


class Widened:
    """A module in which float32 is float64."""

    def __init__(self, module, names=("float32",)):
        self.module, self.names = module, names

    def __getattr__(self, name):
        return self.module.float64 if name in self.names else getattr(self.module, name)


@contextlib.contextmanager
def running(modules, widen=True, noise=None, x=None, draws=("randn_tensor",)):
    """Gives torch. Inside, the modules' float32 is float64 if `widen`, and their functions named in `draws` answer
    noise(0), noise(1), .., one for every call, whatever they are asked for; without a noise they raise.

    A draw beyond those supplied is zero: nothing can be said of it but that it was made. One thread at a time.
    """
    torch = importlib.import_module("torch")
    made = [0]

    def draw(*args, dtype=None, **named):
        i, made[0] = made[0], made[0] + 1
        if noise is None:
            raise RuntimeError("this run draws noise and none was supplied")
        try:
            value = noise(i)
        except IndexError:
            value = np.zeros_like(x)
        return torch.from_numpy(np.ascontiguousarray(value)).to(dtype or torch.get_default_dtype())

    kept, default = [], torch.get_default_dtype()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            for module in modules:
                news = {name: draw for name in draws if hasattr(module, name)}
                if widen:
                    news |= {name: Widened(vars(module)[name]) for name in ("torch", "np") if name in vars(module)}
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
