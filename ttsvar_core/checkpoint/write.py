"""Write tensors as safetensors: whole or not at all, with the permissions any new file gets, and for a conversion one tensor at a
time, so that no second file is ever held in memory."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

_TYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_ALIGNMENT = 8  # the header is padded so that the data starts on a multiple of this


def write_safetensors(
    path: Path, sources: Mapping[str, Tensor], dtype: torch.dtype, metadata: Mapping[str, str],
    prepare: Callable[[str, Tensor], Tensor],
) -> None:
    """Write ``prepare(name, tensor)`` for every tensor, which must return ``dtype`` and the same shape.

    The file appears under its name only when it is complete. Source: the safetensors format description.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for name, tensor in sources.items():
        size = tensor.numel() * dtype.itemsize
        header[name] = {"dtype": _TYPE_NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, tensor in sources.items():
                file.write(prepare(name, tensor).contiguous().reshape(-1).view(torch.uint8).numpy().data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def save_whole(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors of several types; an older file at ``path`` is replaced only once the new one is complete.

    The library's own writer makes files that only their owner may read, whatever the umask says.
    """
    from safetensors.torch import save_file

    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            permissions = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        save_file(dict(tensors), unfinished, metadata=None if metadata is None else dict(metadata))
        unfinished.chmod(permissions)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
