"""Numbers on a command line, and the ranges they may lie in."""

import argparse
import math
from typing import NamedTuple

from ..names import MAX_SEED


class Number(NamedTuple):
    """The type of an option that is a number in a range; ``above``: without its least value. Raises ArgumentTypeError."""

    kind: type = float
    least: float = -math.inf
    most: float = math.inf
    above: bool = False

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not (self.least <= value <= self.most and math.isfinite(value)) or (self.above and value == self.least):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self}")
        return value

    def __str__(self) -> str:
        least = f" {'above' if self.above else 'of at least'} {self.least}" if self.least > -math.inf else ""
        most = f", at most {self.most}" if self.most < math.inf else ""
        return f"{'a whole' if self.kind is int else 'a finite'} number{least}{most}"

    def one_or_list(self, text: str) -> float | tuple[float, ...]:
        """One for all scales, or one for each, with commas between them."""
        values = tuple(self(word) for word in text.split(","))
        return values if len(values) > 1 else values[0]


COUNT = Number(int, 1, 2**16)
FROM_ZERO = Number(int, 0, 2**16)
SEED = Number(int, 0, MAX_SEED)
FINITE = Number()
NOT_NEGATIVE = Number(least=0)
POSITIVE = Number(least=0, above=True)
SHARE = Number(least=0, most=1, above=True)
PICTURES = Number(least=1, most=2**16)
PIXELS = Number(int, 0, 2**16)
