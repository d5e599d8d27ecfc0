"""Parts of a batch side by side, one BLAS thread each: in threads, or in processes that share memory.

Parts of a batch use the cores better than BLAS threads over the whole: the elementwise half of a network runs in
parallel too. Threads of Python share one interpreter, though, and wait for it between any two operations, which costs
more than the operations where these are small. So what runs many times, a training step or a denoiser, is a Team: it
forks once, and from then on sends its members nothing but numbers. Arrays that change lie in memory of `shared`.
The parts depend on the number of threads alone, so a result has the same bits for the same number, either way.
"""
import ctypes
import json
import math
import mmap
import os
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pipe
from numbers import Integral

import numpy as np
import threadpoolctl

from . import backend

PATIENCE = 1e-3                     # seconds to look for a message before sleeping until it comes
MOST = 1024                         # threads, whatever the cores: a run may go on where there are fewer of those
END = b"!"                          # what dismisses a member: no request, since those are numbers of 8 bytes
# Kinds of errors that are raised in the first as in a member: those that can be made of a message.
KEPT = {kind.__name__: kind for kind in (ValueError, OSError, FloatingPointError, MemoryError, KeyError, IndexError,
                                         TypeError)}


def slices(n, parts):
    """At most `parts` slices of 0..n-1, in order, whose lengths differ by one at most."""
    parts = max(1, min(parts, n))
    ends = [n * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(ends, ends[1:])]


def keep_freed_memory():
    """Ask glibc's malloc to keep what is freed (mallopt): a training step otherwise pays for fresh pages every time.

    Arrays above 128 KiB come from the kernel, zeroed page by page, and go back to it when they are freed. Threads that
    start after this share one arena: what one has freed serves the other. Another C library is left as it is.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8     # of malloc.h
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 512 << 20)
        libc.mallopt(M_TOP_PAD, 64 << 20)
        libc.mallopt(M_ARENA_MAX, 1)
    except (AttributeError, OSError, TypeError):
        pass


def chosen():
    """What REFDIFF_PARALLEL says: "threads", "processes", or "" for processes wherever they can be."""
    choice = os.environ.get("REFDIFF_PARALLEL", "")
    if choice not in ("", "threads", "processes"):
        raise ValueError(f"REFDIFF_PARALLEL is {choice!r}, wanted threads or processes; or leave it away")
    return choice


def may_fork():
    """Whether teams are processes: on Linux, with arrays of the host, unless REFDIFF_PARALLEL=threads."""
    return chosen() != "threads" and sys.platform == "linux" and backend.name() == "numpy"


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """`with Workers(2) as workers: workers.map(f, items)`. threads = 0: one per core, or one for a device."""

    def __init__(self, threads=0):
        if not isinstance(threads, Integral) or not 0 <= threads <= MOST:
            raise ValueError(f"threads is {threads}, wanted a whole number from 1 to {MOST}, or 0 for one per core")
        self.threads = int(threads) or (cores() if backend.name() == "numpy" else 1)
        self.processes = may_fork() and self.threads > 1
        self._teams = None                                                      # until `with`, and after it

    def __enter__(self):
        keep_freed_memory()
        self._blas = threadpoolctl.threadpool_limits(1, "blas")
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None     # starts threads when first used
        self._teams, self._owner = weakref.WeakSet(), os.getpid()
        return self

    def __exit__(self, *error):
        try:
            for team in list(self._teams):
                team.close()
        finally:                                                                # of a second Ctrl-C too
            self._teams = None
            try:
                if self._pool:
                    self._pool.shutdown()
            finally:
                self._blas.restore_original_limits()

    def map(self, function, items):
        """[function(item) for item in items], side by side in threads; one by one in a member, which has none."""
        self._check()
        threads = self._pool and self._owner == os.getpid()
        return list(self._pool.map(function, items) if threads else map(function, items))

    def shared(self, x):
        """A copy of the array x that every member of a team sees and may write; x itself where none forks."""
        if not self.processes:
            return x
        copy = self.zeros(x.shape, x.dtype)
        copy[...] = x
        return copy

    def zeros(self, shape, dtype):
        """Zeros that every member of a team sees and may write; memory is taken where they are written."""
        if not self.processes:
            return backend.xp().zeros(shape, dtype)
        size = math.prod(shape)
        return np.frombuffer(mmap.mmap(-1, max(size * np.dtype(dtype).itemsize, 1)), dtype, size).reshape(shape)

    def team(self, function, members):
        """The Team of function(i, *numbers) -> number for i in 0..members-1, as long as these Workers live at most."""
        self._check()
        team = Team(function, members, self.processes, self.map)
        self._teams.add(team)
        return team

    def _check(self):
        if self._teams is None:
            raise RuntimeError("these Workers are closed: what runs by them has to run inside their `with`")


class MemberError(RuntimeError):
    """A process of a team died, or failed with an error that is none of KEPT; the cause of the latter is its traceback.
    """


class Team:
    """team(*numbers) -> [function(i, *numbers) for i in 0..members-1], side by side.

    In processes the members but the first are copies of this one, made now: they see later what lies in `shared` memory
    and no other change, and nothing but the number comes back. An error is raised here: one of KEPT as that kind, with
    its message, any other as a MemberError; a member that died is one.
    """

    def __init__(self, function, members, processes, threads):
        self.function, self.members, self._threads = function, members, threads
        self._others, self._patience = [], PATIENCE if members <= cores() else 0
        self.close = weakref.finalize(self, _dismiss, self._others, os.getpid())
        for i in range(1, members if processes else 1):
            self._fork(i)
        self._forked = bool(self._others)

    def __call__(self, *numbers):
        if not self._forked:
            return self._threads(lambda i: self.function(i, *numbers), range(self.members))
        if not self._others:
            raise RuntimeError("this team was dismissed: its Workers are closed, or an earlier call failed")
        try:
            for child, pipe in self._others:
                with _living(child):
                    pipe.send_bytes(array("d", numbers).tobytes())
            results = [self.function(0, *numbers)]
            for child, pipe in self._others:
                with _living(child):
                    answer = self._receive(pipe)
                if len(answer) != 8:
                    _raise(child, *json.loads(answer))
                results.append(array("d", answer)[0])
        except BaseException:
            self.close()                                                        # answers that are due would mix
            raise
        return results

    def _fork(self, i):
        """Make member i. Ctrl-C waits meanwhile: in the copy it would unwind this process's stack a second time."""
        here, there = Pipe()
        with _ctrl_c_waits() as mask:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)             # of threads: none holds a lock of ours
                child = os.fork()
            if child == 0:
                self._serve(i, here, there, mask)
            self._others.append((child, here))
            there.close()

    def _serve(self, i, other_end, pipe, mask):
        """The life of a member: numbers in, a number out, until it is dismissed or the first has gone."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)                        # Ctrl-C is for the first
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            other_end.close()
            while (request := self._receive(pipe)) != END:
                pipe.send_bytes(self._answer(i, request))
        except (EOFError, OSError):
            pass
        finally:
            os._exit(0)

    def _receive(self, pipe):
        """The next message. Calls follow one another closely, and a process that went to sleep wakes late: by 50 us, on
        a busy virtual machine by many times that. So it looks a while before, and lets others have the core in between.
        Not where there are more members than cores.
        """
        end = time.perf_counter() + self._patience
        while not pipe.poll() and time.perf_counter() < end:
            os.sched_yield()
        return pipe.recv_bytes()

    def _answer(self, i, request):
        """8 bytes, or the name of an error's kind, its message and its traceback, as JSON, which is longer."""
        try:
            return array("d", [self.function(i, *array("d", request))]).tobytes()
        except BaseException as error:                                          # sys.exit too
            kind = next((kind for kind in type(error).__mro__ if KEPT.get(kind.__name__) is kind), type(error))
            try:
                said = error.args[0] if isinstance(error, KeyError) and error.args else error   # str() would quote it
                return json.dumps([kind.__name__, str(said), traceback.format_exc()]).encode()
            except Exception:                                                   # its own str() fails, say
                return json.dumps([kind.__name__, "", "no traceback could be written"]).encode()


@contextmanager
def _ctrl_c_waits():
    """What Ctrl-C does, it does after this. Yields the mask of signals to go back to.

    The mask is for the copy, and holds for this thread alone: another one may be given the signal, and Python would run
    its handler in the main thread even so. There a handler that only notes it stands in, unless the one there is none
    of Python's, which it could not put back.
    """
    pressed = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGINT)
    swapped = handler is not None and threading.current_thread() is threading.main_thread()
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if swapped:
            signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
        yield mask
    finally:
        try:
            if swapped:
                signal.signal(signal.SIGINT, handler)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if pressed:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _living(child):
    """While a member is spoken to: one whose pipe has ended has died."""
    try:
        yield
    except (EOFError, ConnectionError):
        raise MemberError(f"a process of this run (number {child}) died; the system may be out of memory: use fewer "
                          "threads, or less at a time") from None


def _raise(child, kind, said, trace):
    """The error of a member, here."""
    trace = MemberError(f"in the process number {child}:\n{trace}")
    if kind in KEPT:
        raise KEPT[kind](said) from trace
    lines = said.strip().splitlines()                                           # the others are in the cause
    raise MemberError(": ".join([f"a process of this run (number {child}) failed", kind, *lines[:1]])) from trace


def by_rows(function, workers, rows=None):
    """x, *numbers -> y[n, ...] of function(x[row], row, *numbers), at most `rows` rows at a time, over all workers.

    rows None: 64, or as many as hold 32K numbers. x is of floats; y has its shape and dtype, whatever the function's.
    Numbers may be arrays, which no other process is sent: then, and where none forks, threads do it. A call from
    another thread waits for the one before it.
    """
    threads, kept, one_call = workers.threads if workers else 1, {}, threading.Lock()

    def fork(x, parts):
        here, y = workers.shared(x), workers.shared(x)

        def work(i, *numbers):
            for row in parts[int(i)::threads]:
                y[row] = function(here[row], row, *numbers)
            return 0.0

        return here, y, workers.team(work, min(threads, len(parts)))

    def apply(x, *numbers):
        if x.dtype.kind not in "fc":
            raise ValueError(f"by_rows: x is of dtype {x.dtype}, wanted floats, as the result is of x's dtype")
        most = rows or max(64, (1 << 15) // max(1, math.prod(x.shape[1:])))
        parts = slices(len(x), max(threads, -(-len(x) // most)))
        sent = all(isinstance(a, (int, float)) for a in numbers)
        if sent:
            numbers = [float(a) for a in numbers]                               # a np.float64 has other rules of type
        if threads == 1 or not workers.processes or not sent:
            run = workers.map if workers else map
            found = backend.of(x=x).concatenate(list(run(lambda row: function(x[row], row, *numbers), parts)))
            return found.astype(x.dtype, copy=False)
        with one_call:
            if kept.get("of") != (x.shape, x.dtype) or not kept["team"][2].close.alive:
                kept.update(of=(x.shape, x.dtype), team=fork(x, parts))
            here, y, team = kept["team"]
            here[...] = x
            team(*numbers)
            return y.copy()

    return apply


def _dismiss(others, owner):
    """Ask the processes to end, all of them before the first is waited for, and wait until they have gone."""
    if os.getpid() != owner:
        return
    children = []
    while others:
        child, pipe = others.pop()
        children.append(child)
        try:
            pipe.send_bytes(END)
        except OSError:
            pass                                                                # it has gone already
        pipe.close()
    for child in children:
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            pass                                                                # where SIGCHLD is ignored, none waits
