"""Where squares of alpha, sigma or their ratio leave float64's range: the values are those of 50 digits, or refused."""
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from refdiff.process import families
from refdiff.process.level import Level

mpmath.mp.dps = 50
LAMBDAS = (-744.0, -710.0, -500.0, -400.0, -355.5, -30.0, -0.3, 0.0, 0.4, 30.0, 355.5, 400.0, 500.0, 710.0, 744.0)


# ---- families at any lambda that a float64 alpha and sigma can say

def exact_pair(name, family, lam):
    """(alpha, sigma) of ratio e^lam on the curve that a family's levels lie on, in 50 digits."""
    r = mpmath.exp(mpf(lam))
    if name == "flow":
        return r / (1 + r), 1 / (1 + r)
    if name == "trigflow":
        tan = 1 / (r * mpf(family.sigma_data))
        return 1 / mpmath.sqrt(1 + tan ** 2), 1 / (r * mpmath.sqrt(1 + tan ** 2))
    if name == "subvp":
        sigma = 2 / (1 + mpmath.sqrt(1 + 4 * r ** 2))
        return r * sigma, sigma
    return r / mpmath.sqrt(1 + r ** 2), 1 / mpmath.sqrt(1 + r ** 2)


WIDE = {"vp": families.VP(0.1, 4000.0), "subvp": families.SubVP(0.1, 4000.0), "cosine": families.Cosine(),
        "laplace": families.Laplace(0.0, 40.0), "flow": families.Flow(), "trigflow": families.TrigFlow(0.5)}


@pytest.mark.parametrize("name", WIDE)
def test_levels_of_any_lambda_equal_50_digits(name):
    """To u |lambda|, which e^lambda of a rounded lambda loses, and half the least number, 2.5e-324."""
    family = WIDE[name]
    rows = family.at(np.array(LAMBDAS))
    for i, lam in enumerate(LAMBDAS):
        one, want = family.at(lam), [float(w) for w in exact_pair(name, family, lam)]
        assert min(want) > 0 and family.t_min <= one.t <= family.t_max
        np.testing.assert_allclose([one.alpha, one.sigma], want, rtol=4e-16 * (2 + abs(lam)), atol=1e-323)
        assert (rows.t[i], rows.alpha[i], rows.sigma[i]) == (one.t, one.alpha, one.sigma)


@pytest.mark.parametrize("ask, want", [
    (lambda: families.VP().at(400.0).sigma, mpmath.exp(-400)),
    (lambda: families.Laplace(0.0, 20.0).alpha(1 - 2.0 ** -53), mpf(2) ** (-52 * 10)),
    (lambda: families.Geometric(1e-160, 1e160).sigma(0.5), 1),
    (lambda: families.Geometric(1e-160, 1e160).sigma(1.0), mpf(10) ** 160),
    (lambda: families.Geometric(1e-160, 1e160, False).sigma(0.25), mpf(10) ** -80),
    (lambda: families.Geometric(1e-160, 1e160).sigma_dot(0.5), 320 * mpmath.log(10)),
    (lambda: families.Geometric(1e-160, 1e160).g2(0.5), 640 * mpmath.log(10)),
    (lambda: families.Geometric(1e-160, 1e160).time(0.0), mpf(1) / 2),
    (lambda: families.Geometric(1e-160, 1e160, False).time(80 * math.log(10)), mpf(1) / 4),
    (lambda: families.Cosine(s=0.0).at(400.0).t, mpmath.exp(-400) / (mpmath.pi / 2)),
    (lambda: families.SubVP(0.1, 4000.0).at(-900.0).t,
     (mpmath.sqrt(mpf("0.01") + 2 * mpf("3999.9") * 1800) - mpf("0.1")) / mpf("3999.9")),
], ids=range(11))
def test_families_at_extremes_equal_50_digits(ask, want):
    np.testing.assert_allclose(ask(), float(want), rtol=1e-12)


def test_the_cosine_familys_noise_at_the_least_times_equals_50_digits():
    """t = 1e-310 has 44 of its 53 bits, and sin(q t) sin(w + u) some 40: the tolerance is 2^-40."""
    t, s = 1e-310, mpf(0.008)
    f = mpmath.pi / 2 / (1 + s)
    with mpmath.workdps(700):
        want = mpmath.sqrt(1 - (mpmath.cos((mpf(t) + s) * f) / mpmath.cos(s * f)) ** 2)
    np.testing.assert_allclose(families.Cosine().sigma(t), float(want), rtol=1e-12)


def test_sub_vp_has_a_time_where_its_signal_is_far_below_its_noise():
    """alpha = e^lambda sigma and sigma = 1 to 400 digits: B = -2 lambda."""
    family = families.SubVP(beta_max=2000.0)
    B = mpf(1000)
    want = 2 * B / (mpf(0.1) + mpmath.sqrt(mpf(0.1) ** 2 + 2 * (2000 - mpf(0.1)) * B))
    np.testing.assert_allclose(family.at(-500.0).t, float(want), rtol=1e-14)


@pytest.mark.parametrize("t", [math.nan, np.array([1.0, math.nan])])
def test_a_level_without_a_time_is_refused(t):
    with pytest.raises(ValueError, match="level: t is .*nan.*, wanted a number"):
        Level(t, *np.ones((2, *np.shape(t))))
