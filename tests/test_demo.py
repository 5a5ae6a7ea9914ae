"""The first command of the README, small: every picture it promises is there."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ttsvar_core.commands import demo
from ttsvar_core.scenes.verify import Judgement


def test_demo_writes_the_pictures_it_names(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PROMPTS", 1)
    said = list(demo.demo("a photo of a red circle", seed=3, out=tmp_path))
    for name in ("picture.png", "search.png", "report.json", "raw-beside-search.png"):
        assert (tmp_path / name).is_file()
        assert any(str(tmp_path / name) in line for line in said)
    assert Image.open(tmp_path / "picture.png").size == (512, 512)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["plan"]["name"] == "budget" and report["plan"]["foreseen"] and report["seed"] == 3
    assert "python quickstart.py comfyui" in said[-1]
    assert f"{demo._this_python()} -m ttsvar_core --help" in said[-1]


def test_the_next_command_is_named_with_the_python_that_can_run_it(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert demo._this_python() == str(Path(".venv", "bin", "python"))


def test_prompt_of_another_world_is_refused_before_anything_is_written(tmp_path, capsys):
    from ttsvar_core.cli import main

    assert main(["demo", "--prompt", "a photo of a cat", "--out", str(tmp_path / "new")]) == 2
    assert "cat" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("correct", "colour"), [(True, demo._RIGHT), (False, demo._WRONG)])
def test_frame_tells_the_verdict(correct, colour):
    answer = demo.Answer("a photo of a red circle", torch.ones(1, 64, 64, 3), Judgement(correct, "why", 0.5, {}))
    sheet = demo.comparison([(answer, answer)])
    assert sheet.getpixel((17, 47)) == colour
