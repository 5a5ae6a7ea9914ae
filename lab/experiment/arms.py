"""The words experiments are made of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ttsvar_core.search.budget import Measured, known
from ttsvar_core.search.plan import Plan, best_of_n, tts_var
from ttsvar_core.search.score import Score

from .prices import Prices

Published = tuple[float, float]  # GenEval, ImageReward
ByN = Mapping[int, Published]


class Arm(NamedTuple):
    """One way of searching: a plan, and the extractor and reward it searches with (empty: the experiment's first).

    attempts: it is carried out at most so often, until an answer scores ``enough`` (None: so often)."""

    name: str
    plan: Plan
    extractor: str = ""
    reward: str = ""
    attempts: int = 1
    enough: float | None = None

    @property
    def watched(self) -> bool:
        """Whether scores are noted on the way, beside those that select."""
        return any(stage.kind == Score.kind for stage in self.plan.stages)


class Pair(NamedTuple):
    """A comparison of one arm with another; published: by how much they differ in the paper (None: it does not say)."""

    arm: str
    baseline: str
    published: Published | None = None


class Table(NamedTuple):
    """Comparisons that belong together."""

    title: str
    pairs: tuple[Pair, ...]
    note: str = ""


class Experiment(NamedTuple):
    """All arms, each once; the tables of the report; for curves, the arms along each.

    timed: at equal cost, of how many prompts the seconds of every arm are measured; with all others arms share what they can."""

    name: str
    arms: tuple[Arm, ...]
    tables: tuple[Table, ...]
    curves: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)
    timed: int = 0

    def of(self, names: Collection[str]) -> Experiment:
        """The same with these arms alone, and the comparisons between them."""
        tables = (table._replace(pairs=tuple(pair for pair in table.pairs if {pair.arm, pair.baseline} <= set(names)))
                  for table in self.tables)
        curves = {label: tuple(name for name in along if name in names) for label, along in self.curves.items()}
        return self._replace(arms=tuple(arm for arm in self.arms if arm.name in names), tables=tuple(tables), curves=curves)

    def only(self, asked: Sequence[str]) -> Experiment:
        """The arms that are asked for, what they are compared with, and raw generation; all of them where nothing is asked.

        asked: names or patterns of names, the number at their end left out or not: "budget" is budget-2, budget-4 and so on. Raises
        ValueError for one that fits no arm.
        """
        fitting = {ask: {arm.name for arm in self.arms if _fits(arm.name, ask)} for ask in asked}
        for ask in asked:
            if not fitting[ask]:
                families = dict.fromkeys(family(arm.name) for arm in self.arms)
                raise ValueError(f"no arm of {self.name} is called {ask!r}; it has {', '.join(families)}")
        found = set().union(*fitting.values())
        pairs = [pair for table in self.tables for pair in table.pairs if pair.arm in found]
        return self.of(found | {pair.baseline for pair in pairs} | {best_name(1)}) if asked else self


class Setting(NamedTuple):
    """What the arms depend on: tokens per scale, and the names of the extractors and rewards, the default first.

    prices: what plans cost, where arms are chosen by that. measured: what foretells the end, as a pool told it. model: its name."""

    tokens: tuple[int, ...]
    extractors: tuple[str, ...]
    rewards: tuple[str, ...]
    prices: Prices | None = None
    measured: Measured | None = None
    model: str = ""

    @property
    def known(self) -> Measured | None:
        """What is known to foretell the end under the first reward. Raises ValueError for a measurement of something else."""
        return known(self.measured, self.model, next(iter(self.prices.names.values()), ""))

    def scored_scales(self, reward: str) -> tuple[int, ...]:
        """The scales before the last at which a reward can judge: of one that foretells, those it was trained for."""
        look = self.prices.looks.get(reward) if self.prices else None
        return tuple(scale for scale, _ in look.ahead) if look and look.ahead else tuple(range(self.scales - 1))

    @property
    def scales(self) -> int:
        return len(self.tokens)


def family(name: str) -> str:
    """A name without the number at its end."""
    return re.sub(r"-\d+$", "", name)


def _fits(name: str, asked: str) -> bool:
    return fnmatchcase(name, asked) or fnmatchcase(family(name), asked)


def best_name(n: int) -> str:
    """Name of the Best-of-N arm; that of one image is raw generation."""
    return f"best-of-{n}"


def best(n: int) -> Arm:
    return Arm(best_name(n), best_of_n(n))


def paper(n: int, setting: Setting) -> Arm:
    """The paper's search."""
    return Arm(f"tts-var-{n}", tts_var(n, setting.scales))


def images_paid_for(setting: Setting, plan: Plan) -> int:
    """How many whole images the token-forwards of ``plan`` pay for, rounded up."""
    spent = sum(plan.running(scale) * tokens for scale, tokens in enumerate(setting.tokens))
    return -(-spent // sum(setting.tokens))


Part = tuple[list[Arm], Table]  # of an experiment


def against(base: Arm, rows: Iterable[tuple[Arm, ByN]], n: int, title: str, note: str = "", of: ByN | None = None) -> Part:
    """``base`` and the arms of all rows, and how each of these compares with it. What was published stands beside the arms, and is
    ``of`` for ``base``, by N."""
    rows, theirs = list(rows), (of or {}).get(n)
    pairs = tuple(Pair(arm.name, base.name, difference(known.get(n), theirs)) for arm, known in rows)
    return [base, *(arm for arm, _ in rows)], Table(title, pairs, note)


def difference(ours: Published | None, theirs: Published | None) -> Published | None:
    """Of what was published of two, where both were."""
    return (ours[0] - theirs[0], ours[1] - theirs[1]) if ours and theirs else None


def assembled(name: str, parts: Iterable[Part]) -> Experiment:
    """The experiment of all parts, each arm once."""
    parts = list(parts)
    return Experiment(name, unique([arm for arms, _ in parts for arm in arms]), tuple(table for _, table in parts))


def unique(arms: list[Arm]) -> tuple[Arm, ...]:
    """The arms without repetitions, in order. Raises ValueError if two different arms share a name."""
    found: dict[str, Arm] = {}
    for arm in arms:
        if found.setdefault(arm.name, arm) != arm:
            raise ValueError(f"two different arms are called {arm.name}")
    return tuple(found.values())
