"""The cases of arrays: made byte for byte, answered right by refdiff, and answered wrong by every usual mistake.

Expected values come from formulas whose gradients are a tape's, in numbers of 64 bits; refdiff's hand-written backward
has no part in them. The tape itself is judged here by differences in mpmath and by a wrong rule that must show.
"""
from dataclasses import replace

import mpmath
import numpy as np
import pytest

from refdiff.golden import conventions, store
from refdiff.golden.adapters import own
from refdiff.golden.audit import judge
from refdiff.golden.causes import agreement
from refdiff.golden.families import blocks, networks as family, ops
from refdiff.golden.families.arrays import build
from refdiff.golden.reference import layers, networks, tape
from refdiff.models import compat
from refdiff.models.unet import UNet, UNetConfig
from refdiff.nn.blocks import AttentionBlock
from refdiff.ops import REGISTRY
from refdiff.params import Theta

CASES = [case for name in ("ops", "blocks", "networks") for case in store.read_hdf5(store.FOLDER / f"{name}.h5")]
FUSED = {"norm_silu": ("shift", "group_norm", "scale_shift", "silu"),       # judged by its parts and where it stands
         "upsample_conv2d": ("upsample", "conv2d")}
BY_ID = {case.id: case for case in CASES}
UNETS = [case for case in CASES if case.operation == "network" and case.verdict == "valid"
         and case.inputs["config"]["kind"] == "unet"]


# ---- refdiff against the cases

@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refdiff_agrees_or_refuses(case):
    found = judge(own, case)
    assert found.status == "pass", f"{case.id}: {found.cause} {found.evidence}"


@pytest.mark.parametrize("case", UNETS[:2] + UNETS[4:5], ids=lambda case: case.id)
def test_a_float32_network_is_within_its_own_tolerance(case):
    def single(value):
        return {k: v if k == "config" else single(v) for k, v in value.items()} if isinstance(value, dict) else (
            value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value)
    found = judge(own, replace(case, inputs=single(case.inputs)))
    assert found.status == "pass" and found.evidence["dtype"] == "float32", found.cause


def test_every_operation_and_block_has_a_case_with_every_gradient_and_one_that_must_be_refused():
    valid = {case.operation for case in CASES if case.verdict == "valid"}
    assert {f"op_{name}" for name in REGISTRY if name not in FUSED} <= valid
    assert {f"op_{part}" for parts in FUSED.values() for part in parts} | {"block_res"} <= valid
    assert {name for name in dir(own) if name.startswith("block_")} == {n for n in valid if n.startswith("block_")}
    for case in CASES:
        if case.operation.startswith("op_") and case.verdict == "valid":
            real = [one.name for one in REGISTRY[case.operation[3:]].inputs if one.kind == "real"]
            assert set(case.expected) == {"y", *(f"d{name}" for name in real)}, case.id
        if case.operation == "network" and case.verdict == "valid":
            assert set(case.expected) == {"y", "dx", *(f"d{name}" for name in case.inputs["weights"])}
    assert sum(case.verdict == "invalid" for case in CASES) >= 30 and len(CASES) >= 100


def test_no_gradient_is_zero_or_constant_by_chance_or_by_algebra():
    """Such a field would be agreed with by an implementation that never computes it."""
    for case in CASES:
        for name, value in case.expected.items():
            zero = np.abs(value).max() < 1e-9 * max(np.abs(v).max() for v in case.expected.values())
            assert not zero or case.operation == "op_sinusoid", f"{case.id}: {name}"


def test_the_files_are_small_enough_for_a_repository():
    assert sum((store.FOLDER / f"{name}.h5").stat().st_size for name in ("ops", "blocks", "networks")) < 12 * 2 ** 20


# ---- the same bytes every time

@pytest.mark.parametrize("module, name", [(ops, "ops"), (blocks, "blocks")])
def test_a_family_is_made_byte_for_byte(module, name, tmp_path):
    made = module.cases()
    paths = [store.write_hdf5(tmp_path / f"{i}.h5", name, made) for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes() == (store.FOLDER / f"{name}.h5").read_bytes()


def test_a_network_case_is_made_to_the_last_bit():
    name, *given = next(one for one in family.SETS if one[0] == "edm/n2")
    stored = BY_ID[f"network/{name}"]
    made = networks.network(**family.inputs(*given), kind="exact")
    assert set(made) == set(stored.expected)
    for field, value in made.items():
        assert np.asarray(value, dtype=np.float64).tobytes() == stored.expected[field].tobytes(), field


def test_where_longdouble_is_float64_nothing_is_made(monkeypatch):
    monkeypatch.setattr(np, "finfo", lambda dtype: type("float64", (), {"nmant": 52}))
    with pytest.raises(ValueError, match="longdouble"):
        build("op/x", "op_x", None, {}, "DDPM sec. B")


# ---- the usual mistakes, planted in refdiff's network

MISTAKES = {"padding": "padding", "norm_epsilon": "norm_epsilon", "norm_groups": "norm_groups",
            "embedding_order": "embedding_order", "embedding_half": "embedding_half", "time_offset": "time_offset",
            "attention_unscaled": "attention_scale", "attention_scaled_twice": "attention_scale"}


def planted(*mistakes):
    """An adapter whose U-Net has deviations of models/compat.py."""
    class Planted:
        name = "planted"

        def network(self, config, weights, x, t, dy, labels=None):
            net = compat.unet(UNetConfig(**{k: v for k, v in config.items() if k != "kind"}), mistakes)
            theta = own_theta(net, weights)
            grad = theta.zeros_like()
            y, saved = net.forward(theta, x, t, labels)
            dx = net.backward(saved, dy, grad)
            return {"y": y, "dx": dx, **{f"d{name}": grad[name] for name in grad.layout.handles}}
    return Planted()


def own_theta(net, weights):
    theta = Theta(net.layout, np.zeros(net.layout.size))
    for name, value in weights.items():
        theta[name] = value
    return theta


def test_the_planted_network_without_a_mistake_passes():
    assert all(judge(planted(), case).status == "pass" for case in UNETS[:2])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught_by_every_network_that_has_the_part_and_named(mistake):
    flag, caught = MISTAKES[mistake], []
    for case in (BY_ID["network/edm/n2"], BY_ID["network/ddpm/n2"], BY_ID["network/adm/n2/labels"]):
        agreed = agreement(planted(mistake).network(**case.inputs), case.expected)
        if flag in case.flags:
            assert agreed < 8, f"{case.id}: {agreed} digits with {mistake}"
            caught.append(case)
        else:
            assert 10 ** -agreed < case.tolerance["float64"]
    found = judge(planted(mistake), caught[len(mistake) % len(caught)])
    assert len(caught) >= 2 and found.status == "fail" and f"{flag}=" in found.cause, f"{found.check}: {found.cause}"


def test_heads_within_q_k_v_are_told_from_q_k_v_within_heads(monkeypatch):
    plain = AttentionBlock.forward

    def per_head(self, theta, x, emb=None, mask=None):
        theta, (w, b) = theta.copy(), (self.qkv.w, self.qkv.b)
        for handle in (w, b):
            value = theta[handle]
            parts = value.reshape(*value.shape[:-1], self.heads, 3, -1).swapaxes(-2, -3)
            theta[handle] = parts.reshape(value.shape).copy()
        return plain(self, theta, x, emb, mask)

    case = BY_ID["network/adm/n2/labels"]
    monkeypatch.setattr(AttentionBlock, "forward", per_head)
    config = UNetConfig(**{k: v for k, v in case.inputs["config"].items() if k != "kind"})
    net = UNet(config)
    y, _ = net.forward(own_theta(net, case.inputs["weights"]), *(case.inputs[k] for k in ("x", "t", "labels")))
    assert np.abs(y - case.expected["y"]).max() > 1e-3
    again = networks.network(**case.inputs, c=conventions.choose(layout="per_head"))["y"]
    np.testing.assert_allclose(y, again, rtol=0, atol=1e-12 * np.abs(y).max())


# ---- the oracle itself

def test_the_tape_agrees_with_differences_at_forty_digits():
    """d<y, dy>/dx of attention by central differences in mpmath, h = 1e-15: error h^2, far below float64."""
    case = BY_ID["op/attention/1head"]
    q, k, v, dy = (case.inputs[name] for name in ("q", "k", "v", "dy"))
    mp = mpmath.MPContext()
    mp.dps = 40

    def loss(q):
        total = mp.mpf(0)
        for n in range(len(q)):
            for t in range(q.shape[1]):
                s = [mp.fdot(q[n, t, 0], map(mp.mpf, k[n, m, 0])) / mp.sqrt(q.shape[-1]) for m in range(k.shape[1])]
                e = [mp.exp(one) for one in s]
                for j in range(v.shape[-1]):
                    o = sum(w * mp.mpf(v[n, m, 0, j]) for m, w in enumerate(e)) / sum(e)
                    total += o * mp.mpf(dy[n, t, 0, j])
        return total

    def moved(at, by):
        made = np.array([mp.mpf(float(one)) for one in q.flat], dtype=object).reshape(q.shape)
        made[at] += by
        return made

    h = mp.mpf("1e-15")
    for at in ((0, 0, 0, 0), (1, 3, 0, 2), (1, 1, 0, 1)):
        slope = (loss(moved(at, h)) - loss(moved(at, -h))) / (2 * h)
        assert abs(float(slope - mp.mpf(float(case.expected["dq"][at])))) < 2e-16 * np.abs(case.expected["dq"]).max()


def test_exact_numbers_are_nearer_than_float64_and_the_kinds_agree():
    case = BY_ID["block/res/adm/down"]
    exact, long, double = (networks.block("res", case.inputs, kind) for kind in ("exact", "longdouble", "float64"))
    for field in exact:
        top = np.abs(exact[field]).max()
        assert np.abs(exact[field] - long[field]).max() <= 1e-17 * top and exact[field].dtype == np.longdouble
        assert np.abs(exact[field] - double[field]).max() <= 1e-13 * top


def test_a_wrong_rule_of_the_tape_shows(monkeypatch):
    monkeypatch.setattr(layers, "sqrt", tape._function("sqrt", lambda x, y, kind: 1 / y))
    case = BY_ID["op/layer_norm/c8"]
    wrong = layers.op("layer_norm", case.inputs, "float64")
    np.testing.assert_allclose(wrong["y"], case.expected["y"], rtol=1e-12)
    assert np.abs(wrong["dx"] - case.expected["dx"]).max() > 1e-3
