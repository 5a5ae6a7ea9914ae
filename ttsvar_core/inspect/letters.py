"""One line of text on a picture: cut to its width, in letters that a font of this machine has.

Pillow's own letters (a part of Aileron Regular, CC0) are English ones. For accents, dashes, Greek, Cyrillic or Chinese a font of
the system is taken; none is shipped, as one with Chinese is larger than the whole pack. What no font here has is said, not drawn.
"""

import unicodedata
from bisect import bisect_right
from functools import lru_cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
# What Linux, Windows and macOS install with their desktops: those with Chinese first, then those with many alphabets. Pillow looks
# for a name in the folders where the system keeps its fonts.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf",
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf",
)
_NOT_A_LETTER = "\uffff"  # no font has it, so it is drawn as whatever stands for a missing letter
_DRAWN_FOR_MISSING = "?"
_INVISIBLE = ("Cc", "Cf", "Mn")  # controls, joiners and variation selectors, marks that have no letter of their own
_LONGEST_NOTE = 2 / 3  # of a line's width, so that the text beside it stays readable


@lru_cache(maxsize=16)
def font(size: int) -> Font:
    """Pillow's built-in letters at a size in pixels."""
    return ImageFont.load_default(size=size)


def write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, width: int, size: int, colour: tuple) -> None:
    """Draw one line of any text, at most ``width`` pixels wide; what cannot be drawn is counted at its end."""
    line, letters = fitted_line(text, width, size)
    draw.text(corner, line, colour, letters)


def fitted_line(text: str, width: int, size: int) -> tuple[str, Font]:
    """The text as one line that is at most ``width`` pixels wide, and the font to draw it in."""
    whole = " ".join(text[: 4 * width].split())  # four times the letters that fit, of a pixel each: the rest is cut in any case
    normal = unicodedata.normalize("NFC", whole)
    visible = "".join(letter for letter in normal if unicodedata.category(letter) not in _INVISIBLE)
    letters = _best_font(visible, size)
    lacking = _lacking(visible, letters)
    line = "".join(_substitute(letter, letters) if letter in lacking else letter for letter in visible)
    unsaid = sum(letter in lacking and _substitute(letter, letters) == _DRAWN_FOR_MISSING for letter in visible)
    note = f" ({unsaid} of its letters are in no font here)" if unsaid else ""
    if letters.getlength(note) > _LONGEST_NOTE * width:
        note = ""
    return _cut(line, width - letters.getlength(note), letters, len(text) > 4 * width) + note, letters


def _cut(line: str, width: float, letters: Font, always: bool) -> str:
    """The line, cut with an ellipsis where it is wider than ``width``; found by bisection, as measuring takes time per letter."""
    if not always and letters.getlength(line) <= width:
        return line
    ellipsis = "…" if not _lacking("…", letters) else "..."
    fits = bisect_right(range(len(line) + 1), width, key=lambda count: letters.getlength(line[:count].rstrip() + ellipsis)) - 1
    return line[: max(0, fits)].rstrip() + ellipsis


def _best_font(text: str, size: int) -> Font:
    """The first font that lacks the fewest of the letters: Pillow's own wherever it has them all."""
    letters = font(size)
    if not _lacking(text, letters):
        return letters
    return min((letters, *_system_fonts(size)), key=lambda font: len(_lacking(text, font)))


@lru_cache(maxsize=16)
def _system_fonts(size: int) -> tuple[Font, ...]:
    """Those of ``SYSTEM_FONTS`` that this machine has."""
    found = []
    for name in SYSTEM_FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


def _lacking(text: str, letters: Font) -> frozenset[str]:
    """The letters of a text that a font has no shape for."""
    return frozenset(letter for letter in set(text) if letter != " " and not _has(letters, letter))


@lru_cache(maxsize=8192)
def _has(letters: Font, letter: str) -> bool:
    return bytes(letters.getmask(letter)) != bytes(letters.getmask(_NOT_A_LETTER))


def _substitute(letter: str, letters: Font) -> str:
    """A letter without its accent, or a question mark."""
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    if unicodedata.category(letter) == "Pd":
        plain = "-"
    return plain if plain and not _lacking(plain, letters) else _DRAWN_FOR_MISSING
