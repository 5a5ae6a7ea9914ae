"""Small pictures for the page, drawn once for as long as what they show exists, or as their files do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from .host import folders

if TYPE_CHECKING:
    from PIL import Image

    from ..ttsvar_core.image_model import ImageModel

SIDE = 256  # pixels
_KEPT = WeakIdKeyDictionary()  # what pictures show -> kind of picture -> Thumbnails; goes when ComfyUI lets the tensor go


class Thumbnails(NamedTuple):
    """Pictures and the files the page gets them from, which may be smaller: the page draws them as large as it wants them."""

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
    return _kept(shown, kind, lambda: _written(draw()))


def files_of(shown: Tensor, kind: str, write: Callable[[], list[dict]]) -> list[dict]:
    """The files that ``write`` made of ``shown``, written once."""
    return _kept(shown, kind, lambda: Thumbnails([], write())).files


def _kept(shown: Tensor, kind: str, make: Callable[[], Thumbnails]) -> Thumbnails:
    kept = _KEPT.setdefault(shown, {})
    if kind not in kept or not all(map(folders.is_there, kept[kind].files)):
        kept[kind] = make()
    return kept[kind]


def _written(images: Tensor) -> Thumbnails:
    from ..ttsvar_core.inspect.canvas import fitted, shrunk, to_pictures

    pictures = to_pictures(images)
    return Thumbnails([fitted(one, SIDE) for one in pictures], folders.temp_pictures([shrunk(one, SIDE) for one in pictures]))


def small_files(model: ImageModel, features: Tensor) -> list[dict]:
    """Files of what features (P, C, h, w) look like, named by what they show: whatever looks at the same sample after the same
    scale again, in another view or as a copy of it, finds it drawn."""
    from ..ttsvar_core.decoding import decode_fitting
    from ..ttsvar_core.inspect.canvas import shrunk, to_pictures

    files = [folders.temp_picture(_named(model, row)) for row in features]
    missing = {file["filename"]: row for row, file in enumerate(files) if not folders.is_there(file)}
    if missing:
        rows = list(missing.values())
        for row, picture in zip(rows, to_pictures(decode_fitting(model, features[rows])), strict=True):
            folders.write_temp_picture(files[row], shrunk(picture, SIDE))
    return files


def opened(files: Sequence[dict]) -> list[Image.Image]:
    """The pictures in these files."""
    from PIL import Image

    pictures = []
    for file in files:
        with Image.open(folders.path_of(file)) as picture:
            pictures.append(picture.convert("RGB"))
    return pictures


def _named(model: ImageModel, features: Tensor) -> str:
    digest = blake2b(features.float().cpu().numpy().tobytes(), digest_size=8, key=model.fingerprint.encode())
    return digest.hexdigest()
