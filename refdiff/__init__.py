"""refdiff: diffusion models in NumPy and CuPy, every gradient by hand.

Import the room that is needed: `from refdiff.process import schedules`, `from refdiff.samplers import ddim`.
"""
from pathlib import Path

__version__ = "0.1.0"


def asset(name):
    """The path of an embedded file ("digits.h5"): data/ in the source tree, refdiff/assets when installed.

    Raises FileNotFoundError that lists the files there are.
    """
    here = Path(__file__).resolve().parent
    folder = here / "assets" if (here / "assets").is_dir() else here.parent / "data"
    path = folder / name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.glob("*.h5"))) or "none"
        raise FileNotFoundError(f"asset: no embedded file {name!r} in {folder}; there are: {there}")
    return path
