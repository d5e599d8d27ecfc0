"""The smallest adapter: a DDIM written by hand in PyTorch, and the ten lines that let refdiff audit it.

    refdiff audit example-ddim                 or, copied and changed, refdiff audit my_file.py

`ddim` stands for your own sampler; what comes after it is the adapter. What it has not raises NotImplementedError.
"""
import torch


def alpha_bars(T, beta_start=1e-4, beta_end=0.02):
    """abar_t, t = 0..T."""
    beta = torch.linspace(beta_start, beta_end, T, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])


def ddim(network, x, alpha_bar, times, eta, noise):
    """x at times[-1] = 0 from noise x at times[0]."""
    for i, (t, s) in enumerate(zip(times, times[1:])):
        a, b = alpha_bar[t], alpha_bar[s]
        eps = network(x, t)
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        std = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        x = b.sqrt() * x0 + (1 - b - std ** 2).sqrt() * eps
        if eta > 0 and s > 0:
            x = x + std * noise(i)
    return x


# ---- the adapter: ten lines

name = "example DDIM"


def trajectory(sampler, schedule, T, steps, rule, final, x, denoiser, noise, eta=0.0):
    if (sampler, schedule, rule, final) != ("ddim", "linear", "trailing", "zero") or not 1 <= steps <= T:
        raise NotImplementedError("DDIM on trailing times of the linear schedule alone")
    times = [round(k * T / steps) for k in range(steps, -1, -1)]
    return ddim(lambda x, t: torch.from_numpy(denoiser(x.numpy(), t)), torch.from_numpy(x), alpha_bars(T), times, eta,
                lambda i: torch.from_numpy(noise(i)))
