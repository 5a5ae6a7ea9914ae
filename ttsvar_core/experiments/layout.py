"""Where benchmarks' own evaluators look for images, and the PNG files in it.

Sources: GenEval (README, "Image generation") and T2I-CompBench (README and its evaluators, which read the prompt and a
running number from the file name).
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .prompts import Prompt

LAYOUTS = ("geneval", "t2i-compbench")
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
        root = Path(self.folder) / arm
        if self.kind == "geneval":
            home = root / f"{place:05d}"
            (home / "samples").mkdir(parents=True, exist_ok=True)
            metadata = prompt.metadata or {"tag": prompt.category, "prompt": prompt.text}
            write_atomically(home / "metadata.jsonl", json.dumps(metadata, ensure_ascii=False) + "\n")
            path = home / "samples" / f"{number:04d}.png"
        else:
            if "_" in prompt.text or "/" in prompt.text:
                raise ValueError(f"T2I-CompBench reads prompts from file names; {prompt.text!r} cannot be one (it has _ or /)")
            (root / "samples").mkdir(parents=True, exist_ok=True)
            path = root / "samples" / f"{prompt.text}_{place * SEEDS_PER_PROMPT + number:06d}.png"
        _write_png(path, image)
        return path


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that at any moment it is there whole or as it was before."""
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _partial(path: Path) -> Path:
    """Where a file is written before it takes its place: a name no other worker on any machine has, and a short one, because a
    prompt may fill the file's own."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def _write_png(path: Path, image: Tensor) -> None:
    from PIL import Image

    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().numpy()
    partial = _partial(path)
    Image.fromarray(pixels).save(partial, format="PNG")
    os.replace(partial, path)
