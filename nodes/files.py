"""States that outlive a session, and states made of pictures."""

import os

from comfy_api.latest import io

from .budget import samples_told
from .host import device, folders, page
from .load import encode
from .types import ASPECT_RATIOS, CATEGORY, MOST_SAMPLES, Conditioning, Model, State, TextEncoder, canvas, seed

NEWEST = "(newest)"


class SaveState(io.ComfyNode):
    """Writes a state to the output folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_SaveState",
            display_name="Save State",
            category=f"{CATEGORY}/files",
            description="Writes a state to ComfyUI's output folder. A few kilobytes hold everything: bits, scores, lineage, seed.",
            search_aliases=["save latent", "checkpoint", "resume", "tts-var", "保存"],
            is_output_node=True,
            inputs=[
                State.Input("state", tooltip="A state after any scale."),
                io.String.Input(
                    "filename_prefix", default="ttsvar/state",
                    tooltip="Name in the output folder, sub-folders allowed; a running number is added.",
                ),
                io.Boolean.Input(
                    "with_cache", default=False, advanced=True,
                    tooltip="Store keys and values as well (megabytes), so that going on is equal to the last bit without replay.",
                ),
            ],
            outputs=[io.String.Output("path", tooltip="Where it was written; wire it to Load State to go on from it.")],
        )

    @classmethod
    def execute(cls, state, filename_prefix, with_cache) -> io.NodeOutput:
        from ..ttsvar_core.search.save import save_state

        path = folders.fresh_output_path(filename_prefix, folders.STATE_SUFFIX)
        save_state(state, path, with_cache)
        saved = f"saved {os.path.basename(path)}, {os.path.getsize(path):,} bytes"
        page.say(saved)
        return io.NodeOutput(path, ui={"text": (saved,)})


class LoadState(io.ComfyNode):
    """Reads a saved state."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_LoadState",
            display_name="Load State",
            category=f"{CATEGORY}/files",
            description="Reads a state that Save State wrote. The prompt comes from the file; the model must be the one the "
            "state was made with.",
            search_aliases=["load latent", "resume", "continue", "tts-var", "继续"],
            inputs=[
                Model.Input("model", tooltip="The model the state was made with."),
                TextEncoder.Input("text_encoder", tooltip="Its text encoder; the prompt saved in the file is encoded again."),
                io.Combo.Input(
                    "file", options=[NEWEST, *folders.saved_states()], default=NEWEST,
                    tooltip="A state in the output or input folder; (newest) takes the one saved last.",
                ),
                io.String.Input(
                    "path", optional=True, force_input=True, tooltip="A path from Save State; it goes before the file chosen.",
                ),
            ],
            outputs=[
                State.Output("state", tooltip="The state, ready to go on."),
                io.String.Output("prompt", tooltip="The prompt it was made for."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file, path="", **_):
        if path is None:  # wired: its value is not known yet, and ComfyUI runs this node again when the wire's source changes
            return "wired"
        try:
            chosen = folders.saved_state(path or ("" if file == NEWEST else file))
            return f"{chosen} {os.path.getmtime(chosen)}"
        except (FileNotFoundError, ValueError):
            return "none"

    @classmethod
    def execute(cls, model, text_encoder, file, path=None) -> io.NodeOutput:
        from ..ttsvar_core.search.save import describe_file, load_state

        chosen = folders.saved_state(path or ("" if file == NEWEST else file))
        about = describe_file(chosen)
        conditioning = encode(text_encoder, about["prompt"], about["negative_prompt"] or "")
        device.load_transformer(model)
        state = load_state(chosen, model, conditioning)
        page.say(f"{os.path.basename(chosen)}: {samples_told(state.samples)} after scale {state.last_scale}, {about['prompt']}")
        return io.NodeOutput(state, about["prompt"])


class StateFromImage(io.ComfyNode):
    """A search that starts from a picture."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_StateFromImage",
            display_name="State from Image",
            category=f"{CATEGORY}/files",
            description="Encodes the first scales of a picture and lets a search go on from there: colours and layout of the "
            "picture, details for the prompt.",
            search_aliases=["img2img", "image to image", "vae encode", "variation", "tts-var", "图生图"],
            inputs=[
                Model.Input("model", tooltip="From Infinity Loader."),
                Conditioning.Input("conditioning", tooltip="What the picture shall become, from Prompt Encode."),
                io.Image.Input("image", tooltip="One picture; it is scaled to cover the canvas and cut to it."),
                io.Int.Input(
                    "through_scale", default=4, min=0, max=13, display_mode=io.NumberDisplay.slider,
                    tooltip="The last scale taken from the picture. Small keeps colours and rough layout, large keeps nearly all.",
                ),
                *canvas(),
                io.Int.Input("samples", default=8, min=1, max=MOST_SAMPLES, tooltip="How many samples go on from the picture."),
                seed("What the samples draw from the next scale on."),
            ],
            outputs=[State.Output("state", tooltip="Samples that all show the picture so far.")],
        )

    @classmethod
    def execute(
        cls, model, conditioning, image, through_scale, aspect_ratio, pixel_budget, samples, seed
    ) -> io.NodeOutput:
        from ..ttsvar_core.search.from_image import state_from_image

        device.load_tokenizer(model)
        device.load_transformer(model)
        schedule = model.schedule(ASPECT_RATIOS[aspect_ratio], pixel_budget)
        return io.NodeOutput(state_from_image(model, conditioning, image, through_scale, samples, seed, schedule))


NODES = [SaveState, LoadState, StateFromImage]
