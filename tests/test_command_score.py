"""``python -m ttsvar_core score``."""

import json

import numpy
import pytest
import torch
import vision_language
from PIL import Image

from lab.training.scenes import sample_scenes
from ttsvar_core import cli
from ttsvar_core.rewards import Blend
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.rewards.yes_no import load_yes_no
from ttsvar_core.scenes.grammar import parse_prompt
from ttsvar_core.scenes.render import render
from ttsvar_core.testing import pictures

PROMPT = "a photo of a red circle"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return vision_language.save("llava", tmp_path_factory.mktemp("judge") / "llava")


@pytest.fixture
def files(tmp_path):
    """Pictures of two sizes, taking turns."""
    shown = [pictures(1, *size, seed=seed)[0] for seed, size in enumerate([(64, 64), (48, 80), (64, 64)])]
    names = [tmp_path / f"{i}.png" for i in range(3)]
    for name, picture in zip(names, shown, strict=True):
        Image.fromarray((picture * 255).round().byte().numpy()).save(name)
    return list(map(str, names)), [(picture * 255).round() / 255 for picture in shown]


def score(*arguments, out=None):
    assert cli.main(["score", *map(str, arguments)]) == 0
    return json.loads(out.read_text()) if out else None


def test_any_pictures_are_scored_best_first(files, tmp_path, capsys):
    names, shown = files
    told = score(*names, "--prompt", PROMPT, "--reward", "scenes", "--json", tmp_path / "out.json", out=tmp_path / "out.json")
    wanted = {name: float(SceneReward().score(picture[None], PROMPT)) for name, picture in zip(names, shown, strict=True)}
    assert {one["file"]: one["scores"]["scenes"] for one in told["pictures"]} == pytest.approx(wanted)
    scores = [one["scores"]["scenes"] for one in told["pictures"]]
    assert scores == sorted(scores, reverse=True) and told["prompt"] == PROMPT
    printed = capsys.readouterr().out.splitlines()
    assert told["pictures"][0]["file"][-20:] in printed[1] and f"{scores[0]:.4f}" in printed[1] and printed[-1] == "a: scenes"


def test_grey_in_sixteen_bits_is_the_picture_it_was(tmp_path):
    grey = (pictures(1, 64, 64)[0, ..., 0] * 255).round().byte().numpy()
    for name, values in (("eight", grey), ("sixteen", grey.astype(numpy.uint16) * 257)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    names, out = [tmp_path / "eight.png", tmp_path / "sixteen.png"], tmp_path / "out.json"
    told = score(*names, "--prompt", PROMPT, "--reward", "scenes", "--json", out, out=out)
    assert len({one["scores"]["scenes"] for one in told["pictures"]}) == 1


def test_every_question_is_a_column_and_rewards_are_blended(files, judge, tmp_path, capsys):
    (names, shown), out = files, tmp_path / "out.json"
    (tmp_path / "asked.txt").write_text("Is there a cat?\n\nIs it red?\n")
    told = score(
        *names, "--prompt", PROMPT, "--reward", f"yes-no={judge}", "--reward", "scenes", "--questions", tmp_path / "asked.txt",
        "--mean", "arithmetic", "--json", out, out=out,
    )  # fmt: skip
    blend, mean, first, second, scenes = told["pictures"][0]["scores"]
    assert (blend, mean, scenes) == ("yes-no (llava)+scenes (rank)", "yes-no (llava)", "scenes") and "Is it red?" in second
    rows = {one["file"]: one["scores"] for one in told["pictures"]}
    reward = load_yes_no(judge)
    for name, picture in zip(names, shown, strict=True):
        assert rows[name][mean] == pytest.approx((rows[name][first] + rows[name][second]) / 2)
        assert rows[name][scenes] == pytest.approx(float(SceneReward().score(picture[None], PROMPT)))
    from dataclasses import replace

    alone = replace(reward, questions=("Is there a cat?",)).score(shown[1][None], PROMPT)
    assert rows[names[1]][first] == pytest.approx(float(alone), abs=1e-5)
    combined = Blend([reward, SceneReward()], "rank").combine(torch.tensor([[rows[n][c] for n in names] for c in (mean, scenes)]))
    assert [rows[name][blend] for name in names] == pytest.approx(combined.tolist())


def test_a_scene_that_shows_the_prompt_is_first(tmp_path, capsys):
    for prompt in (PROMPT, "a photo of a blue square"):
        (picture,) = render(sample_scenes([parse_prompt(prompt)], numpy.random.default_rng(0)))
        Image.fromarray((picture * 255).round().astype("uint8")).save(tmp_path / f"{prompt.split()[4]}.png")
    score(tmp_path / "blue.png", tmp_path / "red.png", "--prompt", PROMPT, "--reward", "scenes")
    assert "red.png" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.png", "--reward", "scenes"], "gone.png"),
        (["{text}", "--reward", "scenes"], "words.txt cannot be read"),
        (["{picture}", "--reward", "nonsense"], "cannot load 'nonsense'"),
        (["{picture}", "--reward", "scenes", "--template", "{}"], "--template is for rewards that ask"),
        (["{picture}", "--reward", "scenes", "--questions", "{empty}"], "it holds no question. Write one|no question"),
        (["{picture}", "--reward", "scenes", "--prompt", "a cat"], "only judges the bundled model's scenes"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_one_line(files, tmp_path, capsys, arguments, words):
    (tmp_path / "words.txt").write_text("no picture")
    (tmp_path / "empty.txt").write_text("\n")
    known = {"{picture}": files[0][0], "{text}": tmp_path / "words.txt", "{empty}": tmp_path / "empty.txt"}
    given = [str(known.get(word, word)) for word in arguments]
    assert cli.main(["score", "--prompt", PROMPT, *given]) == cli.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and any(part in said for part in words.split("|")), said
