"""README.md: its links are alive, and its Python runs and does what is said of it."""
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from refdiff.cli import main
from refdiff.data import from_array
from refdiff.denoiser import DenoiserConfig
from refdiff.fit import TrainConfig
from refdiff.models import suggest
from refdiff.train import train

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def block(word):
    found = [text for text in BLOCKS if word in text]
    assert len(found) == 1, f"{len(found)} blocks of Python hold {word!r}"
    return found[0]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "papers/ORDERS.md"])
def test_every_relative_link_is_alive(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not dead, dead


def test_the_check_of_ones_own_sampler_agrees_and_finds_a_mistake():
    names = {}
    exec(block("def mine"), names)
    for got, wanted in zip(names["law"], names["exact"]):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
    wrong = {}
    exec(block("def mine").replace("s.sigma * p.eps", "t.sigma * p.eps"), wrong)
    assert np.abs(wrong["law"][1] - wrong["exact"][1]).max() > .1


def test_guidance_with_a_network_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    network = dataclasses.replace(suggest(16), channels=8, multipliers=(1, 1), blocks=1, attention=(), groups=4)
    train(from_array(images, np.arange(20) % 10), network, DenoiserConfig(), TrainConfig(steps=2, batch=4),
          "runs/labelled", progress=False)
    names = {"np": np}
    exec(block("guidance.cfg"), names)
    assert names["images"].shape == (2, 16, 16, 3) and np.isfinite(names["images"]).all()


def audit(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    done = CliRunner().invoke(main, ["audit", str(tmp_path / "mine.py"), "--json", str(tmp_path / "found.json")])
    return done, json.loads((tmp_path / "found.json").read_text())


def test_the_adapter_of_ten_lines_passes_its_audit(tmp_path):
    done, found = audit(tmp_path, block('name = "mine"'))
    assert done.exit_code == 0, done.output
    assert {one["status"] for one in found} == {"pass", "not-implemented"}
    assert sum(one["status"] == "pass" for one in found) >= 25


def test_a_wrong_final_level_in_it_is_named(tmp_path):
    wrong = block('name = "mine"').replace("enumerate(zip(times, times[1:])):",
                                           "enumerate(zip(times, [max(s, 1) for s in times[1:]])):")
    done, found = audit(tmp_path, wrong)
    assert done.exit_code == 1
    assert any("final_alpha=abar_0" in one["cause"] for one in found if one["status"] == "fail"), done.output
