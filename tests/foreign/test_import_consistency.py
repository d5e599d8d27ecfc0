"""A consistency model's U-Net comes in as a distilled checkpoint, and samples as diffusers' own pipeline does.

The form is that of openai/diffusers-cd_imagenet64_l2 at reduced width, its weights random. Both programs evaluate the
same formulas, f = c_skip x + c_out F(x/sqrt(sigma^2 + 1/4), 250 ln sigma), and agree to 6e-15 of the largest entry in
one, two and three steps; the tolerance has a factor 16 above that.
"""
import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

from networks import ADM
from refdiff.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from refdiff.cli import main
from refdiff.foreign import safetensors
from refdiff.foreign.ddpm_unet import OPENAI, export_unet, import_unet
from refdiff.foreign.tensors import ForeignError
from refdiff.foreign.unet_config import to_unet
from refdiff.foreign.unet_names import places
from refdiff.models.unet import UNet
from refdiff.process.grids import karras
from refdiff.sample import open_sampling
from refdiff.samplers import consistency, run

SMALL = {**ADM, "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "attention_head_dim": 4,
         "norm_num_groups": 4, "attn_norm_num_groups": 4,
         "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
         "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"]}
LABELS = np.array([3, 7, 0])


def folder(path, config=SMALL):
    """A folder as diffusers writes one, with drawn weights in float64; the file of weights."""
    net, rng = UNet(to_unet(config)), np.random.default_rng(0)
    path.mkdir(exist_ok=True, parents=True)
    tensors = {}
    for place in places(net.config, net.layout.index()):
        for name in place.theirs:
            z = rng.normal(size=place.their_shape)
            gain = "norm" in name and name.endswith("weight")
            tensors[name] = 1 + .2 * z if gain else .2 * z if z.ndim == 1 else z / np.sqrt(z[0].size)
    file = path / "diffusion_pytorch_model.safetensors"
    safetensors.write(file, tensors, {"format": "pt"})
    (path / "config.json").write_text(json.dumps({"_diffusers_version": "0.42.1", **config}))
    return file


def sampled(checkpoint, x, sigmas, noise, clip=False):
    """x[n, h, w, c] at sigmas[0] -> samples, by refdiff's consistency function and sampler."""
    sampling = open_sampling(checkpoint)
    f = sampling.bind(LABELS[:len(x)])
    ours = (lambda x, sigma: f(x, sigma).clip(-1, 1)) if clip else f
    return run(consistency(ours, sigmas, x, sampling.sigma_min, noise))


def test_it_is_a_distilled_checkpoint_told_a_thousand_times_its_time(tmp_path):
    checkpoint = import_unet(folder(tmp_path), form="consistency-unet")
    assert checkpoint.kind == "distillation" and checkpoint.config["network"]["time_scale"] == 1000
    assert checkpoint.config["consistency"] == {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    sampling = open_sampling(checkpoint)
    assert sampling.distilled and sampling.classes == 10 and sampling.denoiser.config == OPENAI
    told = []
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3))

    def forward(theta, c_in_x, c_noise, labels=None, masks=None, keep=True):
        told.append((c_in_x, c_noise * sampling.denoiser.network.config.time_scale))
        return np.zeros_like(c_in_x), None
    network = type("Net", (), {"config": sampling.denoiser.network.config, "forward": staticmethod(forward)})()
    denoiser = type(sampling.denoiser)(network, sampling.denoiser.config)
    f = sampling._replace(denoiser=denoiser).bind(LABELS[:2])
    y = f(x, 80.0)
    np.testing.assert_allclose(told[0][0], x / np.sqrt(80 ** 2 + 0.25), rtol=1e-15)
    np.testing.assert_allclose(told[0][1], 1000 * np.log(80) / 4, rtol=1e-15)
    np.testing.assert_allclose(y, 0.25 / ((80 - 0.002) ** 2 + 0.25) * x, rtol=1e-9)      # c_skip x, as F = 0


def test_at_the_least_noise_it_is_the_identity_to_the_bit(tmp_path):
    f = open_sampling(import_unet(folder(tmp_path), form="consistency-unet")).bind(LABELS[:2])
    x = np.random.default_rng(2).normal(size=(2, 8, 8, 3))
    assert (f(x, 0.002) == x).all() and np.abs(f(x, 0.1) - x).max() > 1e-3


def test_the_command_imports_it_and_sample_opens_it(tmp_path):
    file = folder(tmp_path / "in")
    out = tmp_path / "cd.h5"
    done = CliRunner().invoke(main, ["import", str(file), "--as", "consistency-unet", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert load_checkpoint(out, "distillation").vectors["theta"].dtype == np.float64
    done = CliRunner().invoke(main, ["sample", str(out), "--sigmas", "80,0.66", "--count", "2", "--out",
                                     str(tmp_path / "x.npy")])
    assert done.exit_code == 0 and np.load(tmp_path / "x.npy").shape == (2, 8, 8, 3), done.output


def test_an_option_changes_that_alone(tmp_path):
    file, out = folder(tmp_path / "in"), tmp_path / "cd.h5"
    done = CliRunner().invoke(main, ["import", str(file), "--as", "consistency-unet", "--out", str(out),
                                     "--sigma-max", "50"])
    assert done.exit_code == 0, done.output
    checkpoint = load_checkpoint(out, "distillation")
    assert checkpoint.config["consistency"]["sigma_max"] == 50
    assert checkpoint.config["denoiser"] == {**import_unet(file, form="consistency-unet").config["denoiser"],
                                             "sigma_max": 50.0}


def test_exported_it_comes_back_as_it_was_and_a_teacher_does_not_come_back_as_one(tmp_path):
    checkpoint = import_unet(folder(tmp_path / "in"), form="consistency-unet")
    file = tmp_path / "out" / "x.safetensors"
    file.parent.mkdir()
    notes = export_unet(checkpoint, file)
    assert "timestep is ln(sigma)/4 times 1000" in notes
    back = import_unet(file, form="consistency-unet")
    assert (back.kind, back.config, back.index) == (checkpoint.kind, checkpoint.config, checkpoint.index)
    assert back.vectors["theta"].tobytes() == checkpoint.vectors["theta"].tobytes()
    teacher = Checkpoint("training", {k: v for k, v in checkpoint.config.items() if k != "consistency"},
                         checkpoint.index, checkpoint.vectors)
    export_unet(teacher, file)
    with pytest.raises(ForeignError, match="which is no consistency model"):
        import_unet(file, form="consistency-unet")
    with pytest.raises(ForeignError, match="form is 'edm', wanted one of ddpm-unet, consistency-unet"):
        import_unet(file, form="edm")
    save_checkpoint(tmp_path / "kept.h5", back)


# ---- against diffusers' pipeline

def their_samples(file, x, indices, noise, clip=False, widen=True):
    """The samples of ConsistencyModelPipeline's loop at the levels of its scheduler's indices, and those levels."""
    torch = pytest.importorskip("torch", reason="needs torch, of the extra [interop]")
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers, of the extra [interop]")
    from refdiff.golden.adapters._diffusers import Scheduler
    from test_unet_equals_diffusers import embed_in_float64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = diffusers.UNet2DModel.from_pretrained(file.parent, torch_dtype=torch.float64, low_cpu_mem_usage=False)
    config = {"num_train_timesteps": 40, "sigma_min": 0.002, "sigma_max": 80.0, "clip_denoised": clip}
    scheduler = Scheduler("CMStochasticIterativeScheduler", config, widen)
    made = scheduler.made
    if widen:
        embed_in_float64(model)
    with scheduler.running(lambda i: noise(i).transpose(0, 3, 1, 2), x.transpose(0, 3, 1, 2)):
        made.set_timesteps(timesteps=list(indices))
        sample = torch.tensor(x.transpose(0, 3, 1, 2))
        for t in made.timesteps:
            scaled = made.scale_model_input(sample, t)
            F = model(scaled, t, class_labels=torch.tensor(LABELS[:len(x)])).sample
            sample = made.step(F, t, sample).prev_sample
    return sample.numpy().transpose(0, 2, 3, 1), made.sigmas.double().tolist()[:-1]


@pytest.mark.parametrize("indices", [(0,), (22, 0), (30, 22, 0)])
@pytest.mark.parametrize("clip", [False, True])
def test_given_the_noise_its_samples_are_those_of_diffusers_pipeline(indices, clip, tmp_path):
    file = folder(tmp_path, ADM)
    rng = np.random.default_rng(3)
    draws = [rng.normal(size=(2, 16, 16, 3)) for _ in indices]
    x = 80 * rng.normal(size=(2, 16, 16, 3))
    theirs, sigmas = their_samples(file, x, indices, lambda i: draws[i], clip)
    np.testing.assert_allclose(sigmas, karras(40, final=None).sigma[sorted(indices)], rtol=1e-14)
    ours = sampled(import_unet(file, form="consistency-unet"), x, sigmas, lambda i: draws[i], clip)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13 * np.abs(theirs).max())


@pytest.mark.parametrize("place, name, value", [
    ("network", "time_scale", 999.0), ("denoiser", "sigma_data", 0.501), ("consistency", "sigma_min", 0.003)])
def test_another_scale_or_boundary_is_seen(place, name, value, tmp_path):
    file = folder(tmp_path)
    x = 80 * np.random.default_rng(5).normal(size=(2, 8, 8, 3))
    theirs, sigmas = their_samples(file, x, (0,), None)
    checkpoint = import_unet(file, form="consistency-unet")
    right = sampled(checkpoint, x, sigmas, None)
    checkpoint.config[place][name] = value
    errors = [np.abs(ours - theirs).max() / np.abs(theirs).max()
              for ours in (right, sampled(checkpoint, x, sigmas, None))]
    assert errors[0] < 1e-13 and errors[1] > 1e-7, errors


def test_as_it_comes_its_levels_and_its_embedding_are_float32(tmp_path):
    """So much is left of the agreement: a level off by 6e-8, and 250 ln sigma embedded with 24 bits."""
    file = folder(tmp_path)
    rng = np.random.default_rng(4)
    x, z = 80 * rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(2, 8, 8, 3))
    theirs, _ = their_samples(file, x, (22, 0), lambda i: z, widen=False)
    ours = sampled(import_unet(file, form="consistency-unet"), x, karras(40, final=None).sigma[[0, 22]], lambda i: z)
    assert 1e-9 < np.abs(ours - theirs).max() / np.abs(theirs).max() < 1e-4
