"""The world's language: prompts over coloured shapes as a user would write them, and what is held out of training."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass, replace

import numpy

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "black")
SIZES = ("small", "large")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
RELATIONS = ("left of", "right of", "above", "below")
MOST_OBJECTS = 7
TRIES = 200  # draws without a new prompt after which a category is used up
CATEGORIES = (
    "single", "colours", "two", "counting", "position", "attribution",  # GenEval's six
    "sizes", "three", "groups", "chain",
)
_SHOWN = 120  # characters of a prompt in an error message
SPLITS = ("train", "validation", "test")
EXPECTED = (
    "expected things such as 'a red circle', 'three small blue squares', joined by 'and' or commas, or the first placed "
    "towards the others by 'left of', 'right of', 'above' or 'below' ('a red circle left of a blue square and above a green "
    f"star'), {MOST_OBJECTS} at most; counts: a, {', '.join(NUMBERS)}; sizes: {', '.join(SIZES)}; "
    f"colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)} (plural: shapes with s, crosses)"
)


class PromptError(ValueError):
    """A prompt says something the world has no words for."""


def plural(shape: str) -> str:
    """A shape's name in the plural."""
    return shape + ("es" if shape.endswith("s") else "s")


@dataclass(frozen=True, order=True)
class Noun:
    """One thing a prompt asks for, `count` times; `colour` and `size` are empty where any will do."""

    shape: str
    colour: str = ""
    size: str = ""
    count: int = 1

    @property
    def words(self) -> str:
        """Size, colour and shape, in the singular."""
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)

    @property
    def text(self) -> str:
        """The noun as it stands in a prompt."""
        if self.count > 1:
            number = next(word for word, count in NUMBERS.items() if count == self.count)
            return f"{number} {self.words.removesuffix(self.shape)}{plural(self.shape)}"
        return f"{'an' if self.words[0] in 'aeiou' else 'a'} {self.words}"

    def could_be(self, other: Noun) -> bool:
        """Whether one object could be both."""
        pairs = ((self.colour, other.colour), (self.size, other.size))
        return self.shape == other.shape and all(a == b or not (a and b) for a, b in pairs)


@dataclass(frozen=True)
class ScenePrompt:
    """What a picture must show, exactly: these things, and nothing else.

    `relations` is empty, or says of every noun but the first where the first one lies towards it.
    """

    nouns: tuple[Noun, ...]
    relations: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The prompt in words, as the model is trained on it."""
        first, *others = (noun.text for noun in self.nouns)
        if self.relations:
            return f"{first} " + " and ".join(f"{r} {n}" for r, n in zip(self.relations, others, strict=True))
        return " and ".join(part for part in (", ".join([first, *others[:-1]]), *others[-1:]))

    @property
    def category(self) -> str:
        """The kind of difficulty: GenEval's six, and sizes, three objects, two groups, two relations."""
        if self.relations:
            return "position" if len(self.relations) == 1 else "chain"
        if any(noun.size for noun in self.nouns):
            return "sizes"
        if len(self.nouns) > 2:
            return "three"
        counted = any(noun.count > 1 for noun in self.nouns)
        if len(self.nouns) == 1:
            return "counting" if counted else "colours" if self.nouns[0].colour else "single"
        if counted:
            return "groups"
        return "attribution" if all(noun.colour for noun in self.nouns) else "two"

    @property
    def objects(self) -> tuple[Noun, ...]:
        """Every object the picture must show, counted ones repeated."""
        return tuple(replace(noun, count=1) for noun in self.nouns for _ in range(noun.count))

    @property
    def split(self) -> str:
        """The part of the split this prompt's combination of objects belongs to."""
        return combination_split(self.objects)


def combination_split(objects: tuple[Noun, ...]) -> str:
    """Which split an unordered combination of objects belongs to, whatever their sizes and places.

    Of the combinations of two and more objects one tenth is kept for validation and a fifth for the test, by a checksum of
    their sorted words, so in every category, order and relation alike. Single objects, and groups without any colour, are
    too few to hold out: they are all trained on.
    """
    if len(objects) < 2 or not any(noun.colour for noun in objects):
        return "train"
    names = sorted(f"{noun.colour} {noun.shape}".strip() for noun in objects)
    bucket = zlib.crc32("+".join(names).encode()) % 10
    return ("validation", "test", "test")[bucket] if bucket < 3 else "train"


# Reading prompts -----------------------------------------------------------------------------------------------------


def parse_prompt(text: str) -> ScenePrompt:
    """Read a prompt. Raises PromptError naming the words and the grammar when it is none of this world's."""
    plain = text.strip().lower().rstrip(".").replace("to the ", "").replace(",", " and ").removeprefix("a photo of ")
    words = plain.split()
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"  # from here on only for messages
    nouns, relations = [], []
    while True:
        noun, words = _noun(words, text)
        nouns.append(noun)
        if not words:
            break
        relation, words = _joint(words, text)
        relations.append(relation)
    if not any(relations):
        relations = []
    _check(tuple(nouns), relations, text)
    return ScenePrompt(tuple(nouns), tuple(relations))


def _joint(words: list[str], text: str) -> tuple[str, list[str]]:
    """The relation (empty for a plain "and") at the start of `words`, and the words after it."""
    rest = list(itertools.dropwhile(lambda word: word == "and", words))
    for relation in RELATIONS:
        parts = relation.split()
        if rest[: len(parts)] == parts:
            return relation, rest[len(parts) :]
    if len(rest) == len(words):
        raise PromptError(f"cannot read {' '.join(words[:4])!r} in the prompt {text!r}: {EXPECTED}")
    return "", rest


def _noun(words: list[str], text: str) -> tuple[Noun, list[str]]:
    """The noun at the start of `words`, and the words after it."""
    rest = list(words)
    number = rest.pop(0) if rest else ""
    count = NUMBERS.get(number, 1)
    size = rest.pop(0) if rest[:1] and rest[0] in SIZES else ""
    colour = rest.pop(0) if rest[:1] and rest[0] in COLOURS else ""
    named = rest.pop(0) if rest else ""
    shape = next((s for s in SHAPES if named == (plural(s) if count > 1 else s)), "")
    if not shape or (count == 1 and number not in ("a", "an", "one")):
        raise PromptError(f"no such thing as {' '.join(words[:4])!r} (prompt {text!r}): {EXPECTED}")
    return Noun(shape, colour, size, count), rest


def _check(nouns: tuple[Noun, ...], relations: list[str], text: str) -> None:
    if sum(noun.count for noun in nouns) > MOST_OBJECTS:
        raise PromptError(f"the prompt {text!r} asks for more than {MOST_OBJECTS} objects")
    if relations and (not all(relations) or any(noun.count > 1 for noun in nouns)):
        raise PromptError(f"the prompt {text!r} mixes relations with counts or plain lists: {EXPECTED}")
    if any(first.could_be(second) for first, second in itertools.combinations(nouns, 2)):
        raise PromptError(
            f"the prompt {text!r} asks for two things that one object could be: give them different shapes, "
            "or a different colour or size each"
        )


# Drawing prompts -----------------------------------------------------------------------------------------------------


def _pick(options: tuple, generator: numpy.random.Generator):
    return options[generator.integers(len(options))]


def _coloured(generator: numpy.random.Generator) -> Noun:
    return Noun(_pick(SHAPES, generator), _pick(COLOURS, generator))


def _draw(category: str, generator: numpy.random.Generator) -> ScenePrompt:
    """Some prompt that may be of a category."""
    nouns = tuple(_coloured(generator) for _ in range({"three": 3, "chain": 3}.get(category, 2)))
    relations: tuple[str, ...] = ()
    if category in ("single", "colours"):
        nouns = nouns[:1] if category == "colours" else (Noun(nouns[0].shape),)
    elif category == "two":
        bare = generator.integers(3)  # the first, the second, or both without a colour
        nouns = tuple(replace(n, colour="") if bare in (i, 2) else n for i, n in enumerate(nouns))
    elif category == "counting":
        colour = nouns[0].colour if generator.random() < 0.75 else ""
        nouns = (replace(nouns[0], colour=colour, count=int(generator.integers(2, 7))),)
    elif category == "groups":
        nouns = tuple(replace(n, count=int(generator.integers(1, 5))) for n in nouns)
    elif category == "sizes":
        few = 1 if generator.random() < 0.3 else 2
        nouns = tuple(replace(n, size=_pick(SIZES, generator)) for n in nouns[:few])
    elif category in ("position", "chain"):
        relations = tuple(_pick(RELATIONS, generator) for _ in nouns[1:])
    return ScenePrompt(nouns, relations)


def draw_prompt(category: str, split: str, generator: numpy.random.Generator) -> ScenePrompt:
    """A prompt of one category and split ("train", "validation" or "test").

    Single objects have no held-out combinations; their validation and test prompts are the trained ones.
    """
    if category not in CATEGORIES or split not in SPLITS:
        raise ValueError(f"no prompts of category {category!r}, split {split!r}: expected {CATEGORIES} and {SPLITS}")
    while True:
        prompt = _draw(category, generator)
        if len(prompt.objects) > MOST_OBJECTS or prompt.category != category:
            continue
        if any(a.could_be(b) for a, b in itertools.combinations(prompt.nouns, 2)):
            continue
        if prompt.split == split or len(prompt.objects) == 1:
            return prompt


def benchmark_prompts(split: str, count: int, seed: int = 0) -> tuple[ScenePrompt, ...]:
    """`count` different prompts of a split, the categories taking turns until one is used up: there are six single shapes and 48
    with a colour. A longer list begins with the shorter one. Raises ValueError where there are not so many."""
    generator = numpy.random.default_rng([seed, SPLITS.index(split)])
    found: dict[ScenePrompt, None] = {}
    left = list(CATEGORIES)
    while left:
        for category in list(left):
            draws = (draw_prompt(category, split, generator) for _ in range(TRIES))
            prompt = next((prompt for prompt in draws if prompt not in found), None)
            if prompt is None:
                left.remove(category)
                continue
            found[prompt] = None
            if len(found) == count:
                return tuple(found)
    raise ValueError(f"asked for {count} prompts of the {split} split; it has {len(found)}")
