"""The main job: from the embedded digits to few-step samples, measured.

Train a teacher, distil it, sample both with few and many steps, compare with real images, and leave
report.json, report.html and samples.png. `quick` does all of it with less training.
"""
import resource
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from . import __version__, report
from .checkpoint import load_checkpoint
from .data import digits
from .denoiser import DenoiserConfig
from .distill.consistency import TRAINING, ConsistencyConfig, distil
from .evaluate import Reference
from .fit import TrainConfig
from .jobs import each
from .models import UNetConfig
from .parallel import Workers, slices
from .rng import Key
from .sample import choose_labels, make_grid, open_sampling, states, to_images
from .train import train

NETWORK = UNetConfig(channels=16, multipliers=(1, 2), blocks=1, attention=(4,), groups=8, dropout=0.0,
                     time_scale=16.0, embedding_period=100.0)
DENOISER = DenoiserConfig(P_mean=-0.8, P_std=1.2, sigma_min=0.02, sigma_max=20.0)
TEACHER = TrainConfig(steps=2300, lr=4e-3, warmup=100, beta2=0.99, weight_decay=3e-4, ema=0.998, label_dropout=0.1)
STUDENT = TRAINING
CONSISTENCY = ConsistencyConfig()

# The sizes of a run: images per sampler, sampling seeds, and updates of teacher and student. More updates lower the
# Frechet distances, and bring samples nearer to training images.
SIZES = {False: dict(n=2000, seeds=3, teacher=2300, student=450), True: dict(n=500, seeds=1, teacher=300, student=120)}

# name -> (of the student?, sampler, steps, network evaluations)
RUNS = {"ddim50": (False, "ddim", 50, 50), "heun18": (False, "heun", 18, 35), "ddim2": (False, "ddim", 2, 2),
        "cd4": (True, "consistency", 4, 4), "cd2": (True, "consistency", 2, 2), "cd1": (True, "consistency", 1, 1)}
FULL = {"ddpm1000": (False, "ddpm", 1000, 1000)}
TITLES = {"ddpm1000": "DDPM, 1000 steps", "ddim50": "DDIM, 50 steps", "heun18": "Heun, 18 steps",
          "ddim2": "DDIM, 2 steps", "cd4": "consistency, 4 steps", "cd2": "consistency, 2 steps",
          "cd1": "consistency, 1 step"}


def demo(out="runs/demo", quick=False, full=False, seed=0, threads=0, progress=True):
    """Run everything into the folder `out`; returns what report.json holds.

    quick: an eighth of the training, a quarter of the distillation and of the samples, under a minute. full: DDPM's
    1000 steps are measured too, not only shown. Raises FileExistsError if `out` holds another run.
    """
    begin = time.perf_counter()
    out = Path(out)
    for name in ("checkpoint.h5", "distilled.h5"):
        if (out / name).exists():
            raise FileExistsError(f"{out / name} exists: {out} holds a run; choose another --out, or remove it")
    training, heldout = digits("train"), digits("heldout")
    n, seeds = SIZES[quick]["n"], SIZES[quick]["seeds"]
    steps = SIZES[quick]["teacher"]
    teacher = replace(TEACHER, steps=steps, warmup=min(TEACHER.warmup, steps // 10), seed=seed, threads=threads)
    student = replace(STUDENT, steps=SIZES[quick]["student"], seed=seed, threads=threads)

    train(training, NETWORK, DENOISER, teacher, out, progress=progress)
    trained = time.perf_counter()
    distil(out / "checkpoint.h5", training, CONSISTENCY, student, out, progress=progress)
    distilled = time.perf_counter()

    checkpoints = [load_checkpoint(out / name) for name in ("checkpoint.h5", "distilled.h5")]
    with Workers(threads) as workers:
        samples, rows, trajectory = draw(checkpoints, n, seeds, seed, {**RUNS, **(FULL if full else {})}, workers,
                                         progress)
        sampled = time.perf_counter()
        results = measure(samples, training, heldout, n, seed, workers)
    results["bars"] = bars(results)
    end = time.perf_counter()
    results.update(
        seconds={"train": trained - begin, "distill": distilled - trained, "sample": sampled - distilled,
                 "total": end - begin},
        peak_mib=peak_mib(workers.threads), parameters=int(checkpoints[0].size), seed=seed, version=__version__,
        quick=quick,
        samples=n, sampling_seeds=seeds, evaluations={name: runs[3] for name, runs in {**RUNS, **FULL}.items()})
    losses = {"teacher": checkpoints[0].history["loss"], "distillation": checkpoints[1].history["loss"]}
    report.write(out, results, [("real digits", real_row(training)), *rows], losses, trajectory)
    return results


def draw(checkpoints, n, seeds, seed, runs, workers, progress=True):
    """(samples {name: [(images, labels) per seed]}, rows for the picture, trajectory of Heun's states).

    Every sampler's part of a batch is a job of its own; the longest begin first.
    """
    sampling, everything = [open_sampling(checkpoint) for checkpoint in checkpoints], {**FULL, **RUNS}
    labels, ten = (choose_labels(sampling[0].classes, count) for count in (n, 10))
    config, heun = sampling[0].denoiser.network.config, everything["heun18"][2]
    shape = config.image_size, config.image_size, config.in_channels
    x, x0 = (workers.shared(np.zeros((heun, len(ten), *shape), np.float32)) for _ in range(2))
    jobs = []

    def plan(name, title, labels, key, parts, followed=False):
        student, sampler, steps, evaluations = everything[name]
        images = workers.shared(np.zeros((len(labels), *shape), np.float32))

        def job(rows):
            say(f"sampling {TITLES[name]}: {title}, images {rows.start + 1} to {rows.stop}", progress)
            for state in states(sampling[student], sampler, steps, labels, key, rows=rows):
                if followed:
                    x[state.step] = to_images(sampling[student], state.prediction.x)
                    x0[state.step] = to_images(sampling[student], state.prediction.x0)
            images[rows] = to_images(sampling[student], state.x)

        # An evaluation of few images takes as long as one of 16, about.
        jobs.extend((evaluations * (rows.stop - rows.start + 16), partial(job, rows)) for rows in parts)
        return images

    samples = {name: [(plan(name, f"seed {repeat + 1} of {seeds}", labels, Key(seed).fold("sample", repeat),
                            slices(n, workers.threads)), labels) for repeat in range(seeds)] for name in runs}
    picture = Key(seed).fold("picture")                 # one x_T for every row of the picture
    rows = [(TITLES[name], plan(name, "the picture", ten, picture, slices(len(ten), 1), name == "heun18"))
            for name in everything]
    each([job for _, job in sorted(jobs, key=lambda job: -job[0])], workers)
    return samples, rows, {"sigmas": make_grid(sampling[0], heun).sigma[:-1], "x": x, "x0": x0}


def measure(samples, training, heldout, n, seed, workers):
    """The results of report.json that compare images: means over sampling seeds, and their spread."""
    reference = Reference(training, heldout)
    results = reference.floors(n, seed)
    spread = {}
    compared = iter(workers.map(lambda run: reference.compare(*run), chain(*samples.values())))
    for name, runs in samples.items():
        of_seeds = [next(compared) for _ in runs]
        for space in ("frechet", "pixel_frechet"):
            values = {split: [e[space][split] for e in of_seeds] for split in ("train", "heldout")}
            results[space][name] = {split: float(np.mean(v)) for split, v in values.items()}
            spread.setdefault(space, {})[name] = {split: float(np.ptp(v)) for split, v in values.items()}
        for key in ("precision", "recall", "label_agreement"):
            results.setdefault(key, {})[name] = float(np.mean([e[key] for e in of_seeds]))
        results.setdefault("nearest_train", {})[name] = min(e["nearest_train"] for e in of_seeds)
        histograms = [e["class_histogram"] for e in of_seeds]
        results.setdefault("class_histogram", {})[name] = np.mean(histograms, axis=0).tolist()
    real = reference.compare(heldout.images, heldout.labels)
    for key in ("precision", "recall", "label_agreement", "nearest_train"):
        results[key]["heldout"] = real[key]
    results["nearest_train"]["training"] = reference.nearest_other()
    results["spread"] = spread
    return results


def bars(results):
    """What a good run reaches, as [{claim, value, limit, ok}]."""
    f = results["frechet"]
    train = {name: f[name]["train"] for name in f if isinstance(f[name], dict) and "train" in f[name]}
    floor, baseline = f["floor"]["bootstrap"], f["baseline"]
    rows = [("Heun, 18 steps, over the bootstrap floor", train["heun18"] / floor, 2.2),
            ("DDIM, 50 steps, over the bootstrap floor", train["ddim50"] / floor, 2.5),
            ("Heun, 18 steps, over one Gaussian per class", train["heun18"] / baseline, 0.1),
            ("DDIM, 50 steps, over one Gaussian per class", train["ddim50"] / baseline, 0.1),
            ("consistency, 4 steps, over DDIM-50", train["cd4"] / train["ddim50"], 1.2),
            ("consistency, 2 steps, over DDIM-50", train["cd2"] / train["ddim50"], 1.7),
            ("consistency, 1 step, over DDIM-50", train["cd1"] / train["ddim50"], 2.7),
            ("consistency, 4 steps, over 2 steps", train["cd4"] / train["cd2"], 1.0),
            ("consistency, 2 steps, over 1 step", train["cd2"] / train["cd1"], 1.0),
            ("consistency, 2 steps, over DDIM in 2 steps", train["cd2"] / train["ddim2"], 1 / 8),
            ("4 steps against held-out images, over real against real",
             f["cd4"]["heldout"] / f["floor"]["heldout"], 1.3),
            ("the same, each real training image taken once", f["cd4"]["heldout"] / f["floor"]["split"], 1.3)]
    at_least = [(f"{what}, {TITLES[name]}", results[what][name], 0.86)
                for name in ("heun18", "ddim50") for what in ("precision", "recall")]
    at_least.append(("distance of the nearest 4-step sample to a training image",
                     results["nearest_train"]["cd4"], 0.75))
    at_least.append(("the same, of every sampler", min(results["nearest_train"][name] for name in train), 0.75))
    return ([{"claim": claim, "value": value, "limit": f"<= {limit:.4g}", "ok": bool(value <= limit)}
             for claim, value, limit in rows]
            + [{"claim": claim, "value": value, "limit": f">= {limit:.4g}", "ok": bool(value >= limit)}
               for claim, value, limit in at_least])


def real_row(dataset):
    """One real image per class."""
    return np.stack([dataset.images[np.flatnonzero(dataset.labels == k)[0]] for k in range(len(dataset.classes))])


def peak_mib(processes):
    """The largest memory of this process and of the others that it forked, MiB; what they share counts in each."""
    peak = sum(resource.getrusage(who).ru_maxrss * count for who, count in (
        (resource.RUSAGE_SELF, 1), (resource.RUSAGE_CHILDREN, processes - 1)))
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def say(text, progress):
    if progress:
        print(text, file=sys.stderr, flush=True)
