"""Whole small networks, y and the gradient of every weight: the DDPM's U-Net, the ADM's, and an MLP for points.

A network's `config` holds every setting of refdiff's UNetConfig or MLPConfig that matters once the weights are given,
and `kind`, "unet" or "mlp". Weights are named and laid out as refdiff does: convolutions (k, k, in, out), matrices
(in, out), qkv's columns in the order q, k, v with the heads within each.
"""
from dataclasses import asdict

import numpy as np

from ...models import NETWORKS
from ..reference import networks
from .arrays import build, draw, refused, weights

FORMAT = "h5"

DDPM = dict(image_size=8, in_channels=3, out_channels=3, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
            heads=1, groups=4, norm_eps=1e-6, down_pad="ddpm", embedding_order="sin_cos",
            embedding_denominator="half-1")
ADM = dict(image_size=8, in_channels=3, out_channels=6, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
           head_channels=4, groups=4, norm_eps=1e-5, scale_shift=True, resblock_updown=True, classes=3,
           embedding_order="cos_sin", embedding_denominator="half")
EDM = {**DDPM, "embedding_period": 100.0, "time_scale": 16.0, "attention": (8,), "multipliers": (1, 1)}
MLP = dict(dim=2, width=8, depth=2, embedding=6)
UNSAID = ("dropout", "zero_init", "null_class")                     # settings of training and of first values
FLAGS = ("padding", "norm_epsilon", "norm_groups", "embedding_order", "embedding_half", "attention_scale",
         "time_offset", "layout", "upsample")
ADM_FLAGS = tuple(flag for flag in FLAGS if flag != "padding")      # it has no strided convolution

SETS = (        # name, kind, settings, times, labels, seed
    ("ddpm/n2", "unet", DDPM, (7.0, 640.0), None, 1),
    ("ddpm/n3/no-attention", "unet", {**DDPM, "attention": (), "multipliers": (1, 1)}, (1.0, 500.0, 1000.0), None, 2),
    ("ddpm/n1/2blocks/3levels", "unet", {**DDPM, "multipliers": (1, 1, 2), "blocks": 2, "groups": 2,
                                         "attention": (4, 2), "in_channels": 1, "out_channels": 1}, (321.0,), None, 3),
    ("ddpm/n1/symmetric/eps1e-5", "unet", {**DDPM, "down_pad": "same", "norm_eps": 1e-5, "multipliers": (1, 1)},
     (33.0,), None, 4),
    ("adm/n2/labels", "unet", ADM, (12.0, 980.0), (2, 0), 5),
    ("adm/n2/null", "unet", {**ADM, "multipliers": (1, 1)}, (100.0, 101.0), (3, 1), 6),
    ("adm/n1/no-classes/heads4", "unet", {**ADM, "classes": 0, "head_channels": 0, "heads": 4, "out_channels": 3},
     (250.0,), None, 7),
    ("adm/n3/real-time", "unet", {**ADM, "multipliers": (1, 1), "attention": ()}, (0.5, 250.25, 999.0), (0, 1, 2), 8),
    ("edm/n2", "unet", EDM, (-1.55, 1.09), None, 9),
    ("mlp/n3", "mlp", MLP, (-0.5, 0.25, 1.5), None, 10),
    ("mlp/n1/deep", "mlp", {**MLP, "depth": 4, "dim": 3, "embedding": 8, "time_scale": 1.0, "embedding_period": 1e4},
     (77.0,), None, 11),
)


def inputs(kind, settings, times, labels, seed):
    """The arguments of `network` for these settings, all arrays drawn."""
    network, config = NETWORKS[kind]
    config = config(**settings)
    n, x = len(times), (config.dim,) if kind == "mlp" else (config.image_size,) * 2 + (config.in_channels,)
    out = x if kind == "mlp" else x[:-1] + (config.out_channels,)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()
             if name not in UNSAID}
    made = {"config": {"kind": kind, **plain}, "weights": weights(network(config).layout.index(), 10 * seed),
            "x": draw(seed, (n, *x)), "t": np.array(times), "dy": draw(seed + 50, (n, *out))}
    return made if labels is None else {**made, "labels": np.array(labels)}


def _invalid():
    good = inputs("unet", {**ADM, "multipliers": (1,), "attention": (), "image_size": 2, "channels": 4, "groups": 2},
                  (1.0, 2.0), (0, 1), 20)
    missing = {name: value for name, value in good["weights"].items() if name != "conv_in.b"}
    for name, change in (
            ("size", {"x": draw(1, (2, 4, 4, 3)), "dy": draw(2, (2, 4, 4, 6))}), ("times", {"t": np.array([1.0])}),
            ("label", {"labels": np.array([0, 4])}), ("channels", {"x": draw(1, (2, 2, 2, 4))}),
            ("missing-weight", {"weights": missing}),
            ("shape-of-weight", {"weights": {**good["weights"], "conv_in.b": draw(3, (1,))}}),
            ("groups", {"config": {**good["config"], "groups": 3}})):
        yield refused(f"network/invalid/{name}", "network", {**good, **change}, "DDPM sec. B")


def cases():
    """The cases of the family, for store.make."""
    made = [build(f"network/{name}", "network", lambda given, kind: networks.network(**given, kind=kind),
                  inputs(*given), "ADM sec. 3.1" if name.startswith("adm") else "DDPM sec. B",
                  () if given[0] == "mlp" else ADM_FLAGS if name.startswith("adm") else FLAGS, operations=400)
            for name, *given in SETS]
    return [*made, *_invalid()]
