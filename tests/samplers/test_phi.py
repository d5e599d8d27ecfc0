"""The phi-functions and the weights made of them, at 50 digits. And mutants that must die."""
import math

import mpmath as mp
import numpy as np
import pytest
from planted import mutant

from refdiff.samplers import phi as module

STEPS = np.concatenate([np.geomspace(1e-12, 50, 120), [.5, 1.999, 2.0, 2.001, 3.0]])
ARGUMENTS = np.concatenate([-STEPS[::-1], [0.0], STEPS])


def exact_phi(k, z):
    """int_0^1 e^(z (1-u)) u^(k-1)/(k-1)! du, as the hypergeometric 1F1(1; k+1; z)/k!."""
    with mp.workdps(50):
        return float(mp.hyp1f1(1, k + 1, mp.mpf(float(z))) / mp.factorial(k))


def check_phi(phi):
    for k in range(5):
        got = [phi(k, z) for z in ARGUMENTS]
        np.testing.assert_allclose(got, [exact_phi(k, z) for z in ARGUMENTS], rtol=1e-14, atol=0, err_msg=f"phi_{k}")


def exact_integral(p, z):
    with mp.workdps(50):
        return float(mp.quad(lambda u: mp.e ** (z * (1 - u)) * sum(c * u ** m for m, c in enumerate(p)), [0, 1]))


def check_weights(weights):
    rng = np.random.default_rng(3)
    for nodes in ([0.], [0., .5], [0., -1.3], [0., 1 / 3, 2 / 3], [0., -.8, -2.1], [1., 0., -1., -1.7]):
        for z in (-3.0, -.2, 0.0, .01, 2.5):
            p = rng.standard_normal(len(nodes))
            got = sum(w * np.polyval(p[::-1], u) for w, u in zip(weights(nodes, z), nodes))
            np.testing.assert_allclose(got, exact_integral(p, z), rtol=1e-12, atol=1e-13)


def test_phi_equals_50_digits():
    check_phi(module.phi)


def test_phi_is_what_papers_spell_with_expm1():
    """At h = .7, where nothing has cancelled yet."""
    h, up, down = .7, math.expm1(.7), math.expm1(-.7)
    got = [h * module.phi(1, h), h * module.phi(2, h), h * module.phi(3, h),
           h * module.phi(1, -h), h * module.phi(2, -h), -h * module.phi(3, -h)]
    np.testing.assert_allclose(got, [up, up / h - 1, (up / h - 1) / h - .5,
                                     -down, down / h + 1, (down / h + 1) / h - .5], rtol=1e-14)


def test_the_recursion_alone_loses_all_digits_in_a_small_step():
    """What the series is for: at h = 1e-9, phi_3 by expm1 and the recursion has no correct digit."""
    h = 1e-9
    assert abs(((math.expm1(h) / h - 1) / h - .5) / h - 1 / 6) > 1
    np.testing.assert_allclose(module.phi(3, h), exact_phi(3, h), rtol=1e-15)


def test_weights_integrate_polynomials_exactly():
    check_weights(module.weights)


@pytest.mark.parametrize("call, message", [
    (lambda: module.phi(-1, .1), "k is -1"), (lambda: module.phi(1.0, .1), "k is 1.0"),
    (lambda: module.phi(True, .1), "k is True"), (lambda: module.phi(1, math.inf), "z is inf"),
    (lambda: module.phi(2, math.nan), "z is nan"), (lambda: module.phi(1, 701), "z is 701"),
    (lambda: module.weights([], .1), "at least one"), (lambda: module.weights([0, 0.0], .1), "distinct"),
    (lambda: module.weights([0, -math.inf], .1), "finite")])
def test_what_has_no_value_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


MUTANTS = [
    (check_phi, "phi", "(1.0 + total) * z / (j + k)", "(1.0 + total) * z / (j + k + 1)"),
    (check_phi, "phi", "return (1.0 + total) / math.factorial(k)", "return (1.0 + total) / math.factorial(k - 1)"),
    (check_phi, "phi", "(value - 1 / math.factorial(j)) / z", "(value - 1 / math.factorial(j - 1)) / z"),
    (check_phi, "phi", "math.expm1(z) / z", "(math.exp(z) - 1) / z"),
    (check_phi, "phi", "_SERIES = 2.0", "_SERIES = 0.02"),
    (check_phi, "phi", "range(27,", "range(13,"),
    (check_weights, "weights", "math.factorial(m) * phi(m + 1, z)", "phi(m + 1, z)"),
    (check_weights, "weights", "phi(m + 1, z) for", "phi(m + 1, -z) for"),
    (check_weights, "weights", "phi(m + 1, z) for", "phi(1, z) for"),
]


@pytest.mark.parametrize("check, function, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, function, old, new):
    with pytest.raises(AssertionError):
        check(getattr(mutant("samplers.phi", (old, new)), function))
