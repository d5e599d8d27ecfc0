"""The phi-functions of exponential integrators: integrals of an exponential times a power, to full precision.

    phi_0(z) = e^z,    phi_{k+1}(z) = (phi_k(z) - 1/k!)/z,    phi_k(0) = 1/k!
    phi_{k+1}(z) = int_0^1 e^(z (1-u)) u^k/k! du

A step of h in lambda has z = h in eps and z = -h in x0: with these, every coefficient that papers spell with expm1 is

    e^h - 1 = h phi_1(h)              (e^h - 1)/h - 1 = h phi_2(h)           ((e^h - 1)/h - 1)/h - 1/2 = h phi_3(h)
    1 - e^-h = h phi_1(-h)            (e^-h - 1)/h + 1 = h phi_2(-h)         ((e^-h - 1)/h + 1)/h - 1/2 = -h phi_3(-h)
"""
import math

import numpy as np

from .state import integer, number

_SERIES = 2.0          # below this |z| the recursion would lose more digits than the series
LARGEST = 700.0        # e^z is still finite
_HIGHEST = 170         # and so is k!


def phi(k, z):
    """phi_k(z) for integers k in 0..170 and a number z, error 1e-14 of it for k <= 4. [DPM eq. B.2, B.5, B.6, B.7]

    By its power series sum_j z^j/(j+k)! for |z| < 2, where the recursion cancels; else by expm1 and the recursion.
    Raises ValueError unless k is such an integer and z <= 700 (a step so large in lambda has a factor beyond float64).
    """
    k, z = integer("phi: k", k, 0, _HIGHEST), number("phi: z", z, finite=False)
    if not z <= LARGEST:
        raise ValueError(f"phi: z is {z:g}, wanted <= {LARGEST:g}; take smaller steps in lambda = log(alpha/sigma)")
    if k == 0:
        return math.exp(z)
    if abs(z) < _SERIES and k > 1:
        total = 0.0
        for j in range(27, 0, -1):                     # Horner; 2^27/27! is 1e-20
            total = (1.0 + total) * z / (j + k)
        return (1.0 + total) / math.factorial(k)
    value = math.expm1(z) / z if z else 1.0
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def weights(nodes, z):
    """w with sum_j w_j p(u_j) = int_0^1 e^(z (1-u)) p(u) du for every polynomial p of degree < k; nodes u_j, k of them.

    They solve sum_j w_j u_j^m = m! phi_{m+1}(z), m = 0..k-1. A list of Python floats. Nodes must be distinct; u = 0 is
    where the step starts and u = 1 where it ends, so history lies at u < 0.
    """
    nodes = [float(u) for u in nodes]
    if len(set(nodes)) != len(nodes) or not nodes or not all(map(math.isfinite, nodes)):
        raise ValueError(f"weights: nodes are {nodes}, wanted at least one, finite and distinct")
    moments = [math.factorial(m) * phi(m + 1, z) for m in range(len(nodes))]
    w = np.linalg.solve(np.vander(nodes, increasing=True).T, moments)
    if not np.isfinite(w).all():
        raise ValueError(f"weights: nodes are {nodes}, of which two are too close to be told apart")
    return w.tolist()
