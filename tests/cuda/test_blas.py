"""cuda/blas.py asks cuBLAS for the right product: a library made from cuBLAS's manual answers (devices.Cublas)."""
import itertools
import types

import numpy as np
import pytest
import standin
from devices import Cublas, blas, device

from refdiff import backend, cuda
from refdiff.cuda.blas import BlasError, lies


def product(a, b, out, tf32=False, library=None):
    made = blas(library or Cublas())
    made.product(a, b, out, 0, tf32, lambda array: array.ctypes.data)
    return made.routines


def views(shape, rng, dtype):
    """A matrix, or a batch of them, in every way that memory may hold it."""
    m = rng.standard_normal(shape).astype(dtype)
    wide = np.full((*shape[:-2], shape[-2] + 2, shape[-1] + 3), np.nan, dtype)
    inside = wide[..., 1:-1, 2:-1]
    inside[...] = m
    return {"rows": m, "columns": np.swapaxes(np.swapaxes(m, -1, -2).copy(), -1, -2), "inside": inside,
            "inside columns": np.swapaxes(np.swapaxes(wide, -1, -2).copy(), -1, -2)[..., 1:-1, 2:-1],
            "reversed": m[..., ::-1, ::-1].copy()[..., ::-1, ::-1], "holes": np.repeat(m, 2, -1)[..., ::2]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (3,), (1,), (2, 3), (2, 1)])
@pytest.mark.parametrize("m, k, n", [(4, 5, 3), (1, 5, 3), (4, 1, 3), (4, 5, 1), (1, 1, 1), (7, 2, 6)])
def test_products_of_matrices_however_they_lie(m, k, n, batch, dtype):
    rng = np.random.default_rng([m, k, n])
    for (how_a, a), (how_b, b) in itertools.product(views((*batch, m, k), rng, dtype).items(),
                                                    views((*batch, k, n), rng, dtype).items()):
        out = np.full((*batch, m, n), np.nan, dtype)
        library = product(a, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13,
                                   err_msg=f"{how_a} times {how_b}")
        assert set(library.compute_types) == {68 if dtype == np.float32 else 70}


def test_transposed_matrices_and_heads_are_read_where_they_lie():
    qkv = np.zeros((2, 9, 3, 4, 8))                                              # (n, t, 3, heads, d)
    q = qkv[:, :, 0].transpose(0, 2, 1, 3)                                       # (n, heads, t, d)
    assert lies(q) == (0, 96) and lies(q.swapaxes(2, 3)) == (1, 96)
    assert lies(np.zeros((5, 7)).T) == (1, 7) and lies(np.zeros((5, 7))) == (0, 7)
    assert lies(np.zeros((5, 14))[:, ::2]) is None and lies(np.zeros((5, 7))[::-1, ::-1]) is None


def test_tf32_is_asked_for_by_name_and_for_float32_alone():
    a, out = np.ones((3, 3), np.float32), np.empty((3, 3), np.float32)
    assert product(a, a, out, tf32=True).compute_types == [77]
    assert product(a, a, out).compute_types == [68]
    wide, out = np.ones((3, 3)), np.empty((3, 3))
    assert product(wide, wide, out, tf32=True).compute_types == [70]


def test_products_over_nothing_are_zero_or_nothing():
    out = np.full((2, 3), np.nan)
    product(np.ones((2, 0)), np.ones((0, 3)), out)
    np.testing.assert_array_equal(out, 0)
    assert product(np.ones((0, 4)), np.ones((4, 3)), np.empty((0, 3))).compute_types == []


def test_a_refusal_of_the_library_is_an_error():
    library = Cublas()
    library.cublasGemmEx = lambda *arguments: 13
    with pytest.raises(BlasError, match="cublasGemmEx: cuBLAS returned status 13"):
        product(np.ones((2, 2)), np.ones((2, 2)), np.empty((2, 2)), library=library)


def test_the_stream_is_set_when_it_changes_and_the_workspace_after_it():
    seen = []

    class Watched(Cublas):
        def cublasSetStream_v2(self, handle, stream):
            seen.append(("stream", stream.value))
            return 0

        def cublasSetWorkspace_v2(self, handle, pointer, size):
            seen.append(("workspace", size.value))
            return 0
    made, a, out = blas(Watched()), np.ones((2, 2)), np.empty((2, 2))
    for stream in (5, 5, 6, 5):
        made.product(a, a, out, stream, False, lambda array: array.ctypes.data)
    assert seen == [step for stream in (5, 6, 5) for step in (("stream", stream), ("workspace", 32 << 20))]


def test_a_product_on_the_host_is_the_arrays_own():
    a, b = np.ones((2, 3)), np.ones((3, 4))
    np.testing.assert_array_equal(backend.product(a, b), a @ b)
    with device() as there:
        got = backend.product(standin.xp.asarray(a), standin.xp.asarray(b))
        assert there.launched == ["product"]
        for other in (np.float32, complex):                                       # of two types: the module's own
            mixed = backend.product(standin.xp.asarray(a), standin.xp.asarray(b, other))
            assert mixed.dtype == np.result_type(a, other) and there.launched == ["product"]
    np.testing.assert_array_equal(got.get(), a @ b)


def test_tf32_is_refused_on_the_host_and_by_another_name(monkeypatch):
    with pytest.raises(backend.BackendError, match="matmul 'tf32' is for a device"):
        backend.use("numpy", matmul="tf32")
    with pytest.raises(backend.BackendError, match="matmul: got 'fp16', wanted one of float32, tf32"):
        backend.use("numpy", matmul="fp16")
    monkeypatch.setenv("REFDIFF_MATMUL", "tf32")
    assert backend.use("numpy") is np                                            # the variable speaks to devices
    monkeypatch.setattr(backend, "_load", lambda name: standin.xp)
    with device() as there:
        backend.use("cupy")
        assert there.matmul == "tf32"
        backend.use("cupy", matmul="float32")
        assert there.matmul == "float32"


# ---- the real device's half, against a made module

def test_a_kernel_is_compiled_once_and_launched_with_numbers_of_its_own_types():
    made, launched = [], []

    class RawModule:
        def __init__(self, code, options):
            made.append((code, options))

        def get_function(self, kernel):
            return lambda grid, block, arguments: launched.append((kernel, grid, block, arguments))
    fake = types.SimpleNamespace(RawModule=RawModule)
    there, x = backend.Device(fake), np.ones((4, 4), np.float32)
    for _ in range(2):
        parameters = cuda.kernels(cuda.source("softmax", np.float32))["softmax_forward"]
        there.launch("softmax", "softmax_forward", x.dtype, 1, 256,
                     cuda.arguments("softmax_forward", parameters, x.dtype, (x, x, 4, 4, 1.0)))
    assert made == [(cuda.source("softmax", np.float32), ("--std=c++17",))]
    assert len(launched) == 2 and launched[0][:3] == ("softmax_forward", (1,), (256,))
    assert [getattr(a, "dtype", None) for a in launched[0][3][2:]] == [np.int64, np.int32, np.float32]


def test_a_missing_cublas_says_what_to_install():
    runtime = types.SimpleNamespace(runtimeGetVersion=lambda: 99010)
    fake = types.SimpleNamespace(RawModule=None, cuda=types.SimpleNamespace(
        runtime=runtime, alloc=None, device=types.SimpleNamespace(get_cublas_handle=lambda: 1)))
    with pytest.raises(backend.BackendError, match=r"99\S* cannot be loaded .*pip install nvidia-cublas"):
        backend.Device(fake).product(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2)))
