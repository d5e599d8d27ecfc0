"""Weights of the loss, terms of the bound, Adam, moving averages, clipping and learning rates."""
from .build import build, numbers
from .process import levels

WEIGHTS = [("simple", {}, "DDPM eq. 14"), ("min_snr", {"gamma": "5"}, "MINSNR sec. 3.4"),
           ("soft_min_snr", {"gamma": "4"}, "HDIT"), ("p2", {"k": "1", "gamma": "0.5"}, "P2 sec. 3"),
           ("edm", {"sigma_data": "0.5"}, "EDM table 1"), ("sigmoid", {"bias": "2"}, "VDMPP"),
           ("truncated_snr", {}, "PD sec. 4"), ("snr_plus_one", {}, "PD sec. 4")]


def _weights():
    for weight, options, tag in WEIGHTS:
        for kind in ("eps", "x0", "v"):
            for snr in ("1e-4", "4", "1e4"):
                alpha, sigma = levels(snr)
                accept = [{"min_snr_v": "snr+1"}] if (weight, kind) == ("min_snr", "v") else []
                yield build(f"loss/weight/{weight}/{kind}/snr{snr}", "loss_weight", {
                    "weight": weight, "kind": kind, "alpha": alpha, "sigma": sigma, **options}, tag,
                    ("snr_meaning", "min_snr_v"), accept)
    for what, change in (("no-level", {"alpha": "0", "sigma": "0"}), ("gamma0", {"gamma": "0"}),
                         ("unknown", {"weight": "nosuch"})):
        yield build(f"loss/weight/invalid/{what}", "loss_weight", {
            "weight": "min_snr", "kind": "eps", "alpha": "0.6", "sigma": "0.8", **change}, "MINSNR sec. 3.4",
            invalid=True)


def _greys(seed, shape):
    """Whole grey levels in [-1, 1] as the shortest decimals of their float64 numbers."""
    return [[repr(round((float(v) + 2) / 4 * 255) / 127.5 - 1) for v in row] for row in numbers(seed, shape)]


def _bounds():
    for schedule in ("linear", "cosine", "scaled_linear"):
        yield build(f"bound/prior/{schedule}", "bound_prior", {"x0": numbers(3, (2, 3), -1, 1), "schedule": schedule,
                                                               "T": 1000}, "DDPM eq. 5", ("bound_unit",),
                    operations=30)
    for kind in ("small", "large"):
        for t in (2, 500, 1000):
            yield build(f"bound/term/{kind}/at{t}", "bound_term", {
                "x0": numbers(t, (2, 3), -1, 1), "x_t": numbers(t + 1, (2, 3)), "x0_hat": numbers(t + 2, (2, 3), -1, 1),
                "schedule": "linear", "T": 1000, "t": t, "kind": kind}, "DDPM eq. 5",
                ("bound_unit", "variance", "index_base"))
        for t in (1, 2, 1000):
            yield build(f"bound/log_variance/{kind}/at{t}", "bound_log_variance", {
                "schedule": "linear", "T": 1000, "t": t, "kind": kind}, "DDPM sec. 3.2", ("first_variance",),
                [{"first_variance": "tiny"}] if t == 1 and kind == "small" else [])
    for out in ("-1", "0.3", "1"):
        for t in (1, 300):
            yield build(f"bound/log_variance/learned{out}/at{t}", "bound_log_variance", {
                "schedule": "cosine", "T": 1000, "t": t, "kind": "learned", "out": out}, "IDDPM eq. 15",
                ("first_variance",), [{"first_variance": "tiny"}] if t == 1 and out != "1" else [])
    for name, log_var in (("narrow", "-9.8"), ("middle", "-6"), ("wide", "0")):
        x0 = _greys(5, (2, 3))
        mean = [[f"{float(v) + float(d) / 100:.4f}" for v, d in zip(*rows)] for rows in zip(x0, numbers(6, (2, 3)))]
        yield build(f"bound/decoder/{name}", "bound_decoder", {"x0": x0, "mean": mean, "log_var": log_var},
                    "DDPM eq. 13", ("decoder_cdf", "bound_unit"), [{"decoder_cdf": "tanh"}], operations=30)
    yield build("bound/decoder/edges", "bound_decoder", {"x0": [["-1", "1"]], "mean": [["-1.01", "0.98"]],
                                                         "log_var": "-8"}, "DDPM eq. 13",
                ("decoder_cdf", "bound_unit"), operations=30)
    yield build("bound/decoder/invalid/outside", "bound_decoder", {"x0": [["-1.5", "1"]], "mean": [["0", "0"]],
                                                                   "log_var": "0"}, "DDPM eq. 13", invalid=True)


def _optimiser():
    for name, steps, options, accept in (
            ("first", 1, {}, []), ("ten", 10, {}, []), ("betas", 5, {"beta1": "0.5", "beta2": "0.99"}, []),
            ("decay", 5, {"weight_decay": "0.01", "lr": "0.01"}, [{"weight_decay": "rate"}]),
            ("schedule", 3, {"rates": ["0.001", "0.002", "0.0005"], "lr": "0.002", "weight_decay": "0.1"},
             [{"weight_decay": "rate"}]),
            ("large-epsilon", 3, {"eps": "0.1"}, [{"adam_epsilon": "inside"}, {"adam_epsilon": "uncorrected"}]),
            ("no-momentum", 3, {"beta1": "0"}, [])):
        yield build(f"adamw/{name}", "adamw", {
            "theta": numbers(1, (4,)), "grads": [numbers(10 + i, (4,)) for i in range(steps)], **options},
            "ADAMW alg. 2" if "decay" in name or name == "schedule" else "ADAM alg. 1",
            ("adam_epsilon", "bias_correction", "weight_decay"), accept, operations=10 * steps)
    for what, options in (("lr-0", {"lr": "0"}), ("beta-1", {"beta2": "1"}),
                          ("decay-negative", {"weight_decay": "-1"})):
        yield build(f"adamw/invalid/{what}", "adamw", {"theta": ["1"], "grads": [["1"]], **options}, "ADAM alg. 1",
                    invalid=True)
    for decay in ("0", "0.9", "0.9999", "1"):
        yield build(f"ema/fixed/decay{decay}", "ema", {"average": numbers(2, (4,)), "theta": numbers(3, (4,)),
                                                       "decay": decay}, "CM eq. 8", ("ema_weights",))
    for step in (0, 10, 100000):
        yield build(f"ema/warmed/update{step}", "ema", {"average": numbers(2, (4,)), "theta": numbers(3, (4,)),
                                                        "decay": "0.9999", "step": step}, "CM eq. 8",
                    ("ema_warmup", "ema_weights"), [{"ema_warmup": "no"}] if step < 89990 else [])
    yield build("ema/invalid/decay-above-1", "ema", {"average": ["1"], "theta": ["2"], "decay": "1.5"}, "CM eq. 8",
                invalid=True)
    for name, norm in (("inside", "100"), ("clipped", "1"), ("hard", "0.001")):
        yield build(f"clip/{name}", "clip", {"grad": numbers(4, (5,)), "max_norm": norm}, "PASCANU alg. 1",
                    ("clip_kind", "clip_epsilon"), [{"clip_epsilon": "1e-6"}] if name != "inside" else [])
    yield build("clip/tiny", "clip", {"grad": [f"{v}e-5" for v in numbers(4, (5,))], "max_norm": "0.000001"},
                "PASCANU alg. 1", ("clip_kind", "clip_epsilon"), [{"clip_epsilon": "1e-6"}])
    yield build("clip/invalid/norm-0", "clip", {"grad": ["1"], "max_norm": "0"}, "PASCANU alg. 1", invalid=True)
    for step, warmup, floor in ((0, 0, "0"), (0, 100, "0"), (99, 100, "0"), (100, 100, "0"), (550, 100, "0"),
                                (999, 100, "0.0001"), (1000, 0, "0.0001"), (333, 0, "0")):
        yield build(f"learning_rate/at{step}/warmup{warmup}/floor{floor}", "learning_rate", {
            "step": step, "steps": 1000, "peak": "0.002", "warmup": warmup, "floor": floor}, "SGDR eq. 5",
            ("warmup_offset",), [{"warmup_offset": "0"}] if step < warmup else [])
    for what, change in (("beyond", {"step": 1001}), ("floor-above-peak", {"floor": "1"})):
        yield build(f"learning_rate/invalid/{what}", "learning_rate", {
            "step": 5, "steps": 1000, "peak": "0.002", **change}, "SGDR eq. 5", invalid=True)


def cases():
    """The cases of the family, for store.make."""
    return [*_weights(), *_bounds(), *_optimiser()]
