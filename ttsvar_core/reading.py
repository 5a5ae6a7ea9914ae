"""The one door through which files are read that anybody may have written: regular, of bounded size, refused in one line.

Weights, configurations, tokenizers, saved states, plans and lists of prompts all pass here.
"""

import contextlib
import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

AGAIN = "Download it again."
MAX_CONFIGURATION = 16 * 2**20  # bytes; published ones have a few kilobytes
MAX_TEXT_BYTES = 64 * 2**20  # the largest file of our own, results of thousands of prompts, has a third of it
_REASON_LENGTH = 240


class UnusableFile(ValueError):
    """A file does not hold what it should. The message names it, says what is wrong and what to do."""


class MissingFile(UnusableFile, FileNotFoundError):
    """There is no such file."""


@contextlib.contextmanager
def refusing(source: str | Path, remedy: str = AGAIN) -> Iterator[None]:
    """Whatever is raised inside leaves as `UnusableFile` in one line: ``source`` (of a path its name), what is wrong, the remedy.

    An UnusableFile keeps its words and gets a remedy of its own too. A missing package and a full device are no fault of the
    file and pass as they are.
    """
    name = source.name if isinstance(source, Path) else source
    try:
        yield
    except ImportError:
        raise
    except UnusableFile as refused:
        text = " ".join(str(refused).split())  # names in files may hold anything
        text = text if remedy == AGAIN or remedy in text else f"{text} {remedy}"
        text = text if name in text else f"{name}: {text}"
        if text == str(refused):
            raise
        raise type(refused)(text) from refused
    except BaseException as failure:
        # The tokenizer library's panics are no Exception.
        foreign = isinstance(failure, Exception) or type(failure).__name__ == "PanicException"
        if not foreign or type(failure).__name__ == "OutOfMemoryError":
            raise
        raise UnusableFile(f"{name} {_verdict(failure)}. {remedy}") from failure


def open_regular(path: str | Path) -> BinaryIO:
    """A file open for reading. Raises MissingFile, and UnusableFile for what may block or never end: pipes, sockets, devices."""
    path = Path(path)
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise MissingFile(f"There is no file {str(path)!r}. Check the name.") from error
    if not regular:
        raise UnusableFile(f"{path.name} is not a regular file (a pipe, a device or a folder). Choose the file itself.")
    return path.open("rb")


def read_bytes(path: str | Path, limit: int = MAX_CONFIGURATION) -> bytes:
    """All of a regular file of at most ``limit`` bytes. Raises UnusableFile."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnusableFile(f"{Path(path).name} has more than {limit:,} bytes, too many for what it should hold. {AGAIN}")
    return data


def read_text(path: str | Path) -> str:
    """What a text file holds. Within `refusing`; raises ValueError for other text than UTF-8."""
    return read_bytes(path, MAX_TEXT_BYTES).decode()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UnusableFile."""
    with refusing(path):
        content = json.loads(read_bytes(path))
        if not isinstance(content, dict):
            raise UnusableFile(f"{path.name} holds a {type(content).__name__}, expected an object {{...}}. {AGAIN}")
        return content


def parse_json(text: str) -> Any:
    """JSON as the standard has it. Raises ValueError for anything else, RecursionError for nesting without end."""
    return json.loads(text, parse_constant=_no_number)


def whole(value: Any, least: int, most: int) -> int:
    """``value`` if it is a whole number in that range. Raises ValueError."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number from {least} to {most}")
    return value


def finite(value: Any) -> float:
    """``value`` if it is a finite number. Raises ValueError."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is not a finite number")
    return float(value)


def one_line(error: BaseException) -> str:
    """What an error says, with its kind where that alone tells what is wrong, shortened to one line."""
    text = " ".join(str(error).split())
    text = f"no entry {text}" if isinstance(error, KeyError) else text or type(error).__name__
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "..."


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _verdict(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({one_line(error)})"
    if isinstance(error, UnicodeError):
        return "is not text in UTF-8"
    if isinstance(error, RecursionError):
        return "is nested without end"
    return f"cannot be read ({one_line(error)})"
