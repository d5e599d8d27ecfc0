"""What a contender does in its process: a Task per kind of work."""
from typing import Callable, NamedTuple

from .. import backend


class Task(NamedTuple):
    """step() does the work once and waits for it; answers() -> {name: array} is what all contenders must agree on."""

    step: Callable
    answers: Callable


def side_by_side(workers, function, members):
    """() -> None that runs function(i) for i in 0..members-1 on the workers, as training does."""
    return workers.team(lambda i: (function(i), 0.0)[1], members)


def synchronise():
    """Wait for the device, if arrays are made on one."""
    if backend.name() != "numpy":
        backend.xp().cuda.Device().synchronize()
