"""`refdiff orders`: the order of convergence that every solver claims against the observed one, as table and plot.

What is claimed, and how it is observed on exact worlds, is in samplers/orders.py.
"""
import inspect

from . import figures
from .samplers.orders import CLAIMS, GRIDS, observe
from .verify import columns

TOLERANCE = 0.15


def measure(tick=lambda: None):
    """Every claim observed on every grid: a list of Observed. tick() is called after each."""
    found = []
    for claim in CLAIMS:
        for grid in GRIDS:
            found.append(observe(claim, grid))
            tick()
    return found


def holds(observed):
    """Whether the observed order lies within TOLERANCE of the claimed one."""
    return abs(observed.order - observed.claim.order) < TOLERANCE


HEAD = ("solver", "grid", "claimed", "observed", "", "from N", "error, fewest steps", "error, most steps")


def rows(found):
    """One row of cells per observation, as HEAD names them."""
    return [(o.claim.name, o.grid, f"{o.claim.order:g}", f"{o.order:.2f}", "holds" if holds(o) else "FAILS",
             str(o.claim.since), f"{o.errors[0]:.1e} ({o.counts[0]})", f"{o.errors[-1]:.1e} ({o.counts[-1]})")
            for o in found]


WORLDS = ("karras: EDM's grid, sigma 10 to .05. circle: alpha = cos t, sigma = sin t, t 1.5 to .1 in equal steps.",
          "Errors: of samples against the exact flow of two Gaussians in 1-D; of stochastic samplers, of the output's",
          "mean and variance on a Gaussian. The observed order is the slope of log error over log N, from N on.")


def table(found):
    """What was observed on what, and the rows as lines of text."""
    return [*WORLDS, "", *columns([HEAD, *rows(found)])]


def markdown(found, picture="orders.png"):
    """The same as a page, with the plot beside it."""
    return "\n".join([
        "# Every solver's order, observed", "",
        f"Written by `refdiff orders --markdown papers/ORDERS.md --plot papers/{picture}`.", *WORLDS,
        f"It holds if it lies within {TOLERANCE} of the claim. The docstring of each solver says what its order needs.",
        "",
        f"![error against steps]({picture})", "",
        "| " + " | ".join(HEAD) + " |", "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |",
        *("| " + " | ".join(row) + " |" for row in rows(found)), ""])


# Which samplers share a panel of the plot.
PANELS = {"one-step methods, no noise": ("euler", "ddim", "heun"), "UniPC": ("unipc",), "DEIS": ("deis",),
          "linear multistep": ("lms", "plms"), "DPM-Solver": ("dpm",), "DPM-Solver++": ("dpmpp",),
          "stochastic, exact law": ()}


def plot(path, found):
    """Error against steps on the first grid: a panel per family of solvers, a line per claim, the slopes claimed."""
    panels = {title: [] for title in PANELS}
    for o in found:
        if o.grid == next(iter(GRIDS)):
            name, drawn = o.claim.sampler.__name__, "noise" in inspect.signature(o.claim.sampler).parameters
            deterministic = not drawn or name == "ddim" and not o.claim.options
            title = next((t for t, names in PANELS.items() if name in names and deterministic), list(PANELS)[-1])
            panels[title].append((o.claim.name, o.counts, o.errors, o.claim.order))
    return figures.slope_panels(path, {title: lines for title, lines in panels.items() if lines}, "steps N", "error")
