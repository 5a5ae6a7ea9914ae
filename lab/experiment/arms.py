"""The words experiments are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ttsvar_core.search.plan import Plan, best_of_n
from ttsvar_core.search.score import Score

from .prices import Prices

Published = tuple[float, float]  # GenEval, ImageReward


class Arm(NamedTuple):
    """One way of searching: a plan, and the extractor and reward it searches with (empty: the experiment's first).

    timed: whether its seconds are measured; then it is no part of a larger Best-of-N."""

    name: str
    plan: Plan
    extractor: str = ""
    reward: str = ""
    timed: bool = False

    @property
    def watched(self) -> bool:
        """Whether scores are noted on the way, beside those that select."""
        return any(stage.kind == Score.kind for stage in self.plan.stages)


class Pair(NamedTuple):
    """A comparison of one arm with another, and what the paper published for the two (None: nothing)."""

    arm: str
    baseline: str
    published: Published | None = None
    published_baseline: Published | None = None


class Table(NamedTuple):
    """Comparisons that belong together."""

    title: str
    pairs: tuple[Pair, ...]
    note: str = ""


class Experiment(NamedTuple):
    """All arms, each once; the tables of the report; for curves, the arms along each."""

    name: str
    arms: tuple[Arm, ...]
    tables: tuple[Table, ...]
    curves: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)


class Setting(NamedTuple):
    """What the arms depend on: tokens per scale, and the names of the extractors and rewards, the default first.

    prices: what plans cost, where arms are chosen by that. cuts: per budget in pictures the scale and the finishers of the funnel
    that was advised."""

    tokens: tuple[int, ...]
    extractors: tuple[str, ...]
    rewards: tuple[str, ...]
    prices: Prices | None = None
    cuts: Mapping[int, tuple[int, int]] = {}

    def scored_scales(self, reward: str) -> tuple[int, ...]:
        """The scales before the last at which a reward can judge: of one that foretells, those it was trained for."""
        look = self.prices.looks.get(reward) if self.prices else None
        return tuple(scale for scale, _ in look.ahead) if look and look.ahead else tuple(range(self.scales - 1))

    @property
    def scales(self) -> int:
        """Number of scales of the schedule."""
        return len(self.tokens)


def best_name(n: int) -> str:
    """Name of the Best-of-N arm; that of one image is raw generation."""
    return f"best-of-{n}"


def best(n: int) -> Arm:
    """The Best-of-N arm."""
    return Arm(best_name(n), best_of_n(n))


def images_paid_for(setting: Setting, plan: Plan) -> int:
    """How many whole images the token-forwards of ``plan`` pay for, rounded up."""
    spent = sum(plan.running(scale) * tokens for scale, tokens in enumerate(setting.tokens))
    return -(-spent // sum(setting.tokens))


def unique(arms: list[Arm]) -> tuple[Arm, ...]:
    """The arms without repetitions, in order. Raises ValueError if two different arms share a name."""
    found: dict[str, Arm] = {}
    for arm in arms:
        if found.setdefault(arm.name, arm) != arm:
            raise ValueError(f"two different arms are called {arm.name}")
    return tuple(found.values())
