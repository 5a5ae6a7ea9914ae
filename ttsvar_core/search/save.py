"""Search states on disk: a few kilobytes of bits, from which everything else is made again.

A safetensors file: per scale the packed bits, the score history, and as metadata the seed, lineage, settings of every
scale and the fingerprints of model and prompt. Features are fused from the bits again, by the same operations and so to
the same values; keys and values are replayed when sampling goes on, or stored too on request, which takes megabytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..bsq.bits import cell_grid, fused
from ..infinity.cache import Chunk, KVCache, compact
from ..reading import refusing
from ..selection import as_log_weights
from ..state import LineageStep, SearchState, start
from .saved import MAX_FEATURE_BYTES, REMEDY, Saved, dumped, read_saved

if TYPE_CHECKING:
    from ..image_model import ImageModel
    from ..infinity.text import Conditioning

_SHOWN = 400  # characters of a prompt in a message
_MOST = torch.finfo(torch.float16).max  # of keys and values, which have to fit any precision a model runs in
_SUMMARY_BINS = 16
_SUMMARY_TOLERANCE = 0.05  # text encoders in half precision differ by less, other prompts and encoders by far more


def save_state(state: SearchState, path: str | Path, with_cache: bool = False) -> None:
    """Write `state` to `path`; an older file there is replaced only once the new one is complete.

    with_cache: store keys and values as well, so that going on is bit-equal even after selections (a replayed cache
    agrees to rounding).
    """
    from ..weights.write import write_safetensors

    tensors = {f"bits.{scale:02d}": _packed(bits) for scale, bits in enumerate(state.bits)}
    tensors |= {"scores": state.scores.contiguous(), "log_weights": state.log_weights.contiguous()}
    if with_cache and state.cache is not None:
        tensors |= _cache_tensors(compact(list(state.cache.chunks)))
    write_safetensors(path, tensors, dumped(_about(state)))


def load_state(path: str | Path, model: ImageModel, conditioning: Conditioning) -> SearchState:
    """The state saved at `path`, for the same model and prompt.

    Raises ValueError, naming the difference, for a state of another model or prompt, and for a file that is not a whole
    state (`reading.UnusableFile`); in both cases before anything is allocated for it.
    """
    with refusing(path, REMEDY):
        saved = read_saved(path)
        saved.check_bytes()
    _check_model(path, saved.about, model)
    _check_prompt(path, saved.about, conditioning)
    with refusing(path, REMEDY):
        return _state(saved, model, conditioning)


def describe_file(path: str | Path) -> dict:
    """What a saved state says about itself, without a model: prompt, model, seed, samples, scales, lineage."""
    with refusing(path, REMEDY):
        return read_saved(path).about


def _state(saved: Saved, model: ImageModel, conditioning: Conditioning) -> SearchState:
    about, schedule, device = saved.about, saved.schedule, model.transformer.device
    samples, scales = about["samples"], about["next_scale"]
    _check_size(samples, schedule.final, model)
    scores = saved.read("scores", torch.float32, samples, len(schedule))
    if torch.isinf(scores).any():
        raise ValueError("its scores hold infinity")
    per_token = model.config.transformer.bits_per_token
    bits = tuple(_unpacked(saved, scale, (samples, schedule.tokens[scale], per_token)).to(device) for scale in range(scales))
    state = start(model, conditioning, samples, about["seed"], schedule)
    weights = state.log_weights  # of files of the first version, which hold none
    if "log_weights" in saved.tensors:
        weights = saved.read("log_weights", torch.float64, samples)
        as_log_weights(weights)
    features = state.features
    for grown in fused(features.to(device), bits, schedule, model.patchify):
        features = grown
    return state._replace(
        next_scale=scales, bits=bits, features=features, cache=_cache(saved, model), scores=scores,
        log_weights=weights, lineage=saved.lineage, steps=saved.steps,
    )


def _check_size(samples: int, grid: tuple[int, int], model: ImageModel) -> None:
    """Features are the one thing that a file needs not hold and a state does."""
    size = 4 * samples * model.config.tokenizer.codebook_dim * math.prod(cell_grid(grid, model.patchify))
    if size > MAX_FEATURE_BYTES:
        raise ValueError(
            f"{samples} samples of {grid[0]}x{grid[1]} tokens need {size / 2**20:,.0f} MiB of features, at most "
            f"{MAX_FEATURE_BYTES / 2**20:.0f} are loaded"
        )


def _about(state: SearchState) -> dict[str, Any]:
    return {
        "model": state.model.name,
        "model_fingerprint": state.model.fingerprint,
        "prompt": state.conditioning.prompt,
        "negative_prompt": state.conditioning.negative_prompt,
        "text_sketch": text_summary(state.conditioning.text),
        "negative_sketch": text_summary(state.conditioning.negative),
        "grids": [list(grid) for grid in state.schedule.grids],
        "rope_grid": list(state.schedule.rope_grid),
        "seed": state.seed,
        "samples": state.samples,
        "next_scale": state.next_scale,
        "steps": [list(step) if step.certainty else list(step[:4]) for step in state.steps],  # as first versions read them
        "lineage": [_without_nan(step) for step in state.lineage],
    }


def _without_nan(step: LineageStep) -> dict:
    told = {**step._asdict(), "scores": [None if math.isnan(score) else score for score in step.scores]}
    del told["before"]  # the file holds the living alone
    return told


def _check_model(path: str | Path, about: dict, model: ImageModel) -> None:
    if about["model_fingerprint"] != model.fingerprint:
        raise ValueError(
            f"{path} was made with model {about['model'][:_SHOWN]} (fingerprint {about['model_fingerprint'][:12]}), the model "
            f"given is {model.name} (fingerprint {model.fingerprint[:12]}); use the model it was made with"
        )


def _check_prompt(path: str | Path, about: dict, conditioning: Conditioning) -> None:
    for what, saved, given in (
        ("prompt", about["prompt"], conditioning.prompt),
        ("negative prompt", about["negative_prompt"], conditioning.negative_prompt),
    ):
        if saved != given:
            raise ValueError(
                f"{path} was made for the {what} {repr(saved)[:_SHOWN]}, given is {repr(given)[:_SHOWN]}; use the former"
            )
    for what, saved, given in (
        ("prompt", about["text_sketch"], conditioning.text),
        ("negative prompt", about["negative_sketch"], conditioning.negative),
    ):
        if not same_text(saved, text_summary(given)):
            raise ValueError(
                f"the text features of the {what} are not those {path} was made with, though the words are the same; "
                "use the same text encoder"
            )


def text_summary(text: Tensor | None) -> list[float] | None:
    """Sixteen numbers of text features (T, Ct) that tell encoders and prompts apart and survive a change of precision."""
    if text is None:
        return None
    if not len(text):
        return []
    mean = text.detach().float().cpu().mean(dim=0)
    bins = torch.nn.functional.adaptive_avg_pool1d(mean[None], _SUMMARY_BINS)[0]
    return [*bins.tolist(), float(len(text))]


def same_text(saved: list[float] | None, given: list[float] | None) -> bool:
    """Whether two summaries are of the same text features, up to a change of precision."""
    if not saved or not given:
        return saved == given
    if len(saved) != len(given) or saved[-1] != given[-1]:
        return False
    before, now = np.asarray(saved[:-1]), np.asarray(given[:-1])
    return bool(np.abs(before - now).max() <= _SUMMARY_TOLERANCE * np.abs(before).max())


def _packed(bits: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(bits.cpu().numpy()))


def _unpacked(saved: Saved, scale: int, shape: tuple[int, int, int]) -> Tensor:
    """Bits (P, L, Z) uint8 of a scale."""
    count = math.prod(shape)
    packed = saved.read(f"bits.{scale:02d}", torch.uint8, -(-count // 8))
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).reshape(shape))


def _cache_tensors(cache: KVCache) -> dict[str, Tensor]:
    tensors = {}
    for scale, chunk in enumerate(cache.chunks):
        for side, layers in (("keys", chunk.keys), ("values", chunk.values)):
            tensors |= {f"{side}.{scale:02d}.{layer:03d}": tensor for layer, tensor in enumerate(layers)}
        if chunk.rows is not None:
            tensors[f"rows.{scale:02d}"] = chunk.rows.clone()  # chunks may share theirs, which the format refuses
    return tensors


def _cache(saved: Saved, model: ImageModel) -> KVCache | None:
    """Keys and values of every finished scale, if the file has them."""
    first = saved.tensors.get("keys.00.000")
    if first is None:
        return None
    config, samples = model.config.transformer, saved.about["samples"]
    chunks = []
    for scale in range(saved.about["next_scale"]):
        like = saved.tensors[f"keys.{scale:02d}.000"]  # scales may differ in precision
        branches, stored = like.shape[:2]
        shape = (branches, stored, config.num_heads, saved.schedule.tokens[scale], config.embed_dim // config.num_heads)
        if branches != first.shape[0] or branches not in (1, 2):
            raise ValueError(f"keys of {branches} guidance branches at scale {scale}")
        keys, values = (
            tuple(saved.read(f"{side}.{scale:02d}.{layer:03d}", like.dtype, *shape) for layer in range(config.depth))
            for side in ("keys", "values")
        )
        if not all((tensor.float().abs() <= _MOST).all() for tensor in (*keys, *values)):  # false of NaN as well
            raise ValueError(f"keys or values of scale {scale} are no numbers a model computes")
        chunks.append(Chunk(keys, values, _rows(saved, f"rows.{scale:02d}", stored, samples)).to(model.transformer.device))
    return KVCache(tuple(chunks))


def _rows(saved: Saved, name: str, stored: int, samples: int) -> Tensor | None:
    if name not in saved.tensors:
        if stored != samples:
            raise ValueError(f"keys of {stored} samples for {samples}")
        return None
    rows = saved.read(name, torch.int64, samples)
    if not 0 <= int(rows.min()) <= int(rows.max()) < stored:
        raise ValueError(f"{name} names a sample that is not there")
    return rows
