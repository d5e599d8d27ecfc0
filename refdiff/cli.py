"""The command line: every command parses, calls one function and prints what it returned.

A command is made by @command (below): it gets the options of its configurations from config.options, and --backend.
What refdiff refuses is printed as one line, exit status 2; --debug shows where it came from.
"""
import click

from . import __version__, backend
from .info import describe
from .train import TrainingDiverged

REFUSALS = (ValueError, OSError, backend.BackendError, TrainingDiverged)


class Refused(click.ClickException):
    """A refusal of refdiff's, as click prints it."""

    exit_code = 2


class Commands(click.Group):
    """The commands, with refdiff's errors as one line instead of a traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:                 # the reader of our output left: not ours to report
            raise
        except REFUSALS as error:
            if ctx.params["debug"]:
                raise
            raise Refused(str(error) or type(error).__name__) from error


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


@command
@click.argument("file")
def info(file):
    """What is in FILE: a checkpoint, samples or data (HDF5, .npy, .npz, IDX or a folder of pictures)."""
    click.echo("\n".join(describe(file)))


if __name__ == "__main__":
    main(prog_name="refdiff")
