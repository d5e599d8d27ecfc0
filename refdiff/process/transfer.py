"""A denoiser of one family at the levels of any other: what it was trained on is the signal-to-noise ratio.

    x = alpha x_0 + sigma eps  and  r x = alpha' x_0 + sigma' eps  with  r = alpha'/alpha = sigma'/sigma

are the same question at the same SNR, so x_0 and eps are answered alike, and with them eps, x0, both velocities and F;
v, of degree 1 in (alpha, sigma), is r times smaller, and the score, of degree -1, r times larger.
"""
from dataclasses import replace

from .level import expand

DEGREE = {"v": 1, "score": -1}          # of a kind in (alpha, sigma), where it is not 0


def transfer(denoiser, family):
    """The denoiser, trained on `family`, for any level: it is asked at the family's level with that level's SNR.

    x is rescaled on the way in, the prediction on the way out; its kind is kept, and t is the family's own, as the
    network was told in training. Exact: the roundings are those of lambda. Levels whose SNR the family does not have
    (no noise, less signal than at its end) raise ValueError, naming it. A discrete schedule is families.Interpolated.
    """
    def transferred(x, level):
        own = family.at(level.lam)
        r = _ratio(own, level)
        asked = expand(r, x) * x
        prediction = denoiser(asked, own)
        at = x if prediction.x is asked else prediction.x / expand(r, x)     # a map may answer for another point
        degree = DEGREE.get(prediction.kind, 0)
        value = prediction.value if not degree else prediction.value / expand(r ** degree, x)
        return replace(prediction, value=value, x=at, level=level)

    return transferred


def _ratio(own, level):
    """alpha'/alpha = sigma'/sigma, read off the sums, which are never 0."""
    return (own.alpha + own.sigma) / (level.alpha + level.sigma)
