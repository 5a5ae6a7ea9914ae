"""A reader of text as the judge of a real run: it finds the picture with the word among those without."""

from __future__ import annotations

import subprocess

import pytest
from PIL import Image, ImageDraw, ImageFont

WORDS = ("a plain wall", "OPEN", "CLOSED", "OPFN")
PROMPT = 'a shop window with a sign that says "OPEN"'


@pytest.fixture(scope="module")
def reader(server):
    """Skip where the host's Python has no reader."""
    found = subprocess.run([str(server.python), "-c", "import rapidocr_onnxruntime"], capture_output=True, timeout=120)
    if found.returncode:
        pytest.skip("the extra ocr is not installed in ComfyUI's Python (pip install rapidocr-onnxruntime)")


def draw(text: str, path) -> None:
    """A sign on a coloured wall, or the wall alone."""
    picture = Image.new("RGB", (320, 200), (150, 120, 90))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((220, 120, 300, 190), fill=(60, 120, 60))
    if text.isupper():
        pen.rectangle((30, 40, 250, 110), fill=(240, 236, 220))
        pen.text((45, 48), text, fill=(30, 30, 60), font=ImageFont.load_default(48))
    picture.save(path)


def test_the_picture_with_the_word_comes_first(server, reader):
    prompt = {"9": {"class_type": "TTSVAR_RewardLoader", "inputs": {
        "reward": "text in the picture (OCR)", "file": "auto", "head_file": "auto", "precision": "auto"}}}  # fmt: skip
    for place, word in enumerate(WORDS):
        draw(word, server.base / "input" / f"sign_{place}.png")
        prompt[f"1{place}"] = {"class_type": "LoadImage", "inputs": {"image": f"sign_{place}.png"}}
    last = "10"
    for place in range(1, len(WORDS)):
        prompt[f"2{place}"] = {"class_type": "ImageBatch", "inputs": {"image1": [last, 0], "image2": [f"1{place}", 0]}}
        last = f"2{place}"
    scoring = {"images": [last, 0], "reward": ["9", 0], "prompt": PROMPT, "sort": False}
    prompt["30"] = {"class_type": "TTSVAR_ScoreImages", "inputs": scoring}
    prompt["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["30", 1]}}
    prompt["32"] = {"class_type": "PreviewAny", "inputs": {"source": ["30", 2]}}
    done = server.run(prompt)
    scores = dict(zip(WORDS, map(float, done["outputs"]["31"]["text"]), strict=True))
    assert scores["OPEN"] == 1.0 and scores["a plain wall"] == 0.0
    assert scores["a plain wall"] < scores["CLOSED"] < scores["OPFN"] < scores["OPEN"]
    assert done["outputs"]["32"]["text"][0].splitlines()[1].startswith("1. image 1")
