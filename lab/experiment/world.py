"""What an experiment runs on: a model, the rewards that search and measure, the extractors, and a verdict if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsvar_core import registry
from ttsvar_core.commands.choices import schedule_of
from ttsvar_core.config import Sampling
from ttsvar_core.extractors.base import FeatureExtractor
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.text import Conditioning, encode_prompt, load_text_encoder
from ttsvar_core.names import REDUCERS
from ttsvar_core.rewards.base import Reward
from ttsvar_core.rewards.scenes import judge_images
from ttsvar_core.rewards.value import load_value, read_value
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.scenes.grammar import parse_prompt
from ttsvar_core.search.save import text_summary
from ttsvar_core.weights import load_bundled, load_model
from ttsvar_core.weights.fingerprint import fingerprints_of

from .controls import Chance, Clarity, TokenizerExtractor

VERDICT = "correct"
PROBE = "a photo of a red circle"  # the text features of these words tell encoders apart; every bundled part knows them
BUNDLED_REWARDS = ("scenes", "clarity")
BUNDLED_EXTRACTORS = ("latent-pool", *(f"tokenizer-{reducer}" for reducer in REDUCERS), "chance")


class World(NamedTuple):
    """``rewards`` and ``extractors`` by name, the one an experiment searches with first. ``verdict`` says of an image
    (1, H, W, 3) whether it is what the prompt asks for; None where nothing can say that."""

    model: ImageModel
    encode: Callable[[str], Conditioning]
    rewards: Mapping[str, Reward]
    extractors: Mapping[str, FeatureExtractor]
    schedule: ScaleSchedule
    sampling: Sampling
    verdict: Callable[[Tensor, str], bool] | None = None

    def describe(self) -> dict[str, Any]:
        """What results depend on, as JSON values: runs into one folder must agree on it (on `text`, as `same_text` says)."""
        networks = {
            **{f"reward {name}": reward for name, reward in self.rewards.items()},
            **{f"extractor {name}": extractor for name, extractor in self.extractors.items()}, "foresight": self.model.foresight,
        }
        return {
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "dtype": str(self.model.transformer.dtype).removeprefix("torch."),
            "text": text_summary(self.encode(PROBE).text),
            "rewards": list(self.rewards),
            "extractors": list(self.extractors),
            "networks": {name: fingerprints_of(network) for name, network in networks.items() if network is not None},
            "schedule": [list(grid) for grid in self.schedule.grids],
            "sampling": [list(self.sampling.at(scale)) for scale in range(len(self.schedule))],
            "metrics": [*self.rewards, *([VERDICT] if self.verdict else [])],
        }


@dataclass(frozen=True)
class WorldFiles:
    """How a worker gets its world: a description that travels between processes and machines; calling it loads.

    model: transformer, tokenizer and text encoder paths, or one folder that holds them as `files_in` says; empty for the bundled
    model. rewards and extractors: as the registry names them ("image-reward=ImageReward.pt"), and the controls. pixel_budget: empty
    for the model's own schedule, or 1M.
    """

    model: tuple[str, ...] = ()
    rewards: tuple[str, ...] = BUNDLED_REWARDS
    extractors: tuple[str, ...] = BUNDLED_EXTRACTORS
    pixel_budget: str = ""
    device: str = "cpu"

    def __call__(self) -> World:
        """Load everything. Raises ValueError for an unknown name, and as the loaders do for unusable files."""
        model, encoder = self._models()
        rewards = {spec.partition("=")[0]: self._reward(spec) for spec in self.rewards}
        extractors = {spec.partition("=")[0]: self._extractor(model, spec) for spec in self.extractors}
        if not rewards or not extractors:
            raise ValueError("an experiment needs at least one reward and one extractor")
        schedule = schedule_of(model.config, {"--pixel-budget": self.pixel_budget or None})
        verdict = scene_verdict if "scenes" in rewards else None  # the reward whose grade goes with it
        return World(
            model, lambda prompt: encode_prompt(encoder, prompt), rewards, extractors, schedule, model.config.sampling, verdict
        )

    def _models(self) -> tuple[ImageModel, Any]:
        if not self.model:
            return load_bundled(device=self.device)
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        transformer, tokenizer, text = self.model if len(self.model) > 1 else files_in(Path(*self.model))
        return load_model(transformer, tokenizer, dtype=dtype, device=self.device), load_text_encoder(text)

    def _reward(self, spec: str) -> Reward:
        if spec == Clarity.name:
            return Clarity()
        key, _, file = spec.partition("=")
        if key.lower() == "value" and file:
            for_clarity = read_value(file).made_for.reward == Clarity.name  # which the package does not know
            return load_value(file, reward=Clarity() if for_clarity else None).to(self.device)
        return registry.load(registry.REWARDS, spec, self.device)

    def _extractor(self, model: ImageModel, spec: str) -> FeatureExtractor:
        if spec == "chance":
            return Chance()
        kind, _, reducer = spec.partition("-")
        if kind == "tokenizer" and reducer in REDUCERS:
            return TokenizerExtractor(model, reducer)
        return registry.load(registry.EXTRACTORS, spec, self.device)


def scene_verdict(image: Tensor, prompt: str) -> bool:
    """Whether an image (1, H, W, 3) shows exactly what a prompt of the scene world asks for."""
    return judge_images(image, parse_prompt(prompt))[0].correct


def files_in(folder: Path) -> tuple[str, str, str]:
    """Transformer, tokenizer and text encoder in a folder as trainings write it: NAME.transformer.safetensors,
    NAME.vae.safetensors, NAME.t5. Raises ValueError where one is missing or there are several."""
    found = []
    for pattern in ("*.transformer.safetensors", "*.vae.safetensors", "*.t5"):
        matching = sorted(folder.glob(pattern))
        if len(matching) != 1:
            raise ValueError(f"{folder} holds {len(matching)} files {pattern}, expected one; or name the three files themselves")
        found.append(str(matching[0]))
    return tuple(found)


def spelled(extractor: str) -> str:
    """An extractor as results spell it, in capitals or not."""
    name, equals, files = extractor.partition("=")
    known = {key.lower(): key for key in (*registry.EXTRACTORS, *BUNDLED_EXTRACTORS)}
    return known.get(name.lower(), name) + equals + files
