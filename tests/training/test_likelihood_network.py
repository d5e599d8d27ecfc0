"""Likelihoods of networks: the derivative of a denoiser, densities that sum to one, and the command."""
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from planted import mutant
from test_denoiser import CASES, NET, setting

from refdiff import data, likelihood as room
from refdiff.checkpoint import load_checkpoint
from refdiff.cli import main
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.models import MLP, MLPConfig, UNetConfig
from refdiff.fit import TrainConfig
from refdiff.process import likelihood
from refdiff.process.gaussian import q_sample
from refdiff.process.level import expand, ve
from refdiff.rng import Key
from refdiff.train import train


def jacobian(denoiser, theta, x, level, h=1e-30):
    """dD/dx, (n, d, d), by the complex step of the network; the level's coefficients are numbers."""
    c_skip, c_out, c_in, c_noise = denoiser.precondition(level)
    columns = []
    for e in np.eye(x.shape[1]):
        F, _ = denoiser.network.forward(theta.with_flat(theta.flat.astype(complex)),
                                        expand(c_in, x) * (x + 1j * h * e), c_noise + 0j)
        columns.append(expand(c_skip, x) * e + expand(c_out, x) * F.imag / h)
    return np.stack(columns, axis=2)


def check_derivative(make=Denoiser, prediction="F", process="linear"):
    _, theta, x0, level, eps = setting(prediction, process)
    denoiser = make(NET, DenoiserConfig(prediction=prediction, process=process, sigma_data=0.7))
    x = q_sample(x0, eps, level)
    J = jacobian(denoiser, theta, x, level)
    v = Key(1).normal(x.shape)
    for by, want in (("jvp", (J @ v[:, :, None])[:, :, 0]), ("vjp", (v[:, None] @ J)[:, 0])):
        for rows in (2, 64):
            D, product = denoiser.linearise(theta, by=by, rows=rows)(x, level)
            np.testing.assert_allclose(product(v), want, rtol=0, atol=1e-12 * np.abs(want).max())
            np.testing.assert_allclose(D, denoiser.forward(theta, x, level)[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("prediction, process", CASES)
def test_the_derivative_of_a_denoiser_is_the_complex_step_by_jvp_and_by_vjp(prediction, process):
    check_derivative(prediction=prediction, process=process)


def test_a_linearised_denoiser_runs_in_thetas_dtype_and_answers_in_xs():
    denoiser, theta, x0, _, _ = setting("F", "edm")
    fine, coarse = (denoiser.linearise(t)(x0, ve(1.0)) for t in (theta, theta.astype(np.float32)))
    for one, two in ((fine[0], coarse[0]), (fine[1](x0), coarse[1](x0))):
        assert two.dtype == np.float64 and 0 < np.abs(one - two).max() < 1e-5
    with pytest.raises(ValueError, match="by is 'fd', wanted 'jvp' or 'vjp'"):
        denoiser.linearise(theta, by="fd")


def line(prediction="F", process="edm"):
    """A random network on points of the line, and its own range of levels."""
    network = MLPConfig(dim=1, width=16, depth=2, embedding=8, time_scale=1.0 if process == "edm" else 0.02)
    config = DenoiserConfig(prediction=prediction, process=process, T=100, sigma_data=0.7, sigma_min=0.05)
    denoiser = Denoiser(MLP(network), config)
    theta = denoiser.network.layout.init(Key(2), np.float64)
    theta.flat += 0.3 * Key(3).normal(theta.flat.shape)
    least, most = denoiser.sigma_range()
    return denoiser, theta, ve(max(least, 0.05)), ve(min(most, 20.0))


def density(x, prediction="F", process="edm", trace=likelihood.exact_trace, by="jvp", module=likelihood):
    denoiser, theta, a, b = line(prediction, process)
    found = module.change_of_variables(denoiser.linearise(theta, by=by, rows=1000), x, a, b, module.normal_prior(0.7),
                                       trace, likelihood.Adaptive(1e-6, 1e-6))
    return found.log_p


@pytest.mark.parametrize("prediction, process", [("F", "edm"), ("v", "linear"), ("x0", "linear")])
def test_the_density_of_any_network_on_the_line_sums_to_one(prediction, process):
    """Whatever the weights: the flow is one to one, so its change of variables keeps the total. Trapezoids over +-25
    of a smooth density that falls to 0 are exact, to the solver's 1e-6 per step."""
    x = np.linspace(-25, 25, 1501)[:, None]
    p = np.exp(density(x, prediction, process))
    assert p[0] + p[-1] < 1e-9
    np.testing.assert_allclose(p.sum() * (x[1, 0] - x[0, 0]), 1.0, rtol=1e-5)


def test_the_trace_is_the_same_by_jvp_by_vjp_and_by_a_complete_set_of_probes():
    """In one dimension a probe of +-1 is complete."""
    x = np.linspace(-2, 2, 9)[:, None]
    want = density(x)
    np.testing.assert_allclose(density(x, by="vjp"), want, rtol=0, atol=1e-9)
    np.testing.assert_allclose(density(x, trace=likelihood.hutchinson(-np.ones((1, 9, 1)))), want, rtol=0, atol=1e-9)


# ---- a checkpoint and the command

SMALL = dict(channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, dropout=0.0, time_scale=16.0,
             embedding_period=100.0)


def refdiff(*args, ok=True):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert (result.exit_code == 0) == ok, result.output
    if not ok:
        assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two tiny networks of 4x4 images, one with labels, and the images."""
    out = tmp_path_factory.mktemp("likelihood")
    grey = np.random.default_rng(0).integers(0, 2, (40, 1, 1, 1)) * 4 + np.random.default_rng(1).integers(
        0, 3, (40, 4, 4, 1))
    images = data.from_array(grey.astype(np.uint8), levels=8)
    labelled = data.from_array(grey.astype(np.uint8), (grey[:, 0, 0, 0] > 2).astype(np.int64), levels=8)
    for name, dataset in (("plain", images), ("labelled", labelled)):
        train(dataset, UNetConfig(**SMALL), DenoiserConfig(sigma_min=0.02, sigma_max=40.0),
              TrainConfig(steps=60, batch=16, warmup=5, lr=1e-2, threads=1), out / name, progress=False)
        data.save(out / f"{name}.h5", dataset.images, dataset.labels, 8, dataset.classes)
    refdiff("distill", out / "plain" / "checkpoint.h5", "--data", out / "plain.h5", "--steps", 2, "--batch", 8,
            "--threads", 1, "--out", out / "plain")
    return out


def test_a_trained_network_has_a_likelihood_that_beats_the_uniform_one(runs):
    """8 levels hold 3 bits. The probes change the figure, by their standard deviation of less than 0.2 bits."""
    checkpoint, dataset = load_checkpoint(runs / "plain" / "checkpoint.h5"), data.load(runs / "plain.h5")
    exact = room.likelihood(checkpoint, dataset, 12, "exact", seed=1, threads=1)
    probes = room.likelihood(checkpoint, dataset, 12, "hutchinson", probes=4, seed=1, threads=1)
    assert 0 < exact["bits_per_dim"] < 3 and exact["standard_error"] > 0
    assert exact["probes"] == 16 and exact["converged_to"] < exact["tolerance"]
    assert 0 < abs(probes["bits_per_dim"] - exact["bits_per_dim"]) < 0.2
    assert exact["bin_bits"] == pytest.approx(math.log2(7 / 2))
    assert exact["bits_per_dim"] == pytest.approx(exact["bin_bits"] - exact["nats"] / (16 * math.log(2)), rel=1e-12)


def test_labels_are_given_where_the_network_knows_them(runs):
    checkpoint, dataset = load_checkpoint(runs / "labelled" / "checkpoint.h5"), data.load(runs / "labelled.h5")
    own = room.likelihood(checkpoint, dataset, 6, threads=1)
    assert own["given"] == "labels"
    swapped = data.from_array(dataset.images, 1 - dataset.labels, 8, dataset.classes)
    assert room.likelihood(checkpoint, swapped, 6, threads=1)["bits_per_dim"] != own["bits_per_dim"]
    assert room.likelihood(checkpoint, data.load(runs / "plain.h5"), 6, threads=1)["given"] == "nothing"


def test_the_figure_is_a_function_of_the_seed_and_not_of_the_batches(runs):
    checkpoint, dataset = load_checkpoint(runs / "plain" / "checkpoint.h5"), data.load(runs / "plain.h5")

    def figure(**options):
        return room.likelihood(checkpoint, dataset, 7, threads=1, rtol=1e-5, **options)["bits_per_dim"]

    assert figure(seed=3) == figure(seed=3) != figure(seed=4)
    assert figure(seed=3, rows=2) == pytest.approx(figure(seed=3), abs=1e-5)


def test_the_command_prints_and_writes_the_figures(runs, tmp_path):
    printed = refdiff("likelihood", runs / "plain" / "checkpoint.h5", "--data", runs / "plain.h5", "--count", 5,
                      "--threads", 1, "--json", tmp_path / "x.json")
    figures = json.loads(printed)
    assert figures == json.loads((tmp_path / "x.json").read_text())
    assert figures["images"] == 5 and figures["trace"] == "hutchinson" and figures["levels"] == 8


def test_a_network_on_a_discrete_schedule_has_a_bound_above_its_odes_likelihood(tmp_path, runs):
    """The two laws differ, but 50 steps of a small network lose more in the bound. F is smooth between the times."""
    dataset = data.load(runs / "plain.h5")
    train(dataset, UNetConfig(**SMALL), DenoiserConfig(process="cosine", T=50, sigma_min=0.05, sigma_max=40.0),
          TrainConfig(steps=60, batch=16, warmup=5, lr=1e-2, threads=1), tmp_path, progress=False)
    args = [tmp_path / "checkpoint.h5", "--data", runs / "plain.h5", "--count", 12, "--threads", 1]
    by_bound = json.loads(refdiff("likelihood", *args, "--by", "bound"))
    assert json.loads(refdiff("likelihood", *args, "--by", "bound", "--variance", "small"))["variance"] == "small"
    by_ode = json.loads(refdiff("likelihood", *args, "--probes", 4))
    assert by_bound["T"] == 50 and by_bound["levels"] == 8 and 0 < by_bound["prior"] < 0.01 < by_bound["decoder"]
    assert 0 < by_ode["bits_per_dim"] < by_bound["bits_per_dim"] < 4
    assert "trained with process 'edm'" in refdiff("likelihood", runs / "plain" / "checkpoint.h5", "--data",
                                                  runs / "plain.h5", "--by", "bound", ok=False)


@pytest.mark.parametrize("args, message", [
    (["plain/distilled.h5", "--data", "plain.h5"], "has no density of its own"),
    (["plain/checkpoint.h5"], "are (8, 8, 1), the checkpoint's (4, 4, 1)"),
    (["plain/checkpoint.h5", "--data", "plain.h5", "--count", "99"], "count is 99, wanted 1..40"),
    (["plain/checkpoint.h5", "--data", "plain.h5", "--trace", "exact", "--probes", "2"], "--by ode --trace hutch"),
    (["plain/checkpoint.h5", "--data", "plain.h5", "--variance", "small"], "belongs to --by bound"),
    (["plain/checkpoint.h5", "--data", "plain.h5", "--count", "2", "--rtol", "0.5", "--tolerance", "1e-9"],
     "the integral has not converged"),
])
def test_what_has_no_figure_is_refused_in_one_line(runs, args, message):
    args = [str(runs / a) if a.endswith(".h5") else a for a in args]
    assert message in refdiff("likelihood", *args, ok=False)


# ---- planted mutants

MUTANTS = [
    ("return c_skip * v + after * joined", "return v + after * joined"),
    ("(c_in, c_out, jvp)", "(c_out, c_out, jvp)"),
    ("(c_in, c_out, jvp)", "(c_in, c_in, jvp)"),
    ("(c_out, c_in, backward)", "(c_in, c_in, backward)"),
    ("moved[parts[i]]", "moved[parts[0]]"),
    ("return c_skip * x + c_out * joined(F", "return c_out * joined(F"),
]


@pytest.mark.parametrize("old, new", MUTANTS, ids=range(len(MUTANTS)))
def test_every_mutant_of_the_linearised_denoiser_is_killed(old, new):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_derivative(mutant("denoiser", (old, new)).Denoiser)
