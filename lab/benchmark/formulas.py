"""What a search must at least hold and move, from shapes and its lineage alone: what measurements stand beside."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from ttsvar_core.config import TransformerConfig
from ttsvar_core.footprint import token_bytes
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.state import LineageStep


def shared_cache_tokens(schedule: ScaleSchedule, running: Sequence[int], lineage: Sequence[LineageStep]) -> list[int]:
    """Tokens whose keys and values a search holds after each scale but the last, told from its lineage alone.

    Of every scale so far one copy for each sample that a living one descends from; the candidates of a scale share one. running:
    samples that run each scale.
    """
    read, totals = [], []  # read: of every scale so far the row whose keys and values each living sample reads
    for scale in range(len(schedule) - 1):
        steps = [step.ancestors for step in lineage if step.scale == scale - 1]
        branched = [steps.pop()] if steps and len(steps[-1]) != running[scale] else []
        read = _descended(read, steps)
        read = _descended([*read, tuple(range(running[scale]))], branched)
        totals.append(sum(count * len(set(rows)) for count, rows in zip(schedule.tokens, read, strict=False)))
    return totals


def _descended(read: list[tuple[int, ...]], steps: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    for ancestors in steps:
        read = [tuple(rows[ancestor] for ancestor in ancestors) for rows in read]
    return read


def traffic_bytes(
    sizes: TransformerConfig, schedule: ScaleSchedule, running: Sequence[int], branches: int, itemsize: int
) -> list[int]:
    """Bytes that each scale must at least read: the blocks' weights once, and all earlier keys and values once."""
    weights = sizes.depth * (6 * sizes.embed_dim**2 + 2 * sizes.embed_dim * sizes.mlp_dim) * itemsize
    before = [0, *accumulate(schedule.tokens)]
    each = token_bytes(sizes, branches, itemsize)
    return [weights + before[scale] * samples * each for scale, samples in enumerate(running)]
