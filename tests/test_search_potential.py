"""Potentials over the sample's own history, and lambda solved for an effective sample size."""

import math

import numpy as np
import pytest
import torch

from ttsvar_core.search.potential import exponents, solve_lambda
from ttsvar_core.selection import effective_sample_size

NAN = math.nan
HISTORY = torch.tensor([[NAN, 0.3, NAN, 0.1, 0.9], [NAN, -0.5, NAN, 0.2, 0.9]])  # scale 4 lies in the future


@pytest.mark.parametrize(
    ("kind", "expected"), [("value", [0.1, 0.2]), ("diff", [-0.2, 0.7]), ("max", [0.3, 0.2]), ("sum", [0.4, -0.3])]
)
def test_potentials(kind, expected):
    weights = 10.0 * exponents(kind, HISTORY, 3)
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx([10 * value for value in expected], rel=1e-6)


def test_the_first_scored_scale():
    for kind in ("value", "max", "sum"):
        assert exponents(kind, HISTORY, 1).tolist() == pytest.approx([0.3, -0.5])
    with pytest.raises(ValueError, match=r"DIFF at scale 1.*sample 0 has none.*use VALUE"):
        exponents("diff", HISTORY, 1)
    with pytest.raises(ValueError, match="DIFF at scale 0"):
        exponents("diff", torch.zeros(2, 3), 0)


def test_diff_looks_at_each_samples_own_last_score():
    history = torch.tensor([[1.0, NAN, 5.0], [1.0, 3.0, 5.0]])
    assert exponents("diff", history, 2).tolist() == [4.0, 2.0]


def test_missing_scores_and_bad_settings_are_refused():
    with pytest.raises(ValueError, match="sample 0 has no score at scale 2"):
        exponents("value", HISTORY, 2)
    with pytest.raises(ValueError, match=r"unknown potential 'best'.*value, diff, max, sum"):
        exponents("best", HISTORY, 3)


def test_huge_lambda_stays_finite():
    weights = 1e6 * exponents("value", torch.tensor([[200.0], [-200.0]]), 0)
    assert weights.isfinite().all()
    assert effective_sample_size(weights) == 1


@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e5])
def test_lambda_solves_for_the_effective_sample_size(share, spread):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=16) * spread)
    lam = solve_lambda(values, share * 16)
    assert effective_sample_size(lam * values) == pytest.approx(share * 16, rel=1e-6)


def test_lambda_with_a_tiny_gap_beside_a_wide_spread():
    values = torch.tensor([0.0, 1.0, 1.0 - 1e-9, 0.5], dtype=torch.float64)
    assert effective_sample_size(solve_lambda(values, 3.0) * values) == pytest.approx(3.0, rel=1e-6)
    assert effective_sample_size(solve_lambda(values, 1.5) * values) == pytest.approx(1.5, rel=1e-6)


def test_lambda_at_the_ends():
    values = torch.tensor([1.0, 2.0, 2.0])
    assert solve_lambda(values, 3) == 0
    assert effective_sample_size(solve_lambda(values, 1) * values) == pytest.approx(2)  # two tie at the top
    assert solve_lambda(torch.full((4,), 0.7), 2) == 0
    with pytest.raises(ValueError, match=r"target effective sample size is 4; expected 1 to 3"):
        solve_lambda(values, 4)
