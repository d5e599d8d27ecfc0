"""Times of training: the laws they are named for, densities that integrate to one, and estimates that stay unbiased."""
import inspect
import math
import types

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from scipy import stats

from refdiff.process import times
from refdiff.process.times import CosMap, LogitNormal, LogNormal, Mode, SecondMoment, Uniform
from refdiff.rng import Key

mpmath.mp.dps = 50
PI = mpmath.pi

# distribution -> (its density in 50 digits, the ends of its support); the mode's through its inverse, found by mpmath
DENSITIES = {
    ("Uniform", (-1.0, 3.0)): (lambda t: mpf(1) / 4, (-1, 3)),
    ("LogNormal", (-1.2, 1.2)): (lambda t: mpmath.npdf(mpmath.log(t), mpf(-1.2), mpf(1.2)) / t, (0, mpmath.inf)),
    ("LogNormal", (0.4, 0.3)): (lambda t: mpmath.npdf(mpmath.log(t), mpf(0.4), mpf(0.3)) / t, (0, mpmath.inf)),
    ("LogitNormal", (0.0, 1.0)): (lambda t: mpmath.npdf(mpmath.log(t / (1 - t)), 0, 1) / (t * (1 - t)), (0, 1)),
    ("LogitNormal", (-0.5, 0.7)): (lambda t: mpmath.npdf(mpmath.log(t / (1 - t)), mpf(-0.5), mpf(0.7)) / (t * (1 - t)),
                                   (0, 1)),
    ("Mode", (1.29,)): (lambda t: mode_density(t, mpf(1.29)), (0, 1)),
    ("Mode", (-0.6,)): (lambda t: mode_density(t, mpf(-0.6)), (0, 1)),
    ("CosMap", ()): (lambda t: 2 / (PI - 2 * PI * t + 2 * PI * t ** 2), (0, 1)),
}
SCIPY = {"Uniform": lambda low, high: stats.uniform(low, high - low).cdf,
         "LogNormal": lambda mean, std: stats.lognorm(std, scale=math.exp(mean)).cdf,
         "LogitNormal": lambda loc, scale: lambda t: stats.norm(loc, scale).cdf(np.log(t / (1 - t)))}


def mode_density(t, s):
    """1/|f'(u)| where 1 - u - s (cos^2(pi u/2) - 1 + u) = t."""
    def f(u):
        return 1 - u - s * (mpmath.cos(PI * u / 2) ** 2 - 1 + u)
    u = mpmath.findroot(lambda u: f(u) - t, (mpf(0), mpf(1)), solver="anderson", tol=1e-60)
    return -1 / mpmath.diff(f, u)


def inside(support):
    low, high = support
    return [mpf(low) + mpf(k) / 7 * (min(high, 6) - low) for k in range(1, 7)]


def check_densities(module, only=DENSITIES):
    for (name, settings), (density, support) in only.items():
        t = inside(support)
        found = getattr(module, name)(*settings).density(np.array([float(u) for u in t]))
        np.testing.assert_allclose(found, [float(density(mpf(float(u)))) for u in t], rtol=1e-12, err_msg=name)


def test_densities_equal_50_digit_arithmetic():
    check_densities(times)


@pytest.mark.parametrize("name, settings", DENSITIES, ids=str)
def test_densities_integrate_to_one(name, settings):
    """The stated density by mpmath's quadrature, and so refdiff's, which equals it at every point looked at."""
    made, (_, (low, high)) = getattr(times, name)(*settings), DENSITIES[name, settings]
    with mpmath.workdps(15):
        nodes = [0, 1e-3, 0.1, 1, 5, 50, mpmath.inf] if high == mpmath.inf else \
            [low, low + (high - low) / 20, (low + high) / 2, high - (high - low) / 20, high]
        total = mpmath.quad(lambda t: mpf(float(made.density(np.float64(t)))), nodes)
    assert float(total) == pytest.approx(1, abs=1e-8)


def check_quantiles(module, only=DENSITIES):
    """The density is the slope of the inverse of the quantile function: p(q(u)) q'(u) = 1."""
    u, h = np.linspace(0.02, 0.98, 25), 1e-6
    for name, settings in only:
        made = getattr(module, name)(*settings)
        slope = (made.quantile(u + h) - made.quantile(u - h)) / (2 * h)
        np.testing.assert_allclose(made.density(made.quantile(u)) * slope, 1, rtol=1e-7, err_msg=name)


def test_quantiles_and_densities_are_of_one_law():
    check_quantiles(times)


def ks(sample, cdf):
    """sqrt(n) times the Kolmogorov-Smirnov distance."""
    return stats.kstest(sample, cdf).statistic * math.sqrt(len(sample))


def check_draws(module):
    """1.95/sqrt(n) is exceeded once in a thousand seeds; the seed is fixed."""
    for (name, settings) in DENSITIES:
        if name in SCIPY:
            made = getattr(module, name)(*settings)
            assert ks(made.draw(Key(3), 20_000), SCIPY[name](*settings)) < 1.95, name


def test_draws_have_the_law_they_are_named_for():
    check_draws(times)


@pytest.mark.parametrize("made", [Mode(1.29), Mode(-0.6), CosMap()], ids=str)
def test_draws_without_a_scipy_law_follow_the_integral_of_the_density(made):
    t = np.linspace(0, 1, 4001)
    p = made.density(t)
    cdf = np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2 * np.diff(t))])
    assert ks(made.draw(Key(3), 20_000), lambda x: np.interp(x, t, cdf)) < 1.95


def test_the_cosine_map_has_the_log_snr_of_the_cosine_schedule():
    """On alpha = 1 - t, sigma = t: log SNR = -2 log tan(pi u/2)."""
    u = np.linspace(0.01, 0.99, 20)
    t = CosMap().quantile(u)
    np.testing.assert_allclose(np.log((1 - t) / t), -np.log(np.tan(np.pi / 2 * u)), atol=1e-12)


def test_draws_are_a_function_of_the_key_and_inside_the_support():
    for (name, settings), (_, (low, high)) in DENSITIES.items():
        made = getattr(times, name)(*settings)
        for stratified in (False, True):
            t = made.draw(Key(7).fold("t"), 1000, stratified)
            np.testing.assert_array_equal(t, made.draw(Key(7).fold("t"), 1000, stratified))
            assert t.dtype == np.float64 and np.all((t > low) & (t < float(high)))
            assert not np.array_equal(t, made.draw(Key(8).fold("t"), 1000, stratified))
        assert np.all(np.isfinite(made.quantile(np.array([times.LEAST]))))
        assert np.all(made.density(np.array([float(low) - 1.0])) == 0)


def check_stratified(module):
    """One of n uniforms in every cell of width 1/n, each uniform over seeds."""
    n = 50
    u = np.array([module.uniforms(Key(s), n, stratified=True) for s in range(400)])
    # an offset within the cell that all share, so cells are hit exactly once (rounding at a cell's edge aside)
    assert np.all(np.sort(np.floor(u * n + 1e-9).astype(int) % n, axis=1) == np.arange(n))
    assert ks(u[:, 0], "uniform") < 1.95 and ks(u[:, 17], "uniform") < 1.95


def test_stratified_draws_have_one_in_every_cell_and_are_uniform_each():
    check_stratified(times)


def test_stratified_draws_lower_the_variance_of_a_mean():
    made = LogitNormal()
    means = [[np.mean(made.draw(Key(s), 64, stratified) ** 2) for s in range(200)] for stratified in (False, True)]
    assert np.var(means[1]) < np.var(means[0]) / 20
    assert np.mean(means[1]) == pytest.approx(np.mean(means[0]), abs=4 * np.std(means[0]) / math.sqrt(200))


@pytest.mark.parametrize("made", [LogitNormal(0.3, 1.1), Mode(0.8), CosMap()], ids=str)
def test_a_weighted_estimate_is_unbiased_under_every_distribution(made):
    """E_p l(t)/p(t) = int l dt: 1/p is bounded where l vanishes. Within 4 standard errors of 100,000 draws."""
    t = made.draw(Key(11), 100_000)
    terms = t ** 2 * (1 - t) ** 2 / made.density(t)
    assert abs(np.mean(terms) - 1 / 30) < 4 * np.std(terms) / math.sqrt(len(t))


# ---- importance by the second moment

def warm(T=6, uniform=0.0, module=times):
    """A sampler with ten losses at every t, after older ones that must be forgotten, and those ten."""
    sampler = module.SecondMoment(T, uniform=uniform)
    t = np.repeat(np.arange(1, T + 1), 13)
    losses = np.random.default_rng(2).exponential(size=len(t)) * t ** 2
    sampler.update(t, losses)
    return sampler, losses.reshape(T, 13)[:, -10:]


def check_second_moment(module):
    sampler, last = warm(module=module)
    root = [mpmath.sqrt(mpmath.fsum(mpf(float(v)) ** 2 for v in row) / 10) for row in last]
    want = [float(r / mpmath.fsum(root)) for r in root]
    np.testing.assert_allclose(sampler.probabilities(), want, rtol=1e-13)
    t, weight = sampler.draw(Key(5), 60_000)
    np.testing.assert_allclose(weight, 1 / (6 * np.array(want)[t - 1]), rtol=1e-12)
    counts = np.bincount(t, minlength=7)
    assert counts[0] == 0 and len(counts) == 7
    assert stats.chisquare(counts[1:], 60_000 * np.array(want)).pvalue > 1e-3
    mixed, _ = warm(uniform=0.25, module=module)
    np.testing.assert_allclose(mixed.probabilities(), 0.75 * np.array(want) + 0.25 / 6, rtol=1e-13)


def test_probabilities_are_the_roots_of_the_last_ten_second_moments():
    check_second_moment(times)


def check_warm_up(module):
    sampler = module.SecondMoment(4)
    np.testing.assert_array_equal(sampler.probabilities(), [0.25] * 4)
    for k in range(10):
        np.testing.assert_array_equal(sampler.probabilities(), [0.25] * 4)
        sampler.update(np.array([1, 2, 3]), np.array([1.0, 2, 3]))
    sampler.update(np.full(9, 4), np.full(9, 8.0))
    np.testing.assert_array_equal(sampler.probabilities(), [0.25] * 4)        # nine losses at t = 4 are not ten
    sampler.update(np.array([4]), np.array([8.0]))
    np.testing.assert_allclose(sampler.probabilities(), np.array([1, 2, 3, 8]) / 14, rtol=1e-14)


def test_times_are_uniform_until_every_one_has_ten_losses():
    check_warm_up(times)


def check_unbiased(module):
    """The weighted mean of a drawn L_t is (1/T) sum L_t, and for losses without spread it has no variance at all."""
    sampler = module.SecondMoment(5)
    L = np.array([4.0, 0.1, 2.0, 7.0, 0.5])
    sampler.update(np.repeat(np.arange(1, 6), 10), np.repeat(L, 10))
    t, weight = sampler.draw(Key(4), 500)
    np.testing.assert_allclose(weight * L[t - 1], np.mean(L), rtol=1e-13)


def test_the_weighted_estimate_of_the_bound_is_unbiased_and_has_no_variance_at_the_optimum():
    check_unbiased(times)
    sampler, last = warm()
    L = last.mean(1)
    t, weight = sampler.draw(Key(4), 100_000, stratified=True)
    assert np.mean(weight * L[t - 1]) == pytest.approx(L.mean(), rel=1e-3)


def test_a_saved_state_goes_on_to_the_same_bits_and_another_size_is_refused():
    sampler, _ = warm()
    state = sampler.state()
    other = SecondMoment(6)
    other.load(state)
    for one in (sampler, other):
        one.update(np.array([2, 2, 5]), np.array([3.0, 4.0, 0.5]))
    for a, b in zip(sampler.draw(Key(1), 50), other.draw(Key(1), 50)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(state["counts"], sampler.counts)                # a state is a copy
    with pytest.raises(ValueError, match="another T or history"):
        SecondMoment(7).load(state)


def test_times_whose_loss_is_zero_are_not_drawn_and_all_zero_is_uniform():
    sampler = SecondMoment(4, history=1)
    sampler.update(np.array([1, 2, 3, 4]), np.array([0.0, 2.0, 1.0, 0.0]))
    t, weight = sampler.draw(Key(0), 3000)
    assert set(t) == {2, 3} and np.all(np.isfinite(weight))
    sampler.update(np.array([1, 2, 3, 4]), np.zeros(4))
    np.testing.assert_array_equal(sampler.probabilities(), [0.25] * 4)


@pytest.mark.parametrize("make, message", [
    (lambda: Uniform(1.0, 1.0), "Uniform: got low = 1.0, high = 1.0"), (lambda: LogNormal(0.0, 0.0), "std > 0"),
    (lambda: LogitNormal(math.nan, 1.0), "LogitNormal: got loc = nan"), (lambda: Mode(1.8), "s = 1.8"),
    (lambda: Mode(-1.1), "s = -1.1"), (lambda: SecondMoment(0), "T is 0"),
    (lambda: SecondMoment(3, True), "history is True"),
    (lambda: SecondMoment(3, uniform=1.5), "uniform is 1.5"),
    (lambda: SecondMoment(3).update(np.array([0]), np.array([1.0])), "t in 1..3"),
    (lambda: SecondMoment(3).update(np.array([4]), np.array([1.0])), "t in 1..3"),
    (lambda: SecondMoment(3).update(np.array([1]), np.array([math.nan])), "finite"),
    (lambda: SecondMoment(3).update(np.array([1.0]), np.array([1.0])), "integers"),
    (lambda: SecondMoment(3).update(np.array([1, 2]), np.array([1.0])), "wanted integers")])
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_largest_mode_scale_has_an_infinite_density_in_the_middle_and_no_other():
    made = Mode(2 / (math.pi - 2))
    p = made.density(np.array([0.1, 0.3, 0.5, 0.7]))
    assert p[2] > 1e6 and np.all(np.isfinite(p[[0, 1, 3]])) and not np.any(np.isnan(p))


# ---- planted mutants

MUTANTS = [
    (check_quantiles, "self.low + u * (self.high - self.low)", "u * (self.high - self.low) / 2"),
    (check_densities, "1 / (self.high - self.low), 0.0", "1.0, 0.0"),
    (check_draws, "self.mean + self.std * ndtri(u)", "self.mean + self.std ** 2 * ndtri(u)"),
    (check_draws, "self.mean + self.std * ndtri(u)", "self.std * ndtri(u)"),
    (check_densities, "math.sqrt(2 * math.pi)", "math.sqrt(math.pi)"),
    (check_densities, "-z * z / 2", "-z * z"),
    (check_densities, "(inside * self.std), 0.0", "inside, 0.0"),
    (check_densities, "np.log(inside) - self.mean", "np.log(inside) + self.mean"),
    (check_draws, "expit(self.loc + self.scale * ndtri(u))", "expit(-self.loc + self.scale * ndtri(u))"),
    (check_draws, "expit(self.loc + self.scale * ndtri(u))", "expit(self.loc + ndtri(u) / self.scale)"),
    (check_densities, "(self.scale * inside * (1 - inside))", "(self.scale * inside)"),
    (check_densities, "(logit(inside) - self.loc) / self.scale", "logit(inside) - self.loc"),
    (check_densities, "np.sin(math.pi / 2 * u) ** 2", "np.sin(math.pi / 3 * u) ** 2"),
    (check_quantiles, "(1 + self.s) * u - self.s", "(1 - self.s) * u + self.s"),
    (check_densities, "slope = np.maximum(1 + self.s -", "slope = np.maximum(1 -"),
    (check_densities, "self.s * math.pi / 2 * np.sin", "self.s * math.pi * np.sin"),
    (check_quantiles, "np.tan(math.pi / 2 * np", "np.tan(math.pi / 3 * np"),
    (check_quantiles, "np.where(u < 0.5, tan, 1.0)", "tan"), (check_quantiles, "np.minimum(u, 1 - u))", "u)"),
    (check_densities, "1 - 2 * t + 2 * t * t", "1 - 2 * t + t * t"),
    (check_stratified, "np.arange(n) / n", "np.arange(n) / (n + 1)"),
    (check_stratified, "u = (float(backend.to_host(key.uniform(1))[0]) + ", "u = (0.3 + "),
    (check_second_moment, "np.hypot.reduce(np.abs(self.losses)", "np.add.reduce(np.abs(self.losses)"),
    (check_second_moment, "self.losses) / top, axis=1)", "self.losses) / top, axis=1) ** 2"),
    (check_second_moment, "self.counts[i] % self.history", "min(self.counts[i], self.history - 1)"),
    (check_second_moment, "(1 - self.uniform) * root", "root"),
    (check_second_moment, "t = 1 + np.searchsorted", "t = np.searchsorted"),
    (check_second_moment, "1 / (self.T * p[t - 1])", "1 / p[t - 1]"),
    (check_second_moment, "1 / (self.T * p[t - 1])", "1 / (self.T * p[t - 2])"),
    (check_unbiased, "1 / (self.T * p[t - 1])", "1 / (self.T * p[t - 1] ** 2)"),
    (check_warm_up, "np.any(self.counts < self.history)", "np.any(self.counts < 1)"),
    (check_warm_up, "history=10", "history=9"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=[f"{m[0].__name__}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, old, new):
    source = inspect.getsource(times)
    assert source.count(old) == 1, f"the mutant no longer applies: {old!r}"
    module = types.ModuleType("refdiff.process.times")
    module.__package__ = "refdiff.process"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "refdiff.process.times", module)      # dataclasses look it up
        exec(compile(source.replace(old, new), "mutant of times", "exec"), module.__dict__)
    with pytest.raises((AssertionError, IndexError)):
        check(module)
