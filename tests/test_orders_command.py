"""`refdiff orders`: the table, the page and the plot of what was observed, and its exit status."""
import numpy as np
from click.testing import CliRunner
from PIL import Image

from refdiff import orders
from refdiff.cli import main
from refdiff.samplers import ddim, heun
from refdiff.samplers.orders import Claim

CLAIMS = [Claim("ddim", ddim, 1), Claim("heun", heun, 2)]


def run(monkeypatch, claims, *arguments):
    monkeypatch.setattr(orders, "CLAIMS", claims)
    return CliRunner().invoke(main, ["orders", *map(str, arguments)])


def test_orders_that_hold_are_printed_drawn_and_written(monkeypatch, tmp_path):
    done = run(monkeypatch, CLAIMS, "--plot", tmp_path / "o.png", "--markdown", tmp_path / "o.md")
    assert done.exit_code == 0, done.output
    assert "4 of 4 observed orders are within 0.15" in done.output
    page = (tmp_path / "o.md").read_text()
    assert page.count("| holds |") == 4 and "(o.png)" in page
    picture = np.asarray(Image.open(tmp_path / "o.png").convert("RGB"))
    assert picture.shape[1] > 1500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_a_claim_that_does_not_hold_is_said_and_fails(monkeypatch):
    done = run(monkeypatch, [Claim("heun", heun, 3)])
    assert done.exit_code == 1 and done.output.count("FAILS") == 2 and "0 of 2" in done.output


def test_a_place_that_cannot_be_written_is_refused_before_the_work(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(monkeypatch, CLAIMS, "--plot", tmp_path / "file" / "o.png")
    assert done.exit_code == 2


def test_a_plot_that_is_no_png_is_refused_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(orders, "measure", None)
    done = run(monkeypatch, CLAIMS, "--plot", tmp_path / "o.jpg")
    assert done.exit_code == 2 and "o.jpg, wanted a name that ends in .png" in done.output.replace("\n", "")
    assert not (tmp_path / "o.jpg").exists()
