"""An implementation with one planted mistake is caught, and the message names what is wrong.

homemade.py is a small library that shares no code with refdiff. As it is, it passes. Each version below has one line
rewritten; the audit must fail it, and `names` must be in the cause of a failure for the mistake to count as named.
"""
import types
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from refdiff.golden import audit as auditing
from refdiff.golden.case import Case, tolerances
from refdiff.golden.reference.answer import answer
from refdiff.golden.store import load

SOURCE = (Path(__file__).parent / "homemade.py").read_text()

CAUGHT = ""             # caught, and told by its numbers: the registry has no convention for it

SPLIT = "split(kind, y, x, bar_t ** 0.5, (1 - bar_t) ** 0.5)"

# name, the line as it is, the line with the mistake, what the message must say
PLANTED = [
    ("t off by one, the table's next entry", "return self.bars[i] if i >= 0 else 1.0",
     "return self.bars[min(i + 1, self.T - 1)] if i >= 0 else 1.0", "index_base=t+1"),
    ("final alpha_bar is abar_0", "return self.bars[i] if i >= 0 else 1.0", "return self.bars[max(i, 0)]",
     "final_alpha=abar_0"),
    ("leading for trailing", 'if rule == "trailing":', 'if rule == "never":\n        pass\n    if rule == "trailing":\n'
     '        found = (np.arange(n) * T / n + 1e-9).astype(int)\n    elif rule == "other":', "spacing=leading"),
    ("rounding down", "np.round(np.arange(1, n + 1) * T / n).astype(int) - 1",
     "np.floor(np.arange(1, n + 1) * T / n).astype(int) - 1", "rounding=floor"),
    ("scaled linear for linear", 'table = np.linspace(params.get("beta_start", 1e-4), params.get("beta_end", 0.02), T)',
     'table = np.linspace(params.get("beta_start", 1e-4) ** .5, params.get("beta_end", 0.02) ** .5, T) ** 2',
     "schedule_spacing=sqrt_beta"),
    ("beta scaled by 1000/T", 'table = np.linspace(params.get("beta_start", 1e-4), params.get("beta_end", 0.02), T)',
     'table = np.linspace(params.get("beta_start", 1e-4), params.get("beta_end", 0.02), T) * 1000 / T',
     "schedule_ends=scaled"),
    ("variance large for small", '(small if variance == "small" else 1 - alpha) ** 0.5', "(1 - alpha) ** 0.5",
     "variance=large"),
    ("variance for the standard deviation", '(small if variance == "small" else 1 - alpha) ** 0.5',
     '(small if variance == "small" else 1 - alpha)', "variance_meaning=variance"),
    ("noise on the last step", "if random and not last else None", "if random else None", "last step"),
    ("the same noise in every step", "z = noise(k) if", "z = noise(0) if", "more than once"),
    ("a draw is skipped", "z = noise(k) if", "z = noise(k + 1) if", "noise_index=next"),
    ("x0 is clipped and eps kept", ("if limit is not None:", "eps = (x - a * x0) / s\n    return"),
     ("limit = limit or 1.0\n    if True:", "pass\n    return"), "clip=1, rederive_eps=no"),
    ("x0 is clipped unasked", "if limit is not None:", "limit = limit or 1.0\n    if True:", "clip=1"),
    ("v taken for eps", "x0, eps = (x - s * y) / a, y", "x0, eps = a * x - s * y, s * x + a * y", "prediction=v"),
    ("eta is ignored", "std = eta * small ** 0.5", "std = 0 * small ** 0.5", "no draw reaches the output"),
    ("eta multiplies the variance", "std = eta * small ** 0.5", "std = (eta * small) ** 0.5", "eta_meaning=variance"),
    ("direction keeps the full sigma", "(1 - bar_s - std ** 2) ** 0.5 * eps", "(1 - bar_s) ** 0.5 * eps",
     "direction=full"),
    ("x0 with the other level's sigma", SPLIT, SPLIT.replace("(1 - bar_t)", "(1 - bar_s)"), "x0_from=sigma_s"),
    ("x0 with the other level's alpha", SPLIT, SPLIT.replace("x, bar_t", "x, bar_s"), "x0_from=alpha_s"),
    ("eps with the other level's sigma", "(1 - bar_s - std ** 2) ** 0.5 * eps", "(1 - bar_t - std ** 2) ** 0.5 * eps",
     "ddim_levels=sigma_t"),
    ("x0 goes on with the other level's alpha", "mean = bar_s ** 0.5 * x0 + ", "mean = bar_t ** 0.5 * x0 + ",
     "ddim_levels=alpha_t"),
    ("the network is told t - 1", "y = network(x, i + 1)", "y = network(x, max(i, 1))", "time_label=t-1"),
    ("the network is told the next time", "y = network(x, i + 1)",
     "y = network(x, i + 1 if last else times[k + 1] + 1)", "time_label=next"),
    ("the start is scaled by sigma", "x = x * 1.0", "x = x * (1 - tables.bar(times[0])) ** .5",
     "initial_scale=sigma_max"),
    ("the start is scaled by 1/alpha", "x = x * 1.0", "x = x / tables.bar(times[0]) ** .5", "the initial scale"),
    ("another s of the cosine", 's = params.get("s", 0.008)', "s = 0.0", "s=0"),
    ("cosine without its clip", 'np.minimum(1 - f[1:] / f[:-1], params.get("beta_max", 0.999))',
     "np.minimum(1 - f[1:] / f[:-1], 1 - 1e-16)", "cosine_clip=none"),
    ("eps of Adam under the root", "(np.sqrt(v / (1 - b2 ** t)) + eps)", "np.sqrt(v / (1 - b2 ** t) + eps)",
     "adam_epsilon=inside"),
    ("weight decay by the gradient", ("for t, g in enumerate(grads, 1):", " - decay * theta\n"),
     ("for t, g in enumerate(grads, 1):\n        g = g + decay * theta", "\n"), "weight_decay=coupled"),
    ("bias correction one behind", "(m / (1 - b1 ** t)) / (np.sqrt(v / (1 - b2 ** t)) + eps)",
     "m / (np.sqrt(v) + eps)", "bias_correction=none"),
    ("EMA without its warm-up", "rate = decay if step is None else min(decay, (1 + step) / (10 + step))",
     "rate = decay", "ema_warmup=no"),
    ("EMA's weights exchanged", "return rate * average + (1 - rate) * theta",
     "return (1 - rate) * average + rate * theta", "ema_weights=1-decay"),
    ("guidance w for s", "return unconditional + scale * (conditional - unconditional)",
     "return (1 + scale) * conditional - scale * unconditional", "guidance_scale=w"),
    ("min-SNR of v", '"v": snr + 1}[kind]', '"v": snr + 1}[kind] if kind != "v" else min(snr + 1, gamma) / (snr + 1)',
     "min_snr_v="),
    ("SNR without its square", "snr = alpha ** 2 / sigma ** 2", "snr = alpha / sigma", "snr_meaning=ratio"),
    ("tables in float32", "return table.astype(np.float64)", "return table.astype(np.float32)", "float32"),
    ("sigma and alpha exchanged", "return alpha * x0 + sigma * eps", "return sigma * x0 + alpha * eps", "exchanged"),
    ("clipped entry by entry", "grad * min(1.0, max_norm / norm)", "np.clip(grad, -max_norm, max_norm)",
     "clip_kind=value"),
    ("EMA's warm-up is one update ahead", "min(decay, (1 + step) / (10 + step))",
     "min(decay, (2 + step) / (11 + step))", "step+1"),
    ("posterior variance is beta", '"variance": beta * (1 - before) / (1 - bar)}', '"variance": beta}',
     "variance=large"),
    ("posterior variance is upside down", '"variance": beta * (1 - before) / (1 - bar)}',
     '"variance": beta * (1 - bar) / (1 - before) if t > 1 else 0}', "variance is"),
    ("sigma is interpolated by sigma^rho",
     "(high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho",
     "np.append((high ** rho + ramp[:-1] * (low ** rho - high ** rho)) ** (1 / rho), low)", "rho_placement=inverse"),
    ("sigma is interpolated linearly", "(high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho",
     "high + ramp * (low - high)", "rho=1"),
    ("sigma is interpolated in its logarithm",
     "(high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho",
     "np.exp(np.log(high) + ramp * (np.log(low) - np.log(high)))", "rule=exponential"),
    ("another epsilon of group norm", "np.sqrt(variance + eps)).reshape", "np.sqrt(variance + 1e-5)).reshape",
     "norm_epsilon=1e-5"),
    ("the variance of group norm by n - 1", "variance = ((parts - mean) ** 2).mean((1, 3), keepdims=True)",
     "variance = parts.var((1, 3), keepdims=True, ddof=1)", CAUGHT),
    ("q and k are both divided by sqrt(d)", 'q * q.shape[-1] ** -0.5, k)',
     'q * q.shape[-1] ** -0.5, k * q.shape[-1] ** -0.5)', "attention_scale=1/d"),
    ("q k without its scale", 'q * q.shape[-1] ** -0.5, k)', 'q, k)', "attention_scale=none"),
    ("cos before sin", 'waves if first == "sin" else waves[::-1]', "waves[::-1]", "embedding_order=cos_sin"),
    ("frequencies divided by half", '(half - 1 if denominator == "half-1" else half)', "half", "embedding_half=half"),
    ("warm-up begins at 0", "return peak * (step + 1) / warmup", "return peak * step / warmup", "warmup_offset=0"),
]


def build(old=(), new=()):
    """homemade.py as a module, with one line rewritten (two where the mistake is in two places)."""
    source = SOURCE
    for a, b in zip(*((old,), (new,)) if isinstance(old, str) else (old, new)):
        assert source.count(a) == 1, f"the mistake no longer applies: {a!r} is there {source.count(a)} times"
        source = source.replace(a, b)
    module = types.ModuleType("homemade")
    exec(compile(source, "homemade", "exec"), module.__dict__)
    return module


@lru_cache
def cases():
    """A few questions of each operation. Their answers are the reference's; that they are right is tested elsewhere.

    Those of layers and of levels of sigma are the golden cases themselves.
    """
    rng = np.random.default_rng(0)
    x, y, z = rng.standard_normal((3, 4, 1))
    gaussian = {"world": "gaussian", "mean": 0.3, "std": 0.6}
    draws = rng.standard_normal((10, 4, 1))
    asked = []
    for name, T in (("linear", 1000), ("linear", 100), ("scaled_linear", 1000), ("cosine", 1000), ("cosine", 50)):
        asked.append(("schedule", {"name": name, "T": T}))
    for rule, steps in (("trailing", 10), ("trailing", 7), ("leading", 10), ("leading", 7), ("linspace", 7)):
        asked.append(("grid", {"schedule": "linear", "T": 1000, "rule": rule, "steps": steps, "final": "zero"}))
    at = {"schedule": "linear", "T": 1000}
    asked.append(("q_sample", {"x0": x, "eps": y, "alpha": 0.8, "sigma": 0.6}))
    asked += [("posterior", {**at, "x0": x, "x_t": y, "t": t}) for t in (1, 2, 500)]
    asked += [("convert", {"kind": kind, "to": to, "value": y, "x": x, "alpha": 0.8, "sigma": 0.6})
              for kind, to in (("eps", "x0"), ("v", "x0"), ("v", "eps"), ("x0", "eps"))]
    move = {**at, "x": x, "prediction": y}
    asked += [("step", {**move, "sampler": "ddim", "t": 500, "s": s, "eta": eta, "noise": z if eta else None})
              for s, eta in ((400, 0.0), (400, 0.7), (0, 0.0), (499, 1.0))]
    asked += [("step", {**move, "sampler": "ddpm", "t": 500, "s": s, "variance": variance, "noise": noise})
              for s, variance, noise in ((499, "small", z), (400, "small", z), (400, "large", z), (0, "small", None))]
    run = {**at, "final": "zero", "x": x, "denoiser": gaussian, "noise": draws}
    asked += [("trajectory", {**run, "sampler": "ddim", "rule": rule, "steps": 7, "eta": eta})
              for rule, eta in (("trailing", 0.0), ("leading", 0.0), ("linspace", 0.0), ("trailing", 0.7))]
    asked += [("trajectory", {**run, "sampler": "ddpm", "rule": "trailing", "steps": 7, "variance": variance})
              for variance in ("small", "large")]
    asked += [("loss_weight", {"weight": "min_snr", "kind": kind, "alpha": alpha, "sigma": (1 - alpha ** 2) ** .5})
              for kind in ("eps", "x0", "v") for alpha in (0.3, 0.95)]
    grads = rng.standard_normal((3, 4)) * 1e-3
    asked += [("adamw", {"theta": x.ravel(), "grads": grads, "eps": 1e-4, "weight_decay": decay})
              for decay in (0.0, 0.01)]
    asked += [("ema", {"average": x.ravel(), "theta": y.ravel(), "decay": 0.999, "step": step}) for step in (None, 3)]
    asked += [("clip", {"grad": x.ravel(), "max_norm": limit}) for limit in (0.5, 50.0)]
    asked += [("learning_rate", {"step": step, "steps": 100, "peak": 0.001, "warmup": 10}) for step in (0, 5, 10, 60)]
    asked += [("guidance", {"conditional": x, "unconditional": y, "scale": 3.0})]
    wanted = "op/group_norm/*,op/attention/*,op/sinusoid/*_*/half*/early,grid/edm/karras/*"
    stored = [case for case in load() if case.verdict == "valid" and auditing.matches(case.id, wanted)]
    return stored + [Case(f"{operation}/{i}", operation, inputs, answer(operation, inputs), "", "reference", 10.0,
                 tolerances(1000.0, 100)) for i, (operation, inputs) in enumerate(asked)]


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    """Two conventions at once are looked for briefly: the mistakes here are single."""
    monkeypatch.setattr(auditing.causes, "EACH", 5000)


def test_the_homemade_library_passes():
    found = auditing.audit(build(), cases())
    assert len(found) > 60
    assert [f for f in found if f.status != "pass"] == [], [(f.check, f.cause) for f in found if f.status != "pass"]


@pytest.mark.parametrize("name, old, new, says", PLANTED, ids=[p[0].replace(" ", "_") for p in PLANTED])
def test_a_planted_mistake_is_caught_and_named(name, old, new, says):
    module = build(old, new)
    failed = failures(auditing.audit(module, cases(), with_oracles=False))
    if not any(says in f.cause for f in failed):                                # the oracles see what no case does
        failed += failures(auditing.audit(module))
    assert failed, "the mistake was not caught"
    assert any(says in f.cause for f in failed), sorted({f"{f.check}: {f.cause}" for f in failed})


@pytest.mark.parametrize("name, old, new, says", [p for p in PLANTED if "other level" in p[0]],
                         ids=lambda value: value.replace(" ", "_") if "other" in value else "")
def test_levels_that_are_crossed_are_named_where_there_is_a_trajectory_alone(name, old, new, says):
    alone = types.SimpleNamespace(name="alone", trajectory=build(old, new).trajectory)
    failed = failures(auditing.audit(alone, load("sampler/ddim/eta*/trailing/*"), with_oracles=False))
    assert len(failed) >= 4 and all(says in f.cause for f in failed), [(f.check, f.cause) for f in failed]


def test_all_but_one_of_twenty_mistakes_are_named():
    named = sum(says != CAUGHT for *_, says in PLANTED)
    assert len(PLANTED) >= 40 and named >= 0.95 * len(PLANTED)


def failures(found):
    return [f for f in found if f.status == "fail"]
