"""`refdiff verify`: the proofs of the papers' equations, run, with the digits in which both sides agree.

papers/*.toml says for each equation which tests prove it; the docstrings say which functions implement it. The tests
are run, and every comparison that they make with numpy.testing or pytest.approx is measured on the way:

    digits = -log10(max |got - wanted| / max |wanted|),  at most 17, the least over a test's comparisons

An equation holds when all its tests pass. Its digits are those of the first of its tests that compares numbers; each
test's own stand beside it on the page, for another may well compare a random sample with its law to two digits. A test
without such a comparison states its fact otherwise, as a count, an inequality or a refusal, and has none.
"""
import contextlib
import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np

from . import papers

EXACT = 17.0        # all digits of a float64; both sides are the same bits


@dataclass
class Proof:
    """One test, in all the cases that its name means: whether all passed, the least digits (None without a
    comparison), what it says.
    """

    name: str
    cases: int = 0
    failed: int = 0
    skipped: int = 0
    digits: float | None = None
    why: str = ""

    @property
    def holds(self):
        return self.cases > self.skipped and not self.failed


@dataclass
class Row:
    """One equation: the functions that implement it, its proofs and their verdict."""

    paper: papers.Paper
    equation: papers.Equation
    places: list
    proofs: list = field(default_factory=list)

    @property
    def names(self):
        """The tests that prove it, then those that show where sources disagree about it."""
        return list(dict.fromkeys(self.equation.tests + self.equation.disagreement_tests))

    @property
    def holds(self):
        return bool(self.proofs) and all(proof.holds for proof in self.proofs)

    @property
    def first(self):
        """The proof whose digits are the equation's: the first of its own that compares numbers, else the first."""
        own = [proof for proof in self.proofs if proof.name in self.equation.tests]
        return next((proof for proof in own if proof.digits is not None), own[0] if own else None)

    @property
    def digits(self):
        return self.first.digits if self.first else None


def digits(got, wanted):
    """The digits in which two arrays agree, relative to the largest entry wanted; entries not finite are left out."""
    got, wanted = np.broadcast_arrays(np.asarray(got), np.asarray(wanted))
    kinds = got.dtype.kind + wanted.dtype.kind
    if set(kinds) - set("fciu") or not set(kinds) & set("fc") or not got.size:          # counts agree or do not
        return None
    got, wanted = (a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for a in (got, wanted))
    finite = np.isfinite(got) & np.isfinite(wanted)
    if not finite.any():
        return None
    got, wanted = got[finite], wanted[finite]
    error, scale = np.abs(got - wanted).max(), np.abs(wanted).max()
    if error == 0:
        return EXACT
    return min(EXACT, max(0.0, -math.log10(error / scale if scale else error)))


class Recorder:
    """A pytest plugin: what the comparisons of each test named agree to, and how it ended; no other case is run."""

    def __init__(self, names, tick=lambda: None):
        self.proofs, self.current, self.tick = {name: Proof(name) for name in names}, [], tick

    def of(self, nodeid):
        """The proofs that a case belongs to: "test" means all its cases, "test[start" those whose id starts so."""
        return [proof for name, proof in self.proofs.items()
                if nodeid == name or nodeid.startswith(name if "[" in name else f"{name}[")]

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if self.of(item.nodeid)]

    def measured(self, compare):
        def wrapper(actual, desired, *args, **kwargs):
            __tracebackhide__ = True                # a failure is shown where the test compares
            try:
                compare(actual, desired, *args, **kwargs)
            finally:
                self.note(actual, desired)
        return wrapper

    def note(self, actual, desired):
        agreed = digits(actual, desired) if self.current else None
        if agreed is not None:
            for proof in self.current:
                proof.digits = agreed if proof.digits is None else min(proof.digits, agreed)

    def pytest_runtest_logstart(self, nodeid, location):
        self.current = self.of(nodeid)
        for proof in self.current:
            proof.cases += 1

    def pytest_runtest_logreport(self, report):
        for proof in self.of(report.nodeid):
            proof.failed += report.failed
            proof.skipped += report.skipped
            if report.failed and not proof.why:
                crash = getattr(report.longrepr, "reprcrash", None)
                where, what = ((f"{Path(crash.path).name}:{crash.lineno}", crash.message) if crash else
                               ("", report.longrepr))
                proof.why = f"{report.nodeid}: {where}: {' '.join(str(what).split())[:300]}"
        if report.when == "teardown":
            self.current = []
            self.tick()


class Approximately:
    """What pytest.approx returns, and the digits of every comparison with it that holds."""

    __array_ufunc__ = None                          # an array on the left asks us, rather than each of its entries

    def __init__(self, expected, real, recorder):
        self.expected, self.real, self.recorder = expected, real, recorder

    def __eq__(self, actual):
        equal = self.real == actual
        if equal and not isinstance(self.expected, dict):
            self.recorder.note(actual, self.expected)
        return equal

    def __repr__(self):
        return repr(self.real)


@contextlib.contextmanager
def _watching(recorder, pytest):
    """The comparisons of numpy.testing and pytest, measured while they are made."""
    places = [(np.testing, name, recorder.measured) for name in ("assert_allclose", "assert_array_equal")]
    places.append((pytest, "approx", lambda approx: lambda expected, *args, **kwargs: Approximately(
        expected, approx(expected, *args, **kwargs), recorder)))
    before = [getattr(place, name) for place, name, _ in places]
    try:
        for (place, name, wrap), function in zip(places, before):
            setattr(place, name, wrap(function))
        yield
    finally:
        for (place, name, _), function in zip(places, before):
            setattr(place, name, function)


def run_tests(names, root, tick=lambda: None):
    """{name: Proof} of the tests "tests/file.py::test_name", or "..::test_name[start" for the cases whose id starts so,
    run here and now in the checkout `root`.
    """
    try:
        import pytest
    except ImportError as error:
        raise ValueError("verify: the proofs are tests, and pytest is not installed; "
                         "pip install -e '.[test]'") from error
    recorder, before, said = Recorder(names, tick), os.getcwd(), io.StringIO()
    os.chdir(root)
    try:
        with _watching(recorder, pytest), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            functions = dict.fromkeys(name.partition("[")[0] for name in names)
            code = pytest.main([*functions, "-p", "no:terminal", "-p", "no:cacheprovider"], plugins=[recorder])
    finally:
        os.chdir(before)
    if code not in (0, 1):
        raise ValueError(f"verify: pytest could not run the proofs (exit status {int(code)}): "
                         + (said.getvalue().strip()[-500:] or "see python -m pytest " + " ".join(sorted(names)[:2])))
    for proof in recorder.proofs.values():
        proof.why = proof.why or ("" if proof.cases else f"{proof.name}: no case ran")
    return recorder.proofs


def checkout():
    """The folder with papers/ and tests/ around this package's source: proofs beside another copy prove that one."""
    if all((papers.ROOT / name).is_dir() for name in ("papers", "tests", "refdiff")):
        return papers.ROOT
    raise ValueError(f"verify: the refdiff that runs is installed in {papers.PACKAGE}, without the proofs beside it; "
                     "they are tests of a checkout: in a clone of the repository, pip install -e '.[test]' takes its "
                     "place")


def verify(keys=(), root=None, tick=lambda: None):
    """(rows, problems): every implemented equation of the papers named (all if none), with its proofs, run.

    problems: what keeps these papers' tables, tags and tests from belonging together. tick() is called after every
    test. Raises ValueError for a paper that is not there.
    """
    root = Path(root or checkout())
    known, where, problems = papers.check(root)
    names = [paper.key for paper in known]
    for key in keys:
        if key.upper() not in names:
            raise ValueError(f"verify: paper is {key!r}, wanted one of {', '.join(names)}")
    wanted = {key.upper() for key in keys} or set(names)
    problems = [text for text in problems if not keys or any(f"{key}.toml" in text for key in wanted)]
    rows = [Row(paper, e, where.get((paper.key, e.tag), [])) for paper in known if paper.key in wanted
            for e in paper.equations if e.status == "implemented"]
    tests = sorted({name for row in rows for name in row.names if papers.has_test(root, name)})
    proofs = run_tests(tests, root, tick) if tests else {}
    for row in rows:
        row.proofs = [proofs.get(name, Proof(name, why="was not run")) for name in row.names]
    return rows, problems


def shown(value):
    """Digits as they are printed."""
    return "-" if value is None else "all" if value >= EXACT else f"{value:.1f}"


def table(rows):
    """The rows as lines of text: equation, digits, function, and what proved it."""
    lines = []
    for row in rows:
        name = row.first.name.partition("::")[2] if row.first else "no proof"
        more = f" +{len(row.proofs) - 1}" if len(row.proofs) > 1 else ""
        lines.append((f"{row.paper.key} {row.equation.tag}", "holds" if row.holds else "FAILS", shown(row.digits),
                      row.places[0] if row.places else "-", name + more))
    head = ("equation", "", "digits", "function", "proof (+ others)")
    return columns([head, *lines])


def columns(lines):
    """Rows of cells as lines of text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def markdown(rows):
    """The same as a page of tables, one per paper."""
    lines = ["# Every equation, run", "",
             "Written by `refdiff verify --markdown papers/VERIFIED.md`. Digits: the agreement of a test with its",
             "independent truth, the least over its comparisons; an equation's are those of the first that compares",
             "numbers. `all`: the same bits; `-`: no numbers are compared. [INDEX.md](INDEX.md) has the formulas.", ""]
    for paper in dict.fromkeys(row.paper.key for row in rows):
        lines += [f"## {paper}", "", "| | function | proof | digits | |", "| --- | --- | --- | ---: | --- |"]
        for row in (row for row in rows if row.paper.key == paper):
            proofs = "<br>".join(f"{p.name.partition('::')[2]} ({shown(p.digits)})" for p in row.proofs)
            lines.append(f"| {row.equation.tag} {row.equation.says} | {'<br>'.join(row.places)} | {proofs} | "
                         f"{shown(row.digits)} | {'holds' if row.holds else 'FAILS'} |")
        lines.append("")
    return "\n".join(lines)


def mathml(tex):
    """TeX as MathML, which browsers render without a network. Raises ValueError if the converter is not installed."""
    try:
        from latex2mathml.converter import convert
    except ImportError as error:
        raise ValueError("verify: --html typesets with latex2mathml, which is not installed; "
                         "pip install -e '.[test]'") from error
    return convert(tex, display="block")


def page(rows, problems):
    """One HTML file: per paper and equation the formula, the functions, the proofs and their digits."""
    shelves = {}
    for row in rows:
        shelves.setdefault(row.paper.key, (row.paper, []))[1].append((row, mathml(row.equation.tex)))
    environment = jinja2.Environment(loader=jinja2.PackageLoader("refdiff"), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("verify.html").render(
        shelves=list(shelves.values()), problems=problems, shown=shown, total=len(rows),
        held=sum(row.holds for row in rows))
