"""Pictures: loss curves, sheets and labelled rows of images, distance against cost.

Every function returns the bytes of a PNG and writes them to `path` unless that is None. The same input gives the same
bytes (no date, no program name), no state outside the call is touched, and a file is there whole or not at all.
Images are (k, h, w, c) in [-1, 1] with c = 1 (grey) or 3 (RGB); what lies outside is clipped.
"""
import io
import math
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox
from PIL import Image
from scipy.ndimage import median_filter

from . import backend, files

# Okabe and Ito's colours, told apart by colour-blind readers; a marker or a dash always says the same thing again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
GREY, INK = "#666666", "#1a1a1a"
MARKERS = ("o", "s", "^", "D")
DPI = 200                                   # pixels per inch of the charts: sharp at twice the size they are read at
PAPER = 255                                 # between images
STYLE = {"font.family": ["DejaVu Sans"], "font.size": 10, "axes.titlesize": 10.5, "axes.titlelocation": "left",
         "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK,
         "text.color": INK, "text.usetex": False, "text.parse_math": False, "axes.linewidth": 0.8,
         "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
         "figure.facecolor": "white", "axes.facecolor": "white", "legend.frameon": False, "legend.fontsize": 9,
         "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.7}


class Point(NamedTuple):
    """One sampler in `cost_chart`: what it costs in network evaluations, and its distance to two sets of images."""

    label: str
    family: str
    evaluations: int
    train: float
    heldout: float | None = None


def _checked(images):
    x = np.asarray(backend.to_host(images))
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape:
        raise ValueError(f"images have shape {x.shape}, wanted (k, h, w, 1) or (k, h, w, 3) with k >= 1")
    if not np.isfinite(x).all():
        raise ValueError(f"image {int(np.argwhere(~np.isfinite(x))[0][0])} is not finite, wanted values in [-1, 1]")
    return x


def sheet(images, columns=None, scale=1, gap=2):
    """A uint8 array (H, W, 3): images row by row, each pixel scale x scale, `gap` white pixels between images.

    x in [-1, 1] becomes the nearest of the 256 grey levels, 127.5 (x + 1). columns: the square root of k if None.
    """
    x = _checked(images)
    levels = np.rint((np.clip(x.astype(np.float64), -1, 1) + 1) * 127.5).astype(np.uint8)
    levels = np.broadcast_to(levels, levels.shape[:3] + (3,)).repeat(scale, axis=1).repeat(scale, axis=2)
    k, h, w, _ = levels.shape
    columns = min(columns or math.ceil(math.sqrt(k)), k)
    rows = math.ceil(k / columns)
    canvas = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), PAPER, np.uint8)
    for i, tile in enumerate(levels):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        canvas[top:top + h, left:left + w] = tile
    return canvas


def png(array):
    """The PNG bytes of a uint8 array (h, w, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_images(path, images):
    """A sheet of images in about as many rows as columns, small ones enlarged to some 64 pixels."""
    x = _checked(images)
    return _finish(path, png(sheet(x, scale=max(64 // max(x.shape[1:3]), 1))))


@matplotlib.rc_context(STYLE)
def image_grid(path, rows, caption):
    """Labelled rows of images and a sentence below: rows = [(label, images), ...], read from the top."""
    if not rows:
        raise ValueError("image_grid: there are no rows, wanted [(label, images), ...]")
    rows = [(label, _checked(images)) for label, images in rows]
    k, h, w, _ = np.max([x.shape for _, x in rows], axis=0)
    scale = max(min(64 // h, 960 // (k * w)), 1)
    strips = [sheet(images, columns=len(images), scale=scale, gap=4) for _, images in rows]
    margin, gap, font = 20, 12, FontProperties(family="DejaVu Sans", size=11)
    renderer = FigureCanvasAgg(Figure(dpi=100)).get_renderer()

    def width_of(text):
        return max(renderer.get_text_width_height_descent(line, font, False)[0] for line in text.split("\n"))

    left = margin + math.ceil(max(width_of(label) for label, _ in rows)) + 16
    width = max(left + max(strip.shape[1] for strip in strips) + margin, 480)
    lines = _wrap(caption, width - 2 * margin, width_of)
    line, above = 20, 8
    height = 2 * margin + sum(strip.shape[0] + gap for strip in strips) + line * len(lines) + (above if lines else -gap)
    fig = _figure(width / 100, height / 100, dpi=100)
    y = height - margin
    for (label, _), strip in zip(rows, strips):
        y -= strip.shape[0]
        fig.figimage(strip, left, y, origin="upper")
        fig.text((left - 16) / width, (y + strip.shape[0] / 2) / height, label, ha="right", va="center",
                 fontproperties=font)
        y -= gap
    for i, text in enumerate(lines):
        fig.text(margin / width, (y - above - i * line) / height, text, ha="left", va="top", fontproperties=font,
                 color="#444444")
    return _finish(path, _render(fig))


@matplotlib.rc_context(STYLE)
def loss_curve(path, history, title):
    """Loss against training step: every step a faint dot, the running median over 1/30 of the run on top of them.

    history: {name: losses (steps,)}, step i in place i, one colour per name. The scale is logarithmic where positive
    losses span more than a decade; losses that are not finite are left out.
    """
    series = {name: np.asarray(backend.to_host(losses), float).ravel() for name, losses in history.items()}
    finite = [loss[np.isfinite(loss)] for loss in series.values()]
    if not series or min(map(len, finite)) == 0:
        raise ValueError(f"loss_curve: no finite losses among {list(series) or 'none'}; wanted one number per step")
    values = np.concatenate(finite)
    log = values.min() > 0 and values.max() > 10 * values.min()
    fig = _figure(6.8, 3.5)
    ax = fig.add_subplot()
    for (name, loss), colour in zip(series.items(), COLOURS * len(series)):
        steps = np.flatnonzero(np.isfinite(loss))
        loss = loss[steps]
        window = len(loss) // 30 // 2 * 2 + 1
        if window > 1:
            ax.plot(steps, loss, ".", color=colour, alpha=0.35, ms=2.5, mew=0)
            ax.plot(steps, median_filter(loss, window, mode="reflect"), color=colour,
                    label=f"{name}: every step (dots), median of {window} steps (line)")
        else:
            ax.plot(steps, loss, "o-", color=colour, ms=4, label=f"{name}: every step")
    if log:
        ax.set_yscale("log")
        _decades(ax.yaxis, values.min(), values.max())
    ax.set_xlabel("training step (updates of the parameters)")
    ax.set_ylabel("loss (no unit" + (", log scale)" if log else ")"))
    ax.set_title(title)
    fig.legend(loc="outside lower left", borderpad=0.4)
    ax.margins(x=0.01)
    return _finish(path, _render(fig))


@matplotlib.rc_context(STYLE)
def cost_chart(path, points, lines, ylabel):
    """Distance against network evaluations per image, both logarithmic.

    points: [Point, ...], those of a family joined and in one colour; lines: [(label, value, dash), ...], drawn across
    and named on the right. Filled markers are distances to training images, hollow ones to held-out images. Values
    that are not positive have no place on a logarithmic axis and are left out.
    """
    points = sorted((p for p in points if p.train > 0), key=lambda p: p.evaluations)
    lines = [line for line in lines if line[1] > 0]
    values = [v for p in points for v in (p.train, p.heldout) if v] + [value for _, value, _ in lines]
    if not points:
        raise ValueError("cost_chart: no sampler has a positive distance, so there is nothing to draw")
    fig = _figure(6.8, 4.6)
    ax = fig.add_subplot()
    ax.set(xscale="log", yscale="log", xlabel="network evaluations per image (log scale)", ylabel=ylabel)
    cost = [p.evaluations for p in points]
    ax.set_xlim(min(cost) / 1.5, max(cost) * 1.6)
    ax.set_ylim(min(values) / 1.6, max(values) * 1.6)
    _decades(ax.xaxis, *ax.get_xlim())
    _decades(ax.yaxis, *ax.get_ylim())
    for _, value, dash in lines:
        ax.axhline(value, color=GREY, lw=1.2, ls=dash, zorder=1)
    families = list(dict.fromkeys(p.family for p in points))
    for family, colour, marker in zip(families, COLOURS * len(families), MARKERS * len(families)):
        members = [p for p in points if p.family == family]
        for members, split, face, lw in ((members, "train", colour, 1.2),
                                         ([p for p in members if p.heldout], "heldout", "white", 0)):
            ax.plot([p.evaluations for p in members], [getattr(p, split) for p in members], color=colour, marker=marker,
                    ms=7, lw=lw, mfc=face, mec=colour, mew=1.4, zorder=3)
    keys = [Line2D([], [], color=colour, marker=marker, ms=7, lw=1.2, label=family)
            for family, colour, marker in zip(families, COLOURS * len(families), MARKERS * len(families))]
    if any(p.heldout for p in points):
        keys += [Line2D([], [], color=INK, marker="o", lw=0, ms=7, mfc=face, label=f"to {split} images")
                 for face, split in ((INK, "training"), ("white", "held-out"))]
    fig.legend(handles=keys, loc="outside upper left", ncols=len(keys), handlelength=1.5, columnspacing=1.1,
               handletextpad=0.4, borderpad=0.4)
    _name_lines(ax, lines)
    _name_points(fig, ax, points, [v for _, v, _ in lines])
    return _finish(path, _render(fig))


@matplotlib.rc_context(STYLE)
def slope_panels(path, panels, xlabel, ylabel, columns=3, beneath=None):
    """Small charts of errors that fall as powers, both axes logarithmic and common to all, one per entry of panels.

    panels: {title: [(label, xs, ys, power), ...]}. Dashed lines have the slope -power, which is written beside them:
    what the lines that claim it should be parallel to. The line whose label is `beneath` is a wide pale one with open
    marks, so that what lies on it is seen to.
    """
    count = -(-len(panels) // columns)
    fig = _figure(10.5, 4.1 * count)
    axes = fig.subplots(count, columns, sharey=True, squeeze=False).ravel()
    for ax, (title, lines) in zip(axes, panels.items()):
        ax.set(xscale="log", yscale="log", title=title)
        for i, (label, xs, ys, _) in enumerate(lines):
            later = i >= len(COLOURS)
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]
            wide = {"lw": 5, "ms": 9, "alpha": .45, "mfc": "white", "zorder": 2} if label == beneath else {}
            ax.plot(xs, ys, **{"color": colour, "marker": marker, "ms": 4.5, "lw": 1.2, "label": label, "zorder": 3,
                               "mfc": "white" if later else colour, "ls": ":" if later else "-", **wide})
        for power in sorted({line[3] for line in lines}):
            _, xs, ys, _ = min((line for line in lines if line[3] == power), key=lambda line: line[2][-1])
            ax.plot(xs, [ys[-1] / 2 * (xs[-1] / x) ** power for x in xs], color=GREY, lw=.8, ls=(0, (4, 3)), zorder=1)
            ax.annotate(f"{power:g}", (xs[-1], ys[-1] / 2), (4, 0), textcoords="offset points", va="center",
                        fontsize=8, color=GREY)
        ax.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(-.05, -.1), ncols=2, handlelength=1.8,
                  labelspacing=.25, columnspacing=1., borderpad=.2)
        ticks = sorted({x for line in lines for x in line[1]})
        ax.set_xticks(ticks, [str(x) if len(ticks) < 6 or i % 2 == 0 else "" for i, x in enumerate(ticks)])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    for ax in axes[len(panels):]:
        ax.set_axis_off()
    fig.supxlabel(xlabel, fontsize=10)
    fig.supylabel(ylabel, fontsize=10)
    return _finish(path, _render(fig))


def _figure(width, height, dpi=DPI):
    fig = Figure((width, height), dpi=dpi)
    FigureCanvasAgg(fig)
    if dpi == DPI:
        fig.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return fig


def _render(fig):
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi="figure", metadata={"Software": None})
    return buffer.getvalue()


def _finish(path, data):
    if path is not None:
        files.write(path, data)
    return data


def _wrap(text, width, width_of):
    """The words of a text in lines at most `width` wide."""
    lines = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _decades(axis, low, high):
    """Ticks at 1, 2, 5 times powers of ten (at powers alone over four decades and more), written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e4 * low else (1,), numticks=20))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def _name_lines(ax, lines):
    """Names on the right of the axes, at the height of their lines or just above the name below."""
    low, high = np.log(ax.get_ylim())
    least = 0.11                                        # two lines of text, as a share of the height of the axes
    free = -math.inf
    for label, value, _ in sorted(lines, key=lambda line: line[1]):
        at = (math.log(value) - low) / (high - low)
        free = max(at, free)
        ax.annotate(f"{label}\n{value:.3g}", xy=(1, at), xytext=(1.03, free), xycoords="axes fraction",
                    textcoords="axes fraction", va="center", fontsize=9, linespacing=1.15, color="#444444",
                    arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8, "shrinkA": 1, "shrinkB": 0})
        free += least


def _name_points(fig, ax, points, levels):
    """A name beside every point: of the places around it, the first that covers least of what is there."""
    fig.draw_without_rendering()                        # places the axes, so that positions in pixels are known
    renderer, inside = fig.canvas.get_renderer(), ax.get_window_extent()
    pixel = fig.dpi / 72
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]

    def around(xy, half):
        return [Bbox([(x - half, y - half), (x + half, y + half)]) for x, y in xy]

    def at(*pairs):
        return ax.transData.transform(pairs)

    def write(p, value, dx, dy, ha, va):
        return ax.annotate(p.label, (p.evaluations, value), (dx, dy), textcoords="offset points", ha=ha, va=va,
                           fontsize=9, path_effects=halo, zorder=4)

    def overlap(box, others):
        x0, y0, x1, y1 = np.array([other.extents for other in others]).T
        width, height = np.minimum(box.x1, x1) - np.maximum(box.x0, x0), np.minimum(box.y1, y1) - np.maximum(box.y0, y0)
        return float((width.clip(0) * height.clip(0)).sum())

    taken = [Bbox([(inside.x0, y - pixel), (inside.x1, y + pixel)]) for v in levels for _, y in at((1, v))]
    for p in points:
        taken += around(at(*((p.evaluations, v) for v in (p.train, p.heldout) if v)), 9 * pixel)
    for family in {p.family for p in points}:
        path = at(*((p.evaluations, p.train) for p in points if p.family == family))
        for start, end in zip(path[:-1], path[1:]):
            taken += around(np.linspace(start, end, 60), 1.5 * pixel)
    for p in points:
        ends = sorted(v for v in (p.train, p.heldout) if v)
        spots = [(ends[0], 0, -9, "center", "top"), (ends[-1], 0, 9, "center", "bottom")]
        spots += [(p.train, dx, dy, "left" if dx > 0 else "right", va) for dx in (9, -9)
                  for dy, va in ((0, "center"), (5, "bottom"), (-5, "top"))]
        boxes = []
        for spot in spots:
            text = write(p, *spot)
            boxes.append(text.get_window_extent(renderer))
            text.remove()
        covered = [overlap(box, taken) + 4 * (box.width * box.height - overlap(box, [inside])) for box in boxes]
        best = int(np.argmin(covered))
        write(p, *spots[best])
        taken.append(boxes[best].padded(3 * pixel))
