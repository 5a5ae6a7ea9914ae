"""What an experiment runs on: a model, the rewards that search and measure, the extractors, and a verdict if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ttsvar_core.config import Sampling
from ttsvar_core.image_model import ImageModel
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.search.save import sketch
from ttsvar_core.weights.fingerprint import Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from ttsvar_core.extractors.base import FeatureExtractor
    from ttsvar_core.infinity.text import Conditioning
    from ttsvar_core.rewards.base import Reward

VERDICT = "correct"
PROBE = "a photo of a red circle"  # the text features of these words tell encoders apart; every bundled part knows them
BUNDLED_REWARDS = ("scenes", "clarity")
BUNDLED_EXTRACTORS = ("latent-pool", "tokenizer-PCA", "tokenizer-PCA-shared", "tokenizer-Pool", "chance")
_REWARD_FILES = ("image-reward", "hps", "clip", "pick", "aesthetic")


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
        """What results depend on, as JSON values: runs into one folder must agree on it (on `text`, as `alike` says)."""
        return {
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "dtype": str(self.model.transformer.dtype).removeprefix("torch."),
            "text": sketch(self.encode(PROBE).text),
            "rewards": list(self.rewards),
            "extractors": list(self.extractors),
            "networks": {
                f"{kind} {name}": _fingerprints(one)
                for kind, named in (("reward", self.rewards), ("extractor", self.extractors)) for name, one in named.items()
            },
            "schedule": [list(grid) for grid in self.schedule.grids],
            "sampling": [list(self.sampling.at(scale)) for scale in range(len(self.schedule))],
            "metrics": [*self.rewards, *([VERDICT] if self.verdict else [])],
        }


@dataclass(frozen=True)
class WorldFiles:
    """How a worker gets its world: a description that travels between processes and machines; calling it loads.

    model: transformer, tokenizer and text encoder paths, empty for the bundled model. rewards and extractors: names,
    with files after "=" where they need some ("image-reward=ImageReward.pt", "aesthetic=TOWER,HEAD",
    "dinov2-PCA=dinov2_vitl14_reg4_pretrain.pth").
    """

    model: tuple[str, ...] = ()
    rewards: tuple[str, ...] = BUNDLED_REWARDS
    extractors: tuple[str, ...] = BUNDLED_EXTRACTORS
    height_over_width: float = 1.0
    pixel_budget: str = "1M"
    device: str = "cpu"

    def __call__(self) -> World:
        """Load everything. Raises ValueError for an unknown name, and as the loaders do for unusable files."""
        from ttsvar_core.infinity.text import encode_prompt

        model, encoder = self._models()
        rewards = dict(_named(text, self._reward) for text in self.rewards)
        extractors = dict(_named(text, lambda name, files: self._extractor(model, name, files)) for text in self.extractors)
        if not rewards or not extractors:
            raise ValueError("an experiment needs at least one reward and one extractor")
        schedule = model.schedule(self.height_over_width, self.pixel_budget)
        verdict = scene_verdict if "scenes" in rewards else None
        return World(
            model, lambda prompt: encode_prompt(encoder, prompt), rewards, extractors, schedule, model.config.sampling, verdict
        )

    def _models(self) -> tuple[ImageModel, Any]:
        import torch

        from ttsvar_core.infinity.text import load_text_encoder
        from ttsvar_core.weights import load_bundled, load_model

        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        if not self.model:
            return load_bundled(device=self.device)
        transformer, tokenizer, text = self.model
        return load_model(transformer, tokenizer, dtype=dtype, device=self.device), load_text_encoder(text)

    def _reward(self, name: str, files: tuple[str, ...]) -> Reward:
        from .controls import Clarity

        if name == "scenes":
            from ttsvar_core.rewards.scenes import SceneReward

            return SceneReward()
        if name == "clarity":
            return Clarity()
        if name not in _REWARD_FILES or len(files) != (2 if name == "aesthetic" else 1):
            raise ValueError(
                f"cannot load the reward {name!r} from {len(files)} files; expected scenes, clarity, NAME=FILE with one of "
                f"{', '.join(_REWARD_FILES[:-1])}, or aesthetic=TOWER,HEAD"
            )
        return _load_reward(name, files).to(self.device)

    def _extractor(self, model: ImageModel, name: str, files: tuple[str, ...]) -> FeatureExtractor:
        from ttsvar_core.extractors.latent_pool import LatentPool
        from ttsvar_core.extractors.reduce import REDUCERS

        from .controls import Chance, TokenizerExtractor

        kind, _, reducer = name.partition("-")
        if name in ("latent-pool", "chance"):
            return LatentPool() if name == "latent-pool" else Chance()
        if kind == "tokenizer" and reducer in REDUCERS:
            return TokenizerExtractor(model, reducer)
        if kind == "dinov2" and reducer in REDUCERS and len(files) == 1:
            from ttsvar_core.extractors.dinov2 import load_dinov2

            return load_dinov2(files[0], reducer).to(self.device)
        if name == "inception" and len(files) == 1:
            from ttsvar_core.extractors.inception import load_inception

            return load_inception(files[0]).to(self.device)
        raise ValueError(
            f"cannot load the extractor {name!r} from {len(files)} files; expected latent-pool, chance, tokenizer-REDUCER, "
            f"dinov2-REDUCER=FILE or inception=FILE, with a reducer of {', '.join(REDUCERS)}"
        )


def scene_verdict(image: Tensor, prompt: str) -> bool:
    """Whether an image (1, H, W, 3) shows exactly what a prompt of the scene world asks for."""
    from ttsvar_core.rewards.scenes import judge_images
    from ttsvar_core.scenes.grammar import parse_prompt

    return judge_images(image, parse_prompt(prompt))[0].correct


def _fingerprints(of: Reward | FeatureExtractor) -> list[str]:
    """The fingerprint of each network a reward or extractor runs."""
    found = []
    for network in getattr(of, "models", ()):
        fingerprint = Fingerprint()
        for name, tensor in network.state_dict().items():
            fingerprint.add(name, tensor)
        found.append(fingerprint.hexdigest())
    return found


def _named(text: str, load: Callable[[str, tuple[str, ...]], Any]) -> tuple[str, Any]:
    name, _, files = text.partition("=")
    return name, load(name, tuple(files.split(",")) if files else ())


def _load_reward(name: str, files: tuple[str, ...]) -> Any:
    from ttsvar_core.rewards import aesthetic, clip, hps, image_reward

    loaders = {
        "image-reward": image_reward.load_image_reward, "hps": hps.load_hps, "clip": clip.load_clip_score,
        "pick": clip.load_pick_score, "aesthetic": aesthetic.load_aesthetic,
    }
    return loaders[name](*files)
