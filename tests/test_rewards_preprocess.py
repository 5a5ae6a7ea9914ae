"""Preprocessing on tensors against Pillow, and prompts to token ids against the tokenizers of transformers."""

import json
import logging

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from ttsvar_core.vision.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, resize
from ttsvar_core.vision.tokens import SHIPPED, bert_tokenizer, clip_tokenizer

PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13
SIZES = [(256, 256), (1024, 1024), (224, 224), (64, 64), (333, 111), (111, 333), (1440, 1120), (720, 1680), (225, 224)]


def picture(kind: str, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 10_000 + width)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "edges":
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    wave = 127 + 127 * np.sin(np.add.outer(np.arange(height) / 9, np.arange(width) / 7))
    return wave[..., None].repeat(3, axis=2).astype(np.uint8)


def with_pillow(image: np.ndarray, size: int, fit: str, filter: str) -> np.ndarray:
    """What the published transforms do, in Pillow, in grey levels."""
    height, width = image.shape[:2]
    sampling = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[filter]
    short, scale = min(height, width), size / max(height, width)
    target = {
        "crop": (int(size * height / short), int(size * width / short)),
        "pad": (round(height * scale), round(width * scale)),
        "stretch": (size, size),
    }[fit]
    scaled = Image.fromarray(image).resize(target[::-1], sampling)
    if fit == "crop":
        left, top = round((target[1] - size) / 2), round((target[0] - size) / 2)
        return np.asarray(scaled.crop((left, top, left + size, top + size)), dtype=np.float32)
    canvas = Image.new("RGB", (size, size))
    canvas.paste(scaled, ((size - target[1]) // 2, (size - target[0]) // 2))
    return np.asarray(canvas, dtype=np.float32)


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("kind", ["noise", "edges", "smooth"])
def test_within_two_grey_levels_of_pillow(kind, fit, filter):
    for height, width in SIZES:
        if height > width and not PILLOW_13:
            continue
        image = picture(kind, height, width)
        ours = Preprocess(224, fit, filter, (0.0,) * 3, (1.0,) * 3)(torch.from_numpy(image)[None].float() / 255)[0]
        difference = np.abs(ours.permute(1, 2, 0).numpy() * 255 - with_pillow(image, 224, fit, filter)).max()
        assert difference <= 2, f"{height}x{width}: {difference}"


def test_normalised_per_channel_and_without_resize_exact():
    images = torch.rand(2, 224, 224, 3)
    wanted = (images - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert torch.allclose(Preprocess(224)(images), wanted.permute(0, 3, 1, 2), atol=1e-6)


def test_input_is_neither_changed_nor_trusted_to_be_in_range():
    images = torch.full((1, 8, 8, 3), 1.5)
    assert Preprocess(8, mean=(0.0,) * 3, std=(1.0,) * 3)(images).max() == 1
    assert images.max() == 1.5


def test_resize_keeps_the_device_type_and_accepts_half():
    out = Preprocess(16)(torch.rand(1, 20, 30, 3, dtype=torch.float16))
    assert out.dtype == torch.float32 and out.shape == (1, 3, 16, 16)
    assert resize(torch.rand(1, 3, 5, 5), 5, 5, "bicubic").shape == (1, 3, 5, 5)


PROMPTS = [
    "a photo of a cat",
    "A Café in São Paulo -- it's 7 o'clock!!  (really)",
    "naïve 日本 façade; e-mail: x@y.z 1234567",
    "two red circles left of the blue square,\nabove\tall",
    "ünïcödé 😀 supercalifragilisticexpialidocious",
    "",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_bert_ids_equal_those_of_transformers(prompt, tmp_path):
    from transformers import BertTokenizerFast

    words = json.loads((SHIPPED / "bert_uncased.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)) + "\n", encoding="utf-8")
    theirs = BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=True)
    assert bert_tokenizer()(prompt).tolist() == [theirs(prompt, truncation=True, max_length=35)["input_ids"]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_clip_ids_equal_those_of_transformers(prompt, tmp_path):
    from transformers import CLIPTokenizerFast

    model = json.loads((SHIPPED / "clip.json").read_text(encoding="utf-8"))["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"])])
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    theirs = CLIPTokenizerFast.from_pretrained(str(tmp_path))
    assert clip_tokenizer()(prompt).tolist() == [theirs(prompt, truncation=True, max_length=77)["input_ids"]]


def test_known_ids():
    assert clip_tokenizer()("a photo of a cat").tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407]]
    assert bert_tokenizer()("a photo of a cat").tolist() == [[101, 1037, 6302, 1997, 1037, 4937, 102]]
    tokenizer = bert_tokenizer().tokenizer
    assert [tokenizer.token_to_id(token) for token in ("[PAD]", "[DEC]", "[ENC]")] == [0, 30522, 30523]
    assert clip_tokenizer()("salt &amp; pepper").tolist() == clip_tokenizer()("salt & pepper").tolist()


@pytest.mark.parametrize(("tokenizer", "length", "end"), [(bert_tokenizer, 35, 102), (clip_tokenizer, 77, 49407)])
def test_long_prompts_are_cut_with_a_warning(tokenizer, length, end, caplog):
    with caplog.at_level(logging.WARNING):
        ids = tokenizer()("cat " * 100)
    assert ids.shape == (1, length) and ids[0, -1] == end
    assert f"reads {length} tokens" in caplog.text
