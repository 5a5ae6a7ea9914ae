"""Images to a network's input on the images' own device, as Pillow would resize them but without leaving tensors."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Triple = tuple[float, float, float]
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preprocess:
    """How one network wants its images.

    size: side of its square input in pixels. fit: "crop" scales the shorter side to `size` and cuts the centre,
    "pad" scales the longer side and adds black borders, "stretch" ignores the aspect ratio.
    filter: the resampling filter, antialiased as Pillow's. mean, std: of the normalisation, per channel.
    """

    size: int
    fit: Literal["crop", "pad", "stretch"] = "crop"
    filter: Literal["bicubic", "bilinear"] = "bicubic"
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) float32 network input from images (B, H, W, 3) in [0, 1]."""
        darkest, brightest = images.aminmax()
        if darkest < 0 or brightest > 1:  # the check is ten times cheaper than clipping what needs none
            images = images.clamp(0, 1)
        pixels = images.float().permute(0, 3, 1, 2)
        height, width = self._scaled(pixels.shape[-2], pixels.shape[-1])
        fitted = _centre(resize(pixels, height, width, self.filter), self.size)
        mean, std = (torch.tensor(value, device=fitted.device).view(3, 1, 1) for value in (self.mean, self.std))
        return (fitted - mean) / std

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Size before cropping or padding; each fit rounds as the published transform does."""
        if self.fit == "stretch":
            return self.size, self.size
        if self.fit == "pad":
            scale = self.size / max(height, width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        if height <= width:
            return self.size, int(self.size * width / height)
        return int(self.size * height / width), self.size


def resize(images: Tensor, height: int, width: int, filter: str) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] at another size, within 2/255 of Pillow's `resize` with the same filter.

    Pillow filters one axis, clips, then filters the other; where a sharp edge overshoots, only the same clipping in the
    same order stays that close. Rows go first, unless (since Pillow 13) the height shrinks by more than twice what the
    width does.
    """
    old_height, old_width = images.shape[-2:]
    columns_first = old_height - height > max(0, 2 * (old_width - width))
    between = (height, old_width) if columns_first else (old_height, width)
    for size in (between, (height, width)):
        if tuple(images.shape[-2:]) != size:
            images = torch.nn.functional.interpolate(images, size=size, mode=filter, antialias=True).clamp_(0, 1)
    return images


def _centre(images: Tensor, size: int) -> Tensor:
    """The centre square of side `size`, with black where the images do not reach."""
    height, width = images.shape[-2:]
    if height < size or width < size:
        top, left = max(0, size - height) // 2, max(0, size - width) // 2
        borders = (left, max(0, size - width) - left, top, max(0, size - height) - top)
        images = torch.nn.functional.pad(images, borders)
        height, width = images.shape[-2:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return images[..., top : top + size, left : left + size]
