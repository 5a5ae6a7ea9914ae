"""The reward over a vision-language model of the host's, with a stand-in for its CLIP; tests/host has the real one."""

from __future__ import annotations

import pytest
import torch
import vision_language
from host_stand_in import load_pack

WORDS = {"Yes": 3, "yes": 4, " Yes": 5, " yes": 6, "No": 7, "no": 8, " No": 9, " no": 10}
PROMPT = "a photo of a red circle left of a blue square"


class Speaker(torch.nn.Module):
    """Says yes the louder, the redder the picture and the longer the question is; every row of its logits is its own."""

    def sample_token(self, logits, *rest, **options):
        raise AssertionError("the host's own choice of words is replaced while it is listened to")


class Clip:
    """What the core's loader gives: tokens in lists of (token, weight), pictures among them as dictionaries."""

    def __init__(self, speaks: bool = True, sees: bool = True) -> None:
        self.cond_stage_model = torch.nn.ModuleDict({"inner": Speaker() if speaks else torch.nn.Linear(1, 1)})
        self.sees, self.asked = sees, []

    def tokenize(self, text, image=None, skip_template=False, min_length=0, thinking=True):
        assert min_length == 1 and not thinking
        if skip_template:
            return {"vl": [[(1, 1.0), (WORDS[text], 1.0)]]}
        self.asked.append(text)
        picture = [({"type": "image", "data": image}, 1.0)] if self.sees else []
        return {"vl": [[(1, 1.0), *picture, (len(text), 1.0), (2, 1.0)]]}

    def generate(self, tokens, do_sample=True, max_length=256):
        assert not do_sample and max_length == 1
        (_, (picture, _), (length, _), _) = tokens["vl"][0]
        logits = torch.zeros(1, 16)
        logits[0, 3], logits[0, 8] = picture["data"][..., 0].mean() * 2, length / 50
        return [int(self.cond_stage_model["inner"].sample_token(logits, 1.0, 50)[0])]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


def expected(red: float, question: str) -> float:
    yes, no = (torch.zeros(4) for _ in range(2))
    yes[0], no[1] = red * 2, len(question) / 50
    return float(torch.softmax(torch.stack([yes.logsumexp(0), no.logsumexp(0)]), 0)[0])


def test_the_score_is_the_probability_of_yes_against_no(pack):
    clip, images = Clip(), torch.tensor([0.1, 0.9, 0.5])[:, None, None, None].expand(3, 4, 4, 3)
    (reward,) = pack.run("TTSVAR_VisionLanguageReward", clip=clip)
    scores = reward.score(images, PROMPT)
    (question,) = set(clip.asked[1:])
    assert question == f'Does this image show "{PROMPT}"? Answer the question with Yes or No.'
    assert scores.tolist() == pytest.approx([expected(red, question) for red in (0.1, 0.9, 0.5)])
    assert "sample_token" not in vars(clip.cond_stage_model["inner"]), "the host's model is left as it was"


class DraftingClip(Clip):
    """As newer hosts have it: a checkpoint with a head for it drafts several words at once, which `sample_token` picks none of,
    unless it is told not to."""

    def generate(self, tokens, do_sample=True, max_length=256, mtp=True):
        return [0] if mtp else super().generate(tokens, do_sample, max_length)


def test_a_model_that_drafts_several_words_is_asked_for_one(pack):
    images = torch.tensor([0.1, 0.9])[:, None, None, None].expand(2, 4, 4, 3)
    scores = [pack.run("TTSVAR_VisionLanguageReward", clip=clip)[0].score(images, PROMPT) for clip in (Clip(), DraftingClip())]
    assert torch.equal(*scores)


def test_questions_of_ones_own_and_of_the_parts(pack):
    images = torch.tensor([0.2, 0.7])[:, None, None, None].expand(2, 4, 4, 3)
    (own,) = pack.run("TTSVAR_VisionLanguageReward", clip=Clip(), questions="Red?\n\n Is it quite red? \n", mean="arithmetic")
    answers = own.explain(images, "ignored")
    assert answers.questions == ("Red? Answer in one word.", "Is it quite red? Answer in one word.")
    table = [[expected(red, question) for question in answers.questions] for red in (0.2, 0.7)]
    assert torch.allclose(answers.values, torch.tensor(table)) and torch.allclose(answers.scores, answers.values.mean(1))
    (parts,) = pack.run("TTSVAR_VisionLanguageReward", clip=Clip(), parts=True)
    answers = parts.explain(images, PROMPT)
    assert len(answers.questions) == 5 and torch.allclose(answers.scores, answers.values.log().mean(1).exp())


def test_a_search_takes_it(pack):
    (reward,) = pack.run("TTSVAR_VisionLanguageReward", clip=Clip())
    _, _, state, *_ = pack.run("TTSVAR_Generate", prompt=PROMPT, method="Best-of-N", n=2, reward=reward)
    assert state.samples == 2 and not state.scores[:, -1].isnan().any()


def test_the_user_can_stop_it(pack):
    from host_stand_in import Interrupted

    (reward,) = pack.run("TTSVAR_VisionLanguageReward", clip=Clip())
    pack.host.stop_after = pack.host.checks + 2
    try:
        with pytest.raises(Interrupted):
            reward.score(torch.rand(5, 4, 4, 3), PROMPT)
    finally:
        pack.host.stop_after = None


def test_what_cannot_judge_is_refused_before_anything_runs(pack):
    for clip, words in ((Clip(speaks=False), "only encodes text"), (Clip(sees=False), "no pictures")):
        with pytest.raises(ValueError, match=words):
            pack.run("TTSVAR_VisionLanguageReward", clip=clip)
    silent = Clip()
    silent.generate = lambda tokens, **options: [0]
    (reward,) = pack.run("TTSVAR_VisionLanguageReward", clip=silent)
    with pytest.raises(RuntimeError, match="picks words in another way"):
        reward.score(torch.rand(1, 4, 4, 3), PROMPT)


def test_the_reward_loader_averages_answers_as_this_one_does(pack):
    vision_language.save("llava", pack.host.folder / "models" / "reward_models" / "judge")
    asked = {"reward": "yes or no (GenEval 2)", "file": "judge", "questions": "Red?\nIs it quite red?"}
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    (all_hold,), (how_much,) = pack.run("TTSVAR_RewardLoader", **asked), pack.run("TTSVAR_RewardLoader", **asked, mean="arithmetic")
    answers, partly = all_hold.explain(images, PROMPT), how_much.explain(images, PROMPT)
    assert torch.equal(answers.values, partly.values) and answers.values.unique().numel() == 4
    assert torch.allclose(answers.scores, answers.values.log().mean(1).exp())
    assert torch.allclose(partly.scores, partly.values.mean(1)) and not torch.equal(answers.scores, partly.scores)
