"""Rewards: how well an image answers a prompt. `base.Reward` is the protocol; docs/own-reward.md shows how to add one."""

from .base import Reward
from .blend import Blend

__all__ = ["Blend", "Reward"]
