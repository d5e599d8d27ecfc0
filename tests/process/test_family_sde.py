"""The SDE of each family: its kernels compose, and both ways of reversing it carry the marginals."""
import math

import mpmath as mp
import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import families, sde
from refdiff.process.exact import Gaussian, Mixture
from refdiff.process.level import Level
from refdiff.process.parameterization import LimitError, Prediction

FAMILIES = {"ve": families.VarianceExploding(), "geometric": families.Geometric(.3, 20.), "vp": families.VP(),
            "subvp": families.SubVP(), "flow": families.Flow(), "shifted": families.Flow(3.),
            "trigflow": families.TrigFlow(.5), "cosine": families.Cosine(), "laplace": families.Laplace()}
MEAN, W = .4, .7
WORLD = Gaussian(MEAN, W)
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
X = np.linspace(-2, 2, 5)[:, None]


@given(st.sampled_from(sorted(FAMILIES)), st.lists(st.floats(.01, .99), min_size=3, max_size=3, unique=True))
def test_kernels_compose(name, times):
    """Chapman-Kolmogorov: q(x_u | x_s) is q(x_u | x_t) after q(x_t | x_s)."""
    family = FAMILIES[name]
    s, t, u = sorted(min(family.t_max, 10.) * x for x in times)
    first, then, both = sde.kernel(family, s, t), sde.kernel(family, t, u), sde.kernel(family, s, u)
    assert then.alpha * first.alpha == pytest.approx(both.alpha, rel=1e-13)
    # each variance is a difference of squares: it is right to some u of the variance at its end
    assert then.alpha ** 2 * first.variance + then.variance == pytest.approx(
        both.variance, rel=1e-12, abs=1e-14 * family.sigma(u) ** 2)


def test_the_kernel_of_vp_is_the_integral_of_its_own_beta():
    family = FAMILIES["vp"]
    for s, t in ((0., .3), (.2, .21), (.4, 1.)):
        with mp.workdps(50):
            B = mp.quad(lambda x: mp.mpf(.1) + x * (20 - mp.mpf(.1)), [mp.mpf(s), mp.mpf(t)])
            wanted = [float(mp.exp(-B / 2)), float(1 - mp.exp(-B))]
        np.testing.assert_allclose(sde.kernel(family, s, t), wanted, rtol=2e-14)


def check_forward(module=sde):
    """f(t) x is the derivative of the conditional mean alpha(t)/alpha(s) x at t = s."""
    for name, family in FAMILIES.items():
        t = .3 * min(family.t_max, 10.)
        h = 1e-6 * t
        slope = (family.alpha(t + h) - family.alpha(t - h)) / (2 * h) / family.alpha(t)
        np.testing.assert_allclose(module.forward_drift(family, X, t), slope * X, rtol=1e-6, atol=1e-9, err_msg=name)


def test_the_forward_drift_is_the_slope_of_the_mean():
    check_forward()


def check_reverse(module=sde):
    """On Gaussian data the reverse drift is A (x - m(t)) + b: both moments must run backwards through the marginals,

    m' = b and, with noise g going backwards, v' = 2 A v - g^2 (with + g^2 it would run forwards).
    """
    for name, family in FAMILIES.items():
        for t in (.2 * min(family.t_max, 10.), .8 * min(family.t_max, 10.)):
            level, h = family.level(t), 1e-6 * t
            m, v = level.alpha * MEAN, level.alpha ** 2 * W + level.sigma ** 2
            x = np.array([[m], [m + 1]])
            drift = module.reverse_drift(family, x, t, WORLD.score(x, level))[:, 0]
            m_dot = family.alpha_dot(t) * MEAN
            v_dot = [family.alpha(t + d) ** 2 * W + family.sigma(t + d) ** 2 for d in (h, -h)]
            v_dot = (v_dot[0] - v_dot[1]) / (2 * h)
            b, A = drift[0], drift[1] - drift[0]
            np.testing.assert_allclose(b, m_dot, rtol=1e-10, atol=1e-12, err_msg=name)
            # backwards in time the noise adds g^2: -v' = -2 A v + g^2
            scale = abs(2 * A * v) + abs(v_dot)
            np.testing.assert_allclose((2 * A * v - family.g2(t)) / scale, v_dot / scale, rtol=0, atol=1e-8,
                                       err_msg=name)


def test_the_reverse_sde_runs_through_the_marginals():
    check_reverse()


def check_flow(module=sde):
    """dx/dt of the exact trajectory x(t) = alpha mean + sqrt((alpha^2 W + sigma^2)/..) y, at 50 digits where it is
    written down anew (flow, trigflow), from f, g^2 and from alpha', sigma'."""
    exact = {"flow": (lambda t: 1 - t, lambda t: t), "trigflow": (mp.cos, lambda t: mp.sin(t) / 2),
             "ve": (lambda t: mp.mpf(1), lambda t: t)}
    for name, (alpha, sigma) in exact.items():
        family = FAMILIES[name]
        for t in (.1, .55, .9):
            level = family.level(t)
            with mp.workdps(50):
                def path(u, y):
                    return alpha(u) * mp.mpf(MEAN) + mp.sqrt(alpha(u) ** 2 * mp.mpf(W) + sigma(u) ** 2) * y
                ys = [(mp.mpf(x) - alpha(mp.mpf(t)) * mp.mpf(MEAN)) /
                      mp.sqrt(alpha(mp.mpf(t)) ** 2 * mp.mpf(W) + sigma(mp.mpf(t)) ** 2) for x in X[:, 0]]
                wanted = [float(mp.diff(lambda u: path(u, y), mp.mpf(t))) for y in ys]
            for got in (module.flow_drift(family, X, t, WORLD.score(X, level)),
                        module.velocity(family, WORLD(X, level), t)):
                np.testing.assert_allclose(got[:, 0], wanted, rtol=1e-12, atol=1e-13, err_msg=name)


def test_the_probability_flow_is_the_slope_of_the_exact_trajectory():
    check_flow()


def test_both_forms_of_the_flow_agree_on_a_mixture_in_every_family():
    for name, family in FAMILIES.items():
        t = np.array([.1, .3, .5, .7, .9]) * min(family.t_max, 10.)              # one per row
        level = family.level(t)
        x = X * np.hypot(level.alpha, level.sigma)[:, None]
        np.testing.assert_allclose(sde.flow_drift(family, x, t, LINE.score(x, level)),
                                   sde.velocity(family, LINE(x, level), t), rtol=1e-11, atol=1e-12, err_msg=name)


def test_the_reverse_drift_is_twice_the_flow_less_the_forward_drift():
    for family in FAMILIES.values():
        t = .4 * min(family.t_max, 10.)
        score = LINE.score(X, family.level(t))
        np.testing.assert_allclose(sde.reverse_drift(family, X, t, score), 2 * sde.flow_drift(family, X, t, score) -
                                   sde.forward_drift(family, X, t), rtol=1e-12, atol=1e-12)


def test_at_pure_noise_the_drifts_are_refused_and_the_velocity_is_not():
    family, pure = families.Flow(), Level(1., 0., 1.)
    for drift in (sde.flow_drift, sde.reverse_drift, lambda *a: sde.forward_drift(*a[:3])):
        with pytest.raises(LimitError, match="flow at t = 1.0"):
            drift(family, X, 1.0, -X)
    np.testing.assert_allclose(sde.velocity(family, LINE(X, pure), 1.0), X - (.3 * -1 + .7 * .8), rtol=1e-13)
    circle = families.TrigFlow()
    np.testing.assert_allclose(sde.velocity(circle, LINE(X, Level(math.pi / 2, 0., 1.)), math.pi / 2), -.26 + 0 * X)
    with pytest.raises(LimitError, match="vp.*sigma' = inf"):
        sde.velocity(families.VP(), Prediction("v", X, X, Level(0., 1., 0.)), 0.0)


MUTANTS = [(check_forward, "f, _ = _coefficients", "_, f = _coefficients"),
           (check_reverse, "expand(f, x) * x - expand(g2, x)", "expand(f, x) * x - 0.5 * expand(g2, x)"),
           (check_reverse, "expand(f, x) * x - expand(g2, x)", "expand(f, x) * x + expand(g2, x)"),
           (check_reverse, "return expand(f, x) * x - expand(g2, x)", "return 2 * expand(f, x) * x - expand(g2, x)"),
           (check_flow, "expand(g2 / 2, x)", "expand(g2, x)"),
           (check_flow, "* x - expand(g2 / 2", "* x * 2 - expand(g2 / 2"),
           (check_flow, "expand(alpha_dot, x) * prediction.x0 +", "prediction.x0 +"),
           (check_flow, "expand(sigma_dot, x) * prediction.eps", "prediction.eps")]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises(AssertionError):
        check(planted.mutant("process.sde", (old, new)))
