"""torch checkpoints read as data: strides, offsets and dtypes to the bit; planted code is named and never run."""
import builtins
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest

import archives
from archives import dense, integer, many, named, program, strided, table, text
from refdiff.foreign import torch_pickle, torch_zip
from refdiff.foreign.tensors import ForeignError
from refdiff.foreign.weights import load

RNG = np.random.default_rng(0)


def one(path, body, raw, **options):
    """The tensor "x" of an archive of one storage "0"."""
    return load(archives.archive(path / "x.pt", program(table({"x": body})), {"0": raw}, **options))[0]["x"]


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8"])
def test_tensors_are_read_to_the_bit(dtype, tmp_path):
    arrays = {"a.weight": (9 * RNG.normal(size=(3, 2, 4))).astype(dtype), "b": np.arange(5).astype(dtype),
              "none": np.zeros((0, 3), dtype), "scalar": np.array(7).astype(dtype)}
    got, metadata = load(archives.checkpoint(tmp_path / "x.pt", arrays))
    assert set(got) == set(arrays) and metadata == {}
    for name, x in arrays.items():
        assert got[name].dtype == x.dtype and got[name].shape == x.shape
        np.testing.assert_array_equal(got[name], x)


def test_strides_and_offsets_are_honoured_by_the_definition(tmp_path):
    """x[i, j] = storage[offset + i s + j r], entry by entry."""
    storage = RNG.normal(size=40)
    for offset, shape, strides in [(0, (3, 4), (1, 3)), (5, (2, 3), (10, 2)), (7, (4,), (0,)), (39, (1, 1), (99, 5)),
                                   (2, (2, 2, 2), (1, 17, 3)), (3, (), ())]:
        got = one(tmp_path, strided("0", "f8", 40, offset, shape, strides), storage.tobytes())
        assert got.shape == shape and got.flags.c_contiguous
        for index in np.ndindex(shape):
            assert got[index] == storage[offset + sum(i * s for i, s in zip(index, strides))]


def test_tensors_may_share_a_storage(tmp_path):
    storage = np.arange(6.0)
    body = table({"a": strided("0", "f8", 6, 0, (2, 3), (3, 1)), "b": strided("0", "f8", 6, 0, (3, 2), (1, 3))})
    got, _ = load(archives.archive(tmp_path / "x", program(body), {"0": storage.tobytes()}))
    np.testing.assert_array_equal(got["a"], got["b"].T)


def test_big_endian_storages_and_bfloat16_are_read_by_their_values(tmp_path):
    x = RNG.normal(size=(2, 3))
    np.testing.assert_array_equal(one(tmp_path, dense("0", x), x.astype(">f8").tobytes(), byteorder="big"), x)
    bits = np.array([0x3f80, 0xc000, 0x4049], dtype="<u2")
    got = one(tmp_path, dense("0", bits), bits.tobytes())
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.float32([1, -2, 3.140625]))


@pytest.mark.parametrize("offset, shape, strides", [
    (0, (41,), (1,)), (1, (40,), (1,)), (0, (2, 2), (39, 1)), (40, (1,), (1,)), (0, (2,), (2 ** 62,)),
    (2 ** 40, (), ()), (0, (10 ** 9,), (0,)), (0, (2 ** 40, 2 ** 40), (0, 0))])
def test_tensors_beyond_their_storage_are_refused(offset, shape, strides, tmp_path):
    with pytest.raises(ForeignError, match="does not fit into its storage of 40"):
        one(tmp_path, strided("0", "f8", 40, offset, shape, strides), bytes(320))


@pytest.mark.parametrize("body", [strided("0", "f8", 40, -1, (2,), (1,)), strided("0", "f8", 40, 39, (2,), (-1,)),
                                  strided("0", "f8", 40, 0, (-2, -2), (1, 1)), strided("0", "f8", 40, 0, (2, 2), (1,)),
                                  strided("0", "f8", -1, 0, (2,), (1,)),
                                  strided("0", "f8", 40, 0, (1,) * 33, (1,) * 33)])
def test_negative_and_unequal_sizes_are_refused(body, tmp_path):
    with pytest.raises(ForeignError, match="damaged"):
        one(tmp_path, body, bytes(320))


# ---- code planted in a pickle

class Planted:
    """Pickles as a call of function(*arguments)."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious(tmp_path):
    touch = f"touch {tmp_path / 'ran'}"
    code = f"open({str(tmp_path / 'ran')!r}, 'w')"
    yield "os.system", "posix.system|nt.system", Planted(os.system, touch)
    yield "eval", "builtins.eval", Planted(eval, code)
    yield "exec", "builtins.exec", {"weight": Planted(exec, code)}
    yield "open", "io.open|_io.open", [1, {"a": (Planted(open, str(tmp_path / "ran"), "w"),)}]
    yield "nested", "builtins.eval|builtins.getattr", Planted(getattr, Planted(eval, code), "x")
    yield "Popen", "subprocess.Popen", Planted(subprocess.Popen, ["touch", str(tmp_path / "ran")])
    yield "getattr of a module", "builtins.getattr", Planted(getattr, Planted(__import__, "os"), "system")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_planted_code_is_named_and_does_not_run(protocol, tmp_path):
    for what, names, thing in malicious(tmp_path):
        raw = pickle.dumps(thing, protocol)
        path = archives.archive(tmp_path / "x.pt", raw)
        if protocol == 2 and what == "eval":
            pickle.loads(raw)                               # the plant works: whoever unpickles it runs it
            assert (tmp_path / "ran").exists()
            (tmp_path / "ran").unlink()
        says = names + "|__builtin__|commands.Popen" if protocol < 3 else names     # their names in Python 2
        with pytest.raises(ForeignError, match=says) as error:
            load(path)
        assert "nothing was run" in str(error.value)
        assert not (tmp_path / "ran").exists(), what


def test_reading_calls_neither_pickle_nor_an_import(tmp_path, monkeypatch):
    x = np.arange(4.0)
    path = archives.checkpoint(tmp_path / "x.pt", {"w": x})
    load(path)                                              # what zipfile itself imports late is there

    def never(*args, **kwargs):
        raise AssertionError("called")
    with monkeypatch.context() as patch:
        for name in ("load", "loads", "Unpickler", "_Unpickler"):
            patch.setattr(pickle, name, never)
        for name in ("eval", "exec", "__import__"):
            patch.setattr(builtins, name, never)
        tensors, _ = torch_zip.read(path)
    np.testing.assert_array_equal(tensors["w"], x)


REBUILD = named("torch._utils", "_rebuild_tensor_v2")
PROGRAMS = {
    "a name of torch that is not allowed": (named("torch", "load"), "torch.load"),
    "_rebuild_parameter": (named("torch._utils", "_rebuild_parameter"), "_rebuild_parameter"),
    "a name behind dots": (named("collections", "OrderedDict.__init__"), "OrderedDict.__init__"),
    "a name by the stack": (text("os") + text("system") + b"\x93", "os.system"),
    "an instance": (b"(ios\nsystem\n", "opcode INST"),
    "an object": (b"(" + named("collections", "OrderedDict") + b"o", "opcode OBJ"),
    "NEWOBJ": (named("collections", "OrderedDict") + b")\x81", "opcode NEWOBJ"),
    "an extension code": (b"\x82\x01", "opcode EXT1"),
    "a call of a text": (text("os.system") + b")R", "calls a str"),
    "a call of a storage's name": (named("torch", "FloatStorage") + b")R", "calls torch.FloatStorage"),
    "a call of a tuple that looks like a name": (b"(" + text("collections") + text("OrderedDict") + b"t)R", "a tuple"),
    "attributes of a list": (b"]}b", "damaged"),
    "a table with arguments": (named("collections", "OrderedDict") + b"(]tR", "damaged"),
    "a table as a key": (b"}}Ns", "damaged"), "a tuple as a key": (b"})Ns", "damaged"),
    "an item without a key": (b"}(Nu", "damaged"), "too little on the stack": (b"R", "damaged"),
    "a mark that is not there": (b"t", "damaged"), "two results": (b"NN", "damaged"), "no result": (b"", "damaged"),
    "a memo that is not there": (b"h\x07", "damaged"), "a tensor of nothing": (REBUILD + b")R", "damaged"),
    "a tensor of texts": (REBUILD + many(text("a"), integer(0), many(), many()) + b"R", "damaged"),
    "a persistent text": (text("a") + b"Q", "damaged"),
    "a storage of another kind": (many(text("module"), named("torch", "FloatStorage"), text("0"), text("cpu"),
                                       integer(1)) + b"Q", "damaged"),
    "a storage of a text": (many(text("storage"), text("FloatStorage"), text("0"), text("cpu"), integer(1)) + b"Q",
                            "damaged"),
    "a length that is not there": (b"X\xff\xff\xff\x7fab", "damaged"), "an unknown opcode": (b"\xff", "damaged"),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_other_programs_are_refused(what):
    body, says = PROGRAMS[what]
    with pytest.raises(ForeignError, match=says):
        torch_pickle.interpret(program(body), "x")


def test_a_pickle_that_grows_without_end_when_walked_is_done_at_once():
    """Each tuple holds the one before twice: 2^60 leaves for who hashes, prints or copies it."""
    body = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    for end in (b"", b"}h\x3cNs", b"h\x3c)R", b"h\x3cQ", many(text("storage"), b"h\x3c", text("0"), text("cpu"),
                                                             integer(1)) + b"Q"):
        try:
            torch_pickle.interpret(program(body + end), "x")
        except ForeignError as error:
            assert len(str(error)) < 300


def test_a_table_that_holds_itself_ends_in_an_error(tmp_path):
    path = archives.archive(tmp_path / "x", program(b"}q\x00" + text("a") + b"h\x00s"))
    with pytest.raises(ForeignError, match="choose the table"):
        load(path)
    with pytest.raises(ForeignError, match="choose the table"):
        load(path, "a.a.a.a")


# ---- the archive

def test_a_table_of_a_checkpoint_is_chosen_by_its_key(tmp_path):
    def wrap(body):
        return table({"epoch": integer(3), "rate": b"G" + bytes(8), "model": table({"ema": body, "name": text("x")})})
    path = archives.checkpoint(tmp_path / "x", {"w": np.arange(3.0)}, wrap)
    np.testing.assert_array_equal(load(path, "model.ema")[0]["w"], np.arange(3.0))
    for key, says in ((None, "choose the table with key: model"), ("model", "key: ema"), ("ema", "no table 'ema'"),
                      ("epoch", "int"), ("model.name", "str")):
        with pytest.raises(ForeignError, match=says):
            load(path, key)


def rezip(path, change):
    """The archive with its entries {name: bytes} changed."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    options = change(entries) or {}
    with zipfile.ZipFile(path, "w", **options) as new:
        for name, raw in entries.items():
            new.writestr(name, raw)


@pytest.mark.parametrize("change, says", [
    (lambda e: e.pop("archive/data/0") and None, "no entry archive/data/0"),
    (lambda e: e.update({"archive/data/0": bytes(31)}), "31 bytes, wanted 32"),
    (lambda e: {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    (lambda e: e.update({"other/data.pkl": b"."}), "2 entries"),
    (lambda e: e.pop("archive/data.pkl") and None, "0 entries"),
    (lambda e: e.update({"archive/byteorder": b"middle"}), "neither little nor big")])
def test_archives_that_torch_does_not_write_are_refused(change, says, tmp_path):
    path = archives.checkpoint(tmp_path / "x", {"w": np.arange(4.0)})
    rezip(path, change)
    with pytest.raises(ForeignError, match=says):
        load(path)


def test_one_storage_under_two_dtypes_is_refused(tmp_path):
    body = table({"a": strided("0", "f8", 2, 0, (2,), (1,)), "b": strided("0", "f4", 4, 0, (2,), (1,))})
    with pytest.raises(ForeignError, match="two dtypes"):
        load(archives.archive(tmp_path / "x", program(body), {"0": bytes(16)}))


def test_every_truncation_is_refused(tmp_path):
    whole = archives.checkpoint(tmp_path / "x", {"w": np.arange(4.0)}).read_bytes()
    for size in range(0, len(whole), 3):
        (tmp_path / "y").write_bytes(whole[:size])
        with pytest.raises(ForeignError):
            load(tmp_path / "y")


def test_a_damaged_archive_gives_tensors_or_a_typed_error_and_nothing_else(tmp_path):
    arrays = {"a": np.arange(12.0).reshape(3, 4), "b": np.ones(3, np.float32)}
    whole, rng, refused = archives.checkpoint(tmp_path / "x", arrays).read_bytes(), np.random.default_rng(2), 0
    for _ in range(300):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[at] = rng.integers(256)
        (tmp_path / "y").write_bytes(raw)
        try:
            load(tmp_path / "y")
        except ForeignError:
            refused += 1
    assert refused > 100


@pytest.mark.filterwarnings("ignore:invalid escape sequence")       # of pickletools, in texts of Python 2
def test_a_damaged_pickle_gives_a_result_or_a_typed_error_and_nothing_else():
    """The checksum of the archive hides most damage from the interpreter, so it is fed directly."""
    rng = np.random.default_rng(3)
    whole, refused = program(table({"a": dense("0", np.ones((3, 4))), "b": dense("1", np.ones(5))})), 0
    for _ in range(3000):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw), rng.integers(1, 5)):
            raw[at] = rng.integers(256)
        try:
            torch_pickle.interpret(bytes(raw), "x")
        except ForeignError:
            refused += 1
    assert refused > 1000


def test_what_torch_saves_is_read_to_the_bit(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    base = torch.randn(4, 6, dtype=torch.float64)
    kept = {"whole": base, "turned": base.T, "part": base[1:3, ::2], "half": base.half(), "bf16": base.bfloat16(),
            "long": torch.arange(5), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 3)}
    torch.save(torch.nn.ModuleDict({"w": torch.nn.Linear(3, 2)}).state_dict(), tmp_path / "state.pt")
    torch.save({"ema": kept, "step": 7, "betas": (.9, .99), "on": True, "none": None, "list": [1, "a"]},
               tmp_path / "x.pt")
    got, _ = load(tmp_path / "x.pt", "ema")
    assert set(got) == set(kept)
    for name, x in kept.items():
        wanted = (x.float() if name == "bf16" else x).numpy()
        assert got[name].dtype == wanted.dtype
        np.testing.assert_array_equal(got[name], wanted)
    assert {name: x.shape for name, x in load(tmp_path / "state.pt")[0].items()} == {"w.weight": (2, 3), "w.bias": (2,)}
    torch.save(torch.nn.Linear(3, 2), tmp_path / "module.pt")
    with pytest.raises(ForeignError, match="torch.nn.modules.linear"):
        load(tmp_path / "module.pt")
    torch.save({"w": base}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ForeignError, match="before 1.6"):
        load(tmp_path / "old.pt")
