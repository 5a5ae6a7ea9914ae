"""Diversity where it is cheap: draw the first scales no more certainly than a target (DiverseAR, arXiv 2512.02931).

Early scales decide what a picture shows and hold few tokens, so samples that differ there cost little and differ most.
"""

import torch
from torch import Tensor

MOST_TAU = 8.0  # the source searches [1, 8]
_HALVINGS = 24  # of an interval of 7: to the last bit of a float32


def certainty(logits: Tensor) -> Tensor:
    """(P,) the mean probability of a sample's likelier bit values, between .5 and 1; logits (P, L, Z, 2)."""
    return torch.sigmoid((logits[..., 1] - logits[..., 0]).abs()).flatten(1).mean(1)


def solve_tau(logits: Tensor, target: float) -> Tensor:
    """(P,) the temperature in [1, 8] by which each sample's logits (P, L, Z, 2) are as certain as `target`.

    Certainty falls as tau rises, so it is bisected; 1 where the logits are no more certain as they are, 8 where that does not
    suffice. Each sample's follows from its own logits, whatever else is in the batch.
    """
    low = torch.ones(len(logits), device=logits.device)
    high = torch.full_like(low, MOST_TAU)
    difference = (logits[..., 1] - logits[..., 0]).abs().flatten(1)
    tame = certainty(logits) <= target
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        certain = torch.sigmoid(difference / middle[:, None]).mean(1) > target
        low, high = torch.where(certain, middle, low), torch.where(certain, high, middle)
    return torch.where(tame, torch.ones_like(high), high)
