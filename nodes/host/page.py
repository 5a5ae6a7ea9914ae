"""What passes between a running node and the user: progress, words, previews, the stop button, an output that is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.cli_args
import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

if TYPE_CHECKING:
    from PIL import Image

PREVIEW_SIDE = 512
LINE = 26  # letters of a line of words on a narrow node; the page would break longer ones within a word


def shows_between() -> dict:
    """Schema keywords of a node that shows something in the middle of a graph; hosts before 0.17 know none."""
    return {"has_intermediate_output": True} if "has_intermediate_output" in io.Schema.__dataclass_fields__ else {}


def check_interrupt() -> None:
    """Stop here if the user pressed stop."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def shows_previews() -> bool:
    """Whether the user wants live previews: ComfyUI's setting "Live preview method", or its option --preview-method."""
    return comfy.cli_args.args.preview_method != comfy.cli_args.LatentPreviewMethod.NoPreviews


def say(text: str) -> None:
    """Show a line on the node that is running, in the page that asked for the run; other pages may show other graphs."""
    from textwrap import fill

    number, server = _asked()
    if server is not None:
        server.send_progress_text(fill(text, LINE, break_long_words=False), number, server.client_id)


def asker() -> tuple[str, Callable[[str, dict], None] | None]:
    """The number of the running node, and how to send a message to the page that asked for it; None where no page did."""
    number, server = _asked()
    return number, server and (lambda name, data: server.send_sync(name, data, server.client_id))


def _asked() -> tuple[str, Any]:
    """The number of the running node and the server, None where nothing runs or no page asked for it."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    asked = context is not None and getattr(server, "client_id", None) is not None
    return (context.node_id, server) if asked else ("", None)


def nothing() -> Any:
    """An output that is not there; nodes that take it do not run, and nobody calls that an error."""
    return ExecutionBlocker(None)


class Progress:
    """The node's progress bar; every step checks for an interrupt and may show a picture and a line of words."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.bar = comfy.utils.ProgressBar(total)

    def step(self, picture: Image.Image | None = None, words: str = "") -> None:
        """One more piece of work is done."""
        check_interrupt()
        self.done += 1
        shown = None if picture is None else ("JPEG", picture, PREVIEW_SIDE)
        self.bar.update_absolute(self.done, self.total, shown)
        if words:
            say(words)
