"""The text side of the scene model: a word-level tokenizer and a small T5 encoder, in the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsvar_core.scenes.grammar import COLOURS, COUNT_WORDS, RELATIONS, SHAPES, Noun, ScenePrompt, all_prompts

TEXT_CHANNELS = 128
TEXT_MAXLEN = 32
FACTS = {"colour": 1 + len(COLOURS), "shape": len(SHAPES), "place": 1 + len(RELATIONS), "count": 4, "order": 2}
UNSAID = -100
SPECIAL = ("<pad>", "</s>", "<unk>")


def vocabulary() -> dict[str, int]:
    """Every word of the grammar, special tokens first."""
    related = dict.fromkeys(word for relation in RELATIONS for word in relation.split() if word != "of")
    words = [*SPECIAL, "a", "photo", "of", "and", *related, *COUNT_WORDS, *COLOURS, *SHAPES, *(f"{s}s" for s in SHAPES)]
    return {word: index for index, word in enumerate(words)}


def build_tokenizer() -> Any:
    """A fast tokenizer that splits at spaces and ends every prompt with </s>."""
    return word_tokenizer(vocabulary())


def word_tokenizer(words: dict[str, int], normalizer: Any = None) -> Any:
    """A fast tokenizer for these words (with `SPECIAL` among them) that ends every prompt with </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    if normalizer is not None:
        core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", words["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_MAXLEN
    )


def build_encoder(words: int | None = None, layers: int = 2, channels: int = TEXT_CHANNELS) -> Any:
    """A T5 encoder of random weights for so many words, by default the grammar's; without dropout: it will see no others."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=words or len(vocabulary()), d_model=channels, d_kv=32, d_ff=2 * channels, num_layers=layers, num_heads=4,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, pad_token_id=0,
        eos_token_id=1,
    )
    encoder = T5EncoderModel(config)
    point_heads(encoder)
    return encoder


def point_heads(encoder: Any) -> None:
    """Let three attention heads start out looking at the word before, all words after, and all words before.

    From T5's own start, small and for pretraining over millions of steps, the position biases hardly move in a short run, and
    the encoder stays a bag of words: after 1500 steps it could not tell which colour stands before a noun.
    """
    bias = encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    half = bias.shape[0] // 2  # buckets of words before (1, 2, ...), then of words after
    with torch.no_grad():
        bias[:, :3] = 0
        bias[1, 0] = 6.0
        bias[half:, 1] = 4.0
        bias[1:half, 2] = 4.0


class PromptTable:
    """The tokens of every prompt of the grammar, looked up by its place in `all_prompts()`."""

    def __init__(self, device: str) -> None:
        tokenizer = build_tokenizer()
        rows = [tokenizer(prompt.text)["input_ids"] for prompt in all_prompts()]
        self.lengths = [len(row) for row in rows]
        self.ids = torch.zeros(len(rows), max(self.lengths), dtype=torch.long)
        self.facts = torch.full((*self.ids.shape, len(FACTS)), UNSAID)
        for place, (row, prompt) in enumerate(zip(rows, all_prompts(), strict=True)):
            self.ids[place, : len(row)] = torch.tensor(row)
            nouns = [at for at, word in enumerate(prompt.text.split()) if word.removesuffix("s") in SHAPES]
            for order, (at, noun) in enumerate(zip(nouns, prompt.nouns, strict=True)):
                self.facts[place, at] = torch.tensor(noun_facts(prompt, noun, order))
        self.device = device

    def states(self, encoder: Any, places: list[int]) -> tuple[list[int], Tensor]:
        """The distinct prompts among `places` and their encoder states (U, T, Ct), padded."""
        unique = sorted(set(places))
        longest = max(self.lengths[place] for place in unique)
        ids = self.ids[unique, :longest].to(self.device)
        return unique, encoder(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state

    def rows(self, unique: list[int], states: Tensor, places: list[int]) -> list[Tensor]:
        """Text features (T, Ct) of the prompts at `places`, without padding."""
        known = dict(zip(unique, states, strict=True))
        return [known[place][: self.lengths[place]] for place in places]

    def noun_loss(self, reader: nn.Module, unique: list[int], states: Tensor) -> Tensor:
        """How badly `reader` tells from a noun's state what the prompt says of it."""
        facts = self.facts[unique, : states.shape[1]].to(states.device)
        said = facts[..., 0] != UNSAID
        parts = reader(states[said]).split(list(FACTS.values()), dim=-1)
        return sum(F.cross_entropy(part, facts[said][:, i]) for i, part in enumerate(parts)) / len(parts)


def noun_facts(prompt: ScenePrompt, noun: Noun, order: int) -> list[int]:
    """Numbers for a noun's colour, shape, place, count and order, as FACTS lists them."""
    place = 0
    if prompt.relation:
        first = RELATIONS.index(prompt.relation)
        place = 1 + (first if order == 0 else first ^ 1)
    colour = COLOURS.index(noun.colour) + 1 if noun.colour else 0
    return [colour, SHAPES.index(noun.shape), place, prompt.count - 1, order]


def build_noun_reader(channels: int = TEXT_CHANNELS) -> nn.Module:
    """Reads facts off a noun's state. It makes up for the text encoder not being pretrained and is not exported."""
    return nn.Linear(channels, sum(FACTS.values()))


def save_text_side(encoder: Any, folder: Path) -> None:
    """Write encoder and tokenizer as a Hugging Face folder."""
    encoder.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
