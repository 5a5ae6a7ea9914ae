"""Start a search from a picture: its first scales are encoded, the rest is drawn anew."""

from __future__ import annotations

import torch
from torch import Tensor

from ..bsq.bits import encode_bits
from ..scales import ScaleSchedule
from ..state import SearchState, start
from ..threads import threads_for


def state_from_image(
    model, conditioning, image: Tensor, through: int, samples: int, seed: int, schedule: ScaleSchedule | None = None
) -> SearchState:
    """A state of ``samples`` samples that all show ``image`` (1, H, W, 3) in [0, 1] through scale ``through``.

    The picture is scaled to cover the model's canvas and cut to it, encoded, and quantised scale by scale; sampling on draws
    the finer scales for the prompt. Early scales hold colours and layout, so a small ``through`` keeps little more than these.
    Raises ValueError for several images, or a scale that does not exist or leaves nothing to draw.
    """
    schedule = schedule or model.schedule()
    last = len(schedule) - 1
    if image.ndim != 4 or len(image) != 1 or image.shape[-1] < 3:
        raise ValueError(f"Expected one picture in colour, (1, height, width, 3); {tuple(image.shape)} came. Pick one of a batch.")
    if not 0 <= through < last:
        raise ValueError(f"Cannot keep the picture through scale {through}: choose 0 to {last - 1} and leave scales to draw.")
    state = start(model, conditioning, samples, seed, schedule)
    device = next(model.tokenizer.parameters()).device
    with torch.inference_mode():
        pixels = on_canvas(image[..., :3], schedule, model.config.pixels_per_token).to(device)
        with threads_for(model.tokenizer, pixels[0, 0].numel() // model.config.tokenizer.patch_size**2):
            encoded = model.tokenizer.encode(pixels * 2 - 1)
        bits, features = encode_bits(encoded, schedule, model.patchify, through + 1)
    sampling = model.config.sampling
    return state._replace(
        next_scale=through + 1,
        bits=tuple(scale.expand(samples, -1, -1).contiguous() for scale in bits),
        features=features.expand(samples, -1, -1, -1).contiguous(),
        steps=tuple(sampling.at(scale) for scale in range(through + 1)),
    )


def on_canvas(image: Tensor, schedule: ScaleSchedule, pixels_per_token: int) -> Tensor:
    """An image (1, H, W, 3) as (1, 3, h, w) float32 of the schedule's size: scaled to cover it, the rest cut off evenly."""
    height, width = (side * pixels_per_token for side in schedule.final)
    pixels = image.float().permute(0, 3, 1, 2)
    ratio = max(height / pixels.shape[2], width / pixels.shape[3])
    size = max(height, round(pixels.shape[2] * ratio)), max(width, round(pixels.shape[3] * ratio))
    if size != tuple(pixels.shape[2:]):
        pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return pixels[:, :, top : top + height, left : left + width].clamp(0, 1)
