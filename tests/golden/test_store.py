"""The store: numbers as text and back, HDF5 to the same bytes, a manifest that sees every change, whole files."""
import json
import pickle
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from refdiff.golden import store
from refdiff.golden.case import Case, tolerances
from refdiff.golden.commands import golden
from refdiff.golden.reference.numbers import decimal, exact


def case(name="a/b", **change):
    made = {"id": name, "operation": "op_linear", "inputs": {"x": np.arange(6.0).reshape(2, 3) / 7, "n": 3,
            "config": {"kind": "small", "w": np.ones((2, 2)), "bias": None}, "lr": 0.1},
            "expected": {"y": np.array([1 / 3, -0.0])}, "equation": "DDPM eq. 4", "oracle": "closed form",
            "condition": 1.2345, "tolerance": tolerances(1.2345), "flags": ("padding",)}
    return Case(**{**made, **change})


# ---- numbers

@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_from_its_decimals(value):
    assert store.decode(store.encode(value)) == value


@pytest.mark.parametrize("value, text", [
    (0.0, "0"), (1.0, "1"), (-2.5, "-2.5"), (1e-5, "0.000010000000000000000818"), (1e-9, "1.0000000000000000623e-9"),
    (2.0 ** 70, "1.1805916207174113034e21"), (123456.0, "123456"), (1e20, "100000000000000000000"),
    (float("inf"), "inf"), (float("-inf"), "-inf"), (float("nan"), "nan")])
def test_decimals_are_short_and_plain(value, text):
    assert store.encode(value) == text and store.NUMBER.fullmatch(text)


def test_twenty_digits_of_a_number_at_fifty_are_rounded_not_cut():
    num = exact(50)
    assert decimal(num.real(2) / 3) == "0.66666666666666666667"
    assert decimal(-num.real(1) / 3 * num.real("1e-30")) == "-3.3333333333333333333e-31"
    assert decimal(num.pi) == "3.1415926535897932385"


def test_names_stay_names_and_integers_integers():
    plain = {"rule": "leading", "T": 1000, "eta": "0.5", "flag": True, "none": None, "times": [3, 2], "x": [["1", "2"]]}
    made = store.decode(plain)
    assert made["rule"] == "leading" and made["T"] == 1000 and type(made["T"]) is int and made["eta"] == 0.5
    assert made["flag"] is True and made["none"] is None and made["times"] == [3, 2]
    np.testing.assert_array_equal(made["x"], [[1.0, 2.0]])
    assert made["x"].dtype == np.float64 and store.decode(["1", ["2"]]) == [1.0, np.array([2.0])]


# ---- files

@pytest.mark.parametrize("form", store.FORMATS)
def test_a_case_comes_back_from_its_file(form, tmp_path):
    write, read = store.FORMATS[form]
    other = case("a/c", verdict="acceptable", accepted=({"convention": "padding=symmetric",
                                                         "expected": {"y": np.array([0.5, 0.25])}},))
    write(tmp_path / "f", "family", [other, case()])
    first, second = read(tmp_path / "f")
    assert (first.id, second.id) == ("a/b", "a/c") and first.flags == ("padding",) and first.condition == 1.24
    np.testing.assert_array_equal(first.inputs["x"], case().inputs["x"])
    np.testing.assert_array_equal(first.inputs["config"]["w"], np.ones((2, 2)))
    assert first.inputs["config"]["kind"] == "small" and first.inputs["config"]["bias"] is None
    assert first.inputs["n"] == 3 and first.inputs["lr"] == 0.1
    np.testing.assert_array_equal(first.expected["y"], case().expected["y"])
    np.testing.assert_array_equal(second.accepted[0]["expected"]["y"], [0.5, 0.25])
    assert first.tolerance["float64"] >= case().tolerance["float64"]


@pytest.mark.parametrize("form", store.FORMATS)
def test_the_same_cases_are_the_same_bytes_in_any_order_at_any_time(form, tmp_path):
    write = store.FORMATS[form][0]
    cases = [case(f"a/{i}", inputs={"x": np.full((4, 5), i / 3)}) for i in range(20)]
    write(tmp_path / "one", "family", cases)
    time.sleep(1.1)                                                       # HDF5 would keep whole seconds
    write(tmp_path / "two", "family", cases[::-1])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_hdf5_holds_little_endian_doubles_and_says_where_they_are(tmp_path):
    store.write_hdf5(tmp_path / "f.h5", "family", [case()])
    with h5py.File(tmp_path / "f.h5") as file:
        x = file["a/b/inputs/x"]
        assert x.dtype == "<f8" and file["a/b/expected/y"].shape == (2,)
        assert file.attrs["licence"] == b"CC0-1.0" and json.loads(file["a/b/case.json"][()])["inputs"]["x"] == {
            "dataset": "inputs/x"}


def test_a_case_with_thousands_of_arrays_is_kept_whole(tmp_path):
    weights = {f"down.{i}.conv.weight": np.full(2, float(i)) for i in range(1500)}
    store.write_hdf5(tmp_path / "f.h5", "family", [case(inputs={"weights": weights})])
    made = store.read_hdf5(tmp_path / "f.h5")[0].inputs["weights"]
    assert set(made) == set(weights) and all((made[name] == weights[name]).all() for name in weights)


def test_a_file_with_unknown_or_missing_fields_is_refused(tmp_path):
    plain = store.to_plain(case())
    for broken in ({**plain, "more": 1}, {key: plain[key] for key in plain if key != "oracle"}):
        with pytest.raises(ValueError, match="fields"):
            store.to_case(broken)


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.write_text, (tmp_path / "exploded", "")

    (tmp_path / "f.h5").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "f.json").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(OSError):
        store.read_hdf5(tmp_path / "f.h5")
    with pytest.raises(ValueError):
        store.read_json(tmp_path / "f.json")
    assert not (tmp_path / "exploded").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    target = tmp_path / "f.h5"
    store.write_hdf5(target, "family", [case()])
    before = target.read_bytes()
    with pytest.raises(ValueError):
        store.write_hdf5(target, "family", [case(), case()])              # one id twice
    assert target.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["f.h5"]


# ---- the manifest, make and check

class Family:
    """A family of one case, in place of those of the package."""

    FORMAT = "json"

    def __init__(self, value=1.0, name="a/b"):
        self.value, self.name = value, name

    def cases(self):
        return [case(self.name, expected={"y": np.array([self.value])})]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "schema.json").write_text("{}")
    monkeypatch.setattr(store, "modules", lambda: {"one": Family()})
    store.make(tmp_path)
    return tmp_path


def test_an_empty_folder_gets_the_schema_and_the_licence_too(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "modules", lambda: {"one": Family()})
    manifest = store.make(tmp_path / "new")
    assert set(manifest["files"]) == {"one.json", "schema.json", "LICENSE"} and store.verify_manifest(
        tmp_path / "new") == []
    for name in store.KEPT:
        assert (tmp_path / "new" / name).read_bytes() == (store.FOLDER / name).read_bytes()


def test_check_finds_nothing_where_nothing_changed(folder):
    assert store.check(folder) == [] and store.verify_manifest(folder) == []


def test_check_names_the_case_whose_answer_changed(folder, monkeypatch):
    monkeypatch.setattr(store, "modules", lambda: {"one": Family(1.5)})
    assert store.check(folder) == ["one.json: case a/b is not what is made now"]


@pytest.mark.parametrize("tamper, says", [
    (lambda folder: (folder / "one.json").unlink(), "one.json: the manifest lists it and it is not there"),
    (lambda folder: (folder / "two.json").write_text("{}"), "two.json: it is not in the manifest"),
    (lambda folder: (folder / "one.json").write_text((folder / "one.json").read_text().replace('"1"', '"2"')),
     "one.json: its SHA-256 is not the manifest's"),
    (lambda folder: (folder / "schema.json").write_text("[]"), "schema.json: its SHA-256 is not the manifest's")])
def test_the_manifest_sees_every_change(folder, tamper, says):
    tamper(folder)
    assert says in store.verify_manifest(folder) and says in store.check(folder)
    for opened in (store.load, store.raw):
        with pytest.raises(ValueError, match="nothing is judged by files that changed") as error:
            opened("a/b", folder)
        assert says in str(error.value)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_the_packages_cases_are_not_used_without_a_whole_manifest(folder, text, monkeypatch):
    monkeypatch.setattr(store, "FOLDER", folder)
    (folder / "MANIFEST.json").unlink() if text is None else (folder / "MANIFEST.json").write_text(text)
    with pytest.raises(ValueError, match="MANIFEST.json: .*Error"):
        store.load("a/b", folder)


def test_a_file_that_holds_no_cases_is_named(tmp_path):
    for name, content in (("x.json", b"{}"), ("y.json", b'{"ca'), ("z.h5", b"no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: cannot be read as golden cases"):
            store.load("*", tmp_path)
        store._all.cache_clear()
        (tmp_path / name).unlink()


def test_two_families_with_one_id_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "modules", lambda: {"one": Family(), "two": Family()})
    with pytest.raises(ValueError, match="a/b is used twice"):
        store.make(tmp_path)


def test_the_packages_manifest_is_true():
    assert store.verify_manifest() == []
    manifest = json.loads((store.FOLDER / "MANIFEST.json").read_text())
    assert manifest["cases"] == len(store.load()) and manifest["licence"] == "CC0-1.0"
    assert manifest["version"] == store.VERSION and manifest["generator"].startswith("refdiff ")


# ---- the commands

def ran(*arguments):
    return CliRunner().invoke(golden, arguments)


def test_list_shows_the_ids_that_match():
    made = ran("list", "step/ddim/eta0/*")
    assert made.exit_code == 0 and "step/ddim/eta0/linear/at500-480" in made.output and "sampler" not in made.stdout
    assert isinstance(ran("list", "nosuch/*").exception, ValueError)


def test_show_prints_the_case_of_the_file():
    made = ran("show", "sampler/ddim/eta0/trailing/n50/gaussian")
    assert json.loads(made.output) == store.raw("sampler/ddim/eta0/trailing/n50/gaussian")
    assert "there is no case" in str(ran("show", "nosuch").exception)


def test_make_and_check_say_what_they_did(folder):
    assert "1 cases, version" in ran("make", "--folder", str(folder)).output
    assert "byte for byte" in ran("check", "--folder", str(folder)).output
    assert "manifest says" in ran("check", "--quick", "--folder", str(folder)).output
    (folder / "one.json").write_text("")
    made = ran("check", "--quick", "--folder", str(folder))
    assert made.exit_code == 1 and "SHA-256" in made.output
