"""Golden cases as files: JSON with decimal strings, HDF5 for arrays, and a manifest of their SHA-256.

    make()            every family of refdiff/golden/families into refdiff/golden/cases, the same bytes every time
    check()           what differs between the files and what make() would write
    load("step/*")    the cases whose id matches, with float64 numbers and arrays

A JSON file is an object with one case per line; schema.json describes it. Integers are numbers; every other number is a
decimal string, as are the ends inf, -inf and nan; what does not read as a number is a name. An HDF5 file has one group
per case, at the path that is its id; the text `case.json` in it is the case's JSON, in which {"dataset": path} stands
for an array below the group. Nothing is ever unpickled or executed.
"""
import hashlib
import importlib
import json
import math
import pkgutil
import re
import tempfile
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from .. import __version__
from ..files import replacing, write
from . import families
from .case import Case
from .reference.numbers import decimal

FOLDER = Path(__file__).parent / "cases"
VERSION = "2026.11"                     # of the cases: year and month of the last change to any expected value
LICENCE = "CC0-1.0"
KEPT = ("schema.json", "LICENSE")       # written by hand, copied to other folders
TEXT = "case.json"                      # of an HDF5 group; an attribute could hold no more than 64 KiB
NUMBER = re.compile(r"-?(\d+(\.\d+)?(e-?\d+)?|inf)|nan")
FIELDS = ("id", "operation", "inputs", "expected", "equation", "oracle", "condition", "tolerance", "flags", "verdict",
          "accepted")


# ---- numbers as text

def encode(value):
    """A value as JSON holds it: integers and names as they are, every other number as a decimal string."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, dict):
        return {str(key): encode(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    if isinstance(value, np.ndarray):
        return encode(value.tolist())
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return str(float(value))
    return decimal(value)


def decode(value):
    """The value that JSON stands for: floats for decimal strings, float64 arrays for lists of them."""
    if isinstance(value, str):
        return float(value) if NUMBER.fullmatch(value) else value
    if isinstance(value, dict):
        return {key: decode(part) for key, part in value.items()}
    if isinstance(value, list):
        parts = [decode(part) for part in value]
        if parts and all(isinstance(part, (float, np.ndarray)) for part in parts) and len(
                {np.shape(part) for part in parts}) == 1:
            return np.array(parts, dtype=np.float64)
        return parts
    return value


def _rounded(value):
    """A float of three digits, rounded up, so that a tolerance is as short as it is meant."""
    return float(f"{value:.2e}") if value == 0 or float(f"{value:.2e}") >= value else float(
        f"{value * 1.005:.2e}")


def to_plain(case):
    """A case as an object that JSON can hold."""
    return {"id": case.id, "operation": case.operation, "inputs": encode(case.inputs),
            "expected": encode(case.expected), "equation": case.equation, "oracle": case.oracle,
            "condition": _rounded(float(case.condition)), "tolerance": {
                name: _rounded(float(value)) for name, value in case.tolerance.items()},
            "flags": list(case.flags), "verdict": case.verdict, "accepted": encode(list(case.accepted))}


def to_case(plain, read=decode):
    """The Case of such an object. Raises ValueError for fields that are missing or unknown."""
    if set(plain) != set(FIELDS):
        raise ValueError(f"golden: a case has the fields {sorted(plain)}, wanted {sorted(FIELDS)}")
    accepted = tuple({"convention": one["convention"], "expected": read(one["expected"])}
                     for one in plain["accepted"])
    return Case(**{**plain, "inputs": read(plain["inputs"]), "expected": read(plain["expected"]),
                   "flags": tuple(plain["flags"]), "accepted": accepted})


# ---- one file

def _header(family):
    return {"family": family, "version": VERSION, "generator": f"refdiff {__version__}", "licence": LICENCE,
            "schema": "schema.json"}


def write_json(path, family, cases):
    """Write a JSON file: a header, and one case per line in the order of their ids."""
    head = json.dumps(_header(family), sort_keys=True)[:-1]
    lines = [json.dumps(to_plain(case), sort_keys=True, ensure_ascii=True, allow_nan=False)
             for case in sorted(cases, key=lambda case: case.id)]
    return write(path, head + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")


def read_json(path):
    """[Case] of a JSON file."""
    return [to_case(plain) for plain in json.loads(Path(path).read_text(encoding="ascii"))["cases"]]


def write_hdf5(path, family, cases):
    """Write an HDF5 file, the same bytes every time: no times, one version of the format, texts of fixed length."""
    with replacing(path) as partial:
        with h5py.File(partial, "w", libver=("earliest", "v108")) as file:
            for name, value in _header(family).items():
                file.attrs[name] = np.bytes_(value)
            for case in sorted(cases, key=lambda case: case.id):
                group = file.create_group(case.id)
                plain = {**to_plain(_without_arrays(case)),
                         **{name: _put(group, name, getattr(case, name)) for name in ("inputs", "expected")},
                         "accepted": [{"convention": one["convention"],
                                       "expected": _put(group, f"accepted/{i}", one["expected"])}
                                      for i, one in enumerate(case.accepted)]}
                group.create_dataset(TEXT, data=np.bytes_(json.dumps(plain, sort_keys=True)), track_times=False)
    return Path(path)


def _without_arrays(case):
    return Case(**{**{name: getattr(case, name) for name in FIELDS}, "inputs": {}, "expected": {"": 0},
                   "accepted": tuple({"convention": one["convention"], "expected": {}} for one in case.accepted)})


def _put(group, path, value):
    """JSON of a value, whose float arrays become datasets of the group."""
    if isinstance(value, dict):
        return {key: _put(group, f"{path}/{key}", part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        stored = value.astype("<f8" if value.dtype.kind == "f" else "<i8")
        group.create_dataset(path, data=stored, track_times=False)
        return {"dataset": path}
    return encode(value)


def read_hdf5(path):
    """[Case] of an HDF5 file."""
    cases = []

    def visit(_, group):
        if isinstance(group, h5py.Group) and TEXT in group:
            cases.append(to_case(json.loads(group[TEXT][()]), lambda plain: _get(group, plain)))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return sorted(cases, key=lambda case: case.id)


def _get(group, plain):
    if isinstance(plain, dict):
        if set(plain) == {"dataset"}:
            return group[plain["dataset"]][()]
        return {key: _get(group, part) for key, part in plain.items()}
    return decode(plain)


FORMATS = {"json": (write_json, read_json), "h5": (write_hdf5, read_hdf5)}


# ---- all files

def modules():
    """{family: module} of refdiff/golden/families: those with a function cases(). FORMAT is "json" unless it says."""
    found = {}
    for entry in pkgutil.iter_modules(families.__path__):
        module = importlib.import_module(f"{families.__name__}.{entry.name}")
        if hasattr(module, "cases"):
            found[entry.name] = module
    return found


def make(folder=FOLDER, only=None, tick=lambda family: None):
    """Write every family (or those named), the schema and licence where they are not, and the manifest; returns it.

    Raises ValueError if two cases share an id, ImportError without mpmath.
    """
    folder, seen = Path(folder), {}
    for family, module in sorted(modules().items()):
        if only and family not in only:
            continue
        cases = list(module.cases())
        for case in cases:
            if seen.setdefault(case.id, family) != family or sum(case.id == other.id for other in cases) > 1:
                raise ValueError(f"golden: id {case.id} is used twice, in {family} and {seen[case.id]}")
        form = getattr(module, "FORMAT", "json")
        FORMATS[form][0](folder / f"{family}.{form}", family, cases)
        tick(family)
    for name in KEPT:
        if not (folder / name).exists():
            write(folder / name, (FOLDER / name).read_bytes())
    return write_manifest(folder)


def write_manifest(folder=FOLDER):
    """Write MANIFEST.json of what lies in the folder: every file's SHA-256, bytes and cases; returns it."""
    folder = Path(folder)
    files = {path.name: {"sha256": digest(path), "bytes": path.stat().st_size, **(
        {"cases": len(_read(path))} if path.suffix[1:] in FORMATS and path.name != "schema.json" else {})}
        for path in sorted(folder.iterdir()) if path.name != "MANIFEST.json" and path.name[0] != "."}
    manifest = {"version": VERSION, "generator": f"refdiff {__version__}", "licence": LICENCE,
                "cases": sum(entry.get("cases", 0) for entry in files.values()), "files": files}
    write(folder / "MANIFEST.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def digest(path):
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def verify_manifest(folder=FOLDER):
    """What the manifest says and the folder does not hold, as sentences; [] if all is as it was written."""
    folder = Path(folder)
    try:
        said = json.loads((folder / "MANIFEST.json").read_text())["files"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [f"MANIFEST.json: {type(error).__name__}: {error}"]
    there = {path.name for path in folder.iterdir() if path.name != "MANIFEST.json" and path.name[0] != "."}
    return ([f"{name}: the manifest lists it and it is not there" for name in sorted(set(said) - there)]
            + [f"{name}: it is not in the manifest" for name in sorted(there - set(said))]
            + [f"{name}: its SHA-256 is not the manifest's" for name in sorted(there & set(said))
               if digest(folder / name) != said[name]["sha256"]])


def check(folder=FOLDER, tick=lambda family: None):
    """How the folder differs from what make() writes, as sentences with the first case concerned; [] if in nothing."""
    folder, found = Path(folder), verify_manifest(folder)
    with tempfile.TemporaryDirectory() as fresh:
        fresh = Path(fresh)
        for family, module in sorted(modules().items()):
            form = getattr(module, "FORMAT", "json")
            name = f"{family}.{form}"
            FORMATS[form][0](fresh / name, family, list(module.cases()))
            if not (folder / name).exists():
                found.append(f"{name}: it is not there; refdiff golden make")
            elif (fresh / name).read_bytes() != (folder / name).read_bytes():
                found.append(f"{name}: {_first_difference(_read(folder / name), _read(fresh / name))}")
            tick(family)
    made = {f"{family}.{getattr(module, 'FORMAT', 'json')}" for family, module in modules().items()}
    return found + [f"{path.name}: no family makes it" for path in sorted(folder.iterdir())
                    if path.suffix[1:] in FORMATS and path.name not in made | {"schema.json", "MANIFEST.json"}]


def _first_difference(old, new):
    old, new = ({case.id: case for case in cases} for cases in (old, new))
    for name in sorted(set(old) | set(new)):
        if name not in old or name not in new:
            return f"case {name} is {'new' if name not in old else 'no longer made'}"
        if repr(old[name]) != repr(new[name]):
            return f"case {name} is not what is made now"
    return "the same cases in other bytes"


def _read(path):
    try:
        return FORMATS[Path(path).suffix[1:]][1](path)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as golden cases: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=8)
def _all(folder):
    _unchanged(folder)
    cases = [case for form in FORMATS for path in sorted(Path(folder).glob(f"*.{form}"))
             if path.name not in ("schema.json", "MANIFEST.json") for case in _read(path)]
    return tuple(sorted(cases, key=lambda case: case.id))


@lru_cache(maxsize=8)
def _unchanged(folder):
    """Raise ValueError unless a folder's files, the package's above all, are those of its manifest."""
    if Path(folder) == FOLDER or (Path(folder) / "MANIFEST.json").exists():
        found = verify_manifest(folder)
        if found:
            raise ValueError(f"golden: {folder}: {'; '.join(found[:3])}; nothing is judged by files that changed: put "
                             "them back, or let refdiff golden make write them")


def load(pattern="*", folder=FOLDER):
    """The cases whose id matches a glob ("step/ddim/*"; * also matches /), in the order of their ids.

    Raises ValueError for a folder that its manifest does not describe.
    """
    return [case for case in _all(str(folder)) if fnmatchcase(case.id, pattern)]


def raw(name, folder=FOLDER):
    """The JSON object of one case as its file has it. Raises ValueError for an id that no file has."""
    _unchanged(str(folder))
    for path in sorted(Path(folder).glob("*.json")):
        if path.name not in ("schema.json", "MANIFEST.json"):
            for plain in json.loads(path.read_text())["cases"]:
                if plain["id"] == name:
                    return plain
    for path in sorted(Path(folder).glob("*.h5")):
        with h5py.File(path, "r") as file:
            if f"{name}/{TEXT}" in file:
                return json.loads(file[name][TEXT][()])
    raise ValueError(f"golden: there is no case {name!r}; refdiff golden list shows the ids")
