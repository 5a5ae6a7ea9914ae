"""The reward over a vision-language model that the host built and runs: a small Qwen3-VL of random weights."""

from __future__ import annotations

import json

import pytest

PROMPT = "a photo of a red circle left of a blue square"
WHOLE = f'Does this image show "{PROMPT}"? Answer the question with Yes or No.'


def pictures() -> dict:
    """Nodes of a batch of three pictures, two of them alike, and of the model."""
    colours = {"2": (2, 0xFF8000), "3": (1, 0x1020FF)}
    batches = {
        number: {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": count, "color": colour}}
        for number, (count, colour) in colours.items()
    }
    both = {"class_type": "ImageBatch", "inputs": {"image1": ["2", 0], "image2": ["3", 0]}}
    return {"1": {"class_type": "TinyVisionLanguage", "inputs": {}}, **batches, "4": both}


def judged(clip: list, **asked) -> dict:
    """Nodes that ask, and show scores."""
    inputs = {"template": "GenEval 2", "parts": False, "questions": "", "mean": "geometric", **asked}
    scored = {"images": ["4", 0], "reward": ["5", 0]}
    return {
        "5": {"class_type": "TTSVAR_VisionLanguageReward", "inputs": {"clip": clip, **inputs}},
        "6": {"class_type": "TTSVAR_ScoreImages", "inputs": {**scored, "prompt": PROMPT, "sort": False}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}},
    }


def shown(done: dict, node: str) -> list:
    return [number for text in done["outputs"][node]["text"] for number in json.loads(f"[{text}]" if text[0] != "[" else text)]


def test_scores_are_those_of_a_plain_forward_pass(server):
    plain = {"class_type": "PlainAnswers", "inputs": {"clip": ["1", 0], "images": ["4", 0], "question": WHOLE}}
    prompt = {**pictures(), **judged(["1", 0]), "8": plain, "9": {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}}}
    done = server.run(prompt)
    scores = shown(done, "7")
    assert scores == pytest.approx(shown(done, "9"), abs=1e-6) and scores[0] == scores[1] != scores[2]


def test_the_parts_of_a_prompt_are_a_table_on_the_node(server):
    done = server.run({**pictures(), **judged(["1", 0], parts=True)})
    table = done["outputs"]["6"]["answers"]
    assert len(table) == 5 and all(len(line["answers"]) == 3 for line in table)
    first = [line["answers"][0] for line in table]
    product = 1.0
    for answer in first:
        product *= answer
    assert shown(done, "7")[0] == pytest.approx(product ** (1 / 5), abs=1e-5)


def test_a_clip_that_only_encodes_is_refused(server):
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}}
    done = server.wait(server.queue({**pictures(), "1": loader, **judged(["1", 1])}))
    errors = [message for kind, message in done["status"]["messages"] if kind == "execution_error"]
    assert errors and errors[0]["node_id"] == "5" and "only encodes text" in errors[0]["exception_message"]


def test_a_blend_takes_as_many_rewards_as_are_wired(server):
    prompt = {**pictures(), **judged(["1", 0])}
    for number, template in (("15", "GenEval 2"), ("16", "VQAScore")):
        prompt[number] = {"class_type": "TTSVAR_VisionLanguageReward", "inputs": {**prompt["5"]["inputs"], "template": template}}
    weights = {f"weight_{place}": 1.0 for place in range(1, 5)}
    wired = {"reward_1": ["5", 0], "reward_2": ["15", 0], "more.reward_5": ["16", 0], "more.reward_6": ["5", 0]}
    prompt["17"] = {"class_type": "TTSVAR_BlendRewards", "inputs": {**wired, **weights, "how": "rank", "more_weights": "0, 2"}}
    prompt["6"]["inputs"]["reward"] = ["17", 0]
    done = server.run(prompt)
    names = [line["question"] for line in done["outputs"]["6"]["answers"]]
    assert len(names) == 4 and all(name.startswith("yes-no") for name in names) and len(shown(done, "7")) == 3
