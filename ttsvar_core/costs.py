"""What a search costs, from shapes alone. Operations of the model stand in `flops`, of published rewards and extractors in
`networks`, of those that are loaded in `looks`, bytes in `footprint`.

A multiply and an add are two operations. Counted are matrix products, attention and convolutions; norms, activations, drawing,
selecting and reducing features are under 1% together. The text encoder runs once per prompt, however one searches, and is not
counted. Importing this needs no torch. Start reading at `Search`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .config import ModelConfig
from .flops import decoder_flops, foresight_flops, scale_flops, text_flops
from .footprint import activation_bytes, cache_tokens, token_bytes
from .scales import Grid, ScaleSchedule

if TYPE_CHECKING:
    from .search.plan import Plan


class Look(NamedTuple):
    """What an extractor or a reward takes. each: operations per picture. prompt: once per prompt. looks_at: as an extractor's.
    ahead: for a reward that foretells from features, the scales it does that at and the operations per sample."""

    each: int = 0
    prompt: int = 0
    looks_at: str = "images"
    ahead: tuple[tuple[int, int], ...] = ()


NOTHING = Look(looks_at="features")


class ScaleCost(NamedTuple):
    """What happens at one scale. transformer, decode, features, reward: operations; what foretells pictures counts as decoding.
    cache_bytes: keys and values of the samples that run it, where no two share an ancestor. cells: the grid that pictures are
    decoded on there."""

    scale: int
    samples: int
    branches: int
    transformer: int
    pictures: int
    cells: Grid
    decode: int
    described: int
    features: int
    scored: int
    reward: int
    cache_bytes: int
    activation_bytes: int


class Cost(NamedTuple):
    """What a search spends on one prompt, all in all. token_forwards: without guidance's factor. scored, described: samples that
    the reward and the extractor saw."""

    flops: int
    token_forwards: int
    decodes: int
    scored: int
    described: int


@dataclass(frozen=True)
class Search:
    """A search as far as its costs go.

    branches: guidance branches that run each scale. text_tokens: length of the prompt. whole: unfinished samples are decoded whole,
    not at the size sampled so far. itemsize: bytes per number of keys, values and activations.
    """

    config: ModelConfig
    plan: Plan
    schedule: ScaleSchedule
    branches: tuple[int, ...]
    text_tokens: int
    extractor: Look = NOTHING
    reward: Look = NOTHING
    whole: bool = False
    itemsize: int = 2

    @cached_property
    def scales(self) -> list[ScaleCost]:
        return [self._scale(scale) for scale in range(len(self.schedule))]

    @property
    def parts(self) -> dict[str, int]:
        """Operations by what computes; "text" is the prompt projected for all layers."""
        names = ("transformer", "decode", "features", "reward")
        parts = {name: sum(getattr(scale, name) for scale in self.scales) for name in names}
        parts["reward"] += self.reward.prompt if any(scale.scored for scale in self.scales) else 0
        return {"text": text_flops(self.config.transformer, self.text_tokens), **parts}

    @property
    def total(self) -> Cost:
        forwards = sum(scale.samples * tokens for scale, tokens in zip(self.scales, self.schedule.tokens, strict=True))
        sums = [sum(getattr(scale, name) for scale in self.scales) for name in ("pictures", "scored", "described")]
        return Cost(sum(self.parts.values()), forwards, *sums)

    @property
    def picture(self) -> Search:
        """One picture of the same model and prompt, drawn without a search and guided throughout."""
        from .search.plan import raw

        branches = self.config.sampling.branches(len(self.schedule))
        return replace(self, plan=raw(), branches=branches, extractor=NOTHING, reward=NOTHING, whole=False)

    def look(self, scale: int) -> int:
        """Operations of scoring one sample after a scale: its decode and the reward, or a reward that foretells alone."""
        ahead = dict(self.reward.ahead)
        if scale in ahead:
            return ahead[scale]
        return self._showing(scale, self._cells(scale)) + self.reward.each

    def _cells(self, scale: int) -> Grid:
        """What pictures are decoded on after a scale."""
        return self.config.sketch_cells(self.schedule, len(self.schedule) - 1 if self.whole else scale)

    def _showing(self, scale: int, cells: Grid) -> int:
        """Operations of one picture after a scale, what foretells it included."""
        config, ahead = self.config, 0
        if self.plan.foreseen and config.foresees(scale):
            ahead = foresight_flops(config.foresight, config.transformer, cells)
        return decoder_flops(config.tokenizer, cells) + ahead

    def _scale(self, scale: int) -> ScaleCost:
        sizes, samples, branches = self.config.transformer, self.plan.running(scale), self.branches[scale]
        pictures, described, scored = self._looked(scale)
        cells = self._cells(scale)
        return ScaleCost(
            scale, samples, branches,
            scale_flops(sizes, self.schedule, scale, samples, branches, self.text_tokens),
            pictures, cells, pictures * self._showing(scale, cells),
            described, described * self.extractor.each, scored, scored * dict(self.reward.ahead).get(scale, self.reward.each),
            samples * cache_tokens(self.schedule, scale) * token_bytes(sizes, branches, self.itemsize),
            samples * activation_bytes(sizes, self.schedule, scale, branches, self.itemsize),
        )

    def _looked(self, scale: int) -> tuple[int, int, int]:
        """How many pictures are decoded, described and scored after a scale: decoded and scored once, by the first that asks."""
        seen = [(stage.sees(samples), samples) for stage, samples in self.plan.met() if stage.scale == scale]
        if scale == len(self.schedule) - 1:
            seen.insert(0, ("scores", self.plan.running(scale) * self.plan.candidates(scale)))
        pictures = {"images"} | ({"vectors"} if self.extractor.looks_at == "images" else set())
        pictures |= set() if scale in dict(self.reward.ahead) else {"scores"}
        decoded, scored = (next((n for what, n in seen if what in kinds), 0) for kinds in (pictures, {"scores"}))
        return decoded, sum(n for what, n in seen if what == "vectors"), scored
