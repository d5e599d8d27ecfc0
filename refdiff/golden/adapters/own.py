"""refdiff itself under the names that golden cases ask for: the example of an adapter with every scalar method.

Only names are translated here: each method finds refdiff's function and hands the arguments over. An adapter of ten
lines has one such method; refdiff/golden/adapter.py says what may be left out.
"""
import numpy as np

from ... import __version__
from ...distill.consistency import boundary
from ...guidance.free import beyond, rescaled
from ...guidance.threshold import dynamic, static
from ...metrics.frechet import distance
from ...optim import AdamW, clip_by_global_norm, ema_decay, ema_update, learning_rate as rate_of
from ...process import bound, gaussian, grids
from ...process import weights as losses
from ...process.families import VP, Flow, VarianceExploding
from ...process.family_grids import shifted_flow, uniform_lambda, uniform_time
from ...process.level import Level, ve
from ...process.parameterization import Prediction
from ...process.schedules import SCHEDULES, zero_terminal_snr
from ...samplers import SAMPLERS, exponential, run
from ...samplers.deis import lambda_weights, time_moments
from ...samplers.lms import weights as lms_weights
from ...samplers.multistep import add, first_order, solve
from ...samplers.plms import weights as plms_weights
from ...samplers.sde_dpmpp import coefficients, slope_weight
from ...samplers.unipc import weights as unipc_weights
from ._own_arrays import METHODS

name, version, prediction = "refdiff", __version__, "eps"
FAMILIES = {"edm": VarianceExploding(), "flow": Flow(), "vp": VP()}
SIGMAS = {"karras": grids.karras, "exponential": grids.exponential, "polyexponential": grids.polyexponential}


# ---- schedules and grids

def _schedule(name, T, zero_terminal=False, **params):
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r}, wanted one of {', '.join(SCHEDULES)}")
    made = SCHEDULES[name](T, **params)
    return zero_terminal_snr(made) if zero_terminal else made


def schedule(name, T, **params):
    """beta, abar and 1 - abar at t = 0..T."""
    made = _schedule(name, T, **params)
    return {"beta": made.beta, "alpha_bar": made.alpha_bar, "one_minus_alpha_bar": made.one_minus_alpha_bar}


def _grid(schedule, T, rule, steps, final, end=0.001, start=1.0, shift=1.0, power=1.0, **params):
    if schedule not in FAMILIES:
        return grids.discrete(_schedule(schedule, T), steps, rule, final)
    family, ending = FAMILIES[schedule], "zero" if final == "zero" else None
    if rule in SIGMAS and schedule == "edm":
        return SIGMAS[rule](steps + (final == "none"), final=0.0 if final == "zero" else None, **params)
    if rule == "uniform_lambda":
        return uniform_lambda(family, steps, end, start, ending)
    if rule == "uniform" and schedule == "flow" and start == 1:
        return shifted_flow(steps, shift, power, end)
    if rule == "uniform":
        return uniform_time(family, steps, end, start, power, ending)
    raise ValueError(f"grid: rule is {rule!r} for schedule {schedule!r}")


def grid(schedule, T, rule, steps, final, **params):
    """t, abar and sigma in visiting order."""
    made = _grid(schedule, T, rule, steps, final, **params)
    return {"t": made.t, "alpha_bar": made.alpha ** 2, "sigma": made.sigma}


def _level(schedule, T, t):
    return FAMILIES[schedule].level(t) if schedule in FAMILIES else _schedule(schedule, T).level(t)


# ---- the process

def q_sample(x0, eps, alpha, sigma):
    return gaussian.q_sample(x0, eps, Level(0, alpha, sigma))


def posterior(x0, x_t, schedule, T, t, s=None, variance="small"):
    made = _schedule(schedule, T)
    s, t = made.level(t - 1 if s is None else s), made.level(t)
    return {"mean": gaussian.posterior_mean(x0, x_t, s, t), "variance": gaussian.fixed_variance(variance, s, t)}


def convert(kind, to, value, x, alpha, sigma, sigma_data=None):
    return Prediction(kind, value, x, Level(0, alpha, sigma), sigma_data).to(to, sigma_data).value


# ---- one step

def step(sampler, schedule, T, t, s, x, prediction, kind="eps", noise=None, prediction_s=None, predictions_inside=(),
         earlier_t=(), earlier=(), steps=1, clip=None, percentile=None, keep_eps=False, **options):
    """x at time s. Multistep methods by their weights, the others as a trajectory of one step."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}, wanted one of {', '.join(SAMPLERS)}")
    here, there = _level(schedule, T, t), _level(schedule, T, s)
    said = Prediction(kind, prediction, x, here)
    if sampler in MULTISTEP:
        order, options["family"] = options.get("order", len(earlier) + 1), FAMILIES.get(schedule)
        if not 1 <= order <= len(earlier) + 1:
            raise ValueError(f"{sampler}: order {order} with {len(earlier)} predictions before")
        return MULTISTEP[sampler](said, here, there, [_level(schedule, T, u) for u in earlier_t], list(earlier),
                                  options, prediction_s, noise)

    inside = iter(predictions_inside)

    def denoiser(x, level):
        value = prediction_s if level == there else next(inside) if sampler == "dpm" and level != here else prediction
        return Prediction(kind, value, x, level)

    if clip is not None:
        eps = "kept" if keep_eps else "derived"
        denoiser = (static(denoiser, clip, eps) if percentile is None else dynamic(denoiser, percentile, clip, eps=eps))
    if schedule in FAMILIES:
        made = grids.on(FAMILIES[schedule], [t, s])
    else:
        made = grids.at_times(_schedule(schedule, T), [t, s])
    if "solver_rule" in options:
        options["rule"] = options.pop("solver_rule")
    if sampler == "churn":
        options["S_churn"] = options["S_churn"] / steps
    if sampler in ("reverse_diffusion", "ancestral", "euler_maruyama") and noise is not None:
        options["end"] = "noise"
    if sampler in ("ddpm", "ddim", "euler_ancestral") and noise is not None:
        return _noisy_step(sampler, denoiser, made, x, noise, options)
    if sampler in ("churn", "reverse_diffusion", "ancestral", "euler_maruyama"):
        options["noise"] = lambda i: noise
    return run(SAMPLERS[sampler](denoiser, made, x, **options))


def _noisy_step(sampler, denoiser, made, x, noise, options):
    """These samplers add no noise in the last step: the step of interest is the first of two, the second repeats s."""
    t, s = made.level(0), made.level(1)
    nearer = Level(s.t, s.alpha, s.sigma * (1 - 1e-6))
    two = grids.Grid(*(np.array([getattr(level, name) for level in (t, s, nearer)])
                       for name in ("t", "alpha", "sigma")), made.rule)
    return next(iter(SAMPLERS[sampler](denoiser, two, x, noise=lambda i: noise, **options))).x


def _dpmpp(said, t, s, levels, values, options, prediction_s, noise):
    if s.sigma == 0:
        return exponential.first(said.x, said, t, s)
    order = options["order"]
    rule = options.get("solver_rule", "exact" if order == 3 else "truncated")
    return exponential.multi("x0", said.x, t, s, said.x0, [(level.lam, v) for level, v in zip(levels, values)], rule)


def _eps_polynomial(weights):
    def stepped(said, t, s, levels, values, options, prediction_s, noise):
        x = first_order(said, s)
        return add(x, s, weights(t, s, levels), values, said.eps) if values else x
    return stepped


def _deis(said, t, s, levels, values, options, *rest):
    def time_weights(t, s, earlier):
        return solve([level.t - t.t for level in earlier], time_moments(options["family"], t, s, len(earlier)))

    weights = {"rho": lms_weights, "lambda": lambda_weights, "t": time_weights}[options["variable"]]
    return _eps_polynomial(weights)(said, t, s, levels, values, options, *rest)


def _unipc(said, t, s, levels, values, options, prediction_s, noise):
    base = first_order(said, s)
    if s.sigma == 0:
        return base
    if prediction_s is not None:
        levels, values = [s, *levels], [prediction_s, *values]
    return add(base, s, unipc_weights("x0", t, s, levels, options["B"]), values, said.x0) if values else base


def _sde_dpmpp(said, t, s, levels, values, options, prediction_s, noise):
    on_x, on_x0, std, h = coefficients(s, t, options["tau"])
    x = on_x * said.x + on_x0 * said.x0
    if values and s.sigma > 0:
        weight = slope_weight(options.get("solver_rule", "truncated"), s.alpha, h, options["tau"])
        x = x + weight / (t.lam - levels[0].lam) * (said.x0 - values[0])
    return x if noise is None else x + std * noise


MULTISTEP = {"dpmpp": _dpmpp, "lms": _eps_polynomial(lms_weights), "plms": _eps_polynomial(plms_weights),
             "deis": _deis, "unipc": _unipc, "sde_dpmpp": _sde_dpmpp}


# ---- whole trajectories

def trajectory(sampler, schedule, T, steps, rule, final, x, denoiser, noise=None, grid_options=None, states=False,
               **options):
    """x at the end, or after every step."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}, wanted one of {', '.join(SAMPLERS)}")
    made = _grid(schedule, T, rule, steps, final, **(grid_options or {}))
    if "solver_rule" in options:
        options["rule"] = options.pop("solver_rule")
    if sampler == "plms":
        options["start"] = "lower"
    if sampler in NOISY:
        options["noise"] = noise
    if sampler == "dpmpp" and options["order"] == 1:
        options = {"order": 1}
    visited = [state.x for state in SAMPLERS[sampler](
        lambda x, level: Prediction(prediction, denoiser(x, level.t), x, level), made, x, **options)]
    return {"states": np.stack(visited)} if states else {"x": visited[-1]}


NOISY = ("ddpm", "ddim", "sde_dpmpp", "euler_ancestral", "churn", "reverse_diffusion", "ancestral", "euler_maruyama")


# ---- training

def loss_weight(weight, kind, alpha, sigma, **options):
    if weight not in losses.WEIGHTS:
        raise ValueError(f"weight {weight!r}, wanted one of {', '.join(losses.WEIGHTS)}")
    level = Level(0, alpha, sigma)
    return losses.convert(losses.WEIGHTS[weight](level, **options), kind, level)


def bound_prior(x0, schedule, T):
    return bound.prior_bits(x0, _schedule(schedule, T))


def bound_log_variance(schedule, T, t, kind="small", out=None):
    small, large = bound.log_variances(_schedule(schedule, T), np.array([t]))
    if kind == "learned":
        return bound.learned_log_variance(np.array([[out]]), small, large)[0, 0]
    return bound.fixed_log_variance(kind, _schedule(schedule, T), np.array([t]))[0]


def bound_term(x0, x_t, x0_hat, schedule, T, t, kind="small", out=None):
    log_var = bound_log_variance(schedule, T, t, kind, out)
    times = np.full(len(x0), t)
    return bound.term_bits(_schedule(schedule, T), times, x0, x_t, x0_hat, np.full(len(x0), log_var))


def bound_decoder(x0, mean, log_var, levels=256):
    return bound.bits(bound.bin_nats(x0, mean, log_var, levels=levels))


def adamw(theta, grads, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, rates=None):
    optimiser = AdamW(lr, beta1, beta2, eps, weight_decay)
    theta = theta.copy()
    state = optimiser.init(theta)
    for i, grad in enumerate(grads):
        optimiser.update(state, theta, grad, None if rates is None else rates[i])
    return {"theta": theta, "m": state.m, "v": state.v}


def ema(average, theta, decay, step=None):
    average = average.copy()
    ema_update(average, theta, decay if step is None else ema_decay(step, decay))
    return average


def clip(grad, max_norm):
    grad = grad.copy()
    norm = clip_by_global_norm(grad, max_norm)
    return {"grad": grad, "norm": norm}


def learning_rate(step, steps, peak, warmup=0, floor=0.0):
    return rate_of(step, steps, peak, warmup, floor)


# ---- consistency functions, guidance, Frechet distance

def consistency_boundary(sigma, sigma_min, sigma_data):
    if sigma < sigma_min:
        raise ValueError(f"consistency: sigma is {sigma}, wanted >= {sigma_min}")
    c_skip, c_out = boundary(sigma, sigma_min, sigma_data)
    return {"c_skip": c_skip, "c_out": c_out}


def consistency_multistep(sigmas, x, noise, network, sigma_min, sigma_data):
    def f(x, sigma):
        c_skip, c_out = boundary(sigma, sigma_min, sigma_data)
        return c_skip * x + c_out * network(x, sigma)
    return run(SAMPLERS["consistency"](f, sigmas, x, sigma_min, noise))


def threshold(x0, percentile=0.995, limit=1.0, cap=None):
    kept = dynamic(lambda x, level: Prediction("x0", x, x, level), percentile, limit, cap, "kept")
    return kept(x0, ve(1.0)).x0


def guidance(conditional, unconditional, scale, rescale=0.0):
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance: rescale is {rescale}, wanted 0..1")
    level = ve(1.0)
    c, u = (Prediction("eps", value, conditional, level) for value in (conditional, unconditional))
    guided = beyond(c, u, scale - 1, conditional, level).value
    return rescaled(guided, conditional, rescale) if rescale else guided


def frechet(a, b):
    return distance(a, b)


# ---- operations, blocks and networks

globals().update(METHODS)
