"""The choices on which papers and code differ, by name: what they are called, what they can be, which is the papers'.

    Convention("final_alpha", ("one", "abar_0", "abar_1"), "one", ...)

refdiff/golden/reference computes every scalar operation under any of them (`answer(operation, inputs, **conventions)`),
so that an audit can say "agrees to 15 digits with final_alpha=abar_0". A case's flags are names of conventions. Times
are the papers', t = 1..T; what implementations call index 0 is t = 1. `published` lists the values that a paper or a
widely used implementation has; the others are mistakes that are made.
"""
from dataclasses import dataclass
from types import SimpleNamespace


@dataclass(frozen=True)
class Convention:
    """A choice: its values, the papers' default, what it is about, and the operations in which it matters."""

    name: str
    values: tuple
    default: str
    says: str
    operations: tuple
    mistakes: tuple = ()            # those of the values that nobody published

    @property
    def published(self):
        return tuple(value for value in self.values if value not in self.mistakes)

    @property
    def others(self):
        """The values that are not the papers'."""
        return tuple(value for value in self.values if value != self.default)


LEVELS = ("grid", "posterior", "step", "trajectory")
MOVES = ("step", "trajectory")
NETWORK = ("network",)

CONVENTIONS = (
    # ---- tables of noise
    Convention("schedule_ends", ("given", "scaled"), "given",
               "beta's two ends as they are given, or times 1000/T", ("schedule", *LEVELS)),
    Convention("schedule_spacing", ("beta", "sqrt_beta"), "beta",
               "linear in beta, or in sqrt(beta), which latent diffusion calls linear", ("schedule", *LEVELS)),
    Convention("cosine_clip", ("0.999", "none", "0.01..0.99"), "0.999",
               "where the betas of the cosine schedule are cut", ("schedule", *LEVELS)),
    Convention("table_dtype", ("float64", "float32"), "float64",
               "the precision of beta and abar: in float32 1 - abar has four digits at small t", ("schedule", *LEVELS)),
    Convention("index_base", ("t", "t+1", "t-1"), "t",
               "which entry of the table stands for time t: abar_t, one later, or one earlier", LEVELS,
               ("t+1", "t-1")),
    Convention("final_alpha", ("one", "abar_0", "abar_1"), "one",
               "abar of the level to end on: 1, the table's entry 0 (the papers' abar_1), or its entry 1", LEVELS,
               ("abar_1",)),
    # ---- times
    Convention("spacing", ("given", "leading", "stride", "trailing", "linspace", "quadratic"), "given",
               "the rule that chooses the times, whatever was asked for", ("grid", "trajectory")),
    Convention("rounding", ("own", "even", "floor", "up", "ceil"), "own",
               "how times become integers: halves to even, down, halves up, up; own: the rule's",
               ("grid", "trajectory")),
    Convention("steps_offset", ("0", "1"), "0",
               "added to all times of leading and stride, as some configurations do", ("grid", "trajectory")),
    Convention("stepping", ("visited", "stride"), "visited",
               "a step ends on the level visited next, or T // S times below its own, whatever is visited next",
               ("trajectory",)),
    Convention("rho_placement", ("power", "inverse"), "power",
               "Karras levels interpolate sigma^(1/rho), or, by mistake, sigma^rho", ("grid", "trajectory"),
               ("inverse",)),
    Convention("final_sigma", ("given", "zero", "none"), "given",
               "whether sigma = 0 is appended to the levels, whatever was asked for", ("grid", "trajectory")),
    Convention("time_label", ("t", "t-1", "t+1", "next", "scaled"), "t",
               "what the network is told, in the papers' count: t; one less or more; the next level's; t 1000/T",
               ("trajectory",), ("t-1", "t+1", "next")),
    # ---- what the network says
    Convention("prediction", ("given", "eps", "x0", "v", "score", "velocity"), "given",
               "what the prediction is taken for, whatever was asked for", MOVES),
    Convention("prediction_sign", ("+", "-"), "+",
               "v and velocity with the other sign: velocity towards data is x0 - eps", (*MOVES, "convert")),
    Convention("clip", ("none", "1"), "none", "whether the predicted x0 is clipped to -1..1", MOVES),
    Convention("rederive_eps", ("yes", "no"), "yes",
               "whether eps is derived anew from a clipped x0, or kept", MOVES),
    Convention("x0_from", ("own", "sigma_s", "alpha_s"), "own",
               "x0 = (x - sigma eps)/alpha with both of the level that x has, or one of them of the level that the "
               "step goes to", MOVES, ("sigma_s", "alpha_s")),
    # ---- steps
    Convention("variance", ("given", "small", "large"), "given",
               "the variance of a DDPM step, whatever was asked for: beta-tilde or beta", (*MOVES, "posterior")),
    Convention("variance_meaning", ("std", "variance", "none"), "std",
               "noise is multiplied by sqrt(variance), by the variance itself, or left out", MOVES,
               ("variance", "none")),
    Convention("eta_meaning", ("std", "variance", "large"), "std",
               "eta multiplies the standard deviation, the variance, or the larger one sqrt(beta)", MOVES,
               ("variance",)),
    Convention("direction", ("rest", "full"), "rest",
               "DDIM's eps is weighted by sqrt(sigma_s^2 - std^2), or by sigma_s although noise is added", MOVES,
               ("full",)),
    Convention("ddim_levels", ("s", "alpha_t", "sigma_t"), "s",
               "DDIM's alpha_s x0 + sqrt(sigma_s^2 - std^2) eps with both of the level that the step goes to, or one "
               "of them of the level t that it starts from", MOVES, ("alpha_t", "sigma_t")),
    Convention("last_step_noise", ("none", "added"), "none",
               "whether the last step adds noise", ("trajectory",), ("added",)),
    Convention("noise_index", ("step", "used", "next", "reversed"), "step",
               "which draw a step takes: its own, counted over all steps; the next unused one, where some steps draw "
               "none; the next step's; from the last one backwards", ("trajectory",), ("next", "reversed")),
    Convention("initial_scale", ("given", "sigma_max", "sqrt(sigma_max^2+1)"), "given",
               "what noise is multiplied by to start from, in the form x/alpha: what the level asks for, sigma_max or "
               "sqrt(sigma_max^2+1), which differ by a factor sigma where alpha^2 + sigma^2 = 1", ("trajectory",)),
    Convention("heun_last", ("euler", "mean"), "euler",
               "Heun's step to sigma = 0 is Euler's, or takes the slope there for 0", MOVES, ("mean",)),
    Convention("multistep_ratio", ("h_before/h", "h/h_before"), "h_before/h",
               "r of DPM-Solver++(2M), upside down by mistake", MOVES, ("h/h_before",)),
    Convention("start", ("lower", "improved_euler"), "lower",
               "PLMS begins with orders 1, 2, ..; or with improved Euler: the second time is told twice",
               ("trajectory",)),
    Convention("lower_order_final", ("given", "paper", "always", "never"), "given",
               "whether a multistep method ends on lower orders, whatever was asked for", ("trajectory",)),
    Convention("solver_rule", ("given", "truncated", "exact"), "given",
               "the slope's integral: phi_1/2 as published, or phi_2, exact on lines", MOVES),
    Convention("B", ("given", "B1", "B2"), "given", "B(h) of UniPC: h, or e^h - 1", MOVES),
    Convention("corrector", ("given", "paper", "every", "never"), "given", "which steps UniPC corrects",
               ("trajectory",)),
    Convention("churn_cap", ("sqrt(2)-1", "none"), "sqrt(2)-1", "the cap of gamma in EDM's stochastic sampler", MOVES,
               ("none",)),
    Convention("maruyama_dt", ("spacing", "T/N"), "spacing", "dt of Euler-Maruyama", ("trajectory",)),
    # ---- losses, bounds
    Convention("snr_meaning", ("squared", "ratio", "half_log"), "squared",
               "SNR is alpha^2/sigma^2, alpha/sigma, or log(alpha/sigma)", ("loss_weight",), ("half_log",)),
    Convention("min_snr_v", ("snr", "snr+1"), "snr",
               "Min-SNR's weight of a v prediction: min(SNR, g)/(SNR + 1) or min(SNR + 1, g)/(SNR + 1)",
               ("loss_weight",)),
    Convention("first_variance", ("next", "tiny"), "next",
               "log beta-tilde_1 = log 0 is replaced by log beta-tilde_2, or by log 1e-20",
               ("bound_log_variance",)),
    Convention("bound_unit", ("bits", "nats"), "bits", "bits per dimension, or nats",
               ("bound_prior", "bound_term", "bound_decoder")),
    Convention("decoder_cdf", ("exact", "tanh"), "exact",
               "the normal distribution function of the decoder, or its approximation by tanh", ("bound_decoder",)),
    # ---- consistency
    Convention("boundary", ("shifted", "unshifted"), "shifted",
               "c_skip and c_out with sigma - sigma_min, or with sigma", ("consistency_boundary",
                                                                          "consistency_multistep")),
    Convention("renoise", ("sqrt(tau^2-min^2)", "tau"), "sqrt(tau^2-min^2)",
               "the noise added between the steps of consistency sampling", ("consistency_multistep",), ("tau",)),
    # ---- optimiser and averages
    Convention("adam_epsilon", ("outside", "inside", "uncorrected"), "outside",
               "sqrt(vhat) + eps; sqrt(vhat + eps); or sqrt(v) + eps before the correction", ("adamw",)),
    Convention("bias_correction", ("t", "none", "t-1"), "t", "1 - beta^t with t = 1, 2, ..; none; one behind",
               ("adamw",), ("none", "t-1")),
    Convention("weight_decay", ("paper", "rate", "coupled"), "paper",
               "theta shrinks by eta lambda, by lr lambda, or lambda theta is added to the gradient", ("adamw",)),
    Convention("ema_warmup", ("yes", "no"), "yes", "min(decay, (1 + n)/(10 + n)), or the decay alone", ("ema",)),
    Convention("ema_weights", ("decay", "1-decay"), "decay", "the decay multiplies the average, or by mistake theta",
               ("ema",), ("1-decay",)),
    Convention("clip_epsilon", ("0", "1e-6"), "0", "added to the norm that a gradient is divided by", ("clip",)),
    Convention("clip_kind", ("norm", "value"), "norm", "the global norm is clipped, or every entry", ("clip",)),
    Convention("warmup_offset", ("1", "0"), "1", "warm-up at update 0 is 1/warmup of the peak, or 0",
               ("learning_rate",)),
    # ---- guidance, Frechet distance
    Convention("guidance_scale", ("s", "w"), "s", "u + s (c - u), or (1 + w) c - w u: s = 1 + w", ("guidance",)),
    Convention("covariance_divisor", ("n-1", "n"), "n-1", "of the covariances that are compared", ("frechet",)),
    Convention("frechet_power", ("squared", "root"), "squared", "d^2, as FID reports, or d", ("frechet",)),
    # ---- networks and their parts; reference/networks.py computes them, "given" being what a case's settings say
    Convention("embedding_order", ("given", "sin_cos", "cos_sin"), "given",
               "the two halves of a time embedding", ("block_time", "op_sinusoid", *NETWORK)),
    Convention("embedding_half", ("given", "half-1", "half"), "given",
               "what the exponents of its frequencies are divided by", ("block_time", "op_sinusoid", *NETWORK)),
    Convention("time_offset", ("0", "-1", "1"), "0", "added to the time before it is embedded",
               ("block_time", "op_sinusoid", *NETWORK), ("1",)),
    Convention("padding", ("given", "asymmetric", "symmetric"), "given",
               "of the convolution that halves an image: (0, 1) or (1, 1) zeros",
               ("block_down", "op_conv2d", *NETWORK)),
    Convention("norm_epsilon", ("given", "1e-6", "1e-5"), "given", "added to the variance by normalisation",
               ("block_res", "block_attention", "op_group_norm", "op_layer_norm", *NETWORK)),
    Convention("norm_groups", ("given", "half", "double"), "given",
               "half or twice as many groups of channels are normalised",
               ("block_res", "block_attention", "op_group_norm", *NETWORK), ("half", "double")),
    Convention("attention_scale", ("1/sqrt(d)", "1/d", "none"), "1/sqrt(d)", "what multiplies q k",
               ("block_attention", "op_attention", *NETWORK), ("1/d", "none")),
    Convention("layout", ("q|k|v", "per_head"), "q|k|v",
               "the channels of qkv: q, k, v with the heads within each, or heads with q, k, v within each",
               ("block_attention", *NETWORK)),
    Convention("gelu", ("exact", "tanh"), "exact", "GELU, or its approximation by tanh", ("op_gelu",)),
    Convention("upsample", ("nearest", "bilinear"), "nearest", "how the up path doubles its size",
               ("block_up", "block_res", "op_upsample", *NETWORK)),
)

BY_NAME = {convention.name: convention for convention in CONVENTIONS}


def of(operation):
    """The conventions that matter to an operation."""
    return tuple(c for c in CONVENTIONS if operation in c.operations)


def choose(**given):
    """All conventions as attributes: the papers' values, but for those given. Raises ValueError for unknown ones."""
    for name, value in given.items():
        if name not in BY_NAME:
            raise ValueError(f"conventions: {name!r} is none of {', '.join(BY_NAME)}")
        if value not in BY_NAME[name].values:
            raise ValueError(f"conventions: {name} is {value!r}, wanted one of {', '.join(BY_NAME[name].values)}")
    return SimpleNamespace(**{c.name: c.default for c in CONVENTIONS} | given)


def replaced(c, **given):
    """The same choices but for those given."""
    return choose(**(vars(c) | given))
