"""Reading small files that anybody may have written: regular, of bounded size, and refused in one line with a remedy."""

from __future__ import annotations

import contextlib
import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_TEXT_BYTES = 64 * 2**20  # the largest file of our own, results of thousands of prompts, has a third of it
_REASON_LENGTH = 240


class UnusableFile(ValueError):
    """A file does not hold what it should. The message names it, says what is wrong and what to do."""


@contextlib.contextmanager
def refusing(path: str | Path, remedy: str) -> Iterator[None]:
    """Whatever the content of a file raises within the block becomes one `UnusableFile`."""
    try:
        yield
    except UnusableFile:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UnusableFile(f"{path} {_reason(error)}. {remedy}") from error


def open_regular(path: str | Path) -> BinaryIO:
    """A file open for reading. Raises FileNotFoundError, UnusableFile for what is no regular file (a named pipe never ends)."""
    path = Path(path)
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise FileNotFoundError(f"There is no file {str(path)!r}. Check the name.") from error
    if not regular:
        raise UnusableFile(f"{path} is not a regular file. Choose another, or copy what it holds into one.")
    return path.open("rb")


def read_text(path: str | Path) -> str:
    """What a text file holds. Within `refusing`; raises ValueError beyond `MAX_TEXT_BYTES` and for other text than UTF-8."""
    with open_regular(path) as file:
        text = file.read(MAX_TEXT_BYTES + 1)
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(f"more than {MAX_TEXT_BYTES / 2**20:.0f} MiB")
    return text.decode()


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


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        reason = f"is not JSON ({error})"
    elif isinstance(error, UnicodeError):
        reason = "is not text in UTF-8"
    elif isinstance(error, RecursionError):
        reason = "is nested without end"
    else:
        reason = f"cannot be used ({f'no entry {error}' if isinstance(error, KeyError) else error})"
    reason = " ".join(reason.split())
    return reason if len(reason) <= _REASON_LENGTH else reason[:_REASON_LENGTH] + "..."
