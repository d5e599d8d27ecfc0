"""Data sets: one scale, one shape, nothing guessed; batches and splits that depend on their key alone."""
import dataclasses
import importlib.util
import io
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refdiff import data
from refdiff.data import DataError
from refdiff.rng import Key

DATA = Path(__file__).parents[2] / "data"
RNG = np.random.default_rng(21)
FLOATS = RNG.uniform(-1, 1, (4, 6, 7, 3))


# ---- the scale

@pytest.mark.parametrize("levels", [2, 16, 17, 255, 256])
def test_every_grey_level_lies_where_the_formula_says_and_comes_back(levels):
    grey = np.arange(levels, dtype=np.uint8).reshape(1, levels, 1, 1)
    images = data.from_array(grey, levels=levels).images
    exact = np.array([float(2 * Fraction(g, levels - 1) - 1) for g in range(levels)])
    # one rounding of x/half (values up to 2) and one of the subtraction: 2^-24 * 3
    assert np.abs(images.ravel() - exact).max() <= 1.8e-7
    assert images.min() == -1 and images.max() == 1
    assert (data.quantize(images, levels) == images).all()
    assert (np.rint((images.ravel().astype(float) + 1) * (levels - 1) / 2) == grey.ravel()).all()


@given(x=hnp.arrays(st.sampled_from([np.float32, np.float64]), st.integers(1, 9),
                    elements=st.floats(-4, 4, width=32)), levels=st.integers(2, 256))
def test_quantize_goes_to_the_nearest_level_and_stays_there(x, levels):
    before = x.copy()
    y = data.quantize(x, levels)
    grid = [2 * Fraction(g, levels - 1) - 1 for g in range(levels)]
    for got, value in zip(y, x):
        clipped = min(max(Fraction(float(value)), Fraction(-1)), Fraction(1))
        nearest = min(abs(clipped - g) for g in grid)
        assert abs(Fraction(float(got)) - clipped) <= nearest + Fraction(4e-7)      # float32 rounding of 2 g/(L-1) - 1
        assert min(abs(Fraction(float(got)) - g) for g in grid) <= Fraction(2e-7)
    assert y.dtype == x.dtype and (x == before).all() and (data.quantize(y, levels) == y).all()


def test_quantize_without_levels_only_clips():
    assert (data.quantize(np.array([-3., -.123, .5, 2]), 0) == [-1, -.123, .5, 1]).all()
    for levels in (1, -2):
        with pytest.raises(ValueError, match="levels is"):
            data.quantize(FLOATS, levels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_right_range_are_kept(dtype):
    x = FLOATS.astype(dtype)
    found = data.from_array(x)
    assert (found.images == x.astype(np.float32)).all() and found.images.dtype == np.float32 and found.levels == 0
    assert found.shape == (6, 7, 3) and len(found) == 4 and found.labels is None and found.source == "array"


def test_a_grey_axis_is_added_and_an_array_is_not_changed():
    x = FLOATS[..., 0].astype(np.float32)
    found = data.from_array(x)
    assert found.images.shape == (4, 6, 7, 1)
    x[0, 0, 0] = 0.5                                        # still the caller's to write
    with pytest.raises(ValueError, match="read-only"):
        found.images[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.levels = 3


@pytest.mark.parametrize("scale, shift, hint", [(.5, .5, r"x \* 2 - 1"), (127.5, 127.5, r"x / 127.5 - 1"),
                                                (3000, 3000, "high - low"), (1.01, 0, "rescale them")])
def test_floats_in_another_range_are_refused_with_the_formula(scale, shift, hint):
    with pytest.raises(DataError, match=rf"array: float images span .*\[-1, 1\].*{hint}"):
        data.from_array(FLOATS * scale + shift)


def test_a_range_of_zero_to_one_is_not_guessed_but_can_be_meant():
    x = np.abs(FLOATS)
    with pytest.raises(DataError, match="cannot be told apart; rescale by .*levels=0"):
        data.from_array(x)
    assert (data.from_array(x, levels=0).images == x.astype(np.float32)).all()
    assert data.from_array(data.quantize(x, 17), levels=17).levels == 17


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_place(value):
    x = FLOATS.copy()
    x[2, 3, 4, 1] = value
    with pytest.raises(DataError, match=r"image value -?(nan|inf) at \(2, 3, 4, 1\)"):
        data.from_array(x)


@pytest.mark.parametrize("x, words", [
    (np.zeros((4, 6, 7), np.int64), "images are int64, wanted uint8"),
    (np.zeros((4, 6, 7), bool), "images are bool"),
    (np.zeros((4, 6, 7), complex), "images are complex128"),
    (np.array([np.zeros(2), np.zeros(3)], dtype=object), "different sizes"),
    (np.zeros((4, 64), np.uint8), r"\(4, 64\).*reshape the rows"),
    (np.zeros((2, 4, 6, 7, 3), np.uint8), "wanted .n, h, w."),
    (np.uint8(3), r"shape \(\)"),
    (np.zeros((0, 8, 8), np.uint8), "there are none"),
    (np.zeros((4, 8, 0, 1), np.uint8), "there are none"),
    (np.zeros((32, 32, 3), np.uint8), r"one colour image.*x\[None\]"),
    (np.zeros((5, 3, 32, 32), np.uint8), r"channels-first.*transpose\(0, 2, 3, 1\)")])
def test_arrays_of_another_kind_or_shape_are_refused(x, words):
    with pytest.raises(DataError, match=words):
        data.from_array(x)


def test_grey_levels_are_checked():
    x = np.full((2, 5, 5), 17, np.uint8)
    with pytest.raises(DataError, match=r"a grey level is 17, wanted 0\.\.16"):
        data.from_array(x, levels=17)
    for levels in (-1, 1, 257):
        with pytest.raises(DataError, match="grey levels, wanted 2..256"):
            data.from_array(x, levels=levels)


# ---- labels

def test_labels_become_int64_with_names():
    found = data.from_array(FLOATS, np.array([0, 2, 2, 1], np.uint8))
    assert found.labels.dtype == np.int64 and found.classes == ("0", "1", "2")
    part = found.take([2, 0])
    assert (part.labels == [2, 0]).all() and (part.images == found.images[[2, 0]]).all()
    assert part.classes == found.classes and data.from_array(FLOATS).take([1]).labels is None


@pytest.mark.parametrize("labels, classes, words", [
    ([0, 1, 2], None, r"labels have shape \(3,\), wanted \(4,\)"),
    ([[0], [1], [2], [0]], None, r"labels have shape \(4, 1\)"),
    ([0, 1, -1, 0], None, "label -1 at 2"),
    ([0, 1, 2, 3], ("a", "b", "c"), r"label 3 at 3, wanted 0\.\.2"),
    (np.array([0, 1, 2, 2 ** 64 - 1], np.uint64), None, "label 18446744073709551615 at 3"),
    ([0., 1., 2., 3.], None, "labels are float64, wanted integers"),
    (["a", "b", "c", "d"], None, "wanted integers"),
    ([True, False, True, True], None, "labels are bool")])
def test_wrong_labels_are_refused(labels, classes, words):
    with pytest.raises(DataError, match=words):
        data.from_array(FLOATS, labels, classes=classes)


# ---- the digits

def test_digits_are_the_ones_scikit_learn_ships():
    from sklearn.datasets import load_digits
    theirs = load_digits()
    ours = data.digits("all")
    assert ((ours.images[..., 0] + 1) * 8 == theirs.images).all()         # multiples of 1/8: exact
    assert (ours.labels == theirs.target).all()
    assert ours.levels == 17 and ours.classes == tuple("0123456789") and ours.shape == (8, 8, 1)


def test_the_split_is_stratified_and_complete():
    train, heldout, everything = (data.digits(split) for split in ("train", "heldout", "all"))
    assert (len(train), len(heldout), len(everything)) == (1437, 360, 1797)
    counts = [np.bincount(d.labels) for d in (train, heldout, everything)]
    assert (counts[0] + counts[1] == counts[2]).all()
    assert (np.abs(counts[1] - counts[2] * 360 / 1797) < 1).all()
    rows = [{d.images[i].tobytes() for i in range(len(d))} for d in (train, heldout, everything)]
    assert rows[0] | rows[1] == rows[2] and not rows[0] & rows[1]


def test_digits_file_says_where_it_comes_from_and_is_written_by_its_script():
    spec = importlib.util.spec_from_file_location("make_digits", DATA / "make_digits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = script.contents()
    assert written == script.contents()                     # the same bytes on every run
    with h5py.File(DATA / "digits.h5") as shipped, h5py.File(io.BytesIO(written)) as again:
        assert "CC BY 4.0" in shipped.attrs["licence"] and "10.24432/C50P49" in shipped.attrs["citation"]
        assert "UCI" in shipped.attrs["origin"] and shipped.attrs["grey_levels"] == 17
        assert shipped.keys() == again.keys() and shipped.attrs.keys() == again.attrs.keys()
        assert all((shipped[name][()] == again[name][()]).all() for name in shipped)
        assert all(np.all(shipped.attrs[name] == again.attrs[name]) for name in shipped.attrs)


def test_a_split_must_be_there_and_well_formed(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((4, 6, 7), np.uint8)
    for split in ("train", "heldout"):
        with pytest.raises(DataError, match=f"x.h5: holds no split, so no '{split}' part"):
            data.load(path, split=split)
    with h5py.File(path, "a") as file:
        file["heldout"] = np.array([0, 1, 1, 0])
    with pytest.raises(DataError, match=r"heldout is int64 \(4,\), wanted bool \(4,\)"):
        data.load(path, split="train")
    with pytest.raises(ValueError, match="split is 'test', wanted 'train', 'heldout' or 'all'"):
        data.digits("test")


def test_assets_are_found_in_the_source_tree_and_missing_ones_named():
    assert data.asset("digits.h5").samefile(DATA / "digits.h5") or data.asset("digits.h5").parent.name == "assets"
    with pytest.raises(FileNotFoundError, match="nothing.h5: not among refdiff's files; looked in .*data"):
        data.asset("nothing.h5")


# ---- batches and splits

@given(n=st.integers(1, 40), batch=st.integers(1, 60), epochs=st.integers(1, 4), seed=st.integers(0, 9))
def test_every_image_is_seen_once_per_epoch(n, batch, epochs, seed):
    key = Key(seed)
    steps = -(-n * epochs // batch)
    stream = np.concatenate([data.batch_indices(key, step, n, batch) for step in range(steps)])
    assert stream.shape == (steps * batch,)
    for epoch in range(epochs):
        assert sorted(stream[epoch * n:(epoch + 1) * n]) == list(range(n))


def test_batches_are_a_function_of_their_step_and_shuffled_anew():
    key = Key(5).fold("batches")
    forward = [data.batch_indices(key, step, 100, 30) for step in range(12)]
    backward = [data.batch_indices(Key(5, ("batches",)), step, 100, 30) for step in reversed(range(12))][::-1]
    assert all((a == b).all() for a, b in zip(forward, backward))
    stream = np.concatenate(forward)
    assert (stream[:100] != stream[100:200]).any() and (stream[:100] != np.arange(100)).any()
    assert (forward[0] != data.batch_indices(Key(6).fold("batches"), 0, 100, 30)).any()
    for step, n, batch in ((-1, 5, 2), (0, 0, 2), (0, 5, 0)):
        with pytest.raises(ValueError, match="batch_indices: step"):
            data.batch_indices(key, step, n, batch)


@given(labels=hnp.arrays(np.int64, st.integers(2, 60), elements=st.integers(0, 5)),
       fraction=st.floats(.01, .99), seed=st.integers(0, 9))
def test_stratified_split_keeps_the_shares(labels, fraction, seed):
    kept, heldout = data.stratified_split(labels, fraction, Key(seed))
    n = len(labels)
    assert sorted([*kept, *heldout]) == list(range(n)) and len(heldout) == round(fraction * n)
    for label in np.unique(labels):
        share = Fraction(int((labels == label).sum()) * len(heldout), n)
        assert abs((labels[heldout] == label).sum() - share) < 1
    again = data.stratified_split(labels, fraction, Key(seed))
    assert (again[0] == kept).all() and (again[1] == heldout).all()


def test_stratified_splits_differ_by_key_and_refuse_a_bad_fraction():
    labels = np.arange(50) % 5
    a, b = (data.stratified_split(labels, .2, Key(seed))[1] for seed in (0, 1))
    assert (a != b).any()
    for fraction in (0, 1, -.1, 1.5):
        with pytest.raises(ValueError, match="fraction"):
            data.stratified_split(labels, fraction, Key(0))
