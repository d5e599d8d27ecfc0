"""The blocks of a U-Net, forward and backward, with all weights: residual, attention, sizes, the embedded time."""
import numpy as np

from ..reference import networks
from .arrays import build, draw, refused, weights

FORMAT = "h5"


def case(name, block, shapes, inputs, dy_shape, equation, flags, seed=0):
    """block/<block>/<name>: weights of these shapes, drawn; the cotangent has this shape."""
    inputs = {**inputs, "weights": weights(shapes, seed), "dy": draw(seed + 700, dy_shape)}
    return build(f"block/{block}/{name}", f"block_{block}", lambda inputs, kind: networks.block(block, inputs, kind),
                 inputs, equation, flags, operations=100)


def _norm(name, c):
    return {f"{name}.gamma": (c,), f"{name}.beta": (c,)}


def _affine(name, *shape):
    return {f"{name}.w": shape, f"{name}.b": shape[-1:]}


def res_shapes(c, d, emb, scale_shift):
    """{name: shape} of a residual block from c to d channels."""
    return {**_norm("norm1", c), **_affine("conv1", 3, 3, c, d), **_affine("time", emb, 2 * d if scale_shift else d),
            **_norm("norm2", d), **_affine("conv2", 3, 3, d, d),
            **(_affine("shortcut", 1, 1, c, d) if c != d else {})}


def _residual():
    # name, n, size, channels in and out, groups, epsilon, scale_shift, resample
    for i, (name, n, size, c, d, groups, eps, scale_shift, resample) in enumerate((
            ("ddpm/same", 2, 4, 8, 8, 4, 1e-6, False, "none"), ("ddpm/wider", 1, 3, 4, 8, 2, 1e-6, False, "none"),
            ("ddpm/narrower", 3, 2, 12, 4, 2, 1e-6, False, "none"), ("adm/same", 2, 4, 8, 8, 4, 1e-5, True, "none"),
            ("adm/wider", 1, 3, 4, 8, 2, 1e-5, True, "none"), ("adm/down", 2, 4, 8, 8, 4, 1e-5, True, "down"),
            ("adm/up", 2, 2, 8, 8, 4, 1e-5, True, "up"), ("adm/down/wider", 1, 4, 4, 8, 2, 1e-5, True, "down"),
            ("ddpm/up", 1, 3, 8, 4, 2, 1e-6, False, "up"))):
        out = {"none": size, "down": size // 2, "up": 2 * size}[resample]
        yield case(name, "res", res_shapes(c, d, 6, scale_shift), {
            "x": draw(60 + i, (n, size, size, c)), "emb": draw(80 + i, (n, 6)), "groups": groups, "norm_eps": eps,
            "scale_shift": scale_shift, "resample": resample}, (n, out, out, d),
            "ADM sec. 3.1" if scale_shift else "DDPM sec. B", ("norm_epsilon", "norm_groups"), i)


def _attention():
    for i, (name, n, h, w, c, heads, groups, eps) in enumerate((
            ("1head", 2, 3, 3, 8, 1, 4, 1e-6), ("2heads", 2, 2, 3, 8, 2, 2, 1e-5), ("4heads", 1, 4, 2, 8, 4, 4, 1e-5),
            ("1head/eps1e-5", 1, 2, 2, 4, 1, 2, 1e-5))):
        yield case(name, "attention", {**_norm("norm", c), **_affine("qkv", c, 3 * c), **_affine("proj", c, c)}, {
            "x": draw(100 + i, (n, h, w, c)), "heads": heads, "groups": groups, "norm_eps": eps}, (n, h, w, c),
            "ATTN eq. 1", ("attention_scale", "layout", "norm_epsilon", "norm_groups"), 20 + i)


def _sizes():
    for i, (padding, h, w) in enumerate((("asymmetric", 4, 6), ("symmetric", 4, 6), ("asymmetric", 5, 3),
                                         ("symmetric", 5, 3))):
        before, after = networks.PADDING[padding]
        out = ((h + before + after - 3) // 2 + 1, (w + before + after - 3) // 2 + 1)
        yield case(f"{padding}/{h}x{w}", "down", _affine("conv", 3, 3, 3, 3), {
            "x": draw(120 + i, (2, h, w, 3)), "padding": padding}, (2, *out, 3), "DDPM sec. B", ("padding",),
            30 + i)
    for i, (h, w) in enumerate(((2, 3), (1, 1))):
        yield case(f"{h}x{w}", "up", _affine("conv", 3, 3, 3, 3), {"x": draw(130 + i, (2, h, w, 3))},
                   (2, 2 * h, 2 * w, 3), "DDPM sec. B", ("upsample",), 40 + i)


def _time():
    affine = {**_affine("linear1", 8, 12), **_affine("linear2", 12, 12)}
    times = np.array([1.0, 400.0, 1000.0])
    flags = ("embedding_order", "embedding_half", "time_offset")
    for i, (order, denominator) in enumerate((("sin_cos", "half-1"), ("cos_sin", "half"), ("sin_cos", "half"),
                                              ("cos_sin", "half-1"))):
        yield case(f"{order}/{denominator}", "time", affine, {
            "t": times, "channels": 8, "order": order, "denominator": denominator, "period": 10000.0, "scale": 1.0},
            (3, 12), "DDPM sec. B", flags, 50 + i)
    labelled = {**affine, "label.table": (4, 12)}                   # three classes and the null class
    given = {"t": times, "channels": 8, "order": "cos_sin", "denominator": "half", "period": 10000.0, "scale": 1.0}
    yield case("labels", "time", labelled, {**given, "labels": np.array([2, 0, 2])}, (3, 12), "ADM sec. 3.1", flags, 60)
    yield case("labels/null", "time", labelled, {**given, "labels": np.array([3, 0, 3])}, (3, 12), "CFG alg. 1",
               flags, 61)
    yield case("edm", "time", affine, {
        "t": np.array([-1.55, 0.0125, 1.09]), "channels": 8, "order": "cos_sin", "denominator": "half",
        "period": 100.0, "scale": 16.0}, (3, 12), "EDM table 1", flags, 62)


def _invalid():
    base = {"x": draw(140, (2, 2, 2, 8)), "emb": draw(141, (2, 6)), "groups": 4, "norm_eps": 1e-6, "scale_shift": False,
            "resample": "none", "weights": weights(res_shapes(8, 8, 6, False), 70), "dy": draw(142, (2, 2, 2, 8))}
    for name, change in (("groups", {"groups": 3}), ("emb", {"emb": draw(141, (2, 5))}),
                         ("rows", {"emb": draw(141, (1, 6))}), ("channels", {"x": draw(140, (2, 2, 2, 4))})):
        yield refused(f"block/res/invalid/{name}", "block_res", {**base, **change}, "DDPM sec. B")
    shapes = {**_norm("norm", 8), **_affine("qkv", 8, 24), **_affine("proj", 8, 8)}
    yield refused("block/attention/invalid/heads", "block_attention", {
        "x": draw(140, (2, 2, 2, 8)), "heads": 3, "groups": 4, "norm_eps": 1e-6, "weights": weights(shapes, 71),
        "dy": draw(142, (2, 2, 2, 8))}, "ATTN eq. 1")


def cases():
    """The cases of the family, for store.make."""
    return [*_residual(), *_attention(), *_sizes(), *_time(), *_invalid()]
