"""What networks of tokens use beside the U-Net's ops: GELU, exact and by tanh, and LayerNorm."""
import math

from .. import backend
from .op import Op, sum_rows, wanted


# ---- GELU, exact: y = x Phi(x) with Phi the normal distribution function;  y' = Phi + x phi

def gelu_forward(x):
    """y = x Phi(x), Phi(x) = (1 + erf(x/sqrt 2))/2 [GELU sec. 2]."""
    Phi = 0.5 * (1 + backend.erf(x * math.sqrt(0.5)))
    return x * Phi, (x, Phi)


def gelu_slope(saved):
    """y' = Phi(x) + x phi(x), phi(x) = e^(-x^2/2)/sqrt(2 pi)."""
    x, Phi = saved
    return Phi + x * backend.of(x=x).exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def gelu_backward(saved, dy):
    """dx = y' dy."""
    return gelu_slope(saved) * dy


def gelu_jvp(saved, xdot):
    """ydot = y' xdot."""
    return gelu_slope(saved) * xdot


gelu = Op("gelu", gelu_forward, gelu_backward, gelu_jvp, "x[n,h,c] -> y[n,h,c]")


# ---- GELU, tanh form: y = x (1 + tanh u)/2, u = sqrt(2/pi) (x + .044715 x^3)

def gelu_tanh_forward(x):
    """y = x (1 + tanh u)/2 with u = sqrt(2/pi) (x + 0.044715 x^3) [GELU sec. 2]."""
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    th = backend.of(x=x).tanh(u)
    return 0.5 * x * (1 + th), (x, th)


def gelu_tanh_slope(saved):
    """y' = (1 + tanh u)/2 + x (1 - tanh^2 u) u'/2,  u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)."""
    x, th = saved
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + th) + 0.5 * x * (1 - th * th) * du


def gelu_tanh_backward(saved, dy):
    """dx = y' dy."""
    return gelu_tanh_slope(saved) * dy


def gelu_tanh_jvp(saved, xdot):
    """ydot = y' xdot."""
    return gelu_tanh_slope(saved) * xdot


gelu_tanh = Op("gelu_tanh", gelu_tanh_forward, gelu_tanh_backward, gelu_tanh_jvp, "x[n,h,c] -> y[n,h,c]")


# ---- LayerNorm: y = gamma (x - mu)/s + beta, mu and s over the channels of one token;  dx as GroupNorm's

def layer_norm_forward(x, gamma, beta, eps=1e-5):
    """y = gamma (x - mu)/sqrt(var + eps) + beta, mu and var over the last axis."""
    xp = backend.of(x=x, gamma=gamma, beta=beta)
    if gamma.shape != x.shape[-1:] or beta.shape != x.shape[-1:]:
        raise wanted("layer_norm", "gamma and beta", f"{gamma.shape} and {beta.shape}", f"{x.shape[-1:]}, c of x")
    xhat = x - x.mean(-1, keepdims=True)
    rs = 1 / xp.sqrt((xhat * xhat).mean(-1, keepdims=True) + eps)
    xhat = xhat * rs
    return xhat * gamma + beta, (xhat, rs, gamma)


def layer_norm_backward(saved, dy):
    """dx = (g - mean g - xhat mean(g xhat))/s with g = gamma dy;  dgamma = sum dy xhat;  dbeta = sum dy."""
    xhat, rs, gamma = saved
    g = dy * gamma
    dx = rs * (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True))
    return dx, sum_rows(dy * xhat), sum_rows(dy)


def layer_norm_jvp(saved, xdot, gammadot, betadot):
    """ydot = gamma xhatdot + gammadot xhat + betadot."""
    xhat, rs, gamma = saved
    xhatdot = rs * (xdot - xdot.mean(-1, keepdims=True) - xhat * (xdot * xhat).mean(-1, keepdims=True))
    return gamma * xhatdot + gammadot * xhat + betadot


layer_norm = Op("layer_norm", layer_norm_forward, layer_norm_backward, layer_norm_jvp,
                "x[n,t,c] gamma[c] beta[c] -> y[n,t,c]",
                options={"eps": (1e-5, 1e-6)}, sizes={"c": (2, 3, 8)})
