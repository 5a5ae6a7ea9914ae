"""Write tensors as safetensors, one at a time, so that a conversion never holds a second file in memory."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import replacing

TYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8",
}
CHECKSUM = "checksum"  # metadata entry: SHA-256 of the whole file with these digits as zeros
NO_CHECKSUM = "0" * 64
_ALIGNMENT = 8  # the header is padded so that the data starts on a multiple of this


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None, prepare: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """Write ``prepare(name, tensor)`` for every tensor, which must return ``dtype`` and the same shape; by default the tensor.

    A metadata entry `CHECKSUM` is filled in. The file appears under its name only when it is complete (`atomic.replacing`).
    Source: the safetensors format description.
    """
    types = {name: dtype or tensor.dtype for name, tensor in tensors.items()}
    names = sorted(tensors, key=lambda name: -types[name].itemsize)  # readers need every tensor on a multiple of its item's size
    text = _header({name: (types[name], tuple(tensors[name].shape)) for name in names}, {"format": "pt", **(metadata or {})})
    start = struct.pack("<Q", len(text)) + text
    digest = hashlib.sha256(start)
    with replacing(path) as file:
        file.write(start)
        for name in names:
            tensor = prepare(name, tensors[name]) if prepare else tensors[name]
            data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            digest.update(data)
            file.write(data)
        if metadata and CHECKSUM in metadata:
            file.seek(start.index(checksum_entry(NO_CHECKSUM)))
            file.write(checksum_entry(digest.hexdigest()))


def checksum_entry(digits: str) -> bytes:
    """A checksum as the header spells it; within other entries its quotes would be escaped."""
    return json.dumps({CHECKSUM: digits})[1:-1].encode()


def _header(contents: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, (dtype, shape) in contents.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)
