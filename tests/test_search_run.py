"""The whole search: the report, where it decodes, what it holds in memory, and that it equals the steps by hand."""

import dataclasses
import json
import weakref

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.config import Sampling
from ttsvar_core.decoding import decode, sketch
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.sampling import sample
from ttsvar_core.search import memory
from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import Plan, best_of_n, importance_sampling, raw, scored_at, tts_var, with_potential
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.run import run, search
from ttsvar_core.search.save import load_state, save_state
from ttsvar_core.search.score import Score, best
from ttsvar_core.search.view import View, act
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


class Counted:
    """Decodes, and notes after which scale."""

    def __init__(self):
        self.calls = []

    def __call__(self, state):
        self.calls.append(state.last_scale)
        return decode(state)


def begin(model, conditioning, plan, seed=5):
    return start(model, conditioning, plan.samples, seed)


def go(model, conditioning, plan, reward=None, extractor=None, state=None, decode=sketch, **sampler):
    state = state or begin(model, conditioning, plan)
    return run(state, plan, reward or Brightness(), extractor or LatentPool(grid=2), Sampler(**sampler), decode)


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
    assert set(scales[0]["seconds"]) == {"sample", "describe", "select"}
    parts = result.report["seconds_by_part"]
    assert min(parts.values()) > 0 and sum(parts.values()) == pytest.approx(result.report["seconds"])
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
    plan = Plan("mine", 6, (Cluster(1, 4), Resample(3, 3, scheme="residual")))
    result = go(tiny_model, conditioning, plan)
    state, _ = act(sample(begin(tiny_model, conditioning, plan), 1), Cluster(1, 4), extractor=LatentPool(grid=2))
    state, _ = act(sample(state, 3), Score(3), Brightness())
    state, _ = act(state, Resample(3, 3, scheme="residual"))
    state, _ = act(sample(state, 4), Score(4), Brightness())
    assert torch.equal(decode(state), result.images) and torch.equal(state.scores[:, 4], result.scores)
    assert torch.equal(decode(state.select(best(state)))[0], result.images[result.best])


def test_raw_is_one_sample_decoded_once_at_the_end(tiny_model, conditioning):
    counted = Counted()
    result = run(begin(tiny_model, conditioning, raw()), raw(), decode=counted)
    assert counted.calls == [SCALES - 1] and result.report["decodes"] == 1
    assert result.scores is None and result.report["answer"]["score"] is None
    assert torch.equal(result.images, decode(sample(start(tiny_model, conditioning, 1, 5), SCALES - 1)))


def test_best_of_n_looks_once(tiny_model, conditioning):
    reward, counted = Brightness(), Counted()
    result = go(tiny_model, conditioning, best_of_n(3), reward, decode=counted)
    assert reward.calls == [3] and counted.calls == [SCALES - 1]
    assert result.best == int(result.scores.argmax()) and len(result.images) == 3


def test_one_decode_where_reward_and_extractor_both_look(tiny_model, conditioning):
    plan = Plan("both", 4, (Score(1), Cluster(1, 2), Cluster(2, 2)))
    reward, counted = Brightness(), Counted()
    result = go(tiny_model, conditioning, plan, reward, Thumbnail(), decode=counted)
    assert counted.calls == [1, 4] and reward.calls == [4, 2]  # at scale 2 all are kept, so nobody looks
    assert [one["decodes"] for one in result.report["scales"]] == [0, 1, 0, 0, 1]


def test_a_stage_at_the_last_scale_needs_no_second_look(tiny_model, conditioning):
    plan = Plan("late", 3, (Resample(4, 2, scheme="top-k"),))
    reward, counted = Brightness(), Counted()
    result = go(tiny_model, conditioning, plan, reward, decode=counted)
    assert reward.calls == [3] and counted.calls == [4] and result.best == 0
    assert torch.equal(result.images.mean(dim=(1, 2, 3)), result.scores)


def test_importance_sampling_keeps_all_places(tiny_model, conditioning):
    scales = go(tiny_model, conditioning, importance_sampling(3, SCALES)).report["scales"]
    assert [one["samples"] for one in scales] == [3] * 5
    assert [scale for scale, one in enumerate(scales) if one["ancestors"]] == [2, 3]


def test_cache_holds_the_survivors_and_never_the_last_scale(tiny_model, conditioning):
    plan = Plan("cut", 6, (Cluster(1, 4), Cluster(3, 2)))
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
    selected, _ = act(state, Cluster(2, 2), extractor=LatentPool(grid=2))
    assert pointers(selected.cache) == pointers(state.cache) and selected.cache.nbytes == state.cache.nbytes
    assert type(state.cache)(tuple(chunk.compacted() for chunk in selected.cache.chunks)).nbytes == state.cache.nbytes // 2
    every = state.select([3, 1, 0, 2, 2])
    assert pointers(type(every.cache)(tuple(chunk.compacted() for chunk in every.cache.chunks))) == pointers(state.cache)


def test_a_wrong_score_names_reward_and_sample(tiny_model, conditioning):
    for value in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(ValueError, match=f"reward brightness gave {value} for sample 1 at scale 2"):
            go(tiny_model, conditioning, tts_var(1, SCALES), Brightness((1, value)))


class Picky(Brightness):
    def check_prompt(self, prompt):
        raise ValueError(f"cannot judge {prompt!r}")


def fails(_):
    pytest.fail("ran")


def test_everything_is_checked_before_anything_runs(tiny_model, conditioning):
    for plan, more, sampler, message in (
        (tts_var(1), {}, {}, "cluster at scale 5: the last scale is 4"),
        (tts_var(1, SCALES), {"reward": None, "extractor": None}, {}, "clusters at scale 0 and no extractor"),
        (best_of_n(2), {"reward": None}, {}, "scores samples at scale 4 and no reward was given"),
        (tts_var(1, SCALES), {"reward": None}, {}, "scores samples at scale 2 and no reward was given"),
        (raw(), {}, {"sampling": Sampling(tau=(1.0, 1.0))}, "tau has 2 values"),
        (raw(), {}, {"max_cache_bytes": 100}, "one sample of this schedule needs 0.06 MiB"),
        (best_of_n(2), {"reward": Picky()}, {}, "cannot judge 'a tiny prompt'"),
    ):
        state, sampler = begin(tiny_model, conditioning, plan), Sampler(**sampler, on_scale=fails)
        with pytest.raises(ValueError, match=message):
            run(state, plan, **{"reward": Brightness(), "extractor": LatentPool(), **more}, sampler=sampler)
        with pytest.raises(ValueError, match=message):
            next(search(state, plan, **{"reward": Brightness(), "extractor": LatentPool(), **more}, sampler=sampler))


def test_a_reward_that_cannot_judge_the_prompt_is_left_out_where_it_decides_nothing(tiny_model, conditioning):
    reward = Picky()
    result = go(tiny_model, conditioning, raw(), reward)
    assert reward.calls == [] and result.scores is None and result.report["reward"] is None
    assert torch.equal(result.images, go(tiny_model, conditioning, raw()).images)


SEVEN = "1 2 3 3 4 4 6"


def test_every_scale_and_every_step_is_told(conditioning):
    plan, model, scales, steps = tts_var(1, 7), make_tiny_model(schedule=SEVEN), [], []
    sampler = Sampler(on_scale=lambda state: scales.append((state.last_scale, state.samples)))
    result = run(begin(model, conditioning, plan), plan, Brightness(), LatentPool(grid=2), sampler, on_step=steps.append)
    assert scales == [(scale, plan.running(scale)) for scale in range(7)]
    assert [step.state.last_scale for step in steps] == plan.stops(7) == [1, 3, 4, 5, 6]
    assert [step.state.samples for step in steps] == [6, 4, 2, 1, 1]
    assert [step.decoded for step in steps] == [0, 0, 4, 2, 1]
    assert [len(step.before) for step in steps] == [8, 6, 4, 2, 1]
    assert [[len(one.ancestors) for one in step.selections] for step in steps] == [[6], [4], [2], [1], []]
    assert all(step.images is None for step in steps[:-1]) and torch.equal(steps[-1].images, result.images)
    assert all(step.state.cache is None for step in steps) and steps[-1].state.finished
    assert [step.cache_bytes > 0 for step in steps] == [True] * 4 + [False]
    assert [step["scale"] for step in result.report["scales"]] == list(range(7))


@pytest.mark.parametrize("stop", range(7))
def test_an_interrupted_run_goes_on(conditioning, tmp_path, stop):
    """Interrupted while a scale is sampled; the latest whole state is that of the scale before, or of a stage there."""
    plan, model, path = tts_var(1, 7), make_tiny_model(schedule=SEVEN), tmp_path / "state"
    whole = go(model, conditioning, plan)

    def on_scale(state):
        if state.last_scale == stop:
            raise KeyboardInterrupt
        if not plan.at(state.last_scale):
            save_state(state, path)

    state = begin(model, conditioning, plan)
    save_state(state, path)
    with pytest.raises(KeyboardInterrupt):
        run(
            state, plan, Brightness(), LatentPool(grid=2), Sampler(on_scale=on_scale),
            on_step=lambda step: save_state(step.state, path),
        )
    saved = load_state(path, model, conditioning)
    assert saved.next_scale == stop
    again = go(model, conditioning, plan, state=saved)
    assert flipped_share(again.state, whole.state) < 1e-3
    assert again.report["answer"]["lineage"] == whole.report["answer"]["lineage"]


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_search_can_be_left_after_any_step_and_taken_up_from_its_state(conditioning, steps):
    plan, model = tts_var(1, 7), make_tiny_model(schedule=SEVEN)
    whole = go(model, conditioning, plan)
    begun = search(begin(model, conditioning, plan), plan, Brightness(), LatentPool(grid=2))
    state = [next(begun) for _ in range(steps)][-1].state
    begun.close()
    again = go(model, conditioning, plan, state=state)
    assert flipped_share(again.state, whole.state) < 1e-3
    assert again.report["answer"]["lineage"] == whole.report["answer"]["lineage"]
    assert again.report["answer"]["score_history"] == pytest.approx(whole.report["answer"]["score_history"], abs=1e-4)


def test_a_search_sampled_while_it_is_walked_is_the_search_run(tiny_model, conditioning):
    """The iterator does nothing before it is asked, and what it yields is what run collects."""
    plan, scales = tts_var(1, SCALES), []
    sampler = Sampler(on_scale=lambda state: scales.append(state.last_scale))
    walked = search(begin(tiny_model, conditioning, plan), plan, Brightness(), LatentPool(grid=2), sampler)
    assert scales == []
    assert next(walked).state.last_scale == 0 and scales == [0]
    last = list(walked)[-1]
    result = go(tiny_model, conditioning, plan)
    assert torch.equal(last.images, result.images) and torch.equal(last.state.scores[:, -1], result.scores)


def test_going_on_with_another_plan_is_refused(tiny_model, conditioning):
    state = sample(start(tiny_model, conditioning, 3, 5), 1)
    with pytest.raises(ValueError, match=r"state has 3 samples after selections at scales \[\]; plan tts-var would have 4"):
        go(tiny_model, conditioning, tts_var(1, SCALES), state=state)
    with pytest.raises(ValueError, match=r"3 samples after selections at scales \[\]; plan late would have 3 after .* at \[1\]"):
        go(tiny_model, conditioning, Plan("late", 3, (Cluster(1, 3),)), state=state)
    with pytest.raises(ValueError, match="all scales of the state are sampled already"):
        go(tiny_model, conditioning, best_of_n(3), state=sample(state, 4))


def test_going_on_without_scores_is_refused_and_the_seed_is_the_states(tiny_model, conditioning):
    state = sample(start(tiny_model, conditioning, 4, 6), 1)
    with pytest.raises(ValueError, match=r"no scores at scales \[0\], which plan best-of-n scores"):
        go(tiny_model, conditioning, scored_at(best_of_n(4), (0, 1)), state=state.with_scores(torch.zeros(4)))
    on, whole = go(tiny_model, conditioning, best_of_n(4), state=state), begin(tiny_model, conditioning, best_of_n(4), 6)
    assert on.report["seed"] == 6 and torch.equal(on.images, go(tiny_model, conditioning, best_of_n(4), state=whole).images)


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
    whole = go(model, conditioning, best_of_n(8))
    ran = small_memory(monkeypatch, model, **limits)
    split = go(model, conditioning, best_of_n(8))
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
    plan = Plan("cut", 8, (Cluster(2, 4),))
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
    plan = scored_at(best_of_n(2), (1, 3))
    assert len(go(model, conditioning, plan, Looks()).images) == 2 and len(images) == 3


def test_giving_up_says_what_would_fit(conditioning, monkeypatch):
    model = make_tiny_model()
    small_memory(monkeypatch, model, 8, tokens=13)
    with pytest.raises(memory.OutOfMemory, match=r"scale 3 \(4x4 tokens\).*ends at scale 2 \(1x1 2x2 3x3\) fits"):
        go(model, conditioning, best_of_n(4))


def test_other_errors_are_not_taken_for_memory(conditioning, monkeypatch):
    model = make_tiny_model()

    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model.transformer, "forward_scale", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        go(model, conditioning, raw())


def test_the_cap_holds_and_changes_no_draws(tiny_model, conditioning):
    plan = tts_var(1, SCALES)
    whole = go(tiny_model, conditioning, plan)
    cap = memory.cache_bytes(tiny_model, tiny_model.schedule(), SCALES - 1)
    capped = go(tiny_model, conditioning, plan, max_cache_bytes=cap)
    assert whole.report["peak_cache_bytes"] > cap >= capped.report["peak_cache_bytes"]
    assert flipped_share(capped.state, whole.state) < 1e-3
    assert capped.report["answer"]["lineage"] == whole.report["answer"]["lineage"]


def test_unfinished_samples_are_looked_at_at_the_size_sampled_so_far(tiny_model, conditioning):
    class Sides(Brightness):
        def score(self, images, prompt):
            sides.append(images.shape[1])
            return super().score(images, prompt)

    sides, tokenizer = [], dataclasses.replace(tiny_model.config.tokenizer, smallest_side=6)
    model = dataclasses.replace(tiny_model, config=dataclasses.replace(tiny_model.config, tokenizer=tokenizer))
    result = go(model, conditioning, tts_var(1, SCALES), Sides())
    assert sides == [6, 8, 12] and result.images.shape[1] == 12
    whole = go(model, conditioning, tts_var(1, SCALES), Sides(), decode=decode)
    assert sides[3:] == [12, 12, 12] and whole.images.shape[1] == 12


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
        Sampler(on_scale=fails).advance(state, 5)
    with pytest.raises(ValueError, match="All 5 scales are sampled"):
        Sampler(on_scale=fails).advance(sample(state, 4), 4)
    with pytest.raises(ValueError, match="scale 1 is sampled already"):
        Sampler(on_scale=fails).advance(sample(state, 2), 1)


def test_unguided_runs_hold_half(tiny_model, conditioning):
    plain = go(tiny_model, conditioning, raw(), sampling=Sampling(guidance=1.0)).report
    assert plain["peak_cache_bytes"] == memory.cache_bytes(tiny_model, tiny_model.schedule(), 4, branches=1)


def test_the_whole_batch_starts_with_the_raw_sample(tiny_model):
    """Sample 0 draws what a raw run with this seed draws."""
    conditioning = make_conditioning(seed=4)
    one = go(tiny_model, conditioning, raw()).state
    assert flipped_share(one, go(tiny_model, conditioning, best_of_n(4)).state.select([0])) < 1e-3


def test_plan_settings_reach_the_stage(tiny_model, conditioning):
    plan = Plan("tuned", 8, (Score(1), Resample(3, 8, "sum", 3.0, "systematic", target_ess=0.6)))
    scales = go(tiny_model, conditioning, plan).report["scales"]
    assert scales[3]["ess"] == pytest.approx(0.6 * 8, rel=1e-5) and "SUM" in scales[3]["reason"]
    report = go(tiny_model, conditioning, with_potential(plan, target_ess=None, lam=0.0, ess_threshold=0.5)).report
    assert report["scales"][3]["ancestors"] == list(range(8)) and "nothing drawn" in report["scales"][3]["reason"]


def test_several_stages_at_one_scale_see_one_decode_and_each_the_samples_that_are_left(tiny_model, conditioning):
    """Scored once before the first cut; what is looked at afterwards goes along with the samples."""
    reward, counted = Brightness(), Counted()
    plan = Plan("many", 8, (Score(1), Cluster(1, 6), Resample(1, 4, scheme="top-k"), Cluster(1, 2), Cluster(3, 1)))
    steps = list(search(begin(tiny_model, conditioning, plan), plan, reward, Thumbnail(), decode=counted))
    assert counted.calls == [1, 3, 4] and reward.calls == [8, 1]
    first = steps[0]
    assert [len(one.ancestors) for one in first.selections] == [6, 4, 2] and len(first.before) == 8 and first.decoded == 8
    lineage = [(step.scale, len(step.scores), len(step.ancestors)) for step in first.state.lineage]
    assert lineage == [(1, 8, 6), (1, 6, 4), (1, 4, 2)]
    rows = torch.tensor(range(8))
    for selection in first.selections:
        rows = rows[selection.ancestors]
    assert first.state.scores_at(1) == tuple(first.before[row] for row in rows)
    assert torch.allclose(Brightness().score(decode(first.state), ""), first.state.scores[:, 1])
    record = run(begin(tiny_model, conditioning, plan), plan, Brightness(), Thumbnail()).report["scales"][1]
    assert record["ancestors"] == rows.tolist() and record["scores"] == list(first.before)
    assert record["reason"].count("; then ") == 2 and record["ess"] == first.selections[-1].ess


def test_a_reward_looks_once_at_a_scale_whoever_asks(tiny_model, conditioning):
    """A resampling after a cut reads the scores that were taken before it."""
    reward = Brightness()
    plan = Plan("twice", 6, (Resample(2, 4), Resample(2, 2)))
    result = go(tiny_model, conditioning, plan, reward)
    assert reward.calls == [6, 2] and len(result.images) == 2


def test_two_resamplings_at_one_scale_draw_apart():
    """Of equal samples each is as likely as any other to be left by 8 to 4 to 2: no draw of the second repeats the first's."""
    model, conditioning, left = make_tiny_model(), make_conditioning(), torch.zeros(8)
    sampled, runs = sample(start(model, conditioning, 8, 0), 0).without_cache().with_scores(torch.zeros(8)), 4000
    rows = torch.arange(8)
    for seed in range(runs):
        state = sampled._replace(seed=seed)
        for keep in (4, 2):
            state, _ = act(state, Resample(0, keep))
        survivors = rows[list(state.lineage[-2].ancestors)][list(state.lineage[-1].ancestors)]
        left += torch.bincount(survivors, minlength=8)
    # The two left of a run are the same sample in 1/4 + 3/4 * 1/8 of all runs, so their counts vary 1.25 times as much as those of
    # independent draws would.
    chi_square = ((left - runs / 4) ** 2 / (runs / 4)).sum() / 1.25
    assert chi_square < 24.3, left / left.sum()  # 7 degrees of freedom, P = 0.001


def act_on(state, *stages):
    view = View(state)
    for stage in stages:
        selection = stage.select(view)
        view.select(selection)
    return view.state, selection


def scored(state, scale, scores):
    return sample(state, scale).with_scores(torch.tensor(scores))


def test_a_resampling_that_was_not_worth_it_keeps_its_weights_for_the_next(tiny_model, conditioning):
    """DIFF telescopes: skipped at 2, drawn at 3, the weights are those of the whole rise since 1. By hand, with lambda 2."""
    first, second, third = [0.1, 0.2, 0.3, 0.2], [0.2, 0.2, 0.4, 0.3], [0.9, 0.1, 0.5, 0.8]
    state = scored(scored(start(tiny_model, conditioning, 4, 5), 1, first), 2, second)
    stage = Resample(2, 4, "diff", 2.0, ess_threshold=0.5)
    kept, skipped = act_on(state, stage)
    expected = 2 * (torch.tensor(second) - torch.tensor(first)).double()
    assert not skipped.resampled and skipped.ancestors.tolist() == [0, 1, 2, 3]
    assert torch.allclose(kept.log_weights, expected, atol=1e-7) and torch.allclose(skipped.log_weights, expected, atol=1e-7)
    drawn, selection = act_on(scored(kept, 3, third), Resample(3, 2, "diff", 2.0, "systematic"))
    assert torch.allclose(selection.log_weights, 2 * (torch.tensor(third) - torch.tensor(first)).double(), atol=1e-6)
    assert selection.resampled and drawn.log_weights.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("potential", ["value", "diff"])
def test_what_a_skipped_resampling_left_is_drawn_by_the_next_without_bias(tiny_model, conditioning, potential):
    first, second, third = torch.tensor([[0.1, 0.2, 0.3, 0.2], [0.2, 0.2, 0.4, 0.3], [0.9, 0.1, 0.5, 0.8]])
    state = scored(scored(start(tiny_model, conditioning, 4, 5), 1, first.tolist()), 2, second.tolist())
    kept, _ = act_on(state, Resample(2, 4, potential, 1.0, ess_threshold=0.1))
    last, runs = scored(kept, 3, third.tolist()), 3000
    counts = torch.zeros(4)
    for seed in range(runs):
        _, selection = act_on(last._replace(seed=seed), Resample(3, 3, potential, 1.0))
        counts += torch.bincount(selection.ancestors, minlength=4)
    exponent = second + third if potential == "value" else third - first
    weights = torch.softmax(exponent, 0)
    error = (weights * (1 - weights) / (3 * runs)).sqrt()
    assert ((counts / (3 * runs) - weights).abs() < 4 * error).all()
    alone = torch.softmax(third if potential == "value" else third - second, 0)
    assert ((counts / (3 * runs) - alone).abs() > 4 * error).any()  # as if the first weights had been lost


def test_weights_outlive_what_selects_without_them(tiny_model, conditioning):
    """Clustering, the best and a hand keep the weights of those that go on; only resampling spends them."""
    state = sample(start(tiny_model, conditioning, 4, 5), 1).with_scores(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    state, _ = act(state, Resample(1, 4, lam=1.0, ess_threshold=0.5))
    weights = state.log_weights
    assert weights.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert state.select([3, 3, 0]).log_weights.equal(weights[[3, 3, 0]])
    assert state.select(best(state, 2)).log_weights.equal(weights[[3, 2]])
    clustered, selection = act(state, Cluster(1, 2), extractor=LatentPool(grid=2))
    assert clustered.log_weights.equal(weights[selection.ancestors])
    assert sample(state, 3).log_weights.equal(weights)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["ess_threshold", "target_ess"])
def test_a_share_that_is_none_is_refused_of_a_stage_by_itself(tiny_model, conditioning, name, share):
    state = sample(start(tiny_model, conditioning, 2, 5), 1).with_scores(torch.zeros(2))
    with pytest.raises(ValueError, match=f"{name} is {share}; it is a share of the samples, above 0 and at most 1"):
        act(state, Resample(1, 2, **{name: share}))


@pytest.mark.parametrize("stage", [Cluster(1, 3), Resample(1, 3), Resample(1, 3, scheme="top-k")])
def test_a_stage_by_itself_keeps_no_more_than_there_are(tiny_model, conditioning, stage):
    state = sample(start(tiny_model, conditioning, 2, 5), 1).with_scores(torch.zeros(2))
    with pytest.raises(ValueError, match="keep is 3, but only 2 samples are there; keep at most 2"):
        act(state, stage, extractor=Thumbnail())
    with pytest.raises(ValueError, match="keep is 3, but only 2 samples are there"):
        best(state, 3)


def test_nothing_can_be_seen_before_the_first_scale(tiny_model, conditioning):
    state = start(tiny_model, conditioning, 2, 5)
    for stage in (Cluster(0, 1), Resample(0, 1), Score(0)):
        with pytest.raises(ValueError, match="no scale has been sampled yet; sample at least scale 0 first"):
            act(state, stage, Brightness(), Thumbnail())


def test_a_reward_of_too_many_scores_is_named(tiny_model, conditioning):
    class Two(Brightness):
        def score(self, images, prompt):
            return images.mean(dim=(1, 2, 3)).repeat(2)

    class Square(Brightness):
        def score(self, images, prompt):
            return images.mean(dim=(1, 2))

    state = sample(start(tiny_model, conditioning, 2, 5), 1)
    with pytest.raises(ValueError, match="reward brightness gave 4 scores for 2 images; expected one per image"):
        act(state, Score(1), Two())
    with pytest.raises(ValueError, match=r"reward brightness gave scores of shape \(2, 3\) for 2 images"):
        act(state, Score(1), Square())
