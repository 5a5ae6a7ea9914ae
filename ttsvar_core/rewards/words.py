"""Text in the picture: how near what a reader finds comes to the words that a prompt puts in quotation marks.

The reader is rapidocr-onnxruntime (PP-OCRv4, Apache-2.0), whose models lie in its wheel; it is optional.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..vision.network import check_images

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy

_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|「([^」]+)」|(?<!\w)'([^']+)'(?!\w)")


@dataclass(frozen=True, eq=False)
class WordsReward:
    """Share of the letters asked for that are there, in order, in [0, 1]; capitals, spaces and other text do not count.

    read: the lines of text in a picture (H, W, 3) of bytes, channels blue first.
    """

    read: Callable[[numpy.ndarray], list[str]]
    name: str = "words"
    range: tuple[float, float] = (0.0, 1.0)

    def check_prompt(self, prompt: str) -> None:
        """Raise ValueError for a prompt that puts no words in quotation marks."""
        if not quoted(prompt):
            raise ValueError(f'{self.name} looks for text in quotation marks, such as a sign that says "OPEN"; got {prompt!r:.80}')

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32, the mean over the quoted texts, of images (B, H, W, 3) in [0, 1]."""
        check_images(images, self.name)
        self.check_prompt(prompt)
        wanted = quoted(prompt)
        pictures = (images.clamp(0, 1) * 255).round().byte().flip(-1).cpu().numpy()
        found = ["".join(map(_letters, self.read(picture))) for picture in pictures]
        nearness = [[1 - _apart(text, word) / len(text) for text in wanted] for word in found]
        return torch.tensor(nearness, dtype=torch.float32).mean(dim=1)


def load_words() -> WordsReward:
    """The words reward over RapidOCR. Raises ImportError, with the remedy, where it is not installed."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ImportError(f"reading text needs rapidocr-onnxruntime ({error}); pip install rapidocr-onnxruntime") from error
    reader: Any = RapidOCR()
    return WordsReward(lambda picture: [text for _, text, _ in reader(picture)[0] or ()])


def quoted(prompt: str) -> list[str]:
    """The letters of every text in quotation marks."""
    texts = [_letters("".join(groups)) for groups in _QUOTED.findall(prompt)]
    return [text for text in texts if text]


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _apart(text: str, found: str) -> int:
    """The least number of letters to add, drop or change between a text and any stretch of what was found (Sellers 1980)."""
    row = [0] * (len(found) + 1)  # a stretch may begin anywhere
    for i, letter in enumerate(text, start=1):
        before, row = row, [i]
        for j, other in enumerate(found, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other)))
    return min(row)
