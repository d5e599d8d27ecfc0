"""One noise level: what it says, what it keeps (dtype, place), and what it refuses."""
import math

import numpy as np
import pytest

from refdiff.process.level import Level, expand, ve
from refdiff.process.weights import snr_plus_one


def test_numbers_become_python_numbers():
    level = Level(np.int64(3), np.float64(.8), np.array(.6))
    assert (type(level.t), type(level.alpha), type(level.sigma)) == (int, float, float)
    assert type(Level(1, 1, 0).alpha) is float


def test_snr_lam_and_ratio_agree():
    level = Level(.5, .8, .6)
    assert level.snr == pytest.approx(16 / 9) and level.ratio == pytest.approx(.75)
    assert level.lam == pytest.approx(math.log(level.snr) / 2)
    rows = Level(np.arange(3.), np.array([1., .8, 0.]), np.array([0., .6, 1.]))
    for i in range(3):
        one = Level(i, rows.alpha[i], rows.sigma[i])
        assert (one.snr, one.lam, one.ratio) == (rows.snr[i], rows.lam[i], rows.ratio[i])


@pytest.mark.parametrize("alpha, sigma, snr", [
    (1., 1e-150, 1e300), (1., 1e-155, math.inf), (1., 1e-200, math.inf), (1., 5e-324, math.inf), (1., 0., math.inf),
    (1e-150, 1., 1e-300), (1e-200, 1., 0.), (5e-324, 1., 0.), (0., 1., 0.), (1e10, 1e-320, math.inf),
    (1e-320, 1e10, 0.), (1e-160, 1e-320, math.inf)])
def test_extreme_levels_are_the_same_in_numbers_and_in_arrays_and_never_raise(alpha, sigma, snr):
    one = Level(0, alpha, sigma)
    with np.errstate(all="raise", under="ignore"):
        rows = Level(np.zeros(1), np.array([alpha]), np.array([sigma]))
        assert (one.snr, one.ratio, one.lam) == (rows.snr[0], rows.ratio[0], rows.lam[0])
    assert one.snr == pytest.approx(snr, rel=1e-14)
    assert snr_plus_one(one) == pytest.approx(1 + 1 / snr if snr else math.inf, rel=1e-14)


def test_expand_keeps_the_dtype_of_x():
    for dtype in (np.float32, np.float64):
        x = np.ones((3, 2, 2, 1), dtype)
        for level in (Level(1, .8, .6), Level(1, np.float64(.8), np.float64(.6)), ve(np.array([1., 2., 3.]))):
            alpha, sigma = level.expand(x)
            assert (alpha * x + sigma * x).dtype == dtype
    assert expand(np.array([1., 2., 3.]), x).shape == (3, 1, 1, 1)
    assert type(expand(np.float64(2.), x)) is float


def test_rows_of_a_level():
    level = ve(np.array([1., 2., 3.])).rows(slice(1, 3))
    assert level.sigma.tolist() == [2, 3] == level.t.tolist() and level.alpha.tolist() == [1, 1]
    assert ve(2.0).rows(slice(0, 1)) == ve(2.0)


@pytest.mark.parametrize("alpha, sigma", [(0, 0), (-1, 1), (1, -1), (math.nan, 1), (1, math.inf),
                                          (np.array([1., 0.]), np.array([1., 0.]))])
def test_impossible_levels_are_refused(alpha, sigma):
    with pytest.raises(ValueError, match="finite"):
        Level(np.zeros(np.shape(alpha)), alpha, sigma)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        Level(0, np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="one entry per row"):
        ve(np.ones(2)).expand(np.ones((3, 4)))
