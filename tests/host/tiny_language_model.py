"""Nodes for the tests, put into the host's custom_nodes: a vision-language model of random weights built of the host's own classes,
and what it answers by a plain forward pass of it."""

import json

import comfy.sd
import torch
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import qwen3vl

NAME = "qwen3vl_tiny"
TEXT = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 128,
}  # fmt: skip
VISION = {"hidden_size": 64, "intermediate_size": 128, "depth": 3, "deepstack_visual_indexes": [0, 1, 2], "num_heads": 4}


def tiny_clip() -> comfy.sd.CLIP:
    """A small Qwen3-VL."""
    qwen3vl.QWEN3VL_VISION[NAME], qwen3vl.QWEN3VL_CONFIGS[NAME] = VISION, qwen3vl.Qwen3VL_4BConfig
    target = ClipTarget(qwen3vl.tokenizer(NAME), qwen3vl.te(model_type=NAME))
    clip = comfy.sd.CLIP(target, model_options={f"{NAME}_model_config": TEXT, "dtype": torch.float32})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in clip.cond_stage_model.named_parameters():
            value.normal_(std=0.3 if "embed" in name else value[0].numel() ** -0.5 if value.ndim > 1 else 0.1, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.add_(1)
    return clip


def plainly(clip: comfy.sd.CLIP, picture: torch.Tensor, question: str) -> float:
    """The probability of yes against no, from one forward pass of the model without its generation."""
    model = clip.cond_stage_model.qwen3vl_tiny
    tokens = [[token[0] for token in row] for row in clip.tokenize(question, image=picture, min_length=1)[NAME]]
    embeds, _, _, info = model.process_tokens(tokens, "cpu")
    out = model.transformer(None, embeds=embeds.float(), embeds_info=info, dtype=torch.float32)[0]
    logits = torch.nn.functional.linear(out[:, -1], model.transformer.model.embed_tokens.weight.float())[0]
    encode = getattr(clip.tokenizer, NAME).tokenizer.encode
    yes, no = ([encode(spelling)[0] for spelling in (word, word.lower(), f" {word}", f" {word.lower()}")] for word in ("Yes", "No"))
    return float(torch.sigmoid(logits[yes].logsumexp(0) - logits[no].logsumexp(0)))


class TinyVisionLanguage:
    """Takes the place of Load CLIP."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("CLIP",), "load", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        return (tiny_clip(),)


class PlainAnswers:
    """What the model answers to one question about every picture."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "answer", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), "images": ("IMAGE",), "question": ("STRING", {"default": ""})}}

    def answer(self, clip, images, question):
        return (json.dumps([plainly(clip, picture, question) for picture in images.split(1)]),)


NODE_CLASS_MAPPINGS = {"TinyVisionLanguage": TinyVisionLanguage, "PlainAnswers": PlainAnswers}
