"""The bundled model: a search that does not search cannot pass."""

from __future__ import annotations

import pytest

from ttsvar_core.experiments.ablations import cut
from ttsvar_core.experiments.arms import Arm
from ttsvar_core.experiments.engines import one_thread
from ttsvar_core.experiments.prompts import scene_prompts
from ttsvar_core.experiments.unit import Task, Unit, run_unit
from ttsvar_core.experiments.world import WorldFiles
from ttsvar_core.search.plan import PotentialSelector, best_of_n

SAMPLES, LATE = 8, 10


@pytest.fixture(scope="module")
def gains() -> list[float]:
    """Per prompt: the final grade of the sample picked at a late scale, above the mean of all the samples it was among."""
    scales = 13
    picked = cut("pick", SAMPLES, {LATE: (PotentialSelector(scheme="top-k"), 1)}, scales)
    arms = (Arm("all", best_of_n(SAMPLES, scales)), Arm("picked", picked))
    found = []
    hardest = [prompt for prompt in scene_prompts(60) if prompt.category == "two"][:8]  # right half of the time: room to pick
    for place, prompt in enumerate(hardest):
        with one_thread():
            record = run_unit(Task(WorldFiles(), arms, Unit(prompt, 0, place)))["arms"]
        found.append(record["picked"]["scores"][0] - sum(record["all"]["scores"]) / SAMPLES)
    return found


def test_what_looks_best_before_the_end_is_better_than_a_blind_pick(gains):
    """About 0.1 on average here; half of that leaves room for rounding flips, not for a search that picks blindly."""
    assert sum(gains) / len(gains) > 0.05, gains
    assert sum(gain > 0 for gain in gains) >= 5, gains
