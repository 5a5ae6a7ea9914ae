"""The drawings of Inspect State: who descends from whom, colours of features, layouts, previews."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.decoding import decode, sketch
from ttsvar_core.inspect import preview as preview_module
from ttsvar_core.inspect.canvas import fitted, to_pictures, to_tensor
from ttsvar_core.inspect.family import generations, latest_scores
from ttsvar_core.inspect.maps import feature_maps, principal_colours
from ttsvar_core.inspect.plots import charts
from ttsvar_core.inspect.preview import _columns, preview
from ttsvar_core.inspect.sheet import _columns as sheet_columns
from ttsvar_core.inspect.sheet import contact_sheet
from ttsvar_core.inspect.tree import family_tree
from ttsvar_core.inspect.words import describe
from ttsvar_core.sampling import sample
from ttsvar_core.state import start


@pytest.fixture(scope="module")
def state():
    """Five samples, cut to three after scale 1 and to two after scale 2, scored twice."""
    begun = sample(start(make_tiny_model(), make_conditioning(), 5, 3), 1)
    cut = begun.with_scores(torch.tensor([0.1, 0.5, 0.3, 0.2, 0.4])).select([1, 4, 2])
    again = sample(cut, 2).select([2, 2])
    return again.with_scores(torch.tensor([0.7, 0.6]))


def test_generations_tell_parents_founders_and_who_lives(state):
    first, second, third = generations(state)
    assert (first.since, second.since, third.since) == (0, 2, 3)
    assert second.parents == (1, 4, 2) and third.parents == (2, 2)
    assert second.founders == (1, 4, 2) and third.founders == (2, 2)
    assert first.lives == (False, False, True, False, False) and second.lives == (False, False, True)


def test_the_latest_score_is_the_last_one_known(state):
    assert latest_scores(state) == pytest.approx([0.7, 0.6])
    assert latest_scores(state.select([0])._replace(scores=torch.full((1, 5), math.nan))) == [None]


def test_drawing_changes_nothing_and_is_the_same_every_time(state):
    before = [one.clone() for one in (state.features, state.scores)]
    images = decode(state)
    for draw in (lambda: contact_sheet(state, images), lambda: family_tree(state, images), lambda: charts(state)):
        assert torch.equal(to_tensor(draw()), to_tensor(draw()))
    assert torch.equal(before[0], state.features) and before[1].nan_to_num(9).equal(state.scores.nan_to_num(9))


def test_states_before_the_first_scale_and_without_scores_are_drawn_too():
    begun = start(make_tiny_model(), make_conditioning(), 1, 0)
    for picture in (contact_sheet(begun, decode(begun)), family_tree(begun), charts(begun)):
        assert min(picture.size) > 50
    assert "0 of 5 done" in describe(begun)


def test_words_name_every_selection(state):
    text = describe(state)
    assert "5 -> 3, kept [1, 4, 2]" in text and "3 -> 2, kept [2, 2]" in text and "2: 0.7000" in text


def test_principal_colours_do_not_depend_on_sign_order_or_offset():
    features = torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    colours = principal_colours(features)
    torch.testing.assert_close(principal_colours(features + 5), colours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(principal_colours(features.flip(0)).flip(0), colours, rtol=1e-4, atol=1e-4)
    assert colours.shape == (3, 4, 4, 3) and colours.min() >= 0 and colours.max() <= 1


def test_equal_features_get_equal_colours_and_no_variation_is_grey():
    half = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    twice = principal_colours(torch.cat([half, half]))
    assert torch.equal(twice[0], twice[1])
    assert torch.equal(principal_colours(torch.ones(2, 6, 4, 4)), torch.full((2, 4, 4, 3), 0.5))
    assert min(feature_maps(principal_colours(torch.randn(2, 2, 4, 4))).size) > 50


def test_small_pictures_grow_by_whole_multiples():
    picture = to_pictures(torch.rand(1, 12, 20, 3))[0]
    assert fitted(picture, 50).size == (40, 24) and fitted(picture, 10).size == (10, 6)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (8, 4), (16, 4)])
def test_previews_leave_few_places_empty(count, columns):
    assert _columns(count) == columns


def test_sheets_are_full_and_no_strip():
    assert {count: sheet_columns(count, 256, 310) for count in (1, 2, 4, 6, 8)} == {1: 1, 2: 2, 4: 2, 6: 3, 8: 4}


def test_a_preview_shows_the_first_samples_and_their_numbers_within_its_size(state, monkeypatch):
    picture, plain = preview(state, 2), to_pictures(sketch(state)[:2])
    side = picture.width // 2
    for number, expected in enumerate(plain):
        seen = picture.crop((number * side, 0, (number + 1) * side, side))
        below, shown = (0, side // 2, side, side), expected.resize((side, side), 0)  # the number stands above
        assert seen.crop(below).tobytes() == shown.crop(below).tobytes() and seen.tobytes() != shown.tobytes()
    monkeypatch.setattr(preview_module, "_SIDE", 2 * plain[0].width // 3)
    assert max(preview(state, 1).size) <= 2 * plain[0].width // 3


def test_a_preview_that_does_not_fit_is_decoded_in_less_memory(state, monkeypatch):
    """A run does not end because its preview ran out of memory: pictures are decoded one at a time then."""
    tokenizer, sides = type(state.model.tokenizer), []
    whole = tokenizer.decode

    def short(self, features):
        sides.append(tuple(features.shape))
        if len(sides) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, features)

    expected = preview(state, 2).tobytes()
    monkeypatch.setattr(tokenizer, "decode", short)
    assert preview(state, 2).tobytes() == expected and len(sides) == 3
