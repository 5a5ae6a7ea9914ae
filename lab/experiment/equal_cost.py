"""Searches at equal total cost: Best-of-N, and what else its cost pays for: the plan that the budget chooses, funnel, beam.

Total cost is that of every network that runs: transformer, decodes, extractors, value models, rewards. TTS-VAR as published costs
more than Best-of-N; the budget's plan at its cost stands against it (priced without its extractor, so that it gets no more than it
takes with any).
"""

from __future__ import annotations

from dataclasses import replace

from ttsvar_core.search.budget import plan_for
from ttsvar_core.search.plan import Plan, best_of_n, raw
from ttsvar_core.search.resample import Resample

from .arms import Arm, Experiment, Pair, Part, Setting, Table, best, best_name, family, paper, unique
from .prices import Scorer, chosen, fitted_beam, fitted_funnel, widest

EARLIER_AND_LATER = (-2, -1, 1, 2)
SMALLEST = 2  # pictures: the budget of one of several attempts
LITTLE_MORE = (1.25, 1.5)  # pictures
CURVES = {"Best-of-N": "best-of", "TTS-VAR": "tts-var"} | {
    name: name for name in ("budget", "funnel", "beam", "attempts", "stopped-best-of")
}  # by label the family
TIMED = 8  # prompts whose searches run one by one, so that their seconds are their own


def experiment(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """All arms for every budget of ``n`` pictures. Raises ValueError without prices, and for a measurement of something else."""
    if setting.prices is None:
        raise ValueError("equal-cost chooses its arms by what they cost; give a setting with prices")
    arms, tables = [best(count) for count in sorted({1, *n})], []
    for count in n:
        given, published = best_of_n(count), paper(count, setting)
        ours, why = _chosen(setting, given, f"budget-{count}")
        at_paper, _ = _chosen(setting, published.plan, f"at-tts-var-{count}")
        funnel = _named(f"funnel-{count}", fitted_funnel(setting.prices, given))
        beam = _named(f"beam-{count}", fitted_beam(setting.prices, given))
        variants, again = _variants(setting, ours, count), _again(setting, count, n)
        arms += [ours, *funnel, *beam, published, at_paper, *variants, *(arm for arms, _ in again for arm in arms)]
        against = [Pair(arm.name, best_name(count)) for arm in (ours, *funnel, *beam, published)]
        against.append(Pair(at_paper.name, published.name))
        tables.append(Table(f"At the cost of {_pictures(count)}", tuple(against), _NOTE.format(n=count, why=why)))
        changed = tuple(Pair(arm.name, ours.name) for arm in variants)
        tables.append(Table(f"One thing changed, at the cost of {_pictures(count)}", changed))
        tables += (table for _, table in again)
    plans = {f"budget-{spend:g}": plan_for(spend, setting.prices.search(raw()), setting.known).plan for spend in LITTLE_MORE}
    little = [Arm(name, replace(plan, name=name)) for name, plan in plans.items() if plan.stages]  # nothing else costs as much
    pairs = [Pair(arm.name, best_name(count)) for arm in little for count in (1, 2) if count in (1, *n)]
    tables.append(Table("At the cost of little more than one picture", tuple(pairs)))
    curves = {label: tuple(arm.name for arm in arms if family(arm.name) == named) for label, named in CURVES.items()}
    curves["budget"] = (*(arm.name for arm in little), *curves["budget"])
    return Experiment("equal-cost", unique([*arms, *little]), tuple(tables), curves, TIMED)


_NOTE = (
    "`budget-{n}`: {why}. It, `funnel-{n}` and `beam-{n}` cost no more than Best-of-{n}; TTS-VAR with N = {n} is the paper's and "
    "costs more; `at-tts-var-{n}` is what the budget chooses at the cost of that."
)


def _chosen(setting: Setting, given: Plan, name: str) -> tuple[Arm, str]:
    """The plan that the budget chooses at the cost of ``given``, Best-of-N itself where no cut should gain more, and why."""
    plan, why = chosen(setting.prices, given, setting.known)
    return Arm(name, replace(plan, name=name)), why


def _again(setting: Setting, pictures: int, n: tuple[int, ...]) -> list[Part]:
    """What is carried out again until an answer is good enough, at the cost of so many pictures at most: the smallest budget that
    cuts, and single pictures; against what costs as much, and what half of that pays for. Nothing where nobody measured what is
    good enough, and where two attempts cost more."""
    table, attempts = setting.known, pictures // SMALLEST
    if table is None or table.enough is None or attempts < 2:
        return []
    ours = _chosen(setting, best_of_n(SMALLEST), f"attempts-{pictures}")[0]._replace(attempts=attempts, enough=table.enough)
    single = best(1)._replace(name=f"stopped-best-of-{pictures}", attempts=pictures, enough=table.enough)
    sizes = [pictures] + [size for size in (pictures // 2,) if size in n and size > SMALLEST]
    pairs = [Pair(ours.name, name) for size in sizes for name in (best_name(size), f"budget-{size}")]
    pairs += [Pair(ours.name, single.name), Pair(single.name, best_name(pictures))]
    note = (
        f"At most {attempts} attempts of `budget-{SMALLEST}`, or {pictures} single pictures, until one scores {table.enough:g}; "
        "their cost is the mean over prompts."
    )
    title = f"Until it is good enough, at most at the cost of {_pictures(pictures)}"
    return [([ours, single], Table(title, tuple(pairs), note))]


def _variants(setting: Setting, ours: Arm, pictures: int) -> list[Arm]:
    """What changes one thing about the cut of a budget: scheme, what is looked at, scale, finishers, who scores. Nothing where it
    does not cut. All of them resample, and those that do not change the scheme take the highest scores."""
    if not ours.plan.stages:
        return []
    cut, scored, found = ours.plan.stages[0], Scorer(foreseen=ours.plan.foreseen), []

    def changed(how: str, scale: int = cut.scale, keep: int = cut.keep, scheme: str = "top-k", scorer: Scorer = scored) -> None:
        plan = widest(setting.prices, best_of_n(pictures), scale, keep, scorer)
        plan = plan and replace(plan, stages=(Resample(scale, keep, scheme=scheme),))
        found.extend(_named(f"{ours.name}-{how}", plan, scorer.reward))

    changed("multinomial", scheme="multinomial")
    if ours.plan.foreseen:
        changed("sketches", scorer=Scorer())
    for place in (cut.scale + step for step in EARLIER_AND_LATER):
        if 0 <= place < setting.scales - 1 and (not ours.plan.foreseen or setting.prices.config.foresees(place)):
            changed(f"cut-at-{place}", scale=place)
    for count in (cut.keep - 1, cut.keep + 1):
        if count > 0:
            changed(f"finishing-{count}", keep=count)
    for reward in (name for name, look in setting.prices.looks.items() if cut.scale in dict(look.ahead)):
        changed(f"by-{reward}", scorer=scored._replace(reward=reward))
    return found


def _named(name: str, plan: Plan | None, reward: str = "") -> list[Arm]:
    """The arm, where its cost pays for a plan that cuts anything."""
    return [] if plan is None else [Arm(name, replace(plan, name=name), reward=reward)]


def _pictures(count: int) -> str:
    return "one picture" if count == 1 else f"{count} pictures"
