"""compat= where a network with weights is sampled: deviations of the sampler, of the network, and of both."""
import numpy as np
import pytest
from click.testing import CliRunner

from refdiff import sample as room
from refdiff import samplers
from refdiff.cli import main
from refdiff.data import from_array
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.fit import TrainConfig
from refdiff.models import MLP, MLPConfig, UNet, UNetConfig
from refdiff.models.compat import DEVIATIONS, unet
from refdiff.process.level import Level
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.train import train

NET = UNetConfig(image_size=8, in_channels=1, out_channels=1, channels=4, multipliers=(1,), blocks=1, attention=(),
                 groups=2, classes=0, dropout=0.0)
EPS = DenoiserConfig(prediction="eps", process="linear", time_label="t-1")
F = DenoiserConfig(sigma_min=.02, sigma_max=20.)


def opened(config):
    denoiser = Denoiser(UNet(NET), config)
    theta = denoiser.network.layout.init(Key(0), np.float64)
    theta.flat[:] += .1 * Key(5).normal(theta.flat.shape)                             # the last layer begins at zero
    return room.Sampling(denoiser, theta, config.sigma_min, config.sigma_max, 7.0, 0.0, 0, False)


def end(sampling, sampler, steps=7, **options):
    return samplers.run(room.states(sampling, sampler, steps, None, Key(2), count=3, **options))


def test_without_names_nothing_changes():
    for config, sampler in ((EPS, "ddim"), (F, "heun")):
        assert np.array_equal(end(opened(config), sampler), end(opened(config), sampler, compat=()))


@pytest.mark.parametrize("config, sampler, names", [
    (EPS, "ddim", ("stride_stepping",)), (EPS, "ddpm", ("clipped", "last_step_noise")), (EPS, "plms", (
        "improved_euler_start", "final_abar_0")), (F, "euler", ("start_root", "float32_table")),
    (F, "churn", ("churn_stale",)), (EPS, "ddim", ("padding", "time_offset")),
    (EPS, "ddim", ("norm_epsilon", "stride_stepping", "embedding_float32"))])
def test_both_kinds_change_the_samples_alone_and_together(config, sampler, names):
    options = {"options": {"S_churn": 2.0, "S_tmax": 8.0}} if sampler == "churn" else {}
    got, plain = (end(opened(config), sampler, compat=compat, **options) for compat in (names, ()))
    assert np.isfinite(got).all() and np.abs(got - plain).max() > 1e-9


def test_deviations_of_the_sampler_are_those_of_the_denoiser_and_grid_it_is_given():
    """The network says eps at t - 1, whatever level x is at; here the sampler is put together from its parts."""
    sampling = opened(EPS)
    grid = room.make_grid(sampling, 7)
    x = Key(2).fold("x").normal((3, 8, 8, 1))

    def network(x, level):
        said, _ = sampling.denoiser.network.forward(sampling.theta, x, np.full(3, level.t - 1.0))
        return Prediction("eps", said, x, level)
    for name in ("stride_stepping", "final_abar_0"):
        want = samplers.run(samplers.ddim(network, grid, x, compat=(name,)))
        np.testing.assert_allclose(end(sampling, "ddim", compat=(name,)), want, rtol=0, atol=1e-10)


def test_the_network_is_told_the_time_and_not_the_level():
    """With one trailing time too many it is told t = 0, -1 as it counts, at the noisiest level."""
    sampling, told = opened(EPS), []
    sampling, _ = room.deviating(sampling, "ddim", ("trailing_overshoot",))
    network = sampling.denoiser.network
    sampling.denoiser.network = type("Watched", (), {
        "config": network.config, "forward": staticmethod(lambda theta, x, c_noise, *rest: (
            told.append(float(c_noise[0])), network.forward(theta, x, c_noise, *rest))[1])})
    top = sampling.denoiser.schedule.level(1000)
    said = sampling.bind()(Key(1).normal((2, 8, 8, 1)), Level(0, top.alpha, top.sigma))
    assert told == [-1.0] and said.kind == "eps" and said.level.alpha == top.alpha


def test_deviations_of_the_network_are_those_of_its_own_room():
    sampling = opened(EPS)
    wrong = Denoiser(unet(NET, ("padding", "embedding_order")), EPS)
    want = end(sampling._replace(denoiser=wrong), "ddim")
    assert np.array_equal(end(sampling, "ddim", compat=("embedding_order", "padding")), want)


def test_an_unknown_name_is_refused_with_both_kinds():
    with pytest.raises(ValueError, match="no deviation 'nosuch', wanted some of .*of ddim.*padding") as error:
        end(opened(EPS), "ddim", compat=("nosuch",))
    assert all(name in str(error.value) for name in (*samplers.compat.names("ddim"), *DEVIATIONS))
    with pytest.raises(ValueError, match="no deviation 'churn_stale'"):
        end(opened(F), "heun", compat=("churn_stale",))


def test_a_network_that_is_no_unet_has_none_of_its_own():
    made = room.Sampling(Denoiser(MLP(MLPConfig()), F), None, .02, 20., 7., 0., 0, False)
    with pytest.raises(ValueError, match="no deviation 'padding', wanted some of (?!.*embedding_order)"):
        room.deviating(made, "ddim", ("padding",))


def test_the_command_takes_names_of_both_kinds(tmp_path):
    images = np.tanh(Key(3).normal((12, 8, 8, 1))).astype(np.float32)
    train(from_array(images), NET, EPS, TrainConfig(steps=2, batch=4), tmp_path / "run")

    def run(*names):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        asked = ["sample", str(tmp_path / "run" / "checkpoint.h5"), "--sampler", "ddim", "--steps", "7", "--count", "2",
                 "--out", str(out)]
        result = CliRunner().invoke(main, asked + [part for name in names for part in ("--compat", name)])
        return result, np.load(out) if out.exists() else None
    (_, plain), (one, strided), (two, both) = run(), run("stride_stepping"), run("stride_stepping", "time_offset")
    assert one.exit_code == two.exit_code == 0, one.output + two.output
    assert not np.array_equal(plain, strided) and not np.array_equal(strided, both)
    refused, nothing = run("nosuch")
    assert refused.exit_code == 2 and nothing is None and "stride_stepping" in refused.output
