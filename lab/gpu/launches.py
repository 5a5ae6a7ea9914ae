"""Do the launches of small scales cost what CUDA graphs or compiled blocks would win? A measurement; no picture is drawn like this.

A graph is recorded per (scale, samples), the largest first, all in one pool of memory, as serving engines do. Its inputs have fixed
places, so features, keys and values are copied there before every replay: "graph" counts that, "replay" does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsvar_core.bsq.bits import empty_features
from ttsvar_core.compiled import compile_blocks
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.cache import Chunk, KVCache
from ttsvar_core.infinity.model import TextContext
from ttsvar_core.out_of_memory import empty_cache
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.search.plan import raw, tts_var

from .place import Place
from .runner import Notes
from .speed import profiled


class Inputs(NamedTuple):
    """What one scale is computed from: features (P, C, h, w), keys and values, the prompt."""

    features: Tensor
    past: KVCache
    text: TextContext

    def tensors(self) -> Iterator[Tensor]:
        """All that differs between two pictures of one prompt."""
        yield self.features
        for chunk in self.past.chunks:
            yield from (*chunk.keys, *chunk.values)

    def clone(self) -> Inputs:
        """The same values in places of their own."""
        chunks = tuple(chunk.mapped(torch.clone) for chunk in self.past.chunks)
        return Inputs(self.features.clone(), KVCache(chunks), self.text)


def inputs_at(model: ImageModel, text: TextContext, schedule: ScaleSchedule, scale: int, samples: int) -> Inputs:
    """Random inputs of a scale, in the shapes that two guidance branches have there, where and how the transformer computes."""
    transformer, sizes = model.transformer, model.config.transformer
    place = {"device": transformer.device, "dtype": transformer.dtype}

    def side(tokens: int) -> tuple[Tensor, ...]:
        shape = (2, samples, sizes.num_heads, tokens, sizes.head_dim)
        return tuple(F.normalize(torch.randn(shape, **place), dim=-1) for _ in range(sizes.depth))

    features = empty_features(samples, sizes.codebook_dim, schedule, model.patchify).to(transformer.device)
    chunks = tuple(Chunk(side(tokens), side(tokens)) for tokens in schedule.tokens[:scale])
    return Inputs(torch.randn_like(features), KVCache(chunks), text)


def forward(model: ImageModel, schedule: ScaleSchedule, scale: int) -> Callable[[Inputs], Tensor]:
    """The logits of a scale."""
    step = model.config.sampling.at(scale)
    return lambda given: model.transformer.forward_scale(given.features, scale, schedule, given.text, given.past, step)[0]


class Recorded:
    """A function of inputs in fixed places, recorded as a CUDA graph; off a card it is simply called again."""

    def __init__(self, function: Callable[[Inputs], Tensor], given: Inputs, pool: Any = None) -> None:
        self.places, self._function, self._graph = given.clone(), function, None
        if given.features.device.type == "cuda":
            self._warm_up()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=pool):
                self._made = function(self.places)

    def _warm_up(self) -> None:
        """What libraries set up at a first call must not be recorded."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):
                self._function(self.places)
        torch.cuda.current_stream().wait_stream(beside)

    def rest(self) -> Recorded:
        """The recording without its places, which is replayed no more but keeps its pool: that ends with its last graph."""
        self.places = None
        return self

    def replay(self) -> Tensor:
        """The function of what lies in the places."""
        if self._graph is None:
            return self._function(self.places)
        self._graph.replay()
        return self._made

    def __call__(self, given: Inputs) -> Tensor:
        for place, value in zip(self.places.tensors(), given.tensors(), strict=True):
            place.copy_(value)
        return self.replay()


def check(place: Place, notes: Notes) -> None:
    """Seconds of every (scale, samples) of a raw picture and of TTS-VAR: as they are, as graphs, as compiled blocks."""
    measured = place.model("2b", torch.bfloat16)
    given = measured.model, measured.begin(1).text, measured.schedule
    tokens, plans = measured.schedule.tokens, {"raw": raw(), "tts-var 1": tts_var(1)}
    pairs = {name: [(scale, plan.running(scale)) for scale in range(len(tokens))] for name, plan in plans.items()}
    largest_first = sorted({pair for some in pairs.values() for pair in some}, key=lambda pair: -tokens[pair[0]] * pair[1])
    times, graphs, before = {pair: {} for pair in largest_first}, [], _reserved(place)
    pool = torch.cuda.graph_pool_handle() if place.card else None  # the memory that all graphs share

    def add_up() -> None:
        for name, some in pairs.items():
            notes.attempt(f"{name} together", _together, [times[pair] for pair in some])

    with torch.inference_mode():
        for scale, samples in largest_first:
            key = f"scale {scale}, {samples} samples"
            notes.attempt(key, _plain_and_recorded, place, given, scale, samples, pool, graphs)
            times[scale, samples] |= notes.found[key]
        notes.attempt("graphs' memory", lambda: {"graphs": len(graphs), "gb": (_reserved(place) - before) / 1e9})
        add_up()  # now already: compiling may take longer than there is time
        notes.attempt("compiling", _compiled, place, given, times)
        add_up()


def _reserved(place: Place) -> int:
    empty_cache()
    return torch.cuda.memory_reserved() if place.card else 0


def _plain_and_recorded(
    place: Place, given: tuple, scale: int, samples: int, pool: Any, graphs: list[Recorded]
) -> dict[str, Any]:
    model, text, schedule = given
    inputs, function = inputs_at(model, text, schedule, scale, samples), forward(model, schedule, scale)
    plain = function(inputs)
    eager = place.seconds(lambda: function(inputs))
    recorded = Recorded(function, inputs, pool)
    apart = float((recorded(inputs) - plain).abs().max())
    counted = profiled(place, lambda: function(inputs))
    graph, replay = place.seconds(lambda: recorded(inputs)), place.seconds(recorded.replay)
    graphs.append(recorded.rest())
    found = {"eager": eager, "graph": graph, "replay": replay, "launches": counted["launches"], "logits_apart": apart}
    return {"ok": apart < 1e-2, **found}


def _compiled(place: Place, given: tuple, times: dict[tuple[int, int], dict[str, Any]]) -> dict[str, Any]:
    """Turns the model's blocks into compiled ones, so this comes last. Without a card they stay as they are."""
    model, text, schedule = given
    began = time.perf_counter()
    if place.card:
        compile_blocks(model)
    for (scale, samples), found in times.items():
        inputs, function = inputs_at(model, text, schedule, scale, samples), forward(model, schedule, scale)
        function(inputs)
        found["compiled"] = place.seconds(lambda function=function, inputs=inputs: function(inputs))
    each = [[*pair, found["compiled"]] for pair, found in times.items()]
    return {"seconds_with_compiling": time.perf_counter() - began, "_compiled": each}


def _together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums over a picture's scales, and how many times faster than as they are."""
    ways = ("eager", "graph", "replay", "compiled")
    sums = {way: sum(one[way] for one in found) for way in ways if all(way in one for one in found)}
    faster = {f"{way}_gain": sums["eager"] / value for way, value in sums.items() if way != "eager"}
    return {**sums, **faster, "launches": sum(one["launches"] for one in found)}
