"""A short name for weights, cheap enough to take on every load."""

import hashlib
from typing import Any

import torch
from torch import Tensor

_SAMPLES = 64  # values read per tensor


class Fingerprint:
    """Hash of names, shapes and a strided sample of the values, rounded to bfloat16.

    The same weights have the same fingerprint in float32 and bfloat16, in every file layout and on every device.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor in; the order of calls matters."""
        flat = tensor.reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLES)].to("cpu", torch.bfloat16)
        self._hash.update(f"{name}{tuple(tensor.shape)}".encode())
        self._hash.update(sample.contiguous().view(torch.int16).numpy().tobytes())

    def hexdigest(self) -> str:
        """The fingerprint so far, 16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]


def fingerprints_of(of: Any) -> list[str]:
    """The fingerprint of each network that a reward or extractor runs, as its `models` lists them."""
    found = []
    for network in getattr(of, "models", ()):
        fingerprint = Fingerprint()
        for name, tensor in network.state_dict().items():
            fingerprint.add(name, tensor)
        found.append(fingerprint.hexdigest())
    return found
