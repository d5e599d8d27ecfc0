"""The reproductions in golden/reports print what the reports say, with the versions that they are about."""
import contextlib
import importlib.metadata
import io
import re
import warnings
from pathlib import Path

import pytest

REPORTS = Path(__file__).parents[2] / "golden" / "reports"
BLOCK = re.compile(r"```python\n(.*?)```", re.S)


def blocks(name):
    """[(code, what it prints)]: the comment lines at the end of each block."""
    found = []
    for block in BLOCK.findall((REPORTS / name).read_text()):
        lines = block.rstrip().split("\n")
        said = []
        while lines[-1].startswith("# "):
            said.insert(0, lines.pop()[2:])
        found.append(("\n".join(lines), "\n".join(said)))
    return found


def installed(name, version):
    pytest.importorskip("torch", reason="the reproductions need torch")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the report is about {name}, which is not installed")
    if not found.startswith(version):
        pytest.skip(f"the report is about {name} {version}, installed is {found}")


CASES = [(package, version, i) for package, version in (("diffusers", "0.42.1"), ("k-diffusion", "0.1.1"))
         for i in range(len(blocks(f"{package}-{version}.md")))]


@pytest.mark.parametrize("package, version, i", CASES)
def test_a_reproduction_prints_what_its_report_says(package, version, i):
    installed(package, version)
    code, said = blocks(f"{package}-{version}.md")[i]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, f"{package}-{version}.md, block {i}", "exec"), {})
    assert said and printed.getvalue().strip() == said, code


@pytest.mark.parametrize("package, version", [("diffusers", "0.42.1"), ("k-diffusion", "0.1.1")])
def test_reproductions_are_small(package, version):
    assert all(code.count("\n") < 14 for code, _ in blocks(f"{package}-{version}.md"))
