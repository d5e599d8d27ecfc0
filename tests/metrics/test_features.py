"""The classifier behind the features: its gradient, what it recognises, and the space that it makes."""
import importlib.util
import io
from pathlib import Path

import h5py
import numpy as np
import pytest

from refdiff import data
from refdiff.data import DataError
from refdiff.metrics import features, floors, frechet, neighbours
from refdiff.ops import cross_entropy
from refdiff.params import Layout
from refdiff.rng import Key

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_classifier", DATA / "make_classifier.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def space():
    """(features of the training, of the held-out, and of all digits, their labels)."""
    extract, everything = features.load(), data.digits("all")
    return (extract(data.digits("train").images), extract(data.digits("heldout").images),
            extract(everything.images), everything.labels)


# ---- the network

def test_gradient_is_the_complex_step_derivative():
    net = features.Classifier.make()
    theta = net.layout.init(Key(1), np.float64)
    theta.flat[:] += .1 * Key(2).normal(theta.flat.shape)               # no gain or bias stays at 1 or 0
    x, labels = Key(3).normal((3, 8, 8, 1)), np.array([4, 0, 9])
    (scores, _), saved = net.forward(theta, x)
    _, s_loss = cross_entropy.forward(scores, labels)
    grad = theta.zeros_like()
    dx = net.backward(saved, cross_entropy.backward(s_loss, 1.0), grad)
    for i in range(3):
        direction, xdot = Key(4 + i).normal(theta.flat.shape), Key(14 + i).normal(x.shape)
        moved = theta.with_flat(theta.flat + 1e-30j * direction)
        (scores, _), _ = net.forward(moved, x + 1e-30j * xdot)
        slope = cross_entropy.forward(scores, labels)[0].imag / 1e-30
        assert grad.flat @ direction + (dx * xdot).sum() == pytest.approx(slope, rel=1e-11)


def test_features_agree_with_the_network_spelled_out():
    extract = features.load()
    images = data.digits("heldout").images[:2]
    p = {name: extract.theta[name].astype(np.float64) for name, _ in extract.net.layout.index()}

    def silu(x):
        return x / (1 + np.exp(-x))

    def conv(x, w, b):
        y = np.zeros(x.shape[:3] + b.shape) + b
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for i in range(3):
            for j in range(3):
                y += np.einsum("nhwc,cd->nhwd", padded[:, i:i + 8, j:j + 8], w[i, j])
        return y
    h = silu(conv(silu(conv(images.astype(np.float64), p["conv1.w"], p["conv1.b"])), p["conv2.w"], p["conv2.b"]))
    h = h.reshape(2, -1) @ p["hidden.w"] + p["hidden.b"]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
    f = silu(h * p["norm.gamma"] + p["norm.beta"])
    # float32 sums of 2048 terms against float64: a few 1e-5 of a feature, whose deviation is 1
    np.testing.assert_allclose(extract(images), (f - extract.mean) / extract.scale, atol=1e-4)
    assert (extract.predict(images) == (f @ p["out.w"] + p["out.b"]).argmax(1)).all()


# ---- the shipped weights

def test_at_least_98_percent_of_the_held_out_digits_are_recognised():
    heldout = data.digits("heldout")
    accuracy = (features.load().predict(heldout.images) == heldout.labels).mean()
    assert accuracy >= .98
    with h5py.File(DATA / "digits_features.h5") as file:
        # weights and record belong together; float32 on another machine may turn one doubtful digit
        assert abs(file.attrs["heldout_accuracy"] - accuracy) <= 1.5 / 360


def test_shipped_file_is_small_single_precision_and_indexed():
    path = DATA / "digits_features.h5"
    assert path.stat().st_size < 2 ** 20
    with h5py.File(path) as file:
        assert file["theta"].dtype == np.float32
        assert sum(np.prod(s[s > 0]) for s in file["shapes"][()]) == file["theta"].size
        assert list(file["names"].asstr()) == list(features.Classifier.make().layout.handles)


def test_weights_of_another_network_are_refused(monkeypatch):
    def other():
        layout = Layout()
        layout.add("conv1.w", (3, 3, 1, 7), lambda key, shape: np.zeros(shape))
        return features.Classifier(layout, None, None, None, None, None)
    monkeypatch.setattr(features.Classifier, "make", other)
    with pytest.raises(DataError, match="digits_features.h5: holds the parameters .*make_classifier.py"):
        features.load.__wrapped__()


# ---- the space

def test_features_are_centred_on_the_training_digits_with_one_global_deviation(space):
    train, heldout, _, _ = space
    assert train.dtype == np.float64 and train.shape == (1437, 32)
    assert np.abs(train.mean(axis=0)).max() < 1e-5 and train.std() == pytest.approx(1, abs=1e-5)
    assert np.ptp(train.std(axis=0)) > .1                   # one scale for all, not one for each feature
    assert np.abs(heldout.mean(axis=0)).max() > 1e-3        # and not centred on whatever comes


def test_an_image_has_the_same_features_in_any_company():
    extract, images = features.load(), data.digits("all").images
    some = [0, 511, 512, 1796]
    # float32 sums in another order
    np.testing.assert_allclose(extract(images)[some], extract(images[some]), atol=1e-4)


def test_floors_real_images_and_baseline_are_in_order(space):
    train, heldout, everything, labels = space
    digits = data.digits("train")
    floor = floors.bootstrap(train, 2000, Key(0)).mean()
    real = floors.real_against_real(everything, labels, 2000, Key(1)).mean()
    images, drawn = floors.gaussian_per_class(digits.images, digits.labels, 2000, Key(2), digits.levels)
    baseline = frechet.distance(features.load()(images), train)
    assert 20 * floor < baseline and 2 * real < baseline and 2 * floor < real
    assert frechet.distance(heldout, train) == pytest.approx(real, rel=.3)      # our split is like any other
    precision, recall = neighbours.precision_recall(train, heldout)
    assert precision > .88 and recall > .88
    assert neighbours.precision_recall(train, features.load()(images))[0] < precision - .1


def test_noise_is_seen_long_before_it_hides_the_digit(space):
    digits, extract = data.digits("train"), features.load()
    found = []
    for sigma in (0, .05, .1, .2, .3):
        noisy = data.quantize(digits.images + sigma * Key(3).normal(digits.images.shape, np.float32), 17)
        found.append(frechet.distance(extract(noisy), space[0]))
        assert (extract.predict(noisy) == digits.labels).mean() > .9
    assert found == sorted(found) and found[-1] > 10 * found[1]


@pytest.mark.parametrize("shape, words", [((4, 8, 8), r"\(4, 8, 8\), wanted \(n, 8, 8, 1\)"),
                                          ((4, 28, 28, 1), "8x8 digits only, use raw pixels"),
                                          ((4, 8, 8, 3), "wanted"), ((0, 8, 8, 1), "there are no images")])
def test_other_images_are_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        features.load()(np.zeros(shape))


# ---- the script that made it

def test_training_digits_are_moved_by_whole_pixels_and_nothing_wraps(script):
    images = Key(5).normal((9, 4, 6, 1), np.float32)
    shifts = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    moved = script.moved(images, shifts)
    for image, (down, right), got in zip(images, shifts, moved):
        for row in range(4):
            for column in range(6):
                r, c = row - down, column - right
                inside = 0 <= r < 4 and 0 <= c < 6
                assert got[row, column, 0] == (image[r, c, 0] if inside else -1)


def test_script_learns_repeats_itself_and_writes_what_load_reads(script, tmp_path, monkeypatch):
    digits = data.digits("train")
    net, theta = script.train(digits, Key(6), steps=60)
    assert (script.train(digits, Key(6), steps=60)[1].flat == theta.flat).all()
    extract = script.extractor(net, theta, digits)
    accuracy = (extract.predict(digits.images) == digits.labels).mean()
    assert accuracy > .8
    blob = script.contents(extract, accuracy)
    assert blob == script.contents(extract, accuracy)
    with h5py.File(io.BytesIO(blob)) as file:
        assert file.attrs["heldout_accuracy"] == accuracy
    (tmp_path / "digits_features.h5").write_bytes(blob)
    monkeypatch.setattr(features, "asset", lambda name: tmp_path / name)
    again = features.load.__wrapped__()
    assert (again(digits.images[:9]) == extract(digits.images[:9])).all()
