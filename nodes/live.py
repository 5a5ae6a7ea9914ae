"""Search View while the search still runs: after every selection the tree so far, sent to the page that asked for the run.

It goes as a message of our own over the connection that progress takes; a page without our JavaScript ignores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .host import device, page
from .thumbnails import thumbnails

MESSAGE = "ttsvar.search"
VIEW = "TTSVAR_InspectState"


def grow(node: Any, state) -> None:
    """Show the state of a selection to all views that come after the running node, if there is a page that shows them.

    node: its class; the prompt is among what it asked the host for. The pictures are those that the views need in the end.
    """
    number, send = page.asker()
    views = views_after(node.hidden.prompt or {}, number) if send and node.hidden else []
    if views:
        device.load_tokenizer(state.model)
        send(MESSAGE, {"views": views, "data": growing(state)})


def views_after(prompt: Mapping[str, Mapping], number: str) -> list[str]:
    """The numbers of the views that a node's outputs reach."""
    found, left = {number}, dict(prompt)
    while fresh := {name for name, node in left.items() if found & _sources(node)}:
        found |= fresh
        left = {name: node for name, node in left.items() if name not in fresh}
    return sorted(name for name in found if name != number and prompt[name]["class_type"] == VIEW)


def _sources(node: Mapping) -> set[str]:
    links = [value for value in node["inputs"].values() if isinstance(value, list) and len(value) == 2]
    return {number for number, _ in links if isinstance(number, str)}


def growing(state) -> dict:
    """A view's data before its node has run: generations, scores and pictures; no maps and no film yet."""
    from ..ttsvar_core.inspect.story import story

    before = [pictures_before(state, step.before) for step in state.lineage]
    living = [before[-1][row] for row in state.lineage[-1].ancestors] if before[-1] else []
    unknown = {"maps": [], "film": {"rows": [], "frames": []}, "answers": []}
    return {**story(state), **unknown, "show": "family tree", "growing": True, "before": before, "pictures": living}


def pictures_before(state, bits) -> list[dict] | None:
    """Pictures of all samples before a selection, those who died with it as well; None where their bits are not known any more."""
    from ..ttsvar_core.inspect.story import drawn_small, grown

    return thumbnails(bits[-1], "small", lambda: drawn_small(state, list(grown(state, bits))[-1])).files if bits else None
