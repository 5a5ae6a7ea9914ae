"""Write workflows/*.json and subgraphs/*.json from a running ComfyUI's catalogue of nodes, and with --run the thumbnails by
running the workflows; of those that need models from elsewhere the graph itself is drawn.

    python lab/tools/build_workflows.py --server http://127.0.0.1:8188 [--run] [name ...]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import geometry  # noqa: E402
import parts  # noqa: E402
import workflow_list  # noqa: E402
from comfyui_http import ask, fetch, run, to_prompt  # noqa: E402
from graph_builder import Graph  # noqa: E402

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = ROOT / "workflows"
SIDE, SHEET = 512, 270  # of the thumbnail, and of the contact sheet in it
LINE = 26  # of words under a picture
GROUND, INK, WIRE, NODE, NOTE = (24, 26, 31), (235, 236, 240), (255, 156, 249), (72, 77, 88), (102, 85, 51)


def main() -> None:
    """Write the graphs that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--run", action="store_true", help="run each graph and write a thumbnail")
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    catalogue = ask(f"{chosen.server}/object_info")
    for inside in (build(catalogue) for build in parts.BLUEPRINTS):
        blueprint = Graph(inside.name, catalogue)
        blueprint.fold(inside)
        blueprint.save(ROOT / "subgraphs")
    for name, build in workflow_list.WORKFLOWS.items():
        if chosen.names and name not in chosen.names:
            continue
        graph = Graph(name, catalogue)
        build(graph)
        path = graph.save(FOLDER)
        if chosen.run:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if name in workflow_list.NEEDS_DOWNLOADS:
                square = drawing(saved)
            else:
                prompt = to_prompt(saved, catalogue)
                square = thumbnail(photograph(chosen.server, prompt), captions(prompt))
            square.save(path.with_suffix(".jpg"), quality=88)


def photograph(server: str, prompt: dict) -> list[bytes]:
    """Contact sheet and family tree of the last view in a prompt; where it has none, every picture shown."""
    views = [number for number, node in prompt.items() if node["class_type"] == parts.VIEW]
    if views:
        runs = (run(server, shown_as(prompt, sheet), "the graph") for sheet in ("sketches", "family tree"))
        images = [outputs[views[-1]]["images"][0] for outputs in runs]
    else:
        outputs = run(server, prompt, "the graph")
        images = [image for number in prompt for image in outputs.get(number, {}).get("images", [])]
    return [fetch(server, image) for image in images]


def shown_as(prompt: dict, sheet: str) -> dict:
    """The prompt with a choice made, so that all of it runs, and each view showing that sheet."""
    changes = {parts.VIEW: {"show": sheet}, "TTSVAR_ChooseSketches": {"choice": "0 3"}}
    return {
        number: {**node, "inputs": {**node["inputs"], **changes.get(node["class_type"], {})}} for number, node in prompt.items()
    }


def captions(prompt: dict) -> list[str]:
    """What the answers in quarters are called: the methods that drew them."""
    drawn = [node["inputs"] for node in prompt.values() if node["class_type"] == "TTSVAR_Generate"]
    return [f"{one['method']}" if one["method"] == "raw" else f"{one['method']}, N = {one['n']}" for one in drawn]


def thumbnail(pictures: list[bytes], words: list[str]) -> Image:
    """A square: the contact sheet above the family tree, or four answers in quarters, each with its words."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    half = SIDE // 2
    places = {
        2: [(0, 0, SIDE, SHEET), (0, SHEET, SIDE, SIDE - SHEET)],
        4: [(x, y, half, half - LINE) for y in (0, half) for x in (0, half)],
    }[len(pictures)]
    square = Image.new("RGB", (SIDE, SIDE), GROUND)
    for picture, (x, y, width, height) in zip(pictures, places, strict=True):
        opened = Image.open(io.BytesIO(picture)).convert("RGB")
        square.paste(ImageOps.pad(opened, (width, height), Image.Resampling.LANCZOS, color=GROUND), (x, y))
    if len(places) == 4:
        write, font = ImageDraw.Draw(square), ImageFont.load_default(size=LINE - 8)
        for text, (x, y, width, height) in zip(words, places, strict=True):
            write.text((x + width / 2, y + height + LINE / 2), text, font=font, fill=INK, anchor="mm")
    return square


def drawing(graph: dict) -> Image:
    """A square with the graph as the editor lays it out, under its note's heading."""
    from PIL import Image, ImageDraw, ImageFont

    square = Image.new("RGB", (SIDE, SIDE), GROUND)
    draw, font, y = ImageDraw.Draw(square), ImageFont.load_default(size=40), 20
    note = next(node for node in graph["nodes"] if node["type"] == "MarkdownNote")
    for line in textwrap.wrap(note["widgets_values"][0].split("\n")[0].lstrip("# "), 22):
        draw.text((20, y), line, font=font, fill=INK)
        y += 48
    boxes = [geometry.box(node) for node in graph["nodes"]]
    left, top, right, bottom = (pick(edges) for pick, edges in zip((min, min, max, max), zip(*boxes, strict=True), strict=True))
    scale = min((SIDE - 40) / (right - left), (SIDE - 40 - y) / (bottom - top))

    def at(x: float, y_: float) -> tuple[float, float]:
        return 20 + (x - left) * scale, y + 20 + (y_ - top) * scale

    for group in graph["groups"]:
        x, upper, width, height = group["bounding"]
        draw.rounded_rectangle([*at(x, upper), *at(x + width, upper + height)], 4, outline=group["color"], width=2)
    for _, _, points in geometry.wires(graph):
        draw.line([at(*point) for point in points], fill=WIRE, width=2)
    for node, box in zip(graph["nodes"], boxes, strict=True):
        draw.rounded_rectangle([*at(*box[:2]), *at(*box[2:])], 4, fill=NODE if node is not note else NOTE)
    return square


if __name__ == "__main__":
    main()
