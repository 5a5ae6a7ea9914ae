"""A vision-language model asked yes or no: of the whole prompt (VQAScore, GenEval 2) or of each of its parts (Soft-TIFA).

The score is the probability that the first word of the answer is yes and not no, from one forward pass over the pictures;
nothing is generated. It is yes against no, not yes against all words: the published scores are the same where a model answers
with one of the two, and this one stays between 0 and 1 where it would rather say something else first.
Sources: Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation" (2024); GenEval 2 (2025).
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..reading import UnusableFile, refusing
from ..registry import REWARDS
from ..vision.network import NetworkBacked, in_chunks, placement
from .asking import NO, SPELLINGS, YES, Asking, yes_against_no
from .questions import TEMPLATES

(PUBLISHED,) = REWARDS["yes-no"].files
CHUNK = 8
"""Pictures in one forward pass unless memory runs out; each is a thousand tokens and more."""


@dataclass(frozen=True, repr=False, eq=False)
class YesNo(NetworkBacked, Asking):
    """Probability of yes. A picture never shares its row with another, so its score does not depend on its batch.

    For the other fields see `Asking`.
    """

    model: nn.Module
    processor: Any
    name: str
    chunk: int = CHUNK

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def answer(self, images: Tensor, questions: tuple[str, ...]) -> Tensor:
        """See `Asking`."""
        return in_chunks(lambda part: self._answers(part, questions), images, self.chunk)

    def _answers(self, images: Tensor, questions: tuple[str, ...]) -> Tensor:
        """(B, Q) float32. A question is one batch without padding, since all its rows are as long; what the pictures cost is paid
        once: they are prepared for the first question, and seen once where the model takes what it saw."""
        device, dtype = placement(self.model)
        takes = inspect.signature(self.model.forward).parameters
        options = {"use_cache": False} | ({"logits_to_keep": 1} if "logits_to_keep" in takes else {})
        processor = copy.copy(self.processor)
        processor.image_processor = _Once(self.processor.image_processor)
        pictures = [[picture] for picture in (images.clamp(0, 1) * 255).round().byte().cpu().permute(0, 3, 1, 2)]
        yes, no = self._words()
        seen, columns = None, []
        for question in questions:
            text = [self._chat(question)] * len(pictures)
            inputs = dict(processor(text=text, images=pictures, padding=False, return_tensors="pt").to(device, dtype))
            inputs.pop("labels", None)
            if len(questions) > 1 and "mm_encoder_outputs" in takes:
                seen = seen or {"image": _see(self.model, inputs)}
                inputs = {key: value for key, value in inputs.items() if key != "pixel_values"} | {"mm_encoder_outputs": {**seen}}
            logits = self.model(**inputs, **options).logits[:, -1]
            columns.append(yes_against_no(logits, yes, no))
        return torch.stack(columns, dim=1)

    def _chat(self, question: str) -> str:
        """A question with its picture as the model is spoken to. Marks of the model's own in a question are left out."""
        tokenizer = self.processor.tokenizer
        image = str(getattr(self.processor, "image_token", "<image>"))
        for mark in {*tokenizer.all_special_tokens, image}:
            question = question.replace(mark, " ")
        template = getattr(self.processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
        if not template:
            return image + question
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], chat_template=template, add_generation_prompt=True, tokenize=False)

    def _words(self) -> tuple[list[int], list[int]]:
        """The tokens an answer of yes, and one of no, may begin with. Raises UnusableFile where they cannot be told apart."""
        yes, no = (
            {self.processor.tokenizer.encode(spelling.format(word), add_special_tokens=False)[0] for word in words
             for spelling in SPELLINGS}
            for words in (YES, NO)
        )  # fmt: skip
        if not yes - no or not no - yes:
            raise UnusableFile(f"the tokenizer of {self.name} begins yes and no with the same token. {PUBLISHED.advice}")
        return sorted(yes - no), sorted(no - yes)


class _Once:
    """An image processor that prepares the first pictures it is given, and gives the same for every question about them."""

    def __init__(self, inner: Any):
        self._inner, self._made = inner, None

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._made is None:
            self._made = self._inner(*args, **options)
        return copy.copy(self._made)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _see(model: nn.Module, inputs: dict[str, Any]) -> Any:
    """What a model sees in its pictures, before any question."""
    look = model.base_model.get_image_features
    return look(**{key: inputs[key] for key in inspect.signature(look).parameters if key in inputs}, return_dict=True)


def load_yes_no(
    path: str | Path, template: str = "geneval2", parts: bool = False, dtype=torch.float32, questions: tuple[str, ...] = ()
) -> YesNo:
    """Yes or no from a folder with a vision-language model that transformers knows.

    template: one of TEMPLATES, or one of the user's own. For the rest see `Asking`. Raises MissingFile, UnusableFile and
    ImportError as `load_vision_language` does, and ValueError for a template without its one {}.
    """
    from ..vision.language import load_vision_language

    model, processor = load_vision_language(path, PUBLISHED, dtype)
    kind = "yes-no" + ("-parts" if parts else "-vqascore" if template == "vqascore" else "")
    asked = TEMPLATES.get(template, template)
    name = f"{kind} ({Path(path).resolve().name})"
    reward = YesNo(model, processor, name, template=asked, questions=questions, parts=parts)
    with refusing(str(path), PUBLISHED.advice):
        reward._words()
        reward._chat("")
    return reward
