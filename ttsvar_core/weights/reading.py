"""The one door through which files that users bring are read: weights, configurations, tokenizers.

``reading`` turns whatever goes wrong inside it into one line that names the file and the remedy. The functions below it read
regular files only, never more than a limit, and check the types of what a configuration states.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import CheckpointError

AGAIN = "Download it again."
MAX_CONFIGURATION = 16 * 2**20  # bytes; published ones have a few kilobytes
MAX_BLOCKS = 128  # of one kind in a model; the deepest published model has 48
_SHOWN = 200  # characters of a foreign error


@contextmanager
def reading(source: str | Path, remedy: str = AGAIN, error: type[CheckpointError] = CheckpointError) -> Iterator[None]:
    """Whatever is raised inside leaves as ``error`` in one line: ``source`` (of a path its name), what went wrong, the remedy.

    Errors that are a CheckpointError already keep their words. A missing package and a full device are no fault of the file
    and pass as they are.
    """
    name = source.name if isinstance(source, Path) else source
    try:
        yield
    except ImportError:
        raise
    except CheckpointError as refused:
        text = " ".join(str(refused).split())  # names in files may hold anything
        if name in text and text == str(refused):
            raise
        raise type(refused)(text if name in text else f"{name}: {text}") from refused
    except BaseException as failure:
        # The tokenizer library's panics are no Exception.
        foreign = isinstance(failure, Exception) or type(failure).__name__ == "PanicException"
        if not foreign or type(failure).__name__ == "OutOfMemoryError":
            raise
        raise error(f"{name} cannot be read ({one_line(failure)}). {remedy}") from failure


def one_line(error: BaseException) -> str:
    """What an error says, with its kind where that alone tells what is wrong, shortened to one line."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if isinstance(error, LookupError) or not text else text
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def check_regular(path: Path) -> None:
    """Refuse what may block or never end: pipes, sockets, devices. Raises CheckpointError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path.name} is no regular file (a pipe, a device or a folder). Choose the file itself.")


def read_bytes(path: Path, limit: int = MAX_CONFIGURATION) -> bytes:
    """All of a regular file of at most ``limit`` bytes. Raises CheckpointError."""
    check_regular(path)
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CheckpointError(f"{path.name} has more than {limit:,} bytes, too many for what it should hold. {AGAIN}")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError."""
    with reading(path):
        content = json.loads(read_bytes(path))
        if not isinstance(content, dict):
            raise CheckpointError(f"{path.name} holds a {type(content).__name__}, expected an object {{...}}. {AGAIN}")
        return content


def stated(config: Mapping[str, Any], key: str, usual: Any) -> Any:
    """What a configuration states under a key, or the usual value; it must be of that value's type and, if a number, finite
    and above zero. Raises CheckpointError."""
    value = config.get(key)
    if value is None:
        return usual
    kinds = (int, float) if isinstance(usual, float) else type(usual)
    fits = isinstance(value, kinds) and isinstance(value, bool) == isinstance(usual, bool)
    if not fits or (isinstance(value, (int, float)) and not isinstance(value, bool) and not 0 < value < math.inf):
        raise CheckpointError(f"The configuration states {key} = {value!r:.60}; expected a value like {usual!r}. {AGAIN}")
    return value


def section(config: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first part of a configuration of these names, empty if there is none."""
    return next((config[name] for name in names if isinstance(config.get(name), Mapping)), {})


def count_blocks(names: Iterable[str], pattern: str, most: int = MAX_BLOCKS) -> int:
    """How many blocks there are, from names whose number ``pattern`` captures at their beginning.

    Raises CheckpointError for numbers with gaps or more than ``most``: a name alone must not make a model of any size.
    """
    found = {match.group(1) for name in names if (match := re.match(pattern, name))}
    if len(found) > most or any(len(digits) > 4 for digits in found):
        raise CheckpointError(f"Its tensors count blocks up to {max(found, key=len)[:20]}; at most {most} are read. {AGAIN}")
    numbers = {int(digits) for digits in found}
    gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    if gaps:
        raise CheckpointError(f"It lacks block {gaps[0]} of {max(numbers) + 1}, {len(gaps)} in all. {AGAIN}")
    return len(numbers)
