"""Contenders take turns: A, B, C, A, B, C, ... so that what disturbs the machine disturbs all of them."""
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .machine import Others, environment
from .statistics import disagreement

LEAST = 0.05                    # seconds: short steps are repeated until one measurement takes this long
# Largest difference between contenders' gradients, as statistics.disagreement measures it. Factors in TF32 are
# rounded by up to 2^-11 each, and some forty layers pass it on.
AGREEMENT = {"float32": 1e-4, "tf32": 2e-2}
LEAD = 0.03                     # seconds of steps at the beginning of a turn that are not counted, where any are short


class Disagreement(ValueError):
    """Two contenders compute different numbers: nothing is timed."""


class CannotRun(ChildProcessError):
    """A contender's process ended, or refused a task."""


class Contender:
    """A child process, asked one thing at a time: `with Contender("refdiff", ...) as c: c.ask("time", ...)`."""

    def __init__(self, label, spec, isa="native", extra=()):
        self.label, self.spec = label, spec
        threads = spec["threads"] if spec["side"] == "torch" else 1             # refdiff's are Python's
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "refdiff.bench.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, env={**environment(isa, threads), **dict(extra)})

    def __enter__(self):
        self._write(self.spec)                          # read by the first `ask`: contenders start side by side
        self.starting = True
        return self

    def __exit__(self, *error):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ask(self, do, **request):
        """The answer to one request; CannotRun if there is none."""
        if self.starting:
            self._read()
            self.starting = False
        self._write({"do": do, **request})
        return self._read()

    def _write(self, request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass                                        # its process ended: nothing will be read

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()[-1:]
            try:
                status = self.process.wait(10)
                ended = [f"by signal {-status}" if status < 0 else f"with status {status}"]
            except subprocess.TimeoutExpired:
                ended = []
            raise CannotRun(f"{self.label} of {self.spec['name']}: its process ended ({'; '.join(ended + said)})")
        answer = json.loads(line)
        if "error" in answer:
            raise CannotRun(f"{self.label} of {self.spec['name']}: {answer['error']}")
        return answer


def agree(contenders, kind, folder, most=AGREEMENT["float32"]):
    """Compare every contender's answers with refdiff's; raise Disagreement, naming the array. Returns the largest."""
    paths = {}
    for contender in contenders:
        paths[contender.label] = Path(folder) / f"{contender.label}.npz"
        contender.ask("check", kind=kind, path=str(paths[contender.label]))
    worst = 0.0
    with np.load(paths.pop("refdiff")) as file:
        ours = dict(file)
    for label, path in paths.items():
        with np.load(path) as file:
            error, name = disagreement(ours, dict(file))
        if not error <= most:
            raise Disagreement(f"bench: {kind}: refdiff and PyTorch ({label}) differ by {error:.2g} in {name}, wanted "
                               f"at most {most:g}; nothing is timed before they compute the same")
        worst = max(worst, error)
    return worst


def repeats(seconds, least=LEAST):
    """How often a step of so many seconds is repeated in one measurement."""
    return max(1, math.ceil(least / max(seconds, 1e-9)))


def interleave(run, labels, rounds):
    """{label: [run(label), one per round]}, the labels taking turns."""
    found = {label: [] for label in labels}
    for _ in range(rounds):
        for label in labels:
            found[label].append(run(label))
    return found


class Rounds:
    """The rounds of one kind of work, some now, some later: every contender's seconds per step, one per round.

    A warm-up says how often the steps of a contender are repeated in one measurement. Where those of any are, each
    measurement of all of them begins with steps that are not counted: PyTorch's threads go on spinning after its turn,
    for 15 ms where this was looked at, and the arrays of the contender before are in the caches.
    """

    def __init__(self, contenders, kind, pids=()):
        """pids: the processes that may compute meanwhile, besides the contenders'."""
        self.contenders, self.kind = {one.label: one for one in contenders}, kind
        self.pids = [*pids, *(one.process.pid for one in contenders)]
        self.repeat, self.seconds, self.others = None, {label: [] for label in self.contenders}, []

    def measure(self, rounds):
        """So many rounds more, after one that is not counted."""
        others = Others(self.pids)
        first = interleave(lambda label: self._time(label, 1, LEAD), self.contenders, 1)
        if self.repeat is None:
            self.repeat = {label: repeats(min(seconds)) for label, seconds in first.items()}
        lead = LEAD if max(self.repeat.values()) > 1 else 0
        for label, seconds in interleave(lambda label: self._time(label, self.repeat[label], lead), self.contenders,
                                         rounds).items():
            self.seconds[label] += seconds
        self.others.append(others.cores())

    def _time(self, label, repeat, lead):
        return self.contenders[label].ask("time", kind=self.kind, repeat=repeat, lead=lead)["seconds"]

    def cores(self):
        """The mean number of cores that other programs used; None where that is not told."""
        known = [cores for cores in self.others if cores is not None]
        return sum(known) / len(known) if known else None


def time_all(contenders, kind, rounds):
    """{label: [seconds per step, one per round]}, all rounds now."""
    all_of_them = Rounds(contenders, kind)
    all_of_them.measure(rounds)
    return all_of_them.seconds


def peak_memory(make, labels, kind="train", steps=3):
    """{label: MiB}: each contender alone, in a fresh process; make(label) -> Contender."""
    found = {}
    for label in labels:
        with make(label) as contender:
            found[label] = contender.ask("memory", kind=kind, steps=steps)["mib"]
    return found
