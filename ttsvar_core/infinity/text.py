"""The prompt as features: a T5 encoder through transformers, from files on this machine only.

A prompt is encoded once; the encoder remembers the last few. An empty prompt has no features and stands for "unconditional".
"""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError
from ..threads import threads_for

if TYPE_CHECKING:
    from torch import nn

MAX_TOKENS = 512  # what the published models were trained with
_REMEMBERED = 32  # prompts
_EXPECTED = "Infinity 2B and 8B use flan-t5-xl, as a Hugging Face folder or one .safetensors file with its tokenizer beside it."


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
    """A T5 encoder with its tokenizer. ``model`` is the bare module, for hosts that move modules between devices."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = min(MAX_TOKENS, getattr(tokenizer, "model_max_length", MAX_TOKENS))
        self._remembered: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    @property
    def channels(self) -> int:
        """Ct: width of the features."""
        return self.model.config.d_model

    def encode(self, prompt: str) -> Tensor:
        """Features (T, Ct) float32 on the CPU of the prompt's real tokens, its end mark included; no rows for an empty prompt.

        A prompt over the limit is cut, with a UserWarning that says how many tokens were dropped. The result may be shared
        between callers and must not be written to.
        """
        if not prompt.strip():
            return torch.zeros(0, self.channels)
        tokens = self._tokens(prompt)
        if tokens not in self._remembered:
            self._remembered[tokens] = self._encode(tokens)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(tokens)
        return self._remembered[tokens]

    def _tokens(self, prompt: str) -> tuple[int, ...]:
        """Token numbers of a prompt, cut to the limit (the end mark stays)."""
        tokens = tuple(self.tokenizer(prompt, truncation=False, padding=False, verbose=False)["input_ids"])
        dropped = len(tokens) - self.max_tokens
        if dropped <= 0:
            return tokens
        warnings.warn(
            f"The prompt has {len(tokens)} tokens, {dropped} more than the {self.max_tokens} the model reads; "
            f"the last {dropped} before the end mark were dropped.",
            stacklevel=4,
        )
        return tokens[: self.max_tokens - 1] + tokens[-1:]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode(self, tokens: tuple[int, ...]) -> Tensor:
        device = self.model.get_input_embeddings().weight.device
        ids = torch.tensor([tokens], device=device)
        with threads_for(self.model, len(tokens)):
            return self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].float().cpu()

    def __repr__(self) -> str:
        return f"TextEncoder(channels={self.channels}, tokens<={self.max_tokens})"


def encode_prompt(encoder: TextEncoder, prompt: str, negative_prompt: str = "") -> Conditioning:
    """Encode a prompt, and a negative prompt unless it is empty (then guidance leads away from the learned "no prompt")."""
    if not negative_prompt.strip():
        return Conditioning(prompt, encoder.encode(prompt))
    return Conditioning(prompt, encoder.encode(prompt), negative_prompt, encoder.encode(negative_prompt))


def load_text_encoder(
    path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu",
    tokenizer: str | Path | None = None,
) -> TextEncoder:
    """Load a T5 encoder from a Hugging Face folder, or from one .safetensors file.

    The tokenizer lies in the same folder (``tokenizer.json`` or ``spiece.model``; for a single file also under its own name,
    as in ``t5.tokenizer.json``), or is given by ``tokenizer``, a file or a folder. Nothing is ever downloaded.
    Raises CheckpointError for files that are missing, incomplete or of another model.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"There is no text encoder at {path}. {_EXPECTED}")
    found = _find_tokenizer(path, Path(tokenizer) if tokenizer else None)
    model = _load_folder(path, dtype) if path.is_dir() else _load_single_file(path, dtype)
    return TextEncoder(model.to(device).requires_grad_(False).eval(), _load_tokenizer(found))


def _load_folder(folder: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import T5EncoderModel

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder} has no readable config.json ({error}). {_EXPECTED}") from error
    if kind != "t5":
        raise CheckpointError(f"{folder} holds a {kind} model; expected a t5 one. {_EXPECTED}")
    try:
        with _no_progress_bar():
            model, outcome = T5EncoderModel.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"The text encoder in {folder} cannot be read: {error} {_EXPECTED}") from error
    _check(outcome, folder.name)
    return model


def _load_single_file(path: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import T5EncoderModel

    from ..checkpoint.files import read_checkpoint

    content = {name: tensor for name, tensor in read_checkpoint(path).content.items() if isinstance(tensor, Tensor)}
    weights = {name: tensor for name, tensor in content.items() if not name.startswith(("decoder.", "lm_head."))}
    if "shared.weight" not in weights and "encoder.embed_tokens.weight" in weights:
        weights["shared.weight"] = weights["encoder.embed_tokens.weight"]
    config = _config_of(weights, path.name)
    with _no_progress_bar():
        model, outcome = T5EncoderModel.from_pretrained(
            None, config=config, state_dict=weights, torch_dtype=dtype, output_loading_info=True
        )
    _check(outcome, path.name)
    return model


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar over tensors it loads in milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _config_of(weights: Mapping[str, Tensor], name: str) -> Any:
    """A T5 configuration from the shapes of the weights."""
    from transformers import T5Config

    try:
        vocabulary, width = weights["shared.weight"].shape
        attention = "encoder.block.0.layer.0.SelfAttention."
        buckets, heads = weights[attention + "relative_attention_bias.weight"].shape
        gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in weights
        hidden = weights[f"encoder.block.0.layer.1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight"].shape[0]
        inner = weights[attention + "q.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{name} is no T5 text encoder (it lacks {error}). {_EXPECTED}") from error
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.block.")}
    return T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=inner // heads, d_ff=hidden, num_layers=len(layers), num_heads=heads,
        relative_attention_num_buckets=buckets, feed_forward_proj="gated-gelu" if gated else "relu",
    )


def _check(outcome: Mapping[str, Any], name: str) -> None:
    """Nothing may be missing or misshaped, or it would run on random values."""
    lost = sorted(map(str, [*outcome["missing_keys"], *outcome.get("mismatched_keys", ())]))
    if lost:
        raise CheckpointError(f"{name} lacks {len(lost)} tensors of a T5 encoder: {', '.join(lost[:5])}. {_EXPECTED}")


def _find_tokenizer(path: Path, given: Path | None) -> Path:
    """The tokenizer's file, or its folder if that says how it is set up."""
    folder = given or (path if path.is_dir() else path.parent)
    if folder.is_file():
        return folder
    if (folder / "tokenizer_config.json").is_file() and (folder / "tokenizer.json").is_file():
        return folder
    stems = ["", *([path.stem + "."] if path.is_file() else [])]
    for candidate in (folder / (stem + name) for stem in reversed(stems) for name in ("tokenizer.json", "spiece.model")):
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"There is no tokenizer in {folder}. Put the tokenizer.json or spiece.model of the text encoder (flan-t5-xl) there."
    )


def _load_tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from .sentencepiece import read_sentencepiece

    try:
        if path.is_dir():
            return AutoTokenizer.from_pretrained(path, local_files_only=True)
        marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        if path.suffix == ".json":
            return PreTrainedTokenizerFast(tokenizer_file=str(path), model_max_length=MAX_TOKENS, **marks)
        return PreTrainedTokenizerFast(tokenizer_object=read_sentencepiece(path), model_max_length=MAX_TOKENS, **marks)
    except Exception as error:  # the tokenizer library raises bare exceptions
        raise CheckpointError(f"The tokenizer {path} cannot be read ({error}). Download it again.") from error
