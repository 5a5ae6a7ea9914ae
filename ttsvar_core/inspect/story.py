"""A search as data for a page to draw: generations, scores, and the pictures of those who died as well."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..bsq.bits import average, empty_features, fused
from ..decoding import decode_fitting
from ..state import SearchState
from .canvas import family_colour
from .family import Generation, generations
from .sheet import captions, header

MOST_FILMED = 4


def story(state: SearchState) -> dict[str, Any]:
    """What a state tells of its search, as JSON takes it (no NaN): how far it is, its generations, every score of the living."""
    title, prompt = header(state)
    return {
        "title": title,
        "prompt": prompt,
        "scales": len(state.schedule),
        "done": state.next_scale,
        "rows": [plain(caption) for caption in captions(state)],
        "scores": [[number(value) for value in row] for row in state.scores.tolist()],
        "generations": [
            _told(generation, scores)
            for generation, scores in zip(generations(state), [*(step.scores for step in state.lineage), ()], strict=True)
        ],
    }


def plain(caption: dict) -> dict:
    """A caption with its colour as pages write it."""
    return {**caption, "colour": hexadecimal(caption["colour"])}


def hexadecimal(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _told(generation: Generation, scores: Sequence[float]) -> dict[str, Any]:
    return {
        **generation._asdict(),
        "colours": [hexadecimal(family_colour(founder)) for founder in generation.founders],
        "scores": [number(score) for score in scores],
    }


def filmed(state: SearchState) -> list[int]:
    """The rows a film shows: the best of the first four families, or of one family if there is no other."""
    marks = captions(state)
    ranked = sorted(marks, key=lambda mark: -(mark["score"] if mark["score"] is not None else -math.inf))
    firsts = {mark["colour"]: mark["row"] for mark in reversed(ranked)}
    return sorted(firsts.values(), key=[mark["row"] for mark in ranked].index)[:MOST_FILMED]


def grown(state: SearchState, bits: Sequence[Tensor]) -> Iterator[Tensor]:
    """Features (P, C, h, w) after every scale of the bits of P samples: living ones, or those before a selection."""
    if bits:
        begin = empty_features(len(bits[0]), state.features.shape[1], state.schedule, state.model.patchify)
        yield from fused(begin.to(bits[0].device), bits, state.schedule, state.model.patchify)


def drawn_small(state: SearchState, features: Tensor) -> Tensor:
    """Pictures (P, H, W, 3) of features at the smallest size that the tokenizer was trained on."""
    return decode_fitting(state.model, average(features, state.model.config.sketch_cells(state.schedule, 0)))
