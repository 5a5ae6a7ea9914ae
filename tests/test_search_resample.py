"""Resampling: unbiased, ordered in variance, right at the edges of what weights can be."""

from itertools import permutations

import numpy as np
import pytest
import torch

from ttsvar_core.rng import selection_generator
from ttsvar_core.search.resample import SCHEMES, draw_without_replacement, resample
from ttsvar_core.selection import choose, effective_sample_size, normalised_weights

UNBIASED = [scheme for scheme in SCHEMES if scheme not in ("top-k", "without-replacement")]
WEIGHTS = np.array([0.05, 0.4, 0.25, 0.0, 0.17, 0.13])
RUNS = 3000


def counts(scheme, weights, keep, runs=RUNS):
    """(runs, P): copies of each sample in independent resamplings."""
    generator = np.random.default_rng(0)
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    draws = [resample(log_weights, keep, scheme, generator).ancestors.numpy() for _ in range(runs)]
    return np.stack([np.bincount(draw, minlength=len(weights)) for draw in draws])


@pytest.mark.parametrize("keep", [1, 4, 6])
@pytest.mark.parametrize("scheme", UNBIASED)
def test_expected_copies_are_keep_times_weight(scheme, keep):
    drawn = counts(scheme, WEIGHTS, keep)
    error = np.sqrt(keep * WEIGHTS * (1 - WEIGHTS) / RUNS)  # of the multinomial, the noisiest
    assert np.abs(drawn.mean(axis=0) - keep * WEIGHTS).max() <= 5 * error.max()
    assert (drawn.sum(axis=1) == keep).all()
    assert (drawn[:, 3] == 0).all()


def test_variance_order():
    variance = {scheme: counts(scheme, WEIGHTS, 6).var(axis=0).sum() for scheme in UNBIASED}
    multinomial, rest = 6 * (WEIGHTS * (1 - WEIGHTS)).sum(), 6 * WEIGHTS % 1
    assert variance["multinomial"] == pytest.approx(multinomial, rel=0.05)
    assert variance["systematic"] == pytest.approx((rest * (1 - rest)).sum(), rel=0.05)  # the least there can be
    for scheme in ("residual", "stratified"):
        assert variance["systematic"] < variance[scheme] < 0.8 * variance["multinomial"]


def test_systematic_counts_never_leave_floor_and_ceiling():
    drawn = counts("systematic", WEIGHTS, 6)
    assert (drawn >= np.floor(6 * WEIGHTS)).all() and (drawn <= np.ceil(6 * WEIGHTS)).all()


@pytest.mark.parametrize("size", [1, 3, 7, 49])
def test_residual_copies_equal_weights_once_each(size):
    drawn = resample(np.full(size, -3.0), size, "residual", np.random.default_rng(1)).ancestors
    assert drawn.tolist() == list(range(size))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_from_1e_minus_300_to_1e_plus_300(scheme):
    log_weights = np.log(10) * np.array([-300.0, 300.0, 0.0, 299.0])
    selection = resample(log_weights, 1, scheme, np.random.default_rng(2))
    assert normalised_weights(log_weights) == pytest.approx([0, 1 / 1.1, 0, 0.1 / 1.1])
    assert selection.ess == pytest.approx(1.1**2 / 1.01)
    assert selection.ancestors.item() in (1, 3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_that_are_all_tiny_are_as_good_as_any(scheme):
    shifted = [resample(np.log(WEIGHTS[:3]) + shift, 3, scheme, np.random.default_rng(3)) for shift in (0, -690, 690)]
    assert shifted[0].ancestors.equal(shifted[1].ancestors) and shifted[0].ancestors.equal(shifted[2].ancestors)
    assert shifted[1].ess == pytest.approx(shifted[0].ess)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zero_weight_is_legal_and_never_drawn(scheme):
    selection = resample([-np.inf, 0.0, -np.inf, 0.0], 2, scheme, np.random.default_rng(4))
    assert set(selection.ancestors.tolist()) <= {1, 3}
    assert selection.ess == pytest.approx(2)
    assert selection.log_weights.dtype == torch.float64 and selection.ancestors.dtype == torch.int64


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_sample(scheme):
    assert resample([-5.0], 1, scheme, np.random.default_rng(5)).ancestors.tolist() == [0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_weights_name_the_sample(scheme):
    generator = np.random.default_rng(6)
    with pytest.raises(ValueError, match="sample 2 is nan"):
        resample([0.0, 1.0, float("nan")], 1, scheme, generator)
    with pytest.raises(ValueError, match="sample 1 is inf"):
        resample([0.0, float("inf"), float("nan")], 1, scheme, generator)
    with pytest.raises(ValueError, match="all 2 log-weights are -inf"):
        resample([-np.inf, -np.inf], 1, scheme, generator)


def test_top_k_is_best_first_with_ties_to_the_lower_row_and_without_replacement():
    assert resample([1.0, 3.0, -np.inf, 3.0], 4, "top-k", None).ancestors.tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_scheme_keeps_more_than_there_are(scheme):
    with pytest.raises(ValueError, match=r"^keep is 5, but only 4 samples are there; keep at most 4$"):
        resample([1.0, 3.0, 2.0, 3.0], 5, scheme, None)
    with pytest.raises(ValueError, match=r"^keep is 2, but only 1 sample is there; keep at most 1$"):
        resample([1.0], 2, scheme, None)


def test_unknown_scheme_and_no_survivors_are_refused():
    with pytest.raises(ValueError, match=r"unknown resampling scheme 'best'.*multinomial"):
        resample([0.0], 1, "best", None)
    with pytest.raises(ValueError, match="cannot keep 0"):
        resample([0.0], 0, "residual", None)


def test_even_weights_are_not_resampled_below_the_threshold():
    even = resample([0.0, 0.1, 0.0, 0.1], 4, "multinomial", np.random.default_rng(7), ess_threshold=0.5)
    assert even.ancestors.tolist() == [0, 1, 2, 3] and "nothing drawn" in even.reason
    uneven = resample([0.0, 50.0, 0.0, 0.0], 4, "multinomial", np.random.default_rng(7), ess_threshold=0.5)
    assert uneven.ancestors.tolist() == [1, 1, 1, 1]


def test_a_cut_above_the_threshold_is_made_without_replacement():
    for seed in range(50):
        selection = resample([0.0, 0.3, 0.1, 0.2], 3, "multinomial", np.random.default_rng(seed), ess_threshold=0.5)
        assert len(set(selection.ancestors.tolist())) == 3
    short = resample([0.0, 0.0, -np.inf, -np.inf], 3, "multinomial", np.random.default_rng(8), ess_threshold=0.5)
    assert set(short.ancestors.tolist()) <= {0, 1}


def test_draws_without_replacement_follow_the_weights_one_after_another():
    generator = np.random.default_rng(9)
    weights = np.array([0.5, 0.3, 0.2])
    pairs = [tuple(draw_without_replacement(np.log(weights), 2, generator)) for _ in range(RUNS)]
    share = pairs.count((0, 1)) / RUNS
    expected = 0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / RUNS)


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_drawing_without_replacement_includes_each_as_often_as_draws_one_after_another_would(keep):
    weights = np.array([0.45, 0.25, 0.2, 0.1])
    expected = np.zeros(4)
    for order in permutations(range(4), keep):
        left, chance = 1.0, 1.0
        for row in order:
            chance, left = chance * weights[row] / left, left - weights[row]
        expected[list(order)] += chance
    drawn = counts("without-replacement", weights, keep)
    assert drawn.max() == 1 and (drawn.sum(axis=1) == keep).all()
    assert (np.abs(drawn.mean(axis=0) - expected) <= 5 * np.sqrt(expected * (1 - expected) / RUNS) + 1e-12).all()


def test_nobody_without_weight_is_drawn_to_fill_a_place():
    with pytest.raises(ValueError, match=r"cannot draw 3 samples without replacement: only 2 have a positive weight"):
        resample([0.0, -np.inf, 1.0], 3, "without-replacement", np.random.default_rng(0))


def test_effective_sample_size():
    assert effective_sample_size(np.zeros(5)) == pytest.approx(5)
    assert effective_sample_size([0.0, -800.0]) == pytest.approx(1)
    assert effective_sample_size(np.log([0.5, 0.25, 0.25])) == pytest.approx(1 / 0.375)


def test_the_same_key_draws_the_same_and_scales_draw_differently():
    def draw(seed, scale):
        return resample(np.zeros(64), 64, "multinomial", selection_generator(seed, scale)).ancestors.tolist()

    assert draw(1, 6) == draw(1, 6)
    assert len({tuple(draw(1, 6)), tuple(draw(1, 9)), tuple(draw(2, 6))}) == 3


def test_choice_by_hand():
    assert choose([3, 1, 1], 4).ancestors.tolist() == [3, 1, 1]
    with pytest.raises(ValueError, match=r"rows \[4\].*0 to 3"):
        choose([4], 4)
    with pytest.raises(ValueError, match="no rows"):
        choose([], 4)
    with pytest.raises(ValueError, match=r"rows \[4, 5, 6, 7, 8\] and 995 more: there are 4 samples"):
        choose(range(1004), 4)
