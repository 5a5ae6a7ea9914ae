"""Shared fixtures."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.text import Conditioning

torch.set_num_threads(1)  # the models here are too small to share out


@pytest.fixture(scope="session")
def tiny_model() -> ImageModel:
    return make_tiny_model()


@pytest.fixture(scope="session")
def conditioning() -> Conditioning:
    return make_conditioning()
