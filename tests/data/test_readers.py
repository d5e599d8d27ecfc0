"""Every file format is read as written, and every damaged, foreign or dangerous file is refused by name."""
import gzip
import io
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from refdiff import data
from refdiff.data import DataError

RNG = np.random.default_rng(20)
GREY = RNG.integers(0, 256, (6, 7, 5), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2])
FLOATS = RNG.uniform(-1, 1, (6, 7, 5, 2))


def idx(array):
    """The IDX bytes of a uint8 array, from the format's description."""
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def refused(path, *words, labels=None):
    """load(path) raises DataError whose text has the file's name and all `words`."""
    with pytest.raises(DataError) as error:
        data.load(path, labels)
    for word in (path.name, *words):
        assert word in str(error.value), f"{word!r} is not in: {error.value}"


def same(dataset, images, labels=None, levels=256):
    """The data set holds these uint8 images, scaled, and labels."""
    images = images[..., None] if images.ndim == 3 else images
    np.testing.assert_allclose(dataset.images, images / np.float64((levels - 1) / 2) - 1, atol=1.2e-7)
    assert dataset.images.dtype == np.float32 and dataset.levels == levels
    if labels is None:
        assert dataset.labels is None and dataset.classes == ()
    else:
        assert dataset.labels.dtype == np.int64 and (dataset.labels == labels).all()


# ---- formats

@pytest.mark.parametrize("images", [GREY, RGB], ids=["grey", "rgb"])
def test_npy_is_read(tmp_path, images):
    np.save(tmp_path / "x.npy", images)
    same(data.load(tmp_path / "x.npy"), images)
    same(data.load(str(tmp_path / "x.npy"), LABELS), images, LABELS)


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed, h5])
def test_named_arrays_are_read(tmp_path, names, write):
    path = tmp_path / ("x.h5" if write is h5 else "x.npz")
    write(path, **dict(zip(names, (RGB, LABELS))), other=np.zeros(3))
    same(data.load(path), RGB, LABELS)


@pytest.mark.parametrize("write", [np.savez, h5])
def test_a_single_array_needs_no_name(tmp_path, write):
    path = tmp_path / ("x.h5" if write is h5 else "x.npz")
    write(path, whatever=GREY)
    same(data.load(path), GREY)


def test_format_is_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "digits.dat"
    with open(path, "wb") as stream:
        np.save(stream, GREY)
    same(data.load(path), GREY)


def test_labels_can_come_from_any_file(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    np.save(tmp_path / "y.npy", LABELS)
    np.savez(tmp_path / "y.npz", images=GREY, labels=LABELS)
    h5(tmp_path / "y.h5", x=GREY, y=LABELS)
    (tmp_path / "y-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8)))
    for name in ("y.npy", "y.npz", "y.h5", "y-idx1-ubyte"):
        same(data.load(tmp_path / "x.npy", tmp_path / name), GREY, LABELS)
    with pytest.raises(DataError, match="labels are in a folder"):
        data.load(tmp_path / "x.npy", tmp_path)


@pytest.mark.parametrize("images, labels", [
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"),
    ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte.gz"),
    ("emnist-letters-train-images-idx3-ubyte", None)])
def test_idx_is_read_with_the_labels_beside_it(tmp_path, images, labels):
    for name, array in ((images, GREY), (labels, LABELS.astype(np.uint8))):
        if name:
            (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))
    same(data.load(tmp_path / images), GREY, LABELS if labels else None)


def test_sample_files_are_read_back_as_saved(tmp_path):
    path = tmp_path / "samples.h5"
    images = data.quantize(np.abs(FLOATS), 17)             # never negative: the levels say that this is [-1, 1]
    data.save(path, images, LABELS, levels=17, sampler="ddim", seed=3)
    found = data.load(path)
    assert (found.images == images.astype(np.float32)).all() and (found.labels == LABELS).all()
    assert found.levels == 17 and found.classes == ("0", "1", "2") and found.source == str(path)
    first = path.read_bytes()
    data.save(path, images, LABELS, levels=17, sampler="ddim", seed=3)
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]
    with h5py.File(path) as file:                           # nor will the bytes differ a second later
        assert all(h5py.h5g.get_objinfo(file.id, name.encode()).mtime == 0 for name in file)


def test_grey_levels_and_classes_of_a_file_are_used(tmp_path):
    path = h5(tmp_path / "x.h5", images=GREY % 17, labels=LABELS)
    with h5py.File(path, "a") as file:
        file.attrs["grey_levels"] = 17
        file.attrs["classes"] = ["a", "b", "c", "d"]
    found = data.load(path)
    same(found, GREY % 17, LABELS, levels=17)
    assert found.classes == ("a", "b", "c", "d")
    with h5py.File(path, "a") as file:
        file.attrs["grey_levels"] = "many"
    refused(path, "grey_levels", "many", "one integer")


# ---- folders of pictures

def pictures(folder, images, mode=None, suffix=".png"):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).convert(mode).save(folder / f"{i:03d}{suffix}")
    return folder


@pytest.mark.parametrize("images", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_folder_of_pictures_is_read_in_order(tmp_path, images, suffix):
    pictures(tmp_path, images, suffix=suffix)
    (tmp_path / "notes.txt").write_text("left alone")
    (tmp_path / ".hidden").mkdir()
    same(data.load(tmp_path), images)


def test_subfolders_are_classes_in_sorted_order(tmp_path):
    for name, rows in (("b", slice(2, 6)), ("a", slice(0, 2))):
        pictures(tmp_path / name, GREY[rows])
    found = data.load(tmp_path)
    same(found, GREY, [0, 0, 1, 1, 1, 1])
    assert found.classes == ("a", "b")


def test_palette_and_bilevel_pictures_are_converted(tmp_path):
    grey = np.repeat(np.uint8([[0, 255]]), 6, axis=0).repeat(3, axis=1)
    pictures(tmp_path / "one", [grey], mode="1")
    same(data.load(tmp_path / "one"), grey[None])
    found = data.load(pictures(tmp_path / "p", [np.stack([grey] * 3, -1)], mode="P"))
    assert found.shape == (6, 6, 3)


def test_camera_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                        # stored a quarter turn to the left
    Image.fromarray(np.rot90(GREY[0]).copy()).save(tmp_path / "a.png", exif=exif)
    same(data.load(tmp_path), GREY[:1])


def test_folder_errors_name_the_picture(tmp_path):
    folder = pictures(tmp_path / "x", GREY[:2])
    Image.fromarray(GREY[0].T.copy()).save(folder / "002.png")
    with pytest.raises(DataError, match=r"002\.png: picture is 5 x 7 \(grey\), but 000\.png is 7 x 5 \(grey\)"):
        data.load(folder)
    Image.fromarray(RGB[0]).save(folder / "002.png")
    with pytest.raises(DataError, match=r"002\.png: picture is 7 x 5 \(RGB\), but 000\.png is 7 x 5 \(grey\)"):
        data.load(folder)
    whole = (folder / "000.png").read_bytes()
    (folder / "002.png").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(DataError, match=r"002\.png: cannot be read as a picture, it is truncated or damaged"):
        data.load(folder)
    (folder / "002.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"002\.png: cannot be read"):
        data.load(folder)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I;16", "F"])
def test_transparent_and_deep_pictures_are_refused(tmp_path, mode):
    Image.new(mode, (5, 5)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="a.tif: picture has mode .*wanted grey"):
        data.load(tmp_path)


def test_palette_with_transparency_is_refused(tmp_path):
    Image.fromarray(GREY[0]).convert("P").save(tmp_path / "a.png", transparency=0)
    with pytest.raises(DataError, match="a.png: picture has mode P"):
        data.load(tmp_path)


def test_animated_pictures_are_refused(tmp_path):
    frames = [Image.fromarray(image) for image in GREY[:2]]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="a.tif: holds 2 frames"):
        data.load(tmp_path)


def test_folder_layouts_that_say_nothing_are_refused(tmp_path):
    refused(tmp_path, "no pictures in this folder")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="train: no pictures for this class"):
        data.load(tmp_path)
    pictures(tmp_path / "train" / "cats", GREY)
    with pytest.raises(DataError, match="train: a class folder holds folders \\(cats\\)"):
        data.load(tmp_path)
    pictures(tmp_path, GREY)
    refused(tmp_path, "holds pictures and folders (train)")


# ---- what is refused

def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npy: there is no such file or folder"):
        data.load(tmp_path / "nowhere.npy")


class Bomb:
    """Unpickling this would run code."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickles_are_refused_unopened(tmp_path):
    objects = np.array([Bomb(), Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=objects)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(GREY))
    for name in ("a.npy", "a.npz", "a.pkl", "b.npy"):
        refused(tmp_path / name, "pickle", "refused", "allow_pickle=False")
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(DataError, match="a.npy: .*pickle"):
        data.load(tmp_path / "x.npy", tmp_path / "a.npy")


@pytest.mark.parametrize("name, content, words", [
    ("a.npy", b"", ("empty", "0 bytes")),
    ("a.csv", b"1,2,3\n", ("no format known here",)),
    ("a.png", b"\x89PNG\r\n\x1a\n...", ("one picture", "folder"))])
def test_other_files_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *words)


@pytest.mark.parametrize("write", [np.savez, h5])
def test_unclear_or_empty_archives_list_what_they_hold(tmp_path, write):
    path = tmp_path / ("x.h5" if write is h5 else "x.npz")
    write(path, x_train=GREY, y_train=LABELS)
    refused(path, "images or x", "x_train, y_train")
    write(path)
    refused(path, "images or x", "nothing")


def test_npy_that_promises_more_than_it_holds_is_refused_without_allocating(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10 ** 9, 99, 99)})
    (tmp_path / "x.npy").write_bytes(stream.getvalue() + b"\x00" * 100)
    refused(tmp_path / "x.npy", "truncated or damaged")


@pytest.mark.parametrize("content, words", [
    (idx(GREY)[:3], ("not an IDX file",)),
    (idx(GREY)[:9], ("truncated IDX header", "9 bytes", "wanted 16")),
    (idx(GREY)[:-1], ("truncated", "225 bytes, wanted 226", "(6, 7, 5)")),
    (idx(GREY) + b"\x00", ("too long", "227 bytes, wanted 226")),
    (b"\x00\x00\x0d" + idx(GREY)[3:], ("type 0x0d", "0x08")),
    (idx(LABELS.astype(np.uint8)), ("1 axes (labels)", "give the images file")),
    (idx(GREY[0]), ("2 axes", "3 or 4")),
    (idx(GREY[:0]), ("(0, 7, 5)", "there are none")),
    (b"\x00\x00\x08\x03" + b"\xff" * 12 + b"\x00", ("truncated", "4294967295")),
    (gzip.compress(idx(GREY), mtime=0)[:-9], ("gzip", "truncated or damaged")),
    (gzip.compress(idx(GREY), mtime=0) + b"junk", ("gzip", "truncated or damaged")),
    (gzip.compress(b"text", mtime=0), ("not an IDX file",))])
def test_broken_idx_is_refused(tmp_path, content, words):
    (tmp_path / "x-images-idx3-ubyte").write_bytes(content)
    refused(tmp_path / "x-images-idx3-ubyte", *words)


def test_idx_labels_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx(GREY))
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8)[:4]))
    refused(tmp_path / "a-images-idx3-ubyte", "labels have shape (4,)", "wanted (6,)")
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(idx(GREY))
    with pytest.raises(DataError, match="a-labels-idx1-ubyte: IDX array has 3 axes"):
        data.load(tmp_path / "a-images-idx3-ubyte")


def written(folder, kind):
    """A valid small file of a kind, as (path, the bytes)."""
    path = folder / f"x.{kind}"
    if kind == "npy":
        np.save(path, GREY)
    elif kind == "npz":
        np.savez_compressed(path, images=GREY, labels=LABELS)
    elif kind == "h5":
        h5(path, images=GREY, labels=LABELS)
    else:
        path.write_bytes(gzip.compress(idx(GREY)) if kind == "gz" else idx(GREY))
    return path, path.read_bytes()


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "idx", "gz"])
@settings(max_examples=25, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_always_refused(tmp_path_factory, kind, where):
    path, whole = written(tmp_path_factory.mktemp("cut"), kind)
    path.write_bytes(whole[:int(where * len(whole))])
    refused(path)


@pytest.mark.parametrize("kind", ["npy", "npz", "idx", "gz"])
@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_mutated_file_is_read_or_refused_never_worse(tmp_path_factory, kind, where, flip):
    path, whole = written(tmp_path_factory.mktemp("flip"), kind)
    mutated = bytearray(whole)
    mutated[int(where * len(whole))] ^= flip
    path.write_bytes(mutated)
    try:
        found = data.load(path)
    except DataError as error:
        assert path.name in str(error)
    else:
        assert np.isfinite(found.images).all() and np.abs(found.images).max() <= 1
        assert kind != "gz" or (found.images == data.from_array(GREY).images).all()      # its checksum holds


def test_a_damaged_h5_is_refused(tmp_path):
    path, whole = written(tmp_path, "h5")
    for start in range(8, 96, 8):                           # the superblock, where everything is found from
        path.write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8:])
        try:
            same(data.load(path), GREY, LABELS)             # bytes the format leaves unused
        except DataError as error:
            assert "x.h5" in str(error)
    path.write_bytes(whole[:8] + b"\xff" * (len(whole) - 8))
    refused(path, "HDF5", "truncated or damaged")


def test_an_npz_with_one_array_damaged_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00not a header")
    refused(path, ".npz", "truncated or damaged")
