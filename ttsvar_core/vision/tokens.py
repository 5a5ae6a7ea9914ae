"""Prompts to token ids for BERT's and CLIP's text towers, from the tokenizers that are shipped and nothing else."""

import html
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..weights.tensors import Tensors

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "vocab"


class PromptTokenizer(NamedTuple):
    """A tokenizer with the length its text tower reads.

    name: whose vocabulary it is. unescape: whether HTML entities are resolved first, as CLIP's authors did.
    """

    name: str
    tokenizer: object
    length: int
    unescape: bool = False

    def __call__(self, prompt: str) -> Tensor:
        """(1, T) token ids of a prompt, T as short as it can be; a longer prompt is cut, with a warning."""
        text = html.unescape(html.unescape(prompt)) if self.unescape else prompt
        encoding = self.tokenizer.encode(text.strip())
        if encoding.overflowing:
            cut = sum(len(part.ids) for part in encoding.overflowing)
            log.warning("%s reads %d tokens; the end of the prompt (%d tokens) is not seen", self.name, self.length, cut)
        return torch.tensor([encoding.ids])

    def __repr__(self) -> str:
        return f"PromptTokenizer({self.name}, {self.length} tokens)"

    @property
    def size(self) -> int:
        """Entries of the vocabulary: the text tower must have at least as many embeddings."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def check(self, known: int, tensors: Tensors) -> None:
        """Raises UnusableFile if the text tower in `tensors` knows fewer tokens than there are."""
        if known < self.size:
            raise tensors.refusal(f"knows {known} tokens, its tokenizer has {self.size}: another tokenizer belongs to it")


def bert_tokenizer() -> PromptTokenizer:
    """BERT's uncased word pieces with ImageReward's two extra tokens; the package reads 35 tokens."""
    return _shipped("bert_uncased", 35)


def clip_tokenizer(length: int = 77) -> PromptTokenizer:
    """CLIP's byte pairs, cut to `length` tokens with start and end marker, not padded (the text tower is causal)."""
    return _shipped("clip", length)._replace(unescape=True)


def _shipped(name: str, length: int) -> PromptTokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(SHIPPED / f"{name}.json"))
    tokenizer.enable_truncation(length)
    return PromptTokenizer(name, tokenizer, length)
