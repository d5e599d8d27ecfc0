"""GroupNorm's routes, alone and with SiLU, where the laws' small shapes do not reach: several blocks, and float32."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mutate_source import run, source_mutants

from refdiff.ops import group_norm, norm_silu
from refdiff.ops.fast import norm

SHAPES = [(7, 4, 5, 12, 4), (3, 9, 3, 8, 8), (2, 8, 8, 6, 1), (1, 1, 7, 4, 2)]                # n, h, w, c, groups
CONSTANTS = ("BLOCK", "CHUNK", "WIDE", "KEPT")
CUTS = {"one image": (1, 300, 16, 0), "several chunks": (1000, 500, 16, 1 << 20), "rows": (500, 64, 16, 0),
        "narrow": (1, 1, 1, 1 << 20), "wide": (300, 300, 1 << 20, 0), "all": (1 << 20, 1 << 20, 16, 1 << 20)}


def arrays(shape, dtype=np.float64, mean=0.5, seed=0, spread=1.0, moved=0.0):
    """The inputs of norm_silu, a cotangent, and groups. group_norm's are the first, third and fourth.

    x has this mean and standard deviation; `moved` is taken from it and given to e.
    """
    n, h, w, c, groups = shape
    rng = np.random.default_rng([seed, *shape])
    x, dy = rng.standard_normal((2, n, h, w, c))
    e, scale, shift = rng.standard_normal((3, n, c))
    gamma, beta = rng.standard_normal((2, c))
    x, e = spread * x + mean - moved, spread * e + moved
    return [a.astype(dtype) for a in (x, e, gamma, beta, scale, shift)], dy.astype(dtype), groups


def passes(pair, inputs, dy, groups):
    """y and every cotangent of both ops, by name; a pair of functions for each."""
    (forward, backward), (forward_silu, backward_silu) = pair
    y, saved = forward(inputs[0], *inputs[2:4], groups=groups)
    z, saved_silu = forward_silu(*inputs, groups=groups)
    names = ("y", "dx", "dgamma", "dbeta", "z", "dx of z", "de", "dgamma of z", "dbeta of z", "dscale", "dshift")
    return dict(zip(names, (y, *backward(saved, dy), z, *backward_silu(saved_silu, dy))))


PLAIN = tuple((op.forward, op.backward) for op in (group_norm, norm_silu))
HOST = tuple(op.routes["host"] for op in (group_norm, norm_silu))


def worst(got, want):
    """The largest error, each relative to 1 + the largest entry of its array (de = 0 for one channel a group)."""
    return max(float(np.abs(got[k] - want[k]).max() / (1 + np.abs(want[k]).max())) for k in want)


@pytest.fixture
def cut(monkeypatch):
    def chosen(name):
        for constant, value in zip(CONSTANTS, CUTS[name]):
            monkeypatch.setattr(norm, constant, value)
        norm._cut.cache_clear()
    yield chosen
    norm._cut.cache_clear()


@pytest.mark.parametrize("name", CUTS)
def test_any_cut_into_blocks_gives_the_plain_numbers(name, cut):
    cut(name)
    for shape in SHAPES:
        assert worst(passes(HOST, *arrays(shape)), passes(PLAIN, *arrays(shape))) < 1e-13, shape


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_what_either_forward_saves_serves_either_backward(kept, monkeypatch):
    monkeypatch.setattr(norm, "KEPT", kept)
    inputs, dy, groups = arrays((5, 8, 8, 16, 4))
    assert bool(norm.norm_silu_forward(*inputs, groups=groups)[1].gate) == bool(kept)
    for one in (PLAIN, HOST):
        for other in (PLAIN, HOST):
            pair = [(a[0], b[1]) for a, b in zip(one, other)]
            assert worst(passes(pair, inputs, dy, groups), passes(PLAIN, inputs, dy, groups)) < 1e-13


@pytest.mark.parametrize("mean, allowed", [(0.5, 3e-6), (30, 1e-4), (1000, 3e-3)])
def test_float32_loses_what_the_mean_costs_and_no_more_than_the_plain_one(mean, allowed):
    """A mean of m standard deviations costs x itself m roundings of 6e-8, of which sums over a row collect a few."""
    for shape in [(3, 32, 32, 64, 32), (40, 8, 8, 16, 8), (2, 16, 16, 128, 32)]:
        inputs, dy, groups = arrays(shape, np.float32, mean)
        want = passes(PLAIN, [a.astype(np.float64) for a in inputs], dy.astype(np.float64), groups)
        got, same = passes(HOST, inputs, dy, groups), passes(PLAIN, inputs, dy, groups)
        assert all(a.dtype == np.float32 for a in got.values())
        assert worst(got, want) < allowed and worst(got, want) < 4 * worst(same, want) + 1e-6


def test_threads_do_not_share_their_scratch():
    cases = [arrays((8, 8, 8, 16, 8), np.float32, seed=i) for i in range(8)]
    alone = [passes(HOST, *case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda case: passes(HOST, *case), cases * 8), alone * 8):
            assert worst(got, want) == 0


def test_huge_inputs_are_finite_and_raise_no_warning():
    inputs, dy, groups = arrays((2, 4, 4, 8, 2), np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for a in (inputs[2], inputs[5]):
            a *= 1e6
        assert all(np.isfinite(a).all() for a in passes(HOST, inputs, dy, groups).values())


def test_a_mean_whose_square_overflows_is_taken_away_first():
    """x = 1e19 (1 + r/100): sums of squares are beyond float32, those of deviations are not."""
    inputs, dy, groups = arrays((2, 4, 4, 8, 2), np.float32, mean=100)
    inputs[0] *= 1e17
    inputs[1] *= 0
    wide = [a.astype(np.float64) for a in inputs]
    with np.errstate(over="ignore", invalid="ignore"):
        got = passes(HOST, inputs, dy, groups)
    want = passes(PLAIN, wide, dy.astype(np.float64), groups)
    for name in ("y", "z", "dgamma", "dbeta"):              # the mean's rounding, 6e-8 of it, is 6e-6 of the deviations
        assert np.abs(got[name] - want[name]).max() < 1e-4 * np.abs(want[name]).max()


def test_a_scalar_of_numpy_among_the_options_is_no_array():
    inputs, _, groups = arrays((2, 4, 4, 8, 2), np.float32)
    y, _ = norm.norm_silu.forward(*inputs, groups=np.int64(groups), eps=np.float64(1e-6))
    np.testing.assert_array_equal(y, norm.norm_silu_forward(*inputs, groups=groups)[0])
    assert y.dtype == np.float32


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_operator_sign_or_number_of_the_route_can_change_unseen(monkeypatch):
    for op, pair in zip((group_norm, norm_silu), HOST):           # a changed module registers its own
        monkeypatch.setitem(op.routes, "host", pair)
    cases = [(cut, arrays(shape), 1e-13) for shape in SHAPES[:2] for cut in ("several chunks", "rows")]
    cases += [("rows", arrays(SHAPES[0], mean=mean, spread=1e-3, moved=moved), 1e-9)     # without the second way 1e-8
              for mean, moved in ((10, 0), (0, 10), (10, 10))]
    wanted = [passes(PLAIN, *case) for _, case, _ in cases]
    alive = []
    for function, change, tree in source_mutants(norm):
        if function in ("", "_cut", "chunk", "_ones"):            # where blocks end changes no result
            continue
        try:
            names, _ = run(tree, norm)
            pairs = [(names[f"{op}_forward"], names[f"{op}_backward"]) for op in ("group_norm", "norm_silu")]
            for (cut, case, allowed), want in zip(cases, wanted):
                names.update(zip(CONSTANTS, CUTS[cut]))
                names["_cut"].cache_clear()
                assert worst(passes(pairs, *case), want) < allowed
        except Exception:
            continue
        alive.append((function, change))
    # A constant e, which the mean takes away; an axis of one; whether the gate is kept.
    same = "_statistics(x[block], 0", "repeat(pixels, -3)", "x.size <= KEPT"
    alive = [one for one in alive if not any(text in one[1] for text in same)]
    assert not alive, "\n".join(map(str, alive))
