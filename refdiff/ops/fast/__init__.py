"""The ops that networks run by: the same maps under the same names, each by its fastest route here (routed.py).

    from ..ops.fast import conv2d
    y, saved = conv2d.forward(x, w, b, stride=2)          # forward, backward and jvp as those of ops.conv2d

An op without a faster route is the plain one itself.
"""
from .. import (add, avg_pool, concat, dropout, embedding, scale_shift, shift, silu, sinusoid,  # noqa: F401
                upsample)
from .attention import attention  # noqa: F401
from .conv import conv2d, upsample_conv2d  # noqa: F401
from .linear import linear  # noqa: F401
from .norm import group_norm, norm_silu  # noqa: F401
from .routed import Routed, use  # noqa: F401

# Faster on a device alone.
avg_pool, concat, embedding, scale_shift, shift, silu, sinusoid, upsample = map(Routed, (
    avg_pool, concat, embedding, scale_shift, shift, silu, sinusoid, upsample))
