"""What guidance does, exactly: the guided score of any two worlds, and on Gaussians its law at a level and its flow.

At one level the guided score s score_c + (1 - s) score_u is that of p_c^s p_u^(1-s), normalised, of the *noised*
densities. For Gaussians N(m_i, C_i) that is the normal law with, P_i = (alpha^2 C_i + sigma^2 I)^-1,

    precision P = s P_c + (1 - s) P_u        and mean P^-1 (s P_c alpha m_c + (1 - s) P_u alpha m_u)

Unless C_c = C_u (or s is 0 or 1) it is not the noised form of its own law at sigma = 0: noise adds to variances, not to
precisions. So the guided probability flow does not end on p_c^s p_u^(1-s) of the data. In one dimension, with
rho = sigma/alpha and xbar = x/alpha,

    dxbar/drho = rho [s (xbar - m_c)/(C_c + rho^2) + (1 - s) (xbar - m_u)/(C_u + rho^2)]

whose deviations grow as g(rho) = (C_c + rho^2)^(s/2) (C_u + rho^2)^((1-s)/2). From wide noise down to rho = 0:

    guided flow         variance C_c^s C_u^(1-s),           the geometric mean
    p_c^s p_u^(1-s)     variance 1/(s/C_c + (1 - s)/C_u),   the harmonic mean: larger for s > 1, smaller for 0 < s < 1

A condition that narrows, C_c < C_u, loses variance to guidance: (C_c/C_u)^(s-1) of C_c is left. For C_c = C_u = C the
guided flow is that of N(m_u + s (m_c - m_u), C), which is p_c^s p_u^(1-s): guidance then moves the mean and no more.
"""
import math

import numpy as np
from scipy.integrate import quad

from ..process.exact import Gaussian, World, integrate
from .free import extra_weight


class Guided(World):
    """Two worlds under guidance, u + s (c - u): a denoiser, with the exact score, and the exact flow of that score.

    Not a world of data: no one law has these scores at all levels (see above). Exactly one of scale = s and w = s - 1.
    """

    def __init__(self, conditional, unconditional, *, scale=None, w=None):
        self.scale = 1.0 + extra_weight("Guided", scale, w)
        self.c, self.u = conditional, unconditional
        self.dim = conditional.dim
        if unconditional.dim != self.dim:
            raise ValueError(f"Guided: worlds of dimensions {self.dim} and {unconditional.dim}, wanted one")

    def _mix(self, c, u):
        return self.scale * c + (1 - self.scale) * u

    def score(self, x, level):
        """s score_c + (1 - s) score_u."""
        return self._mix(self.c.score(x, level), self.u.score(x, level))

    def posterior_mean(self, x, level):
        """s E_c[x_0 | x] + (1 - s) E_u[x_0 | x]."""
        return self._mix(self.c.posterior_mean(x, level), self.u.posterior_mean(x, level))

    def _gaussians(self, what):
        if not (isinstance(self.c, Gaussian) and isinstance(self.u, Gaussian)):
            raise ValueError(f"Guided: {what} is known for two Gaussians only")

    def marginal(self, level):
        """The Gaussian whose score at this one level is the guided score; refused where its precision is not > 0."""
        self._gaussians("the law at a level")
        noise = level.sigma ** 2 * np.eye(self.dim)
        P_c, P_u = (np.linalg.inv(level.alpha ** 2 * world.cov + noise) for world in (self.c, self.u))
        P = self._mix(P_c, P_u)
        P = (P + P.T) / 2
        if np.linalg.eigvalsh(P)[0] <= 0:
            raise ValueError(f"Guided: at scale {self.scale} the precision s P_c + (1 - s) P_u is not positive at "
                             f"t = {level.t}: the guided score is that of no density")
        cov = np.linalg.inv(P)
        return Gaussian(cov @ self._mix(P_c @ self.c.mean, P_u @ self.u.mean) * level.alpha, (cov + cov.T) / 2)

    def flow(self, x, a, b):
        """The guided probability flow from level a to b: closed for Gaussians in one dimension, else integrated."""
        self._check(x)
        if self.dim == 1 and isinstance(self.c, Gaussian) and isinstance(self.u, Gaussian):
            gain, shift = self.affine_flow(a, b)
            return gain * x + shift
        return integrate(self, x, a, b)

    def affine_flow(self, a, b):
        """(gain, shift) of x_b = gain x_a + shift, the flow between two levels of one-dimensional Gaussians.

        With V_i = alpha^2 C_i + sigma^2, G = V_c^(s/2) V_u^((1-s)/2) and theta = atan(sigma/alpha): gain = G_b/G_a and

            shift = alpha_b m_u - gain alpha_a m_u - s (m_c - m_u) G_b integral_a^b sin(theta)/(V_c G) dtheta

        with V_c, G in the integral on the circle alpha = cos(theta), sigma = sin(theta): smooth, by quadrature.
        """
        self._gaussians("the affine flow")
        if self.dim != 1:
            raise ValueError(f"Guided: the affine flow is for one dimension, these worlds have {self.dim}")
        m_c, m_u, C_c, C_u = (v.item() for v in (self.c.mean, self.u.mean, self.c.cov, self.u.cov))
        if min(C_c, C_u) <= 0:
            raise ValueError("Guided: the affine flow needs two variances > 0")

        def V_c(alpha, sigma):
            return alpha ** 2 * C_c + sigma ** 2

        def G(alpha, sigma):
            return V_c(alpha, sigma) ** (self.scale / 2) * (alpha ** 2 * C_u + sigma ** 2) ** ((1 - self.scale) / 2)

        def slope(theta):
            alpha, sigma = math.cos(theta), math.sin(theta)
            return sigma / (V_c(alpha, sigma) * G(alpha, sigma))

        G_b = G(b.alpha, b.sigma)
        gain = G_b / G(a.alpha, a.sigma)
        # the narrow part of the integrand lies at theta ~ sqrt(C): the panel is cut there
        start, end = math.atan2(a.sigma, a.alpha), math.atan2(b.sigma, b.alpha)
        cuts = sorted(math.atan(math.sqrt(C)) for C in (C_c, C_u))
        inside = [cut for cut in cuts if min(start, end) < cut < max(start, end)]
        nodes = [start, *(inside if start < end else inside[::-1]), end]
        area = sum(quad(slope, p, q, epsabs=0, epsrel=1e-13, limit=200)[0] for p, q in zip(nodes, nodes[1:]))
        return gain, (b.alpha - gain * a.alpha) * m_u - self.scale * (m_c - m_u) * G_b * area
