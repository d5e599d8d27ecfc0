"""Samplers: generators over any denoiser. Imports no network.

    x = samplers.run(samplers.ddim(denoiser, grid, x, eta=0.5, noise=samplers.noise_from(key, x)))

All take (denoiser, grid, x, ...) but "consistency", which takes a consistency function and its sigmas. And all take
compat=NAMES, published deviations on purpose, of compat.py; the modules have the samplers without.
"""
from .adaptive import adaptive
from .churn import churn
from .compat import deviating
from .consistency import consistency
from .ddim import ddim
from .ddpm import ddpm
from .deis import deis
from .dpm import dpm
from .dpmpp import dpmpp
from .edm import euler, heun
from .langevin import predictor_corrector
from .lms import lms
from .plms import plms
from .sde import ancestral, euler_ancestral, euler_maruyama, reverse_diffusion
from .sde_dpmpp import sde_dpmpp
from .state import State, noise_from, run
from .unipc import unipc

SAMPLERS = {sampler.__name__: deviating(sampler) for sampler in (
    ddpm, ddim, euler, heun, consistency, dpm, dpmpp, unipc, deis, lms, plms, churn, euler_maruyama, reverse_diffusion,
    ancestral, euler_ancestral, predictor_corrector, sde_dpmpp, adaptive)}
globals().update(SAMPLERS)                                    # samplers.ddim has compat=, ddim.py its twenty lines

__all__ = ["SAMPLERS", "State", "adaptive", "ancestral", "churn", "consistency", "ddim", "ddpm", "deis", "dpm",
           "dpmpp", "euler", "euler_ancestral", "euler_maruyama", "heun", "lms", "noise_from", "plms",
           "predictor_corrector", "reverse_diffusion", "run", "sde_dpmpp", "unipc"]
