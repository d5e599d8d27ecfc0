"""`refdiff golden`: make the files of the golden cases, prove that they are what is made, list them and show one."""
import json

import click
from tqdm import tqdm

from ..files import check_writable
from . import store


@click.group("golden")
def golden():
    """The golden cases: questions with exact answers, for any implementation."""


folder_option = click.option("--folder", type=click.Path(file_okay=False), default=str(store.FOLDER), help=(
    "Where the files are.  [default: those of the package]"))


def _bar():
    return tqdm(total=len(store.modules()), unit=" families", leave=False, disable=None)


@golden.command("make")
@folder_option
def make(folder):
    """Write every file, the same bytes every time; takes half a minute and mpmath."""
    check_writable(f"{folder}/MANIFEST.json")
    with _bar() as bar:
        manifest = store.make(folder, tick=lambda family: bar.update())
    for name, entry in manifest["files"].items():
        click.echo(f"{entry['bytes']:10,} bytes  {entry.get('cases', ''):>5}  {name}")
    click.echo(f"{manifest['cases']} cases, version {manifest['version']}")


@golden.command("check")
@folder_option
@click.option("--quick", is_flag=True, help="Compare with the manifest's SHA-256 alone, and make nothing.")
def check(folder, quick):
    """Prove that the files are what `make` writes, byte for byte; exit status 1 if one is not."""
    if quick:
        found = store.verify_manifest(folder)
    else:
        with _bar() as bar:
            found = store.check(folder, lambda family: bar.update())
    for line in found:
        click.echo(line, err=True)
    if found:
        raise SystemExit(1)
    click.echo("every file is as the manifest says" if quick else "every file is what make writes, byte for byte")


@golden.command("list")
@click.argument("glob", default="*")
@folder_option
def list_cases(glob, folder):
    """The ids that match GLOB, as "sampler/ddim/*", with operation, equation and verdict."""
    cases = store.load(glob, folder)
    for case in cases:
        click.echo(f"{case.id:60} {case.operation:22} {case.equation:16} {case.verdict}")
    click.echo(f"{len(cases)} cases", err=True)
    if not cases:
        raise ValueError(f"golden list: no case matches {glob!r}; ids begin with "
                         f"{', '.join(sorted({case.id.partition('/')[0] for case in store.load('*', folder)}))}")


@golden.command("show")
@click.argument("name", metavar="ID")
@folder_option
def show(name, folder):
    """One case, as its file has it."""
    click.echo(json.dumps(store.raw(name, folder), indent=2, sort_keys=True))
