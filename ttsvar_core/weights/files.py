"""Reading model files without running or copying them.

Every published layout ends in one flat mapping from names to tensors whose memory is mapped from the file: ``.safetensors``,
``.pth`` (weights only, never unpickling code), and folders with one file or with shards and an index. What a file is gets
decided by its first bytes, not by its name.
"""

import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reading import MissingFile, UnusableFile, one_line, open_regular, read_json, refusing
from .archive import check_old, check_zip

_INDEX_SUFFIX = ".index.json"
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_SINGLE_FILES = (
    "model.safetensors", "open_clip_model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
_MAX_HEADER = 8 * 2**20  # bytes; the largest published file has 0.1 MB
_MAX_TENSORS = 20_000  # a training checkpoint with its optimizer has a few thousand
_NESTING = 4  # of dictionaries within a file
_SURPLUS = 2, 64 * 2**20  # tensors may claim twice the bytes of their file (shared weights), and this many more
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_FOREIGN_STARTS = {
    b"<": "a web page (the download went wrong, perhaps for want of a login)",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (run 'git lfs pull')",
    b"GGUF": "a GGUF file; quantised files are not supported",
    b"PK\x05\x06": "an empty archive",
}


class RawCheckpoint(NamedTuple):
    """What a file holds: a (possibly nested) mapping to tensors, and text metadata.

    ``mapped`` says that the tensors' memory is mapped from the file, so that pages no longer needed can be given back.
    """

    path: Path
    content: dict[str, Any]
    metadata: dict[str, str]
    mapped: bool

    def __repr__(self) -> str:
        return f"RawCheckpoint({self.path.name}, {len(self.content)} entries)"


Reader = Callable[[Path], RawCheckpoint]


def read_checkpoint(path: str | Path) -> RawCheckpoint:
    """Open a model file or folder.

    Tensors are mapped, not read; only old-style ``.pth`` files (before PyTorch 1.6) are read into memory. Raises
    UnusableFile for a path that does not exist, is empty, truncated, or not a model file.
    """
    path = Path(path)
    with refusing(path):
        if path.is_dir():
            return _read_folder(path)
        if not path.exists():
            raise MissingFile(f"There is no file {path}. Check the name, or download the model there.")
        if path.name.endswith(_INDEX_SUFFIX):
            return _read_shards(path)
        return _read_file(path)


def _read_file(path: Path) -> RawCheckpoint:
    with open_regular(path) as file:
        start = file.read(64)
    if not start:
        raise UnusableFile(f"{path.name} is empty. Download it again.")
    raw = _read_format(path, start)
    _check_tensors(raw)
    return raw


def _read_format(path: Path, start: bytes) -> RawCheckpoint:
    if start[8:9] == b"{":  # before the first byte, which may be any: it belongs to the length of the header
        return _read_safetensors(path, header_size=struct.unpack("<Q", start[:8])[0])
    if start[:4] == _ZIP or start[:1] == _PICKLE:
        return _read_torch(path, mapped=start[:4] == _ZIP)
    for mark, what in _FOREIGN_STARTS.items():
        if start.lstrip().startswith(mark):
            raise UnusableFile(f"{path.name} is {what}. Expected a .pth or .safetensors file.")
    raise UnusableFile(f"{path.name} is neither a .safetensors nor a .pth file. Choose a model file, or download it again.")


def _check_tensors(raw: RawCheckpoint) -> None:
    """Refuse tensors that are not plain numbers in memory, or that claim more of it than their file has."""
    tensors = list(_nested(raw.content, _NESTING, set()))
    if len(tensors) > _MAX_TENSORS:
        raise UnusableFile(f"{raw.path.name} holds {len(tensors):,} tensors, more than any model here. Choose another file.")
    for name, tensor in tensors:
        if str(tensor.layout) != "torch.strided" or tensor.device.type != "cpu" or tensor.is_quantized:
            raise UnusableFile(f"{name} of {raw.path.name} is no plain tensor. Save it again as a dense one.")
    claimed, size = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors), raw.path.stat().st_size
    if claimed > _SURPLUS[0] * size + _SURPLUS[1]:
        raise UnusableFile(f"{raw.path.name} has {size:,} bytes and claims tensors of {claimed:,}. Download it again.")


def _nested(content: dict[Any, Any], depth: int, seen: set[int]) -> Iterator[tuple[Any, Tensor]]:
    """Tensors in dictionaries within dictionaries, each dictionary once, however they hold each other."""
    seen.add(id(content))
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict) and depth and id(value) not in seen:
            yield from _nested(value, depth - 1, seen)


def _read_safetensors(path: Path, header_size: int) -> RawCheckpoint:
    from safetensors import SafetensorError, safe_open

    if header_size > _MAX_HEADER:
        raise UnusableFile(f"{path.name} claims a header of {header_size:,} bytes, more than models have. Choose another file.")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > _MAX_TENSORS:
                raise UnusableFile(f"{path.name} names {len(names):,} tensors, more than any model here. Choose another file.")
            return RawCheckpoint(path, {name: file.get_tensor(name) for name in names}, file.metadata() or {}, mapped=True)
    except (SafetensorError, RuntimeError) as error:
        raise UnusableFile(f"{path.name} is truncated or has a damaged safetensors header ({error}). Download it again.") from error


def _read_torch(path: Path, mapped: bool) -> RawCheckpoint:
    by_name = path.suffix == ".safetensors"  # given such a path, torch.load goes by the name; given a file, by what it holds
    zipped, mapped = mapped, mapped and not by_name
    try:
        (check_zip if zipped else check_old)(path)
        with path.open("rb") as file:
            content = torch.load(file if by_name else path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UnusableFile(
            f"{path.name} holds more than tensors ({one_line(error)}) and is not opened, because that could run code. "
            "Expected a state dict; save only the state dict, or use a .safetensors file."
        ) from error
    except UnusableFile:
        raise
    except Exception as error:  # the unpickler trips over anything
        raise UnusableFile(f"{path.name} is truncated or no PyTorch file ({one_line(error)}). Download it again.") from error
    if not isinstance(content, dict):
        raise UnusableFile(f"{path.name} holds a {type(content).__name__}; expected a dictionary of named tensors.")
    return RawCheckpoint(path, content, {}, mapped)


def _read_folder(folder: Path) -> RawCheckpoint:
    indices = sorted(folder.glob("*" + _INDEX_SUFFIX), key=lambda index: ("safetensors" not in index.name, index.name))
    if indices:
        return _read_shards(indices[0])
    files = sorted(file for file in folder.iterdir() if file.suffix in _WEIGHT_SUFFIXES)
    usual = [folder / name for name in _SINGLE_FILES if folder / name in files]
    if usual or len(files) == 1:
        return _read_file((usual or files)[0])
    found = ", ".join(file.name for file in files[:5]) or "none"
    raise UnusableFile(
        f"The folder {folder} should hold one model file, or shards with an index (*{_INDEX_SUFFIX}); "
        f"model files found: {found}. Choose a file instead."
    )


def _read_shards(index: Path) -> RawCheckpoint:
    try:
        weight_map: dict[str, str] = read_json(index)["weight_map"]
        shard_paths = [index.parent / name for name in sorted(set(weight_map.values()))]
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{index.name} is no index of shards ({error!r}). Download it again.") from error
    if any(path.parent != index.parent for path in shard_paths):
        raise UnusableFile(f"{index.name} names shards outside its own folder; that is not followed.")
    absent = [path.name for path in shard_paths if not path.is_file()]
    if absent:
        raise UnusableFile(
            f"{len(absent)} of {len(shard_paths)} shards named by {index.name} are missing: {', '.join(absent[:5])}. "
            f"Download them into {index.parent}."
        )
    tensors: dict[str, Any] = {}
    mapped = True
    for path in shard_paths:
        shard = _read_file(path)
        tensors.update(shard.content)
        mapped = mapped and shard.mapped
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        listed = ", ".join(lost[:5])
        raise UnusableFile(f"The shards lack {len(lost)} tensors that {index.name} names: {listed}. Download all again.")
    return RawCheckpoint(index.parent, tensors, {}, mapped)


def release(tensor: Tensor) -> None:
    """Tell the system that the file pages under a mapped tensor are not needed now (they are read again if they are).

    Keeps converting a large file from holding both copies. Only for tensors whose memory is mapped from a file and was never
    written to; without effect where the system has no such call.
    """
    import ctypes
    import mmap

    if not hasattr(mmap, "MADV_DONTNEED") or tensor.device.type != "cpu":
        return
    first = tensor.data_ptr()
    begin = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (first + tensor.numel() * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin and tensor.is_contiguous():
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
