"""Who scores unfinished samples: a reward, on sketches or on what they are foretold to become."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ttsvar_core.search.plan import Plan, scored_at

if TYPE_CHECKING:
    from .arms import Setting

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
