"""Schedules: the published table, budgets, nearest ratios, free schedules and impossible ones."""

import pytest

from ttsvar_core.scales import ASPECT_RATIOS, PIXEL_BUDGETS, ScaleSchedule, nearest_ratio, official


def test_square_schedule_has_the_published_tokens():
    schedule = official(1.0, "1M")
    assert [h for h, _ in schedule.grids] == [1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64]
    assert schedule.total_tokens == 10_521


@pytest.mark.parametrize("ratio", ASPECT_RATIOS)
def test_every_ratio_has_13_scales_and_budgets_are_prefixes(ratio):
    full = official(ratio, "1M")
    assert len(full) == 13
    assert abs(full.final[0] / full.final[1] - ratio) < 0.01
    for budget, scales in zip(PIXEL_BUDGETS, (7, 10, 12, 13), strict=True):
        schedule = official(ratio, budget)
        assert schedule.grids == full.grids[:scales]
        assert schedule.rope_grid == full.final


def test_wide_ratios_swap_the_sides_of_tall_ones():
    assert official(0.666).grids == tuple((w, h) for h, w in official(1.5).grids)
    assert 0.571 in ASPECT_RATIOS and 0.333 in ASPECT_RATIOS


def test_a_ratio_between_templates_takes_the_nearest():
    assert nearest_ratio(1.1) == 1.0
    assert nearest_ratio(1.2) == 1.25
    assert nearest_ratio(9.0) == 3.0


@pytest.mark.parametrize("sides", [(), (2, 3), (1, 4, 2), (1, 0)])
def test_impossible_schedules_are_refused(sides):
    with pytest.raises(ValueError, match=r"schedule|grid|scale"):
        ScaleSchedule(tuple((side, side) for side in sides), (4, 4))


def test_unknown_budget_and_ratio_are_refused():
    with pytest.raises(ValueError, match="pixel budget"):
        official(1.0, "2M")
    with pytest.raises(ValueError, match="aspect ratio"):
        nearest_ratio(-1)


def test_prefix_keeps_the_positions():
    assert official(1.0, "1M").prefix(3) == ScaleSchedule(((1, 1), (2, 2), (4, 4)), (64, 64))
