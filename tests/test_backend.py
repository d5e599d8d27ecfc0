"""The switch between NumPy and CuPy: what it chooses, what it refuses, and what it says then."""
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import standin

from refdiff import backend


def in_a_new_process(code, **environment):
    """(exit status, output, error output) of a fresh interpreter."""
    env = {k: v for k, v in os.environ.items() if k != "REFDIFF_BACKEND"}
    root = os.path.dirname(os.path.dirname(os.path.abspath(backend.__file__)))
    env["PYTHONPATH"] = os.pathsep.join([root, env.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env={**env, **environment}, capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr


def missing_cupy():
    try:
        backend._load("cupy")
    except backend.BackendError as error:
        return str(error)
    return None


PRINT_NAME = "from refdiff import backend; print(backend.name(), type(backend.asarray([1.0])).__module__)"


def test_numpy_is_the_default():
    assert in_a_new_process(PRINT_NAME)[:2] == (0, "numpy numpy")


def test_the_environment_variable_chooses():
    assert in_a_new_process(PRINT_NAME, REFDIFF_BACKEND="numpy")[:2] == (0, "numpy numpy")
    status, _, error = in_a_new_process(PRINT_NAME, REFDIFF_BACKEND="jax")
    assert status == 1 and "BackendError: backend: got 'jax', wanted one of numpy, cupy" in error


def test_use_goes_before_the_environment_variable():
    code = "from refdiff import backend; backend.use('numpy'); print(backend.name())"
    assert in_a_new_process(code, REFDIFF_BACKEND="jax")[:2] == (0, "numpy")


@pytest.mark.skipif(missing_cupy() is None, reason="CuPy works here")
def test_cupy_from_the_environment_fails_with_what_to_do_where_it_cannot_be_had():
    status, out, error = in_a_new_process(PRINT_NAME, REFDIFF_BACKEND="cupy")
    assert status == 1 and not out and "BackendError: backend 'cupy': " in error and "or use 'numpy'" in error


@pytest.mark.parametrize("name", ["torch", "NumPy", "", None])
def test_an_unknown_backend_is_refused_by_name(name):
    with pytest.raises(backend.BackendError, match=f"got {name!r}, wanted one of numpy, cupy"):
        backend.use(name)


def test_a_refused_backend_leaves_the_choice_alone():
    backend.use("numpy")
    with pytest.raises(backend.BackendError):
        backend.use("torch")
    assert backend.xp() is np and backend.name() == "numpy"


def test_cupy_without_an_installation_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)                 # makes `import cupy` raise ImportError
    with pytest.raises(backend.BackendError, match=r"CuPy is not installed .*pip install 'refdiff\[gpu\]'.*'numpy'"):
        backend.use("cupy")


class DriverError(Exception):
    pass


def fake_cupy(count):
    """A CuPy whose driver reports `count()` devices."""
    cupy, cupyx = types.ModuleType("cupy"), types.ModuleType("cupyx")
    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=DriverError)
    cupy.cuda, cupy.ndarray = types.SimpleNamespace(runtime=runtime), type("ndarray", (), {})
    cupyx.scipy = types.ModuleType("cupyx.scipy")
    cupyx.scipy.special = types.ModuleType("cupyx.scipy.special")
    return {"cupy": cupy, "cupyx": cupyx, "cupyx.scipy": cupyx.scipy, "cupyx.scipy.special": cupyx.scipy.special}


def no_driver():
    raise DriverError("cudaErrorNoDevice: no CUDA-capable device is detected")


@pytest.mark.parametrize("count, reason", [(no_driver, "no CUDA-capable device is detected"),
                                           (lambda: 0, "the driver lists no device")])
def test_cupy_without_a_gpu_says_so(monkeypatch, count, reason):
    for name, module in fake_cupy(count).items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(backend.BackendError, match=rf"no CUDA device is usable here \(.*{reason}\).*driver.*'numpy'"):
        backend.use("cupy")


def test_cupy_with_a_gpu_is_chosen_and_recognised(monkeypatch):
    modules = fake_cupy(lambda: 1)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(backend, "_MODULES", dict(backend._MODULES))
    monkeypatch.setattr(backend, "_SPECIAL", dict(backend._SPECIAL))
    cupy = modules["cupy"]
    assert backend.use("cupy") is cupy and backend.xp() is cupy and backend.name() == "cupy"
    assert backend.of(x=cupy.ndarray()) is cupy
    with pytest.raises(backend.BackendError, match="x is on cupy, w is on numpy"):
        backend.of(x=cupy.ndarray(), w=np.zeros(2))


def test_of_finds_the_module_that_the_arrays_live_in_whatever_is_chosen():
    backend.use("numpy")
    x = standin.xp.asarray([1.0, 2.0])
    assert backend.of(x=np.zeros(2)) is np and backend.of(x=np.float64(1)[...]) is np
    assert backend.of(x=x) is standin.xp and backend.of(x=x, w=x) is standin.xp


def test_of_sees_subclasses_of_an_array_type():
    class Tagged(np.ndarray):
        pass
    assert backend.of(x=np.zeros(2).view(Tagged)) is np


def test_arrays_of_two_backends_in_one_call_are_named_with_their_places():
    x, w = standin.xp.asarray([1.0]), np.zeros(1)
    with pytest.raises(backend.BackendError) as caught:
        backend.of(x=x, w=w, b=x)
    assert "x is on standin, w is on numpy, b is on standin" in str(caught.value)
    assert "backend.asarray" in str(caught.value) and "backend.to_host" in str(caught.value)


@pytest.mark.parametrize("value", [[1.0], 1.0, None, "x"])
def test_what_is_no_array_is_refused_with_its_name_and_type(value):
    with pytest.raises(backend.BackendError, match=f"w is a {type(value).__name__}, wanted an array of numpy"):
        backend.of(x=np.zeros(1), w=value)


def test_asarray_and_to_host_move_between_backends(monkeypatch):
    backend.use("numpy")
    values = np.arange(6.0).reshape(2, 3)
    there = standin.xp.asarray(values)
    back = backend.asarray(there)                                  # chosen is numpy: brought to the host
    assert type(back) is np.ndarray and np.array_equal(back, values)
    assert backend.to_host(values) is values and np.array_equal(backend.to_host(there), values)
    monkeypatch.setattr(backend, "_chosen", standin.xp)
    assert isinstance(backend.asarray(values), standin.StandIn) and backend.asarray(there) is there
    assert backend.asarray([1, 2], dtype=np.float32).dtype == np.float32


def test_erf_is_computed_where_x_lives():
    x = np.array([-1.0, 0.0, 0.5])
    there = backend.erf(standin.xp.asarray(x))
    assert isinstance(there, standin.StandIn)
    np.testing.assert_array_equal(there.get(), backend.erf(x))
    np.testing.assert_allclose(backend.erf(x), [-0.8427007929497148, 0, 0.5204998778130465], rtol=1e-15)


@pytest.mark.parametrize("meet", [lambda d, h: d + h, lambda d, h: h + d, lambda d, h: h @ d, lambda d, h: np.exp(d),
                                  lambda d, h: np.concatenate([d, h]), lambda d, h: np.asarray(d),
                                  lambda d, h: standin.xp.concatenate([d, h]), lambda d, h: d[h.astype(int)],
                                  lambda d, h: h.__setitem__(slice(None), d),
                                  lambda d, h: d.__setitem__(slice(None), h),
                                  lambda d, h: d.__iadd__(h), lambda d, h: standin.xp.exp(d, out=h)])
def test_the_stand_in_refuses_host_arrays_and_host_functions(meet):
    with pytest.raises(TypeError):
        meet(standin.xp.asarray([1.0, 2.0]), np.array([0.0, 1.0]))


def test_the_stand_in_takes_scalars_and_returns_device_scalars():
    d = standin.xp.asarray([1.0, 2.0])
    for result in (2 * d, d * np.float64(2), d + np.array(1.0), d.sum(), standin.xp.zeros(3), d[0], d.real, d.T):
        assert isinstance(result, standin.StandIn)
    assert float(d.sum()) == 3.0 and int(d.max()) == 2
