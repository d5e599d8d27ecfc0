"""The same U-Net in PyTorch: our structure and theta, its operations and its automatic gradient.

    twin = Twin(network.layout, theta.flat)
    F = twin.unet(network, x, c_noise, labels, masks)        # x, masks (n, c, h, w)
    twin.gradients()                                         # {name: array in our layout}, after a backward

Kernels become (d, c, k, k) and matrices (d, c), as PyTorch keeps them; channels_last is a memory format of both images
and kernels. The twin shares no formula with refdiff: it judges it, and is judged by it, before either is timed.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..nn.blocks import AttentionBlock, Downsample, ResBlock, Upsample


def images(array, channels_last, device="cpu"):
    """(n, h, w, c) of NumPy -> (n, c, h, w) of PyTorch in one of the two memory formats."""
    x = torch.from_numpy(np.array(array)).to(device).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class Twin(nn.Module):
    """The parameters of a Layout, and what our blocks do with them."""

    def __init__(self, layout, flat, channels_last=False, device="cpu"):
        super().__init__()
        self.layout = layout
        self.places = {name: i for i, name in enumerate(layout.handles)}
        self.values = nn.ParameterList()
        for handle in layout.handles.values():
            w = torch.from_numpy(np.array(flat[handle.start:handle.stop]).reshape(handle.shape)).to(device)
            if w.ndim == 4:
                w = w.permute(3, 2, 0, 1).contiguous(
                    memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            elif handle.name.endswith(".w"):
                w = w.T.contiguous()
            self.values.append(nn.Parameter(w))

    def value(self, handle):
        return self.values[self.places[handle.name]]

    def gradients(self):
        """{name: gradient}, NumPy arrays shaped as theta's; 0 where no gradient arrived."""
        found = {}
        for name, p in zip(self.layout.handles, self.values):
            g = torch.zeros_like(p) if p.grad is None else p.grad
            g = g.permute(2, 3, 1, 0) if g.ndim == 4 else g.T if name.endswith(".w") else g
            found[name] = np.ascontiguousarray(g.cpu().numpy())
        return found

    # ---- layers

    def linear(self, layer, x):
        return F.linear(x, self.value(layer.w), self.value(layer.b))

    def conv(self, layer, x):
        w, b = self.value(layer.w), self.value(layer.b)
        half = w.shape[-1] // 2
        if layer.pad == "ddpm" and half:
            return F.conv2d(F.pad(x, (0, half, 0, half)), w, b, layer.stride)
        return F.conv2d(x, w, b, layer.stride, half)

    def norm(self, layer, x):
        return F.group_norm(x, layer.groups, self.value(layer.gamma), self.value(layer.beta), layer.eps)

    # ---- blocks

    def res(self, block, x, emb, mask=None):
        h = F.silu(self.norm(block.norm1, x))
        if block.resample is not None:
            h, x = (F.avg_pool2d(a, 2) if block.size < x.shape[2] else F.interpolate(a, scale_factor=2.0)
                    for a in (h, x))
        h = self.conv(block.conv1, h)
        e = self.linear(block.time, emb)[:, :, None, None]
        if block.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.norm(block.norm2, h) * (1 + scale) + shift
        else:
            h = self.norm(block.norm2, h + e)
        h = F.silu(h)
        if mask is not None:
            h = h * mask
        h = self.conv(block.conv2, h)
        return (self.conv(block.shortcut, x) if block.shortcut else x) + h

    def attention(self, block, x):
        n, c, height, width = x.shape
        tokens = self.norm(block.norm, x).permute(0, 2, 3, 1).reshape(n, height * width, c)
        qkv = self.linear(block.qkv, tokens).reshape(n, height * width, 3, block.heads, c // block.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                    # each (n, heads, t, d)
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, height * width, c)
        return x + self.linear(block.proj, o).reshape(n, height, width, c).permute(0, 3, 1, 2)

    def conditioning(self, part, c_noise, labels):
        width, order, denominator, period = part.sinusoid
        half = width // 2
        last = half - 1 if denominator == "half-1" else half
        f = torch.exp(-math.log(period) / last * torch.arange(half, device=c_noise.device, dtype=c_noise.dtype))
        phase = part.time_scale * c_noise[:, None] * f
        waves = [phase.sin(), phase.cos()]
        h = self.linear(part.linear2, F.silu(self.linear(part.linear1, torch.cat(
            waves if order == "sin_cos" else waves[::-1], 1))))
        if part.classes:
            if labels is None:
                labels = torch.full((len(c_noise),), part.classes, device=c_noise.device)
            h = h + F.embedding(labels, self.value(part.table.table))
        return F.silu(h)

    # ---- the network

    def unet(self, network, x, c_noise, labels=None, masks=None):
        """F(x; c_noise, labels) of one of our UNets, x and the masks channels-first."""
        emb = self.conditioning(network.conditioning, c_noise, labels)
        mask = iter(masks) if masks is not None else None

        def run(chain, h):
            for block in chain:
                if isinstance(block, ResBlock):
                    h = self.res(block, h, emb, next(mask) if mask else None)
                elif isinstance(block, AttentionBlock):
                    h = self.attention(block, h)
                elif isinstance(block, Downsample):
                    h = self.conv(block.conv, h)
                elif isinstance(block, Upsample):
                    h = self.conv(block.conv, F.interpolate(h, scale_factor=2.0))
                else:
                    raise TypeError(f"twin: no counterpart of a {type(block).__name__}; write one in bench/twin.py")
            return h

        h = self.conv(network.conv_in, x)
        skips = [h]
        for chain in network.down:
            h = run(chain, h)
            skips.append(h)
        h = run(network.mid, h)
        for chain in network.up:
            h = run(chain, torch.cat([h, skips.pop()], 1))
        return self.conv(network.conv_out, F.silu(self.norm(network.norm_out, h)))
