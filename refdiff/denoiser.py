"""Network + parameterisation -> denoiser: where networks and the process meet.

    D(x; level) = c_skip x + c_out F(c_in x, c_noise)

A network trained on one family (alpha, sigma) is a denoiser for every other: x/alpha has the noise
level sigma/alpha, and that is all that matters. "F" is EDM's and "velocity" the straight path's, both
told sigma/alpha; "eps", "x0" and "v" networks look at the variance-preserving x/sqrt(alpha^2 + sigma^2)
and at the schedule's time of that signal-to-noise ratio, which at the schedule's own levels is t itself.
"""
from dataclasses import dataclass

import numpy as np

from . import backend
from .config import check, from_dict, setting
from .models import NETWORKS
from .models.recorded import recorded
from .parallel import by_rows, slices
from .process.level import Level, expand, ve
from .process.parameterization import LABELS, PRECONDITIONINGS, Prediction
from .process.schedules import SCHEDULES
from .process.times import Uniform
from .process.weights import WEIGHTS
from .tangent import jvp

# What F should be is a x_0 + b eps: (a, b) at a variance-preserving level. EDM's "F" is in Denoiser.target.
TARGETS = {"eps": lambda level: (0 * level.alpha, 0 * level.alpha + 1),
           "x0": lambda level: (0 * level.alpha + 1, 0 * level.alpha),
           "v": lambda level: (-level.sigma, level.alpha),
           "velocity": lambda level: (0 * level.alpha - 1, 0 * level.alpha + 1)}

OF_ANY_LEVEL = ("F", "velocity")                # predictions that are told sigma/alpha, not the t of a schedule
CONTINUOUS = ("edm", "flow")                    # processes without a discrete schedule

WEIGHTINGS = tuple(WEIGHTS)


@dataclass(frozen=True)
class DenoiserConfig:
    """What the network predicts and at which noise levels it is trained."""

    prediction: str = setting("F", "what the network predicts; F is EDM's, velocity is eps - x_0",
                              choices=tuple(PRECONDITIONINGS))
    process: str = setting("edm", (
        "edm: ln sigma ~ N(P_mean, P_std^2), with which flow's t is logit-normal; flow: x_t = (1 - t) x_0 + t eps, "
        "t uniform in (0, 1); else t uniform in 1..T of this schedule"), choices=(*CONTINUOUS, *SCHEDULES))
    T: int = setting(1000, "noise levels of a discrete schedule", "[1, inf)")
    time_label: str = setting("t", "what eps, x0 and v networks are told: t = 1..T, or t-1 as other libraries count",
                              choices=tuple(LABELS))
    sigma_data: float = setting(0.5, "standard deviation of the data", "(0, inf)")
    P_mean: float = setting(-1.2, "mean of ln sigma in training", "(-inf, inf)")
    P_std: float = setting(1.2, "standard deviation of ln sigma in training", "(0, inf)")
    sigma_min: float = setting(0.002, "edm and flow: least noise that sampling visits", "(0, inf)")
    sigma_max: float = setting(80.0, "edm and flow: most noise, where sampling starts", "(0, inf)")
    rho: float = setting(7.0, "edm and flow: levels are spaced evenly in sigma^(1/rho)", "(0, inf)")

    def __post_init__(self):
        check(self)
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"DenoiserConfig: sigma_min is {self.sigma_min}, wanted < sigma_max = {self.sigma_max}")
        if self.process in CONTINUOUS and self.prediction not in OF_ANY_LEVEL:
            raise ValueError(f"prediction {self.prediction!r} is told the time t of a discrete schedule, and process "
                             f"{self.process!r} has none; use process {' or '.join(SCHEDULES)}, or prediction 'F' "
                             "or 'velocity'")
        if self.time_label != "t" and self.prediction in OF_ANY_LEVEL:
            raise ValueError(f"DenoiserConfig: time_label is {self.time_label!r}, but prediction {self.prediction!r} "
                             "is told sigma/alpha and no t; leave time_label away")


class Denoiser:
    """A network under a DenoiserConfig. Like the network it holds no values: theta is an argument."""

    def __init__(self, network, config):
        self.network, self.config = recorded(network), config
        self.schedule = None if config.process in CONTINUOUS else SCHEDULES[config.process](config.T)

    def draw_levels(self, key, n):
        """n noise levels to train at: ln sigma normal [EDM table 1], t uniform in (0, 1) or in 1..T [DDPM alg. 1]."""
        if self.config.process == "flow":
            t = Uniform().draw(key, n)
            return Level(t, 1 - t, t)
        if self.schedule is None:
            config = self.config
            return ve(np.exp(config.P_mean + config.P_std * backend.to_host(key.normal(n))))
        return self.schedule.level(backend.to_host(key.integers(1, self.schedule.T + 1, n)))

    def own_level(self, level):
        """(level', factor): the level the network knows, and x' = factor x, the same point on that level.

        Raises ValueError where the network was not trained: outside the schedule's noise levels.
        """
        if self.config.prediction in OF_ANY_LEVEL:
            return level, 1.0
        norm = np.hypot(level.alpha, level.sigma)
        lam, table = level.lam, -self.schedule.log_snr[1:] / 2              # -lambda_t, increasing in t
        if np.min(-lam) < table[0] - 1e-9 or np.max(-lam) > table[-1] + 1e-9:
            raise ValueError(f"the network was trained on sigma/alpha from {np.exp(table[0]):.6g} to "
                             f"{np.exp(table[-1]):.6g} and is asked from {np.exp(np.min(-lam)):.6g} to "
                             f"{np.exp(np.max(-lam)):.6g}; sample on levels within that range")
        t = np.interp(-lam, table, np.arange(1.0, self.schedule.T + 1))
        return Level(t, level.alpha / norm, level.sigma / norm), 1 / norm

    def sigma_range(self):
        """(least, most) sigma/alpha to sample and distil between: the config's, cut to what `own_level` accepts."""
        least, most = self.config.sigma_min, self.config.sigma_max
        if self.config.prediction in OF_ANY_LEVEL:
            return least, most
        return max(least, self.schedule.level(1).ratio), min(most, self.schedule.level(self.schedule.T).ratio)

    def precondition(self, level):
        """(c_skip, c_out, c_in, c_noise) at a level [EDM eq. 7]."""
        own, factor = self.own_level(level)
        options = {"F": {"sigma_data": self.config.sigma_data}, "velocity": {}}.get(
            self.config.prediction, {"label": self.config.time_label})
        c_skip, c_out, c_in, c_noise = PRECONDITIONINGS[self.config.prediction](own, **options)
        return c_skip * factor, c_out, c_in * factor, c_noise

    def target(self, x0, eps, level):
        """What F should be: (x_0 - c_skip x_t)/c_out, written without its cancellation [EDM eq. 8].

        eps: eps;  x0: x_0;  v: alpha eps - sigma x_0;
        F: (sigma x_0/sigma_data - alpha sigma_data eps)/sqrt(sigma^2 + alpha^2 sigma_data^2).
        """
        if self.config.prediction == "F":
            s = self.config.sigma_data
            norm = np.sqrt(level.sigma ** 2 + level.alpha ** 2 * s ** 2)
            a, b = level.sigma / (s * norm), -level.alpha * s / norm
        else:
            a, b = TARGETS[self.config.prediction](self.own_level(level)[0])
        return expand(a, x0) * x0 + expand(b, x0) * eps

    def weight(self, weighting, level):
        """The weight of |F - target|^2, in float64: that of |D - x_0|^2 times c_out^2.

        "simple": |eps_hat - eps|^2, whatever F predicts; SNR |D - x_0|^2 [DDPM eq. 14].
        "edm": (s^2 + sigma_data^2)/(s sigma_data)^2 |D - x_0|^2, s = sigma/alpha; 1 for F [EDM table 1, sec. 5].
        Any other name of process/weights.py, at its default settings, or a function of the level: the weight of
        |eps_hat - eps|^2.
        """
        c_out = self.precondition(level)[1]
        if callable(weighting) or weighting in WEIGHTINGS and weighting != "edm":
            return (weighting if callable(weighting) else WEIGHTS[weighting])(level) * level.snr * c_out ** 2
        if weighting == "edm":
            return (level.ratio ** -2 + self.config.sigma_data ** -2) * c_out ** 2
        raise ValueError(f"weighting is {weighting!r}, wanted one of {', '.join(WEIGHTINGS)}")

    def evaluate(self, theta, x, level, labels=None, masks=None, keep=True):
        """F(c_in x, c_noise) and what the backward needs; level a number for all rows or an array per row.

        keep False: no backward follows, and the network need not save anything for it.
        """
        _, _, c_in, c_noise = self.precondition(level)
        xp = backend.of(theta=theta.flat, x=x)
        c_noise = xp.zeros(len(x), x.dtype) + xp.asarray(c_noise, dtype=x.dtype)
        return self.network.forward(theta, expand(c_in, x) * x, c_noise, labels, masks, keep)

    def forward(self, theta, x, level, labels=None, masks=None, keep=True):
        """D = c_skip x + c_out F, the denoised x [EDM eq. 7]. keep: as of `evaluate`."""
        F, s_net = self.evaluate(theta, x, level, labels, masks, keep)
        c_skip, c_out, c_in, _ = (expand(c, x) for c in self.precondition(level))
        return c_skip * x + c_out * F, (s_net, c_skip, c_out, c_in)

    def backward(self, saved, dD, grad, keep=True):
        """Adds d<D, dD>/dtheta into grad; returns dx = c_skip dD + c_in dF_x, dF = c_out dD. keep: the network's."""
        s_net, c_skip, c_out, c_in = saved
        return c_skip * dD + c_in * self.network.backward(s_net, c_out * dD, grad, keep)

    def bind(self, theta, labels=None, workers=None, rows=None):
        """The denoiser of samplers, (x, level) -> Prediction: theta and labels (n,) fixed, some rows at a time.

        The network runs in theta's dtype; the prediction comes back in x's, so that a sampler's state stays float64.
        rows: at most so many at a time; None: 64, or more where they are small. Theta must not change while bound:
        other processes may hold a copy.
        """
        def part(x, row, *level):
            return self.evaluate(theta, x, Level(*level).rows(row), None if labels is None else labels[row],
                                 keep=False)[0]

        evaluate = by_rows(part, workers, rows)

        def denoise(x, level):
            c_skip, c_out, _, _ = (expand(c, x) for c in self.precondition(level))
            F = evaluate(x.astype(theta.flat.dtype, copy=False), level.t, level.alpha, level.sigma)
            return Prediction("x0", c_skip * x + c_out * F.astype(x.dtype, copy=False), x, level)

        return denoise

    def linearise(self, theta, labels=None, by="jvp", workers=None, rows=64):
        """The denoiser of likelihoods, (x, level) -> (D, product): bound as by `bind`, with its derivative in x.

        product(v) = (dD/dx) v = c_skip v + c_out J (c_in v) for v[n, ...], by the network's jvp; or by its backward
        ("vjp") the transpose, product(u) = c_skip u + c_in J' (c_out u). One forward serves any number of products.
        """
        if by not in ("jvp", "vjp"):
            raise ValueError(f"linearise: by is {by!r}, wanted 'jvp' or 'vjp'")
        run = workers.map if workers else map
        threads = workers.threads if workers else 1

        def backward(network, saved, dF):
            return network.backward(saved, dF, theta.zeros_like())

        def at(x, level):
            c_skip, c_out, c_in, _ = (expand(c, x) for c in self.precondition(level))
            xp, dtype = backend.of(x=x), theta.flat.dtype
            parts = slices(len(x), max(threads, -(-len(x) // rows)))
            small = x.astype(dtype, copy=False)
            ran = list(run(lambda row: self.evaluate(theta, small[row], level.rows(row),
                                                     None if labels is None else labels[row]), parts))
            before, after, derivative = (c_in, c_out, jvp) if by == "jvp" else (c_out, c_in, backward)

            def joined(arrays):
                return xp.concatenate(list(arrays)).astype(x.dtype, copy=False)

            def product(v):
                moved = (before * v).astype(dtype, copy=False)
                return c_skip * v + after * joined(run(lambda i: derivative(self.network, ran[i][1], moved[parts[i]]),
                                                       range(len(parts))))

            return c_skip * x + c_out * joined(F for F, _ in ran), product

        return at


def restore(config):
    """The Denoiser that a checkpoint's configuration describes."""
    network = dict(config["network"])
    name = network.pop("name", None)
    if name not in NETWORKS:
        raise ValueError(f"network: name is {name!r}, wanted one of {', '.join(NETWORKS)}; was it written by another "
                         "refdiff?")
    make, kind = NETWORKS[name]
    return Denoiser(make(from_dict(kind, network)), from_dict(DenoiserConfig, config["denoiser"]))
