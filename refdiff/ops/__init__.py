"""Every operation, by name. `op.REGISTRY` lists them all."""
from .op import REGISTRY, Op
from .attention import attention, softmax
from .conv import conv2d
from .elementwise import add, dropout, gelu, gelu_tanh, scale_shift, shift, sigmoid, silu
from .linear import embedding, linear
from .loss import cross_entropy, mse, pseudo_huber
from .norm import group_norm, layer_norm
from .resample import avg_pool, concat, sinusoid, upsample
from .variational import binned_normal, gaussian_kl

__all__ = ["REGISTRY", "Op", "add", "attention", "avg_pool", "binned_normal", "concat", "conv2d", "cross_entropy",
           "dropout", "embedding", "gaussian_kl", "gelu", "gelu_tanh", "group_norm", "layer_norm", "linear", "mse",
           "pseudo_huber", "scale_shift", "shift", "sigmoid", "silu", "sinusoid", "softmax", "upsample"]
