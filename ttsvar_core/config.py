"""Sizes of the models and settings of the sampling, as plain immutable values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from .scales import Grid, ScaleSchedule, official


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of an Infinity transformer.

    ``codebook_dim`` counts the bits of one tokenizer cell; with spatial patchify a token covers 2x2 cells.
    Raises ValueError for sizes that do not fit together.
    """

    embed_dim: int
    depth: int
    num_heads: int
    codebook_dim: int = 32
    mlp_ratio: float = 4.0
    block_chunks: int = 1
    text_channels: int = 2048
    text_maxlen: int = 512
    apply_spatial_patchify: bool = False

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads or self.head_dim % 4:
            raise ValueError(
                f"Width {self.embed_dim} over {self.num_heads} heads gives heads of {self.embed_dim / self.num_heads:g}; "
                "2-D rotary positions need a whole multiple of 4."
            )
        if self.block_chunks < 1 or self.depth % self.block_chunks:
            raise ValueError(f"{self.depth} layers do not divide into {self.block_chunks} chunks.")

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def bits_per_token(self) -> int:
        """Z: bits predicted per token (four cells per token with spatial patchify)."""
        return self.codebook_dim * (4 if self.apply_spatial_patchify else 1)

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the feed-forward layers, rounded to 256 as in the published models."""
        return round(self.embed_dim * self.mlp_ratio / 256) * 256

    @property
    def pool_heads(self) -> int:
        """Heads of the attentive text pooling: one per 128 text channels (per 64 above a width of 4096)."""
        return self.text_channels // (64 if self.embed_dim > 4096 else 128)


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the binary-spherical tokenizer: a convolutional encoder and decoder around ``codebook_dim`` bits per cell."""

    codebook_dim: int
    base_ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4, 4)
    num_res_blocks: int = 2
    patch_size: int = 16
    smallest_side: int = 256  # pixels, of the smallest pictures it was trained on: the published ones saw 0.06M and more

    def __post_init__(self) -> None:
        if 2 ** int(math.log2(self.patch_size)) != self.patch_size or 2 ** (len(self.ch_mult) - 1) < self.patch_size:
            raise ValueError(f"A stride of {self.patch_size} does not fit {len(self.ch_mult)} resolutions.")

    def upsamples(self, level: int) -> bool:
        """Whether the decoder's level (0 is the finest) ends in an upsampling."""
        return 1 <= level <= math.log2(self.patch_size)


class StepSampling(NamedTuple):
    """Settings of one scale: guidance strength, temperature tau, nucleus top_p, where guidance is applied, and how certain the
    bits may be at most (None: as tau leaves them)."""

    guidance: float
    tau: float
    top_p: float
    guidance_layers: tuple[int, ...]
    certainty: float | None = None


PerScale = float | tuple[float, ...]
DIVERSE_AR = (0.60, 0.60, 0.65, 0.70, 0.75, 0.80)
"""How certain the bits of scales 0 to 5 may be in the mean, for samples that differ (DiverseAR, arXiv 2512.02931)."""


@dataclass(frozen=True)
class Sampling:
    """How bits are drawn. ``guidance``, ``tau`` and ``top_p`` are one value, or one value per scale.

    ``guidance_layers``: 0 guides the logits; -k guides the output of the k-th layer from the end. ``certainty``: of the first
    scales, how probable a bit's likelier value may be in the mean; there a tau of 1 or more is found for every sample, in the
    given one's place (see certainty.py).
    Raises ValueError for tau <= 0, top_p outside (0, 1], a guidance that is not finite, guidance that applies nowhere, or a
    certainty outside (.5, 1].
    """

    guidance: PerScale = 3.0
    tau: PerScale = 0.5
    top_p: PerScale = 0.97
    guidance_layers: tuple[int, ...] = (0,)
    certainty: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("guidance", "tau", "top_p"):
            value = getattr(self, name)
            values = tuple(map(float, value)) if isinstance(value, Sequence) else (value,)
            for setting in values:
                _check(name, setting)
            object.__setattr__(self, name, values if isinstance(value, Sequence) else value)
        object.__setattr__(self, "guidance_layers", tuple(int(layer) for layer in self.guidance_layers))
        object.__setattr__(self, "certainty", tuple(float(target) for target in self.certainty))
        for target in self.certainty:
            if not 0.5 < target <= 1:
                raise ValueError(f"certainty is {target:g}; the likelier of two values has more than .5, and at most 1.")
        if any(layer > 0 for layer in self.guidance_layers):
            raise ValueError(f"Guidance layers are 0 (the logits) or negative (inner layers); got {self.guidance_layers}.")
        if self.guides() and not self.guidance_layers:
            raise ValueError(f"Guidance is {self.guidance}, but no layer is guided: name one (0: the logits), or take guidance 1.")

    def at(self, scale: int) -> StepSampling:
        """The settings of one scale; raises ValueError if a per-scale list is too short."""
        certainty = self.certainty[scale] if scale < len(self.certainty) else None
        return StepSampling(
            _pick("guidance", self.guidance, scale), 1.0 if certainty else _pick("tau", self.tau, scale),
            _pick("top_p", self.top_p, scale), self.guidance_layers, certainty,
        )

    def check(self, depth: int, scales: range) -> None:
        """Raise ValueError for a layer that a transformer of ``depth`` layers lacks, or a scale without a value of its own."""
        if min(self.guidance_layers, default=0) < -depth:
            raise ValueError(
                f"Guidance layers {self.guidance_layers}, but the transformer has {depth} layers: take 0 (the logits), or -1 "
                f"(the last layer) to -{depth} (the first)."
            )
        for scale in scales:
            self.at(scale)

    def guides(self, scale: int = 0) -> bool:
        """Whether any scale from ``scale`` on is guided, and so needs the unconditional branch until then."""
        values = self.guidance[scale:] if isinstance(self.guidance, tuple) else (self.guidance,)
        return any(value != 1.0 for value in values)

    def guided_until(self, scale: int, scales: int) -> Sampling:
        """These settings with guidance ended for good after ``scale``, the last one that is guided, of ``scales``.

        Raises ValueError for a scale that does not exist. Source: FasterVAR, arXiv 2512.16483, which ends it before the last three.
        """
        if not 0 <= scale < scales:
            raise ValueError(f"guidance until scale {scale}: the last scale is {scales - 1}; name 0 to {scales - 1}.")
        guided = tuple(self.at(place).guidance for place in range(scale + 1))
        return replace(self, guidance=guided + (1.0,) * (scales - scale - 1))

    def stated_in(self, data: Mapping[str, Any]) -> Sampling:
        """These settings, those that the flat layout of `ModelConfig.from_json` states in their place."""
        return replace(self, **_given(data, _SAMPLING_KEYS))

    def branches(self, scales: int) -> tuple[int, ...]:
        """Guidance branches that run each of ``scales``: two until guidance has ended for good."""
        return tuple(2 if self.guides(scale) else 1 for scale in range(scales))


def _check(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; got {value}.")
    if name == "tau" and value <= 0:
        raise ValueError(f"tau is a temperature and must be above 0; got {value}. Use a small value such as 0.01 for greedy.")
    if name == "top_p" and not 0 < value <= 1:
        raise ValueError(f"top_p must lie in (0, 1]; got {value}. 1 keeps every bit value.")


def _pick(name: str, value: PerScale, scale: int) -> float:
    if not isinstance(value, tuple):
        return float(value)
    if scale >= len(value):
        raise ValueError(f"{name} has {len(value)} values, but scale {scale} is to run; give one value, or one per scale.")
    return value[scale]


FORESIGHT_GROUPS = 8


@dataclass(frozen=True)
class ForesightConfig:
    """A network that foretells final features (foresight.py). layers: of the transformer, whose values it reads. scales: those it
    foretells after. width, depth: its own. Raises ValueError for a width that does not divide."""

    layers: tuple[int, ...]
    scales: tuple[int, ...]
    width: int = 96
    depth: int = 4

    def __post_init__(self) -> None:
        if self.width % FORESIGHT_GROUPS:
            raise ValueError(f"a foresight network of width {self.width} does not divide into {FORESIGHT_GROUPS} groups")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ForesightConfig:
        """From what `dataclasses.asdict` made of one, through JSON."""
        return cls(**_given(data, {field.name: field.name for field in fields(cls)}))


@dataclass(frozen=True)
class ModelConfig:
    """A transformer and its tokenizer, how they are sampled by default, and what only some models have: a schedule of their own, a
    network that foretells final features."""

    name: str
    transformer: TransformerConfig
    tokenizer: TokenizerConfig
    sampling: Sampling = Sampling()
    own_schedule: ScaleSchedule | None = None
    foresight: ForesightConfig | None = None

    def __post_init__(self) -> None:
        if self.transformer.codebook_dim != self.tokenizer.codebook_dim:
            raise ValueError(
                f"The transformer of {self.name} predicts {self.transformer.codebook_dim} bits per cell, "
                f"its tokenizer has {self.tokenizer.codebook_dim}; they do not belong together."
            )
        self.sampling.check(self.transformer.depth, range(0))

    def schedule(self, height_over_width: float = 1.0, pixel_budget: str = "1M") -> ScaleSchedule:
        """The schedule for an aspect ratio and pixel budget; a model with a schedule of its own always uses that one."""
        return self.own_schedule or official(height_over_width, pixel_budget)

    def sketch_cells(self, schedule: ScaleSchedule, scale: int) -> Grid:
        """The grid of tokenizer cells that sketches are decoded at after ``scale``: that of the first scale from there on whose
        picture has at least the area of the smallest that the tokenizer was trained on."""
        smallest = (self.tokenizer.smallest_side // self.tokenizer.patch_size) ** 2
        side = 2 if self.transformer.apply_spatial_patchify else 1
        grids = [(side * height, side * width) for height, width in schedule.grids[max(0, scale) :]]
        return next((grid for grid in grids if math.prod(grid) >= smallest), grids[-1])

    def foresees(self, scale: int) -> bool:
        """Whether the model foretells its final features after ``scale``."""
        return self.foresight is not None and scale in self.foresight.scales

    @property
    def pixels_per_token(self) -> int:
        """Side of one token in pixels."""
        return self.tokenizer.patch_size * (2 if self.transformer.apply_spatial_patchify else 1)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """From the flat layout stored beside small models (``name.json``): sizes, optional schedule and sampling."""
        transformer = TransformerConfig(**_given(data, {field.name: field.name for field in fields(TransformerConfig)}))
        tokenizer, sampling = TokenizerConfig(**_given(data, _TOKENIZER_KEYS)), Sampling().stated_in(data)
        foresight = ForesightConfig.from_json(data["foresight"]) if "foresight" in data else None
        return cls(data.get("name", "infinity"), transformer, tokenizer, sampling, _schedule_from_json(data), foresight)


# What the fields of a tokenizer's sizes and of the sampling are called in that layout.
_TOKENIZER_KEYS = {
    "codebook_dim": "codebook_dim", "base_ch": "vae_base_ch", "ch_mult": "vae_ch_mult", "num_res_blocks": "vae_num_res_blocks",
    "patch_size": "patch_size", "smallest_side": "vae_smallest_side",
}
_SAMPLING_KEYS = {"guidance": "cfg", "tau": "tau", "top_p": "top_p", "guidance_layers": "cfg_insertion_layer"}


def _given(data: Mapping[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    """The fields that are stated, lists as tuples."""
    stated = {field: data[key] for field, key in keys.items() if key in data}
    return {field: tuple(value) if isinstance(value, list) else value for field, value in stated.items()}


def _schedule_from_json(data: dict[str, Any]) -> ScaleSchedule | None:
    """The grids as listed, or those of the aspect ratio and budget; positions normalised as stated, or as that ratio's are."""
    published = official(data["h_div_w"], data.get("pixel_budget", "1M")) if "h_div_w" in data else None
    if "scale_schedule" not in data:
        return published
    grids = tuple(tuple(grid[-2:]) for grid in data["scale_schedule"])
    reference = data.get("rope_reference_grid") or (published.rope_grid if published else grids[-1])
    return ScaleSchedule(grids, tuple(reference))


# Sizes of the published models (width, layers, heads). Source: the published inference scripts and checkpoint lists.
PRESETS: dict[str, ModelConfig] = {
    name: ModelConfig(name, transformer, TokenizerConfig(codebook_dim=32))
    for name, transformer in {
        "125m": TransformerConfig(768, 12, 8, block_chunks=4),
        "layer16": TransformerConfig(1152, 16, 12, block_chunks=4),
        "layer24": TransformerConfig(1536, 24, 16, block_chunks=4),
        "1b": TransformerConfig(2080, 32, 20, block_chunks=4),
        "layer40": TransformerConfig(2688, 40, 24, block_chunks=4),
        "layer48": TransformerConfig(3360, 48, 28, block_chunks=4),
        "2b": TransformerConfig(2048, 32, 16, block_chunks=8),
    }.items()
}
PRESETS["8b"] = ModelConfig(
    "8b",
    TransformerConfig(
        embed_dim=3584, depth=40, num_heads=28, codebook_dim=14, block_chunks=8, apply_spatial_patchify=True
    ),
    TokenizerConfig(codebook_dim=14, ch_mult=(1, 2, 4, 4), patch_size=8),
    Sampling(tau=1.0),
)
