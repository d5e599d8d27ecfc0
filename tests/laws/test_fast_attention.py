"""The route of attention where the laws' small shapes do not reach: several blocks, float32, strided inputs."""
import sys

import numpy as np
import pytest
from mutate_source import run, source_mutants

from refdiff.ops import attention as plain
from refdiff.ops.fast import attention  # noqa: F401  (registers the route)

module = sys.modules["refdiff.ops.fast.attention"]
SHAPES = [(5, 6, 6, 2, 4, 4), (3, 4, 7, 1, 3, 5), (2, 1, 3, 3, 2, 2)]                         # n, t, m, heads, d, e
PLAIN, HOST = (plain.forward, plain.backward), plain.routes["host"]


def arrays(shape, dtype=np.float64, size=1.0):
    n, t, m, heads, d, e = shape
    rng = np.random.default_rng(shape)
    q, k, v, do = map(rng.standard_normal, ((n, t, heads, d), (n, m, heads, d), (n, m, heads, e), (n, t, heads, e)))
    return [a.astype(dtype) for a in (size * q, k, v, do)]


def passes(op, q, k, v, do):
    """o, dq, dk, dv."""
    o, saved = op[0](q, k, v)
    return o, *op[1](saved, do)


def worst(got, want):
    return max(float(np.abs(a - b).max() / (1 + np.abs(b).max())) for a, b in zip(got, want))


@pytest.mark.parametrize("short", [0, 1 << 20])
@pytest.mark.parametrize("scores", [1, 100, 1 << 20])
def test_any_cut_of_the_batch_gives_the_plain_numbers(scores, short, monkeypatch):
    monkeypatch.setattr(module, "SCORES", scores)
    monkeypatch.setattr(module, "SHORT", short)
    for shape in SHAPES:
        for one in (PLAIN, HOST):
            for other in (PLAIN, HOST):
                got = passes((one[0], other[1]), *arrays(shape))
                assert worst(got, passes(PLAIN, *arrays(shape))) < 1e-14


def test_float32_is_as_good_as_the_plain_one():
    for shape, size in (((2, 256, 256, 1, 64, 64), 1.0), ((4, 64, 64, 2, 32, 32), 8.0)):
        single = arrays(shape, np.float32, size)
        want = passes(PLAIN, *(a.astype(np.float64) for a in single))
        got = passes(HOST, *single)
        assert all(a.dtype == np.float32 for a in got)
        assert worst(got, want) < 2 * worst(passes(PLAIN, *single), want) + 1e-6 < 1e-4


def test_huge_scores_overflow_nowhere():
    q, k, v, do = arrays((2, 5, 5, 1, 4, 4), np.float32, 1e5)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert all(np.isfinite(a).all() for a in passes(HOST, q, k, v, do))


def test_thirds_of_one_array_are_taken_where_they_lie():
    rng = np.random.default_rng(0)
    qkv, do = rng.standard_normal((4, 6, 3, 2, 4)), rng.standard_normal((4, 6, 2, 4))
    thirds = [qkv[:, :, i] for i in range(3)]
    assert worst(passes(HOST, *thirds, do), passes(PLAIN, *(a.copy() for a in thirds), do)) < 1e-14


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_operator_sign_or_number_of_the_route_can_change_unseen(monkeypatch):
    monkeypatch.setitem(plain.routes, "host", HOST)               # a changed module registers its own
    cases = [arrays(shape, size=size) for shape, size in zip(SHAPES, (1, 1e4, 1))]
    wanted = [passes(PLAIN, *case) for case in cases]
    alive = []
    for function, change, tree in source_mutants(module):
        # Where blocks end, and which of two ways finds the largest score, changes no result.
        if function in ("", "_blocks") or change == "m > SHORT => m <= SHORT":
            continue
        try:
            names, _ = run(tree, module)
            names["SCORES"], names["SHORT"] = 100, 5
            for case, want in zip(cases, wanted):
                assert worst(passes((names["attention_forward"], names["attention_backward"]), *case), want) < 1e-13
        except Exception:
            continue
        alive.append((function, change))
    assert not alive, "\n".join(map(str, alive))
