"""Independent jobs: each once, begun in order, by whoever is free; the same in threads and in processes."""
import os
import signal
import time

import numpy as np
import pytest

from refdiff.jobs import each
from refdiff.parallel import Workers, may_fork

KINDS = ["threads", pytest.param("processes", marks=pytest.mark.skipif(not may_fork(), reason="no processes here"))]


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setenv("REFDIFF_PARALLEL", request.param)
    return request.param


@pytest.mark.parametrize("count, threads", [(0, 2), (1, 3), (2, 1), (300, 3)])
def test_every_job_is_done_once(count, threads, kind):
    with Workers(threads) as workers:
        done = workers.shared(np.zeros(max(count, 1)))

        def job(i):
            done[i] += i + 1

        each([lambda i=i: job(i) for i in range(count)], workers)
        np.testing.assert_array_equal(done[:count], np.arange(1, count + 1))


def test_there_may_be_more_jobs_than_a_pipe_holds(kind):
    """A pipe holds 64 KiB: 16,384 numbers of four bytes."""
    with Workers(2) as workers:
        done = workers.shared(np.zeros(40_000, np.int8))

        def job(i):
            done[i] += 1

        each([lambda i=i: job(i) for i in range(len(done))], workers)
        assert (done == 1).all()


@pytest.mark.skipif(not may_fork(), reason="no processes here")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_no_job_is_begun_once_the_first_process_has_gone(kill):
    """A member ends the job that it does, and leaves the 38 others."""
    with Workers(2) as workers:
        begun = workers.shared(np.zeros(40))
        first = os.fork()
        if first == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

            def job(i):
                begun[i] = 1
                time.sleep(0.1)

            try:
                each([lambda i=i: job(i) for i in range(len(begun))], workers)
            finally:
                os._exit(1)
        end = time.monotonic() + 20
        while begun.sum() < 2 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(first, kill)
        os.waitpid(first, 0)
        killed = begun.sum()
        time.sleep(0.5)
        assert 2 <= killed < 20 and begun.sum() <= killed + 1


def test_a_long_job_keeps_one_busy_and_the_other_does_the_rest(kind):
    with Workers(2) as workers:
        order = workers.shared(np.zeros(6))

        def wait(i, seconds):
            time.sleep(seconds)
            order[i] = time.monotonic()

        each([lambda i=i: wait(i, 0 if i else 0.5) for i in range(6)], workers)
        assert order.argmax() == 0 and list(order[1:]) == sorted(order[1:])


def test_after_an_error_no_job_is_begun_and_nothing_stays_open(kind):
    before = len(os.listdir("/dev/fd"))
    with Workers(2) as workers:
        begun = workers.shared(np.zeros(40))

        def job(i):
            begun[i] = 1
            time.sleep(0.02)
            if i == 3:
                raise FloatingPointError("the fourth job")

        with pytest.raises(FloatingPointError, match="^the fourth job$"):
            each([lambda i=i: job(i) for i in range(40)], workers)
        assert begun[3] and begun.sum() < 20                # two or three more, but on a busy machine
    assert len(os.listdir("/dev/fd")) <= before
