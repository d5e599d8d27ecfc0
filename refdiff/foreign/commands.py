"""refdiff import and refdiff export: weights of other libraries in and out, on the command line."""
from dataclasses import fields, replace

import click

from ..checkpoint import is_ours, load_checkpoint, save_checkpoint
from ..config import options
from ..denoiser import DenoiserConfig
from ..files import check_writable
from .ddpm_unet import FORMS, PUBLISHED, export_unet, import_unet

UNET = "ddpm-unet: diffusers' UNet2DModel, as of google/ddpm-cifar10-32"
form_option = click.option("--as", "form", type=click.Choice(["ddpm-unet"]), required=True, help=f"{UNET}.")


@click.command("import")
@click.argument("file")
@click.option("--as", "form", type=click.Choice(list(FORMS)), required=True, help=(
    f"{UNET}; consistency-unet: one of a consistency model, as of openai/diffusers-cd_imagenet64_l2."))
@click.option("--config", help="The network's config.json.  [default: that beside FILE]")
@click.option("--key", help="Which table of tensors of a torch checkpoint that holds several, such as ema.")
@click.option("--image-size", type=click.IntRange(1), help="In pixels, where the config has none.")
@click.option("--out", required=True, help="The checkpoint to write.")
@options(PUBLISHED, "denoising")
@click.pass_context
def import_command(ctx, file, form, config, key, image_size, out, denoising):
    """Make a checkpoint of FILE, .safetensors or a torch zip checkpoint; nothing in it is executed.

    The last options say how the network was trained: by default as google/ddpm-* for ddpm-unet, and as a consistency
    model in EDM's preconditioning for consistency-unet; a file that refdiff exported says so itself.
    """
    given = {item.name: getattr(denoising, item.name) for item in fields(DenoiserConfig)
             if ctx.get_parameter_source(item.name) is not click.core.ParameterSource.DEFAULT}
    check_writable(out)
    own = replace(FORMS[form][1], **given) if given else None
    checkpoint = import_unet(file, config, key, own, image_size, form)
    save_checkpoint(out, checkpoint)
    click.echo(f"{out}: {checkpoint.size:,} parameters in {len(checkpoint.index)} arrays; refdiff sample it")


@click.command("export")
@click.argument("checkpoint")
@form_option
@click.option("--vector", default="ema", show_default=True, help="Which of the checkpoint's vectors: ema or theta.")
@click.option("--out", required=True, help="The .safetensors file to write; config.json is written beside it.")
def export_command(checkpoint, form, vector, out):
    """Write the U-Net of CHECKPOINT as safetensors, with config.json, for diffusers' UNet2DModel.

    Of train's default, --prediction F, only with --embedding-period 10000; of the other predictions as they are.
    """
    loaded = load_checkpoint(checkpoint, ("training", "distillation"))
    if not out.endswith(".safetensors"):
        raise ValueError(f"export: --out is {out}, wanted a name that ends in .safetensors")
    check_writable(out)
    if is_ours(out):
        raise FileExistsError(f"export: --out {out} is a checkpoint; choose another name")
    notes = export_unet(loaded, out, vector)
    click.echo(f"{out}: {loaded.size:,} parameters; {'; '.join(notes)}")


COMMANDS = (import_command, export_command)
