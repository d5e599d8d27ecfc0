"""Every operation, forward and backward, for a random cotangent: small shapes, odd ones and single ones among them."""
import numpy as np

from ..reference import networks
from .arrays import build, draw, refused

FORMAT = "h5"

EQUATIONS = {
    "add": "DDPM sec. B", "attention": "ATTN eq. 1", "avg_pool": "ADM sec. 3.1", "binned_normal": "DDPM eq. 13",
    "concat": "DDPM sec. B", "conv2d": "DDPM sec. B", "cross_entropy": "ADM alg. 1", "dropout": "DDPM sec. B",
    "embedding": "ADM sec. 3.1", "gaussian_kl": "DDPM eq. 5", "gelu": "GELU sec. 2", "gelu_tanh": "GELU sec. 2",
    "group_norm": "GN eq. 1", "layer_norm": "GN eq. 1", "linear": "DDPM sec. B", "mse": "DDPM eq. 14",
    "pseudo_huber": "ICT sec. 3.3", "scale_shift": "ADM sec. 3.1", "shift": "DDPM sec. B", "silu": "GELU sec. 2",
    "sinusoid": "ATTN sec. 3.5", "softmax": "ATTN eq. 1", "upsample": "DDPM sec. B"}
FLAGS = {"attention": ("attention_scale",), "conv2d": ("padding",),
         "group_norm": ("norm_epsilon", "norm_groups"), "layer_norm": ("norm_epsilon",), "gelu": ("gelu",),
         "gelu_tanh": ("gelu",), "sinusoid": ("embedding_order", "embedding_half", "time_offset"),
         "upsample": ("upsample",)}


def case(name, op, inputs, dy_shape, seed, least=1.0):
    """op/<op>/<name> with a cotangent of this shape; least: of the condition number."""
    inputs = {**inputs, "dy": draw(seed + 500, dy_shape)}
    return build(f"op/{op}/{name}", f"op_{op}", lambda inputs, kind: networks.op(op, inputs, kind), inputs,
                 EQUATIONS[op], FLAGS.get(op, ()), 30, least)


def _images():
    for name, n, h, w, c, k, d, stride, padding in (
            ("3x3/same", 2, 4, 5, 3, 3, 4, 1, [1, 1]), ("3x3/stride2/ddpm", 1, 4, 6, 2, 3, 3, 2, [0, 1]),
            ("3x3/stride2/same", 1, 4, 6, 2, 3, 3, 2, [1, 1]), ("3x3/stride2/ddpm/odd", 2, 5, 7, 1, 3, 2, 2, [0, 1]),
            ("3x3/stride2/same/odd", 2, 5, 3, 1, 3, 2, 2, [1, 1]), ("1x1", 2, 3, 4, 5, 1, 2, 1, [0, 0]),
            ("1x1/stride2", 1, 5, 4, 2, 1, 3, 2, [0, 0]), ("3x3/pixel", 1, 1, 1, 2, 3, 2, 1, [1, 1]),
            ("3x3/ddpm/stride1", 1, 3, 4, 2, 3, 2, 1, [0, 1])):
        p, q = ((size + sum(padding) - k) // stride + 1 for size in (h, w))
        yield case(name, "conv2d", {"x": draw(1, (n, h, w, c)), "w": draw(2, (k, k, c, d), 0.5), "b": draw(3, (d,)),
                                    "stride": stride, "padding": padding}, (n, p, q, d), 1)
    for name, shape, groups, eps in (
            ("groups2/eps1e-6", (2, 3, 4, 8), 2, 1e-6), ("groups2/eps1e-5", (2, 3, 4, 8), 2, 1e-5),
            ("groups4", (1, 2, 2, 12), 4, 1e-6), ("groups1", (3, 1, 5, 4), 1, 1e-6),
            ("instance", (2, 3, 3, 4), 4, 1e-5), ("flat", (1, 2, 3, 4), 2, 1e-6)):
        x = draw(4, shape) * (1e-2 if name == "flat" else 1)              # eps counts where the variance is small
        yield case(name, "group_norm", {"x": x, "gamma": draw(5, shape[-1:]), "beta": draw(6, shape[-1:]),
                                        "groups": groups, "eps": eps}, shape, 2)
    for name, shape in (("even", (2, 4, 2, 3)), ("single", (1, 2, 2, 1))):
        yield case(name, "avg_pool", {"x": draw(7, shape)}, (shape[0], shape[1] // 2, shape[2] // 2, shape[3]), 3)
    for name, (n, h, w, c) in (("odd", (2, 3, 5, 2)), ("pixel", (1, 1, 1, 3))):
        yield case(name, "upsample", {"x": draw(8, (n, h, w, c))}, (n, 2 * h, 2 * w, c), 4)
    yield case("skip", "concat", {"a": draw(9, (2, 2, 3, 3)), "b": draw(10, (2, 2, 3, 2))}, (2, 2, 3, 5), 5)


def _tokens():
    for name, n, t, m, heads, d, e in (("1head", 2, 4, 4, 1, 3, 3), ("3heads", 2, 3, 3, 3, 4, 4),
                                       ("2heads/cross", 1, 3, 5, 2, 4, 2), ("token", 2, 1, 1, 2, 2, 2)):
        if t * m == 1:                      # one token attends to itself: dq = dk = 0, so only to two of them here
            m = 2
        yield case(name, "attention", {"q": draw(11, (n, t, heads, d)), "k": draw(12, (n, m, heads, d)),
                                       "v": draw(13, (n, m, heads, e))}, (n, t, heads, e), 6)
    for name, shape in (("rows", (2, 3, 4)), ("pair", (1, 1, 2)), ("large", (1, 2, 5))):
        yield case(name, "softmax", {"s": draw(14, shape, 4.0 if name == "large" else 1.0)}, shape, 7)
    for name, n, t, c, d in (("wide", 2, 3, 4, 7), ("narrow", 1, 5, 3, 1), ("number", 1, 1, 1, 1)):
        yield case(name, "linear", {"x": draw(15, (n, t, c)), "w": draw(16, (c, d)), "b": draw(17, (d,))}, (n, t, d), 8)
    for name, shape, eps in (("c8", (2, 3, 8), 1e-5), ("c3/eps1e-6", (1, 5, 3), 1e-6)):
        yield case(name, "layer_norm", {"x": draw(18, shape), "gamma": draw(19, shape[-1:]),
                                        "beta": draw(20, shape[-1:]), "eps": eps}, shape, 9)
    for name, v, labels in (("repeated", 4, [3, 0, 3, 1, 3]), ("one", 2, [1])):
        yield case(name, "embedding", {"table": draw(21, (v, 3)), "labels": np.array(labels)}, (len(labels), 3), 10)
    times = {"early": [1.0, 2.0, 3.0], "late": [1000.0, 999.0, 500.0], "real": [0.25, 17.5, 999.9]}
    for order in ("sin_cos", "cos_sin"):
        for denominator in ("half-1", "half"):
            for when, t in times.items():
                yield case(f"{order}/{denominator}/{when}", "sinusoid", {
                    "t": np.array(t), "width": 8, "order": order, "denominator": denominator, "period": 10000.0},
                    (3, 8), 11)
    yield case("period100/width6", "sinusoid", {"t": np.array([0.5, -1.25]), "width": 6, "order": "sin_cos",
                                                "denominator": "half-1", "period": 100.0}, (2, 6), 12)


def _entries():
    for op in ("silu", "gelu", "gelu_tanh"):
        for name, shape, scale in (("middle", (2, 3, 4), 1.0), ("wide", (1, 2, 8), 4.0), ("small", (3, 1, 1), 1e-2)):
            yield case(name, op, {"x": draw(22, shape, scale, 6)}, shape, 13)
    for name, scale in (("sum", 1.0), ("halved-variance", 0.5 ** 0.5)):
        yield case(name, "add", {"a": draw(23, (2, 3, 2, 2)), "b": draw(24, (2, 3, 2, 2)), "scale": scale},
                   (2, 3, 2, 2), 14)
    mask = (draw(25, (2, 3, 3, 2)) > -1) / 0.75
    yield case("quarter", "dropout", {"x": draw(26, mask.shape), "mask": mask}, mask.shape, 15)
    for name, (n, h, w, c) in (("odd", (2, 3, 1, 4)), ("pixel", (3, 1, 1, 2))):
        x, scale, shift = draw(27, (n, h, w, c)), draw(28, (n, c)), draw(29, (n, c))
        yield case(name, "shift", {"x": x, "shift": shift}, x.shape, 16)
        yield case(name, "scale_shift", {"x": x, "scale": scale, "shift": shift}, x.shape, 17)


def _losses():
    for name, shape in (("rows", (3, 2, 4)), ("row", (1, 1, 5))):
        arrays = {"pred": draw(30, shape), "target": draw(31, shape), "weight": abs(draw(32, shape[:1])) + 0.1}
        yield case(name, "mse", arrays, (), 18)
        for c in (0.03, 0.5):
            yield case(f"{name}/c{c}", "pseudo_huber", {**arrays, "c": c}, (), 19)
    for name, v, labels in (("three", 3, [2, 0, 2, 1]), ("two", 2, [1])):
        yield case(name, "cross_entropy", {"s": draw(33, (len(labels), v)), "labels": np.array(labels)}, (), 20)
    shape = (2, 3, 2)
    for name, near in (("apart", 1.0), ("near", 0.05)):
        q_mean, q_log_var = draw(34, shape), draw(35, shape)
        yield case(name, "gaussian_kl", {"mean": q_mean + draw(36, shape, near), "log_var": q_log_var + draw(
            37, shape, near), "q_mean": q_mean, "q_log_var": q_log_var}, shape, 21)
    x = np.array([0, 255, 128, 64, 200, 17, 0, 255, 3, 250, 90, 127]).reshape(shape) / 127.5 - 1
    for cdf in ("exact", "tanh"):
        for name, log_var in (("wide", 0.0), ("narrow", -7.0)):
            std = np.round(np.exp(log_var / 2), 3)
            yield case(f"{cdf}/{name}", "binned_normal", {
                "mean": x + draw(38, shape, std), "log_var": log_var + draw(39, shape, 0.2), "x": x, "cdf": cdf,
                "levels": 256}, shape, 22, 127.5 * std)             # a bin is the difference of two numbers near 1/2


def _invalid():
    def wrong(name, op, inputs, dy_shape):
        return refused(f"op/{op}/invalid/{name}", f"op_{op}", {**inputs, "dy": draw(90, dy_shape)}, EQUATIONS[op])

    x, b = draw(40, (2, 4, 4, 3)), draw(41, (2,))
    conv = {"x": x, "w": draw(42, (3, 3, 3, 2)), "b": b, "stride": 1, "padding": [1, 1]}
    yield wrong("channels", "conv2d", {**conv, "w": draw(42, (3, 3, 4, 2))}, (2, 4, 4, 2))
    yield wrong("bias", "conv2d", {**conv, "b": draw(41, (1,))}, (2, 4, 4, 2))
    yield wrong("too-small", "conv2d", {**conv, "x": x[:, :1, :1], "padding": [0, 1]}, (2, 1, 1, 2))
    norm = {"x": x, "gamma": draw(43, (3,)), "beta": draw(44, (3,)), "groups": 1, "eps": 1e-6}
    yield wrong("groups", "group_norm", {**norm, "groups": 2}, x.shape)
    yield wrong("gamma", "group_norm", {**norm, "gamma": draw(43, (1,))}, x.shape)
    yield wrong("gamma", "layer_norm", {"x": x[0], "gamma": draw(43, (1,)), "beta": draw(44, (1,)), "eps": 1e-5},
                x[0].shape)
    q = draw(45, (1, 3, 2, 4))
    yield wrong("heads", "attention", {"q": q, "k": q[:, :, :1], "v": q}, q.shape)
    yield wrong("width", "attention", {"q": q, "k": q[..., :3], "v": q}, q.shape)
    yield wrong("inner", "linear", {"x": draw(46, (1, 2, 3)), "w": draw(47, (4, 2)), "b": b}, (1, 2, 2))
    yield wrong("label", "embedding", {"table": draw(48, (3, 2)), "labels": np.array([0, 3])}, (2, 2))
    yield wrong("negative-label", "embedding", {"table": draw(48, (3, 2)), "labels": np.array([0, -1])}, (2, 2))
    yield wrong("label", "cross_entropy", {"s": draw(49, (2, 3)), "labels": np.array([0, 3])}, ())
    yield wrong("odd", "avg_pool", {"x": draw(50, (1, 3, 4, 2))}, (1, 1, 2, 2))
    yield wrong("rows", "shift", {"x": x, "shift": draw(51, (1, 3))}, x.shape)
    yield wrong("rows", "scale_shift", {"x": x, "scale": draw(51, (2, 3)), "shift": draw(51, (1, 3))}, x.shape)
    yield wrong("broadcast", "add", {"a": x, "b": x[:1], "scale": 1.0}, x.shape)
    yield wrong("mask", "dropout", {"x": x, "mask": abs(x[:1])}, x.shape)
    yield wrong("sizes", "concat", {"a": x, "b": x[:, :2]}, (2, 4, 4, 6))
    yield wrong("odd-width", "sinusoid", {"t": np.array([1.0]), "width": 7, "order": "sin_cos", "denominator": "half",
                                          "period": 10000.0}, (1, 7))
    yield wrong("width2", "sinusoid", {"t": np.array([1.0]), "width": 2, "order": "sin_cos", "denominator": "half-1",
                                       "period": 10000.0}, (1, 2))
    yield wrong("weight", "mse", {"pred": x, "target": x, "weight": np.ones(1)}, ())
    yield wrong("target", "mse", {"pred": x, "target": x[:1], "weight": np.ones(2)}, ())
    yield wrong("c0", "pseudo_huber", {"pred": x, "target": 0.5 * x, "weight": np.ones(2), "c": 0.0}, ())
    yield wrong("levels1", "binned_normal", {"mean": x[0], "log_var": x[0], "x": x[0] / 2, "cdf": "exact", "levels": 1},
                x[0].shape)
    yield wrong("shapes", "gaussian_kl", {"mean": x, "log_var": x[:1], "q_mean": x, "q_log_var": x}, x.shape)


def cases():
    """The cases of the family, for store.make."""
    return [*_images(), *_tokens(), *_entries(), *_losses(), *_invalid()]
