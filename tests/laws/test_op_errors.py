"""Bad input is refused with what, got and wanted; never broadcast, wrapped or truncated in silence."""
import numpy as np
import pytest

from refdiff.ops.op import REGISTRY, Op


def floats(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def labels(*values):
    return np.array(values)


norm_silu_rest = floats(2, 6), floats(6), floats(6), floats(2, 6), floats(2, 6)        # beside x[2,h,w,6]

# (op, arguments, options, what the message must contain)
BAD = [
    ("linear", (floats(2, 3, 4), floats(5, 6), floats(6)), {}, ["last axis of x", "is 4", "(5, 6)"]),
    ("linear", (floats(2, 3, 4), floats(4), floats(6)), {}, ["(c, d)", "(4,)"]),
    ("linear", (floats(2, 3, 4), floats(4, 6), floats(1)), {}, ["shape of b is (1,)", "wanted (6,)"]),
    ("linear", (floats(2, 3, 4), floats(4, 6), floats(3, 6)), {}, ["shape of b is (3, 6)", "wanted (6,)"]),
    ("embedding", (floats(3, 4), labels(0, 3)), {}, ["range of labels is 0..3", "wanted 0..2"]),
    ("embedding", (floats(3, 4), labels(-1, 2)), {}, ["range of labels is -1..2", "wanted 0..2"]),
    ("embedding", (floats(3, 4), labels(0., 1.)), {}, ["dtype of labels is float64", "integer"]),
    ("embedding", (floats(3, 4), labels([0, 1], [1, 2])), {}, ["shape of labels is (2, 2)", "wanted (n,)"]),
    ("cross_entropy", (floats(2, 3), labels(0, 3)), {}, ["range of labels is 0..3", "wanted 0..2"]),
    ("cross_entropy", (floats(2, 3), labels(-1, 2)), {}, ["range of labels is -1..2", "wanted 0..2"]),
    ("cross_entropy", (floats(2, 3), labels(0., 1.)), {}, ["dtype of labels is float64", "integer"]),
    ("cross_entropy", (floats(2, 3), labels(1)), {}, ["shape of labels is (1,)", "wanted (2,)"]),
    ("cross_entropy", (floats(2, 3), labels([1], [2])), {}, ["shape of labels is (2, 1)", "wanted (2,)"]),
    ("conv2d", (floats(1, 5, 5, 3), floats(3, 3, 4, 8), floats(8)), {}, ["3 channels", "4", "(3, 3, 4, 8)"]),
    ("conv2d", (floats(5, 5, 3), floats(3, 3, 3, 8), floats(8)), {}, ["(5, 5, 3)", "(n, h, w, c)"]),
    ("conv2d", (floats(1, 5, 5, 3), floats(3, 1, 3, 8), floats(8)), {}, ["(3, 1, 3, 8)", "(k, k, c, d)"]),
    ("conv2d", (floats(1, 5, 5, 3), floats(3, 3, 3, 8), floats(1)), {}, ["shape of b is (1,)", "wanted (8,)"]),
    ("conv2d", (floats(1, 5, 5, 3), floats(3, 3, 3, 8), floats(8)), {"stride": 3}, ["3", "1 or 2"]),
    ("conv2d", (floats(1, 5, 5, 3), floats(3, 3, 3, 8), floats(8)), {"pad": "valid"}, ["valid", "same", "ddpm"]),
    ("conv2d", (floats(1, 1, 5, 3), floats(3, 3, 3, 8), floats(8)), {"pad": "ddpm"}, ["1x5", "3x3", "smaller"]),
    ("group_norm", (floats(1, 2, 2, 6), floats(6), floats(6)), {"groups": 4}, ["channels is 6", "groups=4"]),
    ("group_norm", (floats(1, 2, 2, 6), floats(1), floats(6)), {"groups": 2}, ["(1,)", "wanted (6,)"]),
    ("group_norm", (floats(2, 2, 6), floats(6), floats(6)), {"groups": 2}, ["shape of x is (2, 2, 6)", "(n, h, w, c)"]),
    ("norm_silu", (floats(2, 2, 6), *norm_silu_rest), {"groups": 2}, ["shape of x is (2, 2, 6)", "(n, h, w, c)"]),
    ("norm_silu", (floats(2, 2, 2, 6), *norm_silu_rest), {"groups": 4}, ["channels is 6", "groups=4"]),
    ("norm_silu", (floats(2, 2, 2, 6), floats(2, 6), floats(1), *norm_silu_rest[2:]), {"groups": 2},
     ["gamma and beta", "(1,)", "(6,)"]),
    ("norm_silu", (floats(2, 2, 2, 6), floats(6), *norm_silu_rest[1:]), {"groups": 2},
     ["shape of e", "(6,)", "(2, 6)"]),
    ("norm_silu", (floats(2, 2, 2, 6), *norm_silu_rest[:4], floats(2, 1)), {"groups": 2},
     ["shape of shift", "(2, 1)", "(2, 6)"]),
    ("norm_silu", (floats(2, 2, 2, 6), *norm_silu_rest[:3], floats(1, 6), floats(2, 6)), {"groups": 2},
     ["shape of scale", "(1, 6)", "(2, 6)"]),
    ("layer_norm", (floats(1, 2, 6), floats(1), floats(6)), {}, ["(1,)", "wanted (6,)"]),
    ("layer_norm", (floats(1, 2, 6), floats(6), floats(2, 6)), {}, ["(2, 6)", "wanted (6,)"]),
    ("attention", (floats(1, 2, 3, 4), floats(1, 5, 3, 2), floats(1, 5, 3, 2)), {}, ["(1, 5, 3, 2)", "heads"]),
    ("attention", (floats(1, 2, 3, 4), floats(1, 5, 1, 4), floats(1, 5, 1, 4)), {}, ["(1, 5, 1, 4)", "heads"]),
    ("attention", (floats(2, 2, 3, 4), floats(1, 5, 3, 4), floats(1, 5, 3, 4)), {}, ["(1, 5, 3, 4)", "heads"]),
    ("attention", (floats(1, 2, 3, 4), floats(1, 5, 3, 4), floats(1, 1, 3, 4)), {}, ["(1, 1, 3, 4)", "heads"]),
    ("attention", (floats(2, 3, 4), floats(2, 3, 4), floats(2, 3, 4)), {}, ["(2, 3, 4)", "heads"]),
    ("avg_pool", (floats(1, 3, 4, 2),), {}, ["3x4", "even"]),
    ("avg_pool", (floats(1, 4, 5, 2),), {}, ["4x5", "even"]),
    ("avg_pool", (floats(4, 4),), {}, ["shape of x is (4, 4)", "(n, h, w, c)"]),
    ("upsample", (floats(4, 4),), {}, ["shape of x is (4, 4)", "(n, h, w, c)"]),
    ("concat", (floats(1, 2, 2, 3), floats(1, 2, 3, 3)), {}, ["(1, 2, 2, 3)", "(1, 2, 3, 3)", "equal"]),
    ("add", (floats(1, 2, 2, 3), floats(1, 2, 2, 1)), {}, ["shape of b is (1, 2, 2, 1)", "(1, 2, 2, 3)"]),
    ("shift", (floats(2, 2, 2, 3), floats(1, 3)), {}, ["shape of shift is (1, 3)", "(2, 3)"]),
    ("scale_shift", (floats(2, 2, 2, 3), floats(2, 1), floats(2, 3)), {}, ["shape of scale is (2, 1)", "(2, 3)"]),
    ("scale_shift", (floats(2, 2, 2, 3), floats(2, 3), floats(3,)), {}, ["shape of shift is (3,)", "(2, 3)"]),
    ("dropout", (floats(2, 2, 2, 3), floats(1, 2, 2, 3)), {}, ["shape of mask is (1, 2, 2, 3)", "(2, 2, 2, 3)"]),
    ("sinusoid", (floats(2),), {"width": 7}, ["width is 7", "even"]),
    ("sinusoid", (floats(2),), {"width": 2}, ["width is 2", ">= 4"]),
    ("sinusoid", (floats(2),), {"order": "sc"}, ["sc", "sin_cos", "cos_sin"]),
    ("sinusoid", (floats(2),), {"denominator": "full"}, ["full", "half-1"]),
    ("sinusoid", (labels(3, 999),), {}, ["dtype of t is int64", "floating"]),
    ("sinusoid", (floats(2, 1),), {}, ["shape of t is (2, 1)", "(n,)"]),
    ("mse", (floats(2, 3), floats(2, 1), floats(2)), {}, ["(2, 3), (2, 1), (2,)", "equal"]),
    ("mse", (floats(2, 3), floats(2, 3), floats(1)), {}, ["(2, 3), (2, 3), (1,)", "(n,)"]),
    ("pseudo_huber", (floats(2, 3), floats(2, 3), floats(2, 1)), {}, ["(2, 3), (2, 3), (2, 1)", "(n,)"]),
    ("pseudo_huber", (floats(2, 3), floats(2, 3), floats(2)), {"c": 0.0}, ["c is 0.0", "> 0"]),
    ("pseudo_huber", (floats(2, 3), floats(2, 3), floats(2)), {"c": float("nan")}, ["c is nan", "> 0"]),
    ("gaussian_kl", (floats(2, 3), floats(2, 3), floats(2, 3), floats(2)), {}, ["q_log_var", "(2,)", "one shape"]),
    ("gaussian_kl", (floats(2, 3), floats(2, 1), floats(2, 3), floats(2, 3)), {}, ["log_var", "(2, 1)", "one shape"]),
    ("binned_normal", (floats(2, 3), floats(1, 3), floats(2, 3)), {}, ["log_var", "(1, 3)", "one shape"]),
    ("binned_normal", (floats(2, 3), floats(2, 3), floats(2, 3)), {"cdf": "erf"}, ["'erf'", "exact, tanh"]),
    ("binned_normal", (floats(2, 3), floats(2, 3), floats(2, 3)), {"levels": 1}, ["levels is 1", ">= 2"]),
]


@pytest.mark.parametrize("name, arguments, options, words", BAD)
def test_bad_input_is_refused_with_what_was_got_and_what_is_wanted(name, arguments, options, words):
    with pytest.raises(ValueError) as caught:
        REGISTRY[name].forward(*arguments, **options)
    message = str(caught.value)
    assert message.startswith(name + ": ") and all(w in message for w in words), f"{message!r} lacks one of {words}"


def test_a_signature_that_cannot_be_read_is_refused_when_the_op_is_made():
    for signature in ("x[n,c]", "x[n,c] -> y", "-> y[n]", "x[n] -> y[n] z[n]"):
        with pytest.raises(ValueError, match="cannot read the signature"):
            Op("unreadable", None, None, None, signature)
    assert "unreadable" not in REGISTRY


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'silu' is registered twice"):
        Op("silu", None, None, None, "x[n] -> y[n]")
