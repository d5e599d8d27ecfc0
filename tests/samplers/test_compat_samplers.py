"""compat= on samplers: each deviation does what it says, by formulas written here; none of it is the plain sampler."""
import inspect
import math
import re

import numpy as np
import pytest

from planted import mutant
from refdiff import samplers
from refdiff.process import grids, schedules
from refdiff.process.exact import Mixture
from refdiff.process.families import Flow, Interpolated
from refdiff.process.parameterization import Prediction
from refdiff.rng import Key
from refdiff.samplers import SAMPLERS, compat, compat_grids, run
from refdiff.samplers.compat import DEVIATIONS

WORLD = Mixture([.3, .7], [-1., .8], [.16, .25])
LINEAR = schedules.linear(1000)
X = 1.2 * Key(7).normal((9, 1))
TABLE = {name: (sampler, float(size)) for name, sampler, size in
         re.findall(r"^    (\w+) +(\w+) +([\d.e-]+)$", compat.__doc__, re.MULTILINE)}


def noise(i):
    return Key(11).fold("noise", i).normal(X.shape)


def own(S, rule="trailing", final="zero"):
    return grids.discrete(LINEAR, S, rule, final)


def world(x, level):
    """The perfect network, saying eps; told t = 0 it answers as at t = 1, whose level it takes x to be at."""
    if abs(level.alpha + level.sigma - 1) < 1e-15 and level.sigma > 0:                       # a flow
        return WORLD(x, level).to("velocity")
    if isinstance(level.t, int) and level.sigma > 0:
        level_told = LINEAR.level(max(level.t, 1))
        return Prediction("eps", WORLD(x, level_told).eps, x, level)
    return Prediction("eps", WORLD(x, level).eps, x, level)


BETWEEN = grids.on(Interpolated(LINEAR), [*np.geomspace(1000, 2, 20), 0])
EDM, NOISY = grids.karras(20, .05, 10.), grids.karras(21, .05, 10., final=None)
FEW = grids.karras(11, .05, 10., final=None)
FLOW = grids.on(Flow(3.), [*np.linspace(1, 1e-3, 20), 0])
STRAIGHT = grids.on(Flow(), [*np.linspace(.9, 1e-3, 20), 0])

# Where a deviation is tried, if not by its first sampler on 20 trailing times: sampler, grid, options.
TRIED = {
    "integer_stride": ("ddim", own(30, "leading"), {}), "leading_of_more": ("dpmpp", own(20, "leading"), {}),
    "final_abar_0": ("ddim", own(20), {}), "linspace_of_more": ("dpmpp", own(20, "linspace"), {}),
    "linspace_unrounded": ("euler", own(20, "linspace"), {}), "one_step_clean": ("ddim", own(1, "linspace"), {}),
    "shifted_twice": ("ddim", FLOW, {}), "float32_table": ("ddim", own(20), {}), "float32_state": ("ddim", own(20), {}),
    "stride_stepping": ("ddim", own(20, "linspace"), {}), "trailing_overshoot": ("ddim", own(61), {}),
    "last_level_twice": ("euler", NOISY, {}), "times_floored": ("dpmpp", BETWEEN, {}),
    "times_rounded": ("dpmpp", BETWEEN, {}), "last_step_noise": ("ddpm", own(20), {"variance": "large"}),
    "clipped": ("ddim", own(20), {}), "draws_every_step": ("ddim", own(20), {"eta": 1.}),
    "start_root": ("euler", EDM, {}), "halved_difference": ("dpmpp", own(20), {"order": 3}),
    "order_kept": ("dpmpp", FEW, {}), "order_lowered": ("deis", own(10), {}),
    "churn_euler": ("churn", EDM, {"S_churn": 4., "S_tmax": 8.}),
    "churn_stale": ("churn", EDM, {"S_churn": 4., "S_tmax": 8.}),
    "churn_on_flow": ("churn", STRAIGHT, {"S_churn": 2.}),
}


def tried(name):
    return TRIED.get(name) or (next(iter(DEVIATIONS[name].by)), own(20), {})


def states(sampler, grid, options, names=(), ask=world):
    given = {"noise": noise} if "noise" in inspect.signature(SAMPLERS[sampler]).parameters else {}
    level = grid.level(0)
    x = X * math.hypot(level.alpha, level.sigma)
    return list(SAMPLERS[sampler](ask, grid, x, compat=names, **options, **given))


def end(*asked, **options):
    return states(*asked, **options)[-1].x


def rms(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


def test_the_table_names_every_deviation_once():
    assert set(TABLE) == set(DEVIATIONS) and compat.__doc__.count("\n    draws_every_step") == 1


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_costs_what_the_table_says(name):
    sampler, grid, options = tried(name)
    assert sampler in DEVIATIONS[name].by
    size = rms(end(sampler, grid, options, (name,)), end(sampler, grid, options))
    assert TABLE[name] == (sampler, pytest.approx(size, rel=.06, abs=1e-12)), (name, sampler, f"{size:.2g}")


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_without_names_it_is_the_plain_sampler_to_the_bit(name):
    bare = inspect.unwrap(SAMPLERS[name])
    given = {"noise": noise} if "noise" in inspect.signature(bare).parameters else {}
    where = ([10., 1.], ) if name == "consistency" else (own(8),)
    ask = (lambda x, sigma: .1 * x) if name == "consistency" else world
    one, two, three = (list(f(ask, *where, X, **given, **more)) for f, more in (
        (bare, {}), (SAMPLERS[name], {}), (SAMPLERS[name], {"compat": ()})))
    assert len(one) == len(two) == len(three)
    for a, b, c in zip(one, two, three):
        assert np.array_equal(a.x, b.x) and np.array_equal(a.x, c.x) and a.level == c.level


def test_signatures_and_docstrings_are_kept():
    assert str(inspect.signature(samplers.ddim)) == "(denoiser, grid, x, eta=0.0, noise=None, *, compat=())"
    assert all(f.__doc__ == inspect.unwrap(f).__doc__ and f.__name__ == name for name, f in SAMPLERS.items())
    assert all(getattr(samplers, name) is f for name, f in SAMPLERS.items())


@pytest.mark.parametrize("wrong", ["nosuch", "churn_euler", "last_step_noise"])
def test_another_name_is_refused_with_those_of_the_sampler(wrong):
    with pytest.raises(ValueError, match=f"ddim: compat: no deviation '{wrong}' of it, wanted some of float32") as e:
        samplers.ddim(world, own(5), X, compat=(wrong,))
    assert all(name in str(e.value) for name in compat.names("ddim")) and "churn_stale" not in str(e.value)


@pytest.mark.parametrize("wrong", ["stride_stepping", None, 3, {"stride_stepping": 1}])
def test_compat_is_a_tuple_of_names(wrong):
    with pytest.raises(ValueError, match="compat is .*, wanted a tuple of names"):
        samplers.ddim(world, own(5), X, compat=wrong)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_runs_with_every_sampler_that_has_it(name):
    """Or is refused there by name; and nothing is mutated: a second run gives the same bits."""
    _, grid, _ = tried(name)
    for sampler in DEVIATIONS[name].by:
        if sampler == "consistency":
            continue
        options = {"S_churn": 2., "S_tmax": 5.} if sampler == "churn" else {}
        options |= {"order": 3} if name == "halved_difference" else {}
        if name == "float32_table":                     # its levels are not the family's, which times would need
            options |= {"plms": {"start": "lower"}, "deis": {"variable": "lambda"}}.get(sampler, {})
        if sampler in ("heun", "euler") and name == "shifted_twice":
            grid = grids.on(Flow(3.), [.99, .5, .1, 0])
        one, two = (end(sampler, grid, options, (name,)) for _ in range(2))
        assert np.isfinite(one).all() and np.array_equal(one, two), sampler


@pytest.mark.parametrize("sampler, rule, names, options", [
    ("sde_dpmpp", "leading", ("third_order_sign", "leading_of_more", "float32_table"), {}),
    ("ddim", "linspace", ("stride_stepping", "times_floored", "final_abar_0", "clipped", "float32_state"), {"eta": .5}),
    ("plms", "leading", ("improved_euler_start", "times_rounded", "float32_state", "integer_stride"), {}),
    ("ddpm", "trailing", ("last_step_noise", "float32_state", "clipped"), {"variance": "large"}),
    ("churn", "trailing", ("churn_stale", "draws_every_step", "float32_table"), {"S_churn": 3., "S_tmax": 5.})])
def test_the_order_of_the_names_does_not_matter_and_each_has_its_effect(sampler, rule, names, options):
    grid = own(13, rule)
    whole = end(sampler, grid, options, names)
    assert np.array_equal(whole, end(sampler, grid, options, names[::-1]))
    for name in set(names) - {"draws_every_step", "times_floored", "times_rounded"}:        # these times are integers
        rest = tuple(other for other in names if other != name)
        assert not np.array_equal(whole, end(sampler, grid, options, rest)), name


@pytest.mark.parametrize("sampler, names", [
    ("ddim", ("stride_stepping", "trailing_overshoot")), ("churn", ("churn_stale", "churn_euler")),
    ("ddim", ("clipped", "clipped")), ("sde_dpmpp", ("third_order", "third_order_sign"))])
def test_two_that_take_the_same_place_are_refused(sampler, names):
    with pytest.raises(ValueError, match=f"{sampler}: compat is {', '.join(names)}, of which one would take"):
        SAMPLERS[sampler](world, own(5), X, compat=names)


def test_any_pair_is_finite_or_refused_by_name():
    """Every sampler, deviations two by two, on grids of schedules and families; a refusal names compat or a grid."""
    made = [own(S, rule, final) for S in (1, 2, 13) for rule in ("leading", "trailing", "linspace")
            for final in ("zero", "first" if rule == "trailing" else "none")] + [EDM, FEW, FLOW, STRAIGHT, BETWEEN]
    made += [grids.discrete(schedules.zero_terminal_snr(LINEAR), 5, rule) for rule in ("trailing", "linspace")]
    drawn, finite = np.random.default_rng(0), 0
    for sampler in sorted(set(SAMPLERS) - {"consistency", "adaptive"}):
        known = compat.names(sampler)
        for _ in range(25):
            chosen = tuple(dict.fromkeys(known[i] for i in drawn.integers(0, len(known), 2)))
            options = {"S_churn": 3., "S_tmax": 1.} if sampler == "churn" and drawn.random() < .7 else {}
            try:
                got = states(sampler, made[drawn.integers(len(made))], options, chosen)
            except (ValueError, FloatingPointError) as refusal:
                known_by = r"compat|grid|family|interpolated|(eps|x0|score) cannot|" + sampler
                assert re.match(known_by, str(refusal)), refusal
                continue
            finite += 1
            assert all(np.isfinite(state.x).all() for state in got)
    assert finite > 180, finite


# ---- grids

@pytest.mark.parametrize("name, grid, same", [
    ("final_abar_0", own(20), own(20, final="first")), ("final_abar_0", own(7, "leading"), own(7, "leading", "none")),
    ("integer_stride", own(30, "leading"), own(30, "stride")), ("one_step_clean", own(1), own(1, "leading")),
    ("one_step_clean", own(9), own(9))])
def test_grids_that_have_another_name_here(name, grid, same):
    got = getattr(compat_grids, name)(grid)
    if (name, len(grid)) == ("final_abar_0", 7):
        assert got.t.tolist() == grid.t[:-1].tolist() and len(got) == len(grid) - 1
        return
    assert got.t.tolist() == same.t.tolist()
    np.testing.assert_array_equal(got.sigma, same.sigma)
    np.testing.assert_array_equal(got.alpha, same.alpha)


def test_times_of_more_steps_leave_the_cleanest_out():
    assert compat_grids.leading_of_more(own(10)).t.tolist() == [901, 811, 721, 631, 541, 451, 361, 271, 181, 91, 0]
    assert compat_grids.linspace_of_more(own(10)).t[[0, 1, -2]].tolist() == [1000, 900, 101]


def test_times_between_have_a_straight_ratio():
    grid = compat_grids.linspace_unrounded(own(9, "linspace"))
    assert grid.t[1] == 875.125
    low, high = (LINEAR.level(t).ratio for t in (875, 876))
    assert grid.level(1).ratio == pytest.approx(low + .125 * (high - low), rel=1e-13)
    assert np.allclose(grid.alpha ** 2 + grid.sigma ** 2, 1)


def test_tables_in_float32_have_four_digits_of_the_noise_left():
    grid = compat_grids.float32_table(own(1000))
    off = np.abs(grid.sigma[:-1] / own(1000).sigma[:-1] - 1)
    assert 1e-5 < off[-1] < 1e-3 and off[:500].max() < 1e-6                 # 1 - abar_1 = 1e-4, of eps 6e-8
    product = np.float32(1)
    for beta in LINEAR.beta:
        product = product * (np.float32(1) - np.float32(beta))
    assert grid.alpha[0] == np.sqrt(product) and product.dtype == np.float32
    sigma = grids.karras(18)
    assert np.array_equal(compat_grids.float32_table(sigma).sigma, sigma.sigma.astype(np.float32).astype(float))


# ---- steps, by hand

def told_eps(x, t):
    return WORLD(x, LINEAR.level(max(t, 1))).eps


def by_hand(times, ends, starts=None):
    """DDIM told times[i], from the level starts[i] to ends[i], 0 being clean."""
    x = X
    for t, s, level in zip(times, ends, starts or times):
        at, to = LINEAR.level(level), LINEAR.level(s)
        eps = told_eps(x, t)
        x = to.alpha * (x - at.sigma * eps) / at.alpha + to.sigma * eps
    return x


def test_strides_end_where_no_step_starts():
    times = own(20, "linspace").t[:-1].tolist()
    assert times[1] == 947
    got = end("ddim", own(20, "linspace"), {}, ("stride_stepping",))
    np.testing.assert_allclose(got, by_hand(times, [max(t - 50, 0) for t in times]), rtol=0, atol=1e-13)
    for S in (10, 20, 50):                                  # trailing, with a stride that divides T: nothing changes
        assert np.array_equal(end("ddim", own(S), {}, ("stride_stepping",)), end("ddim", own(S), {}))


def test_the_time_too_many_starts_from_the_noisiest_level():
    times = own(61).t[:-1].tolist()
    got = end("ddim", own(61), {}, ("trailing_overshoot",))
    want = by_hand([*times, 0], [max(t - 16, 0) for t in times] + [0], [*times, 1000])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=0)
    assert len(states("ddim", own(61), {}, ("trailing_overshoot",))) == 62
    assert len(states("ddim", own(60), {}, ("trailing_overshoot",))) == 60
    assert compat_grids.extra_time(own(61)).t[-3:].tolist() == [16, 0, 0]


def test_of_the_numbers_of_steps_up_to_1000_the_reports_62_overshoot():
    class Steps:
        family, rule = Interpolated(LINEAR), ""

        def __init__(self, S):
            self.S = S

        def __len__(self):
            return self.S
    found = [S for S in range(2, 1001) if compat_grids.overshoots(Steps(S))]
    assert len(found) == 62 and found[:5] == [61, 103, 121, 122, 201] and found[-1] == 998


def test_draws_keep_their_steps_where_strides_are_run_one_by_one():
    asked = []

    def counted(i):
        asked.append(i)
        return noise(i)
    run(samplers.ddim(world, own(30), X, eta=1., noise=counted, compat=("stride_stepping",)))
    assert asked == list(range(29))


def test_pndm_begins_with_improved_euler():
    """From t_0 with the mean of eps there and at t_1; then (3 e_1 - e_0)/2 with e_1 at the mended x."""
    grid = own(2, "leading")

    def step(x, e, t, s):
        at, to = LINEAR.level(t), LINEAR.level(s)
        return to.alpha * (x - at.sigma * e) / at.alpha + to.sigma * e
    e0 = told_eps(X, 501)
    mended = step(X, (e0 + told_eps(step(X, e0, 501, 1), 1)) / 2, 501, 1)
    want = step(mended, (3 * told_eps(mended, 1) - e0) / 2, 1, 0)
    np.testing.assert_allclose(end("plms", grid, {}, ("improved_euler_start",)), want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name, rounding", [("times_floored", np.floor), ("times_rounded", np.rint)])
def test_the_network_is_told_integers_and_read_at_the_level(name, rounding):
    told = []

    def asked(x, level):
        told.append(level.t)
        return world(x, level)
    visited = states("dpmpp", BETWEEN, {}, (name,), ask=asked)
    assert told == rounding(BETWEEN.t[:-1]).tolist()
    assert [s.prediction.level for s in visited] == [BETWEEN.level(i) for i in range(20)]


def test_clipping_keeps_x_in_range_and_eps_or_not():
    for name in ("clipped", "clipped_eps_kept"):
        assert np.abs(end("ddim", own(20), {}, (name,))).max() == 1.0
    level = LINEAR.level(50)
    for name in ("clipped", "clipped_eps_kept"):
        *_, before, last = states("ddim", own(20), {}, (name,))
        said = WORLD(before.x, level)
        x0 = np.clip(said.x0, -1, 1)
        assert rms(x0, said.x0) > .01
        np.testing.assert_allclose(last.prediction.x0, x0, rtol=0, atol=1e-13)
        eps = said.eps if name == "clipped_eps_kept" else (before.x - level.alpha * x0) / level.sigma
        np.testing.assert_allclose(last.prediction.eps, eps, rtol=0, atol=1e-11)


# ---- noise and states

@pytest.mark.parametrize("variance, std", [("small", 1e-10), ("large", None)])
def test_the_last_draw_is_added_as_in_every_step(variance, std):
    grid, last = own(20), LINEAR.level(50)
    got, without = (end("ddpm", grid, {"variance": variance}, names) for names in (("last_step_noise",), ()))
    np.testing.assert_allclose(got - without, (std or last.sigma) * noise(19), rtol=0, atol=1e-15)


def test_the_last_draw_is_as_large_as_the_report_says():
    for S, std in ((10, .321), (20, .170), (50, .076)):
        noisy, without = (end("ddpm", own(S), {"variance": "large"}, names) for names in (("last_step_noise",), ()))
        assert np.median(np.abs((noisy - without) / noise(S - 1))) == pytest.approx(std, abs=6e-4)


@pytest.mark.parametrize("sampler, options, drawn", [
    ("ddim", {"eta": .5}, 20), ("ddim", {}, 0), ("sde_dpmpp", {}, 20), ("sde_dpmpp", {"tau": 0.}, 0),
    ("euler_ancestral", {}, 20), ("churn", {"S_churn": 5., "S_tmax": 1.}, 20)])
def test_draws_are_made_in_every_step_and_change_nothing(sampler, options, drawn):
    asked = []

    def counted(i):
        asked.append(i)
        return noise(i)
    got = run(SAMPLERS[sampler](world, own(20), X, **options, noise=counted, compat=("draws_every_step",)))
    assert asked == list(range(drawn))
    np.testing.assert_array_equal(got, run(SAMPLERS[sampler](world, own(20), X, **options, noise=noise)))


def test_noising_anew_is_x0_and_a_draw():
    grid = own(5)
    first, *_, before, last = states("ddim", grid, {}, ("renoised",))
    x0 = WORLD(X, grid.level(0)).x0
    np.testing.assert_allclose(first.x, grid.alpha[1] * x0 + grid.sigma[1] * noise(0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(last.x, WORLD(before.x, grid.level(4)).x0, rtol=0, atol=1e-12)


def test_states_in_float32_are_float32_and_near():
    churning = {"S_churn": 2., "S_tmax": 1.}
    for sampler, options in (("ddim", {}), ("ddpm", {}), ("dpmpp", {"order": 3}), ("churn", churning)):
        got = states(sampler, own(20), options, ("float32_state",))
        assert {s.x.dtype for s in got} == {np.dtype(np.float32)}
        assert 0 < rms(got[-1].x, end(sampler, own(20), options)) < 1e-5


def test_starts_are_multiplied_by_what_they_say():
    seen = []

    def asked(x, level):
        seen.append(x)
        return world(x, level)
    run(samplers.euler(asked, own(5, "leading"), X, compat=("start_sigma_max",)))
    np.testing.assert_allclose(seen[0], LINEAR.level(801).sigma * X, rtol=1e-14)
    seen.clear()
    run(samplers.euler(asked, EDM, 10 * X, compat=("start_root",)))
    np.testing.assert_allclose(seen[0], 101 ** .5 * X, rtol=1e-14)
    for name, grid in (("start_sigma_max", EDM), ("start_root", own(5))):
        with pytest.raises(ValueError, match=f"compat: {name} is of levels with"):
            samplers.euler(world, grid, X, compat=(name,))


# ---- rules

def parabola(x, level):
    """x0hat = lambda^2, whatever x."""
    return Prediction("x0", x * 0 + level.lam ** 2, x, level)


def test_the_third_orders_differ_by_one_second_difference():
    """On x0hat = lambda^2 the divided difference is 1: k phi_3(-k) h^2 is had, twice that exact, that - h^2 wrong."""
    family = Interpolated(LINEAR)
    grid = grids.on(family, [900, 700, 500, 300])
    asked = {"noise": lambda i: np.zeros_like(X), "end": "noise"}
    three = [run(samplers.sde_dpmpp(parabola, grid, X, compat=names, **asked)) for names in (
        ("third_order",), ("third_order_sign",))]
    t, s = grid.level(2), grid.level(3)
    h = s.lam - t.lam
    np.testing.assert_allclose(three[0] - three[1], s.alpha * h ** 2, rtol=1e-11)
    before = run(samplers.sde_dpmpp(parabola, grids.on(family, [900, 700, 500]), X, **asked))
    u, w = np.polynomial.legendre.leggauss(20)
    lam = t.lam + h * (1 + u) / 2                                  # the reverse SDE's mean, exactly
    mean = s.alpha * h * (w * np.exp(-2 * (s.lam - lam)) * lam ** 2).sum()
    exact = s.sigma / t.sigma * math.exp(-h) * before + mean
    k = 2 * h
    half = s.alpha * h ** 2 * ((1 - math.exp(-k) - k) / k ** 2 + .5)
    np.testing.assert_allclose(three[0], exact - half, rtol=1e-10)


def test_options_by_another_name():
    for name, sampler, grid, options, same in (
            ("halved_difference", "dpmpp", own(20), {"order": 3}, {"order": 3, "rule": "truncated"}),
            ("order_kept", "dpmpp", FEW, {}, {"lower_order_final": "never"}),
            ("order_lowered", "deis", own(10), {}, {"lower_order_final": "always"}),
            ("order_lowered", "deis", own(15), {}, {"lower_order_final": "never"})):
        assert np.array_equal(end(sampler, grid, options, (name,)), end(sampler, grid, same))


def churned(before):
    """Churn then Euler on EDM's grid, by hand; the network asked before the noise, or after it."""
    x, S = X * math.hypot(1, 10), len(EDM)
    for i, (t, s) in enumerate(zip(EDM.sigma.tolist(), EDM.sigma[1:].tolist())):
        gamma = 4 / S if t <= 8 else 0
        hat = t * (1 + gamma)
        asked = x
        x = x + (hat ** 2 - t ** 2) ** .5 * noise(i)
        at = grids.Level(t if before else hat, 1., t if before else hat)
        x = x + (s - hat) * world(asked if before else x, at).eps
    return x


@pytest.mark.parametrize("name", ["churn_euler", "churn_stale"])
def test_churn_with_eulers_step_by_hand(name):
    sampler, grid, options = TRIED[name]
    got = end(sampler, grid, options, (name,))
    np.testing.assert_allclose(got, churned(name == "churn_stale"), rtol=0, atol=1e-11)


@pytest.mark.parametrize("S_churn", [0., 2.])
def test_churn_on_flows_by_hand(S_churn):
    """x0 is read at sigma and the slope divided by sigmahat; without churn it is Heun's method."""
    got = end("churn", STRAIGHT, {"S_churn": S_churn}, ("churn_on_flow",))
    x = X * math.hypot(.1, .9)
    for i, (t, s) in enumerate(zip(STRAIGHT.t.tolist(), STRAIGHT.t[1:].tolist())):
        v, hat = WORLD(x, grids.Level(t, 1 - t, t)).velocity, t * (1 + S_churn / 39)
        x = x + (hat ** 2 - t ** 2) ** .5 * noise(i)
        slope = (x - (x - t * v)) / hat
        euler = x + (s - hat) * slope
        x = x + (s - hat) * (slope + WORLD(euler, grids.Level(s, 1 - s, s)).velocity) / 2 if s > 0 else euler
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-12)


# ---- planted mistakes, each found by one of the tests above

STRIDES, DRAWS = test_strides_end_where_no_step_starts, test_draws_are_made_in_every_step_and_change_nothing
MUTANTS = [
    ("grids", "schedule_of(\"final_abar_0\", grid).level(1)", "schedule_of(\"final_abar_0\", grid).level(2)",
     lambda: test_grids_that_have_another_name_here("final_abar_0", own(20), own(20, final="first"))),
    ("grids", "schedule_of(\"integer_stride\", grid).T // S", "schedule_of(\"integer_stride\", grid).T // (S + 1)",
     lambda: test_grids_that_have_another_name_here("integer_stride", own(30, "leading"), own(30, "stride"))),
    ("grids", ".T // (S + 1)", ".T // S", test_times_of_more_steps_leave_the_cleanest_out),
    ("grids", "np.linspace(0, T - 1, S + 1)", "np.linspace(0, T - 1, S + 2)",
     test_times_of_more_steps_leave_the_cleanest_out),
    ("grids", "schedule.level(index).ratio", "schedule.level(index).sigma", test_times_between_have_a_straight_ratio),
    ("grids", "t = 1 + np.linspace", "t = np.linspace", test_times_between_have_a_straight_ratio),
    ("grids", "_visiting(\"one_step_clean\", grid, [1])", "_visiting(\"one_step_clean\", grid, [2])",
     lambda: test_grids_that_have_another_name_here("one_step_clean", own(1), own(1, "leading"))),
    ("grids", "np.arange(T, 0, -T / S)", "np.arange(T, 1e-6, -T / S)",
     test_of_the_numbers_of_steps_up_to_1000_the_reports_62_overshoot),
    ("grids", "dtype=np.float32)[", "dtype=np.float64)[",
     test_tables_in_float32_have_four_digits_of_the_noise_left),
    ("steps", "int(t.t) - h)", "int(t.t) - h - 1)", STRIDES),
    ("steps", "if t.t > h else", "if t.t > h + 40 else", STRIDES),
    ("steps", "    h = stride(grid)", "    h = stride(grid) + 1", STRIDES),
    ("steps", "schedule.level(schedule.T)", "schedule.level(1)",
     test_the_time_too_many_starts_from_the_noisiest_level),
    ("steps", "lambda _, i=i: noise(i)\n                state", "lambda _, i=i: noise(0)\n                state",
     test_draws_keep_their_steps_where_strides_are_run_one_by_one),
    ("steps", "(e[0] + e2) / 2", "(e[0] + 2 * e2) / 3", test_pndm_begins_with_improved_euler),
    ("steps", "        earlier = e\n", "        earlier = e if i else []\n", test_pndm_begins_with_improved_euler),
    ("steps", "reread(denoiser(x, schedule.level(t)), x, level)", "denoiser(x, schedule.level(t))",
     lambda: test_the_network_is_told_integers_and_read_at_the_level("times_floored", np.floor)),
    ("steps", ", 1e-20) ** 0.5", ", 0.0) ** 0.5",
     lambda: test_the_last_draw_is_added_as_in_every_step("small", 1e-10)),
    ("steps", "grid.level(last + 1), grid.level(last))", "grid.level(last), grid.level(last - 1))",
     lambda: test_the_last_draw_is_added_as_in_every_step("large", None)),
    ("steps", "options.get(option, default) > 0", "options.get(option, 1.0) > 0", lambda: DRAWS("ddim", {}, 0)),
    ("steps", "alpha * prediction.x0 + sigma * draw", "prediction.x0 + sigma * draw",
     test_noising_anew_is_x0_and_a_draw),
    ("steps", "x.astype(\"float32\") if", "x if", test_states_in_float32_are_float32_and_near),
    ("steps", "math.hypot(1, level.sigma) / level.sigma", "math.hypot(1, level.sigma)",
     test_starts_are_multiplied_by_what_they_say),
    ("rules", "k * phi(3, -k) + shift", "2 * k * phi(3, -k) + shift",
     test_the_third_orders_differ_by_one_second_difference),
    ("rules", "(d1 + (t.lam - at) * rest)", "d1", test_the_third_orders_differ_by_one_second_difference),
    ("rules", "rest = (d1 - h * (one - two) / (at - first))", "rest = (d1 - h * (one - two) / (t.lam - first))",
     test_the_third_orders_differ_by_one_second_difference),
    ("rules", "k = before[0], (1 + tau) * h", "k = before[0], h",
     test_the_third_orders_differ_by_one_second_difference),
    ("rules", "len(grid) < 15", "len(grid) < 16", test_options_by_another_name),
    ("rules",
     "said.pop().eps", "denoiser(x, said.pop().level).eps", lambda: test_churn_with_eulers_step_by_hand("churn_euler")),
    ("rules", "S_churn=S_churn / len(grid)", "S_churn=S_churn",
     lambda: test_churn_with_eulers_step_by_hand("churn_stale")),
    ("rules", "reread(prediction, y, level), own", "denoiser(y, level), own",
     lambda: test_churn_with_eulers_step_by_hand("churn_stale")),
    ("rules", "0.5 * d_cur + 0.5 * denoiser", "0.4 * d_cur + 0.6 * denoiser",
     lambda: test_churn_on_flows_by_hand(0.)),
    ("rules", "min(S_churn / (2 * S - 1)", "min(S_churn / S",
     lambda: test_churn_on_flows_by_hand(2.)),
    ("rules", "prediction.velocity * (t.sigma / hat)", "prediction.velocity",
     lambda: test_churn_on_flows_by_hand(2.)),
]


@pytest.mark.parametrize("module, old, new, check", MUTANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_mistake_is_found(module, old, new, check, monkeypatch):
    check()
    made = mutant(f"samplers.compat_{module}", (old, new))
    monkeypatch.setattr(samplers, f"compat_{module}", made)
    monkeypatch.setattr(compat, "DEVIATIONS", mutant("samplers.compat").DEVIATIONS)
    if module == "grids":
        monkeypatch.setitem(globals(), "compat_grids", made)
    with pytest.raises((AssertionError, ValueError)):
        check()
