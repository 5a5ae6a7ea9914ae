"""Choosing with the mouse: the node shows what there is, the choice is an ordinary widget, and nothing waits for anybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io

from .batch_rows import latent_rows, select_rows
from .host import folders, page
from .live import grow, showed
from .sample import glimpse
from .select import rows
from .thumbnails import Thumbnails, thumbnails
from .types import CATEGORY, State, the_batch, the_state

STOPPED = "Click what shall go on, then press Continue."
OTHERS = "These are others than those you chose from. Choose again."


def _choice():
    return io.String.Input(
        "choice", default="",
        tooltip="The numbers that go on, in this order: 2 5 5 or 0-3. A click writes them here; a number named twice goes on "
        "twice. Empty: what follows does not run yet.",
    )


def _seen():
    return io.String.Input(
        "seen", default="", optional=True, advanced=True,
        tooltip="Filled in by clicking: which pictures the choice was made from. If others come, the node stops and shows them. "
        "Empty: the choice holds for whatever comes.",
    )


def _labels():
    return io.AnyType.Input(
        "labels", optional=True, tooltip="Words or numbers to show under the pictures: a list, or text with one line for each.",
    )


def _reason():
    return io.String.Output("reason", tooltip="What was chosen, in words.")


class ChooseSketches(io.ComfyNode):
    """Keeps the samples you click."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ChooseSketches",
            display_name="Choose Sketches",
            category=CATEGORY,
            description="Shows every living sample; click those that shall go on, shift-click for a copy, then press Continue. "
            "Until something is chosen, what follows waits without holding the queue. Nothing is sampled twice.",
            search_aliases=["choose image", "pick", "select image", "human in the loop", "image chooser", "tts-var", "选择草图"],
            is_output_node=True,
            is_input_list=True,
            inputs=[State.Input("state", tooltip="A state after any scale."), _choice(), _labels(), _seen()],
            outputs=[State.Output("state", tooltip="The samples you chose."), _reason()],
            **page.shows_between(),
        )

    @classmethod
    def execute(cls, state, choice, labels=None, seen=None) -> io.NodeOutput:
        from ..ttsvar_core.inspect import sheet
        from ..ttsvar_core.selection import choose

        state = the_state(state)
        told = [{**mark, "label": label} for mark, label in zip(sheet.captions(state), _words(labels, state.samples), strict=True)]
        small = thumbnails(state.features, "sketches", lambda: glimpse(state))
        showed(state, small)
        chosen, note = _chosen(choice, seen, small)
        shown = _shown(small, told, sheet.header(state), chosen, note)
        if not chosen:
            return io.NodeOutput(*[page.nothing()] * 2, ui=shown)
        selection = choose(chosen, state.samples)
        kept = state.select(selection)
        grow(cls, kept, state)
        return io.NodeOutput(kept, selection.reason, ui=shown)


class ChooseBatch(io.ComfyNode):
    """Keeps the pictures of a batch that you click."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ChooseBatch",
            display_name="Choose Batch",
            category=CATEGORY,
            description="Shows every picture of a batch from any workflow; click those that shall go on, shift-click for a "
            "copy, then press Continue. Their latents come along. Until something is chosen, what follows waits.",
            search_aliases=["choose image", "filter images", "select images", "image chooser", "pick latent", "选择图片"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="A batch of pictures from any node."),
                _choice(),
                io.Latent.Input(
                    "latent", optional=True,
                    tooltip="The latents of the same pictures, in the same order; masks and noise numbers come along.",
                ),
                _labels(),
                _seen(),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The pictures you chose."),
                io.Latent.Output("latent", tooltip="Their latents; nothing if none came in."),
                _reason(),
            ],
            **page.shows_between(),
        )

    @classmethod
    def execute(cls, images, choice, latent=None, labels=None, seen=None) -> io.NodeOutput:
        from ..ttsvar_core.inspect.sheet import plain_caption

        images, latent = _one_batch(images), the_batch(latent, "latent")
        if latent is not None and latent_rows(latent) != len(images):
            raise ValueError(f"{len(images)} pictures came with {latent_rows(latent)} latents; give the latents of these pictures.")
        small = thumbnails(images, "pictures", lambda: images[..., :3])
        told = [plain_caption(row, label=label) for row, label in enumerate(_words(labels, len(images)))]
        chosen, note = _chosen(choice, seen, small)
        shown = _shown(small, told, (_counted(len(images)), "The number is what you choose by."), chosen, note)
        if not chosen:
            return io.NodeOutput(*[page.nothing()] * 3, ui=shown)
        kept = page.nothing() if latent is None else select_rows(latent, chosen)
        return io.NodeOutput(images[chosen], kept, f"{chosen} of {len(images)}, chosen by hand", ui=shown)


def _counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _one_batch(batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """One batch of a list of them. Raises ValueError for pictures of several sizes."""
    if len(batches) == 1:
        return batches[0]
    sizes = sorted({tuple(batch.shape[1:]) for batch in batches})
    if len(sizes) > 1:
        raise ValueError(f"Pictures of several sizes came, {sizes[0]} and {sizes[1]} among them; bring them to one size first.")
    return torch.cat(list(batches))


def _words(labels: Any, count: int) -> list[str]:
    """One label for each picture. Raises ValueError where there are more or fewer."""
    each = isinstance(labels, list | tuple) and len(labels) == count and all(isinstance(label, str) for label in labels)
    found = [" ".join(label.split()) for label in labels] if each else _flat(labels)
    if found and len(found) != count:
        raise ValueError(f"{len(found)} labels came for {_counted(count)}; give one for each.")
    return found or [""] * count


def _flat(labels: Any) -> list[str]:
    if labels is None:
        return []
    if isinstance(labels, str):
        return [line.strip() for line in labels.splitlines() if line.strip()]
    if hasattr(labels, "tolist"):
        labels = labels.tolist()
    if isinstance(labels, list | tuple):
        return [word for label in labels for word in _flat(label)]
    return [f"{labels:.3f}" if isinstance(labels, float) else str(labels)]


def _chosen(choice: Sequence[str], seen: Sequence[str] | None, small: Thumbnails) -> tuple[list[int], str]:
    """The rows chosen, none where the choice was made from other pictures, and what to tell the user."""
    found = rows(choice[0], len(small.files)) if not seen or seen[0] in ("", small.key) else None
    if found is None:
        return [], OTHERS if choice[0].strip() else STOPPED
    return found, "" if found else STOPPED


def _shown(small: Thumbnails, told: list[dict], header: tuple[str, str], chosen: list[int], note: str) -> dict:
    """What the page gets: the thumbnails with what is known of each, and one numbered sheet for where our page code is not."""
    from ..ttsvar_core.inspect.sheet import numbered_sheet
    from ..ttsvar_core.inspect.story import plain

    data = {
        "key": small.key, "title": header[0], "note": note, "chosen": chosen,
        "rows": [{**plain(mark), "picture": file} for mark, file in zip(told, small.files, strict=True)],
    }
    return {"ttsvar_choose": [data], "images": folders.temp_pictures([numbered_sheet(small.pictures, told, header)])}


NODES = [ChooseSketches, ChooseBatch]
