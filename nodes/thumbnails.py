"""Small pictures for the page, drawn once for as long as what they show exists."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .host import folders

if TYPE_CHECKING:
    from PIL import Image

SIDE = 256  # pixels
_KEPT = WeakIdKeyDictionary()  # what pictures show -> kind of picture -> Thumbnails; goes when ComfyUI lets the tensor go


class Thumbnails(NamedTuple):
    """Pictures and the files the page gets them from."""

    pictures: list[Image.Image]
    files: list[dict]

    @property
    def key(self) -> str:
        """What tells these pictures from others."""
        digest = blake2b(digest_size=6)
        for picture in self.pictures:
            digest.update(picture.tobytes())
        return digest.hexdigest()


def thumbnails(shown: Tensor, kind: str, draw: Callable[[], Tensor]) -> Thumbnails:
    """Thumbnails of the images (P, H, W, 3) that ``draw`` makes of ``shown``: made once, so that another choice or another look
    decodes nothing again."""
    kept = _KEPT.setdefault(shown, {})
    if kind not in kept or not all(map(folders.is_there, kept[kind].files)):
        from ..ttsvar_core.inspect.canvas import fitted, to_pictures

        pictures = [fitted(picture, SIDE) for picture in to_pictures(draw())]
        kept[kind] = Thumbnails(pictures, folders.temp_pictures(pictures))
    return kept[kind]
