"""The papers, the tags and the tests agree; and the checker says so when they do not."""
import pytest

from refdiff import papers

TOML = """
title = "On Gaussians"
authors = "Gauss"
source = "Theoria motus, 1809"
numbering = "of the first edition."

[symbols]
'h' = "`precision`"

[[equation]]
tag = "eq. 4"
says = "the density"
tex = 'e^{-h^2 x^2}'
status = "implemented"
tests = ["tests/test_gauss.py::test_density"]
departs = "unnormalised"
disagrees = "the tails of Laplace are heavier"
disagreement_tests = ["tests/test_gauss.py::test_tails"]

[[equation]]
tag = "sec. 2.1"
says = "its name"
tex = 'h'
status = "cited"
"""
CODE = '''"""Gaussians [GAUSS sec. 2.1; there "precision"]."""


class Normal:
    def density(self, x):
        """e^(-h^2 x^2). [GAUSS eq. 4]"""
'''
TEST = "def test_density():\n    assert True\n\n\ndef test_tails():\n    assert True\n"


@pytest.fixture
def checkout(tmp_path):
    """A small checkout in which everything agrees; call it with {file: text} to change some."""
    def write(**changes):
        for file, text in ({"papers/GAUSS.toml": TOML, "refdiff/normal.py": CODE, "tests/test_gauss.py": TEST}
                           | changes).items():
            path = tmp_path / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path
    return write


def the_problem(root):
    """The one problem of a checkout."""
    _, _, problems = papers.check(root)
    assert len(problems) == 1, problems
    return problems[0]


# ---- this repository

def test_every_tag_has_an_equation_and_every_implemented_equation_a_tag_and_a_test():
    _, _, problems = papers.check()
    assert not problems, "\n".join(problems)


def test_the_index_is_up_to_date():
    found, where, _ = papers.check()
    index = (papers.ROOT / "papers" / "INDEX.md").read_text(encoding="utf-8")
    assert index == papers.index(found, where), "run python -m refdiff.papers"


# ---- where the files are

def test_the_papers_are_found_in_a_checkout_and_where_the_package_is_installed(checkout, monkeypatch):
    root = checkout()
    monkeypatch.setattr(papers, "ROOT", root)
    monkeypatch.setattr(papers, "PACKAGE", root / "refdiff")
    assert papers.folder() == root / "papers"
    (root / "refdiff" / "equations").mkdir()
    (root / "papers" / "GAUSS.toml").rename(root / "refdiff" / "equations" / "GAUSS.toml")
    assert papers.folder() == root / "refdiff" / "equations"
    assert [paper.key for paper in papers.every()] == ["GAUSS"]


def test_no_papers_anywhere_is_an_error_that_says_where_they_were_sought(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "ROOT", tmp_path)
    monkeypatch.setattr(papers, "PACKAGE", tmp_path / "refdiff")
    with pytest.raises(FileNotFoundError, match="equations.*papers.*install refdiff anew"):
        papers.folder()


# ---- the checker

def test_a_checkout_that_agrees_passes_and_its_index_names_formula_function_test_and_departure(checkout):
    root = checkout()
    assert papers.main([], root) == 0
    assert papers.main(["--check"], root) == 0
    index = (root / "papers" / "INDEX.md").read_text(encoding="utf-8")
    row = next(line for line in index.splitlines() if line.startswith("| eq. 4 |"))
    for part in ("$e^{-h^2 x^2}$", "normal.py:Normal.density", "test_density", "unnormalised"):
        assert part in row


def test_a_tag_without_an_equation_is_refused(checkout):
    root = checkout(**{"refdiff/other.py": '"""See [GAUSS eq. 5]."""\n'})
    assert "other.py: [GAUSS eq. 5] points nowhere; list it in papers/GAUSS.toml" in the_problem(root)


def test_a_tag_without_a_paper_is_refused(checkout):
    root = checkout(**{"refdiff/other.py": '"""See [LAPLACE alg. 1]."""\n'})
    assert "[LAPLACE alg. 1] points nowhere; there is no papers/LAPLACE.toml" in the_problem(root)


def test_a_tag_that_cannot_be_read_is_refused(checkout):
    root = checkout(**{"refdiff/other.py": '"""See [GAUSS equation 4]."""\n'})
    assert "cannot read [GAUSS equation 4]" in the_problem(root)


def test_an_implemented_equation_without_a_tag_is_refused(checkout):
    root = checkout(**{"refdiff/normal.py": '"""Gaussians."""\n'})
    assert "eq. 4: called implemented, but no docstring carries [GAUSS eq. 4]" in the_problem(root)


def test_an_implemented_equation_without_a_test_is_refused(checkout):
    root = checkout(**{"papers/GAUSS.toml": TOML.replace('["tests/test_gauss.py::test_density"]', "[]")})
    assert "eq. 4: called implemented, but names no test" in the_problem(root)


@pytest.mark.parametrize("name", ["tests/test_gauss.py::test_tail", "tests/test_none.py::test_density",
                                  "tests/test_gauss.py", "tests/test_gauss.py::TestTail::test_density",
                                  "tests/test_gauss.py::test_tail[1", "tests/test_gauss.py::test_density["])
def test_a_test_that_does_not_exist_is_refused(checkout, name):
    root = checkout(**{"papers/GAUSS.toml": TOML.replace("tests/test_gauss.py::test_density", name)})
    assert f"test {name} does not exist" in the_problem(root)


def test_a_test_s_cases_are_named_by_the_start_of_their_ids(checkout):
    root = checkout(**{"papers/GAUSS.toml": TOML.replace("::test_density", "::test_density[wide-")})
    assert papers.main([], root) == 0
    index = (root / "papers" / "INDEX.md").read_text(encoding="utf-8")
    assert "[test_density\\[wide-](../tests/test_gauss.py)" in index


def test_a_disagreement_and_what_shows_it_stand_below_the_papers_table(checkout):
    root = checkout()
    assert papers.main([], root) == 0
    index = (root / "papers" / "INDEX.md").read_text(encoding="utf-8")
    assert "- eq. 4: the tails of Laplace are heavier [test_tails](../tests/test_gauss.py)" in index.splitlines()


def test_a_disagreement_that_no_test_shows_is_refused(checkout):
    silent = TOML.replace('disagreement_tests = ["tests/test_gauss.py::test_tails"]\n', "")
    root = checkout(**{"papers/GAUSS.toml": silent})
    assert "eq. 4: says that sources disagree, but names no disagreement_tests" in the_problem(root)


def test_a_disagreement_of_a_cited_equation_needs_no_test(checkout):
    told = TOML.replace("tex = 'h'", "tex = 'h'\ndisagrees = \"some call it accuracy\"")
    _, _, problems = papers.check(checkout(**{"papers/GAUSS.toml": told}))
    assert problems == []


def test_a_disagreements_test_that_does_not_exist_is_refused(checkout):
    root = checkout(**{"papers/GAUSS.toml": TOML.replace("::test_tails", "::test_heads")})
    assert "test tests/test_gauss.py::test_heads does not exist" in the_problem(root)


def test_a_disagreements_test_without_the_disagreement_is_refused(checkout):
    mute = TOML.replace('disagrees = "the tails of Laplace are heavier"\n', "")
    root = checkout(**{"papers/GAUSS.toml": mute})
    assert "eq. 4: names disagreement_tests, but not in disagrees what they show" in the_problem(root)


def test_an_index_that_is_out_of_date_fails_the_check(checkout, capsys):
    root = checkout()
    assert papers.main([], root) == 0
    checkout(**{"papers/GAUSS.toml": TOML.replace("unnormalised", "normalised")})
    assert papers.main(["--check"], root) == 1
    assert "out of date" in capsys.readouterr().err


@pytest.mark.parametrize("old, new, message", [
    ('status = "cited"', 'status = "done"', "sec. 2.1: status is 'done', wanted one of implemented, cited"),
    ('tag = "sec. 2.1"', 'tag = "eq. 4"', "eq. 4: listed twice"),
    ('tag = "sec. 2.1"', 'tag = "eq. 5, 6"', "wanted one tag"),
    ("tex = 'h'", "tex = '|h|'", "tex holds a bar"),
    ('departs = "unnormalised"', 'departs = "|h| for h"', "departs holds a bar"),
    ('"the tails of Laplace are heavier"', '"Laplace has |x|"', "disagrees holds a bar"),
    ('disagrees = "the tails of Laplace are heavier"', "disagrees = true", "field disagrees = True"),
    ("tex = 'h'", "text = 'h'", "field text = 'h'"),
    ('authors = "Gauss"', "", "authors is None"),
    ("[symbols]", "[symbols", "not TOML"),
])
def test_a_paper_file_with_a_mistake_is_refused_by_name(checkout, old, new, message):
    path = checkout(**{"papers/GAUSS.toml": TOML.replace(old, new)}) / "papers" / "GAUSS.toml"
    with pytest.raises(ValueError, match="GAUSS.toml") as error:
        papers.load(path)
    assert message in str(error.value)


@pytest.mark.parametrize("body, tags", [
    ("eq. 4", ["eq. 4"]),
    ("eq. 6, 7", ["eq. 6", "eq. 7"]),
    ("eq. 1-3 and 6", ["eq. 1", "eq. 2", "eq. 3", "eq. 6"]),
    ("eq. 7, table 1", ["eq. 7", "table 1"]),
    ("sec. B.6; the choice of c_in", ["sec. B.6"]),
    ("alg. 2, line 4", ["alg. 2"]),
    ("eq 4", []),
    ("4", []),
])
def test_a_bracket_means_its_tags(body, tags):
    assert papers.expand(body) == tags
