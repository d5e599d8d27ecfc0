"""Predictions and preconditionings against the definition of each kind, solved at 50 digits."""
import math

import mpmath as mp
import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.process import parameterization
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import KINDS, PRECONDITIONINGS, LimitError, Prediction, amplification
from refdiff.process.parameterization import (precondition_eps, precondition_F, precondition_v, precondition_velocity,
                                              precondition_x0)

U = 2.0 ** -53
TINY = 1e-280                          # below this, numbers lose digits: Hypothesis finds them
ALL = (*KINDS, "F")
D = .7                                 # sigma_data


def definition(kind, alpha, sigma):
    """(p, q) with kind = p x0 + q eps; F = (x0 - c_skip x)/c_out, EDM's for x/alpha and sigma/alpha."""
    if kind == "F":
        s, d = mp.mpf(sigma) / mp.mpf(alpha), mp.mpf(D)
        c_skip, c_out = d ** 2 / (s ** 2 + d ** 2), s * d / mp.sqrt(s ** 2 + d ** 2)
        return (1 - c_skip) / c_out, -c_skip * s / c_out
    return {"eps": (0, 1), "x0": (1, 0), "v": (-sigma, alpha), "score": (0, -1 / sigma if sigma else None),
            "velocity": (-1, 1), "data_velocity": (1, -1)}[kind]


def solve(kind, target, value, x, alpha, sigma):
    """The target as the definitions determine it from (x, value), and the sum of the magnitudes that enter it."""
    alpha, sigma, value, x = (mp.mpf(v) for v in (alpha, sigma, value, x))
    (p, q), (r, s) = definition(kind, alpha, sigma), definition(target, alpha, sigma)
    det = alpha * q - sigma * p
    x0, eps = (q * x - sigma * value) / det, (alpha * value - p * x) / det
    size = (abs(r) * (abs(q * x) + abs(sigma * value)) + abs(s) * (abs(alpha * value) + abs(p * x))) / abs(det)
    return r * x0 + s * eps, size


def gain(kind, target, alpha, sigma):
    """|d target/d kind| at fixed x."""
    return abs(float(solve(kind, target, 1, 0, alpha, sigma)[0]))


def level_at(family, log_snr):
    ratio = math.exp(-log_snr / 2)
    if family == "vp":
        return Level(1, 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))
    return ve(ratio) if family == "ve" else Level(1, 1 / (1 + ratio), ratio / (1 + ratio))


log_snrs = st.floats(math.log(1e-9), math.log(1e9))
families = st.sampled_from(["vp", "ve", "flow"])


@given(st.sampled_from(ALL), st.sampled_from(ALL), families, log_snrs, st.floats(-3, 3), st.floats(-3, 3))
def test_every_kind_from_every_kind_is_its_definition(kind, target, family, log_snr, x0, eps):
    level = level_at(family, log_snr)
    alpha, sigma = level.alpha, level.sigma
    with mp.workdps(50):
        p, q = map(float, definition(kind, alpha, sigma))
    x, value = alpha * x0 + sigma * eps, p * x0 + q * eps
    got = getattr(Prediction(kind, np.array([[value]]), np.array([[x]]), level, D), target)[0, 0]
    with mp.workdps(50):
        exact, size = solve(kind, target, value, x, alpha, sigma)
    assert abs(got - float(exact)) <= 16 * U * float(size) + TINY     # at most 16 roundings, each of a summand


@given(st.sampled_from(ALL), st.sampled_from(ALL), families, log_snrs, st.floats(-3, 3), st.floats(-3, 3))
def test_round_trips_lose_what_the_condition_number_says(kind, other, family, log_snr, x0, eps):
    level = level_at(family, log_snr)
    with mp.workdps(50):
        p, q = map(float, definition(kind, level.alpha, level.sigma))
    x, value = np.array([[level.alpha * x0 + level.sigma * eps]]), np.array([[p * x0 + q * eps]])
    there = Prediction(kind, value, x, level, D).to(other)
    back, there = there.to(kind).value, there.value
    with mp.workdps(50):
        away = float(solve(kind, other, value[0, 0], x[0, 0], level.alpha, level.sigma)[1])
        home = float(solve(other, kind, there[0, 0], x[0, 0], level.alpha, level.sigma)[1])
        bound = 16 * U * (gain(other, kind, level.alpha, level.sigma) * away + home)
    assert abs(back - value)[0, 0] <= bound + TINY
    if kind == other:
        assert back is value


BOTH = {"eps", "x0", "v", "velocity", "data_velocity", "F"}


@pytest.mark.parametrize("kind, clean, pure", [        # what is finite at sigma = 0 and at alpha = 0
    ("eps", BOTH, {"eps", "score"}), ("x0", {"x0"}, BOTH | {"score"}), ("v", BOTH, BOTH | {"score"}),
    ("score", BOTH | {"score"}, {"score", "eps"}), ("velocity", BOTH, BOTH | {"score"}),
    ("data_velocity", BOTH, BOTH | {"score"}), ("F", BOTH, BOTH | {"score"})])
def test_ends_of_the_schedule_are_exact_or_refused(kind, clean, pure):
    def pair(name, alpha, sigma):                      # F's limits: -eps at sigma = 0 and x_0/sigma_data at alpha = 0
        return definition(name, alpha, sigma) if name != "F" else (0, -1) if sigma == 0 else (1 / D, 0)

    for level, finite in ((Level(0, .5, 0.), clean), (Level(9, 0., 2.), pure)):
        for rows in (False, True):
            if rows:
                level = Level(np.array([level.t]), np.array([level.alpha]), np.array([level.sigma]))
            x0, eps = .7, (0. if kind == "score" and finite is clean else -1.3)   # score gives eps = -sigma score
            sigma, alpha = float(np.ravel(level.sigma)[0]), float(np.ravel(level.alpha)[0])
            p, q = pair(kind, alpha, sigma)
            value = .4 if q is None else p * x0 + q * eps
            x = np.array([[alpha * x0 + sigma * eps]])
            prediction = Prediction(kind, np.array([[value]]), x, level, D)
            for target in ALL:
                growth = np.ravel(amplification(kind, target, level, D))[0]
                if target not in finite:
                    with pytest.raises(LimitError, match=f"{kind} .* = 0"):
                        getattr(prediction, target)
                    assert growth == math.inf, target
                    continue
                r, s = pair(target, alpha, sigma)
                exact = value if target == kind else r * x0 + s * eps
                assert getattr(prediction, target)[0, 0] == pytest.approx(exact, abs=4 * U)
                assert math.isfinite(growth), target


def check_amplification(module):
    """A perturbation of 1e-20 of a value at 50 digits moves the target by the factor, over SNR 1e-9 .. 1e9."""
    for family in ("vp", "ve", "flow"):
        for log_snr in np.linspace(math.log(1e-9), math.log(1e9), 7):
            level = level_at(family, log_snr)
            for kind in ALL:
                for target in ALL:
                    with mp.workdps(80):
                        d = mp.mpf(10) ** -20
                        moved = [solve(kind, target, value, .3, level.alpha, level.sigma)[0]
                                 for value in (mp.mpf(.9), .9 + d)]
                        wanted = float(abs(moved[1] - moved[0]) / d)
                    np.testing.assert_allclose(module.amplification(kind, target, level, D), wanted, rtol=1e-13,
                                               err_msg=f"{kind} -> {target} in {family} at log SNR {log_snr}")


def test_amplification_is_what_a_perturbation_does_at_50_digits():
    check_amplification(parameterization)


def test_amplification_of_rows_and_the_worst_of_each_kind():
    """v's worst factor is 1 in a variance-preserving family, where eps says x0 with 3e4 at SNR 1e-9."""
    angle = np.linspace(.001, 1.57, 40)
    rows = Level(angle, np.cos(angle), np.sin(angle))
    for target in ("eps", "x0", "v"):
        table = amplification("v", target, rows)
        assert table.shape == (40,) and table.max() <= 1 + 1e-15
        assert table[3] == amplification("v", target, Level(angle[3], rows.alpha[3], rows.sigma[3]))
    assert amplification("eps", "x0", level_at("vp", math.log(1e-9))) == pytest.approx(10 ** 4.5)
    assert amplification("x0", "eps", level_at("vp", math.log(1e9))) == pytest.approx(10 ** 4.5)
    assert amplification("eps", "eps", ve(2.)) == 1.0 and type(amplification("eps", "F", ve(2.), .5)) is float
    for bad in (("noise", "x0"), ("x0", "noise")):
        with pytest.raises(ValueError, match="kind is 'noise'"):
            amplification(*bad, ve(1.))
    with pytest.raises(ValueError, match="sigma_data is None"):
        amplification("eps", "F", ve(1.))


def test_F_is_the_preconditionings_network():
    """D = c_skip x + c_out F with this F is x0, whatever kind said it; F = -v if sigma_data = 1 (VP)."""
    rng = np.random.default_rng(5)
    x, value = rng.standard_normal((2, 4, 3))
    for level in (ve(1.7), Level(3, .8, .6), Level(.3, .7, .3)):
        for kind in KINDS:
            prediction = Prediction(kind, value, x, level, D)
            c_skip, c_out, _, _ = precondition_F(level, D)
            np.testing.assert_allclose(c_skip * x + c_out * prediction.F, prediction.x0, rtol=1e-13, atol=1e-14)
            np.testing.assert_allclose(prediction.to("F").x0, prediction.x0, rtol=1e-13, atol=1e-14)
    unit = Prediction("v", value, x, Level(3, .8, .6), 1.0)
    np.testing.assert_allclose(unit.F, -value, rtol=1e-14, atol=1e-15)


def test_a_prediction_says_itself_as_another_kind():
    x, value = np.random.default_rng(5).standard_normal((2, 4, 3))
    prediction = Prediction("v", value, x, Level(3, .8, .6))
    assert prediction.to("eps").kind == "eps" and prediction.to("v").value is value
    np.testing.assert_array_equal(prediction.to("data_velocity").value, -prediction.velocity)
    F = prediction.to("F", sigma_data=.5)
    assert (F.kind, F.sigma_data) == ("F", .5)
    for make, message in ((lambda: prediction.F, "sigma_data is None"),
                          (lambda: prediction.to("F"), "sigma_data is None"),
                          (lambda: Prediction("F", value, x, ve(1.)), "sigma_data is None"),
                          (lambda: Prediction("F", value, x, ve(1.), -1.), "sigma_data is -1"),
                          (lambda: F.to("F", .6), "F of sigma_data 0.5 asked for with 0.6"),
                          (lambda: prediction.to("noise"), "wanted one of eps, .*data_velocity, F")):
        with pytest.raises(ValueError, match=message):
            make()


def test_rows_have_their_own_level():
    rng = np.random.default_rng(3)
    x, value = rng.standard_normal((2, 4, 3, 3, 1))
    angle = np.array([.1, .5, 1.1, 1.5])
    level = Level(angle, np.cos(angle), np.sin(angle))
    for kind in ALL:
        for target in ALL:
            rows = getattr(Prediction(kind, value, x, level, D), target)
            for i in range(4):
                one = Level(angle[i], level.alpha[i], level.sigma[i])
                alone = getattr(Prediction(kind, value[i:i + 1], x[i:i + 1], one, D), target)
                np.testing.assert_allclose(rows[i:i + 1], alone, rtol=1e-13)


@pytest.mark.parametrize("level", [Level(1, .8, .6), Level(np.ones(2), np.full(2, .8), np.full(2, .6))])
def test_dtype_is_kept(level):
    x = np.ones((2, 3), np.float32)
    for kind in ALL:
        for target in ALL:
            assert getattr(Prediction(kind, x, x, level, D), target).dtype == np.float32


def test_predictions_of_the_wrong_kind_or_shape_are_refused():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match="kind is 'noise', wanted one of eps"):
        Prediction("noise", x, x, ve(1.))
    with pytest.raises(ValueError, match=r"value is float64\(2, 1\) but x is float64\(2, 3\)"):
        Prediction("eps", x[:, :1], x, ve(1.))


# ---- preconditionings

def unit(level, sigma_data, rows):
    """x, x0 and the sign-free statistics of data of variance sigma_data^2 at a level."""
    rng = np.random.default_rng(11)
    x0, eps = sigma_data * rng.standard_normal(rows), rng.standard_normal(rows)
    return level.alpha * x0 + level.sigma * eps, x0, eps


@given(families, log_snrs)
def test_a_perfect_network_of_each_kind_gives_back_x0(family, log_snr):
    """F := the kind itself: D = c_skip x + c_out F is x0, to the rounding of its two terms."""
    level = level_at(family, log_snr)
    x, x0, eps = unit(level, 1.0, 5)
    perfect = {precondition_eps: eps, precondition_x0: x0, precondition_v: level.alpha * eps - level.sigma * x0,
               precondition_velocity: eps - x0}
    for precondition, F in perfect.items():
        c_skip, c_out, c_in, _ = precondition(level)
        size = np.abs(c_skip * x) + np.abs(c_out * F) + np.abs(x0)
        np.testing.assert_allclose((c_skip * x + c_out * F) / size, x0 / size, rtol=0, atol=12 * U)
        assert c_in == (1 / (level.alpha + level.sigma) if precondition is precondition_velocity else 1)


@given(families, log_snrs, st.floats(.1, 3))
def test_F_has_unit_input_and_unit_uncorrelated_target(family, log_snr, sigma_data):
    """EDM's requirements in exact moments: Var(c_in x) = 1, Var(target) = 1, Cov(target, x) = 0."""
    level = level_at(family, log_snr)
    c_skip, c_out, c_in, c_noise = precondition_F(level, sigma_data)
    a, s, d2 = level.alpha, level.sigma, sigma_data ** 2
    assert c_in ** 2 * (a * a * d2 + s * s) == pytest.approx(1, rel=1e-13)
    # target F = (x0 - c_skip x)/c_out; its x0 part is (1 - c_skip a)/c_out, which is s^2/(norm c_out)
    on_x0, on_eps = s * s / (s * s + a * a * d2) / c_out, -c_skip * s / c_out
    assert on_x0 ** 2 * d2 + on_eps ** 2 == pytest.approx(1, rel=1e-12)
    assert on_x0 * a * d2 + on_eps * s == pytest.approx(0, abs=1e-13 * (on_x0 * a * d2 + 1e-300) + 1e-300)
    assert c_skip * a + on_x0 * c_out == pytest.approx(1, rel=1e-13)
    assert c_noise == pytest.approx(-log_snr / 8, rel=1e-13, abs=1e-15)


def test_F_on_the_variance_exploding_family_is_EDMs_table():
    sigma, d = 1.7, .5
    c = precondition_F(ve(sigma), d)
    assert c.c_skip == pytest.approx(d ** 2 / (sigma ** 2 + d ** 2), rel=4 * U)
    assert c.c_out == pytest.approx(sigma * d / math.sqrt(sigma ** 2 + d ** 2), rel=4 * U)
    assert c.c_in == pytest.approx(1 / math.sqrt(sigma ** 2 + d ** 2), rel=4 * U)
    assert c.c_noise == pytest.approx(math.log(sigma) / 4, rel=4 * U)


def test_F_is_the_same_network_in_every_family():
    """F sees the same input and label for x of VP and x/alpha of VE, and D agrees."""
    vp = Level(3, .8, .6)
    c, e = precondition_F(vp, .5), precondition_F(ve(.75), .5)
    x = 1.3
    assert c.c_in * x == pytest.approx(e.c_in * x / .8) and c.c_noise == pytest.approx(e.c_noise)
    assert c.c_skip * x == pytest.approx(e.c_skip * x / .8) and c.c_out == pytest.approx(e.c_out)


def test_the_label_is_a_named_choice():
    for precondition in (precondition_eps, precondition_x0, precondition_v):
        assert precondition(Level(7, .8, .6)).c_noise == 7
        assert precondition(Level(7, .8, .6), label="t-1").c_noise == 6
        rows = Level(np.array([1, 7]), np.full(2, .8), np.full(2, .6))
        assert precondition(rows, label="t-1").c_noise.tolist() == [0, 6]
        with pytest.raises(ValueError, match="t < 1"):
            precondition(Level(0, 1., 0.), label="t-1")
        with pytest.raises(ValueError, match="wanted one of t, t-1"):
            precondition(Level(1, .8, .6), label="index")


def test_preconditionings_of_rows_are_rows():
    angle = np.array([.2, .9])
    rows = Level(angle, np.cos(angle), np.sin(angle))
    for precondition in PRECONDITIONINGS.values():
        table = precondition(rows)
        for i in range(2):
            one = precondition(Level(angle[i], rows.alpha[i], rows.sigma[i]))
            np.testing.assert_allclose([c[i] for c in table], one, rtol=1e-14)


def test_preconditioning_is_refused_where_it_has_no_limit():
    pure, clean = Level(9, 0., 1.), Level(0, 1., 0.)
    with pytest.raises(LimitError, match="alpha = 0.*use 'v'"):
        precondition_eps(pure)
    for level, name in ((pure, "alpha"), (clean, "sigma")):
        with pytest.raises(LimitError, match=f"{name} = 0: c_noise"):
            precondition_F(level)
    assert precondition_v(pure)[:2] == (0, -1) and precondition_v(clean)[:2] == (1, 0)
    with pytest.raises(ValueError, match="sigma_data is 0"):
        precondition_F(ve(1.), 0)


# ---- planted mutants

def check_kinds(module):
    """Every kind from every kind against its definition, at three levels."""
    x, value = .37, -1.21
    for family in ("vp", "ve", "flow"):
        for log_snr in (-3., .4, 5.):
            level = level_at(family, log_snr)
            for kind in ALL:
                prediction = module.Prediction(kind, np.array([[value]]), np.array([[x]]), level, D)
                for target in ALL:
                    with mp.workdps(50):
                        exact, size = map(float, solve(kind, target, value, x, level.alpha, level.sigma))
                    np.testing.assert_allclose(getattr(prediction, target)[0, 0] / size, exact / size, rtol=0,
                                               atol=16 * U, err_msg=f"{kind} -> {target}")


def test_kinds_equal_their_definitions():
    check_kinds(parameterization)


def check_velocity(module):
    """For any family F sees the straight path's x and 1000 t, and D = x - t F there."""
    for t in (.1, .5, .8):
        for a in (1., .3, 1 / (1 - t)):                                    # the last is x_0 + sigma eps
            x, F = a * np.array([.4, -1.3]), np.array([.7, .2])
            c_skip, c_out, c_in, c_noise = module.precondition_velocity(Level(7, a * (1 - t), a * t))
            np.testing.assert_allclose(c_in * x, [.4, -1.3], rtol=4 * U)
            np.testing.assert_allclose(c_skip * x + c_out * F, [.4 - t * .7, -1.3 - t * .2], rtol=8 * U)
            np.testing.assert_allclose(c_noise, 1000 * t, rtol=4 * U)


def test_a_velocity_network_sees_the_straight_path_in_every_family():
    check_velocity(parameterization)


MUTANTS = [
    (check_velocity, "size = level.alpha + level.sigma", "size = (level.alpha ** 2 + level.sigma ** 2) ** 0.5"),
    (check_velocity, "Preconditioning(1 / size, ", "Preconditioning(1 + 0 * size, "),
    (check_velocity, "-level.sigma / size, 1 / size", "-level.sigma, 1 / size"),
    (check_velocity, "/ size, 1 / size, 1000", "/ size, 1 + 0 * size, 1000"),
    (check_velocity, "1000 * level.sigma / size", "1000 * level.sigma"),
    (check_kinds, "expand(alpha * d ** 2 / norm, x) * x", "expand(alpha * d / norm, x) * x"),
    (check_kinds, "expand(sigma * d / norm ** 0.5, x) * value", "expand(sigma / norm ** 0.5, x) * value"),
    (check_kinds, "expand(sigma / norm, x) * x - expand(alpha * d", "expand(alpha / norm, x) * x - expand(alpha * d"),
    (check_kinds, "- expand(alpha * d / norm ** 0.5, x)", "+ expand(alpha * d / norm ** 0.5, x)"),
    (check_kinds, "self.level.sigma / (self.sigma_data * root)", "self.level.sigma / root"),
    (check_kinds, "expand(self.level.alpha * self.sigma_data / root, self.x)",
     "expand(self.level.alpha / root, self.x)"),
    (check_kinds, "return -self.value\n", "return self.value\n"),
    (check_kinds, "(x + expand(sigma ** 2, x) * value)", "(x + expand(sigma, x) * value)"),
    (check_kinds, "return alpha * self.eps - sigma * self.x0", "return alpha * self.eps + sigma * self.x0"),
    (check_kinds, "return -self.eps / self._divisor", "return self.eps / self._divisor"),
    (check_amplification, "return (sigma ** 2 / sigma_data ** 2 + alpha ** 2)", "return (sigma ** 2 + alpha ** 2)"),
    (check_amplification, '"v": alpha ** 2 + sigma ** 2,', '"v": alpha + sigma,'),
    (check_amplification, '"score": alpha / sigma}', '"score": 1 / sigma}'),
    (check_amplification, "growth = sigma\n", "growth = 1 / sigma\n"),
    (check_amplification, "growth = w(target) / w(kind)", "growth = w(kind) / w(target)"),
]


@pytest.mark.parametrize("check, old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_is_killed(check, old, new):
    with pytest.raises(AssertionError):
        check(planted.mutant("process.parameterization", (old, new)))
