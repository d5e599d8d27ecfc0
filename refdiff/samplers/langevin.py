"""Predictor and corrector: a step of the reverse SDE, then Langevin dynamics at the level that it reached."""
from .sde import PREDICTORS
from .state import after, check, draw, integer, number, one_of

SIZES = ("norm", "batch-norm", "expected")


def _norms(x):
    """The norm of each row, ready to multiply x[n, ...]."""
    return (x ** 2).sum(axis=tuple(range(1, x.ndim)), keepdims=True) ** 0.5


def step_size(size, snr, ratio, sigma, score, z):
    """epsilon = 2 (snr |z|/|score| ratio)^2, a number or one per row. [SDE sec. G]

    "norm" takes |z|/|score| per row; "batch-norm" the means of both over the batch, as in the authors' code, which
    couples its rows; "expected" sigma in its place, their ratio where the score is that of noise alone. ratio^2 is the
    paper's alpha_i = 1 - beta_i.
    """
    if size == "expected":
        return 2 * (snr * ratio * sigma) ** 2
    noise, slope = _norms(z), _norms(score)
    if size == "batch-norm":
        noise, slope = noise.mean(), slope.mean()
    if bool((slope == 0).any()):
        raise ValueError(f"predictor_corrector: the score is 0, so size {size!r} is infinite; use size='expected'")
    return 2 * (snr * ratio * (noise / slope)) ** 2


def predictor_corrector(denoiser, grid, x, predictor="reverse-diffusion", corrections=1, snr=0.16, size="norm",
                        first="predictor", noise=None):
    """A predictor's step to each level, then there `corrections` times x + eps score + sqrt(2 eps) z. [SDE sec. G]

    predictor: of sde.PREDICTORS, by its levels alone. eps by `step_size`, with ratio alpha/alpha_next, of the level
    and the next cleaner one: 1 in VE, sqrt(1 - beta) in VP. The last level is not corrected, so the last step adds no
    noise. first: "predictor", as in the paper's algorithms, or "corrector" for its code, which corrects before each
    step instead: level 0 as well. Without corrections it is the predictor to the bit. Langevin dynamics of finite size
    has a bias, which the number of steps does not remove: it falls with snr.

    Weak order 1 on Gaussian data, from 64 steps on, until that bias is reached: observed at snr = .01, size "expected".

    x/alpha depends on the family, by that ratio and by the reverse-diffusion predictor: levels of the same SNR are not
    enough.

    The draws are counted: noise(k), k = 0, 1, .. in the order of use. x[n, ...] is noise at grid.level(0). Yields a
    State per step, with x corrected; the prediction is the predictor's.
    """
    one_of("predictor_corrector: predictor", predictor, PREDICTORS)
    one_of("predictor_corrector: size", size, SIZES)
    one_of("predictor_corrector: first", first, ("predictor", "corrector"))
    corrections = integer("predictor_corrector: corrections", corrections, 0)
    snr = number("predictor_corrector: snr", snr)
    if not snr > 0:
        raise ValueError(f"predictor_corrector: snr is {snr}, wanted finite and > 0")
    S, drawn = len(grid), 0
    steps = [PREDICTORS[predictor](grid.level(i + 1), grid.level(i)) for i in range(S)]
    denoiser = check("predictor_corrector", denoiser, x, noise, S - 1 + corrections * (S - (first == "predictor")))

    def z_like(x):
        nonlocal drawn
        drawn += 1
        return draw("predictor_corrector", noise, drawn - 1, x)

    def corrected(x, i):
        level = grid.level(i)
        for _ in range(corrections):
            score, z = denoiser(x, level).score, z_like(x)
            eps = step_size(size, snr, level.alpha / float(grid.alpha[i + 1]), level.sigma, score, z)
            x = x + eps * score + (2 * eps) ** 0.5 * z
        return x

    if first == "corrector":
        x = corrected(x, 0)
    for i, (on_x, on_score, std) in enumerate(steps):
        prediction = denoiser(x, grid.level(i))
        x = on_x * x + on_score * prediction.score
        if i < S - 1:
            x = corrected(x + std * z_like(x), i + 1)
        yield after("predictor_corrector", i, grid.level(i + 1), x, prediction)
