"""What plans cost on the model, rewards and schedule of an experiment, and what a number of pictures pays for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from ttsvar_core.config import ModelConfig, TokenizerConfig, TransformerConfig
from ttsvar_core.costs import NOTHING, Look, Search
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.search.plan import Plan, best_of_n
from ttsvar_core.search.resample import Resample

MOST_STARTS = 4096  # far beyond what any cut pays for, and a bound for the search by halves


class Prices(NamedTuple):
    """Costs of plans, from shapes and from what each reward takes. lengths: of the shortest and the longest prompt in tokens;
    costs are affine in it, so what holds at both ends holds for every prompt. names: what each reward calls itself."""

    config: ModelConfig
    schedule: ScaleSchedule
    branches: tuple[int, ...]
    lengths: tuple[int, int]
    looks: Mapping[str, Look]
    names: Mapping[str, str] = {}

    def search(self, plan: Plan, reward: str = "", text_tokens: int = 0) -> Search:
        """The search as `costs` has it; reward: the first for an empty name. text_tokens: the shortest prompt's for 0."""
        look = self.looks[reward] if reward else next(iter(self.looks.values()))
        return Search(self.config, plan, self.schedule, self.branches, text_tokens or self.lengths[0], NOTHING, look)

    def flops(self, plan: Plan, reward: str = "") -> tuple[int, ...]:
        """Operations of every network that runs, for the shortest and the longest prompt."""
        return tuple(self.search(plan, reward, length).total.flops for length in self.lengths)

    def pictures(self, plan: Plan, reward: str = "") -> float:
        """The cost in pictures drawn to the end and scored."""
        return self.flops(plan, reward)[0] / self.flops(best_of_n(1))[0]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, read back by `from_json`."""
        sizes = {"transformer": asdict(self.config.transformer), "tokenizer": asdict(self.config.tokenizer)}
        looks = {name: [look.each, look.prompt, look.looks_at, list(map(list, look.ahead))] for name, look in self.looks.items()}
        grids = [list(grid) for grid in self.schedule.grids]
        return {"name": self.config.name, **sizes, "grids": grids, "branches": list(self.branches), "lengths": list(self.lengths),
                "looks": looks, "names": dict(self.names)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prices:
        """What `to_json` wrote."""
        tokenizer = TokenizerConfig(**{**data["tokenizer"], "ch_mult": tuple(data["tokenizer"]["ch_mult"])})
        config = ModelConfig(data["name"], TransformerConfig(**data["transformer"]), tokenizer)
        grids = tuple(map(tuple, data["grids"]))
        looks = {name: Look(*look[:3], tuple(map(tuple, look[3]))) for name, look in data["looks"].items()}
        return cls(config, ScaleSchedule(grids, grids[-1]), tuple(data["branches"]), tuple(data["lengths"]), looks, data["names"])


def funnel(starts: int, scale: int, finishers: int, scheme: str = "top-k") -> Plan:
    """``starts`` samples, cut once after ``scale`` to the ``finishers`` that score highest there."""
    return Plan("funnel", starts, (Resample(scale, finishers, scheme=scheme),))


def widest(prices: Prices, given: Plan, scale: int, finishers: int, scheme: str = "top-k", reward: str = "") -> Plan | None:
    """The funnel with the most starts that costs no more than ``given``; None where nothing is left to cut.

    Costs rise with the starts, so they are found by halves.
    """
    limit, low, high = prices.flops(given), finishers, MOST_STARTS
    while low < high:
        middle = (low + high + 1) // 2
        cost = prices.flops(funnel(middle, scale, finishers, scheme), reward)
        affordable = all(ours <= most for ours, most in zip(cost, limit, strict=True))
        low, high = (middle, high) if affordable else (low, middle - 1)
    return funnel(low, scale, finishers, scheme) if low > finishers else None
