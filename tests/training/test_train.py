"""The training loop: the same bits after SIGKILL and resume, any number of threads, and a loud stop on divergence."""
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from refdiff import fit as loop
from refdiff.checkpoint import CheckpointError, load_checkpoint
from refdiff.data import digits, from_array
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.fit import Images, TrainConfig, TrainingDiverged
from refdiff.models import UNet, UNetConfig
from refdiff.rng import Key
from refdiff.train import DenoisingObjective, train

NET = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, dropout=0.1, time_scale=16.0,
                 embedding_period=100.0)
CONFIG = TrainConfig(steps=12, batch=16, warmup=3, threads=1, save_every=4, seed=3)
RUN = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_train import CONFIG, NET, digits, replace, train, DenoiserConfig
train(digits(), NET, DenoiserConfig(), replace(CONFIG, steps=60, save_every=2), sys.argv[1], sys.argv[2] == "resume",
      progress=False)
"""


def run(out, config=CONFIG, resume=False, denoising=DenoiserConfig(), dataset=None):
    return train(dataset or digits(), NET, denoising, config, out, resume, progress=False)


def assert_same_bits(a, b):
    assert a.step == b.step
    for name in a.vectors:
        np.testing.assert_array_equal(a.vectors[name], b.vectors[name], err_msg=name)
    np.testing.assert_array_equal(a.history["loss"], b.history["loss"])


def test_a_run_leaves_a_whole_checkpoint_and_a_picture(tmp_path):
    checkpoint = run(tmp_path)
    assert_same_bits(checkpoint, load_checkpoint(tmp_path / "checkpoint.h5", "training"))
    assert set(checkpoint.vectors) == {"theta", "ema", "m", "v"}
    assert checkpoint.config["train"]["batch"] == 16 and checkpoint.config["data"]["images"] == len(digits())
    assert checkpoint.config["denoiser"]["sigma_data"] == pytest.approx(float(digits().images.std()), rel=1e-5)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    a, b = run(tmp_path / "a"), run(tmp_path / "b")
    assert_same_bits(a, b)
    c = run(tmp_path / "c", replace(CONFIG, seed=4))
    assert not np.array_equal(a.vectors["theta"], c.vectors["theta"])


@pytest.mark.parametrize("stop", [4, 8])
def test_a_run_that_stops_after_any_save_resumes_to_the_same_bits(tmp_path, monkeypatch, stop):
    whole = run(tmp_path / "whole")
    save = loop.save_checkpoint

    class Stop(Exception):
        pass

    def save_and_stop(path, checkpoint):
        save(path, checkpoint)
        if checkpoint.step == stop:
            raise Stop
    monkeypatch.setattr(loop, "save_checkpoint", save_and_stop)
    with pytest.raises(Stop):
        run(tmp_path / "parts")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.h5").step == stop
    assert_same_bits(whole, run(tmp_path / "parts", resume=True))


def test_a_run_killed_by_sigkill_resumes_to_the_same_bits(tmp_path):
    """Two kills at moments that depend on the machine, then to the end: nothing of it may show in the result."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    start = [sys.executable, "-c", RUN]
    subprocess.run([*start, str(tmp_path / "whole"), "new"], env=env, check=True)
    target, mode = tmp_path / "killed" / "checkpoint.h5", "new"
    for kill in range(2):
        before = load_checkpoint(target).step if target.exists() else 0
        process = subprocess.Popen([*start, str(tmp_path / "killed"), mode], env=env)
        while process.poll() is None and not (target.exists() and load_checkpoint(target).step > before):
            time.sleep(0.01)
        time.sleep(0.03 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        mode = "resume"
    assert load_checkpoint(target).step < 60, "the run ended before it was killed: make it longer"
    subprocess.run([*start, str(tmp_path / "killed"), mode], env=env, check=True)
    assert_same_bits(load_checkpoint(tmp_path / "whole" / "checkpoint.h5"), load_checkpoint(target))


def test_a_run_is_clipping_adamw_and_the_average_on_the_gradients_it_met(tmp_path, monkeypatch):
    """Replayed in float64 from the gradients alone: the clip, the rate's course, the decay and the warm-up all enter.

    theta is float32: a rounding of 6e-8 of a theta of about 1, every step.
    """
    config = replace(CONFIG, steps=8, lr=1e-2, warmup=3, clip=0.05, weight_decay=0.1, ema=0.4, beta1=0.8, beta2=0.9)
    real, thetas_met, grads_met = loop.Steps.gradient, [], []

    def spy(steps, step):
        thetas_met.append({name: steps.thetas[name].flat.astype(np.float64) for name in ("theta", "ema")})
        found = real(steps, step)
        grads_met.append(steps.collected().flat.astype(np.float64))
        return found
    monkeypatch.setattr(loop.Steps, "gradient", spy)
    end = run(tmp_path, config)
    theta, ema = thetas_met[0]["theta"].copy(), thetas_met[0]["ema"].copy()
    m, v = 0 * theta, 0 * theta
    for n, g in enumerate(grads_met):
        norm = np.sqrt(np.sum(g * g))
        assert norm > 0.05, "the clip has to bite"
        g = g * 0.05 / norm
        rate = 1e-2 * ((n + 1) / 3 if n < 3 else (1 + np.cos(np.pi * (n - 3) / 5)) / 2)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        step = m / (1 - 0.8 ** (n + 1)) / (np.sqrt(v / (1 - 0.9 ** (n + 1))) + 1e-8)
        theta = theta - rate * step - rate / 1e-2 * 0.1 * theta
        mu = min(0.4, (1 + n) / (10 + n))
        ema = mu * ema + (1 - mu) * theta
    # where g is nearly 0 its quotient g/sqrt(v) keeps fewer digits than g: a few 1e-4 of a rate of 1e-2
    np.testing.assert_allclose(end.vectors["theta"], theta, atol=5e-6)
    np.testing.assert_allclose(end.vectors["ema"], ema, atol=5e-6)


def objective(dropout=0.1, batch=50):
    data = digits()
    net = UNet(replace(NET, image_size=8, in_channels=1, out_channels=1, classes=10, dropout=dropout, zero_init=False))
    config = replace(CONFIG, batch=batch)
    return DenoisingObjective(Denoiser(net, DenoiserConfig()), Images(data, 0.0, 10, config), config)


def test_every_step_draws_its_own_images_noise_levels_and_masks_again_when_asked():
    it = objective()
    first, again, other = it.draw(3), it.draw(3), it.draw(4)
    for name, of in {"x0": lambda b: b.x0, "eps": lambda b: b.eps, "level": lambda b: b.level.sigma,
                     "masks": lambda b: b.masks[0]}.items():
        np.testing.assert_array_equal(of(first), of(again))
        assert not np.array_equal(of(first), of(other)), name
    assert abs(np.corrcoef(first.eps.ravel(), other.eps.ravel())[0, 1]) < 5 / np.sqrt(first.eps.size)
    assert abs(np.corrcoef(first.eps.ravel(), first.x0.ravel())[0, 1]) < 5 / np.sqrt(first.eps.size)


def test_labels_and_masks_of_a_batch_reach_the_network():
    it = objective(batch=6)
    theta = it.denoiser.network.layout.init(Key(0), np.float64)
    batch = it.draw(0)

    def loss(labels, masks):
        x = batch.x0 + batch.level.sigma[:, None, None, None] * batch.eps
        F, _ = it.denoiser.evaluate(theta, x, batch.level, labels, masks)
        return np.mean((F - it.denoiser.target(batch.x0, batch.eps, batch.level)) ** 2)      # EDM's weight of F is 1
    got = it.loss({"theta": theta}, batch, slice(0, 6), theta.zeros_like(), 1.0)
    assert got == pytest.approx(loss(batch.labels, batch.masks), rel=1e-5)
    for other in (loss(None, batch.masks), loss(batch.labels, None)):
        assert abs(other / got - 1) > 1e-3


def test_the_number_of_threads_changes_rounding_only(tmp_path):
    """float32 gradients of 16 rows summed in another order: relative differences of about 1e-6 a step."""
    one = run(tmp_path / "1", replace(CONFIG, steps=3))
    for threads in (2, 3):
        many = run(tmp_path / str(threads), replace(CONFIG, steps=3, threads=threads))
        np.testing.assert_allclose(many.history["loss"], one.history["loss"], rtol=1e-4)
        assert not np.array_equal(many.vectors["theta"], 0 * many.vectors["theta"])
        again = run(tmp_path / f"{threads} again", replace(CONFIG, steps=3, threads=threads))
        assert_same_bits(many, again)


def test_training_lowers_the_loss(tmp_path):
    checkpoint = run(tmp_path, replace(CONFIG, steps=150, batch=64, lr=4e-3, warmup=20, save_every=150))
    loss = checkpoint.history["loss"]
    assert loss[-30:].mean() < 0.75 * loss[:10].mean()


@pytest.mark.parametrize("prediction, process, weighting", [("F", "linear", "edm"), ("eps", "linear", "simple"),
                                                            ("x0", "cosine", "edm"), ("v", "cosine", "simple")])
def test_every_prediction_trains(tmp_path, prediction, process, weighting):
    denoising = DenoiserConfig(prediction=prediction, process=process)
    checkpoint = run(tmp_path, replace(CONFIG, steps=40, batch=32, lr=2e-3, weighting=weighting, save_every=40),
                     denoising=denoising)
    loss = checkpoint.history["loss"]
    assert np.median(loss[-10:]) < np.median(loss[:5])


def test_a_nan_stops_the_run_and_names_step_loss_and_checkpoint(tmp_path, monkeypatch):
    real, calls = loop.Steps.gradient, []

    def broken(*args):
        loss, norm = real(*args)
        calls.append(loss)
        return float("nan") if len(calls) == 7 else loss, norm
    monkeypatch.setattr(loop.Steps, "gradient", broken)
    with pytest.raises(TrainingDiverged, match=r"step 6: loss nan.*checkpoint.h5, step 4"):
        run(tmp_path)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "checkpoint.h5").step == 4
    assert_same_bits(run(tmp_path / "whole"), run(tmp_path, resume=True))


def test_a_nan_gradient_stops_the_run_too(tmp_path, monkeypatch):
    real = loop.Steps._loss

    def broken(steps, i, step):
        loss = real(steps, i, step)
        steps.sum.grads[i]["conv_in.b"] += np.full(8, np.inf, np.float32)
        return loss
    monkeypatch.setattr(loop.Steps, "_loss", broken)
    with pytest.raises(TrainingDiverged, match="step 0: .*gradient norm inf.*none is saved yet"):
        run(tmp_path)
    assert not (tmp_path / "checkpoint.h5").exists()


def test_a_run_that_was_killed_before_its_first_save_begins_again(tmp_path):
    assert_same_bits(run(tmp_path / "a", resume=True), run(tmp_path / "b"))


@pytest.mark.parametrize("step", [10, 110])
def test_an_exploding_loss_stops_the_run(tmp_path, monkeypatch, step):
    real, calls = loop.Steps.gradient, []

    def exploding(*args):
        calls.append(1)
        loss, norm = real(*args)
        return loss * (1000 if len(calls) > step else 1), norm
    monkeypatch.setattr(loop.Steps, "gradient", exploding)
    with pytest.raises(TrainingDiverged, match=f"step {step}:"):
        run(tmp_path, replace(CONFIG, steps=120, batch=4, save_every=50))


def test_a_run_is_not_overwritten_nor_resumed_as_another(tmp_path):
    run(tmp_path)
    with pytest.raises(FileExistsError, match="--resume"):
        run(tmp_path)
    with pytest.raises(CheckpointError, match="train.lr is 0.004 in the file, 0.001 now"):
        run(tmp_path, replace(CONFIG, lr=1e-3), resume=True)
    with pytest.raises(CheckpointError, match="data.fingerprint"):
        run(tmp_path, resume=True, dataset=digits("heldout"))


def test_classes_without_images_and_images_without_contrast_are_refused(tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 1)).astype(np.float32)
    with pytest.raises(ValueError, match=r"of 6 classes, 4 have no image \(the first is 1\)"):
        run(tmp_path, dataset=from_array(images, np.array([0, 5] * 3)))
    with pytest.raises(ValueError, match="all pixels of all images are equal"):
        run(tmp_path, dataset=from_array(0 * images - 0.3))


def test_a_last_update_that_overflows_is_not_saved(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(TrainingDiverged, match="theta is no longer finite|loss"):
        run(tmp_path, replace(CONFIG, steps=1, warmup=0, lr=3e38))
    assert not (tmp_path / "checkpoint.h5").exists()


def test_images_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(ValueError, match="8x6"):
        run(tmp_path, dataset=from_array(np.zeros((20, 8, 6, 1), np.float32), levels=0))


@pytest.mark.parametrize("field, value", [("steps", 0), ("lr", 0.0), ("lr", float("nan")), ("ema", 1.0),
                                          ("label_dropout", 1.5), ("weighting", "mse"), ("batch", 2.5)])
def test_bad_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        TrainConfig(**{field: value})
