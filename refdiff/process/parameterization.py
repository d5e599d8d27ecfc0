"""What a network predicts, and how each prediction says the others. With x = alpha x_0 + sigma eps:

    v        = alpha eps - sigma x_0              (progressive distillation's v)
    score    = -eps/sigma                         (Tweedie: the gradient of log p_t at x)
    velocity = eps - x_0                          (dx/dt of the flow alpha = 1 - t, sigma = t: towards noise)

All are linear in (x_0, eps), so each is read off that pair. How a perturbation d of the given value grows:

    given      x_0                       eps                      cannot be had
    x0         d                         (alpha/sigma) d          eps, v, velocity, score at sigma = 0
    eps        (sigma/alpha) d           d                        x0, v, velocity at alpha = 0; score at sigma = 0
    v          sigma/(alpha^2+sigma^2) d alpha/(alpha^2+sigma^2) d   score at sigma = 0
    score      (sigma^2/alpha) d         sigma d                  x0, v, velocity at alpha = 0
    velocity   sigma/(alpha+sigma) d     alpha/(alpha+sigma) d    score at sigma = 0

What cannot be had raises LimitError; nothing is clamped.
"""
from dataclasses import dataclass
from typing import NamedTuple

from .. import backend
from .level import Level, anywhere, expand

KINDS = ("eps", "x0", "v", "score", "velocity")


class LimitError(ValueError):
    """A quantity was asked for at an end of the schedule where it has no limit."""


def _vanishes(value):
    return anywhere(value == 0)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A prediction `value`[n, ...] of one kind, made from x[n, ...] at a level; its properties are all five kinds.

    A denoiser is any callable (x, level) -> Prediction.
    """

    kind: str
    value: object
    x: object
    level: Level

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"prediction: kind is {self.kind!r}, wanted one of {', '.join(KINDS)}")
        backend.of(x=self.x, value=self.value)
        if self.value.shape != self.x.shape:
            raise ValueError(f"prediction: value has shape {self.value.shape} but x has {self.x.shape}")

    def _divisor(self, name, wanted):
        """alpha or sigma, refused where it is 0."""
        if _vanishes(getattr(self.level, name)):
            raise LimitError(f"{wanted} cannot be had from {self.kind} at t = {self.level.t}, where {name} = 0: "
                             f"x and {self.kind} do not determine it there; predict another kind (v is finite at both "
                             "ends) or end the grid before that level")
        return expand(getattr(self.level, name), self.x)

    @property
    def x0(self):
        """E[x_0 | x], the denoised x. [DDIM eq. 9]"""
        alpha, sigma, value, x = self.level.alpha, self.level.sigma, self.value, self.x
        if self.kind == "x0":
            return value
        if self.kind == "v":
            norm = alpha ** 2 + sigma ** 2
            return expand(alpha / norm, x) * x - expand(sigma / norm, x) * value
        if self.kind == "velocity":
            return (x - expand(sigma, x) * value) / expand(alpha + sigma, x)
        if self.kind == "score":
            return (x + expand(sigma ** 2, x) * value) / self._divisor("alpha", "x0")
        return (x - expand(sigma, x) * value) / self._divisor("alpha", "x0")

    @property
    def eps(self):
        """E[eps | x], the noise in x."""
        alpha, sigma, value, x = self.level.alpha, self.level.sigma, self.value, self.x
        if self.kind == "eps":
            return value
        if self.kind == "v":
            norm = alpha ** 2 + sigma ** 2
            return expand(sigma / norm, x) * x + expand(alpha / norm, x) * value
        if self.kind == "velocity":
            return (x + expand(alpha, x) * value) / expand(alpha + sigma, x)
        if self.kind == "score":
            return -expand(sigma, x) * value
        return (x - expand(alpha, x) * value) / self._divisor("sigma", "eps")

    @property
    def v(self):
        """alpha eps - sigma x_0. [PD sec. 4]"""
        if self.kind == "v":
            return self.value
        alpha, sigma = self.level.expand(self.x)
        return alpha * self.eps - sigma * self.x0

    @property
    def score(self):
        """-eps/sigma, the gradient of log p_t(x). [EDM eq. 3]"""
        if self.kind == "score":
            return self.value
        return -self.eps / self._divisor("sigma", "score")

    @property
    def velocity(self):
        """eps - x_0, the velocity towards noise of the straight path alpha = 1 - t, sigma = t."""
        return self.value if self.kind == "velocity" else self.eps - self.x0


class Preconditioning(NamedTuple):
    """D(x) = c_skip x + c_out F(c_in x, c_noise), the denoised x, for a network F. [EDM eq. 7]"""

    c_skip: object
    c_out: object
    c_in: object
    c_noise: object


LABELS = {"t": 0, "t-1": 1}


def _time(level, label):
    """What the network is told: t = 1..T as in the papers, or t - 1 = 0..T-1 as implementations count."""
    if label not in LABELS:
        raise ValueError(f"preconditioning: label is {label!r}, wanted one of {', '.join(LABELS)}")
    if label == "t-1" and anywhere(level.t < 1):
        raise ValueError("preconditioning: label 't-1' at t < 1: the clean level has no label; evaluate at t >= 1")
    return level.t - LABELS[label]


def precondition_eps(level, label="t"):
    """F is eps: D = (x - sigma F)/alpha, refused where alpha = 0. [DDIM eq. 9]"""
    if _vanishes(level.alpha):
        raise LimitError(f"preconditioning 'eps' at t = {level.t}, where alpha = 0: eps does not determine x0 there; "
                         "use 'v'")
    return Preconditioning(1 / level.alpha, -level.sigma / level.alpha, level.alpha * 0 + 1, _time(level, label))


def precondition_x0(level, label="t"):
    """F is x_0 itself: D = F."""
    one = level.alpha * 0 + 1
    return Preconditioning(one * 0, one, one, _time(level, label))


def precondition_v(level, label="t"):
    """F is v: D = (alpha x - sigma F)/(alpha^2 + sigma^2). [PD sec. D]"""
    norm = level.alpha ** 2 + level.sigma ** 2
    return Preconditioning(level.alpha / norm, -level.sigma / norm, level.alpha * 0 + 1, _time(level, label))


def precondition_F(level, sigma_data=0.5):
    """EDM's F: its input and its target have unit variance when the data have sigma_data^2. [EDM eq. 7, table 1]

    EDM states it for x = x_0 + sigma eps; any family is that one after x/alpha, with sigma/alpha for sigma. With
    norm = sigma^2 + alpha^2 sigma_data^2, the variance of x:
    c_skip = alpha sigma_data^2/norm, c_out = sigma sigma_data/sqrt(norm), c_in = 1/sqrt(norm),
    c_noise = log(sigma/alpha)/4. Refused at sigma = 0 and at alpha = 0, where c_noise is infinite.
    """
    if not sigma_data > 0:
        raise ValueError(f"preconditioning 'F': sigma_data is {sigma_data}, wanted > 0")
    for name in ("alpha", "sigma"):
        if _vanishes(getattr(level, name)):
            raise LimitError(f"preconditioning 'F' at t = {level.t}, where {name} = 0: c_noise = log(sigma/alpha)/4 is "
                             "infinite; a sampler never evaluates the denoiser there")
    norm = level.sigma ** 2 + level.alpha ** 2 * sigma_data ** 2
    return Preconditioning(level.alpha * sigma_data ** 2 / norm, level.sigma * sigma_data / norm ** 0.5,
                           1 / norm ** 0.5, -level.lam / 4)


PRECONDITIONINGS = {"eps": precondition_eps, "x0": precondition_x0, "v": precondition_v, "F": precondition_F}
