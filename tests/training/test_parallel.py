"""Parts side by side: the same numbers in threads and in processes, and no process left behind."""
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

from refdiff import parallel
from refdiff.parallel import MemberError, Workers, by_rows, may_fork, slices
from refdiff.samplers.state import NotFinite

processes = pytest.mark.skipif(not may_fork(), reason="no processes here")
KINDS = ["threads", pytest.param("processes", marks=processes)]


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setenv("REFDIFF_PARALLEL", request.param)
    return request.param


def gone(child):
    """Whether a process has ended and was waited for."""
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return True
    return False


def test_slices_are_in_order_whole_and_even():
    for n in range(1, 30):
        for parts in range(1, 12):
            found = slices(n, parts)
            assert [i for s in found for i in range(s.start, s.stop)] == list(range(n))
            lengths = [s.stop - s.start for s in found]
            assert len(found) == min(n, parts) and max(lengths) - min(lengths) <= 1


def test_a_team_answers_in_order_and_writes_where_it_may(kind):
    with Workers(3) as workers:
        out, unshared = workers.shared(np.zeros(3)), np.zeros(3)

        def work(i, a, b):
            out[i], unshared[i] = a + i, a
            return 10 * b + i

        team = workers.team(work, 3)
        for call in range(5):
            assert team(call, 0.1) == [1.0 + i for i in range(3)]
            np.testing.assert_array_equal(out, call + np.arange(3))
        assert unshared[0] == 4 and (kind == "threads" or not unshared[1:].any())
        assert workers.processes == (kind == "processes")


@pytest.mark.parametrize("n, rows", [(7, 3), (64, 64), (1, 5), (10, 1), (300, None)])
def test_rows_are_each_given_once_and_come_back_in_place(n, rows, kind):
    x = np.random.default_rng(0).standard_normal((n, 2, 3)).astype(np.float32)

    def double(part, row, t, scale):
        assert len(part) == row.stop - row.start and (rows is None or len(part) <= rows)
        scale = scale if np.ndim(scale) == 0 else scale[row][:, None, None]
        return np.asarray(scale, np.float32) * part + np.float32(t)

    with Workers(2) as workers:
        apply = by_rows(double, workers, rows)
        for again in range(3):
            y = apply(x + again, 1.0, 2.0)
            np.testing.assert_array_equal(y, 2 * (x + again) + 1)
        kept = y.copy()
        apply(x, 0.0, 0.0)
        np.testing.assert_array_equal(y, kept, err_msg="a later call wrote into an earlier answer")
        np.testing.assert_array_equal(apply(x[:1], 0.0, 3.0), 3 * x[:1])                    # another shape
        each = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(apply(x, 0.0, each), each[:, None, None] * x)
    np.testing.assert_array_equal(by_rows(double, None, rows)(x, 1.0, 2.0), 2 * x + 1)


def test_an_error_is_raised_here_from_either_part(kind):
    with Workers(2) as workers:
        for bad in (0, 1):
            def work(i, bad=bad):
                if i == bad:
                    raise ValueError(f"part {i} will not")
                return 0.0
            team = workers.team(work, 2)
            with pytest.raises(ValueError, match=f"^part {bad} will not$"):
                team()


class OwnKind(ValueError):
    """As refdiff's own errors are: a kind of one that Python has."""


@pytest.mark.parametrize("error, kind_of_it", [
    (ValueError("lower it"), ValueError), (OwnKind("by half"), ValueError), (NotFinite("step 3"), FloatingPointError),
    (UnicodeDecodeError("utf-8", b"a", 0, 1, "why"), ValueError), (KeyError("no 'w'"), KeyError),
    (FileNotFoundError(2, "No such file", "a.h5"), OSError), (MemoryError("4 GiB"), MemoryError),
    (IndexError("7"), IndexError), (TypeError("of str"), TypeError)])
@processes
def test_an_error_of_a_member_is_of_the_same_kind_and_says_the_same(error, kind_of_it):
    def work_of_a_part(i):
        if i:
            raise error
        return 0.0

    with Workers(2) as workers:
        with pytest.raises(kind_of_it) as raised:
            workers.team(work_of_a_part, 2)()
    assert type(raised.value) is kind_of_it and str(raised.value) == str(error)
    assert "work_of_a_part" in str(raised.value.__cause__)


@pytest.mark.parametrize("error, said", [(SystemExit(3), "SystemExit: 3"), (KeyboardInterrupt(), "KeyboardInterrupt"),
                                         (RuntimeError("odd"), "RuntimeError: odd"),
                                         (RuntimeError("\nodd\nat work_of_a_part"), "RuntimeError: odd")])
@processes
def test_any_other_error_of_a_member_is_one_line_with_its_traceback_as_the_cause(error, said):
    def work_of_a_part(i):
        if i:
            raise error
        return 0.0

    with Workers(2) as workers:
        team = workers.team(work_of_a_part, 2)
        (child, _), = team._others
        with pytest.raises(MemberError) as raised:
            team()
    assert str(raised.value) == f"a process of this run (number {child}) failed: {said}"
    assert "work_of_a_part" in str(raised.value.__cause__)


@pytest.mark.parametrize("base, wanted, said", [(ValueError, ValueError, "^$"),
                                                (RuntimeError, MemberError, "failed: Speechless$")])
@processes
def test_an_error_that_cannot_be_told_is_not_the_death_of_a_member(base, wanted, said):
    class Speechless(base):
        def __str__(self):
            raise AttributeError("no message")

    def work(i):
        if i:
            raise Speechless
        return 0.0

    with Workers(2) as workers:
        with pytest.raises(wanted, match=said):
            workers.team(work, 2)()


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError, BrokenPipeError])
def test_what_the_firsts_own_work_raises_is_not_the_death_of_a_member(error, kind):
    def work(i):
        if i == 0:
            raise error("of a server")
        return 0.0

    with Workers(2) as workers:
        with pytest.raises(error, match="^of a server$"):
            workers.team(work, 2)()


CTRL_C = """
import os, signal, sys, threading, time
from refdiff.parallel import Workers
signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background job ignores Ctrl-C
if sys.argv[2] == "beside a thread":                    # which is given the signals that the first holds back
    threading.Thread(target=threading.Event().wait, daemon=True).start()
first, fork, times = os.getpid(), os.fork, []
def forked():
    child = fork()
    times.append(child)
    if len(times) == 2 and (child == 0) == (sys.argv[1] == "member"):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    return child
os.fork = forked
try:
    with Workers(3) as workers:
        print("answer", workers.team(float, 3)(), flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
finally:
    left = 0
    try:
        left = len([os.waitpid(-1, os.WNOHANG)])
    except ChildProcessError:
        pass
    print("end of", "first" if os.getpid() == first else "member", left, signal.pthread_sigmask(signal.SIG_BLOCK, ()),
          signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
"""


@pytest.mark.parametrize("beside", ["alone", "beside a thread"])
@pytest.mark.parametrize("of, said", [("member", "answer [0.0, 1.0, 2.0]"), ("first", "stopped")])
@processes
def test_ctrl_c_during_a_fork_stops_the_first_alone_and_leaves_no_process(of, said, beside):
    ran = subprocess.run([sys.executable, "-c", CTRL_C, of, beside], capture_output=True, text=True, timeout=60,
                         env={**os.environ, "REFDIFF_PARALLEL": "processes"})
    assert ran.stdout.splitlines() == [said, "end of first 0 set() True"], ran


def test_no_rows_and_one_row_are_rows(kind):
    with Workers(3) as workers:
        for apply in (by_rows(lambda x, row, t: t * x, workers), by_rows(lambda x, row, t: t * x, None)):
            for n in (0, 1, 2):
                np.testing.assert_array_equal(apply(np.ones((n, 2), np.float32), 3.0), np.full((n, 2), 3, np.float32))


def test_rows_come_back_in_their_own_dtype_and_whole_numbers_are_refused(kind):
    for threads in (1, 2):
        with Workers(threads) as workers:
            for run in (workers, None):
                apply = by_rows(lambda x, row, t: x.astype(np.float64) / t, run)
                y = apply(np.arange(6, dtype=np.float32).reshape(3, 2), 3.0)
                assert y.dtype == np.float32
                np.testing.assert_array_equal(y, (np.arange(6).reshape(3, 2) / 3).astype(np.float32))
                with pytest.raises(ValueError, match="dtype int64, wanted floats"):
                    apply(np.arange(6).reshape(3, 2), 3.0)


def test_workers_are_used_inside_their_with_alone(kind):
    for threads in (1, 2):
        workers = Workers(threads)
        apply = by_rows(lambda x, row, t: t * x, workers)
        for again in range(2):
            for use in (lambda: workers.map(str, [1]), lambda: workers.team(lambda i: 0.0, 2),
                        lambda: apply(np.ones((4, 2)), 2.0)):
                with pytest.raises(RuntimeError, match="inside their `with`"):
                    use()
            with workers:
                assert workers.map(str, [1, 2]) == ["1", "2"] and (apply(np.ones((4, 2)), 2.0) == 2).all()


@pytest.mark.parametrize("threads", [-1, 1.5, 2.0, "2", None, 10 ** 6])
def test_threads_that_are_no_number_of_them_are_refused(threads):
    with pytest.raises(ValueError, match="threads is .*, wanted a whole number from 1 to"):
        Workers(threads)


def test_a_worker_for_every_core_that_this_process_may_use(monkeypatch):
    for allowed in ({3}, {0, 2, 5}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
        assert Workers().threads == len(allowed) and Workers(np.int64(2)).threads == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert Workers().threads == os.cpu_count()


def test_a_run_of_many_threads_may_go_on_where_there_are_fewer_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert Workers(96).threads == 96 and Workers(1024).threads == 1024
    with pytest.raises(ValueError, match="threads is 1025, wanted a whole number from 1 to 1024"):
        Workers(1025)


@pytest.mark.parametrize("of,waits", [(2, True), (3, True), (1, False)])
def test_messages_are_looked_for_before_sleeping_unless_members_share_cores(monkeypatch, of, waits):
    monkeypatch.setattr(parallel, "cores", lambda: of)
    monkeypatch.setattr(parallel, "PATIENCE", 30.0)
    with Workers(2) as workers:
        if not workers.processes:
            pytest.skip("no process is forked here")

        def member(i, seconds):
            time.sleep(seconds * i)
            return float(i)

        team, looked, give_way = workers.team(member, 2), [], os.sched_yield
        monkeypatch.setattr(os, "sched_yield", lambda: (looked.append(1), give_way()))
        assert team(0.2) == [0.0, 1.0]                      # the first waits for the other: at work, or asleep
        assert bool(looked) == waits


def test_a_misspelt_choice_of_threads_or_processes_is_refused(monkeypatch):
    for choice in ("thread", "Processes", "1"):
        monkeypatch.setenv("REFDIFF_PARALLEL", choice)
        for threads in (1, 2):
            with pytest.raises(ValueError, match=f"REFDIFF_PARALLEL is '{choice}', wanted threads or processes"):
                Workers(threads)
    monkeypatch.setenv("REFDIFF_PARALLEL", "")
    assert Workers(2).processes == (sys.platform == "linux")


def test_every_member_is_told_the_same_type_of_number(kind):
    """A np.float64 would turn the float32 arithmetic of the first part alone into float64."""
    with Workers(2) as workers:
        apply = by_rows(lambda x, row, t: np.full(x.shape, type(t) is float, x.dtype), workers)
        assert apply(np.zeros((4, 1), np.float32), np.float64(2)).all() and apply(np.zeros((4, 1), np.float32), 2).all()


def test_a_call_that_failed_does_not_spoil_the_next(kind):
    def work(x, row, t):
        if t > 5:
            raise KeyboardInterrupt if t > 6 and row.start == 0 else ValueError(f"{t} is too much")
        return t * x

    x = np.ones((4, 2), np.float32)
    with Workers(2) as workers:
        apply = by_rows(work, workers)
        for t, error in ((6.0, ValueError), (7.0, KeyboardInterrupt)):
            np.testing.assert_array_equal(apply(x, 2.0), 2 * x)
            with pytest.raises(error):
                apply(x, t)
        np.testing.assert_array_equal(apply(x, 3.0), 3 * x)
    with pytest.raises(RuntimeError, match="Workers are closed"):
        apply(x, 2.0)
    with pytest.raises(RuntimeError, match="Workers are closed"):
        apply(x[:2], 2.0)


def test_calls_from_several_threads_do_not_mix(kind):
    x = np.ones((4, 2), np.float32)
    with Workers(2) as workers, ThreadPoolExecutor(4) as callers:
        apply = by_rows(lambda part, row, t: t * part, workers)
        for t, y in enumerate(callers.map(lambda t: apply(x, float(t)), range(40))):
            np.testing.assert_array_equal(y, t * x)


@processes
def test_a_member_maps_without_threads(monkeypatch):
    """Threads do not survive a fork: to wait for them would be for ever."""
    monkeypatch.setenv("REFDIFF_PARALLEL", "processes")
    with Workers(2) as workers:
        workers.map(time.sleep, [0.01] * 4)                                     # all of them have started
        apply = by_rows(lambda x, row: np.stack(workers.map(lambda r: 2 * r, list(x))), workers)
        np.testing.assert_array_equal(apply(np.ones((4, 2))), np.full((4, 2), 2.0))


@processes
def test_members_end_quietly_where_the_death_of_a_child_is_ignored():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Workers(3) as workers:
            team = workers.team(lambda i: 0.0, 3)
            children = [child for child, _ in team._others]
            assert team() == [0.0] * 3
        assert all(gone(child) for child in children)
    finally:
        signal.signal(signal.SIGCHLD, before)


@processes
def test_no_process_is_left_behind():
    with Workers(3) as workers:
        teams = [workers.team(lambda i: 0.0, 3) for _ in range(3)]
        children = [child for team in teams for child, _ in team._others]
        teams[1].close()
        assert all(gone(child) for child in children[2:4]) and not gone(children[0])
        del teams[1]
        assert teams[0]() == [0.0] * 3
        del teams[0]
        assert all(gone(child) for child in children[:2]), "a team that nobody holds is dismissed"
    assert all(gone(child) for child in children)
    with pytest.raises(RuntimeError, match="dismissed"):
        teams[0]()


@processes
def test_all_members_are_dismissed_before_the_first_is_waited_for(monkeypatch):
    with Workers(4) as workers:
        team = workers.team(lambda i: 0.0, 4)
        pipes, told, wait = [pipe for _, pipe in team._others], [], os.waitpid

        def waitpid(*args):
            told.append([pipe.closed for pipe in pipes])
            return wait(*args)

        monkeypatch.setattr(os, "waitpid", waitpid)
        team.close()
    assert told == [[True] * 3] * 3


def test_ctrl_c_while_teams_are_closed_leaves_no_thread_and_no_limit_behind(kind):
    def stop():
        raise KeyboardInterrupt

    def limits():
        return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, "blas"):
        before = limits()
        with pytest.raises(KeyboardInterrupt):
            with Workers(2) as workers:
                team = workers.team(lambda i: 0.0, 2)
                close, team.close = team.close, stop
                assert set(limits()) <= {1}
        assert limits() == before
        with pytest.raises(RuntimeError, match="after shutdown"):
            workers._pool.submit(int)
        with pytest.raises(RuntimeError, match="inside their `with`"):
            workers.map(str, [1])
        close()


@processes
def test_a_member_that_dies_is_an_error_that_says_so():
    with Workers(2) as workers:
        team = workers.team(lambda i: 0.0, 2)
        (child, _), = team._others
        os.kill(child, signal.SIGKILL)
        with pytest.raises(MemberError, match=f"number {child}.* died") as raised:
            team()
        assert "\n" not in str(raised.value) and "batch" not in str(raised.value)


@processes
def test_members_end_when_the_first_is_killed(tmp_path):
    """Two teams, so that the second's members hold copies of the first's pipes."""
    first = os.fork()
    if first == 0:
        with Workers(2) as workers:
            teams = [workers.team(lambda i: 0.0, 2) for _ in range(2)]
            (tmp_path / "written").write_text(" ".join(str(child) for team in teams for child, _ in team._others))
            (tmp_path / "written").rename(tmp_path / "children")
            time.sleep(60)
        os._exit(1)
    end = time.monotonic() + 20
    while not (tmp_path / "children").exists() and time.monotonic() < end:
        time.sleep(0.01)
    children = [int(child) for child in (tmp_path / "children").read_text().split()]
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)

    def running(child):
        try:
            with open(f"/proc/{child}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            return False

    while any(running(child) for child in children) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(running(child) for child in children)
