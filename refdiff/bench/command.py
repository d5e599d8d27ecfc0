"""`refdiff bench`: the command over run.py, the table, the bars and the pictures."""
import json
from pathlib import Path

import click

from .. import files
from ..config import Several
from . import pictures
from .bars import verdicts
from .machine import ISAS
from .networks import NETWORKS
from .run import PARTS, Settings
from .run import bench as run_bench
from .table import bar_lines, line, machine_lines, table, warning


@click.command("bench")
@click.option("--only", type=Several(str), help=f"Parts, separated by commas, of {','.join(PARTS)}.  [default: all; "
              "with --quick unet64,demo]")
@click.option("--threads", type=Several(int), default="1,2", show_default=True, help="Numbers of threads.")
@click.option("--rounds", type=click.IntRange(1), help="Measurements per contender.  [default: 15; 3 with --quick]")
@click.option("--quick", is_flag=True, help=(
    "Fewer rounds and subjects, no torch.compile, no peak memory: under two minutes."))
@click.option("--isa", type=click.Choice(ISAS), default="native", show_default=True, help=(
    "native: every library picks its best kernels; avx2: all are held to AVX2; asis: the environment as it is, but for "
    "the numbers of threads."))
@click.option("--torch/--no-torch", "torch", default=True, help="Without PyTorch: refdiff's own times.")
@click.option("--compile/--no-compile", "compiled", default=True, help="torch.compile takes part (minutes).")
@click.option("--check", is_flag=True, help="Exit status 1 if a bar is missed.")
@click.option("--json", "target", metavar="FILE", help="Write the rows and the machine.")
@click.option("--chart", metavar="FILE.png", help="Draw the ratios of the networks as bars.")
@click.option("--heatmap", metavar="FILE.png", help="Draw the ratios of the sweep over channels and image sizes.")
def bench(only, threads, rounds, quick, isa, torch, compiled, check, target, chart, heatmap):
    """Time training and sampling steps against PyTorch's, on the same networks, weights and batches, in turns."""
    only = only if only is not None else ("unet64", "demo") if quick else PARTS
    settings = Settings(only, threads, rounds or (3 if quick else 15), isa, torch, compiled, quick)
    for path in filter(None, (target, chart, heatmap)):
        files.check_writable(path)
    for path in filter(None, (chart, heatmap)):
        if Path(path).suffix != ".png":
            raise ValueError(f"bench: a picture is to be written to {path}, wanted a name that ends in .png")
    refuse_empty(settings, chart, heatmap)

    def save(results):
        if target:
            files.write(target, json.dumps({**results, "bars": verdicts(results["rows"])}, indent=1) + "\n")

    def say(said):
        click.echo(said if isinstance(said, str) else line(said), err=True)

    results = run_bench(settings, say, save)
    results["bars"] = verdicts(results["rows"])
    save(results)
    click.echo("\n".join([*machine_lines(results["machine"]), "", *table(results["rows"]),
                          *warning(results["rows"]), "", *bar_lines(results["bars"])]))
    draw(results, chart, heatmap)
    if check and any(bar["verdict"] == "missed" for bar in results["bars"]):
        raise SystemExit(1)


def refuse_empty(settings, chart, heatmap):
    """ValueError, before anything is measured, where nothing that a picture shows will be compared with PyTorch."""
    networks = [part for part in PARTS if part in NETWORKS]
    sweep = ["sweep"] if settings.device == "cpu" else []
    for option, path, parts in (("--chart", chart, networks), ("--heatmap", heatmap, sweep)):
        if path and not (settings.torch and set(parts) & set(settings.only)):
            wanted = f"PyTorch, and --only with one of {', '.join(parts)}" if parts else "the host, without --backend"
            raise ValueError(f"bench: there would be nothing to draw for {option}, wanted {wanted}; or leave it away")


def draw(results, chart, heatmap):
    """The pictures that were asked for."""
    if chart:
        pictures.ratio_chart(chart, results)
    if heatmap:
        pictures.heat_map(heatmap, results)
