"""The family tree while the search runs, without a host: who is told, of what, at what cost."""

from __future__ import annotations

import json
import sys
import types
from itertools import pairwise

import pytest
import torch
from host_stand_in import load_pack

PROMPT = {  # the running node has number 1 in the stand-in
    "0": {"class_type": "TTSVAR_StartState", "inputs": {"samples": 8}},
    "1": {"class_type": "TTSVAR_SelectBest", "inputs": {"state": ["0", 0], "keep": 2}},
    "2": {"class_type": "TTSVAR_ScaleStepSampler", "inputs": {"state": ["1", 0], "words": [["any", "list"], 0]}},
    "3:4": {"class_type": "TTSVAR_InspectState", "inputs": {"state": ["2", 0]}},
    "5": {"class_type": "TTSVAR_InspectState", "inputs": {"state": ["0", 0]}},
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture
def sent(pack, monkeypatch):
    """What a page is sent that asked for the run."""
    messages, server = [], sys.modules["server"].PromptServer.instance
    monkeypatch.setattr(server, "client_id", "page", raising=False)
    monkeypatch.setattr(server, "send_sync", lambda *message: messages.append(message), raising=False)
    for node in pack.nodes.values():
        monkeypatch.setattr(node, "hidden", types.SimpleNamespace(prompt=PROMPT))
    return messages


def scored(pack, seed: int):
    """Four scored samples after scale 3."""
    (model,), (encoder,) = pack.run("TTSVAR_InfinityLoader"), pack.run("TTSVAR_TextEncoderLoader")
    text = pack.run("TTSVAR_PromptEncode", text_encoder=encoder, text="a photo of a red circle")[0]
    (begun,) = pack.run("TTSVAR_StartState", model=model, conditioning=text, samples=4, seed=seed)
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=begun, through_scale=3, preview="off")
    return state.with_scores(torch.tensor([0.1, 0.4, 0.3, 0.2]))


def test_a_selection_is_told_to_the_views_behind_it_and_drawn_once(pack, sent):
    state, _ = pack.run("TTSVAR_SelectBest", state=scored(pack, 1), keep=2)
    ((name, told, page),) = sent
    assert (name, page, told["views"]) == ("ttsvar.search", "page", ["3:4"]) and json.dumps(told, allow_nan=False)
    data = told["data"]
    assert [len(one["founders"]) for one in data["generations"]] == [4, 2] and data["growing"]
    assert data["pictures"] == [data["before"][0][row] for row in state.lineage[-1].ancestors] and len(data["before"][0]) == 4
    (seen,) = pack.nodes["TTSVAR_InspectState"].execute(state).ui["ttsvar_view"]
    assert seen["before"] == data["before"] and seen["generations"] == data["generations"]
    assert {*data} - {"growing"} == {*seen}  # the page draws both alike


@pytest.mark.parametrize(("client", "prompt"), [(None, PROMPT), ("page", None), ("page", {"1": PROMPT["1"]})])
def test_where_nobody_looks_nothing_is_drawn_or_sent(pack, sent, monkeypatch, client, prompt):
    monkeypatch.setattr(sys.modules["server"].PromptServer.instance, "client_id", client)
    monkeypatch.setattr(pack.nodes["TTSVAR_SelectByHand"], "hidden", types.SimpleNamespace(prompt=prompt))
    state = scored(pack, 2)
    before = {*pack.host.folder.rglob("ttsvar_*.png")}
    assert pack.run("TTSVAR_SelectByHand", state=state, numbers="1")[0].samples == 1
    assert not sent and {*pack.host.folder.rglob("ttsvar_*.png")} == before


def test_the_whole_search_in_one_node_tells_every_selection(pack, sent):
    finished = pack.run("TTSVAR_Generate", method="TTS-VAR", n=1, preview="off")[2]
    grown = [told["data"] for _, told, _ in sent]
    assert [len(data["generations"]) for data in grown] == [2, 3, 4, 5] and len(finished.lineage) == 4
    assert all(later["before"][: len(data["before"])] == data["before"] for data, later in pairwise(grown))
