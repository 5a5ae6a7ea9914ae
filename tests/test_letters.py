"""Text on pictures: any prompt, of any length, in letters that some font here has."""

from __future__ import annotations

import time

import pytest
from PIL import Image, ImageChops, ImageDraw

from ttsvar_core.inspect import letters
from ttsvar_core.inspect.letters import fitted_line, font, write

WIDTH, SIZE = 400, 14


@pytest.fixture
def no_system_fonts(monkeypatch):
    """Nothing but Pillow's own letters."""
    monkeypatch.setattr(letters, "_system_fonts", lambda size: ())


def boxes(line: str, used) -> list[str]:
    """The letters of a line that its font draws as it draws a missing one, seen in the pixels."""

    def drawn(letter: str) -> Image.Image:
        picture = Image.new("L", (3 * SIZE, 3 * SIZE))
        ImageDraw.Draw(picture).text((SIZE, SIZE), letter, 255, used)
        return picture

    missing = drawn("\uffff")
    return [letter for letter in line if letter != " " and not ImageChops.difference(drawn(letter), missing).getbbox()]


@pytest.mark.parametrize("length", [2_000, 22_400])
def test_a_long_prompt_is_cut_at_once(length):
    fitted_line("warm", WIDTH, SIZE)
    begun = time.process_time()
    line, used = fitted_line(("a photo of a café — 城堡 " * 2_000)[:length], WIDTH, SIZE)
    assert time.process_time() - begun < 1.0
    assert "…" in line and used.getlength(line) <= WIDTH


@pytest.mark.parametrize("text", ["a photo of a red circle", "W" * 300, "i" * 3_000, "one\ntwo\tthree", "", "…" * 300])
def test_a_line_is_as_long_as_fits(text):
    line, used = fitted_line(text, WIDTH, SIZE)
    whole = " ".join(text.split())
    assert used.getlength(line) <= WIDTH
    if line != whole:
        kept = line.removesuffix("…")
        assert whole.startswith(kept) and used.getlength(whole[: len(kept) + 2] + "…") > WIDTH


@pytest.mark.parametrize("text", [
    "naïve café, Ærø – straße", "Ελλάδα, Привет", "一张红色圆形的照片", "a smile 😀 and 👩‍👩‍👧",
    "e\u0301 \u202e\ufeff\x00x", "🀄中" * 500,
])
@pytest.mark.parametrize("system", [True, False])
def test_no_box_is_ever_drawn(text, system, request):
    if not system:
        request.getfixturevalue("no_system_fonts")
    line, used = fitted_line(text, WIDTH, SIZE)
    assert line and boxes(line, used) == []
    picture = Image.new("RGB", (WIDTH + 50, 40))
    write(ImageDraw.Draw(picture), (10, 10), text, WIDTH, SIZE, (255, 255, 255))
    assert picture.getbbox() is not None and picture.crop((WIDTH + 11, 0, WIDTH + 50, 40)).getbbox() is None


def test_what_no_font_has_is_said(no_system_fonts):
    assert fitted_line("naïve café – crème", WIDTH, SIZE)[0] == "naive cafe - creme"
    assert fitted_line("城堡 at night", WIDTH, SIZE)[0] == "?? at night (2 of its letters are in no font here)"
    cut = fitted_line("城堡" * 300, WIDTH, SIZE)[0]
    assert cut.startswith("????") and cut.endswith("… (600 of its letters are in no font here)")


def test_a_font_of_the_system_is_taken_where_it_has_more_of_the_letters(monkeypatch):
    assert fitted_line("plain English", WIDTH, SIZE)[1] is font(SIZE)
    found = letters._system_fonts(SIZE)
    if not found:
        pytest.skip("this machine has none of the fonts of SYSTEM_FONTS")
    accents = next(one for one in found if not letters._lacking("éñøß", one))
    monkeypatch.setattr(letters, "_system_fonts", lambda size: (font(size), accents))
    assert fitted_line("éñøß", WIDTH, SIZE) == ("éñøß", accents)
