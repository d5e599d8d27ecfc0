"""The main job in small: everything it must leave behind, and what its figures mean."""
import json

import numpy as np
import pytest

from refdiff import demo as job
from refdiff.data import digits
from refdiff.evaluate import Reference

NAMES = ("ddim50", "ddim2", "heun18", "cd1", "cd2", "cd4")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The demo with a few updates and a few samples; DDPM's 1000 steps with 3."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(job.SIZES, True, dict(n=40, seeds=2, teacher=12, student=6))
        patch.setitem(job.FULL, "ddpm1000", (False, "ddpm", 3, 3))
        results = job.demo(out, quick=True, full=True, progress=False)
    return out, results


def test_the_report_has_every_figure(run):
    out, results = run
    written = json.loads((out / "report.json").read_text())
    for space in ("frechet", "pixel_frechet"):
        for name in (*NAMES, "ddpm1000"):
            assert set(written[space][name]) == {"train", "heldout"}
            assert all(v > 0 for v in written[space][name].values())
        assert set(written[space]["floor"]) == {"bootstrap", "heldout", "split"} and written[space]["baseline"] > 0
    for key in ("precision", "recall", "nearest_train"):
        assert set(written[key]) >= {*NAMES, "ddpm1000", "heldout"}
    assert set(written["seconds"]) == {"train", "distill", "sample", "total"}
    assert written["seconds"]["total"] >= sum(v for k, v in written["seconds"].items() if k != "total") > 0
    assert written["parameters"] == 177_553 and written["seed"] == 0 and written["peak_mib"] > 10
    assert [bar["claim"] for bar in written["bars"]] == [bar["claim"] for bar in results["bars"]]


def test_the_folder_holds_a_report_and_two_checkpoints(run):
    out, _ = run
    assert {p.name for p in out.iterdir()} == {"checkpoint.h5", "distilled.h5", "loss.png", "distilled_loss.png",
                                               "report.json", "report.html", "samples.png"}


def test_a_second_run_does_not_write_over_the_first(run):
    with pytest.raises(FileExistsError, match="--out"):
        job.demo(run[0], quick=True, progress=False)


def results(**changes):
    """Figures that meet every bar by a hair."""
    f = {"heun18": 2.19, "ddim50": 2.49, "ddim2": 40.0, "cd4": 2.9, "cd2": 4.2, "cd1": 6.7}
    f.update(changes)
    return {"frechet": {**{k: {"train": v, "heldout": 1.29 if k == "cd4" else 2.0} for k, v in f.items()},
                        "floor": {"bootstrap": 1.0, "heldout": 1.0, "split": 1.0}, "baseline": 25.0},
            "precision": dict.fromkeys(f, 0.861), "recall": dict.fromkeys(f, 0.861),
            "nearest_train": dict.fromkeys(f, 0.76)}


def test_bars_are_met_and_missed_where_they_should_be():
    assert all(bar["ok"] for bar in job.bars(results()))
    for change in (dict(heun18=2.21), dict(ddim50=2.51), dict(cd4=3.0), dict(cd2=4.3), dict(cd1=6.8), dict(cd2=2.8),
                   dict(cd1=4.1), dict(ddim2=33.0)):
        assert not all(bar["ok"] for bar in job.bars(results(**change))), change
    for key in ("precision", "recall"):
        low = results()
        low[key]["heun18"] = 0.859
        assert sum(not bar["ok"] for bar in job.bars(low)) == 1
    near = results()
    near["nearest_train"]["cd1"] = 0.74
    assert sum(not bar["ok"] for bar in job.bars(near)) == 1
    near["nearest_train"]["cd4"] = 0.74
    assert sum(not bar["ok"] for bar in job.bars(near)) == 2


def test_training_images_as_samples_are_all_copies():
    real = digits("train")
    found = Reference(real, digits("heldout")).compare(real.images, real.labels)
    assert found["nearest_train"] == 0 and found["precision"] == found["recall"] == 1
    assert found["frechet"]["train"] == pytest.approx(0, abs=1e-9)
    assert Reference(real).nearest_other() == pytest.approx(0.66143783, abs=1e-6)       # sqrt(28)/8: 28 grey levels^2
    assert found["class_histogram"] == np.bincount(real.labels).tolist()


def test_samples_are_rounded_to_the_datas_grey_levels_before_they_are_measured():
    """Noise below half a grey level changes nothing."""
    real = digits("train")
    noisy = real.images + np.random.default_rng(0).uniform(-0.06, 0.06, real.images.shape).astype(np.float32)
    assert Reference(real).compare(noisy)["nearest_train"] == 0
