"""Tiled decoding: whole pictures, how far from exact."""

from dataclasses import replace

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.bsq.bits import average
from ttsvar_core.decoding import decode, decode_features, decode_tiled, sketch, tile_cells
from ttsvar_core.state import start


@pytest.fixture
def features():
    return torch.randn(2, 8, 40, 22, generator=torch.Generator().manual_seed(0)) * 0.5


def test_tiles_cover_the_picture_and_stay_close(features):
    model = make_tiny_model()
    whole, tiled = decode_features(model, features), decode_tiled(model, features, tile=20, overlap=6)
    assert tiled.shape == whole.shape and tiled.min() >= 0 and tiled.max() <= 1
    other_picture = (whole[0] - whole[1]).abs().mean()
    assert 0 < (tiled - whole).abs().mean() < other_picture / 5
    nearly_whole = decode_tiled(model, features, tile=38, overlap=6)
    assert (nearly_whole - whole).abs().mean() < (tiled - whole).abs().mean()


def test_one_tile_is_the_whole_picture(features):
    model = make_tiny_model()
    assert torch.equal(decode_tiled(model, features, tile=40), decode_features(model, features))


def test_a_side_in_pixels_becomes_cells_with_an_overlap():
    model = make_tiny_model()  # 2 pixels to a cell
    assert tile_cells(model, 20) == (10, 2) and tile_cells(model, 9) == (4, 1) and tile_cells(model, 512) == (256, 8)
    with pytest.raises(ValueError, match=r"Tiles of 7 pixels.*take 8 or more"):
        tile_cells(model, 7)


def test_tiles_of_a_sample_do_not_depend_on_the_others(features):
    model = make_tiny_model()
    together = decode_tiled(model, features, tile=20, overlap=6)
    assert torch.equal(together[1:], decode_tiled(model, features[1:], tile=20, overlap=6))


def test_tiles_that_only_touch_are_whole_too(features):
    assert torch.isfinite(decode_tiled(make_tiny_model(), features, tile=20, overlap=0)).all()


def test_a_state_decodes_in_tiles_also_when_looked_at_smaller(features):
    model = make_tiny_model(schedule="1 9 20 40")
    tokenizer = replace(model.config.tokenizer, smallest_side=16)
    model = replace(model, config=replace(model.config, tokenizer=tokenizer))
    state = start(model, make_conditioning(), 2, 0)._replace(features=features)
    assert torch.equal(decode(state, tile=40), decode_tiled(model, features, tile=20, overlap=5))
    assert torch.equal(decode(state), decode_features(model, features))
    small = average(features, (20, 20))
    assert torch.equal(sketch(state._replace(next_scale=3), tile=16), decode_tiled(model, small, tile=8, overlap=2))


def test_tiles_smaller_than_their_overlap_are_refused(features):
    with pytest.raises(ValueError, match="twice the overlap"):
        decode_tiled(make_tiny_model(), features, tile=12, overlap=6)
