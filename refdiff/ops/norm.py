"""GroupNorm: normalise the pixels of a group of channels, per image, then an affine map per channel.

    y = gamma xhat + beta,  xhat = (x - mu)/s,  s = sqrt(var + eps)

With g = gamma dy, the transpose removes from g what mu and s would have absorbed:

    dx = (g - mean(g) - xhat mean(g xhat))/s
"""
from .. import backend
from .op import Op, check_image, sum_rows, wanted


def pixel_mean(x, groups):
    """Mean over pixels and over the channels of each group, given back per channel: (n,hw,c) -> (n,1,c).

    The sum over pixels is a product with ones: one pass over contiguous memory.
    """
    xp = backend.of(x=x)
    n, hw, c = x.shape
    sums = xp.ones((1, hw), x.dtype) @ x                                        # (n, 1, c)
    means = sums.reshape(n, groups, c // groups).sum(2) / (hw * (c // groups))  # (n, groups)
    return means.repeat(c // groups, axis=1)[:, None, :]


def check_group_norm(x, gamma, beta, groups, op="group_norm"):
    """Refuse what does not fit x[n,h,w,c]."""
    backend.of(x=x, gamma=gamma, beta=beta)
    check_image(op, x)
    c = x.shape[-1]
    if c % groups:
        raise wanted(op, "the number of channels", c, f"a multiple of groups={groups}")
    if gamma.shape != (c,) or beta.shape != (c,):
        raise wanted(op, "gamma and beta", f"{gamma.shape} and {beta.shape}", f"({c},), the channels of x")


def group_norm_forward(x, gamma, beta, groups=32, eps=1e-6):
    """y = gamma (x - mu)/sqrt(var + eps) + beta, mu and var per image and group of channels [GN eq. 1, 2, 6, 7].

    x (n,h,w,c) with c divisible by groups; var is the biased variance. Published networks use
    eps = 1e-6 or 1e-5.
    """
    check_group_norm(x, gamma, beta, groups)
    xp = backend.of(x=x)
    n, h, w, c = x.shape
    xhat = x.reshape(n, h * w, c)
    xhat = xhat - pixel_mean(xhat, groups)
    rs = 1 / xp.sqrt(pixel_mean(xhat * xhat, groups) + eps)                     # 1/s, (n, 1, c)
    xhat *= rs
    y = xhat * gamma
    y += beta
    return y.reshape(x.shape), (xhat, rs, gamma, groups)


def group_norm_backward(saved, dy):
    """dx = (g - mean g - xhat mean(g xhat))/s with g = gamma dy;  dgamma = sum dy xhat;  dbeta = sum dy."""
    xhat, rs, gamma, groups = saved
    n, hw, c = xhat.shape
    shape, dy = dy.shape, dy.reshape(n, hw, c)
    dgamma = sum_rows(dy * xhat)
    dbeta = sum_rows(dy)
    dx = dy * gamma                                                             # g
    mean, slope = pixel_mean(dx, groups), pixel_mean(dx * xhat, groups)
    dx -= mean
    dx -= xhat * slope
    dx *= rs
    return dx.reshape(shape), dgamma, dbeta


def group_norm_jvp(saved, xdot, gammadot, betadot):
    """ydot = gamma xhatdot + gammadot xhat + betadot, xhatdot = (xdot - mean xdot - xhat mean(xdot xhat))/s."""
    xhat, rs, gamma, groups = saved
    n, hw, c = xhat.shape
    shape, xdot = xdot.shape, xdot.reshape(n, hw, c)
    xhatdot = rs * (xdot - pixel_mean(xdot, groups) - xhat * pixel_mean(xdot * xhat, groups))
    return (gamma * xhatdot + gammadot * xhat + betadot).reshape(shape)


group_norm = Op("group_norm", group_norm_forward, group_norm_backward, group_norm_jvp,
                "x[n,h,w,c] gamma[c] beta[c] -> y[n,h,w,c]",
                options={"groups": (1, 2, 4), "eps": (1e-6, 1e-5)},
                sizes={"c": (4, 8, 12), "h": (1, 2, 3, 5), "w": (2, 3, 4)})
