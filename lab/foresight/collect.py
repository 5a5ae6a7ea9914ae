"""Draw samples and keep what a foresight network learns from: what is known after some scales, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lab.experiment.unit import loaded
from lab.value.collect import Draw, Drawn
from ttsvar_core.bsq.bits import average
from ttsvar_core.foresight import features_so_far, values_of
from ttsvar_core.search.memory import Sampler

if TYPE_CHECKING:
    from ttsvar_core.state import SearchState


def drawn(layers: tuple[int, ...], task: Draw) -> Drawn:
    """A unit's file name, what it holds, and its prompt.

    features.S (P, C, h, w) and values.S (P, V, h, w) after scale S, final (P, C, h', w') on the grid of sketches after the last of
    the scales; all float16.
    """
    world, found = loaded(task.factory), {}

    def keep(state: SearchState) -> None:
        if state.last_scale in task.scales:
            values = [values_of(state, row, layers) for row in range(state.samples)]
            found[f"values.{state.last_scale}"] = torch.stack(values)
            found[f"features.{state.last_scale}"] = features_so_far(state)

    with torch.inference_mode():
        state = Sampler(world.sampling, on_scale=keep).together(task.begin(world), len(world.schedule) - 1)
        found["final"] = average(state.features, world.model.config.sketch_cells(world.schedule, task.scales[-1]))
    return task.name, {name: part.cpu().half().contiguous() for name, part in found.items()}, task.prompt.text

