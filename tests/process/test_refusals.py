"""What broadcasting or casting would answer in silence is refused by name: rows never share, dtypes never mix."""
import numpy as np
import pytest

from refdiff import objectives
from refdiff.ops import binned_normal, gaussian_kl
from refdiff.process import bound, families, gaussian, likelihood, schedules, sde
from refdiff.process.level import alike, ve
from refdiff.process.parameterization import KINDS, Prediction

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
