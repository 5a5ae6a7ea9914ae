"""The prompt as features: a T5 encoder through transformers, from files on this machine only.

A prompt is encoded once; the encoder remembers the last few. An empty prompt has no features and stands for "unconditional".
"""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..reading import MissingFile, UnusableFile, read_bytes, read_json, refusing
from ..registry import TEXT_ENCODER
from ..threads import threads_for
from ..weights.published import load_published
from ..weights.stated import count_blocks, stated
from ..weights.tensors import Tensors, read_tensors

MAX_TOKENS = 512  # what the published models were trained with
_REMEMBERED = 32  # prompts
_MAX_PIECES = 2 * 2**20  # bytes; T5's spiece.model has 0.8 MB
Tokenizer = Callable[[str], list[int]]  # from a prompt to the numbers of its tokens, the end mark last


class Conditioning(NamedTuple):
    """A prompt and its features (T, Ct) float32 on the CPU, and the same of a negative prompt if there is one.

    Zero rows of ``text`` mean no prompt: the model then uses its learned unconditional text.
    """

    prompt: str
    text: Tensor
    negative_prompt: str | None = None
    negative: Tensor | None = None

    def __repr__(self) -> str:
        negative = "" if self.negative is None else f", negative={self.negative_prompt!r:.40}"
        return f"Conditioning({self.prompt!r:.60}, tokens={len(self.text)}{negative})"


class TextEncoder:
    """A T5 encoder with its tokenizer, which reads ``max_tokens`` of a prompt. ``model`` is the bare module, for hosts that move
    modules between devices."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, max_tokens: int = MAX_TOKENS) -> None:
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, min(MAX_TOKENS, max_tokens)
        self._remembered = lru_cache(_REMEMBERED)(partial(_encoded, model))  # of the model alone: a circle would hold it longer

    @property
    def channels(self) -> int:
        """Ct: width of the features."""
        return self.model.config.d_model

    def encode(self, prompt: str) -> Tensor:
        """Features (T, Ct) float32 on the CPU of the prompt's real tokens, its end mark included; no rows for an empty prompt.

        A prompt over the limit is cut, with a UserWarning that says how many tokens were dropped. The result may be shared
        between callers and must not be written to. Raises UnicodeEncodeError (a ValueError) for half a character.
        """
        prompt.encode()
        if not prompt.strip():
            return torch.zeros(0, self.channels)
        return self._remembered(self._tokens(prompt))

    def _tokens(self, prompt: str) -> tuple[int, ...]:
        """Token numbers of a prompt, cut to the limit (the end mark stays)."""
        tokens = tuple(self.tokenizer(prompt))
        dropped = len(tokens) - self.max_tokens
        if dropped <= 0:
            return tokens
        warnings.warn(
            f"The prompt has {len(tokens)} tokens, {dropped} more than the {self.max_tokens} the model reads; "
            f"the last {dropped} before the end mark were dropped.",
            stacklevel=4,
        )
        return tokens[: self.max_tokens - 1] + tokens[-1:]

    def __repr__(self) -> str:
        return f"TextEncoder(channels={self.channels}, tokens<={self.max_tokens})"


@torch.inference_mode(False)
@torch.no_grad()
def _encoded(model: nn.Module, tokens: tuple[int, ...]) -> Tensor:
    """The features of a prompt's tokens, as `TextEncoder.encode` gives them. Raises UnusableFile for a token the model lacks."""
    embeddings = model.get_input_embeddings().weight
    if max(tokens, default=0) >= len(embeddings):
        raise UnusableFile(
            f"The tokenizer gives token {max(tokens)}, the text encoder knows {len(embeddings)}: they do not belong together. "
            + TEXT_ENCODER.advice
        )
    ids = torch.tensor([tokens], device=embeddings.device)
    with threads_for(model, len(tokens)):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].float().cpu()


def encode_prompt(encoder: TextEncoder, prompt: str, negative_prompt: str = "") -> Conditioning:
    """Encode a prompt, and a negative prompt unless it is empty (then guidance leads away from the learned "no prompt")."""
    if not negative_prompt.strip():
        return Conditioning(prompt, encoder.encode(prompt))
    return Conditioning(prompt, encoder.encode(prompt), negative_prompt, encoder.encode(negative_prompt))


def load_text_encoder(path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> TextEncoder:
    """Load a T5 encoder from a Hugging Face folder, or from one .safetensors file.

    The tokenizer lies in the same folder (``tokenizer.json`` or ``spiece.model``; for a single file also under its own name,
    as in ``t5.tokenizer.json``). Nothing is ever downloaded.
    Raises UnusableFile for files that are missing, incomplete or of another model.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"There is no text encoder at {path}. {TEXT_ENCODER.advice}")
    found = _find_tokenizer(path)
    with refusing(path, TEXT_ENCODER.advice):
        model = _load_model(path, dtype)
    return TextEncoder(model.to(device), *_load_tokenizer(found))


def _load_model(path: Path, dtype: torch.dtype) -> nn.Module:
    """The encoder half of the T5 in a folder or file; sizes come from its tensors, the rest from the folder's config.json."""
    from transformers import T5EncoderModel

    config = read_json(path / "config.json") if path.is_dir() else {}
    if path.is_dir() and config.get("model_type") != "t5":
        raise UnusableFile(f"{path} holds a {config.get('model_type')!s:.40} model; expected a t5 one. {TEXT_ENCODER.advice}")
    tensors = read_tensors(path, TEXT_ENCODER)
    weights = tensors.alike({name: held for name, held in tensors.items() if not name.startswith(("decoder.", "lm_head."))})
    if "shared.weight" not in weights and "encoder.embed_tokens.weight" in weights:
        weights["shared.weight"] = weights["encoder.embed_tokens.weight"]
    model = load_published(T5EncoderModel, _config_of(weights, config), weights, dtype)
    if dtype == torch.float16:
        for name, parameter in model.named_parameters():
            if name.endswith(".wo.weight") and name in weights:  # as the published code has it: float16 runs over there
                parameter.data = weights[name].float()  # transformers 4.50 leaves them in float16
    return model


def _config_of(weights: Tensors, config: Mapping[str, Any]) -> Any:
    """A T5 configuration from the shapes of the weights, and what they do not tell from the one beside them."""
    from transformers import T5Config

    attention, feed = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
    weights.require("shared.weight", attention + "q.weight")
    vocabulary, width = weights["shared.weight"].shape
    buckets, heads = weights[attention + "relative_attention_bias.weight"].shape
    gated = feed + "wi_0.weight" in weights
    hidden, inner = len(weights[feed + ("wi_0.weight" if gated else "wi.weight")]), len(weights[attention + "q.weight"])
    usual = T5Config()
    return T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=inner // heads, d_ff=hidden, num_heads=heads,
        num_layers=count_blocks(weights, r"encoder\.block\.(\d+)\."), relative_attention_num_buckets=buckets,
        feed_forward_proj=stated(config, "feed_forward_proj", "gated-gelu" if gated else "relu"),
        relative_attention_max_distance=stated(config, "relative_attention_max_distance", usual.relative_attention_max_distance),
        layer_norm_epsilon=stated(config, "layer_norm_epsilon", usual.layer_norm_epsilon),
    )


def _find_tokenizer(path: Path) -> Path:
    """The tokenizer's file, or its folder if that says how it is set up."""
    folder = path if path.is_dir() else path.parent
    if (folder / "tokenizer_config.json").exists() and (folder / "tokenizer.json").is_file():
        return folder
    stems = [path.stem + ".", ""] if path.is_file() else [""]
    for candidate in (folder / (stem + name) for stem in stems for name in ("tokenizer.json", "spiece.model")):
        if candidate.exists():
            return candidate
    raise UnusableFile(
        f"There is no tokenizer in {folder}. Put the tokenizer.json or spiece.model of the text encoder (flan-t5-xl) there."
    )


def _load_tokenizer(path: Path) -> tuple[Tokenizer, int]:
    """The tokenizer in a file, or in a folder, whose tokenizer_config.json then states its limit; and that limit.

    Read without transformers' own loader, which would follow a configuration to code and ask whether to run it.
    """
    import tokenizers

    config = read_json(path / "tokenizer_config.json") if path.is_dir() else {}
    file = path / "tokenizer.json" if path.is_dir() else path
    with refusing(f"The tokenizer {path}"):
        if file.suffix != ".json":
            return _sentence_pieces(read_bytes(file, _MAX_PIECES)), MAX_TOKENS
        tokenizer = tokenizers.Tokenizer.from_buffer(read_bytes(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda prompt: tokenizer.encode(prompt).ids, stated(config, "model_max_length", MAX_TOKENS)


def _sentence_pieces(model: bytes) -> Tokenizer:
    """T5's ``spiece.model``. Raises what a file of any content may."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_proto=model)
    if pieces.eos_id() < 0 or not all(map(math.isfinite, pieces.get_score(list(range(len(pieces)))))):
        raise ValueError("it has no end mark, or scores that are no numbers; it is no T5 vocabulary")
    return lambda prompt: [*pieces.encode(prompt), pieces.eos_id()]
