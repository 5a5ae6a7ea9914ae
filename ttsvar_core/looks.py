"""What a loaded reward or extractor takes per picture: the figures of the published networks it names, or counted while it runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .config import ModelConfig
from .costs import NOTHING, Look
from .extractors.base import FeatureExtractor
from .networks import NETWORKS
from .rewards.base import Reward
from .scales import ScaleSchedule

PROMPT_TOKENS = 32  # a prompt's usual length, for networks that read it


def counted(function: Callable[..., Any], *given: Any) -> int:
    """Operations of a call, counted while it runs: for networks of a user's own, and to check what `networks` says."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # a processor's fused attention is not counted
        function(*given)
    return counter.get_total_flops()


def told_look(looker: Reward | FeatureExtractor | None) -> Look:
    """What a reward or extractor takes as far as can be told while nothing runs: the figures of the published networks it names;
    no operations for one of a user's own."""
    return NOTHING if getattr(looker, "looks_at", "images") != "images" else _published(looker) or Look()


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
    height, width = (side * config.pixels_per_token for side in schedule.final)
    return torch.full((1, height, width, 3), 0.5)


def _published(looker: Reward | FeatureExtractor | None) -> Look | None:
    """All networks that it names together; None where it names none, or one that nobody here has figures of."""
    named = tuple(getattr(looker, "networks", ()))
    if not any(named) or not set(named) <= NETWORKS.keys():
        return None
    looks = [NETWORKS[name](PROMPT_TOKENS) for name in named]
    return Look(sum(look.each for look in looks), sum(look.prompt for look in looks))
