"""Any legal chain of maps, on any grid, in any sampler that fits: finite numbers or a refusal by name, never NaN."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from refdiff import guidance, samplers
from refdiff.process import grids, schedules
from refdiff.process.exact import Gaussian, Mixture
from refdiff.process.grids import Grid
from refdiff.process.level import Level
from refdiff.process.parameterization import KINDS, Prediction
from refdiff.rng import Key

C = Gaussian([.7, -.4], [[.3, .1], [.1, .2]])
W = Mixture([.4, .6], [[.7, -.4], [-.6, .5]], [[[.3, .1], [.1, .2]], [[.2, 0.], [0., .4]]])
SCHEDULE = schedules.linear(50)
GRIDS = {
    "discrete": lambda S: grids.discrete(SCHEDULE, S), "leading": lambda S: grids.discrete(SCHEDULE, S, "leading"),
    "karras": lambda S: grids.karras(S), "above zero": lambda S: grids.karras(S + 1, final=None),
    "flow": lambda S: Grid(range(S + 1), np.arange(S + 1) / S, 1 - np.arange(S + 1) / S, "flow from pure noise"),
    "zero terminal": lambda S: grids.discrete(schedules.zero_terminal_snr(SCHEDULE), S),
}
scales = st.floats(-3, 10)


def kinds(world, kind):
    return lambda x, level: Prediction(kind, getattr(world(x, level), kind), x, level)


@st.composite
def denoisers(draw):
    c, u = kinds(C, draw(st.sampled_from(KINDS))), kinds(W, draw(st.sampled_from(KINDS)))
    made = draw(st.sampled_from([
        lambda: guidance.cfg(c, u, scale=draw(scales)),
        lambda: guidance.cfg(c, u, w=draw(scales), rescale=draw(st.floats(0, 1)), kind=draw(st.sampled_from(KINDS))),
        lambda: guidance.autoguidance(c, u, scale=draw(scales)),
        lambda: guidance.classifier(u, guidance.MixtureClassifier(W).gradient(draw(st.integers(0, 1))), draw(scales)),
        lambda: guidance.Guided(C, W, w=draw(scales))]))()
    for wrap in draw(st.lists(st.sampled_from(["interval", "static", "dynamic"]), max_size=2)):
        if wrap == "interval":
            low = draw(st.floats(0, 5))
            made = guidance.interval(made, c, sigma=(low, low + draw(st.floats(.1, 50))))
        elif wrap == "static":
            made = guidance.static(made, draw(st.floats(.1, 5)), eps=draw(st.sampled_from(["derived", "kept"])))
        else:
            made = guidance.dynamic(made, draw(st.floats(.01, 1)), limit=.5, cap=draw(st.sampled_from([None, .5, 2.])),
                                    eps=draw(st.sampled_from(["derived", "kept"])))
    return made


@st.composite
def runs(draw):
    """(name, the number of states there must be, a generator)."""
    denoiser, S = draw(denoisers()), draw(st.integers(1, 6))
    grid = GRIDS[draw(st.sampled_from(sorted(GRIDS)))](S)
    S = len(grid)
    first = grid.level(0)
    key = Key(draw(st.integers(0, 99)))
    x = key.fold("x").normal((3, 2)) * (first.alpha ** 2 + first.sigma ** 2) ** .5
    data = key.fold("data").normal((3, 2))
    noise = samplers.noise_from(key, x)
    U, length, eta = draw(st.integers(1, 3)), draw(st.integers(1, S)), draw(st.floats(0, 1))
    strength = draw(st.integers(1, S)) / S
    variance = draw(st.sampled_from(["small", "large"]))
    gradient = guidance.MixtureClassifier(W).gradient(0)
    return draw(st.sampled_from([
        ("ddim", S, lambda: samplers.ddim(denoiser, grid, x, eta=eta, noise=noise)),
        ("ddpm", S, lambda: samplers.ddpm(denoiser, grid, x, variance, noise=noise)),
        ("mean_shift", S, lambda: guidance.mean_shift(denoiser, gradient, grid, x, 2., variance, noise=noise)),
        ("inpaint", len(guidance.jumps(S, length, U)) - 1, lambda: guidance.inpaint(
            denoiser, grid, x, data, np.array([True, False]), eta=eta, resamples=U, length=length, noise=noise)),
        ("sdedit", round(strength * S), lambda: guidance.sdedit(samplers.ddim, denoiser, grid, data, strength, data)),
        ("invert", S, lambda: guidance.invert(denoiser, grid, data, iterations=U))]))


@settings(max_examples=250)
@given(runs())
def test_a_run_is_finite_or_refused_and_has_the_steps_it_was_asked_for(run):
    name, count, make = run
    try:
        states = list(make())
    except ValueError as refusal:                    # LimitError is one
        known = ("alpha = 0", "sigma = 0", "standard deviation is 0", "no walk back")
        assert any(words in str(refusal) for words in known), refusal
        return
    assert len(states) == count
    for state in states:
        assert np.isfinite(state.x).all(), (name, state.step)


@given(st.floats(1e-6, 1e6), st.floats(0, 1), scales)
def test_guided_gaussians_at_any_level_are_finite(ratio, share, scale):
    level = Level(0, share, max(share * ratio, 1e-3))
    x = np.array([[1., -2.], [0., 5.]])
    world = guidance.Guided(C, Gaussian([0., 0.], np.eye(2)), scale=scale)
    assert np.isfinite(world.score(x, level)).all() and np.isfinite(world.posterior_mean(x, level)).all()
