"""Maps from denoisers to denoisers."""
import numpy as np
import pytest

from refdiff.process.level import ve
from refdiff.process.maps import in_batches
from refdiff.process.parameterization import Prediction


def test_batches_change_nothing_but_the_rows_seen_at_once():
    seen = []

    def denoiser(x, level):
        seen.append(len(x))
        alpha, sigma = level.expand(x)
        return Prediction("eps", x / (alpha + sigma), x, level)

    x = np.random.default_rng(1).standard_normal((7, 2))
    for level in (ve(2.0), ve(np.arange(1., 8.))):
        whole = denoiser(x, level)
        seen.clear()
        parts = in_batches(denoiser, 3)(x, level)
        assert seen == [3, 3, 1] and parts.kind == "eps" and parts.x is x and parts.level is level
        np.testing.assert_array_equal(parts.value, whole.value)


def test_batches_of_no_rows_are_refused():
    for rows in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="wanted an integer >= 1"):
            in_batches(None, rows)
