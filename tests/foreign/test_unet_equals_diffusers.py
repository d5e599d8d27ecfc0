"""refdiff's U-Net and diffusers' UNet2DModel are one function: values and every gradient, in float64, random weights.

Two programs of the same formula, in other orders of summation: each of about 50 layers rounds sums of up to 600
products, so agreement near 1e-14 is what float64 can give, and the tolerances have a factor 100 above that.
"""
import math
import warnings

import numpy as np
import pytest

from networks import CELEBA, CIFAR, PUBLISHED

from refdiff.foreign import unet_names
from refdiff.foreign.ddpm_unet import export_unet, import_unet
from refdiff.foreign.unet_config import to_unet
from refdiff.models.compat import unet
from refdiff.models.unet import UNet
from refdiff.params import Theta

torch = pytest.importorskip("torch", reason="needs torch, of the extra [interop]")
library = pytest.importorskip("safetensors.torch", reason="needs safetensors, of the extra [interop]")
diffusers = pytest.importorskip("diffusers", reason="needs diffusers, of the extra [interop]")

torch.set_num_threads(1)
TIMES = np.array([999.0, 17, 0, 500, 250])


def embed_in_float64(model):
    """The embedding by its definition, f_k = 10000^(-k/(half - shift)), in place of theirs in float32."""
    half, shift = model.config.block_out_channels[0] // 2, model.config.freq_shift
    f = torch.tensor([math.pow(1e4, -k / (half - shift)) for k in range(half)], dtype=torch.float64)

    def embed(t):
        waves = [torch.sin(t.double()[:, None] * f), torch.cos(t.double()[:, None] * f)]
        return torch.cat(waves[::-1] if model.config.flip_sin_to_cos else waves, 1)
    model.time_proj.forward = embed


def pair(config, seed=0):
    """(their model, our network, theta): random weights, no layer at zero, activations of order one."""
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = diffusers.UNet2DModel.from_config(config).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            z = torch.randn(p.shape, dtype=torch.float64, generator=generator)
            p.copy_(z / math.sqrt(p[0].numel()) if p.ndim > 1 else 1 + .2 * z if "norm" in name else .2 * z)
    net = UNet(to_unet(config))
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    return model, net, Theta(net.layout, unet_names.to_theta(net.config, net.layout, tensors))


def inputs(net, n):
    rng = np.random.default_rng(n)
    size, classes = net.config.image_size, net.config.classes
    x = rng.normal(size=(n, size, size, 3))
    return x, TIMES[:n], rng.integers(0, classes, n) if classes else None, rng.normal(size=x.shape)


def theirs(model, x, t, labels):
    """(y, x) of their model, in our layout and with gradients to come."""
    x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    return model(x, torch.tensor(t), None if labels is None else torch.tensor(labels)).sample, x


def ours_of(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def close(got, wanted, tolerance, what=""):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=what)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", PUBLISHED)
def test_values_and_all_gradients_agree_to_rounding(name, n):
    model, net, theta = pair(PUBLISHED[name])
    embed_in_float64(model)
    x, t, labels, dy = inputs(net, n)
    y, x_theirs = theirs(model, x, t, labels)
    y.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    F, saved = net.forward(theta, x, t, labels)
    grad = theta.zeros_like()
    dx = net.backward(saved, dy, grad)
    close(F, ours_of(y), 1e-12)
    close(dx, ours_of(x_theirs.grad), 1e-11)
    wanted = {name: p.grad.numpy() for name, p in model.named_parameters()}
    got = unet_names.from_theta(net.config, grad)
    assert set(got) == set(wanted)
    for name, g in wanted.items():
        if name.endswith("to_k.bias"):      # moves all scores of a query alike, which softmax does not see: it is 0
            beside = np.abs(wanted[name.replace("to_k", "to_q")]).max()
            assert max(np.abs(g).max(), np.abs(got[name]).max()) < 1e-11 * max(beside, 1)
        else:
            close(got[name], g, 1e-11, name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_left_of_their_own_embedding_is_float32(name):
    """Their phase t f_k is rounded to 2^-24 relative, 6e-5 absolute at t = 999: between 1e-9 and 1e-4 of the output."""
    model, net, theta = pair(PUBLISHED[name])
    x, t, labels, _ = inputs(net, 3)
    F, _ = net.forward(theta, x, t, labels)
    with torch.no_grad():
        y = ours_of(theirs(model, x, t, labels)[0])
    assert 1e-9 < np.abs(F - y).max() / np.abs(y).max() < 1e-4


def test_the_deviation_embedding_float32_reproduces_theirs():
    """The same roundings but for the last bit of a few exp, sin and cos: most of the difference is gone."""
    model, net, theta = pair(CIFAR)
    x, t, labels, _ = inputs(net, 5)
    with torch.no_grad():
        y = ours_of(theirs(model, x, t, labels)[0])
    networks = net, unet(net.config, ("embedding_float32",))
    F, single = (network.forward(theta, x, t, labels)[0] for network in networks)
    assert np.abs(single - y).max() < 0.05 * np.abs(F - y).max()


def test_the_full_cifar10_network_agrees_at_batch_one():
    config = {**CIFAR, "sample_size": 32, "block_out_channels": [128, 256, 256, 256], "norm_num_groups": 32}
    model, net, theta = pair(config)
    embed_in_float64(model)
    assert net.layout.size == theta.flat.size == 35_746_307 and len(model.state_dict()) == 328
    x, t, labels, _ = inputs(net, 1)
    with torch.no_grad():
        y = ours_of(theirs(model, x, t, labels)[0])
    close(net.forward(theta, x, t, labels)[0], y, 1e-12)


@pytest.mark.parametrize("name, widths, groups, more, count, tensors", [
    ("celebahq", [128, 128, 256, 256, 512, 512], 32, {}, 113_673_219, 450),
    ("imagenet64", [192, 384, 576, 768], 32, dict(attention_head_dim=64, attn_norm_num_groups=32,
                                                  num_class_embeds=1000), 295_899_267, 629)])
def test_the_published_sizes_have_the_published_number_of_parameters(name, widths, groups, more, count, tensors):
    config = {**PUBLISHED[name], "block_out_channels": widths, "norm_num_groups": groups, **more}
    net = UNet(to_unet(config))
    places = unet_names.places(net.config, net.layout.index())
    with torch.device("meta"):
        model = diffusers.UNet2DModel.from_config(config)
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    assert net.layout.size == count and len(shapes) == tensors
    assert {name: place.their_shape for place in places for name in place.theirs} == shapes


def test_a_single_pixel_at_the_lowest_level_agrees_too():
    """Six levels from 32 pixels end at one, where attention has one token: its value passes, q and k have no effect."""
    model, net, theta = pair({**CELEBA, "sample_size": 32})
    embed_in_float64(model)
    x, t, labels, dy = inputs(net, 2)
    with torch.no_grad():
        y = ours_of(theirs(model, x, t, labels)[0])
    F, saved = net.forward(theta, x, t)
    grad = theta.zeros_like()
    net.backward(saved, dy, grad)
    close(F, y, 1e-12)
    assert not grad["mid.attention.qkv.w"][:, :96].any() and grad["mid.attention.qkv.w"][:, 96:].all()


@pytest.mark.parametrize("name", ["cifar10", "imagenet64"])
def test_what_is_exported_loads_strictly_and_comes_back(name, tmp_path):
    model, _, _ = pair(PUBLISHED[name])
    model.float().save_pretrained(tmp_path / "in")
    checkpoint = import_unet(tmp_path / "in" / "diffusion_pytorch_model.safetensors")
    assert checkpoint.vectors["theta"].dtype == np.float32
    file = tmp_path / "out" / "diffusion_pytorch_model.safetensors"
    export_unet(checkpoint, file)
    back = diffusers.UNet2DModel.from_pretrained(tmp_path / "out")
    fresh = diffusers.UNet2DModel.from_config(dict(back.config))
    fresh.load_state_dict(library.load_file(file), strict=True)
    for key, x in model.state_dict().items():
        assert torch.equal(x, back.state_dict()[key]) and torch.equal(x, fresh.state_dict()[key]), key


def test_a_bin_file_of_torch_gives_the_same_network(tmp_path):
    model, net, theta = pair(CIFAR)
    torch.save(model.state_dict(), tmp_path / "x.bin")
    assert import_unet(tmp_path / "x.bin", CIFAR).vectors["theta"].tobytes() == theta.flat.tobytes()
