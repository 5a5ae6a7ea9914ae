"""A reward over a vision-language model that ComfyUI itself has loaded."""

from functools import partial

from comfy_api.latest import io

from .host import hosted
from .types import CATEGORY, Reward, mean

WHOLE = {"GenEval 2": "geneval2", "VQAScore": "vqascore"}


class VisionLanguageReward(io.ComfyNode):
    """A vision-language model of ComfyUI's own, asked yes or no."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_VisionLanguageReward",
            display_name="Vision-Language Reward",
            category=f"{CATEGORY}/load",
            description="Asks a vision-language model whether a picture shows the prompt: the score is the probability that the "
            "answer begins with yes and not no. Takes any model from Load CLIP that Generate Text takes together with an image.",
            search_aliases=["vqascore", "geneval 2", "soft-tifa", "qwen3-vl", "gemma", "yes or no", "tts-var", "视觉语言模型"],
            inputs=[
                io.Clip.Input("clip", tooltip="From Load CLIP: Qwen3-VL, Qwen3.5, Gemma 3 or Gemma 4 with their vision part."),
                io.Combo.Input(
                    "template", options=list(WHOLE), default="GenEval 2",
                    tooltip="How the whole prompt is asked: in the words of GenEval 2 or of VQAScore.",
                ),
                io.Boolean.Input(
                    "parts", default=False,
                    tooltip="Ask about each object, number, colour and place of a prompt like GenEval's by itself (Soft-TIFA); "
                    "other prompts are asked whole.",
                ),
                io.String.Input(
                    "questions", multiline=True, default="",
                    tooltip="Questions of your own in place of the prompt, one per line, to which yes is the answer that you want; "
                    "or one line with {} where the prompt goes.",
                ),
                mean(),
            ],
            outputs=[Reward.Output("reward", tooltip="For Reward Scorer, Score Images, Blend Rewards or TTS-VAR Generate.")],
        )

    @classmethod
    def execute(cls, clip, template, parts, questions, mean) -> io.NodeOutput:
        from ..ttsvar_core.rewards.asking import AskedReward
        from ..ttsvar_core.rewards.questions import TEMPLATES, own_words
        from . import host_language

        name = f"yes-no ({host_language.name_of(clip)})"
        asked = {"template": TEMPLATES[WHOLE[template]], **own_words(questions)}
        reward = AskedReward(partial(host_language.answer, clip), name, parts=parts, mean=mean, **asked)
        return io.NodeOutput(hosted.Hosted(reward, ()))


NODES = [VisionLanguageReward]
