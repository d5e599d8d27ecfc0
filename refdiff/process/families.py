"""Families in continuous time: a pair of functions alpha(t), sigma(t), and the inverse from lambda = log(alpha/sigma).

    family.level(t)     the Level at a time t, noise growing with t
    family.at(lam)      the Level at a half log-SNR: where a single-step solver evaluates between two levels of a grid
"""
import math
from dataclasses import dataclass

import numpy as np

from .level import Level


class Family:
    """What all families share. A family has `rule`, `alpha(t)`, `sigma(t)` and `time(lam)`, all in float64."""

    def level(self, t):
        """The Level at time t, a number or an array (n,)."""
        return Level(t, self.alpha(t), self.sigma(t))

    def at(self, lam):
        """The Level at lambda = log(alpha/sigma), a number."""
        return self.level(self.time(lam))


@dataclass(frozen=True)
class VarianceExploding(Family):
    """alpha = 1, sigma = t: EDM's family."""

    rule: str = "ve"

    def alpha(self, t):
        return t * 0.0 + 1.0

    def sigma(self, t):
        return t * 1.0

    def time(self, lam):
        return math.exp(-lam)


@dataclass(frozen=True)
class Flow(Family):
    """alpha = 1 - t, sigma = t, 0 <= t <= 1: the straight path of rectified flow."""

    rule: str = "flow"

    def alpha(self, t):
        return 1.0 - t

    def sigma(self, t):
        return t * 1.0

    def time(self, lam):
        return 1 / (1 + math.exp(lam))


@dataclass(frozen=True)
class TrigFlow(Family):
    """alpha = cos t, sigma = sin t, 0 <= t <= pi/2."""

    rule: str = "trigflow"

    def alpha(self, t):
        return np.cos(t)

    def sigma(self, t):
        return np.sin(t)

    def time(self, lam):
        return math.atan(math.exp(-lam))


@dataclass(frozen=True)
class Interpolated(Family):
    """A discrete schedule between its integer times: t is linear in lambda from one to the next, 1 <= t <= T."""

    schedule: object

    @property
    def rule(self):
        return f"interpolated {self.schedule.rule}"

    def time(self, lam):
        table = self.schedule.log_snr[1:] / 2                                # lambda_t, falling with t
        if not table[-1] - 1e-9 <= lam <= table[0] + 1e-9:
            raise ValueError(f"{self.rule}: lambda is {lam:g}, wanted {table[-1]:g} (t = T) to {table[0]:g} (t = 1)")
        return float(np.interp(-lam, -table, np.arange(1.0, self.schedule.T + 1)))

    def at(self, lam):
        return Level(self.time(lam), math.sqrt(1 / (1 + math.exp(-2 * lam))), math.sqrt(1 / (1 + math.exp(2 * lam))))
