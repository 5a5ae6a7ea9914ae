"""Seeing what a search does."""

from comfy_api.latest import io, ui

from . import host
from .sample import decoded
from .score import told
from .types import CATEGORY, Extractor, State


class InspectState(io.ComfyNode):
    """Contact sheet, family tree, scores and feature maps of a state."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_InspectState",
            display_name="Inspect State",
            category=CATEGORY,
            description="Shows a state: every living sample with its number and score, who descends from whom, scores per scale, "
            "effective sample size of every selection, and feature maps as colours.",
            search_aliases=["contact sheet", "preview", "lineage", "family tree", "plot", "pca", "tts-var", "预览"],
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
    def execute(cls, state, extractor=None, whole_size=False) -> io.NodeOutput:
        from ..ttsvar_core.inspect import words
        from ..ttsvar_core.inspect.canvas import to_tensor

        images = decoded(state, whole=whole_size)
        with host.running(extractor, images=images):
            sheets = [host.to_image(to_tensor(picture)) for picture in drawings(state, images, extractor)]
        return io.NodeOutput(*sheets, words.describe(state), ui=Pictures(sheets, cls, told(state.answers) or {}))


class Pictures(ui.PreviewImage):
    """Pictures of different sizes as one node's preview, and what else it tells."""

    def __init__(self, sheets, cls, more: dict) -> None:
        super().__init__([sheet[0] for sheet in sheets], cls=cls)
        self.more = more

    def as_dict(self) -> dict:
        """As the host sends it."""
        return {**super().as_dict(), **self.more}


def drawings(state, images, extractor) -> list:
    """Contact sheet, family tree, charts and maps."""
    from ..ttsvar_core.inspect import maps, plots, sheet, tree

    return [
        sheet.contact_sheet(state, images),
        tree.family_tree(state, images),
        plots.charts(state),
        maps.state_maps(state, images, extractor),
    ]


NODES = [InspectState]
