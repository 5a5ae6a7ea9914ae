"""From patch tokens to the one vector per image that a diversity search clusters.

Source: TTS-VAR, section on clustering-based diversity search; PCA-shared is the variant with one basis for the batch.
Computed in float64 on the CPU, so that the same tokens give the same vectors on every device.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import names


def pca(tokens: Tensor) -> Tensor:
    """(B, L) float32: the patch tokens (B, L, C) of each image on that image's own first principal component.

    With G = X Xᵀ of the centred tokens X, its first eigenvector times the root of the eigenvalue is that projection.
    """
    centred = _centred(tokens)
    values, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
    projections = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    return (projections * _sign(projections)).float()


def pca_shared(tokens: Tensor) -> Tensor:
    """(B, L) float32: the patch tokens (B, L, C) of all images on the one first principal component of the batch."""
    samples, patches, channels = tokens.shape
    centred = _centred(tokens.reshape(1, -1, channels))[0]
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    projections = (centred @ vectors[:, -1])[None]
    return (projections * _sign(projections)).view(samples, patches).float()


def pool(tokens: Tensor) -> Tensor:
    """(B, C) float32: the mean of each image's patch tokens (B, L, C)."""
    return tokens.float().mean(dim=1).cpu()


REDUCERS: dict[str, Callable[[Tensor], Tensor]] = dict(zip(names.REDUCERS, (pca, pca_shared, pool), strict=True))


def _centred(tokens: Tensor) -> Tensor:
    """(B, L, C) float64 on the CPU, without the mean over the patches."""
    tokens = tokens.detach().cpu().double()
    return tokens - tokens.mean(dim=1, keepdim=True)


def _sign(projections: Tensor) -> Tensor:
    """(B, 1) of +1 or -1 that turns each row so that its far tail is positive.

    A principal component has no sign of its own. The third moment gives it one that depends on the layout only: the
    few patches that stand out, the subject, come out positive whichever way the axis was found.
    """
    third = projections.pow(3).sum(dim=-1, keepdim=True)
    largest = projections.gather(-1, projections.abs().argmax(dim=-1, keepdim=True))
    negligible = third.abs() <= 1e-9 * projections.abs().pow(3).sum(dim=-1, keepdim=True)
    return torch.where(torch.where(negligible, largest, third) < 0, -1.0, 1.0)
