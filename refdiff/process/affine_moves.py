"""What the stochastic samplers do to Gaussian data, as moves for affine.law. Nothing here is the samplers' code.

Each is derived from what the step must do: a score is minus the precision of x times its deviation, a Heun step the
stability function of a linear ODE, a weight of a multistep rule the integral that it stands for, by quadrature.
"""
import numpy as np

from .affine import Move, _added_variance, _posterior_std, denoising, keeping, noisy


def precision(world, level):
    """Cov(x_t)^-1: on Gaussian data score(x) = -precision (x - alpha mean)."""
    return np.linalg.inv(level.alpha ** 2 * world.cov + level.sigma ** 2 * np.eye(world.dim))


def uphill(world, level, keep, gain, std):
    """The move x' = keep x + gain score(x) + std z at a level."""
    identity, P = np.eye(world.dim), precision(world, level)
    return Move(keep * identity - gain * P, gain * level.alpha * P @ world.mean, std * identity)


def reverse_diffusion(grid, world, end="mean"):
    """The chain x_t = x_s - (1 - r) x_s + sqrt(v) z, backwards: x_s = x_t + (1 - r) x_t + v score + sqrt(v) z."""
    for i in range(len(grid)):
        s, t = grid.level(i + 1), grid.level(i)
        v = _added_variance(s, t)
        yield uphill(world, t, 1 + (1 - t.alpha / s.alpha), v, np.sqrt(v) * noisy(grid, i, end))


def ancestral(grid, world, variance="small", end="mean"):
    """q(x_s | x_t, x_0) averaged over x_0 by Tweedie's formula: x_s = (x_t + v score)/r + std z."""
    for i in range(len(grid)):
        s, t = grid.level(i + 1), grid.level(i)
        r, v = t.alpha / s.alpha, _added_variance(s, t)
        std = np.sqrt(v) if variance == "large" else _posterior_std(s, t)
        yield uphill(world, t, 1 / r, v / r, std * noisy(grid, i, end))


def euler_maruyama(grid, world, f, g2, dts, end="mean"):
    """x + (f x - g^2 score) dt + sqrt(g^2 |dt|) z, for functions f and g2 of t and the (negative) steps dts."""
    for i, dt in enumerate(dts):
        t = grid.t[i]
        yield uphill(world, grid.level(i), 1 + f(t) * dt, -g2(t) * dt, np.sqrt(-g2(t) * dt) * noisy(grid, i, end))


def langevin(grid, world, predictor, snr, corrections, first="predictor"):
    """Each of the predictor's moves (one per step), and `corrections` moves x + e score + sqrt(2 e) z at its levels.

    e = 2 (snr sigma)^2 (alpha/alpha_next)^2, alpha_next one level on. first = "corrector" corrects level 0 as well.
    """
    for i, move in enumerate(predictor):
        level = grid.level(i)
        e = 2 * (snr * level.sigma * level.alpha / grid.alpha[i + 1]) ** 2
        if i > 0 or first == "corrector":
            for _ in range(corrections):
                yield uphill(world, level, 1.0, e, np.sqrt(2 * e))
        yield move


def churned_heun(grid, world, churned):
    """EDM's algorithm 2 on the linear ODE d xbar/d tau = S(tau) (xbar - mean), S = tau (cov + tau^2 I)^-1.

    xbar = x/alpha, tau = sigma/alpha. churned(tau) -> (tau_hat, std of the noise that is added). Heun's method
    multiplies the deviation by I + h/2 (S_hat + S_s (I + h S_hat)), Euler's by I + h S_hat, which ends at tau = 0.
    """
    identity = np.eye(world.dim)

    def slope(tau):
        return tau * np.linalg.inv(world.cov + tau ** 2 * identity)

    for i in range(len(grid)):
        s, t = grid.level(i + 1), grid.level(i)
        tau, end = t.sigma / t.alpha, s.sigma / s.alpha
        hat, std = churned(tau)
        h, S = end - hat, slope(hat)
        R = identity + h * S
        if end > 0:
            R = identity + h / 2 * (S + slope(end) @ R)
        yield Move(R * s.alpha / t.alpha, s.alpha * (world.mean - R @ world.mean), s.alpha * std * R)


def sde_multistep(grid, world, tau=1.0, order=2, rule="truncated", end="mean"):
    """SDE-DPM-Solver++ on y = (x, last x0hat): the marginals of a known x_0 are kept, a slope of x0hat is integrated.

    The noise of variance tau times the reverse SDE's leaves std^2 = sigma_s^2 (1 - (SNR_t/SNR_s)^tau), which with
    `keeping` fixes a and c. A slope of x0hat in lambda adds slope alpha_s (1+tau) int_0^h e^(-(1+tau)(h-u)) u du, by
    Gauss-Legendre, or truncated c slope h/2.
    """
    identity = np.eye(world.dim)
    node, weight = np.polynomial.legendre.leggauss(80)
    h_before = None
    for i in range(len(grid)):
        s, t = grid.level(i + 1), grid.level(i)
        kept = 0.0 if s.sigma == 0 else (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2           # e^-2h
        std = s.sigma * np.sqrt(-np.expm1(tau * np.log(kept))) if kept > 0 else s.sigma * (tau > 0)
        a, c, _ = keeping(s, t, std)
        now = before = 0.0
        if order == 2 and i > 0 and s.sigma > 0:
            h = -np.log(kept) / 2
            u = h / 2 * (1 + node)
            integral = (1 + tau) * h / 2 * weight @ (np.exp(-(1 + tau) * (h - u)) * u)
            now = (c * h / 2 if rule == "truncated" else s.alpha * integral) / h_before
            before = -now
        h_before = np.inf if t.alpha == 0 else (np.inf if s.sigma == 0 else -np.log(kept) / 2)
        G, g = denoising(world, t)
        M = np.block([[a * identity + (c + now) * G, before * identity], [G, 0 * identity]])
        yield Move(M, np.concatenate([(c + now) * g, g]),
                   np.vstack([std * noisy(grid, i, end) * identity, 0 * identity]))
