"""From noise to picture: start a state, run scales, decode."""

import time
from collections.abc import Callable

from comfy_api.latest import io

from ..ttsvar_core.names import CACHE_POLICIES
from .budget import of_sampling, samples_told
from .host import device, hosted, page
from .types import (
    ASPECT_RATIOS,
    CATEGORY,
    MOST_SAMPLES,
    Conditioning,
    Model,
    State,
    canvas,
    diverse,
    guidance_until,
    sampling,
    seed,
)

POLICIES = ["offload" if policy == "cpu" else policy for policy in CACHE_POLICIES]  # the host says where to
_SHOWN = {"all samples": 16, "first sample": 1, "off": 0}
_REST = 3  # times as long as a live preview took, sampling goes on without one
LAST = -1
MOST_SCALES = 14


def previews():
    """The widget that says what the live preview shows."""
    return io.Combo.Input(
        "preview", options=list(_SHOWN), default="all samples", advanced=True,
        tooltip='What the live preview decodes, where "Live preview method" in ComfyUI\'s settings (Execution) is not none. '
        "Previews take at most as long as the sampling they show.",
    )


class StartState(io.ComfyNode):
    """A batch of samples before the first scale."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_StartState",
            display_name="Start State",
            category=CATEGORY,
            description="Begins a search: so many samples of one prompt, before the first scale.",
            search_aliases=["empty latent", "start search", "batch", "seed", "tts-var", "空Latent"],
            inputs=[
                Model.Input("model", tooltip="From Infinity Loader."),
                Conditioning.Input("conditioning", tooltip="From Prompt Encode."),
                *canvas(),
                io.Int.Input(
                    "samples", default=8, min=1, max=MOST_SAMPLES,
                    tooltip="How many samples start. The paper starts with 8 times N; sample 0 is what the seed draws alone.",
                ),
                seed("Every random draw of the whole search follows from this number, sample by sample."),
            ],
            outputs=[State.Output("state", tooltip="The state before scale 0, for Scale-Step Sampler.")],
        )

    @classmethod
    def execute(cls, model, conditioning, aspect_ratio, pixel_budget, samples, seed) -> io.NodeOutput:
        from ..ttsvar_core.state import start

        device.load_transformer(model)
        schedule = model.schedule(ASPECT_RATIOS[aspect_ratio], pixel_budget)
        return io.NodeOutput(start(model, conditioning, samples, seed, schedule))


class ScaleStepSampler(io.ComfyNode):
    """Runs the scales up to one you choose."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ScaleStepSampler",
            display_name="Scale-Step Sampler",
            category=CATEGORY,
            description="Samples the next scales of every sample in the state, up to and including the one you name.",
            search_aliases=["ksampler", "sampler", "run scales", "next scale", "infinity sampler", "tts-var", "采样器"],
            inputs=[
                State.Input("state", tooltip="From Start State, a selector, Load State, or another sampler."),
                io.Int.Input(
                    "through_scale", default=LAST, min=LAST, max=MOST_SCALES,
                    tooltip="The last scale to run, counted from 0. -1 runs to the end (scale 12 of a 1M picture).",
                ),
                *sampling(),
                io.Combo.Input(
                    "cache_policy", options=POLICIES, default="keep", advanced=True,
                    tooltip="Keys and values of the finished scales: keep them on the device (fastest), keep them there in one "
                    "byte per number (float8: half or a quarter of the memory, and a slightly different picture), offload them to "
                    "ComfyUI's intermediate device (system memory), or drop them; whatever comes next rebuilds them by replay.",
                ),
                previews(),
                guidance_until(),
                io.Int.Input(
                    "candidates", default=1, min=1, max=MOST_SAMPLES, optional=True, advanced=True,
                    tooltip="How often each sample goes on: so many candidates of the last scale that this node runs are drawn "
                    "from one pass of the model, which costs next to nothing. Put a selector behind it. 1 does not branch.",
                ),
                diverse(),
            ],
            outputs=[State.Output("state", tooltip="The state after the named scale.")],
        )

    @classmethod
    def execute(
        cls, state, through_scale, guidance, tau, top_p, cache_policy, preview, guidance_until=LAST, candidates=1, diverse=False
    ) -> io.NodeOutput:
        from ..ttsvar_core.search.memory import Sampler

        last = len(state.schedule) - 1
        through = last if through_scale == LAST else through_scale
        drawn = sampling_of(state.model, guidance, tau, top_p, guidance_until, last + 1, diverse)
        device.load_transformer(state.model, device.sampling_memory(state, through, drawn), _wanted(preview))
        budget = of_sampling(state, through, drawn)
        watch = previewer(through + 1 - state.next_scale, preview, budget.drawn)
        state = Sampler(drawn, float8_cache=cache_policy == "float8", on_scale=watch).advance(state, through, candidates)
        page.say(f"scale {through}, {samples_told(state.samples)}, {budget.ended()}; {_settings(drawn, through)}")
        return io.NodeOutput(device.put_cache(state, cache_policy))


def sampling_of(
    model: hosted.HostedModel, guidance: float, tau: float, top_p: float, until: int, scales: int, diverse: bool = False
):
    """The sampling settings of the widgets for a schedule of ``scales``; 0 stands for the model's own value."""
    from dataclasses import replace

    from ..ttsvar_core.config import DIVERSE_AR

    given = {"guidance": guidance, "tau": tau, "top_p": top_p, "certainty": DIVERSE_AR if diverse else ()}
    drawn = replace(model.config.sampling, **{name: value for name, value in given.items() if value})
    return drawn if until == LAST else drawn.guided_until(until, scales)


def _settings(sampling, scale: int) -> str:
    """The settings a scale was drawn with, for whoever left them to the model."""
    at = sampling.at(scale)
    return f"guidance {at.guidance:g}, tau {at.tau:g}, top-p {at.top_p:g}"


def _wanted(preview: str) -> int:
    """How many samples a live preview shows: none where the user has turned previews off in ComfyUI."""
    return _SHOWN[preview] if page.shows_previews() else 0


def previewer(scales: int, shown: str, told: Callable = lambda state: ""):
    """What to call with the state after every scale: progress, interrupt, a preview of it, and the words of ``told``.

    After a preview, sampling goes on for at least three times as long as that took before the next one; so they never take more
    than a quarter of the time, however small the model is.
    """
    from ..ttsvar_core.inspect.preview import preview

    progress, samples, due = page.Progress(max(1, scales)), _wanted(shown), 0.0

    def watch(state) -> None:
        nonlocal due
        picture, begun = None, time.monotonic()
        if samples and begun >= due:
            picture = preview(state, samples)
        progress.step(picture, told(state))
        if picture is not None:
            ended = time.monotonic()
            due = ended + _REST * (ended - begun)

    return watch


def leave(images, shown: str) -> None:
    """Show the first of images (P, H, W, 3) where the last live preview would stay: the page leaves it on the node."""
    from ..ttsvar_core.inspect.canvas import to_pictures

    if _wanted(shown):
        page.Progress(1).step(to_pictures(images[:1])[0])


class DecodeState(io.ComfyNode):
    """The pictures of a state, finished or not."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_DecodeState",
            display_name="Decode State",
            category=CATEGORY,
            description="Decodes every sample of a state to a full-size picture. Works after any scale: "
            "an unfinished state shows the sketch so far.",
            search_aliases=["vae decode", "decode", "latent to image", "tts-var", "VAE解码"],
            inputs=[
                State.Input("state", tooltip="A state after any scale."),
                io.Int.Input(
                    "tile_size", default=0, min=0, max=4096, step=8, optional=True, advanced=True,
                    tooltip="Side in pixels of the tiles to decode in, to save memory; the picture changes slightly. "
                    "0 decodes it whole.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="One picture per sample, in the order of the state.")],
        )

    @classmethod
    def execute(cls, state, tile_size=0) -> io.NodeOutput:
        return io.NodeOutput(decoded(state, tile_size, whole=True))


def decoded(state, tile: int = 0, whole: bool = False, foreseen: bool = False):
    """The images (P, H, W, 3) of a state, in the host's place: at the size sampled so far, as they are or foreseen, or whole; in
    tiles of so many pixels."""
    from ..ttsvar_core.decoding import decode, sketch
    from ..ttsvar_core.footprint import showing_bytes

    page.check_interrupt()
    device.load_tokenizer(state.model, showing_bytes(state, tile, whole))
    return device.to_image(decode(state, tile) if whole else sketch(state, tile, foreseen))


def glimpse(state):
    """The images of a state for people: what they are foretold to become where that can be told at once."""
    return decoded(state, foreseen=state.cache is not None)


NODES = [StartState, ScaleStepSampler, DecodeState]
