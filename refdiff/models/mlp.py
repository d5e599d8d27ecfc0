"""A small MLP for points: the same contract as the U-Net, for data one can plot.

    h = [x, sinusoid(time_scale c_noise)];   h <- SiLU(W h + b), several times;   F = W h + b
"""
from dataclasses import dataclass

from ..config import check, setting
from ..nn import init
from ..nn.layers import Linear
from ..ops import concat, silu, sinusoid
from ..params import Layout


@dataclass(frozen=True)
class MLPConfig:
    """dim coordinates, `depth` hidden layers of `width`, time embedded in `embedding` numbers."""

    dim: int = setting(2, "coordinates of a point", "[1, inf)")
    width: int = setting(128, "of the hidden layers", "[1, inf)")
    depth: int = setting(3, "number of hidden layers", "[1, inf)")
    embedding: int = setting(32, "numbers that time is embedded in", "[4, inf)")
    embedding_period: float = setting(100.0, "ratio of its longest to its shortest wave", "(1, inf)")
    time_scale: float = setting(10.0, "it sees time_scale * c_noise", "(0, inf)")
    classes: int = setting(0, "points have no labels", "[0, 0]")

    __post_init__ = check


class MLP:
    """The network of an MLPConfig. Holds no values."""

    def __init__(self, config):
        self.config = config
        self.layout = layout = Layout()
        sizes = [config.dim + config.embedding] + [config.width] * config.depth
        self.hidden = [Linear.make(layout, f"hidden.{i}", c, d) for i, (c, d) in enumerate(zip(sizes, sizes[1:]))]
        self.out = Linear.make(layout, "out", config.width, config.dim, w_init=init.zeros)

    def masks(self, key, n, dtype):
        """No dropout."""
        return None

    def forward(self, theta, x, c_noise, labels=None, masks=None, keep=True):
        """F(x; c_noise): x (n, dim), c_noise (n,) -> (n, dim). keep: saved is small, and there in any case."""
        config = self.config
        if x.ndim != 2 or x.shape[1] != config.dim or c_noise.shape != x.shape[:1]:
            raise ValueError(f"MLP: x is {x.shape} and c_noise {c_noise.shape}, wanted (n, {config.dim}) and (n,)")
        if labels is not None:
            raise ValueError("MLP: labels were given to a network without classes; pass None")
        wave, s_wave = sinusoid.forward(config.time_scale * c_noise, config.embedding, period=config.embedding_period)
        h, s_cat = concat.forward(x, wave.astype(x.dtype, copy=False))
        saved = []
        for layer in self.hidden:
            h, s = layer.forward(theta, h)
            h, s_silu = silu.forward(h)
            saved.append((s, s_silu))
        F, s_out = self.out.forward(theta, h)
        return F, (s_wave, s_cat, saved, s_out)

    def backward(self, saved, dF, grad, keep=True):
        """Adds d<F, dF>/dtheta into grad; returns d<F, dF>/dx. saved is small, and kept in any case."""
        _, s_cat, layers, s_out = saved
        dh = self.out.backward(s_out, dF, grad)
        for layer, (s, s_silu) in zip(reversed(self.hidden), reversed(layers)):
            dh = layer.backward(s, silu.backward(s_silu, dh), grad)
        dx, _ = concat.backward(s_cat, dh)
        return dx
