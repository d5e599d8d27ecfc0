"""Two pictures of a run: the ratios of the networks as bars, and those of the sweep as a map."""
import textwrap

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from ..figures import COLOURS, GREY, INK, STYLE, _figure, _finish, _render
from .bars import BARS

HATCHES = ("", "///")           # beside the colours: one thread, two threads
# Orange below 1, white at 1, blue above: Okabe and Ito's, told apart by colour-blind readers; numbers say it again.
SLOWER_FASTER = LinearSegmentedColormap.from_list("slower_faster", (COLOURS[1], "white", COLOURS[0]))


def _caption(fig, results, first):
    """What the picture shows and on what it was measured, below it."""
    m = results["machine"]
    torch = f"PyTorch {m['torch']} ({m['torch_capability']})" if "torch" in m else "no PyTorch"
    on = (f"Medians of {results['settings']['rounds']} rounds in turns, float32, kernels: {m['isa']}. {m['cpu']}, "
          f"{m['cores']} cores; NumPy {m['numpy']} ({m['blas']}); {torch}.")
    width = int(17 * fig.get_figwidth())                      # letters of this size in the figure's width
    fig.supxlabel("\n".join(line for text in (first, on) for line in textwrap.wrap(text, width)), x=0.01, ha="left",
                  fontsize=8, color="#444444", linespacing=1.4)


@matplotlib.rc_context(STYLE)
def ratio_chart(path, results):
    """Ratio PyTorch / refdiff of every network's steps and peak memory, a bar per number of threads; the bars to meet.

    Returns the PNG's bytes. Raises ValueError where nothing was compared.
    """
    rows = [row for row in results["rows"] if row["kind"] in ("train", "sample", "memory") and row["ratio"] is not None]
    if not rows:
        raise ValueError("bench: no network was compared with PyTorch, so there is nothing to draw; leave --chart away")
    groups = list(dict.fromkeys((row["network"], row["kind"], row["precision"]) for row in rows))
    threads = sorted({row["threads"] for row in rows})
    fig = _figure(8.4, 1.8 + 0.34 * len(groups) * len(threads) + 0.14 * len(groups))
    ax = fig.add_subplot()
    height = 0.8 / len(threads)
    for i, count in enumerate(threads):
        drawn = [(groups.index((row["network"], row["kind"], row["precision"])), row) for row in rows
                 if row["threads"] == count]
        at = [place + (i - (len(threads) - 1) / 2) * height for place, _ in drawn]
        ax.barh(at, [row["ratio"] for _, row in drawn], 0.9 * height, color=COLOURS[i % 4], hatch=HATCHES[i % 2],
                edgecolor="white", label=f"{count} thread" + "s" * (count > 1), zorder=2)
        for y, (_, row) in zip(at, drawn):
            spread = f"  \N{PLUS-MINUS SIGN}{50 * row['spread']:.0f} %" if "spread" in row else ""
            least = [b.least for b in BARS if (b.network, b.kind, b.threads) == (row["network"], row["kind"], count)]
            for value in least:
                ax.plot([value, value], [y - height / 2, y + height / 2], color=INK, lw=2, zorder=3)
            ax.annotate(f"{row['ratio']:.2f}{spread}", (max([row["ratio"], *least]), y), (5, 0), va="center",
                        textcoords="offset points", fontsize=8.5, color=INK,
                        path_effects=[patheffects.withStroke(linewidth=3, foreground="white")])
    if any((b.network, b.kind) in {g[:2] for g in groups} for b in BARS):
        ax.plot([], [], color=INK, lw=2, label="what is promised")
    ax.axvline(1, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    ax.set_yticks(range(len(groups)), [", ".join((network, {"memory": "peak memory"}.get(kind, kind), *(
        [precision] if precision != "float32" else []))) for network, kind, precision in groups])
    ax.set_xlim(0, 1.18 * max(max(row["ratio"] for row in rows), 1.5))
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.set_xlabel("PyTorch's best eager layout / refdiff (above 1: refdiff is faster, or needs less)")
    fig.legend(loc="outside upper left", ncols=4, borderpad=0.4)
    _caption(fig, results, "A step of training is forward, loss, backward, AdamW and EMA; of sampling, one evaluation "
                           "and DDIM's update. \N{PLUS-MINUS SIGN}: half the interquartile range.")
    return _finish(path, _render(fig))


@matplotlib.rc_context(STYLE)
def heat_map(path, results):
    """Ratio PyTorch / refdiff of a ResBlock's forward and backward over channels and image sizes, a map per threads.

    Returns the PNG's bytes. Raises ValueError where nothing was compared.
    """
    rows = [row for row in results["rows"] if row["kind"] == "sweep" and row["ratio"] is not None]
    if not rows:
        raise ValueError("bench: no sweep was compared with PyTorch, so there is nothing to draw; leave --heatmap away")
    threads, channels, sizes = (sorted({row[name] for row in rows}) for name in ("threads", "channels", "size"))
    fig = _figure(max(4.2 * len(threads), 6.4), 2.0 + 0.5 * len(sizes))
    axes = fig.subplots(1, len(threads), squeeze=False)[0]
    norm = TwoSlopeNorm(1, 0.3, max(2.0, max(row["ratio"] for row in rows)))
    for ax, count in zip(axes, threads):
        values = np.full((len(sizes), len(channels)), np.nan)
        for row in rows:
            if row["threads"] == count:
                values[sizes.index(row["size"]), channels.index(row["channels"])] = row["ratio"]
        ax.imshow(values, cmap=SLOWER_FASTER, norm=norm, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                below = value < 0.7
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9.5, color=INK,
                        weight="bold" if below else "normal",
                        bbox={"facecolor": "none", "edgecolor": INK, "pad": 2.5, "lw": 1.2} if below else None)
        ax.set(title=f"{count} thread" + "s" * (count > 1), xlabel="channels", ylabel="image size, pixels")
        ax.set_xticks(range(len(channels)), channels)
        ax.set_yticks(range(len(sizes)), sizes)
        ax.grid(False)
    _caption(fig, results, "PyTorch's best eager layout / refdiff of a residual block, forward and backward (blue: "
                           "refdiff is faster). Framed: below 0.7.")
    return _finish(path, _render(fig))
