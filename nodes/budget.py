"""What a run will cost, and how much of it is left, in the words a node shows."""

import time

from ..ttsvar_core import costs, flops
from .host import page

_PACES: dict[str, float] = {}  # seconds per operation of each model, measured by the runs of this process


class Budget:
    """The operations of a run by scale, drawing apart from looking; tells what is left while it goes.

    draws, looks: operations by scale. samples: how many run each.
    """

    def __init__(self, model, draws: dict[int, int], looks: dict[int, int], samples: dict[int, int], scales: int) -> None:
        self._key, self._draws, self._looks, self._samples, self._last = model.fingerprint, draws, looks, samples, scales - 1
        self.total = sum(draws.values()) + sum(looks.values())
        self._done, self._began = 0.0, time.monotonic()

    def drawn(self, state) -> str:
        """A scale was drawn, for all samples or for a group of them: where the run stands."""
        scale = state.last_scale
        self._done += self._draws[scale] * state.samples / self._samples[scale]
        return f"scale {scale} of {self._last}, {samples_told(state.samples)}, {duration(self.expected)} left"

    def looked(self, scale: int) -> None:
        """All looking after a scale is done."""
        self._done += self._looks.get(scale, 0)

    def ended(self) -> str:
        """The run is over: how long it took, which the next prediction goes by."""
        _PACES[self._key] = self.elapsed / max(1, self.total)
        return duration(self.elapsed)

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began

    @property
    def expected(self) -> float | None:
        """Seconds for what is left, at this run's pace, or before its first scale at that of the last run."""
        pace = self.elapsed / self._done if self._done else _PACES.get(self._key)
        return None if pace is None else max(0.0, self.total - self._done) * pace


def of_sampling(state, through: int, sampling) -> Budget:
    """What drawing the scales of a state up to one costs."""
    sizes, schedule = state.model.config.transformer, state.schedule
    branches, tokens = sampling.branches(len(schedule)), len(state.conditioning.text)
    scales = range(state.next_scale, min(through + 1, len(schedule)))  # whatever does not exist, sampling refuses with words
    draws = {at: flops.scale_flops(sizes, schedule, at, state.samples, branches[at], tokens) for at in scales}
    return Budget(state.model, draws, {}, dict.fromkeys(scales, state.samples), len(schedule))


def learn_pace(state, sampling) -> None:
    """Learn the pace of a model that nobody ran yet by drawing two thirds of the scales, an eighth of a picture's work, of one
    sample: that of the last of them, as small ones mostly wait. A scale that takes a second is told enough by."""
    from ..ttsvar_core.sampling import sample
    from ..ttsvar_core.state import start

    state = start(state.model, state.conditioning, 1, state.seed, state.schedule)
    for scale in range(2 * len(state.schedule) // 3 + 1):
        page.check_interrupt()
        budget = of_sampling(state, scale, sampling)
        state = sample(state, scale, sampling)
        budget.ended()
        if budget.elapsed > 1:
            break


def of_search(search: costs.Search, model) -> Budget:
    """What a whole search costs."""
    draws = {cost.scale: cost.transformer for cost in search.scales}
    looks = {cost.scale: cost.decode + cost.features + cost.reward for cost in search.scales}
    return Budget(model, draws, looks, {cost.scale: cost.samples for cost in search.scales}, len(search.schedule))


def prediction(search: costs.Search, budget: Budget, memory: int) -> str:
    """A search before it runs: its samples, what it is worth in pictures drawn without one, memory, and time if that is known."""
    path = " → ".join(dict.fromkeys(str(cost.samples) for cost in search.scales))
    samples = f"{path} sample{'s' * (path != '1')}"
    expected = budget.expected
    time_known = "" if expected is None else f", {'about ' if expected >= 1 else ''}{duration(expected)}"
    return f"{samples}: the work of {worth(search):.1f} pictures{time_known}, {size(memory)} beside the weights"


def worth(search: costs.Search) -> float:
    """How many pictures drawn without a search would have cost as much."""
    return search.total.flops / search.picture.total.flops


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return "under 1 s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def size(count: float) -> str:
    """Bytes as people say them."""
    return f"{count / 2**30:.1f} GiB" if count > 2**29 else f"{count / 2**20:.0f} MiB"


def samples_told(count: int) -> str:
    """So many samples."""
    return f"{count} sample" + "s" * (count != 1)
