"""Forward mode through whole networks: Fdot = J (xdot, c_noisedot, thetadot), by the ops' own jvp.

    F, saved = network.forward(theta, x, c_noise, labels)
    Fdot     = jvp(network, saved, xdot)                        # the transpose of network.backward

The walk has the order of the forward and reads what the forward saved, so one forward serves any number of tangents.
`saved` belongs to the network's forward and is read here and in its backward alone. A tangent that is left out is
zero; without thetadot a layer is linear in x, and its tangent is the layer without its bias.
"""
from functools import singledispatch

from . import backend
from .models.compat import DeviatingUNet
from .models.mlp import MLP
from .models.unet import UNet
from .nn.blocks import AttentionBlock, Resample, ResBlock
from .nn.embedding import Conditioning
from .nn.layers import Conv2d, GroupNorm, Linear, NormSiLU
from .ops import (add, attention, concat, conv2d, dropout, embedding, group_norm, linear, norm_silu, silu, sinusoid,
                  upsample_conv2d)


def jvp(network, saved, xdot, c_noisedot=None, thetadot=None):
    """The derivative of F(theta, x, c_noise) along (xdot [n, ...], c_noisedot (n,), thetadot a Theta): Fdot [n, ...].

    saved is what network.forward returned. Raises TypeError for a network that has no forward mode here, ValueError
    where the forward kept nothing.
    """
    return _jvp(network, saved, xdot, c_noisedot, thetadot)


@singledispatch
def _jvp(module, saved, *tangents):
    raise TypeError(f"jvp: no forward mode for {type(module).__name__}; there is one for UNet and MLP")


# ---- layers: (layer, saved, xdot, dot) with dot = thetadot or None

@_jvp.register
def _(layer: Linear, saved, xdot, dot):
    return xdot @ saved[1] if dot is None else linear.jvp(saved, xdot, dot[layer.w], dot[layer.b])


@_jvp.register
def _(layer: Conv2d, saved, xdot, dot):
    op = upsample_conv2d if layer.doubled else conv2d
    if dot is not None:
        return op.jvp(saved, xdot, dot[layer.w], dot[layer.b])
    _, w, *options = saved
    return op.forward(xdot, w, backend.of(w=w).zeros(w.shape[-1], w.dtype), *options)[0]


@_jvp.register
def _(layer: GroupNorm, saved, xdot, dot):
    return group_norm.jvp(saved, xdot, *((0, 0) if dot is None else (dot[layer.gamma], dot[layer.beta])))


@_jvp.register
def _(layer: NormSiLU, saved, xdot, dot, edot=None, scaledot=None, shiftdot=None):
    zero = backend.of(xdot=xdot).zeros((xdot.shape[0], xdot.shape[-1]), xdot.dtype)
    edot, scaledot, shiftdot = (zero if a is None else a for a in (edot, scaledot, shiftdot))
    of_layer = (0, 0) if dot is None else (dot[layer.gamma], dot[layer.beta])
    return norm_silu.jvp(saved, xdot, edot, *of_layer, scaledot, shiftdot)


# ---- blocks: (block, saved, xdot, embdot, dot)

@_jvp.register
def _(block: ResBlock, saved, xdot, embdot, dot):
    s_norm1, s_res, s_conv1, s_time, s_norm2, s_drop, s_conv2, s_short, s_add = saved
    hdot = _jvp(block.norm1, s_norm1, xdot, dot)
    if block.resample:
        hdot, xdot = block.resample.jvp(s_res, hdot), block.resample.jvp(s_res, xdot)
    hdot = _jvp(block.conv1, s_conv1, hdot, dot)
    edot = _jvp(block.time, s_time, embdot, dot)                                # (n, d) or (n, 2d)
    told = (None, edot[:, :block.width], edot[:, block.width:]) if block.scale_shift else (edot,)
    hdot = _jvp(block.norm2, s_norm2, hdot, dot, *told)
    if s_drop is not None:
        hdot = dropout.jvp(s_drop, hdot)
    hdot = _jvp(block.conv2, s_conv2, hdot, dot)
    return add.jvp(s_add, _jvp(block.shortcut, s_short, xdot, dot) if block.shortcut else xdot, hdot)


@_jvp.register
def _(block: AttentionBlock, saved, xdot, embdot, dot):
    s_norm, s_qkv, s_att, s_proj, s_add = saved
    n, h, w, c = xdot.shape
    qkv = _jvp(block.qkv, s_qkv, _jvp(block.norm, s_norm, xdot, dot).reshape(n, h * w, c), dot)
    qkv = qkv.reshape(n, h * w, 3, block.heads, c // block.heads)
    odot = attention.jvp(s_att, qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])       # (n, t, heads, d)
    return add.jvp(s_add, xdot, _jvp(block.proj, s_proj, odot.reshape(n, h * w, c), dot).reshape(xdot.shape))


@_jvp.register
def _(block: Resample, saved, xdot, embdot, dot):
    return _jvp(block.conv, saved, xdot, dot)


# ---- what the network is told: (conditioning, saved, c_noisedot, dot)

@_jvp.register
def _(block: Conditioning, saved, c_noisedot, dot):
    s0, s1, s2, s3, s4, s5 = saved
    wavedot = sinusoid.jvp(s0, block.time_scale * c_noisedot).astype(s1[0].dtype, copy=False)
    hdot = _jvp(block.linear2, s3, silu.jvp(s2, _jvp(block.linear1, s1, wavedot, dot)), dot)
    if block.classes and dot is not None:
        hdot = hdot + embedding.jvp(s4, dot[block.table.table])
    return silu.jvp(s5, hdot)


# ---- networks: (network, saved, xdot, c_noisedot, dot)

def _still(xdot):
    """The c_noisedot of a c_noise that does not move."""
    return backend.of(xdot=xdot).zeros(len(xdot), xdot.dtype)


@_jvp.register
def _(net: UNet, saved, xdot, c_noisedot, dot):
    if not saved:
        raise ValueError("jvp: this forward saved nothing (keep=False), or a backward with keep=False has used it up; "
                         "run the forward again")
    s = iter(saved)                                                             # in the order of the forward
    embdot = _jvp(net.conditioning, next(s), _still(xdot) if c_noisedot is None else c_noisedot, dot)

    def run(chain, hdot):
        for block in chain:
            hdot = _jvp(block, next(s), hdot, embdot, dot)
        return hdot

    skips = [hdot := _jvp(net.conv_in, next(s), xdot, dot)]
    for chain in net.down:
        skips.append(hdot := run(chain, hdot))
    hdot = run(net.mid, hdot)
    for chain in net.up:
        hdot = run(chain, concat.jvp(next(s), hdot, skips.pop()))
    hdot = _jvp(net.norm_out, next(s), hdot, dot)
    return _jvp(net.conv_out, next(s), hdot, dot)


@_jvp.register
def _(net: DeviatingUNet, saved, xdot, c_noisedot, dot):
    return _jvp.dispatch(UNet)(net, saved, xdot, c_noisedot, None if dot is None else net.scale(dot.copy()))


@_jvp.register
def _(net: MLP, saved, xdot, c_noisedot, dot):
    s_wave, s_cat, layers, s_out = saved
    wavedot = sinusoid.jvp(s_wave, net.config.time_scale * (_still(xdot) if c_noisedot is None else c_noisedot))
    hdot = concat.jvp(s_cat, xdot, wavedot.astype(xdot.dtype, copy=False))
    for layer, (s, s_silu) in zip(net.hidden, layers):
        hdot = silu.jvp(s_silu, _jvp(layer, s, hdot, dot))
    return _jvp(net.out, s_out, hdot, dot)
