"""Guidance by two denoisers: what the better one says, and more of its difference to the worse one.

    D = D_good + w (D_good - D_bad)

in x_0, eps, v, score or velocity alike: all are affine in one another at a level, and the weights 1 + w and -w add up
to 1. With a conditional and an unconditional denoiser this is classifier-free guidance; with a negative prompt for the
unconditional one, negative guidance; with a good and a poorly trained network, autoguidance.

Two conventions are in use for one thing. Each has a name, and exactly one must be given:

    scale = s:   u + s (c - u)          s = 1 is no guidance
    w:           (1 + w) c - w u        w = 0 is no guidance;  s = 1 + w
"""
from .. import backend
from ..process.level import Level, anywhere, expand
from ..process.parameterization import KINDS, Prediction
from ..samplers.state import number, one_of


def extra_weight(name, scale, w):
    """w of the convention that was given: w itself, or scale - 1. Raises ValueError for both or neither."""
    if (scale is None) == (w is None):
        raise ValueError(f"{name}: scale is {scale} and w is {w}, wanted exactly one of "
                         "scale=s for u + s (c - u), or w=w for (1 + w) c - w u")
    return number(f"{name}: w", w) if scale is None else number(f"{name}: scale", scale) - 1.0


def common(one, other):
    """(kind, sigma_data, value, value) of two predictions: their kind if it is the same one, else x_0."""
    if (one.kind, one.sigma_data) == (other.kind, other.sigma_data):
        return one.kind, one.sigma_data, one.value, other.value
    return "x0", None, one.x0, other.x0


def beyond(good, bad, w, x, level):
    """good + w (good - bad), two predictions of x at a level; w a number or (n,). In their kind, or in x0 if two."""
    w = expand(w, x)
    kind, sigma_data, a, b = common(good, bad)
    if good.x is not x or bad.x is not x:             # an eps kept by thresholding: a pair of another point
        x = good.x + w * (good.x - bad.x)
    return Prediction(kind, a + w * (a - b), x, level, sigma_data)


def cfg(conditional, unconditional, *, scale=None, w=None, rescale=0.0, kind="v"):
    """(1 + w) c - w u, or u + scale (c - u): classifier-free guidance of two denoisers. [CFG eq. 6, alg. 2]

    For a negative condition, `unconditional` is the denoiser of the negative prompt. Without guidance (w = 0,
    scale = 1) only the conditional is evaluated. rescale = phi in 0..1 brings the standard deviation of each row of the
    guided prediction g, over all its entries, back to the conditional's: [ZTSNR sec. 3.4]

        phi std(c)/std(g) g + (1 - phi) g

    which is not linear, so the kind of prediction that is scaled matters: `kind`, "v" as in that paper.
    Raises ValueError unless exactly one finite scale or w is given, phi is in 0..1, and a rescaled row is not constant.
    """
    return _guided("cfg", lambda x, level: (conditional(x, level), unconditional(x, level)), conditional,
                   extra_weight("cfg", scale, w), rescale, kind)


def cfg_labels(labelled, labels, null, *, scale=None, w=None, rescale=0.0, kind="v"):
    """`cfg` of one network with labels, both halves in one evaluation: labelled(x, level, labels) -> Prediction.

    labels and null: (n,) integers, the condition and what it is guided away from (the null label, or a negative one).
    labelled sees 2n rows: x twice, with labels first and null below.
    """
    if labels.shape != null.shape or labels.ndim != 1:
        raise ValueError(f"cfg_labels: labels has shape {labels.shape} and null {null.shape}, wanted (n,) twice")
    both = backend.of(labels=labels, null=null).concatenate([labels, null])

    def pair(x, level):
        n = len(x)
        if len(labels) != n:
            raise ValueError(f"cfg_labels: x has {n} rows and there are {len(labels)} labels; "
                             "evaluate in batches inside `labelled`, which sees both")
        xp = backend.of(x=x)
        rows = level if isinstance(level.alpha, float) else Level(*(
            backend.of(level=a).concatenate([a, a]) for a in (level.t, level.alpha, level.sigma)))
        twice = xp.concatenate([x, x])
        p = labelled(twice, rows, both)
        points = (x, x) if p.x is twice else (p.x[:n], p.x[n:])
        return tuple(Prediction(p.kind, half, point, level, p.sigma_data)
                     for half, point in zip((p.value[:n], p.value[n:]), points))

    return _guided("cfg_labels", pair, lambda x, level: labelled(x, level, labels),
                   extra_weight("cfg_labels", scale, w), rescale, kind)


def autoguidance(good, bad, *, scale):
    """bad + scale (good - bad): away from a worse version of the same denoiser. [AUTO sec. 4; there w]

    `bad` sees the same condition: it is smaller, less trained, or both. scale = 1 is `good` alone.
    """
    return _guided("autoguidance", lambda x, level: (good(x, level), bad(x, level)), good,
                   extra_weight("autoguidance", scale, None), 0.0, "v")


def _guided(name, pair, good, w, rescale, kind):
    phi = number(f"{name}: rescale", rescale, 0, 1)
    one_of(f"{name}: kind", kind, KINDS)
    if w == 0:
        return good

    def guided(x, level):
        c, u = pair(x, level)
        g = beyond(c, u, w, x, level)
        if phi == 0:
            return g
        return Prediction(kind, rescaled(getattr(g, kind), getattr(c, kind), phi), g.x, level)

    return guided


def rescaled(guided, conditional, phi):
    """phi std(conditional)/std(guided) guided + (1 - phi) guided: arrays [n, ...], std over each row's entries."""
    axes = tuple(range(1, guided.ndim))
    std_c, std_g = (a.std(axis=axes, keepdims=True) for a in (conditional, guided))
    if anywhere(std_g == 0):
        raise ValueError("rescale: a row of the guided prediction is constant: its standard deviation is 0 and cannot "
                         "be scaled; rows need at least two different entries, or rescale=0")
    return phi * (std_c / std_g) * guided + (1 - phi) * guided


def interval(inside, outside, *, sigma=None, lam=None):
    """One denoiser at some noise levels, another at all others: guidance in an interval. [INTERVAL sec. 3]

    sigma = (low, high): `inside` where low < sigma/alpha <= high. lam = (low, high): where low <= lambda < high,
    lambda = log(alpha/sigma); lam = (-log(b), -log(a)) is sigma = (a, b). inf is an end, too. Exactly one of the two.
    Rows with levels of their own are chosen one by one; both denoisers are then evaluated on all of them.
    """
    if (sigma is None) == (lam is None):
        raise ValueError(f"interval: sigma is {sigma} and lam is {lam}, wanted exactly one of them: (low, high)")
    given = sigma if lam is None else lam
    if not hasattr(given, "__len__") or len(given) != 2:
        raise ValueError(f"interval: {given!r}, wanted two numbers (low, high)")
    low, high = (number("interval: an end", end, finite=False) for end in given)
    if not low < high:
        raise ValueError(f"interval: ({low}, {high}), wanted low < high")

    def chosen(x, level):
        if lam is None:
            here = (level.ratio > low) & (level.ratio <= high)
        else:
            here = (level.lam >= low) & (level.lam < high)
        if isinstance(level.alpha, float):
            return (inside if here else outside)(x, level)
        first, second = inside(x, level), outside(x, level)
        kind, sigma_data, one, other = common(first, second)
        xp = backend.of(x=x)
        here = xp.asarray(here).reshape((-1,) + (1,) * (x.ndim - 1))
        point = x if first.x is x and second.x is x else xp.where(here, first.x, second.x)
        return Prediction(kind, xp.where(here, one, other), point, level, sigma_data)

    return chosen
