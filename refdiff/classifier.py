"""A small classifier of noisy points, p(y | x_t), and the gradient of its log-probability: for classifier guidance.

    x_hat = x/sqrt(alpha^2 + sigma^2);  h = [x_hat, sinusoid(time_scale theta)], theta = atan(sigma/alpha)
    h <- SiLU(W h + b), several times;  s = W h + b;  p(y | x_t) = softmax(s)_y

The angle theta runs from 0, clean, to pi/2, pure noise, in every family; so one classifier serves them all.

    loss, grad = classifier.loss(theta, x_t, level, labels)                         # to train it
    denoiser = guidance.classifier(denoiser, classifier.gradient(theta, y), scale=2.0)
"""
from dataclasses import dataclass

from . import backend
from .config import check, setting
from .nn import init
from .nn.layers import Linear
from .ops import concat, cross_entropy, silu, sinusoid
from .params import Layout


@dataclass(frozen=True)
class ClassifierConfig:
    """`classes` classes of points of dim coordinates, `depth` hidden layers of `width`."""

    dim: int = setting(2, "coordinates of a point", "[1, inf)")
    classes: int = setting(2, "kinds of points", "[2, inf)")
    width: int = setting(64, "of the hidden layers", "[1, inf)")
    depth: int = setting(2, "number of hidden layers", "[1, inf)")
    embedding: int = setting(16, "numbers that the noise level is embedded in", "[4, inf)")
    embedding_period: float = setting(30.0, "ratio of its longest to its shortest wave", "(1, inf)")
    time_scale: float = setting(6.0, "it sees time_scale * atan(sigma/alpha)", "(0, inf)")

    __post_init__ = check


class Classifier:
    """The network of a ClassifierConfig. Holds no values: theta is an argument."""

    def __init__(self, config):
        self.config = config
        self.layout = layout = Layout()
        sizes = [config.dim + config.embedding] + [config.width] * config.depth
        self.hidden = [Linear.make(layout, f"hidden.{i}", c, d) for i, (c, d) in enumerate(zip(sizes, sizes[1:]))]
        self.out = Linear.make(layout, "out", config.width, config.classes, w_init=init.zeros)

    def forward(self, theta, x, level):
        """The scores s, (n, classes), of x (n, dim) at one level or one per row; log p(y | x) = log softmax(s)_y."""
        config = self.config
        if x.ndim != 2 or x.shape[1] != config.dim:
            raise ValueError(f"Classifier: x is {x.shape}, wanted (n, {config.dim})")
        xp = backend.of(theta=theta.flat, x=x)
        alpha, sigma = (xp.zeros((len(x), 1), x.real.dtype) + a for a in level.expand(x.real))
        c_in = (alpha ** 2 + sigma ** 2) ** -0.5
        angle = xp.arctan2(sigma, alpha)[:, 0]
        wave, _ = sinusoid.forward(config.time_scale * angle, config.embedding, period=config.embedding_period)
        h, s_cat = concat.forward(c_in * x, wave.astype(x.dtype))
        saved = []
        for layer in self.hidden:
            h, s = layer.forward(theta, h)
            h, s_silu = silu.forward(h)
            saved.append((s, s_silu))
        scores, s_out = self.out.forward(theta, h)
        return scores, (c_in, s_cat, saved, s_out)

    def backward(self, saved, ds, grad):
        """Adds d<s, ds>/dtheta into grad; returns d<s, ds>/dx."""
        c_in, s_cat, layers, s_out = saved
        dh = self.out.backward(s_out, ds, grad)
        for layer, (s, s_silu) in zip(reversed(self.hidden), reversed(layers)):
            dh = layer.backward(s, silu.backward(s_silu, dh), grad)
        dx, _ = concat.backward(s_cat, dh)
        return c_in * dx

    def loss(self, theta, x, level, labels):
        """-mean_n log p(labels_n | x_n), and its gradient in theta; x (n, dim) noised to the level, labels (n,)."""
        scores, saved = self.forward(theta, x, level)
        loss, slope = cross_entropy.forward(scores, labels)
        grad = theta.zeros_like()
        self.backward(saved, cross_entropy.backward(slope, 1.0), grad)
        return loss, grad

    def gradient(self, theta, y):
        """(x, level) -> grad_x log p(y | x), like x; y one class for all rows, or labels (n,).

        It is run in theta's dtype and comes back in x's. cross_entropy is -1/n the sum of the rows' log-probabilities,
        and no row sees another: -n times its gradient has each row's own.
        """
        if not hasattr(y, "shape"):
            if isinstance(y, bool) or not isinstance(y, int) or not 0 <= y < self.config.classes:
                raise ValueError(f"Classifier.gradient: class {y!r}, wanted an integer in 0..{self.config.classes - 1}")

        def gradient(x, level):
            scores, saved = self.forward(theta, x.astype(theta.flat.dtype, copy=False), level)
            labels = y if hasattr(y, "shape") else backend.of(x=x).full(len(x), y)
            _, slope = cross_entropy.forward(scores, labels)
            ds = cross_entropy.backward(slope, -float(len(x)))
            return self.backward(saved, ds, theta.zeros_like()).astype(x.dtype, copy=False)

        return gradient
