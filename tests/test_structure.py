"""The house stands as designed: import order, sizes, the length of the core reading path, nothing left unpackaged.

The rules read the source with ast; no module is imported. Each rule is also run on a small house with a fault planted.
"""
import ast
import configparser
import io
import shutil
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "refdiff"

# The rooms, from the ground up: a module imports from its own floor and from the floors below it, never upwards.
# A new module directly under refdiff/, or a new folder, is added here where it belongs.
FLOORS = (
    "__init__",
    "cuda",
    "backend",
    "rng config parallel jobs files",
    "figures",
    "params gradient",
    "ops process",
    "nn samplers guidance",
    "models",
    "tangent",
    "denoiser classifier",
    "losses objectives optim metrics readers data checkpoint",
    "steps resume",
    "fit",
    "train distill",
    "sample evaluate report info likelihood",
    "demo",
    "papers golden foreign",
    "verify claims",
    "orders bench",
    "cli",
    "__main__",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}

# Theory without a layer, layers without a beta: neither half imports the other.
HALVES = ({"process", "samplers", "guidance"}, {"ops", "nn", "models"})

LONGEST_MODULE = 400

# What a reader goes through to know the method from noise to a distilled sampler, in this order: the ops of its
# networks and losses (ops/variational.py, the terms of the bound, is for those who also learn variances, and
# ops/tokens.py for those who build other networks).
CORE = ("process/schedules.py", "process/gaussian.py", "samplers/ddpm.py", "samplers/ddim.py", "ops/[!tv]*.py",
        "nn/*.py", "models/unet.py", "losses.py", "steps.py", "fit.py", "train.py", "distill/consistency.py")
LONGEST_CORE = 1500


class House:
    """The source files under root/refdiff, parsed."""

    def __init__(self, root):
        self.root = root
        self.files = sorted((root / PACKAGE).rglob("*.py"))
        self.trees = {self.module(path): ast.parse(path.read_text(), str(path)) for path in self.files}

    def module(self, path):
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def imports(self):
        """{(importer, imported, line)}: every import of refdiff by refdiff, also those inside functions."""
        found = set()
        for path in self.files:
            module = self.module(path)
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            for node in ast.walk(self.trees[module]):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    up = package.split(".")[:len(package.split(".")) - (node.level - 1)] if node.level else []
                    base = ".".join(up + ([node.module] if node.module else []))
                    names = [f"{base}.{alias.name}" for alias in node.names]
                else:
                    continue
                found |= {(module, self.known(name), node.lineno) for name in names if name.split(".")[0] == PACKAGE}
        return found

    def known(self, name):
        """The module that `name` is, or is defined in."""
        while name not in self.trees and "." in name:
            name = name.rpartition(".")[0]
        return name


def room(module):
    return module.split(".")[1] if "." in module else "__init__"


def unknown_rooms(house):
    return [f"{module}: room {room(module)!r} has no floor; add it to FLOORS in tests/test_structure.py"
            for module in house.trees if room(module) not in FLOOR]


def upward_imports(house):
    return [f"{a}:{line} imports {b}: {room(b)} is above {room(a)}" for a, b, line in sorted(house.imports())
            if FLOOR.get(room(b), 0) > FLOOR.get(room(a), 0)]


def imports_between_the_halves(house):
    sides = [(HALVES[0], HALVES[1]), (HALVES[1], HALVES[0])]
    return [f"{a}:{line} imports {b}: {room(a)} and {room(b)} never meet; denoiser.py is where they do"
            for a, b, line in sorted(house.imports()) for one, other in sides if room(a) in one and room(b) in other]


def cycles(house):
    """Modules that import each other in a ring, by depth-first search; a package's __init__ counts as a module."""
    edges = {}
    for a, b, _ in house.imports():
        if a != b:
            edges.setdefault(a, set()).add(b)
    found, done = [], set()

    def visit(module, path):
        if module in path:
            found.append(" -> ".join(path[path.index(module):] + [module]))
        elif module not in done:
            for other in sorted(edges.get(module, ())):
                visit(other, path + [module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return found


def names_of_the_device_module(house):
    """Lines that name CuPy outside backend.py, prose too: elsewhere it is "the device" or backend.NAMES."""
    return [f"{path.relative_to(house.root)}:{number} names CuPy; backend.py alone does (backend.of, backend.xp, "
            "backend.NAMES; in prose: the device)"
            for path in house.files if path != house.root / PACKAGE / "backend.py"
            for number, line in enumerate(path.read_text().splitlines(), 1) if "cupy" in line.lower()]


def long_modules(house):
    return [f"{path.relative_to(house.root)} has {n} lines, at most {LONGEST_MODULE}; make two rooms of it"
            for path in house.files if (n := len(path.read_text().splitlines())) > LONGEST_MODULE]


def missing_docstrings(house):
    return [f"{module} has no module docstring" for module, tree in house.trees.items() if not ast.get_docstring(tree)]


def unpackaged(house):
    """Folders with modules that setup.cfg does not list, and listed ones that are not there."""
    settings = configparser.ConfigParser()
    settings.read(house.root / "setup.cfg")
    listed = set(settings["options"]["packages"].split()) - {f"{PACKAGE}.assets", f"{PACKAGE}.equations"}
    there = {".".join(path.parent.relative_to(house.root).parts) for path in house.files}
    return [f"{name}: a folder that setup.cfg does not list under packages" for name in sorted(there - listed)] + \
           [f"{name}: setup.cfg lists it, but it holds no module" for name in sorted(listed - there)]


def left_out_of_the_wheel(house):
    """Files beside the modules, data files and papers that no pattern of setup.cfg's package_data takes along."""
    settings = configparser.ConfigParser()
    settings.read(house.root / "setup.cfg")
    patterns = settings["options.package_data"] if settings.has_section("options.package_data") else {}
    needed = {PACKAGE: (house.root / PACKAGE, [p for p in (house.root / PACKAGE).rglob("*") if p.is_file()
                                               and p.suffix != ".py" and "__pycache__" not in p.parts]),
              f"{PACKAGE}.assets": (house.root / "data", list((house.root / "data").glob("*.h5"))),
              f"{PACKAGE}.equations": (house.root / "papers", list((house.root / "papers").glob("*.toml")))}
    taken = {path for package, (folder, _) in needed.items() for pattern in patterns.get(package, "").split(",")
             if pattern.strip() for path in folder.glob(pattern.strip())}
    return [f"{path.relative_to(house.root)}: no pattern of setup.cfg's package_data takes it into the wheel"
            for _, paths in needed.values() for path in sorted(set(paths) - taken)]


def _docstring_lines(tree):
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(
                    first.value.value, str):
                lines |= set(range(first.lineno, first.end_lineno + 1))
    return lines


def code_lines(text):
    """The lines that hold code: not the blank ones, nor those with a comment alone, nor docstrings.

    Formulas and reasons are the point of the docstrings, and a budget must not be met by leaving them out.
    """
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - _docstring_lines(ast.parse(text)))


def core_path(house):
    """{pattern: code lines} along the core reading path."""
    return {pattern: sum(code_lines(path.read_text()) for path in (house.root / PACKAGE).glob(pattern))
            for pattern in CORE}


RULES = (unknown_rooms, upward_imports, imports_between_the_halves, cycles, names_of_the_device_module, long_modules,
         missing_docstrings, unpackaged, left_out_of_the_wheel)


@pytest.fixture(scope="module")
def refdiff():
    return House(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_has_none_of(rule, refdiff):
    faults = rule(refdiff)
    assert not faults, "\n  ".join([f"{rule.__name__}:"] + faults)


def test_the_core_reading_path_is_short_and_complete(refdiff):
    counted = core_path(refdiff)
    table = "\n".join(f"  {lines:5} {pattern}" for pattern, lines in counted.items())
    assert all(counted.values()), f"not there, or empty:\n{table}"
    total = sum(counted.values())
    assert total <= LONGEST_CORE, f"{total} code lines, at most {LONGEST_CORE}:\n{table}"


def test_no_two_test_modules_share_a_name():
    """pytest cannot collect them together, and the whole suite stops."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


# ---- the rules themselves, on a house with one fault

SETUP = "[options]\npackages =\n    refdiff\n    refdiff.assets\n    refdiff.nn\n    refdiff.ops\n    refdiff.process\n"
SOUND = {
    "__init__.py": "",
    "backend.py": "import cupy\n",
    "ops/__init__.py": "from .conv import forward\n",
    "ops/conv.py": "from .. import backend\n",
    "nn/layers.py": "from ..ops import forward\nfrom ..ops.conv import forward as plain\n",
    "process/level.py": "from .. import backend\n",
    "denoiser.py": "from .nn.layers import plain\nfrom .process import level\nimport refdiff.ops.conv\n",
}
PLANTED = [
    (upward_imports, "ops/conv.py", "from ..nn import layers\n", "refdiff.ops.conv:2 imports refdiff.nn.layers"),
    (upward_imports, "ops/conv.py", "def f():\n    import refdiff.denoiser\n", "ops.conv:3 imports refdiff.denoiser"),
    (upward_imports, "backend.py", "from refdiff import denoiser\n", "refdiff.backend:2 imports refdiff.denoiser"),
    (upward_imports, "__init__.py", "from .backend import xp\n", "refdiff:2 imports refdiff.backend"),
    (imports_between_the_halves, "process/level.py", "from ..ops.conv import forward\n", "refdiff.process.level:2"),
    (imports_between_the_halves, "nn/layers.py", "from ..process import level\n", "refdiff.nn.layers:2"),
    (cycles, "ops/conv.py", "from .norm import x\n", "refdiff.ops.conv -> refdiff.ops.norm -> refdiff.ops.conv"),
    (names_of_the_device_module, "ops/conv.py", "import cupy as cp\n", "refdiff/ops/conv.py:2"),
    (names_of_the_device_module, "denoiser.py", "def f():\n    from cupyx import jit\n", "refdiff/denoiser.py:3"),
    (names_of_the_device_module, "denoiser.py", "x = 1      # CuPy has no such function\n", "refdiff/denoiser.py:2"),
    (long_modules, "denoiser.py", "x = 1\n" * 400, "refdiff/denoiser.py has 404 lines"),
    (missing_docstrings, "ops/new.py", None, "refdiff.ops.new has no module docstring"),
    (unknown_rooms, "cellar.py", "", "room 'cellar' has no floor"),
    (unpackaged, "models/unet.py", "", "refdiff.models: a folder that setup.cfg does not list"),
    (left_out_of_the_wheel, "templates/page.html", "<p>", "refdiff/templates/page.html: no pattern"),
    (left_out_of_the_wheel, "../data/digits.h5", "", "data/digits.h5: no pattern"),
    (left_out_of_the_wheel, "../papers/DDPM.toml", "", "papers/DDPM.toml: no pattern"),
]


def build(root, fault=None, text=""):
    """A small sound house; with a fault, text goes right below that file's docstring (None: a file without one)."""
    files = {**SOUND, "ops/norm.py": "from . import conv\n"}
    if fault:
        files[fault] = (text or "") + files.get(fault, "")
    for name, body in files.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body if name == fault and text is None else '"""Words."""\n' + body)
    (root / "setup.cfg").write_text(SETUP)
    return House(root)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_house_passes(rule, tmp_path):
    assert rule(build(tmp_path)) == []


@pytest.mark.parametrize("rule, fault, text, says", PLANTED)
def test_a_planted_fault_is_found_and_no_other_cause_is_given(rule, fault, text, says, tmp_path):
    found = rule(build(tmp_path, fault, text))
    assert len(found) == 1 and says in found[0], found


def test_code_lines_are_those_that_hold_code():
    text = '''"""Formula.

    More of it.
    """
# a comment

import math          # 1


def f(x):            # 2
    """Says."""
    y = (x           # 3
         # why
         + 1)        # 4
    return """not
    a docstring"""   # 5 and 6
'''
    assert code_lines(text) == 6


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, *_ in PLANTED} == set(RULES)


# ---- the script that a change must pass

def ci_show(root):
    return subprocess.run([root / ".ci" / "run", "--show"], capture_output=True, text=True)


def test_the_ci_script_runs_a_test_command_that_the_readme_quotes():
    shown = ci_show(ROOT)
    assert shown.returncode == 0, shown.stderr
    assert "pytest" in shown.stdout and shown.stdout.strip() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("readme, command", [
    ("pytest in prose\n```bash\npip install pytest\n$ python -m pytest -q   # 8 minutes\npytest again\n```\n",
     "python -m pytest -q"),
    ("```\ncd x && pytest\n```", "cd x && pytest"), ("  ```sh\n  pytest -q\n  ```\n", "pytest -q"),
    ("python -m pytest -q\n```\npip install pytest\n```\n    pytest\n", None), (None, None)])
def test_the_ci_script_takes_the_first_fenced_line_that_runs_pytest(readme, command, tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    shown = ci_show(tmp_path)
    if command is None:
        assert shown.returncode == 1 and "README.md" in shown.stderr and not shown.stdout
    else:
        assert shown.stdout == command + "\n", shown.stderr
