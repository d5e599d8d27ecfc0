"""refdiff's operations, blocks and networks under the names that golden cases ask for; own.py has the scalar methods.

Any of them runs in the dtype of the arrays that it is given, and answers with the value and every gradient.
"""
from types import SimpleNamespace

import numpy as np

from ... import __version__
from ...models import NETWORKS
from ...nn.blocks import AttentionBlock, Downsample, ResBlock, Upsample
from ...nn.embedding import Conditioning
from ...ops import REGISTRY
from ...ops.conv import PADS
from ...params import Layout, Theta

name, version = "refdiff", __version__


# ---- operations

def _pad(padding, k):
    """The name of a (before, after) padding of a k x k kernel."""
    for pad, of in PADS.items():
        if of(k) == tuple(padding):
            return pad
    raise ValueError(f"conv2d: padding is {padding} for a {k}x{k} kernel, wanted "
                     + " or ".join(str(of(k)) for of in PADS.values()))


def _op(op):
    def answer(dy, **given):
        if "padding" in given:
            given["pad"] = _pad(given.pop("padding"), given["w"].shape[0])
        arrays = [given.pop(one.name) for one in op.inputs]
        y, saved = op.forward(*arrays, **given)
        found = op.backward(saved, _fits(dy, y))
        names = [one.name for one in op.inputs if one.kind == "real"]
        return {"y": y, **{f"d{n}": d for n, d in zip(names, found if len(names) > 1 else [found])}}
    return answer


def _fits(dy, y):
    if np.shape(dy) != np.shape(y):
        raise ValueError(f"dy has shape {np.shape(dy)}, wanted that of y, {np.shape(y)}")
    return dy


# ---- blocks and networks: weights by name in one theta, gradients by the same names

def _theta(layout, weights, dtype):
    """The Theta of named arrays. Raises ValueError for names and shapes that the layout has not."""
    wanted, got = dict(layout.index()), {name: np.shape(value) for name, value in weights.items()}
    wrong = sorted(name for name in set(got) | set(wanted) if got.get(name) != wanted.get(name))
    if wrong:
        raise ValueError("weights: " + "; ".join(f"{one} is {got.get(one, 'missing')}, wanted {wanted.get(one, 'none')}"
                                                 for one in wrong))
    theta = Theta(layout, np.zeros(layout.size, dtype))
    for one, value in weights.items():
        theta[one] = value
    return theta


BLOCK = "block"                                             # what the one block of a layout is called


def _block(make, weights, forward, dy, of):
    """y, the gradients named in `of`, and d<weight> of a block made by make(layout, name)."""
    layout = Layout()
    made = make(layout, BLOCK)
    theta = _theta(layout, {f"{BLOCK}.{one}": value for one, value in weights.items()}, dy.dtype)
    grad = theta.zeros_like()
    y, saved = forward(made, theta)
    found = made.backward(saved, _fits(dy, y), grad)
    return {"y": y, **{f"d{one}": d for one, d in zip(of, found if isinstance(found, tuple) else (found,))},
            **{f"d{one.removeprefix(BLOCK + '.')}": grad[one] for one in layout.handles}}


def block_res(x, emb, weights, dy, groups, norm_eps, scale_shift, resample):
    config = SimpleNamespace(groups=groups, norm_eps=norm_eps, scale_shift=scale_shift, zero_init=True)
    c, d = x.shape[-1], weights["conv2.b"].shape[0]
    return _block(lambda layout, name: ResBlock.make(layout, name, c, d, emb.shape[-1], x.shape[1], config,
                                                     None if resample == "none" else resample),
                  weights, lambda block, theta: block.forward(theta, x, emb), dy, ("x", "emb"))


def block_attention(x, weights, dy, heads, groups, norm_eps):
    config = SimpleNamespace(groups=groups, norm_eps=norm_eps, heads=heads, head_channels=0, zero_init=True)
    return _block(lambda layout, name: AttentionBlock.make(layout, name, x.shape[-1], config), weights,
                  lambda block, theta: block.forward(theta, x), dy, ("x",))


def block_down(x, weights, dy, padding):
    config = SimpleNamespace(down_pad={"asymmetric": "ddpm", "symmetric": "same"}[padding])
    return _block(lambda layout, name: Downsample.make(layout, name, x.shape[-1], config), weights,
                  lambda block, theta: block.forward(theta, x), dy, ("x",))


def block_up(x, weights, dy):
    return _block(lambda layout, name: Upsample.make(layout, name, x.shape[-1]), weights,
                  lambda block, theta: block.forward(theta, x), dy, ("x",))


def block_time(t, weights, dy, channels, order, denominator, period, scale, labels=None):
    classes = len(weights["label.table"]) - 1 if "label.table" in weights else 0
    return _block(lambda layout, name: Conditioning.make(layout, name, channels, weights["linear2.b"].shape[0], classes,
                                                         True, order, denominator, period, scale),
                  weights, lambda block, theta: block.forward(theta, t, labels), dy, ("t",))


def network(config, weights, x, t, dy, labels=None):
    config = dict(config)
    make, settings = NETWORKS[config.pop("kind")]
    made = make(settings(**config))
    theta = _theta(made.layout, weights, x.dtype)
    grad = theta.zeros_like()
    y, saved = made.forward(theta, x, t, labels)
    dx = made.backward(saved, _fits(dy, y), grad)
    return {"y": y, "dx": dx, **{f"d{one}": grad[one] for one in made.layout.handles}}


METHODS = {**{f"op_{one}": _op(op) for one, op in REGISTRY.items()},
           **{method.__name__: method for method in (block_res, block_attention, block_down, block_up, block_time,
                                                     network)}}
globals().update(METHODS)
