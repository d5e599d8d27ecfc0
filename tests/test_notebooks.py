"""The notebooks run from top to bottom, and what is committed is what they show: in order, complete and clean."""
import ast
import copy
import json
import os
import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat reads the notebooks: pip install 'refdiff[test]'")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = 1.5e6                               # bytes of a committed notebook
SHOWS = {"print", "display", "show"}        # calls after which a reader expects an output; and pyplot's figures
HOSTS_FILES = re.compile(r"(?:^|[\s'\"(=])(?:/(?:home|root|tmp|usr|var|opt|work|Users|private|mnt)/|[A-Z]:\\)")
NAMED = re.compile(r"`((?:refdiff|tests|papers|data|notebooks)/[\w./]*)`")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def shows(source):
    """Whether a cell prints or draws: it calls one of SHOWS or plt.subplots outside a function of its own."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]

    def calls(node):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        for child in ast.iter_child_nodes(node):
            yield from calls(child)
    return not SHOWS.union(["subplots"]).isdisjoint(calls(ast.parse("\n".join(lines))))


def texts(output):
    """Every text of an output."""
    if output.output_type == "stream":
        return [output.text]
    return [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]


def faults(notebook):
    """What is wrong with the committed outputs, one line each."""
    found = []
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("the cells were not executed once each, in order: restart the kernel and run all")
    for i, cell in enumerate(cells, start=1):
        if shows(cell.source) and not cell.outputs:
            found.append(f"cell [{i}] prints or draws and has no output")
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell [{i}] has {output.get('name') or output.output_type} in its output")
            if any(HOSTS_FILES.search(text) for text in texts(output)):
                found.append(f"cell [{i}] shows a path of the machine it ran on")
    return found


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_complete_in_order_and_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert not faults(notebook)
    assert path.stat().st_size < LIMIT


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_file_that_a_notebook_names_exists(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    missing = [name for name in NAMED.findall(prose) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """In a kernel of this Python, in an empty folder, refdiff installed or not. Its own asserts must hold."""
    pytest.importorskip("ipykernel", reason="ipykernel runs the notebooks: pip install 'refdiff[test]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs the notebooks: pip install 'refdiff[test]'")
    kernel = tmp_path / "kernels" / "python3" / "kernel.json"       # the first place that is looked at
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                                  "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("REFDIFF_BACKEND", "numpy")
    folder = tmp_path / "empty"
    folder.mkdir()
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None

    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3",
                                     resources={"metadata": {"path": str(folder)}})
    client.execute()

    assert not faults(notebook)
    assert not list(folder.iterdir()), "the notebook left files where it ran"


def test_every_fault_is_found():
    """Planted in a good notebook, one at a time."""
    good = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("def f():\n    print(1)", execution_count=1),
        nbformat.v4.new_code_cell("%matplotlib inline\nprint(2)", execution_count=2,
                                  outputs=[nbformat.v4.new_output("stream", name="stdout", text="2, a/b and 1/2\n")])])
    assert not faults(good)

    def stderr(cells):
        cells[1].outputs[0].name = "stderr"

    def error(cells):
        cells[1].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))

    def place(cells):
        cells[1].outputs[0].text = "saved '/home/someone/x.png'"

    def result(cells):
        cells[0].outputs.append(nbformat.v4.new_output("execute_result", {"text/plain": "PosixPath('/tmp/x')"}))

    def windows(cells):
        cells[1].outputs[0].text = r"C:\Users\someone"

    def order(cells):
        cells[1].execution_count = 3

    def never(cells):
        cells[0].execution_count = None

    def silent(cells):
        cells[1].outputs = []

    def blank(cells):
        cells[0].source = "fig, ax = plt.subplots()"

    for plant in (stderr, error, place, result, windows, order, never, silent, blank):
        bad = copy.deepcopy(good)
        plant(bad.cells)
        assert len(faults(bad)) == 1, plant.__name__
