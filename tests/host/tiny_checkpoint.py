"""A checkpoint of the smallest Stable Diffusion 1.5 that ComfyUI's detection knows, with random weights.

Run by the host's Python in the host's folder, with the path to write.

Its UNet keeps the 320 channels that the detection asks for, at one resolution; its autoencoder is a TAESD; of the text encoder only
the words are there, its layers add nothing.
"""

import sys

sys.path.insert(0, ".")
import torch
from comfy.cli_args import args

args.cpu = True
import comfy.ops  # noqa: E402
import comfy.sd1_clip  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

SIZES = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [1], "channel_mult": [1],
    "num_heads": 8, "use_spatial_transformer": True, "transformer_depth": [1], "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1, "context_dim": 768, "legacy": False,
}  # fmt: skip


def text_encoder():
    """Names and shapes as the host has them; words at random, the last norm as it begins, all else zero."""
    module = comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16)
    for name, value in module.clip_l.state_dict().items():
        filled = torch.zeros(value.shape, dtype=torch.float16)
        if name.endswith("token_embedding.weight"):
            filled.normal_(std=0.5)
        if name.endswith("final_layer_norm.weight"):
            filled += 1
        yield f"cond_stage_model.{name}", filled


def main(path: str) -> None:
    """Write the checkpoint."""
    torch.manual_seed(1)
    unet, autoencoder = UNetModel(**SIZES, operations=comfy.ops.disable_weight_init), TAESD(latent_channels=4)
    tensors = dict(text_encoder())
    for prefix, module in (("model.diffusion_model.", unet), ("first_stage_model.", autoencoder)):
        for name, value in module.state_dict().items():
            random = torch.randn(value.shape) * (0.5 / max(1, value[0].numel() if value.ndim else 1) ** 0.5)
            filled = torch.ones_like(value) if "norm" in name and name.endswith("weight") else random
            tensors[prefix + name] = filled.half() if value.ndim else torch.as_tensor(1.0 if "scale" in name else 0.0)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


if __name__ == "__main__":
    main(sys.argv[1])
