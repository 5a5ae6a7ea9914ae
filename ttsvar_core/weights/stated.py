"""What a configuration states and what the names of tensors count, checked: neither may make a model of any size."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..reading import AGAIN, UnusableFile

MAX_BLOCKS = 128  # of one kind in a model; the deepest published model has 48


def stated(config: Mapping[str, Any], key: str, usual: Any) -> Any:
    """What a configuration states under a key, or the usual value; it must be of that value's type and, if a number, finite
    and above zero. Raises UnusableFile."""
    value = config.get(key)
    if value is None:
        return usual
    kinds = (int, float) if isinstance(usual, float) else type(usual)
    fits = isinstance(value, kinds) and isinstance(value, bool) == isinstance(usual, bool)
    if not fits or (isinstance(value, (int, float)) and not isinstance(value, bool) and not 0 < value < math.inf):
        raise UnusableFile(f"The configuration states {key} = {value!r:.60}; expected a value like {usual!r}. {AGAIN}")
    return value


def section(config: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first part of a configuration of these names, empty if there is none."""
    return next((config[name] for name in names if isinstance(config.get(name), Mapping)), {})


def count_blocks(names: Iterable[str], pattern: str, most: int = MAX_BLOCKS) -> int:
    """How many blocks there are, from names whose number ``pattern`` captures at their beginning.

    Raises UnusableFile for numbers with gaps or more than ``most``: a name alone must not make a model of any size.
    """
    found = {match.group(1) for name in names if (match := re.match(pattern, name))}
    if len(found) > most or any(len(digits) > 4 for digits in found):
        raise UnusableFile(f"Its tensors count blocks up to {max(found, key=len)[:20]}; at most {most} are read. {AGAIN}")
    numbers = {int(digits) for digits in found}
    gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    if gaps:
        raise UnusableFile(f"It lacks block {gaps[0]} of {max(numbers) + 1}, {len(gaps)} in all. {AGAIN}")
    return len(numbers)
