"""PNDM: the coefficients of the classical multistep and Runge-Kutta methods, in DDIM's step instead of Euler's."""
from ..process.parameterization import Prediction
from .multistep import STARTS, check_options, check_times, explicit, first_order

ADAMS = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def weights(t, s, earlier):
    """The transfer of e' = sum_m c_m e_m is that of e_0 and alpha_s (ratio_s - ratio_t) c_m for each e_m - e_0."""
    return [(s.ratio - t.ratio) * c for c in ADAMS[len(earlier) + 1][1:]]


def transfer(x, e, t, s):
    """phi(x, e, t, s): DDIM's step from level t to level s with the noise e. [PNDM eq. 9]"""
    return first_order(Prediction("eps", e, x, t), s)


def pseudo_runge_kutta(denoiser, grid, prediction, s):
    """x_s by the classical Runge-Kutta method of order 4 in transfers, its middle at (t + s)/2. [PNDM sec. 3]

    A level without signal is left by DDIM's step.
    """
    x, t, e1 = prediction.x, prediction.level, prediction.eps
    if t.alpha == 0:
        return first_order(prediction, s)
    middle = grid.family.level((t.t + s.t) / 2)
    e2 = denoiser(transfer(x, e1, t, middle), middle).eps
    e3 = denoiser(transfer(x, e2, t, middle), middle).eps
    e4 = denoiser(transfer(x, e3, t, s), s).eps
    return transfer(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, t, s)


def plms(denoiser, grid, x, order=4, start="prk", lower_order_final="paper"):
    """x_s = phi(x, e', t, s), e' = (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3)/24 of the last predicted eps. [PNDM sec. 3]

    phi is DDIM's step. order 1..4, the borrowed method's: e' = e_0; (3 e_0 - e_1)/2; (23 e_0 - 16 e_1 + 5 e_2)/12;
    as above. x[n, ...] is noise at grid.level(0). Yields a State per step. One evaluation per step but at the start.

    start              "prk", the paper's: order - 1 pseudo Runge-Kutta steps with three more evaluations each, two of
                       them at times halfway to the next, and what level that is depends on the family; "lower": the
                       orders 1, 2, .. (iPNDM [DEIS sec. B]); "rk4": true Runge-Kutta steps
    lower_order_final  "paper" and "never": the order is kept to the end; "always": it falls to 1

    Order of convergence 2 from 64 steps on, whatever the order > 1 borrowed, on grids uniform in a variable of which
    sigma/alpha and eps are smooth functions, such as t: phi takes a varying slope d ratio/dt at its mean. Where that
    variable is sigma/alpha itself, the same steps as `lms` and its order. On other grids the coefficients are wrong and
    the order is 1: with steps of alternating lengths 1 : 2 the error at 64 steps is 1.5e-2 where that of lms is 5e-5.
    The step to sigma = 0 is a step like any other; a level with alpha = 0 is left by DDIM's step.
    """
    starts = {"prk": pseudo_runge_kutta, **STARTS}
    denoiser = check_options("plms", denoiser, grid, x, order, 4, start, starts, lower_order_final)
    if start == "prk" and order > 1:
        check_times("plms", grid)
    return explicit("plms", denoiser, grid, x, order, weights, starts[start], lower_order_final == "always")
