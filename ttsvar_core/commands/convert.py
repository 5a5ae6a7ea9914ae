"""``python -m ttsvar_core convert IN OUT.safetensors``: rewrite a model file as safetensors with its configuration inside."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..names import DTYPES

SUMMARY = "rewrite a transformer or tokenizer file as safetensors"
_KEPT = (
    "name", "scale_schedule", "rope_reference_grid", "h_div_w", "pixel_budget", "cfg", "tau", "top_p", "cfg_insertion_layer",
    "apply_spatial_patchify", "vae_smallest_side",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a .pth or .safetensors file, or a folder of shards")
    parser.add_argument("target", type=Path, help="the .safetensors file to write; must not exist yet")
    parser.add_argument("--dtype", choices=DTYPES, help="number type to write (default: as in the source)")


def main(args: argparse.Namespace) -> int:
    size = convert(args.source, args.target, args.dtype)
    print(f"{args.target}: {size / 1e9:.2f} GB")
    return 0


def convert(source: Path, target: Path, dtype_name: str | None = None) -> int:
    """Write the model in ``source`` to ``target`` and return the new file's size in bytes.

    Names become ours, constants and optimizer states stay behind, the configuration and the source's name go into the
    metadata. Holds one tensor in memory at a time. Raises UnusableFile for an unusable source, FileExistsError for a target
    that is there already.
    """
    import torch

    from ..weights import UnusableFile, read_checkpoint
    from ..weights.finite import converted
    from ..weights.names import detect_kind, model_tensors
    from ..weights.shapes import METADATA_KEY
    from ..weights.write import write_safetensors

    if target.suffix != ".safetensors":
        raise UnusableFile(f"{target.name} should end in .safetensors.")
    if target.exists():
        raise FileExistsError(f"{target} is there already. Choose another name, or delete it first.")
    raw = read_checkpoint(source)
    kind = detect_kind(raw)
    tensors = model_tensors(raw, kind)
    no_floats = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if no_floats:  # of a quantised file, whose scales would be lost
        raise UnusableFile(f"{no_floats[0]} of {raw.path.name} is {tensors[no_floats[0]].dtype}, no floating-point number.")
    dtype = getattr(torch, dtype_name) if dtype_name else _common_dtype(tensors, raw.path.name)
    metadata = {METADATA_KEY: json.dumps(_configuration(raw, kind, tensors))}
    write_safetensors(target, tensors, metadata, dtype, lambda name, tensor: converted(raw, name, tensor, dtype))
    return target.stat().st_size


def _common_dtype(tensors: dict[str, Any], name: str) -> Any:
    import torch

    from ..weights import UnusableFile

    found = {tensor.dtype for tensor in tensors.values()}
    if len(found) == 1 and found <= {torch.float32, torch.bfloat16, torch.float16}:
        return found.pop()
    kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
    raise UnusableFile(f"{name} holds numbers of the types {kinds}; choose one with --dtype ({', '.join(DTYPES)}).")


def _configuration(raw: Any, kind: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """What the loader should know about this file: sizes from the tensors, settings from a JSON file beside it."""
    from ..weights.shapes import json_beside, stored_sizes, tokenizer_sizes, transformer_sizes

    stored = stored_sizes(raw)
    source = stored.get("source", raw.path.name)
    if kind == "tokenizer":
        return {**tokenizer_sizes(tensors), "source": source}
    beside = json_beside(raw.path)
    stated = {**stored, **(beside[1] if beside else {})}
    kept = {key: stated[key] for key in _KEPT if key in stated}
    return {**transformer_sizes(tensors), **kept, "source": source}
