"""A network whose forward and backward are one launch each on a device: CUDA graphs for fixed shapes.

    REFDIFF_GRAPHS=1                             # every Denoiser made from now on runs its network so, on a device
    denoiser = Denoiser(Recorded(UNet(config)), denoiser_config)         # or this one; everything else as it was

The hundreds of small launches of a step are recorded once per shape (backend.record) and replayed; levels, weights and
the loss stay outside, on the host. Off unless asked for, and only for a device. Two things differ from the network:
`saved` is where the record keeps it, so that a backward must follow its own forward before another of the same shape
(GraphError otherwise), and labels are checked when a shape is first met, so that later ones must be in range. There is
no jvp of a record: likelihoods take the network itself.
"""
from .. import backend
from ..cuda.graph import GraphError


def recorded(network):
    """The network, or a Recorded one where graphs were asked for (backend.graphs)."""
    return Recorded(network) if backend.graphs() and not isinstance(network, Recorded) else network


class Recorded:
    """`network` by records; all else (layout, config, masks, res_blocks) is the network's own."""

    def __init__(self, network):
        self.network = network
        self.forwards, self.backwards = {}, {}

    def __getattr__(self, name):
        return getattr(self.__dict__["network"], name)

    def forward(self, theta, x, c_noise, labels=None, masks=None, keep=True):
        """F and a ticket for its backward. The record keeps its memory in any case."""
        given = [x, c_noise, *([] if labels is None else [labels]), *(masks or ())]
        key = (id(theta.flat), labels is None, *((a.shape, str(a.dtype)) for a in given))
        if key not in self.forwards:
            def run(x, c_noise, *rest):
                told = None if labels is None else rest[0]
                left = list(rest if labels is None else rest[1:])
                return self.network.forward(theta, x, c_noise, told, left if masks is not None else None)
            self.forwards[key] = [backend.record(run, given), 0, theta]           # theta: its id stays its own
        made = self.forwards[key]
        made[1] += 1
        F, _ = made[0].launch(*given)
        return F.copy(), (key, made[1])

    def backward(self, saved, dF, grad, keep=True):
        """Adds the parameters' gradients into grad; returns dx. The record keeps its memory in any case."""
        key, ticket = saved
        record, last, _ = self.forwards[key]
        if ticket != last:
            raise GraphError("Recorded: a backward after another forward of the same shape, which wrote over what it "
                             "needs; run the backward first, or use the network without records")
        key = key, id(grad.flat)
        if key not in self.backwards:
            kept = grad.flat.copy()                                               # recording runs it three times
            made = backend.record(lambda dF: self.network.backward(record.result[1], dF, grad), [dF])
            self.backwards[key] = made, grad
            grad.flat[...] = kept
        return self.backwards[key][0].launch(dF).copy()
