"""A transformers model that holds the tensors of a file, with nothing left to chance."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .finite import finite_floats
from .tensors import Tensors

log = logging.getLogger(__name__)

_SURPLUS = 2, 2**20  # a model may have twice the numbers its file has (tied weights), and this many more (constants)
_INDICES = "position_ids"  # running numbers that some files carry


def load_published(
    model_class: Any, config: Any, tensors: Tensors, dtype: torch.dtype = torch.float32, **options: Any
) -> nn.Module:
    """A frozen model of ``model_class`` holding ``tensors``, which carry the names of the published checkpoints.

    ``from_pretrained`` translates those names to the installed version's own. Raises UnusableFile if a tensor is missing, has
    another shape or holds whole numbers, and before any memory is taken if the sizes do not come from the tensors. Surplus
    tensors are a warning.
    """
    with torch.device("meta"):
        wanted = sum(tensor.numel() for tensor in model_class(config).parameters())
    held = sum(tensor.numel() for tensor in tensors.values())
    if wanted > _SURPLUS[0] * held + _SURPLUS[1]:
        raise tensors.refusal(f"states sizes of a model with {wanted:,} weights, and holds {held:,}")
    state = finite_floats(tensors, tensors.source)
    with _quiet():
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True, torch_dtype=dtype,
            **options,
        )
    surplus = sorted(report["unexpected_keys"])
    misfits = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if misfits:
        first = ", ".join(misfits[:3])
        raise tensors.refusal(f"lacks {len(misfits)} tensors or has them in another shape, first {first}")
    unused = set(surplus)
    whole = [n for n, t in tensors.items() if not (t.is_floating_point() or n in unused or n.endswith(_INDICES))]
    if whole:
        raise tensors.refusal(f"has {len(whole)} weights that are no floating-point numbers, first {whole[0]}")
    if surplus:
        log.warning("%s: %d tensors are not part of %s, first %s", tensors.source, len(surplus), tensors.file.title, surplus[:3])
    return model.eval().requires_grad_(False)


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
