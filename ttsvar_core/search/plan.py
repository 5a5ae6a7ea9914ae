"""Plans: which samples run when, and what selects among them.

Raw generation, Best-of-N, Importance Sampling and TTS-VAR are values of one type; `run.run` carries out any of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sized
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .potential import NEEDS_EARLIER_SCORES, POTENTIALS
from .resample import SCHEMES, WITHOUT_REPLACEMENT

if TYPE_CHECKING:
    from .features import FeatureExtractor

# TTS-VAR paper, section 4: survivors of each of 13 scales at N = 1, and where which selector sits.
TTS_VAR_SURVIVORS = (8, 8, 6, 6, 6, 4, 2, 2, 2, 1, 1, 1, 1)
CLUSTER_SCALES = (2, 5)
POTENTIAL_SCALES = (6, 9)
OFFICIAL_SCALES = len(TTS_VAR_SURVIVORS)
MAX_COUNT = 2**16  # samples or scales that a plan in a file may name


@dataclass(frozen=True)
class ClusterSelector:
    """Keep samples that differ; see `select.cluster_select`."""


@dataclass(frozen=True)
class PotentialSelector:
    """Resample by potential; the settings of `select.potential_select`."""

    potential: str = "value"
    lam: float = 10.0
    scheme: str = "multinomial"
    ess_threshold: float | None = None
    target_ess: float | None = None

    def settings(self) -> dict:
        """Keyword arguments of `select.potential_select`."""
        return asdict(self)


Selector = ClusterSelector | PotentialSelector
_KINDS: dict[str, type] = {"cluster": ClusterSelector, "potential": PotentialSelector}
_NUMBERS = ("lam", "ess_threshold", "target_ess")


@dataclass(frozen=True)
class Plan:
    """A search, before it meets a model.

    samples: how many samples run scale 0. survivors: per scale, how many are left after it; scale s > 0 runs with
    survivors[s - 1]. selectors: (scale, selector) pairs in rising order. score_at: further scales to score, for
    potentials that look back or for the record; scales with a potential selector and the last scale are scored anyway.
    """

    name: str
    samples: int
    survivors: tuple[int, ...]
    selectors: tuple[tuple[int, Selector], ...] = ()
    score_at: tuple[int, ...] = ()

    def selector(self, scale: int) -> Selector | None:
        """What selects after `scale`, if anything."""
        return dict(self.selectors).get(scale)

    def running(self, scale: int) -> int:
        """How many samples run `scale`."""
        return self.samples if scale == 0 else self.survivors[scale - 1]

    def scores(self, scale: int) -> bool:
        """Whether the reward looks at the samples after `scale`."""
        last = len(self.survivors) - 1
        return scale == last or scale in self.score_at or isinstance(self.selector(scale), PotentialSelector)

    def clusters(self, scale: int) -> bool:
        """Whether the extractor looks at the samples after `scale` (not if all of them are kept)."""
        return isinstance(self.selector(scale), ClusterSelector) and self.survivors[scale] < self.running(scale)

    def looks(self, scale: int, extractor: FeatureExtractor | None) -> bool:
        """Whether anything looks at the images of the samples after `scale`."""
        return self.scores(scale) or (self.clusters(scale) and extractor.looks_at == "images")

    @property
    def needs_reward(self) -> bool:
        """Whether scores decide anything: not for a single sample that nothing is selected from on the way."""
        return self.survivors[-1] > 1 or any(self.scores(scale) for scale in range(len(self.survivors) - 1))

    def stops(self, scale: int) -> bool:
        """Whether anything happens to the samples after `scale` besides sampling on."""
        return self.scores(scale) or self.selector(scale) is not None

    def to_json(self) -> dict:
        """The plan as plain JSON values, read back by `from_json`."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        selectors = {
            str(scale): {"kind": kinds[type(one)], **{_spoken(k): v for k, v in asdict(one).items() if v is not None}}
            for scale, one in self.selectors
        }
        return {
            "name": self.name,
            "samples": self.samples,
            "survivors": list(self.survivors),
            "selectors": selectors,
            "score_at": list(self.score_at),
        }


def raw(scales: int = OFFICIAL_SCALES) -> Plan:
    """One sample, no search."""
    return replace(best_of_n(1, scales), name="raw")


def best_of_n(n: int, scales: int = OFFICIAL_SCALES) -> Plan:
    """`n` full samples, the best of which is the answer."""
    return Plan("best-of-n", _at_least_one(n), (n,) * scales)


def importance_sampling(n: int, scales: int = OFFICIAL_SCALES) -> Plan:
    """`n` samples throughout, resampled by VALUE at the paper's scales {6, 9} (of 13; otherwise as in `tts_var`)."""
    where = stretched(POTENTIAL_SCALES, scales)
    return Plan("importance-sampling", _at_least_one(n), (n,) * scales, tuple((s, PotentialSelector()) for s in where))


def tts_var(n: int, scales: int = OFFICIAL_SCALES) -> Plan:
    """The paper's search: 8n samples cut by clustering at scales {2, 5} and by potential at {6, 9} down to n.

    With another number of scales than 13 the four selectors keep their order and sit at the same share of the way from
    the first scale to the last, each at a scale of its own before the last one. Raises ValueError below 5 scales, where
    that does not fit.
    """
    official = CLUSTER_SCALES + POTENTIAL_SCALES
    where = stretched(official, scales)
    survivors = [_at_least_one(n) * TTS_VAR_SURVIVORS[0]] * scales
    for scale, source in zip(where, official, strict=True):
        survivors[scale:] = [n * TTS_VAR_SURVIVORS[source]] * (scales - scale)
    kinds = (ClusterSelector(),) * len(CLUSTER_SCALES) + (PotentialSelector(),) * len(POTENTIAL_SCALES)
    return Plan("tts-var", 8 * n, tuple(survivors), tuple(zip(where, kinds, strict=True)))


PLANS = {
    "raw": lambda n, scales: raw(scales),
    "best-of-n": best_of_n,
    "importance-sampling": importance_sampling,
    "tts-var": tts_var,
}


def with_potential(plan: Plan, **settings) -> Plan:
    """`plan` with these settings of `PotentialSelector` at every potential selector it has."""
    selectors = tuple(
        (scale, replace(one, **settings) if isinstance(one, PotentialSelector) else one)
        for scale, one in plan.selectors
    )
    return replace(plan, selectors=selectors)


def stretched(official: tuple[int, ...], scales: int) -> tuple[int, ...]:
    """Scales of the 13-scale schedule moved into `scales`: at the same share of the way, distinct, before the last.

    Raises ValueError where `scales` are too few for that.
    """
    if scales < len(official) + 1:
        raise ValueError(
            f"{len(official)} selectors need a schedule of at least {len(official) + 1} scales, this one has {scales}; "
            "use best-of-n, or a plan of your own with fewer selectors"
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


def check(plan: Plan, schedule: Sized) -> None:
    """Raise ValueError, naming the scale and the remedy, unless `plan` can run on `schedule` (a ScaleSchedule)."""
    scales = len(schedule)
    if len(plan.survivors) != scales:
        raise ValueError(
            f"plan {plan.name} lists survivors for {len(plan.survivors)} scales and the schedule has {scales}; give "
            "one number per scale (the plans made by name fit any schedule: they take its number of scales)"
        )
    if plan.samples < 1:
        raise ValueError(f"plan {plan.name} starts with {plan.samples} samples; start with at least 1")
    _check_places(plan, scales)
    for scale in range(scales):
        _check_cut(plan, scale)
    scored = False
    for scale, selector in plan.selectors:
        if isinstance(selector, PotentialSelector):
            scored = scored or any(earlier < scale for earlier in plan.score_at)
            _check_potential(selector, scale, scored)
            scored = True


def _check_places(plan: Plan, scales: int) -> None:
    last = scales - 1
    places = [scale for scale, _ in plan.selectors]
    for what, places_there in (("selector", places), ("score", list(plan.score_at))):
        for scale in places_there:
            if not 0 <= scale <= last:
                raise ValueError(
                    f"plan {plan.name} has a {what} at scale {scale}; the last scale is {last}, move it to 0..{last}"
                )
        if places_there != sorted(set(places_there)):
            raise ValueError(f"plan {plan.name} has {what}s at scales {places_there}; list each scale once, rising")


def _check_cut(plan: Plan, scale: int) -> None:
    """Check the step from the samples that run `scale` to its survivors."""
    before, after, selector = plan.running(scale), plan.survivors[scale], plan.selector(scale)
    if after < 1:
        raise ValueError(f"scale {scale} of plan {plan.name} keeps {after} samples; keep at least 1")
    if after > before:
        without = isinstance(selector, ClusterSelector) or getattr(selector, "scheme", None) in WITHOUT_REPLACEMENT
        why = "; its selector draws without replacement" if without else ""
        raise ValueError(
            f"scale {scale} of plan {plan.name} runs with {before} samples and would keep {after}: a schedule cannot "
            f"grow{why}. Keep at most {before}, or start with more samples"
        )
    if after < before and selector is None:
        raise ValueError(
            f"plan {plan.name} cuts {before} samples to {after} at scale {scale}, where nothing selects; "
            f"add a selector at scale {scale} or keep {before}"
        )


def _check_potential(selector: PotentialSelector, scale: int, scored: bool) -> None:
    """Check the settings of one potential selector; `scored`: whether an earlier scale is scored."""
    if selector.potential not in POTENTIALS:
        raise ValueError(f"unknown potential {selector.potential!r} at scale {scale}; use {', '.join(POTENTIALS)}")
    if selector.scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {selector.scheme!r} at scale {scale}; use {', '.join(SCHEMES)}")
    if selector.potential in NEEDS_EARLIER_SCORES and not scored:
        raise ValueError(
            f"{selector.potential.upper()} at scale {scale} looks back and no earlier scale is scored; "
            f"add a scale before {scale} to score_at, or use VALUE here"
        )
    if not (math.isfinite(selector.lam) and selector.lam >= 0):
        raise ValueError(f"lambda is {selector.lam} at scale {scale}; expected a finite number of at least 0")
    for name in ("ess_threshold", "target_ess"):
        share = getattr(selector, name)
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"{name} is {share} at scale {scale}; it is a share of the samples, above 0 and at most 1")


def from_json(data: dict) -> Plan:
    """The plan that `Plan.to_json` wrote. Raises ValueError for a missing, unknown or misshaped entry."""
    if not isinstance(data, dict):
        raise ValueError(f"a plan is an object with an entry 'survivors', not {json.dumps(data)[:40]}")
    known = {field.name for field in fields(Plan)}
    _refuse_unknown(data, known, "a plan")
    if "survivors" not in data:
        raise ValueError("a plan needs 'survivors': for each scale, how many samples are left after it")
    try:
        survivors = tuple(_whole(count) for count in data["survivors"])
        selectors = sorted((_whole(scale), _selector(one)) for scale, one in data.get("selectors", {}).items())
        return Plan(
            name=str(data.get("name", "custom")),
            samples=_whole(data.get("samples", survivors[0] if survivors else 0)),
            survivors=survivors,
            selectors=tuple(selectors),
            score_at=tuple(_whole(scale) for scale in data.get("score_at", [])),
        )
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"cannot read the plan: {error}; compare with one written by Plan.to_json") from error


def _selector(data: dict) -> Selector:
    kind = data.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"unknown selector kind {kind!r}; use {' or '.join(_KINDS)}")
    settings = {_written(key): value for key, value in data.items() if key != "kind"}
    _refuse_unknown(settings, {field.name for field in fields(_KINDS[kind])}, f"a {kind} selector")
    return _KINDS[kind](**{key: float(value) if key in _NUMBERS else value for key, value in settings.items()})


def _refuse_unknown(data: dict, known: set[str], what: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"{what} has no {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}")


def _whole(value) -> int:
    number = int(value)
    if number != float(value) or number > MAX_COUNT:
        raise ValueError(f"expected a whole number up to {MAX_COUNT} in the plan, got {str(value)[:40]!r}")
    return number


def _spoken(name: str) -> str:
    """JSON says lambda where Python cannot."""
    return "lambda" if name == "lam" else name


def _written(name: str) -> str:
    return "lam" if name == "lambda" else name


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write `plan` as JSON."""
    from ..atomic import write

    write(path, json.dumps(plan.to_json(), indent=2) + "\n")


def load_plan(path: str | Path) -> Plan:
    """Read a plan from JSON. Raises ValueError, naming the file, for text that is not JSON and where `from_json` does."""
    from ..reading import parse_json, read_text, refusing

    with refusing(path, "Correct it as save_plan writes them, or choose another."):
        return from_json(parse_json(read_text(path)))
