"""What a sampler is given: its start, its noise and its grid, all from one key, none of it used twice."""
import dataclasses
import itertools

import numpy as np
import pytest

from refdiff import sample as room
from refdiff import samplers
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.models import UNet, UNetConfig
from refdiff.process.level import ve
from refdiff.rng import Key

NET = UNetConfig(image_size=8, in_channels=1, out_channels=1, channels=4, multipliers=(1,), blocks=1, attention=(),
                 groups=2, classes=3, dropout=0.0)
COUNT, STEPS = 100, 4
EDM, LINEAR = DenoiserConfig(sigma_min=0.02, sigma_max=20.0), DenoiserConfig(prediction="eps", process="linear")


@pytest.mark.parametrize("sampler, config, distilled, options", [
    ("consistency", EDM, True, {}), ("ddpm", LINEAR, False, {}), ("ddpm", EDM, False, {}),
    ("ddim", LINEAR, False, {"eta": 0.5})])
def test_the_noise_of_every_step_is_independent_of_the_start_and_of_the_others(monkeypatch, sampler, config, distilled,
                                                                               options):
    """Correlations of 6,400 pairs within five standard errors; the start has the first level's deviation."""
    met = {}

    def spy(denoiser, levels, x, *rest, eta=0.0, noise=None):
        met.update(x=x, noise=noise if noise is not None else rest[-1], levels=levels)
        return iter(())
    monkeypatch.setitem(room.SAMPLERS, sampler, spy)
    denoiser = Denoiser(UNet(NET), config)
    theta = denoiser.network.layout.init(Key(0))
    sampling = room.Sampling(denoiser, theta, config.sigma_min, config.sigma_max, 7.0, 0.0, 3, distilled)
    labels = room.choose_labels(3, COUNT)
    draws = []
    for seed in (1, 1, 2):
        room.states(sampling, sampler, STEPS, labels, Key(seed), options=options)
        draws.append([met["x"], *(met["noise"](i) for i in range(STEPS - 1))])
    for one, again, other in zip(*draws):
        assert np.array_equal(one, again) and not np.array_equal(one, other)
    start = 1.0 if config is LINEAR else met["levels"][0] if distilled else met["levels"].level(0).sigma
    assert start == (1.0 if config is LINEAR else 20.0)
    rows = np.stack([z.ravel() for z in draws[0]])
    rows[0] /= start
    n = rows.shape[1]
    assert np.all(np.abs(rows.std(axis=1) - 1) < 5 / np.sqrt(2 * n)) and rows.dtype == np.float64
    for a, b in itertools.combinations(rows, 2):
        assert abs(np.mean(a * b)) < 5 / np.sqrt(n)


def test_the_levels_of_the_consistency_sampler_are_the_named_ones():
    assert [room.consistency_sigmas(steps) for steps in (1, 2, 4)] == [(20.0,), (20.0, 0.8), (20.0, 2.5, 0.8, 0.3)]
    others = room.consistency_sigmas(3, 80.0)
    assert len(others) == 3 and others[0] == pytest.approx(80) and others[-1] == pytest.approx(0.3)
    assert others[1] ** 2 == pytest.approx(others[0] * others[2])


def test_an_option_that_the_sampler_has_not_is_refused_by_name():
    with pytest.raises(ValueError, match="heun: .*'order'.*wanted one of its options"):
        room.check_options("heun", {"order": 3})
    with pytest.raises(ValueError, match="ddim: .*'order'.*eta"):
        room.check_options("ddim", {"order": 3})
    room.check_options("ddim", {"eta": .5})


OTHERS = ["steps", "scale", "seed", "count", "label", "labels", "threads", "sampler", "checkpoint", "sigmas", "key",
          "workers", "sampling", "noise", "x", "denoiser", "grid", "options"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_option_of_the_sampler_is_refused_before_the_checkpoint_is_opened(name):
    for sampler in ("heun", "ddpm", "consistency"):
        with pytest.raises(ValueError, match=f"sample: {sampler}: there is no '{name}'"):
            room.sample(None, sampler, 3, 2, options={name: 1})
    with pytest.raises(ValueError, match="consistency: there is no 'sigma_min'"):
        room.sample(None, "consistency", 3, 2, options={"sigma_min": 1.})


def opened(classes=3, distilled=False):
    denoiser = Denoiser(UNet(dataclasses.replace(NET, classes=classes)), EDM)
    theta = denoiser.network.layout.init(Key(0))
    theta.flat[:] += .1 * Key(5).normal(theta.flat.shape, theta.flat.dtype)           # the last layer begins at zero
    return room.Sampling(denoiser, theta, EDM.sigma_min, EDM.sigma_max, 7.0, 0.0, classes, distilled)


def test_guidance_is_u_plus_s_times_c_minus_u_with_the_null_class():
    sampling, labels, x = opened(), np.array([0, 2]), Key(1).normal((2, 8, 8, 1))
    c, u = (sampling.bind(one)(x, ve(1.5)).x0 for one in (labels, np.array([3, 3])))
    assert np.abs(c - u).max() > 1e-3
    np.testing.assert_allclose(room.guided(sampling, labels, 2.5)(x, ve(1.5)).x0, u + 2.5 * (c - u), atol=1e-5)
    plain, one, more = (samplers.run(room.states(sampling, "heun", 3, labels, Key(2), scale=s)) for s in (None, 1., 3.))
    assert np.array_equal(plain, one) and not np.array_equal(plain, more)


def test_guidance_without_classes_or_of_a_student_is_refused():
    with pytest.raises(ValueError, match="network without classes"):
        room.states(opened(0), "heun", 3, None, Key(2), count=2, scale=2.)
    with pytest.raises(ValueError, match="distilled checkpoint"):
        room.states(opened(3, True), "consistency", 2, np.array([0, 1]), Key(2), scale=2.)


@pytest.mark.parametrize("sampler, distilled", [("ddpm", False), ("ddim", False), ("consistency", True)])
def test_some_rows_alone_are_what_they_are_among_all(sampler, distilled):
    """Their start, noise and labels are the whole batch's: equal but for how products of matrices are rounded."""
    denoiser = Denoiser(UNet(NET), EDM)
    theta = denoiser.network.layout.init(Key(0))
    theta.flat[...] += 0.1 * Key(1).normal(theta.flat.shape, theta.flat.dtype)
    sampling = room.Sampling(denoiser, theta, EDM.sigma_min, EDM.sigma_max, 7.0, 0.0, 3, distilled)
    labels = room.choose_labels(3, 9)
    whole = samplers.run(room.states(sampling, sampler, STEPS, labels, Key(1)))
    for rows in (slice(0, 4), slice(4, 9)):
        part = samplers.run(room.states(sampling, sampler, STEPS, labels, Key(1), rows=rows))
        np.testing.assert_allclose(part, whole[rows], atol=1e-4 * abs(whole).max())
    other = samplers.run(room.states(sampling, sampler, STEPS, labels[4:], Key(1)))
    assert abs(other - whole[4:]).max() > 0.1
