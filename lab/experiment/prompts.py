"""The prompts of an experiment: the scene world's own, or a user's file such as GenEval's published list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ttsvar_core.reading import read_text, refusing
from ttsvar_core.scenes.grammar import CATEGORIES, SPLITS, prompts_of

_ORDER_KEY = 5


class Prompt(NamedTuple):
    """A prompt, its category for the tables, and the line of the file it came from (kept for benchmarks' evaluators)."""

    text: str
    category: str = ""
    metadata: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)

    def seed(self, number: int) -> int:
        """The seed of this prompt's run ``number``: 32 bits, so that any host takes it; prompts share no random draws."""
        return int.from_bytes(hashlib.sha256(f"{number}:{self.text}".encode()).digest()[:4], "big")

    def key(self, number: int) -> str:
        """A file name for this prompt's run ``number``; depends on nothing else, so longer lists reuse earlier results."""
        return f"{hashlib.sha256(self.text.encode()).hexdigest()[:16]}-s{number}"


def scene_prompts(count: int, split: str = "test") -> tuple[Prompt, ...]:
    """The first ``count`` prompts of a split, the six categories taking turns until each is used up.

    No prompt comes twice, and a longer list begins with the shorter one. Raises ValueError if there are not that many.
    """
    import numpy

    orders = {}
    for number, category in enumerate(CATEGORIES):
        known = prompts_of(category, split)
        generator = numpy.random.default_rng([_ORDER_KEY, SPLITS.index(split), number])
        orders[category] = [known[i] for i in generator.permutation(len(known))]
    longest = max(map(len, orders.values()))
    turns = [orders[c][i] for i in range(longest) for c in CATEGORIES if i < len(orders[c])]
    if count > len(turns):
        raise ValueError(f"the scene world has {len(turns)} prompts in its split {split!r}; asked for {count}")
    return tuple(Prompt(prompt.text, prompt.category) for prompt in turns[:count])


def world_prompts(count: int, split: str = "test") -> tuple[Prompt, ...]:
    """The first ``count`` prompts of a split of the richer scene world, its categories taking turns; none comes twice, and a longer
    list begins with the shorter one. Raises ValueError where it has not that many."""
    from ttsvar_core.world.grammar import benchmark_prompts

    found: dict[str, Prompt] = {}
    for asked in (count + count // 4 + 8, 4 * count + 64):  # categories with few prompts repeat them
        for prompt in benchmark_prompts(split, asked):
            found.setdefault(prompt.text, Prompt(prompt.text, prompt.category))
        if len(found) >= count:
            return tuple(found.values())[:count]
    raise ValueError(f"the world gives {len(found)} different prompts in its split {split!r}; asked for {count}")


def read_prompts(path: str | Path, count: int | None = None) -> tuple[Prompt, ...]:
    """Prompts of a JSONL file (one object with "prompt" per line, category in "tag" or "category", as GenEval publishes
    them) or of a text file (one prompt per line up to a tab, as T2I-CompBench publishes them).

    A repeated prompt is kept once. Raises ValueError, naming the line, for a line that is no prompt.
    """
    path = Path(path)
    read = _json_prompt if path.suffix in (".jsonl", ".json") else _text_prompt
    prompts: dict[str, Prompt] = {}
    with refusing(path, "Give one prompt per line."):
        for number, line in enumerate(read_text(path).splitlines(), start=1):
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
    return Prompt(line.split("\t")[0].strip(), "", {"prompt": line.split("\t")[0].strip()})
