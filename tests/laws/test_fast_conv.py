"""The convolution's routes where the laws' small shapes do not reach: several blocks, and float32."""
from dataclasses import replace

import numpy as np
import pytest

from refdiff.ops import conv2d as plain
from refdiff.ops import upsample_conv2d as plain_upsample_conv2d
from refdiff.ops.fast import conv, conv2d, routed, winograd
from refdiff.ops.fast.scratch import apart

SHAPES = [(3, 9, 11, 5, 4), (2, 8, 8, 3, 6), (5, 4, 4, 2, 2), (3, 3, 2, 3, 4), (1, 17, 6, 4, 3),
          (2, 3, 13, 1, 2)]                                                                     # n, h, w, c, d
ROUTES = ["blocked", "winograd", "host"]


def arrays(shape, k=3, dtype=np.float64, seed=0):
    n, h, w, c, d = shape
    rng = np.random.default_rng([seed, *shape])
    x, kernel, b = (rng.standard_normal(s) for s in ((n, h, w, c), (k, k, c, d), (d,)))
    return x.astype(dtype), (kernel / np.sqrt(k * k * c)).astype(dtype), b.astype(dtype)


def both(route, x, w, b, *options, op=plain):
    """(y, dx, dw, db) of the route, and of the plain op in float64."""
    forward, backward = op.routes[route]
    y, saved = forward(x, w, b, *options)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    x64, w64, b64, dy64 = (a.astype(np.float64) for a in (x, w, b, dy))
    want, saved64 = op.forward(x64, w64, b64, *options)
    return (y, *backward(saved, dy)), (want, *op.backward(saved64, dy64))


def compare(route, x, w, b, *options, rtol, op=plain):
    """Every entry within rtol of the largest of its array."""
    for name, got, want in zip(("y", "dx", "dw", "db"), *both(route, x, w, b, *options, op=op)):
        assert got.dtype == x.dtype and got.shape == want.shape
        atol = rtol * np.abs(want).max(initial=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=f"{route}: {name}")


CUTS = {"40-1": (40, 1), "300-2": (300, 2), "1-5": (1 << 18, 5), "1-64": (1 << 18, 64)}     # BLOCK, TILES


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stride, pad", [(1, "same"), (2, "same"), (2, "ddpm"), (1, "ddpm")])
@pytest.mark.parametrize("route", ROUTES)
def test_any_cut_into_blocks_gives_the_plain_numbers(route, stride, pad, cut, monkeypatch):
    into(cut, monkeypatch)
    for shape in SHAPES:
        for k in (1, 3):
            compare(route, *arrays(shape, k), stride, pad, rtol=1e-13 * (1 if route == "blocked" else 10))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("route", ["winograd", "host"])
def test_any_cut_of_a_doubled_image_gives_the_plain_numbers(route, cut, monkeypatch):
    into(cut, monkeypatch)
    for shape in [*SHAPES, (2, 1, 1, 3, 4), (1, 2, 1, 5, 3)]:
        for k in (1, 3, 5):
            compare(route, *arrays(shape, k), rtol=1e-12, op=plain_upsample_conv2d)


def into(cut, monkeypatch):
    monkeypatch.setattr(conv, "BLOCK", CUTS[cut][0])
    monkeypatch.setattr(conv, "PIXELS", 1)
    monkeypatch.setattr(winograd, "TILES", CUTS[cut][1])
    monkeypatch.setattr(winograd, "NUMBERS", 1)
    monkeypatch.setattr(winograd, "COLUMNS", 8)
    monkeypatch.setattr(conv, "WINOGRAD", (3, 3, 1))


@pytest.mark.parametrize("shape", [(2, 8, 8, 40, 24), (1, 5, 7, 16, 50), (3, 4, 4, 33, 17)])
def test_few_tiles_take_the_kernel_slice_by_slice(shape, monkeypatch):
    monkeypatch.setattr(winograd, "CUT", 1)
    assert len(winograd.cuts(8, 40, 24)) == 3 and winograd.cuts(8, 40, 24)[-1] == slice(32, 40)
    compare("winograd", *arrays(shape), 1, "same", rtol=1e-12)
    compare("winograd", *arrays(shape), rtol=1e-12, op=plain_upsample_conv2d)


def test_many_tiles_take_the_whole_kernel():
    """Slices are for a single block: its tiles of x are transformed once, whatever the slices."""
    for n in (winograd.TILES + 1, 4096):
        assert winograd.cuts(n, 512, 1) == [slice(0, 512)]


@pytest.mark.parametrize("route, rtol", [("blocked", 3e-6), ("winograd", 4e-5)])
def test_float32_keeps_the_digits_that_the_route_promises(route, rtol):
    """Direct sums of 9 c terms: c^(1/2) roundings of 6e-8. Winograd's matrices amplify by up to 4*10*8: some 1e-5."""
    for shape in [(4, 16, 16, 64, 64), (2, 12, 20, 128, 96), (2, 32, 32, 48, 80)]:
        compare(route, *arrays(shape, dtype=np.float32), 1, "same", rtol=rtol)
        if route == "winograd":
            compare(route, *arrays(shape, dtype=np.float32), rtol=rtol, op=plain_upsample_conv2d)


def test_no_images_give_no_gradient():
    """And not what the memory held before."""
    for c, d, k in ((3, 4, 3), (40, 40, 3), (5, 2, 1), (2, 3, 5)):
        for stride, pad in ((1, "same"), (2, "same"), (1, "ddpm")):
            compare("host", *arrays((0, 8, 8, c, d), k, np.float32), stride, pad, rtol=0)
        compare("host", *arrays((0, 8, 8, c, d), k, np.float32), rtol=0, op=plain_upsample_conv2d)


def test_float64_and_mixed_types_take_the_plain_route(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("a fast route was taken")
    monkeypatch.setattr(conv2d, "host", (refuse, refuse))
    x, w, b = arrays((2, 4, 4, 3, 2))
    np.testing.assert_array_equal(conv2d.forward(x, w, b)[0], plain.forward(x, w, b)[0])
    assert conv2d.forward(x.astype(np.float32), w, b)[0].dtype == np.float64
    assert conv2d.forward(x=x, w=w, b=b)[0].dtype == np.float64
    assert conv2d.forward(x.astype(np.float32), w=w, b=b)[0].dtype == np.float64
    small = [a.astype(np.float32) for a in (x, w, b)]
    np.testing.assert_array_equal(conv2d.forward(x.astype(np.uint8), *small[1:])[0],
                                  plain.forward(x.astype(np.uint8), *small[1:])[0])
    y, saved = plain.forward(x, w, b)
    for got, want in zip(conv2d.backward(saved, y.astype(np.float32)), plain.backward(saved, y.astype(np.float32))):
        assert got.dtype == want.dtype and (got == want).all()
    with pytest.raises(AssertionError, match="a fast route"):
        conv2d.forward(*arrays((2, 4, 4, 3, 2), dtype=np.float32))
    with pytest.raises(AssertionError, match="a fast route"):
        conv2d.forward(small[0], b=small[2], w=small[1])


def test_the_plain_routes_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(routed, "_chosen", None)
    monkeypatch.setenv("REFDIFF_ROUTES", "plain")
    x, w, b = arrays((2, 8, 8, 64, 64), dtype=np.float32)
    np.testing.assert_array_equal(conv2d.forward(x, w, b)[0], plain.forward(x, w, b)[0])
    monkeypatch.setattr(routed, "_chosen", None)
    monkeypatch.setenv("REFDIFF_ROUTES", "quick")
    with pytest.raises(ValueError, match="REFDIFF_ROUTES.*'quick', wanted one of fast, plain"):
        conv2d.forward(x, w, b)


def test_threads_do_not_share_their_scratch():
    from concurrent.futures import ThreadPoolExecutor
    cases = [arrays((4, 16, 16, 48, 48), dtype=np.float32, seed=i) for i in range(8)]
    alone = [conv2d.forward(*case)[0] for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda case: conv2d.forward(*case)[0], cases * 4), alone * 4):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("form, op", [("SAME", plain), ("DOUBLED", plain_upsample_conv2d),
                                      ("SUMMED", plain_upsample_conv2d)])
@pytest.mark.parametrize("name", "BGA")
def test_the_wrong_matrix_would_be_seen(form, op, name, monkeypatch):
    """A planted mistake in each of the three matrices of a form breaks the comparison."""
    right = getattr(winograd, form)
    wrong = getattr(right, name).astype(float)
    wrong[1, 1] = wrong[1, 1] * 1.001 + 0.001
    monkeypatch.setattr(winograd, form, replace(right, **{name: wrong}))
    for shape in (SHAPES[0], SHAPES[2]):                                    # several tiles, and one
        winograd.halves.cache_clear(), winograd.one_tile.cache_clear()
        with pytest.raises(AssertionError):
            compare("winograd", *arrays(shape), rtol=1e-12, op=op)
    winograd.halves.cache_clear(), winograd.one_tile.cache_clear()


def test_what_is_left_out_of_a_doubled_image_is_zero():
    """Why 25 products are enough: at the point -1 tiles of a doubled image vanish, and so do sums by twos."""
    assert not (winograd.B @ winograd.TWICE)[3].any() and not (winograd.BY_TWOS @ winograd.A)[:, 3].any()
    assert winograd.REST == [i for i in range(6) if i != 3]
    assert (winograd.B @ winograd.TWICE)[winograd.REST].any(1).all()


def test_entries_of_scratch_begin_lines_that_no_power_of_two_parts():
    """64 bytes are a line of the cache; entries that lie 4096 apart would share one set of it."""
    for name in ("one", None):
        for shape in ((8, 64), (64, 256), (3, 5, 7)):
            a = apart(name, 36, shape, np.float32)
            assert a.shape == (36, *shape) and a[0].flags.c_contiguous and a.flags.writeable
            assert a.ctypes.data % 64 == 0 and a.strides[0] == a[0].nbytes + 64
    kept, new = apart("two", 4, (8,), np.float32), apart(None, 4, (8,), np.float32)
    assert np.shares_memory(kept, apart("two", 2, (8,), np.float32)) and not np.shares_memory(new, kept)
