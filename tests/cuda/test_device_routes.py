"""The routes of the device, kernels and all, against the plain ops: every number, on this processor (devices.py).

Nothing here shows that a GPU runs them, or how fast: tests/gpu does that where there is one.
"""
import numpy as np
import pytest
import standin
from devices import device
from draw import Case, fixed_cases
from emulator import COMPILER, BarrierError
from laws import arguments, backwards, fortran, refuses_to_mix, results, rotated, size, variant

from refdiff import backend, cuda
from refdiff.ops.fast import device as routes
from refdiff.ops.fast.device import DEVICE
from refdiff.ops.op import REGISTRY

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here: the kernels are not run")

# Beyond what the laws draw: several warps and strips of 32 channels, many rows, sizes that divide by nothing.
LARGER = [Case("group_norm", {"n": 2, "h": 5, "w": 7, "c": c}, {"groups": g, "eps": 1e-6}, 1)
          for c, g in ((64, 32), (33, 1), (70, 2), (96, 4), (128, 32), (1, 1), (36, 12))]
LARGER += [Case("norm_silu", case.sizes, case.options, 2) for case in LARGER]
LARGER += [Case("softmax", {"n": 3, "t": 7, "m": m}, {}, 3, scale) for m, scale in ((1, 1.0), (31, 9.0), (70, 300.0))]
LARGER += [Case("attention", {"n": 2, "t": 9, "m": 37, "a": 3, "d": 5, "e": 4}, {}, 4)]
LARGER += [Case("conv2d", {"n": 2, "h": 6, "w": 5, "k": 3, "c": c, "d": d}, {"stride": s, "pad": pad}, 5)
           for c, d in ((4, 8), (3, 5), (16, 2)) for s in (1, 2) for pad in ("same", "ddpm")]
LARGER += [Case("conv2d", {"n": 1, "h": 4, "w": 4, "k": 5, "c": 2, "d": 2}, {"stride": 1, "pad": "same"}, 6)]
LARGER += [Case("linear", {"n": 9, "t": 33, "c": 5, "d": 40}, {}, 7), Case("silu", {"n": 3, "h": 29, "c": 31}, {}, 8)]
LARGER += [Case(name, {"n": 3, "h": 17, "w": 15, "c": 35}, {}, 9) for name in ("shift", "scale_shift")]


def cases(name):
    return fixed_cases(REGISTRY[name]) + [case for case in LARGER if case.name == name]


def route(name):
    forward, backward = DEVICE[name]
    return variant(REGISTRY[name], "device", forward=forward, backward=backward, jvp=None, routes={})


def poisoned(monkeypatch):
    """Fresh memory holds NaN: an entry that no kernel writes shows."""
    def like(x, shape=None):
        return standin.StandIn(np.full(x.shape if shape is None else shape, np.nan, x.dtype))
    monkeypatch.setattr(routes, "like", like)


def put(a, dtype=np.float64):
    return standin.xp.asarray(a if a.dtype.kind in "iu" else a.astype(dtype))


def judge(name, dtype=np.float64, allowed=1e-12, order=0, rewrite=None, lay=None, some=None):
    """Raise AssertionError unless the route gives the plain op's y and cotangents, to `allowed` of their size."""
    plain = variant(REGISTRY[name], "plain", jvp=None, routes={})
    with device(order, rewrite) as there:
        for case in cases(name)[:some]:
            if dtype == np.float32 and case.scale > 4:
                continue                       # e^(300 x) holds no digits of a float32 x
            inputs, options, dy, _ = arguments(REGISTRY[name], case)
            want = results(plain, inputs, options, dy, ())
            given = [put(lay(a) if lay and a.ndim else a, dtype) for a in (*inputs, dy)]
            before = [a.get() for a in given]
            got = results(route(name), given[:-1], options, given[-1], ())
            for a, b in zip(given, before):
                assert np.array_equal(a.get(), b), f"{name}: an argument was written into\n{case}"
            for key, value in want.items():
                assert isinstance(got[key], standin.StandIn) and got[key].dtype == dtype, f"{name}: {key}: {got[key]}"
                error = size(got[key].get() - value) if np.size(value) else 0.0
                scale = size(value, dy, *inputs) if dtype == np.float32 else size(value, dy)
                assert error <= allowed * scale, f"{name}: {key} off by {error:.3g}, size {scale:.3g}\n{case}"
    return there.launched


@pytest.mark.parametrize("name", sorted(DEVICE))
def test_a_route_gives_the_plain_numbers_in_float64_whoever_runs_first(name, monkeypatch):
    poisoned(monkeypatch)
    for order in (0, 1, 7):
        judge(name, order=order)


@pytest.mark.parametrize("name", sorted(DEVICE))
def test_a_route_keeps_float32_and_its_digits(name, monkeypatch):
    """Sums of a few hundred float32 terms at most: 2e-5 of their size; a norm of nearly equal entries: 1e-3."""
    poisoned(monkeypatch)
    judge(name, np.float32, 1e-3 if "norm" in name else 2e-5)


@pytest.mark.parametrize("lay", [fortran, backwards, rotated], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", sorted(DEVICE))
def test_memory_layout_does_not_matter_to_a_route(name, lay):
    judge(name, lay=lay, some=4)


@pytest.mark.parametrize("name", sorted(DEVICE))
def test_either_goes_on_where_the_other_began(name):
    """backward and jvp of the plain op on the route's saved, the route's backward on the plain op's."""
    op, case = REGISTRY[name], cases(name)[0]
    inputs, options, dy, tangents = arguments(op, case)
    want = results(op, inputs, options, dy, tangents)
    forward, backward = DEVICE[name]
    with device():
        given, there = [put(a) for a in inputs], put(dy)
        _, ours = forward(*given, **options)
        _, plain = op.forward(*given, **options)
        found = [(op.backward(ours, there), " by the plain op"), (backward(plain, there), " by the route")]
        for cotangents, who in found:
            cotangents = cotangents if isinstance(cotangents, tuple) else (cotangents,)
            for got, (key, value) in zip(cotangents, [item for item in want.items() if item[0] not in ("y", "ydot")]):
                np.testing.assert_allclose(got.get(), value, rtol=0, atol=1e-12 * size(value, dy), err_msg=key + who)
        ydot = op.jvp(ours, *[put(a) for a in tangents])
        np.testing.assert_allclose(ydot.get(), want["ydot"], rtol=0, atol=1e-12 * size(want["ydot"], *tangents))


@pytest.mark.parametrize("name", sorted(DEVICE))
def test_a_route_refuses_host_and_device_arrays_together(name):
    with device():
        for case in fixed_cases(REGISTRY[name], 2):
            refuses_to_mix(route(name), case, standin.xp.asarray)


@pytest.mark.parametrize("name, inputs, options", [
    ("conv2d", [(1, 4, 4, 3), (3, 3, 2, 1), (1,)], {}), ("linear", [(2, 3), (4, 5), (5,)], {}),
    ("group_norm", [(1, 2, 2, 6), (6,), (6,)], {"groups": 4}),
    ("attention", [(1, 2, 1, 3), (1, 2, 1, 4), (1, 2, 1, 4)], {}),
    ("norm_silu", [(2, 2, 2, 4), (2, 4), (4,), (4,), (4,), (2, 4)], {"groups": 2}),
    ("concat", [(1, 2, 2, 3), (1, 2, 3, 3)], {}),
    ("scale_shift", [(2, 2, 2, 3), (2, 3), (3,)], {}), ("sinusoid", [(3,)], {"width": 5})])
def test_what_the_plain_op_refuses_a_route_refuses_in_its_words(name, inputs, options):
    arrays = [np.ones(shape) for shape in inputs]
    with pytest.raises(ValueError) as plain:
        REGISTRY[name].forward(*arrays, **options)
    with device(), pytest.raises(ValueError) as ours:
        DEVICE[name][0](*map(standin.xp.asarray, arrays), **options)
    assert str(ours.value) == str(plain.value)


def test_every_kernel_is_run_here():
    launched = {kernel for name in DEVICE for kernel in judge(name, some=None if name == "conv2d" else 8)}
    every = {kernel for name in cuda.SOURCES for kernel in cuda.kernels(cuda.source(name, np.float32))}
    assert every - launched == {"adamw", "adamw_ema"}                    # run below
    assert launched - every == {"product"}


# ---- what the routes do not use

@pytest.mark.parametrize("dtype, allowed", [(np.float64, 1e-14), (np.float32, 2e-6)])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_the_optimisers_kernel_is_adamw_and_the_moving_average(dtype, allowed, decay):
    from refdiff.optim import AdamW, ema_update
    rng = np.random.default_rng(3)
    theta, ema = rng.standard_normal((2, 3001)).astype(dtype)
    optimiser = AdamW(lr=0.01, weight_decay=decay)
    state, want, average = optimiser.init(theta), theta.copy(), ema.copy()
    with device():
        vectors = [put(a, dtype) for a in (theta, np.zeros_like(theta), np.zeros_like(theta))]
        kept = put(ema, dtype)
        for step in range(3):
            grad = rng.standard_normal(3001).astype(dtype)
            optimiser.update(state, want, grad.astype(dtype) * dtype(0.5), 0.02)
            ema_update(average, want, 0.9)
            routes.adamw_step(optimiser, step, *vectors, put(grad, dtype), 0.02, factor=0.5, ema=kept, keep=0.9)
        for got, value in zip((*vectors, kept), (want, state.m, state.v, average)):
            np.testing.assert_allclose(got.get(), value, rtol=0, atol=allowed * np.abs(value).max())
        alone = [put(a, dtype) for a in (theta, np.zeros_like(theta), np.zeros_like(theta))]
        routes.adamw_step(optimiser, 0, *alone, put(grad, dtype))
        fresh = optimiser.init(theta)
        optimiser.update(fresh, theta, grad)
        np.testing.assert_allclose(alone[0].get(), theta, rtol=0, atol=allowed * np.abs(theta).max())


# ---- planted faults

MUTANTS = [
    ("norm", "/ m + eps", "/ m", "group_norm"),
    ("norm", "(x[e] - middle) * r, z", "x[e] * r, z", "group_norm"),
    ("norm", "v = a * normal + b", "v = normal + b", "norm_silu"),
    ("norm", "t * (REAL(1) + v * (REAL(2) - t))", "t * (REAL(1) + v * (REAL(1) - t))", "norm_silu"),
    ("norm", "beta[at.channel + k] * gain[edge + k] + half[edge + k] :", "beta[at.channel + k] + half[edge + k] :",
     "norm_silu"),
    ("norm", "b = beta[at.channel + k] * gain[edge + k] + half[edge + k];",
     "b = beta[at.channel + k] * gain[edge + k];", "norm_silu"),
    ("norm", "(g - mean - normal", "(g - normal", "group_norm"),
    ("norm", " - normal * tilt) * r", ") * r", "norm_silu"),
    ("norm", "REAL normal = (kept[e] - middle) * r, dv", "REAL normal = kept[e] * r, dv",
     "norm_silu"),
    ("norm", "if (SILU) centre[edge + k] = middle;", "if (SILU) centre[edge + k] = mean;", "norm_silu"),
    ("norm", "dshift[edge + k] = REAL(0.5) * sum;", "dshift[edge + k] = sum;", "norm_silu"),
    ("norm", "de[edge + k] = sum;", "de[edge + k] = 0;", "norm_silu"),
    ("norm", "dot * a + sum * beta[at.channel + k]", "dot * a + sum", "norm_silu"),
    ("norm", "dot * by;", "dot;", "norm_silu"), ("norm", "sum * by;", "sum;", "norm_silu"),
    ("norm", "a * by * dot", "a * dot", "norm_silu"), ("norm", "a * by * sum", "by * sum", "norm_silu"),
    ("norm", "a *= gain[edge + k], b = b * gain[edge + k]", "a *= gain[edge + k], b = b", "norm_silu"),
    ("norm", "REAL moved = SILU ? time[edge + k] : REAL(0);", "REAL moved = 0;", "norm_silu"),
    ("norm", "at.lane / at.per * at.per", "0", "group_norm"),
    ("norm", "for (int i = 1; i < at.rows; i++) value", "for (int i = 2; i < at.rows; i++) value", "group_norm"),
    ("norm", "partial[threadIdx.x] = value;\n    __syncthreads();", "partial[threadIdx.x] = value;", "group_norm"),
    ("norm", "at.lane] = value;\n    __syncthreads();", "at.lane] = value;", "group_norm"),
    ("norm", "blockIdx.x / (c / width);", "blockIdx.x / (c / width + 1);", "group_norm"),
    ("softmax", "top = warp_max(top);", "", "softmax"), ("softmax", "sum = warp_sum(sum);", "", "softmax"),
    ("softmax", "dot = warp_sum(dot);", "", "softmax"),
    ("softmax", "exp(scale * s[i] - top)", "exp(s[i] - top)", "attention"),
    ("softmax", "d = WARP / 2; d > 0; d /= 2) value +=", "d = WARP / 2; d > 1; d /= 2) value +=", "softmax"),
    ("softmax", "scale * (p[i] * (dp[i] - dot))", "p[i] * (dp[i] - dot)", "attention"),
    ("softmax", "if (row >= rows) return;                                //", "//", "softmax"),
    ("conv", "a >= 0 && a % spread == 0", "a % spread == 0", "conv2d"), ("conv", "a / spread < h", "true", "conv2d"),
    ("conv", "b % spread == 0 && ", "", "conv2d"),
    ("conv", "int a = step * at_p + i - top", "int a = at_p + i - top", "conv2d"),
    ("conv", "rest / c - top", "rest / c", "conv2d"),
    ("conv", "(n * h + a / spread) * w * c", "(n * h + a) * w * c", "conv2d"),
    ("conv", "+ rest % c] : T()", "] : T()", "conv2d"),
    ("reduce", "sum += DOT ? x[e] * y[e] : x[e]", "sum += x[e]", "scale_shift"),
    ("reduce", "(part + 1) / parts", "(part + 1) / parts - (part > 0)", "linear"),
    ("reduce", "partial[threadIdx.x] = sum;\n    __syncthreads();", "partial[threadIdx.x] = sum;", "shift"),
    ("reduce", "if (row == 0 && column < c) {", "if (row == 0) {", "shift"),
    ("elementwise", "s[e] = sigma;", "s[e] = x[e];", "silu"),
    ("elementwise", "silu_slope(x[e], s[e]) * dy", "s[e] * dy", "silu"),
    ("elementwise", "(long long)hw * c) * c + e % c", "(long long)hw * c) * c + e / c % c", "scale_shift"),
    ("elementwise", "(from[row] + from[row + c])", "(from[row] + from[c])", "avg_pool"),
    ("elementwise", "pixel / w * 2 * w", "pixel / w * w", "upsample"),
    ("prelude", "REAL(1) + z * (REAL(1) - s)", "REAL(1) + z * s", "silu"),
    ("prelude", "exp(-x)", "exp(x)", "silu"),
]


@pytest.mark.parametrize("source, old, new, name", MUTANTS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MUTANTS)])
def test_a_planted_fault_in_a_kernel_is_found(source, old, new, name, monkeypatch):
    poisoned(monkeypatch)
    for order in (0, 1, 7):
        try:
            judge(name, order=order, rewrite=(source, old, new))
        except AssertionError:
            return
    raise AssertionError(f"{source}.cu with {new!r} in place of {old!r} passes")


def test_a_barrier_that_some_threads_miss_is_an_error():
    with pytest.raises(BarrierError, match="not every thread"):
        judge("group_norm", rewrite=("norm", "    __syncthreads();\n    return value;",
                                     "    if (at.row) __syncthreads();\n    return value;"), some=2)


# ---- who takes them

def test_kernels_get_what_they_declare_or_refuse_it():
    x, n = standin.xp.asarray(np.ones((4, 4), np.float32)), np.ones(3)
    with device():
        with pytest.raises(ValueError, match="silu_forward: y is float64, wanted a contiguous array of float32"):
            backend.launch("elementwise", "silu_forward", 1, 32, x, put(n), x, 16)
        with pytest.raises(ValueError, match="s is float32, wanted a contiguous"):
            backend.launch("elementwise", "silu_forward", 1, 32, x, x, x.T[:2], 16)
        with pytest.raises(ValueError, match="got 3 arguments, wanted x, y, s, total"):
            backend.launch("elementwise", "silu_forward", 1, 32, x, x, x)
    with pytest.raises(ValueError, match="wanted one of .*norm.* in float32 or float64"):
        cuda.source("norm", np.float16)


def test_a_device_without_kernels_and_the_host_have_none():
    x = standin.xp.asarray(np.ones(3))
    assert not backend.kernels(x) and not backend.kernels(np.ones(3)) and not backend.capturing(x)
    with device():
        assert backend.kernels(x) and not backend.kernels(np.ones(3))
