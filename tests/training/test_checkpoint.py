"""Checkpoints: bit for bit there and back, whole after SIGKILL at any moment, and errors that say what is wrong."""
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as arrays_of

from refdiff import backend, checkpoint
from refdiff.checkpoint import Checkpoint, CheckpointError
from refdiff.params import Layout
from refdiff.rng import Key

ROOT = Path(checkpoint.__file__).resolve().parents[1]


def network(*parameters):
    layout = Layout()
    for name, shape in parameters:
        layout.add(name, shape, lambda key, shape: key.normal(shape))
    return layout


LAYOUT = network(("in.w", (3, 4)), ("in.b", (4,)), ("scale", ()), ("out.w", (4, 2)))


def example(step=7):
    theta = LAYOUT.init(Key(3).fold(step)).flat
    return Checkpoint("training", {"train": {"lr": .1, "steps": 10}, "model": {"channels": [16, 32], "name": "unet"}},
                      LAYOUT.index(), {"theta": theta, "ema": theta * .5, "m": theta * .25, "v": theta * theta},
                      step, 2 ** 40 + 1, {"loss": np.linspace(2, 1, step)}, {"mean": np.arange(64.).reshape(8, 8)})


def equal(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape
                                        and a[k].tobytes() == b[k].tobytes() for k in a)


def test_everything_in_a_checkpoint_comes_back_to_the_bit(tmp_path):
    saved = example()
    checkpoint.save_checkpoint(tmp_path / "a.h5", saved)
    c = checkpoint.load_checkpoint(tmp_path / "a.h5", "training")
    assert (c.kind, c.config, c.index, c.step, c.seed) == ("training", saved.config, LAYOUT.index(), 7, 2 ** 40 + 1)
    assert equal(c.vectors, saved.vectors) and equal(c.history, saved.history) and equal(c.extras, saved.extras)
    theta = c.parameters(LAYOUT, "ema")
    assert np.array_equal(theta["in.w"], saved.vectors["ema"][:12].reshape(3, 4)) and theta.flat.dtype == np.float32


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "a b", "é"]), arrays_of.arrays(
    st.sampled_from(["?", "u1", "<i8", ">i4", "<f2", "<f4", ">f8", "<c16"]), arrays_of.array_shapes(
        min_dims=0, max_dims=3, min_side=0, max_side=3))),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False),
                                                   st.text(), st.none(), st.lists(st.booleans()))))
def test_any_numbers_and_any_json_come_back_to_the_bit(tmp_path, arrays, meta):
    checkpoint.save(tmp_path / "any.h5", arrays, meta, kind="odd")
    got, got_meta = checkpoint.load(tmp_path / "any.h5", "odd")
    assert equal(got, arrays) and got_meta == meta


def test_nan_payloads_signed_zeros_and_memory_layout_survive(tmp_path):
    x = np.array([0x7ff8000000000123, 0xfff0000000000000, 0x8000000000000000, 1], np.uint64).view(np.float64)
    strided = np.arange(24.).reshape(4, 6)[::2, ::-1].T
    checkpoint.save(tmp_path / "x.h5", {"x": x, "strided": strided})
    got = checkpoint.load(tmp_path / "x.h5")[0]
    assert got["x"].tobytes() == x.tobytes() and np.array_equal(got["strided"], strided)


def test_equal_content_gives_equal_files(tmp_path):
    for name in "a.h5", "b.h5":
        checkpoint.save_checkpoint(tmp_path / name, example())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


# ---- killed at any moment

SUPERVISOR = """
import os, random, signal, sys, time
import numpy as np
from pathlib import Path
from refdiff import checkpoint

def naive(path, arrays, meta):                       # the mutant: writes over the old file
    with checkpoint.h5py.File(path, "w") as file:
        for name, x in arrays.items():
            file.create_dataset(name, data=x)
        file.flush()
        file.attrs.update(refdiff_format=1, refdiff_version="0", kind="arrays")
        text = checkpoint._json(meta)
        file.attrs["digest"] = checkpoint._digest(arrays, text, "arrays")
        file.create_dataset("refdiff/meta", data=text)

save = {"save": checkpoint.save, "naive": naive}[sys.argv[1]]
path, rounds = Path(sys.argv[2]), int(sys.argv[3])

def content(k):
    return {"x": np.full(200_000, k, np.float32), "y": np.full((50, 50), -k)}, {"k": k}

random.seed(1)
save(path, *content(0))
last = interrupted = 0
for _ in range(rounds):
    pid = os.fork()
    if not pid:
        try:
            for k in range(last + 1, 10 ** 6):
                save(path, *content(k))
        finally:
            os._exit(1)
    time.sleep(random.uniform(.005, .04))
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "the saving process ended by itself"
    interrupted += bool(list(path.parent.glob(".*.partial")))
    arrays, meta = checkpoint.load(path)
    k = meta["k"]
    assert k >= last and (arrays["x"] == k).all() and (arrays["y"] == -k).all(), (k, last)
    last = k
checkpoint.save(path, *content(last))
print(last, interrupted, len(list(path.parent.iterdir())))
"""


def supervise(save, path, rounds):
    return subprocess.run([sys.executable, "-c", SUPERVISOR, save, str(path), str(rounds)], cwd=ROOT, text=True,
                          capture_output=True, timeout=120, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


def test_a_process_killed_while_saving_leaves_the_old_file_or_the_new_one(tmp_path):
    run = supervise("save", tmp_path / "c.h5", 40)
    assert run.returncode == 0, run.stderr
    saves, interrupted, files = map(int, run.stdout.split())
    assert saves > 0 and interrupted >= 5, f"{saves} saves, {interrupted} of 40 kills met one: the test proves little"
    assert files == 1, "the next save clears what a killed one left"


def test_the_kill_test_catches_a_save_that_writes_over_the_old_file(tmp_path):
    run = supervise("naive", tmp_path / "c.h5", 40)
    assert run.returncode != 0 and "CheckpointError" in run.stderr, run.stdout + run.stderr


def test_the_file_is_on_the_disk_before_it_takes_the_name_and_the_folder_after(tmp_path, monkeypatch):
    happened, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("rename"), replace(a, b)))
    checkpoint.save(tmp_path / "c.h5", {"x": np.ones(3)})
    first, *rest = happened
    assert Path(first).parent == tmp_path and first.endswith(".partial") and rest == ["rename", str(tmp_path)]


def test_a_full_disk_that_hdf5_meets_on_closing_is_an_oserror(tmp_path):
    """A limit on the size of a file stands for the disk: HDF5 writes most of it only when it closes the file."""
    code = """if True:
        import resource, signal, sys, numpy
        from refdiff import checkpoint, data
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 16, 2 ** 16))
        for write in (lambda: checkpoint.save(sys.argv[1], {"x": numpy.ones(2 ** 15)}),
                      lambda: data.save(sys.argv[1], numpy.ones((2 ** 9, 8, 8, 1), "float32"))):
            try:
                write()
            except OSError as error:
                print("OSError")
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.h5")], capture_output=True, text=True)
    assert done.stdout == "OSError\n" * 2, done.stderr
    assert not os.listdir(tmp_path)


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "c.h5"
    checkpoint.save(path, {"x": np.ones(3)})
    before = path.read_bytes()
    for bad in {"x": np.array(["text"])}, {"x": np.array([None])}, {"refdiff/x": np.ones(1)}, {"": np.ones(1)}:
        with pytest.raises(CheckpointError, match="save: a"):
            checkpoint.save(path, bad)
    for bad in {"loss": float("nan")}, {"x": np.ones(2)}:
        with pytest.raises(CheckpointError, match="meta is not JSON"):
            checkpoint.save(path, {}, bad)

    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"x": np.zeros(3)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c.h5"]


# ---- refused

def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "c.h5", example())
    whole = (tmp_path / "c.h5").read_bytes()
    for cut in [*range(0, len(whole), 97), len(whole) - 1]:
        (tmp_path / "cut.h5").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="empty|not an HDF5|truncated|damaged"):
            checkpoint.load(tmp_path / "cut.h5")


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    """Not all bytes of an HDF5 file mean something; a flip that is not noticed must not have changed the content."""
    path, flipped = tmp_path / "c.h5", tmp_path / "f.h5"
    checkpoint.save(path, {"x": np.arange(500.)}, {"a": 1})
    whole, generator = path.read_bytes(), Key(5).fold("flips").generator()
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        flipped.write_bytes(damaged)
        try:
            arrays, meta = checkpoint.load(flipped)
        except CheckpointError:
            refused += 1
        else:
            assert np.array_equal(arrays["x"], np.arange(500.)) and meta == {"a": 1}
    assert refused >= 50, "4,000 of the file's bytes are the array: most flips have to be refused"


def test_what_is_not_a_checkpoint_is_refused_by_name(tmp_path):
    def refused(name, match, **options):
        with pytest.raises(CheckpointError, match=match):
            checkpoint.load(tmp_path / name, **options)
    (tmp_path / "empty.h5").write_bytes(b"")
    refused("empty.h5", "not an HDF5 file, it is empty")
    np.save(tmp_path / "x.npy", np.ones(3))
    refused("x.npy", "not an HDF5 file .152 bytes.")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(3)
    refused("other.h5", "not written by refdiff")
    refused(".", "is a folder, wanted a file; it holds empty.h5, other.h5")
    checkpoint.save(tmp_path / "c.h5", {"x": np.ones(3)}, kind="samples")
    refused("c.h5", "is of kind 'samples', wanted 'training' or 'distillation'", kind=("training", "distillation"))
    with pytest.raises(CheckpointError, match="kind 'samples' holds no network"):
        checkpoint.load_checkpoint(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "a") as file:
        file.attrs.update(refdiff_format=checkpoint.FORMAT + 1, refdiff_version="9.0")
    refused("c.h5", "format 2, written by refdiff 9.0; this is .* reads up to 1: upgrade")


def test_a_missing_file_names_the_nearest(tmp_path):
    checkpoint.save(tmp_path / "teacher.h5", {})
    with pytest.raises(FileNotFoundError, match="did you mean .*/teacher.h5"):
        checkpoint.load(tmp_path / "techer.h5")
    with pytest.raises(FileNotFoundError, match="the folder holds teacher.h5"):
        checkpoint.load(tmp_path / "x.h5")
    with pytest.raises(FileNotFoundError, match="holds no .h5 file"):
        checkpoint.load(tmp_path / "nowhere" / "x.h5")


def test_another_network_is_refused_with_the_lists_of_names(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "c.h5", example())
    c = checkpoint.load_checkpoint(tmp_path / "c.h5")
    other = network(("in.w", (3, 5)), ("in.b", (4,)), ("scale", ()), ("new.w", (2,)))
    with pytest.raises(CheckpointError) as error:
        c.parameters(other)
    for said in ("missing: new.w (2,)", "unused: out.w (4, 2)", "mis-shaped: in.w is (3, 4), wanted (3, 5)"):
        assert said in str(error.value)
    with pytest.raises(CheckpointError, match="the same, in another order"):
        checkpoint.check_index(LAYOUT.index(), LAYOUT.index()[::-1])
    many = [(f"w{i}", (1,)) for i in range(20)]
    with pytest.raises(CheckpointError, match=r"missing: w0 \(1,\).*w7 \(1,\) and 12 more"):
        checkpoint.check_index([], many)
    with pytest.raises(CheckpointError, match="no vector 'target'; there are ema, m, theta, v"):
        c.parameters(LAYOUT, "target")


def test_vectors_that_do_not_fit_their_index_never_reach_a_file():
    with pytest.raises(CheckpointError, match=r"vector 'ema' has shape \(3,\), the 4 parameters .* need \(25,\)"):
        Checkpoint("training", {}, LAYOUT.index(), {"theta": np.zeros(25), "ema": np.zeros(3)})
    with pytest.raises(CheckpointError, match="no vector 'theta'"):
        Checkpoint("training", {}, LAYOUT.index(), {"ema": np.zeros(25)})


@pytest.mark.gpu
def test_device_vectors_are_saved_from_and_loaded_to_the_device(tmp_path):
    device = backend.use("cupy")
    c = example()
    assert isinstance(c.vectors["theta"], device.ndarray)
    checkpoint.save_checkpoint(tmp_path / "c.h5", c)
    got = checkpoint.load_checkpoint(tmp_path / "c.h5").parameters(LAYOUT).flat
    assert isinstance(got, device.ndarray) and backend.to_host(got).tobytes() == backend.to_host(
        c.vectors["theta"]).tobytes()
