"""GenEval's and T2I-CompBench's folders."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from experiment_world import TinyFiles, prompts
from PIL import Image

from lab.experiment.layout import Layout
from lab.experiment.prompts import Prompt
from lab.experiment.runner import Asked, OtherExperiment, Where, run_experiment
from ttsvar_core.atomic import write


def test_a_folder_in_genevals_layout_is_written(tmp_path):
    layout = Layout(str(tmp_path), "geneval")
    metadata = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
    prompt = Prompt("a photo of a bench", "single_object", metadata)
    layout.save("raw", 7, 0, prompt, torch.ones(4, 4, 3))
    layout.save("raw", 7, 1, prompt, torch.zeros(4, 4, 3))
    assert (tmp_path / "raw/00007/samples/0001.png").is_file()
    assert json.loads((tmp_path / "raw/00007/metadata.jsonl").read_text()) == metadata
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_t2i_compbench_names_carry_the_prompt_and_sort_by_number(tmp_path):
    layout = Layout(str(tmp_path), "t2i-compbench")
    places = ((0, 0), (0, 1), (3, 0))
    paths = [layout.save("raw", place, number, Prompt("a red book"), torch.rand(4, 4, 3)) for place, number in places]
    assert [path.parent.name for path in paths] == ["samples"] * 3
    assert {path.name.split("_")[0] for path in paths} == {"a red book"}
    assert [int(path.name.split("_")[-1].split(".")[0]) for path in paths] == [0, 1, 3000]
    with pytest.raises(ValueError, match="cannot be one"):
        layout.save("raw", 0, 0, Prompt("a_b"), torch.rand(4, 4, 3))


def test_a_name_that_cannot_be_is_refused_before_anything_is_drawn(tmp_path):
    listed, drawn = [*prompts(1), Prompt("prompt a/b")], []
    asked, where = Asked("single-scale", [2]), Where(images="t2i-compbench")
    with pytest.raises(ValueError, match="'prompt a/b' cannot be one"):
        run_experiment(asked, TinyFiles(), listed, 1, tmp_path, where, lambda *at: drawn.append(at))
    assert not drawn and not (tmp_path / "units").exists()


@pytest.mark.parametrize("kind", ["geneval", "t2i-compbench"])
def test_images_of_another_list_are_not_mixed_with_those_of_this_one(tmp_path, kind):
    """A benchmark's evaluator goes by the folders, where a prompt has the place that it has in the list."""
    asked, where, listed = Asked("single-scale", [2]), Where(images=kind), prompts(3)
    for more in (1, 2):  # a longer list goes on
        run_experiment(asked, TinyFiles(), listed[:more], 1, tmp_path, where)
    with pytest.raises(OtherExperiment, match="images of another list of prompts"):
        run_experiment(asked, TinyFiles(), [listed[2], *listed[:2]], 1, tmp_path, where)
    assert len(list((tmp_path / "units").iterdir())) == 2


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
