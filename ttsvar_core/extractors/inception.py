"""InceptionV3's pooled features, the paper's third extractor, where torchvision can be imported.

Source: TTS-VAR for the transform (stretched to 299 pixels, bilinear, ImageNet statistics) and for replacing the last
layer by the identity; torchvision for the network.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..reading import one_line
from ..registry import EXTRACTORS
from ..vision.network import SingleNetwork
from ..vision.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from ..weights.finite import finite_floats
from ..weights.tensors import read_tensors

(PUBLISHED,) = EXTRACTORS["inception"].files
IMAGE_SIZE = 299


@dataclass(frozen=True, repr=False, eq=False)
class InceptionExtractor(SingleNetwork):
    """One vector of 2048 pooled features per image."""

    model: nn.Module
    preprocess: Preprocess
    name: str = "Inception"
    looks_at: str = "images"

    @torch.no_grad()
    def describe(self, x: Tensor) -> Tensor:
        """(B, 2048) float32 on the CPU, of images (B, H, W, 3) in [0, 1]."""
        return self.look(x, lambda pixels: self.model(pixels).float().cpu())


def load_inception(path: str | Path, dtype=torch.float32) -> InceptionExtractor:
    """InceptionV3 from torchvision's own weights.

    Raises ImportError where torchvision does not work, MissingFile or UnusableFile for the file.
    """
    try:
        from torchvision.models import inception_v3
    except (ImportError, RuntimeError) as error:  # torchvision beside another torch fails with a RuntimeError
        raise ImportError(
            f"InceptionV3 needs torchvision, which cannot be imported ({error}). Install the torchvision that belongs to "
            f"torch {torch.__version__}, or use DINOv2, the paper's default."
        ) from error
    tensors = read_tensors(path, PUBLISHED)
    # torchvision's own weights expect inputs scaled once more from ImageNet's to the original network's statistics
    model = inception_v3(weights=None, init_weights=False, transform_input=True)
    try:
        model.load_state_dict(finite_floats(tensors, str(path)))
    except RuntimeError as error:
        raise tensors.refusal(f"is not torchvision's InceptionV3: {one_line(error)}") from error
    model.fc = nn.Identity()
    model.AuxLogits = None
    preprocess = Preprocess(IMAGE_SIZE, "stretch", "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    return InceptionExtractor(model.to(dtype).eval().requires_grad_(False), preprocess)
