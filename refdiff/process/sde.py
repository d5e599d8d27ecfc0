"""The SDE of a family, both ways, and its probability-flow ODE: dx = f(t) x dt + g(t) dw has x_t's marginals.

Times are numbers or one per row, (n,); x[n, ...] and the score have one shape. Where f or g^2 is infinite (alpha = 0)
the drifts raise LimitError; `velocity`, which needs neither, is finite there.
"""
import math

from .gaussian import transition
from .level import alike, anywhere, expand
from .parameterization import LimitError


def _coefficients(family, t, what):
    f, g2 = family.f(t), family.g2(t)
    if anywhere(abs(f) == math.inf) or anywhere(g2 == math.inf):
        raise LimitError(f"{what} of {family.rule} at t = {t}: f or g^2 is infinite where alpha = 0; begin at a level "
                         "with signal, or use sde.velocity with a prediction that is finite there")
    return f, g2


def kernel(family, s, t):
    """q(x_t | x_s) for s <= t: its coefficient alpha_t/alpha_s and its variance. [SDE sec. B]"""
    return transition(family.level(s), family.level(t))


def forward_drift(family, x, t):
    """f(t) x, the drift towards noise; the diffusion is g(t) = sqrt(family.g2(t)). [SDE eq. 5]"""
    f, _ = _coefficients(family, t, "forward_drift")
    return expand(f, x) * x


def reverse_drift(family, x, t, score):
    """f(t) x - g(t)^2 score, for dt < 0 and the same g. [SDE eq. 6]"""
    alike("reverse_drift", x=x, score=score)
    f, g2 = _coefficients(family, t, "reverse_drift")
    return expand(f, x) * x - expand(g2, x) * score


def flow_drift(family, x, t, score):
    """dx/dt = f(t) x - g(t)^2 score/2, the probability-flow ODE. [SDE eq. 13]

    With score = -eps/sigma it is f x + g^2/(2 sigma) eps [DPM eq. 2.7]; where alpha = 1, -sigma' sigma score
    [EDM eq. 1].
    """
    alike("flow_drift", x=x, score=score)
    f, g2 = _coefficients(family, t, "flow_drift")
    return expand(f, x) * x - expand(g2 / 2, x) * score


def velocity(family, prediction, t):
    """dx/dt = alpha'(t) x_0 + sigma'(t) eps, the same ODE from a prediction at the family's time t. [FM eq. 15]

    Of one x_0 it is the conditional field, of E[x_0 | x_t] the marginal one, its mean over x_0 given x_t. [FM eq. 8]

    Finite wherever alpha' and sigma' are: on the straight path and TrigFlow at both ends. Raises LimitError elsewhere.
    """
    alpha_dot, sigma_dot = family.alpha_dot(t), family.sigma_dot(t)
    if anywhere(abs(alpha_dot) == math.inf) or anywhere(abs(sigma_dot) == math.inf):
        raise LimitError(f"velocity of {family.rule} at t = {t}: alpha' = {alpha_dot}, sigma' = {sigma_dot}; "
                         "end the grid at a later time")
    x = prediction.x
    return expand(alpha_dot, x) * prediction.x0 + expand(sigma_dot, x) * prediction.eps
