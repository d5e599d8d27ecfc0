"""Samplers: generators over any denoiser. Imports no network.

    x = samplers.run(samplers.ddim(denoiser, grid, x, eta=0.5, noise=samplers.noise_from(key, x)))

All take (denoiser, grid, x, ...) but "consistency", which takes a consistency function and its sigmas.
"""
from .consistency import consistency
from .ddim import ddim
from .ddpm import ddpm
from .deis import deis
from .dpm import dpm
from .dpmpp import dpmpp
from .edm import euler, heun
from .lms import lms
from .plms import plms
from .state import State, noise_from, run
from .unipc import unipc

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "euler": euler, "heun": heun, "consistency": consistency,
            "dpm": dpm, "dpmpp": dpmpp}

__all__ = ["SAMPLERS", "State", "consistency", "ddim", "ddpm", "deis", "dpm", "dpmpp", "euler", "heun", "lms",
           "noise_from", "plms", "run", "unipc"]
