"""A budget in pictures: the expected gain against simulation, the cost against the cost model, and what a choice must hold to."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_tiny_model

from ttsvar_core.config import PRESETS
from ttsvar_core.costs import Look, Search
from ttsvar_core.networks import NETWORKS
from ttsvar_core.search.budget import BUNDLED, GUESS, Measured, flops, from_json, load_measured, plan_for, to_json
from ttsvar_core.search.expected import expected_best
from ttsvar_core.search.plan import best_of_n, cut_once, raw

BIG = PRESETS["2b"]
DRAWS = 40_000


IMAGE_REWARD = NETWORKS["blip"](32)


def spending(config=BIG, reward=IMAGE_REWARD, budget="1M", until=None):
    schedule = config.schedule(1.0, budget)
    sampling = config.sampling if until is None else config.sampling.guided_until(until, len(schedule))
    return Search(config, raw(), schedule, sampling.branches(len(schedule)), 32, reward=reward)


def measured(**correlation):
    return Measured("2b", "image-reward", {int(scale[1:]): value for scale, value in correlation.items()})


def simulated(starts, finish, rho):
    """The best of the finish best-scored, drawn and sorted."""
    generator = np.random.default_rng(starts * 1000 + finish)
    scores, rest = generator.standard_normal((2, DRAWS, starts))
    rewards = rho * scores + np.sqrt(1 - rho**2) * rest
    kept = np.argsort(-scores, axis=1)[:, :finish]
    return np.take_along_axis(rewards, kept, axis=1).max(axis=1)


@pytest.mark.parametrize(
    ("starts", "finish", "rho"),
    [
        (1, 1, 0.5), (8, 8, 0.3), (21, 1, 0.4), (23, 3, 0.3), (10, 2, 0.5), (9, 8, 0.2), (64, 5, 0.7), (6, 5, 0.9), (30, 2, 0.95),
        (5, 2, 0.0),
    ],
)
def test_expected_best_is_what_drawing_and_sorting_gives(starts, finish, rho):
    drawn = simulated(starts, finish, rho)
    assert float(expected_best(starts, finish, rho)) == pytest.approx(drawn.mean(), abs=4.5 * drawn.std() / np.sqrt(DRAWS) + 0.002)


@pytest.mark.parametrize(
    ("pictures", "finish", "rho", "gain"),
    [
        (2, 1, 0.3, 0.0), (2, 1, 0.4, 0.19), (2, 1, 0.5, 0.37), (4, 3, 0.2, 0.12), (4, 3, 0.3, 0.26), (4, 3, 0.5, 0.50),
        (8, 5, 0.5, 0.53),
    ],
)
def test_an_early_cut_at_equal_cost_gains_what_was_simulated_before(pictures, finish, rho, gain):
    """Cut after scale 6, by whose end 5% of a picture at 1M pixels are drawn; figures of a simulation to about .01."""
    starts = round((pictures - finish * 0.95) / 0.05)
    assert float(expected_best(starts, finish, rho) - expected_best(pictures, pictures, 0)) == pytest.approx(gain, abs=0.015)


@given(starts=st.integers(1, 64), finish=st.integers(1, 64), rho=st.floats(0, 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_expected_best_rises_with_starts_finishers_and_correlation(starts, finish, rho):
    finish = min(starts, finish)
    value, most = float(expected_best(starts, finish, rho)), float(expected_best(starts, starts, 0))
    assert float(expected_best(finish, finish, 0)) - 2e-3 <= value <= most + 2e-3
    assert value <= float(expected_best(starts + 1, finish, rho)) + 2e-3
    assert value <= float(expected_best(starts, finish, min(1, rho + 0.05))) + 2e-3
    assert finish == starts or value <= float(expected_best(starts, finish + 1, rho)) + 2e-3


SPENDINGS = {
    "2b": spending(), "2b at 0.06M": spending(budget="0.06M"), "8b, half guided": spending(PRESETS["8b"], until=9),
    "tiny": spending(make_tiny_model(schedule="1 2 2 3 3 4 6").config, Look(10**5, 10**4)),
    "dear looks": spending(reward=Look(10**14)),
}


@given(
    spend=st.sampled_from(list(SPENDINGS)), pictures=st.floats(1, 9), more=st.floats(0, 4),
    correlation=st.lists(st.floats(-0.2, 1), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_choice_never_costs_more_than_its_budget_and_more_is_never_worse(spend, pictures, more, correlation):
    spend, table = SPENDINGS[spend], Measured("m", "r", dict(enumerate(correlation)), scales=len(SPENDINGS[spend].schedule))
    chosen, richer = plan_for(pictures, spend, table), plan_for(pictures + more, spend, table)
    chosen.plan.check(len(spend.schedule))
    one, two = (flops(spend, best_of_n(count)) for count in (1, 2))
    assert flops(spend, chosen.plan) <= one + (pictures - 1) * (two - one)
    assert chosen.pictures == pytest.approx(1 + (flops(spend, chosen.plan) - one) / (two - one))
    assert richer.expected >= chosen.expected - 1e-9
    assert chosen.gain >= 0 and chosen.plan.samples >= int(pictures)
    if chosen.plan.stages:  # and not one more could start
        cut = chosen.plan.stages[0]
        wider = cut_once(chosen.plan.samples + 1, cut.scale, cut.keep)
        assert chosen.plan.samples == 64 or flops(spend, wider) > one + (pictures - 1) * (two - one)


@pytest.mark.parametrize("spend", SPENDINGS.values(), ids=SPENDINGS)
@pytest.mark.parametrize("pictures", [1, 2, 4.5, 8])
def test_where_scores_tell_nothing_it_is_best_of_n(spend, pictures):
    for table in (measured(s3=0.0, s6=0.0), measured(s6=-0.5)):
        chosen = plan_for(pictures, spend, table)
        assert chosen.plan == replace(best_of_n(int(pictures)), name="budget") and chosen.gain == 0


def test_the_best_of_all_plans_is_chosen():
    """Every cut after the one scale measured, with every number of starts, tried one by one."""
    spend, table = spending(), measured(s6=0.35)
    budget = flops(spend, best_of_n(4))
    rho = table.rho(6, 13)
    tried = {
        (starts, keep): float(expected_best(starts, keep, rho)) for keep in range(1, 5) for starts in range(keep + 1, 65)
        if flops(spend, cut_once(starts, 6, keep)) <= budget
    }
    chosen = plan_for(4, spend, table)
    assert (chosen.plan.samples, chosen.plan.stages[0].keep) == max(tried, key=tried.get)
    assert chosen.expected == pytest.approx(max(tried.values()))


def test_early_wide_cuts_pay_and_late_ones_of_the_same_scores_do_not():
    early, late = plan_for(4, spending(), measured(s6=0.4)), plan_for(4, spending(), measured(s11=0.4))
    assert early.gain > 0.3 and early.plan.stages[0].keep == 3 and early.plan.samples > 20
    assert late.gain < 0.02


def test_what_was_chosen_and_why_is_told():
    why = plan_for(4, spending(), measured(s6=0.3)).why
    assert why.startswith("budget of 4 pictures: 28 samples start and the best 3 after scale 6 finish, at the cost of 3.97; ")
    assert "should be 0.30 standard deviations above Best-of-4's, as scores there correlate by 0.31 with the end (measured)" in why
    assert plan_for(1, spending()).why == (
        "budget of 1 picture: Best-of-1; no early cut should gain more, by how scores foretell the end (not measured here: a low "
        "guess, from scenes64)"
    )
    with pytest.raises(ValueError, match=r"a budget of 0\.5 pictures; it takes at least 1"):
        plan_for(0.5, spending())


def test_the_cut_that_answered_best_is_taken_where_samples_were_drawn():
    table = measured(s6=0.3)._replace(rated={4: (6, 1), 2: (3, 1)})
    assert plan_for(4, spending(), table).plan.stages[0].keep == 1 != plan_for(4, spending(), measured(s6=0.3)).plan.stages[0].keep
    assert "answered best of all cuts" in plan_for(4, spending(), table).why
    assert plan_for(3, spending(), table) == plan_for(3, spending(), measured(s6=0.3))  # nobody rated cuts for that budget
    assert not plan_for(2, spending(), table).plan.stages  # the scale it names tells nothing
    assert plan_for(4, spending(), table).pictures <= 4


def test_correlations_of_another_schedule_move_with_the_share_of_the_way():
    assert [GUESS.rho(scale, 13) for scale in (0, 3)] == [0, 0]
    assert GUESS.rho(5, 13) == GUESS.rho(8, 13) == GUESS.rho(3, 7) == pytest.approx(2 * np.sin(np.pi / 6 * 0.17))
    assert Measured("m", "r", {2: 1.0}, {2: 0.25}).rho(2, 13) == 0.5
    assert Measured("m", "r", {1: 1.0}, {2: 0.25}).rho(3, 13) == pytest.approx(1)


def test_a_choice_takes_no_time():
    spend = spending()
    plan_for(8, spend)
    began = time.process_time()
    plan_for(8, spend)
    assert time.process_time() - began < 0.05


def test_a_measurement_survives_its_file(tmp_path):
    (tmp_path / "measured.json").write_text(json.dumps({**to_json(BUNDLED), "date": "for people"}))
    assert load_measured(tmp_path / "measured.json") == BUNDLED


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a measurement needs model and reward and correlation"),
        ({"model": "m", "reward": "r"}, "needs correlation"),
        ({"model": "m", "reward": "r", "correlation": {}}, "correlation names no scale"),
        ({"model": "m", "reward": "r", "correlation": [0.1]}, "correlation is not a number for each scale"),
        ({"model": "m", "reward": "r", "correlation": {"six": 0.1}}, "correlation is not a number for each scale"),
        ({"model": "m", "reward": "r", "correlation": {"6": None}}, "correlation is not a number for each scale"),
        ({"model": "m", "reward": "r", "correlation": {"6": 1.5}}, "a value outside -1 to 1"),
        ({"model": "m", "reward": "r", "correlation": {"6": 0.5}, "fixed": {"6": -0.5}}, "a value outside 0 to 1"),
        ({"model": "m", "reward": "r", "correlation": {"13": 0.5}}, "scales is 13; expected how many the schedule has"),
        ({"model": "m", "reward": "r", "correlation": {"6": 0.5}, "scales": "many"}, "scales is 'many'"),
        ({"model": "m", "reward": "r", "correlation": {"6": 0.5}, "enough": "much"}, "is not a finite number"),
    ],
)
def test_a_misshaped_measurement_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        from_json(data)
