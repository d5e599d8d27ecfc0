"""Linear multistep: the explicit Adams methods on x/alpha as a function of sigma/alpha, on any grid."""
from .multistep import STARTS, check_options, explicit, solve


def weights(t, s, earlier):
    """w_m of the polynomial in sigma/alpha through the latest and the earlier evaluations: M_k = h^(k+1)/(k+1)."""
    h = s.ratio - t.ratio
    moments = [h ** (k + 1) / (k + 1) for k in range(1, len(earlier) + 1)]
    return solve([level.ratio - t.ratio for level in earlier], moments)


def lms(denoiser, grid, x, order=4, start="lower", lower_order_final="paper"):
    """xbar' = xbar + int p d(sigma/alpha), p the polynomial through the last `order` eps, xbar = x/alpha. [LMS]

    order k = 1..4; 1 is Euler's method. x[n, ...] is noise at grid.level(0). One evaluation per step but at the start
    by "rk4". Yields a State per step.

    start              "lower": orders 1, 2, .. as evaluations come in; "rk4": k - 1 steps of a Runge-Kutta method, with
                       three more evaluations each, at levels that the grid's family gives
    lower_order_final  "paper" and "never": the order is kept to the end; "always": it falls to 1

    Order of convergence k with start="rk4": for k = 1, 2 from 64 steps on, k = 3 from 64 or 256, k = 4 from 64 or 1024,
    the sooner the more the grid is one of sigma/alpha (EDM's; the later on one uniform in the angle). start="lower" has
    order 2 in the end: at k = 4 and 1024 steps its error is 5e-8 where "rk4" has 7e-10. The step to sigma = 0 is a step
    like any other; a level with alpha = 0 is left by DDIM's step.
    """
    denoiser = check_options("lms", denoiser, grid, x, order, 4, start, STARTS, lower_order_final)
    return explicit("lms", denoiser, grid, x, order, weights, STARTS[start], lower_order_final == "always")
