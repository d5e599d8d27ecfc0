"""The command line: every command parses, calls one function and prints what it returned.

A command is made by @command (below): it gets the options of its configurations from config.options, and --backend.
What refdiff refuses is printed as one line, exit status 2; --debug shows where it came from.
"""
import json
from pathlib import Path

import click
from tqdm import tqdm

from . import __version__, backend, data, figures, files, parallel
from . import claims as settling
from . import orders as ordering
from . import verify as verifying
from .bench.command import bench
from .checkpoint import is_ours, load_checkpoint
from .config import options
from .demo import demo as run_demo
from .denoiser import DenoiserConfig
from .distill.consistency import TRAINING, ConsistencyConfig, distil
from .evaluate import Reference
from .files import check_writable
from .fit import TrainConfig, TrainingDiverged
from .foreign.commands import COMMANDS as FOREIGN
from .golden.audit_command import audit as auditing
from .golden.commands import golden
from .info import describe
from .likelihood import METHODS, TRACES, bound as measure_bound, likelihood as measure_likelihood
from .models import NetworkOptions, suggest
from .ops.fast import routed
from .process.gaussian import VARIANCES
from .process.likelihood import NotConverged
from .sample import sample as draw_samples
from .samplers import SAMPLERS
from .train import train as run_training

REFUSALS = (ValueError, OSError, MemoryError, backend.BackendError, TrainingDiverged, FloatingPointError,
            NotConverged, parallel.MemberError)


class Refused(click.ClickException):
    """A refusal of refdiff's, as click prints it."""

    exit_code = 2


class Stopped(click.ClickException):
    """Ctrl-C, with the shell's exit status for it."""

    exit_code = 130


class Commands(click.Group):
    """The commands, with refdiff's errors as one line instead of a traceback."""

    def invoke(self, ctx):
        try:
            routed.chosen(), parallel.chosen()          # a misspelt variable is told before any work
            return super().invoke(ctx)
        except BrokenPipeError:                 # the reader of our output left: not ours to report
            raise
        except KeyboardInterrupt:
            raise Stopped("stopped; what was saved is whole, and train and distill go on with --resume") from None
        except REFUSALS as error:
            if ctx.params["debug"]:
                raise
            raise Refused(_said(error, ctx.invoked_subcommand)) from error


def _said(error, command):
    """An error as one line; of the system's about a file, the command and the file before what is wrong with it."""
    if isinstance(error, parallel.MemberError) and command in ("train", "distill"):
        return f"{command}: {error}; what was saved is whole, and --resume goes on from the last checkpoint, or begins"
    if isinstance(error, MemoryError):
        said = str(error) or "no more is told"
        return f"{command}: out of memory ({said}); wanted less at a time: fewer images, or threads"
    if not isinstance(error, OSError) or error.filename is None or not error.strerror:
        return str(error) or type(error).__name__
    wanted = ("wanted the name of one that is there, as seen from this folder" if isinstance(error, FileNotFoundError)
              else "wanted one that can be used")
    return f"{command}: {error.filename}: {error.strerror}; {wanted}"


def _use(ctx, param, name):
    if name:
        backend.use(name)


backend_option = click.option(
    "--backend", type=click.Choice(backend.NAMES), callback=_use, expose_value=False,
    help="Where arrays are made.  [default: the environment's REFDIFF_BACKEND, else numpy]")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="refdiff")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@backend_option
def main(debug):
    """Diffusion models as arrays and formulas, every gradient by hand."""


def command(function):
    """A subcommand named after its function, which understands --backend too."""
    return main.command()(backend_option(function))


def load_data(source, labels=None, split="train"):
    """A Dataset: the embedded digits by name, or what a path holds."""
    if source != "digits":
        return data.load(source, labels)
    if labels is not None:
        raise ValueError(f"--labels {labels}: the embedded digits have their own; leave it away, or name other --data")
    return data.digits(split)


data_option = click.option("--data", "source", default="digits", show_default=True, help=(
    "Images, real ones: a folder of pictures, .npy, .npz, HDF5 or IDX file, or digits, the embedded ones."))


@command
@click.option("--out", default="runs/demo", show_default=True, help="Folder for the report and the checkpoints.")
@click.option("--quick", is_flag=True, help="All of it with less training, in under a minute on two cores.")
@click.option("--full", is_flag=True, help="Measure DDPM's 1000 steps as well, which takes minutes.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every random number.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help=(
    "Parts of a batch side by side; 0: one per core."))
def demo(out, quick, full, seed, threads):
    """Train on the embedded digits, distil, sample in 1 to 50 steps, and report."""
    results = run_demo(out, quick, full, seed, threads)
    if quick:
        click.echo("The limits are those of the full run; a quick one trains an eighth, and distils a quarter as long.")
    for bar in results["bars"]:
        click.echo(f"{'met   ' if bar['ok'] else 'MISSED'} {bar['value']:8.3f} {bar['limit']:>9}  {bar['claim']}")
    click.echo(f"{results['seconds']['total']:.0f} s, {results['peak_mib']:.0f} MiB; see {Path(out) / 'report.html'}")


@command
@data_option
@click.option("--labels", help="File of labels, where the images' file has none.")
@click.option("--out", required=True, help="Folder for checkpoint.h5 and loss.png.")
@click.option("--resume", is_flag=True, help=(
    "Go on from the checkpoint in --out, to the same bits; begin if there is none."))
@options(NetworkOptions, "network")
@options(DenoiserConfig, "denoising", leave=("sigma_data",))
@options(TrainConfig, "config")
def train(source, labels, out, resume, network, denoising, config):
    """Train a denoiser on images. What of the U-Net is (none) is chosen by the images' size and the prediction."""
    dataset = load_data(source, labels)
    run_training(dataset, suggest(dataset.shape[0], network, denoising.prediction), denoising, config, out, resume)
    click.echo(f"{Path(out) / 'checkpoint.h5'}: refdiff sample it, or refdiff distill it")


@command
@click.argument("checkpoint")
@data_option
@click.option("--labels", help="File of labels, where the images' file has none.")
@click.option("--out", required=True, help="Folder for distilled.h5 and distilled_loss.png.")
@click.option("--resume", is_flag=True, help=(
    "Go on from the checkpoint in --out, to the same bits; begin if there is none."))
@options(ConsistencyConfig, "consistency")
@options(TRAINING, "config", leave=("weighting",))
def distill(checkpoint, source, labels, out, resume, consistency, config):
    """Distil the denoiser in CHECKPOINT to a consistency function of a few steps."""
    distil(checkpoint, load_data(source, labels), consistency, config, out, resume)
    click.echo(f"{Path(out) / 'distilled.h5'}: refdiff sample it with --sampler consistency")


@command
@click.argument("checkpoint")
@click.option("--sampler", type=click.Choice(tuple(SAMPLERS)), help=(
    "consistency takes a distilled CHECKPOINT, the others one of train.  [default: heun; consistency if distilled]"))
@click.option("--steps", type=click.IntRange(1), help="Of the sampler.  [default: 18; 4 if distilled]")
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="Number of images.")
@click.option("--label", type=click.IntRange(0), help=(
    "Class of all images; the number of classes stands for no class.  [default: every class in turn]"))
@click.option("--seed", type=click.IntRange(0, 2 ** 63 - 1), default=0, show_default=True, help=(
    "Of every random number."))
@click.option("--eta", type=click.FloatRange(0, 1), help=(
    "Noise of ddim (1 is ddpm's) or euler_ancestral.  [default: the sampler's own, 0 and 1]"))
@click.option("--scale", type=float, help=(
    "Classifier-free guidance u + s (c - u) at this s; 1 is none. Papers' w is s - 1.  [default: none]"))
@click.option("--option", "others", multiple=True, metavar="NAME=VALUE", help=(
    "An option of the sampler's own, such as order=3; the docstring of refdiff.samplers.NAME lists them."))
@click.option("--compat", multiple=True, metavar="NAME", help=(
    "A published deviation on purpose, of the sampler (refdiff.samplers.compat) or the network "
    "(refdiff.models.compat)."))
@click.option("--sigmas", help=(
    "Noise levels of consistency sampling, falling, such as 20,0.8; in place of --steps.  [default: by --steps]"))
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help=(
    "Parts of a batch side by side; 0: one per core."))
@click.option("--out", required=True, help="A .png (a sheet of images), .npy or .h5 file.")
def sample(checkpoint, sampler, steps, count, label, seed, eta, scale, others, compat, sigmas, threads, out):
    """Draw images from CHECKPOINT, which train or distill wrote."""
    writers = {".png": lambda images, labels: figures.save_images(out, images),
               ".npy": lambda images, labels: data.save_npy(out, images),
               ".h5": lambda images, labels: data.save(out, images, labels, levels, classes, sampler=sampler,
                                                       steps=steps, seed=seed)}
    write = writers.get(Path(out).suffix)
    if write is None:
        raise ValueError(f"sample: --out is {out}, wanted a name that ends in {', '.join(writers)}")
    loaded = load_checkpoint(checkpoint, ("training", "distillation"))
    check_writable(out)
    if is_ours(out):
        raise FileExistsError(f"sample: --out {out} is a checkpoint, which samples would replace; choose another name")
    distilled = loaded.kind == "distillation"
    sampler = sampler or ("consistency" if distilled else "heun")
    sigmas = parse_sigmas(sigmas, sampler)
    if sigmas and steps not in (None, len(sigmas)):
        raise ValueError(f"sample: --steps {steps} and {len(sigmas)} --sigmas; one step is made per sigma, "
                         "give one of the two")
    chosen = parse_options(others if eta is None else (*others, f"eta={eta}"))
    steps = len(sigmas) if sigmas else steps or (4 if distilled else 18)
    levels, classes = loaded.config["data"]["levels"], loaded.config["data"]["classes"]
    images, labels = draw_samples(loaded, sampler, steps, count, label, seed, threads, sigmas, scale,
                                  chosen, compat)
    write(images, labels if labels is not None and (labels < len(classes)).all() else None)
    click.echo(f"{out}: {count} images by {sampler} in {steps} steps")


def parse_options(pairs):
    """("order=3", "rule=leading") -> {"order": 3, "rule": "leading"}: numbers, true, false and null as in JSON."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier() or name in options:
            raise ValueError(f"sample: --option is {pair!r}, wanted NAME=VALUE, each name once (--eta gives eta)")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def parse_sigmas(text, sampler):
    """"20,0.8" -> (20.0, 0.8)."""
    if text is None:
        return None
    if sampler != "consistency":
        raise ValueError(f"sample: --sigmas belongs to consistency sampling, not to {sampler}; leave it away")
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"sample: --sigmas is {text!r}, wanted numbers separated by commas, such as 20,0.8") from None


@command
@click.argument("samples")
@data_option
@click.option("--labels", help="File of labels, where the images' file has none.")
@click.option("--heldout", help="Real images that were not trained on.  [default: those of the embedded digits]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the floors' resampling.")
@click.option("--json", "target", help="Write the figures to this file too.")
def evaluate(samples, source, labels, heldout, seed, target):
    """Compare SAMPLES with real images: Frechet distances beside their floors, precision, recall, nearest image."""
    if target:
        check_writable(target)
    training = load_data(source, labels)
    held = data.load(heldout) if heldout else data.digits("heldout") if source == "digits" else None
    reference, drawn = Reference(training, held), data.load(samples)
    results = {"samples": len(drawn), **reference.compare(drawn.images, drawn.labels)}
    for space, floor in reference.floors(len(drawn), seed).items():
        results[space].update(floor)
    text = json.dumps(results, indent=2)
    if target:
        files.write(target, text + "\n")
    click.echo(text)


@command
@click.argument("checkpoint")
@data_option
@click.option("--labels", help="File of labels, where the images' file has none.")
@click.option("--split", type=click.Choice(("train", "heldout", "all")), help=(
    "Which images of a file that has a split.  [default: heldout of the embedded digits, all of others]"))
@click.option("--count", type=click.IntRange(1), help="Number of images, drawn by --seed.  [default: 100, or all]")
@click.option("--by", type=click.Choice(METHODS), default="ode", show_default=True, help=(
    "ode: the PF-ODE's density; bound: the variational bound of all T steps, where the schedule is discrete."))
@click.option("--variance", type=click.Choice(VARIANCES), help=(
    "Of the bound's steps: beta-tilde (small), better for few grey levels and many steps, or beta.  [default: large]"))
@click.option("--trace", type=click.Choice(TRACES), default="hutchinson", show_default=True, help=(
    "exact: a product per pixel; hutchinson: --probes of them, random, right in the mean."))
@click.option("--probes", type=click.IntRange(1), help="Random products per image and evaluation.  [default: 1]")
@click.option("--rtol", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=1e-4, show_default=True,
              help="Relative error per step of the first solve; the second, which is reported, has a tenth.")
@click.option("--tolerance", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True, help=(
    "Bits/dim by which the two solves may differ in any image; else there is no figure."))
@click.option("--seed", type=click.IntRange(0, 2 ** 63 - 1), default=0, show_default=True, help=(
    "Of the images, of their dequantisation and of the probes."))
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help=(
    "Parts of a batch side by side; 0: one per core."))
@click.option("--json", "target", help="Write the figures to this file too.")
def likelihood(checkpoint, source, labels, split, count, by, variance, trace, probes, rtol, tolerance, seed, threads,
               target):
    """Bits per dimension of images under CHECKPOINT, by its probability-flow ODE (no figure unless it converged)."""
    if target:
        check_writable(target)
    if probes is not None and (trace == "exact" or by == "bound"):
        raise ValueError(f"likelihood: --probes {probes} belongs to --by ode --trace hutchinson; leave it away")
    if variance and by != "bound":
        raise ValueError(f"likelihood: --variance {variance} belongs to --by bound; leave it away")
    loaded = load_checkpoint(checkpoint, ("training", "distillation"))
    dataset = (load_data(source, labels, split or "heldout") if source == "digits"
               else data.load(source, labels, split or "all"))
    count = min(100, len(dataset)) if count is None else count
    results = (measure_bound(loaded, dataset, count, variance or "large", seed, threads=threads) if by == "bound" else
               measure_likelihood(loaded, dataset, count, trace, probes or 1, seed, rtol, tolerance, threads=threads))
    text = json.dumps(results, indent=2)
    if target:
        files.write(target, text + "\n")
    click.echo(text)


@command
@click.argument("file")
def info(file):
    """What is in FILE: a checkpoint, samples or data (HDF5, .npy, .npz, IDX or a folder of pictures)."""
    click.echo("\n".join(describe(file)))


@command
@click.option("--plot", help="Draw error against steps to this .png.")
@click.option("--markdown", help="Write the table to this file.")
def orders(plot, markdown):
    """Compare the order of convergence that every solver claims with the observed one."""
    for target in filter(None, (plot, markdown)):
        check_writable(target)
    if plot and Path(plot).suffix != ".png":
        raise ValueError(f"orders: --plot is {plot}, wanted a name that ends in .png")
    with tqdm(total=len(ordering.CLAIMS) * len(ordering.GRIDS), unit=" claims", leave=False, disable=None) as bar:
        found = ordering.measure(bar.update)
    if plot:
        ordering.plot(plot, found)
    if markdown:
        files.write(markdown, ordering.markdown(found, Path(plot).name if plot else "orders.png"))
    click.echo("\n".join(ordering.table(found)))
    failed = sum(not ordering.holds(one) for one in found)
    click.echo(f"{len(found) - failed} of {len(found)} observed orders are within {ordering.TOLERANCE} of the claim")
    if failed:
        raise SystemExit(1)


@command
@click.argument("number", nargs=-1, type=int)
@click.option("--markdown", help="Write the page of them to this file.")
def claims(number, markdown):
    """Settle what popular explanations say by measuring: claim NUMBER, or all of them, in about a minute."""
    if markdown:
        check_writable(markdown)
    settled = []
    for one in settling.known(number):
        settled.append(settling.settle(one))
        click.echo("\n".join(settling.lines(settled[-1])) + "\n")
    if markdown:
        files.write(markdown, settling.markdown(settled))


@command
@click.argument("paper", nargs=-1)
@click.option("--html", "page", help="Write a page with every formula, function and proof to this file.")
@click.option("--markdown", help="Write the tables to this file.")
def verify(paper, page, markdown):
    """Run the proofs of every equation of PAPER (as DDPM or EDM; all of them if none is named)."""
    for target in filter(None, (page, markdown)):
        check_writable(target)
    with tqdm(unit=" proofs", leave=False, disable=None) as bar:
        rows, problems = verifying.verify(paper, tick=bar.update)
    if page:
        files.write(page, verifying.page(rows, problems))
    if markdown:
        files.write(markdown, verifying.markdown(rows))
    click.echo("\n".join(verifying.table(rows)))
    failed = [row for row in rows if not row.holds]
    for why in [*problems, *dict.fromkeys(proof.why for row in failed for proof in row.proofs if proof.why)]:
        click.echo(why, err=True)
    click.echo(f"{len(rows) - len(failed)} of {len(rows)} equations hold")
    if failed or problems:
        raise SystemExit(1)


main.add_command(backend_option(auditing))
main.add_command(backend_option(bench))
main.add_command(golden)
for foreign in FOREIGN:
    main.add_command(backend_option(foreign))


if __name__ == "__main__":
    main(prog_name="refdiff")
