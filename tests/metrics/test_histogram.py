"""Counts over classes, and how far two of them are apart."""
import numpy as np
import pytest

from refdiff.metrics.histogram import class_histogram, total_variation


def test_every_class_is_counted_also_those_nobody_drew():
    assert class_histogram(np.array([3, 1, 3]), 5).tolist() == [0, 1, 0, 2, 0]
    assert class_histogram(np.zeros(0, np.int64), 3).tolist() == [0, 0, 0]


def test_total_variation_is_the_share_that_must_move():
    assert total_variation([1, 1, 2], [10, 10, 20]) == 0
    assert total_variation([5, 0], [0, 2]) == 1
    assert total_variation([3, 1], [1, 1]) == .25


@pytest.mark.parametrize("labels, words", [(np.array([0, 5]), r"labels span 0\.\.5, wanted 0\.\.4"),
                                           (np.array([-1, 2]), r"-1\.\.2"), (np.array([.5]), "wanted integers"),
                                           (np.array([[1]]), r"\(1, 1\), wanted integers \(n,\)")])
def test_labels_outside_the_classes_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        class_histogram(labels, 5)


@pytest.mark.parametrize("p, q", [([1, 2], [1, 2, 3]), ([0, 0], [1, 2]), ([1, 2], [0, 0])])
def test_empty_or_unequal_counts_are_refused(p, q):
    with pytest.raises(ValueError, match="wanted equal classes and at least one label each"):
        total_variation(p, q)
