"""Independent jobs, each done as a whole by one process (or thread): whoever is free takes the next.

Parts of one batch wait for each other at every step; jobs never do, and a small batch, which gains nothing from being
divided, keeps one core busy while the others go on.
"""
import os
import sys
from array import array


def each(jobs, workers):
    """Call every function of the list `jobs` once, begun in order, side by side.

    A job takes nothing and returns nothing: what it finds it writes into arrays of workers.shared. After an error no
    other job is begun, and it is raised here.
    """
    waiting, end = os.pipe()                                    # their numbers: a read takes the next, whoever reads
    os.write(end, array("i", range(len(jobs))).tobytes())
    os.close(end)

    def work(i):
        try:
            while number := os.read(waiting, array("i").itemsize):
                jobs[int.from_bytes(number, sys.byteorder)]()
        except BaseException:
            while os.read(waiting, 1 << 16):
                pass
            raise
        return 0.0

    try:
        team = workers.team(work, min(workers.threads, len(jobs)))
        team()
        team.close()
    finally:
        os.close(waiting)
