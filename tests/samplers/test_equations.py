"""Equations that the code contains rather than spells: each as its paper writes it, in 50 digits, against the code."""
import mpmath as mp
import numpy as np

from refdiff import objectives, samplers
from refdiff.distill.consistency import ConsistencyConfig, heun_step, levels
from refdiff.guidance import free
from refdiff.process import families, grids, schedules, sde, weights
from refdiff.process.exact import FiniteData, Gaussian
from refdiff.process.parameterization import Prediction
from refdiff.process.times import LogitNormal
from refdiff.samplers.variances import learned

mpf = mp.mpf
X = np.random.default_rng(0).standard_normal((3, 2))
Z = np.random.default_rng(1).standard_normal((3, 2))


def entrywise(f, *arrays):
    """f of the arrays' entries in 50 digits, rounded once."""
    with mp.workdps(50):
        return np.reshape([float(f(*map(mpf, map(float, entries)))) for entries in zip(*(a.ravel() for a in arrays))],
                          arrays[0].shape)


def test_ddpm_s_mean_is_the_paper_s_in_eps():
    """(x - beta/sqrt(1 - abar) eps)/sqrt(1 - beta) at every t of a schedule of twelve, begun at the sampler's own x."""
    schedule = schedules.linear(12)
    with mp.workdps(50):
        beta = [mpf("1e-4") + (mpf("0.02") - mpf("1e-4")) * k / 11 for k in range(12)]
        abar = [mp.fprod(1 - b for b in beta[:k + 1]) for k in range(12)]
    x = X
    for state in samplers.ddpm(lambda x, level: Prediction("eps", np.tanh(x), x, level), grids.every(schedule), X,
                               noise=lambda step: 0 * X):
        t = 11 - state.step
        wanted = entrywise(lambda a, eps: (a - beta[t] / mp.sqrt(1 - abar[t]) * eps) / mp.sqrt(1 - beta[t]), x,
                           np.tanh(x))
        np.testing.assert_allclose(state.x, wanted, rtol=1e-11, atol=1e-12)
        x = state.x


# alpha and sigma of a time, as in families.py, here in 50 digits
PAIRS = {"vp": (families.VP(), lambda t: mp.exp(-t / 20 - mpf("19.9") * t * t / 4),
                lambda t: mp.sqrt(-mp.expm1(-t / 10 - mpf("19.9") * t * t / 2))),
         "flow": (families.Flow(), lambda t: 1 - t, lambda t: t),
         "geometric": (families.Geometric(.01, 50.), lambda t: mpf(1),
                       lambda t: mpf(".01") * mp.sqrt(mpf(5000) ** (2 * t) - 1))}


def test_the_drift_of_the_flow_is_the_diffusion_ode_in_eps_and_edm_s():
    """f x + g^2/(2 sigma) eps from alpha and sigma alone; where alpha = 1 it is -sigma' sigma score."""
    for name, (family, alpha, sigma) in PAIRS.items():
        for t in (.2, .7):
            with mp.workdps(50):
                f = mp.diff(lambda u: mp.log(alpha(u)), mpf(t)) if name != "geometric" else mpf(0)
                s, ds2 = sigma(mpf(t)), mp.diff(lambda u: sigma(u) ** 2, mpf(t))
                g2, rate = ds2 - 2 * f * s ** 2, mp.diff(sigma, mpf(t)) * s
            found = sde.flow_drift(family, X, t, -Z / family.level(t).sigma)
            wanted = entrywise(lambda x, eps: f * x + g2 / (2 * s) * eps, X, Z)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, err_msg=name)
            if name == "geometric":
                found = sde.flow_drift(family, X, t, Z)
                np.testing.assert_allclose(found, entrywise(lambda score: -rate * score, Z), rtol=1e-12)


def test_euler_and_heun_solve_edm_s_ode():
    """dx/dsigma = (x - D)/sigma with D = x/(1 + sigma^2), that of standard normal data, step by step."""
    grid = grids.karras(6, .1, 10.)
    world = Gaussian([0., 0.], np.eye(2))

    def slope(x, sigma):
        return (x - x / (1 + sigma ** 2)) / sigma

    for name in ("euler", "heun"):
        def steps(x):
            for a, b in zip(map(mpf, grid.sigma), map(mpf, grid.sigma[1:])):
                first = slope(x, a)
                ends = (first + slope(x + (b - a) * first, b)) / 2 if name == "heun" and b > 0 else first
                x = x + (b - a) * ends
            return x
        np.testing.assert_allclose(samplers.run(samplers.SAMPLERS[name](world, grid, X)), entrywise(steps, X),
                                   rtol=1e-12, atol=1e-13, err_msg=name)


def test_a_teacher_s_step_solves_the_empirical_flow():
    """Heun's step of dx/dt = -t s(x, t), with s = -x/(1 + t^2)."""
    a, b = 3., 1.7

    def slope(x, t):
        return t * x / (1 + t ** 2)

    def step(x):
        u, v = mpf(a), mpf(b)
        return x + (v - u) / 2 * (slope(x, u) + slope(x + (v - u) * slope(x, u), v))
    found = heun_step(lambda x, t: x + t[:, None] ** 2 * (-x / (1 + t[:, None] ** 2)), X, np.full(3, a), np.full(3, b))
    np.testing.assert_allclose(found, entrywise(step, X), rtol=1e-13)


def test_consistency_levels_are_counted_upwards():
    config = ConsistencyConfig(sigma_min=.02, sigma_max=20., rho=7., levels_first=9, levels_last=18)
    low, high = mpf(.02) ** (1 / mpf(7)), mpf(20) ** (1 / mpf(7))
    wanted = entrywise(lambda i: (low + i / 8 * (high - low)) ** 7, np.arange(9.))
    np.testing.assert_allclose(levels(0, 100, config), wanted, rtol=1e-13)


def test_a_guided_step_is_the_algorithm_s():
    """eps~ = (1 + w) c - w u, x~ = (z - sigma eps~)/alpha, then N(mu(z, x~), small^(1-v) large^v), v = .3."""
    grid = grids.on(families.VP(), [.8, .5, .3])
    t, s, w, v = grid.level(0), grid.level(1), 1.7, .3
    c, u = Gaussian([.7, -.4], [[.5, .2], [.2, .3]]), Gaussian([0., .2], [[1., 0.], [0., 2.]])
    state = next(samplers.ddpm(free.cfg(c, u, w=w), grid, X, learned(lambda p: 0 * p.x + (2 * v - 1)), lambda k: Z))

    def step(z, noise, eps_c, eps_u):
        at, st, as_, ss = map(mpf, (t.alpha, t.sigma, s.alpha, s.sigma))
        x = (z - st * ((1 + mpf(w)) * eps_c - mpf(w) * eps_u)) / at
        large = st ** 2 - (at / as_ * ss) ** 2
        small = large * ss ** 2 / st ** 2
        mean = small * (z * at / as_ / large + x * as_ / ss ** 2)                    # Bayes: precisions add
        return mean + mp.sqrt(small ** (1 - mpf(v)) * large ** mpf(v)) * noise
    np.testing.assert_allclose(state.x, entrywise(step, X, Z, c(X, t).eps, u(X, t).eps), rtol=1e-11)


# ---- flow matching, in the paper's time: x_1 the datum, t towards it

def test_the_marginal_field_is_the_mean_of_the_conditional_ones():
    """sum_k u(x | x_k) p(x | x_k) q_k/p(x) over a data set of three points, u(x | x_1) = (x_1 - x)/(1 - t)."""
    points, q, t = np.array([-1., .4, 1.3]), np.array([.2, .5, .3]), .35
    family, level = families.Flow(), families.Flow().level(1 - t)
    x = np.linspace(-2, 2, 7)[:, None]

    def field(x):
        p = [mpf(w) * mp.npdf(x, mpf(t) * mpf(y), 1 - mpf(t)) for w, y in zip(q, points)]
        return mp.fsum(a * (mpf(y) - x) / (1 - mpf(t)) for a, y in zip(p, points)) / mp.fsum(p)
    found = -sde.velocity(family, FiniteData(points, q)(x, level), 1 - t)
    np.testing.assert_allclose(found, entrywise(field, x), rtol=1e-12, atol=1e-13)


def test_the_straight_path_s_velocity_is_its_field():
    """(x_1 - (1 - sigma_min) x)/(1 - (1 - sigma_min) t) at the path's own x."""
    t, rest = .35, 1 - .1
    _, velocity = objectives.flow_path(X, Z, np.full(3, t), sigma_min=.1)

    def field(x1, x0):
        x = (1 - mpf(rest) * mpf(t)) * x0 + mpf(t) * x1
        return (x1 - mpf(rest) * x) / (1 - mpf(rest) * mpf(t))
    np.testing.assert_allclose(velocity, entrywise(field, X, Z), rtol=1e-13, atol=1e-14)


def test_the_flow_s_loss_and_a_density_of_times_are_weights_of_the_noise_s_error():
    """-w lambda'/2 with lambda = 2 log((1 - t)/t): for w = -lambda' t^2/2 the loss of the velocity, and for
    w = pi(t) t/(1 - t) that under times of density pi, here logit-normal with mean .3 and deviation .8.
    """
    t = np.linspace(.05, .95, 7)
    level = families.Flow().level(t)

    def times(w):
        return lambda u: -w(u) * mp.diff(lambda v: 2 * mp.log((1 - v) / v), u) / 2

    def slope(u):
        return mp.diff(lambda v: 2 * mp.log((1 - v) / v), u)
    np.testing.assert_allclose(weights.flow(level), entrywise(times(lambda u: -slope(u) * u ** 2 / 2), t), rtol=1e-13)
    np.testing.assert_allclose(weights.convert(weights.flow(level), "velocity", level), 1, rtol=1e-13)

    def density(u):
        return mp.exp(-(mp.log(u / (1 - u)) - mpf(".3")) ** 2 / (2 * mpf(".64"))) / (
            mpf(".8") * mp.sqrt(2 * mp.pi) * u * (1 - u))
    np.testing.assert_allclose(LogitNormal(.3, .8).density(t) * weights.flow(level),
                               entrywise(times(lambda u: u / (1 - u) * density(u)), t), rtol=1e-12)
