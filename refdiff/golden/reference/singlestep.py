"""DPM-Solver's single-step methods, whose network is called inside the step, at lambda_t + r h. (DPM alg. 1, 2)

In xbar = x/alpha and rho = sigma/alpha = e^-lambda the ODE is d xbar = eps d rho, and with h = lambda_s - lambda_t

    order 2    xbar_s = xbar_t + (rho_s - rho_t) (eps + (eps_1 - eps)/(2 r1)),          eps_1 at Euler's point, r1 = 1/2
    order 3    xbar_s = xbar_t + (rho_s - rho_t) eps + ((rho_s - rho_t)/h + rho_s) (eps_2 - eps)/r2,          r2 = 2/3

as published ("truncated"), where eps_2 is at the point that the line through eps and eps_1 leads to; "exact" integrates
the polynomial through all the predictions of the step.
"""
from . import polynomials
from .levels import lam
from .steps import euler

NODES = {2: ("1/2",), 3: ("1/3", "2/3")}


def dpm(x, x0, eps, t, s, num, model, between, order=3, form="single", solver_rule="truncated"):
    """x at level s. model(y, level) -> eps, called order - 1 times; between(lambda) -> level.

    A step to sigma = 0 is of the first order, and calls nothing.
    """
    if order not in (1, 2, 3) or form != "single" or solver_rule not in ("truncated", "exact"):
        raise ValueError(f"dpm: order {order!r}, form {form!r} and rule {solver_rule!r}, wanted 1..3, single, and "
                         "truncated or exact")
    if s.sigma == 0:
        return s.alpha * x0
    if order == 1:
        return euler(x, x0, eps, t, s, None, num, None)
    h, said = lam(s, num) - lam(t, num), [eps]
    r = [num.real(part.split("/")[0]) / num.real(part.split("/")[1]) for part in NODES[order]]
    for i, part in enumerate(r):
        level = between(lam(t, num) + part * h)
        y = euler(x, x0, eps, t, level, None, num, None)
        if i == 1:
            y = level.alpha * _through(x / t.alpha, said, [part * 0, r[0] * h], t, part * h, num)
        said.append(model(y, level))
    if solver_rule == "exact":
        return s.alpha * _through(x / t.alpha, said, [h * 0, *(part * h for part in r)], t, h, num)
    step = s.ratio - t.ratio
    if order == 2:
        return s.alpha * (x / t.alpha + step * (eps + (said[1] - eps) / (2 * r[0])))
    return s.alpha * (x / t.alpha + step * eps + (step / h + s.ratio) * (said[2] - eps) / r[1])


def _through(xbar, said, nodes, t, h, num):
    """xbar after h in lambda, eps the polynomial through what was said at the nodes, counted from lambda_t."""
    moments = [-t.ratio * m for m in polynomials.growing(h, len(nodes), num)]
    return xbar + sum(w * e for w, e in zip(polynomials.weights(nodes, moments), said))
