"""Run a bundled workflow in the real editor and photograph its graph: `python lab/tools/screenshot.py 03_full_search graph.png`,
or, where sketches are to be chosen on the way, `... 02_choose_by_hand choose.png --choose 2 5`.

Needs a ComfyUI (see tests/host), a Chromium, playwright and pillow; the pictures of graphs in the README are made by it.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "host"))
from comfyui_server import HOW_TO_GET_ONE, Server, find_comfyui  # noqa: E402
from editor import CHROMIUM, MINUTE, NO_CHROMIUM, browsing, open_editor, open_graph, write_settings  # noqa: E402

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


def photograph(address: str, name: str, width: int, height: int, chosen: list[int]) -> bytes:
    """PNG of the graph `name` after a run, fitted into `width` x `height` pixels and cropped to its nodes."""
    with browsing() as browser:
        page = open_editor(browser, address, width, height)
        open_graph(page, name)
        page.evaluate("""() => { for (const event of ['execution_success', 'execution_error'])
            window.app.api.addEventListener(event, () => { window.ended = event; }); }""")
        press(page, page.get_by_role("button", name="Run", exact=True).first, name)
        for number in chosen:
            page.locator(".ttsvar-panel:visible .ttsvar-card").nth(number).click()
        if chosen:
            press(page, page.get_by_role("button", name="Continue").first, name)
            page.mouse.click(PANELS[0] + 10, height - 200)  # beside the graph: no node is selected
        page.wait_for_function("window.app.graph._nodes.find(n => n.type === 'SaveImage').imgs?.[0]?.naturalWidth > 0")
        used = page.evaluate(FIT, [width, height, *PANELS, MARGIN])
        page.wait_for_timeout(3000)
        clip = {"x": PANELS[0], "y": PANELS[1], "width": used[0] + 2 * MARGIN, "height": used[1] + 2 * MARGIN}
        return page.screenshot(clip=clip)


def press(page: Any, button: Any, name: str) -> None:
    """Press a button and wait for the run that it starts."""
    page.evaluate("window.ended = null")
    button.click()
    page.wait_for_function("window.ended", timeout=3 * MINUTE)
    if page.evaluate("window.ended") != "execution_success":
        raise SystemExit(f"{name} did not run to its end")


def main(argv: list[str] | None = None) -> int:
    """Start a server on an empty base directory, take the picture, write it with few colours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", help="name of a file in workflows/ without its ending")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="2200x1500", help="width x height of the window in pixels")
    parser.add_argument("--choose", type=int, nargs="+", default=[], help="sketches to click before Continue")
    args = parser.parse_args(argv)
    if find_comfyui() is None:
        raise SystemExit(HOW_TO_GET_ONE)
    if CHROMIUM is None:
        raise SystemExit(NO_CHROMIUM)
    from PIL import Image

    with tempfile.TemporaryDirectory() as base:
        write_settings(Path(base))
        server = Server(Path(base))
        try:
            raw = photograph(server.address, args.workflow, *(int(side) for side in args.size.split("x")), args.choose)
        finally:
            server.stop()
    few = Image.open(io.BytesIO(raw)).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    few.save(args.picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
