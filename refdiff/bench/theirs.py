"""PyTorch's side of a network: the same steps as ours.py, with torch.optim.AdamW and a foreach moving average."""
import numpy as np
import torch

from .. import backend
from .networks import NETWORKS, problem
from .ours import BETAS, DECAY, EMA, LR, sampling_grid
from .task import Task
from .twin import Twin, images


def numbers(x, device, like=None):
    """An array of coefficients as (n, 1, 1, 1), or as a vector if `like` is None."""
    x = torch.tensor(np.asarray(backend.to_host(x)), dtype=torch.float32, device=device)
    return x if like is None else x.reshape(-1, 1, 1, 1)


def wait(device):
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def load(device):
    """A step of something small: what PyTorch loads when it is first used is no network's memory."""
    part = torch.nn.Conv2d(2, 2, 3).to(device)
    torch.nn.functional.group_norm(part(torch.ones(1, 2, 8, 8, device=device)), 1).sum().backward()
    torch.optim.AdamW(part.parameters()).step()
    wait(device)


class Network:
    """train and sample, in one memory format, as written or compiled."""

    def __init__(self, name, layout, device="cpu", batch=None):
        self.problem, self.device = problem(NETWORKS[name], batch), device
        self.last, self.compiled = layout != "contiguous", layout == "compile"
        load(device)
        p, b = self.problem, self.problem.batch
        self.x0, self.eps, self.x = self.images(b.x0), self.images(b.eps), self.images(p.x)
        self.masks = None if b.masks is None else [self.images(m) for m in b.masks]
        self.labels = None if p.batch.labels is None else torch.as_tensor(backend.to_host(p.batch.labels)).to(device)

    def twin(self):
        """The network with its first weights: a task's own, as training moves them."""
        return Twin(self.problem.network.layout, backend.to_host(self.problem.theta.flat), self.last, self.device)

    def images(self, x):
        return images(backend.to_host(x).astype(np.float32), self.last, self.device)

    def task(self, kind):
        return {"train": self.train, "sample": self.sample}[kind]()

    def train(self):
        p, b, twin = self.problem, self.problem.batch, self.twin()
        x0, eps, masks = self.x0, self.eps, self.masks
        _, _, c_in, c_noise = p.denoiser.precondition(b.level)
        alpha, sigma, c_in, weight = (numbers(v, self.device, x0) for v in (
            b.level.alpha, b.level.sigma, c_in, p.denoiser.weight(p.case.weighting, b.level)))
        on_x0, on_eps = (numbers(v, self.device, x0) for v in target_parts(p, b.level))
        c_noise = numbers(c_noise, self.device)

        def loss(x0, eps):
            x_t = alpha * x0 + sigma * eps
            F = twin.unet(p.network, c_in * x_t, c_noise, self.labels, masks)
            return (weight * (F - (on_x0 * x0 + on_eps * eps)) ** 2).mean()

        loss = torch.compile(loss) if self.compiled else loss
        parameters = list(twin.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=LR, betas=BETAS, weight_decay=DECAY)
        ema = [w.detach().clone() for w in parameters]

        def backward():
            optimiser.zero_grad(set_to_none=True)
            value = loss(x0, eps)
            value.backward()
            return value.detach()

        def step():
            backward()
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(ema, parameters, 1 - EMA)
            wait(self.device)

        return Task(step, lambda: {"loss": backward().cpu().numpy(), **twin.gradients()})

    def sample(self):
        p, twin = self.problem, self.twin()
        x, grid = self.x, sampling_grid(p.denoiser)
        t, s = grid.level(0), grid.level(1)
        c_skip, c_out, c_in, c_noise = (float(c) for c in p.denoiser.precondition(t))
        c_noise = torch.full((len(x),), c_noise, device=self.device)
        network = torch.compile(twin.unet) if self.compiled else twin.unet

        @torch.inference_mode()
        def once():
            D = c_skip * x + c_out * network(p.network, c_in * x, c_noise, self.labels)
            return s.alpha * D + s.sigma * ((x - t.alpha * D) / t.sigma)        # DDIM's step at eta = 0

        return Task(lambda: (once(), wait(self.device)), lambda: {"x": once().permute(0, 2, 3, 1).cpu().numpy()})


def target_parts(p, level):
    """(a, b) with target = a x_0 + b eps, read off the denoiser's own target at unit vectors."""
    one, zero = np.ones((p.case.batch, 1, 1, 1)), np.zeros((p.case.batch, 1, 1, 1))
    return p.denoiser.target(one, zero, level), p.denoiser.target(zero, one, level)
