"""Blocks and whole networks as formulas of layers.py, with weights by refdiff's names; gradients come from the tape.

    network({"kind": "unet", ...}, weights, x, t, labels, dy)      {"y": .., "dx": .., "dconv_in.w": .., ...}

A block's weights are named below the block ("norm1.gamma"), a network's in full ("down.0.0.res.norm1.gamma").
"""
import numpy as np

from ..conventions import choose
from . import layers
from .tape import DTYPES, Var, concat, gradients, leaf

PADDING = {"ddpm": (0, 1), "same": (1, 1), "asymmetric": (0, 1), "symmetric": (1, 1)}
GIVEN = choose()             # all is as the case's settings say


class Weights:
    """Vars by name, as attributes of a place: w.at("conv1")["w"]."""

    def __init__(self, found, place=""):
        self.found, self.place = found, place

    def at(self, name):
        return Weights(self.found, f"{self.place}{name}.")

    def __getitem__(self, name):
        return self.found[self.place + name]

    def __contains__(self, name):
        return self.place + name in self.found


def settings(config, c):
    """The settings of a block or network, those that a convention names put in place of the given ones."""
    made = dict(config)
    for name, convention in (("norm_eps", c.norm_epsilon), ("order", c.embedding_order),
                             ("denominator", c.embedding_half), ("padding", c.padding)):
        if convention != "given" and name in made:
            made[name] = float(convention) if name == "norm_eps" else convention
    if isinstance(made.get("padding"), str):
        made["padding"] = PADDING[made["padding"]]
    if "groups" in made and c.norm_groups != "given":
        made["groups"] = max(1, made["groups"] // 2) if c.norm_groups == "half" else 2 * made["groups"]
    return made


def offset(c):
    """What is added to the time."""
    return float(c.time_offset)


# ---- blocks

def _linear(x, w):
    return layers.linear(x, w["w"], w["b"])


def _conv(x, w, **options):
    return layers.conv2d(x, w["w"], w["b"], padding=options.pop("padding", (w["w"].shape[0] // 2,) * 2), **options)


def _norm(x, w, config):
    return layers.group_norm(x, w["gamma"], w["beta"], config["groups"], config["norm_eps"])


def _resized(x, resample, c):
    if resample == "none":
        return x
    return layers.avg_pool(x) if resample == "down" else layers.upsample(x, c.upsample)


def res(w, config, c, x, emb):
    """shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))) <- emb))).

    config: groups, norm_eps, scale_shift, resample.
    """
    h = _resized(layers.silu(_norm(x, w.at("norm1"), config)), config["resample"], c)
    h = _conv(h, w.at("conv1"))
    e = _linear(emb, w.at("time"))
    d = h.shape[-1]
    if config["scale_shift"]:
        h = layers.scale_shift(_norm(h, w.at("norm2"), config), e[:, :d], e[:, d:])
    else:
        h = _norm(layers.shift(h, e), w.at("norm2"), config)
    h = _conv(layers.silu(h), w.at("conv2"))
    x = _resized(x, config["resample"], c)
    return h + (_conv(x, w.at("shortcut")) if "shortcut.w" in w else x)


def attention(w, config, c, x):
    """x + proj(attention(q, k, v)), (q | k | v) = linear(norm(x)); config: groups, norm_eps, heads."""
    n, height, width, channels = x.shape
    heads = config["heads"]
    d = channels // heads
    tokens = _linear(_norm(x, w.at("norm"), config).reshape(n, height * width, channels), w.at("qkv"))
    if c.layout == "per_head":                              # channels of qkv: heads first, q, k, v within
        tokens = tokens.reshape(n, height * width, heads, 3, d).transpose(0, 1, 3, 2, 4)
    else:
        tokens = tokens.reshape(n, height * width, 3, heads, d)
    o = layers.attention(*(tokens[:, :, i] for i in range(3)), scale=c.attention_scale)
    return x + _linear(o.reshape(n, height * width, channels), w.at("proj")).reshape(*x.shape)


def down(w, config, c, x):
    """A 3x3 convolution of stride 2; config: padding."""
    return _conv(x, w.at("conv"), stride=2, padding=config["padding"])


def up(w, config, c, x):
    """Twice the size, then a 3x3 convolution."""
    return _conv(layers.upsample(x, c.upsample), w.at("conv"))


def time(w, config, c, t, labels=None):
    """SiLU(W2 SiLU(W1 sinusoid(scale t)) + table[label]); config: channels, order, denominator, period, scale."""
    wave = layers.sinusoid(config["scale"] * (t + offset(c)), config["channels"], config["order"],
                           config["denominator"], config["period"])
    h = _linear(layers.silu(_linear(wave, w.at("linear1"))), w.at("linear2"))
    if "label.table" in w:
        table = w["label.table"]
        h = h + layers.embedding(table, np.full(t.shape, len(table.value) - 1) if labels is None else labels)
    return layers.silu(h)


# ---- networks

def unet(w, config, c, x, t, labels):
    """The U-Net of DDPM and of ADM by the settings of UNetConfig."""
    config = settings({**config, "padding": config["down_pad"], "order": config["embedding_order"],
                       "denominator": config["embedding_denominator"], "period": config["embedding_period"],
                       "scale": config["time_scale"]}, c)
    emb = time(w.at("emb"), config, c, t, labels)

    def block(name, h, resample="none"):
        return res(w.at(name), {**config, "resample": resample}, c, h, emb)

    def attend(name, h):
        heads = h.shape[-1] // config["head_channels"] if config["head_channels"] else config["heads"]
        return attention(w.at(name), {**config, "heads": max(1, heads)}, c, h)

    h = _conv(x, w.at("conv_in"))
    skips, levels = [h], len(config["multipliers"])
    for level in range(levels):
        for k in range(config["blocks"]):
            h = block(f"down.{level}.{k}.res", h)
            if h.shape[1] in config["attention"]:
                h = attend(f"down.{level}.{k}.attention", h)
            skips.append(h)
        if level < levels - 1:
            name = f"down.{level}.down"
            h = block(name, h, "down") if config["resblock_updown"] else down(w.at(name), config, c, h)
            skips.append(h)
    h = block("mid.1", attend("mid.attention", block("mid.0", h)))
    for level in reversed(range(levels)):
        for k in range(config["blocks"] + 1):
            h = block(f"up.{level}.{k}.res", concat([h, skips.pop()]))
            if h.shape[1] in config["attention"]:
                h = attend(f"up.{level}.{k}.attention", h)
        if level:
            h = (block(f"up.{level}.up", h, "up") if config["resblock_updown"]
                 else up(w.at(f"up.{level}.up"), config, c, h))
    return _conv(layers.silu(_norm(h, w.at("norm_out"), config)), w.at("conv_out"))


def mlp(w, config, c, x, t, labels):
    """SiLU layers on [x, sinusoid(scale t)]; config: embedding, embedding_period, time_scale, depth."""
    shape = settings({"order": "sin_cos", "denominator": "half-1"}, c)
    h = concat([x, layers.sinusoid(config["time_scale"] * (t + offset(c)), config["embedding"], **shape,
                                   period=config["embedding_period"])])
    for i in range(config["depth"]):
        h = layers.silu(_linear(h, w.at(f"hidden.{i}")))
    return _linear(h, w.at("out"))


NETWORKS = {"unet": unet, "mlp": mlp}


def _answer(function, weights, real, dy, kind):
    """y and every gradient of function(Weights, *real Vars)."""
    w = {name: leaf(value, kind) for name, value in weights.items()}
    real = {name: leaf(value, kind) for name, value in real.items()}
    y = function(Weights(w), **real)
    if y.shape != np.shape(dy):
        raise ValueError(f"network: y is {y.shape} and dy {np.shape(dy)}, wanted one shape")
    leaves = {**real, **w}
    found = gradients(y, np.asarray(dy, DTYPES[kind]), list(leaves.values()))
    return {"y": y.value, **{f"d{name}": d for name, d in zip(leaves, found)}}


def network(config, weights, x, t, dy, labels=None, kind="float64", c=GIVEN):
    """y, dx and d<name> of every weight; the time's gradient is none of them."""
    made = NETWORKS[config["kind"]]
    t = leaf(t, kind)
    return _answer(lambda w, x: made(w, config, c, x, Var(t.value, kind), labels), weights, {"x": x}, dy, kind)


def block(name, inputs, kind="float64", c=GIVEN):
    """y, the gradient of x, emb or t, and d<name> of every weight of a block."""
    inputs = dict(inputs)
    weights, dy, labels = inputs.pop("weights"), inputs.pop("dy"), inputs.pop("labels", None)
    real = {key: inputs.pop(key) for key in ("x", "emb", "t") if key in inputs}
    config = settings(inputs, c)
    given = {"labels": labels} if name == "time" else {}
    return _answer(lambda w, **real: BLOCKS[name](w, config, c, **real, **given), weights, real, dy, kind)


def op(name, inputs, kind="float64", c=GIVEN):
    """y and the gradients of one operation."""
    given = {"norm_eps" if key == "eps" else key: value for key, value in inputs.items()}
    if name != "conv2d" or inputs["stride"] == 1:
        made = settings({key: value for key, value in given.items() if key != "padding"}, c)
        made |= {"padding": given["padding"]} if "padding" in given else {}
    else:
        made = settings(given, c)
    if name in ("group_norm", "layer_norm"):
        made["eps"] = made.pop("norm_eps")
    if name == "sinusoid":
        made["t"] = np.asarray(made["t"], DTYPES[kind]) + offset(c)
    made |= {"attention": {"scale": c.attention_scale}, "gelu": {"form": c.gelu}, "upsample": {"form": c.upsample},
             }.get(name, {})
    return layers.op(name, made, kind)


BLOCKS = {"attention": attention, "down": down, "res": res, "time": time, "up": up}

OPERATIONS = {"network": lambda num, c, **inputs: network(**inputs, c=c),
              **{f"block_{name}": lambda num, c, one=name, **inputs: block(one, inputs, c=c) for name in BLOCKS},
              **{f"op_{name}": lambda num, c, one=name, **inputs: op(one, inputs, c=c) for name in layers.OPS}}
