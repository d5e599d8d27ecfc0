"""Exponential integrators in lambda = log(alpha/sigma): what DPM-Solver, in eps, and DPM-Solver++, in x0, share.

From level s to level t, with h = lambda_t - lambda_s and u = (lambda - lambda_s)/h, the PF-ODE is exactly

    x_t = sigma_t/sigma_s x_s + alpha_t h int_0^1 e^(-h (1-u)) x0(u) du           z = -h
    x_t = alpha_t/alpha_s x_s - sigma_t h int_0^1 e^( h (1-u)) eps(u) du          z =  h

in every family. A rule puts sum_j w_j m_j for the integral, m_j the prediction at u_j: inside the step (single-step,
u_j = r_j) or at the starts of the steps before (multistep, u_j < 0). Its weights are phi-functions of z, so one rule
serves both forms. Two ways of making them:

    "exact"        the integral of the polynomial through the m_j: exact for predictions of degree k-1 in lambda
    "truncated"    as published: its terms beyond what the order needs are left out or rounded to that order
"""
from dataclasses import dataclass

from .phi import LARGEST, phi, weights
from .state import after, check, integer, number, one_of

FORMS = ("single", "multi")
RULES = ("truncated", "exact")
STARTS = ("lower", "single")
ENDINGS = ("paper", "always", "never")
FEW = 15               # lower_order_final="paper" lowers the order at the end of fewer steps than this


def parts(kind, s, t):
    """(keep, gain, z) of x_t = keep x_s + gain int_0^1 e^(z (1-u)) m(u) du. [DPM eq. 3.4] for eps

    and, with x0 for m, [DPMPP sec. 4.1].
    """
    h = t.lam - s.lam
    if kind == "x0":
        return t.sigma / s.sigma, t.alpha * h, -h
    return t.alpha / s.alpha, -t.sigma * h, h


def first(x, prediction, s, t):
    """sigma_t/sigma_s x + (alpha_t - alpha_s sigma_t/sigma_s) x0: the first-order step where h is infinite.

    To sigma_t = 0 it is the denoised x0; from alpha_s = 0, where x holds no signal, it is sigma_t/sigma_s x +
    alpha_t x0, which asks for a prediction that determines x0 there (x0, v, velocity; LimitError otherwise).
    """
    keep = t.sigma / s.sigma
    return keep * x + (t.alpha - s.alpha * keep) * prediction.x0


def second(u, z, rule):
    """(w_0, w_1) on the predictions at 0 and u: the constant's integral phi_1, and the slope's.

    The slope (m_1 - m_0)/u has the integral phi_2(z) ("exact"); "truncated" puts phi_1(z)/2, the same at z = 0.
    """
    slope = phi(1, z) / 2 if rule == "truncated" else phi(2, z)
    return phi(1, z) - slope / u, slope / u


def third_single(r1, r2, z, rule):
    """(w_0, w_1, w_2) on the predictions at 0, r1, r2. "truncated" is a line through 0 and r2, and takes no m_1.

    Its curvature term is phi_2(z) r2/2 where 2 phi_3(z)/2 is wanted: right at z = 0 for r2 = 2/3, and only there.
    """
    if rule == "exact":
        return weights([0.0, r1, r2], z)
    w_0, w_2 = second(r2, z, "exact")
    return w_0, 0.0, w_2


def third_multi(u1, u2, z, rule):
    """(w_0, w_1, w_2) on the predictions at 0 and before it, at u1 and u2 < 0.

    "truncated" is what the authors' code does: the polynomial's second derivative is twice the divided difference
    m[0, u1, u2], and once is taken, so that phi_3(z) m[0, u1, u2] is missing.
    """
    w = weights([0.0, u1, u2], z)
    if rule == "exact":
        return w
    half = phi(3, z)
    return w[0] - half / (u1 * u2), w[1] - half / (u1 * (u1 - u2)), w[2] - half / (u2 * (u2 - u1))


def advance(kind, x, s, t, w, values):
    """keep x + gain sum_j w_j values_j: the step from s to t with weights w."""
    keep, gain, _ = parts(kind, s, t)
    return keep * x + gain * sum(w_j * m for w_j, m in zip(w, values) if w_j)


def single(kind, denoiser, between, x, s, t, m0, order, rule, r1, r2):
    """One single-step step of order 1, 2 or 3 from the prediction m0 at s; between(lambda) -> Level.

    Order 2 goes to lambda_s + r1 h by a first-order step; order 3 goes on to lambda_s + r2 h by a second-order one.
    """
    h = t.lam - s.lam
    z = parts(kind, s, t)[2]
    if order == 1:
        return advance(kind, x, s, t, [phi(1, z)], [m0])
    r1 = (1 / 2 if order == 2 else 1 / 3) if r1 is None else r1
    s1 = between(s.lam + r1 * h)
    m1 = getattr(denoiser(advance(kind, x, s, s1, [phi(1, r1 * z)], [m0]), s1), kind)
    if order == 2:
        return advance(kind, x, s, t, second(r1, z, rule), [m0, m1])
    r2 = 2 / 3 if r2 is None else r2
    s2 = between(s.lam + r2 * h)
    m2 = getattr(denoiser(advance(kind, x, s, s2, second(r1 / r2, r2 * z, "exact"), [m0, m1]), s2), kind)
    return advance(kind, x, s, t, third_single(r1, r2, z, rule), [m0, m1, m2])


def multi(kind, x, s, t, m0, history, rule):
    """One multistep step of order 1 + len(history); history: (lambda, prediction) of the steps before, newest first."""
    h = t.lam - s.lam
    z = parts(kind, s, t)[2]
    u = [(lam - s.lam) / h for lam, _ in history]
    if len(u) == 0:
        w = [phi(1, z)]
    elif len(u) == 1:
        w = second(u[0], z, rule)
    else:
        w = third_multi(u[0], u[1], z, rule)
    return advance(kind, x, s, t, w, [m0, *(m for _, m in history)])


# ---- whole trajectories

@dataclass(frozen=True)
class Plan:
    """What each step does: orders (one per step), form, rule, start, r1, r2. Made by `plan`."""

    orders: tuple
    form: str
    rule: str
    start: str
    r1: object = None
    r2: object = None


def _unused(name, why, **options):
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: {option} = {value!r} would be ignored: {why}; leave it out")


def plan(name, grid, order, form, rule=None, r1=None, r2=None, start=None, lower_order_final=None):
    """The options of a solver, checked and resolved to a Plan. None is the papers' choice.

    Raises ValueError: what is unknown, what would be ignored, and intermediate levels on a grid without a family.
    """
    for option, value, names in (("form", form, FORMS), ("rule", rule, RULES), ("start", start, STARTS),
                                 ("lower_order_final", lower_order_final, ENDINGS)):
        if value is not None or option == "form":
            one_of(f"{name}: {option}", value, names)
    steps = len(grid)
    orders = order if isinstance(order, (tuple, list)) else (order,) * steps
    orders = tuple(integer(f"{name}: order", k, 1, 3) for k in orders)
    if isinstance(order, (tuple, list)) and (form == "multi" or len(orders) != steps):
        raise ValueError(f"{name}: {len(orders)} orders for the {steps} steps of the grid, form {form!r}: wanted one "
                         "number, or with form 'single' one per step")
    top = max(orders)
    if top == 1:
        _unused(name, "order is 1", rule=rule, r1=r1, r2=r2, start=start, lower_order_final=lower_order_final)
    if form == "single":
        _unused(name, "form is 'single'; name one order per step instead", start=start,
                lower_order_final=lower_order_final)
    elif start != "single":
        _unused(name, "nothing is evaluated inside a step", r1=r1, r2=r2)
    if top == 2:
        _unused(name, "order 2 evaluates at r1 alone", r2=r2)
    rule = ("exact" if form == "multi" and top == 3 else "truncated") if rule is None else rule
    start, ending = ("lower" if start is None else start), ("paper" if lower_order_final is None else lower_order_final)
    r1, r2 = (None if r is None else number(f"{name}: {option}", r) for option, r in (("r1", r1), ("r2", r2)))
    low, high = (1 / 3 if top == 3 else 1 / 2) if r1 is None else r1, (2 / 3 if r2 is None else r2)
    if not (0 < low < high <= 1 if top == 3 else 0 < low <= 1):
        raise ValueError(f"{name}: r1 = {low:g}" + (f", r2 = {high:g}: wanted 0 < r1 < r2 <= 1" if top == 3
                                                    else ": wanted 0 < r1 <= 1"))
    if form == "multi" and (ending == "always" or ending == "paper" and steps < FEW):
        orders = tuple(min(k, steps - i) for i, k in enumerate(orders))
    if top > 1 and "single" in (form, start) and grid.family is None:
        grid.at(0.0)                                   # says that the grid names no family
    return Plan(orders, form, rule, start, r1, r2)


def _check_lengths(name, kind, grid):
    """Refuse a grid on which a coefficient is beyond float64: in eps, a step so long that e^h is."""
    for s, t in ((grid.level(i), grid.level(i + 1)) for i in range(len(grid))):
        if s.alpha > 0 and t.sigma > 0 and parts(kind, s, t)[2] > LARGEST:
            raise ValueError(f"{name}: the step from t = {s.t} to t = {t.t} is {t.lam - s.lam:g} long in lambda = "
                             f"log(alpha/sigma), wanted <= {LARGEST:g}; take smaller steps, or dpmpp")


def solve(name, kind, denoiser, grid, x, *options, **named):
    """The trajectory of a Plan's options, as a generator of States; kind: "x0" or "eps"."""
    denoiser = check(name, denoiser, x, None, 0)
    p = plan(name, grid, *options, **named)
    _check_lengths(name, kind, grid)
    history = []                                       # (lambda, prediction) of the steps before, newest first
    for i, order in enumerate(p.orders):
        s, t = grid.level(i), grid.level(i + 1)
        prediction = denoiser(x, s)
        if s.alpha == 0 or t.sigma == 0:
            x = first(x, prediction, s, t)             # and no history: nothing is interpolated from lambda = -inf
        else:
            m0 = getattr(prediction, kind)
            if p.form == "multi" and (p.start == "lower" or len(history) >= order - 1):
                x = multi(kind, x, s, t, m0, history[:order - 1], p.rule)
            else:
                x = single(kind, denoiser, grid.at, x, s, t, m0, order, p.rule, p.r1, p.r2)
            history = [(s.lam, m0), *history[:1]]
        yield after(name, i, t, x, prediction)
