"""diffusers' UNet2DModel files as checkpoints that `refdiff sample` opens, and checkpoints as such files.

    import_unet("ddpm-cifar10/diffusion_pytorch_model.safetensors")                  -> Checkpoint
    import_unet("cd_imagenet64_l2/unet/diffusion_pytorch_model.safetensors", form="consistency-unet")
    export_unet(checkpoint, "out/diffusion_pytorch_model.safetensors")  and out/config.json beside it

A google/ddpm-* network predicts eps on the linear schedule and counts time from 0: it is told t - 1 for t = 1..T.
An openai/diffusers-cd_* or -ct_* network is a consistency model's: F in EDM's preconditioning with sigma_data = 1/2,
told 1000 ln(sigma)/4, so the checkpoint is one of a distillation, whose network has time_scale = 1000. Their scheduler
clips every f to -1..1 by default; to do as it does, sample from lambda x, sigma: f(x, sigma).clip(-1, 1). With the
noise given, samples in one to three steps are those of their pipeline to 6e-15 of the largest entry, in float64
(tests/foreign/test_import_consistency.py).
An exported file carries refdiff's own configuration in its metadata, so that import gives back the same checkpoint;
for a file without it the training process is an argument.

How near to UNet2DModel 0.42.1 in float64, for random weights (tests/foreign/test_unet_equals_diffusers.py): the output
within 7e-15 and every parameter's gradient within 5e-14 relative, once both embed time in float64. UNet2DModel builds
the embedding in float32 whatever the dtype of its weights: it is off by 3e-5 at t = 999 (3e-7 at t = 17, not at all at
0), which moves the output by 4e-7 to 1e-6 and single gradients by up to 2e-5, and no comparison with it as it comes can
be tighter. The deviation "embedding_float32" of models/compat.py rounds as it does and leaves 1e-8, or nothing.
"""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import files
from ..checkpoint import Checkpoint
from ..config import from_dict, to_dict
from ..denoiser import DenoiserConfig
from ..models.unet import UNet, UNetConfig
from ..params import Theta
from . import safetensors, unet_config, unet_names
from .tensors import ForeignError
from .weights import load

PUBLISHED = DenoiserConfig(prediction="eps", process="linear", time_label="t-1")
OPENAI = DenoiserConfig(prediction="F", process="edm", sigma_data=0.5, sigma_min=0.002, sigma_max=80.0, rho=7.0)
# What a file without refdiff's metadata is taken for: the kind of checkpoint, its process, what its time is scaled by.
FORMS = {"ddpm-unet": ("training", PUBLISHED, 1.0), "consistency-unet": ("distillation", OPENAI, 1000.0)}
LABEL = "refdiff"                           # under which refdiff's own configuration is in a file's metadata


def import_unet(path, config=None, key=None, denoising=None, size=None, form="ddpm-unet"):
    """The Checkpoint, of the form's kind or of the metadata's, of a file of UNet2DModel's weights.

    config: their configuration as a dict or the path of a JSON file; by default that of refdiff's own metadata, else
    config.json beside the file. denoising: the DenoiserConfig it was trained under; by default the form's, that of the
    google/ddpm-* networks or of openai's consistency models, or the metadata's. form: one of FORMS. key: which table of
    a torch checkpoint. size: the images' height and width, where the configuration has none. Raises ForeignError, with
    every tensor that does not fit by name.
    """
    path = Path(path)
    if form not in FORMS:
        raise ForeignError(f"import: form is {form!r}, wanted one of {', '.join(FORMS)}")
    kind, published, time_scale = FORMS[form]
    tensors, metadata = load(path, key)
    ours = _ours(path, metadata) if config is None and LABEL in metadata else None
    if ours and kind == "distillation" != ours["kind"]:
        raise ForeignError(f"{path}: refdiff exported it from a checkpoint of kind {ours['kind']!r}, which is no "
                           "consistency model; import it --as ddpm-unet")
    if ours:
        network = from_dict(UNetConfig, ours["network"])
        resolved = dict(ours["rest"])
    else:
        network = replace(unet_config.to_unet(_config(path, config), size), time_scale=time_scale)
        names = [str(i) for i in range(network.classes)]
        resolved = {"denoiser": to_dict(published),
                    "data": {"center": 0.0, "levels": 256, "classes": names, "source": path.name, "images": 0,
                             "fingerprint": ""}}
    if denoising is not None:
        resolved["denoiser"] = to_dict(denoising)
    if kind == "distillation" and not ours:
        resolved["consistency"] = {name: resolved["denoiser"][name] for name in ("sigma_min", "sigma_max", "rho")}
    layout = UNet(network).layout
    theta = unet_names.to_theta(network, layout, tensors, path)
    resolved = {"network": {"name": "unet", **to_dict(network)}, **resolved}
    return Checkpoint(ours["kind"] if ours else kind, resolved, layout.index(),
                      {"theta": theta, "ema": theta.copy()})


def export_unet(checkpoint, path, vector="ema"):
    """Write one vector of a U-Net's checkpoint as safetensors, and config.json beside it; returns what to know.

    UNet2DModel.load_state_dict takes the tensors strictly and UNet2DModel.from_config the configuration. Raises
    ForeignError for a network that UNet2DModel cannot be, and where another config.json is in the way.
    """
    path = Path(path)
    rest = dict(checkpoint.config)
    named = dict(rest.pop("network"))
    if named.pop("name", None) != "unet":
        raise ForeignError(f"export: the checkpoint holds no U-Net but a {checkpoint.config['network'].get('name')!r}")
    network = from_dict(UNetConfig, named)
    theirs = json.dumps(unet_config.from_unet(network), indent=2) + "\n"
    theta = checkpoint.parameters(UNet(network).layout, vector)
    theta = Theta(theta.layout, np.asarray(checkpoint.vectors[vector]))
    beside = path.with_name("config.json")
    if beside.exists() and beside.read_text() != theirs:
        raise ForeignError(f"export: {beside} is there and tells of another network; choose another folder")
    metadata = {"format": "pt", LABEL: json.dumps({"kind": checkpoint.kind, "network": to_dict(network), "rest": rest})}
    safetensors.write(path, unet_names.from_theta(network, theta), metadata)
    files.write(beside, theirs)
    return _notes(network, rest.get("denoiser", {}))


def _notes(network, denoiser):
    """What UNet2DModel's configuration cannot say of a network."""
    told = "ln(sigma)/4" if denoiser.get("prediction") == "F" else denoiser.get("time_label", "t")
    notes = [f"timestep is {told}" + (f" times {network.time_scale:g}" if network.time_scale != 1 else "")
             + (", t = 1..T" if told.startswith("t") else "")]
    if network.classes and network.null_class:
        notes.append(f"class label {network.classes} is no class")
    return notes


def _ours(path, metadata):
    try:
        ours = json.loads(metadata[LABEL])
        if not {"kind", "network", "rest"} <= set(ours) or not isinstance(ours["rest"], dict):
            raise ValueError("not kind, network and rest")
        return ours
    except (ValueError, TypeError) as error:
        raise ForeignError(f"{path}: its metadata name refdiff but do not hold a configuration ({error}); give the "
                           "configuration as a file") from None


def _config(path, config):
    """The configuration as a dict: given, from the file given, or from config.json beside the weights."""
    if isinstance(config, dict):
        return config
    file = Path(config) if config is not None else path.with_name("config.json")
    if not file.exists():
        raise ForeignError(f"{file}: no such file; give the network's configuration, a UNet2DModel's config.json")
    try:
        found = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ForeignError(f"{file}: is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ForeignError(f"{file}: is a {type(found).__name__}, wanted a table of settings")
    return found
