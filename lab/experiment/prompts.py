"""The prompts of an experiment: the scene world's own, or a user's file such as GenEval's published list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ttsvar_core.reading import read_text, refusing
from ttsvar_core.scenes.grammar import benchmark_prompts

BYTE_ORDER_MARK = "\ufeff"  # with which some editors begin a file


class Prompt(NamedTuple):
    """A prompt, its category for the tables, and the line of the file it came from (kept for benchmarks' evaluators)."""

    text: str
    category: str = ""
    metadata: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)

    def seed(self, number: int) -> int:
        """The seed of this prompt's run ``number``: 32 bits, so that any host takes it; prompts share no random draws."""
        return int.from_bytes(hashlib.sha256(f"{number}:{self.text}".encode()).digest()[:4], "big")

    @property
    def digest(self) -> str:
        """Stands for the prompt in names."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def key(self, number: int) -> str:
        """A file name for this prompt's run ``number``; depends on nothing else, so longer lists reuse earlier results."""
        return f"{self.digest}-s{number}"


def scene_prompts(count: int, split: str = "test") -> tuple[Prompt, ...]:
    """The first ``count`` prompts of a split, see ``benchmark_prompts``."""
    return tuple(Prompt(prompt.text, prompt.category) for prompt in benchmark_prompts(split, count))


def read_prompts(path: str | Path, count: int | None = None) -> tuple[Prompt, ...]:
    """Prompts of a JSONL file (one object with "prompt" per line, category in "tag" or "category", as GenEval publishes
    them) or of a text file (one prompt per line up to a tab, as T2I-CompBench publishes them).

    A repeated prompt is kept once. Raises ValueError, naming the line, for a line that is no prompt.
    """
    path, prompts = Path(path), {}
    read = _json_prompt if path.suffix in (".jsonl", ".json") else _text_prompt
    with refusing(path, "Give one prompt per line."):
        for number, line in enumerate(read_text(path).removeprefix(BYTE_ORDER_MARK).splitlines(), start=1):
            if line.strip():
                prompt = read(line, f"line {number}")
                prompts.setdefault(prompt.text, prompt)
        if not prompts:
            raise ValueError("no prompts")
    return tuple(prompts.values())[:count]


def _json_prompt(line: str, where: str) -> Prompt:
    try:
        data = json.loads(line)
        text = data["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{where} is no prompt ({error!r}); expected an object such as {{"prompt": "a cat"}}') from error
    return Prompt(str(text), str(data.get("tag", data.get("category", ""))), data)


def _text_prompt(line: str, where: str) -> Prompt:
    text = line.split("\t")[0].strip()
    return Prompt(text, "", {"prompt": text})
