"""The process and the samplers stay where their arrays live, and give the same numbers there."""
import numpy as np
import pytest
import standin

from refdiff import backend, samplers
from refdiff.process import gaussian, grids, maps, schedules
from refdiff.process.exact import FiniteData, Gaussian, Mixture, ring
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import KINDS, PRECONDITIONINGS, Prediction
from refdiff.rng import Key

X, Z = np.random.default_rng(1).standard_normal((2, 4, 2))
ANGLE = np.array([.2, .7, 1.1, 1.4])


def device(a):
    return standin.xp.asarray(a)


def same_on_both(compute):
    """compute(there) with there = identity on the host and a copy to the device: the same bits, on its own side."""
    host, there = compute(lambda a: a), compute(device)
    assert isinstance(there, standin.StandIn)
    np.testing.assert_array_equal(there.get(), host)


def rows(there):
    return Level(there(ANGLE), there(np.cos(ANGLE)), there(np.sin(ANGLE)))


LEVELS = {"number": lambda there: ve(1.5), "rows": rows, "host rows": lambda there: rows(lambda a: a)}


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_predictions_and_forward_process(level):
    for kind in KINDS:
        for target in KINDS:
            same_on_both(lambda there: getattr(Prediction(kind, there(Z), there(X), level(there)), target))
    same_on_both(lambda there: gaussian.q_sample(there(X), there(Z), level(there)))


def test_posterior_of_rows():
    s, t = np.array([0, 3, 5, 8]), np.array([1, 7, 6, 20])
    schedule = schedules.linear(20)
    same_on_both(lambda there: gaussian.posterior_mean(there(X), there(Z), schedule.level(there(s)),
                                                       schedule.level(there(t))))
    same_on_both(lambda there: schedule.level(there(t)).lam)
    with pytest.raises(ValueError, match="runs from 1 to 20"):
        schedules.linear(10).level(device(t))


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_preconditionings_of_rows(name):
    for i in range(4):
        same_on_both(lambda there: PRECONDITIONINGS[name](rows(there))[i])
    same_on_both(lambda there: ve(there(ANGLE)).snr)


WORLDS = {"gaussian": Gaussian([.1, .2], [[1., .3], [.3, .5]]), "ring": ring(),
          "finite": FiniteData([[0., 1.], [.5, -.2], [1.5, .3]], [1, 2, 1])}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_worlds_and_maps(world, monkeypatch):
    for level in LEVELS.values():
        same_on_both(lambda there: world(there(X), level(there)).x0)
        same_on_both(lambda there: world.score(there(X), level(there)))
        same_on_both(lambda there: world.log_density(there(X), level(there)))
        same_on_both(lambda there: maps.in_batches(world, 3)(there(X), level(there)).eps)
    same_on_both(lambda there: world.flow(there(X), ve(2.), ve(1.)))
    host = world.sample(Key(1), 5)
    monkeypatch.setattr(backend, "_chosen", standin.xp)
    np.testing.assert_array_equal(world.sample(Key(1), 5).get(), host)


def test_quantile_map():
    line = Mixture([.3, .7], [-1., .8], [.16, .25])
    same_on_both(lambda there: line.flow(there(X[:, :1]), ve(3.), ve(.1)))


def test_every_sampler():
    world, grid = WORLDS["gaussian"], grids.karras(5, .05, 10.)
    z = Key(2).normal((5, 4, 2))
    for name, options in (("ddpm", {}), ("ddpm", {"variance": "large"}), ("ddim", {"eta": .5}), ("ddim", {})):
        same_on_both(lambda there: samplers.run(samplers.SAMPLERS[name](
            world, grid, there(X), noise=lambda step: there(z[step]), **options)))
    for name in ("heun", "euler"):
        same_on_both(lambda there: samplers.run(samplers.SAMPLERS[name](world, grid, there(X))))
    same_on_both(lambda there: samplers.run(samplers.SAMPLERS["consistency"](
        lambda x, sigma: world.flow(x, ve(sigma), ve(.002)), [10., 1.], there(X), noise=lambda step: there(z[step]))))


def test_noise_from_another_place_is_refused():
    with pytest.raises(backend.BackendError, match="x is on numpy, noise is on standin"):
        samplers.run(samplers.SAMPLERS["ddpm"](WORLDS["gaussian"], grids.karras(3), X, noise=lambda step: device(Z)))
    with pytest.raises(backend.BackendError, match="value is on standin"):
        Prediction("eps", device(Z), X, ve(1.))
