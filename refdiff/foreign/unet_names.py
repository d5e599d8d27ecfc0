"""The parameters of refdiff's U-Net under the names and in the layout of diffusers' UNet2DModel.

    convolution     w[kh, kw, c, d]         weight[d, c, kh, kw]
    linear          w[c, d]                 weight[d, c]
    attention       qkv.w[c, (q|k|v)]       to_q.weight[d, c], to_k.weight, to_v.weight
    normalisation   gamma, beta             weight, bias

Level l of the way up is their up_blocks[L-1-l]: they count in the order in which the forward meets them. Files from
before 2023 call attention's parts query, key, value and proj_attn; weights of attention may be shaped (d, c, 1, 1).
"""
import re
from typing import NamedTuple

import numpy as np

from .tensors import ForeignError

_PARTS = {"norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2",
          "shortcut": "conv_shortcut", "norm": "group_norm", "proj": "to_out.0", "conv": "conv"}
_ENDS = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "table": "weight"}
_WHOLE = {"emb.linear1": "time_embedding.linear_1", "emb.linear2": "time_embedding.linear_2",
          "emb.label": "class_embedding", "conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LONGEST_LIST = 60                          # names in an error, of each kind


class Place(NamedTuple):
    """A parameter of ours and the tensors of theirs that hold it: one, or q, k and v."""

    name: str
    shape: tuple
    theirs: tuple
    their_shape: tuple                      # of each of theirs


def places(config, index):
    """[Place, ...] for the index of a UNet of this UNetConfig."""
    return [_place(config, name, shape) for name, shape in index]


def _place(config, name, shape):
    stem, _, end = name.rpartition(".")
    root, _, part = stem.rpartition(".")
    if stem in _WHOLE:
        theirs = (f"{_WHOLE[stem]}.{_ENDS[end]}",)
    elif part == "qkv":
        theirs = tuple(f"{_root(config, root)}.{p}.{_ENDS[end]}" for p in ("to_q", "to_k", "to_v"))
    else:
        theirs = (f"{_root(config, root)}.{_PARTS[part]}.{_ENDS[end]}",)
    each = (*shape[:-1], shape[-1] // len(theirs))
    return Place(name, shape, theirs, each if end == "table" else _turned(each))


def _turned(shape):
    """(kh, kw, c, d) -> (d, c, kh, kw); (c, d) -> (d, c)."""
    return tuple(shape[::-1][:2]) + tuple(shape[:-2]) if len(shape) > 1 else shape


def _root(config, root):
    """down.1.0.res -> down_blocks.1.resnets.0, and so on."""
    levels = len(config.multipliers)
    way, *rest = root.split(".")
    if way == "mid":
        return "mid_block.attentions.0" if rest == ["attention"] else f"mid_block.resnets.{rest[0]}"
    level, where, *kind = rest
    side = f"down_blocks.{level}" if way == "down" else f"up_blocks.{levels - 1 - int(level)}"
    if where in ("down", "up"):
        return f"{side}.{where}samplers.0"
    return f"{side}.{'attentions' if kind == ['attention'] else 'resnets'}.{where}"


def _current(name):
    """A tensor's name in today's spelling."""
    return re.sub(r"(?<=\.attentions\.)(\d+)\.(query|key|value|proj_attn)\.",
                  lambda m: f"{m[1]}.{_OLD[m[2]]}.", name)


def to_theta(config, layout, tensors, where="weights"):
    """The flat vector of a UNet's layout from their tensors: float64 if any of them is, else float32.

    Raises ForeignError that lists, by name, tensors that are missing, unused, of a wrong shape, of integers or with
    numbers that are not finite.
    """
    faults = {"missing": [], "of a wrong shape": [], "not of floating numbers": [], "not finite": [], "unused": []}
    known, twice = {}, []
    for name in tensors:
        current = _current(name)
        twice += [name] if current in known else []
        known[current] = name
    wide = any(x.dtype == np.float64 for x in tensors.values())
    flat = np.zeros(layout.size, np.float64 if wide else np.float32)
    for place in places(config, layout.index()):
        handle, parts = layout.handles[place.name], []
        for theirs in place.theirs:
            if theirs not in known:
                faults["missing"].append(f"{theirs} {place.their_shape}")
                continue
            name = known.pop(theirs)
            x = tensors[name]
            if ".attentions." in name and x.ndim == 4 and x.shape[2:] == (1, 1):
                x = x[:, :, 0, 0]
            if x.shape != place.their_shape:
                faults["of a wrong shape"].append(f"{name} is {tensors[name].shape}, wanted {place.their_shape}")
            elif x.dtype.kind != "f":
                faults["not of floating numbers"].append(f"{name} ({x.dtype})")
            elif not np.isfinite(x).all():
                faults["not finite"].append(name)
            else:
                parts.append(x if place.name.endswith(".table") or x.ndim == 1 else _turn(x))
        if len(parts) == len(place.theirs):
            flat[handle.start:handle.stop] = np.concatenate(parts, axis=-1).reshape(-1)
    faults["unused"] = twice + sorted(known.values())
    said = [f"{what}: {', '.join(names[:_LONGEST_LIST])}"
            + (f" and {len(names) - _LONGEST_LIST} more" if names[_LONGEST_LIST:] else "")
            for what, names in faults.items() if names]
    if said:
        raise ForeignError(f"{where}: the tensors do not fit the network of the configuration; " + "; ".join(said))
    return flat


def _turn(x):
    """weight[d, c, kh, kw] -> w[kh, kw, c, d]; weight[d, c] -> w[c, d]."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def from_theta(config, theta):
    """{their name: array} of a UNet's Theta, host arrays of theta's dtype."""
    tensors = {}
    for place in places(config, theta.layout.index()):
        for theirs, x in zip(place.theirs, np.split(theta[place.name], len(place.theirs), axis=-1)):
            turned = x if place.name.endswith(".table") or x.ndim == 1 else \
                x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
            tensors[theirs] = np.ascontiguousarray(turned)
    return tensors
