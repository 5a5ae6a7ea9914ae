"""Plans: the paper's schedules, what is refused before anything runs, and JSON."""

import json
from dataclasses import replace

import pytest

from ttsvar_core.scales import official
from ttsvar_core.search.plan import (
    ClusterSelector,
    Plan,
    PotentialSelector,
    best_of_n,
    check,
    from_json,
    importance_sampling,
    load_plan,
    raw,
    save_plan,
    tts_var,
    with_potential,
)

FIVE = range(5)


def test_the_papers_schedule():
    plan = tts_var(1)
    assert plan.survivors == (8, 8, 6, 6, 6, 4, 2, 2, 2, 1, 1, 1, 1)
    assert [plan.running(scale) for scale in range(13)] == [8, 8, 8, 6, 6, 6, 4, 2, 2, 2, 1, 1, 1]
    assert [scale for scale in range(13) if plan.clusters(scale)] == [2, 5]
    assert [scale for scale in range(13) if plan.scores(scale)] == [6, 9, 12]
    assert plan.selector(6) == PotentialSelector("value", 10.0, "multinomial")
    assert tts_var(4).survivors == tuple(4 * count for count in plan.survivors)


def test_token_forwards_at_one_megapixel_are_the_papers():
    tokens = official(1.0, "1M").tokens

    def forwards(plan):
        return sum(plan.running(scale) * count for scale, count in enumerate(tokens))

    assert [forwards(plan) for plan in (raw(), tts_var(1), best_of_n(2), best_of_n(8))] == [10521, 14656, 21042, 84168]


@pytest.mark.parametrize("scales", [5, 6, 7, 10, 12, 13, 20])
@pytest.mark.parametrize("make", [lambda s: raw(s), lambda s: best_of_n(3, s), lambda s: importance_sampling(4, s),
                                  lambda s: tts_var(2, s)])
def test_named_plans_fit_other_schedules_and_survive_json(make, scales):
    plan = make(scales)
    check(plan, range(scales))
    assert from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_stretched_selectors_keep_order_and_cuts():
    plan = tts_var(1, 7)
    assert [scale for scale, _ in plan.selectors] == [1, 3, 4, 5]
    assert plan.survivors == (8, 6, 6, 4, 2, 1, 1)
    with pytest.raises(ValueError, match=r"at least 5 scales, this one has 4.*best-of-n"):
        tts_var(1, 4)


def five(survivors, *selectors, samples=None, score_at=()):
    return Plan("mine", samples or survivors[0], tuple(survivors), tuple(selectors), tuple(score_at))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (five([4, 4, 2, 2, 2]), "cuts 4 samples to 2 at scale 2.*add a selector at scale 2 or keep 4"),
        (five([4, 2, 2, 2, 2], samples=8), "cuts 8 samples to 4 at scale 0"),
        (five([2, 2, 4, 4, 4], (2, PotentialSelector())), "scale 2 .*would keep 4: a schedule cannot grow.*at most 2"),
        (five([2, 2, 4, 4, 4], (2, PotentialSelector(scheme="top-k"))), "scale 2 .*draws without replacement"),
        (five([4, 4, 4, 4, 8], (4, ClusterSelector())), "scale 4 .*draws without replacement.*at most 4"),
        (five([4, 4, 4, 4, 4], samples=2), "scale 0 .*would keep 4"),
        (five([2, 2, 2, 2, 2], (5, ClusterSelector())), "selector at scale 5; the last scale is 4"),
        (five([2, 2, 2, 2, 2], score_at=[7]), "score at scale 7; the last scale is 4"),
        (five([2, 2, 2, 2, 2], (3, ClusterSelector()), (1, ClusterSelector())), r"scales \[3, 1\].*rising"),
        (five([2, 2, 2, 2, 0]), "scale 4 .*keeps 0"),
        (five([2, 2, 2]), "survivors for 3 scales and the schedule has 5"),
        (five([2] * 5, (1, PotentialSelector("diff"))), "DIFF at scale 1 looks back.*before 1 to score_at.*VALUE"),
        (five([2] * 5, (1, PotentialSelector("max")), score_at=[1, 3]), "MAX at scale 1"),
        (five([2] * 5, (3, PotentialSelector("sum"))), "SUM at scale 3"),
        (five([2] * 5, (1, PotentialSelector("mean"))), "unknown potential 'mean' at scale 1"),
        (five([2] * 5, (1, PotentialSelector(scheme="best"))), "unknown scheme 'best' at scale 1"),
        (five([2] * 5, (1, PotentialSelector(lam=-1))), "lambda is -1 at scale 1"),
        (five([2] * 5, (1, PotentialSelector(target_ess=1.5))), "target_ess is 1.5 at scale 1"),
        (five([2] * 5, (1, PotentialSelector(ess_threshold=0.0))), "ess_threshold is 0.0 at scale 1"),
    ],
)
def test_what_cannot_run_is_refused_with_scale_and_remedy(plan, message):
    with pytest.raises(ValueError, match=message):
        check(plan, FIVE)


@pytest.mark.parametrize("potential", ["diff", "max", "sum"])
def test_looking_back_is_fine_once_something_was_scored(potential):
    check(five([2] * 5, (3, PotentialSelector(potential)), score_at=[1]), FIVE)
    check(five([2] * 5, (1, PotentialSelector()), (3, PotentialSelector(potential))), FIVE)


def test_any_selector_at_any_scale_and_a_plan_file(tmp_path):
    plan = five(
        [6, 5, 4, 3, 1],
        (0, ClusterSelector()),
        (1, PotentialSelector("value", 3.0, "residual", ess_threshold=0.5)),
        (2, ClusterSelector()),
        (3, PotentialSelector("diff", target_ess=0.5)),
        (4, PotentialSelector("sum", scheme="top-k")),
        samples=7,
        score_at=[0],
    )
    check(plan, FIVE)
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
    assert '"lambda": 3.0' in (tmp_path / "plan.json").read_text()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"survivors": [1], "batch": 3}, "a plan has no 'batch'; known are"),
        ({"samples": 3}, "needs 'survivors'"),
        ({"survivors": [1.5]}, "whole number"),
        ({"survivors": 4}, "cannot read the plan"),
        ({"survivors": [1], "selectors": {"0": {"kind": "best"}}}, "unknown selector kind 'best'"),
        ({"survivors": [1], "selectors": {"0": {"kind": "cluster", "lambda": 3}}}, "cluster selector has no 'lam"),
        ({"survivors": [1], "selectors": {"0": {"kind": "potential", "lambda": "high"}}}, "high"),
    ],
)
def test_a_misshaped_plan_file_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        from_json(data)


def test_text_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("survivors: 1")
    with pytest.raises(ValueError, match=r"plan\.json is not JSON"):
        load_plan(tmp_path / "plan.json")


def test_settings_for_every_potential_selector():
    plan = with_potential(tts_var(1), lam=2.0, scheme="systematic")
    assert [one for _, one in plan.selectors if isinstance(one, PotentialSelector)] == [
        PotentialSelector("value", 2.0, "systematic")
    ] * 2
    assert replace(plan, selectors=tts_var(1).selectors) == tts_var(1)
