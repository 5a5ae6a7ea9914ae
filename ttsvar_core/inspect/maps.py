"""What a feature space sees: the three main directions of features as colours (the maps of the paper's figure 7)."""

import torch
from PIL import Image
from torch import Tensor

from ..extractors.base import FeatureExtractor
from ..state import SearchState
from ..threads import one_thread
from .canvas import MARGIN, MUTED, fitted, page, to_pictures
from .letters import font

_HEADER = 44


def mapped(state: SearchState, images: Tensor, extractor: FeatureExtractor | None = None) -> tuple[Tensor, str]:
    """What maps show, (P, C, h, w), and its name: an extractor's patch tokens if it has any (DINOv2), else the accumulated
    features."""
    if not hasattr(extractor, "patch_tokens"):
        return state.features, "accumulated features"
    tokens = extractor.patch_tokens(images)
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, -1)), extractor.name


def principal_colours(features: Tensor) -> Tensor:
    """Colours (P, h, w, 3) in [0, 1] of features (P, C, h, w): their first three principal components over all samples.

    One basis serves all samples, so equal colours mean alike features. Directions get a fixed sign (largest weight
    positive). Features that do not vary come out grey. Needs at least three channels, else the missing ones stay grey.
    """
    with one_thread():
        return _principal_colours(features)


def _principal_colours(features: Tensor) -> Tensor:
    samples, channels, height, width = features.shape
    vectors = features.detach().cpu().double().movedim(1, -1).reshape(-1, channels)
    centred = vectors - vectors.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    directions = directions.flip(1)[:, :3]
    strongest = directions.abs().argmax(0)
    directions = directions * directions.gather(0, strongest[None]).sign()
    values = centred @ directions
    spread = values.abs().quantile(0.99, dim=0) if len(values) < 1_000_000 else values.abs().amax(0)
    alive = spread > 1e-9 * (1 + vectors.abs().max())
    scaled = torch.where(alive, values / torch.where(alive, spread, torch.ones_like(spread)), torch.zeros_like(values))
    colours = torch.full((len(vectors), 3), 0.5, dtype=torch.float64)
    colours[:, : scaled.shape[1]] = (scaled * 0.5 + 0.5).clamp(0, 1)
    return colours.reshape(samples, height, width, 3).float()


def feature_maps(
    colours: Tensor, what: str = "accumulated features", images: Tensor | None = None, cell: int = 160
) -> Image.Image:
    """A sheet with the `principal_colours` (P, h, w, 3) of features, under each sample's image (P, H, W, 3) if given."""
    rows = [to_pictures(colours)]
    if images is not None:
        rows.insert(0, to_pictures(images))
    rows = [[fitted(picture, cell) for picture in row] for row in rows]
    width = max(picture.width for row in rows for picture in row)
    heights = [max(picture.height for picture in row) for row in rows]
    count, below = len(rows[0]), _HEADER + sum(heights) + MARGIN * len(rows) + 10
    sheet, draw = page(max(420, MARGIN + count * (width + MARGIN)), below, f"Main directions of {what}")
    for column in range(count):
        left, top = MARGIN + column * (width + MARGIN), _HEADER
        for row, height in zip(rows, heights, strict=True):
            sheet.paste(row[column], (left + (width - row[column].width) // 2, top))
            top += height + MARGIN // 2
        draw.text((left + width // 2, top - 4), f"#{column}", MUTED, font(13), anchor="ma")
    return sheet
