"""The text side of the scene model: a word-level tokenizer and a small T5 encoder, in the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttsvar_core.scenes.grammar import COLOURS, COUNT_WORDS, RELATIONS, SHAPES, all_prompts

TEXT_CHANNELS = 128
TEXT_MAXLEN = 32
SPECIAL = ("<pad>", "</s>", "<unk>")


def vocabulary() -> dict[str, int]:
    """Every word of the grammar, special tokens first."""
    related = dict.fromkeys(word for relation in RELATIONS for word in relation.split() if word != "of")
    words = [*SPECIAL, "a", "photo", "of", "and", *related, *COUNT_WORDS, *COLOURS, *SHAPES, *(f"{s}s" for s in SHAPES)]
    return {word: index for index, word in enumerate(words)}


def build_tokenizer() -> Any:
    """A fast tokenizer that splits at spaces and ends every prompt with </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = vocabulary()
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", words["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_MAXLEN
    )


def build_encoder(layers: int = 2, channels: int = TEXT_CHANNELS) -> Any:
    """A T5 encoder of random weights, without dropout: the prompts it will ever see are all in the grammar."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(vocabulary()), d_model=channels, d_kv=32, d_ff=2 * channels, num_layers=layers, num_heads=4,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False, pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config)


class PromptTable:
    """The tokens of every prompt of the grammar, looked up by its place in `all_prompts()`."""

    def __init__(self, device: str) -> None:
        tokenizer = build_tokenizer()
        rows = [tokenizer(prompt.text)["input_ids"] for prompt in all_prompts()]
        self.lengths = [len(row) for row in rows]
        self.ids = torch.zeros(len(rows), max(self.lengths), dtype=torch.long)
        for place, row in enumerate(rows):
            self.ids[place, : len(row)] = torch.tensor(row)
        self.device = device

    def encode(self, encoder: Any, places: list[int]) -> list[Tensor]:
        """Text features (T, Ct) of the prompts at `places`, each prompt run through the encoder once."""
        unique = sorted(set(places))
        longest = max(self.lengths[place] for place in unique)
        ids = self.ids[unique, :longest].to(self.device)
        states = encoder(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        rows = dict(zip(unique, states, strict=True))
        return [rows[place][: self.lengths[place]] for place in places]


def save_text_side(encoder: Any, folder: Path) -> None:
    """Write encoder and tokenizer as a Hugging Face folder."""
    encoder.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
