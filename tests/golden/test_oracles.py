"""The oracles: refdiff's own samplers pass, and each oracle finds the fault that it is there for."""
import math
from dataclasses import replace

import numpy as np
import pytest

from refdiff import samplers
from refdiff.golden import oracles
from refdiff.golden.settings import DEFAULTS, Network, Setting, settings_of
from refdiff.process.grids import Grid
from refdiff.process.parameterization import Prediction
from refdiff.process.schedules import SCHEDULES
from refdiff.samplers.orders import LINE

DDIM = Setting("ddim", options={"eta": 0.0})
RANDOM = Setting("ddim", options={"eta": 0.6})
DDPM = Setting("ddpm")
KARRAS = Setting("heun", "edm", None, "karras")


class Ours:
    """refdiff's samplers as an adapter; a fault may be put around what they are handed and what they return."""

    name = "ours"

    def __init__(self, network=lambda d: d, noise=lambda n: n, before=lambda x: x, after=lambda x: x, change=None,
                 kind="eps"):
        self.network, self.noise, self.before, self.after = network, noise, before, after
        self.change, self.prediction = change, kind

    def trajectory(self, sampler, schedule, T, steps, rule, final, x, denoiser, noise, **options):
        setting = Setting(sampler, schedule, T, rule, final, options)
        setting = self.change(setting) if self.change else setting
        told, draw = self.network(denoiser), self.noise(noise)

        def world(y, level):
            return Prediction(self.prediction, told(y, level.t), y, level)
        return [self.after(state) for state in setting.ours(world, setting.grid(steps), self.before(x), draw)]


def judge(name, setting=DDIM, **faults):
    return oracles.judge(name, Ours(**faults), setting, "ours.py")


@pytest.mark.parametrize("setting", [DDIM, RANDOM, DDPM, KARRAS, DEFAULTS[-1]], ids=lambda s: s.id)
def test_published_samplers_pass_every_oracle_that_applies(setting):
    found = {name: judge(name, setting) for name in oracles.ORACLES if oracles.applies(name, setting)}
    assert {f.status for f in found.values()} == {"pass"}, [(n, f.cause) for n, f in found.items()]
    assert ("law" in found) == (setting in (RANDOM, DDPM)) and ("order" in found) != ("law" in found)


def test_v_and_x0_networks_are_as_good_as_eps():
    for kind in ("v", "x0"):
        for name in ("flow", "network", "dtype"):
            assert judge(name, kind=kind).status == "pass"


def test_the_order_oracle_sees_a_lower_order_and_an_error_that_stays():
    euler = judge("order", KARRAS, change=lambda s: replace(s, sampler="euler"))
    assert euler.status == "fail" and "order 0.9" in euler.cause and "2.0" in euler.cause
    stays = judge("order", after=lambda x: x + 0.02)
    assert stays.status == "fail" and "stops falling" in stays.cause


def test_a_lower_order_that_is_more_accurate_in_few_steps_is_said_to_be():
    class Few(Ours):
        def trajectory(self, *, steps, x, **rest):
            made = super().trajectory(steps=steps, x=x, **rest)
            grid = Setting("heun", "edm", None, "karras", "none").grid(steps)
            exact = LINE.quantile_map(x, grid.level(0), grid.level(len(grid)))
            return [*made[:-1], exact + 0.002]
    found = oracles.judge("order", Few(), KARRAS)
    assert found.status == "fail" and "at N = 16 it is the more accurate one, 2.0e-03 against" in found.cause


def test_a_higher_order_and_a_lower_error_are_no_failure():
    assert judge("order", Setting("euler", "edm", None, "karras"),
                 change=lambda s: replace(s, sampler="heun")).status == "pass"


def test_the_flow_oracle_sees_what_is_farther_from_the_flow():
    found = judge("flow", after=lambda x: x * 1.2)
    assert found.status == "fail" and found.evidence["error"] > 1.5 * found.evidence["expected_error"]
    assert len(found.evidence["errors_by_step"]) == 20


def test_the_law_oracle_sees_noise_that_is_too_large_and_noise_that_is_missing():
    louder = judge("law", RANDOM, noise=lambda n: lambda i: 1.01 * n(i))
    assert louder.status == "fail" and "1.01 times" in louder.cause
    silent = judge("law", RANDOM, noise=lambda n: lambda i: 0 * n(i))
    assert "no draw reaches the output" in silent.cause
    assert judge("law", DDPM, noise=lambda n: lambda i: -n(i)).status == "pass"       # a sign is no other law


def test_the_law_oracle_sees_noise_after_the_last_step():
    class Late(Ours):
        def trajectory(self, *, noise, steps, x, **rest):
            made = super().trajectory(noise=noise, steps=steps, x=x, **rest)
            return [*made[:-1], made[-1] + 0.1 * noise(steps - 1)]
    assert "last step adds noise, with standard deviation 0.1" in oracles.judge("law", Late(), DDPM).cause
    found = oracles.judge("noise", Late(), DDPM)
    assert found.status == "fail" and "after the last step (7)" in found.cause


def test_the_noise_oracle_sees_repeated_skipped_and_needless_draws():
    assert "[0] are used more than once" in judge("noise", DDPM, noise=lambda n: lambda i: n(0)).cause
    assert "draws [0] are never made" in judge("noise", DDPM, noise=lambda n: lambda i: n(max(i, 1))).cause
    assert "another order" in judge("noise", DDPM, noise=lambda n: lambda i: n(6 - i)).cause

    class Needless(Ours):
        def trajectory(self, *, noise, **rest):
            noise(0)
            return super().trajectory(noise=noise, **rest)
    found = oracles.judge("noise", Needless(), DDIM)
    assert found.status == "convention" and "draws [0] are made, which no step uses, and have no effect" in found.cause


@pytest.mark.parametrize("faults, says", [
    ({"network": lambda d: lambda x, t: d(x, t - 1)}, "told t-1 for t"),
    ({"network": lambda d: lambda x, t: d(x, t * 0.999)}, "told 0.999 t for t"),
    ({"change": lambda s: replace(s, rule="leading")}, "times of spacing=leading"),
    ({"before": lambda x: 1.1 * x}, "1.1 times what was due, the initial scale"),
    ({"network": lambda d: lambda x, t: d(x, t) * (1.01 if t < 300 else 1)}, "the step before departs"),
    ({"network": lambda d: lambda x, t: (d(x, t), d(x, t))[0]}, "called 16 times, wanted 8")])
def test_the_network_oracle_says_what_the_network_is_called_with(faults, says):
    found = judge("network", **faults)
    assert found.status == "fail" and says in found.cause, found.cause


class Between(Ours):
    """Visits the times S of S + 1 leading ones, as some do, where leading's own are asked for."""

    def trajectory(self, sampler, schedule, T, steps, rule, final, x, denoiser, noise, **options):
        table = SCHEDULES[schedule](T)
        t = np.array([*(np.arange(steps, 0, -1) * (T // (steps + 1)) + 1), 0])
        levels = [table.level(int(i)) for i in t]
        grid = Grid(t, [v.alpha for v in levels], [v.sigma for v in levels], "own")

        def world(y, level):
            return Prediction("eps", denoiser(y, level.t), y, level)
        return [state.x for state in samplers.SAMPLERS[sampler](world, grid, x, **options)]


def test_a_solver_on_levels_of_its_own_is_judged_there_and_its_levels_are_a_convention():
    setting = Setting("dpmpp", rule="leading", options={"order": 2})
    found = {name: oracles.judge(name, Between(), setting) for name in ("order", "flow", "network")}
    assert (found["order"].status, found["flow"].status) == ("pass", "pass"), found["order"].cause
    assert "on the levels that it visits" in found["order"].cause
    assert found["network"].status == "convention" and found["network"].digits > 9
    assert "on levels of its own: call 0 of the network is at t = 889, wanted 876" in found["network"].cause


def test_a_wrong_solver_on_levels_of_its_own_fails_there_too():
    class Wrong(Between):
        def trajectory(self, **inputs):
            return [x * 1.01 for x in super().trajectory(**inputs)]
    setting = Setting("dpmpp", rule="leading", options={"order": 2})
    assert {oracles.judge(name, Wrong(), setting).status for name in ("order", "network")} == {"fail"}


def test_a_solvers_rule_is_another_than_the_grids():
    setting = Setting.of({"sampler": "dpmpp", "order": 3, "solver_rule": "truncated", "rule": "trailing"})
    assert judge("network", setting).status == "pass" and setting.rule == "trailing"
    exact = replace(setting, options={"order": 3, "solver_rule": "exact"})
    assert oracles.judge("network", Ours(change=lambda s: exact), setting).status == "fail"


def test_float32_alone_has_the_law_of_float32():
    def single(x):
        return x.astype(np.float32)
    assert judge("law", RANDOM, after=single).status == "pass"
    rough = judge("law", RANDOM, after=lambda x: single(x).astype(np.float64))
    assert rough.status == "fail" and "something on the way is in float32" in rough.cause


def test_a_last_draw_that_changes_nothing_to_speak_of_is_a_convention():
    class Clamped(Ours):
        def trajectory(self, *, noise, steps, x, **rest):
            made = super().trajectory(noise=noise, steps=steps, x=x, **rest)
            return [*made[:-1], made[-1] + 1e-10 * noise(steps - 1)]
    found = oracles.judge("noise", Clamped(), DDPM)
    assert found.status == "convention" and "are made, and change x by" in found.cause


def test_the_network_oracle_sees_the_time_of_the_level_that_is_stepped_to():
    grid = DDIM.grid(8)
    following = dict(zip(grid.t[:-1].tolist(), grid.t[1:].tolist()))
    found = judge("network", network=lambda d: lambda x, t: d(x, following[t] or 1))
    assert "it steps to" in found.cause or "call 0" in found.cause


def test_fuzz_sees_what_is_not_finite_and_what_raises():
    assert "not finite after 1 steps" in judge("fuzz", after=lambda x: np.log(x * 0 - 1)).cause

    class Breaks(Ours):
        def trajectory(self, *, steps, **rest):
            if steps == 7:
                raise IndexError("index 1000 is out of bounds")
            return super().trajectory(steps=steps, **rest)
    found = oracles.judge("fuzz", Breaks(), DDIM)
    assert found.cause == "IndexError: index 1000 is out of bounds"
    assert found.evidence == {"steps": 7, "kind": "exception"}


def test_dtype_sees_another_type_and_rounding_that_is_none():
    swapped = judge("dtype", after=lambda x: x.astype(np.float64 if x.dtype == np.float32 else np.float32))
    assert swapped.status == "fail" and "float32 in is float64 out" in swapped.cause
    for kind in ("float64", "float32"):
        found = judge("dtype", after=lambda x, kind=kind: x.astype(kind))
        assert found.status == "convention" and f'dtypes = ("{kind}",)' in found.cause
    coarse = judge("dtype", after=lambda x: (x * (1.01 if x.dtype == np.float32 else 1)).astype(x.dtype))
    assert coarse.status == "fail" and "differ by" in coarse.cause


@pytest.mark.parametrize("broken", [("float32", "float64"), ("float32",), ("float64",)])
def test_dtype_sees_what_is_not_finite_and_counts_no_digits_of_it(broken):
    found = judge("dtype", after=lambda x: x * x.dtype.type(np.nan if x.dtype.name in broken else 1))
    assert (found.status, found.digits) == ("fail", None)
    assert found.cause == f"what comes out for {broken[-1]} is not finite"


@pytest.mark.parametrize("given", [("float16",), "float64", (), None, (np.float32,)])
def test_dtypes_that_there_are_not_are_refused_with_the_list(given):
    mine = Ours()
    mine.dtypes = given
    with pytest.raises(ValueError, match="adapter ours: dtypes is .*, wanted a tuple of some of 'float32', 'float64'"):
        settings_of(mine)


def test_what_is_not_there_is_not_implemented():
    class None_(Ours):
        def trajectory(self, **inputs):
            raise NotImplementedError("no sampler")
    for name in ("order", "noise", "fuzz"):
        assert oracles.judge(name, None_(), DDIM).status == "not-implemented"
    unknown = oracles.judge("flow", Ours(change=lambda s: DDIM), Setting("nosuch"))
    assert unknown.status == "not-implemented" and "no sampler 'nosuch'" in unknown.cause
    assert settings_of(object()) == []


def test_an_adapter_names_its_own_settings():
    class Named(Ours):
        def configurations(self):
            return [{"sampler": "ddim", "eta": 0.3, "T": 50}, DDIM]
    made = settings_of(Named())
    assert made[0].id == "ddim/linear50/trailing/zero/eta0.3" and made[1] is DDIM
    Named.configurations = lambda self: [{"eta": 0}]
    with pytest.raises(ValueError, match="names no sampler"):
        settings_of(Named())


def test_the_network_is_the_worlds_denoiser_between_and_beyond_the_times_too():
    net = Network(LINE, DDIM)
    x = np.linspace(-2, 2, 5)[:, None]
    level = net.schedule.level(500)
    np.testing.assert_allclose(net(x, 500), (x - level.alpha * LINE.posterior_mean(x, level)) / level.sigma, rtol=1e-12)
    low, mid, high = (float(net(x, t)[0, 0]) for t in (500, 500.5, 501))
    assert min(low, high) < mid < max(low, high)
    np.testing.assert_array_equal(net(x, 0), net(x, 1))
    np.testing.assert_array_equal(net(x, 1005), net(x, 1000))
    assert [t for t, _ in net.calls] == [500, 500, 500.5, 501, 0, 1, 1005, 1000]
    assert net(x.astype(np.float32), 10).dtype == np.float32


def test_every_default_setting_has_a_grid_and_a_sampler():
    for setting in DEFAULTS:
        grid = setting.grid(10)
        x = oracles.start(grid)
        end = setting.ours(LINE, grid, x, lambda i: np.zeros_like(x))[-1]
        assert np.isfinite(end).all() and setting.sampler in samplers.SAMPLERS
        assert math.isclose(float(grid.level(0).alpha ** 2 + grid.level(0).sigma ** 2), 1) or setting.T is None


def test_configurations_take_options_beside_the_rest_or_under_their_name_and_refuse_unknown_samplers():
    assert Setting.of({"sampler": "ddim", "eta": 1.0}).options == {"eta": 1.0}
    assert Setting.of({"sampler": "ddim", "options": {"eta": 1.0}}).options == {"eta": 1.0}
    with pytest.raises(ValueError, match="sampler is 'nope', wanted one of ddpm"):
        Setting.of({"sampler": "nope"})
