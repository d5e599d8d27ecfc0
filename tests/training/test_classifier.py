"""The classifier of noisy points: its gradients by the complex step; what it learns against the exact one."""
import inspect
import math
import sys
import types

import numpy as np
import pytest

from refdiff import classifier, guidance, samplers
from refdiff.classifier import Classifier, ClassifierConfig
from refdiff.optim import AdamW
from refdiff.process import grids
from refdiff.process.exact import Mixture
from refdiff.process.gaussian import q_sample
from refdiff.process.level import Level, ve
from refdiff.rng import Key

NET = Classifier(ClassifierConfig(dim=2, classes=3, width=16, depth=2, embedding=8))
MIX = Mixture([.3, .4, .3], [[-1., 0.], [.8, .7], [.6, -.9]], [.08 * np.eye(2)] * 3)


def points(n=5, dtype=np.float64):
    key = Key(3)
    theta = NET.layout.init(key.fold("theta"), dtype)
    theta.flat += (.1 * key.fold("away from zero").normal(theta.flat.shape)).astype(dtype)
    return theta, key.fold("x").normal((n, 2), dtype), np.arange(n) % 3


def rows(n):
    angle = np.linspace(.1, 1.5, n)
    return Level(angle, np.cos(angle), np.sin(angle))


LEVELS = {"clean": Level(0, 1., 0.), "noise": Level(9, 0., 1.), "ve": ve(7.), "flow": Level(.4, .6, .4),
          "rows": rows(5)}


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_the_input_gradient_of_each_row_s_log_probability_is_the_complex_step(level):
    theta, x, labels = points()
    got = NET.gradient(theta, labels)(x, level)
    wanted = np.empty_like(x)
    for i, e in enumerate(np.eye(2)):
        s, _ = NET.forward(theta, x + 1e-30j * e, level)
        log_p = s[np.arange(5), labels] - np.log(np.exp(s).sum(axis=1))
        wanted[:, i] = log_p.imag / 1e-30
    assert abs(wanted).max() > 1e-3
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13)
    for k in range(3):
        np.testing.assert_array_equal(NET.gradient(theta, k)(x, level), NET.gradient(theta, labels * 0 + k)(x, level))


def test_the_gradient_of_the_loss_is_the_complex_step():
    theta, x, labels = points()
    loss, grad = NET.loss(theta, x, rows(5), labels)
    s, _ = NET.forward(theta, x, rows(5))
    plain = [math.log(sum(math.exp(v) for v in row)) - row[k] for row, k in zip(s, labels)]
    assert loss == pytest.approx(sum(plain) / 5, rel=1e-13)
    for k in range(4):
        v = Key(4).fold(k).normal(theta.flat.shape)
        s, _ = NET.forward(theta.with_flat(theta.flat + 1e-30j * v), x.astype(complex), rows(5))
        log_p = s[np.arange(5), labels] - np.log(np.exp(s).sum(axis=1))
        assert grad.flat @ v == pytest.approx(-log_p.imag.mean() / 1e-30, rel=1e-10)
    assert all(np.any(grad[name]) for name in NET.layout.handles)


def test_scores_do_not_depend_on_the_family():
    theta, x, _ = points()
    for ratio in (.1, 1., 30.):
        one = NET.forward(theta, x, ve(ratio))[0]
        other = NET.forward(theta, .25 * x, Level(0, .25, .25 * ratio))[0]
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_gradients_are_rows_of_their_own_in_x_s_dtype():
    theta, x, labels = points()
    whole = NET.gradient(theta, labels)(x, rows(5))
    np.testing.assert_allclose(NET.gradient(theta, labels[1:3])(x[1:3], rows(5).rows(slice(1, 3))), whole[1:3],
                               rtol=1e-12, atol=1e-14)
    single = theta.astype(np.float32)
    for dtype in (np.float32, np.float64):
        out = NET.gradient(single, labels)(x.astype(dtype), rows(5))
        assert out.dtype == dtype
        np.testing.assert_allclose(out, whole, atol=1e-4)


def test_a_trained_classifier_guides_as_the_exact_one_does():
    """600 steps of Adam: within .01 nats of the exact posterior; guided by it, 9 of 10 samples are class 1."""
    theta = NET.layout.init(Key(1), np.float64)
    adam = AdamW(lr=.01)
    state = adam.init(theta.flat)
    means = np.array([c.mean for c in MIX.components])
    for step in range(600):
        key = Key(2).fold(step)
        labels = np.minimum(np.searchsorted([.3, .7], key.fold("y").uniform(256)), 2)
        x0 = means[labels] + math.sqrt(.08) * key.fold("x").normal((256, 2))
        angle = key.fold("t").uniform(256) * math.pi / 2
        level = Level(angle, np.cos(angle), np.sin(angle))
        _, grad = NET.loss(theta, q_sample(x0, key.fold("eps").normal((256, 2)), level), level, labels)
        adam.update(state, theta.flat, grad.flat)
    exact = guidance.MixtureClassifier(MIX)
    for angle in (.3, .8, 1.3):
        level = Level(angle, math.cos(angle), math.sin(angle))
        x = q_sample(MIX.sample(Key(5), 400), Key(6).normal((400, 2)), level)
        wanted = exact.log_probability(x, level)
        s, _ = NET.forward(theta, x, level)
        got = s - np.log(np.exp(s).sum(axis=1, keepdims=True))
        assert (np.exp(wanted) * (wanted - got)).sum(axis=1).mean() < .01                  # KL, in nats
    grid, x = grids.karras(40, .02, 20.), 20 * Key(7).normal((200, 2))
    share = {}
    for name, denoiser in (("plain", MIX), ("learned", guidance.classifier(MIX, NET.gradient(theta, 1))),
                           ("exact", guidance.classifier(MIX, exact.gradient(1)))):
        out = samplers.run(samplers.heun(denoiser, grid, x))
        share[name] = (np.argmin(((out[:, None] - means) ** 2).sum(-1), axis=1) == 1).mean()
    assert share["plain"] < .5 and share["learned"] > .9 and share["exact"] > .98


@pytest.mark.parametrize("make, message", [
    (lambda t, x: NET.gradient(t, 3), "class 3"), (lambda t, x: NET.gradient(t, True), "class True"),
    (lambda t, x: NET.gradient(t, np.arange(4))(x, ve(1.)), "labels"),
    (lambda t, x: NET.forward(t, x[:, :1], ve(1.)), r"wanted \(n, 2\)"),
    (lambda t, x: ClassifierConfig(classes=1), "classes")])
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make(*points()[:2])


# ---- planted mutants: one coefficient rewritten, and the check above must fail

def by_hand(theta, x, ratio):
    """The scores of NET, from the formula, at the level sigma/alpha = ratio of the family x_0 + sigma eps."""
    phase = 6.0 * math.atan(ratio) * 30.0 ** (-np.arange(4) / 3)
    h = np.concatenate([x / math.sqrt(1 + ratio ** 2), np.tile([*np.sin(phase), *np.cos(phase)], (len(x), 1))], axis=1)
    for i in range(2):
        h = h @ theta[f"hidden.{i}.w"] + theta[f"hidden.{i}.b"]
        h = h / (1 + np.exp(-h))
    return h @ theta["out.w"] + theta["out.b"]


def check_gradient(net):
    theta, x, labels = points()
    level = ve(np.array([.1, .5, 1., 3., 20.]))
    s = [net.forward(theta, x + 1e-30j * e, level)[0] for e in np.eye(2)]
    log_p = [v[np.arange(5), labels] - np.log(np.exp(v).sum(axis=1)) for v in s]
    np.testing.assert_allclose(net.gradient(theta, labels)(x, level), np.transpose([v.imag / 1e-30 for v in log_p]),
                               rtol=1e-11, atol=1e-13)
    for level in (ve(3.), Level(0, .5, 1.5)):
        np.testing.assert_allclose(net.forward(theta, level.alpha * x, level)[0], by_hand(theta, x, 3.), rtol=1e-12)


@pytest.mark.parametrize("old, new", [
    ("-float(len(x))", "float(len(x))"), ("-float(len(x))", "-1.0"), ("return c_in * dx", "return dx"),
    ("(alpha ** 2 + sigma ** 2) ** -0.5", "alpha * 0 + 1.0"), ("(alpha ** 2 + sigma ** 2)", "(alpha + sigma ** 2)"),
    ("xp.arctan2(sigma, alpha)", "sigma"), ("config.time_scale * angle", "angle"),
    ("silu.backward(s_silu, dh)", "dh")])
def test_every_mutant_is_killed(old, new):
    source = inspect.getsource(classifier)
    assert source.count(old) == 1, old
    wrong = types.ModuleType("refdiff.classifier")
    wrong.__package__ = "refdiff"
    sys.modules[wrong.__name__], kept = wrong, sys.modules[wrong.__name__]        # dataclasses look their module up
    try:
        exec(compile(source.replace(old, new), "mutant of classifier", "exec"), wrong.__dict__)
    finally:
        sys.modules[wrong.__name__] = kept
    check_gradient(NET)
    with pytest.raises(AssertionError):
        check_gradient(wrong.Classifier(NET.config))
