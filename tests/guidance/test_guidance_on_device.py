"""Guidance and editing stay where their arrays live, and give the same numbers there."""
import numpy as np
import pytest
import standin

from refdiff import backend, guidance, samplers
from refdiff.classifier import Classifier, ClassifierConfig
from refdiff.process import grids
from refdiff.process.exact import Gaussian, Mixture, ring
from refdiff.process.level import Level, ve
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key

X, Y, Z = np.random.default_rng(1).standard_normal((3, 4, 2))
ANGLE = np.array([.2, .7, 1.1, 1.4])
C, W, RING = Gaussian([.7, -.4], [[.3, .1], [.1, .2]]), Gaussian([-.2, .3], [[.9, -.2], [-.2, .6]]), ring()
GRID = grids.karras(5, .05, 10., final=None)


def same_on_both(compute):
    """compute(there) with there = identity on the host and a copy to the device: the same bits, on its own side."""
    host, there = compute(lambda a: a), compute(standin.xp.asarray)
    assert isinstance(there, standin.StandIn)
    np.testing.assert_array_equal(there.get(), host)


LEVELS = {"number": lambda there: ve(1.5),
          "rows": lambda there: Level(there(ANGLE), there(np.cos(ANGLE)), there(np.sin(ANGLE))),
          "host rows": lambda there: Level(ANGLE, np.cos(ANGLE), np.sin(ANGLE))}


def labelled(x, level, labels):
    xp = backend.of(x=x)
    return Prediction("x0", xp.where((xp.asarray(labels) == 1)[:, None], C(x, level).x0, W(x, level).x0), x, level)


MAPS = {
    "cfg": lambda there: guidance.cfg(C, W, scale=2.),
    "rescaled": lambda there: guidance.cfg(C, W, w=2., rescale=.6),
    "labels": lambda there: guidance.cfg_labels(labelled, there(np.array([1, 1, 0, 1])), there(np.zeros(4, int)), w=1.),
    "host labels": lambda there: guidance.cfg_labels(labelled, np.array([1, 1, 0, 1]), np.zeros(4, int), w=1.),
    "interval": lambda there: guidance.interval(C, W, sigma=(.5, 3.)),
    "interval in lambda": lambda there: guidance.interval(C, W, lam=(-1., .5)),
    "autoguidance": lambda there: guidance.autoguidance(C, W, scale=3.),
    "classifier": lambda there: guidance.classifier(RING, guidance.MixtureClassifier(RING).gradient(2), 1.5),
    "static": lambda there: guidance.static(C, .3),
    "dynamic": lambda there: guidance.dynamic(C, .7, limit=.2, cap=1.5, eps="kept"),
    "Guided": lambda there: guidance.Guided(C, W, scale=2.),
}


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("name", MAPS)
def test_maps(name, level):
    for kind in ("x0", "eps"):
        same_on_both(lambda there: getattr(MAPS[name](there)(there(X), level(there)), kind))


def test_editing():
    z = Key(2).normal((60, 4, 2))
    mask = np.array([True, False])
    for resamples in (1, 3):
        same_on_both(lambda there: samplers.run(guidance.inpaint(
            C, GRID, there(X), there(Y), there(mask), resamples=resamples, noise=lambda step: there(z[step]))))
    same_on_both(lambda there: samplers.run(guidance.sdedit(samplers.ddim, C, GRID, there(Y), .5, there(X))))
    same_on_both(lambda there: samplers.run(guidance.mean_shift(
        C, lambda x, level: .1 * x, GRID, there(X), noise=lambda step: there(z[step]))))
    same_on_both(lambda there: samplers.run(guidance.invert(C, GRID, there(X), iterations=50, tolerance=1e-3)))
    for between in (guidance.linear, guidance.slerp):
        same_on_both(lambda there: between(there(X), there(Y), .3))


def test_flows_of_guided_worlds():
    line = Gaussian(.5, .09), Gaussian(-.2, .64)
    same_on_both(lambda there: guidance.Guided(*line, scale=2.).flow(there(X[:, :1]), ve(3.), ve(.1)))
    both = Mixture([.5, .5], [-1., 1.], [.1, .1]), line[1]
    same_on_both(lambda there: guidance.Guided(*both, scale=2.).flow(there(X[:, :1]), ve(3.), ve(.5)))


def test_the_network_s_gradient():
    net = Classifier(ClassifierConfig(dim=2, classes=3, width=8, depth=1, embedding=4))
    theta = net.layout.init(Key(1), np.float64)
    theta.flat += .1 * Key(2).normal(theta.flat.shape)
    for level in LEVELS.values():
        for y in (1, np.array([0, 2, 1, 1])):
            same_on_both(lambda there: net.gradient(
                theta.with_flat(there(theta.flat)), there(y) if hasattr(y, "shape") else y)(there(X), level(there)))


def test_what_lives_elsewhere_is_refused():
    there = standin.xp.asarray
    for make in (lambda: next(guidance.inpaint(C, GRID, X, there(Y), np.array([True, False]), noise=lambda step: X)),
                 lambda: guidance.sdedit(samplers.ddim, C, GRID, X, .5, there(Y)),
                 lambda: guidance.classifier(C, lambda x, level: there(x))(X, ve(1.)),
                 lambda: guidance.slerp(X, there(Y), .5)):
        with pytest.raises(backend.BackendError, match="standin"):
            make()
