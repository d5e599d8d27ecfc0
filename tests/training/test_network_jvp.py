"""Forward mode of whole networks: the complex step's derivative, and the transpose of the backward."""
import numpy as np
import pytest
from planted import mutant
from test_networks import NETWORKS, points

from refdiff import tangent
from refdiff.models import UNet, UNetConfig
from refdiff.rng import Key

H = 2.0 ** -100             # of the complex step: h^2 is lost in rounding, so its derivative is exact


def directions(theta, x, t, key):
    """Random tangents of x, c_noise and theta."""
    return (key.fold("x").normal(x.shape, x.dtype), key.fold("t").normal(t.shape, t.dtype),
            theta.with_flat(key.fold("theta").normal(theta.flat.shape, x.dtype)))


def complex_step(net, theta, x, t, labels, masks, xdot, tdot=None, thetadot=None):
    flat = theta.flat + 1j * H * (0 if thetadot is None else thetadot.flat)
    F, _ = net.forward(theta.with_flat(flat), x + 1j * H * xdot, t + 1j * H * (0 * t if tdot is None else tdot), labels,
                       masks)
    return F.imag / H


def check_complex_step(module, name, n=2):
    """Both sides are float64 evaluations of one number, with gains of at most 1e2 on the way: 1e-12 of the largest."""
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, n)
    _, saved = net.forward(theta, x, t, labels, masks)
    xdot, tdot, thetadot = directions(theta, x, t, Key(3))
    for moving in ((xdot,), (xdot, tdot), (xdot, None, thetadot), (xdot, tdot, thetadot)):
        want = complex_step(net, theta, x, t, labels, masks, *moving)
        np.testing.assert_allclose(module.jvp(net, saved, *moving), want, rtol=0, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_jvp_of_a_whole_network_is_the_complex_step(name):
    check_complex_step(tangent, name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_backward_of_a_whole_network_is_the_transpose_of_its_jvp(name):
    """<J v, u> = <v, J' u> for x and theta together; tolerance 1e-12 of the sum of all |terms|."""
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, 3)
    F, saved = net.forward(theta, x, t, labels, masks)
    for k in range(2):
        u = Key(4).fold(k).normal(F.shape)
        v, _, thetav = directions(theta, x, t, Key(5).fold(k))
        grad = theta.zeros_like()
        left = tangent.jvp(net, saved, v, thetadot=thetav) * u
        right = [v * net.backward(saved, u, grad), thetav.flat * grad.flat]
        scale = np.abs(left).sum() + sum(np.abs(part).sum() for part in right)
        assert abs(left.sum() - sum(part.sum() for part in right)) < 1e-12 * scale


@pytest.mark.parametrize("name", NETWORKS)
def test_a_jvp_is_linear_keeps_its_rows_apart_and_leaves_what_was_saved(name):
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, 3)
    _, saved = net.forward(theta, x, t, labels, masks)
    v, w = (Key(6).fold(k).normal(x.shape) for k in range(2))
    one, two = tangent.jvp(net, saved, v), tangent.jvp(net, saved, w)
    close = dict(rtol=0, atol=1e-12 * (np.abs(one) + np.abs(two)).max())
    np.testing.assert_allclose(tangent.jvp(net, saved, 2.5 * v - w), 2.5 * one - two, **close)
    v[0] = 0
    assert not np.any(tangent.jvp(net, saved, v)[0])
    np.testing.assert_allclose(tangent.jvp(net, saved, v)[1:], one[1:], **close)
    np.testing.assert_array_equal(tangent.jvp(net, saved, w), two)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_jvp_keeps_float32(name):
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, 2, np.float32)
    _, saved = net.forward(theta, x, t, labels, masks)
    moving = directions(theta, x, t, Key(3))
    assert tangent.jvp(net, saved, moving[0]).dtype == tangent.jvp(net, saved, *moving).dtype == np.float32


def test_a_network_without_forward_mode_is_refused_by_name():
    with pytest.raises(TypeError, match="no forward mode for int; there is one for UNet and MLP"):
        tangent.jvp(3, None, np.zeros((1, 2)))


# ---- planted mutants: the check against the complex step must fail

MUTANTS = [
    ("ddpm", "hdot = _jvp(block.norm1, s_norm1, xdot, dot)", "hdot = xdot"),
    ("ddpm", "hdot = _jvp(block.norm2, s_norm2, hdot, dot, *told)", "pass"),
    ("ddpm", "if s_drop is not None:", "if False:"),
    ("ddpm", "_jvp(block.shortcut, s_short, xdot, dot) if block.shortcut else xdot", "xdot[..., :1]"),
    ("ddpm", "concat.jvp(next(s), hdot, skips.pop())", "concat.jvp(next(s), hdot, 0 * skips.pop())"),
    ("ddpm", "add.jvp(s_add, xdot, _jvp(block.proj", "add.jvp(s_add, 0 * xdot, _jvp(block.proj"),
    ("ddpm", "qkv[:, :, 0], qkv[:, :, 1]", "qkv[:, :, 1], qkv[:, :, 0]"),
    ("ddpm", "else (edot,)", "else (0 * edot,)"),
    ("ddpm", "(dot[layer.gamma], dot[layer.beta])\n    return norm_silu", "(0, 0)\n    return norm_silu"),
    ("ddpm", "hdot + embedding.jvp", "hdot - embedding.jvp"),
    ("ddpm", "block.time_scale * c_noisedot", "2 * block.time_scale * c_noisedot"),
    ("ddpm", "silu.jvp(s5, hdot)", "hdot"),
    ("ddpm", "*options)[0]", "*options[:1])[0]"),
    ("ddpm", "hdot = _jvp(net.norm_out, next(s), hdot, dot)", "next(s)"),
    ("ddpm", "return _jvp(block.conv, saved, xdot, dot)", "return 2 * _jvp(block.conv, saved, xdot, dot)"),
    ("adm", "block.resample.jvp(s_res, hdot), block.resample.jvp(s_res, xdot)",
     "block.resample.jvp(s_res, hdot), 2 * block.resample.jvp(s_res, xdot)"),
    ("adm", "edot[:, :block.width], edot[:, block.width:]", "edot[:, block.width:], edot[:, :block.width]"),
    ("mlp", "net.config.time_scale *", "2 * net.config.time_scale *"),
    ("mlp", "silu.jvp(s_silu, _jvp(layer, s, hdot, dot))", "_jvp(layer, s, hdot, dot)"),
    ("mlp", "xdot @ saved[1] if dot is None", "2 * xdot @ saved[1] if dot is None"),
]


@pytest.mark.parametrize("name, old, new", MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(name, old, new):
    module = mutant("tangent", (old, new))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_complex_step(module, name)


def test_a_forward_that_kept_nothing_is_refused():
    net = UNet(UNetConfig(image_size=4, in_channels=1, out_channels=1, channels=4, multipliers=(1,), blocks=1,
                          attention=(), groups=2, dropout=0.0))
    x = np.ones((1, 4, 4, 1))
    _, saved = net.forward(net.layout.init(Key(0), np.float64), x, np.ones(1), keep=False)
    with pytest.raises(ValueError, match="saved nothing"):
        tangent.jvp(net, saved, x)
