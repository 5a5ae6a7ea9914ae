"""The error every unusable model file ends in."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A model file cannot be used. The message says what came, what was expected and what to do."""
