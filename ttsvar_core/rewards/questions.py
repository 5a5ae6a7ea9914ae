"""A prompt as questions that a picture answers with yes or no.

Sources: VQAScore (t2v_metrics) and GenEval 2 for the templates; Soft-TIFA (GenEval 2) for a question per part of the prompt and
for asking for one word; GenEval for the prompts that the rules read.
"""

from __future__ import annotations

import re

TEMPLATES = {
    "geneval2": 'Does this image show "{}"? Answer the question with Yes or No.',
    "vqascore": 'Does this figure show "{}"? Please answer Yes or No.',
}
"""What a whole prompt is asked with; {} stands for the prompt."""
PART = "{} Answer in one word."
"""What a question about a part of the prompt is asked with."""

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COLOURS = "red|orange|yellow|green|blue|purple|pink|brown|black|white|gr[ae]y"
_RELATION = re.compile(
    r"\s+(?:(?:and|is|are)\s+)?((?:to the )?(?:left|right) of|above|below|under|on top of|next to|behind|in front of|inside)\s+"
)
_OPENING = re.compile(r"^(?:an?|the)?\s*(?:photo|photograph|picture|image|drawing|painting) of\s+", re.IGNORECASE)
_PART = re.compile(rf"(an?|the|{'|'.join(_NUMBERS)}|\d+)\s+(?:({_COLOURS})\s+)?(\w[\w'-]*(?:\s+\w[\w'-]*){{0,3}})", re.IGNORECASE)


def own_words(text: str) -> dict[str, object]:
    """What a user's text says is asked: a line with {} in it is the template for the whole prompt, any others are questions in the
    prompt's place, one per line. Options of `AskedReward`; none for an empty text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    templates, questions = [line for line in lines if "{}" in line], tuple(line for line in lines if "{}" not in line)
    if len(templates) > 1 or (templates and questions):
        raise ValueError(f"write one template with {{}} in it, or questions without, one per line; got {text!r:.120}")
    return ({"template": templates[0]} if templates else {}) | ({"questions": questions} if questions else {})


def questions_of(prompt: str) -> tuple[str, ...]:
    """Questions about the objects of a prompt like GenEval's, their number, colour and place; none for other prompts.

    "a photo of two red clocks above a dog" asks whether there are exactly two clocks, whether they are red, whether there is a
    dog, and whether the clocks are above it.
    """
    text = _OPENING.sub("", " ".join(prompt.split())).rstrip(".")
    pieces = _RELATION.split(text, maxsplit=1)
    parts = [part for piece in pieces[::2] for part in re.split(r",\s*(?:and\s+)?|\s+and\s+", piece)]
    found = [_PART.fullmatch(part) for part in parts]
    if not all(found) or (len(pieces) > 1 and len(parts) != 2):
        return ()
    questions = [question for match in found for question in _about(*match.groups())]
    if len(pieces) > 1:
        (first, plural), (second, _) = (_name(*match.groups()) for match in found)
        questions.append(f"{'Are' if plural else 'Is'} {first} {pieces[1]} {second}?")
    return tuple(questions)


def _about(count: str, colour: str | None, noun: str) -> list[str]:
    """Questions about one part of a prompt: is it there, in that number, in that colour."""
    plural = _plural(count)
    there = f"{f'Are there exactly {count.lower()}' if plural else f'Is there {_article(noun)}'} {noun} in this image?"
    if not colour:
        return [there]
    return [there, f"{'Are' if plural else 'Is'} the {noun} {colour.lower()}?"]


def _name(count: str, colour: str | None, noun: str) -> tuple[str, bool]:
    """What a relation calls a part, and whether it is several."""
    return f"the {colour.lower()} {noun}" if colour else f"the {noun}", _plural(count)


def _plural(count: str) -> bool:
    return count.lower() not in ("a", "an", "the", "one", "1")


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"
