"""UNet2DModel of diffusers as the `network` of a golden case: y and every gradient, in refdiff's names and layout.

    f_k = 10000^(-k / (half - freq_shift)),  k = 0..half-1      the embedding's frequencies, half = channels / 2

It is built from the case's configuration and given the case's weights by refdiff.foreign's map of names, so what an
audit compares is the function alone. All is float64 but its time embedding, which it makes in float32 whatever the
dtype of its weights; `widen` puts the same formula in float64 in its place.
"""
import importlib
import math
import warnings
from dataclasses import fields
from types import SimpleNamespace

import numpy as np

from ...foreign.tensors import ForeignError
from ...foreign.unet_config import from_unet
from ...foreign.unet_names import from_theta, to_theta
from ...models.unet import UNetConfig
from ...params import Layout, Theta


def network(config, weights, x, t, dy, labels=None, widen=True):
    """{"y", "dx", "d<parameter>" ..}: y[n, h, w, d] at x[n, h, w, c], times t[n] and labels[n], and y . dy's gradients.

    Raises NotImplementedError for what UNet2DModel has not: MLPs, scaled times, other periods, unknown settings.
    """
    torch = importlib.import_module("torch")
    ours, theirs = configured(dict(config))
    theta = named(weights)
    tensors = {name: torch.tensor(value) for name, value in from_theta(ours, theta).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = importlib.import_module("diffusers").UNet2DModel(**theirs).double().eval()
    model.load_state_dict(tensors, strict=True)
    if widen:
        model.time_proj.forward = embedding(torch, model.config)
    images = torch.tensor(np.moveaxis(x, -1, 1), dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        y = model(images, torch.tensor(t), None if labels is None else torch.tensor(labels)).sample
        y.backward(torch.tensor(np.moveaxis(dy, -1, 1), dtype=torch.float64))
    found = {name: p.grad.numpy() for name, p in model.named_parameters()}
    grad = Theta(theta.layout, to_theta(ours, theta.layout, found, "gradients"))
    return {"y": np.moveaxis(y.detach().numpy(), 1, -1), "dx": np.moveaxis(images.grad.numpy(), 1, -1),
            **{f"d{name}": grad[name] for name in theta.layout.handles}}


def configured(config):
    """(a case's settings as attributes, the arguments of UNet2DModel). The values are left for it to refuse."""
    kind, known = config.pop("kind"), {field.name: field.default for field in fields(UNetConfig)}
    unknown = sorted(set(config) - set(known))
    if kind != "unet" or unknown:
        raise NotImplementedError(f"UNet2DModel is no {kind}" if kind != "unet"
                                  else f"UNet2DModel has no {', '.join(unknown)}")
    ours = SimpleNamespace(**{**known, "dropout": 0.0, **config})
    if ours.time_scale != 1:
        raise NotImplementedError(f"UNet2DModel has no time_scale={ours.time_scale:g}")
    try:
        theirs = from_unet(ours)
    except ForeignError as error:
        raise NotImplementedError(str(error)) from error
    return ours, {name: value for name, value in theirs.items() if name[0] != "_"}


def named(weights):
    """The Theta of named arrays, float64."""
    layout = Layout()
    for name, value in weights.items():
        layout.add(name, np.shape(value), None)
    flat = [np.ravel(np.asarray(value, dtype=np.float64)) for value in weights.values()]
    return Theta(layout, np.concatenate(flat))


def embedding(torch, config):
    """t[n] -> its waves[n, 2 half], all in float64."""
    half = config.block_out_channels[0] // 2
    f = torch.tensor([math.pow(10000, -k / (half - config.freq_shift)) for k in range(half)], dtype=torch.float64)

    def embed(t):
        phase = t.double()[:, None] * f
        waves = [torch.sin(phase), torch.cos(phase)]
        return torch.cat(waves[::-1] if config.flip_sin_to_cos else waves, 1)
    return embed
