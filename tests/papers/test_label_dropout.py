"""Labels in training: each is its image's own, or the null class with the probability asked for, on its own."""
from types import SimpleNamespace

import numpy as np
import pytest

from refdiff.fit import Images, TrainConfig
from refdiff.rng import Key

CLASSES, COUNT, BATCH, STEPS = 3, 60, 30, 200
DATASET = SimpleNamespace(images=np.arange(COUNT, dtype=np.float64).reshape(COUNT, 1, 1, 1),     # a pixel: its image
                          labels=np.arange(COUNT) % CLASSES)


def drawn(dropout, classes=CLASSES, key=Key(4)):
    """(the image drawn, its label) for every row of STEPS steps."""
    images = Images(DATASET, 0.0, classes, TrainConfig(batch=BATCH, label_dropout=dropout))
    rows = [images.draw(key, step) for step in range(STEPS)]
    return np.array([x.ravel().astype(int) for x, _ in rows]), [labels for _, labels in rows]


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_labels_are_dropped_to_the_null_row_at_the_rate_asked_for(dropout):
    image, labels = drawn(dropout)
    labels = np.array(labels)
    dropped = labels == CLASSES
    np.testing.assert_array_equal(labels[~dropped], DATASET.labels[image[~dropped]])
    deviation = np.sqrt(dropout * (1 - dropout) / labels.size)
    assert abs(dropped.mean() - dropout) < 5 * deviation
    for k in range(CLASSES):                                             # whatever the class ...
        of_class = dropped[DATASET.labels[image] == k]
        assert abs(of_class.mean() - dropout) < 5 * np.sqrt(dropout * (1 - dropout) / of_class.size)
    both = (dropped[:, 1:] & dropped[:, :-1]).mean()                     # ... and whatever the neighbour
    assert abs(both - dropout ** 2) < 5 * dropout / np.sqrt(labels.size)


def test_all_labels_stay_or_go_at_the_ends():
    image, labels = drawn(0.0)
    np.testing.assert_array_equal(labels, DATASET.labels[image])
    assert np.all(np.array(drawn(1.0)[1]) == CLASSES)


def test_a_network_without_classes_is_told_no_labels():
    assert drawn(0.1, classes=0)[1] == [None] * STEPS


def test_the_images_drawn_do_not_depend_on_the_labels_dropped():
    np.testing.assert_array_equal(drawn(0.0)[0], drawn(0.5)[0])
