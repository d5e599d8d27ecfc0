"""Whole networks: the parameter counts of the papers, and every gradient against the complex step."""
import numpy as np
import pytest

from refdiff.models import MLP, MLPConfig, NetworkOptions, UNet, UNetConfig, suggest
from refdiff.ops import sinusoid
from refdiff.rng import Key

SMALL = dict(image_size=8, in_channels=1, out_channels=1, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
             groups=4)
NETWORKS = {
    "ddpm": UNet(UNetConfig(**SMALL, classes=10, dropout=0.1)),
    "adm": UNet(UNetConfig(**{**SMALL, "in_channels": 2, "multipliers": (1, 2, 2), "attention": (4, 8)},
                           head_channels=4, scale_shift=True, resblock_updown=True, dropout=0.0,
                           embedding_order="cos_sin", embedding_denominator="half")),
    "two heads, same padding, two blocks": UNet(UNetConfig(**{**SMALL, "blocks": 2}, heads=2, down_pad="same",
                                                           dropout=0.0, zero_init=False)),
    "adm with additive time": UNet(UNetConfig(**SMALL, classes=3, resblock_updown=True, dropout=0.2)),
    "mlp": MLP(MLPConfig(dim=2, width=16, depth=2, embedding=8)),
}


def test_the_cifar10_network_has_the_papers_number_of_parameters():
    np.testing.assert_array_equal(UNet(UNetConfig()).layout.size, 35_746_307)


def test_the_adm_form_of_the_imagenet64_network_has_the_published_number_of_parameters():
    """295,897,731 is the count of a published port that leaves out the norm before the middle attention."""
    config = UNetConfig(image_size=64, channels=192, multipliers=(1, 2, 3, 4), blocks=3, attention=(32, 16, 8),
                        head_channels=64, scale_shift=True, resblock_updown=True, classes=1000, down_pad="same")
    middle_norm, null_row = 2 * 768, 4 * 192            # gamma and beta; one class more, for guidance
    np.testing.assert_array_equal(UNet(config).layout.size - middle_norm - null_row, 295_897_731)


def points(net, n, dtype=np.float64):
    """Random theta (no zeros), inputs, labels and masks of a network."""
    key = Key(11)
    theta = net.layout.init(key.fold("theta"), dtype)
    theta.flat += (0.05 * key.fold("away from zero").normal(theta.flat.shape)).astype(dtype)
    config = net.config
    shape = (n, config.dim) if isinstance(net, MLP) else (n, config.image_size, config.image_size, config.in_channels)
    labels = key.fold("labels").integers(0, config.classes + 1, n) if config.classes else None
    return (theta, key.fold("x").normal(shape, dtype), key.fold("t").normal(n, dtype), labels,
            net.masks(key.fold("masks"), n, dtype))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 3])
def test_the_gradient_of_a_whole_network_is_the_complex_step(name, n):
    """<dF, Im F(theta + ihv)/h> = <grad, v> along random directions: no difference is taken, so 1e-10 is generous."""
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, n)
    F, saved = net.forward(theta, x, t, labels, masks)
    key, h = Key(12), 1e-30
    dF = key.fold("dF").normal(F.shape)
    grad = theta.zeros_like()
    dx = net.backward(saved, dF, grad)
    for k in range(3):
        v, vx = key.fold(k, "v").normal(theta.flat.shape), key.fold(k, "vx").normal(x.shape)
        stepped, _ = net.forward(theta.with_flat(theta.flat + 1j * h * v), x + 1j * h * vx, t.astype(complex), labels,
                                 masks)
        forward = np.sum(stepped.imag / h * dF)
        backward = grad.flat @ v + np.sum(dx * vx)
        scale = np.sqrt(np.sum((grad.flat * v) ** 2) + np.sum((dx * vx) ** 2))
        assert abs(forward - backward) < 1e-10 * scale


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient(name):
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, 5)
    if labels is not None:
        labels = np.resize(np.arange(net.config.classes + 1), 5 * (net.config.classes + 1))
        x, t = np.resize(x, (len(labels),) + x.shape[1:]), np.resize(t, len(labels))
        masks = net.masks(Key(1), len(labels), x.dtype)
    F, saved = net.forward(theta, x, t, labels, masks)
    grad = theta.zeros_like()
    net.backward(saved, Key(2).normal(F.shape), grad)
    dead = [name for name in net.layout.handles if not np.any(grad[name])]
    assert not dead


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_keep_float32(name):
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, 2, np.float32)
    F, saved = net.forward(theta, x, t, labels, masks)
    grad = theta.zeros_like()
    assert F.dtype == np.float32
    assert net.backward(saved, F, grad).dtype == np.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_of_a_batch_do_not_mix(name):
    net = NETWORKS[name]
    theta, x, t, labels, masks = points(net, 4)
    F, _ = net.forward(theta, x, t, labels, masks)
    row = slice(2, 3)
    alone, _ = net.forward(theta, x[row], t[row], None if labels is None else labels[row],
                           None if masks is None else [mask[row] for mask in masks])
    np.testing.assert_allclose(alone[0], F[2], rtol=0, atol=1e-12 * np.abs(F).max())


def test_a_zero_initialised_network_predicts_zero():
    net = NETWORKS["ddpm"]
    theta = net.layout.init(Key(0), np.float64)
    F, _ = net.forward(theta, Key(1).normal((2, 8, 8, 1)), Key(2).normal(2))
    assert not np.any(F)


def test_dropout_masks_keep_the_expectation_and_fit_every_block():
    net = NETWORKS["ddpm"]
    masks = net.masks(Key(3), 400, np.float64)
    assert len(masks) == len(net.res_blocks())
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, 1 / 0.9}
        assert abs(mask.mean() - 1) < 5 * np.sqrt(0.1 / 0.9 / mask.size)     # five standard errors


@pytest.mark.parametrize("size", [4, 8, 12, 16, 28, 32, 64])
def test_the_suggested_network_fits_its_images(size):
    config = suggest(size)
    lowest = size >> (len(config.multipliers) - 1)
    assert lowest << (len(config.multipliers) - 1) == size
    assert size < 8 or lowest < 8 or size % (2 * (size // lowest))


def embedding(config, c_noise):
    return sinusoid.forward(config.time_scale * c_noise, config.channels, config.embedding_order,
                            config.embedding_denominator, config.embedding_period)[0]


def between_integers(config):
    """How far the embedding at t + 1/2 is off the mean of those at t and t + 1: 1 - cos(f/2) for frequency f."""
    t = np.arange(1.0, 1000)
    return abs(embedding(config, t + 0.5) - (embedding(config, t) + embedding(config, t + 1)) / 2).max()


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_suggested_embedding_does_not_turn_between_the_times_of_training(size):
    for prediction in ("eps", "x0", "v", "velocity"):
        assert between_integers(suggest(size, prediction=prediction)) < 1 - np.cos(0.5) + 1e-12        # f <= 1: .12
    assert between_integers(suggest(size)) > 1                                          # made for ln(sigma)/4


@pytest.mark.parametrize("prediction, least, most", [
    ("eps", 1, 1000), ("x0", 1, 1000), ("v", 1, 1000), ("velocity", 0, 1000),
    ("F", np.log(0.002) / 4, np.log(80) / 4)])
def test_the_slowest_wave_of_the_suggested_embedding_tells_all_times_apart(prediction, least, most):
    config = suggest(32, prediction=prediction)
    slowest = embedding(config, np.linspace(least, most, 1000))[:, config.channels // 2 - 1]
    assert np.all(np.diff(slowest) > 0)          # within half a turn


def test_a_given_time_embedding_is_kept():
    for prediction in ("F", "eps"):
        config = suggest(16, NetworkOptions(time_scale=3.0, embedding_period=50.0), prediction)
        assert (config.time_scale, config.embedding_period) == (3.0, 50.0)


@pytest.mark.parametrize("bad, message", [
    (dict(image_size=10, multipliers=(1, 2, 2)), "does not halve 2 times"),
    (dict(channels=12, groups=8), "do not divide into 8 groups"),
    (dict(dropout=1.0), "dropout is 1.0"),
    (dict(channels=0), "channels is 0"),
    (dict(multipliers=()), "wanted at least one"),
    (dict(embedding_order="sincos"), "embedding_order is 'sincos'"),
])
def test_an_impossible_network_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**{**SMALL, **bad})


@pytest.mark.parametrize("bad, message", [
    (dict(heads=3), "16 channels do not divide into 3 heads"),
    (dict(head_channels=6), "16 channels do not divide into heads of 6 channels"),
    (dict(head_channels=32), "16 channels do not divide into heads of 32 channels"),
])
def test_heads_that_do_not_fit_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        UNet(UNetConfig(**{**SMALL, **bad}))


def test_attention_at_a_size_that_no_level_has_is_refused():
    with pytest.raises(ValueError, match=r"attention at image sizes \(4, 16\), wanted some of \(8, 4\)"):
        UNet(UNetConfig(**{**SMALL, "attention": (4, 16)}))
    for size in (17, 25, 33):
        UNet(suggest(size))


def test_wrong_inputs_of_a_network_are_refused():
    net = NETWORKS["ddpm"]
    theta, x, t, labels, _ = points(net, 2)
    with pytest.raises(ValueError, match=r"x is \(2, 8, 7, 1\)"):
        net.forward(theta, x[:, :, :7], t, labels)
    with pytest.raises(ValueError, match="c_noise"):
        net.forward(theta, x, t[:1], labels)
    with pytest.raises(ValueError, match="0..10"):
        net.forward(theta, x, t, labels + 10)
    with pytest.raises(ValueError, match="without classes"):
        NETWORKS["adm"].forward(*points(NETWORKS["adm"], 2)[:3], labels)
