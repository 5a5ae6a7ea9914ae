"""Search View while the search still runs: after every selection the tree so far, sent to the page that asked for the run.

It goes as a message of our own over the connection that progress takes; a page without our JavaScript ignores it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .host import device, page
from .thumbnails import Thumbnails, files_of, small_files, thumbnails

MESSAGE = "ttsvar.search"
VIEW = "TTSVAR_InspectState"
BEFORE = "before a selection"


def grow(node: Any, state, before=None) -> None:
    """Show the state of a selection to all views that come after the running node, if there is a page that shows them.

    node: its class; the prompt is among what it asked the host for. before: the state that was selected from, with its keys and
    values, if that is at hand. The pictures are those that the views need in the end.
    """
    views, send = _watching(node)
    if views:
        device.load_tokenizer(state.model)
        send(MESSAGE, {"views": views, "data": growing(state, before)})


def looked(node: Any, state, images, foreseen: bool) -> None:
    """Keep for the views that come after the running node what it has seen of a state that it may select from."""
    from ..ttsvar_core.inspect.story import foreseeable

    if (foreseen or not foreseeable(state)) and _watching(node)[0]:
        thumbnails(state.bits[-1], BEFORE, lambda: images)


def showed(state, sketches: Thumbnails) -> None:
    """Keep for all views what a node shows of a state: its `glimpse`."""
    from ..ttsvar_core.inspect.story import foreseeable

    if state.bits and (state.cache is not None or not foreseeable(state)):
        files_of(state.bits[-1], BEFORE, lambda: sketches.files)


def _watching(node: Any) -> tuple[list[str], Any]:
    """The views that come after the running node, and how to send them a message; none where no page shows them."""
    number, send = page.asker()
    return views_after(node.hidden.prompt or {}, number) if send and node.hidden else [], send


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


def growing(state, selected_from=None) -> dict:
    """A view's data before its node has run: generations, scores and pictures; no maps and no film yet."""
    from ..ttsvar_core.inspect.story import story

    if selected_from is not None and selected_from.bits:
        _pictures(selected_from.bits[-1], lambda: selected_from)
    before = pictures_before(state)
    living = [before[-1][row] for row in state.lineage[-1].ancestors] if before[-1] else []
    unknown = {"maps": [], "film": {"rows": [], "frames": []}, "answers": []}
    return {**story(state), **unknown, "show": "family tree", "growing": True, "before": before, "pictures": living}


def pictures_before(state) -> list[list[dict] | None]:
    """For each selection of a state's past, pictures of all samples before it, those who died with it as well; None where their
    bits are not known any more. They show what the samples were foretold to become, where that can be told after that scale."""
    from ..ttsvar_core.inspect.story import past

    steps = enumerate(state.lineage)
    return [_pictures(step.before[-1], lambda at=at: past(state, at)) if step.before else None for at, step in steps]


def _pictures(bits: Tensor, of: Callable) -> list[dict]:
    """Pictures of the state with these bits of its last scale, drawn once."""

    def drawn() -> list[dict]:
        state = of()
        return small_files(state.model, _seen(state))

    return files_of(bits, BEFORE, drawn)


def _seen(state) -> Tensor:
    """What a state's samples are foretold to become, by the keys and values at hand or else by those that their bits bring back if
    there is memory; or what they show so far."""
    from ..ttsvar_core.inspect.story import foreseeable, remembered, small, small_seen
    from ..ttsvar_core.out_of_memory import first_that_fits

    def foretold() -> Tensor:
        replayed = state.cache is None and foreseeable(state)
        if replayed:
            device.load_transformer(state.model, device.replaying_memory(state))
        seen = small_seen(remembered(state))
        if replayed:
            device.load_tokenizer(state.model)
        return seen

    return first_that_fits([foretold, lambda: small(state, state.features)])
