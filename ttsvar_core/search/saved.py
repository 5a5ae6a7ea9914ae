"""The file of a saved state, checked before it is read: nothing is allocated for a file that promises more than it holds."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

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


class Saved(NamedTuple):
    """What a file says. about: what the state says of itself, as JSON values. tensors: mapped from the file, taking no memory yet.
    head: the header's own bytes."""

    path: Path
    about: dict[str, Any]
    schedule: ScaleSchedule
    steps: tuple[StepSampling, ...]
    lineage: tuple[LineageStep, ...]
    checksum: str | None
    tensors: dict[str, Tensor]
    head: bytes

    def check_bytes(self) -> None:
        """Raise ValueError if a byte of the file is another than was written (files of early versions cannot tell)."""
        if self.checksum is None:
            return
        digest = hashlib.sha256(self.head.replace(checksum_entry(self.checksum), checksum_entry(NO_CHECKSUM)))
        with open_regular(self.path) as file:
            file.seek(len(self.head))
            while block := file.read(_HASHED_AT_ONCE):
                digest.update(block)
        if digest.hexdigest() != self.checksum:
            raise ValueError("damaged: its checksum is not that of its content")

    def read(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """A copy of a tensor. Raises ValueError, before it allocates anything, if the file has another one under that name."""
        tensor = self.tensors[name]
        if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
            came = TYPE_NAMES.get(tensor.dtype, tensor.dtype)
            raise ValueError(f"{name} is {came} {tuple(tensor.shape)}, expected {TYPE_NAMES[dtype]} {shape}")
        return tensor.clone()


def read_saved(path: str | Path) -> Saved:
    """What a saved state's file says. Within `reading.refusing`: raises what a header of any content may."""
    from safetensors import SafetensorError, safe_open

    with open_regular(path) as file:
        start = file.read(8)
        if (length := int.from_bytes(start, "little")) > _MAX_HEADER:
            raise ValueError(f"not a whole safetensors file: it claims a header of {length:,} bytes")
        head = start + file.read(length)
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"not a saved state: its format is {metadata.get('format')!r}, expected {FORMAT!r}")
    if unknown := sorted(metadata.keys() - {"format", "state", CHECKSUM}):
        raise ValueError(f"unknown metadata {unknown[:3]}")
    about = parse_json(metadata["state"])
    return Saved(Path(path), about, *_parsed(about), metadata.get(CHECKSUM), tensors, head)


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
