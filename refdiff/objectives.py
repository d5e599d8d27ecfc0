"""Losses beyond the weighted square error of losses.py: any prediction's, flow matching's, and learned variances'.

Each returns its value and, where a gradient is asked for, adds it into grad as losses.py does. |.|^2 is the mean over
the entries of a row. Which weight is which loss:

    score matching          matching_loss("score", ..) with weight sigma^2 (then it is "simple") or g^2 (likelihood)
    the same for a network  denoising_loss with weighting a function: lambda level: weights.likelihood(level, ..)
"""
import math
from typing import NamedTuple

import numpy as np

from . import backend
from .ops import binned_normal, gaussian_kl, mse
from .process.bound import bits, learned_log_variance, log_variances
from .process.gaussian import posterior, posterior_mean, q_sample
from .process.level import alike, anywhere, expand
from .process.parameterization import LimitError, Prediction

# ---- the square error of any prediction


def _rows(what, weight, x):
    """The weight of every row, (n,) in x's dtype, of a number or an array (n,)."""
    if getattr(weight, "shape", ()) not in ((), x.shape[:1]):
        raise ValueError(f"{what}: weight has shape {weight.shape}, wanted a number or ({len(x)},), one per row")
    xp = backend.of(x=x)
    return xp.zeros(len(x), x.dtype) + xp.asarray(weight, dtype=x.dtype)


TARGETS = {"eps": lambda x0, eps, level: eps,
           "x0": lambda x0, eps, level: x0,
           "v": lambda x0, eps, level: expand(level.alpha, x0) * eps - expand(level.sigma, x0) * x0,
           "score": lambda x0, eps, level: -eps / expand(level.sigma, x0),
           "velocity": lambda x0, eps, level: eps - x0,
           "data_velocity": lambda x0, eps, level: x0 - eps}


def matching_loss(kind, value, x0, eps, level, weight):
    """(L, dL/dvalue), L = (1/n) sum_n w_n |value_n - target_n|^2 with the target of a kind. [SDE eq. 7]

    kind: eps, x0, v, score (-eps/sigma), velocity (eps - x_0) or data_velocity (x_0 - eps); weight (n,) or a number, in
    that kind's own space (weights.convert). value, x0, eps [n, ...]; level in numbers or (n,).
    """
    if kind not in TARGETS:
        raise ValueError(f"matching_loss: kind is {kind!r}, wanted one of {', '.join(TARGETS)}")
    alike("matching_loss", x0=x0, value=value, eps=eps)
    if kind == "score" and anywhere(level.sigma == 0):
        raise LimitError(f"matching_loss: the score -eps/sigma is infinite at sigma = 0, t = {level.t}; start after it")
    loss, saved = mse.forward(value, TARGETS[kind](x0, eps, level), _rows("matching_loss", weight, x0))
    return float(loss), mse.backward(saved, 1.0)[0]


# ---- flow matching

def flow_path(data, noise, t, direction="to_data", sigma_min=0.0):
    """(x_t, velocity dx_t/dt) of the straight path between noise and data, t (n,) in [0, 1]. [FM eq. 20, 21, 23]

    "to_data": x_t = t data + (1 - (1 - sigma_min) t) noise, velocity data - (1 - sigma_min) noise: the paper's time,
    with its x_0 the noise and x_1 the datum. "to_noise": the same path read backwards, t for 1 - t, and so with
    sigma_min = 0 x_t = (1 - t) data + t noise, velocity noise - data [SD3 eq. 13].
    """
    if direction not in ("to_data", "to_noise"):
        raise ValueError(f"flow_path: direction is {direction!r}, wanted 'to_data' or 'to_noise'")
    if not 0 <= sigma_min < 1:
        raise ValueError(f"flow_path: sigma_min is {sigma_min}, wanted [0, 1)")
    alike("flow_path", data=data, noise=noise)
    if not (float(t.min()) >= 0 and float(t.max()) <= 1):
        raise ValueError(f"flow_path: t runs from {float(t.min())} to {float(t.max())}, wanted 0..1")
    share = t if direction == "to_data" else 1 - t                              # of the data in x_t
    x_t = expand(share, data) * data + expand(1 - (1 - sigma_min) * share, data) * noise
    velocity = data - (1 - sigma_min) * noise
    return x_t, velocity if direction == "to_data" else -velocity


def flow_matching_loss(network, theta, data, noise, t, labels=None, masks=None, direction="to_data", sigma_min=0.0,
                       time_scale=1000.0, weight=1.0, grad=None, share=1.0):
    """E w |F(x_t, time_scale t) - velocity|^2 of a network predicting the velocity. [FM eq. 9, 23], [RF eq. 1, sec. 2]

    data, noise [n, ...]; t (n,) on the host; weight (n,) or a number, as 1/p(t) for a p of process/times.py.
    time_scale: the networks' time embeddings are made for 0..1000. share, grad as in losses.denoising_loss.
    """
    xp = backend.of(data=data, noise=noise)
    x_t, velocity = flow_path(data, noise, t, direction, sigma_min)
    F, s_net = network.forward(theta, x_t, xp.asarray(time_scale * t, dtype=data.dtype), labels, masks)
    loss, s_loss = mse.forward(F, velocity, _rows("flow_matching_loss", weight, data))
    if grad is not None:
        network.backward(s_net, mse.backward(s_loss, share)[0], grad, keep=False)
    return float(loss)


# ---- learned variances

SCALES = {"sum": lambda T: T, "term": lambda T: 1}
UNITS = {"bits": 1 / math.log(2), "nats": 1.0}


class Hybrid(NamedTuple):
    """The loss and its first part; terms (n,) are the rows' L_{t-1} in bits/dim, which times.SecondMoment asks for."""

    loss: float
    simple: float
    terms: object


def split(out, x):
    """(F, out_var): the halves of a network's channels; refused unless there are twice those of x."""
    if out.shape != x.shape[:-1] + (2 * x.shape[-1],):
        raise ValueError(f"learned variance: the network returns {out.shape} for x {x.shape}, wanted twice the "
                         "channels: one half predicts, the other interpolates the log variance")
    return out[..., :x.shape[-1]], out[..., x.shape[-1]:]


def step_forward(schedule, t, x0, x_t, x0_hat, log_var, first="next", cdf="exact", levels=256):
    """L_{t-1} entry by entry in nats, and what its backward needs: the decoder's term where t = 1, else the KL.

    x0, x_t, x0_hat, log_var [n, ...]; t (n,) integers in 1..T on the host; first is bound.log_variances's.
    """
    s, level = schedule.level(t - 1), schedule.level(t)
    mean, q_mean = (posterior_mean(x, x_t, s, level) for x in (x0_hat, x0))
    small = expand(log_variances(schedule, t, first)[0], x0)
    kl, s_kl = gaussian_kl.forward(mean, log_var, q_mean, 0 * x0 + small)
    nll, s_nll = binned_normal.forward(mean, log_var, x0, cdf=cdf, levels=levels)
    clean = expand(np.asarray(t == 1, np.float64), x0) != 0                     # where the term is the decoder's
    return backend.of(x0=x0).where(clean, nll, kl), (s_kl, s_nll, clean, expand(posterior(s, level).c_x0, x0))


def step_backward(saved, dnats):
    """(dx0_hat, dlog_var); the mean moves by c_x0 dx0_hat."""
    s_kl, s_nll, clean, c_x0 = saved
    kl, nll = gaussian_kl.backward(s_kl, dnats), binned_normal.backward(s_nll, dnats)
    dmean, dlog_var = (backend.of(clean=clean).where(clean, b, a) for a, b in zip(kl, nll))
    return c_x0 * dmean, dlog_var


def hybrid_loss(denoiser, theta, x0, level, eps, labels=None, masks=None, weighting="simple", lam=1e-3, scale="sum",
                units="bits", first="next", cdf="exact", levels=256, stop_gradient=True, importance=1.0, grad=None,
                share=1.0):
    """L_simple + lam L_vlb, the mean a constant of the second term, so that this teaches the variance. [IDDPM eq. 16]

    L_vlb is a sum over T terms, of which a row has one: its estimate is T times that ("sum"). Other choices, by name:

        paper                          lam=.001, scale="sum": T lam = 1 at T = 1000, 4 at T = 4000
        its authors' rescaled loss     the same: L_{t-1} T/1000, in bits
        its authors' unscaled loss     lam=1, scale="term": 1 whatever T is
        other code                     lam=.001, scale="term": 1/1000 whatever T is

    The network has twice the channels of x0 [n, ..., c], which has `levels` grey levels in [-1, 1]; level is one of
    denoiser.schedule's, t (n,) on the host. importance: 1/(T p_t) of every row where t is not uniform.
    stop_gradient=False lets the mean learn from the bound too: with weighting=lambda level: 0 * level.t it is L_vlb.
    """
    schedule, xp = denoiser.schedule, backend.of(x0=x0, eps=eps)
    if schedule is None:
        raise ValueError(f"hybrid_loss: process {denoiser.config.process!r} has no discrete steps, over which the "
                         "bound is; use a schedule")
    for name, value, known in (("scale", scale, SCALES), ("units", units, UNITS)):
        if value not in known:
            raise ValueError(f"hybrid_loss: {name} is {value!r}, wanted one of {', '.join(known)}")
    if not float(abs(x0).max()) <= 1:
        raise ValueError("hybrid_loss: x0 leaves [-1, 1], where the decoder's bins are")
    importance = _rows("hybrid_loss", importance, np.zeros(len(x0)))
    x_t = q_sample(x0, eps, level)
    out, s_net = denoiser.evaluate(theta, x_t, level, labels, masks)
    F, out_var = split(out, x0)
    w_simple = xp.asarray(importance * denoiser.weight(weighting, level), dtype=x0.dtype)
    simple, s_mse = mse.forward(F, denoiser.target(x0, eps, level), w_simple)

    c_skip, c_out, _, _ = (expand(c, x0) for c in denoiser.precondition(level))
    small, large = log_variances(schedule, level.t, first)
    nats, s_step = step_forward(schedule, level.t, x0, x_t, c_skip * x_t + c_out * F,
                                learned_log_variance(out_var, small, large), first, cdf, levels)
    w_vlb = expand(importance * (lam * SCALES[scale](schedule.T) * UNITS[units] / nats.size), x0)
    if grad is not None:
        dx0_hat, dlog_var = step_backward(s_step, share * w_vlb)
        dF, _ = mse.backward(s_mse, share)
        if not stop_gradient:
            dF = dF + c_out * dx0_hat
        dout_var = expand((large - small) / 2, x0) * dlog_var
        denoiser.network.backward(s_net, xp.concatenate([dF, dout_var], axis=-1), grad, keep=False)
    return Hybrid(float(simple + (w_vlb * nats).sum()), float(simple), bits(nats))


def bind_learned(denoiser, theta, labels=None, first="next"):
    """(denoise, log_variance): what `bound.variational_bound` takes, of a network that hybrid_loss trains.

    denoise(x, level) -> Prediction; log_variance(x, level) -> [n, ...], for levels of denoiser.schedule, t a number.
    """
    def halves(x, level):
        out, _ = denoiser.evaluate(theta, x.astype(theta.flat.dtype, copy=False), level, labels, keep=False)
        return split(out.astype(x.dtype, copy=False), x)

    def denoise(x, level):
        c_skip, c_out, _, _ = (expand(c, x) for c in denoiser.precondition(level))
        return Prediction("x0", c_skip * x + c_out * halves(x, level)[0], x, level)

    def log_variance(x, level):
        bounds = log_variances(denoiser.schedule, np.full(len(x), level.t), first)
        return learned_log_variance(halves(x, level)[1], *bounds)

    return denoise, log_variance
