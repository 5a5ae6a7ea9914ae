"""What all drawings share: colours, and the way from tensors to pictures and back."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .letters import write

BACKGROUND = (24, 26, 31)
PANEL = (36, 39, 46)
GRID = (58, 62, 72)
MUTED = (142, 149, 163)
TEXT = (232, 235, 241)
BEST = (255, 203, 71)
# Ten hues that stay apart on a dark ground; relatives of one first sample share one.
_FAMILIES = (
    (94, 169, 255), (255, 140, 85), (112, 207, 122), (232, 110, 190), (255, 206, 92),
    (120, 220, 220), (178, 140, 255), (255, 108, 108), (170, 200, 90), (160, 170, 190),
)
MARGIN = 16


def page(width: int, height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A new picture with one line of words at its top, and what draws on it."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    write(draw, (MARGIN, 10), title, width - 2 * MARGIN, 18, TEXT)
    return picture, draw


def family_colour(founder: int) -> tuple[int, int, int]:
    """The colour of everything that descends from one first sample."""
    return _FAMILIES[founder % len(_FAMILIES)]


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Pictures of images (P, H, W, 3) in [0, 1]."""
    found = images.detach().float().cpu().numpy()  # so little work is not worth threads, which numpy starts none of
    return [Image.fromarray(picture) for picture in np.rint(found.clip(0, 1) * 255).astype(np.uint8)]


def to_tensor(picture: Image.Image) -> Tensor:
    """One picture as (1, H, W, 3) float32 in [0, 1]."""
    return torch.from_numpy(np.divide(picture.convert("RGB"), 255, dtype=np.float32))[None]


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """A picture scaled so that its longer side is at most ``side``; small ones grow by whole multiples."""
    factor = side // max(picture.size)
    if factor < 1:
        return shrunk(picture, side)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side is at most ``side``; a small one as it is."""
    ratio = side / max(picture.size)
    if ratio >= 1:
        return picture
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures under one another on the common background."""
    width = max(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, sum(picture.height for picture in pictures)), BACKGROUND)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet
