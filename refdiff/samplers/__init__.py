"""Samplers: generators over any denoiser. Imports no network.

    x = samplers.run(samplers.ddim(denoiser, grid, x, eta=0.5, noise=samplers.noise_from(key, x)))

All take (denoiser, grid, x, ...) but "consistency", which takes a consistency function and its sigmas.
"""
from .consistency import consistency
from .ddim import ddim
from .ddpm import ddpm
from .edm import euler, heun
from .state import State, noise_from, run

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "euler": euler, "heun": heun, "consistency": consistency}

__all__ = ["SAMPLERS", "State", "consistency", "ddim", "ddpm", "euler", "heun", "noise_from", "run"]
