"""Yes or no: several families of vision-language models against a plain forward pass of transformers, and what it costs."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
import vision_language
from PIL import Image

from ttsvar_core import registry
from ttsvar_core.reading import MissingFile, UnusableFile
from ttsvar_core.rewards.questions import TEMPLATES, own_words, questions_of
from ttsvar_core.rewards.yes_no import load_yes_no
from ttsvar_core.testing import SIZES, pictures

PROMPT, SCENE = "a red circle", "a photo of two red circles above a dog"
FAMILIES = vision_language.available()
SEES_ONCE = vision_language.RECENT
"""Before transformers 5 no family takes what it saw, so each question costs a whole pass."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: vision_language.save(name, tmp_path_factory.mktemp("judges") / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def rewards(folders):
    return {name: load_yes_no(folder) for name, folder in folders.items()}


def plain(folder, images, question):
    """(B,) yes against no by transformers alone: pictures as Pillow opens them, all logits, a softmax over all words."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    text = "<image>" + question
    if processor.chat_template:
        text = processor.apply_chat_template([turn], add_generation_prompt=True)
    opened = [Image.fromarray((image * 255).round().byte().numpy()) for image in images]
    inputs = processor(text=[text] * len(images), images=[[one] for one in opened], padding=True, return_tensors="pt")
    inputs.pop("labels", None)
    with torch.no_grad():
        shares = model(**inputs).logits[:, -1].softmax(dim=-1)
    yes, no = (
        shares[:, [processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in words]].sum(dim=1)
        for words in (("Yes", " Yes", "yes", " yes"), ("No", " No", "no", " no"))
    )
    return yes / (yes + no)


def test_at_least_four_families_are_tried():
    assert len(FAMILIES) >= 4


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_of_a_plain_forward_pass(folders, rewards, name, template):
    images = pictures(3)
    ours = replace(rewards[name], template=TEMPLATES[template]).score(images, PROMPT)
    assert (ours - plain(folders[name], images, TEMPLATES[template].format(PROMPT))).abs().max() <= 1e-5
    assert len(set(ours.tolist())) == 3 and ours.dtype == torch.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_a_score_depends_on_neither_batch_nor_the_other_questions(rewards, name):
    reward, images = replace(rewards[name], parts=True), pictures(5)
    answers = reward.explain(images, SCENE)
    alone = torch.cat([reward.explain(images[row : row + 1], SCENE).values for row in range(5)])
    assert (answers.values - alone).abs().max() <= 1e-5
    for column, question in enumerate(questions_of(SCENE)):
        single = replace(reward, questions=(question,)).score(images, SCENE)
        assert (answers.values[:, column] - single).abs().max() <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_every_size(rewards, name):
    for size in SIZES:
        assert rewards[name].score(pictures(2, *size), PROMPT).isfinite().all()


def counted(reward, images, prompt):
    """How often a batch passed the model, the rows of each pass, and how often it passed what sees."""
    passes, looks = [], []
    tower = next(m for n, m in reward.model.named_modules() if n.endswith(("vision_tower", "vision_model", "visual")))
    hooks = [
        reward.model.register_forward_pre_hook(lambda _, __, options: passes.append(len(options["input_ids"])), with_kwargs=True),
        tower.register_forward_pre_hook(lambda *_: looks.append(1)),
    ]
    reward.score(images, prompt)
    for hook in hooks:
        hook.remove()
    return passes, len(looks)


@pytest.mark.parametrize("name", FAMILIES)
def test_eight_pictures_are_one_pass_and_are_seen_once_for_all_questions(rewards, name):
    assert counted(rewards[name], pictures(8), PROMPT) == ([8], 1)
    assert counted(replace(rewards[name], chunk=3), pictures(8), PROMPT) == ([3, 3, 2], 3)
    assert counted(replace(rewards[name], parts=True), pictures(8), SCENE) == ([8] * 4, 1 if SEES_ONCE else 4)


def test_pictures_are_prepared_once_for_all_questions(rewards, monkeypatch):
    reward, prepared = replace(rewards["llava"], parts=True), []
    kind = type(reward.processor.image_processor)
    usual = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda self, *args, **options: prepared.append(1) or usual(self, *args, **options))
    reward.score(pictures(2), SCENE)
    assert len(prepared) == 1


def test_half_precision(folders, rewards):
    images = pictures(3)
    half = load_yes_no(folders["llava"], dtype=torch.bfloat16)
    assert next(half.model.parameters()).dtype == torch.bfloat16
    scores = half.score(images, PROMPT)
    assert scores.dtype == torch.float32 and (scores - rewards["llava"].score(images, PROMPT)).abs().max() <= 0.02


def test_means_questions_and_templates(rewards):
    images, reward = pictures(2), replace(rewards["llava"], questions=("Is there a cat?", "Is it red?"))
    answers = reward.explain(images, "ignored")
    assert answers.questions == ("Is there a cat? Answer in one word.", "Is it red? Answer in one word.")
    assert torch.allclose(reward.score(images, ""), answers.values.prod(dim=1).sqrt())
    assert torch.allclose(replace(reward, mean="arithmetic").score(images, ""), answers.values.mean(dim=1))
    assert replace(rewards["llava"], template="{}?").asked("a {} cat") == ("a {} cat?",)
    for wrong in ({"template": "no place"}, {"template": "{} {}"}, {"mean": "median"}):
        with pytest.raises(ValueError, match=r"a template holds|no mean"):
            replace(reward, **wrong)


def test_a_user_asks_in_words_of_ones_own(folders):
    assert own_words(" \n") == {}
    one = load_yes_no(folders["llava"], **own_words("  Is it red?\n\nIs there a cat? "))
    assert one.asked("x") == ("Is it red? Answer in one word.", "Is there a cat? Answer in one word.")
    assert load_yes_no(folders["llava"], "vqascore", **own_words("")).asked("x") == (TEMPLATES["vqascore"].replace("{}", "x"),)
    loaded = registry.REWARDS["yes-no-vqascore"].load(str(folders["llava"]), **own_words("Does it show {}?"))
    assert loaded.asked("a cat") == ("Does it show a cat?",)
    for wrong in ("{} or {}?", "{}?\n{}!", "{}?\nIs it red?"):
        with pytest.raises(ValueError, match=r"template"):
            load_yes_no(folders["llava"], **own_words(wrong))
    assert [entry.key for entry in registry.REWARDS.values() if entry.asks] == ["yes-no", "yes-no-vqascore", "yes-no-parts"]


def test_marks_of_the_model_in_a_prompt_are_left_out(rewards):
    images = pictures(1)
    asked = [rewards["llava"].score(images, f"a{mark}cat") for mark in (" ", "<image>", "<eos>")]
    assert asked[0] == asked[1] == asked[2]


def test_the_registry_loads_all_three(folders):
    whole, figure, parts = (
        registry.load(registry.REWARDS, f"{key}={folders['llava']}", "cpu") for key in ("yes-no", "YES-NO-VQAScore", "yes-no-parts")
    )
    assert (whole.parts, parts.parts) == (False, True) and "figure" in figure.asked("x")[0] and whole.name == "yes-no (llava)"
    assert len({whole.name, figure.name, parts.name}) == 3


@pytest.mark.parametrize(
    ("prompt", "questions"),
    [
        ("a photo of a bench", ["Is there a bench in this image?"]),
        ("A photo of two clocks.", ["Are there exactly two clocks in this image?"]),
        ("a photo of an orange", ["Is there an orange in this image?"]),
        ("a red car", ["Is there a car in this image?", "Is the car red?"]),
        ("a photo of a purple wine glass and a black apple",
         ["Is there a wine glass in this image?", "Is the wine glass purple?", "Is there an apple in this image?",
          "Is the apple black?"]),
        ("a photo of a dog right of a teddy bear",
         ["Is there a dog in this image?", "Is there a teddy bear in this image?", "Is the dog right of the teddy bear?"]),
        (SCENE, ["Are there exactly two circles in this image?", "Are the circles red?", "Is there a dog in this image?",
                 "Are the red circles above the dog?"]),
        ("a cat, a dog, and three birds",
         ["Is there a cat in this image?", "Is there a dog in this image?", "Are there exactly three birds in this image?"]),
        ("", []), ("sunset over the sea, masterpiece", []), ("a cat and a dog above a bird", []),
        ("a man who walks his very old dog home", []),
    ],
)  # fmt: skip
def test_questions_of_prompts_like_genevals(prompt, questions):
    assert list(questions_of(prompt)) == questions


def edited(folder, target, **changes):
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "t5"}, "a t5 model"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoProcessor": "code.Own"}}, "own.*never run"),
        ({"model_type": None}, "a None model"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised; take the original"),
        ({"text_config": {"num_hidden_layers": 10**7}}, "more than 128 layers"),
        ({"is_encoder_decoder": True}, "an encoder with a decoder"),
        ({"vision_config": {"model_type": "clip_vision_model", "hidden_size": 2**14}}, "sizes|cannot be read"),
    ],
)  # fmt: skip
def test_a_folder_of_another_model_says_what_it_is(folders, tmp_path, changes, words):
    folder = edited(folders["llava"], tmp_path / "other", **changes)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UnusableFile, match=words) as error:
        load_yes_no(folder)
    said = str(error.value)
    assert "\n" not in said and "Qwen3-VL-4B-Instruct" in said and "models/reward_models" in said
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_known_model_is_never_run(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    own = {"AutoConfig": "code.Own", "AutoModelForImageTextToText": "code.Own", "AutoTokenizer": ["code.Own", None],
           "AutoProcessor": "code.Own", "AutoImageProcessor": "code.Own"}  # fmt: skip
    folder = edited(folders["llava"], tmp_path / "own", auto_map=own)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for file in (*folder.glob("*processor_config.json"), folder / "tokenizer_config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": own}))
    assert load_yes_no(folder).score(pictures(1), PROMPT).isfinite().all()
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_its_processor_and_a_broken_chat_template(folders, tmp_path):
    bare = edited(folders["llava"], tmp_path / "bare")
    for file in bare.glob("*processor_config.json"):
        file.unlink()
    with pytest.raises(UnusableFile, match=r"processor.*Qwen3-VL"):
        load_yes_no(bare)
    odd = edited(folders["llava"], tmp_path / "odd")
    (template,) = odd.glob("chat_template.*")
    text = "{% for message in %}"
    template.write_text(text if template.suffix == ".jinja" else json.dumps({"chat_template": text}))
    with pytest.raises(UnusableFile, match=r"odd.*Qwen3-VL"):
        load_yes_no(odd)


def test_files_missing_cut_and_strange(folders, tmp_path):
    with pytest.raises(MissingFile, match=r"does not exist.*Qwen3-VL"):
        load_yes_no(tmp_path / "gone")
    with pytest.raises(UnusableFile, match=r"is a file; .*whole folder.*Qwen3-VL"):
        load_yes_no(folders["llava"] / "model.safetensors")
    with pytest.raises(UnusableFile, match=r"has no config\.json.*Qwen3-VL"):
        load_yes_no(tmp_path)
    cut = edited(folders["llava"], tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UnusableFile, match=r"model\.safetensors.*Qwen3-VL"):
        load_yes_no(cut)
    pipe = edited(folders["llava"], tmp_path / "pipe")
    (pipe / "tokenizer.json").unlink()
    os.mkfifo(pipe / "tokenizer.json")
    with pytest.raises(UnusableFile, match=r"tokenizer\.json is not a regular file"):
        load_yes_no(pipe)
