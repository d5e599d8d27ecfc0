"""Scratch memory: one place by name and thread, whatever the shape; views are remembered, memory given up is let go."""
import threading
import weakref

import numpy as np
import pytest

from refdiff.ops.fast import scratch as room
from refdiff.ops.fast.scratch import LINE, apart, scratch


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(room, "_kept", room._Kept())


def address(array):
    return array.__array_interface__["data"][0]


def test_a_name_is_one_place_for_every_shape_and_dtype_and_names_lie_apart():
    large = scratch("a", (4, 8), np.float32)
    for shape, dtype in (((4, 8), np.float32), ((8,), np.float32), ((2, 4), np.float64), ((), np.int16)):
        again = scratch("a", shape, np.dtype(dtype))
        assert again.shape == shape and again.dtype == dtype and address(again) == address(large)
        assert again.flags.c_contiguous and again.flags.writeable
    other = scratch("b", (4, 8), np.float32)
    assert not np.shares_memory(large, other) and address(large) % LINE == address(other) % LINE == 0


def test_a_view_is_made_once_and_not_outlived_by_smaller_memory():
    small = scratch("a", (10,), np.float32)
    assert scratch("a", (10,), np.float32) is small and scratch("a", (5, 2), np.float32) is not small
    gone = weakref.ref(small.base)
    large = scratch("a", (11,), np.float32)
    assert scratch("a", (10,), np.float32) is not small and np.shares_memory(scratch("a", (10,), np.float32), large)
    del small
    assert gone() is None


def test_entries_end_a_line_before_the_next_begins_and_are_new_where_they_have_no_name():
    for shape, dtype in (((4, 16), np.float32), ((3,), np.float64)):
        found = apart("a", 5, shape, dtype)
        assert found.shape == (5, *shape) and found.dtype == dtype and found[0].flags.c_contiguous
        assert found.strides[0] == found[0].nbytes + LINE and address(found) % LINE == 0
        assert apart("a", 5, shape, dtype) is found
    assert apart("a", 6, (3,), np.float64).shape == (6, 3)
    fresh = [apart(None, 5, (4, 16), np.float32) for _ in range(2)]
    assert not np.shares_memory(*fresh) and fresh[0].strides == apart("a", 5, (4, 16), np.float32).strides


def test_threads_have_memory_of_their_own():
    found = {}

    def ask(who):
        found[who] = scratch("a", (100,), np.float32)
        found[who][...] = who

    for who in (1, 2):
        thread = threading.Thread(target=ask, args=(who,))
        thread.start()
        thread.join()
    ask(3)
    assert [set(found[who]) for who in (1, 2, 3)] == [{1.0}, {2.0}, {3.0}]


def test_only_so_many_views_are_remembered(monkeypatch):
    monkeypatch.setattr(room, "VIEWS", 5)
    scratch("a", (100,), np.uint8)
    for n in range(100):
        assert scratch("a", (n,), np.uint8).shape == (n,) and apart("b", 2, (n,), np.uint8).shape == (2, n)
        assert len(room._kept.views) <= 5
