"""What a network predicts, and how each prediction says the others. With x = alpha x_0 + sigma eps:

    v        = alpha eps - sigma x_0              (progressive distillation's v)
    score    = -eps/sigma                         (Tweedie: the gradient of log p_t at x)
    velocity = eps - x_0                          (dx/dt of the flow alpha = 1 - t, sigma = t: towards noise)
    data_velocity = x_0 - eps                     (the same with time towards data)
    F        = (x_0 - c_skip x)/c_out = (sigma/sigma_d x_0 - alpha sigma_d eps)/sqrt(sigma^2 + alpha^2 sigma_d^2)
                                                  (EDM's network; it alone needs sigma_data, the sigma_d here)

All are linear in (x_0, eps), so each is read off that pair. A perturbation d of the given value at fixed x moves the
others by |w(other)/w(given)| d, which `amplification` computes:

    w    alpha   sigma   alpha^2 + sigma^2   alpha/sigma   alpha + sigma             sqrt(sigma^2/sigma_d^2 + alpha^2)
    of   eps     x0      v                   score         velocity, data_velocity   F

so v, the velocities and F say all others with a bounded factor at both ends, but for the score at sigma = 0; x0 does
not say eps as sigma -> 0 (factor alpha/sigma), nor eps and score x0 as alpha -> 0 (sigma/alpha, sigma^2/alpha).
What cannot be had at an end itself raises LimitError; nothing is clamped.
"""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .level import Level, alike, anywhere, expand, hypot

KINDS = ("eps", "x0", "v", "score", "velocity", "data_velocity")        # F is one more, with an option: sigma_data


class LimitError(ValueError):
    """A quantity was asked for at an end of the schedule where it has no limit."""


def _vanishes(value):
    return anywhere(value == 0)


def _check_sigma_data(sigma_data):
    if sigma_data is None or not 0 < sigma_data < float("inf"):
        raise ValueError(f"prediction F: sigma_data is {sigma_data}, wanted the data's standard deviation, > 0")


@dataclass(frozen=True, eq=False)
class Prediction:
    """A prediction `value`[n, ...] of one kind, made from x[n, ...] at a level; its properties are all the kinds.

    value and x have one shape and one dtype: a denoiser answers in the precision that it is asked in.

    A denoiser is any callable (x, level) -> Prediction. sigma_data > 0 is wanted by kind "F" and by the property F.
    """

    kind: str
    value: object
    x: object
    level: Level
    sigma_data: object = None

    def __post_init__(self):
        if self.kind not in (*KINDS, "F"):
            raise ValueError(f"prediction: kind is {self.kind!r}, wanted one of {', '.join(KINDS)}, F")
        if self.kind == "F":
            _check_sigma_data(self.sigma_data)
        alike("prediction", x=self.x, value=self.value)

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
            root = hypot(alpha, sigma)
            return expand(alpha / root / root, x) * x - expand(sigma / root / root, x) * value
        if self.kind in ("velocity", "data_velocity"):
            return (x - expand(sigma, x) * self.velocity) / expand(alpha + sigma, x)
        if self.kind == "F":
            root, d = self._root, self.sigma_data
            return expand(alpha * d / root * d / root, x) * x + expand(sigma / root * d, x) * value
        if self.kind == "score":
            return (x + expand(sigma, x) * (expand(sigma, x) * value)) / self._divisor("alpha", "x0")
        return (x - expand(sigma, x) * value) / self._divisor("alpha", "x0")

    @property
    def eps(self):
        """E[eps | x], the noise in x."""
        alpha, sigma, value, x = self.level.alpha, self.level.sigma, self.value, self.x
        if self.kind == "eps":
            return value
        if self.kind == "v":
            root = hypot(alpha, sigma)
            return expand(sigma / root / root, x) * x + expand(alpha / root / root, x) * value
        if self.kind in ("velocity", "data_velocity"):
            return (x + expand(alpha, x) * self.velocity) / expand(alpha + sigma, x)
        if self.kind == "F":
            root, d = self._root, self.sigma_data
            return expand(sigma / root / root, x) * x - expand(alpha * d / root, x) * value
        if self.kind == "score":
            return -expand(sigma, x) * value
        return (x - expand(alpha, x) * value) / self._divisor("sigma", "eps")

    @property
    def v(self):
        """alpha eps - sigma x_0, finite where alpha = 0 too. [PD sec. 4], [ZTSNR sec. 3.2]"""
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
        if self.kind == "data_velocity":
            return -self.value
        return self.value if self.kind == "velocity" else self.eps - self.x0

    @property
    def data_velocity(self):
        """x_0 - eps, the velocity of the same path with time towards data."""
        return self.value if self.kind == "data_velocity" else -self.velocity

    @property
    def F(self):
        """(sigma/sigma_data x_0 - alpha sigma_data eps)/sqrt(norm): EDM's network, D = c_skip x + c_out F. [EDM eq. 7]

        The same in every family; with sigma_data = 1 and alpha^2 + sigma^2 = 1 it is -v.
        """
        if self.kind == "F":
            return self.value
        _check_sigma_data(self.sigma_data)
        root = self._root
        on_x0 = expand(self.level.sigma / root / self.sigma_data, self.x)
        return on_x0 * self.x0 - expand(self.level.alpha * self.sigma_data / root, self.x) * self.eps

    @property
    def _root(self):
        """The standard deviation of x, sqrt(sigma^2 + alpha^2 sigma_data^2)."""
        return hypot(self.level.sigma, self.level.alpha * self.sigma_data)

    def to(self, kind, sigma_data=None):
        """The same prediction, said as another kind."""
        option = self.sigma_data if sigma_data is None else sigma_data
        if kind == "F":
            _check_sigma_data(option)
            if self.kind == "F" and option != self.sigma_data:
                raise ValueError(f"prediction: F of sigma_data {self.sigma_data} asked for with {option}; "
                                 "go by way of x0")
        elif kind not in KINDS:
            raise ValueError(f"prediction: kind is {kind!r}, wanted one of {', '.join(KINDS)}, F")
        said = Prediction(self.kind, self.value, self.x, self.level, option)
        return Prediction(kind, getattr(said, kind), self.x, self.level, option)


def amplification(kind, target, level, sigma_data=None):
    """|d target/d kind| at fixed x: how much an error of a prediction grows when it is said as another kind.

    A float, or (n,) for a level of rows; inf where the target cannot be had from the kind, 0 where it does not depend
    on it. It is |w(target)/w(kind)| with the w of the table above; eps and score differ by sigma everywhere.
    """
    for name in (kind, target):
        if name not in (*KINDS, "F"):
            raise ValueError(f"amplification: kind is {name!r}, wanted one of {', '.join(KINDS)}, F")
    if "F" in (kind, target):
        _check_sigma_data(sigma_data)
    rows = not isinstance(level.alpha, float)
    alpha, sigma = (value if rows else np.float64(value) for value in (level.alpha, level.sigma))

    def w(name):
        """Two factors of w, so that no square leaves float64 but in the quotient."""
        if name == "F":
            return hypot(sigma / sigma_data, alpha), 1.0
        if name == "v":
            return (hypot(alpha, sigma),) * 2
        if name == "score":
            return alpha, 1 / sigma
        return {"eps": alpha, "x0": sigma}.get(name, alpha + sigma), 1.0

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if kind == target:
            growth = alpha * 0 + 1
        elif (kind, target) == ("eps", "score"):
            growth = 1 / sigma
        elif (kind, target) == ("score", "eps"):
            growth = sigma
        else:
            (a, b), (c, d) = w(target), w(kind)
            growth = a / c * (b / d)
    return growth if rows else float(growth)


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
    root = hypot(level.alpha, level.sigma)
    alpha, sigma = level.alpha / root, level.sigma / root
    return Preconditioning(alpha / root, -sigma / root, level.alpha * 0 + 1, _time(level, label))


def precondition_F(level, sigma_data=0.5):
    """EDM's F: its input and its target have unit variance when the data have sigma_data^2. [EDM eq. 7, table 1]

    EDM states it for x = x_0 + sigma eps; any family is that one after x/alpha, with sigma/alpha for sigma. With
    norm = sigma^2 + alpha^2 sigma_data^2, the variance of x:
    c_skip = alpha sigma_data^2/norm, c_out = sigma sigma_data/sqrt(norm), c_in = 1/sqrt(norm),
    c_noise = log(sigma/alpha)/4. Refused at sigma = 0 and at alpha = 0, where c_noise is infinite.
    """
    _check_sigma_data(sigma_data)
    for name in ("alpha", "sigma"):
        if _vanishes(getattr(level, name)):
            raise LimitError(f"preconditioning 'F' at t = {level.t}, where {name} = 0: c_noise = log(sigma/alpha)/4 is "
                             "infinite; a sampler never evaluates the denoiser there")
    root = hypot(level.sigma, level.alpha * sigma_data)
    return Preconditioning(level.alpha * sigma_data / root * sigma_data / root, level.sigma / root * sigma_data,
                           1 / root, -level.lam / 4)


def precondition_velocity(level):
    """F is the velocity: D = (x - sigma F)/(alpha + sigma), F told x/(alpha + sigma) and 1000 t of the straight path.

    That is x_t = (1 - t) x_0 + t eps of the same sigma/alpha, t = sigma/(alpha + sigma), for a level of any family.
    """
    size = level.alpha + level.sigma
    return Preconditioning(1 / size, -level.sigma / size, 1 / size, 1000 * level.sigma / size)


PRECONDITIONINGS = {"eps": precondition_eps, "x0": precondition_x0, "v": precondition_v, "F": precondition_F,
                    "velocity": precondition_velocity}
