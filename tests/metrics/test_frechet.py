"""The Frechet distance against closed forms and 50 digits, where covariances have no inverse too."""
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.metrics import frechet
from refdiff.metrics.frechet import Moments
from refdiff.rng import Key


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def covariance(seed, d, rank):
    x = normal(seed, d, rank)
    return x @ x.T


def exact(a, b):
    """The distance in 50 digits: tr (C_a C_b)^1/2 is the sum of the roots of the eigenvalues of C_a C_b.

    That product is not symmetric and its eigenvalues come from mpmath's QR iteration: another road altogether.
    """
    with mpmath.workdps(50):
        (ma, ca), (mb, cb) = ((mpmath.matrix(m.tolist()), mpmath.matrix(c.tolist())) for m, c in (a, b))
        values = mpmath.eig(ca * cb, left=False, right=False)
        roots = mpmath.fsum(mpmath.sqrt(max(mpmath.re(v), 0)) for v in values)
        shift = ma - mb
        trace = mpmath.fsum(ca[i, i] + cb[i, i] for i in range(ca.rows))
        return float(mpmath.fdot(shift, shift) + trace - 2 * roots)


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_full_rank_agrees_with_fifty_digits(d):
    for seed in range(3):
        a, b = (Moments(normal(s, d), covariance(s + 1, d, d + 2)) for s in (seed, seed + 10))
        assert frechet.distance(a, b) == pytest.approx(exact(a, b), rel=1e-12)


@pytest.mark.parametrize("ranks", [(2, 6), (6, 2), (1, 1), (3, 4)])
def test_rank_deficient_covariances_agree_with_fifty_digits(ranks):
    # C has eigenvalues that are 0 exactly but 1e-16 in float64; their roots, 1e-8, are the tolerance of the *oracle*.
    a, b = (Moments(normal(r, 6), covariance(r + 7, 6, rank)) for r, rank in enumerate(ranks))
    assert frechet.distance(a, b) == pytest.approx(exact(a, b), abs=2e-6)


def test_orthogonal_supports_have_no_overlap():
    # C_a = diag(1, 4, 0, 0), C_b = diag(0, 0, 9, 16), rotated: the cross term is 0, so d^2 is the sum of the traces
    q, _ = np.linalg.qr(normal(3, 4, 4))
    a, b = (Moments(np.zeros(4), (q * diagonal) @ q.T) for diagonal in ([1., 4, 0, 0], [0, 0, 9., 16]))
    assert frechet.distance(a, b) == pytest.approx(30, rel=1e-14)


@given(mean=st.floats(-9, 9), s=st.floats(0, 9), t=st.floats(0, 9))
def test_one_dimension_is_the_difference_of_means_and_deviations(mean, s, t):
    got = frechet.distance(Moments(np.array([mean]), np.array([[s * s]])), Moments(np.zeros(1), np.array([[t * t]])))
    assert got == pytest.approx(mean ** 2 + (s - t) ** 2, abs=1e-12)


def test_commuting_covariances_compare_deviations_along_shared_axes():
    q, _ = np.linalg.qr(normal(4, 7, 7))
    s, t = np.abs(normal(5, 2, 7))
    shift = normal(6, 7)
    a, b = Moments(shift, (q * s ** 2) @ q.T), Moments(np.zeros(7), (q * t ** 2) @ q.T)
    assert frechet.distance(a, b) == pytest.approx(shift @ shift + ((s - t) ** 2).sum(), rel=1e-13)


def test_translation_adds_its_square_and_rotation_changes_nothing():
    x, y = normal(7, 40, 9), normal(8, 30, 9) * np.linspace(0, 2, 9)       # one constant feature
    shift = normal(9, 9)
    q, _ = np.linalg.qr(normal(10, 9, 9))
    assert frechet.distance(x, x + shift) == pytest.approx(shift @ shift, rel=1e-12)
    base = frechet.distance(x, y)
    assert frechet.distance(x @ q, y @ q) == pytest.approx(base, rel=1e-12)
    assert frechet.distance(x + shift, y + shift) == pytest.approx(base, rel=1e-12)
    assert frechet.distance(3 * x, 3 * y) == pytest.approx(9 * base, rel=1e-12)
    assert frechet.distance(y, x) == pytest.approx(base, rel=1e-12)


@pytest.mark.parametrize("n", [2, 5, 64])
def test_a_set_is_at_no_distance_from_itself_and_never_below_zero(n):
    x = normal(11, n, 20) * 1e3 + 1e5                          # n <= d: rank-deficient; far from the origin
    # cancellation of two traces of about 20e6, each summed to 1e-16 of itself a few dozen times over
    assert 0 <= frechet.distance(x, x[::-1]) <= 1e-6
    assert frechet.distance(np.ones((n, 3)), np.ones((n, 3))) == 0


def test_moments_are_the_unbiased_ones_in_float64():
    x = normal(12, 50, 2, 3).astype(np.float32)
    found = frechet.moments(x)
    flat = x.reshape(50, 6).astype(np.float64)
    means = [float(mpmath.fsum(column) / 50) for column in flat.T.tolist()]
    np.testing.assert_allclose(found.mean, means, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(found.cov, np.cov(flat.T), rtol=1e-13)
    assert found.cov.dtype == np.float64


def test_sets_and_moments_mix():
    x, y = normal(13, 30, 4), normal(14, 20, 4)
    assert frechet.distance(x, frechet.moments(y)) == frechet.distance(x, y)


def test_sampling_bias_is_what_theory_says():
    # d = 1: two samples of n from one Gaussian differ in mean by 2/n and in deviation by 1/n of the variance: 3/n.
    n, repeats = 200, 4000
    z = Key(0).normal((repeats, 2, n, 1))
    values = [frechet.distance(a, b) for a, b in z]
    # each value is about (2 chi2_1 + chi2_1)/n with standard deviation sqrt(2 (2^2 + 1))/n = 3.2/n
    assert np.mean(values) == pytest.approx(3 / n, abs=4 * 3.2 / n / repeats ** .5 + 3 / n ** 2 * 3)


@pytest.mark.parametrize("x, words", [
    (np.ones((1, 3)), "wanted n >= 2"), (np.ones(3), r"shape \(3,\)"), (np.ones((0, 3)), r"shape \(0, 3\)"),
    (np.array([[0, 1.], [0, np.nan]]), "row 1 is not finite")])
def test_sets_without_moments_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        frechet.distance(x, np.ones((4, 3)))


def test_features_of_two_widths_are_refused():
    with pytest.raises(ValueError, match="features of 3 numbers and of 4|of 3 and of 4"):
        frechet.distance(normal(15, 9, 3), normal(16, 9, 4))
