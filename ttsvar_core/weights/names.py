"""Which tensors of a file belong to a model, and under which name.

The published files nest, prefix and spell the same tensors differently, and carry constants and training buffers. Here all
of that becomes the one spelling our modules use.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor

from ..reading import UnusableFile
from ..registry import MODEL_FILES
from .files import RawCheckpoint

Kind = Literal["transformer", "tokenizer"]

# A moving average of the weights, taken where the file has no other copy; trainers spell its name in these ways.
_AVERAGES = ("gpt_ema_fsdp", "gpt_fsdp_ema", "gpt_ema", "gpt_wo_ddp_ema", "ema")
# Where a model lies in a file, outermost key first; the empty path is the file itself.
_PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "transformer": (
        (), ("trainer", "gpt_fsdp"), ("trainer", "gpt_wo_ddp"), ("gpt_fsdp",), ("state_dict",), ("model",), ("module",),
        *(place for name in _AVERAGES for place in (("trainer", name), (name,))),
    ),
    "tokenizer": (
        (), ("vae",), ("trainer", "vae_local"), ("vae_local",), ("state_dict",), ("model",), ("module",), ("ema",),
        ("trainer", "vae_ema"), ("vae_ema",),
    ),
}
# Tensors whose presence tells what a file is.
_TELLTALES: dict[str, tuple[str, ...]] = {
    "transformer": ("word_embed.weight", "text_norm.weight"),
    "tokenizer": ("encoder.conv_in.conv.weight", "decoder.conv_in.conv.weight"),
}
# What torch.compile, FSDP and activation checkpointing put between the parts of a name, at any place.
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

# Constants and training buffers of the published code (see its register_buffer calls), safe to drop.
_CONSTANTS = {
    "transformer": re.compile(
        r"(.*\.)?zero_k_bias|lvl_1L|attn_bias_for_masking|Infinity_visible_kvlen|Infinity_invisible_qlen"
    ),
    "tokenizer": re.compile(r"quantize\..*|quantizer\.lfq\.(mask|zero|codebook)"),
}
# Side tensors of quantised files: without them the weights mean something else.
_QUANTISED = re.compile(r".*(scale_weight|weight_scale|scale_input|scaled_fp8|comfy_quant|absmax|quant_state.*)")

_FOREIGN_NAMES: tuple[tuple[str, str], ...] = (
    (r"model\.diffusion_model\.", "a Stable Diffusion checkpoint"),
    (r"double_blocks\.", "a Flux transformer"),
    (r"class_emb\.weight", "a class-conditional VAR model"),
    (r"(encoder\.block\.0\.layer\.0|shared\.weight)", "a T5 text encoder (use it with the Text Encoder Loader)"),
    (r"blip\.", "the ImageReward model (use it with the reward loader)"),
    (r"visual\.|text_model\.|vision_model\.", "a CLIP-like model"),
    (r"(encoder\.conv_in\.weight|first_stage_model\.|decoder\.conv_in\.weight)", "an image autoencoder of another model"),
)

SUGGESTIONS = {
    kind: f"Use for example {' or '.join(file.what for file in MODEL_FILES if file.folder == folder)}."
    for kind, folder in (("transformer", "infinity"), ("tokenizer", "vae"))
}


def model_tensors(raw: RawCheckpoint, kind: Kind) -> dict[str, Tensor]:
    """The tensors of the transformer or tokenizer in a file, under our names, known constants dropped.

    Raises UnusableFile if the file holds something else, and says what it seems to be.
    """
    found = _find(raw.content, kind)
    if found is None:
        raise UnusableFile(_wrong_kind(raw, kind))
    quantised = [name for name in found if _QUANTISED.fullmatch(name)]
    if quantised:
        raise UnusableFile(
            f"{raw.path.name} is a quantised file (it holds {quantised[0]}), which is not supported. "
            "Use the original file; a lower precision can be chosen when it is loaded."
        )
    return {name: _our_shape(name, tensor) for name, tensor in found.items() if not _CONSTANTS[kind].fullmatch(name)}


def detect_kind(raw: RawCheckpoint) -> Kind:
    """Whether a file holds a transformer or a tokenizer; raises UnusableFile for neither."""
    for kind in ("transformer", "tokenizer"):
        if _find(raw.content, kind) is not None:
            return kind
    raise UnusableFile(_wrong_kind(raw, "transformer or tokenizer"))


def _places(content: dict[str, Any], kind: str) -> Iterator[dict[Any, Any]]:
    """The dictionaries in a file where a model of a kind may lie, the likeliest first."""
    for place in _PLACES.get(kind, ((),)):
        inner: Any = content
        for key in place:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            yield inner


def _find(content: dict[str, Any], kind: str) -> dict[str, Tensor] | None:
    for inner in _places(content, kind):
        tensors = {_our_name(name, kind): t for name, t in inner.items() if isinstance(t, Tensor) and isinstance(name, str)}
        if all(name in tensors for name in _TELLTALES[kind]) and "class_emb.weight" not in tensors:
            return tensors
    return None


def plain_name(name: str) -> str:
    """A tensor's name without what wrapping a module for training put into it."""
    name = _WRAPPERS.sub("", name)
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _our_name(name: str, kind: str) -> str:
    """One spelling for all files: no wrapper prefix; in the tokenizer every convolution and norm has its inner name."""
    name = plain_name(name)
    if kind == "tokenizer" and name.startswith(("encoder.", "decoder.")):
        name = re.sub(r"\b(conv_in|conv_out|conv1|conv2|nin_shortcut|(?:down|up)sample\.conv)\.(weight|bias)$", r"\1.conv.\2", name)
        name = re.sub(r"\b(norm1|norm2|norm_out)\.(weight|bias)$", r"\1.norm.\2", name)
    return name


def _our_shape(name: str, tensor: Tensor) -> Tensor:
    """One layout for all files: the published code stores the heads' query lengths as (1, 1, H, 1), for all its name says, when
    trained with its flash attention, and as (1, H, 1, 1) otherwise."""
    if name.endswith("sa.scale_mul_1H11") and tensor.ndim == 4 and tensor.shape[1] == 1:
        return tensor.transpose(1, 2)
    return tensor


def _wrong_kind(raw: RawCheckpoint, wanted: str) -> str:
    for kind in _TELLTALES:
        if kind != wanted and _find(raw.content, kind) is not None:
            return f"{raw.path.name} holds a {kind}; expected a {wanted}. Were the two files swapped?"
    for inner in _places(raw.content, wanted):
        for pattern, what in _FOREIGN_NAMES:
            if any(re.match(pattern, str(name)) for name in inner):
                return f"{raw.path.name} is {what}; expected an Infinity {wanted}."
    first = ", ".join(str(name) for name in list(raw.content)[:5]) or "nothing"
    return f"{raw.path.name} holds no Infinity {wanted}. It starts with: {first}. {SUGGESTIONS.get(wanted, '')}".strip()
