"""The one way a file is written: whole or not at all, whatever else writes there and whenever the process ends.

The content goes to a file of its own beside the target, reaches the disk, and takes the target's place in one step. The writer
holds a lock on that file, so that the next one tells the leftovers of killed runs from files still being written.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where nobody can delete a file that another process has open: that is lock enough
    fcntl = None

if TYPE_CHECKING:
    from PIL.Image import Image

_PREFIX, _SUFFIX = ".ttsvar-", ".part"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new file, open to be written and read, that becomes ``path`` when the block ends; if it raises, all is as it was.

    Raises OSError, naming ``path`` and the remedy, where the system refuses (no such folder, no room, no permission).
    """
    path = Path(path)
    _sweep(path.parent)
    unfinished = None
    try:
        unfinished, file = _created(path.parent)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl:  # while the lock is held: afterwards a sweep could take the file for a leftover
                os.replace(unfinished, path)
        if not fcntl:
            os.replace(unfinished, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"{path} cannot be written: {reason}. Make room or choose another folder; what was there is unchanged"
        ) from error
    finally:
        if unfinished:
            unfinished.unlink(missing_ok=True)


def write(path: str | Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes; as `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_picture(path: str | Path, picture: Image) -> None:
    """Write a picture as PNG; as `replacing`."""
    with replacing(path) as file:
        picture.save(file, format="PNG")


def _created(folder: Path) -> tuple[Path, BinaryIO]:
    """A new locked file. Its name is one that no other writer on any machine has, and short: the target's own may fill a name."""
    while True:
        path = folder / f"{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
        file = path.open("x+b")
        try:
            _lock(file)
        except BlockingIOError:  # a sweep came between the two steps
            file.close()
            continue
        except OSError:  # a file system without locks, where nothing is swept
            return path, file
        if path.exists():
            return path, file
        file.close()


def _sweep(folder: Path) -> None:
    """Delete what killed writers left in a folder."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            if not fcntl:
                path.unlink()
                continue
            with path.open("r+b") as file:
                _lock(file)
                path.unlink()


def _lock(file: BinaryIO) -> None:
    """Take the lock of an open file. Raises BlockingIOError if another has it, OSError where there are no locks."""
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
