"""The whole search: the report, where it decodes, what it holds in memory, and that it equals the steps by hand."""

import dataclasses
import json
import weakref

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.config import Sampling
from ttsvar_core.decoding import decode
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.sampling import sample
from ttsvar_core.search import memory
from ttsvar_core.search.plan import (
    ClusterSelector,
    Plan,
    PotentialSelector,
    best_of_n,
    importance_sampling,
    raw,
    tts_var,
)
from ttsvar_core.search.report import Hooks
from ttsvar_core.search.run import run
from ttsvar_core.search.save import load_state, save_state
from ttsvar_core.search.select import best, cluster_select, potential_select, score
from ttsvar_core.state import start

SCALES = 5
TOKENS = [1, 4, 9, 16, 36]


class Brightness:
    """A reward that is a number per image, counts its calls, and can be told to go wrong."""

    name = "brightness"
    range = (0.0, 1.0)

    def __init__(self, wrong=None):
        self.calls, self.wrong = [], wrong

    def score(self, images, prompt):
        self.calls.append(len(images))
        scores = images.mean(dim=(1, 2, 3))
        if self.wrong is not None:
            scores[self.wrong[0]] = self.wrong[1]
        return scores


class Thumbnail:
    """An extractor that looks at images."""

    name = "thumbnail"
    looks_at = "images"

    def describe(self, x):
        return x[:, ::4, ::4].flatten(1)


@pytest.fixture
def count_decodes(monkeypatch):
    calls = []

    def counted(state, **how):
        calls.append(state.last_scale)
        return decode(state, **how)

    monkeypatch.setattr("ttsvar_core.search.run.decode", counted)
    monkeypatch.setattr("ttsvar_core.decoding.decode", lambda state: pytest.fail("decoded a second time"))
    return calls


def go(model, conditioning, plan, reward=None, extractor=None, **more):
    return run(model, conditioning, plan, 5, reward or Brightness(), extractor or LatentPool(grid=2), **more)


def test_report_of_the_papers_search(tiny_model, conditioning):
    result = go(tiny_model, conditioning, tts_var(1, SCALES))
    scales = result.report["scales"]
    assert [one["samples"] for one in scales] == [8, 6, 4, 2, 1]
    assert [one["tokens"] for one in scales] == TOKENS
    assert [one["decodes"] for one in scales] == [0, 0, 1, 1, 1]  # the extractor looks at features
    assert [one["scores"] and len(one["scores"]) for one in scales] == [None, None, 4, 2, 1]
    assert [one["ancestors"] and len(one["ancestors"]) for one in scales] == [6, 4, 2, 1, None]
    assert [one["ess"] is None for one in scales] == [False] * 4 + [True]
    assert set(scales[2]["seconds"]) == {"sample", "decode", "score", "select"}
    assert result.report["token_forwards"] == 8 * 1 + 6 * 4 + 4 * 9 + 2 * 16 + 36
    answer = result.report["answer"]
    assert answer["score"] == float(result.scores[result.best]) == pytest.approx(float(result.images.mean()))
    assert [step["scale"] for step in answer["lineage"]] == [0, 1, 2, 3]
    for before, after in zip(answer["lineage"], answer["lineage"][1:], strict=False):
        assert before["row_after"] == after["row_before"]
    assert set(answer["score_history"]) == {"2", "3", "4"}
    assert json.loads(json.dumps(result.report, allow_nan=False)) == result.report


def test_same_seed_same_pictures(tiny_model, conditioning):
    one, two = (go(tiny_model, conditioning, tts_var(1, SCALES)) for _ in range(2))
    assert torch.equal(one.images, two.images) and torch.equal(one.scores, two.scores)
    assert one.report["answer"]["lineage"] == two.report["answer"]["lineage"]


def test_run_equals_the_steps_by_hand(tiny_model, conditioning):
    """The same functions as a wired graph calls, in stretches of scales, without compacting: the same images."""
    plan = Plan("mine", 6, (6, 4, 4, 3, 3), ((1, ClusterSelector()), (3, PotentialSelector(scheme="residual"))))
    result = go(tiny_model, conditioning, plan)
    state = sample(start(tiny_model, conditioning, 6, 5), 1)
    state, _ = cluster_select(state, LatentPool(grid=2), 4)
    state, _ = score(sample(state, 3), Brightness())
    state, _ = potential_select(state, 3, scheme="residual")
    state, scores = score(sample(state, 4), Brightness())
    assert torch.equal(decode(state), result.images) and torch.equal(scores, result.scores)
    chosen, _ = best(state)
    assert torch.equal(decode(chosen)[0], result.images[result.best])


def test_raw_is_one_sample_decoded_once_at_the_end(tiny_model, conditioning, count_decodes):
    result = run(tiny_model, conditioning, raw(SCALES), 5)
    assert count_decodes == [SCALES - 1] and result.report["decodes"] == 1
    assert result.scores is None and result.report["answer"]["score"] is None
    assert torch.equal(result.images, decode(sample(start(tiny_model, conditioning, 1, 5), SCALES - 1)))


def test_best_of_n_looks_once(tiny_model, conditioning, count_decodes):
    reward = Brightness()
    result = go(tiny_model, conditioning, best_of_n(3, SCALES), reward)
    assert reward.calls == [3] and count_decodes == [SCALES - 1]
    assert result.best == int(result.scores.argmax()) and len(result.images) == 3


def test_one_decode_where_reward_and_extractor_both_look(tiny_model, conditioning, count_decodes):
    plan = Plan("both", 4, (4, 2, 2, 2, 2), ((1, ClusterSelector()), (2, ClusterSelector())), score_at=(1,))
    reward = Brightness()
    result = go(tiny_model, conditioning, plan, reward, Thumbnail())
    assert count_decodes == [1, 4] and reward.calls == [4, 2]  # at scale 2 all are kept, so nobody looks
    assert [one["decodes"] for one in result.report["scales"]] == [0, 1, 0, 0, 1]


def test_a_selector_at_the_last_scale_needs_no_second_look(tiny_model, conditioning, count_decodes):
    plan = Plan("late", 3, (3, 3, 3, 3, 2), ((4, PotentialSelector(scheme="top-k")),))
    reward = Brightness()
    result = go(tiny_model, conditioning, plan, reward)
    assert reward.calls == [3] and count_decodes == [4] and result.best == 0
    assert torch.equal(result.images.mean(dim=(1, 2, 3)), result.scores)


def test_importance_sampling_keeps_all_places(tiny_model, conditioning):
    scales = go(tiny_model, conditioning, importance_sampling(3, SCALES)).report["scales"]
    assert [one["samples"] for one in scales] == [3] * 5
    assert [scale for scale, one in enumerate(scales) if one["ancestors"]] == [2, 3]


def test_cache_holds_the_survivors_and_never_the_last_scale(tiny_model, conditioning):
    plan = Plan("cut", 6, (6, 4, 4, 2, 2), ((1, ClusterSelector()), (3, ClusterSelector())))
    scales = go(tiny_model, conditioning, plan).report["scales"]
    each = [memory.cache_bytes(tiny_model, tiny_model.schedule(), scale) for scale in range(SCALES)]
    sizes = tiny_model.config.transformer
    assert each[2] == 2 * sizes.depth * 2 * (1 + 4 + 9) * sizes.embed_dim * 4  # keys and values, both branches, float32
    assert each[4] == each[3]
    assert [one["cache_bytes"] for one in scales] == [n * b for n, b in zip([6, 6, 4, 4, 2], each, strict=True)]


def pointers(cache):
    return {tensor.data_ptr() for chunk in cache.chunks for tensor in (*chunk.keys, *chunk.values)}


def test_a_selection_copies_no_keys_and_values_and_compacting_only_lowers(tiny_model, conditioning):
    state = sample(start(tiny_model, conditioning, 4, 5), 2)
    selected, _ = cluster_select(state, LatentPool(grid=2), 2)
    assert pointers(selected.cache) == pointers(state.cache) and selected.cache.nbytes == state.cache.nbytes
    assert type(state.cache)(tuple(chunk.compacted() for chunk in selected.cache.chunks)).nbytes == state.cache.nbytes // 2
    every = state.select([3, 1, 0, 2, 2])
    assert pointers(type(every.cache)(tuple(chunk.compacted() for chunk in every.cache.chunks))) == pointers(state.cache)


def test_a_wrong_score_names_reward_and_sample(tiny_model, conditioning):
    for value in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(ValueError, match=f"reward brightness gave {value} for sample 1 at scale 2"):
            go(tiny_model, conditioning, tts_var(1, SCALES), Brightness((1, value)))


def test_everything_is_checked_before_anything_runs(tiny_model, conditioning, monkeypatch):
    monkeypatch.setattr("ttsvar_core.search.run.start", lambda *_: pytest.fail("ran"))
    for plan, more, message in (
        (tts_var(1), {}, "survivors for 13 scales and the schedule has 5"),
        (tts_var(1, SCALES), {"reward": None, "extractor": None}, "clusters at scale 0 and no extractor"),
        (best_of_n(2, SCALES), {"reward": None}, "no reward was given"),
        (raw(SCALES), {"sampling": Sampling(tau=(1.0, 1.0))}, "tau has 2 values"),
        (raw(SCALES), {"max_cache_bytes": 100}, "one sample of this schedule needs 0.06 MiB"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tiny_model, conditioning, plan, 5, **{"reward": Brightness(), "extractor": LatentPool(), **more})


def test_hooks_see_every_scale_and_an_interrupted_run_goes_on(conditioning, tmp_path):
    plan, model, seen = tts_var(1, 7), make_tiny_model(schedule="1 2 3 3 4 4 6"), []
    whole = go(model, conditioning, plan, hooks=Hooks(on_scale=lambda record, state: seen.append((record, state))))
    assert [record["scale"] for record, _ in seen] == list(range(7))
    assert [state.samples for _, state in seen] == list(plan.survivors)

    def stop_after(scale):
        def on_state(state):
            if state.last_scale == scale:
                raise KeyboardInterrupt

        return on_state

    for stop in range(1, 7):
        path = tmp_path / f"{stop}.safetensors"
        hooks = Hooks(lambda record, state, path=path: save_state(state, path), stop_after(stop))
        with pytest.raises(KeyboardInterrupt):
            go(model, conditioning, plan, hooks=hooks)
        again = go(model, conditioning, plan, state=load_state(path, model, conditioning))
        assert flipped_share(again.state, whole.state) < 1e-3
        assert again.report["answer"]["lineage"] == whole.report["answer"]["lineage"]


def test_going_on_with_another_plan_is_refused(tiny_model, conditioning):
    state = sample(start(tiny_model, conditioning, 3, 5), 1)
    with pytest.raises(ValueError, match=r"state has 3 samples after selections at scales \[\]; plan tts-var would have 4"):
        go(tiny_model, conditioning, tts_var(1, SCALES), state=state)


def test_going_on_with_another_seed_or_without_scores_is_refused(tiny_model, conditioning):
    state = sample(start(tiny_model, conditioning, 4, 6), 1)
    with pytest.raises(ValueError, match="drawn with seed 6, the seed given is 5; give 6"):
        go(tiny_model, conditioning, best_of_n(4, SCALES), state=state)
    plan = dataclasses.replace(best_of_n(4, SCALES), score_at=(0, 1))
    with pytest.raises(ValueError, match=r"no scores at scales \[0\], which plan best-of-n scores"):
        go(tiny_model, conditioning, plan, state=state._replace(seed=5).with_scores(torch.zeros(4)))


def small_memory(monkeypatch, model, rows, tokens=10**9):
    """Make forwards run out of memory above `rows` samples, and above `tokens` cached sample-tokens."""
    forward, ran = model.transformer.forward_scale, []

    def limited(features, scale, schedule, text, past, step):
        stored = sum(chunk.stored * chunk.keys[0].shape[3] for chunk in past.chunks)
        if len(features) > rows or stored > tokens:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB")
        ran.append((scale, len(features)))
        return forward(features, scale, schedule, text, past, step)

    monkeypatch.setattr(model.transformer, "forward_scale", limited)
    return ran


def flipped_share(one, two):
    pairs = list(zip(one.bits, two.bits, strict=True))
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


@pytest.mark.parametrize("limits", [{"rows": 3}, {"rows": 1}, {"rows": 4, "tokens": 60}, {"rows": 9, "tokens": 30}])
def test_what_does_not_fit_runs_in_smaller_groups_with_the_same_draws(conditioning, monkeypatch, limits):
    model = make_tiny_model()
    whole = go(model, conditioning, best_of_n(8, SCALES))
    ran = small_memory(monkeypatch, model, **limits)
    split = go(model, conditioning, best_of_n(8, SCALES))
    assert max(rows for _, rows in ran) <= limits["rows"]
    assert flipped_share(split.state, whole.state) < 1e-3
    assert split.best == whole.best


def test_the_cache_that_did_not_fit_is_gone_when_groups_run(conditioning, monkeypatch):
    """Scale 3 does not fit beside the survivors' cache, not even sample by sample; the groups begin with half of them."""
    model = make_tiny_model()
    forward, failed, ran = model.transformer.forward_scale, [], []

    def limited(features, scale, schedule, text, past, step):
        if scale == 3 and not ran:
            failed[:] = [weakref.ref(tensor) for chunk in past.chunks for tensor in chunk.keys]
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 2.00 GiB")
        if failed:
            ran.append((len(features), [ref() is None for ref in failed]))
        return forward(features, scale, schedule, text, past, step)

    monkeypatch.setattr(model.transformer, "forward_scale", limited)
    plan = Plan("cut", 8, (8, 8, 4, 4, 4), ((2, ClusterSelector()),))
    go(model, conditioning, plan)
    assert ran[0] == (2, [True] * len(failed))


def test_looked_at_images_are_gone_when_the_next_scale_runs(conditioning, monkeypatch):
    model, images = make_tiny_model(), []
    forward = model.transformer.forward_scale

    class Looks(Brightness):
        def score(self, pictures, prompt):
            images.append(weakref.ref(pictures))
            return super().score(pictures, prompt)

    def watched(*given):
        assert all(image() is None for image in images)
        return forward(*given)

    monkeypatch.setattr(model.transformer, "forward_scale", watched)
    plan = dataclasses.replace(best_of_n(2, SCALES), score_at=(1, 3))
    assert len(go(model, conditioning, plan, Looks()).images) == 2 and len(images) == 3


def test_giving_up_says_what_would_fit(conditioning, monkeypatch):
    model = make_tiny_model()
    small_memory(monkeypatch, model, 8, tokens=13)
    with pytest.raises(memory.OutOfMemory, match=r"scale 3 \(4x4 tokens\).*ends at scale 2 \(1x1 2x2 3x3\) fits"):
        go(model, conditioning, best_of_n(4, SCALES))


def test_other_errors_are_not_taken_for_memory(conditioning, monkeypatch):
    model = make_tiny_model()

    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model.transformer, "forward_scale", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        go(model, conditioning, raw(SCALES))


def test_the_cap_holds_and_changes_no_draws(tiny_model, conditioning):
    plan = tts_var(1, SCALES)
    whole = go(tiny_model, conditioning, plan)
    cap = memory.cache_bytes(tiny_model, tiny_model.schedule(), SCALES - 1)
    capped = go(tiny_model, conditioning, plan, max_cache_bytes=cap)
    assert whole.report["peak_cache_bytes"] > cap >= capped.report["peak_cache_bytes"]
    assert flipped_share(capped.state, whole.state) < 1e-3
    assert capped.report["answer"]["lineage"] == whole.report["answer"]["lineage"]


def test_unfinished_samples_can_be_looked_at_smaller(tiny_model, conditioning):
    class Sides(Brightness):
        def score(self, images, prompt):
            sides.append(images.shape[1])
            return super().score(images, prompt)

    sides = []
    result = go(tiny_model, conditioning, tts_var(1, SCALES), Sides(), look_shrink=2)
    assert sides == [6, 6, 12] and result.images.shape[1] == 12
    with pytest.raises(ValueError, match=r"6x6 cells.*4 times"):
        go(tiny_model, conditioning, tts_var(1, SCALES), Sides(), look_shrink=4)
    assert len(sides) == 3


@pytest.mark.parametrize("capped", [False, True])
def test_a_float8_cache_peaks_at_a_quarter(tiny_model, conditioning, capped):
    plan = tts_var(1, SCALES)
    whole = go(tiny_model, conditioning, plan)
    cap = memory.cache_bytes(tiny_model, tiny_model.schedule(), SCALES - 1, float8=True) if capped else None
    small = go(tiny_model, conditioning, plan, float8_cache=True, max_cache_bytes=cap)
    if capped:
        assert 0 < small.report["peak_cache_bytes"] <= cap
    else:
        assert small.report["peak_cache_bytes"] * 4 == whole.report["peak_cache_bytes"]
    assert small.state.finished


def test_a_scale_that_does_not_exist_is_refused_before_sampling(tiny_model, conditioning):
    state = start(tiny_model, conditioning, 2, 5)
    with pytest.raises(ValueError, match="Cannot sample through scale 5"):
        memory.sample_within([state], 5, on_scale=lambda _: pytest.fail("sampled"))
    with pytest.raises(ValueError, match="All 5 scales are sampled"):
        memory.sample_within([sample(state, 4)], 4)


def test_unguided_runs_hold_half(tiny_model, conditioning):
    plain = go(tiny_model, conditioning, raw(SCALES), sampling=Sampling(guidance=1.0)).report
    assert plain["peak_cache_bytes"] == memory.cache_bytes(tiny_model, tiny_model.schedule(), 4, branches=1)


def test_the_whole_batch_starts_with_the_raw_sample(tiny_model):
    """Sample 0 draws what a raw run with this seed draws."""
    conditioning = make_conditioning(seed=4)
    one = go(tiny_model, conditioning, raw(SCALES)).state
    assert flipped_share(one, go(tiny_model, conditioning, best_of_n(4, SCALES)).state.select([0])) < 1e-3


def test_plan_settings_reach_the_selector(tiny_model, conditioning):
    selector = PotentialSelector("sum", 3.0, "systematic", target_ess=0.6)
    plan = Plan("tuned", 8, (8, 8, 8, 8, 8), ((3, selector),), score_at=(1,))
    scales = go(tiny_model, conditioning, plan).report["scales"]
    assert scales[3]["ess"] == pytest.approx(0.6 * 8, rel=1e-5) and "SUM" in scales[3]["reason"]
    kept = dataclasses.replace(selector, target_ess=None, lam=0.0, ess_threshold=0.5)
    report = go(tiny_model, conditioning, dataclasses.replace(plan, selectors=((3, kept),))).report
    assert report["scales"][3]["ancestors"] == list(range(8)) and "nothing drawn" in report["scales"][3]["reason"]
