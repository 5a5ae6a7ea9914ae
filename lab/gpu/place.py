"""What the checks run on: a card with the 2B model at 1M pixels, or, to rehearse, the processor with everything tiny."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from lab.benchmark.clock import timed
from lab.benchmark.models import Subject, extractor_of, random_subject, reward_of, tiny_tensors
from ttsvar_core.config import PRESETS, ModelConfig
from ttsvar_core.out_of_memory import empty_cache
from ttsvar_core.scales import ScaleSchedule

TINY_SIDES = (1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4)  # as many as the published schedules have, so that the same plans run
REPEATS = 5


@dataclass(frozen=True)
class Place:
    """A device, and whether this is a rehearsal."""

    device: torch.device
    rehearse: bool = False

    @property
    def card(self) -> bool:
        return self.device.type == "cuda"

    def model(self, name: str, dtype: torch.dtype, pixels: str = "1M") -> Subject:
        """A model of a preset's sizes with random weights; in a rehearsal a tiny one of its kind, in float32, in which a processor
        computes best."""
        config, dtype = (tiny(PRESETS[name]), torch.float32) if self.rehearse else (PRESETS[name], dtype)
        return random_subject(config, self.device, dtype, pixels)

    def eyes(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """ImageReward and DINOv2 of their published sizes with random weights, or the tiny reference networks."""
        made = reward_of, extractor_of
        reward, extractor = (partial(one, tensors=tiny_tensors) for one in made) if self.rehearse else made
        return reward("image-reward", self.device, dtype), extractor("dinov2", self.device, dtype)

    def some(self, things: Sequence[Any]) -> Sequence[Any]:
        """All of them; in a rehearsal the last one stands for them."""
        return things[-1:] if self.rehearse else things

    def seconds(self, work: Callable[[], Any]) -> float:
        """The median time of a piece of work; in a rehearsal that of a single time."""
        return statistics.median(timed(work)[1] for _ in range(1 if self.rehearse else REPEATS))

    @contextmanager
    def limited(self, size: float) -> Iterator[float]:
        """Only so many bytes of the card to be had meanwhile (yields how many, which are fewer if it has not as many); elsewhere
        nothing changes."""
        if not self.card:
            yield size
            return
        total = torch.cuda.get_device_properties(self.device).total_memory
        empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, size / total))
        try:
            yield min(size, total)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            empty_cache()

    def watched(self, function: Callable[..., Any], *given: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """What a function returns; and the most memory that was in use and reserved meanwhile, in GB, and how often it ran out."""
        if not self.card:
            return function(*given, **options), {"peak_gb": 0.0, "reserved_gb": 0.0, "ran_out": 0}
        empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_stats()["num_ooms"]
        result = function(*given, **options)
        most = {"peak_gb": torch.cuda.max_memory_allocated() / 1e9, "reserved_gb": torch.cuda.max_memory_reserved() / 1e9}
        return result, {**most, "ran_out": torch.cuda.memory_stats()["num_ooms"] - before}


def tiny(config: ModelConfig) -> ModelConfig:
    """The sizes cut down, every operation kept."""
    transformer = replace(
        config.transformer, embed_dim=64, depth=2, num_heads=2, block_chunks=1, text_channels=128, text_maxlen=64
    )
    tokenizer = replace(config.tokenizer, base_ch=8, num_res_blocks=1, smallest_side=32)
    grids = tuple((side, side) for side in TINY_SIDES)
    return replace(config, transformer=transformer, tokenizer=tokenizer, own_schedule=ScaleSchedule(grids, grids[-1]))
