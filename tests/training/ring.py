"""The 8-Gaussian ring as a data set and a teacher, for tests that distil on an exact world."""
import numpy as np

from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.distill.consistency import Consistency, ConsistencyConfig, ConsistencyObjective
from refdiff.models import MLP, MLPConfig
from refdiff.process import exact
from refdiff.process.level import ve
from refdiff.fit import TrainConfig, fit, start
from refdiff.rng import Key

WORLD = exact.ring()                                    # radius 1, std .1
SIGMA_DATA = float(np.sqrt(0.5 + 0.1 ** 2))             # per coordinate


class Points:
    """Draws of the ring, in place of images."""

    def __init__(self, batch):
        self.batch = batch

    def draw(self, key, step):
        return WORLD.sample(key.fold("x", step), self.batch).astype(np.float32), None


def exact_teacher(thetas, x, sigma, labels):
    """The ideal denoiser of the ring in place of a trained network."""
    return WORLD.posterior_mean(x.astype(np.float64), ve(sigma)).astype(x.dtype)


def distil_ring(path, steps=1000, seed=0, **changes):
    """(consistency function f(x, sigma), loss history) of a small MLP distilled from the exact teacher."""
    config = ConsistencyConfig(**{"sigma_min": 0.02, "sigma_max": 10.0, "rho": 7.0, **changes})
    training = TrainConfig(steps=steps, batch=256, lr=2e-3, warmup=50, ema=0.99, seed=seed, threads=1,
                           save_every=steps)
    denoiser = Denoiser(MLP(MLPConfig()), DenoiserConfig(sigma_data=SIGMA_DATA))
    consistency = Consistency(denoiser, config.sigma_min)
    theta = denoiser.network.layout.init(Key(seed).fold("init"))
    objective = ConsistencyObjective(consistency, exact_teacher, Points(training.batch), config, training)
    checkpoint = fit(objective, start(denoiser, theta, ("ema", "target"), "distillation", {}, seed), training, path,
                     progress=False)
    theta = checkpoint.parameters(denoiser.network.layout, "ema")
    return consistency.bind(theta, rows=4096), checkpoint.history["loss"]


def rmse(f, sigma=10.0, sigma_min=0.02, n=2000):
    """Root mean square distance per coordinate of f(x, sigma) from the exact PF-ODE map to sigma_min."""
    key = Key(99)
    x = WORLD.sample(key.fold("x"), n) + sigma * key.fold("eps").normal((n, 2))
    wanted = WORLD.flow(x, ve(sigma), ve(sigma_min))
    return float(np.sqrt(np.mean((f(x, sigma) - wanted) ** 2)))
