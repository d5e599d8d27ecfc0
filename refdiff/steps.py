"""One training step by a team: each member has a part of the batch, then a part of theta.

    steps = Steps(objective, thetas, config, workers)
    loss, norm = steps.gradient(n)              # of the whole batch; the gradient lies in steps.grad
    steps.update(n, lr, norm)                   # clipping, AdamW and the moving averages, in place

Every part of the batch has a gradient of its own, and they are summed in order. All else is done element by element,
so it does not matter who has which elements. thetas gives (name, Theta) of theta, Adam's m and v, and the averages,
one after the other: they are copied to memory that the team shares.
"""
import math

from .optim import AdamState, clip_by_global_norm, ema_decay, ema_update
from .parallel import slices


class Steps:
    """The steps of an objective: its thetas, and the team that changes them."""

    def __init__(self, objective, thetas, config, workers):
        self.objective, self.config, self.optimiser = objective, config, config.optimiser()
        self.thetas = {name: t.with_flat(workers.shared(t.flat)) for name, t in thetas}
        theta = self.thetas["theta"]
        self.rows = slices(config.batch, workers.threads)
        self.elements = slices(len(theta.flat), len(self.rows))
        self.grads = [theta.with_flat(workers.shared(theta.zeros_like().flat)) for _ in self.rows]
        self.grad = self.grads[0]
        phases = self._loss, self._sum, self._update
        self.team = workers.team(lambda i, phase, *numbers: phases[int(phase)](i, *numbers), len(self.rows))

    def gradient(self, step):
        """(loss, |gradient|) of a whole batch; the gradient is left in self.grad."""
        loss = sum(self.team(0, step))
        return loss, math.hypot(*self.team(1))

    def update(self, step, lr, norm):
        """theta, m, v and the averages after update number `step` (from 0) at the rate lr, |gradient| being norm."""
        self.team(2, step, lr, min(1.0, self.config.clip / norm) if norm > 0 else 1.0)

    # ---- what member i does

    def _loss(self, i, step):
        rows, grad = self.rows[i], self.grads[i]
        share = (rows.stop - rows.start) / self.config.batch
        grad.flat[...] = 0
        return share * self.objective.loss(self.thetas, self.objective.draw(int(step)), rows, grad, share)

    def _sum(self, i):
        total = self.grad.flat[self.elements[i]]
        for grad in self.grads[1:]:
            total += grad.flat[self.elements[i]]
        return clip_by_global_norm(total)

    def _update(self, i, step, lr, factor):
        theta, m, v = (self.thetas[name].flat[self.elements[i]] for name in ("theta", "m", "v"))
        grad = self.grad.flat[self.elements[i]]
        if factor < 1:
            grad *= factor
        self.optimiser.update(AdamState(m, v, int(step)), theta, grad, lr)
        for name, decay in self.objective.averages.items():
            ema_update(self.thetas[name].flat[self.elements[i]], theta, ema_decay(int(step), decay))
        return 0.0
