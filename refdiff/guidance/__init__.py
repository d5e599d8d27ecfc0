"""Guidance and editing: maps from denoisers to denoisers, and samplers that start from, or keep, given data.

    denoiser = guidance.cfg(conditional, unconditional, scale=3.0)              # any sampler takes it
    denoiser = guidance.interval(denoiser, conditional, sigma=(0.2, 5.0))       # maps compose

cfg, cfg_labels, autoguidance, interval     two denoisers: classifier-free and auto-guidance, rescaled, in an interval
classifier, mean_shift, MixtureClassifier   a classifier's gradient; refdiff/classifier.py has a network for it
static, dynamic                             x_0 kept in range
sdedit, inpaint                             from a noised image; with a part given
tail, strength_steps, jumps                 the levels that these two visit
invert, linear, slerp                       the noise that makes given data, and ways between two noises
Guided                                      what guidance does to worlds whose answers are known
"""
from .edit import inpaint, jumps, sdedit, strength_steps, tail
from .exact import Guided
from .free import autoguidance, cfg, cfg_labels, interval
from .gradient import MixtureClassifier, classifier, mean_shift
from .inversion import invert, linear, slerp
from .threshold import dynamic, static

__all__ = ["Guided", "MixtureClassifier", "autoguidance", "cfg", "cfg_labels", "classifier", "dynamic", "inpaint",
           "interval", "invert", "jumps", "linear", "mean_shift", "sdedit", "slerp", "static", "strength_steps", "tail"]
