"""The levels that an implementation visits, where they are not those that were asked for: read off its network's calls.

A solver is judged on the levels that it visits; whether they are the right ones is the network oracle's to say.
"""
from dataclasses import dataclass, fields

import numpy as np

from ..process.grids import Grid
from ..samplers.orders import LINE
from .settings import Network, Setting, ask, seeded, start


@dataclass(frozen=True)
class Visited(Setting):
    """A setting whose grid has the times at which an adapter calls the network at each of its levels."""

    adapter: object = None

    @classmethod
    def of(cls, setting, adapter):
        return cls(**{f.name: getattr(setting, f.name) for f in fields(Setting)}, adapter=adapter)

    def grid(self, steps):
        """The levels visited; the setting's own where the calls do not show one level for each step."""
        asked = super().grid(steps)
        x, wanted = start(asked), []
        self.ours(LINE, asked, x, seeded(x), wanted)
        network = Network(LINE, self, getattr(self.adapter, "prediction", "eps"))
        _, states = ask(self.adapter, self, steps, x, network, seeded(x))
        times, expected = [t for t, _ in network.calls], [t for t, _ in wanted]
        if states is None or len(times) != len(expected):
            return asked
        own = [times[expected.index(t)] for t in asked.t[:-1].tolist()]
        return asked if np.allclose(own, asked.t[:-1], rtol=1e-6, atol=1e-9) else _grid(asked, network, own)


def _grid(asked, network, times):
    """The Grid of other times, ending where the one that was asked for ends; that one where the times are no grid."""
    levels = [network.level(t) for t in times]
    if network.schedule is not None and not all(1 <= t <= network.schedule.T for t in times):
        return asked
    try:
        return Grid(np.array([*times, asked.t[-1]]), np.array([*(float(v.alpha) for v in levels), asked.alpha[-1]]),
                    np.array([*(float(v.sigma) for v in levels), asked.sigma[-1]]), f"{asked.rule}, as visited",
                    asked.family)
    except ValueError:
        return asked
