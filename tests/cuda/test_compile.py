"""Every kernel compiles for the GPUs that are in use, by the compiler of the toolkit and by the one that users have.

Nothing here runs a kernel: test_device_routes.py does, on this processor.
"""
import ctypes
import ctypes.util
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from refdiff import cuda

NVCC = shutil.which("nvcc")
GPUS = ("80", "90", "100")                          # A100, H100, B200
BOTH = [(name, dtype) for name in cuda.SOURCES for dtype in (np.float32, np.float64)]


def offered():
    """Those of GPUS that this nvcc knows."""
    listed = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True).stdout
    return [gpu for gpu in GPUS if f"compute_{gpu}" in listed.split()]


def nvrtc():
    """The library that compiles at run time, from the toolkit or from its wheel; None where there is neither."""
    wheels = [Path(path) for spec in [importlib.util.find_spec("nvidia")] if spec
              for path in spec.submodule_search_locations]
    found = [str(path) for folder in wheels for path in sorted(folder.glob("**/libnvrtc.so.*"))]
    for path in found + [ctypes.util.find_library("nvrtc")]:
        if path and "builtins" not in path:
            return ctypes.CDLL(path)
    return None


def everything(dtype):
    """All sources as one text: a compiler is started once."""
    first, *others = cuda.SOURCES
    return cuda.source(first, dtype) + "".join(
        f'#line 1 "{name}.cu"\n' + (cuda.FOLDER / f"{name}.cu").read_text() for name in others)


@pytest.mark.skipif(not NVCC, reason="no nvcc here: the CUDA sources are not compiled")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nvcc_compiles_every_source_without_a_warning(dtype, tmp_path):
    gpus, path = offered(), tmp_path / "all.cu"
    assert {"80", "90"} & set(gpus)
    path.write_text(everything(dtype))
    made = subprocess.run([NVCC, "-std=c++17", "-Werror", "all-warnings", "-Xptxas", "-v", "-fatbin", "--threads", "2",
                           *(f"-gencode=arch=compute_{g},code=sm_{g}" for g in gpus), "-o", path.with_suffix(".fatbin"),
                           path], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    compiled = set(re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", made.stderr))
    kernels = {kernel for name in cuda.SOURCES for kernel in cuda.kernels(cuda.source(name, dtype))}
    assert compiled == {(kernel, gpu) for kernel in kernels for gpu in gpus}
    assert not re.search(r"[1-9]\d* bytes (stack frame|spill)", made.stderr), f"local memory is used:\n{made.stderr}"


def doubles(ptx):
    """The instructions on doubles in each kernel of a PTX text."""
    kernels = re.split(r"\.entry (\w+)\(", ptx)[1:]
    return {name: re.findall(r"\b(?:add|sub|mul|div|fma|sqrt|ex2|rcp|neg|abs|cvt)\.\S*f64\S*", body)
            for name, body in zip(kernels[::2], kernels[1::2])}


@pytest.mark.skipif(not NVCC, reason="no nvcc here: the CUDA sources are not compiled")
def test_float32_kernels_compute_nothing_in_double(tmp_path):
    """One forgotten literal makes a chain run at a 64th of the speed; the optimiser rounds its numbers once."""
    path = tmp_path / "all.cu"
    path.write_text(everything(np.float32))
    subprocess.run([NVCC, "-std=c++17", "-arch=compute_90", "-ptx", "-o", path.with_suffix(".ptx"), path], check=True)
    found = doubles(path.with_suffix(".ptx").read_text())
    assert {"adamw", "windows", "norm_silu_backward"} < set(found)
    for kernel, instructions in found.items():
        per_entry = [i for i in instructions if "adamw" not in kernel or not i.startswith(("cvt", "sub"))]
        assert not per_entry, f"{kernel}: {per_entry}"


def test_a_double_in_a_float32_kernel_would_be_found():
    assert doubles(".entry a(\n cvt.f64.f32 %fd1; mul.f64 %fd2;\n.entry b(\n ld.f64 %fd1") == {
        "a": ["cvt.f64.f32", "mul.f64"], "b": []}


@pytest.mark.parametrize("name, dtype", BOTH)
def test_the_compiler_that_users_have_takes_every_source(name, dtype):
    library = nvrtc()
    if library is None:
        pytest.skip("no NVRTC here (pip install nvidia-cuda-nvrtc)")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text = cuda.source(name, dtype)
    assert not library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None)
    options = (ctypes.c_char_p * 2)(b"--std=c++17", b"--gpu-architecture=sm_80")
    status = library.nvrtcCompileProgram(program, 2, options)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    assert not library.nvrtcGetCUBINSize(program, ctypes.byref(size)) and size.value > 1000
    library.nvrtcDestroyProgram(ctypes.byref(program))
