"""The host's own vision-language models: CLIP objects that its text generation takes, asked for the first word of an answer.

ComfyUI gives no scores of words, only words; but the model picks each word in a method of its own (`sample_token`), which is
listened to while one word is generated. So nothing is generated beyond it, and what is computed is what ComfyUI computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch

from .host import page

SIDE = 64  # of the blank picture that tells whether pictures are taken


def name_of(clip: Any) -> str:
    """What the model is called in reports. Raises ValueError for one that generates no text or takes no pictures."""
    model = _speaker(clip)
    if model is None or not hasattr(clip, "generate"):
        raise ValueError(
            f"this CLIP ({type(getattr(clip, 'cond_stage_model', clip)).__name__}) only encodes text. Load a vision-language model "
            "with Load CLIP, one that the node Generate Text takes together with an image: Qwen3-VL, Qwen3.5, Gemma 3 or Gemma 4."
        )
    if not _pictures(_tokens(clip, "Yes or no?", torch.zeros(1, SIDE, SIDE, 3))):
        raise ValueError(
            f"{type(model).__name__} generates text, but ComfyUI shows it no pictures. Load one that sees, such as Qwen3-VL."
        )
    return type(model).__name__.strip("_")


def answer(clip: Any, images: torch.Tensor, questions: tuple[str, ...]) -> torch.Tensor:
    """(B, Q) probability that the first word of the answer is yes and not no, of images (B, H, W, 3) in [0, 1].

    A forward pass for every picture and question: the host takes one at a time.
    """
    from ..ttsvar_core.rewards.asking import yes_against_no

    yes, no = _words(clip)
    rows = []
    for picture in images.float().cpu().split(1):
        for question in questions:
            page.check_interrupt()
            rows.append(yes_against_no(_first_word(clip, _tokens(clip, question, picture)), yes, no))
    return torch.cat(rows).view(len(images), len(questions))


def _speaker(clip: Any) -> Any:
    """The part of a CLIP that picks words, None where there is none."""
    model = getattr(clip, "cond_stage_model", None)
    return next((part for part in model.modules() if hasattr(part, "sample_token")), None) if model is not None else None


def _tokens(clip: Any, question: str, picture: torch.Tensor | None = None, **options: Any) -> Any:
    return clip.tokenize(question, image=picture, min_length=1, thinking=False, **options)


def _ids(tokens: Any) -> list:
    """The tokens of the first row, without their weights."""
    rows = next(iter(tokens.values())) if isinstance(tokens, dict) else tokens
    return [token[0] for token in rows[0]]


def _pictures(tokens: Any) -> bool:
    return any(isinstance(token, dict) for token in _ids(tokens))


def _words(clip: Any) -> tuple[list[int], list[int]]:
    """The tokens an answer of yes, and one of no, may begin with: where the two words first differ as the tokenizer has them."""
    from ..ttsvar_core.rewards.asking import NO, SPELLINGS, YES

    pairs = []
    for spelling in SPELLINGS:
        for yes, no in zip(YES, NO, strict=True):
            both = (_ids(_tokens(clip, spelling.format(word), skip_template=True)) for word in (yes, no))
            pairs.append(next(pair for pair in zip(*both, strict=False) if pair[0] != pair[1]))
    return sorted({yes for yes, _ in pairs}), sorted({no for _, no in pairs})


def _first_word(clip: Any, tokens: Any) -> torch.Tensor:
    """(1, vocabulary) logits of the first word that would be generated."""
    with _listening(_speaker(clip)) as heard:
        clip.generate(tokens, do_sample=False, max_length=1, **_word_by_word(clip))
    if not heard:
        raise RuntimeError("ComfyUI picks words in another way than this pack knows; use the reward yes or no of Reward Loader.")
    return heard[0]


def _word_by_word(clip: Any) -> dict[str, bool]:
    """Options for a model that could draft several words at once, as newer hosts let it; drafted words are picked elsewhere."""
    return {"mtp": False} if "mtp" in signature(clip.generate).parameters else {}


@contextmanager
def _listening(model: Any) -> Iterator[list[torch.Tensor]]:
    """Collects the logits that words are picked by; picks the likeliest."""
    heard: list[torch.Tensor] = []

    def pick(logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        heard.append(logits.detach().float().cpu())
        return logits.argmax(dim=-1, keepdim=True)

    model.sample_token = pick
    try:
        yield heard
    finally:
        del model.sample_token
