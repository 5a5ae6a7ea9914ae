"""A budget in pictures: how many samples start, where they are cut and how many finish, at the cost of so many pictures.

One early wide cut. M samples run to scale s, at a share c of a picture's cost each, the look at them included; the K best go on and
the best of these is the answer. At the cost of B pictures that is

    M = (B - K (1 - c)) / c

What such a plan's answer should be, expected.py tells; the plan of the best one is taken. Early cuts to several win even by weak
scores, late ones and cuts to one rarely do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import names
from ..costs import Search
from ..looks import grey, reward_look
from .expected import expected_best
from .plan import OFFICIAL_SCALES, Plan, best_of_n, cut_once, raw, stretched

if TYPE_CHECKING:
    from ..config import Sampling
    from ..image_model import ImageModel
    from ..infinity.text import Conditioning
    from ..rewards.base import Reward
    from ..scales import ScaleSchedule

MOST_STARTS = 64
"""Samples that a budget starts at most: the paper's largest search starts as many."""
FINISHERS = (*range(1, 17), 20, 24, 32, 48, 64)


class Measured(NamedTuple):
    """What foretells the end, for one model and reward. correlation: by scale, the rank correlation within a prompt of the score
    after it with the final one. fixed: by scale, the share of the final rank variance that what is drawn through it fixes; no score
    there can know more. scales: of the schedule it was measured on. rated: by whole budget, the scale of the cut and the finishers
    that answered best on drawn samples, which tells more than correlations do: failures may be what scores tell best. foreseen:
    whether the scores are those of foreseen sketches, which the cuts then look at. enough: a final score from which on nearly all
    answers were right, where there was somebody to say which are."""

    model: str
    reward: str
    correlation: Mapping[int, float]
    fixed: Mapping[int, float] = {}
    scales: int = OFFICIAL_SCALES
    rated: Mapping[int, tuple[int, int]] = {}
    foreseen: bool = False
    enough: float | None = None

    def rho(self, scale: int, scales: int) -> float:
        """The normal model's correlation after `scale` of `scales`: that of the latest scale measured until there, 0 before.

        A rank correlation is turned into a normal one by 2 sin(pi/6 x) (Pearson 1907) and never exceeds the root of what is fixed.
        """
        place = scale * (self.scales - 1) / (scales - 1)
        rank = max(((at, value) for at, value in self.correlation.items() if at <= place), default=(0, 0.0))[1]
        fixed = min(((at, value) for at, value in self.fixed.items() if at >= place), default=(0, 1.0))[1]
        return min(max(0.0, 2 * math.sin(math.pi / 6 * rank)), math.sqrt(fixed))


BUNDLED = Measured(
    names.BUNDLED, "scenes", {6: 0.48, 7: 0.57}, foreseen=True,
    rated={2: (7, 1), 3: (7, 2), 4: (7, 2), 5: (7, 3), 6: (7, 4), 7: (7, 5), 8: (7, 6)}, enough=0.95,
)
"""The bundled model's under its verifier: 160 validation prompts, 16 samples each (`python -m lab.experiment advise`)."""
GUESS = Measured("scenes64", "scenes", {4: 0.07, 5: 0.17, 9: 0.20, 11: 0.65}, {2: 0.20, 4: 0.35, 5: 0.44, 10: 0.56})
"""A low guess for models nobody has measured: the figures of an earlier small model whose scores foretold little."""


class Chosen(NamedTuple):
    """The plan for a budget. expected: its answer, and gain: what that is above Best-of-B's, in standard deviations of the final
    reward within a prompt. pictures: its cost in pictures. why: all that in a sentence."""

    plan: Plan
    expected: float
    gain: float
    pictures: float
    why: str


def plan_for(pictures: float, spend: Search, measured: Measured | None = None) -> Chosen:
    """The plan of the best expected answer that costs no more than `pictures` drawn in full and judged.

    spend: what counts, but for its plan. measured: for this model and reward; `GUESS` otherwise. Raises ValueError for less than
    one picture.
    """
    if not (math.isfinite(pictures) and pictures >= 1):
        raise ValueError(f"a budget of {pictures:g} pictures; it takes at least 1 to draw one")
    table, whole = measured or GUESS, int(pictures)
    one, two = (flops(spend, best_of_n(count)) for count in (1, 2))
    budget = one + math.floor((pictures - 1) * (two - one))
    cuts, rated = list(_cuts(spend, table, budget, whole)), table.rated.get(whole)
    options = [(best_of_n(whole), 0.0), *(_rated(cuts, rated, spend) if rated else cuts)]
    finish = [plan.running(math.inf) for plan, _ in options]
    expected = expected_best([plan.samples for plan, _ in options], finish, [rho for _, rho in options])
    best = len(options) - 1 if rated else int(np.argmax(np.round(expected, 9)))  # of equal ones the first: no cut
    plan, rho = options[best]
    spent, gain = cost_in_pictures(spend, plan), float(expected[best] - expected[0])
    source = "measured" if measured else f"not measured here: a low guess, from {GUESS.model}"
    source += "; it answered best of all cuts on the samples drawn for that" if best and rated else ""
    return Chosen(replace(plan, name="budget"), float(expected[best]), gain, spent, _why(pictures, plan, rho, source, gain, spent))


def plan_within(
    pictures: float, model: ImageModel, conditioning: Conditioning, schedule: ScaleSchedule, sampling: Sampling, reward: Reward,
    measured: Measured | None = None, whole: bool = False,
) -> Chosen:
    """`plan_for` what is loaded; what the reward takes is counted on a grey picture.

    whole: sketches are decoded at full size. Raises ValueError as `measured_for`.
    """
    measured = measured_for(model, reward, measured, whole)
    look = reward_look(reward, grey(model.config, schedule), conditioning.prompt)
    branches = sampling.branches(len(schedule))
    text_tokens = max(1, len(conditioning.text))
    return plan_for(pictures, Search(model.config, raw(), schedule, branches, text_tokens, reward=look, whole=whole), measured)


def measured_for(
    model: ImageModel, reward: Reward, measured: Measured | None = None, whole: bool = False
) -> Measured | None:
    """What is `known` of a loaded model and reward. whole: sketches are, which are never foreseen. Raises ValueError as that does,
    and for a measurement that was given and is of foreseen sketches, where there are none."""
    found = known(measured, model.name, reward.name)
    if found is None or not found.foreseen or (model.foresight is not None and not whole):
        return found
    if measured is None:
        return None
    lacks = "whole ones never are" if whole else f"{model.name} foretells none"
    raise ValueError(f"this was measured on foreseen sketches, and {lacks}; measure it so, or leave it out")


class Usual(NamedTuple):
    """The search where nothing is said: the budget of an attempt, in pictures, how many there are at most, and the score that ends
    them."""

    budget: float
    attempts: int = 1
    enough: float | None = None

    @property
    def told(self) -> str:
        """What there is to say of attempts, after why a plan was chosen; nothing where there is one."""
        until = "" if self.enough is None else f", until one scores {self.enough:g}"
        return "" if self.attempts == 1 else f"; {self.attempts} attempts at most{until}"


def usual_search(model: ImageModel, reward: Reward | None, attempts: int | None = None) -> Usual | None:
    """What was measured to pay, in so many attempts (None: as pays best); None where nobody measured.

    Where it is known when an answer is good enough: small searches, each of half of `names.BUDGET`, until one is. Easy prompts then
    pay for hard ones (docs/evidence.md)."""
    found = None if reward is None else measured_for(model, reward)
    if found is None:
        return None
    attempts = attempts or (1 if found.enough is None else names.BUDGET)
    return Usual(names.BUDGET) if attempts == 1 else Usual(names.BUDGET / 2, attempts, found.enough)


def known(measured: Measured | None, model: str, reward: str) -> Measured | None:
    """The measurement, checked to be of this model and reward; without one `BUNDLED` where that is, None where nobody measured."""
    if measured and (measured.model, measured.reward) != (model, reward):
        raise ValueError(
            f"what foretells the end was measured for {measured.model} and {measured.reward}, this is {model} and {reward}; "
            "measure these, or leave the measurement out"
        )
    return measured or (BUNDLED if (model, reward) == (BUNDLED.model, BUNDLED.reward) else None)


def flops(spend: Search, plan: Plan) -> int:
    """All operations of a plan, as `costs` counts them."""
    return replace(spend, plan=plan).total.flops


def cost_in_pictures(spend: Search, plan: Plan) -> float:
    """The cost of a plan in pictures drawn in full and judged: n of Best-of-n, with what a prompt takes once in the first."""
    one, two = (flops(spend, best_of_n(count)) for count in (1, 2))
    return 1 + (flops(spend, plan) - one) / (two - one)


def _cuts(spend: Search, table: Measured, budget: int, whole: int) -> Iterator[tuple[Plan, float]]:
    """Every cut where scores tell more than before, with the most starts that `budget` operations pay for, and the correlation.

    Costs rise in equal steps with starts and with finishers, so three plans tell those of all.
    """
    scales = len(spend.schedule)
    told = [0.0, *(table.rho(scale, scales) for scale in range(scales - 1))]
    cut = partial(cut_once, foreseen=table.foreseen)
    for scale, rho in enumerate(told[1:]):
        if rho <= max(told[: scale + 1]):
            continue  # dearer and no better than an earlier cut
        least, wider, longer = (flops(spend, cut(*sizes)) for sizes in ((2, scale, 1), (3, scale, 1), (3, scale, 2)))
        start, finish = wider - least, longer - wider
        for keep in FINISHERS:
            starts = min(MOST_STARTS, 2 + (budget - least - (keep - 1) * finish) // start)
            if keep <= whole and starts > keep:
                yield cut(starts, scale, keep), rho


def _rated(cuts: list[tuple[Plan, float]], rated: tuple[int, int], spend: Search) -> list[tuple[Plan, float]]:
    """The cut at the rated scale with the rated finishers, if the budget pays for it on this schedule."""
    place = stretched((rated[0],), len(spend.schedule))[0]
    return [(plan, rho) for plan, rho in cuts if (plan.stages[0].scale, plan.stages[0].keep) == (place, rated[1])]


def _why(pictures: float, plan: Plan, rho: float, source: str, gain: float, spent: float) -> str:
    told = f"budget of {pictures:g} picture{'s' * (pictures != 1)}"
    if not plan.stages:
        return f"{told}: Best-of-{plan.samples}; no early cut should gain more, by how scores foretell the end ({source})"
    cut = plan.stages[0]
    kept = f"the best {cut.keep} after scale {cut.scale}" + ", by foreseen sketches," * plan.foreseen
    done = f"{plan.samples} samples start and {kept} finish, at the cost of {spent:.2f}"
    gained = f"{gain:.2f} standard deviations above Best-of-{int(pictures)}'s"
    return f"{told}: {done}; the answer should be {gained}, as scores there correlate by {rho:.2f} with the end ({source})"


def load_measured(path: str | Path) -> Measured:
    """Read a measurement from JSON: {"model": name, "reward": name, "correlation": {scale: x}, "fixed": {scale: x}, "scales": n,
    "plans": {budget: {"scale": s, "keep": k}}, "foreseen": false, "enough": x}; the last five may be missing, other entries are for
    people.

    Raises ValueError, naming the file, for anything else.
    """
    from ..reading import parse_json, read_text, refusing

    with refusing(path, "Measure again, or choose another."):
        return from_json(parse_json(read_text(path)))


def from_json(data: Any) -> Measured:
    """The measurement in these JSON values. Raises ValueError for a missing or misshaped entry."""
    from ..reading import finite

    missing = [name for name in ("model", "reward", "correlation") if not isinstance(data, dict) or name not in data]
    if missing:
        raise ValueError(f"a measurement needs {' and '.join(missing)}")
    correlation, fixed = (_by_scale(name, data.get(name, {}), least) for name, least in (("correlation", -1), ("fixed", 0)))
    scales = data.get("scales", OFFICIAL_SCALES)
    if not isinstance(scales, int) or scales < 2 or max((*correlation, *fixed), default=0) >= scales:
        raise ValueError(f"scales is {scales!r}; expected how many the schedule has, more than any scale that is named")
    if not correlation:
        raise ValueError("correlation names no scale")
    foreseen, enough = data.get("foreseen", False) is True, data.get("enough")
    enough = None if enough is None else finite(enough)
    return Measured(str(data["model"]), str(data["reward"]), correlation, fixed, scales, _plans(data, scales), foreseen, enough)


def to_json(measured: Measured) -> dict[str, Any]:
    """The measurement as plain JSON values, read back by `from_json`."""
    by_scale = {name: {str(scale): value for scale, value in getattr(measured, name).items()} for name in ("correlation", "fixed")}
    plans = {str(budget): {"scale": scale, "keep": keep} for budget, (scale, keep) in measured.rated.items()}
    return {**measured._asdict(), **by_scale, "plans": plans}


def _plans(data: dict[str, Any], scales: int) -> dict[int, tuple[int, int]]:
    """The cuts rated best by the reward that measured; pools may have rated those of other scorers as well."""
    try:
        plans = [(int(budget), plan) for budget, plan in data.get("plans", {}).items() if plan]
        scorer = data.get("scorer")
        found = {budget: (plan["scale"], plan["keep"]) for budget, plan in plans if scorer is None or plan["by"] == scorer}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"plans is not a scale and a number to keep for each budget: {error!r}") from error
    whole = all(isinstance(number, int) for cut in found.values() for number in cut)
    if not whole or any(not (0 <= scale < scales - 1 and 1 <= keep <= budget) for budget, (scale, keep) in found.items()):
        raise ValueError("plans has a cut at no scale before the last, or that keeps fewer than one or more than the budget")
    return found


def _by_scale(name: str, values: Any, least: float) -> dict[int, float]:
    from ..reading import finite

    try:
        read = {int(scale): finite(value) for scale, value in values.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a number for each scale: {error}") from error
    if any(not least <= value <= 1 or scale < 0 for scale, value in read.items()):
        raise ValueError(f"{name} has a scale below 0, or a value outside {least} to 1")
    return read
