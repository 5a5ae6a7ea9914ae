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


@pytest.fixture(scope="module")
def foreseen(pack):
    """Four samples after scale 6, of which the bundled model foretells what they become; and what they show small: that, and as
    they are."""
    story, decoding = pack.core("inspect.story"), pack.core("decoding")
    (model,), (encoder,) = pack.run("TTSVAR_InfinityLoader"), pack.run("TTSVAR_TextEncoderLoader")
    text = pack.run("TTSVAR_PromptEncode", text_encoder=encoder, text="a photo of a red circle")[0]
    (begun,) = pack.run("TTSVAR_StartState", model=model, conditioning=text, samples=4, seed=11)
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=begun, through_scale=6, preview="off")
    ahead, plain = story.small_seen(state), story.small(state, state.features)
    return state, *(decoding.decode_fitting(model, features) for features in (ahead, plain))


def drawn(pack, files) -> torch.Tensor:
    """What is in the files of pictures, as images."""
    return torch.cat([pack.core("inspect.canvas").to_tensor(one) for one in pack.imported("nodes.thumbnails").opened(files)])


def view(pack, state) -> dict:
    return pack.nodes["TTSVAR_InspectState"].execute(state).ui["ttsvar_view"][0]


def anew(state):
    """The same state in tensors of its own, of which nothing is drawn yet."""
    return state._replace(bits=tuple(bits.clone() for bits in state.bits), features=state.features.clone())


def test_earlier_generations_are_shown_as_what_they_were_foretold_to_become(pack, sent, foreseen, monkeypatch):
    """By the keys and values of that moment, while the search runs; the view finds them drawn."""
    state, ahead, plain = anew(foreseen[0]), *foreseen[1:]
    monkeypatch.setattr(pack.core("inspect.story"), "replay", lambda *_: pytest.fail("replayed"))
    kept, _ = pack.run("TTSVAR_SelectByHand", state=state, numbers="2")
    (before,) = sent[0][1]["data"]["before"]
    assert (drawn(pack, before) - ahead).abs().max() < 1 / 255 and (ahead - plain).abs().mean() > 4 / 255
    assert view(pack, kept)["before"] == [before]


def test_a_view_that_comes_later_replays_what_foresight_needs(pack, foreseen):
    state, ahead, _ = anew(foreseen[0]), *foreseen[1:]
    (before,) = view(pack, state.select([2]).without_cache())["before"]
    assert (drawn(pack, before) - ahead).abs().max() < 2 / 255


def test_where_memory_is_too_small_for_replay_earlier_generations_are_shown_as_they_were(pack, foreseen, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("out of memory")

    state, _, plain = anew(foreseen[0]), *foreseen[1:]
    monkeypatch.setattr(pack.core("inspect.story"), "replay", short)
    (before,) = view(pack, state.select([2]))["before"]
    assert (drawn(pack, before) - plain).abs().max() < 1 / 255


def test_the_past_is_the_state_that_was_selected_from(pack, foreseen):
    story, state = pack.core("inspect.story"), foreseen[0].with_scores(torch.tensor([0.1, 0.4, 0.3, 0.2]))
    (later,) = pack.run("TTSVAR_ScaleStepSampler", state=state.select([1, 1]).select([0]), through_scale=7, preview="off")
    found = story.past(later, 0)
    assert found.cache is None and found.bits == state.bits and torch.equal(found.features, state.features)
    assert torch.equal(found.scores[:, 6], state.scores[:, 6]) and (found.steps, found.lineage) == (state.steps, ())
    assert (found.samples, found.last_scale) == (4, 6) and story.past(later, 1).samples == 2
    with pytest.raises(ValueError, match="from a file"):
        story.past(later._replace(lineage=tuple(step._replace(before=()) for step in later.lineage)), 0)


def test_a_sample_is_drawn_once_for_all_views_and_copies(pack, foreseen, monkeypatch):
    shapes, tokenizer = [], type(foreseen[0].model.tokenizer)
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda self, features: shapes.append(features.shape) or decode(self, features))
    small_files, story = pack.imported("nodes.thumbnails").small_files, pack.core("inspect.story")
    torch.manual_seed(0)
    features = story.small(foreseen[0], torch.randn(2, *foreseen[0].features.shape[1:]))
    first = small_files(foreseen[0].model, features[[0, 1, 0]])
    assert len(shapes) == 2 and first[0] == first[2] != first[1]
    assert small_files(foreseen[0].model, features.clone()) == first[:2] and len(shapes) == 2
    (pack.host.folder / "temp" / first[1]["filename"]).unlink()
    assert small_files(foreseen[0].model, features) == first[:2] and len(shapes) == 3


def test_a_search_shows_what_it_looked_at_without_another_decode(pack, sent, monkeypatch):
    monkeypatch.setattr(pack.imported("nodes.live"), "small_files", lambda *_: pytest.fail("drawn again"))
    plan = json.dumps({"name": "cut", "samples": 3, "foreseen": True, "stages": [{"kind": "best", "scale": 6, "keep": 1}]})
    state = pack.run("TTSVAR_Generate", method="own plan", plan=plan, preview="off", seed=5)[2]
    (told,) = [told["data"] for _, told, _ in sent]
    assert len(told["before"][0]) == 3 and view(pack, state)["before"] == told["before"]
