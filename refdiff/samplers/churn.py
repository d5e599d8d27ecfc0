"""EDM's stochastic sampler: before each step of Heun's method, a little more noise."""
import math

from .state import after, check, draw, number, one_of


def _raised(grid, t, gamma):
    """The family's level of (1 + gamma) sigma/alpha."""
    try:
        return grid.at(t.lam - math.log1p(gamma))
    except ValueError as error:
        raise ValueError(f"churn: the level t_hat above t = {t.t} cannot be had; give S_tmax below its sigma/alpha = "
                         f"{t.ratio:g}: {error}") from None


def churn(denoiser, grid, x, S_churn=0.0, S_tmin=0.0, S_tmax=math.inf, S_noise=1.0, draws="used", noise=None):
    """Up to t_hat = (1 + gamma) t by sqrt(t_hat^2 - t^2) S_noise z, then one step of `heun` from t_hat. [EDM alg. 2]

    t stands for sigma/alpha and x for x/alpha. gamma = min(S_churn/N, sqrt(2) - 1), N = len(grid), at the levels with
    S_tmin <= t <= S_tmax, else 0. S_churn = 0 is `heun` to the bit. The level t_hat is the grid's family's, which must
    reach it: a discrete schedule has none above T, so give S_tmax there.

    Weak order 2 on Gaussian data for a fixed S_churn, from 64 steps on; at the cap of gamma the noise of every step is
    as large however many there are, and the law improves by less than first order.

    noise(i) is drawn as step i begins, in the last step too; the output has no noise of its own. draws: "used" asks
    for it where gamma > 0 alone; "every" asks at every step and drops what is not used, as the authors' code does: with
    a noise that counts its calls the two are different samples. x[n, ...] is noise at grid.level(0), with alpha > 0.
    Yields a State per step; the prediction is the one at t_hat.
    """
    S_churn, S_noise = number("churn: S_churn", S_churn, 0), number("churn: S_noise", S_noise, 0)
    S_tmin, S_tmax = (number(f"churn: {name}", value, 0, finite=False)
                      for name, value in (("S_tmin", S_tmin), ("S_tmax", S_tmax)))
    if not S_tmin <= S_tmax:
        raise ValueError(f"churn: S_tmin is {S_tmin}, S_tmax {S_tmax}, wanted S_tmin <= S_tmax")
    one_of("churn: draws", draws, ("used", "every"))
    if grid.level(0).alpha == 0:
        raise ValueError("churn: the grid starts at alpha = 0, where sigma/alpha is infinite; "
                         "start at a level with signal, or use ddim with eta > 0")
    S = len(grid)
    gamma = min(S_churn / S, math.sqrt(2) - 1)
    starts = [grid.level(i) for i in range(S)]
    hats = [_raised(grid, t, gamma) if gamma > 0 and S_tmin <= t.ratio <= S_tmax else t for t in starts]
    denoiser = check("churn", denoiser, x, noise,
                     S if draws == "every" else sum(hat is not t for hat, t in zip(hats, starts)))
    for i, (t, hat) in enumerate(zip(starts, hats)):
        s = grid.level(i + 1)
        if hat is not t or draws == "every":
            z = draw("churn", noise, i, x)
        if hat is not t:
            x = hat.alpha * (x / t.alpha + math.sqrt((hat.ratio - t.ratio) * (hat.ratio + t.ratio)) * S_noise * z)
        prediction = denoiser(x, hat)
        xbar, h = x / hat.alpha, s.ratio - hat.ratio
        d_cur = prediction.eps
        x = s.alpha * (xbar + h * d_cur)
        if s.sigma > 0:
            d_prime = denoiser(x, s).eps
            x = s.alpha * (xbar + h * (0.5 * d_cur + 0.5 * d_prime))
        yield after("churn", i, s, x, prediction)
