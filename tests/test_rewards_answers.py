"""What a score is made of reaches whoever asks why a picture lost: the report, the state, the nodes."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch

from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.infinity.text import encode_prompt
from ttsvar_core.inspect.words import describe
from ttsvar_core.rewards.base import Answers, answer_lines, explained
from ttsvar_core.rewards.blend import Blend
from ttsvar_core.search.plan import tts_var
from ttsvar_core.search.run import run
from ttsvar_core.state import start
from ttsvar_core.weights import load_bundled

PROMPT = "a photo of a red circle left of a blue square"


class Asks(NamedTuple):
    """Asks of every colour how much there is of it."""

    name: str = "asks"
    range: tuple = (0.0, 1.0)

    def explain(self, images, prompt):
        values = images.mean((1, 2))
        return Answers(("red?", "green?", "blue?"), values, values.mean(1))

    def score(self, images, prompt):
        return self.explain(images, prompt).scores


class Brightness(NamedTuple):
    """Says nothing of why."""

    name: str = "brightness"
    range: tuple = (0.0, 1.0)

    def score(self, images, prompt):
        return images.amax((1, 2, 3))


@pytest.fixture(scope="module")
def result():
    model, encoder = load_bundled()
    plan = tts_var(1)
    return run(start(model, encode_prompt(encoder, PROMPT), plan.samples, 3), plan, Asks(), LatentPool())


def test_the_report_has_a_table_wherever_there_are_scores(result):
    told = [scale for scale in json.loads(json.dumps(result.report))["scales"] if scale["scores"]]
    assert [scale["scale"] for scale in told] == [6, 9, 12]
    for scale in told:
        assert [line["question"] for line in scale["answers"]] == ["red?", "green?", "blue?"]
        means = torch.tensor([line["answers"] for line in scale["answers"]]).mean(0)
        assert means.tolist() == pytest.approx(scale["scores"])
    assert all(scale["answers"] == [] for scale in result.report["scales"] if not scale["scores"])


def test_the_state_keeps_its_samples_answers_through_a_selection(result):
    state = result.state
    assert torch.allclose(state.answers.values, result.images.mean((1, 2))) and "answers " in describe(state)
    twice = state.with_scores(torch.zeros(1), Answers(("a", "b"), torch.tensor([[0.1, 0.2]]), torch.zeros(1))).select([0, 0])
    assert twice.answers.table() == [{"question": "a", "answers": pytest.approx([0.1] * 2)},
                                     {"question": "b", "answers": pytest.approx([0.2] * 2)}]  # fmt: skip
    assert state.with_scores(torch.zeros(1)).answers is None


def test_a_blend_tells_its_rewards_and_their_questions():
    images = torch.rand(4, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    blend = Blend([Asks(), Brightness()], "rank")
    answers = explained(blend, images, PROMPT)
    assert answers.questions == ("asks", "asks: red?", "asks: green?", "asks: blue?", "brightness")
    assert torch.equal(answers.values[:, 0], Asks().score(images, "")) and torch.equal(answers.values[:, 4], images.amax((1, 2, 3)))
    assert torch.equal(answers.scores, blend.score(images, PROMPT))


def test_one_question_is_the_score_itself():
    assert Answers(("all of it?",), torch.ones(2, 1), torch.ones(2)).table() == []
    assert explained(Brightness(), torch.rand(2, 4, 4, 3), "").table() == []


def test_lines_follow_the_order_asked_for():
    answers = Answers(("a", "b"), torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.zeros(2))
    assert answer_lines(answers, [1, 0]) == ["0.30  0.10  a", "0.40  0.20  b"]


def test_score_nodes_and_inspect_state_show_it(tmp_path):
    from host_stand_in import load_pack

    with load_pack(tmp_path) as pack:
        (model,), (encoder,) = pack.run("TTSVAR_InfinityLoader"), pack.run("TTSVAR_TextEncoderLoader")
        (prompt,) = pack.run("TTSVAR_PromptEncode", text_encoder=encoder, text=PROMPT)
        (begun,) = pack.run("TTSVAR_StartState", model=model, conditioning=prompt, samples=3)
        (state,) = pack.run("TTSVAR_ScaleStepSampler", state=begun, through_scale=6)
        scored = pack.nodes["TTSVAR_RewardScorer"].execute(state, Asks())
        table = scored.ui["answers"]
        assert [line["question"] for line in table] == ["red?", "green?", "blue?"] and len(table[0]["answers"]) == 3
        seen = pack.nodes["TTSVAR_InspectState"].execute(scored.args[0])
        assert seen.ui["answers"] == seen.ui["ttsvar_view"][0]["answers"] == table and len(seen.ui["images"]) == 1
        (images,) = pack.run("TTSVAR_DecodeState", state=scored.args[0])
        ranked = pack.nodes["TTSVAR_ScoreImages"].execute(images, Asks(), PROMPT)
        sums = [sum(line["answers"][place] for line in ranked.ui["answers"]) / 3 for place in range(3)]
        assert sums == pytest.approx(ranked.args[1]) and "red?" in ranked.args[2]
        assert pack.nodes["TTSVAR_RewardScorer"].execute(state, Brightness()).ui is None
