"""What every browser test begins with: what it needs, and a server whose page greets nobody."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "host"))
from comfyui_server import HOW_TO_GET_ONE, Server, find_comfyui
from editor import CHROMIUM, NO_CHROMIUM, write_settings

NEEDS = [
    pytest.mark.skipif(find_comfyui() is None, reason=HOW_TO_GET_ONE),
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]


@contextmanager
def served(factory: pytest.TempPathFactory, *options: str) -> Iterator[Server]:
    """A server with these options, in a folder of its own; skips without playwright."""
    pytest.importorskip("playwright", reason="no playwright: pip install playwright (it drives the browser, none is downloaded)")
    base = factory.mktemp("comfyui")
    write_settings(base)
    running = Server(base, *options)
    yield running
    running.stop()
