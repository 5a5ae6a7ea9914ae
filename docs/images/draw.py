"""Draw the icon and the banner that the registry shows: ``python docs/images/draw.py`` (needs Pillow).

Both show the method: many coarse sketches, fewer and finer ones, one picture; lines join each with its ancestor.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

NIGHT, LINE, FADED, GOLD = (22, 24, 35), (92, 99, 128), (58, 62, 82), (255, 196, 61)
COLOURS = {"red": (230, 72, 72), "blue": (72, 120, 230), "green": (70, 180, 110), "yellow": (240, 200, 70)}
SKETCHES = [("red", "blue"), ("green", "red"), ("blue", "yellow"), ("yellow", "green")]


def scene(left: str, right: str, size: int) -> Image.Image:
    """A circle and a square on a light ground."""
    big = Image.new("RGB", (512, 512), (232, 234, 242))
    draw = ImageDraw.Draw(big)
    draw.ellipse((50, 60, 270, 280), fill=COLOURS[left])
    draw.rectangle((260, 270, 460, 470), fill=COLOURS[right])
    return big.resize((size, size), Image.Resampling.LANCZOS)


def tile(pair: tuple[str, str], cells: int, size: int, frame: tuple[int, int, int]) -> Image.Image:
    """The scene in ``cells`` x ``cells`` cells inside a frame."""
    coarse = scene(*pair, size).resize((cells, cells), Image.Resampling.BOX)
    picture = coarse.resize((size, size), Image.Resampling.NEAREST)
    width = max(2, size // 24)
    framed = Image.new("RGB", (size + 2 * width, size + 2 * width), frame)
    framed.paste(picture, (width, width))
    return framed


def search(size: int) -> Image.Image:
    """Four sketches, two of them kept and finer, the best one whole; from top to bottom on a square."""
    picture = Image.new("RGB", (size, size), NIGHT)
    draw = ImageDraw.Draw(picture)
    rows = [(0.155, 0.17, 4), (0.42, 0.22, 8), (0.76, 0.36, 256)]
    places = [[0.14, 0.38, 0.62, 0.86], [0.30, 0.66], [0.5]]
    ancestors = [[], [0, 2], [1]]
    alive = [[(i, SKETCHES[i]) for i in range(4)], [(0, SKETCHES[0]), (1, SKETCHES[2])], [(0, SKETCHES[2])]]
    for row in (1, 2):
        for column, ancestor in enumerate(ancestors[row]):
            ends = [(places[row - 1][ancestor], rows[row - 1][0]), (places[row][column], rows[row][0])]
            kept = row == 2 or ancestor == 2
            draw.line([(x * size, y * size) for x, y in ends], fill=GOLD if kept else LINE, width=size // 60)
    for row, (height, side, cells) in enumerate(rows):
        for column, pair in alive[row]:
            winner = pair == SKETCHES[2]
            small = tile(pair, cells, int(side * size), GOLD if winner else LINE if row else FADED)
            centre = (places[row][column] * size, height * size)
            picture.paste(small, (int(centre[0] - small.width / 2), int(centre[1] - small.height / 2)))
    return picture


def banner(height: int) -> Image.Image:
    """The name beside the search, in the registry's 21:9."""
    wide = Image.new("RGB", (height * 21 // 9, height), NIGHT)
    wide.paste(search(height), (wide.width - height - height // 12, 0))
    draw = ImageDraw.Draw(wide)
    left = height // 8
    draw.text((left, height * 0.33), "TTS-VAR", font=ImageFont.load_default(height * 0.19), fill=(240, 242, 250))
    lines = "Search while Infinity draws:\nsketch many, keep a few,\nfinish the best."
    draw.multiline_text((left, height * 0.58), lines, font=ImageFont.load_default(height * 0.066), fill=(176, 182, 205))
    return wide


if __name__ == "__main__":
    folder = Path(__file__).parent
    search(400).save(folder / "icon.png", optimize=True)
    banner(360).save(folder / "banner.png", optimize=True)
