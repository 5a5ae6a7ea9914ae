"""What a scale is trained on: the answers it corrects, and how much each token weighs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsvar_core.bsq.bits import codes_to_bits, empty_features, fuse, map_to_tokens, next_scale_input
from ttsvar_core.scales import ScaleSchedule

SCALE_WEIGHT_POWER = 0.5
OBJECT_WEIGHT = 6.0


def flipped_sequence(
    features: Tensor, schedule: ScaleSchedule, scales: int, flips: Tensor, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """What each scale sees and what it should answer when earlier answers were partly wrong.

    `features` (B, C, h, w); `flips` (B, 1, 1) is each row's share of flipped bits. The flipped bits are fed back and the next
    target is computed from what they left, so the model learns to correct itself. Returns the inputs (B, L, Z) of scales
    1, 2, ... and the target bits (B, L, Z) of the first `scales` scales. Source: Infinity, arXiv 2412.04431, section 3.4.
    """
    seen = empty_features(len(features), features.shape[1], schedule, False).to(features.device)
    inputs, targets = [], []
    for scale, grid in enumerate(schedule.grids[:scales]):
        if scale:
            inputs.append(next_scale_input(seen, grid, False))
        bits = codes_to_bits(map_to_tokens(F.interpolate(features - seen, size=grid, mode="area"), False))
        targets.append(bits)
        wrong = torch.rand(bits.shape, generator=generator).to(bits.device) < flips
        seen = fuse(seen, bits ^ wrong.to(torch.uint8), scale, schedule, False)
    return inputs, targets


def scale_weights(schedule: ScaleSchedule) -> Tensor:
    """Loss weight of every token (L,), of sum 1, as the side of its scale.

    Scales of few tokens decide what is drawn and are soon learnt; those of many draw the outlines and need most of the training.
    Infinity's training weighs a token by the inverse of that side.
    """
    tokens = torch.tensor(schedule.tokens, dtype=torch.float32)
    return torch.repeat_interleave(tokens**SCALE_WEIGHT_POWER / (tokens ** (1 + SCALE_WEIGHT_POWER)).sum(),
                                   torch.tensor(schedule.tokens))


def object_weights(cover: Tensor, schedule: ScaleSchedule) -> Tensor:
    """Loss weights (B, L) of mean 1 in every scale: heavier where objects are, because most cells are background."""
    parts = []
    for grid in schedule.grids:
        part = 1 + OBJECT_WEIGHT * F.interpolate(cover, size=grid, mode="area").flatten(1)
        parts.append(part / part.mean())
    return torch.cat(parts, dim=1)
