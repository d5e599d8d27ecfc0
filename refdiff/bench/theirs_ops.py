"""PyTorch's side of single operations: the subjects of subjects.py, forward with a graph, backward through it."""
import numpy as np
import torch
import torch.nn.functional as F

from .ours import BETAS, DECAY, EMA, LR
from .subjects import SGEMM, find, res_block
from .task import Task
from .theirs import wait
from .twin import Twin, images


def conv(x, w, b, stride, **sizes):
    half = w.shape[-1] // 2
    return F.conv2d(F.pad(x, (0, half, 0, half)), w, b, stride) if stride > 1 else F.conv2d(x, w, b, 1, half)


FAMILIES = {
    "conv": conv,
    "norm_silu": lambda x, gamma, beta, groups, **sizes: F.silu(F.group_norm(x, groups, gamma, beta, 1e-6)),
    "attention": lambda q, k, v, **sizes: F.scaled_dot_product_attention(
        *(a.transpose(1, 2) for a in (q, k, v))).transpose(1, 2),
    "linear": lambda x, w, b, **sizes: F.linear(x, w, b),
    "upsample": lambda x, **sizes: F.interpolate(x, scale_factor=2.0),
    "concat": lambda a, b, **sizes: torch.cat([a, b], 1),
}


class Theirs:
    """Tasks by name, as ops.Ours."""

    def __init__(self, layout, device="cpu"):
        self.last, self.device = layout == "channels_last", device

    def task(self, kind):
        if kind == "sgemm":
            a = torch.randn(SGEMM[self.device], SGEMM[self.device], device=self.device)
            return Task(lambda: (a @ a, wait(self.device)), dict)
        subject, direction = find(kind)
        return update(subject) if subject.family in ("adamw", "ema") else self.op(subject, direction)

    def tensor(self, subject, name, a):
        """An array in PyTorch's layout."""
        if a.ndim == 4 and subject.family != "attention":
            if name in subject.shared:
                form = torch.channels_last if self.last else torch.contiguous_format
                return torch.from_numpy(a).permute(3, 2, 0, 1).contiguous(memory_format=form)
            return images(a, self.last)
        return torch.from_numpy(a.T.copy() if name in subject.shared and a.ndim == 2 else a)

    def array(self, subject, name, x):
        """And back."""
        if x.ndim == 4 and subject.family != "attention":
            x = x.permute(2, 3, 1, 0) if name in subject.shared else x.permute(0, 2, 3, 1)
        return np.ascontiguousarray((x.T if name in subject.shared and x.ndim == 2 else x).detach().numpy())

    def op(self, subject, direction):
        inputs = {name: self.tensor(subject, name, a) for name, a in subject.arrays().items()}
        dy = inputs.pop("dy")
        for x in inputs.values():
            x.requires_grad_(True)
        if subject.family == "res_block":
            block, theta = res_block(subject)
            twin = Twin(theta.layout, theta.flat, self.last)
            wanted = [*inputs.values(), *twin.values]

            def forward():
                return twin.res(block, inputs["x"], inputs["emb"])
        else:
            wanted = list(inputs.values())

            def forward():
                return FAMILIES[subject.family](**{**subject.sizes, **inputs})

        y = forward()

        def backward():
            return torch.autograd.grad(y, wanted, dy, retain_graph=True)

        def both():
            return torch.autograd.grad(forward(), wanted, dy)

        run = {"forward": forward, "backward": backward, "both": both}[direction]

        def answers():
            found = run()
            if direction == "forward":
                return {"y": self.array(subject, "y", found)}
            names = [*inputs, *subject.weights]
            return {name: self.array(subject, name, g) for name, g in zip(names, found)}

        return Task(run, answers)


def update(subject):
    """torch.optim.AdamW by its defaults, and the moving average, on one vector."""
    theta, grad = (torch.from_numpy(a) for a in subject.arrays().values())
    if subject.family == "ema":
        ema = theta.clone()
        return Task(lambda: torch._foreach_lerp_([ema], [grad], 1 - EMA), dict)
    theta.requires_grad_(True)
    theta.grad = grad
    return Task(torch.optim.AdamW([theta], lr=LR, betas=BETAS, weight_decay=DECAY).step, dict)
