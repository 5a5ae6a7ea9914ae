"""Plans: the paper's schedules, what is refused before anything runs, and files of this version and the first."""

import json
import math
from dataclasses import replace

import pytest
from tiny_models import GOLDEN

from ttsvar_core.scales import official
from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.plan import (
    PLANS,
    Plan,
    best_of_n,
    importance_sampling,
    raw,
    scored_at,
    tts_var,
    with_potential,
)
from ttsvar_core.search.plan_file import from_json, load_plan, save_plan, to_json
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.score import Score


def test_the_papers_schedule():
    plan = tts_var(1)
    assert plan == Plan("tts-var", 8, (Cluster(2, 6), Cluster(5, 4), Resample(6, 2), Resample(9, 1)))
    assert [plan.running(scale) for scale in range(13)] == [8, 8, 8, 6, 6, 6, 4, 2, 2, 2, 1, 1, 1]
    assert [stage.scale for stage, samples in plan.met() if stage.sees(samples) == "vectors"] == [2, 5]
    assert plan.scored(13) == [6, 9, 12]
    assert plan.stops(13) == [2, 5, 6, 9, 12]
    assert plan.at(6) == (Resample(6, 2, "value", 10.0, "multinomial"),)
    assert [stage.keep for stage in tts_var(4).stages] == [4 * stage.keep for stage in plan.stages] and tts_var(4).samples == 32


def test_token_forwards_at_one_megapixel_are_the_papers():
    tokens = official(1.0, "1M").tokens

    def forwards(plan):
        return sum(plan.running(scale) * count for scale, count in enumerate(tokens))

    assert [forwards(plan) for plan in (raw(), tts_var(1), best_of_n(2), best_of_n(8))] == [10521, 14656, 21042, 84168]


@pytest.mark.parametrize("scales", [5, 6, 7, 10, 12, 13, 20])
@pytest.mark.parametrize(
    "make", [lambda s: raw(), lambda s: best_of_n(3), lambda s: importance_sampling(4, s), lambda s: tts_var(2, s)]
)
def test_named_plans_fit_other_schedules_and_survive_json(make, scales):
    plan = make(scales)
    plan.check(scales)
    assert from_json(json.loads(json.dumps(to_json(plan)))) == plan


def test_stretched_stages_keep_order_and_cuts():
    plan = tts_var(1, 7)
    assert [(stage.scale, stage.keep) for stage in plan.stages] == [(1, 6), (3, 4), (4, 2), (5, 1)]
    assert [plan.running(scale) for scale in range(7)] == [8, 8, 6, 6, 4, 2, 1]
    with pytest.raises(ValueError, match=r"at least 5 scales, this one has 4.*best-of-n"):
        tts_var(1, 4)


def mine(samples, *stages):
    return Plan("mine", samples, stages)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (mine(0), "plan mine starts with 0 samples; start with at least 1"),
        (mine(2, Resample(2, 4)), "resample at scale 2: keep is 4, but only 2 samples are there; keep at most 2"),
        (mine(2, Resample(2, 4, scheme="top-k")), "resample at scale 2: keep is 4, but only 2"),
        (mine(4, Cluster(4, 8)), "cluster at scale 4: keep is 8, but only 4 samples are there; keep at most 4"),
        (mine(2, Cluster(0, 4)), "cluster at scale 0: keep is 4"),
        (mine(4, Cluster(1, 2), Resample(1, 3)), "resample at scale 1: keep is 3, but only 2"),
        (mine(2, Cluster(5, 2)), r"cluster at scale 5: the last scale is 4; move it to 0\.\.4"),
        (mine(2, Score(7)), "score at scale 7: the last scale is 4"),
        (mine(2, Cluster(-1, 2)), "cluster at scale -1: the last scale is 4"),
        (mine(2, Cluster(3, 2), Cluster(1, 2)), "cluster at scale 1: it stands after a stage at scale 3; .*rising order"),
        (mine(2, Cluster(4, 0)), "cluster at scale 4: cannot keep 0 samples; keep at least 1"),
        (mine(2, Resample(4, -1)), "resample at scale 4: cannot keep -1 samples"),
        (mine(2, Resample(1, 2, "diff")), "at scale 1: DIFF looks back and no earlier scale is scored; score one, or use VALUE"),
        (mine(2, Resample(1, 2, "max"), Score(3)), "at scale 1: MAX looks back"),
        (mine(2, Resample(3, 2, "sum")), "at scale 3: SUM looks back"),
        (mine(2, Resample(1, 2, "mean")), "at scale 1: unknown potential 'mean'; use value, diff, max, sum"),
        (mine(2, Resample(1, 2, scheme="best")), "at scale 1: unknown resampling scheme 'best'; choose one of multinomial"),
        (mine(2, Resample(1, 2, lam=-1)), "at scale 1: lambda is -1"),
        (mine(2, Resample(1, 2, lam=math.inf)), "at scale 1: lambda is inf"),
        (mine(2, Resample(1, 2, lam=math.nan)), "at scale 1: lambda is nan"),
        (mine(2, Resample(1, 2, target_ess=1.5)), "at scale 1: target_ess is 1.5; it is a share of the samples"),
        (mine(2, Resample(1, 2, target_ess=math.nan)), "at scale 1: target_ess is nan"),
        (mine(2, Resample(1, 2, ess_threshold=0.0)), "at scale 1: ess_threshold is 0.0"),
        (mine(2, Resample(1, 2, ess_threshold=math.nan)), "at scale 1: ess_threshold is nan"),
    ],
)
def test_what_cannot_run_is_refused_with_scale_and_remedy(plan, message):
    with pytest.raises(ValueError, match=message):
        plan.check(5)


@pytest.mark.parametrize("potential", ["diff", "max", "sum"])
def test_looking_back_is_fine_once_something_was_scored(potential):
    mine(2, Score(1), Resample(3, 2, potential)).check(5)
    mine(2, Resample(1, 2), Resample(3, 2, potential)).check(5)
    mine(2, Score(3), Resample(3, 2), Resample(4, 2, potential)).check(5)


def test_any_stage_at_any_scale_and_a_plan_file(tmp_path):
    plan = mine(
        7,
        Score(0),
        Cluster(0, 6),
        Resample(1, 5, "value", 3.0, "residual", ess_threshold=0.5),
        Cluster(1, 5),
        Cluster(2, 4),
        Resample(3, 3, "diff", target_ess=0.5),
        Resample(3, 2, scheme="systematic"),
        Resample(4, 1, "sum", scheme="top-k"),
    )
    plan.check(5)
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
    assert '"lambda": 3.0' in (tmp_path / "plan.json").read_text()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"samples": 1, "batch": 3}, "a plan has no 'batch'; known are foreseen, name, samples, stages"),
        ({"survivors": [1], "batch": 3}, "a plan has no 'batch'; known are"),
        ({"survivors": [1], "stages": []}, "a plan has no 'stages'; known are"),
        ({"stages": []}, "needs 'samples'"),
        ({}, "needs 'samples'"),
        ([], "a plan is an object with 'samples' and 'stages', got list"),
        ({"samples": 1.5}, "whole number"),
        ({"samples": 2**17}, "whole number up to 65536"),
        ({"samples": [4]}, "cannot read the plan"),
        ({"samples": 1, "stages": 4}, "cannot read the plan"),
        ({"samples": 1, "stages": [{"scale": 1}]}, "unknown kind of stage None; use best or branch or cluster or resample or"),
        ({"samples": 1, "stages": [{"kind": "potential", "scale": 1, "keep": 1}]}, "unknown kind of stage 'potential'"),
        ({"samples": 1, "stages": [{"kind": "cluster", "scale": 1}]}, "a cluster stage needs keep"),
        ({"samples": 1, "stages": [{"kind": "resample"}]}, "a resample stage needs scale and keep"),
        ({"samples": 1, "stages": [{"kind": "score", "scale": 1, "keep": 1}]}, "a score stage has no 'keep'"),
        ({"samples": 1, "stages": [{"kind": "cluster", "scale": 0.5, "keep": 1}]}, "whole number"),
        ({"survivors": [1.5]}, "whole number"),
        ({"survivors": 4}, "cannot read the plan"),
        ({"survivors": []}, "needs 'survivors'"),
        ({"survivors": [1], "selectors": {"0": {"kind": "best"}}}, "unknown kind of stage 'best'"),
        ({"survivors": [1], "selectors": {"0": {"kind": "cluster", "lambda": 3}}}, "cluster stage has no 'lam"),
        ({"survivors": [1], "selectors": {"0": {"kind": "potential", "lambda": "high"}}}, "a number in the plan, got 'high'"),
        ({"samples": "eight"}, "expected a number in the plan, got 'eight'"),
        ({"samples": math.nan}, "whole number up to 65536 in the plan, got 'nan'"),
        ({"survivors": [4, 2]}, "cuts 4 samples to 2 at scale 1, where nothing selects"),
        ({"samples": 8, "survivors": [4, 4]}, "cuts 8 samples to 4 at scale 0, where nothing selects"),
        ({"survivors": [1], "selectors": {"3": {"kind": "cluster"}}}, "a selector at scale 3 and survivors for 1 scales"),
    ],
)
def test_a_misshaped_plan_file_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        from_json(data)


def test_text_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("survivors: 1")
    with pytest.raises(ValueError, match=r"plan\.json is not JSON"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("name", ["raw", "best-of-n", "importance-sampling", "tts-var"])
def test_a_file_of_the_first_version_is_the_plan_of_its_name(name):
    """As the first version saved its plans of 13 scales at N = 2."""
    assert load_plan(GOLDEN / "plans" / f"{name}.json") == PLANS[name](2, 13)


def test_a_file_of_the_first_version_with_everything_in_it():
    """Survivors, both kinds of selectors with all settings, scales to score for the record, at a selector's scale as well."""
    assert load_plan(GOLDEN / "plans" / "everything.json") == Plan(
        "mine", 7,
        (
            Score(0), Cluster(0, 6),
            Resample(1, 5, "value", 3.0, "residual", ess_threshold=0.5),
            Score(2), Cluster(2, 4),
            Resample(3, 3, "diff", target_ess=0.5),
            Resample(4, 1, "sum", scheme="top-k"),
        ),
    )


def test_files_of_the_first_version_may_leave_out_all_but_survivors():
    assert from_json({"survivors": [3, 3, 3]}) == Plan("custom", 3)
    assert from_json({"survivors": [2, 1], "selectors": {"1": {"kind": "potential"}}}) == Plan("custom", 2, (Resample(1, 1),))
    assert from_json({"samples": 4, "survivors": [2], "selectors": {"0": {"kind": "cluster"}}, "score_at": []}) == Plan(
        "custom", 4, (Cluster(0, 2),)
    )
    assert from_json({"name": "n", "survivors": ["2", 2.0], "score_at": [1, 0, 1]}) == Plan("n", 2, (Score(0), Score(1)))


def test_settings_for_every_resampling():
    plan = with_potential(tts_var(1), lam=2.0, scheme="systematic")
    assert plan.stages[2:] == (Resample(6, 2, "value", 2.0, "systematic"), Resample(9, 1, "value", 2.0, "systematic"))
    assert replace(plan, stages=tts_var(1).stages) == tts_var(1)


def test_scores_on_the_way_come_before_what_selects_there():
    plan = scored_at(tts_var(1), [5, 0, 5])
    assert plan.stages[:4] == (Score(0), Cluster(2, 6), Score(5), Cluster(5, 4))
    assert plan.running(6) == 4 and plan.scored(13) == [0, 5, 6, 9, 12]
    plan.check(13)
