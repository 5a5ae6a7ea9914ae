"""Where benchmarks' own evaluators look for images, and the PNG files in it.

Sources: GenEval (README, "Image generation") and T2I-CompBench (README and its evaluators, which read the prompt and a
running number from the file name).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ttsvar_core.atomic import write, write_picture
from ttsvar_core.inspect.canvas import to_pictures
from ttsvar_core.reading import read_text

from .prompts import Prompt

SEEDS_PER_PROMPT = 1000  # room in T2I-CompBench's running number


class Layout(NamedTuple):
    """A folder per arm under ``folder``, laid out as ``kind`` says.

    geneval: ARM/00012/metadata.jsonl and ARM/00012/samples/0000.png (place of the prompt, number of the seed).
    t2i-compbench: ARM/samples/PROMPT_012000.png (place and seed in one number that sorts by prompt).
    """

    folder: str
    kind: str = "geneval"

    def save(self, arm: str, place: int, number: int, prompt: Prompt, image: Tensor) -> Path:
        """Write one image (H, W, 3) in [0, 1] and what goes with it; returns its path."""
        self.check(prompt)
        path = self.path(arm, place, number, prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.kind == "geneval":
            write(path.parent.parent / "metadata.jsonl", _metadata(prompt))
        write_picture(path, *to_pictures(image[None]))
        return path

    def path(self, arm: str, place: int, number: int, prompt: Prompt) -> Path:
        """Of an image."""
        root = Path(self.folder) / arm
        if self.kind == "geneval":
            return root / f"{place:05d}" / "samples" / f"{number:04d}.png"
        return root / "samples" / f"{prompt.text}_{place * SEEDS_PER_PROMPT + number:06d}.png"

    def fits(self, arm: str, place: int, number: int, prompt: Prompt, drawn: bool) -> bool:
        """Whether this is where an image belongs: no prompt of another list had its place, and if it is drawn it lies there."""
        path = self.path(arm, place, number, prompt)
        told = path.parent.parent / "metadata.jsonl"
        free = self.kind != "geneval" or not told.is_file() or read_text(told) == _metadata(prompt)
        return free and (path.is_file() or not drawn)

    def check(self, prompt: Prompt) -> None:
        """Raise ValueError for a prompt whose images cannot be named."""
        if self.kind != "geneval" and ("_" in prompt.text or "/" in prompt.text):
            raise ValueError(f"T2I-CompBench reads prompts from file names; {prompt.text!r} cannot be one (it has _ or /)")


def _metadata(prompt: Prompt) -> str:
    return json.dumps(prompt.metadata or {"tag": prompt.category, "prompt": prompt.text}, ensure_ascii=False) + "\n"
