"""ComfyUI's page in a headless browser: what the screenshot tool and the browser tests share. Needs playwright and a Chromium."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NO_CHROMIUM = "no Chromium found: install the package chromium, or set CHROMIUM to a browser"
MINUTE = 60_000  # milliseconds
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_READY = "!!(window.app?.graph && window.LiteGraph?.registered_node_types.TTSVAR_Generate)"
_OPEN = "async name => window.app.loadGraphData(await (await fetch(`/api/workflow_templates/ttsvar/${name}.json`)).json())"
_SETTINGS = """{"Comfy.TutorialCompleted": true, "Comfy.Minimap.Visible": false, "Comfy.Graph.CanvasInfo": false,
    "Comfy.OnboardingCoachmarks.Seen": ["appMode"]}"""
_WATCH = """() => { for (const event of ['execution_success', 'execution_error'])
    window.app.api.addEventListener(event, ({ detail }) => { window.ended = [event, detail]; }); }"""


def write_settings(base: Path) -> None:
    """Settings of a server's base directory: no template browser and no tour to greet a new user, nothing drawn over the graph."""
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(_SETTINGS, encoding="utf-8")


@contextmanager
def browsing() -> Iterator[Any]:
    """The installed Chromium, driven by playwright, closed in the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS) as opened:
        yield opened


def open_editor(browser: Any, address: str, width: int, height: int) -> Any:
    """A page of that many pixels with the editor ready and the pack's nodes known."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(MINUTE)
    page.goto(address, timeout=2 * MINUTE)
    page.wait_for_function(_READY)
    return page


def open_graph(page: Any, name: str) -> None:
    """Load a graph the way the template browser does: fetched from the server, handed to the editor."""
    page.evaluate(_OPEN, name)
    page.wait_for_function("window.app.graph._nodes.some(node => node.type === 'MarkdownNote')")


@contextmanager
def serving(width: int, height: int) -> Iterator[tuple[Any, Any, Path]]:
    """The editor of a ComfyUI on an empty base directory, as a page of that many pixels; its catalogue of nodes; the directory.

    Ends the program, saying what to get, where there is no ComfyUI or no browser."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "host"))
    from comfyui_server import HOW_TO_GET_ONE, Server, find_comfyui

    if find_comfyui() is None or CHROMIUM is None:
        raise SystemExit(HOW_TO_GET_ONE if find_comfyui() is None else NO_CHROMIUM)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_settings(base)
        server = Server(base)
        try:
            with browsing() as browser:
                page = open_editor(browser, server.address, width, height)
                page.evaluate(_WATCH)
                yield page, server.catalogue, base
        finally:
            server.stop()


def ran(page: Any, minutes: float) -> None:
    """Wait for the end of a run that was started in a page of `serving`; ends the program, saying why, where it failed."""
    page.wait_for_function("window.ended", timeout=minutes * MINUTE)
    event, told = page.evaluate("window.ended")
    if event != "execution_success":
        raise SystemExit(str(told)[:2000])
    page.evaluate("window.ended = null")
