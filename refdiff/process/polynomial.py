"""The third oracle: a denoiser that predicts a polynomial in lambda, for which the PF-ODE is solved in closed form.

With lambda = log(alpha/sigma), the PF-ODE between the levels a and b is, in x0 and in eps,

    x_b/sigma_b = x_a/sigma_a + int_a^b e^lambda x0(lambda) d lambda
    x_b/alpha_b = x_a/alpha_a - int_a^b e^-lambda eps(lambda) d lambda

and the integral of an exponential times a polynomial is elementary. One step of a rule of order k on a polynomial of
degree k - 1 shows every coefficient of the rule: no network, no other solver.
"""
import math

import numpy as np
from numpy.polynomial import Polynomial as Poly

from .parameterization import LimitError, Prediction


class PolynomialDenoiser:
    """A denoiser that predicts x0 (or eps) = sum_k coefficients[k] (lambda - center)^k, whatever x is.

    The prediction is the same number for all entries of x. flow(x, a, b) is the exact solution between two levels
    with alpha, sigma > 0.
    """

    def __init__(self, coefficients, kind="x0", center=0.0):
        if kind not in ("x0", "eps"):
            raise ValueError(f"PolynomialDenoiser: kind is {kind!r}, wanted 'x0' or 'eps'")
        self.kind, self.center = kind, float(center)
        self.p = Poly(np.atleast_1d(np.asarray(coefficients, dtype=np.float64)))

    def __call__(self, x, level):
        if not math.isfinite(level.lam):
            raise LimitError(f"PolynomialDenoiser: at t = {level.t} lambda is infinite; end the grid before that level")
        return Prediction(self.kind, x * 0 + float(self.p(level.lam - self.center)), x, level)

    def flow(self, x, a, b):
        """The PF-ODE's solution at level b from x at level a, by integrating by parts until the polynomial is gone."""
        sign = -1.0 if self.kind == "x0" else 1.0
        q, term = Poly([0.0]), self.p
        for _ in range(self.p.degree() + 1):            # q = p - p' + p'' - .. (x0), p + p' + p'' + .. (eps)
            q, term = q + term, sign * term.deriv()
        at_a, at_b = float(q(a.lam - self.center)), float(q(b.lam - self.center))
        if self.kind == "x0":
            return b.sigma / a.sigma * x + (b.alpha * at_b - b.sigma * math.exp(a.lam) * at_a)
        return b.alpha / a.alpha * x + (b.sigma * at_b - b.alpha * math.exp(-a.lam) * at_a)
