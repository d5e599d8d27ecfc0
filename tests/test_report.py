"""The report: what is written can be computed with, opens offline and says what was measured."""
import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from PIL import Image

from refdiff import figures, report
from refdiff.data import digits

SAMPLERS = {"ddim50": (0.0355, 0.0881), "ddim2": (0.6203, 0.7104), "heun18": (0.0301, 0.0822), "cd1": (0.0944, 0.1505),
            "cd2": (0.0585, 0.1106), "cd4": (0.0386, 0.0897)}
TITLES = ("DDIM, 50 steps", "DDIM, 2 steps", "Heun, 18 steps", "consistency, 1 step", "consistency, 2 steps",
          "consistency, 4 steps")
FLOOR, HELDOUT, BASELINE = 0.0185, 0.0693, 0.5807


def results(**more):
    found = {"frechet": {"floor": {"bootstrap": FLOOR, "heldout": HELDOUT}, "baseline": BASELINE},
             "pixel_frechet": {"floor": {"bootstrap": 0.11, "heldout": 0.51}, "baseline": 0.15},
             "precision": {"heldout": 0.912}, "recall": {"heldout": 0.731}, "nearest_train": {"heldout": 0.93},
             "seconds": {"train": 201.3, "distill": 88.2, "sample": 41.96, "total": 372.4}, "peak_mib": 812.7,
             "parameters": np.int64(109729), "seed": 0, "version": "0.1.0", "samples": 2000, "sampling_seeds": 3,
             "bars": [{"claim": "Heun over the floor", "value": 1.627, "limit": "<= 2.2", "ok": True},
                      {"claim": "precision", "value": 0.851, "limit": ">= 0.86", "ok": np.bool_(False)}]}
    for name, (train, heldout) in SAMPLERS.items():
        found["frechet"][name] = {"train": np.float32(train), "heldout": np.float64(heldout)}
        found["pixel_frechet"][name] = {"train": 7 * train, "heldout": 5 * heldout}
        found["precision"][name], found["recall"][name], found["nearest_train"][name] = 0.881, 0.872, 0.913
    return {**found, **more}


@pytest.fixture(scope="module")
def parts():
    images = digits("train").images
    noise = np.random.default_rng(0).standard_normal((5, 6, 8, 8, 1))
    steps = 1 + np.exp(-np.arange(300) / 30)
    return ([("real digits", images[:10]), ("consistency, 4 steps", images[10:20]), ("few", images[20:23])],
            {"teacher": steps, "distillation": steps[:20]},
            {"sigmas": np.array([20, 5, 1, .3, .02]), "x": noise, "x0": noise / 2})


@pytest.fixture(scope="module")
def written(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "not" / "yet there"
    report.write(folder, results(), *parts)
    return folder


class Page(HTMLParser):
    """The page as a browser sees it: its text, every table row, and every attribute that could load something."""

    VOID = {"meta", "img", "link", "br", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.rows, self.loads, self.tags = [], "", [], [], set()
        self.feed(text)
        self.close()
        assert not self.open, f"tags left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [(tag, name, value) for name, value in attrs
                       if name in ("src", "href", "srcset", "data", "action", "poster") or name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def pictures(self):
        prefix = "data:image/png;base64,"
        return [Image.open(io.BytesIO(base64.b64decode(value[len(prefix):], validate=True)))
                for tag, _, value in self.loads if tag == "img" and value.startswith(prefix)]


@pytest.fixture(scope="module")
def page(written):
    return Page((written / "report.html").read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_runs_nothing(page, written):
    assert page.loads
    for tag, name, value in page.loads:
        inside = (tag, name) == ("img", "src") and value.startswith("data:image/png;base64,")
        assert inside or (tag, name, value) == ("a", "href", "#bars"), (tag, name, value[:60])
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    text = (written / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|javascript:", text)


def test_every_sampler_stands_in_the_table_with_its_numbers_and_ratios(page):
    features = {row[0]: row[1:] for row in page.rows[1:10]}
    assert set(TITLES) <= set(features)
    for name, label in zip(SAMPLERS, TITLES):
        train, heldout = SAMPLERS[name]
        _, *cells = features[label]
        assert cells == [f"{train:.4f}", f"{train / FLOOR:.2f}", f"{heldout:.4f}", f"{heldout / HELDOUT:.2f}"]
    assert {label: features[label][0] for label in TITLES} == dict(zip(TITLES, "50 2 35 1 2 4".split()))
    assert features["bootstrap floor"] == ["", "0.0185", "1.00", "", ""]
    assert features["real against real"] == ["", "", "", "0.0693", "1.00"]
    assert features["one Gaussian per class"] == ["", "0.5807", f"{BASELINE / FLOOR:.2f}", "", ""]
    assert ["consistency, 4 steps", "0.881", "0.872", "0.91"] in page.rows
    assert ["real held-out images", "0.912", "0.731", "0.93"] in page.rows


def test_bars_are_told_met_or_not_in_words(page):
    assert ["Heun over the floor", "1.63", "≤ 2.2", "✓ met"] in page.rows
    assert ["precision", "0.851", "≥ 0.86", "✗ not met"] in page.rows
    assert "1 of 2 requirements are met" in " ".join(page.text.split())


def test_the_head_says_what_was_run(page):
    for fact in ("0.1.0", "109,729", "2,000 × 3 seeds", "3 min 21 s", "42.0 s", "6 min 12 s", "813 MiB"):
        assert fact in page.text, fact


def test_pictures_in_the_page_have_the_sizes_of_their_images(page, written):
    """Strips of 8x8 images at 8 pixels each and gaps of 4: ten, ten and three in a row; then 2 x 5 columns of four."""
    sizes = [picture.size for picture in page.pictures]
    assert sizes[:3] == [(10 * 64 + 9 * 4, 64)] * 2 + [(3 * 64 + 2 * 4, 64)]
    assert sizes[3:13] == [(64, 4 * 64 + 3 * 4)] * 10
    assert [size[0] for size in sizes[13:]] == [1360] * 3      # the chart and two loss curves, 6.8 inches at 200 dpi
    for picture in page.pictures:
        picture.load()
    assert Image.open(written / "samples.png").size[0] > 10 * 64


def test_the_json_is_what_was_measured(written):
    found = json.loads((written / "report.json").read_text())
    assert found["frechet"]["cd4"] == {"train": float(np.float32(0.0386)), "heldout": 0.0897}
    assert found["frechet"]["floor"] == {"bootstrap": FLOOR, "heldout": HELDOUT} and found["parameters"] == 109729
    assert found["bars"][1]["ok"] is False
    assert found == report.plain(found) == report.plain(results())
    assert list(found) == sorted(found)


def test_numbers_that_are_not_finite_are_null_and_other_objects_are_named():
    assert report.plain({"a": [float("nan"), np.inf, np.float32(1.5)], 3: np.arange(2)}) == {"a": [None, None, 1.5],
                                                                                            "3": [0, 1]}
    with pytest.raises(TypeError, match=r"results\.a\[1\] is of type object"):
        report.plain({"a": [0, object()]})


def test_a_report_is_written_when_a_number_is_missing_or_not_finite(tmp_path, parts):
    broken = results()
    broken["frechet"]["cd1"]["train"] = float("nan")
    del broken["frechet"]["cd2"]["heldout"]
    page = Page(report.write(tmp_path, broken, *parts).read_text(encoding="utf-8"))
    rows = {row[0]: row[1:] for row in page.rows[1:10]}
    assert rows["consistency, 1 step"] == ["1", "–", "–", "0.1505", f"{0.1505 / HELDOUT:.2f}"]
    assert rows["consistency, 2 steps"] == ["2", "0.0585", f"{0.0585 / FLOOR:.2f}", "–", "–"]


@pytest.mark.parametrize("key", [*results(), "spread", None])
def test_every_key_is_optional(key, parts):
    kept = results() if key else {}
    kept.pop(key, None)
    page = Page(report.html(report.plain(kept), parts[0], {}))
    assert ("Fréchet distance on features" in page.text) == (key != "frechet" and key is not None)


def test_the_full_runs_ddpm_is_told_when_it_is_there_and_not_when_it_is_not(parts, page):
    assert "DDPM" not in page.text
    more = results()
    more["frechet"]["ddpm1000"] = {"train": 0.0312, "heldout": 0.0811}
    full = Page(report.html(report.plain(more), parts[0], {}))
    assert full.rows[1] == ["DDPM, 1000 steps", "1000", "0.0312", f"{0.0312 / FLOOR:.2f}", "0.0811",
                            f"{0.0811 / HELDOUT:.2f}"]


def test_a_sampler_of_another_name_is_told_by_that_name(parts):
    more = results(evaluations={"mine <1>": 7})
    more["frechet"]["mine <1>"] = {"train": 0.04, "heldout": 0.09}
    rows = Page(report.html(report.plain(more), parts[0], {})).rows
    assert ["mine <1>", "7", "0.0400", f"{0.04 / FLOOR:.2f}", "0.0900", f"{0.09 / HELDOUT:.2f}"] in rows


def test_the_spread_over_seeds_has_a_column_of_its_own(parts):
    spread = {"frechet": {name: {"train": 0.0021, "heldout": 0.1} for name in SAMPLERS}}
    rows = Page(report.html(report.plain(results(spread=spread)), parts[0], {})).rows
    assert rows[0][4] == "range over seeds" and {row[4] for row in rows[1:7]} == {"0.0021"}


def test_what_is_written_in_words_cannot_become_markup(parts):
    evil = "<b onload=x>&\"'$x_0$"
    rows, losses, trajectory = parts
    bars = [{"claim": evil, "value": 1.0, "limit": evil, "ok": True}]
    losses = {evil: losses["teacher"]}
    page = Page(report.html(results(version=evil, bars=bars), [(evil, rows[0][1])], losses, trajectory))
    assert page.text.count(evil) == 4 and not any(name.startswith("on") for _, name, _ in page.loads)


def test_the_same_run_gives_the_same_files(tmp_path, parts, written):
    report.write(tmp_path, results(), *parts)
    for name in ("report.json", "report.html", "samples.png"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_only_the_three_files_are_left_and_the_old_ones_stay_if_writing_fails(written, parts, tmp_path, monkeypatch):
    assert sorted(path.name for path in written.iterdir()) == ["report.html", "report.json", "samples.png"]
    (tmp_path / "report.json").write_text("old")
    with pytest.raises(ValueError, match="finite"):
        report.write(tmp_path, results(), *parts[:1], {"teacher": [np.nan]}, None)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            report.write(tmp_path, results(), *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "old"


def test_a_trajectory_of_other_length_than_its_levels_is_refused(parts):
    rows, losses, trajectory = parts
    with pytest.raises(ValueError, match="x0 has 4 steps but there are 5 sigmas"):
        report.html(results(), rows, losses, {**trajectory, "x0": trajectory["x0"][:4]})


@pytest.mark.parametrize("value, text", [(1.627, "1.63"), (0.0935, "0.0935"), (33.51, "33.5"), (812.7, "813"), (0, "0"),
                                         (123456.0, "123456"), (3.21e-6, "3.21e-06"), (None, "–"), ("<= 2", "<= 2")])
def test_numbers_keep_three_significant_digits(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize("seconds, text", [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"),
                                           (372.4, "6 min 12 s"), (7503, "2 h 05 min"), (None, None)])
def test_durations_are_read_as_people_write_them(seconds, text):
    assert report.duration(seconds) == text


# ------------------------------------------------------------------------------------------------------- pictures

def test_a_sheet_has_every_image_in_its_place_and_rounds_to_the_nearest_grey():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.2, 1.2, (7, 3, 2, 3))
    sheet = figures.sheet(x, scale=2, gap=1)
    assert sheet.shape == (3 * 6 + 2, 3 * 4 + 2, 3) and sheet.dtype == np.uint8
    for i in range(7):
        top, left = i // 3 * 7, i % 3 * 5
        for row in range(6):
            for column in range(4):
                wanted = [min(max((v + 1) * 127.5, 0), 255) for v in x[i, row // 2, column // 2]]
                # half a level, and the slack of a tie
                np.testing.assert_allclose(sheet[top + row, left + column], wanted, atol=0.5 + 1e-9, rtol=0)
    assert (sheet[:, 4] == 255).all() and (sheet[6] == 255).all() and (sheet[14:, 5:] == 255).all()


@pytest.mark.parametrize("shape, size", [((1, 8, 8, 1), (64, 64)), ((37, 8, 8, 1), (7 * 66 - 2, 6 * 66 - 2)),
                                         ((4, 100, 30, 3), (62, 202))])
def test_saved_images_are_a_sheet_about_as_wide_as_it_is_high(tmp_path, shape, size):
    images = np.random.default_rng(2).uniform(-1, 1, shape)
    data = figures.save_images(tmp_path / "new" / "sheet.png", images)
    assert (tmp_path / "new" / "sheet.png").read_bytes() == data
    assert Image.open(io.BytesIO(data)).size == size
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize("images, match", [(np.zeros((3, 8, 8)), r"\(3, 8, 8\), wanted"),
                                           (np.zeros((0, 8, 8, 1)), "k >= 1"), (np.zeros((1, 8, 8, 2)), "wanted"),
                                           (np.full((1, 2, 2, 1), np.nan), "image 0 is not finite")])
def test_what_are_no_images_is_refused(images, match, tmp_path):
    for draw in (figures.sheet, lambda x: figures.save_images(tmp_path / "x.png", x),
                 lambda x: figures.image_grid(None, [("row", x)], "")):
        with pytest.raises(ValueError, match=match):
            draw(images)
    assert not list(tmp_path.iterdir())


def test_a_grid_shows_the_pixels_as_they_are_and_labels_to_their_left():
    rng = np.random.default_rng(3)
    rows = [("first, <$x$>", rng.uniform(-1, 1, (5, 8, 8, 1))), ("second", rng.uniform(-1, 1, (3, 8, 8, 3)))]
    picture = np.asarray(Image.open(io.BytesIO(figures.image_grid(None, rows, "What to see. " * 20))).convert("RGB"))
    right = 0
    for _, images in rows:
        strip = figures.sheet(images, columns=len(images), scale=8, gap=4)
        windows = np.lib.stride_tricks.sliding_window_view(picture, strip.shape[:2], (0, 1))
        hits = np.argwhere((windows[..., 0, 0] == strip[0, 0]).all(-1))
        hits = [(y, x) for y, x in hits if (picture[y:y + strip.shape[0], x:x + strip.shape[1]] == strip).all()]
        assert len(hits) == 1
        (top, left), = hits
        label = picture[top:top + 64, :left]
        assert (label < 128).any() and (label[:, :10] == 255).all() and (label[:, -8:] == 255).all()
        right = max(right, left + strip.shape[1])
        bottom = top + 64
    assert (picture[bottom:] < 128).any() and (picture[-10:] == 255).all() and (picture[:, right + 10:] == 255).all()


def luminance(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)


def test_nothing_in_a_chart_is_cut_off_by_its_edge(parts):
    points = [figures.Point("1000 steps", "DDPM", 1000, 0.03, 0.08), figures.Point("1 step", "consistency", 1, 9, None),
              figures.Point("50 steps", "DDIM", 50, 0.031), figures.Point("18 steps", "Heun", 35, 0.031, 0.08)]
    lines = [(name, value, "-") for name, value in (("bootstrap floor", 0.030), ("real against real", 0.0301),
                                                    ("Gaussian per class", 0.0302))]
    charts = [figures.cost_chart(None, points, lines, "distance"), figures.cost_chart(None, points[:1], [], "distance"),
              figures.loss_curve(None, parts[1], "a title"), figures.loss_curve(None, {"one": [3.0]}, "")]
    for chart in map(luminance, charts):
        edges = np.concatenate([chart[:6].ravel(), chart[-6:].ravel(), chart[:, :6].ravel(), chart[:, -6:].ravel()])
        assert edges.min() == 255 and chart.min() < 60


def test_the_names_of_points_do_not_cover_each_other(monkeypatch):
    """At random distances, six samplers' names lie clear of one another and inside the axes."""
    boxes = []
    render = figures._render

    def spy(fig):
        data = render(fig)
        ax, = fig.axes
        boxes.append(([text.get_window_extent() for text in ax.texts if text.get_text().endswith("steps")],
                      ax.get_window_extent()))
        return data
    monkeypatch.setattr(figures, "_render", spy)
    for seed in range(4):
        values = np.exp(np.random.default_rng(seed).normal(-2, 1, (6, 2)))
        costs = (50, 35, 2, 4, 2, 1)
        points = [figures.Point(f"{cost} steps", family, cost, *map(float, value)) for cost, value, family in
                  zip(costs, values, ("DDIM", "Heun", "DDIM", "consistency", "consistency", "consistency"))]
        figures.cost_chart(None, points, [("floor", 0.02, "-")], "distance")
        texts, inside = boxes.pop()
        assert len(texts) == 6
        for i, box in enumerate(texts):
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1, seed
            assert not any(box.overlaps(other) for other in texts[:i]), seed


def test_the_running_median_ignores_spikes_and_ends_where_the_losses_end(monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "_render", lambda fig: drawn.update(
        scale=fig.axes[0].get_yscale(), lines=[line.get_xydata() for line in fig.axes[0].lines]) or b"")
    loss = np.full(600, 2.0)
    loss[[0, 300, 301, 599]] = 1e4, 1e4, np.nan, 1e4
    figures.loss_curve(None, {"loss": loss}, "")
    dots, median = drawn["lines"]
    assert drawn["scale"] == "log" and len(dots) == 599 and (median[:, 1] == 2).all()
    assert dots[:, 0].tolist() == [i for i in range(600) if i != 301]
    figures.loss_curve(None, {"loss": loss[1:299]}, "")
    assert drawn["scale"] == "linear"
    figures.loss_curve(None, {"loss": [-1.0, 500.0]}, "")
    assert drawn["scale"] == "linear"


def test_drawing_leaves_matplotlibs_settings_alone(parts):
    before = dict(matplotlib.rcParams)
    report.html(results(), *parts)
    assert dict(matplotlib.rcParams) == before


def test_pictures_carry_no_date_and_no_program(written):
    picture = Image.open(written / "samples.png")
    assert set(picture.info) <= {"dpi"}
