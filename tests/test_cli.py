"""The command line end to end: train, distil, sample, evaluate, info; what is refused says what to do."""
import json
import os
import signal

import numpy as np
import pytest
from click.testing import CliRunner

from refdiff import data
from refdiff.checkpoint import load_checkpoint, save_checkpoint
from refdiff.cli import main
from refdiff.denoiser import WEIGHTINGS
from refdiff.fit import TrainConfig
from refdiff.ops.fast import routed
from refdiff.parallel import may_fork
from refdiff.process.parameterization import LimitError
from refdiff.sample import sample
from refdiff.train import DenoisingObjective

SMALL = ["--channels", "8", "--groups", "4", "--batch", "8", "--threads", "1"]


def refdiff(*args, ok=True):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert (result.exit_code == 0) == ok, result.output
    if not ok:
        assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a teacher of four steps and a student of three."""
    out = tmp_path_factory.mktemp("runs")
    refdiff("train", "--steps", 4, "--warmup", 1, "--out", out, *SMALL)
    refdiff("distill", out / "checkpoint.h5", "--steps", 3, "--out", out, "--batch", 8, "--threads", 1)
    return out


def test_train_and_distill_leave_checkpoints_and_pictures(runs):
    assert {p.name for p in runs.iterdir()} >= {"checkpoint.h5", "loss.png", "distilled.h5", "distilled_loss.png"}
    student = load_checkpoint(runs / "distilled.h5", "distillation")
    assert student.step == 3 and student.config["consistency"]["sigma_max"] == 80.0      # the teacher's


def test_training_resumes_from_the_command_line(runs, tmp_path):
    refdiff("train", "--steps", 4, "--warmup", 1, "--out", tmp_path, *SMALL)
    a, b = (load_checkpoint(folder / "checkpoint.h5") for folder in (runs, tmp_path))
    np.testing.assert_array_equal(a.vectors["theta"], b.vectors["theta"])
    refdiff("train", "--steps", 4, "--warmup", 1, "--out", tmp_path, "--resume", *SMALL)


@pytest.mark.parametrize("source, sampler", [("checkpoint.h5", "heun"), ("checkpoint.h5", "euler"),
                                             ("checkpoint.h5", "ddim"), ("checkpoint.h5", "ddpm"),
                                             ("distilled.h5", "consistency")])
def test_every_sampler_writes_images(runs, tmp_path, source, sampler):
    target = tmp_path / "new folder" / "x.h5"
    refdiff("sample", runs / source, "--sampler", sampler, "--steps", 3, "--count", 7, "--label", 5, "--out", target)
    drawn = data.load(target)
    assert drawn.images.shape == (7, 8, 8, 1) and set(drawn.labels) == {5} and drawn.levels == 17
    again = tmp_path / "y.h5"
    refdiff("sample", runs / source, "--sampler", sampler, "--steps", 3, "--count", 7, "--label", 5, "--out", again)
    np.testing.assert_array_equal(data.load(again).images, drawn.images)
    refdiff("sample", runs / source, "--sampler", sampler, "--steps", 3, "--count", 7, "--label", 5, "--seed", 1,
            "--out", again)
    assert not np.array_equal(data.load(again).images, drawn.images)


def test_samples_are_written_as_a_picture_an_array_or_a_data_file(runs, tmp_path):
    images = {}
    for suffix in (".png", ".npy", ".h5"):
        target = tmp_path / f"x{suffix}"
        refdiff("sample", runs / "checkpoint.h5", "--steps", 2, "--count", 11, "--out", target)
        images[suffix] = target
    assert images[".png"].read_bytes().startswith(b"\x89PNG")
    array = np.load(images[".npy"])
    assert array.shape == (11, 8, 8, 1) and np.abs(array).max() <= 1
    np.testing.assert_array_equal(data.load(images[".h5"]).images, array)
    assert list(data.load(images[".h5"]).labels) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_evaluate_prints_distances_beside_their_floors(runs, tmp_path):
    target = tmp_path / "x.h5"
    refdiff("sample", runs / "checkpoint.h5", "--steps", 2, "--count", 60, "--out", target)
    printed = json.loads(refdiff("evaluate", target, "--data", "digits", "--json", tmp_path / "x.json"))
    assert printed == json.loads((tmp_path / "x.json").read_text())
    assert printed["samples"] == 60 and 0 <= printed["precision"] <= 1 and sum(printed["class_histogram"]) == 60
    for space in ("frechet", "pixel_frechet"):
        assert printed[space]["train"] > printed[space]["baseline"] > printed[space]["floor"]["bootstrap"] > 0


def test_real_images_score_as_the_floor_does(tmp_path):
    """The bootstrap floor is the mean score of training images drawn with replacement; one draw varies by a quarter."""
    real = data.digits("train")
    rows = np.random.default_rng(0).integers(0, len(real), 1000)
    data.save(tmp_path / "real.h5", real.images[rows], real.labels[rows], real.levels, real.classes)
    printed = json.loads(refdiff("evaluate", tmp_path / "real.h5", "--data", "digits"))
    assert printed["frechet"]["train"] == pytest.approx(printed["frechet"]["floor"]["bootstrap"], rel=0.75)
    assert printed["nearest_train"] == 0 and printed["precision"] == 1 and printed["label_agreement"] > 0.99


def test_a_users_own_array_trains_and_samples(tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8))
    refdiff("train", "--data", tmp_path / "mine.npy", "--steps", 2, "--out", tmp_path / "run", *SMALL)
    refdiff("sample", tmp_path / "run" / "checkpoint.h5", "--steps", 2, "--count", 3, "--out", tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").shape == (3, 12, 12, 3)


@pytest.mark.parametrize("prediction, process", [("eps", "linear"), ("v", "cosine"), ("F", "linear"),
                                                 ("velocity", "linear"), ("velocity", "flow"), ("F", "flow")])
def test_networks_of_every_process_are_sampled_and_distilled(tmp_path, prediction, process):
    refdiff("train", "--prediction", prediction, "--process", process, "--steps", 2, "--out", tmp_path, *SMALL)
    network = load_checkpoint(tmp_path / "checkpoint.h5").config["network"]
    assert (network["time_scale"], network["embedding_period"]) == ((16, 100) if prediction == "F" else (1, 10000))
    for sampler in ("ddpm", "ddim", "heun"):
        refdiff("sample", tmp_path / "checkpoint.h5", "--sampler", sampler, "--steps", 3, "--count", 2, "--out",
                tmp_path / "x.npy")
    refdiff("distill", tmp_path / "checkpoint.h5", "--steps", 2, "--batch", 8, "--threads", 1, "--sigma-min", 0.05,
            "--sigma-max", 20, "--out", tmp_path)
    refdiff("sample", tmp_path / "distilled.h5", "--sigmas", "20,1", "--count", 2, "--out", tmp_path / "x.npy")


def test_info_says_what_a_file_holds(runs):
    printed = refdiff("info", runs / "checkpoint.h5")
    assert "training" in printed and "parameters" in printed and "label_dropout" in printed


@pytest.mark.parametrize("args, message", [
    (["trian"], "train"),
    (["train", "--stesp", "3"], "--steps"),
    (["train", "--steps", "0", "--out", "x"], "steps"),
    (["train", "--data", "nowhere.npy", "--out", "x"], "nowhere.npy"),
    (["train", "--process", "edm", "--prediction", "eps", "--out", "x"], "prediction 'F'"),
    (["sample", "nowhere.h5", "--out", "x.png"], "nowhere.h5"),
    (["audit", "homemade", "--expect", "no.toml"], "Error: audit: no.toml: No such file or directory; wanted the name"),
    (["audit", "homemade", "--expect", "."], "Error: audit: .: Is a directory; wanted one that can be used"),
    (["sample", "nowhere.h5", "--out", "x.jpg"], ".png, .npy, .h5"),
    (["demo", "--threads", "-1"], "threads"),
    (["train", "--multipliers", "", "--out", "x"], "at least one"),
    (["train", "--clip", "inf", "--out", "x"], "clip is inf"),
    (["train", "--explode", "inf", "--out", "x"], "explode is inf"),
    (["sample", "nowhere.h5", "--seed", str(2 ** 63), "--out", "x.h5"], "--seed"),
    (["--backend", "torch", "info", "x"], "numpy"),
])
def test_mistakes_are_answered_in_one_message(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refdiff(*args, ok=False)


def test_mistakes_about_a_checkpoint_are_answered(runs, tmp_path):
    sample = ["sample", runs / "checkpoint.h5", "--out", tmp_path / "x.npy"]
    said = refdiff(*sample, "--sampler", "ddim", "--compat", "stride_stepping", ok=False)
    assert "refdiff train --process linear --prediction eps" in said and "without --compat stride_stepping" in said
    assert "refdiff distill" in refdiff(*sample, "--sampler", "consistency", ok=False)
    assert "refdiff train" in refdiff("sample", runs / "distilled.h5", "--sampler", "ddim", "--out",
                                      tmp_path / "x.npy", ok=False)
    assert "label is 11, wanted 0..9, or 10" in refdiff(*sample, "--label", 11, ok=False)
    assert "--resume" in refdiff("train", "--steps", 4, "--out", runs, *SMALL, ok=False)
    assert "--sigmas belongs to consistency" in refdiff(*sample, "--sigmas", "20", ok=False)
    assert "heun: there is no 'eta' to be chosen" in refdiff(*sample, "--eta", 1, ok=False)
    assert "each name once (--eta gives eta)" in refdiff(*sample, "--sampler", "ddim", "--eta", 1, "--option", "eta=1",
                                                         ok=False)
    for option, sampler, said in (
            ("steps=3", "ddim", "there is no 'steps'"), ("noise=1", "ddpm", "there is no 'noise'"),
            ("tau=x", "sde_dpmpp", "tau is 'x'"), ("S_churn=abc", "churn", "S_churn is 'abc'"),
            ("start=[1]", "unipc", "start is [1]"), ("predictor={}", "predictor_corrector", "predictor is {}"),
            ("variance=[1]", "ddpm", "variance is [1]"), ("floor=0", "adaptive", "floor is 0"),
            ("order=true", "sde_dpmpp", "order is True"), ("r1=\"x\"", "dpm", "r1 is 'x'")):
        assert said in refdiff(*sample, "--sampler", sampler, "--option", option, "--steps", 2, "--count", 2, ok=False)
    student = ["sample", runs / "distilled.h5", "--out", tmp_path / "x.npy"]
    assert "one step is made per sigma" in refdiff(*student, "--steps", 1, "--sigmas", "20,1", ok=False)
    assert "sigma 100 is above 80" in refdiff(*student, "--sigmas", "100,1", ok=False)
    assert "is of kind 'distillation', wanted 'training'" in refdiff("distill", runs / "distilled.h5", "--out",
                                                                    tmp_path, ok=False)


def test_what_cannot_be_written_is_refused_before_any_work(runs, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "x.npy").mkdir()
    monkeypatch.setattr("refdiff.fit.Steps", None)
    monkeypatch.setattr("refdiff.cli.draw_samples", None)
    monkeypatch.setattr("refdiff.cli.Reference", None)
    refused = [refdiff("train", "--out", tmp_path / "file", *SMALL, ok=False),
               refdiff("distill", runs / "checkpoint.h5", "--out", tmp_path / "file", "--threads", 1, ok=False),
               refdiff("sample", runs / "checkpoint.h5", "--out", tmp_path / "file" / "x.npy", ok=False),
               refdiff("evaluate", runs / "x.h5", "--json", tmp_path / "file" / "x.json", ok=False)]
    assert all("cannot be written" in said for said in refused)
    assert "is a folder" in refdiff("sample", runs / "checkpoint.h5", "--out", tmp_path / "x.npy", ok=False)


def test_eta_is_given_to_every_sampler_that_has_it_in_either_form(runs, tmp_path):
    drawn = {}
    for sampler in ("ddim", "euler_ancestral"):
        for given in (["--eta", .3], ["--option", "eta=0.3"], []):
            refdiff("sample", runs / "checkpoint.h5", "--sampler", sampler, *given, "--steps", 3, "--count", 2, "--out",
                    tmp_path / "x.npy")
            drawn[sampler, " ".join(map(str, given[:1]))] = np.load(tmp_path / "x.npy")
    for sampler in ("ddim", "euler_ancestral"):
        np.testing.assert_array_equal(drawn[sampler, "--eta"], drawn[sampler, "--option"])
        assert not np.array_equal(drawn[sampler, "--eta"], drawn[sampler, ""])
    np.testing.assert_array_equal(drawn["ddim", "--eta"], drawn["euler_ancestral", "--eta"])


def test_the_adaptive_solver_samples_a_network_of_a_discrete_schedule(tmp_path):
    refdiff("train", "--prediction", "v", "--process", "cosine", "--steps", 2, "--out", tmp_path, *SMALL)
    refdiff("sample", tmp_path / "checkpoint.h5", "--sampler", "adaptive", "--option", "rtol=0.1", "--option",
            "atol=0.1", "--steps", 2, "--count", 2, "--out", tmp_path / "x.npy")
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()


def test_samples_never_replace_a_checkpoint(runs):
    before = {name: (runs / name).read_bytes() for name in ("checkpoint.h5", "distilled.h5")}
    for name in before:
        assert "choose another name" in refdiff("sample", runs / "checkpoint.h5", "--out", runs / name, ok=False)
    assert before == {name: (runs / name).read_bytes() for name in before}


def test_samples_of_a_checkpoint_that_diverged_are_refused(runs, tmp_path):
    checkpoint = load_checkpoint(runs / "checkpoint.h5")
    checkpoint.vectors["ema"] = checkpoint.vectors["ema"] * np.float32(np.nan)
    save_checkpoint(tmp_path / "c.h5", checkpoint)
    assert "not finite" in refdiff("sample", tmp_path / "c.h5", "--steps", 1, "--count", 1, "--out",
                                   tmp_path / "x.npy", ok=False)
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("source, sampler, steps", [("distilled.h5", "consistency", 3), ("checkpoint.h5", "heun", 2)])
def test_sigmas_that_would_be_ignored_are_refused(runs, source, sampler, steps):
    with pytest.raises(ValueError, match=f"2 sigmas for {sampler} in {steps} steps"):
        sample(load_checkpoint(runs / source), sampler, steps, 2, sigmas=(20.0, 1.0))


def test_labels_that_would_be_ignored_are_refused(tmp_path):
    assert "have their own" in refdiff("train", "--labels", "x.npy", "--out", tmp_path, ok=False)


def test_too_few_samples_and_heldout_images_of_another_kind_are_refused_and_labels_may_lack(tmp_path):
    real = data.digits("heldout").images
    for n, name in ((3, "few"), (20, "some")):
        data.save_npy(tmp_path / f"{name}.npy", real[:n])
    np.save(tmp_path / "large.npy", np.zeros((9, 9, 9), np.uint8))
    assert "3 samples, wanted at least 4" in refdiff("evaluate", tmp_path / "few.npy", ok=False)
    some = ["evaluate", tmp_path / "some.npy", "--heldout"]
    assert "the held-out images" in refdiff(*some, tmp_path / "large.npy", ok=False)
    floor = json.loads(refdiff(*some, tmp_path / "some.npy"))["frechet"]["floor"]
    assert set(floor) == {"bootstrap"}                      # stratified splits need labels


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr("refdiff.fit.Steps.gradient", stop)
    result = CliRunner().invoke(main, ["train", "--steps", "2", "--out", str(tmp_path), *SMALL])
    assert result.exit_code == 130 and "--resume" in result.output


@pytest.mark.skipif(not may_fork(), reason="no processes here")
@pytest.mark.parametrize("end, said", [(lambda: os.kill(os.getpid(), signal.SIGKILL), "died; the system may be out of"),
                                       (lambda: 1 / 0, "failed: ZeroDivisionError: division by zero")])
def test_a_process_that_dies_or_fails_in_training_is_one_line_that_says_how_to_go_on(end, said, tmp_path, monkeypatch):
    monkeypatch.setenv("REFDIFF_PARALLEL", "processes")
    first, loss = os.getpid(), DenoisingObjective.loss

    def failing(*args):
        return loss(*args) if os.getpid() == first else end()
    monkeypatch.setattr(DenoisingObjective, "loss", failing)
    printed = refdiff("train", "--steps", 2, "--out", tmp_path, *SMALL, "--threads", 2, ok=False)
    told = [line for line in printed.splitlines() if line.startswith("Error: ")]
    assert len(told) == 1 and said in told[0] and "--resume goes on from the last checkpoint, or begins" in told[0]
    assert told[0] == printed.splitlines()[-1]


@pytest.mark.skipif(not may_fork(), reason="no processes here")
def test_an_error_that_one_process_would_refuse_is_refused_alike_from_a_member(tmp_path, monkeypatch):
    monkeypatch.setenv("REFDIFF_PARALLEL", "processes")
    first, loss = os.getpid(), DenoisingObjective.loss

    def failing(*args):
        if os.getpid() == first:
            return loss(*args)
        raise LimitError("no eps at sigma = 0")
    monkeypatch.setattr(DenoisingObjective, "loss", failing)
    printed = refdiff("train", "--steps", 2, "--out", tmp_path, *SMALL, "--threads", 2, ok=False)
    assert printed.splitlines()[-1] == "Error: no eps at sigma = 0"


@pytest.mark.parametrize("error,said", [(MemoryError("Unable to allocate 7 TiB"), "Unable to allocate 7 TiB"),
                                        (MemoryError(), "no more is told")])
def test_a_lack_of_memory_is_one_line(error, said, tmp_path, monkeypatch):
    def failing(file):
        raise error
    monkeypatch.setattr("refdiff.cli.describe", failing)
    assert refdiff("info", tmp_path, ok=False) == (
        f"Error: info: out of memory ({said}); wanted less at a time: fewer images, or threads\n")


@pytest.mark.parametrize("name", ["REFDIFF_ROUTES", "REFDIFF_PARALLEL"])
def test_a_misspelt_variable_is_refused_before_any_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr(routed, "_chosen", None)
    monkeypatch.setattr("refdiff.cli.describe", lambda file: 1 / 0)
    monkeypatch.setenv(name, "thraeds")
    printed = refdiff("info", tmp_path, ok=False)
    assert "'thraeds', wanted" in printed and len(printed.splitlines()) == 1


def test_images_that_are_not_the_digits_are_measured_in_pixels_alone(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", images[:40])
    np.save(tmp_path / "x.npy", images[40:])
    printed = json.loads(refdiff("evaluate", tmp_path / "x.npy", "--data", tmp_path / "mine.npy"))
    assert "pixel_frechet" in printed and not {"frechet", "class_histogram", "label_agreement"} & set(printed)


@pytest.mark.parametrize("command", ["demo", "train", "distill", "sample", "evaluate", "info"])
def test_every_command_has_help(command):
    assert "Usage" in refdiff(command, "--help") and len(refdiff(command, "--help")) > 200


def test_the_help_of_weighting_explains_every_weight():
    said = TrainConfig.__dataclass_fields__["weighting"].metadata["help"]
    assert [part.split()[0] for part in said.partition(": ")[2].split("; ")] == list(WEIGHTINGS)
