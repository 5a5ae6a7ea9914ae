"""The README's table of files, written from the registry: `python lab/tools/build_readme.py`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ttsvar_core.atomic import write  # noqa: E402
from ttsvar_core.registry import EXTRACTORS, MODEL_FILES, REWARDS, WeightFile  # noqa: E402

PAGE = ROOT / "README.md"
HEAD = "| what | file | where from | folder | parameters | float32 | bfloat16 |\n|---|---|---|---|---|---|---|\n"


def files() -> Iterator[tuple[str, WeightFile]]:
    """Every published file once, with what the table calls it."""
    yield from ((file.title, file) for file in MODEL_FILES)
    for entry in REWARDS.values():
        yield from ((entry.title if len(entry.files) == 1 else file.title, file) for file in entry.files)
    for entry in EXTRACTORS.values():
        yield from ((file.title, file) for file in entry.files)


def row(what: str, file: WeightFile) -> str:
    """A line of the table."""
    name = f"`{file.names[0]}`" if "." in file.names[0] else f"the folder `{file.names[0]}`"
    place = file.page.split("/")
    label = "/".join(place[3:5]) if place[2] in ("huggingface.co", "github.com") else place[2]
    where = f"[{label}]({file.page})"
    half = "stays float32" if file.folder == "vae" else f"{file.billions * 2:.1f} GB"
    sizes = f"{file.billions:.2f} B | {file.billions * 4:.1f} GB | {half}" if file.billions else "| |"
    return f"| {what} | {name} | {where} | `models/{file.folder}` | {sizes} |\n"


def fill(page: str) -> str:
    """The README with its table as the registry has it."""
    known: dict[WeightFile, str] = {}
    for what, file in files():
        if file.page:  # others are nobody's to fetch
            known.setdefault(file, what)
    table = HEAD + "".join(row(what, file) for file, what in known.items())
    return re.sub(re.escape(HEAD) + r"(?:\|.*\n)*", lambda _: table, page)


if __name__ == "__main__":
    write(PAGE, fill(PAGE.read_text(encoding="utf-8")))
