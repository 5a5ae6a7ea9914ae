"""Weights must be numbers: the one check that all models' tensors pass."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..reading import UnusableFile
from .files import RawCheckpoint, release


def check_finite(tensor: Tensor, source: Tensor, name: str, file: str) -> None:
    """Refuse weights with NaN or infinity; ``tensor`` is ``source`` in the precision it will run in. Raises UnusableFile.

    One pass without a temporary: the sum is finite unless an element is not (or the sum overflows, which is looked into).
    """
    if bool(torch.isfinite(tensor.sum(dtype=torch.float32))) or bool(torch.isfinite(tensor.float()).all()):
        return
    if bool(torch.isfinite(source.float()).all()):
        raise UnusableFile(f"{name} of {file} does not fit the range of {tensor.dtype}. Choose bfloat16 or float32.")
    raise UnusableFile(f"{name} of {file} holds NaN or infinity; the file is damaged. Download or convert it again.")


def finite_floats(tensors: Mapping[str, Tensor], file: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The same tensors, those of floating point checked and, if ``dtype`` is given, in it. Raises UnusableFile."""
    checked = {}
    for name, source in tensors.items():
        checked[name] = source
        if source.is_floating_point():
            checked[name] = source.to(dtype or source.dtype)
            check_finite(checked[name], source, name, file)
    return checked


def converted(raw: RawCheckpoint, name: str, source: Tensor, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """A tensor of a file in the precision and place it will run in, checked; its pages of the file are given back then. Raises
    UnusableFile."""
    source = source.detach()
    tensor = source.to(device=device, dtype=dtype)
    check_finite(tensor, source, name, raw.path.name)
    if tensor is not source and raw.mapped:
        release(source)
    return tensor
