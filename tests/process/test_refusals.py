"""What broadcasting or casting would answer in silence is refused by name: rows never share, dtypes never mix."""
import numpy as np
import pytest

from refdiff import objectives
from refdiff.ops import binned_normal, gaussian_kl
from refdiff.process import bound, exact, families, gaussian, grids, likelihood, schedules, sde, times
from refdiff.process.level import alike, ve
from refdiff.process.parameterization import KINDS, Prediction
from refdiff.rng import Key

X = np.random.default_rng(0).uniform(-0.9, 0.9, (4, 3))
SINGLE = X.astype(np.float32)
ROW, T4 = X[:1], np.array([1, 2, 3, 4])
GREY = np.linspace(-1, 1, 17)[[0, 1, 8, 15, 16, 3]].reshape(2, 3)
SCHEDULE, VP, S, T = schedules.linear(5), families.VP(), ve(0.5), ve(1.0)


def zero(x, level):
    return Prediction("x0", 0 * x, x, level)


def linearised(x, level):
    return 0 * x, lambda v: 0 * v


def log_p(x=X[:2], linear=linearised, prior=likelihood.normal_prior(1.0), trace=likelihood.exact_trace):
    return likelihood.change_of_variables(linear, x, ve(0.1), ve(1.0), prior, trace, likelihood.Euler(2))


# every entry: the call with an argument to put in, what it takes, what it must refuse and the name it must use
LIKE_X = {
    "q_sample": (lambda a: gaussian.q_sample(X, a, S), "eps"),
    "posterior_mean": (lambda a: gaussian.posterior_mean(a, X, S, T), "x0"),
    "posterior_mean of x_t": (lambda a: gaussian.posterior_mean(X, a, S, T), "x_t"),
    "reverse_drift": (lambda a: sde.reverse_drift(VP, X, 0.5, a), "score"),
    "flow_drift": (lambda a: sde.flow_drift(VP, X, 0.5, a), "score"),
    "flow_path": (lambda a: objectives.flow_path(X, a, T4 / 5), "noise"),
    "flow_path of data": (lambda a: objectives.flow_path(a, X, T4 / 5), "data"),
    "term_bits": (lambda a: bound.term_bits(SCHEDULE, T4, X, X, a, -1.0, levels=0), "x0_hat"),
    "term_bits of x_t": (lambda a: bound.term_bits(SCHEDULE, T4, X, a, X, -1.0, levels=0), "x_t"),
    "bound.gaussian_kl": (lambda a: bound.gaussian_kl(X, a, X, X), "q_log_var"),
    "bin_nats": (lambda a: bound.bin_nats(X, a, -1.0), "mean"),
    "bin_nats of log_var": (lambda a: bound.bin_nats(X, X, a), "log_var"),
    "decoder_nats": (lambda a: bound.decoder_nats(X, X, a, levels=0), "log_var"),
    "variational_bound": (lambda a: bound.variational_bound(zero, SCHEDULE, X, lambda t: a, levels=0), "eps"),
    "dequantise": (lambda a: likelihood.dequantise(np.zeros((4, 3)), 3, abs(a)), "u"),
    "log_p": (lambda a: log_p(X, lambda x, level: (a, lambda v: 0 * v)), "D"),
    "gaussian_kl": (lambda a: gaussian_kl.forward(X, X, a, X), "q_mean"),
    "binned_normal": (lambda a: binned_normal.forward(X, a, X), "log_var"),
    **{f"matching_loss of {name}": (lambda a, i=i: objectives.matching_loss(
        "v", *(a if i == j else X for j in range(3)), T, 1.0), name) for i, name in enumerate(("value", "x0", "eps"))},
    **{f"Prediction {kind}": (lambda a, kind=kind: Prediction(kind, a, X, T, 1.0), "value") for kind in (*KINDS, "F")},
}
UNLIKE = {"one row for all": ROW, "one number per column": X[0], "a 0-d array": np.array(0.5),
          "another dtype": SINGLE, "half": X.astype(np.float16), "a row more": np.concatenate([X, ROW])}


@pytest.mark.parametrize("unlike", UNLIKE)
@pytest.mark.parametrize("call", LIKE_X)
def test_an_array_that_is_not_like_the_others_is_refused(call, unlike):
    ask, name = LIKE_X[call]
    ask(X + 0)
    if unlike == "a 0-d array" and name in ("q_log_var", "log_var") and call != "binned_normal":
        return                                                           # one log variance for all is a number
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        ask(UNLIKE[unlike])


@pytest.mark.parametrize("call, message", [
    (lambda: gaussian.q_sample(X, 0.5, S), "eps is a float but x0 is float64"),
    (lambda: objectives.matching_loss("eps", X, X, X, T, np.ones(1)), "weight has shape \\(1,\\)"),
    (lambda: objectives.matching_loss("eps", X, X, X, T, np.ones((4, 1))), "weight has shape \\(4, 1\\)"),
    (lambda: log_p(prior=lambda x, level: np.zeros((2, 1))), "prior's log density has shape \\(2, 1\\), wanted"),
    (lambda: log_p(prior=lambda x, level: 0.0), "prior's log density has shape \\(\\), wanted \\(2,\\)"),
    (lambda: log_p(trace=lambda product, x: np.zeros((2, 1))), "trace has shape \\(2, 1\\), wanted \\(2,\\)"),
    (lambda: log_p(linear=lambda x, level: (np.zeros(1), lambda v: 0 * v)), "likelihood: D is float64\\(1,\\)"),
])
def test_what_would_be_shared_between_rows_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("make, message", [
    (lambda: exact.Gaussian(NAN, 1.0), "Gaussian: mean .* wanted finite"),
    (lambda: exact.Gaussian([0.0], [[INF]]), "Gaussian: mean .* wanted finite"),
    (lambda: exact.Mixture([INF, 1], [0, 1], [1, 1]), "Mixture: .*every weight > 0 and finite"),
    (lambda: exact.Mixture([1e308, 1e308], [0, 1], [1, 1]), "Mixture: .*every weight > 0 and finite"),
    (lambda: exact.Mixture([NAN, 1], [0, 1], [1, 1]), "Mixture: .*every weight > 0 and finite"),
    (lambda: exact.Mixture([1, 1], [0, NAN], [1, 1]), "Gaussian: mean .* wanted finite"),
    (lambda: exact.FiniteData([0.0, 1.0], [1, INF]), "FiniteData: .*every one > 0 and finite"),
    (lambda: exact.FiniteData([0.0, NAN]), "FiniteData: .*finite"),
    (lambda: exact.ring(3, NAN), "wanted finite"), (lambda: exact.ring(3, std=INF), "wanted finite"),
    (lambda: families.Laplace(INF), "laplace.*: mean is inf, wanted finite"),
    (lambda: families.Laplace(NAN), "laplace.*: mean is nan, wanted finite"),
    (lambda: families.Laplace(0.0, NAN), "scale is nan"),
    (lambda: grids.Grid([NAN, 1], [1, 1], [2, 1], "x"), "grid x: the times t are .*wanted finite"),
    (lambda: grids.Grid([INF, 1], [1, 1], [2, 1], "x"), "grid x: the times t are .*wanted finite"),
    (lambda: grids.Grid(["b", "a"], [1, 1], [2, 1], "x"), "grid x: the times t are .*wanted finite"),
    (lambda: grids.at_times(SCHEDULE, "53"), "times are .*wanted integers"),
    (lambda: grids.at_times(SCHEDULE, []), "times are .*wanted integers"),
    (lambda: grids.at_times(SCHEDULE, [5.0, 3.0]), "times are .*wanted integers"),
    (lambda: bound.bin_nats(X, X, 0.0, "x"), "cdf is 'x'"),
    *[(lambda levels=levels: bound.decoder_nats(X, X, 0.0, levels=levels), "levels is .*or 0 for continuous")
      for levels in (None, False, 0.0, True, 1, -1, 2.0)],
    *[(lambda levels=levels: likelihood.bits_per_dim(-1.0, 2, levels), "levels is .*or 0 for continuous")
      for levels in (None, False, 0.0, True, 1)],
    *[(lambda dim=dim: likelihood.bits_per_dim(-1.0, dim), "dim is .*wanted an integer >= 1")
      for dim in (-1, 2.5, 0, True)],
    *[(lambda n=n, s=s: times.Uniform().draw(Key(0), n, s), "n is .*wanted an integer >= 1")
      for n in (2.5, -1, 0, True) for s in (False, True)],
    (lambda: families.dynamic_shift(1e9), "mu is 1.*wanted .mu. < 700"),
    (lambda: families.dynamic_shift(100, (256, 0.5), (256, 1.0)), "base .* different tokens"),
    (lambda: families.dynamic_shift(100, (256, NAN)), "base .* finite"),
    (lambda: log_p(np.zeros((2, 0))), "likelihood: x\\(2, 0\\).*at least one number"),
    (lambda: times.SecondMoment(2, 1).update(np.array([1]), np.array([1j])), "losses are complex128"),
    (lambda: times.SecondMoment(2, 1).load({"losses": [[NAN], [1.0]], "counts": [1, 1]}), "wanted finite losses"),
    (lambda: times.SecondMoment(2, 1).load({"losses": [[1.0], [1.0]], "counts": [-1, 1]}), "integer counts >= 0"),
    (lambda: times.SecondMoment(2, 1).load({"losses": [[1.0], [1.0]], "counts": [0.5, 1]}), "integer counts >= 0"),
])
def test_what_has_no_meaning_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("x0, options, message", [
    (GREY, {"cdf": "x", "levels": 17}, "cdf is 'x'"), (X, {"levels": None}, "levels is None"),
    (X, {"levels": False}, "levels is False"), (X, {"levels": 0.0}, "levels is 0.0"),
    (X, {"levels": 17}, "wanted whole grey levels")])
def test_the_bound_is_refused_before_the_denoiser_is_asked(x0, options, message):
    def never(*_):
        raise AssertionError("asked")
    with pytest.raises(ValueError, match=message):
        bound.variational_bound(never, SCHEDULE, x0, never, **options)


def test_numbers_keep_the_dtype_and_one_log_variance_per_row_is_meant():
    per_row = SINGLE[:, :1]
    for found in (bound.gaussian_kl(SINGLE, np.float64(0.1), SINGLE, np.array(0.2)),
                  bound.gaussian_kl(SINGLE, per_row, 0.0, 0.0), bound.bin_nats(SINGLE, SINGLE, per_row),
                  bound.decoder_nats(SINGLE, SINGLE, np.float64(-1), levels=0), gaussian.q_sample(SINGLE, SINGLE, T)):
        assert found.dtype == np.float32 and found.shape == (4, 3)
    np.testing.assert_array_equal(bound.bin_nats(X, X, X[:, :1]), bound.bin_nats(X, X, X[:, :1] + 0 * X))


def test_alike_takes_complex_numbers_for_their_parts():
    """The complex-step derivative of a float64 function asks with complex128."""
    alike("a test", x=X, y=X + 1e-30j)
    with pytest.raises(ValueError, match="a test: y is complex64"):
        alike("a test", x=X, y=X.astype(np.complex64))
