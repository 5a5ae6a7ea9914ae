"""The scene verifier's grade as a reward: the bundled model's default, needing no weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ..scenes.grammar import PromptError, ScenePrompt, parse_prompt
from ..scenes.verify import Judgement, judge_image
from ..vision.network import check_images


class SceneReward:
    """How near a picture comes to a prompt of the scene world, in [0, 1].

    On sketches the grade is noisy or blind, as any reward is: a blot has a colour before it has a shape, and two blots that
    have not parted yet count as one. Raises PromptError (a ValueError) for a prompt that is not of the scene world.
    """

    name = "scenes"
    range = (0.0, 1.0)

    def check_prompt(self, prompt: str) -> None:
        """Raise PromptError for a prompt that is not of the scene world."""
        try:
            parse_prompt(prompt)
        except PromptError as error:
            raise PromptError(
                f"The scene verifier only judges the bundled model's scenes: {error}. Change the prompt, or take another reward."
            ) from error

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 grades of images (B, H, W, 3) in [0, 1]."""
        judged = judge_images(images, parse_prompt(prompt))
        return torch.tensor([judgement.score for judgement in judged], dtype=torch.float32)

    def __repr__(self) -> str:
        return "SceneReward()"


def judge_images(images: Tensor, prompt: ScenePrompt) -> list[Judgement]:
    """Verdict, reason and grade of every image of a batch (B, H, W, 3) in [0, 1]."""
    check_images(images, "the scene verifier")
    return [judge_image(image, prompt) for image in images.detach().float().cpu().numpy()]
