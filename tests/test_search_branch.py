"""Candidates from one forward pass: what they share, what they cost, and that a search with them is like any other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_conditioning, make_tiny_model

from lab.benchmark.formulas import shared_cache_tokens
from ttsvar_core.config import Sampling
from ttsvar_core.costs import Search
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.footprint import cache_bytes, token_bytes
from ttsvar_core.inspect.tree import family_tree
from ttsvar_core.sampling import replay, sample
from ttsvar_core.search.branch import Branch
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import Plan, beam, best_of_n, funnel, scored_at
from ttsvar_core.search.plan_file import from_json, to_json
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.run import run, search
from ttsvar_core.search.save import load_state, save_state
from ttsvar_core.search.score import Best, Score
from ttsvar_core.state import start

SCALES = 5
GROWING = Plan("growing", 2, (Branch(1, 3), Best(1, 2), Branch(2, 2), Branch(3, 2), Resample(3, 3), Score(4)))


class Brightness:
    name = "brightness"
    range = (0.0, 1.0)

    def score(self, images, prompt):
        return images.mean(dim=(1, 2, 3))


class Counting:
    """A transformer that notes how many samples run each scale."""

    def __init__(self, inner):
        self._inner, self.ran = inner, {}

    def forward_scale(self, features, scale, *more):
        self.ran[scale] = self.ran.get(scale, 0) + len(features)
        return self._inner.forward_scale(features, scale, *more)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def counting(model):
    return replace(model, transformer=Counting(model.transformer))


def go(model, plan, state=None, seed=5, **sampler):
    state = state or start(model, make_conditioning(), plan.samples, seed)
    return run(state, plan, Brightness(), sampler=Sampler(**sampler))


def same(one, two):
    lineage = repr(one.state.lineage) == repr(two.state.lineage)  # NaN is like NaN
    return lineage and all(torch.equal(a, b) for a, b in zip(one.state.bits, two.state.bits, strict=True))


PLANS = [
    GROWING, beam(1, SCALES), beam(2, SCALES, 3), Plan("at the first", 1, (Branch(0, 4), Best(0, 2))),
    Plan("at the last", 2, (Branch(4, 3),)), Plan("twice", 2, (Branch(1, 2), Branch(2, 2), Best(3, 3))),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_candidates_cost_the_transformer_nothing_and_are_counted_so(tiny_model, plan):
    model = counting(tiny_model)
    result = go(model, plan)
    running = [plan.running(scale) for scale in range(SCALES)]
    assert [model.transformer.ran[scale] for scale in range(SCALES)] == running
    report, tokens = result.report, model.schedule().tokens
    assert [one["samples"] for one in report["scales"]] == running
    assert report["token_forwards"] == sum(n * t for n, t in zip(running, tokens, strict=True))
    cost = Search(tiny_model.config, plan, tiny_model.schedule(), (2,) * SCALES, 3)
    assert cost.total.token_forwards == report["token_forwards"]
    for scale, one in zip(cost.scales, report["scales"], strict=True):
        drawn = plan.running(scale.scale) * plan.candidates(scale.scale)
        assert one["scores"] is None or len(one["scores"]) == drawn == scale.scored == scale.pictures
    # keys and values: one copy for each sample of a scale that a living one descends from
    each = token_bytes(tiny_model.config.transformer, 2, 4)
    formula = [count * each for count in shared_cache_tokens(tiny_model.schedule(), running, result.state.lineage)]
    assert [one["cache_bytes"] for one in report["scales"][:-1]] == formula


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
@pytest.mark.parametrize("samples", [1, 2])
def test_in_turns_under_a_cap_and_in_eight_bits(tiny_model, plan, samples):
    whole, each = go(tiny_model, plan), cache_bytes(tiny_model, tiny_model.schedule(), SCALES - 1)
    assert same(go(tiny_model, plan, max_cache_bytes=samples * each), whole)  # no bit of these lies within rounding of its draw
    coarse = [go(tiny_model, plan, float8_cache=True) for _ in range(2)]
    assert same(*coarse) and coarse[0].state.samples == whole.state.samples


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_run_can_be_saved_after_any_step_and_goes_on(tiny_model, plan, tmp_path):
    conditioning, whole = make_conditioning(), go(tiny_model, plan)
    state = start(tiny_model, conditioning, plan.samples, 5)
    for step in search(state, plan, Brightness()):
        if not step.state.finished:
            save_state(step.state, tmp_path / "state")
            assert same(go(tiny_model, plan, load_state(tmp_path / "state", tiny_model, conditioning)), whole)
    assert whole.report["answer"]["lineage"] and json.loads(json.dumps(whole.report, allow_nan=False)) == whole.report
    assert family_tree(whole.state, whole.images).width == 1024


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    before=st.integers(0, 3), candidates=st.integers(2, 4), samples=st.integers(1, 3), group=st.integers(1, 3),
    ends=st.booleans(), policy=st.sampled_from(["keep", "drop", "cpu"]),
)
def test_candidates_share_keys_and_values_and_replay_to_them(before, candidates, samples, group, ends, policy):
    model = make_tiny_model()
    sampling = Sampling(2.0, 1.0, 0.97)
    sampling = sampling.guided_until(before, SCALES) if ends else sampling
    state = sample(start(model, make_conditioning(), samples, 3), before, sampling) if before else start(
        model, make_conditioning(), samples, 3
    )
    through = state.next_scale
    grown = sample(state, through, sampling, candidates=candidates, group_size=group)
    alone = sample(state, through, sampling, group_size=group)
    assert all(torch.equal(a[:samples], b) for a, b in zip(grown.bits, alone.bits, strict=True))
    if through < SCALES - 1:
        assert grown.cache.nbytes == alone.cache.nbytes
        branches = grown.cache.branches
        again, kept = replay(grown.without_cache(), branches).cache, grown.cache
        for layer in range(model.config.transformer.depth):
            for ours, theirs in zip(again.layer(layer), kept.layer(layer), strict=True):
                assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
        kept = sample(state, through, sampling, cache_policy=policy, candidates=candidates)
        ahead = [sample(one, SCALES - 1, sampling) for one in (grown, kept)]
        assert sum(int((a != b).sum()) for a, b in zip(ahead[0].bits, ahead[1].bits, strict=True)) <= 1


def test_candidates_differ_from_their_scale_on(tiny_model, conditioning):
    state = sample(start(tiny_model, conditioning, 2, 1), 3, candidates=5)
    assert len(torch.unique(state.bits[3].flatten(1), dim=0)) == 10
    assert len(torch.unique(state.features.flatten(1), dim=0)) == 10
    assert len(torch.unique(state.bits[2].flatten(1), dim=0)) == 2
    assert [(step.scale, step.ancestors) for step in state.lineage] == [(2, (0, 1) * 5)]


def test_a_search_with_branches_equals_the_steps_by_hand(tiny_model, conditioning):
    from ttsvar_core.search.view import act

    plan = Plan("mine", 2, (Branch(2, 3), Best(2, 2)))
    state, _ = act(sample(start(tiny_model, conditioning, 2, 5), 2, candidates=3), Best(2, 2), Brightness())
    assert torch.equal(sample(state, SCALES - 1).bits[-1], go(tiny_model, plan).state.bits[-1])


def test_a_graph_may_say_the_candidates_where_the_scales_are_run(tiny_model, conditioning):
    one = Sampler().advance(start(tiny_model, conditioning, 2, 5), 3, candidates=2)
    each = cache_bytes(tiny_model, tiny_model.schedule(), SCALES - 1)
    two = Sampler(max_cache_bytes=each).advance(start(tiny_model, conditioning, 2, 5), 3, candidates=2)
    assert all(torch.equal(a, b) for a, b in zip(one.bits, two.bits, strict=True)) and repr(one.lineage) == repr(two.lineage)


def test_plans_that_share_their_past_branch_as_they_do_alone(tiny_model, conditioning):
    from lab.experiment.arms import Arm
    from lab.experiment.walk import walk
    from lab.experiment.world import World

    networks = {"brightness": Brightness()}, {"pool": LatentPool()}
    world = World(tiny_model, None, *networks, tiny_model.schedule(), tiny_model.config.sampling)
    two = Plan("two", 4, (Best(1, 1), Branch(2, 4), Best(2, 1)))
    plans = {"beam": beam(1, SCALES), "two": two, "n": best_of_n(4), "growing": GROWING, "last": PLANS[4]}
    finished = walk(world, conditioning, 5, [Arm(name, plan) for name, plan in plans.items()])
    for name, plan in plans.items():
        alone = go(tiny_model, plan).state
        assert repr(finished[name].state.lineage) == repr(alone.lineage), name
        assert all(torch.equal(a, b) for a, b in zip(finished[name].state.bits, alone.bits, strict=True)), name


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((Branch(1, 1),), "branch at scale 1: 1 candidates of each sample are no branching; draw at least 2"),
        ((Score(1), Branch(1, 2)), "branch at scale 1: it stands after a stage at scale 1; a branch stands first"),
        ((Branch(1, 2), Branch(1, 2)), "it stands after a stage at scale 1; a branch stands first"),
        ((Best(1, 2), Branch(0, 2)), "rising order"),
        ((Branch(1, 2), Best(1, 5)), "best at scale 1: keep is 5, but only 4 samples"),
    ],
)
def test_what_cannot_branch_is_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        Plan("mine", 2, stages).check(5)


def test_no_candidates_are_refused_before_anything_runs(tiny_model, conditioning):
    state = start(tiny_model, conditioning, 1, 0)
    for run_it in (sample, Sampler().advance, Sampler(max_cache_bytes=10**9).advance):
        with pytest.raises(ValueError, match="0 candidates of each sample; draw at least 1"):
            run_it(state, 0, candidates=0)


@pytest.mark.parametrize("plan", [*PLANS, beam(3), funnel(2)], ids=lambda plan: plan.name)
def test_plans_that_branch_survive_json_and_count_right(plan):
    assert from_json(json.loads(json.dumps(to_json(plan)))) == plan
    count = plan.samples
    for stage, met in plan.met():
        assert met == count
        count = stage.keep or count * getattr(stage, "candidates", 1)
    assert plan.running(10**6) == count


def test_scoring_on_the_way_comes_after_the_branching():
    plan = scored_at(GROWING, range(5))
    plan.check(5)
    assert [stage.kind for stage in plan.at(1)] == ["branch", "score", "best"]
    with pytest.raises(ValueError, match="a branch stage needs candidates"):
        from_json({"samples": 1, "stages": [{"kind": "branch", "scale": 1}]})


def test_a_funnel_and_a_beam():
    assert funnel(3) == Plan("funnel", 24, (Best(6, 3),))
    assert beam(2) == Plan("beam", 8, (Best(4, 2), Branch(5, 4), Best(5, 2), Branch(6, 4), Best(6, 2)))
    assert beam(5, 13, 10) == Plan("beam", 50, (Best(4, 5), Branch(5, 10), Best(5, 5), Branch(6, 10), Best(6, 5)))
    with pytest.raises(ValueError, match="n is 0"):
        funnel(0)


def test_a_funnel_keeps_the_best_each_once(tiny_model):
    result, everyone = go(tiny_model, Plan("funnel", 8, (Best(2, 3),))), go(tiny_model, scored_at(best_of_n(8), [2]))
    scores = everyone.state.scores[:, 2]
    kept = result.state.lineage[0].ancestors
    assert len(set(kept)) == 3 and list(kept) == scores.argsort(descending=True)[:3].tolist()
