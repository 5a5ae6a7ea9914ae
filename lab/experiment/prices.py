"""Who scores unfinished samples, what plans cost on the model, rewards and schedule of an experiment, and what a number of pictures
pays for."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ttsvar_core.config import ForesightConfig, ModelConfig, TokenizerConfig, TransformerConfig
from ttsvar_core.costs import NOTHING, Look, Search
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.search.budget import Measured, cost_in_pictures, plan_for
from ttsvar_core.search.plan import BEAM_CANDIDATES, Plan, beam, cut_once, funnel, raw, scored_at

if TYPE_CHECKING:
    from .arms import Setting

MOST_STARTS = 4096  # far beyond what any cut pays for, and a bound for the search by halves
_FORESEEN = "-foreseen"


class Scorer(NamedTuple):
    """A reward by name (empty: the experiment's first), and whether it looks at foreseen sketches."""

    reward: str = ""
    foreseen: bool = False

    @property
    def name(self) -> str:
        """In tables and files."""
        return self.reward + _FORESEEN * self.foreseen

    def watching(self, plan: Plan, setting: Setting) -> Plan:
        """``plan``, scored so after every scale where that can be."""
        known = setting.scored_scales(self.reward)
        scales = [scale for scale in known if not self.foreseen or setting.prices.config.foresees(scale)]
        return replace(scored_at(plan, scales), foreseen=self.foreseen)


FIRST = Scorer()


def scorer_named(name: str) -> Scorer:
    """The scorer whose `name` this is."""
    return Scorer(name.removesuffix(_FORESEEN), name.endswith(_FORESEEN))


def scorers(setting: Setting) -> list[Scorer]:
    """Every way to score, the experiment's first reward on sketches first; a reward that needs no picture has one way."""
    prices, plain = setting.prices, [Scorer(reward) for reward in setting.rewards]
    if prices is None or prices.config.foresight is None:
        return plain
    return plain + [Scorer(reward, foreseen=True) for reward in setting.rewards if not prices.looks[reward].ahead]


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

    def pays(self, given: Plan, plan: Plan, reward: str = "") -> bool:
        """Whether a plan costs no more than ``given``, whatever the prompt."""
        return all(ours <= most for ours, most in zip(self.flops(plan, reward), self.flops(given), strict=True))

    def pictures(self, plan: Plan, reward: str = "") -> float:
        """The cost in pictures drawn to the end and scored, see `budget.cost_in_pictures`."""
        return cost_in_pictures(self.search(raw(), reward), plan)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, read back by `from_json`."""
        parts = ("transformer", "tokenizer", *(("foresight",) if self.config.foresight else ()))
        sizes = {part: asdict(getattr(self.config, part)) for part in parts}
        looks = {name: [look.each, look.prompt, look.looks_at, list(map(list, look.ahead))] for name, look in self.looks.items()}
        grids = [list(grid) for grid in self.schedule.grids]
        return {"name": self.config.name, **sizes, "grids": grids, "branches": list(self.branches), "lengths": list(self.lengths),
                "looks": looks, "names": dict(self.names), "rewards": list(looks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prices:
        """What `to_json` wrote."""
        tokenizer = TokenizerConfig(**{**data["tokenizer"], "ch_mult": tuple(data["tokenizer"]["ch_mult"])})
        foresight = ForesightConfig.from_json(data["foresight"]) if "foresight" in data else None
        config = ModelConfig(data["name"], TransformerConfig(**data["transformer"]), tokenizer, foresight=foresight)
        grids = tuple(map(tuple, data["grids"]))
        found = {name: data["looks"][name] for name in data["rewards"]}  # files sort their keys, and the first one searches
        looks = {name: Look(*look[:3], tuple(map(tuple, look[3]))) for name, look in found.items()}
        names = {name: data["names"][name] for name in found if name in data["names"]}
        return cls(config, ScaleSchedule(grids, grids[-1]), tuple(data["branches"]), tuple(data["lengths"]), looks, names)


def widest(prices: Prices, given: Plan, scale: int, finishers: int, scorer: Scorer = FIRST) -> Plan | None:
    """The single cut with the most starts that costs no more than ``given``; None where nothing is left to cut."""
    cut = partial(cut_once, scale=scale, finish=finishers, foreseen=scorer.foreseen)
    plan = largest(prices, given, cut, finishers, reward=scorer.reward)
    return plan if plan and plan.samples > finishers else None


def largest(
    prices: Prices, given: Plan, make: Callable[[int], Plan], least: int = 1, most: int = MOST_STARTS, reward: str = ""
) -> Plan | None:
    """``make`` of the largest number, ``least`` to ``most``, whose plan costs no more than ``given``; None where none does.

    Costs rise with the number, so it is found by halves.
    """
    paid = bisect(range(least, most + 1), False, key=lambda count: not prices.pays(given, make(count), reward))
    return make(least + paid - 1) if paid else None


# Plans at the cost of another -----------------------------------------------------------------------------------------


def chosen(prices: Prices, given: Plan, measured: Measured | None) -> tuple[Plan, str]:
    """What `budget.plan_for` spends the cost of ``given`` on, and why; with fewer starts where a long prompt asks for that.

    measured: what foretells the end.
    """
    plan, *_, why = plan_for(prices.pictures(given), prices.search(raw()), measured)
    if not plan.stages or prices.pays(given, plan):
        return plan, why
    cut = plan.stages[0]
    fitting = largest(prices, given, lambda starts: replace(plan, samples=starts), cut.keep, plan.samples)
    return fitting or plan, why


def fitted_funnel(prices: Prices, given: Plan) -> Plan | None:
    """The pack's funnel at a cost: the most finishers that 8 starts each leave, at least one, then the most starts."""
    scales = len(prices.schedule)
    cut = (largest(prices, given, lambda n: funnel(n, scales)) or funnel(1, scales)).stages[0]
    return widest(prices, given, cut.scale, cut.keep)


def fitted_beam(prices: Prices, given: Plan) -> Plan | None:
    """The pack's beam at a cost: as wide as its usual candidates leave, then with the most candidates; None where it costs more."""
    scales = len(prices.schedule)
    usual = largest(prices, given, lambda n: beam(n, scales))
    width = usual.stages[0].keep if usual else 1
    return largest(prices, given, lambda candidates: beam(width, scales, candidates), 2 if width == 1 else BEAM_CANDIDATES)
