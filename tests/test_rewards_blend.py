"""Several rewards as one."""

import math
from typing import NamedTuple

import pytest
import torch

from ttsvar_core.names import BLENDS
from ttsvar_core.rewards import Blend
from ttsvar_core.rewards.base import check_prompt
from ttsvar_core.rewards.scenes import SceneReward


class Fixed(NamedTuple):
    """A reward with known scores."""

    values: tuple[float, ...]
    name: str = "fixed"
    range: tuple[float, float] = (0.0, 2.0)

    def score(self, images, prompt):
        return torch.tensor(self.values)[: len(images)]


A, B = Fixed((0.0, 1.0, 2.0), "A"), Fixed((30.0, 10.0, 10.0), "B", (0.0, 50.0))
IMAGES = torch.rand(3, 4, 4, 3)


def blended(how, weights=None, images=IMAGES):
    return Blend([A, B], how, weights).score(images, "x").tolist()


def test_softmax_average_as_in_the_paper():
    total = sum(math.exp(value) for value in A.values)
    wanted = [(math.exp(a) / total + b) / 2 for a, b in zip(A.values, (1.0, 0.0, 0.0), strict=True)]
    assert blended("softmax") == pytest.approx(wanted, abs=1e-6)


def test_z_score_and_weights():
    root = math.sqrt(1.5)
    wanted = [(3 * a + b) / 4 for a, b in zip((-root, 0, root), (math.sqrt(2), -math.sqrt(0.5), -math.sqrt(0.5)), strict=True)]
    assert blended("z-score", [3, 1]) == pytest.approx(wanted, abs=1e-6)


def test_rank_shares_ties():
    assert blended("rank") == pytest.approx([(0 + 1) / 2, (0.5 + 0.25) / 2, (1 + 0.25) / 2])


def test_any_number_of_rewards_and_the_rank_ensemble_is_offered_first():
    rewards = [Fixed((float(i), 1.0, -float(i)), str(i)) for i in range(1, 10)]
    assert Blend(rewards, BLENDS[0]).score(IMAGES, "x").tolist() == pytest.approx([(0.75 + 8) / 9, (0.75 + 8 * 0.5) / 9, 0.0])
    assert BLENDS[0] == "rank"


def test_weighted_sum_of_raw_scores():
    assert blended("weighted", [2, -0.1]) == pytest.approx([-3.0, 1.0, 3.0])
    assert Blend([A, B], "weighted", [2, -0.1]).range == pytest.approx((-5.0, 4.0))


@pytest.mark.parametrize("how", ["softmax", "z-score", "rank", "weighted"])
def test_one_image_and_equal_images_stay_finite(how):
    assert all(map(math.isfinite, blended(how, images=IMAGES[:1])))
    equal = Blend([Fixed((1.0, 1.0, 1.0))], how).score(IMAGES, "x")
    assert equal.isfinite().all() and equal.unique().numel() == 1


@pytest.mark.parametrize("how", ["softmax", "z-score", "rank", "weighted"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_part_that_is_not_finite_is_refused_with_its_name_and_row(how, wrong):
    with pytest.raises(ValueError, match=f"reward B gave {wrong} for image 1;"):
        Blend([A, Fixed((3.0, wrong, 1.0), "B")], how).score(IMAGES, "x")


def test_a_part_that_scores_too_few_is_named():
    with pytest.raises(ValueError, match="reward B gave 2 scores for 3 images"):
        Blend([A, Fixed((3.0, 1.0), "B")]).score(IMAGES, "x")


@pytest.mark.parametrize("how", ["softmax", "z-score", "rank"])
def test_comparisons_do_not_care_about_the_unit(how):
    scaled = Fixed(tuple(0.001 * value for value in A.values), "milli")
    order = Blend([scaled], how).score(IMAGES, "x").argsort()
    assert torch.equal(order, Blend([A], how).score(IMAGES, "x").argsort())


@pytest.mark.parametrize(
    ("rewards", "how", "weights", "words"),
    [
        ([], "softmax", None, "at least one"),
        ([A], "median", None, "no blend 'median'.*softmax"),
        ([A, B], "softmax", [1], "1 weights for 2 rewards"),
        ([A, B], "rank", [1, -1], "positive"),
        ([A, B], "rank", [0, 0], "positive"),
    ],
)
def test_nonsense_is_refused(rewards, how, weights, words):
    with pytest.raises(ValueError, match=words):
        Blend(rewards, how, weights)


def test_it_says_whether_its_scores_compare_a_batch():
    weighted = Blend([A], "weighted")
    assert [Blend([A], how).compares for how in BLENDS] == [how != "weighted" for how in BLENDS]
    assert not Blend([weighted], "weighted").compares and Blend([Blend([weighted], "rank")], "weighted").compares


def test_lists_the_networks_of_its_parts():
    network = torch.nn.Linear(1, 1)

    class Networked:
        name, range, models = "N", (0, 1), (network,)

    blend = Blend([A, Networked()], "rank")
    assert blend.models == (network,) and blend.name == "A+N (rank)" and "A+N (rank)" in repr(blend)


def test_a_prompt_is_checked_by_every_reward_that_can():
    blend = Blend([SceneReward(), Fixed((1.0,))])
    for reward in (Fixed((1.0,)), None, SceneReward(), blend):
        check_prompt(reward, "a photo of a red circle")
    for reward in (SceneReward(), blend, Blend([blend, Fixed((1.0,))])):
        with pytest.raises(ValueError, match="take another reward") as refused:
            check_prompt(reward, "a castle " * 3000)
        assert len(str(refused.value)) < 1000
    check_prompt(Fixed((1.0,)), "a castle")
    with pytest.raises(ValueError, match="surrogates not allowed"):  # which no tokenizer takes
        check_prompt(Fixed((1.0,)), "caf\udce9")
