"""The laws of the ops on CuPy arrays against NumPy's, and the switch and the noise on a real device.

The same laws run everywhere on the stand-in device (tests/laws); these tests skip where there is no GPU.
"""
import numpy as np
import pytest
from draw import fixed_cases
from laws import refuses_to_mix, stays_on_device

from refdiff import backend
from refdiff.ops.op import REGISTRY
from refdiff.params import Layout
from refdiff.rng import Key

pytestmark = pytest.mark.gpu


@pytest.fixture
def cupy():
    return backend.use("cupy")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_op_gives_numpys_numbers_and_stays_on_the_device(cupy, name):
    for case in fixed_cases(REGISTRY[name]):
        stays_on_device(REGISTRY[name], case, cupy.asarray, cupy.asnumpy, cupy.ndarray)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_op_refuses_host_and_device_arrays_together(cupy, name):
    for case in fixed_cases(REGISTRY[name]):
        refuses_to_mix(REGISTRY[name], case, cupy.asarray)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_op_keeps_float32_on_the_device(cupy, name):
    op = REGISTRY[name]
    for case in fixed_cases(op):
        inputs = [cupy.asarray(a if a.dtype.kind in "iu" else a.astype(np.float32)) for a in case.inputs]
        y, saved = op.forward(*inputs, **case.options)
        found = op.backward(saved, cupy.ones_like(y))
        assert {a.dtype for a in (y, *(found if isinstance(found, tuple) else (found,)))} == {np.dtype(np.float32)}


def test_labels_out_of_range_are_refused_where_the_device_would_wrap_them(cupy):
    table = cupy.ones((3, 2))
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="range of labels"):
            REGISTRY["embedding"].forward(table, cupy.asarray(labels))


def test_cupy_arrays_are_known_before_the_backend_is_chosen(cupy):
    backend.use("numpy")
    x = cupy.zeros(2)
    assert backend.of(x=x) is cupy
    assert type(backend.asarray(x)) is np.ndarray and type(backend.to_host(x)) is np.ndarray


@pytest.mark.parametrize("draw, args", [("normal", ((5, 3),)), ("normal", ((5, 3), np.float32)), ("uniform", ((5, 3),)),
                                        ("uniform", ((5, 3), np.float32)), ("integers", (0, 10, 20)),
                                        ("permutation", (30,))])
def test_a_named_draw_has_the_same_bits_on_the_device(cupy, draw, args):
    key = Key(3).fold("eps", 1)
    there = getattr(key, draw)(*args)
    backend.use("numpy")
    here = getattr(key, draw)(*args)
    assert isinstance(there, cupy.ndarray) and there.dtype == here.dtype
    np.testing.assert_array_equal(cupy.asnumpy(there), here)


def test_first_values_of_parameters_have_the_same_bits_on_the_device(cupy):
    layout = Layout()
    layout.add("w", (3, 4), lambda key, shape: key.normal(shape))
    there = layout.init(Key(1))
    backend.use("numpy")
    assert isinstance(there["w"], cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(there.flat), layout.init(Key(1)).flat)
