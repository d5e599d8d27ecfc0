"""Independent jobs, each done as a whole by one process (or thread): whoever is free takes the next.

Parts of one batch wait for each other at every step; jobs never do, and a small batch, which gains nothing from being
divided, keeps one core busy while the others go on.
"""
import os
import sys
import tempfile
from array import array


def each(jobs, workers):
    """Call every function of the list `jobs` once, begun in order, side by side.

    A job takes nothing and returns nothing: what it finds it writes into arrays of workers.shared. After an error no
    other job is begun, and it is raised here.
    """
    first = os.getpid()
    with tempfile.TemporaryFile(buffering=0) as waiting:        # their numbers; all share one place in it, so that
        waiting.write(array("q", range(len(jobs))).tobytes())   # a read takes the next, whoever reads
        waiting.seek(0)

        def work(i):
            try:
                while first in (os.getpid(), os.getppid()):     # not for a run that was killed
                    number = os.read(waiting.fileno(), array("q").itemsize)
                    if not number:
                        break
                    jobs[int.from_bytes(number, sys.byteorder)]()
            except BaseException:
                waiting.seek(0, os.SEEK_END)
                raise
            return 0.0

        team = workers.team(work, min(workers.threads, len(jobs)))
        team()
        team.close()
