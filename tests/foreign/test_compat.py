"""Deviations of networks on purpose: each does what it says, costs what the table says, and has its gradients."""
import re

import numpy as np
import pytest

from networks import ADM, CIFAR
from refdiff.foreign.unet_config import to_unet
from refdiff.models import compat
from refdiff.models.compat import DEVIATIONS, unet
from refdiff.models.unet import UNet
from refdiff.ops import attention
from refdiff.rng import Key
from refdiff.tangent import jvp

CONFIG = to_unet(CIFAR)
RIGHT = UNet(CONFIG)
TABLE = dict(re.findall(r"^    (\w+) +([\d.e-]+)$", compat.__doc__, re.MULTILINE))


def problem(n=5):
    """theta that gives activations of order one, x, t and a cotangent."""
    key = Key(4)
    theta = RIGHT.layout.init(key, np.float64)
    for name, handle in RIGHT.layout.handles.items():
        z = key.fold("theta", name).normal(handle.shape)
        fan = np.prod(handle.shape[:-1])
        theta[handle] = z / np.sqrt(fan) if len(handle.shape) > 1 else name.endswith("gamma") + 0.2 * z
    x = key.fold("x").normal((n, 16, 16, 3))
    return theta, x, np.array([0.0, 17, 250, 500, 999])[-n:], key.fold("dF").normal(x.shape)


def test_the_table_names_every_deviation():
    assert set(TABLE) == set(DEVIATIONS)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_costs_what_the_table_says(name):
    theta, x, t, _ = problem()
    F, deviating = (net.forward(theta, x, t)[0] for net in (RIGHT, unet(CONFIG, (name,))))
    assert np.linalg.norm(deviating - F) / np.linalg.norm(F) == pytest.approx(float(TABLE[name]), rel=0.06)


@pytest.mark.parametrize("name", [n for n in DEVIATIONS if n not in ("norm_groups", "head_width")])
def test_two_wrongs_that_undo_each_other_are_right(name):
    """A switch thrown twice, t + 1 told t - 1, and scores d^(1/2) and d^(-1/2): the right network, to rounding."""
    theta, x, t, _ = problem(1)
    partner = {"attention_unscaled": "attention_scaled_twice", "attention_scaled_twice": "attention_unscaled"}
    if name == "embedding_float32":
        t = t * 0                                           # sin 0 and cos 0 are exact
    twice = unet(CONFIG, (name,) if name in ("time_offset", "embedding_float32") else (name, partner.get(name, name)))
    got = twice.forward(theta, x, t - 1 if name == "time_offset" else t)[0]
    np.testing.assert_allclose(got, RIGHT.forward(theta, x, t)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["head_width", "attention_unscaled", "attention_scaled_twice", "padding"])
def test_the_gradients_of_a_deviation_are_its_complex_steps(name):
    theta, x, t, dF = problem(2)
    net, key, h = unet(CONFIG, (name,)), Key(8), 1e-30
    _, saved = net.forward(theta, x, t)
    before = key.fold("grad").normal(theta.flat.shape)
    grad = theta.with_flat(before.copy())                   # the backward adds
    dx = net.backward(saved, dF, grad)
    v, vx = theta.with_flat(key.fold("v").normal(theta.flat.shape)), key.fold("vx").normal(x.shape)
    stepped = net.forward(theta.with_flat(theta.flat + 1j * h * v.flat), x + 1j * h * vx, t.astype(complex))[0].imag / h
    assert np.sum(stepped * dF) == pytest.approx((grad.flat - before) @ v.flat + np.sum(dx * vx), rel=1e-10)
    np.testing.assert_allclose(jvp(net, saved, vx, thetadot=v), stepped, rtol=0, atol=1e-11 * np.abs(stepped).max())


def test_scores_are_multiplied_by_what_the_deviation_says(monkeypatch):
    """Heads of 8 channels: unscaled scores are sqrt(8) times as large, twice scaled ones 1/sqrt(8) times."""
    config = to_unet(ADM)
    net = UNet(config)
    theta, key = net.layout.init(Key(1), np.float64), Key(2)
    theta.flat += 0.05 * key.normal(theta.flat.shape)
    seen, forward = [], attention.forward

    def watched(q, k, v):
        seen.append(q)
        return forward(q, k, v)
    monkeypatch.setattr("refdiff.nn.blocks.attention", type("Watched", (), {"forward": staticmethod(watched)}))
    x, kept = key.fold("x").normal((1, 16, 16, 3)), theta.flat.copy()
    firsts = []
    for names in ((), ("attention_unscaled",), ("attention_scaled_twice",)):
        seen.clear()
        unet(config, names).forward(theta, x, np.zeros(1), np.zeros(1, int))
        firsts.append(seen[0])                              # later ones see changed images
    np.testing.assert_allclose(firsts[1], 8 ** 0.5 * firsts[0], rtol=1e-12)
    np.testing.assert_allclose(firsts[2], 8 ** -0.5 * firsts[0], rtol=1e-12)
    np.testing.assert_array_equal(theta.flat, kept)


def test_deviations_add_up_and_none_is_the_right_network():
    assert type(unet(CONFIG)) is UNet
    both = unet(CONFIG, ("padding", "norm_epsilon", "time_offset"))
    assert (both.config.down_pad, both.config.norm_eps, both.later) == ("same", 1e-5, 1.0)
    assert both.layout.index() == RIGHT.layout.index()


def test_an_unknown_deviation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no deviation 'padded', wanted some of padding, norm_groups"):
        unet(CONFIG, ("padded",))
