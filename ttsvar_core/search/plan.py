"""Plans: a search as a value.

    Plan("tts-var", samples=8 * n, stages=(Cluster(2, 6 * n), Cluster(5, 4 * n), Resample(6, 2 * n), Resample(9, n)))

A stage says at which scale it acts, what it looks at and how many samples go on; `run.search` carries a plan out. Raw generation,
Best-of-N, Importance Sampling, TTS-VAR, a funnel and a beam are plans, not code paths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from .. import names
from .branch import Branch
from .cluster import Cluster
from .resample import Resample
from .score import Best, Score

if TYPE_CHECKING:
    from ..selection import Selection
    from .view import View

# TTS-VAR paper, section 4: survivors of each of 13 scales at N = 1, and where which selector sits.
TTS_VAR_SURVIVORS = (8, 8, 6, 6, 6, 4, 2, 2, 2, 1, 1, 1, 1)
CLUSTER_SCALES = (2, 5)
POTENTIAL_SCALES = (6, 9)
OFFICIAL_SCALES = len(TTS_VAR_SURVIVORS)
# Of 13 scales: by the end of 6, 5% of a picture's tokens are drawn and scores begin to tell (docs/evidence.md).
FUNNEL_SCALES = (6,)
BEAM_SCALES = (4, 5, 6)
BEAM_CANDIDATES = 4


class Stage(Protocol):
    """What happens to the samples after a scale. A frozen dataclass; its fields are its entry in a plan file.

    kind: its name there. scale: after which scale it acts. keep: how many samples go on (None: all of them). One that makes several
    of every sample says how many in `candidates`, and acts while its scale is sampled.
    """

    kind: ClassVar[str]
    scale: int
    keep: int | None

    def sees(self, samples: int) -> str:
        """What it needs to see of `samples` samples: "nothing", "features", "images", an extractor's "vectors", or "scores"."""
        ...

    def check(self, samples: int, scored: bool) -> None:
        """Raise ValueError, with the remedy, unless it can act on `samples` samples; `scored`: an earlier scale has scores."""
        ...

    def select(self, view: View) -> Selection | None:
        """Who goes on, decided by what `view` shows; None: everybody, as they are."""
        ...


STAGES: dict[str, type[Stage]] = {kind.kind: kind for kind in (Best, Branch, Cluster, Resample, Score)}


@dataclass(frozen=True)
class Plan:
    """A search, before it meets a model: how many samples run scale 0, and what happens to them, in rising order of scales.

    After the last scale the samples are scored and the best is the answer, without a stage for it. foreseen: whoever looks at
    unfinished samples sees what they are foretold to become (foresight.py), not what is sampled so far.
    """

    name: str
    samples: int
    stages: tuple[Stage, ...] = ()
    foreseen: bool = False

    def at(self, scale: int) -> tuple[Stage, ...]:
        """The stages after `scale`, in the order they act."""
        return tuple(stage for stage in self.stages if stage.scale == scale)

    def running(self, scale: int) -> int:
        """How many samples run `scale`."""
        left = [_left(stage, samples) for stage, samples in self.met() if stage.scale < scale]
        return left[-1] if left else self.samples

    def candidates(self, scale: int) -> int:
        """How many of each of them are drawn there from one forward pass."""
        return max(map(_candidates, self.at(scale)), default=1)

    def selects(self, scale: float) -> list[int]:
        """After which scales samples are selected or branch before `scale` is sampled, as their lineage tells it."""
        before = [stage for stage in self.stages if stage.scale < scale]
        branched = [stage.scale - 1 for stage in before if _candidates(stage) > 1]
        return sorted([stage.scale for stage in before if stage.keep is not None] + branched)

    def stops(self, scales: int) -> list[int]:
        """The scales after which something happens; the last of `scales` is always one."""
        return sorted({scales - 1, *(stage.scale for stage in self.stages)})

    def met(self) -> Iterator[tuple[Stage, int]]:
        """Each stage with the number of samples it meets."""
        samples = self.samples
        for stage in self.stages:
            yield stage, samples
            samples = _left(stage, samples)

    def scored(self, scales: int) -> list[int]:
        """The scales after which samples are scored; the last of `scales` is always one."""
        return sorted({scales - 1, *(stage.scale for stage, samples in self.met() if stage.sees(samples) == "scores")})

    @property
    def needs_reward(self) -> bool:
        """Whether scores decide anything: not for a single sample that nothing is selected from on the way."""
        finish = self.running(math.inf)
        return finish > 1 or any(stage.sees(samples) == "scores" for stage, samples in self.met())

    def check(self, scales: int) -> None:
        """Raise ValueError, naming the stage and the remedy, unless the plan can run on a schedule of `scales` scales."""
        if self.samples < 1:
            raise ValueError(f"plan {self.name} starts with {self.samples} samples; start with at least 1")
        scored, before = False, -1
        for stage, samples in self.met():
            what = f"plan {self.name}, {stage.kind} at scale {stage.scale}"
            if not 0 <= stage.scale < scales:
                raise ValueError(f"{what}: the last scale is {scales - 1}; move it to 0..{scales - 1}")
            if stage.scale < before + (_candidates(stage) > 1):
                order = "a branch stands first at its scale" if stage.scale == before else "list the stages in rising order"
                raise ValueError(f"{what}: it stands after a stage at scale {before}; {order}")
            try:
                stage.check(samples, scored)
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from error
            scored, before = scored or stage.sees(samples) == "scores", stage.scale


def _candidates(stage: Stage) -> int:
    """How many a stage makes of every sample."""
    return getattr(stage, "candidates", 1)


def _left(stage: Stage, samples: int) -> int:
    """How many of `samples` samples there are once a stage has acted."""
    return samples * _candidates(stage) if stage.keep is None else stage.keep


def raw() -> Plan:
    """One sample, no search."""
    return Plan("raw", 1)


def best_of_n(n: int) -> Plan:
    """`n` full samples, the best of which is the answer."""
    return Plan("best-of-n", _at_least_one(n))


def importance_sampling(n: int, scales: int = OFFICIAL_SCALES) -> Plan:
    """`n` samples throughout, resampled by VALUE at the paper's scales {6, 9} (of 13; otherwise as in `tts_var`)."""
    where = stretched(POTENTIAL_SCALES, scales)
    return Plan("importance-sampling", _at_least_one(n), tuple(Resample(scale, n) for scale in where))


def tts_var(n: int, scales: int = OFFICIAL_SCALES) -> Plan:
    """The paper's search: 8n samples cut by clustering at scales {2, 5} and by potential at {6, 9} down to n.

    With another number of scales than 13 the four selectors keep their order and sit at the same share of the way from
    the first scale to the last, each at a scale of its own before the last one. Raises ValueError below 5 scales, where
    that does not fit.
    """
    official = CLUSTER_SCALES + POTENTIAL_SCALES
    keep = [_at_least_one(n) * TTS_VAR_SURVIVORS[scale] for scale in official]
    kinds = (Cluster,) * len(CLUSTER_SCALES) + (Resample,) * len(POTENTIAL_SCALES)
    where = stretched(official, scales)
    return Plan("tts-var", 8 * n, tuple(kind(*place) for kind, *place in zip(kinds, where, keep, strict=True)))


def cut_once(starts: int, scale: int, finish: int, name: str = "funnel", foreseen: bool = False) -> Plan:
    """`starts` samples, the best `finish` of which go on after `scale`, each once: one early wide cut."""
    return Plan(name, starts, (Best(scale, _at_least_one(finish)),), foreseen)


def funnel(n: int, scales: int = OFFICIAL_SCALES) -> Plan:
    """8n samples, as `tts_var` starts, cut once to the best n (at scale 6 of 13): 1.35 n pictures' tokens at 1M pixels.

    An early cut to several wins at equal cost even where scores say little; late cuts and cuts to one do not (see budget.py).
    """
    return cut_once(8 * _at_least_one(n), *stretched(FUNNEL_SCALES, scales), n)


def beam(n: int, scales: int = OFFICIAL_SCALES, candidates: int = BEAM_CANDIDATES) -> Plan:
    """A beam `n` wide: at scales 4, 5 and 6 (of 13) each sample has `candidates`, the best n of all of which go on.

    At the first of them the candidates differ from the first scale on, later ones share all scales before. Source: the beam of
    SoTo, arXiv 2604.15453, which is 5 wide with 10 candidates at every scale, without its replays.
    """
    first, *later = stretched(BEAM_SCALES, scales)
    stages = [Best(first, _at_least_one(n))]
    for scale in later:
        stages += [Branch(scale, candidates), Best(scale, n)]
    return Plan("beam", candidates * n, tuple(stages))


_MAKERS = (lambda n, scales: raw(), lambda n, scales: best_of_n(n), importance_sampling, tts_var, funnel, beam)
PLANS = dict(zip(names.PLANS, _MAKERS, strict=True))


def with_potential(plan: Plan, **settings) -> Plan:
    """`plan` with these settings of `Resample` at every resampling it has."""
    stages = tuple(replace(stage, **settings) if isinstance(stage, Resample) else stage for stage in plan.stages)
    return replace(plan, stages=stages)


def scored_at(plan: Plan, scales) -> Plan:
    """`plan` that also scores its samples after these scales, before anything else is decided there."""
    more = tuple(Score(scale) for scale in sorted(set(scales)))
    return replace(plan, stages=tuple(sorted(more + plan.stages, key=lambda stage: (stage.scale, _candidates(stage) == 1))))


def stretched(official: tuple[int, ...], scales: int) -> tuple[int, ...]:
    """Scales of the 13-scale schedule moved into `scales`: at the same share of the way, distinct, before the last.

    Raises ValueError where `scales` are too few for that.
    """
    if scales < len(official) + 1:
        raise ValueError(
            f"{len(official)} selectors need a schedule of at least {len(official) + 1} scales, this one has {scales}; "
            "use best-of-n, or a plan of your own with fewer stages"
        )
    moved: list[int] = []
    for scale in official:
        share = math.floor(scale * (scales - 1) / (OFFICIAL_SCALES - 1) + 0.5)
        latest = scales - 1 - (len(official) - len(moved))  # leaves a scale for each selector still to come
        moved.append(min(max(share, moved[-1] + 1 if moved else 0), latest))
    return tuple(moved)


def _at_least_one(n: int) -> int:
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1")
    return n
