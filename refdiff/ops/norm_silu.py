"""Normalise, modulate, SiLU: what stands before every 3x3 convolution of a U-Net, as one op.

    y = SiLU(z),  z = (gamma xhat + beta)(1 + scale) + shift,  xhat = (x + e - mu)/s,  s = sqrt(var + eps)

mu and var are those of x + e over all pixels of a group of channels, per image. e, scale and shift are per image and
channel: time enters by e in the DDPM's form, by scale and shift in ADM's; those that are not used are zero. SiLU is
z/(1 + e^-z) = v (1 + tanh v) with v = z/2, and v is what is computed here. With dv = (dy/dv) dy and
g = gamma (1 + scale)/2 dv, dx is GroupNorm's. Of arrays of its size x alone is kept: the rest is computed again.
"""
from .. import backend
from .norm import check_group_norm, pixel_mean
from .op import Op, sum_pixels, wanted


def check_norm_silu(x, e, gamma, beta, scale, shift, groups):
    """Refuse what does not fit x[n,h,w,c]."""
    backend.of(x=x, e=e, gamma=gamma, beta=beta, scale=scale, shift=shift)
    check_group_norm(x, gamma, beta, groups, "norm_silu")
    n, c = x.shape[0], x.shape[-1]
    for name, a in (("e", e), ("scale", scale), ("shift", shift)):
        if a.shape != (n, c):
            raise wanted("norm_silu", f"the shape of {name}", a.shape, f"{(n, c)}, (n, c) of x")


def norm_silu_forward(x, e, gamma, beta, scale, shift, groups=32, eps=1e-6):
    """y = v (1 + tanh v), 2 v = (gamma xhat + beta)(1 + scale) + shift, xhat = (x + e - mu)/sqrt(var + eps) [GN eq. 1].

    x (n,h,w,c), gamma and beta (c,), the others (n,c).
    """
    check_norm_silu(x, e, gamma, beta, scale, shift, groups)
    n, h, w, c = x.shape
    x, e = x.reshape(n, h * w, c), e[:, None]                                   # (n, hw, c), (n, 1, c)
    gain, shift = 0.5 + 0.5 * scale[:, None], 0.5 * shift[:, None]
    centre = pixel_mean(x + e, groups) - e                                      # x + e - mu = x - centre
    u = x - centre
    rs = (pixel_mean(u * u, groups) + eps) ** -0.5                              # 1/s, (n, 1, c)
    y, _ = half_silu(u * rs, gamma, beta, gain, shift)
    return y.reshape(n, h, w, c), (x, centre, rs, gamma, beta, gain, shift, groups)


def half_silu(xhat, gamma, beta, gain, shift):
    """y = v t and dy/dv = t (1 + v (2 - t)): t = 1 + tanh v, v = (gamma xhat + beta) gain + shift."""
    v = (xhat * gamma + beta) * gain + shift
    t = 1 + backend.of(xhat=xhat).tanh(v)
    return v * t, t * (1 + v * (2 - t))


def norm_silu_backward(saved, dy):
    """With dv = (dy/dv) dy and g = gamma gain dv: dx = (g - mean g - xhat mean(g xhat))/s, de = sum_hw dx."""
    x, centre, rs, gamma, beta, gain, shift, groups = saved
    xhat = (x - centre) * rs
    dv = half_silu(xhat, gamma, beta, gain, shift)[1] * dy.reshape(x.shape)
    g = gamma * gain * dv
    dx = (rs * (g - pixel_mean(g, groups) - xhat * pixel_mean(g * xhat, groups))).reshape(dy.shape)
    sums = (sum_pixels(a.reshape(dy.shape)) for a in (dv * xhat, dv))
    return dx, sum_pixels(dx), *affine_backward(gamma, beta, gain, *sums)


def affine_backward(gamma, beta, gain, dv_xhat, dv):
    """dgamma, dbeta, dscale, dshift from the sums of dv xhat and of dv over the pixels, (n,c)."""
    gain = gain[:, 0]
    return (dv_xhat * gain).sum(0), (dv * gain).sum(0), 0.5 * (dv_xhat * gamma + dv * beta), 0.5 * dv


def norm_silu_jvp(saved, xdot, edot, gammadot, betadot, scaledot, shiftdot):
    """ydot = (dy/dv) vdot, vdot = (gamma xhat + beta)dot gain + ((gamma xhat + beta) scaledot + shiftdot)/2."""
    x, centre, rs, gamma, beta, gain, shift, groups = saved
    xhat = (x - centre) * rs
    u = xdot.reshape(x.shape) + edot[:, None]
    xhatdot = rs * (u - pixel_mean(u, groups) - xhat * pixel_mean(u * xhat, groups))
    vdot = ((gamma * xhatdot + gammadot * xhat + betadot) * gain
            + 0.5 * ((gamma * xhat + beta) * scaledot[:, None] + shiftdot[:, None]))
    return (half_silu(xhat, gamma, beta, gain, shift)[1] * vdot).reshape(xdot.shape)


norm_silu = Op("norm_silu", norm_silu_forward, norm_silu_backward, norm_silu_jvp,
               "x[n,h,w,c] e[n,c] gamma[c] beta[c] scale[n,c] shift[n,c] -> y[n,h,w,c]",
               options={"groups": (1, 2, 4), "eps": (1e-6, 1e-5)},
               sizes={"c": (4, 8, 12), "h": (1, 2, 3, 5), "w": (2, 3, 4)})
