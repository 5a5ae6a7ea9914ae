"""The file of a saved state, checked from its header alone: nothing is allocated for a file that promises more than it holds."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from ..config import Sampling, StepSampling
from ..names import MAX_SEED
from ..reading import finite, open_regular, parse_json, whole
from ..scales import ScaleSchedule
from ..state import LineageStep
from ..weights.write import CHECKSUM, NO_CHECKSUM, TYPE_NAMES, checksum_entry

FORMAT = "ttsvar-state-1"
REMEDY = "Save the state again, or choose another."
MAX_FEATURE_BYTES = 2**29  # of accumulated features: 1024 samples of the 2B model at 1M pixels
_MAX_HEADER = 16 * 2**20  # bytes; thousands of samples and their lineage need two
_MAX_COUNT = 2**20  # of samples, sides of grids, scales: beyond any, and products of them stay small numbers
_HASHED_AT_ONCE = 2**20
_TYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}


class Entry(NamedTuple):
    """A tensor of the file: its type, its shape and where it starts, in bytes from the beginning."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


class Saved(NamedTuple):
    """A file's header. about: what the state says of itself, as JSON values. head: the header's own bytes."""

    about: dict[str, Any]
    schedule: ScaleSchedule
    steps: tuple[StepSampling, ...]
    lineage: tuple[LineageStep, ...]
    checksum: str | None
    entries: dict[str, Entry]
    head: bytes

    def check_bytes(self, file: BinaryIO) -> None:
        """Raise ValueError if a byte of the file is another than was written (files of early versions cannot tell)."""
        if self.checksum is None:
            return
        digest = hashlib.sha256(self.head.replace(checksum_entry(self.checksum), checksum_entry(NO_CHECKSUM)))
        file.seek(len(self.head))
        while block := file.read(_HASHED_AT_ONCE):
            digest.update(block)
        if digest.hexdigest() != self.checksum:
            raise ValueError("damaged: its checksum is not that of its content")

    def read(self, file: BinaryIO, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """A copy of a tensor. Raises ValueError, before it allocates anything, if the file has another one under that name."""
        entry = self.entries[name]
        if (entry.dtype, entry.shape) != (dtype, shape):
            raise ValueError(f"{name} is {TYPE_NAMES[entry.dtype]} {entry.shape}, expected {TYPE_NAMES[dtype]} {shape}")
        file.seek(entry.start)
        data = bytearray(entry.nbytes)
        if file.readinto(data) != len(data):
            raise ValueError(f"{name} is not all there")
        return torch.frombuffer(data, dtype=dtype).reshape(shape)


def read_saved(path: str | Path) -> tuple[Saved, BinaryIO]:
    """The header of a saved state, and the file. Within `reading.refusing`: raises what a header of any content may."""
    file = open_regular(path)
    try:
        return _saved(file, Path(path).stat().st_size), file
    except BaseException:
        file.close()
        raise


def _saved(file: BinaryIO, size: int) -> Saved:
    start = file.read(9)
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    if start[8:] != b"{" or not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise ValueError("not a whole safetensors file")
    file.seek(0)
    head = file.read(8 + length)
    header = parse_json(head[8:].decode())
    metadata = header.pop("__metadata__", {})
    if metadata.get("format") != FORMAT:
        raise ValueError(f"not a saved state: its format is {metadata.get('format')!r}, expected {FORMAT!r}")
    if unknown := sorted(metadata.keys() - {"format", "state", CHECKSUM}):
        raise ValueError(f"unknown metadata {unknown[:3]}")
    about = parse_json(metadata["state"])
    schedule, steps, lineage = _parsed(about)
    entries = _entries(header, len(head), size)
    return Saved(about, schedule, steps, lineage, metadata.get(CHECKSUM), entries, head)


def _entries(header: dict[str, Any], start: int, size: int) -> dict[str, Entry]:
    """The tensors, which must lie one after another and fill the file."""
    entries, at = {}, start
    for name, stored in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        entry = Entry(_TYPES[stored["dtype"]], tuple(whole(side, 0, size) for side in stored["shape"]), at)
        if stored["data_offsets"] != [at - start, at - start + entry.nbytes]:
            raise ValueError(f"not a whole safetensors file: {name} is not where it should be")
        entries[name], at = entry, at + entry.nbytes
    if at != size:
        raise ValueError(f"not a whole safetensors file: it has {size:,} bytes, its header promises {at:,}")
    return entries


def _parsed(about: dict[str, Any]) -> tuple[ScaleSchedule, tuple[StepSampling, ...], tuple[LineageStep, ...]]:
    """The schedule, settings and lineage of a state's description, all of which must be what a state can have."""
    grids = tuple(tuple(whole(side, 1, _MAX_COUNT) for side in grid) for grid in about["grids"])
    height, width = about["rope_grid"]
    schedule = ScaleSchedule(grids, (whole(height, 1, _MAX_COUNT), whole(width, 1, _MAX_COUNT)))
    whole(about["seed"], 0, MAX_SEED)
    whole(about["samples"], 1, _MAX_COUNT)
    whole(about["next_scale"], 0, len(schedule))
    for name in ("model", "model_fingerprint", "prompt", "negative_prompt"):
        _check_text(name, about[name], name == "negative_prompt")
    for name in ("text_sketch", "negative_sketch"):
        for value in about[name] or ():
            finite(value)
    steps = tuple(_step(*step) for step in about["steps"])
    if len(steps) != about["next_scale"]:
        raise ValueError(f"{len(steps)} settings for {about['next_scale']} sampled scales")
    return schedule, steps, _lineage(about)


def _check_text(name: str, value: Any, optional: bool) -> None:
    if not isinstance(value, str) and not (optional and value is None):
        raise ValueError(f"{name} is {type(value).__name__}, expected text")
    (value or "").encode()  # half a character cannot be shown anywhere


def _step(guidance: Any, tau: Any, top_p: Any, layers: Any, certainty: Any = None) -> StepSampling:
    targets = () if certainty is None else (finite(certainty),)
    within = tuple(whole(layer, -_MAX_COUNT, 0) for layer in layers)
    return Sampling(finite(guidance), finite(tau), finite(top_p), within, targets).at(0)


def _lineage(about: dict[str, Any]) -> tuple[LineageStep, ...]:
    """The selections: each is of the samples that the one before left, and the last leaves the state's."""
    steps = []
    for data in about["lineage"]:
        scores = tuple(math.nan if score is None else finite(score) for score in data["scores"])
        whole(data["scale"], -1, about["next_scale"] - 1)
        ancestors = tuple(whole(row, 0, len(scores) - 1) for row in data["ancestors"])
        if steps and len(scores) != len(steps[-1].ancestors):
            raise ValueError(f"a selection among {len(scores)} of {len(steps[-1].ancestors)} samples")
        _check_text("reason", data["reason"], optional=False)
        steps.append(LineageStep(**{**data, "ancestors": ancestors, "scores": scores, "ess": finite(data["ess"])}, before=()))
    if steps and len(steps[-1].ancestors) != about["samples"]:
        raise ValueError(f"{len(steps[-1].ancestors)} samples were selected, {about['samples']} are said to be here")
    return tuple(steps)


def dumped(about: dict[str, Any]) -> dict[str, str]:
    """The metadata of a file, its checksum to be filled in by the writer."""
    return {"format": FORMAT, CHECKSUM: NO_CHECKSUM, "state": json.dumps(about, allow_nan=False)}
