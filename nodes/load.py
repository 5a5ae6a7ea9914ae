"""Loaders of the image model and the text encoder, and the prompt."""

from comfy_api.latest import io

from ..ttsvar_core.names import BUNDLED
from .host import device, folders, hosted
from .types import CATEGORY, Conditioning, Model, Reward, TextEncoder, negative, precision, prompt


class InfinityLoader(io.ComfyNode):
    """An Infinity transformer with the tokenizer that belongs to it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_InfinityLoader",
            display_name="Infinity Loader",
            category=f"{CATEGORY}/load",
            description="Loads an Infinity image model: a transformer and the tokenizer (VAE) that belongs to it. "
            "The bundled 128x128 model needs no download.",
            search_aliases=["infinity", "var model", "load model", "next-scale", "autoregressive", "tts-var", "加载模型"],
            inputs=[
                io.Combo.Input(
                    "transformer", options=[folders.BUNDLED, *folders.choices("infinity")], default=folders.BUNDLED,
                    tooltip="Transformer file from models/infinity, for example infinity_2b_reg.pth, or the small bundled model.",
                ),
                io.Combo.Input(
                    "tokenizer", options=[folders.BUNDLED, *folders.choices("vae")], default=folders.BUNDLED,
                    tooltip="Tokenizer file from models/vae. Infinity-2B needs infinity_vae_d32reg.pth (not d32), "
                    "Infinity-8B needs infinity_vae_d56_f8_14_patchify.pth.",
                ),
                precision(
                    "Number type of the transformer: auto takes bfloat16, or else float16, on a graphics card that computes in "
                    "it, else float32. On a graphics card the tokenizer decodes in it, too. float8 stores the blocks' weights in "
                    "one byte per number and computes as auto does: for small cards, with slightly different pictures.",
                    hosted.FLOAT8,
                ),
                io.Boolean.Input(
                    "compile", default=False, optional=True, advanced=True,
                    tooltip="Compile the transformer's blocks (torch.compile). The first pictures wait a minute or more for the "
                    "compiler, the later ones are the same as without to rounding. On a processor it gains nothing. Needs a C++ "
                    "compiler, on a graphics card Triton.",
                ),
            ],
            outputs=[Model.Output("model", tooltip="The image model, for Start State or TTS-VAR Generate.")],
        )

    @classmethod
    def execute(cls, transformer, tokenizer, precision, compile=False) -> io.NodeOutput:
        return io.NodeOutput(load(transformer, tokenizer, precision, compile))


def load(
    transformer: str = folders.BUNDLED, tokenizer: str = folders.BUNDLED, precision: str = "auto", compiled: bool = False
) -> hosted.HostedModel:
    """The model of two names as the loader offers them. Raises ValueError if only one of them is the bundled one, and for float8
    where the device has none."""
    from ..ttsvar_core.quantize import check_float8

    if precision == hosted.FLOAT8:
        check_float8(hosted.torch_device())
    if (transformer == folders.BUNDLED) != (tokenizer == folders.BUNDLED):
        raise ValueError(
            f"The transformer is {transformer!r} and the tokenizer {tokenizer!r}, but the bundled ones only fit each other. "
            "Choose both bundled, or a file for both."
        )
    if transformer == folders.BUNDLED:
        paths = folders.bundled(f"{BUNDLED}.transformer.safetensors"), folders.bundled(f"{BUNDLED}.vae.safetensors")
    else:
        paths = folders.find("infinity", transformer), folders.find("vae", tokenizer)
    return hosted.load_image_model(*paths, precision, compiled)


class TextEncoderLoader(io.ComfyNode):
    """The T5 text encoder an Infinity model reads prompts with."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_TextEncoderLoader",
            display_name="Text Encoder Loader (T5)",
            category=f"{CATEGORY}/load",
            description="Loads the T5 text encoder of an Infinity model. Infinity 2B and 8B use flan-t5-xl.",
            search_aliases=["t5", "flan-t5-xl", "clip loader", "text encoder", "tts-var", "加载CLIP"],
            inputs=[
                io.Combo.Input(
                    "encoder", options=[folders.BUNDLED, *folders.choices("text_encoders")], default=folders.BUNDLED,
                    tooltip="A T5 from models/text_encoders: a Hugging Face folder, or one .safetensors file with its "
                    "tokenizer.json or spiece.model beside it. The bundled encoder belongs to the bundled model.",
                ),
                precision(
                    "Number type of the text encoder: auto takes float16 on a graphics card that computes in it, as published."
                ),
            ],
            outputs=[TextEncoder.Output("text_encoder", tooltip="The text encoder, for Prompt Encode.")],
        )

    @classmethod
    def execute(cls, encoder, precision) -> io.NodeOutput:
        return io.NodeOutput(load_encoder(encoder, precision))


def load_encoder(encoder: str = folders.BUNDLED, precision: str = "auto") -> hosted.Hosted:
    """The text encoder of a name as the loader offers it."""
    from ..ttsvar_core.infinity.text import load_text_encoder

    path = folders.bundled(f"{BUNDLED}.t5") if encoder == folders.BUNDLED else folders.whole(folders.find("text_encoders", encoder))
    loaded = load_text_encoder(path, dtype=hosted.precision(precision, hosted.TEXT_PRECISIONS))
    return hosted.host(loaded, [loaded.model], text=True)


class PromptEncode(io.ComfyNode):
    """A prompt as the image model reads it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_PromptEncode",
            display_name="Prompt Encode (Infinity)",
            category=f"{CATEGORY}/load",
            description="Turns a prompt, and if you like a negative one, into what the image model reads.",
            search_aliases=["clip text encode", "prompt", "conditioning", "negative prompt", "tts-var", "提示词"],
            inputs=[
                TextEncoder.Input("text_encoder", tooltip="From Text Encoder Loader."),
                prompt("text"),
                negative(),
                Reward.Input(
                    "reward", optional=True,
                    tooltip="Wire it if the reward judges certain prompts only, as the scene verifier does: any other prompt is "
                    "refused here, before anything is sampled. With the wire, another reward means sampling anew.",
                ),
            ],
            outputs=[Conditioning.Output("conditioning", tooltip="The encoded prompt, for Start State.")],
        )

    @classmethod
    def execute(cls, text_encoder, text, negative, reward=None) -> io.NodeOutput:
        from ..ttsvar_core.rewards.base import check_prompt

        check_prompt(reward, text)
        return io.NodeOutput(encode(text_encoder, text, negative))


def encode(text_encoder: hosted.Hosted, text: str, negative: str):
    """The conditioning of a prompt and a negative prompt."""
    from ..ttsvar_core.infinity.text import encode_prompt

    with device.running(text_encoder):
        return encode_prompt(text_encoder, text, negative)


NODES = [InfinityLoader, TextEncoderLoader, PromptEncode]
