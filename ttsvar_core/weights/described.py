"""Small networks in files of our own, which say in their metadata what they are and what they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..reading import UnusableFile, parse_json
from .files import RawCheckpoint, read_checkpoint
from .finite import finite_floats

Network = TypeVar("Network", bound=nn.Module)


def read_described(path: Path, entry: str, version: int, nothing: str) -> tuple[RawCheckpoint, dict[str, Any]]:
    """The file and what it says of itself in a metadata entry.

    nothing: what a file without that entry is. Raises MissingFile, or UnusableFile for such a file and for another version of the
    format.
    """
    checkpoint = read_checkpoint(path)
    if entry not in checkpoint.metadata:
        raise UnusableFile(f"{path.name} {nothing}")
    about = parse_json(checkpoint.metadata[entry])
    if about["format"] != version:
        raise UnusableFile(f"{path.name} has the format {about['format']!r}; this version reads {version}")
    return checkpoint, about


def filled(network: Network, checkpoint: RawCheckpoint, path: Path) -> Network:
    """A network that was built without storage (on the meta device), with a file's weights in float32, for inference.

    Raises UnusableFile for weights that are not finite, RuntimeError for others than the network has.
    """
    weights = finite_floats(checkpoint.content, str(path), torch.float32)
    network.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)  # none stays in the file
    return network.requires_grad_(False).eval()
