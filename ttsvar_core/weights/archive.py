"""What a ``.pth`` is before torch opens it: only plain tensors, and no larger in memory than on disk."""

import mmap
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from ..reading import UnusableFile

_MAX_PICKLE = 16 * 2**20  # bytes of names and shapes; the largest published file needs 0.3 MB
_MAX_RECORDS = 20_000  # tensors; a training checkpoint with its optimizer has a few thousand
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
_END_REACH = 22 + 20 + 56 + 65_535  # bytes from the end in which both records lie (APPNOTE 4.3.14 to 4.3.16)
_REMEDY = "Save only the state dict with torch.save, or use a .safetensors file."


def check_zip(path: Path) -> None:
    """Refuse archives that hold code, are compressed, or whose table of contents alone is a burden. Raises UnusableFile."""
    with path.open("rb") as file:
        if _record_count(file) > _MAX_RECORDS:
            raise UnusableFile(f"{path.name} holds more than {_MAX_RECORDS:,} records. {_REMEDY}")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.filename.endswith("/constants.pkl") or "/code/" in record.filename for record in records):
            raise UnusableFile(f"{path.name} is a TorchScript archive, which holds code, and is not opened. {_REMEDY}")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise UnusableFile(f"{path.name} is a compressed archive, which PyTorch does not write. {_REMEDY}")
        for record in records:
            if record.filename.endswith(".pkl"):
                if record.file_size > _MAX_PICKLE:
                    raise UnusableFile(f"{path.name} holds {record.file_size:,} bytes of objects. {_REMEDY}")
                _check_pickle(archive.read(record), path)


def check_old(path: Path) -> None:
    """The same of a file from before PyTorch 1.6, whose objects may lie anywhere in it. Raises UnusableFile."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _check_pickle(data, path)


def _check_pickle(data: bytes | mmap.mmap, path: Path) -> None:
    """The one harmless type that makes memory out of a number; a state dict never has it."""
    if data.find(b"bytearray") >= 0:
        raise UnusableFile(f"{path.name} holds a bytearray, which may claim any memory. {_REMEDY}")


def _record_count(file: BinaryIO) -> int:
    """How many records the archive says it has, without reading its table of contents."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_REACH))
    tail = file.read()
    at, at_64 = tail.rfind(_END), tail.rfind(_END_64)
    counts = [struct.unpack_from("<H", tail, at + 10)[0]] if 0 <= at <= len(tail) - 22 else []
    counts += [struct.unpack_from("<Q", tail, at_64 + 32)[0]] if 0 <= at_64 <= len(tail) - 56 else []
    return max(counts, default=0)
