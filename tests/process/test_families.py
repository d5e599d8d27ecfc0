"""Families in continuous time against formulas written anew at 50 digits, their inverses, and what is refused."""
import math

import mpmath as mp
import numpy as np
import planted
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from refdiff.process import families, schedules
from refdiff.process.level import Level
from refdiff.process.parameterization import LimitError

U = 2.0 ** -53
PI = mp.pi


def vp_sigma2(alpha):
    return lambda t: 1 - alpha(t) ** 2


def mp_beta(t, a=.1, b=20.):
    return mp.exp(-(mp.mpf(a) * t + (mp.mpf(b) - mp.mpf(a)) * t ** 2 / 2))             # abar


def mp_cosine(s, shift):
    """alpha and sigma of the cosine, whose sigma/alpha is multiplied by shift."""
    def abar(t):
        f = [mp.cos((x + mp.mpf(s)) / (1 + mp.mpf(s)) * PI / 2) ** 2 for x in (t, mp.mpf(0))]
        return 1 / (1 + mp.mpf(shift) ** 2 * (f[1] / f[0] - 1))
    return lambda t: mp.sqrt(abar(t)), lambda t: mp.sqrt(1 - abar(t))


def mp_flow(shift, p):
    def tau(t):
        odds = mp.mpf(shift) * (t / (1 - t)) ** mp.mpf(p)
        return odds / (1 + odds)
    return lambda t: 1 - tau(t), tau


def mp_laplace(mean, b):
    def snr(t):
        return mp.exp(mean - mp.mpf(b) * mp.sign(mp.mpf(.5) - t) * mp.log(1 - 2 * abs(t - mp.mpf(.5))))
    return lambda t: mp.sqrt(snr(t) / (1 + snr(t))), lambda t: mp.sqrt(1 / (1 + snr(t)))


# name: (the family's constructor, options, alpha and sigma at 50 digits)
TRUTH = {
    "ve": ("VarianceExploding", {}, (lambda t: mp.mpf(1), lambda t: t)),
    "geometric": ("Geometric", {"from_clean": False}, (lambda t: mp.mpf(1), lambda t: mp.mpf(.01) * mp.mpf(5000) ** t)),
    "geometric from clean": ("Geometric", {"sigma_min": .02, "sigma_max": 10.}, (
        lambda t: mp.mpf(1), lambda t: mp.sqrt((mp.mpf(.02) * (10 / mp.mpf(.02)) ** t) ** 2 - mp.mpf(.02) ** 2))),
    "vp": ("VP", {}, (lambda t: mp.sqrt(mp_beta(t)), lambda t: mp.sqrt(1 - mp_beta(t)))),
    "vp, other betas": ("VP", {"beta_min": .5, "beta_max": 70.}, (
        lambda t: mp.sqrt(mp_beta(t, .5, 70.)), lambda t: mp.sqrt(1 - mp_beta(t, .5, 70.)))),
    "subvp": ("SubVP", {}, (lambda t: mp.sqrt(mp_beta(t)), lambda t: 1 - mp_beta(t))),
    "flow": ("Flow", {}, (lambda t: 1 - t, lambda t: t)),
    "flow, shift": ("Flow", {"shift": 3.}, mp_flow(3, 1)),
    "flow, shift and power": ("Flow", {"shift": 1.7, "power": .8}, mp_flow(1.7, .8)),
    "trigflow": ("TrigFlow", {}, (mp.cos, mp.sin)),
    "trigflow, sigma_data": ("TrigFlow", {"sigma_data": .5}, (mp.cos, lambda t: mp.sin(t) / 2)),
    "cosine": ("Cosine", {}, mp_cosine(.008, 1)),
    "cosine, shift": ("Cosine", {"s": .02, "shift": 4.}, mp_cosine(.02, 4)),
    "cosine, s = 0": ("Cosine", {"s": 0., "shift": .5}, mp_cosine(0, .5)),
    "laplace": ("Laplace", {}, mp_laplace(0, .5)),
    "laplace, other": ("Laplace", {"mean": 1., "scale": 2.}, mp_laplace(1, 2)),
}


def times(family):
    """Times from next to one end to next to the other; multiples of 2^-30 there, so that 1 - t is exact."""
    top = min(family.t_max, 80.0)
    return [top * x for x in (2. ** -30, 2. ** -20, 1e-3, .03, .24, .4, .62, .87, .97, 1 - 2. ** -10)]


def check_equals_50_digits(module=families, names=TRUTH):
    """alpha, sigma, lambda, the derivatives, f and g^2. Each is made of at most about 20 rounded factors; lambda's
    absolute error is that of a few logarithms, up to |lambda| u, and passes to alpha, sigma where they come from it.
    Near the noise end, t/(pi/2) and the like are known to u/(1 - t) only: the factor `near`."""
    for name in names:
        maker, options, (alpha, sigma) = TRUTH[name]
        family = getattr(module, maker)(**options)
        for t in times(family):
            near = 1 / (1 - t / family.t_max) if family.t_max < math.inf else 1.0
            with mp.workdps(50):
                x, step = mp.mpf(t), {"h": mp.mpf(t) / 2 ** 60, "relative": False}
                a, s = alpha(x), sigma(x)
                da, ds = mp.diff(alpha, x, **step), mp.diff(sigma, x, **step)
                lam = mp.log(a / s)
                f = da / a
                wanted = {"alpha": a, "sigma": s, "lam": lam, "log_snr": 2 * lam, "alpha_dot": da, "sigma_dot": ds,
                          "lam_dot": da / a - ds / s, "f": f, "g2": 2 * s * ds - 2 * f * s ** 2}
                wanted = {key: float(value) for key, value in wanted.items()}
            got = {key: getattr(family, key)(t) for key in wanted}
            size = 40 * U * (1 + abs(wanted["lam"])) * near
            for key in wanted:
                scale = max(1.0, abs(wanted[key])) if key in ("lam", "log_snr") else abs(wanted[key])
                # alpha' of the cosine family and of flow's power crosses no zero; alpha' = 0 is exact in "ve"
                np.testing.assert_allclose(got[key] / (scale or 1), wanted[key] / (scale or 1), rtol=0, atol=size,
                                           err_msg=f"{name}: {key} at t = {t}")


@pytest.mark.parametrize("name", TRUTH)
def test_coefficients_and_derivatives_equal_50_digits(name):
    check_equals_50_digits(names=[name])


def check_inverse(module=families, names=TRUTH):
    """at(lam) has alpha, sigma to a few u (1 + |lam|), and time(lam) is the inverse as far as t resolves lambda."""
    for name in names:
        maker, options, (alpha, sigma) = TRUTH[name]
        family = getattr(module, maker)(**options)
        low, high = family.lam_range
        lams = [x for x in np.linspace(-15, 15, 25) if low <= x <= high] + [max(low, -15.), min(high, 15.)]
        assert len(lams) > 8 or name.startswith("geometric"), lams
        for lam in lams:
            lam = float(lam)
            level = family.at(lam)
            assert abs(level.lam - lam) < 16 * U * (1 + abs(lam)), (name, lam)
            t = family.time(lam)
            assert t == level.t and family.t_min <= t <= family.t_max
            # a relative error of some u in t, and in t_max - t one of u t_max, move lambda by lambda' times that
            slack = 48 * U * (1 + abs(lam) + abs(family.lam_dot(t)) * t) if 0 < t < family.t_max else 1e-9
            if math.isfinite(family.lam(t)):
                assert abs(family.lam(t) - lam) < slack, (name, lam, t)
            # the same signal and noise as at the family's own time, where that time tells them apart
            if abs(lam) < 5 and 0 < t < family.t_max:
                own = family.level(t)
                np.testing.assert_allclose([level.alpha, level.sigma], [own.alpha, own.sigma], rtol=slack * 4)


@pytest.mark.parametrize("name", TRUTH)
def test_time_and_level_of_lambda_are_the_inverse(name):
    check_inverse(names=[name])


@pytest.mark.parametrize("name, lam", [("vp, other betas", -14.5), ("subvp", -4.9), ("flow", -15), ("flow", 15),
                                       ("cosine", 15), ("cosine", 5.), ("cosine, s = 0", 15), ("subvp", 15), ("vp", 15),
                                       ("trigflow", 15), ("laplace", 15), ("geometric from clean", 15)])
def test_times_of_lambda_equal_50_digits_at_the_ends(name, lam):
    """The root of the 50-digit lambda(t) = lam, to relative 1e-13, also where t or 1 - t is tiny."""
    maker, options, (alpha, sigma) = TRUTH[name]
    family = getattr(families, maker)(**options)
    with mp.workdps(50):
        start = mp.mpf(family.time(float(lam)))
        t = mp.findroot(lambda x: mp.log(alpha(x) / sigma(x)) - lam, (start, start * (1 - mp.mpf(10) ** -9)))
        np.testing.assert_allclose(family.time(float(lam)), float(t), rtol=1e-13)


# ---- the SDE's moments

def check_moments(module=families, names=TRUTH):
    """m' = f m and v' = 2 f v + g^2, integrated from t = a, give the family's own alpha and sigma^2."""
    for name in names:
        maker, options, _ = TRUTH[name]
        family = getattr(module, maker)(**options)
        top = min(family.t_max, 5.0)
        a, b = .02 * top, .9 * top

        def moments(t, y):
            f, g2 = family.f(float(t)), family.g2(float(t))
            return [f * y[0], 2 * f * y[1] + g2]

        y = [family.alpha(a), family.sigma(a) ** 2]
        for stop in (top / 2, b):                                      # Laplace's lambda has a kink in the middle
            y = solve_ivp(moments, (a, stop), y, method="DOP853", rtol=1e-12, atol=1e-20).y[:, -1]
            a = stop
        np.testing.assert_allclose(y, [family.alpha(b), family.sigma(b) ** 2], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("name", TRUTH)
def test_the_moments_of_the_sde_are_the_family(name):
    """Fokker-Planck of a linear SDE: the Gaussian with these moments solves it."""
    check_moments(names=[name])


@given(st.sampled_from(sorted(TRUTH)), st.lists(st.floats(1e-100, 1), min_size=2, max_size=2, unique=True))
def test_snr_strictly_decreases(name, ends):
    maker, options, _ = TRUTH[name]
    family = getattr(families, maker)(**options)
    s, t = sorted(min(family.t_max, 80.) * x for x in ends)
    if t - s > 1e-12:                    # closer times may round to one lambda
        assert family.lam(s) > family.lam(t) and family.level(s).snr > family.level(t).snr
        assert family.lam_dot((s + t) / 2) < 0


def test_every_end_is_exact():
    ends = {"vp": (1, 0, None, None), "subvp": (1, 0, None, None), "flow": (1, 0, 0, 1), "trigflow": (1, 0, 0, 1),
            "cosine": (1, 0, 0, 1), "laplace": (1, 0, 0, 1), "geometric": (1, 0, None, None), "ve": (1, 0, None, None)}
    for name, (alpha, sigma, last_alpha, last_sigma) in ends.items():
        family = families.FAMILIES[name]()
        first = family.level(0.0)
        assert (first.alpha, first.sigma, first.lam) == (alpha, sigma, math.inf), name
        assert (family.at(math.inf).alpha, family.at(math.inf).sigma) == (alpha, sigma), name
        if last_alpha is not None:
            last = family.level(family.t_max)
            assert (last.alpha, last.sigma) == (last_alpha, last_sigma), name
            assert family.at(-math.inf) == Level(family.t_max, 0, last_sigma), name
    assert families.Flow(shift=3.).level(1.0).alpha == 0 and families.TrigFlow(.5).level(math.pi / 2).sigma == .5


def test_derivatives_at_the_ends_are_their_limits_or_refused():
    vp, flow, trig, cosine = families.VP(), families.Flow(), families.TrigFlow(), families.Cosine(s=0.)
    assert (vp.f(0.), vp.g2(0.), vp.sigma_dot(0.), vp.lam_dot(0.)) == (-.05, .1, math.inf, -math.inf)
    assert (flow.alpha_dot(1.), flow.sigma_dot(1.), flow.f(1.), flow.g2(1.)) == (-1, 1, -math.inf, math.inf)
    assert trig.sigma_dot(0.) == 1 and trig.alpha_dot(math.pi / 2) == -1 and trig.sigma_dot(math.pi / 2) == 0
    assert cosine.sigma_dot(0.) == pytest.approx(math.pi / 2, rel=4 * U)
    assert cosine.alpha_dot(1.) == pytest.approx(-math.pi / 2, rel=4 * U) and cosine.lam_dot(0.) == -math.inf
    assert families.Cosine().sigma_dot(0.) == math.inf
    for name in ("alpha_dot", "sigma_dot"):
        with pytest.raises(LimitError, match=f"laplace.*{name} has no value"):
            getattr(families.Laplace(), name)(0.)


# ---- what the families are to each other, and to the literature

def check_discretised(module=families):
    """log abar_T of DDPM's linear schedule with beta_t = beta(t/T)/T is -B(1) - c/T + .., c = (a^2 + ab + b^2)/6."""
    vp = module.VP()
    log_abar = 2 * math.log(vp.alpha(1.0))
    assert log_abar == pytest.approx(-10.05, rel=1e-14) and f"{vp.alpha(1.0):.5f}" == "0.00657"
    gaps = [T * (schedules.linear(T, .1 / T, 20. / T).log_alpha_bar[-1] - log_abar) for T in (1000, 4000, 16000)]
    # T = 1000 itself: abar_T = 4.0358e-5 against 4.3186e-5, 6.5 % less
    assert f"{schedules.linear(1000).alpha_bar[-1]:.4e} {vp.alpha(1.0) ** 2:.4e}" == "4.0358e-05 4.3186e-05"
    assert gaps[2] + (gaps[2] - gaps[1]) / 3 == pytest.approx(-(.01 + 2 + 400) / 6, rel=2e-5)


def test_the_linear_schedule_tends_to_vp_at_first_order():
    check_discretised()


def test_the_discrete_cosine_is_the_continuous_one_up_to_its_clip():
    schedule, family = schedules.cosine(1000), families.Cosine()
    t = np.arange(1, 1000)
    level = family.level(t / 1000)
    np.testing.assert_allclose(level.alpha, schedule.alpha[1:-1], rtol=1e-11)
    np.testing.assert_allclose(level.sigma, schedule.sigma[1:-1], rtol=1e-12)


def test_subvp_has_the_square_of_vps_noise_and_less_variance():
    t = np.linspace(.001, 1, 50)
    vp, sub = families.VP().level(t), families.SubVP().level(t)
    np.testing.assert_allclose(sub.sigma, vp.sigma ** 2, rtol=1e-14)
    np.testing.assert_array_equal(sub.alpha, vp.alpha)
    assert np.all(sub.alpha ** 2 + sub.sigma ** 2 < 1)


def test_the_two_geometric_conventions_differ_by_sigma_min_squared():
    exact, dropped = families.Geometric(.3, 20.), families.Geometric(.3, 20., from_clean=False)
    t = np.linspace(0, 1, 30)
    np.testing.assert_allclose(dropped.sigma(t) ** 2 - exact.sigma(t) ** 2, .3 ** 2, rtol=1e-11)
    np.testing.assert_array_equal(exact.g2(t), dropped.g2(t))
    assert (exact.sigma(0.), dropped.sigma(0.), dropped.sigma(1.)) == (0, .3, pytest.approx(20))


def test_a_shift_adds_a_constant_to_lambda():
    """SD3's t' = s t/(1 + (s - 1) t), and the cosine moved to another resolution: log SNR falls by 2 log s."""
    t = np.linspace(.01, .99, 33)
    for s in (.5, 3., 7.):
        for plain, moved in ((families.Flow(), families.Flow(shift=s)), (families.Cosine(), families.Cosine(shift=s))):
            np.testing.assert_allclose(moved.log_snr(t), plain.log_snr(t) - 2 * math.log(s), rtol=0, atol=1e-13)
        np.testing.assert_allclose(families.Flow(shift=s).tau(t), s * t / (1 + (s - 1) * t), rtol=1e-14)
    np.testing.assert_allclose(families.Flow(power=1.3).lam(t), 1.3 * families.Flow().lam(t), rtol=1e-13, atol=1e-14)


def test_the_dynamic_shift_is_linear_in_tokens():
    assert families.dynamic_shift(256) == math.exp(.5) and families.dynamic_shift(4096) == math.exp(1.15)
    assert families.dynamic_shift(1024) == pytest.approx(math.exp(.5 + .65 * 768 / 3840), rel=1e-15)


def test_trigflow_keeps_the_datas_deviation_and_is_the_angle():
    family, sigma = families.TrigFlow(.5), 80.
    t = family.time(-math.log(sigma))
    assert t == pytest.approx(math.atan(sigma / .5), rel=1e-15) and f"{t:.5f}" == "1.56455"
    u = np.linspace(0, math.pi / 2, 9)
    np.testing.assert_allclose(family.alpha(u) ** 2 * .25 + family.sigma(u) ** 2, .25, rtol=1e-14)


def test_laplace_log_snr_is_laplace_distributed():
    """P(log SNR > x) for uniform t is the time at which log SNR = x."""
    family = families.Laplace(mean=.7, scale=.5)
    for x in (-2., .2, .7, 1.9):
        upper = .5 * math.exp(-(x - .7) / .5) if x >= .7 else 1 - .5 * math.exp((x - .7) / .5)
        assert family.time(x / 2) == pytest.approx(upper, rel=1e-13)


# ---- interpolated schedules

@pytest.mark.parametrize("schedule", [schedules.linear(20), schedules.zero_terminal_snr(schedules.linear(20)),
                                      schedules.linear(1), schedules.cosine(7)], ids=lambda s: s.rule)
def test_an_interpolated_schedule_passes_through_its_levels(schedule):
    family = families.Interpolated(schedule)
    for t in range(schedule.T + 1):
        own, level = schedule.level(t), family.level(t)
        np.testing.assert_allclose([level.alpha, level.sigma], [own.alpha, own.sigma], rtol=32 * U)
        assert family.time(own.lam) == pytest.approx(t, abs=1e-12)
        np.testing.assert_allclose([family.at(own.lam).alpha, family.at(own.lam).sigma], [own.alpha, own.sigma],
                                   rtol=32 * U)


def test_an_interpolated_schedule_is_linear_in_lambda_and_nothing_is_known_beyond():
    s = schedules.linear(20)
    family = families.Interpolated(s)
    lam = s.log_snr / 2
    assert family.lam(3.25) == pytest.approx(.75 * lam[3] + .25 * lam[4], rel=1e-14)
    assert family.lam_dot(3.25) == pytest.approx(lam[4] - lam[3], rel=1e-13)
    assert family.lam_dot(4.0) == family.lam_dot(3.25) and family.time(.75 * lam[3] + .25 * lam[4]) == (
        pytest.approx(3.25, rel=1e-14))
    for t in (.5, 20.5, -1):
        with pytest.raises(ValueError, match="interpolated .* wanted"):
            family.level(t)
    for bad in (lam[1] + .1, lam[20] - .1, -math.inf, math.nan):
        with pytest.raises(ValueError, match="interpolated .*lambda is"):
            family.at(bad)
    ended = families.Interpolated(schedules.zero_terminal_snr(s))
    assert ended.at(-math.inf) == Level(20.0, 0, 1)
    with pytest.raises(ValueError, match="wanted 0 or 1 <= t <= 19 or 20"):
        ended.level(19.5)
    with pytest.raises(LimitError):
        family.lam_dot(0)


# ---- numbers, arrays, refusals

@pytest.mark.parametrize("name", TRUTH)
def test_arrays_are_their_entries_and_numbers_are_python_floats(name):
    maker, options, _ = TRUTH[name]
    family = getattr(families, maker)(**options)
    t = np.array(times(family))
    for what in ("alpha", "sigma", "lam", "alpha_dot", "sigma_dot", "lam_dot", "f", "g2"):
        table = getattr(family, what)(t)
        # vectorised and scalar elementary functions may round differently
        np.testing.assert_allclose(table, [getattr(family, what)(float(x)) for x in t], rtol=1e-13)
        assert table.dtype == np.float64 and type(getattr(family, what)(np.float32(t[4]))) is float
    lams = family.lam(t)
    level = family.at(lams)
    np.testing.assert_allclose(level.alpha, [family.at(float(x)).alpha for x in lams], rtol=1e-13)
    assert type(family.time(float(lams[3]))) is float
    assert getattr(families, maker)(**options) == family and family.rule


@pytest.mark.parametrize("name", TRUTH)
def test_arrays_stay_where_they_are(name):
    maker, options, _ = TRUTH[name]
    family = getattr(families, maker)(**options)
    t = np.array(times(family)[3:7])
    there = standin.xp.asarray(t)
    for what in ("alpha", "sigma", "lam", "alpha_dot", "sigma_dot", "lam_dot", "f", "g2"):
        np.testing.assert_array_equal(getattr(family, what)(there).get(), getattr(family, what)(t))
    lam = family.lam(t)
    np.testing.assert_array_equal(family.at(standin.xp.asarray(lam)).sigma.get(), family.at(lam).sigma)


@pytest.mark.parametrize("make, message", [
    (lambda: families.VP().alpha(1.001), "vp.*t is 1.001, wanted 0 <= t <= 1"),
    (lambda: families.TrigFlow().level(1.5708), "trigflow.*t is 1.5708, wanted 0 <= t <= 1.57"),
    (lambda: families.Flow().level(np.array([.2, -.1])), "flow: t is"),
    (lambda: families.VarianceExploding().sigma(math.inf), "finite"),
    (lambda: families.Flow().sigma(math.nan), "flow: t is nan"), (lambda: families.Flow().sigma("1"), "t is '1'"),
    (lambda: families.Flow().sigma(True), "t is True"), (lambda: families.VP().at(-6.), r"vp.*lambda is -6.0, wanted"),
    (lambda: families.VP().time(np.array([0., -6.])), "vp.*lambda"), (lambda: families.Flow().at(math.nan), "lambda"),
    (lambda: families.VarianceExploding().at(-math.inf), "finite"),
    (lambda: families.Geometric(1., 1.), "sigma_min < sigma_max"),
    (lambda: families.Geometric(0., 1.), "sigma_min is 0"),
    (lambda: families.VP(20., .1), "beta_min <= beta_max"), (lambda: families.SubVP(-1.), "beta_min is -1"),
    (lambda: families.Flow(shift=0.), "shift is 0"), (lambda: families.Flow(power=math.inf), "power is inf"),
    (lambda: families.TrigFlow(math.nan), "sigma_data is nan"), (lambda: families.Cosine(s=-.1), "s >= 0"),
    (lambda: families.Cosine(shift=-1.), "shift is -1"), (lambda: families.Laplace(scale=0.), "scale is 0"),
    (lambda: families.dynamic_shift(0), "tokens is 0")])
def test_what_a_family_does_not_have_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match="(?s)" + message):
        make()


# ---- planted mutants

MUTANTS = [
    (check_moments, "families", "2 * self.log_ratio * self._grown", "self.log_ratio * self._grown"),
    (check_equals_50_digits, "families", "xp.expm1(-2 * self.log_ratio * t)", "xp.expm1(-self.log_ratio * t)"),
    (check_equals_50_digits, "families", "self.sigma_min * half * half", "self.sigma_min * half"),
    (check_equals_50_digits, "families", "self._grown(t, xp) / self._rest", "self._grown(t, xp) * self._rest"),
    (check_inverse, "families", "xp.logaddexp(0.0, 2 * grown)", "2 * grown"),
    (check_inverse, "families", "-lam - math.log(self.sigma_min)", "-lam + math.log(self.sigma_min)"),
    (check_equals_50_digits, "families", "self.shift * t ** self.power + (1 - t)", "t ** self.power + (1 - t)"),
    (check_equals_50_digits, "families", "(t * (1 - t)) ** (self.power - 1)", "(t * (1 - t)) ** self.power"),
    (check_inverse, "families", "(lam + math.log(self.shift)) / self.power",
     "(lam - math.log(self.shift)) / self.power"),
    (check_inverse, "families", "self.shift)) / self.power", "self.shift))"),
    (check_equals_50_digits, "families", "self.sigma_data * xp.sin(t)", "xp.sin(t)"),
    (check_equals_50_digits, "families", "return self.sigma_data * self._alpha(t, xp)", "return self._alpha(t, xp)"),
    (check_inverse, "families", "xp.arctan(xp.exp(-lam) / self.sigma_data)", "xp.arctan(xp.exp(-lam))"),
    (check_inverse, "families", "return cos, self.sigma_data * sin", "return cos, sin"),
    (check_inverse, "families", "preserving(lam + math.log(self.sigma_data), xp)", "preserving(lam, xp)"),
    (check_inverse, "families", "lambda r: 1 / (1 + r)", "lambda r: 1 / (1 + 2 * r)"),
    (check_discretised, "preserving", "t * (self.beta_max - self.beta_min) / 2)",
     "t * (self.beta_max - self.beta_min))"),
    (check_equals_50_digits, "preserving", "return -self.beta(t) / 2", "return -self.beta(t)"),
    (check_inverse, "preserving", "+ 2 * (self.beta_max - self.beta_min) * B", "+ (self.beta_max - self.beta_min) * B"),
    (check_moments, "preserving", "return self.beta(t)\n", "return 2 * self.beta(t)\n"),
    (check_moments, "preserving", "xp.expm1(-2 * self.B(t))", "xp.expm1(-self.B(t))"),
    (check_inverse, "preserving", "xp.sqrt(r * r + 4)", "xp.sqrt(r * r + 2)"),
    (check_inverse, "preserving", "1 + xp.sqrt(1 + 4 * r * r)", "1 + xp.sqrt(1 + 2 * r * r)"),
    (check_inverse, "preserving", "-2 * (lam + xp.log(sigma))", "-2 * (lam - xp.log(sigma))"),
    (check_inverse, "preserving", "1 / xp.sqrt(1 + r * r)", "1 / xp.sqrt(1 + r)"),
    (check_inverse, "preserving", "-xp.log1p(-sigma), -2", "sigma, -2"),
    (check_equals_50_digits, "preserving", "-self.beta(t) * (0.5 + 1", "-self.beta(t) * (1 + 1"),
    (check_equals_50_digits, "preserving", "xp.log(alpha) - xp.log(self.shift * sigma)",
     "xp.log(alpha) - xp.log(sigma)"),
    (check_equals_50_digits, "preserving", "return self.shift * q * alpha /", "return q * alpha /"),
    (check_equals_50_digits, "preserving", "-self.shift ** 2 * q * sin_w / (cos_u * N ** 3)",
     "-self.shift * q * sin_w / (cos_u * N ** 3)"),
    (check_moments, "preserving", "(cos_u * alpha * N ** 2)", "(alpha * N ** 2)"),
    (check_equals_50_digits, "preserving", "(alpha * sin_w * root ** 2)", "(alpha * sin_w * root)"),
    (check_inverse, "preserving", "self._pair(lam + math.log(self.shift), xp)", "self._pair(lam, xp)"),
    (check_inverse, "preserving", "xp.hypot(sin_u,", "xp.hypot(0 * sin_u,"),
    (check_equals_50_digits, "preserving", "self.scale * xp.sign(0.5 - t)", "xp.sign(0.5 - t)"),
    (check_equals_50_digits, "preserving", "-self.scale / (2 * xp.minimum", "-self.scale / (xp.minimum"),
    (check_inverse, "preserving", "z = (2 * lam - self.mean) / self.scale", "z = (2 * lam + self.mean) / self.scale"),
]


@pytest.mark.parametrize("check, module, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, module, old, new):
    made = planted.mutant(f"process.{module}", (old, new))
    names = [name for name, (maker, *_) in TRUTH.items() if hasattr(made, maker)]
    with pytest.raises(AssertionError):
        check(made) if check is check_discretised else check(made, names)
