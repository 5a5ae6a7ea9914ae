"""What a search costs, from shapes alone: operations, bytes of keys and values, activations. Every figure has its home here.

A multiply and an add are two operations. Counted are matrix products, attention and convolutions; norms, activations, drawing,
selecting and reducing features are under 1% together. The text encoder runs once per prompt, however one searches, and is not
counted. Importing this needs no torch. Start reading at `Search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .config import ModelConfig, TokenizerConfig, TransformerConfig
from .scales import Grid, ScaleSchedule

if TYPE_CHECKING:
    from torch import Tensor

    from .extractors.base import FeatureExtractor
    from .image_model import ImageModel
    from .rewards.base import Reward
    from .search.plan import Plan
    from .state import LineageStep, SearchState

FLOAT32 = 4  # bytes; the residual stream and the logits are computed in it, and pictures on a processor
DECODED_TOGETHER = 2**20  # pixels; a graphics card is full of work with these, and a whole picture of them has to fit anyway
PROMPT_TOKENS = 32  # a prompt's usual length, for networks that read it
LOOKING_BYTES = 64 * 2**20  # generous for one picture's activations in a vision transformer


# The image model ------------------------------------------------------------------------------------------------------


def scale_flops(
    sizes: TransformerConfig, schedule: ScaleSchedule, scale: int, samples: int, branches: int, text_tokens: int
) -> int:
    """Operations of ``Infinity.forward_scale`` for ``samples`` samples in ``branches`` guidance branches.

    Per token and layer 12 C^2 + 4 C F in the linear layers (queries, keys, values and output of self-attention, query and output
    of cross-attention, two feed-forward layers) and 4 C per attended token. The branches share the embedding of their input.
    """
    width, tokens = sizes.embed_dim, samples * schedule.tokens[scale]
    attended = sum(schedule.tokens[: scale + 1]) + text_tokens
    layers = sizes.depth * tokens * (12 * width**2 + 4 * width * sizes.mlp_dim + 4 * width * attended)
    head = 4 * width * (tokens * sizes.bits_per_token + width)
    return branches * (layers + head) + (2 * tokens * width * sizes.bits_per_token if scale else 0)


def text_flops(sizes: TransformerConfig, text_tokens: int) -> int:
    """Operations of ``Infinity.project_text`` for a prompt and its negative, for all layers."""
    width, channels = sizes.embed_dim, sizes.text_channels
    per_token = 6 * channels * width + 2 * width**2 + sizes.depth * 4 * width**2 + 4 * width
    return 2 * (text_tokens * per_token + 14 * width**2)


def decoder_flops(sizes: TokenizerConfig, cells: Grid) -> int:
    """Operations of decoding one picture whose features lie on ``cells``."""
    area, width = math.prod(cells), sizes.base_ch * sizes.ch_mult[-1]
    total = area * (_conv(sizes.codebook_dim, width) + 4 * _conv(width, width))
    for level in range(len(sizes.ch_mult) - 1, -1, -1):
        before, width = width, sizes.base_ch * sizes.ch_mult[level]
        total += area * _blocks(before, width, sizes.num_res_blocks + 1)
        if sizes.upsamples(level):
            area *= 4
            total += area * _conv(width, width)
    return total + area * _conv(width, 3)


def _conv(channels_in: int, channels_out: int, side: int = 3) -> int:
    return 2 * side**2 * channels_in * channels_out


def _blocks(before: int, width: int, count: int) -> int:
    """Residual blocks of one resolution, per cell; the first changes the width."""
    return _conv(before, width) + (2 * count - 1) * _conv(width, width) + (before != width) * _conv(before, width, 1)


# What looks at samples ------------------------------------------------------------------------------------------------


class Look(NamedTuple):
    """What an extractor or a reward takes. each: operations per picture. prompt: once per prompt. looks_at: as an extractor's.
    ahead: for a reward that foretells from features, the scales it does that at and the operations per sample."""

    each: int = 0
    prompt: int = 0
    looks_at: str = "images"
    ahead: tuple[tuple[int, int], ...] = ()


NOTHING = Look(looks_at="features")


def _encoder(tokens: int, width: int, hidden: int, layers: int) -> int:
    """A plain transformer encoder over one sequence."""
    return layers * (tokens * (8 * width**2 + 4 * width * hidden) + 4 * tokens**2 * width)


def _tower(side: int, patch: int, width: int, hidden: int, layers: int, extra: int = 1) -> int:
    """A vision transformer for pictures of ``side`` pixels; ``extra`` tokens stand beside its patches."""
    patches = (side // patch) ** 2
    return 6 * patches * patch**2 * width + _encoder(patches + extra, width, hidden, layers)


def _stack(*widths: int) -> int:
    return sum(2 * before * after for before, after in pairwise(widths))


def _image_reward(text_tokens: int) -> Look:
    """BLIP's ViT-L/16 and a BERT-base that looks at its 197 tokens in every layer, then the head."""
    seen, width, layers = 197, 768, 12
    cross = 4 * text_tokens * width**2 + 4 * seen * 1024 * width + 4 * text_tokens * seen * width
    text = _encoder(text_tokens, width, 3072, layers) + layers * cross
    return Look(_tower(224, 16, 1024, 4096, 24) + text + _stack(width, 1024, 128, 64, 16, 1))


def _vit_h(text_tokens: int) -> Look:
    """CLIP ViT-H/14, which HPS v2.1 and PickScore are tuned from."""
    return Look(_tower(224, 14, 1280, 5120, 32) + _stack(1280, 1024), _encoder(text_tokens, 1024, 4096, 24) + _stack(1024, 1024))


def _vit_l(text_tokens: int) -> Look:
    """CLIP ViT-L/14."""
    return Look(_tower(224, 14, 1024, 4096, 24) + _stack(1024, 768), _encoder(text_tokens, 768, 3072, 12) + _stack(768, 768))


def _aesthetic(text_tokens: int) -> Look:
    """SigLIP so400m/14 at 384 pixels, one query that pools its 729 tokens, and the head; it reads no prompt."""
    width, hidden, tokens = 1152, 4304, 729
    pool = 4 * width**2 + 4 * tokens * width**2 + 4 * tokens * width + _stack(width, hidden, width)
    return Look(_tower(384, 14, width, hidden, 27, extra=0) + pool + _stack(width, 1024, 128, 64, 16, 1))


_DINOV2 = Look(_tower(224, 14, 1024, 4096, 24, extra=5))  # ViT-L/14 with a class token and 4 registers: 261 tokens
_INCEPTION = Look(2 * 5_710_000_000)  # multiply-adds as torchvision lists them for inception_v3
# By the networks that the registry names, for a prompt of so many tokens. What has none is arithmetic on few numbers.
NETWORKS: dict[str, Callable[[int], Look]] = {
    "": lambda text_tokens: NOTHING,
    "blip": _image_reward,
    "vit-h": _vit_h,
    "vit-l": _vit_l,
    "siglip": _aesthetic,
    "dinov2": lambda text_tokens: _DINOV2,
    "inception": lambda text_tokens: _INCEPTION,
}


def counted(function: Callable[..., Any], *given: Any) -> int:
    """Operations of a call, counted while it runs: for networks of a user's own, and to check what stands above."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # a processor's fused attention is not counted
        function(*given)
    return counter.get_total_flops()


def extractor_look(extractor: FeatureExtractor, image: Tensor) -> Look:
    """What an extractor takes per finished picture (1, H, W, 3), as `reward_look` tells it of a reward."""
    if extractor.looks_at != "images":
        return NOTHING
    return _published(extractor) or Look(counted(extractor.describe, image))


def reward_look(reward: Reward, image: Tensor, prompt: str) -> Look:
    """What a reward takes per finished picture (1, H, W, 3): the figures of the published networks it names in `networks`, as in a
    host; otherwise counted on this one, under a prompt that it has read before."""
    return _published(reward) or Look(counted(reward.score, image, prompt), ahead=getattr(reward, "foretelling_flops", ()))


def grey(config: ModelConfig, schedule: ScaleSchedule) -> Tensor:
    """A finished picture (1, H, W, 3) that nobody had to draw, to count on."""
    import torch

    height, width = (side * config.pixels_per_token for side in schedule.final)
    return torch.full((1, height, width, 3), 0.5)


def _published(looker: Reward | FeatureExtractor) -> Look | None:
    """All networks that it names together; None where it names none, or one that nobody here has figures of."""
    named = tuple(getattr(looker, "networks", ()))
    if not any(named) or not set(named) <= NETWORKS.keys():
        return None
    looks = [NETWORKS[name](PROMPT_TOKENS) for name in named]
    return Look(sum(look.each for look in looks), sum(look.prompt for look in looks))


# Bytes ----------------------------------------------------------------------------------------------------------------


def token_bytes(sizes: TransformerConfig, branches: int, itemsize: int) -> int:
    """Bytes of one token's keys and values: two per layer, of the model's width."""
    return 2 * sizes.depth * branches * sizes.embed_dim * itemsize


def cache_tokens(schedule: ScaleSchedule, through: int) -> int:
    """Tokens whose keys and values are stored after scale ``through``; the last scale stores none."""
    return sum(schedule.tokens[: min(through + 1, len(schedule) - 1)])


def cache_bytes(model: ImageModel, schedule: ScaleSchedule, through: int, branches: int = 2, float8: bool = False) -> int:
    """Bytes of keys and values that one sample holds after scale ``through`` with ``branches`` guidance branches."""
    itemsize = 1 if float8 else model.transformer.dtype.itemsize
    return cache_tokens(schedule, through) * token_bytes(model.config.transformer, branches, itemsize)


def shared_cache_tokens(schedule: ScaleSchedule, running: Sequence[int], lineage: Sequence[LineageStep]) -> list[int]:
    """Tokens whose keys and values a search holds after each scale but the last, told from its lineage alone.

    Of every scale so far one copy for each sample that a living one descends from; the candidates of a scale share one. running:
    samples that run each scale.
    """
    totals = []
    for last in range(len(schedule) - 1):
        living, tokens = set(range(running[last])), 0
        for scale in range(last, -1, -1):
            tokens += schedule.tokens[scale] * len(living)
            steps = _selected(lineage, scale - 1, running[scale]) + _branched(lineage, scale - 1, running)
            for ancestors in steps:
                living = {ancestors[row] for row in living}
        totals.append(tokens)
    return totals


def _selected(lineage: Sequence[LineageStep], scale: int, running: int) -> list[tuple[int, ...]]:
    """Who descends from whom by the selections after a scale, the latest first, to the ``running`` samples that run the next one:
    what leaves another number is their branching."""
    steps = [step.ancestors for step in lineage if step.scale == scale]
    return (steps[:-1] if steps and len(steps[-1]) != running else steps)[::-1]


def _branched(lineage: Sequence[LineageStep], scale: int, running: Sequence[int]) -> list[tuple[int, ...]]:
    """Which sample that ran a scale each candidate drawn there comes from."""
    steps = [step.ancestors for step in lineage if step.scale == scale - 1]
    return [steps[-1]] if scale >= 0 and steps and len(steps[-1]) != running[scale] else []


def traffic_bytes(
    sizes: TransformerConfig, schedule: ScaleSchedule, running: Sequence[int], branches: int, itemsize: int
) -> list[int]:
    """Bytes that each scale must at least read: the blocks' weights once, and all earlier keys and values once."""
    weights = sizes.depth * (6 * sizes.embed_dim**2 + 2 * sizes.embed_dim * sizes.mlp_dim) * itemsize
    before = [0, *accumulate(schedule.tokens)]
    each = token_bytes(sizes, branches, itemsize)
    return [weights + before[scale] * samples * each for scale, samples in enumerate(running)]


def activation_bytes(sizes: TransformerConfig, schedule: ScaleSchedule, scale: int, branches: int, itemsize: int) -> int:
    """Bytes that one sample needs while a scale is computed, beside weights, keys and values: the residual stream and its
    neighbours, the feed-forward layer, the logits."""
    per_token = sizes.embed_dim * 4 * FLOAT32 + sizes.mlp_dim * itemsize * 2 + sizes.bits_per_token * 2 * FLOAT32
    return schedule.tokens[scale] * branches * per_token


def sampling_bytes(model: ImageModel, schedule: ScaleSchedule, scale: int, samples: int, branches: int) -> int:
    """Bytes that sampling a scale needs beside the weights: keys and values, activations, logits."""
    sizes, itemsize = model.config.transformer, model.transformer.dtype.itemsize
    each = cache_bytes(model, schedule, scale, branches) + activation_bytes(sizes, schedule, scale, branches, itemsize)
    return samples * each


def decoded_together(sizes: TokenizerConfig, cells: Grid) -> int:
    """How many pictures of a grid of ``cells`` a graphics card decodes at once.

    As many as one large picture has room for, rather than what happens to be free: so a picture does not depend on that.
    """
    return max(1, DECODED_TOGETHER // (math.prod(cells) * sizes.patch_size**2))


def decoding_bytes(sizes: TokenizerConfig, cells: Grid, itemsize: int = FLOAT32) -> int:
    """Bytes alive at once, beside the weights, while one picture of a grid of ``cells`` is decoded.

    What is held at a level's first convolution (a block's input, that normalised, a copy of it in the layout convolutions take,
    and the output) and at its upsampling (the level's input and last output, then the enlarged one, its copy and the output).
    """
    area, width, most = math.prod(cells), sizes.base_ch * sizes.ch_mult[-1], 0
    for level in range(len(sizes.ch_mult) - 1, -1, -1):
        before, width = width, sizes.base_ch * sizes.ch_mult[level]
        most = max(most, area * (3 * before + width))
        if sizes.upsamples(level):
            most = max(most, area * (before + width) + 4 * area * 3 * width)
            area *= 4
    return most * itemsize


def showing_bytes(state: SearchState, tile: int = 0, whole: bool = False) -> int:
    """Bytes that decoding a state needs on a card, at the size sampled so far or whole: the feature maps in the decoder of the
    pictures decoded at once, or those of a tile of ``tile`` pixels (whose pictures are put together elsewhere), and all pictures
    twice, single and joined."""
    sizes, itemsize = state.model.config.tokenizer, state.model.transformer.dtype.itemsize
    last = len(state.schedule) - 1 if whole else state.last_scale
    cells = state.model.config.sketch_cells(state.schedule, last)
    if tile:
        side = max(1, tile // sizes.patch_size)
        return decoding_bytes(sizes, (min(cells[0], side), min(cells[1], side)), itemsize)
    pictures = 2 * state.samples * math.prod(cells) * sizes.patch_size**2 * 3 * FLOAT32
    return min(state.samples, decoded_together(sizes, cells)) * decoding_bytes(sizes, cells, itemsize) + pictures


def looking_bytes(pictures: int) -> int:
    """Bytes that a reward or an extractor needs to look at pictures, a chunk at a time."""
    from .vision.network import CHUNK

    return min(pictures, CHUNK) * LOOKING_BYTES


# A search -------------------------------------------------------------------------------------------------------------


class ScaleCost(NamedTuple):
    """What happens at one scale. transformer, decode, features, reward: operations. cache_bytes: keys and values of the samples
    that run it, where no two share an ancestor. cells: the grid that pictures are decoded on there."""

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
        """Scale by scale."""
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
        """All in all."""
        forwards = sum(scale.samples * tokens for scale, tokens in zip(self.scales, self.schedule.tokens, strict=True))
        sums = [sum(getattr(scale, name) for scale in self.scales) for name in ("pictures", "scored", "described")]
        return Cost(sum(self.parts.values()), forwards, *sums)

    def look(self, scale: int) -> int:
        """Operations of scoring one sample after a scale: its decode and the reward, or a reward that foretells alone."""
        ahead = dict(self.reward.ahead)
        if scale in ahead:
            return ahead[scale]
        cells = self.config.sketch_cells(self.schedule, len(self.schedule) - 1 if self.whole else scale)
        return decoder_flops(self.config.tokenizer, cells) + self.reward.each

    def _scale(self, scale: int) -> ScaleCost:
        sizes, samples, branches = self.config.transformer, self.plan.running(scale), self.branches[scale]
        pictures, described, scored = self._looked(scale)
        cells = self.config.sketch_cells(self.schedule, len(self.schedule) - 1 if self.whole else scale)
        return ScaleCost(
            scale, samples, branches,
            scale_flops(sizes, self.schedule, scale, samples, branches, self.text_tokens),
            pictures, cells, pictures * decoder_flops(self.config.tokenizer, cells),
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
