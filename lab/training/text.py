"""The text side: a word-level tokenizer and a small T5 encoder in the Hugging Face layout, and what it must know of nouns."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsvar_core.scenes.grammar import COLOURS, NUMBERS, RELATIONS, SHAPES, SIZES, ScenePrompt, plural

TEXT_CHANNELS = 128
TEXT_MAXLEN = 32
UNSAID = -100
SPECIAL = ("<pad>", "</s>", "<unk>")
FACTS = {
    "colour": 1 + len(COLOURS), "shape": len(SHAPES), "size": 1 + len(SIZES), "count": 1 + len(NUMBERS),
    "place": 1 + len(RELATIONS), "second place": 1 + len(RELATIONS), "order": 3,
}
NOUN_WORDS = {name: shape for shape in SHAPES for name in (shape, plural(shape))}


def vocabulary() -> dict[str, int]:
    """Every word of the grammar, special tokens first."""
    known = [*SPECIAL, ",", ".", "and", "a", "an", "one", "photo", "of", "to", "the"]
    known += [word for relation in RELATIONS for word in relation.split()]
    known += [*NUMBERS, *SIZES, *COLOURS, *NOUN_WORDS]
    return {word: index for index, word in enumerate(dict.fromkeys(known))}


@lru_cache(maxsize=1)
def build_tokenizer() -> Any:
    """A fast tokenizer that splits at spaces and marks and ends every prompt with </s>."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", vocabulary()["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_MAXLEN
    )


def build_encoder() -> Any:
    """A T5 encoder of random weights for the grammar's words; without dropout: it will see no others."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(vocabulary()), d_model=TEXT_CHANNELS, d_kv=32, d_ff=2 * TEXT_CHANNELS, num_layers=2, num_heads=4,
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


def tokenised(prompts: list[ScenePrompt], texts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids (N, T) int16 of the prompts as worded, zeros after their ends, and facts (N, T, 7) int8 of every noun."""
    tokenizer = build_tokenizer()
    names = {index: word for word, index in vocabulary().items()}
    ids = torch.zeros(len(texts), TEXT_MAXLEN, dtype=torch.int16)
    facts = torch.full((len(texts), TEXT_MAXLEN, len(FACTS)), UNSAID, dtype=torch.int8)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        found = tokenizer(text)["input_ids"]
        ids[row, : len(found)] = torch.tensor(found, dtype=torch.int16)
        nouns = [at for at, token in enumerate(found) if names[token] in NOUN_WORDS]
        for order, at in enumerate(nouns):
            facts[row, at] = torch.tensor(noun_facts(prompt, order), dtype=torch.int8)
    return ids, facts


def noun_facts(prompt: ScenePrompt, order: int) -> list[int]:
    """Numbers for what the prompt says of one noun, as FACTS lists them."""
    noun, places = prompt.nouns[order], [0, 0]
    for i, relation in enumerate(prompt.relations):
        index = RELATIONS.index(relation)
        if order == 0:
            places[i] = 1 + index
        elif order == i + 1:
            places[0] = 1 + (index ^ 1)
    colour = COLOURS.index(noun.colour) + 1 if noun.colour else 0
    size = SIZES.index(noun.size) + 1 if noun.size else 0
    return [colour, SHAPES.index(noun.shape), size, noun.count - 1, *places, order]


def padded_states(encoder: Any, ids: Tensor) -> Tensor:
    """Encoder states (B, longest, Ct) of rows of ids (B, T)."""
    used = ids[:, : int((ids != 0).sum(1).max())].long()
    return encoder(input_ids=used, attention_mask=(used != 0).long()).last_hidden_state


def noun_loss(reader: nn.Module, states: Tensor, facts: Tensor) -> Tensor:
    """How badly `reader` tells from a noun's state what the prompt says of it: states (B, longest, Ct), facts (B, T, 7)."""
    facts = facts[:, : states.shape[1]].long()
    said = facts[..., 0] != UNSAID
    parts = reader(states[said]).split(list(FACTS.values()), dim=-1)
    return sum(F.cross_entropy(part, facts[said][:, i]) for i, part in enumerate(parts)) / len(parts)


def build_noun_reader() -> nn.Module:
    """Reads facts off a noun's state. It makes up for the text encoder not being pretrained and is not exported."""
    return nn.Linear(TEXT_CHANNELS, sum(FACTS.values()))


def save_text_side(encoder: Any, folder: Path) -> None:
    """Write encoder and tokenizer as a Hugging Face folder."""
    encoder.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
