"""Samplers with one published deviation or another, on purpose: to match an implementation and to see the cost.

    ddim(denoiser, grid, x, compat=("stride_stepping",))

Every sampler of this room takes compat=NAMES; the names are those of DEVIATIONS and each belongs to some samplers. In
whatever order they are given, the grid is changed first, then the denoiser and the noise, then the rule; compat=() is
the sampler itself, to the bit. Where the deviation is of what a network is told, what it says keeps its kind: give a
denoiser that says eps (or v, F), as the network does. Who ships what, and what it costs, is in golden/reports, by the
numbers below.

What each changes in 20 steps (61 for trailing_overshoot, 30 for integer_stride, 10 for order_*, one for one_step_clean)
of one of its samplers: the root mean square of the result's change over nine points on the mixture 0.3 N(-1, 0.4^2) +
0.7 N(0.8, 0.5^2), with a perfect network. tests/samplers/test_compat_samplers.py measures it and has the grids:

    final_abar_0         ddim       0.0038
    integer_stride       ddim       0.00058
    leading_of_more      dpmpp      0.17
    linspace_of_more     dpmpp      0.18
    linspace_unrounded   euler      0.00013
    one_step_clean       ddim       1.2
    shifted_twice        ddim       0.0012
    float32_table        ddim       4.4e-07
    stride_stepping      ddim       0.025
    trailing_overshoot   ddim       180
    last_level_twice     euler      0
    improved_euler_start plms       1.3e-05
    times_floored        dpmpp      0.0018
    times_rounded        dpmpp      0.00013
    clipped              ddim       0.41
    clipped_eps_kept     ddim       0.41
    last_step_noise      ddpm       0.16
    draws_every_step     ddim       0
    renoised             ddim       1.3
    float32_state        ddim       1.6e-07
    start_sigma_max      euler      1.6e-05
    start_root           euler      0.004
    halved_difference    dpmpp      0.0064
    order_kept           dpmpp      0.013
    order_lowered        deis       0.1
    third_order          sde_dpmpp  0.42
    third_order_sign     sde_dpmpp  0.37
    churn_euler          churn      0.2
    churn_stale          churn      0.15
    churn_on_flow        churn      0.69

Two change no number here: an evaluation more, and a draw more, which matters where draws are counted.
"""
import functools
import inspect
import math
from dataclasses import dataclass

from ..guidance.threshold import static
from . import compat_grids as grids
from . import compat_rules as rules
from . import compat_steps as steps


@dataclass(frozen=True)
class Deviation:
    """What a deviation is, who ships it (a number: diffusers' finding; k: k-diffusion's; else its conventions), and

    {sampler: a map from that sampler to the deviating one}. Of two with the same `instead`, which take a rule's place,
    only one can be had.
    """

    says: str
    source: str
    by: dict
    instead: str = ""


SIGMAS = ("euler", "heun", "lms", "dpm", "euler_ancestral")
MULTISTEP = ("dpm", "dpmpp", "sde_dpmpp", "unipc", "deis")
DISCRETE = ("ddpm", "ddim", "plms", "churn", "ancestral", "reverse_diffusion", *SIGMAS, *MULTISTEP[1:])
ALL = (*DISCRETE, "adaptive", "euler_maruyama", "predictor_corrector")


def _of(samplers, change):
    return {name: change for name in samplers}


def _grid(samplers, change):
    return _of(samplers, steps.of_grid(change))


DEVIATIONS = {
    "float32_state": Deviation("x is float32", "15", _of((*ALL, "consistency"), steps.float32_state)),
    # ---- the levels that are visited
    "integer_stride": Deviation("leading times k (T // S), with one integer stride", "conventions",
                                _grid(DISCRETE, grids.integer_stride)),
    "leading_of_more": Deviation("the S noisy ones of S + 1 leading times", "conventions",
                                 _grid(MULTISTEP, grids.leading_of_more)),
    "linspace_of_more": Deviation("the S noisy ones of S + 1 linspace times", "conventions",
                                  _grid(MULTISTEP, grids.linspace_of_more)),
    "linspace_unrounded": Deviation("linspace times that are not rounded, sigma/alpha linear between entries; one "
                                    "step starts at the clean end", "conventions, 13",
                                    _grid(SIGMAS, grids.linspace_unrounded)),
    "one_step_clean": Deviation("a single step starts at t = 1, the clean end of linspace", "13",
                                _grid(DISCRETE, grids.one_step_clean)),
    "shifted_twice": Deviation("flow's times, shifted already at their end, are shifted again", "10",
                               _grid(("euler", "heun", "ddim"), grids.shifted_twice)),
    "final_abar_0": Deviation("ends on the table's first entry, t = 1, in place of alpha = 1", "conventions",
                              {"ddim": steps.final_abar_0, **_grid(("plms", "euler", "heun", "lms", *MULTISTEP),
                                                                   grids.final_abar_0)}),
    "float32_table": Deviation("the table of noise, or the levels of sigma, in float32", "15, k5",
                               _grid(ALL, grids.float32_table)),
    # ---- what the network is told and how often, and what is made of it
    "times_floored": Deviation("the network is told floor(t) for the time of a level", "16",
                               _of(DISCRETE, steps.told("times_floored", math.floor)), "told"),
    "times_rounded": Deviation("the network is told the nearest integer to the time of a level", "16",
                               _of(DISCRETE, steps.told("times_rounded", round)), "told"),
    "clipped": Deviation("x0hat is clipped to -1..1 and eps derived anew", "clip_sample of DDPM",
                         _of(("ddpm", "ddim"), steps.of_denoiser(lambda denoiser, grid: static(denoiser))), "clip"),
    "clipped_eps_kept": Deviation("x0hat is clipped to -1..1 and eps kept", "clip_sample of DDIM", _of(
        ("ddim",), steps.of_denoiser(lambda denoiser, grid: static(denoiser, eps="kept"))), "clip"),
    "last_level_twice": Deviation("one evaluation more, for a last step of length 0", "8",
                                  _of(("euler", "heun", "ddim", "lms", "dpmpp", "unipc", "deis"),
                                      steps.last_level_twice)),
    # ---- noise
    "last_step_noise": Deviation("noise is added to the result, as in every other step", "7",
                                 {"ddpm": steps.last_step_noise}),
    "draws_every_step": Deviation("a draw is made for the last step too, and not used; it matters where draws are "
                                  "counted", "conventions, k conventions",
                                  {"ddim": steps.draws_every_step("eta", 0.0),
                                   "euler_ancestral": steps.draws_every_step("eta", 1.0),
                                   "sde_dpmpp": steps.draws_every_step("tau", 1.0),
                                   "churn": rules.option(draws="every")}),
    "renoised": Deviation("x0hat is noised anew in every step, eps not used", "conventions", {"ddim": steps.renoised}),
    "start_sigma_max": Deviation("starts from sigma z, without the signal's share, where it is z", "conventions",
                                 _of(SIGMAS, steps.start("start_sigma_max", True))),
    "start_root": Deviation("starts from sqrt(sigma^2 + 1) z for sigma z", "conventions",
                            _of((*SIGMAS, "dpmpp", "sde_dpmpp", "churn"), steps.start("start_root", False))),
    # ---- rules
    "halved_difference": Deviation("half of the second difference that order 3 needs", "18, k3",
                                   {"dpmpp": rules.option(rule="truncated")}),
    "order_kept": Deviation("no lower orders before the last step, however few steps there are", "k conventions",
                            {"dpmpp": rules.option(lower_order_final="never")}),
    "order_lowered": Deviation("the last steps are of lower order, below 15 steps", "conventions",
                               {"deis": rules.order_lowered}),
    "third_order": Deviation("SDE-DPM-Solver++ (3M), its second difference halved", "k3",
                             {"sde_dpmpp": rules.third_order(0.0)}, "order"),
    "third_order_sign": Deviation("the same with -1/2 for 1/2 in the second difference's weight", "4",
                                  {"sde_dpmpp": rules.third_order(-1.0)}, "order"),
    "churn_euler": Deviation("churn, then Euler's step", "k conventions", {"churn": rules.churn_euler}, "churn"),
    "churn_stale": Deviation("churn, then Euler's step with the network asked before the noise", "19",
                             {"churn": rules.churn_stale}, "churn"),
    "churn_on_flow": Deviation("churn of (1 - sigma) x0 + sigma eps as if it were x0 + sigma eps", "11",
                               {"churn": rules.churn_on_flow}, "churn"),
    "stride_stepping": Deviation("x goes to t - T // S while the network is told the next time (plms: with "
                                 "improved_euler_start)", "2", {"ddim": steps.by_pairs(steps.STRIDED),
                                                                "plms": steps.pndm(steps.STRIDED)}, "steps"),
    "trailing_overshoot": Deviation("one trailing time too many where arange(T, 0, -T/S) overshoots, told t = 0 (ddim, "
                                    "plms: at the noisiest level, with stride_stepping)", "1",
                                    {"ddim": steps.by_pairs(steps.OVERSHOT), "plms": steps.pndm(steps.OVERSHOT),
                                     **_grid(("euler", "heun", "lms", "dpmpp", "unipc"), grids.extra_time)}, "steps"),
    "improved_euler_start": Deviation("PLMS begins with improved Euler: the second time is told twice", "conventions",
                                      {"plms": steps.pndm(steps.OWN)}, "steps"),
}


def names(sampler):
    """The deviations that a sampler, by name, can be given."""
    return tuple(name for name, one in DEVIATIONS.items() if sampler in one.by)


def deviating(sampler):
    """A sampler with one argument more, compat=NAMES. ValueError for a name that it has not, listing its own."""
    own = inspect.signature(sampler)
    known = names(sampler.__name__)

    @functools.wraps(sampler)
    def with_compat(*args, compat=(), **options):
        if isinstance(compat, str) or not isinstance(compat, (tuple, list)):
            raise ValueError(f"{sampler.__name__}: compat is {compat!r}, wanted a tuple of names, some of "
                             f"{', '.join(known)}")
        for name in compat:
            if name not in known:
                raise ValueError(f"{sampler.__name__}: compat: no deviation {name!r} of it, wanted some of "
                                 f"{', '.join(known)}")
        kinds = [DEVIATIONS[name].instead or name for name in compat]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"{sampler.__name__}: compat is {', '.join(compat)}, of which one would take another's "
                             "place; wanted each once, and one of a kind")
        if not compat:
            return sampler(*args, **options)
        bound = own.bind(*args, **options).arguments
        changed = sampler
        for name in sorted(compat, key=list(DEVIATIONS).index, reverse=True):      # the last one is innermost
            changed = DEVIATIONS[name].by[sampler.__name__](changed)
        asked = [bound.pop(name) for name in list(own.parameters)[:3]]
        return changed(*asked, **bound)

    with_compat.__signature__ = own.replace(parameters=[
        *own.parameters.values(), inspect.Parameter("compat", inspect.Parameter.KEYWORD_ONLY, default=())])
    return with_compat
