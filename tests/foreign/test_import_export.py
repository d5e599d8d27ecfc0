"""Weights of UNet2DModel in and out: the bits kept, every tensor that does not fit named, the checkpoint usable."""
import json

import numpy as np
import pytest
from click.testing import CliRunner

import archives
from networks import ADM, CIFAR, PUBLISHED
from refdiff.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from refdiff.cli import main
from refdiff.config import to_dict
from refdiff.denoiser import DenoiserConfig, restore
from refdiff.foreign import safetensors
from refdiff.foreign.ddpm_unet import PUBLISHED as GOOGLE
from refdiff.foreign.ddpm_unet import export_unet, import_unet
from refdiff.foreign.tensors import ForeignError
from refdiff.foreign.unet_config import from_unet, to_unet
from refdiff.foreign.unet_names import places
from refdiff.models import NetworkOptions, suggest
from refdiff.models.unet import UNet, UNetConfig
from refdiff.process.level import Level
from refdiff.process.schedules import SCHEDULES
from refdiff.rng import Key

TINY = {**CIFAR, "sample_size": 8, "block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}


def tensors_of(config, dtype=np.float32):
    """Random tensors under the names and shapes that a UNet2DModel of this configuration has."""
    net, rng = UNet(to_unet(config)), np.random.default_rng(0)
    return {name: rng.normal(size=place.their_shape).astype(dtype)
            for place in places(net.config, net.layout.index()) for name in place.theirs}


def folder(path, tensors, config, name="diffusion_pytorch_model.safetensors"):
    """A folder as diffusers writes one; the file of weights."""
    path.mkdir(exist_ok=True, parents=True)
    safetensors.write(path / name, tensors, {"format": "pt"})
    (path / "config.json").write_text(json.dumps({"_diffusers_version": "0.42.1", **config}))
    return path / name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PUBLISHED)
def test_export_of_import_is_the_same_file_to_the_bit(name, dtype, tmp_path):
    tensors = tensors_of(PUBLISHED[name], dtype)
    checkpoint = import_unet(folder(tmp_path / "in", tensors, PUBLISHED[name]))
    assert checkpoint.vectors["theta"].dtype == checkpoint.vectors["ema"].dtype == dtype
    export_unet(checkpoint, tmp_path / "out" / "x.safetensors")
    back, metadata = safetensors.read(tmp_path / "out" / "x.safetensors")
    assert metadata["format"] == "pt" and set(back) == set(tensors)
    assert all(back[key].tobytes() == x.tobytes() and back[key].shape == x.shape for key, x in tensors.items())
    assert to_unet(json.loads((tmp_path / "out" / "config.json").read_text())) == to_unet(PUBLISHED[name])


NETWORKS = {
    "a null class, two heads": UNetConfig(image_size=8, channels=8, multipliers=(1, 1), blocks=1, attention=(4,),
                                          heads=2, groups=4, classes=3, dropout=0.1),
    "no null class, scaled time": UNetConfig(
        image_size=8, in_channels=1, out_channels=2, channels=8, multipliers=(1, 2), blocks=1, attention=(8,), groups=2,
        classes=3, null_class=False, time_scale=250.0, scale_shift=True, resblock_updown=True, head_channels=4,
        down_pad="same", norm_eps=1e-5, embedding_order="cos_sin", embedding_denominator="half", zero_init=False),
    "one level": UNetConfig(image_size=4, channels=8, multipliers=(1,), blocks=2, attention=(), groups=8)}


@pytest.mark.parametrize("kind", ["training", "distillation"])
@pytest.mark.parametrize("name", NETWORKS)
def test_import_of_export_is_the_same_checkpoint_to_the_bit(name, kind, tmp_path):
    network = NETWORKS[name]
    layout = UNet(network).layout
    theta = Key(3).normal(layout.size)
    config = {"network": {"name": "unet", **to_dict(network)}, "denoiser": to_dict(DenoiserConfig(P_mean=-0.5)),
              "data": {"center": 0.25, "levels": 17, "classes": ["a", "b", "c"]}, "train": {"steps": 5}}
    checkpoint = Checkpoint(kind, config, layout.index(), {"theta": -theta, "ema": theta}, step=9)
    export_unet(checkpoint, tmp_path / "x.safetensors")
    back = import_unet(tmp_path / "x.safetensors")
    assert back.vectors["theta"].tobytes() == back.vectors["ema"].tobytes() == theta.tobytes()
    assert back.config == config and back.index == checkpoint.index and back.kind == kind
    assert set(back.vectors) == {"theta", "ema"}
    without = import_unet(tmp_path / "x.safetensors", tmp_path / "config.json")     # as a file of another's would be
    assert without.vectors["theta"].tobytes() == theta.tobytes() and without.kind == "training"
    assert without.config["network"]["classes"] == network.classes + (network.classes > 0 and network.null_class)


def test_old_names_and_shapes_of_attention_give_the_same_network(tmp_path):
    tensors = tensors_of(TINY)
    wanted = import_unet(folder(tmp_path / "new", tensors, TINY)).vectors["theta"]
    old = {}
    for name, x in tensors.items():
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{before}.")
        old[name] = x[:, :, None, None] if ".attentions." in name and x.ndim == 2 else x
    assert set(old) != set(tensors)
    got = import_unet(folder(tmp_path / "old", old, TINY)).vectors["theta"]
    assert got.tobytes() == wanted.tobytes()
    pt = archives.checkpoint(tmp_path / "x.pt", old)
    assert import_unet(pt, TINY).vectors["theta"].tobytes() == wanted.tobytes()
    both = {**tensors, "mid_block.attentions.0.query.bias": tensors["mid_block.attentions.0.to_q.bias"]}
    with pytest.raises(ForeignError, match=r"unused: mid_block.attentions.0.(query|to_q).bias$"):
        import_unet(folder(tmp_path / "both", both, TINY))


def test_the_layout_is_that_of_the_definition(tmp_path):
    """weight[d, c, i, j] of a convolution is w[i, j, c, d]; q, k and v lie side by side in the columns of qkv."""
    tensors = tensors_of(TINY)
    checkpoint = import_unet(folder(tmp_path, tensors, TINY))
    theta = checkpoint.parameters(UNet(to_unet(TINY)).layout)
    np.testing.assert_array_equal(theta["down.1.0.res.conv1.w"][2, 0, 3, 5],
                                  tensors["down_blocks.1.resnets.0.conv1.weight"][5, 3, 2, 0])
    np.testing.assert_array_equal(theta["up.1.1.attention.qkv.w"][3, 16 + 5],
                                  tensors["up_blocks.0.attentions.1.to_k.weight"][5, 3])
    np.testing.assert_array_equal(theta["up.0.0.res.time.b"], tensors["up_blocks.1.resnets.0.time_emb_proj.bias"])
    np.testing.assert_array_equal(theta["mid.1.norm2.gamma"], tensors["mid_block.resnets.1.norm2.weight"])


def test_bfloat16_files_are_read_as_the_float32_of_the_same_values(tmp_path):
    tensors = tensors_of(TINY)
    bits = {name: (x.view(np.uint32) >> 16).astype("<u2") for name, x in tensors.items()}
    header, data = {}, b""
    for name, x in bits.items():
        header[name] = dict(dtype="BF16", shape=list(x.shape), data_offsets=[len(data), len(data) + x.nbytes])
        data += x.tobytes()
    cut = {name: (x.astype(np.uint32) << 16).view(np.float32) for name, x in bits.items()}
    got = import_unet(archives.safetensors(tmp_path / "x", header, data), TINY).vectors["theta"]
    wanted = import_unet(folder(tmp_path / "f", cut, TINY)).vectors["theta"]
    assert got.dtype == np.float32 and got.tobytes() == wanted.tobytes()


def test_every_tensor_that_does_not_fit_is_listed_by_name_in_one_error(tmp_path):
    tensors = tensors_of(TINY)
    del tensors["conv_in.weight"], tensors["mid_block.attentions.0.to_v.bias"]
    tensors.update({"conv_out.weight": np.zeros((3, 9, 3, 3), np.float32), "extra.one": np.zeros(1),
                    "extra.two": np.ones(2), "conv_norm_out.bias": np.arange(8),
                    "conv_norm_out.weight": np.full(8, np.nan, np.float32)})
    with pytest.raises(ForeignError) as error:
        import_unet(folder(tmp_path, tensors, TINY))
    for part in ("missing: conv_in.weight (8, 3, 3, 3), mid_block.attentions.0.to_v.bias (16,)",
                 "of a wrong shape: conv_out.weight is (3, 9, 3, 3), wanted (3, 8, 3, 3)",
                 "unused: extra.one, extra.two",
                 "not of floating numbers: conv_norm_out.bias (int64)", "not finite: conv_norm_out.weight"):
        assert part in str(error.value), str(error.value)


UPDOWN = {"downsample_type": "resnet", "upsample_type": "resnet"}


@pytest.mark.parametrize("change, says", [
    ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
    ({"cross_attention_dim": 7}, "cross_attention_dim"),
    ({"center_input_sample": True}, "center_input_sample"), ({"time_embedding_type": "fourier"}, "fourier"),
    ({"mid_block_scale_factor": 2 ** .5}, "mid_block_scale_factor"), ({"act_fn": "gelu"}, "act_fn"),
    ({"add_attention": False}, "add_attention"), ({"class_embed_type": "timestep"}, "class_embed_type"),
    ({"mid_block_type": None}, "mid_block_type"), ({"freq_shift": 2}, "freq_shift"),
    ({"downsample_padding": 2}, "downsample_padding"), ({"sample_size": None}, "sample_size"),
    ({"sample_size": [8, 16]}, "sample_size"), ({"block_out_channels": [8, 12]}, "multiples of the first"),
    ({"time_embedding_dim": 33}, "wanted 32"), ({"resnet_time_scale_shift": "spatial"}, "spatial"),
    ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is None"),
    ({"attn_norm_num_groups": 2}, "wanted 4"),
    ({"down_block_types": ["DownBlock2D"] * 2}, "DownBlock2D and AttnUpBlock2D"),
    ({"down_block_types": ["DownBlock2D"] * 3}, "different lengths"),
    ({"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "SkipDownBlock2D and UpBlock2D"),
    ({**UPDOWN, "sample_size": 16, "block_out_channels": [8, 8, 8],
      "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
      "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}, "conv and resnet"),
    ({"block_out_channels": "ab"}, "a list of integers"), ({"block_out_channels": [8, -8]}, "a list of integers"),
    ({"block_out_channels": [10 ** 6] * 2}, "a list of integers"), ({"layers_per_block": 10 ** 9}, "layers_per_block"),
    ({"norm_eps": "x"}, "norm_eps is 'x', wanted a number"),
    ({"norm_num_groups": 3}, "groups"), ({"attention_head_dim": 5}, "heads of 5"), ({"sample_size": 7}, "halve")])
def test_a_configuration_that_refdiff_has_no_network_for_is_refused_by_its_name(change, says):
    with pytest.raises(ValueError, match=says):
        UNet(to_unet({**TINY, **change}))


def test_a_configuration_is_read_as_written():
    assert to_unet(CIFAR) == UNetConfig(image_size=16, channels=16, multipliers=(1, 2, 2, 2), attention=(8,), groups=8,
                                        null_class=False, dropout=0.0)
    assert to_unet(ADM) == UNetConfig(
        image_size=16, channels=16, multipliers=(1, 2, 3, 4), blocks=3, attention=(8, 4, 2), head_channels=8, groups=8,
        norm_eps=1e-5, scale_shift=True, resblock_updown=True, down_pad="same", classes=10, null_class=False,
        dropout=0.0, embedding_order="cos_sin", embedding_denominator="half")


@pytest.mark.parametrize("config", [UNetConfig(heads=4, attention=(32,)), UNetConfig(embedding_period=100.0)])
def test_a_network_that_unet2dmodel_cannot_be_is_not_exported(config):
    with pytest.raises(ForeignError, match="UNet2DModel has"):
        from_unet(config)


@pytest.mark.parametrize("given", [{"options": NetworkOptions(embedding_period=10000.0)}, {"prediction": "eps"}])
def test_a_default_network_is_not_exported_and_the_refusal_says_how_to_train_one_that_is(given):
    with pytest.raises(ForeignError, match="--embedding-period 10000, or with --process linear --prediction eps"):
        from_unet(suggest(8))
    assert from_unet(suggest(8, **given))["sample_size"] == 8


@pytest.mark.parametrize("text, says", [(None, "no such file; give the network's configuration"), ("{", "not JSON"),
                                        ("[]", "is a list")])
def test_a_configuration_that_is_missing_or_damaged_is_told(text, says, tmp_path):
    file = folder(tmp_path, tensors_of(TINY), TINY)
    (tmp_path / "config.json").unlink() if text is None else (tmp_path / "config.json").write_text(text)
    with pytest.raises(ForeignError, match=says):
        import_unet(file)


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "training"}', '{"kind": 1, "network": {}, "rest": []}'])
def test_metadata_of_ours_that_are_damaged_are_told(text, tmp_path):
    safetensors.write(tmp_path / "x", tensors_of(TINY), {"refdiff": text})
    with pytest.raises(ForeignError, match="do not hold a configuration"):
        import_unet(tmp_path / "x")
    assert import_unet(tmp_path / "x", TINY).size == UNet(to_unet(TINY)).layout.size


# ---- what the imported network is told

def test_an_imported_network_is_told_t_minus_one_at_every_time_of_the_schedule(tmp_path):
    checkpoint = import_unet(folder(tmp_path, tensors_of(TINY), TINY))
    denoiser = restore(checkpoint.config)
    assert denoiser.config == GOOGLE and denoiser.schedule.T == 1000
    schedule, seen = SCHEDULES["linear"](1000), []
    forward = denoiser.network.forward

    def watched(theta, x, c_noise, *rest):
        seen.append(c_noise)
        return forward(theta, x, c_noise, *rest)
    denoiser.network.forward = watched
    theta, x = checkpoint.parameters(denoiser.network.layout), np.ones((3, 8, 8, 3))
    t = np.array([1, 500, 1000])
    level = schedule.level(t)
    F, _ = denoiser.evaluate(theta.astype(np.float64), x, level)
    np.testing.assert_allclose(seen[0], t - 1, rtol=0, atol=1e-9)
    eps = denoiser.bind(theta.astype(np.float64))(x, level).eps
    np.testing.assert_allclose(eps, F, rtol=0, atol=1e-9 * np.abs(F).max())
    one = Level(1.0, float(schedule.alpha[1]), float(schedule.sigma[1]))
    assert denoiser.precondition(one)[3] == 0


def test_a_label_is_refused_where_no_time_is_told():
    with pytest.raises(ValueError, match="time_label is 't-1', but prediction 'F'"):
        DenoiserConfig(time_label="t-1")


def test_a_network_without_a_null_class_wants_every_label():
    net = UNet(to_unet({**TINY, "num_class_embeds": 4}))
    theta, x = net.layout.init(Key(0)), np.zeros((2, 8, 8, 3), np.float32)
    assert theta["emb.label.table"].shape == (4, 32)
    net.forward(theta, x, np.zeros(2, np.float32), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"no null class; give each row one of 0\.\.3"):
        net.forward(theta, x, np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="labels"):
        net.forward(theta, x, np.zeros(2, np.float32), np.array([0, 4]))


# ---- the command line

def refdiff(*arguments, status=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result.output


def test_the_commands_import_sample_and_export(tmp_path):
    tensors = tensors_of(TINY)
    file = folder(tmp_path / "in", tensors, TINY)
    said = refdiff("import", file, "--as", "ddpm-unet", "--out", tmp_path / "net.h5")
    assert "refdiff sample" in said
    refdiff("sample", tmp_path / "net.h5", "--sampler", "ddim", "--steps", 2, "--count", 2, "--out", tmp_path / "x.npy")
    images = np.load(tmp_path / "x.npy")
    assert images.shape == (2, 8, 8, 3) and np.isfinite(images).all()
    assert "time_label" in refdiff("info", tmp_path / "net.h5")
    said = refdiff("export", tmp_path / "net.h5", "--as", "ddpm-unet", "--out", tmp_path / "out" / "net.safetensors")
    assert "timestep is t-1, t = 1..T" in said
    back, _ = safetensors.read(tmp_path / "out" / "net.safetensors")
    assert all(back[name].tobytes() == x.tobytes() for name, x in tensors.items())
    refdiff("import", tmp_path / "out" / "net.safetensors", "--as", "ddpm-unet", "--out", tmp_path / "again.h5")
    first, again = load_checkpoint(tmp_path / "net.h5"), load_checkpoint(tmp_path / "again.h5")
    assert first.config == again.config and first.vectors["ema"].tobytes() == again.vectors["ema"].tobytes()


def test_the_training_process_of_a_file_can_be_given(tmp_path):
    file = folder(tmp_path, tensors_of({**TINY, "num_class_embeds": 2}), {**TINY, "num_class_embeds": 2})
    refdiff("import", file, "--as", "ddpm-unet", "--prediction", "v", "--process", "cosine", "--time-label", "t",
            "--out", tmp_path / "net.h5")
    config = load_checkpoint(tmp_path / "net.h5").config
    assert config["denoiser"] == to_dict(DenoiserConfig(prediction="v", process="cosine"))
    refdiff("sample", tmp_path / "net.h5", "--sampler", "ddim", "--steps", 1, "--count", 4, "--out", tmp_path / "x.npy")
    said = refdiff("sample", tmp_path / "net.h5", "--sampler", "ddim", "--steps", 1, "--scale", 2, "--out",
                   tmp_path / "x.npy", status=2)
    assert "labels" in said


@pytest.mark.parametrize("arguments, says", [
    (("import", "in/none.safetensors", "--as", "ddpm-unet", "--out", "x.h5"),
     "Error: in/none.safetensors: no such file, wanted one of weights: .safetensors or a torch zip checkpoint"),
    (("import", "in/net.safetensors", "--as", "ddpm-unet", "--key", "ema", "--out", "x.h5"), "key 'ema'"),
    (("import", "net.h5", "--as", "ddpm-unet", "--out", "x.h5"), "HDF5"),
    (("import", "in/net.safetensors", "--as", "unet", "--out", "x.h5"), "ddpm-unet"),
    (("export", "net.h5", "--as", "ddpm-unet", "--out", "net.h5"), ".safetensors"),
    (("export", "net.h5", "--as", "ddpm-unet", "--vector", "m", "--out", "o/x.safetensors"), "no vector 'm'"),
    (("export", "net.h5", "--as", "ddpm-unet", "--out", "other/x.safetensors"), "another network")])
def test_the_commands_refuse_in_one_line(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "in", tensors_of(TINY), TINY, "net.safetensors")
    save_checkpoint(tmp_path / "net.h5", import_unet(tmp_path / "in" / "net.safetensors"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert says in refdiff(*arguments, status=2)
