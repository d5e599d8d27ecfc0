"""The .safetensors reader: every dtype to the bit, every malformed file refused with a typed error."""
import json
import struct

import numpy as np
import pytest

import archives
from refdiff.foreign import safetensors
from refdiff.foreign.tensors import ForeignError, widen_bfloat16
from refdiff.foreign.weights import load

RNG = np.random.default_rng(0)
TENSORS = {"b": RNG.normal(size=(3, 2)), "a": RNG.normal(size=(2, 3, 1, 1)).astype(np.float32),
           "half": RNG.normal(size=7).astype(np.float16), "count": np.array(5), "none": np.zeros((0, 4)),
           "scalar": np.array(2.5, np.float32)}


def same(got, wanted):
    assert set(got) == set(wanted)
    for name, x in wanted.items():
        assert got[name].dtype == x.dtype and got[name].shape == x.shape, name
        assert got[name].tobytes() == np.ascontiguousarray(x).tobytes(), name


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    safetensors.write(tmp_path / "x.safetensors", TENSORS, {"format": "pt", "text": "ä"})
    tensors, metadata = load(tmp_path / "x.safetensors")
    same(tensors, TENSORS)
    assert metadata == {"format": "pt", "text": "ä"}


def test_the_formats_own_library_agrees_both_ways(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy", reason="needs the safetensors library")
    safetensors.write(tmp_path / "x.safetensors", TENSORS)
    same(theirs.load_file(tmp_path / "x.safetensors"), TENSORS)
    theirs.save_file(TENSORS, tmp_path / "y.safetensors")
    same(load(tmp_path / "y.safetensors")[0], TENSORS)


def test_bfloat16_is_the_upper_half_of_float32():
    """Value from the definition, sign 2^(e-127) (1 + m/128), for every pattern; -0, inf and NaN kept."""
    bits = np.arange(2 ** 16, dtype=np.uint16)
    sign, exponent, mantissa = bits >> 15, (bits >> 7) & 255, bits & 127
    scale = np.where(exponent == 0, 2.0 ** -126, 2.0 ** (exponent.astype(float) - 127))
    value = (-1.0) ** sign * scale * ((exponent > 0) + mantissa / 128)
    value[exponent == 255] = np.where(mantissa, np.nan, np.inf * (-1.0) ** sign)[exponent == 255]
    got = widen_bfloat16(bits)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, value)
    np.testing.assert_array_equal(np.signbit(got), sign == 1)


def test_bfloat16_is_read_as_float32(tmp_path):
    bits = np.array([[0x3f80, 0xc000], [0x4049, 0x0001]], dtype="<u2")
    archives.safetensors(tmp_path / "x", {"w": dict(dtype="BF16", shape=[2, 2], data_offsets=[0, 8])}, bits.tobytes())
    np.testing.assert_array_equal(load(tmp_path / "x")[0]["w"],
                                  np.array([[1, -2], [3.140625, 2.0 ** -133]], dtype=np.float32))


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


MALFORMED = {
    "tensors that overlap": ({"a": entry(), "b": entry(data_offsets=[4, 12])}, 12, "overlap"),
    "tensors on each other": ({"a": entry(), "b": entry()}, 8, "overlap"),
    "a gap": ({"a": entry(), "b": entry(data_offsets=[12, 20])}, 20, "gap"),
    "a gap at first": ({"a": entry(data_offsets=[4, 12])}, 12, "gap"),
    "data cut": ({"a": entry()}, 7, "truncated"),
    "data left over": ({"a": entry()}, 9, "9"),
    "offsets beyond the file": ({"a": entry(data_offsets=[0, 2 ** 62], shape=[2 ** 60])}, 8, "truncated"),
    "offsets that fall": ({"a": entry(data_offsets=[8, 0])}, 8, "needs 8"),
    "negative offsets": ({"a": entry(data_offsets=[-8, 0])}, 8, "offsets"),
    "three offsets": ({"a": entry(data_offsets=[0, 4, 8])}, 8, "offsets"),
    "a negative shape": ({"a": entry(shape=[-2, -1])}, 8, "shape"),
    "a shape of true": ({"a": entry(shape=[True, 2])}, 8, "shape"),
    "a shape of 2.0": ({"a": entry(shape=[2.0])}, 8, "shape"),
    "a shape that is too small": ({"a": entry(shape=[1])}, 8, "needs 4"),
    "an overflowing shape": ({"a": entry(shape=[2 ** 62, 4])}, 8, "needs"),
    "an unknown dtype": ({"a": entry(dtype="F8_E5M2")}, 8, "F8_E5M2"),
    "a dtype that is no text": ({"a": entry(dtype=["F32"])}, 8, "dtype"),
    "an entry without dtype": ({"a": dict(shape=[2], data_offsets=[0, 8])}, 8, "entry of tensor 'a'"),
    "an entry with more": ({"a": entry(extra=1)}, 8, "entry of tensor 'a'"),
    "an entry that is a list": ({"a": [1]}, 8, "entry of tensor 'a'"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
    "metadata that are a list": ({"__metadata__": []}, 0, "__metadata__"),
    "a name twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],'
                     b'"data_offsets":[0,4]}}', 4, "twice"),
    "a list for a header": (b"[1, 2]", 0, "list"),
    "no JSON": (b"{'a': 1}", 0, "not JSON"),
    "no UTF-8": (b'{"\xff": 1}', 0, "not JSON"),
    "deep JSON": (b"[" * 200_000, 0, "not JSON"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_file_is_refused_by_name(what, tmp_path):
    header, size, says = MALFORMED[what]
    with pytest.raises(ForeignError, match=says):
        load(archives.safetensors(tmp_path / "x.safetensors", header, bytes(size)))


@pytest.mark.parametrize("length", [0, 1, 3, 2 ** 31, 2 ** 63, 2 ** 64 - 1, safetensors.LONGEST_HEADER + 1])
def test_a_header_beyond_the_file_or_the_limit_is_refused_before_it_is_read(length, tmp_path):
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ForeignError, match="header"):
        load(tmp_path / "x")


def test_every_truncation_is_refused(tmp_path):
    safetensors.write(tmp_path / "x", {"a": np.arange(3.0), "b": np.ones((2, 2), np.float32)})
    whole = (tmp_path / "x").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "y").write_bytes(whole[:size])
        with pytest.raises(ForeignError, match=f"the file has {size} bytes, wanted 8" if size < 8 else "truncated"):
            load(tmp_path / "y")


def test_a_damaged_file_gives_tensors_or_a_typed_error_and_nothing_else(tmp_path):
    safetensors.write(tmp_path / "x", TENSORS, {"format": "pt"})
    whole, rng, refused = (tmp_path / "x").read_bytes(), np.random.default_rng(1), 0
    for _ in range(400):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw) // 2, rng.integers(1, 4)):
            raw[at] = rng.integers(256)
        (tmp_path / "y").write_bytes(raw)
        try:
            load(tmp_path / "y")
        except ForeignError:
            refused += 1
    assert refused > 100


def test_what_the_format_cannot_hold_is_not_written(tmp_path):
    with pytest.raises(ForeignError, match="complex128"):
        safetensors.write(tmp_path / "x", {"a": np.zeros(2, complex)})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("raw, says", [(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "bare pickle"),
                                       (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
                                       (bytes(257) + b"ustar" + bytes(300), "tar archive"), (b"", "header")])
def test_other_formats_are_refused_by_name(raw, says, tmp_path):
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(ForeignError, match=says):
        load(tmp_path / "x.pt")


def test_a_folder_and_a_key_that_does_not_belong_are_refused(tmp_path):
    with pytest.raises(ForeignError, match="folder"):
        load(tmp_path)
    safetensors.write(tmp_path / "x", TENSORS)
    with pytest.raises(ForeignError, match="key 'ema'"):
        load(tmp_path / "x", "ema")


def test_the_data_begin_at_a_multiple_of_eight(tmp_path):
    for name in ("a", "ab", "abc"):
        safetensors.write(tmp_path / "x", {name: np.arange(2.0)})
        length, = struct.unpack("<Q", (tmp_path / "x").read_bytes()[:8])
        assert length % 8 == 0 and name in json.loads((tmp_path / "x").read_bytes()[8:8 + length])
