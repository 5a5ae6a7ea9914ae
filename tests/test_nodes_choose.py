"""Choosing, without a host: what stops, what goes on, what the page is told; and the view's data."""

from __future__ import annotations

import json

import pytest
import torch
from host_stand_in import load_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def sketch(pack):
    """Four scored samples after scale 3."""
    (model,), (encoder,) = pack.run("TTSVAR_InfinityLoader"), pack.run("TTSVAR_TextEncoderLoader")
    text = pack.run("TTSVAR_PromptEncode", text_encoder=encoder, text="a photo of a red circle")[0]
    (begun,) = pack.run("TTSVAR_StartState", model=model, conditioning=text, samples=4)
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=begun, through_scale=3, preview="off")
    return state.with_scores(torch.tensor([0.1, 0.4, 0.3, 0.2]))


def choose(pack, **inputs):
    """Run Choose Sketches; its outputs and what the page gets."""
    done = pack.nodes["TTSVAR_ChooseSketches"].execute(**{name: [value] for name, value in inputs.items()})
    return done.args, done.ui["ttsvar_choose"][0]


def stops(output) -> bool:
    return type(output).__name__ == "ExecutionBlocker" and output.message is None


def test_nothing_chosen_stops_everything_after_and_tells_what_there_is(pack, sketch):
    outputs, told = choose(pack, state=sketch, choice=" ")
    assert all(map(stops, outputs)) and len(outputs) == 2 and told["chosen"] == [] and told["note"]
    assert [(row["row"], row["best"]) for row in told["rows"]] == [(0, False), (1, True), (2, False), (3, False)]
    assert [row["score"] for row in told["rows"]] == pytest.approx([0.1, 0.4, 0.3, 0.2]) and json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(("text", "rows"), [("2", [2]), ("3 0 0", [3, 0, 0]), ("#1, 2-3", [1, 2, 3]), ("#0#2 -#3", [0, 2, 3])])
def test_a_choice_selects_as_by_hand(pack, sketch, text, rows):
    (state, reason), told = choose(pack, state=sketch, choice=text)
    by_hand, said = pack.run("TTSVAR_SelectByHand", state=sketch, numbers=text)
    assert state.lineage[-1].ancestors == tuple(rows) and told["chosen"] == rows and reason == said
    assert torch.equal(state.features, by_hand.features)


def test_a_choice_holds_for_the_sketches_it_was_made_from(pack, sketch):
    key = choose(pack, state=sketch, choice="")[1]["key"]
    (state, _), told = choose(pack, state=sketch, choice="1", seen=key)
    assert state.samples == 1 and told["note"] == ""
    outputs, told = choose(pack, state=sketch.select([3, 2, 1, 0]), choice="1", seen=key)
    assert all(map(stops, outputs)) and "again" in told["note"] and told["key"] != key


def test_another_choice_decodes_and_writes_nothing_again(pack, sketch, monkeypatch):
    first = choose(pack, state=sketch, choice="")[1]
    tokenizer = type(sketch.model.tokenizer)
    monkeypatch.setattr(tokenizer, "decode", lambda *_: pytest.fail("decoded again"))
    assert choose(pack, state=sketch, choice="0 1")[1]["rows"] == first["rows"]


def test_pictures_that_were_cleared_away_are_drawn_again(pack, sketch):
    first = choose(pack, state=sketch, choice="")[1]["rows"]
    (pack.host.folder / "temp" / first[2]["picture"]["filename"]).unlink()
    again = choose(pack, state=sketch, choice="")[1]["rows"]
    assert all((pack.host.folder / "temp" / row["picture"]["filename"]).exists() for row in again)


def test_labels_come_as_text_numbers_or_lists_one_for_each(pack, sketch):
    for labels, words in (("a\nb\n\nc\nd", list("abcd")), (torch.tensor([1.0, 2, 3, 4]), ["1.000", "2.000", "3.000", "4.000"])):
        assert [row["label"] for row in choose(pack, state=sketch, choice="", labels=labels)[1]["rows"]] == words
    with pytest.raises(ValueError, match="2 labels came for 4 pictures"):
        choose(pack, state=sketch, choice="", labels="a\nb")


def test_labels_in_a_list_stay_with_their_pictures_however_many_lines_they_have(pack):
    given = {"images": [torch.rand(4, 8, 8, 3)], "choice": [""], "labels": ["a", "", "b\nc", "d"]}
    told = pack.nodes["TTSVAR_ChooseBatch"].execute(**given).ui["ttsvar_choose"][0]
    assert [row["label"] for row in told["rows"]] == ["a", "", "b c", "d"]


def test_several_states_or_latents_in_a_list_are_refused_and_none_is_dropped(pack, sketch):
    with pytest.raises(ValueError, match="2 states came"):
        pack.nodes["TTSVAR_ChooseSketches"].execute(state=[sketch, sketch], choice=["0"])
    with pytest.raises(ValueError, match="2 states came"):
        pack.nodes["TTSVAR_AttachScores"].execute(state=[sketch, sketch], scores=[1.0, 2.0, 3.0, 4.0])
    latents = [{"samples": torch.zeros(4, 4, 2, 2)}] * 2
    with pytest.raises(ValueError, match="2 batches came to latent"):
        pack.nodes["TTSVAR_ChooseBatch"].execute(images=[torch.rand(4, 8, 8, 3)], latent=latents, choice=["0"])


def test_a_row_that_is_not_there_is_an_error_that_names_those_that_are(pack, sketch):
    with pytest.raises(ValueError, match="from 0 to 3"):
        choose(pack, state=sketch, choice="4")


def batch(pack, **inputs):
    done = pack.nodes["TTSVAR_ChooseBatch"].execute(**{name: [value] for name, value in inputs.items()})
    return done.args, done.ui["ttsvar_choose"][0]


def test_a_batch_goes_on_with_its_latents(pack):
    images = torch.arange(3.0)[:, None, None, None].expand(3, 8, 12, 3) / 3
    latent = {"samples": torch.arange(3.0)[:, None, None, None].expand(3, 4, 2, 2)}
    outputs, told = batch(pack, images=images, choice="", latent=latent)
    assert all(map(stops, outputs)) and len(told["rows"]) == 3
    (pictures, kept, reason), _ = batch(pack, images=images, choice="2 0", latent=latent)
    assert torch.equal(pictures, images[[2, 0]]) and kept["samples"][:, 0, 0, 0].tolist() == [2, 0] and "[2, 0] of 3" in reason
    assert stops(batch(pack, images=images, choice="2 0")[0][1])
    with pytest.raises(ValueError, match="3 pictures came with 2 latents"):
        batch(pack, images=images, choice="0", latent={"samples": torch.zeros(2, 4, 2, 2)})


def test_batches_in_a_list_are_one_where_they_fit(pack):
    node = pack.nodes["TTSVAR_ChooseBatch"]
    done = node.execute([torch.zeros(1, 4, 4, 3), torch.ones(2, 4, 4, 3)], ["1 0"])
    assert done.args[0].mean((1, 2, 3)).tolist() == [1, 0]
    with pytest.raises(ValueError, match="several sizes"):
        node.execute([torch.zeros(1, 4, 4, 3), torch.ones(2, 8, 4, 3)], ["1"])


def test_the_view_tells_all_generations_and_shows_the_dead(pack, sketch):
    cut = sketch.select([1, 1, 3])
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=cut, through_scale=5, preview="off")
    told = pack.nodes["TTSVAR_InspectState"].execute(state=state).ui["ttsvar_view"][0]
    first, second = told["generations"]
    assert first["lives"] == (False, True, False, True) and first["scores"] == pytest.approx([0.1, 0.4, 0.3, 0.2])
    assert second["parents"] == (1, 1, 3) and second["colours"][0] == second["colours"][1] == first["colours"][1]
    assert [len(files) for files in told["before"]] == [4] and len(told["pictures"]) == len(told["maps"]) == 3
    assert told["film"]["rows"] == [0] and len(told["film"]["frames"]) == 6
    assert json.dumps(told, allow_nan=False)
    told = pack.nodes["TTSVAR_InspectState"].execute(state=state, show="film").ui["ttsvar_view"][0]
    assert told["film"]["rows"] == [0, 2] and [len(frame) for frame in told["film"]["frames"]] == [2] * 6


def test_the_dead_are_drawn_as_they_were(pack, sketch):
    """The pictures before a selection are those of the state that was selected from."""
    story = pack.core("inspect.story")
    step = sketch.select([2]).lineage[-1]
    *_, features = story.grown(sketch, step.before)
    assert torch.equal(features, sketch.features)


@pytest.mark.parametrize("show", ["sketches", "family tree", "scores", "maps", "film"])
def test_one_sheet_is_shown_whichever_is_asked_for(pack, sketch, show):
    done = pack.nodes["TTSVAR_InspectState"].execute(state=sketch, show=show)
    assert len(done.ui["images"]) == 1 and done.ui["ttsvar_view"][0]["show"] == show


def test_a_state_from_a_file_tells_of_its_dead_without_pictures(pack, sketch):
    steps = [step._replace(before=()) for step in sketch.select([1]).lineage]
    told = pack.nodes["TTSVAR_InspectState"].execute(state=sketch.select([1])._replace(lineage=tuple(steps))).ui["ttsvar_view"][0]
    assert told["before"] == [None] and len(told["generations"]) == 2
