"""Samplers: generators over any denoiser. Imports no network.

    x = samplers.run(samplers.ddim(denoiser, grid, x, eta=0.5, noise=samplers.noise_from(key, x)))

All take (denoiser, grid, x, ...) but "consistency", which takes a consistency function and its sigmas.
"""
from .adaptive import adaptive
from .churn import churn
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

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "euler": euler, "heun": heun, "consistency": consistency,
            "dpm": dpm, "dpmpp": dpmpp, "unipc": unipc, "deis": deis, "lms": lms, "plms": plms,
            "churn": churn, "euler_maruyama": euler_maruyama, "reverse_diffusion": reverse_diffusion,
            "ancestral": ancestral, "euler_ancestral": euler_ancestral, "predictor_corrector": predictor_corrector,
            "sde_dpmpp": sde_dpmpp, "adaptive": adaptive}

__all__ = ["SAMPLERS", "State", "adaptive", "ancestral", "churn", "consistency", "ddim", "ddpm", "deis", "dpm",
           "dpmpp", "euler", "euler_ancestral", "euler_maruyama", "heun", "lms", "noise_from", "plms",
           "predictor_corrector", "reverse_diffusion", "run", "sde_dpmpp", "unipc"]
