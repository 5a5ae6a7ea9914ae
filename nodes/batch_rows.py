"""Rows of the host's own batches: which samples of a LATENT go on, with everything that belongs to them."""

from collections.abc import Sequence
from typing import Any

import torch


def latent_rows(latent: dict) -> int:
    """How many samples a LATENT holds."""
    return len(_parts(latent["samples"])[0])


def select_rows(latent: dict, rows: Sequence[int]) -> dict:
    """The LATENT of the samples at ``rows``, in that order; a row named twice is copied.

    What has one entry per sample goes along (noise masks, tensors, lists), everything else stays as it is. ``batch_index``, by
    which ComfyUI's samplers draw a sample's noise, keeps every sample's own number; a copy gets one of its own, as ComfyUI's
    Repeat Latent Batch does it, so that copies part where noise is added. Raises ValueError for a row that is not there.
    """
    rows, count = [int(row) for row in rows], latent_rows(latent)
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong or not rows:
        raise ValueError(f"Cannot take rows {wrong or rows} of a latent of {count}; name rows from 0 to {count - 1}.")
    chosen = {name: value if name == "noise_mask" else _taken(value, rows, count) for name, value in latent.items()}
    if latent.get("noise_mask") is not None:
        chosen["noise_mask"] = _masks(latent["noise_mask"], rows, count)
    numbers = list(latent.get("batch_index") or range(count))
    return {**chosen, "batch_index": _numbered(rows, numbers + list(range(len(numbers), count)))}


def _parts(value: Any) -> list:
    """The tensors of a plain or nested tensor (sound beside pictures)."""
    return list(value.unbind()) if getattr(value, "is_nested", False) else [value]


def _taken(value: Any, rows: list[int], count: int) -> Any:
    """The entries of ``value`` at ``rows`` where it has one per sample, else itself."""
    if getattr(value, "is_nested", False):
        return type(value)([_taken(part, rows, count) for part in _parts(value)])
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim and len(value) == count else value
    if isinstance(value, list | tuple) and len(value) == count:
        return type(value)([value[row] for row in rows])
    return value


def _masks(masks: Any, rows: list[int], count: int) -> Any:
    """A mask for all samples stays one; too few of them repeat, as ComfyUI reads them."""
    if getattr(masks, "is_nested", False):
        return type(masks)([_masks(part, rows, count) for part in _parts(masks)])
    return masks if len(masks) == 1 else masks[[row % len(masks) for row in rows]]


def _numbered(rows: list[int], numbers: list[int]) -> list[int]:
    """The number of each row, raised past all others for every earlier copy of it."""
    span = max(numbers) - min(numbers) + 1
    return [numbers[row] + span * rows[:place].count(row) for place, row in enumerate(rows)]
