"""Every path on the card against the processor's numbers, on the golden models (tests/golden).

The stored bits are fed back, so that errors do not add up over scales; compared are the last scale's probabilities of a set bit and
the pictures. A path may be as far from the processor's float32 as the processor's own arithmetic in that precision, twice.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from lab.benchmark.models import GOLDEN
from lab.benchmark.option_errors import HALVES, last_logits, set_probability
from ttsvar_core.bsq.bits import empty_features, fused
from ttsvar_core.compiled import compile_blocks
from ttsvar_core.decoding import decode_features, decode_tiled
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.text import Conditioning
from ttsvar_core.infinity.verify import config_of, guidance_texts
from ttsvar_core.quantize import store_blocks_in_float8
from ttsvar_core.rewards.verify import KINDS
from ttsvar_core.sampling import replay, with_cache
from ttsvar_core.state import SearchState, start
from ttsvar_core.weights import load_model

from .launches import Inputs, Recorded, forward
from .place import Place
from .runner import Notes

MODELS = ("infinity_tiny_2b_style", "infinity_tiny_8b_style", "infinity_tiny_guided_inside")
REWARDS = {"image_reward_tiny": "reward", "hps_tiny": "score", "aesthetic_tiny": "score", "dinov2_reg_tiny": "patch_tokens"}
NEAR = 1e-3  # of a probability; TF32 and the order of sums move it about as far
NEAR_SCORE = {torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 0.02}  # ten times what the processor loses
GREY = {torch.float32: 0.3, torch.bfloat16: 1.5, torch.float16: 0.3}  # levels, mean; processor: .5, .06


class Path(NamedTuple):
    """A way to compute: precision, what is stored in one byte, groups of samples, keys and values by way of the processor, by a
    graph or in compiled blocks."""

    dtype: torch.dtype = torch.float32
    float8_weights: bool = False
    float8_cache: bool = False
    group_size: int | None = None
    offload: bool = False
    graph: bool = False
    compiled: bool = False


PATHS = {
    "float32": Path(), "bfloat16": Path(torch.bfloat16), "float16": Path(torch.float16),
    "float8 weights": Path(torch.bfloat16, float8_weights=True), "float8 cache": Path(torch.bfloat16, float8_cache=True),
    "groups of one": Path(group_size=1), "offload": Path(torch.bfloat16, offload=True),
    "graph": Path(graph=True), "graph, bfloat16": Path(torch.bfloat16, graph=True), "compiled": Path(compiled=True),
}


def check(place: Place, notes: Notes) -> None:
    """All golden models in all paths; to rehearse, one model alone."""
    for name in place.some(MODELS):
        for what, path in PATHS.items():
            notes.attempt(f"{name}, {what}", _logits, name, path, place.device)
        for dtype in place.some((torch.float32, *HALVES)):
            notes.attempt(f"{name}, pictures in {dtype}", _pictures, name, dtype, place.device)
    for name, output in REWARDS.items():
        for dtype in place.some((torch.float32, *HALVES)):
            notes.attempt(f"{name}, {dtype}", _score, name, output, dtype, place.device)


def _logits(name: str, path: Path, device: torch.device) -> dict[str, Any]:
    exact = _probability(name, Path(), torch.device("cpu"))
    here = (_probability(name, path._replace(graph=False, compiled=False), torch.device("cpu")) - exact).abs()
    there = (_probability(name, path, device).cpu() - exact).abs()
    near = float(there.max()) <= 2 * float(here.max()) + NEAR
    return {"ok": near, "mean": float(there.mean()), "most": float(there.max()), "processor_most": float(here.max())}


@lru_cache
def _probability(name: str, path: Path, device: torch.device) -> Tensor:
    """Probability of every bit of the last scale, given the stored bits of the others."""
    state = stored_state(name, path.dtype, device)
    if path.float8_weights:
        store_blocks_in_float8(state.model)
    if path.compiled and device.type == "cuda":
        compile_blocks(state.model)
    state = replay(state, None, path.group_size, path.float8_cache)
    if path.offload:
        state = with_cache(state._replace(cache=state.cache.to("cpu")), state.cache.branches)
    if not path.graph:
        return set_probability(last_logits(state, state.cache))
    given = Inputs(state.features.to(device), state.cache, state.text.branches(state.cache.branches))
    with torch.inference_mode():
        return set_probability(Recorded(forward(state.model, state.schedule, state.next_scale), given)(given))


def stored_state(name: str, dtype: torch.dtype, device: torch.device) -> SearchState:
    """The state of a golden model before its last scale, with the bits that the public implementation drew."""
    data = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    files = [GOLDEN / f"{name}.{part}.safetensors" for part in ("transformer", "vae")]
    model = load_model(*files, config=config_of(data), dtype=dtype, device=device)
    golden = load_file(GOLDEN / f"{name}.golden.safetensors")
    text, *negative = guidance_texts(model, golden)
    conditioning = Conditioning("stored", text, None, negative[0] if negative else None)
    state, last = start(model, conditioning, len(golden["scale00.bits"]), 0), len(model.schedule()) - 1
    bits = tuple(golden[f"scale{scale:02d}.bits"].to(device) for scale in range(last))
    steps = tuple(model.config.sampling.at(scale) for scale in range(last))
    return state._replace(next_scale=last, bits=bits, features=_fused(model, golden, last).to(device), steps=steps)


def _fused(model: ImageModel, golden: Mapping[str, Tensor], scales: int) -> Tensor:
    """Features (P, C, h, w) of the stored bits of the first scales."""
    schedule = model.schedule()
    features = empty_features(len(golden["scale00.bits"]), model.config.tokenizer.codebook_dim, schedule, model.patchify)
    *_, last = fused(features, [golden[f"scale{scale:02d}.bits"] for scale in range(scales)], schedule, model.patchify)
    return last


def _pictures(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Whole pictures and tiled ones, in grey levels from the processor's."""
    here, there = (stored_state(name, *how).model for how in ((torch.float32, torch.device("cpu")), (dtype, device)))
    golden = load_file(GOLDEN / f"{name}.golden.safetensors")
    features = _fused(here, golden, len(here.schedule()))
    found: dict[str, Any] = {}
    ways = {"whole": decode_features, "tiled": lambda model, those: decode_tiled(model, those[:1], min(those.shape[-2:]) // 2, 2)}
    for what, show in ways.items():
        moved = (show(there, features.to(device)).cpu() - show(here, features)).abs() * 255
        found |= {what: float(moved.mean()), f"{what}_most": float(moved.max())}
    return {"ok": max(found[what] for what in ways) <= GREY[dtype], **found}


def _score(name: str, output: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """A reward's or DINOv2's stored inputs, against what its public implementation computed of them."""
    config = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    golden = load_file(GOLDEN / f"{name}.golden.safetensors")
    given = {key: value.to(device) for key, value in golden.items()}
    given["pixel_values"] = given["pixel_values"].to(dtype)
    with torch.inference_mode():
        found = KINDS[config["kind"]](load_file(GOLDEN / f"{name}.safetensors"), config, given, name)[output]
    moved, spread = float((found.cpu() - golden[output]).abs().max()), float(golden[output].std(0).max())
    return {"ok": moved <= NEAR_SCORE[dtype], "most": moved, "spread": spread}
