"""A search as data for a page to draw: generations, scores, and the pictures of those who died as well."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..bsq.bits import average, empty_features, fused
from ..decoding import features_seen
from ..sampling import replay
from ..state import SearchState
from ..threads import one_thread
from .canvas import family_colour
from .family import Generation, generations
from .sheet import captions, header


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


def filmed(state: SearchState, most: int) -> list[int]:
    """The rows that a film of so many families shows: the best of each, the best family first."""
    marks = captions(state)
    ranked = sorted(marks, key=lambda mark: -(mark["score"] if mark["score"] is not None else -math.inf))
    firsts = {mark["colour"]: mark["row"] for mark in reversed(ranked)}
    return sorted(firsts.values(), key=[mark["row"] for mark in ranked].index)[:most]


def grown(state: SearchState, bits: Sequence[Tensor]) -> Iterator[Tensor]:
    """Features (P, C, h, w) after every scale of the bits of P samples: living ones, or those before a selection."""
    if bits:
        begin = empty_features(len(bits[0]), state.features.shape[1], state.schedule, state.model.patchify)
        yield from fused(begin.to(bits[0].device), bits, state.schedule, state.model.patchify)


def past(state: SearchState, selection: int) -> SearchState:
    """The samples before a selection of a state's past, those who died with it as well, without keys and values.

    Raises ValueError where their bits are not known any more.
    """
    step = state.lineage[selection]
    if not step.before:
        raise ValueError("the samples before this selection are not known: the state comes from a file")
    scores = torch.full((len(step.scores), len(state.schedule)), math.nan)
    scores[:, step.scale] = torch.tensor(step.scores)
    with one_thread():
        *_, features = grown(state, step.before)
    scales, weights = step.scale + 1, torch.zeros(len(scores), dtype=torch.float64)
    return state._replace(
        next_scale=scales, bits=step.before, features=features, cache=None, scores=scores, log_weights=weights,
        lineage=state.lineage[:selection], steps=state.steps[:scales], answers=None,
    )


def foreseeable(state: SearchState) -> bool:
    """Whether what a state's samples become can be foretold, given keys and values."""
    return state.model.foresight is not None and state.model.foresight.sees(state)


def remembered(state: SearchState) -> SearchState:
    """The state with keys and values for foresight: its own, or those under the prompt, replayed from its bits at no more than half
    the cost of sampling the same scales with guidance."""
    return replay(state, 1) if state.cache is None and foreseeable(state) else state


def small(state: SearchState, features: Tensor) -> Tensor:
    """Features (P, C, h, w) on the smallest grid that the tokenizer was trained on."""
    with one_thread():
        return average(features, state.model.config.sketch_cells(state.schedule, 0))


def small_seen(state: SearchState) -> Tensor:
    """(P, C, *cells), the same of a state's samples: foretold where its keys and values are there and the scale is known."""
    if state.cache is None or not foreseeable(state):
        return small(state, state.features)
    return small(state, features_seen(state, state.model.config.sketch_cells(state.schedule, state.last_scale), foreseen=True))
