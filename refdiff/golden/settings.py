"""What the oracles ask a trajectory for: a sampler on a schedule and a grid, the network that watches how it is called.

    Setting("ddim", "linear", 1000, "trailing", "zero", {"eta": 0.5})

An adapter's configurations() lists the settings that are legal for it, as dicts of these names (options among them);
without one, DEFAULTS are asked for, and a sampler that answers none of them is looked for on other schedules and rules.
`rule` is the grid's; a solver's own rule is the option `solver_rule`. The truth is the world's: the exact flow, the
exact law, the levels of the grid.
"""
import inspect
import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np

from .. import samplers
from ..process import grids, schedules
from ..process.families import Interpolated
from ..process.level import ve
from ..process.parameterization import Prediction
from ..rng import Key
from ..samplers.orders import LINE
from .adapter import call, dtypes_of, last_line

SIGMAS = {"karras": {"sigma_min": 0.05, "sigma_max": 10.0}, "exponential": {"sigma_min": 0.05, "sigma_max": 10.0}}
ASKED = ("sampler", "schedule", "T", "rule", "final")
COLLECTED = 4096                        # numbers of x kept per call


@dataclass(frozen=True)
class Setting:
    """A sampler, the schedule's name and T (None: sigmas), the grid's rule and end, and the sampler's options."""

    sampler: str
    schedule: str = "linear"
    T: int | None = 1000
    rule: str = "trailing"
    final: str = "zero"
    options: dict = field(default_factory=dict)

    @property
    def id(self):
        """ddim/linear1000/trailing/zero/eta0.5"""
        options = "/".join(f"{k}{v}".lower() for k, v in sorted(self.options.items()) if k not in ("grid_options",))
        parts = [self.sampler, f"{self.schedule}{self.T or ''}", self.rule, self.final, options]
        return "/".join(part for part in parts if part).replace(" ", "")

    @classmethod
    def of(cls, given):
        """From an adapter's dict. Raises ValueError for one that refdiff has nothing to compare with."""
        if isinstance(given, Setting):
            return given
        if not isinstance(given, dict) or "sampler" not in given:
            raise ValueError(f"configurations: {given!r} names no sampler; wanted a dict with {', '.join(ASKED)}")
        beside = {k: v for k, v in given.items() if k not in (*ASKED, "options")}
        made = cls(**{k: given[k] for k in ASKED if k in given}, options={**beside, **given.get("options", {})})
        if made.sampler not in samplers.SAMPLERS:
            raise ValueError(f"configurations: sampler is {made.sampler!r}, wanted one of "
                             f"{', '.join(samplers.SAMPLERS)}")
        if made.T is not None and (not isinstance(made.T, int) or made.T < 1):
            raise ValueError(f"configurations: T is {made.T!r}, wanted an integer >= 1, or None for levels of sigma")
        if made.T is not None and made.schedule not in schedules.SCHEDULES:
            raise ValueError(f"configurations: schedule is {made.schedule!r}, wanted one of "
                             f"{', '.join(schedules.SCHEDULES)}, or T = None for levels of sigma")
        known = inspect.signature(samplers.SAMPLERS[made.sampler]).parameters
        for name in made.options:
            if name != "grid_options" and ("rule" if name == "solver_rule" else name) not in known:
                raise ValueError(f"configurations: {made.sampler} has no option {name!r}, wanted some of "
                                 f"{', '.join([*known][3:-1])}")
        return made

    def grid(self, steps):
        """The levels that the paper's sampler visits. Raises ValueError where there is no such grid."""
        if self.T is None:
            options = dict(SIGMAS.get(self.rule, {}), **self.options.get("grid_options", {}))
            n, final = (steps + 1, None) if self.final == "none" else (steps, 0.0)
            return getattr(grids, self.rule)(n, final=final, **options)
        return grids.discrete(schedules.SCHEDULES[self.schedule](self.T), steps, self.rule, self.final)

    def inputs(self, steps, x, denoiser, noise):
        """The arguments of adapter.trajectory."""
        extra = {"grid_options": SIGMAS[self.rule]} if self.T is None and self.rule in SIGMAS else {}
        return {"sampler": self.sampler, "schedule": self.schedule, "T": self.T, "steps": steps, "rule": self.rule,
                "final": self.final, "x": x, "denoiser": denoiser, "noise": noise, **extra, **self.options}

    def ours(self, world, grid, x, noise=None, watch=None, kind="x0"):
        """refdiff's states on the same levels: [x after each step]. Raises ValueError where it has no such sampler."""
        function = samplers.SAMPLERS.get(self.sampler)
        if function is None:
            raise ValueError(f"refdiff has no sampler {self.sampler!r}")
        options = {"rule" if k == "solver_rule" else k: v for k, v in self.options.items() if k != "grid_options"}
        draws = {"noise": noise} if noise is not None and self.stochastic(grid, len(grid)) else {}

        def denoiser(y, level):
            if watch is not None:
                watch.append((float(level.t), np.array(y)))
            said = world(y, level)
            return said if kind == said.kind else Prediction(kind, getattr(said, kind), y, level)
        return [state.x for state in function(denoiser, grid, x, **options, **draws)]

    def stochastic(self, grid, steps):
        """Whether this sampler draws noise with these options."""
        name, options = self.sampler, self.options
        if name == "ddim":
            return float(options.get("eta", 0)) > 0
        if name in ("euler_ancestral", "sde_dpmpp"):
            return float(options.get("eta", options.get("tau", 1))) > 0
        return name in ("ddpm", "churn", "euler_maruyama", "reverse_diffusion", "ancestral", "predictor_corrector")


def _defaults():
    for rule in ("trailing", "leading", "linspace"):
        yield Setting("ddim", rule=rule, options={"eta": 0.0})
    for eta in (0.5, 1.0):
        yield Setting("ddim", options={"eta": eta})
    yield Setting("ddim", "scaled_linear", rule="leading", options={"eta": 0.0})
    yield Setting("ddim", "cosine", options={"eta": 0.0})
    yield Setting("ddim", final="first", options={"eta": 0.0})
    for variance in ("small", "large"):
        yield Setting("ddpm", options={"variance": variance})
    for sampler in ("euler", "heun", "euler_ancestral"):
        yield Setting(sampler, "edm", None, "karras")
    for sampler, order in (("dpmpp", 2), ("dpmpp", 3), ("unipc", 2), ("deis", 2), ("lms", 2)):
        yield Setting(sampler, "edm", None, "karras", options={"order": order})
        if sampler != "lms":
            yield Setting(sampler, options={"order": order})


DEFAULTS = tuple(_defaults())
ELSEWHERE = tuple(itertools.product(schedules.SCHEDULES, ("trailing", "leading", "linspace"), ("zero", "first")))


def settings_of(adapter):
    """The settings that an adapter says are legal; none without a trajectory.

    Of one that does not say, the default ones, and of each sampler that answers none of its defaults the first of
    ELSEWHERE that it answers: one that knows a cosine table alone is judged on that.
    """
    if not callable(getattr(adapter, "trajectory", None)):
        return []
    dtypes_of(adapter)                                           # refused before any work, as the settings are
    own = getattr(adapter, "configurations", None)
    if own is not None:
        return [Setting.of(given) for given in _listed(own)]
    same = {}
    for setting in (s for s in DEFAULTS if s.T):
        same.setdefault((setting.sampler, *sorted(setting.options.items())), []).append(setting)
    found = list(DEFAULTS)
    for mine in same.values():
        if not any(answers(adapter, setting) for setting in mine):
            other = (replace(mine[0], schedule=schedule, rule=rule, final=final) for schedule, rule, final in ELSEWHERE)
            found += itertools.islice((setting for setting in other if answers(adapter, setting)), 1)
    return found


def _listed(own):
    """The list that `configurations` is or returns."""
    try:
        return list(own() if callable(own) else own)
    except (Exception, SystemExit) as error:
        raise ValueError(f"configurations: {last_line(error)}; wanted a list of dicts with {', '.join(ASKED)}") \
            from error


def answers(adapter, setting, steps=2):
    """Whether an adapter answers a setting with numbers."""
    try:
        x = start(setting.grid(steps))
    except ValueError:
        return False                                             # no such grid: nothing to ask for
    network = Network(LINE, setting, getattr(adapter, "prediction", "eps"))
    return ask(adapter, setting, steps, x, network, seeded(x))[1] is not None


class Network:
    """A perfect network of a world: denoiser(x, t) -> the prediction of a kind, remembering every call in `calls`.

    t is the paper's time 1..T (or sigma). A time beyond the table is answered as its nearest entry, and remembered.
    """

    def __init__(self, world, setting, kind="eps"):
        self.world, self.kind, self.calls = world, kind, []
        self.schedule = None if setting.T is None else schedules.SCHEDULES[setting.schedule](setting.T)
        self.between = None if self.schedule is None else Interpolated(self.schedule)

    def level(self, t):
        if self.schedule is None:
            return ve(max(float(t), 1e-12))
        t = min(max(float(t), 1.0), float(self.schedule.T))
        return self.schedule.level(int(t)) if t == int(t) else self.between.level(t)

    def __call__(self, x, t):
        x = np.asarray(x)
        t = float(np.ravel(np.asarray(t, dtype=np.float64))[0])
        self.calls.append((t, np.array(x, dtype=np.float64)))
        level = self.level(t)
        x64 = x.astype(np.float64)
        said = Prediction("x0", self.world.posterior_mean(x64, level), x64, level)
        return np.asarray(getattr(said, self.kind), dtype=x.dtype)


def start(grid, n=5, seed=3):
    """(n, 1) points from the law at the grid's first level."""
    first = grid.level(0)
    return Key(seed).normal((n, 1)) * math.hypot(first.alpha, first.sigma)


class Noise:
    """Draws that are remembered: noise(i) is `make(i)`; `asked` lists every i, in order."""

    def __init__(self, make):
        self.make, self.asked = make, []

    def __call__(self, i):
        self.asked.append(int(i))
        return self.make(int(i))


def seeded(x, seed=1):
    """A Noise of standard normal draws like x."""
    return Noise(lambda i: Key(seed).fold("noise", i).normal(x.shape).astype(x.dtype))


def ask(adapter, setting, steps, x, network, noise):
    """(answer, [states]): what the adapter's trajectory gives, as a list of one or more arrays like x."""
    answer = call(adapter, "trajectory", setting.inputs(steps, x, network, noise))
    if answer.fields is None:
        return answer, None
    value = next((answer.fields[name] for name in ("", "x", "states") if name in answer.fields), None)
    if value is None:
        return answer, None
    return answer, (list(value) if value.ndim == x.ndim + 1 else [value])
