"""The search state: a value that holds everything about the samples of one search.

A state is never changed. Sampling, selecting and scoring return new states that share the old one's tensors, so a state can be
kept, branched from and compared for as long as anybody holds it. Bits are the truth: the accumulated features and the cache can
be rebuilt from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .bsq.bits import empty_features
from .config import StepSampling
from .image_model import ImageModel
from .infinity.cache import KVCache
from .infinity.model import LEVELS, TextContext
from .infinity.text import Conditioning
from .names import MAX_SEED
from .rewards.base import Answers
from .scales import ScaleSchedule
from .selection import Selection, check_rows, choose
from .threads import threads_for


class LineageStep(NamedTuple):
    """One selection in a state's past: after ``scale``, survivor i descends from row ``ancestors[i]`` of the samples before.
    Candidates of one scale part after the scale before it.

    ``scores`` are those of all samples before the selection at that scale (NaN where nothing scored them). ``before`` holds their
    bits, so that those who died can still be drawn: (P, L, Z) uint8 per scale, empty where a state comes from a file."""

    scale: int
    ancestors: tuple[int, ...]
    scores: tuple[float, ...]
    ess: float
    reason: str
    before: tuple[Tensor, ...] = ()

    def __repr__(self) -> str:
        return f"LineageStep({self.scale}, {self.ancestors}, {self.scores}, ess {self.ess}, {self.reason!r})"


class SearchState(NamedTuple):
    """P samples of one prompt, finished up to scale ``next_scale - 1``.

    ``bits`` holds (P, L, Z) uint8 per finished scale, ``features`` (P, C, h, w) the accumulated codes on the final grid,
    ``cache`` the keys and values of the finished scales (None: rebuilt by replay when needed), ``scores`` (P, S) float32 with
    NaN where a scale was not scored, ``log_weights`` (P,) float64 the weights that no resampling has spent yet (zeros: equal),
    ``lineage`` the selections so far, ``steps`` the settings every scale was drawn with, ``answers`` what the last scores are made
    of where their reward told.
    """

    model: ImageModel
    conditioning: Conditioning
    text: TextContext
    schedule: ScaleSchedule
    seed: int
    next_scale: int
    bits: tuple[Tensor, ...]
    features: Tensor
    cache: KVCache | None
    scores: Tensor
    log_weights: Tensor
    lineage: tuple[LineageStep, ...]
    steps: tuple[StepSampling, ...]
    answers: Answers | None = None

    @property
    def samples(self) -> int:
        """P: number of living samples."""
        return len(self.features)

    @property
    def finished(self) -> bool:
        return self.next_scale == len(self.schedule)

    @property
    def last_scale(self) -> int:
        """The scale sampled last (-1 before the first)."""
        return self.next_scale - 1

    def select(self, selection: Selection | Sequence[int]) -> SearchState:
        """The state of the selected samples; everything that belongs to a sample goes with it. Copies no keys or values.

        Takes a Selection or plain row numbers. Raises ValueError for an empty selection or a row that does not exist.
        """
        if not isinstance(selection, Selection):
            selection = choose(selection, self.samples)
        rows = selection.ancestors.to("cpu", torch.int64)
        check_rows(rows.tolist(), self.samples)
        scores, ess = self.scores_at(self.last_scale), float(selection.ess)
        step = LineageStep(self.last_scale, tuple(rows.tolist()), scores, ess, selection.reason, self.bits)
        local = rows.to(self.features.device)
        return self._replace(
            bits=tuple(bits[rows.to(bits.device)] for bits in self.bits),
            features=self.features[local],
            cache=None if self.cache is None else self.cache.select(rows),
            scores=self.scores[rows],
            log_weights=torch.zeros(len(rows), dtype=torch.float64) if selection.resampled else self.log_weights[rows],
            lineage=(*self.lineage, step),
            answers=None if self.answers is None else self.answers.select(rows),
        )

    @property
    def selections_here(self) -> int:
        """How many selections there were since the last scale was sampled."""
        return sum(step.scale == self.last_scale for step in self.lineage)

    def scores_at(self, scale: int) -> tuple[float, ...]:
        """The samples' scores at a scale (NaN where there are none)."""
        if scale < 0:
            return (math.nan,) * self.samples
        return tuple(self.scores[:, scale].tolist())

    def with_scores(self, scores: Tensor, answers: Answers | None = None) -> SearchState:
        """The state with the scores (P,) of the scale sampled last, and what they are made of.

        Raises ValueError before the first scale.
        """
        if self.next_scale == 0:
            raise ValueError("Nothing is sampled yet, so there is nothing to score; sample at least one scale first.")
        if tuple(scores.shape) != (self.samples,):
            came = f"{len(scores)} scores" if scores.ndim == 1 else f"scores of shape {tuple(scores.shape)}"
            raise ValueError(f"{came} came for {self.samples} samples; give one per sample")
        history = self.scores.clone()
        history[:, self.last_scale] = scores.to("cpu", torch.float32)
        return self._replace(scores=history, answers=answers)

    def without_cache(self) -> SearchState:
        """The state without keys and values; they are replayed from the bits when sampling goes on."""
        return self._replace(cache=None)

    def __repr__(self) -> str:
        return (
            f"SearchState({self.samples} samples, scale {self.next_scale}/{len(self.schedule)}, seed {self.seed}, "
            f"{self.conditioning.prompt[:40]!r}, {self.cache})"
        )


def start(
    model: ImageModel, conditioning: Conditioning, samples: int, seed: int, schedule: ScaleSchedule | None = None
) -> SearchState:
    """A state of ``samples`` samples before the first scale. The prompt is projected here, once for all scales and samples.

    Raises ValueError for fewer than one sample, an impossible seed or schedule, or text features of another model.
    """
    schedule = schedule or model.schedule()
    if samples < 1:
        raise ValueError(f"A search needs at least one sample; got {samples}.")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"A seed is a whole number from 0 to 2**64 - 1; got {seed}.")
    if len(schedule) > LEVELS:
        raise ValueError(f"The schedule has {len(schedule)} scales; the model knows {LEVELS} at most.")
    texts = model.transformer.guidance_texts(conditioning)
    with torch.inference_mode(), threads_for(model.transformer, sum(map(len, texts))):
        text = model.transformer.project_text(texts)
    features = empty_features(samples, model.config.tokenizer.codebook_dim, schedule, model.patchify)
    scores = torch.full((samples, len(schedule)), math.nan)
    weights = torch.zeros(samples, dtype=torch.float64)
    return SearchState(model, conditioning, text, schedule, seed, 0, (), features, None, scores, weights, (), ())
