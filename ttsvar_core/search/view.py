"""What there is to see of a state: features, pictures, scores, vectors; each is made when first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from ..decoding import sketch
from ..rewards.base import explained, foretells, foretold

if TYPE_CHECKING:
    from ..extractors.base import FeatureExtractor
    from ..rewards.base import Reward
    from ..selection import Selection
    from ..state import SearchState
    from .plan import Stage


class View:
    """A state after a scale, as the stages there see it. Lives as long as they act.

    Pictures are decoded once for all that look; scores are taken once and noted in `state`. decoded: how many pictures were
    decoded. seconds: spent decoding, scoring and describing. answers: what the scores are made of, of the samples scored.
    """

    def __init__(
        self,
        state: SearchState,
        reward: Reward | None = None,
        extractor: FeatureExtractor | None = None,
        decode: Callable[[SearchState], Tensor] = sketch,
    ) -> None:
        if state.next_scale == 0:
            raise ValueError("nothing to see: no scale has been sampled yet; sample at least scale 0 first")
        self.state, self.reward, self.extractor = state, reward, extractor
        self.decoded, self.seconds = 0, {}
        self.answers = None
        self._decode, self._images, self._scored = decode, None, False

    @property
    def images(self) -> Tensor:
        """(P, H, W, 3) in [0, 1]."""
        if self._images is None:
            with self.timed("decode"):
                self._images = self._decode(self.state)
            self.decoded += len(self._images)
        return self._images

    def scored(self) -> SearchState:
        """The state with the rewards of its samples at its last scale: of their pictures, or foretold from their features.

        Raises ValueError, naming the reward and the sample, for a reward that is not a finite number.
        """
        if not self._scored and self.reward is not None:
            where, ahead = f" at scale {self.state.last_scale}", foretells(self.reward) and not self.state.finished
            images = None if ahead else self.images
            with self.timed("score"):
                if ahead:
                    self.answers = foretold(self.reward, self.state, where)
                else:
                    self.answers = explained(self.reward, images, self.state.conditioning.prompt, "sample", where)
            self.state, self._scored = self.state.with_scores(self.answers.scores, self.answers), True
        return self.state

    def vectors(self) -> Tensor:
        """See `described`. Raises ValueError as well for an extractor that looks at something else than images or features."""
        seen = {"features": lambda: self.state.features, "images": lambda: self.images}.get(self.extractor.looks_at)
        if seen is None:
            raise ValueError(
                f"extractor {self.extractor.name} looks at {self.extractor.looks_at!r}; expected 'images' or 'features'"
            )
        given = seen()
        with self.timed("describe"):
            return described(self.extractor, given)

    def select(self, selection: Selection) -> None:
        """Go on with the selected samples; pictures that are decoded already go with them."""
        self.state = self.state.select(selection)
        if self._images is not None:
            self._images = self._images[selection.ancestors.to(self._images.device)]

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds spent inside to `seconds`."""
        start = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start


def described(extractor: FeatureExtractor, seen: Tensor) -> Tensor:
    """(P, F), one vector of the extractor for each of P samples seen. Raises ValueError for an answer in another shape."""
    vectors = extractor.describe(seen)
    if vectors.ndim != 2 or len(vectors) != len(seen):
        raise ValueError(f"extractor {extractor.name} gave shape {tuple(vectors.shape)} for {len(seen)} samples; expected (P, F)")
    return vectors


def act(
    state: SearchState, stage: Stage, reward: Reward | None = None, extractor: FeatureExtractor | None = None,
    decode: Callable[[SearchState], Tensor] = sketch,
) -> tuple[SearchState, Selection | None]:
    """One stage by itself: the state after it and what was selected. Raises ValueError as the stage does."""
    stage.check(state.samples, scored=True)
    view = View(state, reward, extractor, decode)
    selection = stage.select(view)
    if selection is not None:
        view.select(selection)
    return view.state, selection
