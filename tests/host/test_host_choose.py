"""Choosing on the real host, without a page: what stops, what runs, what is remembered."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "browser"))
from choose_graph import choose_graph, number, prompt_of
from comfyui_server import cached, downstream


@pytest.fixture(scope="module")
def graph(server, tmp_path_factory):
    return choose_graph(server.catalogue, tmp_path_factory.mktemp("graph"))


def shown(done: dict, prompt: dict) -> dict:
    """What Choose Sketches told the page."""
    return done["outputs"][number(prompt, "ChooseSketches")]["ttsvar_choose"][0]


def test_nothing_chosen_stops_quietly_and_a_choice_runs_only_what_follows(server, graph):
    asked = prompt_of(graph, server.catalogue)
    done = server.run(asked)
    told = shown(done, asked)
    assert number(asked, "SaveImage") not in done["outputs"] and number(asked, "InspectState") not in done["outputs"]
    assert [row["row"] for row in told["rows"]] == [0, 1, 2, 3] and told["chosen"] == []
    assert all(len(server.get("/view?filename={filename}&type={type}".format(**row["picture"]))) > 200 for row in told["rows"])
    chosen = prompt_of(graph, server.catalogue, "2 0 0", told["key"])
    done = server.run(chosen)
    assert set(chosen) - cached(done) == downstream(chosen, number(chosen, "ChooseSketches"))
    assert len(done["outputs"][number(chosen, "SaveImage")]["images"]) == 3
    again = shown(done, chosen)
    assert again["chosen"] == [2, 0, 0] and again["rows"] == told["rows"]  # nothing was decoded anew: the very same files


def test_a_choice_draws_what_select_by_hand_draws(server, graph):
    chosen = prompt_of(graph, server.catalogue, "3 1")
    by_hand = copy.deepcopy(chosen)
    state = by_hand[number(by_hand, "ChooseSketches")]["inputs"]["state"]
    typed = {"class_type": "TTSVAR_SelectByHand", "inputs": {"state": state, "numbers": "3, 1"}}
    by_hand[number(by_hand, "ChooseSketches")] = typed
    one, two = (server.pictures(server.run(prompt))[number(prompt, "SaveImage")] for prompt in (chosen, by_hand))
    assert pixels(one) == pixels(two) and len(one) == 2


def test_a_choice_made_from_other_sketches_is_not_carried_out(server, graph):
    asked = prompt_of(graph, server.catalogue)
    key = shown(server.run(asked), asked)["key"]
    other = prompt_of(graph, server.catalogue, "1", key)
    other[number(other, "StartState")]["inputs"]["seed"] = 4
    done = server.run(other)
    assert "Choose again" in shown(done, other)["note"] and number(other, "SaveImage") not in done["outputs"]
    other[number(other, "ChooseSketches")]["inputs"]["seen"] = ""
    assert len(server.run(other)["outputs"][number(other, "SaveImage")]["images"]) == 1


def test_prompts_queued_behind_one_another_each_keep_their_choice(server, graph):
    waiting = [prompt_of(graph, server.catalogue, choice) for choice in ("", "1", "0 2 3")]
    save = number(waiting[0], "SaveImage")
    done = [server.wait(each) for each in [server.queue(prompt) for prompt in waiting]]
    assert [len(one["outputs"].get(save, {}).get("images", [])) for one in done] == [0, 1, 3]
    assert all(one["status"]["status_str"] == "success" for one in done)


def test_a_batch_of_any_pictures_is_chosen_with_its_latents(server):
    """Core nodes alone: an empty latent batch and pictures, chosen, told by what comes out."""
    prompt = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 3}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 255}},
        "3": {"class_type": "TTSVAR_ChooseBatch", "inputs": {"images": ["2", 0], "latent": ["1", 0], "choice": ""}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
        "5": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 1], "filename_prefix": "chosen"}},
    }
    assert set(server.run(prompt)["outputs"]) == {"3"}
    prompt["3"]["inputs"]["choice"] = "2 2 0"
    done = server.run(prompt)
    assert len(done["outputs"]["4"]["images"]) == 3 and "5" in done["outputs"]
    assert set(prompt) - cached(done) == {"3", "4", "5"}


def pixels(pictures: list[bytes]) -> list[bytes]:
    """What pictures show, whatever a file says of its workflow."""
    import io

    from PIL import Image

    return [Image.open(io.BytesIO(picture)).convert("RGB").tobytes() for picture in pictures]
