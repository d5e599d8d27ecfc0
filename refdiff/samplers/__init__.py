"""Samplers: generators over any denoiser. Imports no network.

    x = samplers.run(samplers.SAMPLERS["ddim"](denoiser, grid, x, eta=0.5, noise=samplers.noise_from(key, x)))

All take (denoiser, grid, x, ...) but "consistency", which takes a consistency function and its sigmas.
"""
from . import consistency, ddim, ddpm, edm
from .state import State, noise_from, run

SAMPLERS = {"ddpm": ddpm.ddpm, "ddim": ddim.ddim, "euler": edm.euler, "heun": edm.heun,
            "consistency": consistency.consistency}

__all__ = ["SAMPLERS", "State", "consistency", "ddim", "ddpm", "edm", "noise_from", "run"]
