"""Load a transformer and its tokenizer, checked and without a second copy in memory.

The modules are built without storage, every name and shape is compared before any weight is read, and the tensors of the files
are then put in place one by one. Nothing is ever left at a random initial value.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..image_model import ImageModel
from ..names import BUNDLED
from ..reading import UnusableFile, refusing
from .files import RawCheckpoint, Reader, read_checkpoint
from .fingerprint import Fingerprint
from .finite import converted
from .names import SUGGESTIONS, model_tensors
from .pairing import check_bits, check_d32, check_stride
from .shapes import assemble, json_beside, stored_sizes, tokenizer_sizes, transformer_sizes

if TYPE_CHECKING:
    from ..infinity.text import TextEncoder

_SHOWN = 5  # names listed in an error
_OWN_SCHEDULE = frozenset({"scale_schedule", "h_div_w"})  # stated only for models that are not published ones


def load_model(
    transformer_path: str | Path,
    tokenizer_path: str | Path,
    *,
    config: ModelConfig | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    operations: Any = nn,
    reader: Reader = read_checkpoint,
) -> ImageModel:
    """Load a transformer and the tokenizer that belongs to it.

    Takes every published layout (see ``files``). Sizes come from ``config``, else from a JSON file beside the transformer, else
    from metadata our converter wrote, else from the tensors' shapes. ``dtype`` is that of the transformer's
    blocks (see ``precision_of``), ``device`` its place; the tokenizer is kept in float32 (0.4 GB). ``operations`` provides
    the layers, ``reader`` opens a file. A foresight network beside the transformer (``name.foresight.safetensors``) comes with it.

    Raises UnusableFile, before any weight is read, for files that are unusable or do not belong together, and for weights
    that are not finite. Tensors no module has are a UserWarning that names them.
    """
    raw = reader(Path(transformer_path)), reader(Path(tokenizer_path))
    from ..foresight import foresight_beside, with_foresight
    from ..infinity.model import precision_of

    with refusing(f"{raw[0].path.name} with {raw[1].path.name}"):
        tensors = model_tensors(raw[0], "transformer"), model_tensors(raw[1], "tokenizer")
        config, origin = _resolve(raw, tensors, config)
        config = _fit_unconditional(config, tensors[0])
        transformer, tokenizer = _build(config, operations)
        for module, part, file, kind in zip(_build(config, nn), tensors, raw, ("transformer", "tokenizer"), strict=True):
            _check_names(module, part, f"{file.path.name} (sizes from {origin})", kind)
    fingerprint = Fingerprint()
    _fill(transformer, tensors[0], raw[0], lambda name: precision_of(name, dtype), device, fingerprint)
    _fill(tokenizer, tensors[1], raw[1], lambda name: torch.float32, device, fingerprint)
    tokenizer.to(memory_format=torch.channels_last)  # a fifth to a half faster on the processor; see `decoder_in`
    model, ahead = ImageModel(config, transformer, tokenizer, fingerprint.hexdigest()), foresight_beside(raw[0].path)
    return with_foresight(model, ahead) if ahead.exists() else model


def load_bundled(dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> tuple[ImageModel, TextEncoder]:
    """The small model that comes with the package, and its text encoder."""
    from ..infinity.text import load_text_encoder

    folder = Path(__file__).resolve().parent.parent / "bundled"
    model = load_model(
        folder / f"{BUNDLED}.transformer.safetensors", folder / f"{BUNDLED}.vae.safetensors", dtype=dtype, device=device
    )
    return model, load_text_encoder(folder / f"{BUNDLED}.t5", device=device)


def _resolve(
    raw: tuple[RawCheckpoint, ...], tensors: tuple[dict[str, Tensor], ...], given: ModelConfig | None
) -> tuple[ModelConfig, str]:
    """The configuration and where it came from, after checking that the two files belong together."""
    names = raw[0].path.name, raw[1].path.name
    transformer, tokenizer = transformer_sizes(tensors[0]), tokenizer_sizes(tensors[1])
    metadata = stored_sizes(raw[0]), stored_sizes(raw[1])
    check_bits(transformer, tokenizer, names)
    known_sources = [stored.get("source", name) for stored, name in zip(metadata, names, strict=True)]
    check_d32(transformer, *known_sources)
    if given is not None:
        return given, "the configuration given"
    beside = json_beside(raw[0].path)
    check_stride(beside is not None or not _OWN_SCHEDULE.isdisjoint(metadata[0]), transformer, tokenizer, names[1])
    stated = {**metadata[1], **metadata[0], **(beside[1] if beside else {})}
    origin = beside[0].name if beside else "the file's metadata" if metadata[0] else "the tensors' shapes"
    return assemble({**transformer, **tokenizer}, stated, raw[0].path.stem), origin


def _fit_unconditional(config: ModelConfig, tensors: dict[str, Tensor]) -> ModelConfig:
    """Cut the unconditional text to the model's length, or keep what is there if it is shorter.

    The first T rows stand for a prompt of T tokens, so neither changes what a row means.
    """
    rows = tensors.get("cfg_uncond")
    if rows is None or rows.ndim != 2 or not len(rows):
        return config
    tensors["cfg_uncond"] = rows[: config.transformer.text_maxlen]
    kept = len(tensors["cfg_uncond"])
    return replace(config, transformer=replace(config.transformer, text_maxlen=kept))


def _build(config: ModelConfig, operations: Any) -> tuple[nn.Module, nn.Module]:
    """Both modules without storage."""
    from ..bsq.autoencoder import Tokenizer
    from ..infinity.model import Infinity

    with torch.device("meta"):
        return Infinity(config.transformer, operations), Tokenizer(config.tokenizer, operations)


def _check_names(module: nn.Module, tensors: dict[str, Tensor], file: str, kind: str) -> None:
    """Compare names, shapes and number types; drop surplus tensors with a warning. Raises UnusableFile."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UnusableFile(
            f"{file} lacks {len(missing)} of {len(expected)} tensors: {_listed(missing)}. "
            f"The file is incomplete or of another model. {SUGGESTIONS[kind]}"
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in expected.items() if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise UnusableFile(f"{file} has {len(wrong)} tensors of the wrong shape: {_listed(wrong)}. {SUGGESTIONS[kind]}")
    no_floats = [f"{name} is {tensors[name].dtype}" for name in expected if not tensors[name].is_floating_point()]
    if no_floats:
        raise UnusableFile(f"{file} has weights that are no floating-point numbers: {_listed(no_floats)}. {SUGGESTIONS[kind]}")
    surplus = [name for name in tensors if name not in expected]
    for name in surplus:
        del tensors[name]
    if surplus:
        warnings.warn(f"{file} has {len(surplus)} tensors this model does not use: {_listed(surplus)}.", stacklevel=3)


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], raw: RawCheckpoint, dtype: Callable[[str], torch.dtype],
    device: str | torch.device, fingerprint: Fingerprint,
) -> None:
    """Put the tensors, whose names were checked, into a module built without storage, converting one at a time to the ``dtype`` of
    its name. Raises UnusableFile."""
    placed = {}
    for name in sorted(tensors):
        fingerprint.add(name, tensors[name].detach())
        placed[name] = converted(raw, name, tensors[name], dtype(name), device)
    module.load_state_dict(placed, assign=True)
    module.requires_grad_(False).eval()
