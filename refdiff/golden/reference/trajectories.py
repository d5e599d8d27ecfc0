"""Single steps and whole trajectories: the loop of every sampler over a grid and a denoiser known in closed form."""
from ..conventions import choose, replaced
from . import steps as solver
from .levels import Levels, grid, lam
from .process import read, said, threshold
from .singlestep import dpm
from .worlds import predict

SAMPLERS = {"ddpm": solver.ddpm, "ddim": solver.ddim, "euler": solver.euler, "heun": solver.heun,
            "dpmpp": solver.dpmpp, "lms": solver.lms, "deis": solver.deis, "plms": solver.plms, "unipc": solver.unipc,
            "reverse_diffusion": solver.reverse_diffusion, "ancestral": solver.ancestral,
            "euler_ancestral": solver.euler_ancestral, "euler_maruyama": solver.euler_maruyama,
            "sde_dpmpp": solver.sde_dpmpp, "dpm": None, "churn": None}
HISTORY = ("dpmpp", "lms", "deis", "plms", "unipc", "sde_dpmpp")
NOISY = ("ddpm", "ddim", "reverse_diffusion", "ancestral", "euler_ancestral", "euler_maruyama", "sde_dpmpp", "churn")
FEW = 15


def _sampler(sampler):
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}, wanted one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler]


def step(sampler, schedule, T, t, s, x, prediction, num, c=None, kind="eps", noise=None, prediction_s=None,
         predictions_inside=(), earlier_t=(), earlier=(), steps=None, clip=None, percentile=None, keep_eps=False,
         **options):
    """x_s from x at time t with the network's prediction there, and noise where the step takes some.

    prediction_s: for heun, unipc's corrector and churn, the prediction at their own first result. predictions_inside:
    for dpm, those at its levels between. earlier_t, earlier: for multistep methods, the times of the steps before and
    their predictions, latest first, of the kind that the method's polynomial is in (x0 for dpmpp, unipc and sde_dpmpp,
    else eps). steps: N of churn's S_churn/N. clip: x0 is clipped to -clip..clip (1 alone is known; with a percentile by
    `threshold`) and eps derived anew from it, or kept.
    """
    c = c or choose()
    if clip is not None:
        if num.real(clip) != 1:
            raise ValueError(f"step {sampler}: clip is {clip}, wanted 1")
        keep_eps = keep_eps or c.rederive_eps == "no"
        c = replaced(c, clip="none" if percentile is not None else "1", rederive_eps="no" if keep_eps else "yes")
    _sampler(sampler)
    levels = Levels(schedule, T, num, c)
    here, there = levels.at(t), levels.at(s)
    if not here.alpha * there.sigma < there.alpha * here.sigma:
        raise ValueError(f"step {sampler}: from t = {t} to s = {s}, wanted a step to less noise")
    x = num.array(x)
    z = None if noise is None else num.array(noise)
    if sampler == "churn":
        def said_there(x, level):
            return read(kind, num.array(prediction_s if level is there else prediction), x, level, num, c)
        return _churned(x, here, there, levels, steps, lambda grown: z, said_there, num, c, options)
    if sampler == "dpm":
        inside = iter(predictions_inside)
        x0, eps = read(kind, num.array(prediction), x, here, num, c)
        return dpm(x, x0, eps, here, there, num, lambda y, level: read(
            kind, num.array(next(inside)), y, level, num, c)[1], levels.of_lambda, **options)
    x0, eps = read(kind, num.array(prediction), x, here, num, c, there)
    if percentile is not None and clip is not None:
        x0 = threshold(x0, num, c, percentile, clip)["x0"]
        eps = eps if keep_eps else (x - here.alpha * x0) / here.sigma
    if sampler in HISTORY:
        values = [num.array(value) for value in earlier]
        options["earlier"] = [(levels.at(u), value, value) for u, value in zip(earlier_t, values)]
        options.setdefault("order", len(values) + 1)
    if sampler in ("euler_maruyama", "deis"):
        options["schedule"] = schedule
    if sampler == "heun" and there.sigma > 0:
        guess = solver.euler(x, x0, eps, here, there, z, num, c)
        options["eps_s"] = read(kind, num.array(prediction_s), guess, there, num, c)[1]
    if sampler == "unipc" and prediction_s is not None:
        guess = solver.unipc(x, x0, eps, here, there, z, num, c, **options)
        options["x0_s"] = read(kind, num.array(prediction_s), guess, there, num, c)[0]
    return SAMPLERS[sampler](x, x0, eps, here, there, z, num, c, **options)


def _churned(x, t, s, levels, S, draw, model, num, c, options):
    """Up to the level hat by noise, then Heun's step from there; model(x, level) -> (x0, eps). (EDM alg. 2)"""
    options = dict(options)
    S_noise = num.real(options.pop("S_noise", "1"))
    grown = solver.gamma(t.ratio, S, num, c, **options)
    hat = t
    if grown > 0:
        hat, z = levels.of_lambda(lam(t, num) - num.log1p(grown)), draw(grown)
        if z is None:
            raise ValueError("churn: this step adds noise and none was given")
        x = hat.alpha * (x / t.alpha + num.sqrt((hat.ratio - t.ratio) * (hat.ratio + t.ratio)) * S_noise * z)
    x0, eps = model(x, hat)
    eps_s = model(solver.euler(x, x0, eps, hat, s, None, num, c), s)[1] if s.sigma > 0 else None
    return solver.heun(x, x0, eps, hat, s, None, num, c, eps_s)


def trajectory(sampler, schedule, T, steps, rule, final, x, denoiser, num, c=None, noise=None, grid_options=None,
               states=False, kind="eps", **options):
    """x at the end (states: after every step) of a sampler on the world `denoiser`, started from x at the first level.

    The network is told the time of the level it is called at, and predicts `kind`; noise[i] is the i-th draw.
    """
    c = c or choose()
    _sampler(sampler)
    if sampler == "dpm" and T is not None:
        raise ValueError(f"dpm: T is {T}, wanted none: inside a step it is between the entries of a table")
    return _Run(sampler, schedule, T, grid(schedule, T, rule, steps, final, num, c, **(grid_options or {})), denoiser,
                noise, kind, num, c, options).states(num.array(x), states)


class _Run:
    """One trajectory: its levels, its network, its draws, and what was predicted so far."""

    def __init__(self, sampler, schedule, T, visited, world, noise, kind, num, c, options):
        self.sampler, self.schedule, self.T, self.visited, self.world = sampler, schedule, T, visited, world
        self.noise, self.kind, self.num, self.c, self.options = noise, kind, num, c, options
        self.S, self.used, self.made, self.ahead = len(visited) - 1, 0, [], None
        self.truth, self.levels = Levels(schedule, T, num), Levels(schedule, T, num, c)

    def states(self, x, every):
        x, made = x * self.initial_scale(), []
        for i in range(self.S):
            x = self.num.keep(self.step(i, x))
            made.append(x)
        return made if every else x

    def initial_scale(self):
        first = self.visited[0]
        if self.c.initial_scale == "sigma_max":
            return first.sigma
        if self.c.initial_scale == "sqrt(sigma_max^2+1)":
            return self.num.sqrt(1 + 1 / first.ratio ** 2)
        return 1

    def model(self, x, level, following=None):
        """(x0, eps) as the sampler reads what the network says at x, told the time of a level (and of the next)."""
        t, c = level.t, self.c
        if c.time_label == "next" and following is not None and following.sigma > 0:
            t = following.t
        elif self.T is not None:
            t = min(max(t + {"t-1": -1, "t+1": 1}.get(c.time_label, 0), 1), self.T)
            if c.time_label == "scaled":
                t = min(max(round(t * 1000 / self.T), 1), self.T)
        there = self.truth.at(t)
        value = said(self.kind, *predict(self.world, x, there, self.num), there.alpha, there.sigma, self.num)
        return read(self.kind, self.num.keep(value), x, level, self.num, c, following)

    def draw(self, i):
        """The noise of step i, counted as the convention says."""
        if self.noise is None:
            raise ValueError("trajectory: this sampler draws noise and none was given")
        index = {"used": self.used, "next": i + 1, "reversed": len(self.noise) - 1 - i}.get(self.c.noise_index, i)
        self.used += 1
        return self.num.array(self.noise[min(max(index, 0), len(self.noise) - 1)])

    def noisy(self, i):
        """Whether step i takes noise."""
        option, default = {"ddim": ("eta", "0"), "euler_ancestral": ("eta", "1"), "sde_dpmpp": ("tau", "1")}.get(
            self.sampler, (None, "1"))
        amount = self.num.real(self.options.get(option, default))
        return (self.sampler in NOISY and amount > 0 and self.visited[i + 1].sigma >= 0
                and (i < self.S - 1 or self.c.last_step_noise == "added"))

    def ending(self, i):
        """The level that step i ends on."""
        if self.c.stepping == "visited" or self.T is None:
            return self.visited[i + 1]
        below = self.visited[i].t - self.T // self.S
        return self.levels.at(below) if below > 0 else self.visited[-1]

    def step(self, i, x):
        """x after step i."""
        t, s, num, c = self.visited[i], self.ending(i), self.num, self.c
        options = dict(self.options)
        if self.sampler == "churn":
            return _churned(x, t, s, self.levels, self.S, lambda grown: self.draw(i), self.model, num, c, options)
        x0, eps = self.ahead or self.model(x, t, s)
        if self.sampler == "dpm":
            return dpm(x, x0, eps, t, s, num, lambda y, level: self.model(y, level)[1], self.levels.of_lambda,
                       **options)
        z = self.draw(i) if self.noisy(i) else None
        if self.sampler in HISTORY:
            self.history(options, i)
        if self.sampler in ("euler_maruyama", "deis"):
            options["schedule"] = self.schedule
            if self.sampler == "euler_maruyama" and c.maruyama_dt == "T/N":
                options["dt"] = -self.visited[0].t / self.S
        if self.sampler == "heun" and s.sigma > 0:
            options["eps_s"] = self.model(solver.euler(x, x0, eps, t, s, z, num, c), s)[1]
        self.made.append((t, x0, eps))
        if i == 0 and self.sampler == "plms" and c.start == "improved_euler" and self.S > 1 and options["order"] > 1:
            return self.mended(x, eps, t, s)
        if self.sampler == "unipc":
            return self.unipc(i, x, x0, eps, options)
        return SAMPLERS[self.sampler](x, x0, eps, t, s, z, num, c, **options)

    def mended(self, x, eps, t, s):
        """The first step of PLMS by improved Euler, to the second level, from as far above it as strides say."""
        second = self.visited[1]
        eps_s = self.model(solver.euler(x, None, eps, t, s, None, self.num, self.c), second)[1]
        if self.c.stepping == "stride" and self.T is not None:
            t = self.levels.at(second.t + self.T // self.S)
        return solver.improved_euler(x, eps, eps_s, t, second)

    def history(self, options, i):
        """Sets the steps before and the order that there is; lower at the end where that is asked for."""
        ending = options.pop("lower_order_final", "paper")
        ending = ending if self.c.lower_order_final == "given" else self.c.lower_order_final
        if ending not in ("paper", "always", "never"):
            raise ValueError(f"{self.sampler}: lower_order_final is {ending!r}, wanted paper, always or never")
        order = options.get("order", {"lms": 4, "plms": 4, "deis": 3}.get(self.sampler, 2))
        lowered = ending == "always" or ending == "paper" and (
            self.sampler == "unipc" or self.sampler == "dpmpp" and self.S < FEW)
        if self.sampler == "dpmpp" and order == 3:
            options.setdefault("solver_rule", "exact")
        options["order"] = min(order, self.S - i) if lowered else order
        options["earlier"] = [point for point in reversed(self.made) if point[0].alpha != 0]

    def unipc(self, i, x, x0, eps, options):
        """Predict; correct with the prediction at the result, which the next step uses again."""
        t, s, num, c = self.visited[i], self.ending(i), self.num, self.c
        corrector = options.pop("corrector", "paper")
        corrector = corrector if c.corrector == "given" else c.corrector
        if corrector not in ("paper", "every", "never"):
            raise ValueError(f"unipc: corrector is {corrector!r}, wanted paper, every or never")
        guess = solver.unipc(x, x0, eps, t, s, None, num, c, **options)
        if s.sigma == 0 or t.alpha == 0 or corrector == "never" or corrector == "paper" and i == self.S - 1:
            self.ahead = None
            return guess
        self.ahead = self.model(guess, s)
        return solver.unipc(x, x0, eps, t, s, None, num, c, **options, x0_s=self.ahead[0])
