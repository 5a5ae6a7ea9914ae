"""Seeing what a search does."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from .host import device, folders
from .live import pictures_before, showed
from .sample import decoded, glimpse
from .score import told as answers_told
from .thumbnails import opened, small_files, thumbnails
from .types import CATEGORY, Extractor, State

SHOWS = ["sketches", "family tree", "scores", "maps", "film"]
MOST_FILMED = 4  # families, where a film is what is wanted: a picture for each scale soon costs more than the search


class InspectState(io.ComfyNode):
    """The search so far in one picture: sketches, family tree, scores, feature maps, film."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_InspectState",
            display_name="Inspect State",
            category=CATEGORY,
            description="Shows a state: every living sample with its number and score, who descends from whom, scores per scale, "
            "effective sample size of every selection, feature maps as colours, how the samples came about.",
            search_aliases=["contact sheet", "preview", "search view", "lineage", "family tree", "plot", "pca", "tts-var", "预览"],
            is_output_node=True,
            inputs=[
                State.Input("state", tooltip="A state after any scale."),
                Extractor.Input(
                    "extractor", optional=True,
                    tooltip="With DINOv2, the maps show its patch features; without, the model's own accumulated features.",
                ),
                io.Boolean.Input(
                    "whole_size", default=False, optional=True, advanced=True,
                    tooltip="Decode unfinished samples at full size. Their sketches hold no more detail than the size sampled so "
                    "far, at which they are decoded otherwise, for a fraction of the time.",
                ),
                io.Combo.Input(
                    "show", options=SHOWS, default="sketches", optional=True,
                    tooltip="What the node shows first; the tabs on it show the rest.",
                ),
            ],
            outputs=[
                io.Image.Output("contact_sheet", tooltip="All living samples; the numbers are those Select by Hand takes."),
                io.Image.Output("family_tree", tooltip="Who descends from whom over the scales; grey lines have died out."),
                io.Image.Output("charts", tooltip="Scores per scale, and the effective sample size of every selection."),
                io.Image.Output("maps", tooltip="The three main directions of the features as red, green and blue."),
                io.String.Output("text", tooltip="The same in words."),
            ],
        )

    @classmethod
    def execute(cls, state, extractor=None, whole_size=False, show="sketches") -> io.NodeOutput:
        from ..ttsvar_core.inspect import words
        from ..ttsvar_core.inspect.canvas import to_tensor
        from ..ttsvar_core.inspect.film import film_sheet

        images = decoded(state, whole=True) if whole_size else glimpse(state)
        told = _told(state, images, whole_size, show)
        with device.running(extractor, images=images):
            sheets, told["maps"] = _drawings(state, images, extractor)
        told["answers"] = state.answers.table() if state.answers else []
        film = told["film"]
        first = film_sheet(film["rows"], map(opened, film["frames"])) if show == "film" else sheets[SHOWS.index(show)]
        tensors = [device.to_image(to_tensor(sheet)) for sheet in sheets]
        seen = {"ttsvar_view": [told], "images": folders.temp_pictures([first]), **(answers_told(state.answers) or {})}
        return io.NodeOutput(*tensors, words.describe(state), ui=seen)


def _told(state, images, whole: bool, show: str) -> dict:
    """The view's data, maps excepted."""
    from ..ttsvar_core.inspect.story import filmed, story

    rows = filmed(state, MOST_FILMED if show == "film" else 1)
    sketches = thumbnails(state.features, f"sketches {whole}", lambda: images)
    if not whole:
        showed(state, sketches)
    said = {"show": show, "pictures": sketches.files, "before": pictures_before(state)}
    said["film"] = {"rows": rows, "frames": _frames(state, rows)}
    return {**story(state), **said}


def _frames(state, rows: list[int]) -> list[list[dict]]:
    """Pictures of these samples after every scale, a list for each."""
    from ..ttsvar_core.inspect.story import grown, small

    if not state.bits:
        return []
    scales = [small(state, features) for features in grown(state, [bits[rows] for bits in state.bits])]
    files = small_files(state.model, torch.cat(scales))
    return [files[at : at + len(rows)] for at in range(0, len(files), len(rows))]


def _drawings(state, images, extractor) -> tuple[list, list[dict]]:
    """Contact sheet, family tree, charts and maps; and the maps one by one."""
    from ..ttsvar_core.inspect import maps, plots, sheet, tree

    features, what = maps.mapped(state, images, extractor)
    colours = maps.principal_colours(features)
    single = thumbnails(features, "maps", lambda: colours)  # drawn once of the model's own features; an extractor looked anew
    return [
        sheet.contact_sheet(state, images),
        tree.family_tree(state, images),
        plots.charts(state),
        maps.feature_maps(colours, what, images),
    ], single.files


NODES = [InspectState]
