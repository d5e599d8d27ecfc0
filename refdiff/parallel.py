"""Python threads over parts of a batch, one BLAS thread each.

NumPy releases the interpreter while it computes, so two threads over halves of a batch use two cores
better than two BLAS threads over the whole: the elementwise half of a network runs in parallel too.
The parts depend on the number of threads alone, so a result has the same bits for the same number.
"""
import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

import threadpoolctl

from . import backend


def slices(n, parts):
    """At most `parts` slices of 0..n-1, in order, whose lengths differ by one at most."""
    parts = max(1, min(parts, n))
    ends = [n * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(ends, ends[1:])]


def keep_freed_memory():
    """Ask glibc's malloc to keep what is freed (mallopt): a training step otherwise pays for fresh pages every time.

    Arrays above 128 KiB come from the kernel, zeroed page by page, and go back to it when they are freed. Another C
    library is left as it is.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3                  # of malloc.h
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 512 << 20)
        libc.mallopt(M_TOP_PAD, 64 << 20)
    except (AttributeError, OSError, TypeError):
        pass


class Workers:
    """A pool: `with Workers(2) as workers: workers.map(f, items)`. threads = 0: one per core, or one for a device."""

    def __init__(self, threads=0):
        if threads < 0:
            raise ValueError(f"threads is {threads}, wanted a number >= 1, or 0 for one per core")
        self.threads = threads or (os.cpu_count() or 1 if backend.name() == "numpy" else 1)

    def __enter__(self):
        keep_freed_memory()
        self._blas = threadpoolctl.threadpool_limits(1, "blas")
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        return self

    def __exit__(self, *error):
        if self._pool:
            self._pool.shutdown()
        self._blas.restore_original_limits()

    def map(self, function, items):
        """[function(item) for item in items], side by side."""
        return list(self._pool.map(function, items) if self._pool else map(function, items))
