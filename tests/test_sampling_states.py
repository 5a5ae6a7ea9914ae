"""Sampling over states: repeatability, splits of the batch, replay, cache policies, and the cache as a value."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.config import Sampling
from ttsvar_core.decoding import decode
from ttsvar_core.infinity.cache import Chunk, KVCache, compact, merge
from ttsvar_core.sampling import replay, sample
from ttsvar_core.state import start

LAST = 4


@pytest.fixture(scope="module")
def fresh(tiny_model, conditioning):
    return start(tiny_model, conditioning, samples=4, seed=11)


def same_bits(a, b):
    return len(a.bits) == len(b.bits) and all(torch.equal(x, y) for x, y in zip(a.bits, b.bits, strict=True))


def flipped(a, b):
    """Share of differing bits."""
    pairs = list(zip(a.bits, b.bits, strict=True))
    return sum(int((x != y).sum()) for x, y in pairs) / sum(x.numel() for x, _ in pairs)


def test_the_same_operations_give_the_same_pictures(fresh):
    one, two = sample(fresh, LAST), sample(fresh, LAST)
    assert same_bits(one, two) and torch.equal(decode(one), decode(two))


def test_stopping_on_the_way_changes_nothing(fresh):
    assert same_bits(sample(sample(sample(fresh, 0), 2), LAST), sample(fresh, LAST))


def test_samples_differ_and_seeds_differ(fresh, tiny_model, conditioning):
    state = sample(fresh, LAST)
    assert not torch.equal(state.bits[-1][0], state.bits[-1][1])
    assert not same_bits(sample(start(tiny_model, conditioning, 4, 12), LAST), state)


def test_images_are_channels_last_in_unit_range(fresh):
    images = decode(sample(fresh, 2))
    assert images.shape == (4, 12, 12, 3) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_groups_draw_the_same_bits(fresh, group_size):
    """Groups use the same draws; products may round differently, so a bit within rounding of its draw may flip."""
    assert flipped(sample(fresh, LAST, group_size=group_size), sample(fresh, LAST)) < 1e-3


def test_a_smaller_batch_draws_the_first_samples_of_a_larger_one(fresh, tiny_model, conditioning):
    one = sample(start(tiny_model, conditioning, 1, 11), LAST)
    assert flipped(one, sample(fresh, LAST).select([0])) < 1e-3


def test_a_replayed_cache_equals_the_dropped_one(fresh):
    state = sample(fresh, 3)
    again = replay(state.without_cache())
    for ours, theirs in zip(again.cache.chunks, state.cache.chunks, strict=True):
        for a, b in zip((*ours.keys, *ours.values), (*theirs.keys, *theirs.values), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert flipped(sample(again, LAST), sample(state, LAST)) < 1e-3


def test_replay_follows_inner_layer_guidance():
    model = make_tiny_model(depth=4)
    inner = Sampling(guidance=3.0, tau=1.0, guidance_layers=(-2,))
    state = sample(start(model, make_conditioning(), 2, 0), 3, inner)
    again = replay(state.without_cache())
    plain = replay(state._replace(steps=tuple(step._replace(guidance=1.0) for step in state.steps)), 2)
    last = (again.cache.chunks[-1].keys[-1] - state.cache.chunks[-1].keys[-1]).abs().max()
    assert last < 1e-5 < (plain.cache.chunks[-1].keys[-1] - state.cache.chunks[-1].keys[-1]).abs().max()


def test_going_on_unguided_rebuilds_the_keys_inner_layer_guidance_made():
    model = make_tiny_model(depth=4)
    state = sample(start(model, make_conditioning(), 2, 0), 1, Sampling(guidance=9.0, tau=1.0, guidance_layers=(-2,)))
    plain = Sampling(guidance=1.0, tau=1.0)
    kept, dropped = (sample(one, 2, plain).cache for one in (state, state.without_cache()))
    assert kept.branches == dropped.branches == 1
    for ours, theirs in zip(dropped.chunks, kept.chunks, strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours.keys, theirs.keys, strict=True))


def test_a_float8_cache_is_a_quarter_of_the_bytes_and_close(fresh):
    """e4m3 keeps 3 bits of fraction: keys and values are within 1/16 of what they were, and few bits flip."""
    full, small = sample(fresh, 3), sample(fresh, 3, cache_policy="float8")
    assert small.cache.nbytes * 4 == full.cache.nbytes
    assert torch.equal(full.bits[0], small.bits[0])
    exact, rounded = (cache.chunks[0].select(torch.tensor([2, 0])).layer(1)[0] for cache in (full.cache, small.cache))
    assert ((rounded.float() - exact).abs() <= exact.abs() / 16 + 2**-10).all()
    assert 0 < flipped(small, full) < 0.05
    assert compact(list(small.select([1]).cache.chunks)).nbytes * 4 == small.cache.nbytes


@pytest.mark.parametrize("policy", ["keep", "cpu", "drop"])
def test_every_cache_policy_goes_on_to_the_same_bits(fresh, policy):
    part = sample(fresh, 2, cache_policy=policy)
    assert (part.cache is None) == (policy == "drop")
    assert flipped(sample(part, LAST), sample(fresh, LAST)) < 1e-3


def test_guidance_can_start_after_unguided_scales(fresh):
    unguided = Sampling(guidance=1.0, tau=1.0)
    part = sample(fresh, 2, unguided)
    assert part.cache.branches == 1
    later = sample(part, LAST, Sampling(guidance=2.0, tau=1.0))
    at_once = sample(fresh, LAST, Sampling(guidance=(1, 1, 1, 2, 2), tau=1.0))
    assert flipped(later, at_once) < 1e-3


def test_the_last_scale_stores_nothing(fresh):
    seen = []
    assert sample(fresh, LAST, on_scale=lambda state: seen.append(state.cache and len(state.cache.chunks))).cache is None
    assert seen == [1, 2, 3, 4, None]


def test_the_cache_has_the_bytes_of_the_formula(fresh, tiny_model):
    cache = sample(fresh, 3).cache
    layers, width, branches = 2, 64, 2
    tokens = sum(tiny_model.schedule().tokens[:4])
    assert cache.nbytes == tokens * 4 * layers * 2 * branches * width * 4


def test_selecting_copies_no_keys_and_permutes_everything(fresh):
    state = sample(fresh, 2).with_scores(torch.arange(4.0))
    chosen = state.select([3, 1, 1])
    for old, new in zip(state.cache.chunks, chosen.cache.chunks, strict=True):
        assert all(a.data_ptr() == b.data_ptr() for a, b in zip(old.keys + old.values, new.keys + new.values, strict=True))
    assert chosen.scores[:, 2].tolist() == [3.0, 1.0, 1.0]
    assert torch.equal(chosen.features, state.features[[3, 1, 1]])
    assert all(torch.equal(new, old[[3, 1, 1]]) for new, old in zip(chosen.bits, state.bits, strict=True))
    assert chosen.lineage[-1].ancestors == (3, 1, 1) and chosen.lineage[-1].scores == (0.0, 1.0, 2.0, 3.0)
    rows = chosen.cache.chunks[0].layer(0)[0]
    assert torch.equal(rows, state.cache.chunks[0].keys[0][:, [3, 1, 1]])


def test_selected_samples_go_on_as_they_would_have(fresh):
    """Row 0 stays in row 0, so it keeps its draws, whoever runs beside it."""
    state = sample(fresh, 2)
    assert flipped(sample(state.select([0, 3]), LAST).select([0]), sample(state, LAST).select([0])) < 1e-3


def test_copies_of_one_ancestor_part_ways(fresh):
    twins = sample(sample(fresh, 2).select([1, 1]), LAST)
    assert torch.equal(twins.bits[2][0], twins.bits[2][1]) and not torch.equal(twins.bits[4][0], twins.bits[4][1])


@pytest.mark.parametrize("rows", [[], [4], [-1], [0, 9]])
def test_rows_that_do_not_exist_are_refused(fresh, rows):
    with pytest.raises(ValueError, match="select"):
        fresh.select(rows)


@pytest.mark.parametrize(("through", "message"), [(5, "scale 5"), (1, "scale 1"), (-1, "scale -1")])
def test_scales_that_cannot_run_are_refused(fresh, through, message):
    with pytest.raises(ValueError, match=message):
        sample(sample(fresh, 2), through)


def test_a_finished_state_and_bad_arguments_are_refused(fresh, tiny_model, conditioning):
    with pytest.raises(ValueError, match="decode"):
        sample(sample(fresh, LAST), LAST)
    with pytest.raises(ValueError, match="policy"):
        sample(fresh, 1, cache_policy="gpu")
    with pytest.raises(ValueError, match="group"):
        sample(fresh, 1, group_size=0)
    with pytest.raises(ValueError, match="at least one sample"):
        start(tiny_model, conditioning, 0, 0)
    with pytest.raises(ValueError, match="seed"):
        start(tiny_model, conditioning, 1, -1)
    with pytest.raises(ValueError, match="score"):
        fresh.with_scores(torch.zeros(4))


def test_weights_that_are_not_finite_stop_the_run(conditioning):
    model = make_tiny_model()
    with torch.no_grad():
        model.transformer.head.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="scale 0"):
        sample(start(model, conditioning, 1, 0), LAST)


def test_a_state_has_a_short_repr(fresh):
    assert len(repr(sample(fresh, 2))) < 200


def chunk_of(samples, tokens=2, layers=2):
    tensors = [torch.randn(2, samples, 1, tokens, 4) for _ in range(2 * layers)]
    return Chunk(tuple(tensors[:layers]), tuple(tensors[layers:]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_chain_of_selections_reads_what_copying_would(data):
    """Composed indices, with compaction at any point, read the rows that copying at every step would have made."""
    cache, copied = KVCache(), []
    samples = data.draw(st.integers(1, 5))
    for _ in range(data.draw(st.integers(1, 4))):
        chunk = chunk_of(samples)
        cache, copied = cache.append(chunk), [*copied, chunk.keys[0]]
        ancestors = torch.tensor(data.draw(st.lists(st.integers(0, samples - 1), min_size=1, max_size=5)))
        cache, copied, samples = cache.select(ancestors), [keys[:, ancestors] for keys in copied], len(ancestors)
        if data.draw(st.booleans()):
            before = cache.nbytes
            cache = compact(list(cache.chunks))
            assert cache.nbytes <= before
            assert all(chunk.stored <= samples for chunk in cache.chunks)
        for ours, theirs in zip(cache.layer(0)[0], copied, strict=True):
            assert torch.equal(ours, theirs)


def test_compaction_copies_only_what_gets_smaller():
    chunk = chunk_of(4)
    permuted, fewer = chunk.select(torch.tensor([2, 0, 3, 1])), chunk.select(torch.tensor([2, 2]))
    assert permuted.compacted().keys[0].data_ptr() == chunk.keys[0].data_ptr()
    assert fewer.compacted().stored == 1 and fewer.compacted().samples == 2


def test_a_copy_to_another_device_takes_only_the_rows_in_use():
    chunk = chunk_of(4).select(torch.tensor([2, 2]))
    assert chunk.to("meta").stored == 1 and chunk.to("meta").samples == 2
    assert chunk.to("cpu") is chunk


def test_merged_groups_are_one_chunk():
    parts = [chunk_of(2), chunk_of(1)]
    merged = merge(parts)
    assert merged.stored == 3 and torch.equal(merged.keys[1][:, 2:], parts[1].keys[1])
    assert merge(parts[:1]) is parts[0]


def test_guidance_that_would_be_paid_for_and_do_nothing_is_refused_before_anything_runs():
    state = start(make_tiny_model(), make_conditioning(), 2, 0)
    with pytest.raises(ValueError, match=r"\(-3,\), but the transformer has 2 layers: take 0 .* -1 .* to -2"):
        sample(state, 1, Sampling(guidance=3.0, guidance_layers=(-3,)), on_scale=lambda _: pytest.fail("ran"))
    assert sample(state, 0, Sampling(guidance=3.0, guidance_layers=(-2,))).steps[0].guidance_layers == (-2,)


def until(scale, **more):
    return Sampling(guidance=3.0, tau=1.0, **more).guided_until(scale, LAST + 1)


def test_guidance_that_has_ended_is_neither_computed_nor_stored(fresh, monkeypatch):
    """Two branches through scale 2, then one: in what is computed, in the cache and in its bytes; older states keep both."""
    transformer, seen = fresh.model.transformer, []
    forward = transformer.forward_scale

    def watched(features, scale, schedule, text, past, step):
        seen.append((scale, len(text.pooled), past.branches))
        return forward(features, scale, schedule, text, past, step)

    monkeypatch.setattr(transformer, "forward_scale", watched)
    before = sample(fresh, 2, until(2))
    assert before.cache.branches == 2
    after = sample(before, 3, until(2))
    assert seen == [(0, 2, 0), (1, 2, 2), (2, 2, 2), (3, 1, 1)]
    assert after.cache.branches == 1 and before.cache.branches == 2
    both = sample(fresh, 3, Sampling(guidance=3.0, tau=1.0))
    assert after.cache.nbytes * 2 == both.cache.nbytes
    assert {t.untyped_storage().nbytes() for chunk in after.cache.chunks for t in chunk.keys} == {
        t.numel() * t.element_size() for chunk in after.cache.chunks for t in chunk.keys
    }  # nothing holds on to the branch that went


def test_guidance_that_ends_gives_what_the_conditional_branch_alone_gives(fresh):
    """The scales after the end, drawn from a state of the same bits that has never had a second branch."""
    part = sample(fresh, 2, until(2))
    ended = sample(part, LAST, until(2))
    alone = sample(replay(part.without_cache(), 1), LAST, Sampling(guidance=1.0, tau=1.0))
    assert flipped(ended, alone) < 1e-3
    assert flipped(ended, sample(fresh, LAST, Sampling(guidance=3.0, tau=1.0))) > 0.01
    assert flipped(ended, sample(part.without_cache(), LAST, until(2))) < 1e-3
    assert [step.guidance for step in ended.steps] == [3.0, 3.0, 3.0, 1.0, 1.0]


def test_inner_layer_guidance_that_has_ended_is_replayed_with_both_branches():
    model = make_tiny_model()
    state = sample(start(model, make_conditioning(), 2, 0), 2, until(1, guidance_layers=(-2,)))
    assert state.cache.branches == 1
    again = replay(state.without_cache(), 1)
    assert again.cache.branches == 1
    for layer in range(2):
        for ours, theirs in zip(again.cache.layer(layer), state.cache.layer(layer), strict=True):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


def test_guidance_can_come_back_after_it_has_ended(fresh):
    """Another setting than planned: the second branch is rebuilt from the bits."""
    ended = sample(fresh, 3, until(2))
    back = sample(ended, LAST, Sampling(guidance=(3, 3, 3, 1, 3), tau=1.0))
    assert flipped(back, sample(fresh, LAST, Sampling(guidance=(3, 3, 3, 1, 3), tau=1.0))) < 1e-3


def test_an_end_of_guidance_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="guidance until scale 5: the last scale is 4; name 0 to 4"):
        until(5)
    assert until(LAST) == Sampling(guidance=(3.0,) * 5, tau=1.0)
