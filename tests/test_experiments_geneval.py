"""GenEval's and T2I-CompBench's folders, and GenEval's verdict on detections made by hand."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from lab.experiment.detectors import TransformersDetector, load_detector
from lab.experiment.geneval import Found, judge, judge_folder, relations, summary
from lab.experiment.layout import Layout
from lab.experiment.prompts import Prompt
from ttsvar_core.atomic import write


def _found(name: str, confidence: float = 0.95, box=(0, 0, 10, 10)) -> Found:
    return Found(name, confidence, box)


def _no_colours(objects):
    raise AssertionError("nobody asked for a colour")


SINGLE = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
TWO = {"tag": "two_object", "include": [{"class": "bench", "count": 1}, {"class": "cow", "count": 1}]}
COUNTING = {
    "tag": "counting", "include": [{"class": "cow", "count": 3}], "exclude": [{"class": "cow", "count": 4}], "prompt": "three cows"
}
COLOURS = {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}]}
POSITION = {
    "tag": "position", "include": [{"class": "bench", "count": 1}, {"class": "cow", "count": 1, "position": ["left of", 0]}]
}
ATTRIBUTION = {
    "tag": "color_attr", "include": [{"class": "car", "count": 1, "color": "red"}, {"class": "cow", "count": 1, "color": "blue"}]
}


@pytest.mark.parametrize("found, correct", [([], False), ([_found("bench", 0.31)], True), ([_found("bench", 0.3)], False)])
def test_single_object_needs_a_confident_detection(found, correct):
    assert judge(found, SINGLE, _no_colours).correct is correct


def test_two_objects_need_both_and_allow_others():
    both = [_found("cow"), _found("bench"), _found("dog")]
    assert judge(both, TWO, _no_colours).correct
    assert judge(both[1:], TWO, _no_colours).reasons == ("expected 1 cow, found 0",)


@pytest.mark.parametrize("cows, correct", [(2, False), (3, True), (4, False)])
def test_counting_is_exact(cows, correct):
    assert judge([_found("cow")] * cows, COUNTING, _no_colours).correct is correct


def test_counting_ignores_what_is_less_than_nine_tenths_certain():
    assert judge([_found("cow")] * 3 + [_found("cow", 0.89)], COUNTING, _no_colours).correct
    assert not judge([_found("cow")] * 2 + [_found("cow", 0.89)], COUNTING, _no_colours).correct


def test_colour_is_that_of_the_most_confident_object():
    cars = [_found("car", 0.5, (0, 0, 1, 1)), _found("car", 0.9, (5, 5, 9, 9))]

    def colour_of(objects):
        return ["red" if one.box[0] == 5 else "blue" for one in objects]

    assert judge(cars, COLOURS, colour_of).correct
    verdict = judge(cars, COLOURS, lambda objects: ["blue" for _ in objects])
    assert verdict.reasons == ("expected 1 red car, found blue",)


def test_attribution_needs_the_right_colour_on_each():
    scene = [_found("car"), _found("cow")]
    colours = {"car": "red", "cow": "blue"}
    assert judge(scene, ATTRIBUTION, lambda objects: [colours[one.name] for one in objects]).correct
    swapped = judge(scene, ATTRIBUTION, lambda objects: [{"car": "blue", "cow": "red"}[one.name] for one in objects])
    assert len(swapped.reasons) == 2


def test_position_is_relative_to_the_object_named_before():
    bench, left, right = _found("bench", box=(50, 0, 60, 10)), _found("cow", box=(0, 0, 10, 10)), _found("cow", box=(90, 0, 99, 10))
    assert judge([bench, left], POSITION, _no_colours).correct
    assert judge([bench, right], POSITION, _no_colours).reasons == ("expected cow left of bench, found right of",)
    assert judge([left], POSITION, _no_colours).reasons == ("expected 1 bench, found 0", "nothing that cow could be left of")


@pytest.mark.parametrize(
    "box, expected",
    [
        ((0, 50, 10, 60), {"left of"}), ((90, 50, 100, 60), {"right of"}), ((50, 0, 60, 10), {"above"}),
        ((50, 90, 60, 100), {"below"}), ((0, 0, 10, 10), {"left of", "above"}), ((51, 51, 61, 61), set()),
        ((10, 30, 20, 40), {"left of"}),  # 40 across and 20 up: less than half of the way is up once the margin is off
    ],
)
def test_relations_leave_a_margin_and_allow_diagonals(box, expected):
    assert relations(_found("a", box=box), _found("b", box=(50, 50, 60, 60))) == expected


def test_the_overall_score_is_the_mean_over_categories():
    records = [{"tag": "counting", "correct": False}] * 3 + [{"tag": "single_object", "correct": True}]
    assert summary(records) == {"single_object": 1.0, "counting": 0.0, "overall": 0.5}


class _Bench:
    """Sees a bench where the picture is bright."""

    def detect(self, image):
        return [_found("bench")] if np.asarray(image).mean() > 128 else []

    def colours(self, image, objects):
        return ["red"] * len(objects)


def test_a_folder_in_genevals_layout_is_written_and_judged(tmp_path):
    layout = Layout(str(tmp_path), "geneval")
    prompt = Prompt("a photo of a bench", "single_object", SINGLE)
    layout.save("raw", 7, 0, prompt, torch.ones(4, 4, 3))
    layout.save("raw", 7, 1, prompt, torch.zeros(4, 4, 3))
    assert (tmp_path / "raw/00007/samples/0001.png").is_file()
    assert json.loads((tmp_path / "raw/00007/metadata.jsonl").read_text()) == SINGLE
    records = judge_folder(tmp_path / "raw", _Bench())
    assert [one["correct"] for one in records] == [True, False]
    assert set(records[0]) == {"filename", "tag", "prompt", "correct", "reason", "metadata"}
    assert summary(records)["overall"] == 0.5
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    with pytest.raises(ValueError, match="no images in GenEval's layout"):
        judge_folder(tmp_path, _Bench())


def test_t2i_compbench_names_carry_the_prompt_and_sort_by_number(tmp_path):
    layout = Layout(str(tmp_path), "t2i-compbench")
    places = ((0, 0), (0, 1), (3, 0))
    paths = [layout.save("raw", place, number, Prompt("a red book"), torch.rand(4, 4, 3)) for place, number in places]
    assert [path.parent.name for path in paths] == ["samples"] * 3
    assert {path.name.split("_")[0] for path in paths} == {"a red book"}
    assert [int(path.name.split("_")[-1].split(".")[0]) for path in paths] == [0, 1, 3000]
    with pytest.raises(ValueError, match="cannot be one"):
        layout.save("raw", 0, 0, Prompt("a_b"), torch.rand(4, 4, 3))


def test_workers_of_one_number_on_two_machines_do_not_share_a_file(tmp_path, monkeypatch):
    """Two pictures in one folder, each written as a file of its own until it is whole; names may have any allowed length."""
    layout, partial = Layout(str(tmp_path), "t2i-compbench"), []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (partial.append(str(source)), replace(source, target)))
    monkeypatch.setattr(os, "getpid", lambda: 4321)
    for number in range(2):
        layout.save("raw", 0, number, Prompt("x" * 240), torch.rand(4, 4, 3))
        write(tmp_path / "one.json", "{}")
    assert len(set(partial)) == 4


def test_saved_pixels_are_the_images(tmp_path):
    image = torch.tensor([[[0.0, 0.5, 1.0], [1.2, -0.1, 0.25]]])
    path = Layout(str(tmp_path)).save("raw", 0, 0, Prompt("x"), image)
    assert np.asarray(Image.open(path)).tolist() == [[[0, 128, 255], [255, 0, 64]]]


class _ColourClip:
    """Image features: the mean colour. Text features: the colour a text names."""

    device = "cpu"
    words = {"red": (1, 0.01, 0.01), "green": (0.01, 1, 0.01), "blue": (0.01, 0.01, 1)}  # noqa: RUF012

    def __call__(self, images=None, text=None, **_):
        return _Batch(pixels=images) if images else _Batch(text=text)

    def get_image_features(self, pixels):
        return torch.tensor(np.stack([np.asarray(one, float).mean((0, 1)) / 255 - 0.5 for one in pixels]))

    def get_text_features(self, text):
        return torch.tensor([next((v for k, v in self.words.items() if f" {k}" in line), (-1, -1, -1)) for line in text]).double()


class _Batch(dict):
    def to(self, device):
        return self


def test_colours_are_judged_on_the_cut_out_object():
    picture = np.full((20, 20, 3), 255, np.uint8)
    picture[:, :10] = (0, 0, 250)
    picture[:, 10:] = (250, 0, 0)
    mask = np.zeros((20, 20), bool)
    mask[:, 12:] = True
    clip = _ColourClip()
    detector = TransformersDetector(None, None, clip, clip)
    objects = [Found("car", 1.0, (0, 0, 10, 20)), Found("car", 1.0, (2, 0, 20, 20), mask)]
    assert detector.colours(Image.fromarray(picture), objects) == ["blue", "red"]
    with pytest.raises(ValueError, match="give its folder with --clip"):
        TransformersDetector(None, None).colours(Image.fromarray(picture), objects)


def test_a_transformers_detector_is_loaded_from_its_folder(tmp_path):
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = dict(enumerate(["person", "mouse", "sofa"]))
    config = YolosConfig(**sizes, image_size=[32, 32], num_detection_tokens=5, id2label=names, patch_size=8)
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        model.class_labels_classifier.layers[-1].bias.copy_(torch.tensor([-9.0, 9.0, -9.0, -9.0]))
    model.save_pretrained(tmp_path)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    found = load_detector(tmp_path).detect(Image.new("RGB", (64, 48)))
    assert len(found) == 5 and {one.name for one in found} == {"computer mouse"}
    assert all(one.confidence > 0.9 and len(one.box) == 4 for one in found)
    with pytest.raises(ValueError, match="holds no detector"):
        load_detector(tmp_path / "nothing")


def test_masks_become_boxes():
    class Model:
        config = type("Config", (), {"id2label": {0: "keyboard"}})

    mask = torch.zeros(2, 6, 8)
    mask[0, 2:4, 3:7] = 1
    infos = [{"label_id": 0, "score": 0.8}, {"label_id": 0, "score": 0.7}]
    (one,) = TransformersDetector(Model(), None)._from_masks({"segmentation": mask, "segments_info": infos})
    assert one[:3] == ("computer keyboard", 0.8, (3.0, 2.0, 7.0, 4.0)) and one.mask.sum() == 8
