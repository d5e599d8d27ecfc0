"""The two terms of the variational bound that have a gradient, entry by entry and in nats: the divergence of
two normals, and the negative log-probability of a pixel's bin under a normal. Both are asked for log variances.
"""
import math

from .. import backend
from .op import Op, wanted


def _check(op, **arrays):
    xp = backend.of(**arrays)
    shapes = [a.shape for a in arrays.values()]
    if len(set(shapes)) != 1:
        raise wanted(op, "the shape of " + ", ".join(arrays), shapes, "one shape for all")
    dtypes = [str(a.real.dtype) for a in arrays.values()]                # of complex numbers, their parts
    if len(set(dtypes)) != 1:
        raise wanted(op, "the dtype of " + ", ".join(arrays), dtypes, "one dtype for all")
    return xp


# ---- KL(N(q_mean, e^q_log_var) || N(mean, e^log_var))

def gaussian_kl_forward(mean, log_var, q_mean, q_log_var):
    """y = (expm1(d) - d + (q_mean - mean)^2 e^-log_var)/2, d = q_log_var - log_var.

    q, the target, is a constant. For d near 0 the two terms cancel to d^2/2: the error is that of d, not of its square.
    """
    xp = _check("gaussian_kl", mean=mean, log_var=log_var, q_mean=q_mean, q_log_var=q_log_var)
    d, r, precision = q_log_var - log_var, mean - q_mean, xp.exp(-log_var)
    grown, pull = xp.expm1(d), r * precision
    return 0.5 * (grown - d + r * pull), (pull, -0.5 * (grown + r * pull))


def gaussian_kl_backward(saved, dy):
    """dmean = (mean - q_mean) e^-log_var dy;  dlog_var = (1 - e^d - (mean - q_mean)^2 e^-log_var)/2 dy."""
    pull, slope = saved
    return pull * dy, slope * dy


def gaussian_kl_jvp(saved, meandot, log_vardot):
    """ydot = pull meandot + slope log_vardot."""
    pull, slope = saved
    return pull * meandot + slope * log_vardot


gaussian_kl = Op("gaussian_kl", gaussian_kl_forward, gaussian_kl_backward, gaussian_kl_jvp,
                 "mean[n,h,c] log_var[n,h,c] q_mean:constant[n,h,c] q_log_var:constant[n,h,c] -> y[n,h,c]")


# ---- the bin of x under N(mean, e^log_var): y = -log(F(b) - F(a)), a, b = (x -+ 1/(levels - 1) - mean)/std

def _exact_log_cdf(z):
    return backend.special(z=z).log_ndtr(z)


def _exact_hazard(z):
    """Phi'/Phi = sqrt(2/pi)/erfcx(-z/sqrt 2): no exponential of a difference of large numbers, however small Phi."""
    return math.sqrt(2 / math.pi) / backend.special(z=z).erfcx(-math.sqrt(0.5) * z)


def _tanh_argument(z):
    return math.sqrt(8 / math.pi) * (z + 0.044715 * z * z * z)


def _tanh_log_cdf(z):
    xp, u = backend.of(z=z), _tanh_argument(z)
    below = u.real < 0                                                  # log sigma(u) = min(u, 0) - log1p(e^-|u|)
    return below * u - xp.log1p(xp.exp(xp.where(below, u, -u)))


def _tanh_hazard(z):
    """F'/F = u' sigma(-u)."""
    return math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * z * z) * 0.5 * (1 - backend.of(z=z).tanh(_tanh_argument(z) / 2))


CDFS = {"exact": (_exact_log_cdf, _exact_hazard), "tanh": (_tanh_log_cdf, _tanh_hazard)}


def binned_normal_forward(mean, log_var, x, cdf="exact", levels=256):
    """y = -log P(bin of x), x of `levels` grey levels in [-1, 1]; the bins of -1 and of 1 are open outwards.

    cdf "exact": the normal distribution function; "tanh": (1 + tanh(sqrt(2/pi) (z + .044715 z^3)))/2, within
    1.8e-4 of it, which the papers' own code uses (there P below 1e-12 counts as 1e-12; here nothing is clamped).
    Both are odd about 1/2, so each bin is reflected below the mean, where F(b) - F(a) = F(b) (1 - F(a)/F(b)) keeps
    its digits in the tail. Error: u/width of the bin in standard deviations.
    """
    xp = _check("binned_normal", mean=mean, log_var=log_var, x=x)
    if cdf not in CDFS:
        raise wanted("binned_normal", "cdf", repr(cdf), "one of " + ", ".join(CDFS))
    if levels < 2:
        raise wanted("binned_normal", "levels", levels, "an integer >= 2")
    log_cdf, _ = CDFS[cdf]
    precision, d = xp.exp(-0.5 * log_var), x - mean
    flip = d.real > 0
    d, pixel = xp.where(flip, -d, d), xp.where(flip, -x, x)
    half = 1 / (levels - 1)
    b, a = (d + half) * precision, (d - half) * precision
    has_b, has_a = pixel < 1 - half, pixel > half - 1                           # an open bin lacks that end
    log_b = xp.where(has_b, log_cdf(b), 0)
    left = xp.where(has_a, xp.exp(log_cdf(a) - log_b), 0)                       # F(a)/F(b)
    return -(log_b + xp.log1p(-left)), (b, a, has_b, left, flip, precision, cdf)


def _binned_normal_slopes(saved):
    """dy/dmean = +-(f_b - f_a)/(P std), dy/dlog_var = (f_b b - f_a a)/(2 P); f_a/P = hazard(a) left/(1 - left)."""
    b, a, has_b, left, flip, precision, cdf = saved
    hazard = CDFS[cdf][1]
    at_b, at_a = has_b * hazard(b) / (1 - left), hazard(a) * left / (1 - left)
    mean = (at_b - at_a) * precision
    return backend.of(b=b).where(flip, -mean, mean), 0.5 * (at_b * b - at_a * a)


def binned_normal_backward(saved, dy):
    """dmean, dlog_var = slopes times dy."""
    mean, log_var = _binned_normal_slopes(saved)
    return mean * dy, log_var * dy


def binned_normal_jvp(saved, meandot, log_vardot):
    """ydot = dy/dmean meandot + dy/dlog_var log_vardot."""
    mean, log_var = _binned_normal_slopes(saved)
    return mean * meandot + log_var * log_vardot


binned_normal = Op("binned_normal", binned_normal_forward, binned_normal_backward, binned_normal_jvp,
                   "mean[n,h,c] log_var[n,h,c] x:constant[n,h,c] -> y[n,h,c]",
                   options={"cdf": ("exact", "tanh"), "levels": (256, 17)})
