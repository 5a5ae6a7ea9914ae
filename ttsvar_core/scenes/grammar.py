"""The scene world's language: prompts in GenEval's six categories over coloured shapes, and what is held out of training."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

SHAPES = ("circle", "square", "triangle", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
COUNT_WORDS = {"two": 2, "three": 3, "four": 4}
RELATIONS = ("left of", "right of", "above", "below")
CATEGORIES = ("single", "two", "counting", "colours", "position", "attribution")
_SHOWN = 120  # characters of a prompt in an error message
SPLITS = ("train", "validation", "test")
EXPECTED = (
    "expected 'a photo of' followed by one of: 'a [colour] shape', 'two|three|four [colour] shapes', "
    "'a [colour] shape and a [colour] shape', 'a [colour] shape left of|right of|above|below a [colour] shape'; "
    f"colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}"
)


class PromptError(ValueError):
    """A prompt says something the scene world has no words for."""


@dataclass(frozen=True, order=True)
class Noun:
    """One thing a prompt asks for; `colour` is empty where any colour will do."""

    shape: str
    colour: str = ""

    @property
    def text(self) -> str:
        """The words after the article, in the singular."""
        return f"{self.colour} {self.shape}".strip()


@dataclass(frozen=True)
class ScenePrompt:
    """What a picture must show, exactly: these objects, this often, in this relation, and nothing else."""

    nouns: tuple[Noun, ...]
    count: int = 1
    relation: str = ""

    @property
    def text(self) -> str:
        """The prompt in words, as the model is trained on it."""
        if self.count > 1:
            word = next(w for w, n in COUNT_WORDS.items() if n == self.count)
            return f"a photo of {word} {self.nouns[0].text}s"
        joint = f" {self.relation or 'and'} "
        return "a photo of " + joint.join(f"a {noun.text}" for noun in self.nouns)

    @property
    def category(self) -> str:
        """GenEval's category: attribution when two objects are told apart by two colours, counting when counted."""
        if self.count > 1:
            return "counting"
        if self.relation:
            return "position"
        if len(self.nouns) == 1:
            return "colours" if self.nouns[0].colour else "single"
        first, second = self.nouns
        return "attribution" if first.colour and second.colour and first.colour != second.colour else "two"

    @property
    def objects(self) -> tuple[Noun, ...]:
        """Every object the picture must show, counted ones repeated."""
        return self.nouns * self.count if self.count > 1 else self.nouns

    @property
    def split(self) -> str:
        """The part of the split this prompt's combination of objects belongs to."""
        return combination_split(self.objects)


def combination_split(objects: tuple[Noun, ...]) -> str:
    """Which split an unordered combination of objects belongs to.

    Of the combinations of two and more objects one tenth is kept for validation and a fifth for the test, by a
    checksum of their sorted words, so in every category, order and relation alike. Single objects, and pairs or groups
    without any colour, are too few to hold out: they are all trained on.
    """
    if len(objects) < 2 or not any(noun.colour for noun in objects):
        return "train"
    bucket = zlib.crc32("+".join(sorted(noun.text for noun in objects)).encode()) % 10
    return ("validation", "test", "test")[bucket] if bucket < 3 else "train"


def parse_prompt(text: str) -> ScenePrompt:
    """Read a prompt of the scene world. Raises PromptError naming the words and the grammar when it is none."""
    words = text.strip().lower().rstrip(".").split()
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"  # from here on only for the message
    if words[:3] != ["a", "photo", "of"] or len(words) < 4:
        raise PromptError(f"cannot read the prompt {text!r} as a scene: {EXPECTED}")
    body = words[3:]
    if body[0] in COUNT_WORDS:
        return ScenePrompt((_noun(body[1:], text, plural=True),), count=COUNT_WORDS[body[0]])
    for joint in ("and", *RELATIONS):
        parts = joint.split()
        for at in range(1, len(body) - len(parts)):
            if body[at : at + len(parts)] == parts:
                nouns = (_noun(body[:at], text, article=True), _noun(body[at + len(parts) :], text, article=True))
                return _checked_pair(nouns, "" if joint == "and" else joint, text)
    return ScenePrompt((_noun(body, text, article=True),))


def _checked_pair(nouns: tuple[Noun, Noun], relation: str, text: str) -> ScenePrompt:
    first, second = nouns
    if first.shape == second.shape and (first.colour == second.colour or not (first.colour and second.colour)):
        raise PromptError(
            f"the prompt {text!r} asks for two objects that one object could be: give them different shapes, "
            "or a different colour each"
        )
    return ScenePrompt(nouns, relation=relation)


def _noun(words: list[str], text: str, article: bool = False, plural: bool = False) -> Noun:
    rest = words[1:] if article and words[:1] == ["a"] else words
    if (article and words[:1] != ["a"]) or len(rest) not in (1, 2):
        raise PromptError(f"cannot read {' '.join(words)!r} in the prompt {text!r}: {EXPECTED}")
    shape = rest[-1][:-1] if plural and rest[-1].endswith("s") else rest[-1] if not plural else ""
    colour = rest[0] if len(rest) == 2 else ""
    if shape not in SHAPES or (colour and colour not in COLOURS):
        raise PromptError(f"no such thing as {' '.join(rest)!r} (prompt {text!r}): {EXPECTED}")
    return Noun(shape, colour)


def _pairs() -> Iterator[tuple[Noun, Noun]]:
    nouns = [Noun(shape, colour) for shape in SHAPES for colour in ("", *COLOURS)]
    for first, second in itertools.product(nouns, nouns):
        coloured = bool(first.colour) + bool(second.colour)
        if first.shape != second.shape or (coloured == 2 and first.colour != second.colour):
            yield first, second


@lru_cache(maxsize=1)
def all_prompts() -> tuple[ScenePrompt, ...]:
    """Every prompt of the scene world, in a fixed order."""
    found = [ScenePrompt((Noun(shape, colour),)) for shape in SHAPES for colour in ("", *COLOURS)]
    found += [ScenePrompt(p.nouns, count=n) for p in tuple(found) for n in COUNT_WORDS.values()]
    for pair in _pairs():
        found.append(ScenePrompt(pair))
        if bool(pair[0].colour) == bool(pair[1].colour):
            found += [ScenePrompt(pair, relation=relation) for relation in RELATIONS]
    return tuple(found)


@lru_cache(maxsize=32)
def prompts_of(category: str, split: str) -> tuple[ScenePrompt, ...]:
    """The prompts of one category and split ("train", "validation" or "test").

    Single objects have no held-out combinations; their validation and test prompts are the trained ones.
    """
    if category not in CATEGORIES or split not in SPLITS:
        raise ValueError(f"no prompts of category {category!r}, split {split!r}: expected {CATEGORIES} and {SPLITS}")
    wanted = "train" if category in ("single", "colours") else split
    return tuple(p for p in all_prompts() if p.category == category and p.split == wanted)


def benchmark_prompts(split: str, count: int, seed: int = 0) -> tuple[ScenePrompt, ...]:
    """`count` prompts of a split, the six categories taking turns; a category repeats its prompts only when used up."""
    import numpy

    generator = numpy.random.default_rng([seed, SPLITS.index(split)])
    queues = {}
    for category in CATEGORIES:
        known = prompts_of(category, split)
        rounds = -(-count // (len(CATEGORIES) * len(known)))
        order = numpy.concatenate([generator.permutation(len(known)) for _ in range(rounds)])
        queues[category] = [known[i] for i in order]
    return tuple(queues[CATEGORIES[i % 6]][i // 6] for i in range(count))
