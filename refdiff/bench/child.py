"""One contender in a process of its own: python -m refdiff.bench.child, lines of JSON in and out.

First a description, {"side": "refdiff" or "torch", "layout", "group": "network" or "ops", "name", "batch", "threads",
"device", "precision"}; then requests {"do": "check", "kind", "path"}, {"do": "time", "kind", "repeat", "lead"},
{"do": "memory", "kind", "steps"} or {"do": "about"}. Every answer is one line; {"error": reason} where the work cannot
be done.
"""
import json
import os
import sys
import time
import traceback

import numpy as np

from .machine import Memory, about_numpy, about_torch


class Child:
    """A side, and the task that it is at."""

    def __init__(self, spec):
        self.spec, self.tasks = spec, {}
        self.side = (ours if spec["side"] == "refdiff" else theirs)(spec)

    def at(self, kind):
        """The Task of a kind. A network on the host, which is visited again, keeps both of its tasks (compiled ones are
        compiled once); else the last one's arrays are let go first.
        """
        if kind not in self.tasks:
            if (self.spec["group"], self.spec["device"]) != ("network", "cpu"):
                self.tasks.clear()
            self.tasks[kind] = self.side.task(kind)
        return self.tasks[kind]

    def check(self, kind, path):
        np.savez(path, **self.at(kind).answers())
        return {}

    def time(self, kind, repeat, lead):
        """Seconds per step, after steps of `lead` seconds or more that are not counted."""
        step = self.at(kind).step
        begin = time.perf_counter()
        while time.perf_counter() < begin + lead:
            step()
        begin = time.perf_counter()
        for _ in range(repeat):
            step()
        return {"seconds": (time.perf_counter() - begin) / repeat}

    def memory(self, kind, steps):
        """MiB at the peak of `steps` steps, weights and moments included, over what batch and libraries hold."""
        memory = Memory()
        step = self.at(kind).step
        memory.watch()
        for _ in range(steps):
            step()
        return {"mib": memory.added()}

    def about(self):
        return about_numpy() if self.spec["side"] == "refdiff" else about_torch()


def ours(spec):
    from ..parallel import Workers
    workers = Workers(spec["threads"]).__enter__()          # for the life of the process
    if spec["group"] == "network":
        from .ours import Network
        return Network(spec["name"], workers, spec["batch"])
    from .ops import Ours
    return Ours(workers)


def theirs(spec):
    import torch
    torch.set_num_threads(spec["threads"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec["precision"] == "tf32"
    if spec["group"] == "network":
        from .theirs import Network
        return Network(spec["name"], spec["layout"], spec["device"], spec["batch"])
    from .theirs_ops import Theirs
    return Theirs(spec["layout"], spec["device"])


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                           # what a library prints is not an answer
    child = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if child is None:
                child, answer = Child(request), {}
            else:
                answer = getattr(child, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            said = str(error).strip().splitlines()
            answer = {"error": f"{type(error).__name__}: {said[0] if said else ''}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
