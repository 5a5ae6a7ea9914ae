"""What nodes show while they run and afterwards: how far they are, what it costs, what was decided, what is missing."""

from __future__ import annotations

import re
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from host_stand_in import load_pack

from ttsvar_core.flops import scale_flops

PROMPT = "a photo of a red circle left of a blue square"


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def started(pack):
    (model,), (encoder,) = pack.run("TTSVAR_InfinityLoader"), pack.run("TTSVAR_TextEncoderLoader")
    (conditioning,) = pack.run("TTSVAR_PromptEncode", text_encoder=encoder, text=PROMPT)
    return pack.run("TTSVAR_StartState", model=model, conditioning=conditioning, samples=3, seed=1)[0]


def said(pack, node: str, **inputs) -> tuple[list[str], tuple]:
    pack.host.said.clear()
    outputs = pack.run(node, **inputs)
    return [" ".join(words.split()) for words in pack.host.said], outputs  # lines are broken to fit a node


def budget_module(pack):
    """nodes/budget.py as the pack imported it."""
    generate = pack.nodes["TTSVAR_Generate"].__module__
    return sys.modules[f"{generate.rpartition('.')[0]}.budget"]


def test_a_sampler_says_how_far_it_is_and_what_it_drew_with(pack, started):
    lines, _ = said(pack, "TTSVAR_ScaleStepSampler", state=started, through_scale=2, preview="off")
    told = [f"scale {scale} of 12, 3 samples, " for scale in range(3)]
    assert [line.startswith(one) and line.endswith(" left") for line, one in zip(lines, told, strict=False)] == [True] * 3
    assert lines[3:] and lines[-1].startswith("scale 2, 3 samples, ") and lines[-1].endswith("guidance 2, tau 1, top-p 1")


def test_selectors_say_their_reason_and_scorers_their_best(pack, started):
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=started, through_scale=6, preview="off")
    lines, (scored, scores) = said(pack, "TTSVAR_RewardScorer", state=state, reward=pack.run("TTSVAR_RewardLoader")[0])
    best = max(range(3), key=scores.__getitem__)
    assert lines == [f"scenes: best {scores[best]:.3f} (number {best}), mean {sum(scores) / 3:.3f}"]
    for node, inputs in (
        ("TTSVAR_PotentialResampler", {"state": scored, "keep": 2}), ("TTSVAR_SelectBest", {"state": scored}),
        ("TTSVAR_SelectByHand", {"state": scored, "numbers": "0"}),
        ("TTSVAR_ClusterSelector", {"state": state, "keep": 2, "extractor": pack.run("TTSVAR_ExtractorLoader")[0]}),
    ):
        lines, (_, reason) = said(pack, node, **inputs)
        assert lines == [reason] and reason


def test_a_comparing_reward_says_that_one_picture_alone_tells_nothing(pack):
    (reward,) = pack.run("TTSVAR_RewardLoader")
    (blend,) = pack.run("TTSVAR_BlendRewards", reward_1=reward, reward_2=reward)
    for pictures, judge, warns in ((1, blend, True), (2, blend, False), (1, reward, False)):
        given = {"images": torch.rand(pictures, 64, 64, 3), "reward": judge, "prompt": PROMPT}
        lines, (*_, report) = said(pack, "TTSVAR_ScoreImages", **given)
        assert ["one alone says nothing" in words for words in (*lines, report)] == [warns] * 2


def test_saving_and_loading_say_what_and_where(pack, started):
    (state,) = pack.run("TTSVAR_ScaleStepSampler", state=started, through_scale=1, preview="off")
    lines, (path,) = said(pack, "TTSVAR_SaveState", state=state)
    assert re.fullmatch(r"saved state_00001_\.state\.safetensors, [\d,]+ bytes", lines[0])
    encoder = pack.run("TTSVAR_TextEncoderLoader")[0]
    lines, _ = said(pack, "TTSVAR_LoadState", model=started.model, text_encoder=encoder, path=path)
    assert lines == [f"state_00001_.state.safetensors: 3 samples after scale 1, {PROMPT}"]


def test_a_search_says_its_price_before_its_progress_and_its_result_last(pack):
    lines, (image, *_, raw) = said(pack, "TTSVAR_Generate", prompt=PROMPT, seed=3, method="TTS-VAR", preview="off", compare=True)
    price = r"8 → 6 → 4 → 2 → 1 samples: the work of \d\.\d pictures(, (under|about) .+)?, \d+ MiB beside the weights"
    assert re.fullmatch(price, lines[0])
    assert sum(line.startswith("scale ") for line in lines) == 26  # of the search, and of the picture without one
    assert re.fullmatch(r"best 0\.\d+ of 1 finished, .+, the work of \d\.\d pictures", lines[-1])
    lines, (alone, *_, nothing) = said(pack, "TTSVAR_Generate", prompt=PROMPT, seed=3, preview="off", method="raw")
    assert lines[0].startswith("1 sample: the work of 1.0 pictures")
    assert torch.equal(raw, alone) and image.shape == alone.shape
    assert nothing.message is None  # what takes it does not run, and that is no error


def test_a_price_is_told_without_a_picture_and_its_time_before_any_run(pack, monkeypatch):
    monkeypatch.setattr(budget_module(pack), "_PACES", {})
    lines, (*blocked, report, raw) = said(pack, "TTSVAR_Generate", prompt=PROMPT, only_price=True)
    price = r"up to 4 attempts, each \d+ → \d+ samples: the work of \d\.\d pictures, (under|about) .+, \d+ MiB beside the weights"
    assert lines == [report] and re.fullmatch(price, report)
    (dearer,), _ = said(pack, "TTSVAR_Generate", prompt=PROMPT, only_price=True, compare=True)
    assert dearer.startswith("up to 4 attempts") and dearer.endswith("beside the weights; one picture more to compare")
    assert [output.message for output in (*blocked, raw)] == [None] * 4  # what takes them does not run, and that is no error


@pytest.mark.parametrize("seconds, scale", [(0.3, 8), (0.6, 0)], ids=["quick", "slow"])
def test_the_pace_of_a_model_is_learnt_from_a_few_scales(pack, started, monkeypatch, seconds, scale):
    budget, sampling = budget_module(pack), started.model.config.sampling
    monkeypatch.setattr(budget, "_PACES", {})
    looks_at_the_clock = count(step=seconds)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(looks_at_the_clock)))
    budget.learn_pace(started, sampling)
    branches, tokens = sampling.branches(13), len(started.conditioning.text)
    work = scale_flops(started.model.config.transformer, started.schedule, scale, 1, branches[scale], tokens)
    (pace,) = budget._PACES.values()
    assert pace == pytest.approx(seconds / work)



def test_a_plan_says_what_it_is_in_a_line(pack):
    (words,) = pack.run("TTSVAR_PromptEncode", text_encoder=pack.run("TTSVAR_TextEncoderLoader")[0], text=PROMPT)
    model = pack.run("TTSVAR_InfinityLoader")[0]
    for budget, expected in ((1, "1 start, all finish: the work of 1.0 pictures"),
                             (2, "7 start, the best 1 after scale 7 finish: the work of 2.0 pictures")):
        lines, (*_, reason) = said(pack, "TTSVAR_BudgetPlan", model=model, conditioning=words, budget=budget)
        assert lines == [expected] and reason.startswith(f"budget of {budget} picture")


def test_the_whole_search_says_which_attempt_it_is(pack):
    usual = {"prompt": PROMPT, "method": "Best-of-N", "n": 2, "preview": "off", "attempts": 2, "enough": 100.0}
    lines, _ = said(pack, "TTSVAR_Generate", **usual)
    assert sum(line.startswith("attempt 1 of 2 at most: 2 samples") for line in lines) == 1
    assert sum(line.startswith("attempt 2 of 2 at most: 2 samples") for line in lines) == 1
    assert re.fullmatch(r"best 0\.\d+ in 2 attempts, .+, the work of [34]\.\d pictures", lines[-1])


def test_what_is_missing_is_told_before_anything_runs(pack):
    reward, extractor = pack.nodes["TTSVAR_RewardLoader"], pack.nodes["TTSVAR_ExtractorLoader"]
    assert reward.validate_inputs("scene verifier (bundled)", "auto", "auto") is True
    assert "ImageReward.pt" in reward.validate_inputs("ImageReward", "auto", "auto")
    assert "huggingface.co/THUDM/ImageReward" in reward.validate_inputs("ImageReward", "auto", "auto")
    assert "dinov2_vitl14_reg4_pretrain.pth" in extractor.validate_inputs("DINOv2 PCA", "auto")
    assert "choose one of" in reward.validate_inputs("beauty", "auto", "auto")
    assert reward.validate_inputs(None, "auto", "auto") is True  # a wire brings it


def test_the_time_left_follows_the_work_done(pack, started, monkeypatch):
    module = budget_module(pack)
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "_PACES", {})
    run = module.Budget(started.model, {0: 10, 1: 30}, {1: 60}, {0: 4, 1: 4}, 13)
    assert run.expected is None  # nothing is known of this machine
    clock[0] += 2.0
    half = started._replace(next_scale=1, bits=started.bits, features=started.features[:2])
    assert run.drawn(half).startswith("scale 0 of 12, 2 samples") and run.expected == pytest.approx(2.0 / 5 * 95)  # a group of two
    run.drawn(half)
    run.drawn(half._replace(next_scale=2)), run.drawn(half._replace(next_scale=2))
    assert run.expected == pytest.approx(2.0 / 40 * 60)
    run.looked(1)
    assert run.expected == 0 and run.ended() == "2 s"
    again = module.Budget(started.model, {0: 50}, {}, {0: 1}, 13)
    assert again.expected == pytest.approx(1.0)


@pytest.mark.parametrize("seconds, words", [(0.4, "under 1 s"), (9.2, "9 s"), (99, "99 s"), (200, "3 min")])
def test_seconds_are_said_as_people_say_them(pack, seconds, words):
    assert budget_module(pack).duration(seconds) == words


@pytest.mark.parametrize("client", ["page", None])
def test_words_go_to_the_page_that_asked_and_to_no_other(pack, started, monkeypatch, client):
    told, server = [], sys.modules["server"].PromptServer.instance
    monkeypatch.setattr(server, "client_id", client)
    monkeypatch.setattr(server, "send_progress_text", lambda text, node, page: told.append((node, page)))
    pack.run("TTSVAR_ScaleStepSampler", state=started, through_scale=0, preview="off")
    assert {*told} == ({("1", "page")} if client else set())
