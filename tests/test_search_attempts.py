"""Searching again until an answer is good enough: which seeds, when it ends, what is told of it."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.names import MAX_SEED
from ttsvar_core.search.attempts import SUMMED, answered, best_of, repeated, seed_of
from ttsvar_core.search.plan import best_of_n, raw
from ttsvar_core.search.run import run
from ttsvar_core.state import start


class Redness:
    name = "redness"

    def score(self, images, prompt):
        return images[..., 0].mean(dim=(1, 2))


@pytest.fixture(scope="module")
def search():
    model, conditioning, plan = make_tiny_model(), make_conditioning(), best_of_n(2)
    return lambda seed: run(start(model, conditioning, plan.samples, seed), plan, Redness())


@pytest.fixture(scope="module")
def five(search):
    return list(repeated(search, seed=7, most=5))


def test_the_first_attempt_is_the_plain_search_and_all_are_different(search, five):
    assert torch.equal(five[0].images, search(7).images)
    assert [one.state.seed for one in five] == [seed_of(7, place) for place in range(5)]
    assert len({answered(one) for one in five}) == 5
    assert torch.equal(five[3].images, search(five[3].state.seed).images)


def test_seeds_stay_in_range_and_never_repeat():
    for seed in (0, 1, MAX_SEED):
        seeds = [seed_of(seed, place) for place in range(1000)]
        assert seeds[0] == seed and len(set(seeds)) == 1000 and min(seeds) >= 0 and max(seeds) <= MAX_SEED


def test_the_first_that_is_good_enough_is_the_last(search, five):
    scores = [answered(one) for one in five]
    for enough in (min(scores) - 1, *scores, max(scores) + 1):
        made = list(repeated(search, 7, most=5, enough=enough))
        reached = [place for place, score in enumerate(scores) if score >= enough]
        assert [answered(one) for one in made] == scores[: reached[0] + 1 if reached else 5]


def test_the_best_attempt_is_the_answer_and_its_report_tells_of_all(five):
    best = best_of(five)
    assert answered(best) == max(map(answered, five)) == best.report["answer"]["score"]
    assert best.report["seed"] == best.state.seed
    told = best.report["attempts"]
    assert [one["seed"] for one in told] == [one.state.seed for one in five]
    assert [one["score"] for one in told] == [one.report["answer"]["score"] for one in five]
    for name in SUMMED:
        assert best.report[name] == pytest.approx(sum(one.report[name] for one in five)) and told[2][name] == five[2].report[name]
    assert best_of(five[:1]).images is five[0].images


def test_where_nothing_scores_the_first_attempt_is_the_last(search):
    model, conditioning = make_tiny_model(), make_conditioning()
    (unscored,) = repeated(lambda seed: run(start(model, conditioning, 1, seed), raw()), 3, most=2, enough=0.0)
    assert unscored.state.seed == 3 and [one["score"] for one in best_of([unscored]).report["attempts"]] == [None]
    with pytest.raises(ValueError, match="at least 1"):
        next(repeated(search, 0, most=0))
