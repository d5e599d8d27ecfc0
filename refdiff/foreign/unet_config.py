"""The config.json of diffusers' UNet2DModel as a UNetConfig, and back.

What refdiff's U-Net cannot be is refused with its name: every setting of theirs is either mapped, or must have the
one value under which it changes nothing.
"""
from ..models.unet import UNetConfig
from .tensors import ForeignError

# Settings of theirs that must have one of these values. Those left out of a file have UNet2DModel's defaults.
FIXED = {"center_input_sample": (False,), "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",),
         "mid_block_scale_factor": (1,), "act_fn": ("silu", "swish"), "add_attention": (True,),
         "class_embed_type": (None,)}
DEFAULTS = {"sample_size": None, "in_channels": 3, "out_channels": 3, "center_input_sample": False,
            "time_embedding_type": "positional", "time_embedding_dim": None, "freq_shift": 0, "flip_sin_to_cos": True,
            "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3], "mid_block_type": "UNetMidBlock2D",
            "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"], "block_out_channels": [224, 448, 672, 896],
            "layers_per_block": 2, "mid_block_scale_factor": 1, "downsample_padding": 1, "downsample_type": "conv",
            "upsample_type": "conv", "dropout": 0.0, "act_fn": "silu", "attention_head_dim": 8, "norm_num_groups": 32,
            "attn_norm_num_groups": None, "norm_eps": 1e-5, "resnet_time_scale_shift": "default",
            "add_attention": True, "class_embed_type": None, "num_class_embeds": None, "num_train_timesteps": None}

# A level's block: (type on the way down, on the way up) -> (attention, how it is resampled).
PLAIN, RESNET, ATTENTION = (("DownBlock2D", "UpBlock2D"), ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"),
                            ("AttnDownBlock2D", "AttnUpBlock2D"))
ORDERS = {False: "sin_cos", True: "cos_sin"}                    # flip_sin_to_cos
DENOMINATORS = {1: "half-1", 0: "half"}                         # freq_shift
PADS = {0: "ddpm", 1: "same"}                                   # downsample_padding: 0 pads below and right
CHANNELS, LAYERS = 2 ** 15, 100                                 # at most: beyond it a file is damaged, or meant to be


def to_unet(config, size=None):
    """The UNetConfig of a UNet2DModel's configuration; `size` the images' height and width if it names none.

    Classes get no null row: the table has the rows that the file has. Raises ForeignError.
    """
    def refuse(name, wanted):
        raise ForeignError(f"config: {name} is {given[name]!r}, wanted {wanted}; refdiff's U-Net has no other")

    kind = config.get("_class_name", "UNet2DModel")
    unknown = sorted(name for name in config if name not in DEFAULTS and not name.startswith("_"))
    if kind != "UNet2DModel" or unknown:
        raise ForeignError(f"config: of a {kind}" + (f" with {', '.join(unknown)}" if unknown else "")
                           + ", wanted UNet2DModel's settings and no others")
    given = {**DEFAULTS, **config}
    for name, values in FIXED.items():
        if given[name] not in values:
            refuse(name, " or ".join(map(repr, values)))
    for name, values in (("flip_sin_to_cos", ORDERS), ("freq_shift", DENOMINATORS), ("downsample_padding", PADS)):
        if given[name] not in values:
            refuse(name, " or ".join(map(repr, values)))
    widths = given["block_out_channels"]
    if not isinstance(widths, (list, tuple)) or not widths or not all(_within(w, CHANNELS) for w in widths):
        refuse("block_out_channels", f"a list of integers in 1..{CHANNELS}")
    if not _within(given["layers_per_block"], LAYERS):
        refuse("layers_per_block", f"an integer in 1..{LAYERS}")
    for name in ("norm_eps", "dropout"):
        if not isinstance(given[name], (int, float)):
            refuse(name, "a number")
    size = size or given["sample_size"]
    if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if not isinstance(size, int):
        raise ForeignError(f"config: sample_size is {size!r}, wanted one number; give the images' size")
    if any(width % widths[0] for width in widths):
        refuse("block_out_channels", "multiples of the first")
    if given["time_embedding_dim"] not in (None, 4 * widths[0]):
        refuse("time_embedding_dim", f"{4 * widths[0]}, four times the first of block_out_channels")
    if given["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        refuse("resnet_time_scale_shift", "'default' or 'scale_shift'")
    scale_shift = given["resnet_time_scale_shift"] == "scale_shift"
    groups = given["attn_norm_num_groups"]
    if groups != given["norm_num_groups"] and (scale_shift or groups is not None):
        refuse("attn_norm_num_groups", f"{given['norm_num_groups']} as norm_num_groups")
    attention, updown = _levels(given)
    return UNetConfig(
        image_size=size, in_channels=given["in_channels"], out_channels=given["out_channels"], channels=widths[0],
        multipliers=tuple(width // widths[0] for width in widths), blocks=given["layers_per_block"],
        attention=tuple(size >> level for level, there in enumerate(attention) if there),
        head_channels=given["attention_head_dim"] or 0, groups=given["norm_num_groups"],
        norm_eps=float(given["norm_eps"]), scale_shift=scale_shift, resblock_updown=updown,
        down_pad=PADS[given["downsample_padding"]], classes=given["num_class_embeds"] or 0, null_class=False,
        dropout=float(given["dropout"]), embedding_order=ORDERS[given["flip_sin_to_cos"]],
        embedding_denominator=DENOMINATORS[given["freq_shift"]])


def _within(value, most):
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _levels(given):
    """(attention per level, resampling inside ResBlocks?) from the blocks' types, the same both ways."""
    pairs = list(zip(given["down_block_types"], reversed(given["up_block_types"])))
    count = len(given["block_out_channels"])
    if not len(given["down_block_types"]) == len(given["up_block_types"]) == count:
        raise ForeignError("config: down_block_types, up_block_types and block_out_channels are of different lengths")
    for pair in pairs:
        if pair not in (PLAIN, RESNET, ATTENTION):
            raise ForeignError(f"config: a level has {' and '.join(pair)}, wanted the same kind both ways: "
                               + ", ".join(" and ".join(kind) for kind in (PLAIN, RESNET, ATTENTION)))
    found = set()
    for down, up in pairs[:-1]:                                 # the last level is not halved
        found |= {"conv"} if (down, up) == PLAIN else {"resnet"} if (down, up) == RESNET else \
            {given["downsample_type"], given["upsample_type"]}
    if len(found) > 1 or not found <= {"conv", "resnet"}:
        raise ForeignError(f"config: levels are resampled by {' and '.join(map(str, sorted(found, key=str)))}, wanted "
                           "conv everywhere or resnet everywhere (downsample_type, upsample_type, the blocks' types)")
    return [pair == ATTENTION for pair in pairs], found == {"resnet"}


def from_unet(config):
    """The UNet2DModel configuration of a UNetConfig, every setting written out. Raises ForeignError."""
    widths = [config.channels * m for m in config.multipliers]
    sizes = [config.image_size >> level for level in range(len(widths))]
    there = [size in config.attention for size in sizes]
    heads = {width // config.heads for width, has in zip(widths, there) if has} | {widths[-1] // config.heads}
    if not config.head_channels and config.heads > 1 and len(heads) > 1:
        raise ForeignError(f"export: attention of {config.heads} heads at every width, {sorted(heads)} channels each; "
                           "UNet2DModel has one number of channels per head, or one head; train with --heads 1")
    if config.embedding_period != 10000:
        raise ForeignError(f"export: embedding_period is {config.embedding_period:g}, UNet2DModel has 10000 only, and "
                           "a trained network keeps its own; train with --embedding-period 10000, or with --process "
                           "linear --prediction eps, which has it by default")
    head = config.head_channels or (None if config.heads == 1 else heads.pop())
    plain = RESNET if config.resblock_updown else PLAIN
    kinds = [ATTENTION if has else plain for has in there]
    resample = "resnet" if config.resblock_updown else "conv"
    return {"_class_name": "UNet2DModel", **DEFAULTS, "sample_size": config.image_size,
            "in_channels": config.in_channels, "out_channels": config.out_channels,
            "freq_shift": {v: k for k, v in DENOMINATORS.items()}[config.embedding_denominator],
            "flip_sin_to_cos": config.embedding_order == "cos_sin",
            "down_block_types": [down for down, _ in kinds], "up_block_types": [up for _, up in reversed(kinds)],
            "block_out_channels": widths, "layers_per_block": config.blocks,
            "downsample_padding": {v: k for k, v in PADS.items()}[config.down_pad],
            "downsample_type": resample, "upsample_type": resample, "dropout": config.dropout,
            "attention_head_dim": head, "norm_num_groups": config.groups, "attn_norm_num_groups": config.groups,
            "norm_eps": config.norm_eps, "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
            "num_class_embeds": config.classes + config.null_class if config.classes else None}
