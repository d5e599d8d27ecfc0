"""One scheduler of diffusers, run as a pipeline runs it: set_timesteps, scale_model_input, the network, step."""
import importlib

import numpy as np

from . import _torch

MODULES = {"EDMDPMSolverMultistepScheduler": "edm_dpmsolver_multistep", "EDMEulerScheduler": "edm_euler",
           "EulerDiscreteScheduler": "euler_discrete", "EulerAncestralDiscreteScheduler": "euler_ancestral_discrete",
           "KDPM2DiscreteScheduler": "k_dpm_2_discrete",
           "KDPM2AncestralDiscreteScheduler": "k_dpm_2_ancestral_discrete",
           "DDIMScheduler": "ddim", "DDPMScheduler": "ddpm", "DDIMInverseScheduler": "ddim_inverse",
           "DDIMParallelScheduler": "ddim_parallel", "DDPMParallelScheduler": "ddpm_parallel",
           "PNDMScheduler": "pndm", "IPNDMScheduler": "ipndm", "LCMScheduler": "lcm", "TCDScheduler": "tcd",
           "RePaintScheduler": "repaint",
           "HeunDiscreteScheduler": "heun_discrete", "LMSDiscreteScheduler": "lms_discrete",
           "DPMSolverMultistepScheduler": "dpmsolver_multistep", "DEISMultistepScheduler": "deis_multistep",
           "DPMSolverMultistepInverseScheduler": "dpmsolver_multistep_inverse",
           "DPMSolverSinglestepScheduler": "dpmsolver_singlestep", "UniPCMultistepScheduler": "unipc_multistep",
           "FlowMatchEulerDiscreteScheduler": "flow_match_euler_discrete",
           "FlowMatchHeunDiscreteScheduler": "flow_match_heun_discrete",
           "CMStochasticIterativeScheduler": "consistency_models"}


class Scheduler:
    """One scheduler of diffusers, made with a configuration, and run on a denoiser as a pipeline runs it."""

    def __init__(self, name, config=None, widen=True):
        self.name, self.widen = name, widen
        self.module = importlib.import_module(f"diffusers.schedulers.scheduling_{MODULES[name]}")
        with self.running():
            self.made = getattr(self.module, name)(**(config or {}))

    def running(self, noise=None, x=None):
        """The context in which its code runs: float32 widened if asked for, randn_tensor answered by noise(i)."""
        return _torch.running([self.module], self.widen, noise, x)

    @property
    def edm(self):
        return self.name.startswith("EDM")

    @property
    def flow(self):
        return self.name.startswith("FlowMatch")

    @property
    def divided(self):
        """Whether its state is x0 + sigma eps, or (1 - sigma) x0 + sigma eps for flows, its levels `sigmas`."""
        return self.edm or self.flow or self.name[:5] in ("Euler", "HeunD", "KDPM2", "LMSDi", "CMSto")

    def times(self, steps=None, **asked):
        """The times of set_timesteps that networks are told of: the papers' t, sigma (EDM) or t (flows)."""
        with self.running():
            self.made.set_timesteps(**asked if steps is None else {"num_inference_steps": steps, **asked})
            return [self.told(t) for t in self.made.timesteps]

    def told(self, t):
        if self.edm:
            return float(np.exp(4 * float(t)))
        return float(t) / self.made.config.num_train_timesteps if self.flow else float(t) + 1

    def run(self, x, denoiser, noise=None, steps=None, options=None, asked=None, most=None):
        """[x after each call of step], the first `most` of them, in the form alpha x0 + sigma eps, as x is.

        denoiser(x, time) -> what the class calls a prediction. options: those of step; asked: those of set_timesteps.
        """
        self.times(steps, **(asked or {}))
        sigmas = getattr(self.made, "sigmas", None)
        vp = self.divided and not (self.edm or self.flow)
        states = []
        with self.running(noise, x) as torch:
            y = torch.from_numpy(np.ascontiguousarray(x)) * (float(sigmas[0] ** 2 + 1) ** 0.5 if vp else 1.0)
            for i, t in enumerate(self.made.timesteps if most is None else self.made.timesteps[:most]):
                told = y if self.flow else self.made.scale_model_input(y, t)
                said = denoiser((y if self.edm else told).numpy(), self.told(t))
                y = self.made.step(torch.from_numpy(np.ascontiguousarray(said)), t, y, **(options or {})).prev_sample
                level = float(sigmas[min(i + 1, len(sigmas) - 1)]) if vp else 0.0
                states.append((y / (level ** 2 + 1) ** 0.5).numpy())
        return states
