"""One oracle on one setting: it runs the adapter, names the finding, and turns what cannot be judged into one."""
import numpy as np

from ..samplers.orders import LINE
from .adapter import subject_of
from .finding import Finding
from .settings import Network, ask, seeded

STEPS = 8                       # of the laws, the bookkeeping and the calls


def kind_of(adapter):
    return getattr(adapter, "prediction", "eps")


class Judge:
    """One oracle on one setting: names the finding, and turns what cannot be judged into one."""

    def __init__(self, name, adapter, setting, spec=""):
        self.name, self.adapter, self.setting, self.spec = name, adapter, setting, spec
        self.check = f"oracle/{name}/{setting.id}"

    def finding(self, status, cause="", digits=None, **evidence):
        inputs = self.setting.inputs(STEPS, None, None, None)
        return Finding(subject_of(self.adapter, "trajectory", inputs), self.check, status, digits, cause, evidence,
                       f"refdiff audit {self.spec or 'ADAPTER'} --only '{self.check}'")

    def run(self, steps, x, world=LINE, noise=None, setting=None):
        """(states, network, noise) of the adapter; raises Judged with the finding where there are none."""
        setting = setting or self.setting
        network = Network(world, setting, kind_of(self.adapter))
        noise = noise or seeded(x)
        answer, states = ask(self.adapter, setting, steps, x, network, noise)
        if answer.missing:
            raise Judged(self.finding("not-implemented", answer.missing))
        if answer.error:
            raise Judged(self.finding("fail", answer.error, steps=steps, kind="exception"))
        if states is None or states[-1].shape != x.shape:
            got = "no states" if states is None else f"{states[-1].shape}"
            raise Judged(self.finding("fail", f"returned {got}, wanted x of shape {x.shape} or a list of them",
                                      steps=steps))
        return states, network, noise

    def finite(self, states, steps):
        if not np.isfinite(states[-1]).all():
            raise Judged(self.finding("fail", "what comes out is not finite", steps=steps, kind="not finite",
                                      entries=int((~np.isfinite(states[-1])).sum())))


class Judged(Exception):
    """Judged before the end: holds the finding."""

    def __init__(self, finding):
        super().__init__(finding.cause)
        self.finding = finding


def rms(a, b):
    return float(np.sqrt(np.mean((np.asarray(a, dtype=np.float64) - b) ** 2)))
