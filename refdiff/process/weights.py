"""Weights of the loss as functions of the level, every one stated as w of the error of the noise:

    L = E w(level) |eps - eps_hat|^2 = E w(level) factor(kind, level) |y - y_hat|^2

where y is what the network predicts and x_t is the same on both sides, so that the errors of all kinds are multiples
of each other (`factor`). A weight therefore is one function, whatever is predicted; papers and codes list the product.
SNR is alpha^2/sigma^2, nothing else. Levels lie on the host: Python numbers or float64 arrays (n,).

    weight             of |eps|^2               of |x_0|^2              of |v|^2 (alpha^2 + sigma^2 = 1)
    simple             1                        SNR                     SNR/(SNR+1)
    min_snr            min(SNR, g)/SNR          min(SNR, g)             min(SNR, g)/(SNR+1)
    soft_min_snr       g/(SNR+g)                SNR g/(SNR+g)           SNR g/((SNR+g) (SNR+1))
    p2                 1/(k+SNR)^g              SNR/(k+SNR)^g           SNR/((SNR+1) (k+SNR)^g)
    edm                1 + 1/(SNR s^2)          SNR + 1/s^2             (SNR + 1/s^2)/(SNR+1)
    sigmoid            e^b/(e^b+SNR)            SNR e^b/(e^b+SNR)       ...
    truncated_snr      max(1, 1/SNR)            max(SNR, 1)             max(SNR, 1)/(SNR+1)
    snr_plus_one       1 + 1/SNR                SNR + 1                 1
    flow               (1 + SNR^-1/2)^2         (SNR^1/2 + 1)^2         ...; 1 of |velocity|^2
"""
import math

import numpy as np
from scipy.special import expit

from .gaussian import VARIANCES, noise_kept
from .level import anywhere, everywhere
from .parameterization import LimitError, amplification


def _positive(name, **values):
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"weight {name}: {key} is {value}, wanted a finite number > 0")


def _inverse_snr(level):
    """sigma^2/alpha^2; inf where alpha = 0, and where it is above 1.8e308."""
    with np.errstate(over="ignore"):
        return level.ratio * level.ratio            # of a Python float ** 2 raises where this is inf


def _plain(value):
    return value if getattr(value, "ndim", 0) else float(value)


def _least(a, b):
    """min(a, b) entry by entry, a Python number for Python numbers."""
    return min(a, b) if isinstance(a, float) else np.minimum(a, b)


# ---- the weights

def simple(level):
    """1. [DDPM eq. 14]"""
    return level.alpha * 0 + 1


def min_snr(level, gamma=5.0):
    """min(SNR, gamma)/SNR. [MINSNR sec. 3.4]

    For v it is min(SNR, gamma)/(SNR + 1); min(SNR + 1, gamma)/(SNR + 1), which some code has, is another weight.
    """
    _positive("min_snr", gamma=gamma)
    with np.errstate(over="ignore"):
        return _least(gamma * _inverse_snr(level), 1.0)


def soft_min_snr(level, gamma=4.0):
    """gamma/(SNR + gamma): min_snr without its corner, and never below half of it. [HDIT]

    With gamma = 1/sigma_data^2 the weight of |x_0|^2 is 1/(sigma^2/alpha^2 + sigma_data^2).
    """
    _positive("soft_min_snr", gamma=gamma)
    return _plain(expit(math.log(gamma) - 2 * level.lam))


def p2(level, k=1.0, gamma=1.0):
    """1/(k + SNR)^gamma; gamma = 0 is `simple`. [P2 sec. 3]"""
    _positive("p2", k=k)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"weight p2: gamma is {gamma}, wanted a finite number >= 0")
    if gamma == 0:
        return simple(level)
    with np.errstate(over="ignore"):
        return _plain(np.exp(-gamma * np.logaddexp(math.log(k), 2 * level.lam)))


def edm(level, sigma_data=0.5):
    """1 + sigma^2/(alpha sigma_data)^2, which is 1 for F. [EDM table 1]"""
    _positive("edm", sigma_data=sigma_data)
    with np.errstate(over="ignore"):
        root = level.ratio / sigma_data
        return 1 + root * root


def sigmoid(level, bias=2.0):
    """S(bias - log SNR) = e^bias/(e^bias + SNR), S(x) = 1/(1 + e^-x). [VDMPP]

    There it multiplies the bound, so the weight at a time t drawn uniformly is `sigmoid` times `likelihood`; alone,
    under the same times, it is soft_min_snr with gamma = e^bias.
    """
    if not math.isfinite(bias):
        raise ValueError(f"weight sigmoid: bias is {bias}, wanted a finite number")
    return _plain(expit(bias - 2 * level.lam))


def truncated_snr(level):
    """max(1, 1/SNR): max(SNR, 1) of |x_0|^2. [PD sec. 4]"""
    return -_least(-_inverse_snr(level), -1.0)


def snr_plus_one(level):
    """1 + 1/SNR: SNR + 1 of |x_0|^2, and 1 of |v|^2 where alpha^2 + sigma^2 = 1. [PD sec. 4]"""
    return 1 + _inverse_snr(level)


def flow(level):
    """(1 + sigma/alpha)^2, which is 1 for the velocity eps - x_0. [FM eq. 23], [SD3 eq. 12]

    With times of density pi it is pi (1 + sigma/alpha)^2 under uniform ones. [SD3 eq. 18]
    """
    with np.errstate(over="ignore"):
        root = 1 + level.ratio
        return root * root


WEIGHTS = {"simple": simple, "min_snr": min_snr, "soft_min_snr": soft_min_snr, "p2": p2, "edm": edm,
           "sigmoid": sigmoid, "truncated_snr": truncated_snr, "snr_plus_one": snr_plus_one, "flow": flow}


# ---- the weights of likelihood

def squared_diffusion(level, dalpha, dsigma):
    """g^2 = d sigma^2/dt - 2 (d log alpha/dt) sigma^2 of the SDE dx = (alpha'/alpha) x dt + g dw. [SDE eq. 5]

    dalpha, dsigma: the derivatives of alpha and sigma in the time that g^2 is per unit of. It follows from
    d Var(x_t | x_0)/dt = 2 (alpha'/alpha) sigma^2 + g^2. Raises LimitError where alpha = 0, where g is infinite.
    """
    if anywhere(level.alpha == 0):
        raise LimitError(f"squared_diffusion at t = {level.t}, where alpha = 0: g is infinite there; end before it")
    return 2 * level.sigma * (dsigma - dalpha / level.alpha * level.sigma)


def likelihood(level, dalpha, dsigma):
    """g^2/(2 sigma^2) = -(1/2) d log SNR/dt, with which the loss bounds -log p in nats. [MLSDE]

    Of the score's error it is g^2/2: eps = -sigma score. Summed over the entries of a row and integrated over t. The
    limit of `vlb` for many steps, in which the schedule matters by its ends alone [VDM eq. 15, 17, 18].
    """
    if anywhere(level.sigma == 0):
        raise LimitError(f"likelihood weight at t = {level.t}, where sigma = 0: it is infinite there; start after it")
    if anywhere(level.alpha == 0):
        raise LimitError(f"likelihood weight at t = {level.t}, where alpha = 0: g is infinite there; end before it")
    return dsigma / level.sigma - dalpha / level.alpha


def vlb(s, t, variance="small"):
    """L_{t-1} of the bound in nats over |eps - eps_hat|^2 summed over entries, p(x_s | x_t) of a fixed variance.

    (c_x0 sigma_t/alpha_t)^2/(2 variance), c_x0 the posterior's, from ratios alone; between neighbours of a schedule
    beta_t^2/(2 variance (1 - beta_t) (1 - abar_t)) [DDPM eq. 12]; with "small" (SNR_s/SNR_t - 1)/2, which of |x_0|^2
    is (SNR_s - SNR_t)/2 [VDM eq. 13, 14].
    Raises LimitError where the variance is 0: s clean and "small", where the decoder takes the term's place.
    """
    if variance not in VARIANCES:
        raise ValueError(f"vlb: variance is {variance!r}, wanted one of {', '.join(VARIANCES)}")
    kept, lost = noise_kept(s, t)                   # q = alpha_ts sigma_s/sigma_t and 1 - q^2
    if anywhere(lost == 0) or variance == "small" and anywhere(kept == 0):
        raise LimitError(f"vlb weight from t = {t.t} to {s.t}: p(x_s | x_t) has no variance there; the term of the "
                         "clean level is the decoder's (process/bound.py)")
    root = s.alpha / t.alpha if variance == "large" else 1 / kept
    return lost * root * root / 2


# ---- from one prediction to the others

def factor(kind, level, sigma_data=0.5):
    """|eps - eps_hat|^2/|y - y_hat|^2 at one x_t, for y of any kind of prediction, EDM's F too.

    x_0's error is -(sigma/alpha) times eps's, and every other kind is a combination of the two: SNR for x_0,
    (alpha/(alpha^2 + sigma^2))^2 for v, sigma^2 for the score, (alpha/(alpha + sigma))^2 for the velocities.
    """
    return amplification(kind, "eps", level, sigma_data) ** 2


def convert(weight, kind, level, sigma_data=0.5):
    """The weight of |y - y_hat|^2 for y of a kind, from that of |eps - eps_hat|^2: weight factor(kind, level).

    Raises LimitError where the product is infinite or undetermined: at sigma = 0, or at alpha = 0 for weights there.
    """
    with np.errstate(invalid="ignore"):
        made = weight * factor(kind, level, sigma_data)
    if not everywhere((made >= 0) & (made < math.inf)):
        raise LimitError(f"convert: the weight of {kind!r} has no finite value at an end of levels t = {level.t}; "
                         "leave out the level with alpha = 0 or sigma = 0")
    return made
