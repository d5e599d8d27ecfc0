"""Networks F(theta, x, c_noise, labels): the U-Net and a small MLP for points, under one contract."""
from .mlp import MLP, MLPConfig
from .unet import UNet, UNetConfig

NETWORKS = {"unet": (UNet, UNetConfig), "mlp": (MLP, MLPConfig)}
