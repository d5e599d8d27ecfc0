"""From data back to the noise that makes them: DDIM run upwards; and ways between two such noises."""
import math

from .. import backend
from ..samplers.state import after, check, integer, number, one_of


def invert(denoiser, grid, x, iterations=1, at="there", tolerance=None):
    """The noise at grid.level(0) whose DDIM samples (eta = 0, on this grid) end on x, at grid.level(S).

    [DDIM eq. 14, sec. 4.3]

    DDIM's step down from t to s is undone by x_t = (alpha_t/alpha_s) x_s + (sigma_t - alpha_t sigma_s/alpha_s) eps,
    with eps the one of the step down, eps(x_t, t), which is not known before x_t is:

        at="there": x_t <- that, `iterations` times, from x_t = (alpha_t/alpha_s) x_s. Each iteration gains an order:
                    encoding and decoding returns with an error O(h^iterations). It contracts where the steps are small
                    against what bends the flow; with a tolerance, the iterations stop once |x_t - its last value| is
                    within it, and a RuntimeError says where they do not.
        at="here":  eps(x_s, s): Euler's method on the PF-ODE upwards, O(h). The grid must then end above sigma = 0.

    A step up to alpha_t = 0 is made with eps(x_s, s) in any case, x_t = sigma_t eps(x_s, s): an error O(h).

    Yields a State per step, from the data's end; the prediction is the last one made for that step.
    """
    one_of("invert: at", at, ("there", "here"))
    iterations = integer("invert: iterations", iterations, 1)
    if at == "here" and (iterations > 1 or tolerance is not None):
        raise ValueError("invert: at='here' is explicit; iterations and tolerance need at='there'")
    if grid.sigma[-1] == 0 and (at == "here" or grid.alpha[0] == 0 and len(grid) == 1):
        raise ValueError("invert: at='here', and a step up to alpha = 0, need eps at the grid's last level, where "
                         "sigma = 0: end the grid above 0, or use at='there' and more steps")
    if tolerance is not None and not number("invert: tolerance", tolerance) > 0:
        raise ValueError(f"invert: tolerance is {tolerance}, wanted > 0")
    denoiser = check("invert", denoiser, x, None, 0)
    for step, i in enumerate(range(len(grid), 0, -1)):
        s, t = grid.level(i), grid.level(i - 1)
        on_x = t.alpha / s.alpha
        on_eps = t.sigma - on_x * s.sigma
        if at == "here" or t.alpha == 0:        # where eps(x_t, t) = x_t/sigma_t tells nothing of x_t
            prediction = denoiser(x, s)
            x = on_x * x + on_eps * prediction.eps
        else:
            start, x = on_x * x, on_x * x
            for _ in range(iterations):
                prediction, before = denoiser(x, t), x
                x = start + on_eps * prediction.eps
                moved = None if tolerance is None else float(abs(x - before).max())
                if moved is not None and moved <= tolerance:
                    break
            if moved is not None and not moved <= tolerance:
                raise RuntimeError(f"invert: at t = {t.t}, x_t still moves by {moved:g} after {iterations} iterations, "
                                   f"wanted at most {tolerance:g}; use more steps or more iterations")
        yield after("invert", step, t, x, prediction)


def _between(name, a, b, u):
    backend.of(a=a, b=b)
    if a.shape != b.shape:
        raise ValueError(f"{name}: a has shape {a.shape} and b {b.shape}, wanted one shape")
    return number(f"{name}: u", u)


def linear(a, b, u):
    """(1 - u) a + u b. Of independent N(0, I) it has variance (1 - u)^2 + u^2: at u = 1/2, half of what is wanted."""
    u = _between("linear", a, b, u)
    return (1 - u) * a + u * b


def slerp(a, b, u):
    """sin((1-u) theta)/sin(theta) a + sin(u theta)/sin(theta) b, theta the angle between rows. [DDIM sec. 5.3]

    Rows a[n, ...], b[n, ...]; on a sphere it goes round at an even pace. theta = 2 atan2(|p - q|, |p + q|) of the
    directions p, q keeps its digits at small angles, where this becomes `linear`.
    Raises ValueError for opposite rows, which have no one way between them, and for rows of zeros, without direction.
    """
    u = _between("slerp", a, b, u)
    xp = backend.of(a=a)
    axes = tuple(range(1, a.ndim))

    def norm(rows):
        return xp.sqrt((rows * rows).sum(axis=axes, keepdims=True))

    size_a, size_b = norm(a), norm(b)
    if not (size_a * size_b > 0).all():
        raise ValueError("slerp: a row of zeros has no direction; wanted nonzero rows")
    p, q = a / size_a, b / size_b
    theta = 2 * xp.arctan2(norm(p - q), norm(p + q))
    whole = xp.sinc(theta / math.pi)                                    # sin(theta)/theta
    if not (whole > 1e-6).all():
        raise ValueError("slerp: two rows point in opposite directions; there is no one shortest way between them")
    return (((1 - u) * xp.sinc((1 - u) * theta / math.pi)) * a + (u * xp.sinc(u * theta / math.pi)) * b) / whole
