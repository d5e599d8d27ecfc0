"""One step of every sampler from level t to level s, written as its paper writes it; history for multistep methods.

A point is (x, x0, eps): the state and what was predicted there. `earlier` lists (level, x0, eps) of the steps before,
latest first. Every function returns x_s as an array; z is the step's noise, or None for a step without.
"""
from . import polynomials
from .levels import lam
from .process import bayes


def _deviation(variance, c, num):
    """What multiplies the noise."""
    return {"std": num.sqrt, "variance": lambda v: v, "none": lambda v: v * 0}[c.variance_meaning](variance)


def ddpm(x, x0, eps, t, s, z, num, c, variance="small"):
    """The posterior's mean at the predicted x0, and its noise. (DDPM alg. 2)"""
    on_x0, on_xt, small, large = bayes(s, t)
    kind = variance if c.variance == "given" else c.variance
    if kind not in ("small", "large"):
        raise ValueError(f"ddpm: variance is {kind!r}, wanted small or large")
    mean = on_x0 * x0 + on_xt * x
    return mean if z is None else mean + _deviation(small if kind == "small" else large, c, num) * z


def ddim(x, x0, eps, t, s, z, num, c, eta="0"):
    """alpha_s x0 + sqrt(sigma_s^2 - std^2) eps + std z. (DDIM eq. 12)"""
    eta = num.real(eta)
    if not 0 <= eta <= 1:
        raise ValueError(f"ddim: eta is {eta}, wanted 0..1")
    *_, small, large = bayes(s, t)
    std = eta * num.sqrt(large if c.eta_meaning == "large" else small)
    if c.eta_meaning == "variance":
        std = num.sqrt(eta * small)
    signal, noise = (t if c.ddim_levels == mistaken else s for mistaken in ("alpha_t", "sigma_t"))
    rest = noise.var - std * std
    if rest < 0:
        rest = rest * 0
    x = signal.alpha * x0 + (noise.sigma if c.direction == "full" else num.sqrt(rest)) * eps
    return x if z is None or eta == 0 else x + std * z


def euler(x, x0, eps, t, s, z, num, c):
    """x/alpha + (ratio_s - ratio_t) eps. (EDM alg. 1)"""
    return s.alpha * (x / t.alpha + (s.ratio - t.ratio) * eps)


def heun(x, x0, eps, t, s, z, num, c, eps_s=None):
    """Euler's step with the mean of both slopes; eps_s is that at Euler's x, None on a step to sigma = 0."""
    if s.sigma == 0:
        if c.heun_last == "mean":
            return s.alpha * (x / t.alpha + (s.ratio - t.ratio) * eps / 2)
        eps_s = eps
    return s.alpha * (x / t.alpha + (s.ratio - t.ratio) * (eps + eps_s) / 2)


def _data_step(x, x0, t, s, num):
    """sigma_s/sigma_t x - alpha_s (e^-h - 1) x0."""
    if s.sigma == 0:
        return s.alpha * x0
    if t.alpha == 0:
        return s.sigma / t.sigma * x + s.alpha * x0
    return s.sigma / t.sigma * x - s.alpha * num.expm1(lam(t, num) - lam(s, num)) * x0


def dpmpp(x, x0, eps, t, s, z, num, c, order=2, solver_rule=None, earlier=()):
    """DPM-Solver++: 1, 2M and 3M. (DPMPP alg. 2)"""
    rule = c.solver_rule if c.solver_rule != "given" else solver_rule or ("exact" if order == 3 else "truncated")
    if order not in (1, 2, 3) or rule not in ("truncated", "exact"):
        raise ValueError(f"dpmpp: order {order!r} and rule {rule!r}, wanted 1..3, truncated or exact")
    points = [] if s.sigma == 0 or t.alpha == 0 else list(earlier[:order - 1])
    base = _data_step(x, x0, t, s, num)
    if not points:
        return base
    h = lam(s, num) - lam(t, num)
    nodes = [lam(level, num) - lam(t, num) for level, *_ in points]
    if len(points) == 1 and rule == "truncated":
        r = -nodes[0] / h if c.multistep_ratio == "h_before/h" else -h / nodes[0]
        return base - s.alpha * num.expm1(-h) * (x0 - points[0][1]) / (2 * r)
    moments = polynomials.decaying(h, len(nodes) + 1, num)
    if rule == "truncated":
        moments = [*moments[:2], moments[2] / 2]       # half of the second derivative, in Newton's form
        return base + s.alpha * _newton(nodes, moments, [x0, *(p[1] for p in points)])
    weights = polynomials.weights([h * 0, *nodes], moments)
    return base + s.alpha * sum(w * (p[1] - x0) for w, p in zip(weights[1:], points))


def _newton(nodes, moments, values):
    """f[0,1] M_1 + f[0,1,2] (M_2 - u_1 M_1), the published third-order rule with its own M_2."""
    (u1, u2), (f0, f1, f2) = nodes, values
    d01, d12 = (f1 - f0) / u1, (f2 - f1) / (u2 - u1)
    second = (d12 - d01) / u2
    return d01 * moments[1] + second * (moments[2] - u1 * moments[1])


def _noise_steps(x, eps, t, s, weights, earlier):
    """alpha_s (x/alpha_t + sum_m w_m eps_m), the latest first."""
    return s.alpha * (x / t.alpha + sum(w * e for w, e in zip(weights, [eps, *(p[2] for p in earlier)])))


def lms(x, x0, eps, t, s, z, num, c, order=4, earlier=()):
    """eps a polynomial in sigma/alpha through its last `order` values, integrated exactly. (LMS)"""
    earlier = list(earlier[:order - 1])
    h = s.ratio - t.ratio
    nodes = [h * 0, *(level.ratio - t.ratio for level, *_ in earlier)]
    return _noise_steps(x, eps, t, s, polynomials.weights(nodes, [h ** (k + 1) / (k + 1) for k in range(len(nodes))]),
                        earlier)


def deis(x, x0, eps, t, s, z, num, c, order=3, variable="rho", earlier=(), schedule=None):
    """eps a polynomial in sigma/alpha ("rho"), lambda ("lambda"), or the schedule's own time ("t"). (DEIS sec. 3)"""
    if variable == "rho":
        return lms(x, x0, eps, t, s, z, num, c, order, earlier)
    if variable == "t":
        return _deis_in_time(x, eps, t, s, num, list(earlier[:order - 1]), schedule)
    if variable != "lambda":
        raise ValueError(f"deis: variable is {variable!r}, wanted rho, lambda or t")
    earlier = list(earlier[:order - 1])
    nodes = [num.real(0), *(lam(level, num) - lam(t, num) for level, *_ in earlier)]
    h = None if s.sigma == 0 else lam(s, num) - lam(t, num)
    moments = [-t.ratio * m for m in polynomials.growing(h, len(nodes), num)]
    return _noise_steps(x, eps, t, s, polynomials.weights(nodes, moments), earlier)


def _deis_in_time(x, eps, t, s, num, earlier, schedule):
    """int (d ratio/dt) p(t) dt, p the polynomial in t, by quadrature of the schedule's own d ratio/dt."""
    start, nodes = num.real(t.t), [num.real(0), *(level.t - t.t for level, *_ in earlier)]
    moments = polynomials.integral(lambda u: ratio_slope(schedule, u, num) * num.array(
        [(u - start) ** k for k in range(len(nodes))]), start, num.real(s.t), num)
    return _noise_steps(x, eps, t, s, polynomials.weights(nodes, list(moments)), earlier)


def ratio_slope(schedule, t, num):
    """d(sigma/alpha)/dt of a schedule without T: ratio is t, t/(1 - t), or sqrt(e^B - 1)."""
    if schedule == "edm":
        return num.real(1)
    if schedule == "flow":
        return 1 / (1 - t) ** 2
    if schedule == "vp":
        _, beta = drift(schedule, t, num)
        low = num.real("0.1")
        B = low * t + (beta - low) * t / 2                                # int_0^t beta
        return beta * num.exp(B) / (2 * num.sqrt(num.expm1(B)))
    raise ValueError(f"deis: schedule is {schedule!r}, wanted edm, flow or vp for a polynomial in t")


ADAMS = {1: (1,), 2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}


def plms(x, x0, eps, t, s, z, num, c, order=4, earlier=()):
    """DDIM's step with Adams-Bashforth's combination of eps. (PNDM sec. 3)"""
    earlier = list(earlier[:order - 1])
    row = ADAMS[len(earlier) + 1]
    return _noise_steps(x, eps, t, s, [(s.ratio - t.ratio) * a / sum(row) for a in row], earlier)


def improved_euler(x, e, e_s, t, s):
    """DDIM's step to s with the mean of eps at both ends, e_s told at the x of DDIM's own step."""
    return s.alpha * (x / t.alpha + (s.ratio - t.ratio) * (e + e_s) / 2)


def unipc(x, x0, eps, t, s, z, num, c, order=2, B="B2", earlier=(), x0_s=None):
    """UniP-p in x0, and with x0_s, the prediction at its result, UniC-p. (UNIPC sec. 3.1, 3.2)"""
    B = B if c.B == "given" else c.B
    if order not in (1, 2, 3) or B not in ("B1", "B2"):
        raise ValueError(f"unipc: order {order!r} and B {B!r}, wanted 1..3, B1 or B2")
    base = _data_step(x, x0, t, s, num)
    if s.sigma == 0 or t.alpha == 0:
        return base
    h = lam(s, num) - lam(t, num)
    points = [(lam(level, num) - lam(t, num), p0) for level, p0, _ in earlier[:order - 1]]
    if x0_s is not None:
        points = [(h, x0_s), *points]
    if not points:
        return base
    if len(points) == 1:                                       # the paper's a_1 = 1/2
        weights = [(h if B == "B1" else -num.expm1(-h)) / 2 * h / points[0][0]]
    else:
        weights = polynomials.weights([h * 0, *(u for u, _ in points)],
                                      polynomials.decaying(h, len(points) + 1, num))[1:]
    return base + s.alpha * sum(w * (p0 - x0) for w, (_, p0) in zip(weights, points))


def reverse_diffusion(x, x0, eps, t, s, z, num, c):
    """(2 - a) x + v score + sqrt(v) z. (SDE sec. E)"""
    v = bayes(s, t)[3]
    mean = (2 - t.alpha / s.alpha) * x - v / t.sigma * eps
    return mean if z is None else mean + _deviation(v, c, num) * z


def ancestral(x, x0, eps, t, s, z, num, c, variance="small"):
    """(x + v score)/a + std z. (SDE eq. 47)"""
    *_, small, v = bayes(s, t)
    kind = variance if c.variance == "given" else c.variance
    if kind not in ("small", "large"):
        raise ValueError(f"ancestral: variance is {kind!r}, wanted small or large")
    mean = (x - v / t.sigma * eps) / (t.alpha / s.alpha)
    return mean if z is None else mean + _deviation(small if kind == "small" else v, c, num) * z


def euler_ancestral(x, x0, eps, t, s, z, num, c, eta="1"):
    """Euler to sigma_down, then noise of sigma_up; in x/alpha. (DDIM eq. 12, in other words)"""
    eta = num.real(eta)
    up = eta * s.ratio / t.ratio * num.sqrt((t.ratio - s.ratio) * (t.ratio + s.ratio))
    down = num.sqrt(s.ratio ** 2 - up ** 2) if s.ratio > 0 else s.ratio
    xbar = x / t.alpha + (down - t.ratio) * eps
    return s.alpha * (xbar if z is None else xbar + up * z)


def drift(schedule, t, num):
    """(f, g^2) of the forward SDE of a schedule without T."""
    t = num.real(t)
    if schedule == "vp":
        beta = num.real("0.1") + (num.real("20") - num.real("0.1")) * t
        return -beta / 2, beta
    if schedule == "edm":
        return t * 0, 2 * t
    if schedule == "flow":
        return -1 / (1 - t), 2 * t / (1 - t)
    raise ValueError(f"euler_maruyama: schedule is {schedule!r}, wanted vp, edm or flow")


def euler_maruyama(x, x0, eps, t, s, z, num, c, schedule="vp", dt=None):
    """x + (f x - g^2 score) dt + g sqrt(-dt) z. (SDE eq. 6)"""
    f, g2 = drift(schedule, t.t, num)
    dt = num.real(s.t) - num.real(t.t) if dt is None else dt
    mean = x + (f * x + g2 / t.sigma * eps) * dt
    return mean if z is None else mean + _deviation(-g2 * dt, c, num) * z


def sde_dpmpp(x, x0, eps, t, s, z, num, c, order=2, tau="1", solver_rule="truncated", earlier=()):
    """The reverse SDE with its linear part exact, x0 constant or linear in lambda. (DPMPP sec. 5)"""
    tau = num.real(tau)
    if order not in (1, 2) or not tau >= 0:
        raise ValueError(f"sde_dpmpp: order {order!r} and tau {tau}, wanted 1 or 2, and tau >= 0")
    if s.sigma == 0:
        return s.alpha * x0
    rule = solver_rule if c.solver_rule == "given" else c.solver_rule
    h = lam(s, num) - lam(t, num)
    k = (1 + tau) * h
    made = s.sigma / t.sigma * num.exp(-tau * h) * x - s.alpha * num.expm1(-k) * x0
    if order == 2 and earlier:
        level, before, _ = earlier[0]
        weight = -h * num.expm1(-k) / 2 if rule == "truncated" else polynomials.decaying(k, 2, num)[1] / (1 + tau)
        made = made + s.alpha * weight * (x0 - before) / (lam(t, num) - lam(level, num))
    return made if z is None or tau == 0 else made + _deviation(-s.var * num.expm1(-2 * tau * h), c, num) * z


def gamma(sigma, steps, num, c, S_churn="0", S_tmin="0", S_tmax=None):
    """How much noise EDM's sampler adds before a step from sigma. (EDM alg. 2)"""
    if not num.real(S_tmin) <= sigma or S_tmax is not None and not sigma <= num.real(S_tmax):
        return num.real(0)
    grown = num.real(S_churn) / steps
    return min(grown, num.sqrt(num.real(2)) - 1) if c.churn_cap != "none" else grown
