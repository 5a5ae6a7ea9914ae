"""Tiny random vision-language models of several families, built from their configurations and saved as folders."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import PreTrainedTokenizerFast
from transformers.utils import is_torchvision_available

SIDE, PATCH, WIDTH = 32, 8, 32
MARKS = {
    "image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>", "start_image_token": "<img>", "end_image_token": "</img>",
    "context_image_token": "<ctx>", "video_token": "<video>", "vision_start": "<vs>", "vision_end": "<ve>",
}  # fmt: skip
CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
VISION = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = VISION | {"num_key_value_heads": 1, "max_position_embeddings": 1024, "head_dim": 16, "tie_word_embeddings": False}


RECENT = hasattr(transformers, "TokenizersBackend")
OLD_TOKENIZERS = {"paligemma": "GemmaTokenizerFast", "qwen2_5_vl": "Qwen2TokenizerFast"}
"""What processors before transformers 5 insist on."""


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Byte pairs of a few sentences, with the marks of all families."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>", "<unk>", *MARKS.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(["Does this image show a red circle? Answer with Yes or No, yes or no. Yes No yes no."] * 9, trainer)
    extra = {key: mark for key, mark in MARKS.items() if key.endswith("token")}
    kind = PreTrainedTokenizerFast if RECENT else getattr(transformers, OLD_TOKENIZERS.get(family, "PreTrainedTokenizerFast"))
    return kind(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=extra, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def image_processor(name: str, **settings):
    """The family's own, that which needs no torchvision."""
    for candidate in (f"{name}Pil", name):
        if hasattr(transformers, candidate):
            return getattr(transformers, candidate)(**settings)
    raise AttributeError(name)


def idefics3(tokens, ids):
    size = {"longest_edge": SIDE}
    processor = transformers.Idefics3Processor(
        image_processor("Idefics3ImageProcessor", size=size, max_image_size=size, do_image_splitting=False), tokens, image_seq_len=4
    )
    vision = VISION | {"image_size": SIDE, "patch_size": PATCH}
    config = transformers.Idefics3Config(
        vision_config=vision, text_config=TEXT | {"model_type": "llama", "vocab_size": ids["size"] + 8, "pad_token_id": 0},
        scale_factor=2, image_token_id=ids["<image>"], pad_token_id=0,
    )  # fmt: skip
    return transformers.Idefics3ForConditionalGeneration(config), processor, "<image>"


def llava(tokens, ids):
    processor = transformers.LlavaProcessor(
        image_processor("CLIPImageProcessor", size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}), tokens,
        patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    vision = VISION | {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH, "projection_dim": WIDTH}
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=TEXT | {"model_type": "llama", "vocab_size": ids["size"]},
        image_token_id=ids["<image>"], image_token_index=ids["<image>"], image_seq_length=16,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config), processor, "<image>"


def gemma3(tokens, ids):
    processor = transformers.Gemma3Processor(
        image_processor("Gemma3ImageProcessor", size={"height": SIDE, "width": SIDE}), tokens, image_seq_length=4
    )
    vision = VISION | {"model_type": "siglip_vision_model", "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False}
    text = TEXT | {"vocab_size": ids["size"], "sliding_window": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6}
    marks = {"boi_token_index": "<boi>", "eoi_token_index": "<eoi>", "image_token_index": "<image>", "image_token_id": "<image>"}
    config = transformers.Gemma3Config(
        vision_config=vision, text_config=text, mm_tokens_per_image=4, **{key: ids[mark] for key, mark in marks.items()}
    )
    return transformers.Gemma3ForConditionalGeneration(config), processor, "<boi>"


def paligemma(tokens, ids):
    processor = transformers.PaliGemmaProcessor(
        image_processor("SiglipImageProcessor", size={"height": SIDE, "width": SIDE}, image_seq_length=16), tokens
    )
    vision = VISION | {"model_type": "siglip_vision_model", "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False}
    size = len(tokens)
    config = transformers.PaliGemmaConfig(
        vision_config=vision | {"projection_dim": WIDTH}, text_config=TEXT | {"model_type": "gemma", "vocab_size": size},
        projection_dim=WIDTH, image_token_index=ids["<image>"], image_token_id=ids["<image>"], vocab_size=size,
    )  # fmt: skip
    return transformers.PaliGemmaForConditionalGeneration(config), processor, None


def qwen2_5_vl(tokens, ids):
    settings = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 16 * 16, "max_pixels": 64 * 64}
    parts = [image_processor("Qwen2VLImageProcessor", **settings), tokens]
    if is_torchvision_available() and hasattr(transformers, "Qwen2VLVideoProcessor"):
        parts.append(transformers.Qwen2VLVideoProcessor())
    vision = {
        "depth": 2, "hidden_size": WIDTH, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH, "patch_size": PATCH,
        "temporal_patch_size": 2, "spatial_merge_size": 2, "fullatt_block_indexes": [1], "window_size": 32,
    }  # fmt: skip
    rope = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    marks = {"image": "<image>", "video": "<video>", "vision_start": "<vs>", "vision_end": "<ve>"}
    text = TEXT | {"vocab_size": ids["size"], "rope_scaling": rope, "hidden_act": "silu"}
    numbers = {f"{key}_token_id": ids[mark] for key, mark in marks.items()}
    if hasattr(transformers, "Qwen2_5_VLTextConfig"):
        config = transformers.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **numbers)
    else:
        config = transformers.Qwen2_5_VLConfig(vision_config=vision, **text, **numbers)
    return transformers.Qwen2_5_VLForConditionalGeneration(config), transformers.Qwen2_5_VLProcessor(*parts), "<vs><image><ve>"


def qwen3_vl(tokens, ids):
    settings = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 16 * 16, "max_pixels": 64 * 64}
    parts = image_processor("Qwen2VLImageProcessor", **settings), tokens, transformers.Qwen3VLVideoProcessor()
    vision = {
        "depth": 2, "hidden_size": WIDTH, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH, "patch_size": PATCH,
        "temporal_patch_size": 2, "spatial_merge_size": 2, "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0, "mrope_interleaved": True}
    marks = {"image": "<image>", "video": "<video>", "vision_start": "<vs>", "vision_end": "<ve>"}
    text = TEXT | {"vocab_size": ids["size"], "rope_parameters": rope, "hidden_act": "silu"}
    numbers = {f"{key}_token_id": ids[mark] for key, mark in marks.items()}
    config = transformers.Qwen3VLConfig(vision_config=vision, text_config=text, **numbers)
    return transformers.Qwen3VLForConditionalGeneration(config), transformers.Qwen3VLProcessor(*parts), "<vs><image><ve>"


def llava_onevision(tokens, ids):
    size = {"height": SIDE, "width": SIDE}
    grids = [[SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    processor = transformers.LlavaOnevisionProcessor(
        image_processor("LlavaOnevisionImageProcessor", size=size, image_grid_pinpoints=grids), tokens,
        transformers.LlavaOnevisionVideoProcessor(), num_image_tokens=16, vision_feature_select_strategy="full",
    )  # fmt: skip
    vision = VISION | {"model_type": "siglip_vision_model", "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False}
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision, text_config=TEXT | {"model_type": "qwen2", "vocab_size": ids["size"]}, image_token_id=ids["<image>"],
        video_token_id=ids["<video>"], image_grid_pinpoints=grids, vision_feature_layer=-1,
    )  # fmt: skip
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor, "<image>"


def internvl(tokens, ids):
    processor = transformers.InternVLProcessor(
        image_processor("GotOcr2ImageProcessor", size={"height": SIDE, "width": SIDE}, crop_to_patches=False), tokens,
        transformers.InternVLVideoProcessor(), image_seq_length=4,
    )  # fmt: skip
    config = transformers.InternVLConfig(
        vision_config=VISION | {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]},
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": ids["size"]}, image_token_id=ids["<ctx>"], downsample_ratio=0.5,
    )  # fmt: skip
    return transformers.InternVLForConditionalGeneration(config), processor, "<ctx>"


FAMILIES = {
    make.__name__: make for make in (idefics3, llava, gemma3, paligemma, qwen2_5_vl, qwen3_vl, llava_onevision, internvl)
}
NEED_TORCHVISION = {"qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"}
LATER = {"qwen3_vl", "llava_onevision", "internvl"}
"""Families that the lowest transformers declared does not have, or keeps in other classes."""


def available() -> list[str]:
    """Families that the installed transformers has, and whose processors load here."""
    left_out = LATER if not RECENT else set() if is_torchvision_available() else NEED_TORCHVISION
    return [name for name in FAMILIES if name not in left_out]


def save(name: str, folder: Path) -> Path:
    """The model of a family with its processor, random weights large enough that answers differ."""
    torch.manual_seed(0)
    tokens = tokenizer(name)
    ids = tokens.get_vocab() | {"size": len(tokens)}
    model, processor, image = FAMILIES[name](tokens, ids)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2) if weight.ndim > 1 else None
    if image:
        processor.chat_template = CHAT.replace("IMAGE", image)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
