"""What is minimised: the weighted square error of a denoiser, over every prediction and noise level.

    L = E w(level) |D(x_t; level) - x_0|^2,   x_t = alpha x_0 + sigma eps     [EDM eq. 2]

with |.|^2 the mean over the entries of a row, not their sum; computed on F, where it has no cancellation:
|D - x_0|^2 = c_out^2 |F - target|^2.
"""
from . import backend
from .ops import mse
from .process.gaussian import q_sample


def denoising_loss(denoiser, theta, x0, level, eps, labels=None, masks=None, weighting="edm", grad=None, share=1.0):
    """The loss of one batch, and its gradient added into grad [DDPM eq. 14], [EDM eq. 8].

    x0, eps (n, ...); level arrays (n,); labels (n,) or None; weighting one of WEIGHTINGS (Denoiser.weight).
    share multiplies the gradient: the part of a larger batch that these rows are. grad None: the loss alone.
    """
    x_t = q_sample(x0, eps, level)
    F, s_net = denoiser.evaluate(theta, x_t, level, labels, masks)
    weight = backend.of(x0=x0).asarray(denoiser.weight(weighting, level), dtype=x0.dtype)
    loss, s_loss = mse.forward(F, denoiser.target(x0, eps, level), weight)
    if grad is not None:
        dF, _ = mse.backward(s_loss, share)
        denoiser.network.backward(s_net, dF, grad, keep=False)
    return float(loss)
