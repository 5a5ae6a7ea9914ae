"""Search states on disk: a few kilobytes of bits, from which everything else is made again.

A safetensors file: per scale the packed bits, the score history, and as metadata the seed, lineage, settings of every
scale and the fingerprints of model and prompt. Features are fused from the bits again, by the same operations and so to
the same values; keys and values are replayed when sampling goes on, or stored too on request, which takes megabytes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..bsq.bits import fuse
from ..config import StepSampling
from ..infinity.cache import Chunk, KVCache, compact
from ..scales import ScaleSchedule
from ..state import LineageStep, SearchState, start

if TYPE_CHECKING:
    from ..image_model import ImageModel
    from ..infinity.text import Conditioning

FORMAT = "ttsvar-state-1"
_SKETCH_BINS = 16
_SKETCH_TOLERANCE = 0.05  # text encoders in half precision differ by less, other prompts and encoders by far more


def save_state(state: SearchState, path: str | Path, with_cache: bool = False) -> None:
    """Write `state` to `path`; an older file there is replaced only once the new one is complete.

    with_cache: store keys and values as well, so that going on is bit-equal even after selections (a replayed cache
    agrees to rounding).
    """
    from ..checkpoint.write import save_whole

    tensors = {f"bits.{scale:02d}": _packed(bits) for scale, bits in enumerate(state.bits)}
    tensors |= {"scores": state.scores.contiguous(), "log_weights": state.log_weights.contiguous()}
    if with_cache and state.cache is not None:
        tensors |= _cache_tensors(compact(list(state.cache.chunks)))
    save_whole({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, _metadata(state))


def load_state(path: str | Path, model: ImageModel, conditioning: Conditioning) -> SearchState:
    """The state saved at `path`, for the same model and prompt.

    Raises ValueError, naming the difference, for a state of another model or prompt, and for a file that is not a whole
    state.
    """
    tensors, about = _read(Path(path))
    _check_model(about, model)
    _check_prompt(about, conditioning)
    schedule = ScaleSchedule(tuple(tuple(grid) for grid in about["grids"]), tuple(about["rope_grid"]))
    state = start(model, conditioning, about["samples"], about["seed"], schedule)
    bits = tuple(_unpacked(tensors, scale, state) for scale in range(about["next_scale"]))
    features = state.features
    for scale, one in enumerate(bits):
        features = fuse(features.to(one.device), one, scale, schedule, model.patchify)
    return state._replace(
        next_scale=about["next_scale"],
        bits=bits,
        features=features,
        cache=_cache(tensors, about["next_scale"], model.transformer.device),
        scores=tensors["scores"],
        log_weights=tensors.get("log_weights", state.log_weights),
        lineage=tuple(_lineage_step(step) for step in about["lineage"]),
        steps=tuple(StepSampling(*step[:3], tuple(step[3])) for step in about["steps"]),
    )


def describe_file(path: str | Path) -> dict:
    """What a saved state says about itself, without a model: prompt, model, seed, samples, scales, lineage."""
    return _read(Path(path))[1]


def _metadata(state: SearchState) -> dict[str, str]:
    about = {
        "model": state.model.name,
        "model_fingerprint": state.model.fingerprint,
        "prompt": state.conditioning.prompt,
        "negative_prompt": state.conditioning.negative_prompt,
        "text_sketch": sketch(state.conditioning.text),
        "negative_sketch": sketch(state.conditioning.negative),
        "grids": [list(grid) for grid in state.schedule.grids],
        "rope_grid": list(state.schedule.rope_grid),
        "seed": state.seed,
        "samples": state.samples,
        "next_scale": state.next_scale,
        "steps": [list(step) for step in state.steps],
        "lineage": [_without_nan(step) for step in state.lineage],
    }
    return {"format": FORMAT, "state": json.dumps(about, allow_nan=False)}


def _without_nan(step: LineageStep) -> dict:
    return {**step._asdict(), "scores": [None if math.isnan(score) else score for score in step.scores]}


def _lineage_step(data: dict) -> LineageStep:
    scores = tuple(math.nan if score is None else score for score in data["scores"])
    return LineageStep(**{**data, "ancestors": tuple(data["ancestors"]), "scores": scores})


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # copies: what is mapped keeps the file open, and on Windows an open file cannot be replaced
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); save the state again") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a saved state: its format is {metadata.get('format')!r}, expected {FORMAT!r}")
    return tensors, json.loads(metadata["state"])


def _check_model(about: dict, model: ImageModel) -> None:
    if about["model_fingerprint"] != model.fingerprint:
        raise ValueError(
            f"the state was made with model {about['model']} (fingerprint {about['model_fingerprint'][:12]}), the model "
            f"given is {model.name} (fingerprint {model.fingerprint[:12]}); load the model it was made with"
        )


def _check_prompt(about: dict, conditioning: Conditioning) -> None:
    for what, saved, given in (
        ("prompt", about["prompt"], conditioning.prompt),
        ("negative prompt", about["negative_prompt"], conditioning.negative_prompt),
    ):
        if saved != given:
            raise ValueError(f"the state was made for the {what} {saved!r}, given is {given!r}; encode the former")
    for what, saved, given in (
        ("prompt", about["text_sketch"], conditioning.text),
        ("negative prompt", about["negative_sketch"], conditioning.negative),
    ):
        if not alike(saved, sketch(given)):
            raise ValueError(
                f"the text features of the {what} are not those the state was made with, though the words are the same; "
                "use the same text encoder"
            )


def sketch(text: Tensor | None) -> list[float] | None:
    """Sixteen numbers of text features (T, Ct) that tell encoders and prompts apart and survive a change of precision."""
    if text is None:
        return None
    if not len(text):
        return []
    mean = text.detach().float().cpu().mean(dim=0)
    bins = torch.nn.functional.adaptive_avg_pool1d(mean[None], _SKETCH_BINS)[0]
    return [*bins.tolist(), float(len(text))]


def alike(saved: list[float] | None, given: list[float] | None) -> bool:
    """Whether two sketches are of the same text features, up to a change of precision."""
    if not saved or not given:
        return saved == given
    if saved[-1] != given[-1]:
        return False
    one, two = np.asarray(saved[:-1]), np.asarray(given[:-1])
    return bool(np.abs(one - two).max() <= _SKETCH_TOLERANCE * np.abs(one).max())


def _packed(bits: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(bits.cpu().numpy()))


def _unpacked(tensors: dict[str, Tensor], scale: int, state: SearchState) -> Tensor:
    """Bits (P, L, Z) uint8 of a scale, on the transformer's device."""
    shape = (state.samples, state.schedule.tokens[scale], state.model.config.transformer.bits_per_token)
    packed, count = tensors.get(f"bits.{scale:02d}"), math.prod(shape)
    if packed is None or len(packed) != -(-count // 8):
        came = "none" if packed is None else f"{len(packed)} bytes"
        raise ValueError(f"the saved bits of scale {scale} are {came}; expected {-(-count // 8)} bytes for {shape}")
    bits = np.unpackbits(packed.numpy(), count=count).reshape(shape)
    return torch.from_numpy(bits).to(state.model.transformer.device)


def _cache_tensors(cache: KVCache) -> dict[str, Tensor]:
    tensors = {}
    for scale, chunk in enumerate(cache.chunks):
        for side, layers in (("keys", chunk.keys), ("values", chunk.values)):
            tensors |= {f"{side}.{scale:02d}.{layer:03d}": tensor for layer, tensor in enumerate(layers)}
        if chunk.rows is not None:
            tensors[f"rows.{scale:02d}"] = chunk.rows.clone()  # chunks may share theirs, which the format refuses
    return tensors


def _cache(tensors: dict[str, Tensor], scales: int, device: torch.device) -> KVCache | None:
    if not any(name.startswith("keys.") for name in tensors):
        return None
    chunks = []
    for scale in range(scales):
        keys, values = (
            tuple(tensors[name].to(device) for name in sorted(tensors) if name.startswith(f"{side}.{scale:02d}."))
            for side in ("keys", "values")
        )
        chunks.append(Chunk(keys, values, tensors.get(f"rows.{scale:02d}")))
    return KVCache(tuple(chunks))
