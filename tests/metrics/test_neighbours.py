"""Precision, recall and nearest neighbours against their definitions, spelled out point by point."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refdiff.metrics import neighbours


def slow_share(points, centres, k):
    """The share of points that lie no farther from some centre than its k-th nearest other centre."""
    inside = 0
    for p in points:
        for i, c in enumerate(centres):
            others = sorted(math.dist(c, o) for j, o in enumerate(centres) if j != i)
            if math.dist(p, c) <= others[k - 1] * (1 + 1e-12):
                inside += 1
                break
    return inside / len(points)


@settings(max_examples=30)
@given(seed=st.integers(0, 10 ** 6), m=st.integers(5, 12), n=st.integers(5, 12), k=st.integers(1, 4),
       d=st.integers(1, 3), spread=st.sampled_from([.3, 1., 3.]))
def test_precision_and_recall_are_their_definitions(seed, m, n, k, d, spread):
    rng = np.random.default_rng(seed)
    real, samples = rng.standard_normal((m, d)), spread * rng.standard_normal((n, d))
    precision, recall = neighbours.precision_recall(real, samples, k)
    np.testing.assert_array_equal([precision, recall], [slow_share(samples.tolist(), real.tolist(), k),
                                                        slow_share(real.tolist(), samples.tolist(), k)])


def test_a_set_covers_itself_and_nothing_far_away():
    x = np.random.default_rng(0).standard_normal((50, 8))
    assert neighbours.precision_recall(x, x.copy()) == (1, 1)
    assert neighbours.precision_recall(x, x + 100) == (0, 0)


def test_precision_and_recall_tell_missing_quality_from_missing_variety():
    rng = np.random.default_rng(1)
    real = rng.standard_normal((400, 2)) + np.array([[0, 0], [20, 0]])[np.arange(400) % 2]
    collapsed = rng.standard_normal((400, 2)) * .5                          # one mode of two
    noisy = real + 6 * rng.standard_normal((400, 2))                        # both, blurred
    precision, recall = neighbours.precision_recall(real, collapsed)
    assert precision > .9 and recall < .55
    precision, recall = neighbours.precision_recall(real, noisy)
    assert precision < .5 and recall > .9


def test_duplicates_have_radius_zero_only_when_there_are_more_than_k():
    points = np.array([[0.], [0], [0], [1], [5]])
    assert neighbours.radii(points, 2).tolist() == [0, 0, 0, 1, 5]
    assert neighbours.radii(points, 1).tolist() == [0, 0, 0, 1, 4]
    assert neighbours.radii(points, 3).tolist() == [1, 1, 1, 1, 5]


def test_blocks_do_not_change_the_answer(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((23, 4)), rng.standard_normal((17, 4))
    whole = neighbours.precision_recall(a, b), *neighbours.nearest(a, b)
    monkeypatch.setattr(neighbours, "BLOCK", 40)
    parts = neighbours.precision_recall(a, b), *neighbours.nearest(a, b)
    assert whole[0] == parts[0] and (whole[1] == parts[1]).all() and (whole[2] == parts[2]).all()


def test_nearest_names_the_image_and_a_copy_is_at_zero():
    rng = np.random.default_rng(3)
    training = rng.uniform(-1, 1, (30, 4, 5, 2)).astype(np.float32)
    samples = np.concatenate([training[[7, 19]], training[[4]]])
    samples[2, 1, 1, 0] += np.float32(.25)
    distances, indices = neighbours.nearest(samples, training)
    assert indices.tolist() == [7, 19, 4] and distances[:2].tolist() == [0, 0]
    assert distances[2] == pytest.approx(.25, rel=1e-6)                    # float32 rounding of the added .25
    slow = [min(math.dist(s, t) for t in training.reshape(30, -1).tolist()) for s in samples.reshape(3, -1).tolist()]
    np.testing.assert_allclose(distances, slow, rtol=1e-14)


@pytest.mark.parametrize("call, words", [
    (lambda x: neighbours.radii(x, 5), "k is 5 for 5 points, wanted 1 <= k < 5"),
    (lambda x: neighbours.radii(x, 0), "k is 0"),
    (lambda x: neighbours.nearest(x, x[:, :2]), "vectors of 3 and of 2 numbers|of 3 numbers and of 2|of 3 and of 2"),
    (lambda x: neighbours.nearest(x[:0], x), r"samples have shape \(0, 3\)"),
    (lambda x: neighbours.nearest(x, x * np.nan), "training: row 0 is not finite")])
def test_impossible_questions_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.random.default_rng(4).standard_normal((5, 3)))
