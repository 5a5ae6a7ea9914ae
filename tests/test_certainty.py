"""Targets for how certain bits are: what tau is found, that it is a sample's own, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsvar_core.certainty import MOST_TAU, certainty, solve_tau
from ttsvar_core.config import DIVERSE_AR, Sampling
from ttsvar_core.sampling import replay, sample
from ttsvar_core.search.save import load_state, save_state
from ttsvar_core.state import start

TARGETS = (0.6, 0.6, 0.65)
DIVERSE = Sampling(2.0, 0.5, 0.97, certainty=TARGETS)


def random_logits(seed, samples, spread):
    return spread * torch.randn(samples, 5, 8, 2, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), samples=st.integers(1, 4), spread=st.floats(0.1, 30), target=st.floats(0.55, 0.99))
def test_the_tau_found_meets_the_target_or_an_end(seed, samples, spread, target):
    logits = random_logits(seed, samples, spread)
    taus = solve_tau(logits, target)
    reached = certainty(logits / taus[:, None, None, None])
    for row, (tau, certain) in enumerate(zip(taus.tolist(), reached.tolist(), strict=True)):
        if tau == 1:
            assert certain <= target + 1e-6
        elif tau == MOST_TAU:
            assert certain >= target - 1e-6
        else:
            assert 1 < tau < MOST_TAU and certain == pytest.approx(target, abs=2e-6)
        assert taus[row] == pytest.approx(float(solve_tau(logits[row : row + 1], target)), abs=1e-5)  # whatever else is there


def test_certainty_is_the_mean_of_the_likelier_values_probabilities():
    logits = random_logits(3, 2, 2.0)
    assert certainty(logits).tolist() == pytest.approx(torch.softmax(logits, -1).max(-1).values.mean((1, 2)).tolist())


def seen(monkeypatch, run):
    """The certainty of the logits that each scale's bits are drawn from."""
    import ttsvar_core.sampling as module

    told, draw = [], module.draw_bits
    monkeypatch.setattr(module, "draw_bits", lambda logits, *more: told.append(certainty(logits)) or draw(logits, *more))
    state = run()
    monkeypatch.undo()
    return state, told


def test_bits_are_drawn_as_certainly_as_asked_and_the_steps_tell(tiny_model, conditioning, monkeypatch):
    begin = start(tiny_model, conditioning, 3, 7)
    state, told = seen(monkeypatch, lambda: sample(begin, 4, DIVERSE))
    for certain, target in zip(told[:3], TARGETS, strict=True):
        assert (certain <= target + 1e-5).all()
    assert [step.certainty for step in state.steps] == [*TARGETS, None, None]
    assert [step.tau for step in state.steps] == [1.0] * 3 + [0.5] * 2
    plain, before = seen(monkeypatch, lambda: sample(begin, 4, Sampling(2.0, 1.0, 0.97)))
    for certain, raw, target in zip(told[:1], before[:1], TARGETS, strict=False):  # the same logits: met where they were above
        assert torch.allclose(certain, torch.minimum(raw, torch.tensor(target)), atol=1e-5)
    assert any((raw > target).any() for raw, target in zip(before, TARGETS, strict=False))
    assert not torch.equal(state.bits[2], plain.bits[2])


@pytest.mark.parametrize("more", [{"group_size": 1}, {"group_size": 2}, {"candidates": 2}])
def test_other_groupings_draw_the_same_bits(tiny_model, conditioning, more):
    begin = start(tiny_model, conditioning, 3, 7)
    whole, other = sample(begin, 2, DIVERSE), sample(begin, 2, DIVERSE, **more)
    flipped = sum(int((a != b[:3]).sum()) for a, b in zip(whole.bits, other.bits, strict=True))
    assert flipped <= 1 and whole.steps == other.steps


def test_replay_and_files_do_not_need_tau(tiny_model, conditioning, tmp_path):
    state = sample(start(tiny_model, conditioning, 2, 7), 2, DIVERSE)
    for layer in range(2):
        for ours, theirs in zip(replay(state.without_cache()).cache.layer(layer), state.cache.layer(layer), strict=True):
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
    save_state(state, tmp_path / "state")
    loaded = load_state(tmp_path / "state", tiny_model, conditioning)
    assert loaded.steps == state.steps
    ahead = [sample(one, 4, DIVERSE) for one in (loaded, state.without_cache())]
    assert all(torch.equal(a, b) for a, b in zip(ahead[0].bits, ahead[1].bits, strict=True))


def test_it_is_off_by_default_and_targets_are_checked():
    assert Sampling().at(0).certainty is None and Sampling(certainty=DIVERSE_AR).at(5).certainty == 0.8
    assert Sampling(certainty=DIVERSE_AR).at(6) == Sampling().at(6)
    for wrong in (0.5, 0.4, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"certainty is .*; the likelier of two values"):
            Sampling(certainty=(0.6, wrong))
