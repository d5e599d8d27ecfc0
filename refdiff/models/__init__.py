"""Networks F(theta, x, c_noise, labels): the U-Net and a small MLP for points, under one contract."""
from dataclasses import asdict, dataclass

from ..config import check, setting
from .mlp import MLP, MLPConfig
from .unet import UNet, UNetConfig

NETWORKS = {"unet": (UNet, UNetConfig), "mlp": (MLP, MLPConfig)}


@dataclass(frozen=True)
class NetworkOptions:
    """What of a U-Net is usually chosen; None is chosen by `suggest`."""

    channels: int | None = setting(None, "of the U-Net's first level", "[1, inf)")
    multipliers: tuple[int, ...] | None = setting(None, "channels of each level, times the first's", "[1, inf)")
    blocks: int | None = setting(None, "ResBlocks per level on the way down; one more on the way up", "[1, inf)")
    attention: tuple[int, ...] | None = setting(None, "image sizes with attention after every ResBlock", "[1, inf)")
    heads: int | None = setting(None, "of attention", "[1, inf)")
    groups: int | None = setting(None, "of channels that are normalised together", "[1, inf)")
    dropout: float | None = setting(None, "share of activations dropped", "[0, 1)")
    time_scale: float | None = setting(None, "of what the network is told of the noise level, embedded", "(0, inf)")
    embedding_period: float | None = setting(None, "ratio of that embedding's longest to its shortest wave", "(1, inf)")

    __post_init__ = check


def suggest(size, options=NetworkOptions(), prediction="F"):
    """A UNetConfig for size x size images: halved down to 4..7 pixels, with attention on the smallest.

    The time embedding is scaled for what the network is told: for prediction "F" it is EDM's c_noise = ln(sigma)/4,
    whose range is a few units; for others t = 1..T (velocity: 0..1000), between whose integers, where the PF-ODE goes
    and no training was, the fastest wave must not turn.
    """
    levels = max(1, size.bit_length() - 2)
    while levels > 1 and size % 2 ** (levels - 1):
        levels -= 1
    lowest = size >> (levels - 1)
    attention = (lowest,) if size <= 8 else (lowest, 2 * lowest)
    chosen = dict(channels=16 if size <= 8 else 32 if size <= 16 else 64, multipliers=(1,) + (2,) * (levels - 1),
                  blocks=1, attention=tuple(s for s in attention if s <= size), heads=1, groups=8, dropout=0.0)
    chosen.update(dict(time_scale=16.0, embedding_period=100.0) if prediction == "F" else
                  dict(time_scale=1.0, embedding_period=10000.0))
    chosen.update({name: value for name, value in asdict(options).items() if value is not None})
    return UNetConfig(image_size=size, **chosen)
