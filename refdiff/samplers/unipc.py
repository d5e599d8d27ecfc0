"""UniPC: a multistep predictor in lambda = log(alpha/sigma), and a corrector that reuses its evaluation."""
import math

from ..process.parameterization import Prediction
from .multistep import STARTS, add, check_options, eps_moments, first_order, solve
from .phi import phi
from .state import after, one_of

BS = ("B1", "B2", "exact")
CORRECTORS = ("paper", "every", "never")


def moments(kind, t, s, n):
    """M_k, k = 1..n: what the step makes of a prediction (lambda - lambda_t)^k, over alpha_s. See multistep.py."""
    if kind == "eps":
        return eps_moments(t, s, n)
    h = s.lam - t.lam
    return [h ** (k + 1) * math.factorial(k) * phi(k + 1, -h) for k in range(1, n + 1)]


def half(kind, t, s, r, B):
    """The paper's a_1 = 1/2 where there is one point: w = B(h)/(2 r), B_1 = h and B_2 = e^h - 1. [UNIPC sec. 4]

    In x0 with -h for h. What UniP-2 misses of a line in lambda is h^3/6 of its slope with B_1 and -h^3/12 with B_2.
    """
    h = s.lam - t.lam
    if kind == "eps":
        return -(s.ratio * h if B == "B1" else t.ratio - s.ratio) / (2 * r)      # ratio_s (e^h - 1) is that difference
    return (h if B == "B1" else -math.expm1(-h)) / (2 * r)


def weights(kind, t, s, points, B):
    """w_m with which a step from t to s uses the differences at `points`, levels other than t. [UNIPC sec. 3.1]

    w_m = a_m B(h)/r_m. Where the paper's condition on a_m is solved, B(h) cancels: this is the polynomial through all
    points, integrated exactly. B makes a difference only with one point and a_1 = 1/2; B = "exact" solves there too.
    """
    nodes = [level.lam - t.lam for level in points]
    if len(points) == 1 and B != "exact":
        return [half(kind, t, s, nodes[0] / (s.lam - t.lam), B)]
    return solve(nodes, moments(kind, t, s, len(points)))


def corrections(corrector, S):
    """Whether each of the S steps is corrected."""
    if isinstance(corrector, str) and corrector in CORRECTORS:
        return [corrector == "every" or corrector == "paper" and i < S - 1 for i in range(S)]
    if isinstance(corrector, (list, tuple)) and len(corrector) == S and all(isinstance(c, bool) for c in corrector):
        return list(corrector)
    raise ValueError(f"unipc: corrector is {corrector!r}, wanted one of {', '.join(CORRECTORS)}, or a list of {S} "
                     "bools, one for each step")


def unipc(denoiser, grid, x, order=3, kind="x0", B="B2", corrector="paper", start="lower", lower_order_final="paper"):
    """UniP-p: the polynomial through the last p predictions; UniC-p: then the one through that at its result as well.

    x_s = DDIM's step + alpha_s sum_m w_m D_m, D_m = f_m - f_0 at the p - 1 levels before t, and at s to correct.
    [UNIPC sec. 3.1, 3.2, 3.3]

    order              p = 1..6; 1 without corrector is DDIM
    kind               f, the prediction that is a polynomial in lambda: "x0" [UNIPC sec. 3.4] or "eps"
    B                  "B2", e^h - 1 (1 - e^-h in x0); "B1", h; "exact": see `weights`
    corrector          "paper", on all steps but the last; "every"; "never"; or a list of S bools
    lower_order_final  "paper" (its code's) and "always": orders .., 3, 2, 1 at the end; "never": p to the end
    start              "lower": orders 1, 2, .. as predictions come in; "rk4": p - 1 steps of a Runge-Kutta method,
                       uncorrected, three more evaluations each, at levels that the grid's family gives

    Order of convergence: p without the corrector and p + 1 with it on every step, given start="rk4" and
    lower_order_final="never", from 64 steps on (UniPC-3 and UniP-5: from 128; UniP-6: from 256; UniPC-3 with kind="eps"
    from 512; errors of UniPC-6 are rounding beyond 256 steps). The paper's start costs p = 3 one order in the end, 2
    without and 3 with the corrector; its ending, an uncorrected step of order 1, leaves 2 to any p (measured at p = 3:
    2.0). A last step of order p may go without the corrector.

    x[n, ...] is noise at grid.level(0). S evaluations in S steps, and one more if the last step is corrected: each is
    made at the predicted x and kept for the next step. To sigma = 0, where h is infinite, the step is of order 1 and
    is not corrected; nor is DDIM's step that leaves alpha = 0. Yields a State per step, its prediction the latest f_0.
    """
    S = len(grid)
    denoiser = check_options("unipc", denoiser, grid, x, order, 6, start, STARTS, lower_order_final)
    one_of("unipc: kind", kind, ("x0", "eps"))
    one_of("unipc: B", B, BS)
    return _unipc(denoiser, grid, x, order, kind, B, corrections(corrector, S), STARTS[start],
                  lower_order_final != "never")


def _unipc(denoiser, grid, x, order, kind, B, corrected, start, lowered):
    levels, values, S = [], [], len(grid)               # earlier levels with signal and the values there, latest first
    asked, ahead = x, denoiser(x, grid.level(0))
    for i in range(S):
        t, s, prediction = grid.level(i), grid.level(i + 1), ahead
        latest = getattr(prediction, kind)
        begin = start and len(levels) + 1 < order and s.sigma > 0
        if begin:
            predicted = start(denoiser, grid, prediction, s)
        else:
            here = prediction
            if x is not asked:                                                  # read at the corrected x
                point = x if prediction.x is asked else prediction.x + (x - asked)
                here = Prediction(kind, latest, point, t)
            n = min(order, S - i if lowered else order, order if s.sigma > 0 else 1) - 1
            base, points = first_order(here, s), levels[:n]
            predicted = add(base, s, weights(kind, t, s, points, B) if points else [], values, latest)
        correct = corrected[i] and not begin and t.alpha > 0 and s.sigma > 0
        if i < S - 1 or correct:
            asked, ahead = predicted, denoiser(predicted, s)
        x = predicted
        if correct:
            x = add(base, s, weights(kind, t, s, [s, *points], B), [getattr(ahead, kind), *values], latest)
        if t.alpha > 0:
            levels, values = [t, *levels][:order - 1], [latest, *values][:order - 1]
        yield after("unipc", i, s, x, prediction)
