"""Which plan a budget in pictures is best spent on, told from pools: a table, and the file that searches and experiments read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ttsvar_core.atomic import write
from ttsvar_core.reading import parse_json, read_text, refusing
from ttsvar_core.search.budget import Measured, from_json
from ttsvar_core.search.plan import Plan, best_of_n

from .definitions import pool_name
from .offline import NEARLY_ALL, Pools, good_enough, pools_of, rank_correlations, spent
from .prices import Prices, Scorer, scorer_named, widest
from .prompts import Prompt
from .stats import Comparison, compare
from .tables import Row, markdown_table

FORMAT = 1
ADVICE = "advice.json"
_NOTE = (
    "Differences to Best-of-N at the same budget, with 95% intervals over prompts. The plan is the best of all that cost the same "
    "on these very prompts; the last column chooses on one half of them and rates on the other, which flatters nobody."
)


class Advice(NamedTuple):
    """The best plan for a budget of pictures and who scores at its cut; None where nothing beats Best-of-N on these pools.

    gains: the plan's answers minus Best-of-N's, by metric. unseen: the difference in score of plans chosen on one half of the
    prompts and rated on the other, so that choosing among many flatters nobody.
    """

    pictures: int
    plan: Plan | None = None
    scorer: str = ""
    gains: dict[str, Comparison] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)
    unseen: Comparison | None = None


def advise(pools: Pools, prices: Prices, pictures: int) -> Advice:
    """The plan whose answer scores best on average over the prompts of ``pools`` among all that cost the same: the widest funnel
    for each scorer, each of its scales and each number of finishers.

    Raises ValueError for a budget of more pictures than the pools have samples.
    """
    if pictures > pools.samples:
        raise ValueError(f"the pools hold {pools.samples} samples a prompt; a budget of {pictures} pictures needs --n {pictures}")
    base = {metric: spent(pools, metric, None, 0, pictures, pictures) for metric in pools.metrics}
    cuts = ((scorer, scale, keep) for scorer in pools.scores for scale in pools.scales(scorer) for keep in range(1, pictures + 1))
    plans = ((scorer, widest(prices, best_of_n(pictures), *cut, scorer=scorer_named(scorer))) for scorer, *cut in cuts)
    found = [(scorer, plan) for scorer, plan in plans if plan is not None]
    if not found:
        return Advice(pictures)
    scores = np.stack([_rated(pools, pools.first, *one) for one in found])
    scorer, plan = found[int(scores.mean(axis=1).argmax())]

    def above(metric: str, values: np.ndarray) -> Comparison:
        return compare(pools.by_unit(values), pools.by_unit(base[metric]))

    gains = {metric: above(metric, _rated(pools, metric, scorer, plan)) for metric in pools.metrics}
    unseen = above(pools.first, _crossed(pools, scores, base[pools.first]))
    pays = gains[pools.first].difference.mean > 0
    return Advice(pictures, plan if pays else None, scorer, gains, unseen)


def _rated(pools: Pools, metric: str, scorer: str, plan: Plan) -> np.ndarray:
    """(pools,) of a funnel, with as many starts as the pools have."""
    cut = plan.stages[0]
    return spent(pools, metric, scorer, cut.scale, min(plan.samples, pools.samples), cut.keep)


def _crossed(pools: Pools, scores: np.ndarray, base: np.ndarray) -> np.ndarray:
    """(pools,) what the plan chosen on the other half of the prompts gets; Best-of-N where that was the best there."""
    order = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in pools.units))}
    half = np.array([order[prompt] % 2 == 1 for prompt, _ in pools.units])
    found, options = np.empty(len(half)), np.concatenate([base[None], scores])
    for side in (False, True):
        other = half != side
        chosen = options[:, other].mean(axis=1).argmax() if other.any() else 0
        found[~other] = options[chosen][~other]
    return found


def to_json(
    results: dict[str, Any], prices: Prices, pools: Pools, found: Sequence[Advice], enough: float | None
) -> dict[str, dict[str, Any]]:
    """By scorer, what the search's own budget reads of it, by the name it has in reports: rank correlation within a prompt with the
    end, per scale; beside it for people and experiments the intervals, what was measured, and the plans."""
    world = results["world"]
    plans = {
        str(advice.pictures): {
            "samples": advice.plan.samples, "scale": advice.plan.stages[0].scale, "keep": advice.plan.stages[0].keep,
            "by": advice.scorer, "gain": list(advice.gains[pools.first].difference[:3]),
        }
        for advice in found if advice.plan
    }
    shared = {
        "format": FORMAT, "model": world["model"], "fingerprint": world["fingerprint"], "scales": len(world["schedule"]),
        "prompts": pools.prompts, "samples": pools.samples, "plans": plans, "enough": enough,
        "drawn_of": sorted({Prompt(text).digest for text, _ in pools.units}),
    }

    def of(scorer: str) -> dict[str, Any]:
        looking, correlations = scorer_named(scorer), rank_correlations(pools, scorer)
        return {
            **shared, "scorer": scorer, "reward": prices.names[looking.reward], "foreseen": looking.foreseen,
            "correlation": {str(scale): interval.mean for scale, interval in correlations.items()},
            "interval": {str(scale): [interval.low, interval.high] for scale, interval in correlations.items()},
        }

    return {scorer: of(scorer) for scorer in pools.scores}


def write_advised(results_path: Path, budgets: Sequence[int]) -> str:
    """Write `ADVICE` beside a pool's results, and one for every other reward that scored, named after it; return a table in
    Markdown and where the file is."""
    results = json.loads(Path(results_path).read_text(encoding="utf-8"))
    prices, pools = Prices.from_json(results["prices"]), largest_pools(results)
    found, enough = [advise(pools, prices, pictures) for pictures in budgets], good_enough(pools)
    path = Path(results_path).parent / ADVICE
    for scorer, advice in to_json(results, prices, pools, found, enough).items():
        write_advice(path if scorer == pools.first else path.with_name(f"advice-by-{scorer}.json"), advice)
    table = markdown_table([_row(advice, prices, pools) for advice in found])
    stop = "" if enough is None else f" Good enough (`--enough`): {enough:.3f}, from which on {NEARLY_ALL:.1%} were right."
    return f"{path}\n\n{pools.prompts} prompts, {pools.samples} samples each. {_NOTE}{stop}\n\n{table}"


def _row(advice: Advice, prices: Prices, pools: Pools) -> Row:
    """Budget, plan, its cost, differences to Best-of-N."""
    plan, cost, gains = advice.plan, float(advice.pictures), dict.fromkeys(pools.metrics, "")
    spoken = f"Best-of-{advice.pictures}: no cut pays"
    if plan:
        cut, few = plan.stages[0], plan.samples > pools.samples
        more = "; the pools hold fewer samples than it starts, so it was rated with fewer" if few else ""
        spoken = f"{plan.samples} start, {cut.keep} finish after scale {cut.scale}, scored by {advice.scorer}{more}"
        cost = prices.pictures(plan, scorer_named(advice.scorer).reward)
        gains = {metric: gain.difference.told("+.4f") for metric, gain in advice.gains.items()}
    return [
        ("budget", str(advice.pictures)), ("plan", spoken), ("cost, pictures", f"{cost:.2f}"),
        *((f"{metric} above Best-of-N", gain) for metric, gain in gains.items()),
        (f"{pools.first}, chosen unseen", advice.unseen.difference.told("+.4f") if advice.unseen else ""),
    ]


def largest_pools(results: dict[str, Any]) -> Pools:
    """The pools of the most samples in the results of the experiment `pool`, by every reward that scored."""
    samples = max(results["n"] or (int(name.split("-")[1]) for name in results["arms"]))
    looking = [Scorer(reward, foreseen) for foreseen in (False, True) for reward in results["world"]["rewards"]]
    arms = {scorer: pool_name(samples, scorer) for scorer in looking}
    return pools_of(results, {scorer.name: arm for scorer, arm in arms.items() if arm in results["arms"]})


# The file -------------------------------------------------------------------------------------------------------------


def write_advice(path: Path, advice: dict[str, Any]) -> None:
    write(path, json.dumps(advice, indent=1, sort_keys=True) + "\n")


def read_advice(path: str | Path) -> dict[str, Any]:
    """What `advise.to_json` made. Raises UnusableFile for anything else."""
    with refusing(Path(path), "Write it again: python -m lab.experiment advise."):
        advice = parse_json(read_text(path))
        if advice["format"] != FORMAT:
            raise ValueError(f"its format is {advice['format']!r}, expected {FORMAT}")
        from_json(advice)
    return advice


def seen_before(advice: Mapping[str, Any] | None, prompts: Collection[str]) -> str:
    """A sentence on how many of these prompts the advice was drawn of; empty where it was of others."""
    drawn_of = set(advice.get("drawn_of", ())) if advice else set()
    seen = sum(Prompt(text).digest in drawn_of for text in prompts)
    return f"{seen} of {len(prompts)} prompts are among those its plans were chosen by, which flatters these plans." if seen else ""


def measured_by(advice: Mapping[str, Any] | None, world: Mapping[str, Any]) -> Measured | None:
    """What foretells the end, as advice tells it. world: as `World.describe` tells it. Raises ValueError for another model's."""
    if advice is None:
        return None
    if advice["fingerprint"] != world["fingerprint"]:
        raise ValueError(
            f"the advice is of {advice['model']} ({advice['fingerprint'][:8]}), this is {world['model']} "
            f"({world['fingerprint'][:8]}); draw a pool of this model: python -m lab.experiment advise"
        )
    return from_json(advice)
