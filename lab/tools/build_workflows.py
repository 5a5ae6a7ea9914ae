"""Write workflows/*.json and subgraphs/*.json from a running ComfyUI's catalogue of nodes, and with --run the thumbnails by
running the workflows.

    python lab/tools/build_workflows.py --server http://127.0.0.1:8188 [--run] [name ...]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import parts  # noqa: E402
import workflow_list  # noqa: E402
from comfyui_http import ask, to_prompt  # noqa: E402
from graph_builder import Graph  # noqa: E402

FOLDER = ROOT / "workflows"
SIDE, SHEET = 512, 270  # of the thumbnail, and of the contact sheet in it
GROUND = (24, 26, 31)


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
        if chosen.run and name not in workflow_list.NEEDS_DOWNLOADS:
            prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), catalogue)
            pictures = photograph(chosen.server, prompt)
            thumbnail(pictures, path.with_suffix(".jpg"))
            for other, source in workflow_list.NEEDS_DOWNLOADS.items():
                if source == name:
                    thumbnail(pictures[1:], FOLDER / f"{other}.jpg")


def photograph(server: str, prompt: dict) -> list[bytes]:
    """Contact sheet and family tree of the last view in a prompt; where it has none, every picture shown."""
    if any(node["class_type"] == parts.VIEW for node in prompt.values()):
        return [run(server, shown_as(prompt, sheet))[0] for sheet in ("sketches", "family tree")]
    return run(server, prompt)[::-1]


def shown_as(prompt: dict, sheet: str) -> dict:
    """The prompt with a choice made, so that all of it runs, and each view showing that sheet."""
    changes = {parts.VIEW: {"show": sheet}, "TTSVAR_ChooseSketches": {"choice": "0 3"}}
    return {
        number: {**node, "inputs": {**node["inputs"], **changes.get(node["class_type"], {})}} for number, node in prompt.items()
    }


def run(server: str, prompt: dict) -> list[bytes]:
    """Run a prompt and return the pictures it shows, those of the last Inspect State first."""
    number = ask(f"{server}/prompt", {"prompt": prompt})["prompt_id"]
    while not (done := ask(f"{server}/history/{number}").get(number)):
        time.sleep(0.2)
    if done["status"]["status_str"] != "success":
        raise SystemExit(json.dumps(done["status"]["messages"][-1], indent=1))
    sheets, order = [number for number in prompt if prompt[number]["class_type"] == parts.VIEW], list(prompt)
    ranked = sorted(done["outputs"], key=lambda number: (number not in sheets, -order.index(number)))
    images = [image for number in ranked for image in done["outputs"][number].get("images", [])]
    return [urllib.request.urlopen(f"{server}/view?{urllib.parse.urlencode(image)}").read() for image in images]


def thumbnail(pictures: list[bytes], path: Path) -> None:
    """A square: one picture, the contact sheet above the family tree, or four answers in quarters."""
    from PIL import Image, ImageOps

    half = SIDE // 2
    places = {
        1: [(0, 0, SIDE, SIDE)],
        2: [(0, 0, SIDE, SHEET), (0, SHEET, SIDE, SIDE - SHEET)],
        4: [(x, y, half, half) for y in (0, half) for x in (0, half)],
    }[len(pictures)]
    square = Image.new("RGB", (SIDE, SIDE), GROUND)
    for picture, (x, y, width, height) in zip(pictures, places, strict=True):
        opened = Image.open(io.BytesIO(picture)).convert("RGB")
        square.paste(ImageOps.pad(opened, (width, height), Image.Resampling.LANCZOS, color=GROUND), (x, y))
    square.save(path, quality=88)


if __name__ == "__main__":
    main()
