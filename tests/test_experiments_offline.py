"""Plans rated without drawing, what they cost, and which is advised: against enumeration, arithmetic, and a Gaussian."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from experiment_world import TinyFiles, prompts
from scipy.stats import spearmanr

from lab.experiment import advise as advising
from lab.experiment.advise import read_advice, write_advice
from lab.experiment.foresight import components
from lab.experiment.offline import Pools, expected, gain_of, good_enough, rank_correlation, spent
from lab.experiment.prices import Prices, Scorer, widest
from lab.experiment.report import write_report
from lab.experiment.runner import Asked, run_experiment
from ttsvar_core.config import PRESETS
from ttsvar_core.costs import NOTHING, Look, Search
from ttsvar_core.reading import UnusableFile
from ttsvar_core.scales import official
from ttsvar_core.search.plan import best_of_n, cut_once

INFINITY = Prices(PRESETS["2b"], official(), (2,) * 13, (1, 512), {"image-reward": Look(10**12)})


def pools(final, scores, correct=None) -> Pools:
    """Of arrays (U, n), the scores those of one scale before the last."""
    final, scores = np.asarray(final, float), np.asarray(scores, float)
    units = tuple((f"p{row}", 0) for row in range(len(final)))
    return Pools(units, "r", final, correct, {"r": np.stack([scores, final], axis=2)})


def enumerated(values, final, scores, starts, finishers) -> float:
    """The mean over every choice of the starts, all numbers distinct."""
    found = []
    for rows in itertools.combinations(range(len(final)), starts):
        kept = sorted(rows, key=lambda row: -scores[row])[:finishers]
        found.append(values[max(kept, key=lambda row: final[row])])
    return float(np.mean(found))


@pytest.mark.parametrize("starts, finishers", [(1, 1), (4, 1), (4, 2), (5, 3), (7, 7), (6, 5), (7, 2)])
def test_every_plan_is_rated_as_enumeration_rates_it(starts, finishers):
    generator = np.random.default_rng(starts * 10 + finishers)
    final, scores, values = generator.normal(size=(3, 4, 7))
    found = expected(values, final, scores, starts, finishers, generator)
    wanted = [enumerated(*rows, starts, finishers) for rows in zip(values, final, scores, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_good_enough_is_where_nearly_all_are_right():
    final = np.arange(1000.0).reshape(10, 100) / 1000
    wrong_below = pools(final, final, (final >= 0.4).astype(float))
    assert good_enough(wrong_below) == pytest.approx(0.397, abs=0.001)  # 600 are right there, 3 in 603 are not
    assert good_enough(pools(final, final, np.ones_like(final))) == 0 and good_enough(pools(final, final)) is None
    assert good_enough(pools(final, final, np.zeros_like(final))) is None


def test_equal_scores_choose_blindly_and_impossible_plans_are_refused():
    generator = np.random.default_rng(0)
    final = generator.normal(size=(400, 6))
    blind = pools(final, np.zeros_like(final))
    cut, uncut = spent(blind, "r", "r", 0, 6, 2).mean(), spent(blind, "r", None, 0, 2, 2).mean()
    assert cut == pytest.approx(uncut, abs=0.03) and uncut == pytest.approx(0.564, abs=0.06)  # the mean of the larger of two
    with pytest.raises(ValueError, match="3 of 2 of 6"):
        spent(blind, "r", "r", 0, 2, 3)


def test_a_tied_end_shares_the_verdict():
    """Two best of three, one of them right: half the time it is."""
    tied = pools([[1, 1, 0]] * 3000, np.random.default_rng(1).random((3000, 3)), np.array([[1, 0, 0]] * 3000))
    assert spent(tied, "correct", None, 0, 3, 3).mean() == pytest.approx(0.5, abs=0.02)


def test_rank_correlation_is_scipys_within_each_prompt():
    generator = np.random.default_rng(2)
    scores, final = generator.integers(0, 5, (2, 6, 9))
    wanted = [spearmanr(*rows).statistic for rows in zip(scores, final, strict=True)]
    np.testing.assert_allclose(rank_correlation(scores, final), wanted, atol=1e-12)
    assert rank_correlation(np.zeros((1, 4)), np.arange(4.0)[None])[0] == 0
    assert np.isnan(rank_correlation(np.arange(4.0)[None], np.zeros((1, 4)))[0])


def test_the_share_of_the_gain_is_whole_for_the_end_itself_and_none_for_noise():
    generator = np.random.default_rng(3)
    final = generator.normal(size=(500, 12))
    for keep in (1, 3):
        assert gain_of(pools(final, final), "r", 0, keep).share == pytest.approx(1)
        assert abs(gain_of(pools(final, generator.normal(size=final.shape)), "r", 0, keep).share) < 0.1


@pytest.mark.parametrize("fixed", [0.0, 0.4, 1.0])
def test_variance_fixed_by_a_prefix_is_found_without_bias(fixed):
    generator = np.random.default_rng(4)
    prefix, rest = generator.normal(size=(4000, 6, 1)), generator.normal(size=(4000, 6, 2))
    between, whole = components(fixed**0.5 * prefix + (1 - fixed) ** 0.5 * rest)
    assert between.sum() / whole.sum() == pytest.approx(fixed, abs=0.02) and whole.mean() == pytest.approx(1, abs=0.03)


# Costs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget, scale, finishers", [(2, 6, 1), (4, 6, 3), (8, 9, 5), (4, 2, 2)])
def test_a_funnel_is_the_widest_that_its_budget_pays_for_whatever_the_prompt(budget, scale, finishers):
    plan = widest(INFINITY, best_of_n(budget), scale, finishers)

    def cost(plan, tokens):
        return Search(INFINITY.config, plan, INFINITY.schedule, INFINITY.branches, tokens, NOTHING, Look(10**12)).total.flops

    lengths = (1, 7, 77, 300, 512)
    assert all(cost(plan, tokens) <= cost(best_of_n(budget), tokens) for tokens in lengths)
    wider = cut_once(plan.samples + 1, scale, finishers)
    assert any(cost(wider, tokens) > cost(best_of_n(budget), tokens) for tokens in lengths)
    assert widest(INFINITY, best_of_n(budget), scale, budget) is None


def test_a_reward_that_decodes_nothing_pays_for_more_starts():
    foretelling = INFINITY._replace(looks={**INFINITY.looks, "value": Look(10**12, ahead=((6, 10**8),))})
    looking, ahead = (widest(foretelling, best_of_n(4), 6, 3, scorer=Scorer(name)).samples for name in ("image-reward", "value"))
    assert ahead > looking > 3
    search = foretelling.search(cut_once(20, 6, 3), "value")
    assert search.scales[6].pictures == 0 and search.scales[6].scored == 20 and search.scales[12].pictures == 3
    assert search.scales[6].reward == 20 * 10**8 and search.scales[12].reward == 3 * 10**12


def test_prices_survive_json():
    again = Prices.from_json(json.loads(json.dumps(INFINITY.to_json())))
    two = INFINITY._replace(looks={"world": Look(1), "clarity": Look(2)}, names={"world": "world", "clarity": "clarity"})
    sorted_keys = Prices.from_json(json.loads(json.dumps(two.to_json(), sort_keys=True)))
    assert list(sorted_keys.looks) == list(sorted_keys.names) == ["world", "clarity"]  # the first one searches
    plan = cut_once(20, 6, 3)
    assert again.flops(plan) == INFINITY.flops(plan) and again.pictures(plan) == INFINITY.pictures(plan)


# Advice ---------------------------------------------------------------------------------------------------------------


def gaussian(correlation: float, prompts: int, samples: int, seed: int = 0) -> Pools:
    """Pools whose scores at scale 6 correlate with the end, and at other scales say nothing."""
    generator = np.random.default_rng(seed)
    final, noise = generator.normal(size=(2, prompts, samples))
    scores = np.full((prompts, samples, 13), np.nan)
    scores[:, :, 4] = generator.normal(size=final.shape)
    scores[:, :, 6] = correlation * final + (1 - correlation**2) ** 0.5 * noise
    scores[:, :, 12] = final
    units = tuple((f"p{row}", 0) for row in range(prompts))
    return Pools(units, "image-reward", final, None, {"image-reward": scores})


def test_advice_finds_the_scale_that_foretells_and_says_what_it_gains():
    cheap = INFINITY._replace(looks={"image-reward": Look()})
    known = advising.advise(gaussian(0.5, 300, 40), cheap, 4)
    assert known.plan.stages[0].scale == 6 and known.gains["image-reward"].difference.low > 0.2
    assert known.unseen.difference.mean == pytest.approx(known.gains["image-reward"].difference.mean, abs=0.08)
    noise = advising.advise(gaussian(0.0, 300, 40), cheap, 4)
    assert noise.plan is None and noise.unseen.difference.mean < 0.03
    with pytest.raises(ValueError, match="a budget of 41 pictures needs --n 41"):
        advising.advise(gaussian(0.5, 3, 40), cheap, 41)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return run_experiment(Asked("pool", [6]), TinyFiles(), prompts(3), 1, tmp_path_factory.mktemp("pool"))


def test_a_pool_holds_every_score_and_verdict_and_advice_is_written_beside_it(pool):
    results = json.loads(pool.read_text())
    found = advising.largest_pools(results)
    assert found.final.shape == found.correct.shape == (3, 6) and set(found.scores) == {"warmth", "brightness"}
    assert found.scales("warmth") == found.scales("brightness") == tuple(range(6))
    for unit, right in zip(results["units"], found.correct, strict=True):
        arm = unit["arms"]["pool-6-by-warmth"]
        assert right[arm["best"]] == arm["answer"]["correct"]
    text = advising.write_advised(pool, [1, 2, 3])
    advice = read_advice(pool.parent / "advice.json")
    assert text.count("\n| ") == 5 and advice["fingerprint"] == "tiny-0" and set(advice["correlation"]) <= set("012345")
    assert read_advice(pool.parent / "advice-by-brightness.json")["reward"] == "brightness"
    report = write_report(pool).read_text()
    assert "What a scale knows of the end, pool-6-by-brightness" in report and "spent so far" in report


def test_a_damaged_advice_is_refused_in_words(tmp_path):
    path = tmp_path / "advice.json"
    write_advice(path, {"format": 9})
    with pytest.raises(UnusableFile, match=r"advice\.json cannot be read \(its format is 9, expected 1\)"):
        read_advice(path)
