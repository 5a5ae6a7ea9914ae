"""A transformers model that holds the tensors of a file, with nothing left to chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..reading import UnusableFile

_SURPLUS = 2, 2**20  # a model may have twice the numbers its file has (tied weights), and this many more (constants)
_INDICES = "position_ids"  # running numbers that some files carry


def fill_published(
    model_class: Any, config: Any, tensors: Mapping[str, Tensor], file: str, remedy: str, **options: Any
) -> tuple[nn.Module, list[str]]:
    """A model of ``model_class`` holding ``tensors``, which carry the names of the published checkpoints, and the names of
    tensors it has no use for.

    ``from_pretrained`` translates those names to the installed version's own. Raises UnusableFile if a tensor is missing, has
    another shape or holds whole numbers, and before any memory is taken if the sizes do not come from the tensors.
    """
    _check_size(model_class, config, tensors, file, remedy)
    with _quiet():
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=dict(tensors), output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    surplus = sorted(report["unexpected_keys"])
    misfits = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if misfits:
        first = ", ".join(misfits[:3])
        raise UnusableFile(f"{file} lacks {len(misfits)} tensors or has them in another shape, first {first}. {remedy}")
    unused = set(surplus)
    whole = [n for n, t in tensors.items() if not (t.is_floating_point() or n in unused or n.endswith(_INDICES))]
    if whole:
        raise UnusableFile(f"{file} has {len(whole)} weights that are no floating-point numbers, first {whole[0]}. {remedy}")
    return model, surplus


def _check_size(model_class: Any, config: Any, tensors: Mapping[str, Tensor], file: str, remedy: str) -> None:
    with torch.device("meta"):
        skeleton = model_class(config)
    wanted, held = (sum(tensor.numel() for tensor in part) for part in (skeleton.parameters(), tensors.values()))
    if wanted > _SURPLUS[0] * held + _SURPLUS[1]:
        raise UnusableFile(f"{file} states sizes of a model with {wanted:,} weights, and holds {held:,}. {remedy}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' progress bar and its report of surplus tensors from the console; ours says it in one line."""
    from transformers.utils import logging as library

    bars, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
