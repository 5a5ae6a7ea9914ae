"""Text in the picture."""

import sys

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from ttsvar_core import registry
from ttsvar_core.rewards.words import WordsReward, load_words, quoted
from ttsvar_core.testing import RewardTests


def drawn(text):
    """(1, 96, 320, 3) black letters on white."""
    picture = Image.new("RGB", (320, 96), "white")
    ImageDraw.Draw(picture).text((24, 24), text, fill="black", font=ImageFont.load_default(size=40))
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 96, 320, 3) / 255


def reward(*lines):
    return WordsReward(lambda picture: list(lines))


@pytest.mark.parametrize(
    ("lines", "share"),
    [(["OPEN"], 1), (["We are", "open daily"], 1), (["OP", "EN"], 1), (["OPFN"], 0.75), (["PEN"], 0.75), ([], 0), (["xyz"], 0)],
)
def test_nearness_to_the_words_asked_for(lines, share):
    assert reward(*lines).score(torch.zeros(1, 8, 8, 3), 'a sign that says "Open"').tolist() == [share]


def test_what_is_asked_for():
    assert quoted("a sign “OPEN 24 h” beside 'Bar', it's Tom's «café»") == ["open24h", "bar", "café"]
    assert reward("open").score(torch.zeros(1, 8, 8, 3), '"open" and "shut"').tolist() == [0.5]
    with pytest.raises(ValueError, match="in quotation marks"):
        reward().check_prompt("a cat's tail")


def test_without_the_reader_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ImportError, match="pip install rapidocr-onnxruntime"):
        load_words()


class TestWords(RewardTests):
    prompt = 'a sign that says "OPEN"'

    def reward(self):
        return WordsReward(lambda picture: ["OPEN"[: int(picture.mean()) % 5]])


class TestReader(RewardTests):
    """The real reader, where it is installed."""

    prompt = 'a sign that says "OPEN"'

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _reader(cls):
        pytest.importorskip("rapidocr_onnxruntime")
        cls.loaded = registry.REWARDS["ocr"].load()

    def reward(self):
        return self.loaded

    def test_it_finds_the_word_that_is_drawn(self):
        scores = self.loaded.score(torch.cat([drawn("CLOSED"), drawn("OPEN"), torch.ones(1, 96, 320, 3)]), self.prompt)
        assert scores[1] == 1 and scores[0] < 0.8 and scores[2] == 0
