"""The floors and the baseline: their laws, and that they depend on their key alone."""
import numpy as np
import pytest

from refdiff import data
from refdiff.metrics import floors, frechet
from refdiff.rng import Key


def test_bootstrap_floor_falls_with_n_as_theory_says():
    # In d dimensions of unit variance the means alone differ by d/n, and the covariances by about d (d + 1)/(4 n).
    d = 8
    features = Key(1).normal((3000, d))
    features = (features - features.mean(0)) / features.std(0)
    found = [floors.bootstrap(features, n, Key(2), repeats=30).mean() for n in (200, 800)]
    for n, value in zip((200, 800), found):
        assert value == pytest.approx((d + d * (d + 1) / 4) / n, rel=.15)
    assert 3.4 < found[0] / found[1] < 4.7


def test_bootstrap_draws_with_replacement_from_the_rows():
    features = np.array([[0.], [1.]])
    values = floors.bootstrap(features, 2, Key(3), repeats=40)
    # the draws are 00, 11 (deviation 0, mean off by 1/2: .25 + .5) or 01, 10 (the set itself: 0)
    assert set(np.round(values, 12)) == {0, .75}


def test_real_against_real_is_higher_where_splits_ignore_the_classes():
    labels = np.arange(400) % 4
    centres = np.random.default_rng(4).standard_normal((4, 3)) * 10
    features = centres[labels] + Key(5).normal((400, 3))
    stratified = floors.real_against_real(features, labels, 320, Key(6), repeats=20)
    blind = floors.real_against_real(features, np.zeros(400, int), 320, Key(6), repeats=20)
    assert stratified.shape == (20,) and blind.mean() > 3 * stratified.mean()


def test_real_against_real_falls_with_the_rows_on_both_sides():
    """d + d (d + 1)/4 times the sum of 1/rows: n drawn of 2,400 with replacement (1/n + 1/2400), 600 held out."""
    d = 6
    features = Key(15).normal((3000, d))
    for n in (300, 2000):
        found = floors.real_against_real(features, np.arange(3000) % 3, n, Key(16), repeats=30).mean()
        assert found == pytest.approx((d + d * (d + 1) / 4) * (1 / n + 1 / 2400 + 1 / 600), rel=.15)


def test_real_against_real_without_n_takes_the_training_part_itself():
    d = 6
    found = floors.real_against_real(Key(15).normal((3000, d)), np.arange(3000) % 3, None, Key(16), repeats=30).mean()
    assert found == pytest.approx((d + d * (d + 1) / 4) * (1 / 2400 + 1 / 600), rel=.15)


def test_real_against_real_draws_every_class_in_turn_from_the_training_part(monkeypatch):
    features, labels = np.arange(50.)[:, None], np.array([3, 7, 7, 9, 9] * 10)
    seen = []
    monkeypatch.setattr(frechet, "distance", lambda a, b: seen.append((a, b)) or 0.0)
    floors.real_against_real(features, labels, 30, Key(17), repeats=5)
    for drawn, heldout in seen:
        assert len(heldout) == 10 and not set(drawn.ravel()) & set(heldout.ravel())
        assert np.bincount(labels[drawn.ravel().astype(int)])[[3, 7, 9]].tolist() == [10] * 3


def test_floors_depend_on_their_key_alone():
    x, labels = Key(7).normal((60, 3)), np.arange(60) % 3
    images = Key(8).normal((60, 5, 5, 1))
    for run in (lambda key: floors.bootstrap(x, 40, key, 3), lambda key: floors.real_against_real(x, labels, 40, key),
                lambda key: floors.gaussian_per_class(images, labels, 30, key)[0]):
        first, again, other = run(Key(9)), run(Key(9)), run(Key(10))
        assert (first == again).all() and (first != other).any()
        assert len(np.unique(first.reshape(len(first), -1), axis=0)) == len(first)      # repeats differ


def test_labels_are_balanced_to_within_one():
    assert np.bincount(floors.balanced_labels(2000, 10)).tolist() == [200] * 10
    assert np.bincount(floors.balanced_labels(23, 10)).tolist() == [3] * 3 + [2] * 7


def test_gaussian_per_class_has_each_class_its_mean_and_covariance():
    labels = np.arange(40) % 2
    images = .2 * Key(11).normal((40, 2, 2, 1)) + np.array([-.3, .3])[labels][:, None, None, None]
    images[labels == 1, 0, 0] = .1                                          # constant: the covariance is singular
    samples, drawn = floors.gaussian_per_class(images, labels, 40000, Key(12), levels=0)
    assert samples.dtype == np.float32 and samples.shape == (40000, 2, 2, 1)
    for k in (0, 1):
        x, y = (a.reshape(-1, 4).astype(float) for a in (samples[drawn == k], images[labels == k]))
        assert np.abs(x).max() < 1.0001
        # 20,000 draws of deviation <= .25: means to .25/141, covariances to .09/141; 5 sigma
        np.testing.assert_allclose(x.mean(0), y.mean(0), atol=.009)
        np.testing.assert_allclose(np.cov(x.T), np.cov(y.T), atol=.0035)
    assert np.ptp(samples[drawn == 1][:, 0, 0]) < 1e-6


def test_gaussian_samples_are_clipped_and_rounded_like_the_images():
    digits = data.digits()
    samples, drawn = floors.gaussian_per_class(digits.images, digits.labels, 200, Key(13), digits.levels)
    assert set(np.unique(samples)) <= set(np.arange(17, dtype=np.float32) / 8 - 1)
    assert np.bincount(drawn).tolist() == [20] * 10


def test_a_class_too_small_for_a_covariance_is_named():
    images = Key(14).normal((5, 5, 5, 1))
    for labels in ([0, 0, 1, 2, 2], [0, 0, 2, 2, 2]):
        with pytest.raises(ValueError, match="class 1 has [01] images, wanted at least 2"):
            floors.gaussian_per_class(images, np.array(labels), 10, Key(0))


def test_pixel_floors_of_the_digits_are_in_order():
    train, everything = data.digits("train"), data.digits("all")
    floor = floors.bootstrap(train.images, 2000, Key(15), 3).mean()
    real = floors.real_against_real(everything.images, everything.labels, 2000, Key(16), repeats=3).mean()
    samples, _ = floors.gaussian_per_class(train.images, train.labels, 2000, Key(17), 17)
    assert 0 < floor < real / 3 and floor < frechet.distance(samples, train.images) / 3


def test_classes_draw_their_own_numbers():
    half = Key(18).normal((20, 5, 5, 1)) * .2
    samples, drawn = floors.gaussian_per_class(np.concatenate([half, half]), np.arange(40) // 20, 20, Key(19))
    assert (samples[drawn == 0] != samples[drawn == 1]).all()      # equal images, yet not equal samples
