"""Inpainting, SDEdit, inversion and interpolation on worlds where what should come out is known. And mutants.

Each check takes the functions it judges as arguments, so that the mutants at the end run through the same checks.
"""
import math

import mpmath as mp
import numpy as np
import planted
import pytest

from refdiff import guidance, samplers
from refdiff.guidance import edit, inversion
from refdiff.process import affine, families, family_grids, grids, schedules
from refdiff.process.exact import Gaussian, Mixture
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key

WORLD = Gaussian([.7, -.4], [[.5, .35], [.35, .4]])
LINE = Mixture([.3, .7], [-1., .8], [.16, .25])
KNOWN = np.array([1.3, 0.])
MASK = np.array([True, False])


def circle(S, first=1.5, last=0.):
    """A variance-preserving grid, uniform in the angle; sigma = 0 exactly at its end if that is 0."""
    angle = np.linspace(first, last, S + 1)
    return Grid(angle, np.cos(angle), np.sin(angle), "circle")


def short_grids():
    yield grids.discrete(schedules.linear(1000), 6, "trailing")
    yield grids.karras(7, .02, 20.)
    yield circle(5, 1.4, .1)
    flow = np.linspace(.95, 0, 6)
    yield Grid(flow, 1 - flow, flow, "flow")


# ---- the law of inpainting, by a recursion of its own

def inpainting_law(grid, path, eta):
    """Mean and covariance of the unknown part and the known one, from N(0, I), along a path of levels."""
    mean, cov, keep = np.zeros(2), np.eye(2), np.diag((~MASK).astype(float))
    for step, (i, j) in enumerate(zip(path, path[1:])):
        here, there = grid.level(i), grid.level(j)
        noise = 0.0 if step == len(path) - 2 else 1.0
        if j < i:                                       # q(x_t | x_s), its variance what is missing to the marginal's
            ratio = there.alpha / here.alpha
            added = there.sigma ** 2 - ratio ** 2 * here.sigma ** 2
            mean, cov = ratio * mean, ratio ** 2 * cov + noise * added * np.eye(2)
            continue
        a, c, std = affine.ddim_step(eta)(there, here)
        S = here.alpha ** 2 * WORLD.cov + here.sigma ** 2 * np.eye(2)
        gain = here.alpha * WORLD.cov @ np.linalg.inv(S)
        A = keep @ (a * np.eye(2) + c * gain)
        mean = A @ mean + keep @ (c * (WORLD.mean - here.alpha * gain @ WORLD.mean))
        mean = mean + np.where(MASK, there.alpha * KNOWN, 0)
        cov = A @ cov @ A.T + noise * np.diag(np.where(MASK, there.sigma ** 2, std ** 2))
    return mean, cov


def rows_of(x):
    return np.broadcast_to(KNOWN, x.shape).copy()


def check_inpainting(inpaint):
    for grid in short_grids():
        for eta, resamples, length in ((1., 1, 1), (0., 1, 1), (.4, 2, 1), (1., 3, 2), (1., 2, 3)):
            path = guidance.jumps(len(grid), length, resamples)
            read = affine.probe(lambda x, noise: samplers.run(inpaint(
                WORLD, grid, x, rows_of(x), MASK, eta=eta, resamples=resamples, length=length, noise=noise)),
                len(path) - 1, 2)
            mean, cov = read.law(np.zeros(2), np.eye(2))
            wanted_mean, wanted_cov = inpainting_law(grid, path, eta)
            size = 1 + abs(wanted_cov).max()
            np.testing.assert_allclose(mean, wanted_mean, rtol=1e-10, atol=1e-10 * size, err_msg=grid.rule)
            np.testing.assert_allclose(cov, wanted_cov, rtol=1e-10, atol=1e-10 * size, err_msg=grid.rule)
            assert not read.gains[-1].any() and all(gain.any() for gain in read.gains[:-1])


def algorithm_1(T, resamples):
    """The levels of RePaint's loop as printed: for t = T..1, for u = 1..U, with a step back unless u = U or t = 1."""
    path = [T]
    for t in range(T, 0, -1):
        for u in range(1, resamples + 1):
            path.append(t - 1)
            if u < resamples and t > 1:
                path.append(t)
            else:
                break
    return [T - t for t in path]


def check_jumps(jumps):
    for T in (1, 2, 5, 8):
        for U in (1, 2, 4):
            assert jumps(T, 1, U) == algorithm_1(T, U)
    assert jumps(5, 2, 2) == [0, 1, 2, 1, 0, 1, 2, 3, 4, 3, 2, 3, 4, 5]
    assert jumps(6, 3, 3) == [0, 1, 2, 3, 4, 5, 4, 3, 2, 3, 4, 5, 4, 3, 2, 3, 4, 5, 6]
    for length in range(1, 9):
        path = jumps(8, length, 3)
        assert path[0] == 0 and path[-1] == 8 and path.count(8) == 1 and min(path) >= 0
        assert set(np.abs(np.diff(path))) == {1}
        assert len(path) == 9 + 2 * 2 * length * len(range(1, 8 - length + 1, length))


def conditional():
    """The law of the unknown entry given the known one."""
    C, m = WORLD.cov, WORLD.mean
    return m[1] + C[1, 0] / C[0, 0] * (KNOWN[0] - m[0]), C[1, 1] - C[1, 0] ** 2 / C[0, 0]


def check_sdedit(sdedit):
    """Its law is the affine recursion from N(alpha_t x0, sigma_t^2 I) at the level t that it starts on."""
    guide = np.array([2., -1.])
    for grid in short_grids():
        for strength in (1., .6, 1 / len(grid)):
            steps = round(strength * len(grid))
            first = len(grid) - steps
            rest = Grid(grid.t[first:], grid.alpha[first:], grid.sigma[first:], "rest")
            for eta in (0., 1.):
                read = affine.probe(lambda z, noise: samplers.run(sdedit(
                    samplers.ddim, WORLD, grid, np.broadcast_to(guide, z.shape).copy(), strength, z, eta=eta,
                    noise=noise)), steps, 2)
                mean, cov = read.law(np.zeros(2), np.eye(2))
                t = grid.level(first)
                wanted = affine.affine_law(affine.ddim_step(eta), rest, WORLD, t.alpha * guide,
                                           t.sigma ** 2 * np.eye(2))
                size = 1 + abs(cov).max()
                np.testing.assert_allclose(mean, wanted[0], rtol=1e-10, atol=1e-10 * size)
                np.testing.assert_allclose(cov, wanted[1], rtol=1e-10, atol=1e-10 * size)


def there_and_back(invert, S, **options):
    """The error of inverting points of LINE and sampling again, on the same grid."""
    grid = circle(S, 1.5, .1)
    x = np.linspace(-1.8, 1.6, 9)[:, None]
    latent = samplers.run(invert(LINE, grid, x, **options))
    return np.sqrt(np.mean((samplers.run(samplers.ddim(LINE, grid, latent)) - x) ** 2))


def slope(counts, errors):
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


def check_inversion_returns(invert):
    counts = [128, 256, 512, 1024]                      # the third order is not reached at 64
    for k in (1, 2, 3):
        errors = [there_and_back(invert, S, iterations=k) for S in counts]
        assert abs(slope(counts, errors) - k) < .15, (k, slope(counts, errors), errors)
    errors = [there_and_back(invert, S, at="here") for S in counts]
    assert abs(slope(counts, errors) - 1) < .15, (slope(counts, errors), errors)
    assert there_and_back(invert, 64, iterations=100, tolerance=1e-14) < 1e-12


def check_inversion_follows_the_flow(invert):
    """All forms are first-order solvers of the PF-ODE upwards: their latents come to the exact flow's at order 1."""
    counts = [64, 128, 256, 512]
    x = np.linspace(-1.8, 1.6, 9)[:, None]
    for options in ({}, {"iterations": 6}, {"at": "here"}):
        errors = []
        for S in counts:
            grid = circle(S, 1.5, .1)
            exact = LINE.flow(x, grid.level(S), grid.level(0))
            errors.append(np.sqrt(np.mean((samplers.run(invert(LINE, grid, x, **options)) - exact) ** 2)))
        assert abs(slope(counts, errors) - 1) < .15, (options, slope(counts, errors), errors)


def check_inversion_of_a_constant_eps(invert):
    """Where eps does not change along the flow every form is exact; also from clean data and up to alpha = 0."""
    eps = np.array([[.3, -1.], [2., .4]])
    constant = lambda x, level: Prediction("eps", eps, x, level)  # noqa: E731
    x = np.array([[1., 2.], [-.5, .1]])
    grid = Grid([3, 2, 1, 0], [0., .5, .9, 1.], [1., .8, .3, 0.], "to alpha = 0")
    states = list(invert(constant, grid, x))
    for state, alpha, sigma in zip(states, (.9, .5, 0.), (.3, .8, 1.)):
        np.testing.assert_allclose(state.x, alpha * x + sigma * eps, rtol=1e-13, atol=1e-14)
        assert state.level.alpha == alpha
    some = Grid([2, 1, 0], [.5, .9, .99], [.8, .3, .1], "above sigma = 0")
    for options in ({"at": "here"}, {"iterations": 3}):
        out = samplers.run(invert(constant, some, .99 * x + .1 * eps, **options))
        np.testing.assert_allclose(out, .5 * x + .8 * eps, rtol=1e-13)


def check_slerp(slerp):
    a, b = Key(1).normal((4, 3, 2)), Key(2).normal((4, 3, 2))
    b[3] = a[3] * 2 + 1e-9 * b[3]                                          # all but parallel
    for u in (0., .3, .5, 1.):
        out = slerp(a, b, u)
        with mp.workdps(50):
            for i in range(4):
                p, q = ([mp.mpf(float(v)) for v in rows[i].ravel()] for rows in (a, b))
                cos = mp.fdot(p, q) / mp.sqrt(mp.fdot(p, p) * mp.fdot(q, q))
                theta, u_ = mp.acos(cos), mp.mpf(u)
                wanted = [mp.sin((1 - u_) * theta) / mp.sin(theta) * v + mp.sin(u_ * theta) / mp.sin(theta) * w
                          for v, w in zip(p, q)]
                np.testing.assert_allclose(out[i].ravel(), [float(v) for v in wanted], rtol=1e-13, atol=1e-14)


def check_linear(linear):
    a, b = Key(1).normal((4, 3)), Key(2).normal((4, 3))
    for u in (0., .25, 1.):
        np.testing.assert_allclose(linear(a, b, u), a + u * (b - a), rtol=1e-13, atol=1e-14)


# ---- facts

def test_inpainting_s_law_is_the_affine_recursion_with_and_without_resampling():
    check_inpainting(guidance.inpaint)


def test_jumps_are_the_loop_of_algorithm_1_and_longer_ones_are_walked_level_by_level():
    check_jumps(guidance.jumps)


def test_replacement_is_biased_and_resampling_moves_its_law_to_the_conditional_one():
    """The mean's error falls with every resampling; what is left of the variance's error is of the step size.

    In 100 steps: the mean is short of the conditional's .02 by .147 without resampling and by less than .006 with 32.
    """
    mean, variance = conditional()
    grid = circle(100)
    laws = {U: inpainting_law(grid, guidance.jumps(100, 1, U), 1.0) for U in (1, 2, 4, 8, 16, 32)}
    errors = [abs(m[1] - mean) for m, _ in laws.values()]
    assert errors[0] > .14 and errors[-1] < .006 and all(b < .65 * a for a, b in zip(errors, errors[1:]))
    assert all(m[0] == KNOWN[0] and not C[0].any() for m, C in laws.values())            # the known part is kept
    left = [abs(inpainting_law(circle(S), guidance.jumps(S, 1, 32), 1.0)[1][1, 1] - variance) for S in (50, 100, 200)]
    assert .45 < left[1] / left[0] < .8 and .45 < left[2] / left[1] < .7                 # towards order 1


def test_the_known_part_has_the_noise_of_the_level_after_each_step():
    """2 10^4 rows: at every level its mean and variance are alpha known and sigma^2 within 5 standard errors."""
    n, grid = 20000, circle(6)
    x = Key(1).normal((n, 2))
    path = guidance.jumps(6, 2, 2)
    for state, i in zip(guidance.inpaint(WORLD, grid, x, rows_of(x), MASK, resamples=2, length=2,
                                         noise=samplers.noise_from(Key(2), x)), path[1:]):
        level, part = grid.level(i), state.x[:, 0]
        assert state.level == level
        assert abs(part.mean() - 1.3 * level.alpha) <= 5 * level.sigma / math.sqrt(n) + 1e-15
        assert abs(part.var() - level.sigma ** 2) <= 5 * level.sigma ** 2 * math.sqrt(2 / n)


def test_inpainting_of_everything_or_nothing():
    grid, x = circle(8), Key(1).normal((5, 2))
    noise = samplers.noise_from(Key(2), x)
    known = Key(3).normal((5, 2))
    whole = samplers.run(guidance.inpaint(WORLD, grid, x, known, np.ones((5, 2), bool), resamples=2, noise=noise))
    np.testing.assert_array_equal(whole, known)
    none = samplers.run(guidance.inpaint(WORLD, grid, x, known, np.zeros(2, bool), eta=.5, noise=noise))
    np.testing.assert_array_equal(none, samplers.run(samplers.ddim(WORLD, grid, x, eta=.5, noise=noise)))


def test_sdedit_s_law_is_the_affine_recursion_from_the_noised_guide():
    check_sdedit(guidance.sdedit)


def test_sdedit_starts_on_the_level_it_noises_to_and_forgets_with_strength():
    grid, guide = circle(20), np.full((1, 2), 3.)
    first = next(guidance.sdedit(samplers.ddim, WORLD, grid, guide, .4, np.zeros((1, 2))))
    assert first.prediction.level == grid.level(12) and first.level == grid.level(13)
    np.testing.assert_array_equal(first.prediction.x, grid.level(12).alpha * guide)
    pulls = []
    for strength in (.1, .4, .7, 1.):
        ends = [samplers.run(guidance.sdedit(samplers.heun, WORLD, grid, g, strength, np.zeros((1, 2))))
                for g in (guide, guide + 1)]
        pulls.append((ends[1] - ends[0]).sum())
    assert all(a > b > 0 for a, b in zip(pulls, pulls[1:])) and pulls[0] > 1.8 and pulls[-1] < .3


def test_strength_is_a_rounded_share_of_the_steps():
    assert guidance.strength_steps(circle(100), .29) == 29              # .29 * 100 is 28.999999999999996
    assert guidance.strength_steps(circle(100), .28) == 28
    assert guidance.strength_steps(circle(10), 1) == 10
    assert guidance.strength_steps(circle(10), .051) == 1
    rest = guidance.tail(circle(10), 3)
    assert len(rest) == 3 and rest.level(0) == circle(10).level(7) and rest.level(3).sigma == 0


def test_inversion_and_sampling_return_at_the_order_of_the_iterations():
    check_inversion_returns(guidance.invert)


def test_inversion_follows_the_flow_upwards():
    check_inversion_follows_the_flow(guidance.invert)


def test_inversion_is_exact_where_eps_is_constant():
    check_inversion_of_a_constant_eps(guidance.invert)


def test_inversion_of_a_point_is_exact_only_where_eps_is_taken_at_the_level_it_belongs_to():
    """One point as data: eps is constant along the flow, but only on it; x_s at level t is not on it."""
    world, grid = Gaussian([.4], [[0.]]), circle(8, 1.4, .2)
    x = .4 * math.cos(.2) + math.sin(.2) * np.array([[-1.], [.5], [2.]])
    wanted = .4 * math.cos(1.4) + math.sin(1.4) * np.array([[-1.], [.5], [2.]])
    np.testing.assert_allclose(samplers.run(guidance.invert(world, grid, x, at="here")), wanted, rtol=1e-12)
    assert abs(samplers.run(guidance.invert(world, grid, x)) - wanted).max() > .1


def check_inversion_to_pure_noise(invert):
    """The exact flow of a Gaussian up to alpha = 0, at first order: the error halves with the step."""
    world, x = Gaussian([.3, -.2], [[1., .2], [.2, .5]]), np.array([[1., 2.], [-1., .5]])
    for options in (dict(iterations=50, tolerance=1e-12), dict(at="here")):
        errors = []
        for S in (50, 100, 200):
            grid = family_grids.uniform_time(families.Flow(), S, end=.02)
            got = samplers.run(invert(world, grid, x, **options))
            errors.append(abs(got - world.flow(x, grid.level(S), grid.level(0))).max())
        assert errors[0] < .09 and all(.45 < b / a < .55 for a, b in zip(errors, errors[1:])), errors


def test_inversion_to_a_level_without_signal_follows_the_flow():
    check_inversion_to_pure_noise(guidance.invert)


def test_inversion_to_a_level_without_signal_in_one_step_from_clean_data_is_refused():
    with pytest.raises(ValueError, match="a step up to alpha = 0, need eps .* sigma = 0"):
        next(guidance.invert(WORLD, family_grids.uniform_time(families.Flow(), 1), X))


def test_a_tail_keeps_the_family_that_solvers_evaluate_in():
    grid = grids.karras(10)
    assert guidance.tail(grid, 4).family is grid.family
    out = samplers.run(guidance.sdedit(samplers.dpmpp, WORLD, grid, X, .5, X, form="single"))
    assert np.isfinite(out).all()


def test_a_fixed_point_that_is_not_reached_is_reported():
    with pytest.raises(RuntimeError, match="still moves by .* after 2 iterations"):
        samplers.run(guidance.invert(LINE, circle(3, 1.5, .1), np.ones((1, 1)), iterations=2, tolerance=1e-12))


def test_inversion_evaluates_once_per_iteration_and_stops_within_the_tolerance():
    seen = []

    def watched(x, level):
        seen.append(level.t)
        return WORLD(x, level)

    x = Key(1).normal((3, 2))
    states = list(guidance.invert(watched, circle(5), x, iterations=2))
    assert len(seen) == 10 and [s.step for s in states] == list(range(5)) and states[-1].level == circle(5).level(0)
    seen.clear()
    samplers.run(guidance.invert(watched, circle(200), x, iterations=100, tolerance=1e-3))
    assert len(seen) < 1000


def test_slerp_goes_round_the_sphere_at_50_digits():
    check_slerp(guidance.slerp)


def test_linear_interpolation_is_a_weighted_mean_and_loses_variance():
    check_linear(guidance.linear)
    a, b = Key(1).normal((20000, 2)), Key(2).normal((20000, 2))
    for u in (.2, .5):
        expected = (1 - u) ** 2 + u ** 2
        assert abs(guidance.linear(a, b, u).var() - expected) < 5 * expected * math.sqrt(2 / 40000)


def test_slerp_keeps_the_length_of_rows_of_one_length():
    a, b = Key(1).normal((50, 7)), Key(2).normal((50, 7))
    a, b = (3 * v / np.sqrt((v * v).sum(1, keepdims=True)) for v in (a, b))
    for u in (.1, .5, .8):
        np.testing.assert_allclose(np.sqrt((guidance.slerp(a, b, u) ** 2).sum(1)), 3, rtol=1e-13)
    np.testing.assert_allclose(guidance.slerp(a, a, .3), a, rtol=1e-15)


def test_interpolating_latents_of_a_gaussian_interpolates_its_flow():
    """The flow is affine: linear in the latents is linear in the data, to the order of inversion and sampling."""
    x, y = np.array([[1., .2]]), np.array([[.1, -1.]])
    grid = circle(400, 1.5, .05)
    a, b = (samplers.run(guidance.invert(WORLD, grid, p, iterations=60, tolerance=1e-13)) for p in (x, y))
    between = samplers.run(samplers.ddim(WORLD, grid, guidance.linear(a, b, .3)))
    np.testing.assert_allclose(between, .7 * x + .3 * y, rtol=1e-11)


def test_dtype_is_kept_and_rows_do_not_mix():
    grid = circle(5, 1.4, .1)
    z = Key(2).normal((40, 4, 2))
    known = Key(3).normal((4, 2))
    for run in (lambda x, rows: guidance.inpaint(WORLD, grid, x, known[rows].astype(x.dtype), MASK, resamples=2,
                                                 noise=lambda step: z[step, rows].astype(x.dtype)),
                lambda x, rows: guidance.sdedit(samplers.ddim, WORLD, grid, known[rows].astype(x.dtype), .6, x),
                lambda x, rows: guidance.invert(WORLD, grid, x, iterations=2)):
        x = Key(1).normal((4, 2))
        whole, single = (samplers.run(run(x.astype(dtype), slice(None))) for dtype in (np.float64, np.float32))
        assert whole.dtype == np.float64 and single.dtype == np.float32
        np.testing.assert_allclose(single, whole, atol=1e-4)
        np.testing.assert_allclose(samplers.run(run(x[1:2], slice(1, 2))), whole[1:2], rtol=1e-11, atol=1e-12)


X = np.zeros((3, 2))


def paint(**options):
    options = {"x": X, "known": X, "mask": MASK, "noise": lambda step: X, **options}
    return next(guidance.inpaint(WORLD, circle(4), **options))


@pytest.mark.parametrize("make, message", [
    (lambda: paint(mask=np.ones(2)), "mask is float64, wanted booleans"),
    (lambda: paint(mask=np.ones(3, bool)), r"mask has shape \(3,\), which does not broadcast"),
    (lambda: paint(known=X[:1]), "known is float64"), (lambda: paint(eta=2.), "eta is 2.0"),
    (lambda: paint(known=X.astype(np.float32)), "known is float32"),
    (lambda: paint(noise=None), "3 steps draw noise and none was given"),
    (lambda: paint(resamples=0), "resamples is 0"), (lambda: paint(length=5), "an integer in 1..4"),
    (lambda: paint(length=4, resamples=2), "no walk back of 4 levels fits into the 4 steps"),
    (lambda: paint(resamples=2.), "resamples is 2.0"), (lambda: paint(length=True), "length is True"),
    (lambda: paint(noise=lambda step: X[:1]), r"inpaint: noise\(0\) is"),
    (lambda: guidance.sdedit(samplers.ddim, WORLD, circle(4), X, 0., X), "strength is 0.0"),
    (lambda: guidance.sdedit(samplers.ddim, WORLD, circle(4), X, 1.1, X), "strength is 1.1"),
    (lambda: guidance.sdedit(samplers.ddim, WORLD, circle(4), X, math.nan, X), "strength is nan"),
    (lambda: guidance.sdedit(samplers.ddim, WORLD, circle(4), X, .1, X), "rounds to none; wanted at least 0.125"),
    (lambda: guidance.sdedit(samplers.ddim, WORLD, circle(4), X, .5, X[:1]), "start is float64"),
    (lambda: guidance.sdedit(samplers.ddim, None, circle(4), X, .5, X, order=2), "sdedit: ddim: .*'order'"),
    (lambda: guidance.sdedit(samplers.heun, None, circle(4), X, "1", X), "strength is '1'"),
    (lambda: paint(mask=[True, False]), r"mask is \[True, False\], wanted booleans"),
    (lambda: paint(eta="x"), "eta is 'x'"), (lambda: paint(eta=None), "eta is None"),
    (lambda: paint(length=4, resamples=3), "no walk back"),
    (lambda: guidance.tail(circle(4), 5), "integer in 1..4"), (lambda: guidance.tail(circle(4), 0), "integer in 1..4"),
    (lambda: next(guidance.invert(WORLD, circle(4), X, iterations=0)), "iterations is 0"),
    (lambda: next(guidance.invert(WORLD, circle(4), X, at="both")), "at is 'both'"),
    (lambda: next(guidance.invert(WORLD, circle(4), X, at="here")), "sigma = 0"),
    (lambda: next(guidance.invert(WORLD, circle(4, last=.1), X, at="here", iterations=2)), "explicit"),
    (lambda: next(guidance.invert(WORLD, circle(4), X, tolerance=0.)), "tolerance is 0.0"),
    (lambda: next(guidance.invert(WORLD, circle(4), X.astype(int))), "x is int64"),
    (lambda: guidance.slerp(X + 1, -X - 1, .5), "opposite"), (lambda: guidance.slerp(X, X + 1, .5), "zeros"),
    (lambda: guidance.slerp(X + 1, X[:1] + 1, .5), "one shape"), (lambda: guidance.linear(X, X, math.inf), "u is inf")])
def test_illegal_combinations_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- planted mutants: one coefficient rewritten, and the check above must fail

MUTANTS = [
    (check_inpainting, edit, "inpaint", "there.alpha * known", "here.alpha * known"),
    (check_inpainting, edit, "inpaint", "there.sigma * z, free", "here.sigma * z, free"),
    (check_inpainting, edit, "inpaint", "there.sigma * z, free", "there.sigma ** 2 * z, free"),
    (check_inpainting, edit, "inpaint", "xp.where(mask,", "xp.where(~mask,"),
    (check_inpainting, edit, "inpaint", "+ std * z", "+ there.sigma * z"),
    (check_inpainting, edit, "inpaint", "on_x0 * prediction.x0 +", "prediction.x0 +"),
    (check_inpainting, edit, "inpaint", "+ on_eps * prediction.eps", "+ there.sigma * prediction.eps"),
    (check_inpainting, edit, "inpaint", "x = alpha_ts * x", "x = x"),
    (check_inpainting, edit, "inpaint", "var_ts ** 0.5 * z", "var_ts * z"),
    (check_inpainting, edit, "inpaint", "if step < last else", "if step <= last else"),
    (check_inpainting, edit, "inpaint", "if step < last else", "if step < last - 1 else"),
    (check_jumps, edit, "jumps", "resamples - 1 for", "resamples for"),
    (check_jumps, edit, "jumps", "range(1, steps - length + 1, length)", "range(0, steps - length + 1, length)"),
    (check_jumps, edit, "jumps", "range(1, steps - length + 1, length)", "range(1, steps - length, length)"),
    (check_jumps, edit, "jumps", "range(1, steps - length + 1, length)", "range(1, steps - length + 1)"),
    (check_jumps, edit, "jumps", "i -= length", "i -= 1"),
    (check_sdedit, edit, "sdedit", "q_sample(x0, start, rest.level(0))", "q_sample(x0, start, rest.level(1))"),
    (check_sdedit, edit, "sdedit", "first = len(grid) - steps", "first = max(len(grid) - steps - 1, 0)"),
    (check_inversion_of_a_constant_eps, inversion, "invert", "on_x * s.sigma", "s.sigma"),
    (check_inversion_of_a_constant_eps, inversion, "invert", "t.alpha / s.alpha", "s.alpha"),
    (check_inversion_of_a_constant_eps, inversion, "invert", "x = on_x * x + on_eps", "x = x + on_eps"),
    (check_inversion_of_a_constant_eps, inversion, "invert", "x = start + on_eps", "x = x + on_eps"),
    (check_inversion_follows_the_flow, inversion, "invert", "x = on_x * x + on_eps", "x = on_x * x + 1.01 * on_eps"),
    (check_inversion_to_pure_noise, inversion, "invert", "or t.alpha == 0:", "or False:"),
    (check_inversion_to_pure_noise, inversion, "invert", "x = on_x * x + on_eps", "x = on_x * x + 1.1 * on_eps"),
    (check_inversion_returns, inversion, "invert", "denoiser(x, t), x", "denoiser(x, s), x"),
    (check_inversion_returns, inversion, "invert", "denoiser(x, t), x", "denoiser(start, t), x"),
    (check_inversion_returns, inversion, "invert", "x = start + on_eps", "x = start + 1.01 * on_eps"),
    (check_slerp, inversion, "slerp", "(1 - u) * xp.sinc((1 - u)", "(1 - u) * xp.sinc(u"),
    (check_slerp, inversion, "slerp", "(u * xp.sinc(u * theta", "(xp.sinc(u * theta"),
    (check_slerp, inversion, "slerp", "theta = 2 * ", "theta = "),
    (check_slerp, inversion, "slerp", "p, q = a / size_a, b / size_b", "p, q = a, b"),
    (check_linear, inversion, "linear", "(1 - u) * a + u * b", "(1 - u) * a + (1 - u) * b"),
    (check_linear, inversion, "linear", "(1 - u) * a + u * b", "u * a + (1 - u) * b"),
]


@pytest.mark.parametrize("check, module, name, old, new", MUTANTS, ids=[f"{m[2]}-{i}" for i, m in enumerate(MUTANTS)])
def test_every_mutant_is_killed(check, module, name, old, new):
    wrong = getattr(planted.mutant(module.__name__.removeprefix("refdiff."), (old, new)), name)
    with pytest.raises(AssertionError):
        check(wrong)
