"""One training step by a team: each member has a part of the batch, then a part of theta.

    steps = Steps(objective, thetas, config, workers)
    loss, norm = steps.gradient(n)              # of the whole batch
    steps.update(n, lr, norm)                   # clipping, AdamW and the moving averages, in place

Every part of the batch has a gradient of its own, and they are summed in order (gradient.py). All else is done element
by element, so it does not matter who has which elements: the optimiser and the averages take some blocks at a time,
while these are in a cache. thetas gives (name, Theta) of theta, Adam's m and v, and the averages, one after the other:
they are copied to memory that the team shares.
"""
import math

from .gradient import TeamGradient
from .optim import AdamState, block_size, clip_by_global_norm, ema_decay, ema_update
from .parallel import slices


class Steps:
    """The steps of an objective: its thetas, and the team that changes them."""

    def __init__(self, objective, thetas, config, workers):
        self.objective, self.config, self.optimiser = objective, config, config.optimiser()
        self.thetas = {name: t.with_flat(workers.shared(t.flat)) for name, t in thetas}
        theta = self.thetas["theta"]
        self.rows = slices(config.batch, workers.threads)
        self.sum, self.block = TeamGradient(theta, len(self.rows), workers), 4 * block_size(theta.flat)
        phases = self._loss, self._add, self._update, self.sum.show_total
        self.team = workers.team(lambda i, phase, *numbers: phases[int(phase)](i, *numbers), len(self.rows))

    def gradient(self, step):
        """(loss, |gradient|) of a whole batch; the gradient stays with the team."""
        loss = sum(self.team(0, step))
        return loss, math.hypot(*(norm for r in range(len(self.sum.rounds)) for norm in self.team(1, r)))

    def update(self, step, lr, norm):
        """theta, m, v and the averages after update number `step` (from 0) at the rate lr, |gradient| being norm."""
        self.team(2, step, lr, min(1.0, self.config.clip / norm) if norm > 0 else 1.0)

    def collected(self):
        """The gradient as a Theta, between `gradient` and `update`: for those who want to look at it."""
        return self.sum.collect(self.thetas["theta"].zeros_like(), lambda r: self.team(3, r))

    # ---- what member i does

    def _loss(self, i, step):
        self.sum.clear(i)
        rows, grad = self.rows[i], self.sum.grads[i]
        share = (rows.stop - rows.start) / self.config.batch
        loss = share * self.objective.loss(self.thetas, self.objective.draw(int(step)), rows, grad, share)
        self.sum.show(i, 0)
        return loss

    def _add(self, i, r):
        self.sum.add(i, int(r))
        return math.hypot(*(clip_by_global_norm(g) for _, g in self.sum.blocks(i, self.block, [int(r)])))

    def _update(self, i, step, lr, factor):
        for at, g in self.sum.blocks(i, self.block):
            theta, m, v = (self.thetas[name].flat[at] for name in ("theta", "m", "v"))
            self.optimiser.update(AdamState(m, v, int(step)), theta, g if factor == 1 else float(factor) * g, lr)
            for name, decay in self.objective.averages.items():
                ema_update(self.thetas[name].flat[at], theta, ema_decay(int(step), decay))
        self.sum.clear(i)
        return 0.0
