"""Searches at equal total cost: Best-of-N, TTS-VAR, and funnels that cost what Best-of-N or TTS-VAR costs, or less.

Total cost is that of every network that runs: transformer, decodes, extractors, value models, rewards. TTS-VAR is priced without
its extractor, so a funnel at its cost gets no more than it takes with any.
"""

from __future__ import annotations

from dataclasses import replace

from ttsvar_core.search.plan import Plan, best_of_n, stretched, tts_var

from .arms import Arm, Experiment, Pair, Setting, Table, best_name, unique
from .prices import widest

CUT = (6,)  # of 13 scales: 5% of a picture's cost lies before it, see the simulation in docs/log.md
FINISHERS = 0.65  # of the budget in pictures: 1 of 2, 3 of 4, 5 of 8
EARLIER_AND_LATER = (-2, -1, 1, 2)


def experiment(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """All arms for every budget of ``n`` pictures. Raises ValueError without prices."""
    if setting.prices is None:
        raise ValueError("equal-cost chooses its arms by what they cost; give a setting with prices")
    arms, tables = [_arm(best_name(count), best_of_n(count)) for count in sorted({1, *n})], []
    curves: dict[str, list[str]] = {"Best-of-N": [arm.name for arm in arms], "TTS-VAR": [], "funnel": []}
    for count in n:
        paper = _arm(f"tts-var-{count}", tts_var(count, setting.scales))
        ours, variants = _funnels(setting, count)
        at_paper = _named(f"at-tts-var-{count}", _chosen(setting, paper.plan, count))
        arms += [paper, *ours, *variants, *at_paper]
        curves["TTS-VAR"].append(paper.name)
        curves["funnel"] += [arm.name for arm in ours]
        against = [Pair(arm.name, best_name(count)) for arm in (*ours, paper)] + [Pair(arm.name, paper.name) for arm in at_paper]
        tables.append(Table(f"At the cost of {_pictures(count)}", tuple(against), _NOTE.format(n=count)))
        changed = tuple(Pair(arm.name, ours[0].name) for arm in variants if ours)
        tables.append(Table(f"One thing changed, at the cost of {_pictures(count)}", changed))
    return Experiment("equal-cost", unique(arms), tuple(tables), {label: tuple(names) for label, names in curves.items()})


_NOTE = (
    "`budget-{n}` costs no more than Best-of-{n}; TTS-VAR with N = {n} is the paper's and costs more; `at-tts-var-{n}` is the "
    "funnel that costs no more than that."
)


def cut_of(setting: Setting, pictures: int) -> tuple[int, int]:
    """Where the funnel for a budget is cut and how many finish: as advised, or by the rule of thumb."""
    if pictures in setting.cuts:
        return setting.cuts[pictures]
    return stretched(CUT, setting.scales)[0], max(1, round(FINISHERS * pictures))


def _funnels(setting: Setting, pictures: int) -> tuple[list[Arm], list[Arm]]:
    """The funnel of a budget, and what changes one thing about it: scheme, scale, finishers, who scores at the cut."""
    given, prices = best_of_n(pictures), setting.prices
    scale, finishers = cut_of(setting, pictures)
    name = f"budget-{pictures}"
    variants = _named(f"{name}-multinomial", widest(prices, given, scale, finishers, "multinomial"))
    for place in (scale + step for step in EARLIER_AND_LATER):
        if 0 <= place < setting.scales - 1:
            variants += _named(f"{name}-cut-at-{place}", widest(prices, given, place, finishers))
    for count in (finishers - 1, finishers + 1):
        if count > 0:
            variants += _named(f"{name}-finishing-{count}", widest(prices, given, scale, count))
    for reward in (name for name, look in prices.looks.items() if look.ahead and scale in dict(look.ahead)):
        variants += _named(f"{name}-by-{reward}", widest(prices, given, scale, finishers, reward=reward), reward)
    return _named(name, _chosen(setting, given, pictures)), variants


def _chosen(setting: Setting, given: Plan, pictures: int) -> Plan | None:
    return widest(setting.prices, given, *cut_of(setting, pictures))


def _named(name: str, plan: Plan | None, reward: str = "") -> list[Arm]:
    """The arm, where the budget pays for a plan that cuts anything."""
    return [] if plan is None else [_arm(name, replace(plan, name=name), reward)]


def _arm(name: str, plan: Plan, reward: str = "") -> Arm:
    return Arm(name, plan, reward=reward, timed=True)


def _pictures(count: int) -> str:
    return "one picture" if count == 1 else f"{count} pictures"
