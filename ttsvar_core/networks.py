"""Operations of the published networks that look at samples, from shapes alone, for what has not been loaded."""

from collections.abc import Callable
from itertools import pairwise

from .costs import NOTHING, Look


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
