"""DPM-Solver++: the PF-ODE in x0, its linear part exact, the integral of e^lambda x0 by orders 1 to 3."""
from .exponential import solve


def dpmpp(denoiser, grid, x, order=2, form="multi", rule=None, r1=None, r2=None, start=None, lower_order_final=None):
    """DPM-Solver++ of order 1, 2 or 3, single-step (1, 2S, 3S) or multistep (1, 2M, 3M).

    Steps of the first two orders are x_t = sigma_t/sigma_s x - alpha_t (e^-h - 1) D, h = lambda_t - lambda_s;
    order=1 has D = x0_s, which is DDIM with eta = 0.

    form="multi", order=2: D = x0_s + (x0_s - x0_before)/(2 r), r = h_before/h. [DPMPP alg. 2]

    form="single", order=2: u = sigma_s1/sigma_s x - alpha_s1 (e^(-r1 h) - 1) x0_s at lambda_s + r1 h, with r1 = 1/2,
    and D = x0_s + (x0(u) - x0_s)/(2 r1). [DPMPP alg. 1]

    form="multi", order=3: the integral of e^lambda times the parabola through the last three x0. [DPMPP sec. 4.2]
    It is in the authors' code alone, and there half of the second derivative is missing, so that it has order 2 (2.0
    observed at 1024 steps): that is rule="truncated".

    form="single", order=3: DPM-Solver-3's step in x0, with e^-h for e^h and x0 for eps (authors' code).

    Order k holds from 64 steps on. 3M reaches 3 with start="single", and 2 with the papers' start, whose first step
    is of first order: seen at 4096 steps; on a Karras grid its constant is so small that 256 to 512 steps show 2.4.

    rule               "truncated" as published, "exact" integrates the polynomial through the predictions exactly
                       (elsewhere solver_type "dpmsolver" or "midpoint", and "taylor" or "heun"). Default: truncated,
                       but exact for 3M.
    r1, r2             where a single-step step evaluates; third order needs r2 = 2/3, the default, with either rule.
    start              multistep, while there are too few steps before: "lower", the paper's, takes the order that
                       there is; "single" takes a single-step step of the full order.
    lower_order_final  multistep: whether the last step is of order 1 and the one before of at most 2. "paper": with
                       fewer than 15 steps (so the authors' documentation; their code, 10); "always" caps the
                       observed order of 3M at 2; "never".

    order may be one number per step with form "single", as `dpm.budget` gives. Evaluations: single-step order k takes
    k per step, multistep 1, and k in each of its k-1 first steps with start="single". A step to sigma = 0 is of first
    order, the denoised x0, and so is a step from alpha = 0, which needs a prediction that determines x0 there; each
    evaluates once. Single-step steps need a grid that names its family. No noise is drawn.

    x[n, ...] is noise at grid.level(0). Yields a State per step, with the prediction at its start.
    """
    return solve("dpmpp", "x0", denoiser, grid, x, order, form, rule, r1, r2, start, lower_order_final)
