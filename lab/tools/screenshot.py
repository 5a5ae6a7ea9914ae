"""Run a bundled workflow in the real editor and photograph its graph: `python lab/tools/screenshot.py 03_full_search graph.png`,
or, where sketches are to be chosen on the way, `... 02_choose_by_hand choose.png --choose 2 5`.

Needs a ComfyUI (see tests/host), a Chromium, playwright and pillow; the pictures of graphs in the README are made by it.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from editor import open_graph, ran, serving

MARGIN = 60  # pixels
PANELS = (70, 140)  # pixels left and above that the page's own panels and messages cover
FIT = """([width, height, panelLeft, panelTop, margin]) => {
    const boxes = window.app.graph._nodes.filter(n => n.type !== 'MarkdownNote').map(n => n.getBounding());
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
    const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]));
    const view = window.app.canvas.ds;
    view.scale = Math.min((width - panelLeft - 2 * margin) / (right - left),
                          (height - panelTop - 2 * margin) / (bottom - top));
    view.offset[0] = (panelLeft + margin) / view.scale - left;
    view.offset[1] = (panelTop + margin) / view.scale - top;
    window.app.canvas.setDirty(true, true);
    return [(right - left) * view.scale, (bottom - top) * view.scale];
}"""


def photograph(page: Any, name: str, width: int, height: int, chosen: list[int]) -> bytes:
    """PNG of the graph `name` after a run, fitted into the page's `width` x `height` pixels and cropped to its nodes."""
    open_graph(page, name)
    page.get_by_role("button", name="Run", exact=True).first.click()
    ran(page, 3)
    for number in chosen:
        page.locator(".ttsvar-panel:visible .ttsvar-card").nth(number).click()
    if chosen:
        page.get_by_role("button", name="Continue").first.click()
        ran(page, 3)
        page.mouse.click(PANELS[0] + 10, height - 200)  # beside the graph: no node is selected
    page.wait_for_function("window.app.graph._nodes.find(n => n.type === 'SaveImage').imgs?.[0]?.naturalWidth > 0")
    used = page.evaluate(FIT, [width, height, *PANELS, MARGIN])
    page.wait_for_timeout(3000)
    clip = {"x": PANELS[0], "y": PANELS[1], "width": used[0] + 2 * MARGIN, "height": used[1] + 2 * MARGIN}
    return page.screenshot(clip=clip)


def main(argv: list[str] | None = None) -> int:
    """Take the picture, write it with few colours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", help="name of a file in workflows/ without its ending")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="2200x1500", help="width x height of the window in pixels")
    parser.add_argument("--choose", type=int, nargs="+", default=[], help="sketches to click before Continue")
    args = parser.parse_args(argv)
    from PIL import Image

    size = [int(side) for side in args.size.split("x")]
    with serving(*size) as (page, *_):
        raw = photograph(page, args.workflow, *size, args.choose)
    few = Image.open(io.BytesIO(raw)).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    few.save(args.picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
