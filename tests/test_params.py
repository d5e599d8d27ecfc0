"""theta is one vector: names are views of it, a gradient lies under the same name, and draws are named."""
import numpy as np
import pytest
import standin

from refdiff import backend
from refdiff.params import Handle, Layout, Theta
from refdiff.rng import Key


SHAPES = {"a.w": (2, 3), "a.b": (3,), "conv": (3, 3, 2, 1), "gain": (), "none": (0, 4), "last": (5,)}
EVERY = tuple(SHAPES)


def normal(key, shape):
    return key.normal(shape)


def ones(key, shape):
    return backend.xp().ones(shape)


def layout_of(*names, init=normal):
    """A layout of small arrays of various shapes, and their handles by name."""
    layout = Layout()
    return layout, {name: layout.add(name, SHAPES[name], init) for name in names}


def test_parameters_lie_one_after_another_without_gaps():
    layout, handles = layout_of(*EVERY)
    stop = 0
    for name, handle in handles.items():
        assert handle == Handle(name, stop, stop + int(np.prod(handle.shape)), handle.shape)
        stop = handle.stop
    assert layout.size == stop == 6 + 3 + 18 + 1 + 0 + 5


def test_a_parameter_is_a_view_by_handle_and_by_name():
    layout, handles = layout_of(*EVERY)
    theta = layout.init(Key(0), np.float64)
    for name, handle in handles.items():
        assert theta[handle].shape == theta[name].shape == handle.shape
        theta[handle][...] = 7
        np.testing.assert_array_equal(theta.flat[handle.start:handle.stop], 7)
        if theta[handle].size:
            assert np.shares_memory(theta[handle], theta.flat) and np.shares_memory(theta[name], theta.flat)
    theta.flat[:] = np.arange(layout.size)
    np.testing.assert_array_equal(theta["a.w"], [[0, 1, 2], [3, 4, 5]])


def test_views_do_not_overlap():
    layout, handles = layout_of(*EVERY)
    count = layout.init(Key(0), np.float64).zeros_like()
    for handle in handles.values():
        count[handle] += 1
    np.testing.assert_array_equal(count.flat, 1)


def test_a_gradient_adds_up_under_the_same_name():
    layout, handles = layout_of(*EVERY)
    theta = layout.init(Key(0), np.float32)
    grad, before = theta.zeros_like(), theta.flat.copy()
    for _ in range(2):
        grad[handles["a.b"]] += np.array([1, 2, 3], np.float32)
        grad["conv"] += np.ones((3, 3, 2, 1), np.float32)
    np.testing.assert_array_equal(grad["a.b"], [2, 4, 6])
    assert grad.flat.sum() == 12 + 36 and grad.flat.dtype == np.float32
    np.testing.assert_array_equal(theta.flat, before)


def test_assigning_writes_into_the_vector():
    layout, _ = layout_of(*EVERY)
    theta = layout.init(Key(0), np.float64)
    flat = theta.flat
    theta["gain"] = 4.0
    theta["a.w"] = np.ones((2, 3))
    rest = sum(theta[k].sum() for k in ("a.b", "conv", "last"))
    assert theta.flat is flat and flat.sum() == pytest.approx(4 + 6 + rest)
    with pytest.raises(ValueError):
        theta["a.w"] = np.ones((3, 2))


def test_the_first_values_are_the_named_draws():
    layout, handles = layout_of(*EVERY)
    theta = layout.init(Key(3), np.float64)
    for name, handle in handles.items():
        np.testing.assert_array_equal(theta[handle], Key(3).fold(name).normal(handle.shape))


def test_adding_a_layer_leaves_the_other_draws_alone():
    small = layout_of("a.w", "last")[0].init(Key(3))
    large = layout_of("a.b", "last", "conv", "a.w")[0].init(Key(3))
    for name in ("a.w", "last"):
        np.testing.assert_array_equal(small[name], large[name])


def test_another_seed_draws_other_values_and_the_same_seed_the_same():
    layout, _ = layout_of(*EVERY)
    np.testing.assert_array_equal(layout.init(Key(1)).flat, layout.init(Key(1)).flat)
    assert not np.any(layout.init(Key(1)).flat == layout.init(Key(2)).flat)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_vector_has_the_dtype_asked_for(dtype):
    theta = layout_of(*EVERY)[0].init(Key(0), dtype)
    assert theta.flat.dtype == theta["conv"].dtype == theta.zeros_like().flat.dtype == theta.copy().flat.dtype == dtype
    assert theta.astype(np.float64).flat.dtype == np.float64
    np.testing.assert_array_equal(theta.astype(np.float64).flat.astype(np.float32), theta.flat.astype(np.float32))


def test_copies_and_zeros_are_other_vectors_under_the_same_layout():
    theta = layout_of(*EVERY)[0].init(Key(0))
    for other in (theta.copy(), theta.zeros_like(), theta.with_flat(theta.flat.copy()), theta.astype(np.float64)):
        before = theta.flat.copy()
        other["conv"] = 9
        assert other.layout is theta.layout
        np.testing.assert_array_equal(theta.flat, before)
    assert not theta.zeros_like().flat.any()


def test_a_vector_of_another_size_is_refused():
    layout, _ = layout_of("a.w", "a.b")
    for shape in ((8,), (10,), (3, 3), (9, 1), ()):
        with pytest.raises(ValueError, match=r"the vector has shape .*, the layout needs \(9,\)"):
            Theta(layout, np.zeros(shape))
    with pytest.raises(ValueError, match="the layout needs"):
        layout.init(Key(0)).with_flat(np.zeros(8))


def test_two_layouts_are_equal_when_names_and_shapes_are():
    assert layout_of("a.w", "conv")[0].index() == layout_of("a.w", "conv", init=ones)[0].index()
    assert layout_of("a.w", "conv")[0].index() != layout_of("conv", "a.w")[0].index()
    assert layout_of("a.w", "a.b")[0].index() == [("a.w", (2, 3)), ("a.b", (3,))]


def test_a_name_is_added_once():
    layout, _ = layout_of("a.w")
    with pytest.raises(ValueError, match="'a.w' is already there"):
        layout.add("a.w", (1,), normal)
    assert layout.size == 6


def test_an_unknown_name_is_refused_with_the_names_that_exist():
    theta = layout_of("a.w", "a.b")[0].init(Key(0))
    for use in (lambda: theta["a.c"], lambda: theta.__setitem__("a.c", 1)):
        with pytest.raises(KeyError, match="no parameter 'a.c'; there are a.w, a.b"):
            use()


def test_a_layout_without_parameters_is_an_empty_vector():
    assert Layout().init(Key(0)).flat.shape == (0,)


def test_parameters_are_made_and_stay_on_the_chosen_backend(monkeypatch):
    layout, handles = layout_of(*EVERY)
    here = layout.init(Key(2))
    monkeypatch.setattr(backend, "_chosen", standin.xp)
    there = layout.init(Key(2))
    backend.use("numpy")                                           # zeros_like follows the vector, not the choice
    grad = there.zeros_like()
    grad[handles["conv"]] += there["conv"]
    for theta in (there, grad, there.copy(), there.astype(np.float64)):
        assert isinstance(theta.flat, standin.StandIn) and isinstance(theta["conv"], standin.StandIn)
    np.testing.assert_array_equal(there.flat.get(), here.flat)
    np.testing.assert_array_equal(grad["conv"].get(), here["conv"])
