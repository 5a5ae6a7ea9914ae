"""The comparison of rankings behind `python -m lab.benchmark.look_shrink`."""

import torch

from lab.benchmark.look_shrink import rank_agreement


def test_equal_orders_agree_and_reversed_ones_do_not():
    scores = torch.tensor([0.1, 0.4, 0.2, 0.9])
    assert rank_agreement(scores, scores * 3 - 1) == (1.0, True)
    rho, same = rank_agreement(scores, -scores)
    assert rho == -1.0 and not same


def test_a_tie_for_the_best_counts_as_the_same_and_a_constant_says_nothing():
    assert rank_agreement(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 2.0, 1.0]))[1]
    assert rank_agreement(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))[0] == 0.0
