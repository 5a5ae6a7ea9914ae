"""Vision-language models of any family that transformers knows, from a folder on this machine and nothing else."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..reading import MAX_TEXT_BYTES, MissingFile, UnusableFile, open_regular, read_json, refusing
from ..registry import WeightFile
from ..weights.published import load_published
from ..weights.stated import MAX_BLOCKS
from ..weights.tensors import read_tensors

_LOCAL = {"trust_remote_code": False, "local_files_only": True}  # False and not None, at which transformers would ask
_READ = (".json", ".jinja", ".txt", ".model")  # what configurations, chat templates and tokenizers are kept in


def load_vision_language(path: str | Path, published: WeightFile, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """The model in a folder, in `dtype`, and its processor. No code of the folder is run and nothing is fetched.

    Raises MissingFile or UnusableFile, which say what the folder is instead and where to get one; ImportError where the
    processor needs a package that is not there.
    """
    folder = Path(path)
    if not folder.exists():
        raise MissingFile(f"{folder} does not exist. {published.advice}")
    with refusing(str(folder), published.advice):
        model_class = _model_class(folder, published)
        from transformers import AutoConfig, AutoProcessor

        config = AutoConfig.from_pretrained(folder, **_LOCAL)
        processor = AutoProcessor.from_pretrained(folder, **_LOCAL)
        if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
            raise UnusableFile(f"{folder} lacks its processor (processor_config.json or the like). {published.advice}")
        return load_published(model_class, config, read_tensors(folder, published), dtype), processor


def _model_class(folder: Path, published: WeightFile) -> Any:
    """The class of the model a folder holds, after a look at all that will be read. Raises UnusableFile."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if not (folder / "config.json").is_file():
        kind = "has no config.json" if folder.is_dir() else "is a file"
        raise UnusableFile(f"{folder} {kind}; a vision-language model is the whole folder as published. {published.advice}")
    for file in folder.iterdir():
        if file.suffix in _READ and file.stat().st_size > MAX_TEXT_BYTES:
            raise UnusableFile(f"{file.name} of {folder} has more than {MAX_TEXT_BYTES:,} bytes. {published.advice}")
        if file.suffix in _READ:
            open_regular(file).close()
    config = read_json(folder / "config.json")
    kind, name = str(config.get("model_type")), MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.get("model_type"))
    reasons = {
        f"a {kind:.40} model, which transformers {transformers.__version__} does not know as one that answers questions about "
        "pictures (code that a folder brings along is never run)": not isinstance(name, str),
        "quantised; take the original one and choose a precision here": "quantization_config" in config,
        f"of more than {MAX_BLOCKS} layers": any(count > MAX_BLOCKS for count in _layers(config)),
        "an encoder with a decoder, which does not answer by its first token": bool(config.get("is_encoder_decoder")),
    }
    for what, so in reasons.items():
        if so:
            raise UnusableFile(f"{folder} is {what}. {published.advice}")
    return getattr(transformers, name)


def _layers(config: Mapping[str, Any]) -> Iterator[int]:
    """Every number of layers that a configuration states, wherever it lies."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _layers(value)
        elif isinstance(value, int) and key.endswith(("layers", "depth")):
            yield value
