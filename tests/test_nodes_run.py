"""The nodes at work in a stand-in host, on the bundled model: one road from graph, one node and library to the same picture."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from host_stand_in import ROOT, Interrupted, load_pack

sys.path.insert(0, str(ROOT / "lab" / "tools"))
import comfyui_http

PROMPT = "a photo of a red circle left of a blue square"


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded, torch.inference_mode():
        yield loaded


@pytest.fixture(scope="module")
def parts(pack):
    """The loaders' outputs, all at their defaults."""
    (model,), (encoder,) = pack.run("TTSVAR_InfinityLoader"), pack.run("TTSVAR_TextEncoderLoader")
    (conditioning,) = pack.run("TTSVAR_PromptEncode", text_encoder=encoder, text=PROMPT)
    (reward,), (extractor,) = pack.run("TTSVAR_RewardLoader"), pack.run("TTSVAR_ExtractorLoader")
    return {"model": model, "text_encoder": encoder, "conditioning": conditioning, "reward": reward, "extractor": extractor}


@pytest.fixture(scope="module")
def sketch(pack, parts):
    """Four samples after scale 5."""
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=4, seed=7)
    return pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=5)[0]


def catalogue(pack) -> dict:
    """What /object_info would answer about our nodes, as far as running a graph needs it."""
    told = {}
    for node_id, node in pack.nodes.items():
        entry = {"input": {"required": {}, "optional": {}}, "input_order": {"required": [], "optional": []}}
        for one in node.define_schema().inputs:
            part = "optional" if one.optional else "required"
            extra = {"forceInput": one.force_input, "control_after_generate": one.control_after_generate}
            entry["input"][part][one.id] = [one.io_type, extra]
            entry["input_order"][part].append(one.id)
        told[node_id] = entry
    return told


def prompt_of(pack, name: str) -> dict:
    """An example graph as /prompt takes it, our own nodes only."""
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return comfyui_http.to_prompt(graph, catalogue(pack))


def only(prompt: dict, kind: str) -> list[str]:
    """The nodes of a type."""
    return [number for number, node in prompt.items() if node["class_type"] == f"TTSVAR_{kind}"]


def execute(pack, prompt: dict, done: dict[str, tuple] | None = None) -> dict[str, tuple]:
    """Run nodes in order, but for those that are done; the outputs of each by its id."""
    done = dict(done or {})
    while len(done) < len(prompt):
        for number, node in prompt.items():
            wires = {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
            if number in done or any(source not in done for source, _ in wires.values()):
                continue
            inputs = {**node["inputs"], **{name: done[source][slot] for name, (source, slot) in wires.items()}}
            if pack.nodes[node["class_type"]].define_schema().is_input_list:
                inputs = {name: [value] for name, value in inputs.items()}
            done[number] = pack.run(node["class_type"], **inputs)
    return done


def searched(pack, parts, plan):
    """The library's own run of a plan, with seed 0."""
    state = pack.core("state").start(parts["model"], parts["conditioning"], plan.samples, 0)
    return pack.core("search.run").run(state, plan, parts["reward"].inner, parts["extractor"].inner)


def test_graph_one_node_and_library_give_the_same_picture(pack, parts):
    prompt = prompt_of(pack, "03_full_search")
    (decoder,) = only(prompt, "DecodeState")
    wired = execute(pack, prompt)[decoder][0]
    image, finalists, state, report, _ = pack.run("TTSVAR_Generate", prompt=PROMPT, seed=0, method="TTS-VAR", **{
        name: parts[name] for name in ("model", "text_encoder", "reward", "extractor")
    })
    result = searched(pack, parts, pack.core("search.plan").tts_var(1))
    assert torch.equal(wired, result.images[[result.best]])
    assert torch.equal(image, wired) and torch.equal(finalists, image)
    assert json.loads(report)["answer"] == json.loads(json.dumps(result.report["answer"]))
    assert state.cache is None and state.finished


def test_the_graph_with_its_selectors_bypassed_is_best_of_8(pack, parts):
    """What the note of full_search says. A bypassed node hands on its first input of its output's type."""
    prompt = prompt_of(pack, "03_full_search")
    for number in [*only(prompt, "InspectState"), *only(prompt, "ClusterSelector"), *only(prompt, "PotentialResampler")]:
        handed_on = prompt.pop(number)["inputs"]["state"]
        for node in prompt.values():
            node["inputs"] = {name: handed_on if value == [number, 0] else value for name, value in node["inputs"].items()}
    (decoder,) = only(prompt, "DecodeState")
    result = searched(pack, parts, pack.core("search.plan").best_of_n(8))
    assert torch.equal(execute(pack, prompt)[decoder][0], result.images[[result.best]])


def test_the_2b_graph_runs_with_the_settings_its_note_gives_for_smaller_cards(pack, parts):
    """The 0.25M schedule's ten scales with few samples; both tips together, on the bundled model's networks."""
    plan = pack.core("search.plan").tts_var(1, 10)
    through, keep = [*(stage.scale for stage in plan.stages), -1], [3, 2, 2, 1]
    assert through == [2, 4, 5, 7, -1]
    note = (ROOT / "workflows" / "12_infinity_2b_full_search.json").read_text(encoding="utf-8")
    assert "end at 2, 4, 5, 7 and -1" in note and "4 samples" in note and "keep 3 and 2" in note
    prompt = prompt_of(pack, "12_infinity_2b_full_search")
    for number in (*only(prompt, "InspectState"), *only(prompt, "SaveImage")):
        del prompt[number]
    bundled = {"InfinityLoader": "model", "TextEncoderLoader": "text_encoder", "RewardLoader": "reward"}
    own = pack.core("scales").ScaleSchedule(parts["model"].schedule().grids[:10], parts["model"].schedule().rope_grid)
    model = replace(parts["model"], config=replace(parts["model"].config, own_schedule=own))
    done = {only(prompt, kind)[0]: ({**parts, "model": model}[name],) for kind, name in bundled.items()}
    done[only(prompt, "ExtractorLoader")[0]] = (parts["extractor"],)
    done[only(prompt, "PromptEncode")[0]] = (parts["conditioning"],)
    prompt[only(prompt, "StartState")[0]]["inputs"]["samples"] = 4
    for number, last in zip(only(prompt, "ScaleStepSampler"), through, strict=True):
        prompt[number]["inputs"]["through_scale"] = last
        assert prompt[number]["inputs"]["cache_policy"] == "offload"
    assert [prompt[number]["inputs"]["keep"] for number in only(prompt, "PotentialResampler")] == keep[2:]
    for number, left in zip(only(prompt, "ClusterSelector"), keep, strict=False):
        prompt[number]["inputs"]["keep"] = left
    state = execute(pack, prompt, done)[only(prompt, "SelectBest")[0]][0]
    assert state.finished and [step.scale for step in state.lineage] == [2, 4, 5, 7, 9]


def test_hosted_layers_change_nothing(pack, parts):
    """The bundled model as the loader builds it equals the library's own."""
    model, _ = pack.core("weights").load_bundled()
    assert model.fingerprint == parts["model"].fingerprint


def test_zero_takes_the_models_own_sampling(pack, parts, sketch):
    own = parts["model"].config.sampling
    assert sketch.steps[0] == own.at(0)
    sampler = sys.modules[pack.nodes["TTSVAR_ScaleStepSampler"].__module__]
    mixed = sampler.sampling_of(parts["model"], 1.5, 0.0, 0.9, sampler.LAST, 13)
    assert (mixed.guidance, mixed.tau, mixed.top_p) == (1.5, own.tau, 0.9)


def test_candidates_and_variety_are_drawn_as_the_widgets_say(pack, parts):
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=2, seed=3)
    (one,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=4)
    (three,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=4, candidates=3)
    assert three.samples == 6 and three.cache.nbytes == one.cache.nbytes
    assert all(torch.equal(a[:2], b) for a, b in zip(three.bits, one.bits, strict=True))
    (diverse,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=6, diverse=True)
    assert [step.certainty for step in diverse.steps] == [0.6, 0.6, 0.65, 0.7, 0.75, 0.8, None]


def test_a_beam_wired_by_hand_is_the_plan(pack, parts):
    plan = pack.core("search.plan").beam(1)
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=4, seed=0)
    for scale, candidates in ((4, 1), (5, 4), (6, 4)):
        (state,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=scale, candidates=candidates)
        state, *_ = pack.run("TTSVAR_RewardScorer", state=state, reward=parts["reward"])
        state, _ = pack.run("TTSVAR_SelectBest", state=state, keep=1)
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=state)
    (image,) = pack.run("TTSVAR_DecodeState", state=state)
    assert torch.equal(image, searched(pack, parts, plan).images)
    generated, *_ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="Beam", scheme="multinomial")
    assert torch.equal(generated, image)


def test_a_budget_in_pictures_says_what_it_chose(pack, parts):
    _, finalists, state, report, _ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="raw", budget=2)
    told = json.loads(report)
    assert told["budget"].startswith("budget of 2 pictures: ") and told["plan"]["name"] == "budget"
    assert len(finalists) == state.samples >= 1
    measured, paper = (json.loads(pack.run("TTSVAR_Generate", prompt=PROMPT, **how)[3]) for how in ({}, {"method": "TTS-VAR"}))
    assert measured["budget"].startswith("budget of 2 pictures: ") and measured["plan"]["foreseen"]
    assert [one["score"] >= 0.95 for one in measured["attempts"]] == [False] * (len(measured["attempts"]) - 1) + [True]
    hidden = json.loads(pack.run("TTSVAR_Generate", prompt=PROMPT, enough=100.0)[3])  # has no say where attempts are as measured
    assert len(hidden["attempts"]) == len(measured["attempts"]) < 4
    once = json.loads(pack.run("TTSVAR_Generate", prompt=PROMPT, attempts=1)[3])
    assert once["budget"].startswith("budget of 4 pictures: ") and len(once["attempts"]) == len(paper["attempts"]) == 1
    assert "budget" not in paper and paper["plan"]["name"] == "tts-var"
    with pytest.raises(ValueError, match="needs a reward"):
        pack.run("TTSVAR_Generate", prompt="a castle", model=named(parts["model"], "infinity_2b_reg"), budget=2)
    unmeasured = {"model": named(parts["model"], "infinity_2b_reg"), "reward": parts["reward"]}
    assert json.loads(pack.run("TTSVAR_Generate", prompt=PROMPT, **unmeasured)[3])["plan"]["name"] == "tts-var"


@pytest.mark.parametrize("budget", [1, 2.5])
def test_a_graph_by_the_numbers_of_a_budget_draws_what_the_whole_search_does(pack, parts, budget):
    model, reward, run = parts["model"], parts["reward"], pack.run
    (words,) = run("TTSVAR_PromptEncode", text_encoder=parts["text_encoder"], text=PROMPT)
    samples, scale, keep, foreseen, plan, reason = run("TTSVAR_BudgetPlan", model=model, conditioning=words, budget=budget)
    (state,) = run("TTSVAR_StartState", model=model, conditioning=words, samples=samples, seed=3)
    (state,) = run("TTSVAR_ScaleStepSampler", state=state, through_scale=scale, preview="off")
    state, _ = run("TTSVAR_RewardScorer", state=state, reward=reward, foreseen=foreseen)
    state, _ = run("TTSVAR_SelectBest", state=state, keep=keep)
    (state,) = run("TTSVAR_ScaleStepSampler", state=state, preview="off")
    state, _ = run("TTSVAR_RewardScorer", state=state, reward=reward)
    best, _ = run("TTSVAR_SelectBest", state=state, keep=1)
    (ours,) = run("TTSVAR_DecodeState", state=best)
    whole, *_, report, _ = run("TTSVAR_Generate", prompt=PROMPT, seed=3, budget=budget)
    assert torch.equal(ours, whole) and json.loads(report)["budget"] == reason
    assert json.loads(report)["plan"] == json.loads(plan) and (keep < samples) == (budget > 1)
    assert torch.equal(run("TTSVAR_Generate", prompt=PROMPT, seed=3, method="own plan", plan=plan)[0], whole)
    with pytest.raises(ValueError, match="wire a Reward Loader"):
        run("TTSVAR_BudgetPlan", model=named(model, "infinity_2b_reg"), conditioning=words)


def test_attempts_are_refused_where_scores_compare_one_search_only(pack):
    (scenes,) = pack.run("TTSVAR_RewardLoader")
    (ranks,) = pack.run("TTSVAR_BlendRewards", reward_1=scenes, reward_2=scenes, how="rank")
    with pytest.raises(ValueError, match="compares the pictures of one search"):
        pack.run("TTSVAR_Generate", prompt=PROMPT, reward=ranks, method="Best-of-N", attempts=2)


def test_attempts_end_with_the_first_that_is_good_enough(pack):
    usual = {"prompt": PROMPT, "method": "Best-of-N", "n": 2, "seed": 5}
    image, finalists, _, report, _ = pack.run("TTSVAR_Generate", **usual)
    score = json.loads(report)["answer"]["score"]
    same, _, _, told, _ = pack.run("TTSVAR_Generate", **usual, attempts=3, enough=score)
    assert torch.equal(same, image) and len(json.loads(told)["attempts"]) == 1
    best, all_of_them, state, told, _ = pack.run("TTSVAR_Generate", **usual, attempts=3, enough=100.0)
    made = json.loads(told)["attempts"]
    scores = [one["score"] for one in made]
    assert len(made) == 3 and scores[0] == score and state.seed == made[scores.index(max(scores))]["seed"]
    assert len(all_of_them) == 6 and torch.equal(all_of_them[:1], best)
    assert any(torch.equal(one, finalists[0]) for one in all_of_them)


def test_scorer_and_views_show_what_samples_become(pack, parts):
    (conditioning,) = pack.run("TTSVAR_PromptEncode", text_encoder=parts["text_encoder"], text=PROMPT)
    (started,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=conditioning, samples=3)
    early, late = (pack.run("TTSVAR_ScaleStepSampler", state=started, through_scale=scale, preview="off")[0] for scale in (5, 7))
    (reward,) = pack.run("TTSVAR_RewardLoader")
    sketch = pack.core("decoding").sketch
    for foreseen in (False, True):
        _, scores = pack.run("TTSVAR_RewardScorer", state=late, reward=reward, foreseen=foreseen)
        assert scores == pytest.approx(reward.score(sketch(late, foreseen=foreseen), PROMPT).tolist())
    sheet = pack.run("TTSVAR_InspectState", state=late)[0]
    assert not torch.equal(sheet, pack.run("TTSVAR_InspectState", state=late.without_cache())[0])
    with pytest.raises(ValueError, match="foretells after scales 6, 7 of its own size of picture, not after 5"):
        pack.run("TTSVAR_RewardScorer", state=early, reward=reward, foreseen=True)



def test_guidance_ends_where_the_widget_says(pack, parts):
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=2, seed=3)
    (part,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=4, guidance_until=3)
    own = parts["model"].config.sampling.guidance
    assert [step.guidance for step in part.steps] == [*own[:4], 1.0] and part.cache.branches == 1
    (always,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=4)
    assert [step.guidance for step in always.steps] == list(own[:5]) and always.cache.branches == 2
    _, _, finished, *_ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="raw", guidance_until=9)
    assert [step.guidance for step in finished.steps] == [*own[:10], 1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="guidance until scale 13: the last scale is 12"):
        pack.run("TTSVAR_ScaleStepSampler", state=state, guidance_until=13)


def test_who_looks_sees_the_size_sampled_so_far_and_decode_state_the_whole(pack, parts, sketch):
    tokenizer = replace(parts["model"].config.tokenizer, smallest_side=16)
    model = replace(parts["model"], config=replace(parts["model"].config, tokenizer=tokenizer))
    state, seen = sketch._replace(model=model), []

    class Sides(Brightness):
        def score(self, images, prompt):
            seen.append(images.shape[1])
            return super().score(images, prompt)

    pack.run("TTSVAR_RewardScorer", state=state, reward=Sides())
    (whole,) = pack.run("TTSVAR_DecodeState", state=state)
    small, full = (pack.run("TTSVAR_InspectState", state=state, whole_size=size)[0] for size in (False, True))
    assert seen[0] < 128 and whole.shape[1] == 128 and not torch.equal(small, full)


def test_decode_state_decodes_in_tiles_where_asked(pack, sketch):
    """96 of 128 pixels in tiles: close to the whole picture, and not it. 128 is the whole."""
    (whole,), (tiled,), (one_tile,) = (
        pack.run("TTSVAR_DecodeState", state=sketch, tile_size=side) for side in (0, 96, 128)
    )
    assert torch.equal(one_tile, whole) and tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() < 0.1


def test_progress_previews_every_scale(pack, parts):
    pack.host.steps.clear()
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=3, seed=1)
    pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=2)
    assert [(value, total) for value, total, _ in pack.host.steps] == [(1, 3), (2, 3), (3, 3)]
    kind, picture, side = pack.host.steps[0][2]
    assert kind == "JPEG" and max(picture.size) <= side == 512


def test_no_preview_is_decoded_where_it_is_off_here_or_in_comfyui(pack, parts, monkeypatch):
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=3, seed=1)
    monkeypatch.setattr(pack.core("decoding"), "decode_features", lambda *_, **__: pytest.fail("decoded"))
    for method, shown in (("auto", "off"), ("none", "all samples")):
        monkeypatch.setattr(pack.host.settings, "preview_method", method)
        pack.host.steps.clear()
        pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=1, preview=shown)
        assert [preview for *_, preview in pack.host.steps] == [None, None]


def test_previews_take_a_quarter_of_the_time_at_most(pack, parts, monkeypatch):
    """A preview that takes as long as one scale is shown after every third scale."""
    clock = [0.0]
    sampler = sys.modules[pack.nodes["TTSVAR_ScaleStepSampler"].__module__]
    monkeypatch.setattr(sampler.time, "monotonic", lambda: clock[0])

    def slow(*_):
        clock[0] += 1.0
        return "a picture"

    monkeypatch.setattr(pack.core("inspect.preview"), "preview", slow)
    watch = sampler.previewer(7, "all samples")
    pack.host.steps.clear()
    for _ in range(7):
        clock[0] += 1.0
        watch(None)
    assert [bool(preview) for *_, preview in pack.host.steps] == [True, False, False, True, False, False, True]


def test_the_answer_is_the_last_preview_of_a_search(pack):
    """The page leaves the last one on the node: not that of the picture without a search, nor of a worse attempt."""
    pack.host.steps.clear()
    image, *_, alone = pack.run("TTSVAR_Generate", prompt=PROMPT, method="Best-of-N", n=2, attempts=2, enough=100.0, compare=True)
    *_, (_, _, (_, last, _)) = pack.host.steps
    left = torch.from_numpy(np.array(last)).float() / 255
    assert (left - image[0]).abs().max() <= 0.5 / 255 + 1e-6 and not torch.equal(image, alone)
    pack.host.steps.clear()
    pack.run("TTSVAR_Generate", prompt=PROMPT, method="raw", preview="off")
    assert not any(shown for *_, shown in pack.host.steps)


def test_an_interrupt_stops_between_scales_and_leaves_the_state_as_it_was(pack, parts, sketch):
    bits, pack.host.checks, pack.host.stop_after = [one.clone() for one in sketch.bits], 0, 3
    try:
        with pytest.raises(Interrupted):
            pack.run("TTSVAR_ScaleStepSampler", state=sketch)
    finally:
        pack.host.stop_after = None
    assert sketch.next_scale == 6 and all(torch.equal(a, b) for a, b in zip(bits, sketch.bits, strict=True))
    assert pack.run("TTSVAR_ScaleStepSampler", state=sketch)[0].finished


def test_an_interrupt_reaches_the_networks_of_a_reward(pack):
    """Every forward pass of a hosted network looks at the stop button, and the hook is gone afterwards."""
    network = torch.nn.Linear(2, 2)
    hosted = pack.imported("nodes.host.hosted").host("a reward", [network])
    pack.host.checks, pack.host.stop_after = 0, 2
    try:
        with pytest.raises(Interrupted), pack.imported("nodes.host.device").running(hosted):
            network(torch.zeros(1, 2))
            network(torch.zeros(1, 2))
    finally:
        pack.host.stop_after = None
    assert not network._forward_pre_hooks and pack.host.checks == 3


@pytest.mark.parametrize("policy", ["keep", "offload", "drop"])
def test_cache_policies_go_on_to_the_same_picture(pack, parts, policy):
    (state,) = pack.run("TTSVAR_StartState", model=parts["model"], conditioning=parts["conditioning"], samples=2, seed=3)
    (whole,) = pack.run("TTSVAR_ScaleStepSampler", state=state)
    (half,) = pack.run("TTSVAR_ScaleStepSampler", state=state, through_scale=5, cache_policy=policy)
    assert (half.cache is None) == (policy == "drop")
    (rest,) = pack.run("TTSVAR_ScaleStepSampler", state=half)
    assert all(torch.equal(a, b) for a, b in zip(whole.bits, rest.bits, strict=True))
    assert whole.cache is None and rest.cache is None  # nothing reads those of a finished state


def test_a_saved_state_comes_back(pack, parts, sketch):
    (path,) = pack.run("TTSVAR_SaveState", state=sketch, filename_prefix="sub/one")
    state, prompt = pack.run("TTSVAR_LoadState", model=parts["model"], text_encoder=parts["text_encoder"], path=path)
    assert prompt == PROMPT and all(torch.equal(a, b) for a, b in zip(state.bits, sketch.bits, strict=True))
    newest, _ = pack.run("TTSVAR_LoadState", model=parts["model"], text_encoder=parts["text_encoder"])
    assert torch.equal(newest.features, sketch.features)
    node = pack.nodes["TTSVAR_LoadState"]
    assert node.fingerprint_inputs(file="(newest)") != node.fingerprint_inputs(file="no such file")
    wired = node.fingerprint_inputs(file="(newest)", path=None)  # what the host passes for a wire
    pack.run("TTSVAR_SaveState", state=sketch, filename_prefix="sub/another")
    assert node.fingerprint_inputs(file="(newest)", path=None) == wired
    assert path in node.fingerprint_inputs(file="(newest)", path=path)


def test_saving_again_leaves_the_earlier_state_alone(pack, sketch):
    paths = [Path(pack.run("TTSVAR_SaveState", state=sketch, filename_prefix="again/s")[0]) for _ in range(3)]
    assert len(set(paths)) == 3 and all(path.is_file() for path in paths)
    paths[0].rename(paths[2].with_name("s_00004_ a note.state.safetensors"))
    paths[2].with_name("s_00005_.state.safetensors").touch()
    (path,) = pack.run("TTSVAR_SaveState", state=sketch, filename_prefix="again/s")
    assert Path(path).name == "s_00006_.state.safetensors"
    options = next(one for one in pack.nodes["TTSVAR_LoadState"].define_schema().inputs if one.id == "file").options["options"]
    assert "again/s_00002_.state.safetensors [output]" in options


def test_states_outside_the_hosts_folders_are_refused(pack, parts, sketch, tmp_path):
    (path,) = pack.run("TTSVAR_SaveState", state=sketch)
    outside = tmp_path / "stolen.state.safetensors"
    outside.write_bytes(Path(path).read_bytes())
    with pytest.raises(ValueError, match="outside"):
        pack.run("TTSVAR_LoadState", model=parts["model"], text_encoder=parts["text_encoder"], path=str(outside))


def test_a_state_from_an_image_shows_the_image(pack, parts):
    image, *_ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="raw", seed=2)
    (state,) = pack.run(
        "TTSVAR_StateFromImage", model=parts["model"], conditioning=parts["conditioning"], image=image, through_scale=11,
        samples=2, seed=0,
    )
    assert state.samples == 2 and state.next_scale == 12
    (again,) = pack.run("TTSVAR_DecodeState", state=state)
    (flat,) = pack.run("TTSVAR_DecodeState", state=state._replace(features=torch.zeros_like(state.features)))
    near, far = ((one[:1] - image).abs().mean() for one in (again, flat))
    assert near < 0.5 * far
    (done,) = pack.run("TTSVAR_ScaleStepSampler", state=state)
    assert done.finished


def test_an_image_of_another_shape_is_cut_to_the_canvas(pack, parts):
    wide = torch.zeros(1, 50, 200, 3)
    wide[:, :, 75:125] = 1.0  # the middle square
    pixels = pack.core("search.from_image").on_canvas(wide, parts["model"].schedule(), 8)
    assert pixels.shape == (1, 3, 128, 128) and pixels.min() > 0.5


def test_scores_from_other_nodes_select_like_our_own(pack, parts, sketch):
    scored, scores = pack.run("TTSVAR_RewardScorer", state=sketch, reward=parts["reward"])
    text = "\n".join(f"score: {score!r}" for score in scores)
    for given in ([scores], [torch.tensor(scores)], [text], scores):
        (bridged,) = pack.run("TTSVAR_AttachScores", state=[sketch], scores=list(given))
        torch.testing.assert_close(bridged.scores, scored.scores, rtol=0, atol=0, equal_nan=True)
    for given in (["[0.1 0.2\t0.3\n0.4]"], ["scores: 0.1, second .2, 3e-1, -4"], ["0.1;0.2", 0.3, torch.tensor([0.4])]):
        assert pack.run("TTSVAR_AttachScores", state=[sketch], scores=given)[0].scores[:, 5].isfinite().all()


@pytest.mark.parametrize(("given", "words"), [
    ([1.0], "1 scores came for 4 samples; give one per sample"),
    (["sample 1: 0.5, sample 2: 0.7"], "Cannot tell which score is meant by 'sample 1: 0.5'"),
    (["1. image 0: 0.9\n2. image 1: 0.8"], "Cannot tell which score"),
    (["0.1, 0.2, nan, 0.4"], "Cannot tell which score is meant by 'nan'"),
    ([0.1, 0.2, float("nan"), 0.4], "score of sample 2 is nan"),
    ([0.1, 1e39, 0.3, 0.4], "score of sample 1 is 1e+39"),
    ([0.1, 0.2, 0.3, True], "got True"),
])
def test_scores_that_leave_a_doubt_are_refused(pack, sketch, given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        pack.run("TTSVAR_AttachScores", state=[sketch], scores=given)


def test_score_images_sorts_best_first(pack, parts, sketch):
    (images,) = pack.run("TTSVAR_DecodeState", state=pack.run("TTSVAR_ScaleStepSampler", state=sketch)[0])
    ordered, scores, report = pack.run("TTSVAR_ScoreImages", images=images, reward=parts["reward"], prompt=PROMPT)
    assert scores == sorted(scores, reverse=True) and len(report.splitlines()) == len(images) + 1
    again = parts["reward"].score(ordered, PROMPT).tolist()
    assert again == pytest.approx(scores)


def test_by_hand_keeps_what_was_named(pack, sketch):
    chosen, reason = pack.run("TTSVAR_SelectByHand", state=sketch, numbers="#3, 0-1 1")
    assert torch.equal(chosen.features, sketch.features[[3, 0, 1, 1]]) and "hand" in reason
    for wrong, words in (("4", "0 to 3"), ("", "no rows"), ("two", "Cannot read"), ("3-1", "backwards"),
                         ("0-3 " * 40, "at most 64"), ("9" * 5000, "Cannot read")):
        with pytest.raises(ValueError, match=words):
            pack.run("TTSVAR_SelectByHand", state=sketch, numbers=wrong)


def test_a_giant_range_is_refused_before_it_is_a_list(pack, sketch):
    tracemalloc.start()
    try:
        for wrong in ("0-30000000", "0-1000000", "9" * 18):
            with pytest.raises(ValueError, match="name rows from 0 to 3") as refused:
                pack.run("TTSVAR_SelectByHand", state=sketch, numbers=wrong)
            assert len(str(refused.value)) < 200
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_no_selector_keeps_more_than_there_are(pack, parts, sketch):
    scored, _ = pack.run("TTSVAR_RewardScorer", state=sketch, reward=parts["reward"])
    for node, more in (("ClusterSelector", {"extractor": parts["extractor"]}), ("PotentialResampler", {}), ("SelectBest", {})):
        with pytest.raises(ValueError, match=r"keep is 64, but only 4 samples are there; keep at most 4"):
            pack.run(f"TTSVAR_{node}", state=scored, keep=64, **more)
    for wrong in ({"target_ess": math.nan}, {"ess_threshold": math.nan}, {"target_ess": 1.5}, {"ess_threshold": -0.5}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name} is .*; it is a share of the samples, above 0 and at most 1"):
            pack.run("TTSVAR_PotentialResampler", state=scored, keep=2, **wrong)
    with pytest.raises(ValueError, match="lambda is nan"):
        pack.run("TTSVAR_PotentialResampler", state=scored, keep=2, lambda_=math.nan)


def test_a_scale_that_is_done_already_is_answered_with_what_to_type(pack, sketch):
    for wrong, words in ((1, "scale 1 is sampled already. Name 6 to 12"), (14, "12 is the last. Name 6 to 12")):
        with pytest.raises(ValueError, match=words):
            pack.run("TTSVAR_ScaleStepSampler", state=sketch, through_scale=wrong)


def test_inspect_draws_every_sheet(pack, parts, sketch):
    scored, _ = pack.run("TTSVAR_RewardScorer", state=sketch, reward=parts["reward"])
    cut, _ = pack.run("TTSVAR_PotentialResampler", state=scored, keep=2)
    node = pack.nodes["TTSVAR_InspectState"].execute(state=cut)
    assert len(node.ui["images"]) == 1 and len(node.args) == 5
    for sheet in node.args[:4]:
        assert sheet.ndim == 4 and sheet.shape[0] == 1 and sheet.shape[-1] == 3 and sheet.min() >= 0 and sheet.max() <= 1
    assert PROMPT in node.args[4] and "4 -> 2" in node.args[4]


def test_a_blend_is_a_reward_whose_networks_are_hosted(pack, parts):
    (blend,) = pack.run("TTSVAR_BlendRewards", reward_1=parts["reward"], reward_2=parts["reward"], how="weighted", weight_2=-1.0)
    assert torch.equal(blend.score(torch.rand(3, 64, 64, 3), PROMPT), torch.zeros(3))
    assert blend.patchers == ()


def test_any_number_of_rewards_is_blended(pack):
    class Channel:
        range = (0.0, 1.0)

        def __init__(self, number: int) -> None:
            self.number, self.name, self.patchers = number, f"channel {number}", (f"patcher {number}",)

        def score(self, images, prompt):
            return images[:, 0, 0, self.number]

    images = torch.rand(3, 1, 1, 8)
    more = {f"reward_{name}": Channel(number) for name, number in ((7, 4), (5, 2), (12, 3))}  # in any order, with gaps
    wired = {"reward_1": Channel(0), "reward_2": Channel(1), "how": "weighted"}
    (blend,) = pack.run("TTSVAR_BlendRewards", **wired, more=more, more_weights="2, 0.5, -1", weight_2=3.0)
    weights = torch.tensor([1.0, 3, 2, 0.5, 0, 0, 0, 0])
    weights[[2, 4, 3]] = torch.tensor([2.0, 0.5, -1])
    assert torch.allclose(blend.score(images, ""), images[:, 0, 0] @ weights)
    assert blend.patchers == tuple(f"patcher {number}" for number in (0, 1, 2, 4, 3))
    (blend,) = pack.run("TTSVAR_BlendRewards", **wired, more=more)
    assert torch.allclose(blend.score(images, ""), images[:, 0, 0, :5].sum(1))
    with pytest.raises(ValueError, match="4 weights for 5 rewards"):
        pack.run("TTSVAR_BlendRewards", **wired, more=more, more_weights="1, 1")


@pytest.mark.parametrize(
    "plan",
    [
        {"samples": 3, "stages": [{"kind": "resample", "scale": 6, "keep": 1}]},
        {"samples": 3, "survivors": [3] * 6 + [1] * 7, "selectors": {"6": {"kind": "potential"}}},  # of a graph saved early
    ],
)
def test_an_own_plan_runs_and_a_broken_one_says_what_is_wrong(pack, plan):
    _, finalists, state, *_ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="own plan", plan=json.dumps(plan))
    assert len(finalists) == 1 and state.lineage[0].scale == 6
    with pytest.raises(ValueError, match="not JSON"):
        pack.run("TTSVAR_Generate", prompt=PROMPT, method="own plan", plan="{")


def test_the_plan_that_is_shown_is_the_papers(pack):
    generate = sys.modules[pack.nodes["TTSVAR_Generate"].__module__]
    assert generate._plan("own plan", 1, 13, generate._PLAN_EXAMPLE, {}).stages == pack.core("search.plan").tts_var(1).stages


@pytest.fixture
def no_search(pack, monkeypatch):
    """Nothing is sampled."""
    monkeypatch.setattr(pack.core("search.run"), "run", lambda *_, **__: pytest.fail("searched"))


def named(model, name):
    """The model under another name, as a real one has it."""
    return replace(model, config=replace(model.config, name=name))


def test_only_the_bundled_model_brings_a_reward(pack, parts, no_search):
    for method in ("TTS-VAR", "Best-of-N", "Importance Sampling"):
        with pytest.raises(ValueError, match=f"{method} needs a reward: wire a Reward Loader"):
            pack.run("TTSVAR_Generate", prompt="a castle", model=named(parts["model"], "infinity_2b_reg"), method=method, n=2)


def test_a_model_of_ones_own_without_a_reward_draws_raw_pictures(pack, parts):
    model = named(parts["model"], "infinity_2b_reg")
    image, *_, report, _ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="raw", model=model)
    assert image.shape == (1, 128, 128, 3) and json.loads(report)["reward"] is None
    *_, report, _ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="raw", model=parts["model"])
    assert json.loads(report)["reward"] == "scenes"


@pytest.mark.parametrize("blended", [False, True])
def test_a_prompt_the_verifier_cannot_judge_is_refused_before_any_work(pack, parts, no_search, blended):
    (blend,) = pack.run("TTSVAR_BlendRewards", reward_1=parts["reward"], reward_2=parts["reward"])
    for wired in ({}, {"model": named(parts["model"], "mine"), "reward": blend if blended else parts["reward"]}):
        with pytest.raises(ValueError, match=r"scene verifier .*a castle.* take another reward") as refused:
            pack.run("TTSVAR_Generate", prompt="a castle", **wired)
        assert type(refused.value) is ValueError  # the host would title a class of our own with its path
    encoding, scoring = {"text_encoder": parts["text_encoder"]}, {"images": torch.rand(1, 64, 64, 3)}
    for prompt, node, inputs in (("text", "PromptEncode", encoding), ("prompt", "ScoreImages", scoring)):
        with pytest.raises(ValueError, match="a castle"):
            pack.run(f"TTSVAR_{node}", reward=blend if blended else parts["reward"], **{prompt: "a castle"}, **inputs)
    (any_prompt,) = pack.run("TTSVAR_PromptEncode", text_encoder=parts["text_encoder"], text="a castle")
    assert any_prompt.prompt == "a castle"


def test_a_raw_picture_needs_no_judge(pack, parts):
    """The reward decides nothing there, so a prompt it cannot judge is drawn all the same."""
    for wired in ({}, {"reward": parts["reward"]}):
        image, *_, report, _ = pack.run("TTSVAR_Generate", prompt="a castle", method="raw", **wired)
        assert image.shape == (1, 128, 128, 3) and json.loads(report)["reward"] is None


def test_half_a_bundled_model_is_refused(pack):
    with pytest.raises(ValueError, match="only fit each other"):
        pack.run("TTSVAR_InfinityLoader", tokenizer="other.safetensors")


@pytest.mark.parametrize("reward", ["ImageReward", "HPS v2.1", "Aesthetic v2.5", "PickScore", "CLIPScore"])
def test_a_reward_without_its_file_says_where_to_get_it(pack, reward):
    with pytest.raises(FileNotFoundError, match=r"https://.*reward_models"):
        pack.run("TTSVAR_RewardLoader", reward=reward)


@pytest.fixture(scope="module")
def tiny_networks(pack):
    """Small networks in models/reward_models."""
    folder = pack.host.folder / "models" / "reward_models"
    (folder / "a_folder").mkdir(parents=True)
    (folder / "a_folder" / "config.json").write_text("{}")
    (pack.host.folder / "elsewhere").mkdir()
    (pack.host.folder / "elsewhere" / "model.safetensors.index.json").write_text("{}")
    (folder / "b_linked").symlink_to(pack.host.folder / "elsewhere", target_is_directory=True)
    for name in ("image_reward_tiny", "dinov2_reg_tiny"):
        for suffix in (".safetensors", ".json"):
            (folder / (name + suffix)).write_bytes((ROOT / "tests" / "golden" / (name + suffix)).read_bytes())


def test_loaders_find_files_and_folders(pack, tiny_networks):
    options = next(one for one in pack.nodes["TTSVAR_RewardLoader"].define_schema().inputs if one.id == "file").options["options"]
    assert options == ["auto", "a_folder", "b_linked", "dinov2_reg_tiny.safetensors", "image_reward_tiny.safetensors"]
    (dino,) = pack.run("TTSVAR_ExtractorLoader", extractor="DINOv2 Pool", file="dinov2_reg_tiny.safetensors")
    assert len(dino.patchers) == 1 and dino.describe(torch.rand(2, 64, 64, 3)).shape[0] == 2


def test_no_name_leads_out_of_the_model_folders(pack, tmp_path):
    (tmp_path / "evil.pt").write_bytes(b"")
    roundabout = os.path.relpath(tmp_path / "evil.pt", pack.host.folder / "models" / "reward_models")
    (pack.host.folder / "models" / "reward_models").mkdir(exist_ok=True)
    for name in (str(tmp_path / "evil.pt"), roundabout):
        refused = pack.nodes["TTSVAR_RewardLoader"].validate_inputs(reward="ImageReward", file=name, head_file="auto")
        assert refused is not True and "There is no" in refused


def test_dinov2_maps_are_drawn(pack, sketch, tiny_networks):
    (dino,) = pack.run("TTSVAR_ExtractorLoader", extractor="DINOv2 PCA", file="dinov2_reg_tiny.safetensors")
    plain, with_dino = (pack.run("TTSVAR_InspectState", state=sketch, extractor=one)[3] for one in (None, dino))
    assert plain.shape == with_dino.shape and not torch.equal(plain, with_dino)
    assert pack.run("TTSVAR_ClusterSelector", state=sketch, extractor=dino, keep=2)[0].samples == 2


def test_the_page_gets_the_maps_of_this_look_and_not_of_one_before(pack, sketch, tiny_networks):
    (dino,) = pack.run("TTSVAR_ExtractorLoader", extractor="DINOv2 PCA", file="dinov2_reg_tiny.safetensors")
    look = pack.nodes["TTSVAR_InspectState"].execute
    small, whole = (look(sketch, dino, whole_size=whole).ui["ttsvar_view"][0]["maps"][0]["filename"] for whole in (False, True))
    pictures = [(pack.host.folder / "temp" / name).read_bytes() for name in (small, whole)]
    assert pictures[0] != pictures[1]
    again, once_more = (look(sketch).ui["ttsvar_view"][0]["maps"] for _ in range(2))
    assert again == once_more


class Brightness:
    """A reward with a network of its own."""

    name, range = "brightness", (0.0, 1.0)

    def __init__(self):
        self.network = torch.nn.Identity()

    def score(self, images, prompt):
        return self.network(images).mean((1, 2, 3))


def test_networks_take_turns_where_the_card_holds_only_one_of_them(pack, parts, tiny_networks, monkeypatch):
    """Whatever TTS-VAR Generate runs was the last thing loaded: with room for one, ComfyUI would have moved all else away."""
    judge, model, ran = Brightness(), parts["model"], []
    reward = pack.imported("nodes.host.hosted").host(judge, [judge.network])
    (dino,) = pack.run("TTSVAR_ExtractorLoader", extractor="DINOv2 PCA", file="dinov2_reg_tiny.safetensors")

    def watch(thing, method, name, patcher):
        whole = getattr(thing, method)

        def checked(*arguments, **keywords):
            assert pack.host.loaded[-1] is patcher, name
            ran.append(name)
            return whole(*arguments, **keywords)

        monkeypatch.setattr(thing, method, checked)

    watch(model.transformer, "forward_scale", "transformer", model.patcher)
    watch(model.tokenizer, "decode", "tokenizer", model.tokenizer_patcher)
    watch(dino.inner.model, "forward", "extractor", *dino.patchers)
    watch(judge.network, "forward", "reward", *reward.patchers)
    pack.run("TTSVAR_Generate", prompt=PROMPT, model=model, reward=reward, extractor=dino, preview="off")
    turns = [name for name, _ in itertools.groupby(ran)]
    by_cluster, by_score = ["transformer", "tokenizer", "extractor"], ["transformer", "tokenizer", "reward"]
    assert turns == [*by_cluster, *by_cluster, *by_score, *by_score, *by_score]
