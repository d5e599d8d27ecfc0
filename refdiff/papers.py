"""Papers against code: every tag points at an equation, every equation at code and a test.

A docstring that states a formula ends the line with where it comes from, as in `[DDPM eq. 4]`,
`[GN eq. 1, 2]`, `[EDM alg. 1]`, `[CM sec. C]`, `[EDM table 1]`, or `[PHILOX]` for a paper as a whole.
papers/KEY.toml names the paper with its arXiv version and lists its equations: tag, says, tex, status
("implemented" or "cited"), tests, departs and verified. Where an equation is implemented is read
from the docstrings, so that it cannot go stale. Where two papers, or a paper and its own code, say
different things, `disagrees` tells how, and `disagreement_tests` show the difference in numbers. A test
is "tests/file.py::test_name", all its cases, or "tests/file.py::test_name[start", those whose id starts so.

    python -m refdiff.papers            # write papers/INDEX.md
    python -m refdiff.papers --check    # verify it, and all of the above
"""
import ast
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

try:
    import tomllib
except ImportError:                                # Python 3.10
    import tomli as tomllib

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent                              # a checkout: tests/ are not installed, papers/ as refdiff/equations
STATUSES = ("implemented", "cited")
FIELDS = {"tag": str, "says": str, "tex": str, "status": str, "tests": list, "departs": str, "verified": bool,
          "disagrees": str, "disagreement_tests": list}

_BRACKET = re.compile(r"\[([A-Z][A-Z0-9]*)(?: ([^\[\]]*))?\]")
_KIND = re.compile(r"(?:eq|alg|sec|table)\b")
_ITEM = re.compile(r"(?:(eq\.|alg\.|sec\.|table) )?(?:((?:\d+|[A-Z])(?:\.\d+)*)|(\d+)-(\d+))")


@dataclass(frozen=True)
class Equation:
    """One row of papers/KEY.toml: what the paper says, and how far it is implemented here."""

    tag: str
    says: str
    tex: str
    status: str
    tests: list = field(default_factory=list)
    departs: str = ""
    verified: bool = True
    disagrees: str = ""
    disagreement_tests: list = field(default_factory=list)


@dataclass(frozen=True)
class Paper:
    """papers/KEY.toml: the paper, the version its numbers refer to, its symbols against ours, its equations."""

    key: str
    title: str
    authors: str
    source: str
    numbering: str
    symbols: dict
    equations: tuple


# ---- reading

def folder():
    """Where the papers' files are: refdiff/equations where the package is installed, papers/ in a checkout."""
    for path in (PACKAGE / "equations", ROOT / "papers"):
        if any(path.glob("*.toml")):
            return path
    raise FileNotFoundError(f"papers: no KEY.toml in {PACKAGE / 'equations'} or {ROOT / 'papers'}; "
                            "install refdiff anew, or run it in a checkout of the repository")


def every():
    """All the papers, in the order of their keys, installed or in a checkout."""
    return [load(path) for path in sorted(folder().glob("*.toml"))]


def load(path):
    """The paper that one file papers/KEY.toml describes. Raises ValueError: file, entry, got, wanted."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: not TOML: {error}") from error
    for name in ("title", "authors", "source", "numbering"):
        if not isinstance(raw.get(name), str) or not raw[name]:
            raise ValueError(f"{path.name}: {name} is {raw.get(name)!r}, wanted a string")
    equations = []
    for row in raw.get("equation", ()):
        here = f"{path.name} {row.get('tag', '(no tag)')}"
        for name, value in row.items():
            if not isinstance(value, FIELDS.get(name, ())):
                raise ValueError(f"{here}: field {name} = {value!r}, wanted one of "
                                 + ", ".join(f"{k} ({t.__name__})" for k, t in FIELDS.items()))
        for name in ("tag", "says", "tex", "status"):
            if not row.get(name):
                raise ValueError(f"{here}: {name} is missing")
        if row["status"] not in STATUSES:
            raise ValueError(f"{here}: status is {row['status']!r}, wanted one of {', '.join(STATUSES)}")
        if row["tag"] != "paper" and expand(row["tag"]) != [row["tag"]]:
            raise ValueError(f"{here}: wanted one tag, as in 'eq. 4', 'alg. 2', 'sec. B.6', 'table 1' or 'paper'")
        for name in ("says", "tex", "departs", "disagrees"):
            if "|" in row.get(name, ""):
                raise ValueError(f"{here}: {name} holds a bar, which ends a table cell; "
                                 "write \\mid, \\lvert or \\lVert")
        if row["tag"] in [e.tag for e in equations]:
            raise ValueError(f"{here}: listed twice")
        equations.append(Equation(**row))
    return Paper(path.stem, raw["title"], raw["authors"], raw["source"], raw["numbering"],
                 raw.get("symbols", {}), tuple(equations))


def expand(body):
    """The single tags that a bracket means: "eq. 1-2, 6; a note" is ["eq. 1", "eq. 2", "eq. 6"]; [] if unreadable."""
    tags, kind = [], None
    for piece in re.split(r"[,;] | and ", body):
        match = _ITEM.fullmatch(piece)
        if not match or not (match[1] or kind):
            return tags                             # the rest is a note
        kind = match[1] or kind
        numbers = range(int(match[3]), int(match[4]) + 1) if match[3] else [match[2]]
        tags += [f"{kind} {n}" for n in numbers]
    return tags


def docstrings(path):
    """(name, text) of every docstring of a file: name is "" for the module, "f" or "Class.f" below it."""
    def walk(node, name):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{name}.{node.name}" if name else node.name
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            text = ast.get_docstring(node)
            if text:
                yield name, text
        for child in ast.iter_child_nodes(node):
            yield from walk(child, name)
    return walk(ast.parse(Path(path).read_text(encoding="utf-8")), "")


def tags_of(text, keys):
    """The tags in a docstring: ({(key, tag)}, [brackets that look like tags and cannot be read])."""
    found, unreadable = [], []
    for match in _BRACKET.finditer(" ".join(text.split())):
        key, body = match[1], match[2]
        if body is None:
            found += [(key, "paper")] if key in keys else []
        elif key in keys or _KIND.match(body):
            tags = expand(body)
            found += [(key, tag) for tag in tags]
            unreadable += [] if tags else [match[0]]
    return found, unreadable


def scan(package, keys):
    """Where each tag stands: ({(key, tag): ["file.py:function", ...]}, [problems])."""
    package = Path(package)
    where, problems = {}, []
    for path in sorted(package.rglob("*.py")):
        if path == Path(__file__).resolve():        # its tags are examples
            continue
        file = path.relative_to(package).as_posix()
        for name, text in docstrings(path):
            place = f"{file}:{name}" if name else file
            found, unreadable = tags_of(text, keys)
            problems += [f"{package.name}/{place}: cannot read {tag}; wanted [KEY eq. N], [KEY alg. N], "
                         "[KEY sec. N] or [KEY table N]" for tag in unreadable]
            for tag in dict.fromkeys(found):
                where.setdefault(tag, []).append(place)
    return where, problems


def has_test(root, name):
    """Whether "tests/file.py::test_name" (or ::Class::test_name) is there; of "test_name[start" the test is."""
    test, bracket, start = name.partition("[")
    if bracket and not start:
        return False
    file, *names = test.split("::")
    path = Path(root, file)
    if not names or not names[-1].startswith("test_") or not path.is_file():
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for part in names:
        node = next((n for n in body if getattr(n, "name", None) == part), None)
        if node is None:
            return False
        body = node.body
    return True


# ---- checking

def check(root=ROOT):
    """(papers, where, problems) of a checkout: papers/*.toml, the tags of refdiff/ and the tests they name."""
    root = Path(root)
    if not (root / "papers").is_dir():
        raise FileNotFoundError(f"papers: {root} has no papers/ folder; run this in a checkout of the repository")
    papers, problems = [], []
    for path in sorted((root / "papers").glob("*.toml")):
        try:
            papers.append(load(path))
        except ValueError as error:
            problems.append(str(error))
    keys = {paper.key for paper in papers}
    where, unreadable = scan(root / "refdiff", keys)
    problems += unreadable
    listed = {(paper.key, e.tag) for paper in papers for e in paper.equations}
    for (key, tag), places in where.items():
        if (key, tag) not in listed:
            todo = f"list it in papers/{key}.toml" if key in keys else f"there is no papers/{key}.toml"
            problems.append(f"refdiff/{places[0]}: [{key} {tag}] points nowhere; {todo}")
    for paper in papers:
        for e in paper.equations:
            here = f"{paper.key}.toml {e.tag}"
            problems += [f"{here}: test {t} does not exist" for t in e.tests + e.disagreement_tests
                         if not has_test(root, t)]
            if e.disagreement_tests and not e.disagrees:
                problems.append(f"{here}: names disagreement_tests, but not in disagrees what they show")
            if e.disagrees and e.status == "implemented" and not e.disagreement_tests:
                problems.append(f"{here}: says that sources disagree, but names no disagreement_tests that show it")
            if e.status == "implemented" and (paper.key, e.tag) not in where:
                problems.append(f"{here}: called implemented, but no docstring carries [{paper.key} {e.tag}]")
            if e.status == "implemented" and not e.tests:
                problems.append(f"{here}: called implemented, but names no test")
    return papers, where, problems


# ---- the index

def _links(tests):
    names = [(t.split("::")[-1].replace("[", "\\["), t.partition("::")[0]) for t in tests]
    return [f"[{name}](../{file})" for name, file in names]


def index(papers, where):
    """papers/INDEX.md: per paper its version, its symbols against ours, and a row per equation."""
    lines = ["# Equations, functions, proofs", "",
             "To be read beside the PDFs. Written by `python -m refdiff.papers` from the files beside it and the tags",
             "in the docstrings; `tests/papers` fails when it is out of date. Functions are named from `refdiff/`.",
             "An equation without a function is cited: it has no proof of its own here, though code that needs it",
             "may lie within another's function. `(?)` marks a number that could not be",
             "checked against the paper itself; the formula is right, the label may be another.", ""]
    lines += [f"- [{paper.key}](#{paper.key.lower()}) {paper.title}" for paper in papers]
    for paper in papers:
        lines += ["", f"## {paper.key}", "", f"{paper.authors}. *{paper.title}*. {paper.source}.", "",
                  f"Numbering: {paper.numbering}"]
        if paper.symbols:
            lines += ["", "| paper | here |", "| --- | --- |"]
            lines += [f"| ${theirs}$ | {ours} |" for theirs, ours in paper.symbols.items()]
        lines += ["", "| | formula | function | test | departs |", "| --- | --- | --- | --- | --- |"]
        for e in paper.equations:
            tag = e.tag + ("" if e.verified else " (?)")
            places = [f"[{p}](../refdiff/{p.partition(':')[0]})" for p in where.get((paper.key, e.tag), ())]
            cells = (tag, f"{e.says}: ${e.tex}$", "<br>".join(places) or "cited", "<br>".join(_links(e.tests)),
                     e.departs)
            lines.append("| " + " | ".join(cells) + " |")
        disputed = [e for e in paper.equations if e.disagrees]
        if disputed:
            lines += ["", "Where sources disagree:", ""]
            lines += [" ".join([f"- {e.tag}: {e.disagrees}"] + _links(e.disagreement_tests)) for e in disputed]
    return "\n".join(lines) + "\n"


def main(arguments, root=ROOT):
    """Write papers/INDEX.md, or with --check compare it; 0 if all is well, else 1 with the problems on stderr."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m refdiff.papers [--check]", file=sys.stderr)
        return 2
    papers, where, problems = check(root)
    path = Path(root, "papers", "INDEX.md")
    text = index(papers, where)
    if not arguments:
        path.write_text(text, encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        problems = problems + ["papers/INDEX.md is out of date; run python -m refdiff.papers"]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
