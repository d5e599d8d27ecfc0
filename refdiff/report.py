"""What a run leaves behind: report.json to compute with, report.html to read, samples.png to show.

    write(folder, results, rows, losses, trajectory)

report.html is one file that opens anywhere: its pictures are inside it, it has no scripts and asks for nothing.
"""
import base64
import json
import math
import re
from pathlib import Path

import jinja2
import numpy as np

from . import backend, figures, files

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"(ddpm|ddim|heun|cd)([1-9]\d*)")
# prefix of a sampler's name -> (family, evaluations of S steps); the order of the tables
FAMILIES = {"ddpm": ("DDPM", lambda S: S), "ddim": ("DDIM", lambda S: S), "heun": ("Heun", lambda S: 2 * S - 1),
            "cd": ("consistency", lambda S: S)}
SPACES = {"frechet": "features", "pixel_frechet": "raw pixels"}
SHARES = {"precision": "precision", "recall": "recall", "label_agreement": "right class"}
COLUMNS = 8                     # moments of a trajectory that are shown
DIGITS = 4                      # images of it that are followed
MISSING = "–"
CAPTION = ("The first row is real. Every other row is a sampler, and its images start from the same noise as those "
           "above them: compare a row with the first for realism, and with the other rows for what fewer steps cost, "
           "strokes that break, blur or turn grey.")


def write(folder, results, rows, losses, trajectory=None):
    """Write report.json, report.html and samples.png into `folder`; returns the path of report.html.

    results     nested dicts, all keys optional: frechet and pixel_frechet NAME {train, heldout}, floor {bootstrap,
                heldout} and baseline; precision, recall, label_agreement and nearest_train NAME (heldout: real
                images); evaluations NAME; spread like results; bars [{claim, value, limit, ok}]; seconds {train,
                distill, sample, total}; peak_mib, parameters, seed, version, samples, sampling_seeds, quick
    rows        [(label, images (k, h, w, c) in [-1, 1])], real images first
    losses      {name: (steps,)}
    trajectory  {"sigmas": (steps,), "x": (steps, k, h, w, c)}, and "x0" like x: noise levels from high to low, the
                noisy images at them, and the network's guess of the clean ones; or None

    All is made before the first file is written, and each file is whole or not there. Numbers that are not finite are
    null in the JSON, which has no other word for them.
    """
    folder, results = Path(folder), plain(results)
    data = (json.dumps(results, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    picture = figures.image_grid(None, rows, CAPTION)
    page = html(results, rows, losses, trajectory).encode()
    files.write(folder / "report.json", data)
    files.write(folder / "samples.png", picture)
    return files.write(folder / "report.html", page)


def plain(value, where="results"):
    """The same as dicts, lists, str, int, bool, None and finite floats alone; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if hasattr(value, "tolist"):                                    # an array or a scalar of one, on any device
        value = backend.to_host(value).tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(f"{where} is of type {type(value).__name__}, wanted numbers, strings, lists and dicts")


def html(results, rows, losses, trajectory=None):
    """The page as a string."""
    names = samplers(results)
    bars = [dict(bar, value=number(bar["value"]), limit=number(bar["limit"])) for bar in results.get("bars", [])]
    curves = [(name, _uri(figures.loss_curve(None, {"loss": loss}, f"{name.capitalize()}: training loss")))
              for name, loss in losses.items()]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html").render(
        facts=facts(results), quick=results.get("quick"), caption=CAPTION, summary=summary(results),
        rows=_strips(rows), trajectory=None if trajectory is None else _moments(trajectory),
        chart=_chart(results, names), distances=distances(results, names), qualities=qualities(results, names),
        seeds=results.get("sampling_seeds"), bars=bars, losses=curves)


def samplers(results):
    """Names with a distance, most steps first within a family, the families in their order and unknown names last."""
    known = {name for space in SPACES for name, value in results.get(space, {}).items()
             if isinstance(value, dict) and name != "floor"}
    order = list(FAMILIES)

    def place(name):
        found = NAME.fullmatch(name)
        return (order.index(found[1]), -int(found[2]), name) if found else (len(order), 0, name)
    return sorted(known, key=place)


def title(name):
    """cd4 -> "consistency, 4 steps"; a name of another form is its own title."""
    found = NAME.fullmatch(name)
    return f"{FAMILIES[found[1]][0]}, {_steps(found[2])}" if found else name


def evaluations(results, name):
    """Network evaluations per image: as counted by the run, else of the sampler's form; None where neither is known."""
    found = NAME.fullmatch(name)
    return results.get("evaluations", {}).get(name) or (FAMILIES[found[1]][1](int(found[2])) if found else None)


def facts(results):
    """What was run, as (word, value) pairs."""
    seconds = results.get("seconds", {})
    samples, seeds = results.get("samples"), results.get("sampling_seeds")
    found = [("refdiff", results.get("version")), ("seed", results.get("seed")),
             ("parameters of the network", whole(results.get("parameters"))),
             ("samples per sampler", whole(samples, f" × {seeds} seeds" if (seeds or 1) > 1 else "")),
             *((f"time, {word}", duration(seconds.get(key))) for key, word in
               (("train", "training"), ("distill", "distillation"), ("sample", "sampling"), ("total", "everything"))),
             ("peak memory", whole(results.get("peak_mib"), " MiB"))]
    return [(word, value) for word, value in found if value is not None]


def summary(results):
    """Ratios to the floor in one sentence, for the samplers that tell the story; None without them."""
    floor = _get(results, "frechet", "floor", "bootstrap")
    told = [(name, value / floor) for name in ("ddim50", "cd4", "cd2", "cd1", "ddim2")
            if floor and (value := _get(results, "frechet", name, "train")) is not None]
    return [(title(name), number(ratio, 3)) for name, ratio in told] or None


def distances(results, names):
    """[{title, head, rows}]: for every feature space the Frechet distances, in units of the floors too."""
    tables = []
    for space, what in SPACES.items():
        if not results.get(space):
            continue
        train, heldout = (_get(results, space, "floor", split) for split in ("bootstrap", "heldout"))
        baseline = _get(results, space, "baseline")
        body = [(title(name), False, _get(results, space, name, "train"), _get(results, space, name, "heldout"),
                 _get(results, "spread", space, name, "train"), evaluations(results, name)) for name in names]
        body += [(label, True, a, b, None, None) for label, a, b in (
            ("bootstrap floor", train, None), ("real against real", None, heldout),
            ("one Gaussian per class", baseline, None)) if (a, b) != (None, None)]
        exact = decimals(value for row in body for value in row[2:4])
        columns = [("evaluations", [str(row[5] or "") for row in body]),
                   ("to training images", align((row[2] for row in body), exact)),
                   ("×\N{NO-BREAK SPACE}bootstrap floor", align((_ratio(row[2], train) for row in body), 2)),
                   ("range over seeds", align((row[4] for row in body), exact)),
                   ("to held-out images", align((row[3] for row in body), exact)),
                   ("×\N{NO-BREAK SPACE}real against real",
                    align((_ratio(row[3], heldout) for row in body), 2))]
        tables.append(_table(f"Fréchet distance on {what}", columns, body))
    return tables


def qualities(results, names):
    """{title, head, rows}: precision, recall, right class, the nearest training image; None if none is known."""
    body = [(title(name), False, name) for name in names] + [("real held-out images", True, "heldout")]
    columns = [(word, align((_get(results, key, name) for *_, name in body), 3)) for key, word in SHARES.items()]
    columns.append(("nearest training image", align((_get(results, "nearest_train", name) for *_, name in body), 2)))
    table = _table("Precision, recall and memorisation", columns, body)
    return table if table["rows"] else None


def decimals(values):
    """The decimals that give the smallest positive number three significant digits, 0 to 6."""
    least = min((abs(v) for v in values if v), default=1)
    return min(max(2 - math.floor(math.log10(least)), 0), 6)


def align(values, digits):
    """The numbers of a column as strings with the same number of decimals, "" for None."""
    return ["" if v is None else f"{v:.{digits}f}" for v in values]


def number(value, digits=3):
    """A number in `digits` significant digits (all those before the point), a string as it is, a dash for None."""
    if value is None or isinstance(value, str):
        return value or MISSING
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
    return f"{value:.{decimals}f}"


def whole(value, unit=""):
    """An integer with separated thousands; None stays None."""
    return None if value is None else f"{value:,.0f}{unit}"


def duration(seconds):
    """42.1 s, 6 min 12 s, 2 h 05 min; None stays None."""
    if seconds is None or seconds < 59.95:
        return None if seconds is None else f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _get(tree, *keys):
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _ratio(value, floor):
    return value / floor if value is not None and floor else None


def _steps(count):
    return f"{count} step" + ("s" if int(count) > 1 else "")


def _table(heading, columns, body):
    """Columns without a single value are left out, and rows then empty too; a missing value is a dash for a sampler."""
    columns = [(head, cells) for head, cells in columns if any(cells)]
    rows = [{"label": row[0], "reference": row[1],
             "cells": [cells[i] or ("" if row[1] else MISSING) for _, cells in columns]}
            for i, row in enumerate(body) if any(cells[i] for _, cells in columns)]
    return {"title": heading, "head": [head for head, _ in columns], "rows": rows}


def _uri(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _strips(rows):
    """Every row as one picture, with its share of the widest row's width."""
    strips = [(label, figures.sheet(images, columns=len(images), scale=8, gap=4)) for label, images in rows]
    widest = max(strip.shape[1] for _, strip in strips)
    return [{"label": label, "uri": _uri(figures.png(strip)), "width": round(100 * strip.shape[1] / widest, 2)}
            for label, strip in strips]


def _moments(trajectory):
    """Up to COLUMNS moments, evenly through the steps: noise level, and a column of images for x and for x0."""
    sigmas = [float(sigma) for sigma in trajectory["sigmas"]]
    steps = {name: trajectory[name] for name in ("x", "x0") if trajectory.get(name) is not None}
    for name, x in steps.items():
        if len(x) != len(sigmas):
            raise ValueError(f"report: trajectory {name} has {len(x)} steps but there are {len(sigmas)} sigmas")
    shown = sorted(set(np.linspace(0, len(sigmas) - 1, COLUMNS).round().astype(int).tolist()))
    return {"sigmas": [number(sigmas[i], 2) for i in shown], "steps": len(sigmas),
            **{name: [_uri(figures.png(figures.sheet(x[i][:DIGITS], columns=1, scale=8, gap=4))) for i in shown]
               for name, x in steps.items()}}


def _chart(results, names):
    """(what the distance is on, picture) of distance against cost, on features if there are any; or None."""
    for space, what in SPACES.items():
        points = []
        for name in reversed(names):
            cost, train = evaluations(results, name), _get(results, space, name, "train")
            if cost and train:
                found = NAME.fullmatch(name)
                family, label = (FAMILIES[found[1]][0], _steps(found[2])) if found else (name, "")
                points.append(figures.Point(label, family, cost, train, _get(results, space, name, "heldout")))
        lines = [(label, value, dash) for label, dash, keys in (
            ("bootstrap floor", "-", ("floor", "bootstrap")), ("real against real", "--", ("floor", "heldout")),
            ("Gaussian per class", ":", ("baseline",))) if (value := _get(results, space, *keys)) is not None]
        if points:
            ylabel = f"Fréchet distance on {what} (no unit, log scale)"
            return what, _uri(figures.cost_chart(None, points, lines, ylabel))
    return None
