"""Every operation, by name. `op.REGISTRY` lists them all."""
from .op import REGISTRY, Op
from .attention import attention, softmax
from .conv import conv2d
from .elementwise import add, dropout, scale_shift, shift, sigmoid, silu
from .linear import embedding, linear
from .loss import cross_entropy, mse, pseudo_huber
from .norm import group_norm
from .norm_silu import norm_silu
from .resample import avg_pool, concat, sinusoid, upsample, upsample_conv2d
from .tokens import gelu, gelu_tanh, layer_norm
from .variational import binned_normal, gaussian_kl

__all__ = ["REGISTRY", "Op", "add", "attention", "avg_pool", "binned_normal", "concat", "conv2d", "cross_entropy",
           "dropout", "embedding", "gaussian_kl", "gelu", "gelu_tanh", "group_norm", "layer_norm", "linear", "mse",
           "norm_silu", "pseudo_huber", "scale_shift", "shift", "sigmoid", "silu", "sinusoid", "softmax", "upsample",
           "upsample_conv2d"]
