"""The U-Net of DDPM [DDPM sec. B] and of ADM, by switches, with its backward in mirror order.

    F, saved = unet.forward(theta, x, c_noise, labels, masks)
    dx = unet.backward(saved, dF, grad)             # keep=False: saved is emptied on the way, and its memory freed

    conv_in -> [blocks, down] per level -> middle -> [blocks with skips, up] per level -> norm, SiLU, conv_out

Every output of the way down (conv_in, each block, each downsampler) is pushed; every block of the way
up pops one and sees [h, skip] joined on the channels. The middle is a ResBlock, attention
(whatever its size), and a ResBlock.
"""
from dataclasses import dataclass
from operator import iadd

from .. import backend
from ..config import check, setting
from ..nn import init
from ..nn.blocks import AttentionBlock, Downsample, ResBlock, Upsample
from ..nn.embedding import Conditioning
from ..nn.layers import Conv2d, NormSiLU
from ..ops.fast import concat
from ..params import Layout


@dataclass(frozen=True)
class UNetConfig:
    """The switches. Defaults are the CIFAR-10 network of DDPM, 35,746,307 parameters."""

    image_size: int = setting(32, "height and width, in pixels", "[1, inf)")
    in_channels: int = setting(3, "of an image", "[1, inf)")
    out_channels: int = setting(3, "of the output", "[1, inf)")
    channels: int = setting(128, "of the first level", "[1, inf)")
    multipliers: tuple[int, ...] = setting((1, 2, 2, 2), "channels of each level, times the first's", "[1, inf)")
    blocks: int = setting(2, "ResBlocks per level on the way down; one more on the way up", "[1, inf)")
    attention: tuple[int, ...] = setting((16,), "image sizes with attention after every ResBlock", "[1, inf)")
    heads: int = setting(1, "of attention", "[1, inf)")
    head_channels: int = setting(0, "if > 0, channels per head, instead of heads", "[0, inf)")
    groups: int = setting(32, "of channels that are normalised together", "[1, inf)")
    norm_eps: float = setting(1e-6, "added to the variance by GroupNorm", "(0, inf)")
    scale_shift: bool = setting(False, "ADM: time scales and shifts, instead of being added")
    resblock_updown: bool = setting(False, "ADM: resample inside ResBlocks, instead of by convolutions")
    down_pad: str = setting("ddpm", "of strided convolutions: ddpm (0,1,0,1), same (1,1,1,1)", choices=("ddpm", "same"))
    classes: int = setting(0, "of labels; 0: no labels", "[0, inf)")
    null_class: bool = setting(True, "labels have one more row, for images without a label")
    dropout: float = setting(0.1, "share of activations dropped before the second convolution", "[0, 1)")
    zero_init: bool = setting(True, "the last layer of every residual branch starts at 0")
    embedding_order: str = setting("sin_cos", "of the time embedding", choices=("sin_cos", "cos_sin"))
    embedding_denominator: str = setting("half-1", "of its exponents", choices=("half-1", "half"))
    embedding_period: float = setting(10000.0, "ratio of its longest to its shortest wave", "(1, inf)")
    time_scale: float = setting(1.0, "it sees time_scale * c_noise", "(0, inf)")

    def __post_init__(self):
        object.__setattr__(self, "multipliers", tuple(self.multipliers))     # lists from JSON
        object.__setattr__(self, "attention", tuple(self.attention))
        check(self)
        size = self.image_size
        if not self.multipliers:
            raise ValueError("UNetConfig: multipliers is (), wanted at least one, such as 1,2")
        if size % 2 ** (len(self.multipliers) - 1):
            raise ValueError(f"UNetConfig: image_size {size} does not halve {len(self.multipliers) - 1} times; "
                             "use fewer multipliers or pad the images")
        for m in self.multipliers:
            if self.channels * m % self.groups:
                raise ValueError(f"UNetConfig: {self.channels * m} channels do not divide into {self.groups} groups; "
                                 "choose another number of groups")


class UNet:
    """The network of a UNetConfig: a Layout and lists of blocks. Holds no values."""

    def __init__(self, config):
        sizes = [config.image_size >> level for level in range(len(config.multipliers))]
        if not set(config.attention) <= set(sizes):
            raise ValueError(f"UNet: attention at image sizes {config.attention}, wanted some of {tuple(sizes)}, those "
                             "of the levels")
        self.config = config
        self.layout = layout = Layout()
        c, emb = config.channels, 4 * config.channels
        self.conditioning = Conditioning.make(
            layout, "emb", c, emb, config.classes, config.null_class, config.embedding_order,
            config.embedding_denominator, config.embedding_period, config.time_scale)
        self.conv_in = Conv2d.make(layout, "conv_in", 3, config.in_channels, c)
        self.down, self.mid, self.up = [], [], []       # chains of blocks; a chain is what one skip belongs to

        def res(name, c, d, size, resample=None):
            return ResBlock.make(layout, name, c, d, emb, size, config, resample)

        def attend(name, c, size):
            return [AttentionBlock.make(layout, name, c, config)] if size in config.attention else []

        size, skips, last = config.image_size, [c], len(config.multipliers) - 1
        for level, m in enumerate(config.multipliers):
            d = m * config.channels
            for k in range(config.blocks):
                name = f"down.{level}.{k}"
                self.down.append([res(f"{name}.res", c, d, size), *attend(f"{name}.attention", d, size)])
                c = d
                skips.append(c)
            if level != last:
                size //= 2
                name = f"down.{level}.down"
                self.down.append([res(name, c, c, size, "down") if config.resblock_updown
                                  else Downsample.make(layout, name, c, config)])
                skips.append(c)
        self.mid = [res("mid.0", c, c, size), AttentionBlock.make(layout, "mid.attention", c, config),
                    res("mid.1", c, c, size)]
        for level, m in reversed(list(enumerate(config.multipliers))):
            d = m * config.channels
            for k in range(config.blocks + 1):
                name = f"up.{level}.{k}"
                chain = [res(f"{name}.res", c + skips.pop(), d, size), *attend(f"{name}.attention", d, size)]
                c = d
                if k == config.blocks and level != 0:
                    size *= 2
                    name = f"up.{level}.up"
                    chain.append(res(name, c, c, size, "up") if config.resblock_updown
                                 else Upsample.make(layout, name, c))
                self.up.append(chain)
        self.norm_out = NormSiLU.make(layout, "norm_out", c, config.groups, config.norm_eps)
        self.conv_out = Conv2d.make(layout, "conv_out", 3, c, config.out_channels,
                                    w_init=init.zeros if config.zero_init else init.fan_average)

    def res_blocks(self):
        """The ResBlocks in the order in which forward meets them."""
        chains = [*self.down, self.mid, *self.up]
        return [block for chain in chains for block in chain if isinstance(block, ResBlock)]

    def masks(self, key, n, dtype):
        """Dropout masks for one training step, 0 or 1/(1-p), one per ResBlock; None if dropout is 0."""
        p = self.config.dropout
        if not p:
            return None
        return [((key.fold(i).uniform((n, b.size, b.size, b.width)) >= p) / (1 - p)).astype(dtype)
                for i, b in enumerate(self.res_blocks())]

    def forward(self, theta, x, c_noise, labels=None, masks=None, keep=True):
        """F(x; c_noise, labels): x (n, h, w, c_in), c_noise (n,), labels (n,) integers or None -> (n, h, w, c_out).

        Without keep, activations are freed on the way: saved is empty, and no backward can follow.
        """
        config = self.config
        wanted = (config.image_size, config.image_size, config.in_channels)
        if x.shape[1:] != wanted or c_noise.shape != x.shape[:1]:
            raise ValueError(f"UNet: x is {x.shape} and c_noise {c_noise.shape}, "
                             f"wanted (n, {', '.join(map(str, wanted))}) and (n,)")
        backend.of(theta=theta.flat, x=x, c_noise=c_noise)
        mask = iter(masks) if masks is not None else None

        def run(chain, h):
            for block in chain:
                h, s = block.forward(theta, h, emb, next(mask) if mask and isinstance(block, ResBlock) else None)
                saved.extend([s] if keep else [])
                del s                                   # what is not kept is free before the next block begins
            return h

        emb, s_emb = self.conditioning.forward(theta, c_noise, labels)
        h, s_in = self.conv_in.forward(theta, x)
        skips, saved = [h], [s_emb, s_in]               # saved: in the order of the forward
        for chain in self.down:
            h = run(chain, h)
            skips.append(h)
        h = run(self.mid, h)
        for chain in self.up:
            h, s_cat = concat.forward(h, skips.pop())
            saved.append(s_cat)                         # shapes
            h = run(chain, h)
        h, s_norm = self.norm_out.forward(theta, h)
        F, s_out = self.conv_out.forward(theta, h)
        return F, saved + [s_norm, s_out] if keep else []

    def backward(self, saved, dF, grad, keep=True):
        """Adds d<F, dF>/dtheta into grad; returns d<F, dF>/dx. Without keep, saved is empty afterwards."""
        if not saved:
            raise ValueError("UNet: this forward saved nothing (keep=False), or a backward with keep=False has used it "
                             "up; run the forward again")
        saved, demb = list(saved) if keep else saved, 0

        def run(chain, dh):
            nonlocal demb
            for block in reversed(chain):
                dh, de = block.backward(saved.pop(), dh, grad)
                demb = demb + de
            return dh

        dh = self.conv_out.backward(saved.pop(), dF, grad)
        dh = self.norm_out.backward(saved.pop(), dh, grad)[0]
        dskips = []
        for chain in reversed(self.up):
            dh = run(chain, dh)
            dh, dskip = concat.backward(saved.pop(), dh)
            dskip = dskip if dskip.base is None else dskip.copy()               # a view would keep all of dh
            dskips.append(dskip)
        dh = run(self.mid, dh)
        for chain in reversed(self.down):
            dh = run(chain, iadd(dh, dskips.pop()))     # in place: what blocks return is nobody else's
        dx = self.conv_in.backward(saved.pop(), iadd(dh, dskips.pop()), grad)
        self.conditioning.backward(saved.pop(), demb, grad)
        return dx
