"""Search again with other draws until an answer is good enough: an easy prompt costs one search, a hard one several.

All searches of a prompt cost the same, and nothing tells beforehand which of them will succeed; then the best rule to stop by is a
fixed score (Weitzman 1979, "Optimal search for the best alternative", with equal boxes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..names import MAX_SEED

if TYPE_CHECKING:
    from ..rewards.base import Reward
    from .run import Result

SUMMED = ("token_forwards", "decodes", "seconds")  # entries of a report
_STEP = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: seeds far apart, and no two the same


def repeated(search: Callable[[int], Result], seed: int, most: int = 1, enough: float | None = None) -> Iterator[Result]:
    """What `search` finds with seeds of their own, one after another: the first that scores `enough` is the last, or the `most`-th.

    The first attempt has `seed` itself, so it is what one search finds; where nothing scores it, it is the last, as none would be
    better. Raises ValueError for fewer than one attempt.
    """
    if most < 1:
        raise ValueError(f"{most} attempts; expected at least 1")
    for place in range(most):
        result = search(seed_of(seed, place))
        yield result
        if result.scores is None or (enough is not None and answered(result) >= enough):
            return


def check_attempts(reward: Reward | None, most: int) -> None:
    """Raise ValueError, with the remedy, for several attempts under a reward whose scores say nothing beside another search's."""
    if most > 1 and getattr(reward, "compares", False):
        raise ValueError(
            f"{reward.name} compares the pictures of one search with each other, so {most} attempts cannot be told apart by it; "
            "blend by 'weighted', or make one attempt"
        )


def seed_of(seed: int, place: int) -> int:
    """The seed of the attempt in this place; the first has `seed`."""
    return (seed + place * _STEP) % (MAX_SEED + 1)


def answered(result: Result) -> float:
    """The score of a search's answer."""
    return float(result.scores[result.best])


def best_of(results: Sequence[Result]) -> Result:
    """The attempt with the best answer, the first of equal ones. Its report tells of all: "attempts" has seed, score and what each
    took, and the sums of `SUMMED` are of all."""
    best = results[0] if len(results) == 1 else max(results, key=answered)
    told = [{"seed": one.state.seed, "score": one.report["answer"]["score"], **_sums([one])} for one in results]
    return best._replace(report=best.report | _sums(results) | {"attempts": told})


def _sums(results: Sequence[Result]) -> dict[str, float]:
    return {name: sum(one.report[name] for one in results) for name in SUMMED}
