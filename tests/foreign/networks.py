"""Configurations of published networks at reduced width, in the words of diffusers' config.json."""

# google/ddpm-cifar10-32, channels 128, 256, 256, 256 and 32 groups there
CIFAR = dict(_class_name="UNet2DModel", sample_size=16, in_channels=3, out_channels=3, center_input_sample=False,
             time_embedding_type="positional", freq_shift=1, flip_sin_to_cos=False,
             down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
             up_block_types=["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
             block_out_channels=[16, 32, 32, 32], layers_per_block=2, mid_block_scale_factor=1, downsample_padding=0,
             act_fn="silu", attention_head_dim=None, norm_num_groups=8, norm_eps=1e-6)

# The same without attention at any level (the middle has it in every UNet2DModel of the published ones).
PLAIN = {**CIFAR, "down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4}

# google/ddpm-celebahq-256, channels 128, 128, 256, 256, 512, 512 and 32 groups there
CELEBA = {**CIFAR, "sample_size": 64, "block_out_channels": [16, 16, 32, 32, 48, 48],
          "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
          "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4}

# openai/diffusers-cd_imagenet64_l2: channels 192, 384, 576, 768, heads of 64, 32 groups and 1000 classes there
ADM = dict(_class_name="UNet2DModel", sample_size=16, layers_per_block=3, block_out_channels=[16, 32, 48, 64],
           attention_head_dim=8, norm_num_groups=8, attn_norm_num_groups=8, num_class_embeds=10,
           down_block_types=["ResnetDownsampleBlock2D"] + ["AttnDownBlock2D"] * 3,
           up_block_types=["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"], resnet_time_scale_shift="scale_shift",
           downsample_type="resnet", upsample_type="resnet")

PUBLISHED = {"cifar10": CIFAR, "cifar10 without attention": PLAIN, "celebahq": CELEBA, "imagenet64": ADM}
