"""The blocks that fast routes work in: every row of every image once, as few blocks as fit, and even ones."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.ops.fast.blocks import blocks, evenly


@given(st.integers(0, 70), st.integers(1, 40), st.integers(1, 50), st.integers(1, 3000))
def test_every_row_is_in_one_block_and_no_block_is_larger_than_asked(n, rows, width, most):
    met = [(i, r) for images, part in blocks(n, rows, width, most)
           for i in range(images.start, images.stop) for r in range(part.start, part.stop)]
    assert met == [(i, r) for i in range(n) for r in range(rows)]
    for images, part in blocks(n, rows, width, most):
        many, some = images.stop - images.start, part.stop - part.start
        assert many * some * width <= most or many == some == 1
        assert some == rows or many == 1


@given(st.integers(1, 500), st.integers(1, 100))
def test_there_are_as_few_as_fit_and_fewer_in_each_would_make_more(n, most):
    sizes = [part.stop - part.start for part in evenly(n, most)]
    assert len(sizes) == -(-n // most) and max(sizes) == sizes[0] <= most
    assert sizes[:-1] == sizes[:1] * (len(sizes) - 1) and 0 < sizes[-1]
    assert (sizes[0] - 1) * len(sizes) < n


@pytest.mark.parametrize("n,most,sizes", [(64, 43, [32, 32]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1]), (0, 5, [])])
def test_known_cuts(n, most, sizes):
    assert [part.stop - part.start for part in evenly(n, most)] == sizes
