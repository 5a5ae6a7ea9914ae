"""No node but a clock in ComfyUI: the address /ttsvar/spent tells, and forgets, the processor seconds that the pack's nodes have
taken, those of looking apart from those of the search. `looking.py` puts it into a server's custom_nodes."""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from server import PromptServer, web

import nodes as host

NODE_CLASS_MAPPINGS: dict[str, type] = {}
LOOKING = {f"TTSVAR_{name}": name for name in ("InspectState", "ChooseSketches", "ChooseBatch")}

_spent: Counter[str] = Counter()
_inner: list[float] = []  # of every call under way, what the calls within it took


def clocked(run: Callable, what: str) -> Callable:
    """A function whose own seconds count as ``what``, those of clocked functions within it as theirs."""

    @functools.wraps(run)
    def timed(*given: Any, **named: Any) -> Any:
        _inner.append(0.0)
        began = time.process_time()
        try:
            return run(*given, **named)
        finally:
            whole = time.process_time() - began
            _spent[what] += whole - _inner.pop()
            if _inner:
                _inner[-1] += whole

    return timed


@functools.cache
def install() -> None:
    """Clocks on all nodes of the pack, and on what shows something inside them; one thread, as several wait for one another."""
    torch.set_num_threads(1)
    for name, node in host.NODE_CLASS_MAPPINGS.items():
        if name.startswith("TTSVAR_"):
            what = LOOKING.get(name, "loading" if "Loader" in name or "Encode" in name else "search")
            node.execute = classmethod(clocked(node.execute.__func__, what))
    live = next(name for name in sys.modules if name.endswith("ttsvar.nodes.live"))
    pack = live.removesuffix(".nodes.live")
    for path, function, what in (
        ("ttsvar_core.inspect.preview", "preview", "live previews"),
        ("nodes.live", "growing", "growing tree"),
    ):
        module = importlib.import_module(f"{pack}.{path}")
        setattr(module, function, clocked(getattr(module, function), what))


@PromptServer.instance.routes.get("/ttsvar/spent")
async def tell(_: web.Request) -> web.Response:
    """Seconds by what they went into, since the last call."""
    install()
    told = dict(_spent)
    _spent.clear()
    return web.json_response(told)
