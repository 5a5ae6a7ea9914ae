"""Sketches: decoded at the size sampled so far."""

from dataclasses import replace

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.config import PRESETS, TokenizerConfig
from ttsvar_core.decoding import decode, sketch
from ttsvar_core.sampling import sample
from ttsvar_core.scales import official
from ttsvar_core.state import start


def model_trained_down_to(side, **more):
    model = make_tiny_model(schedule="1 2 3 4 8", **more)
    tokenizer = replace(model.config.tokenizer, smallest_side=side)
    return replace(model, config=replace(model.config, tokenizer=tokenizer))


def test_sketches_of_the_2b_model_have_the_grid_sampled_so_far_and_at_least_sixteen_cells():
    schedule, config = official(1.0, "1M"), PRESETS["2b"]
    sides = [config.sketch_cells(schedule, scale)[0] for scale in range(13)]
    assert sides == [16, 16, 16, 16, 16, 16, 16, 20, 24, 32, 40, 48, 64]
    patchified = [PRESETS["8b"].sketch_cells(schedule, scale)[0] for scale in (2, 6, 9, 12)]
    assert patchified == [32, 32, 64, 128]  # twice the grid, at half the stride
    wide = [config.sketch_cells(official(2.0, "1M"), scale) for scale in (2, 5, 6, 12)]
    assert wide == [(30, 15), (30, 15), (30, 15), (90, 45)]  # 22x11 are fewer than 256 cells


@pytest.mark.parametrize("patchify", [False, True])
def test_a_sketch_is_the_average_of_the_features_decoded(patchify):
    model = model_trained_down_to(3 * 2, patchify=patchify)
    state = sample(start(model, make_conditioning(), 2, 1), 3)
    cells = 8 if patchify else 4
    small = torch.nn.functional.avg_pool2d(state.features, 2)
    images = sketch(state)
    assert images.shape == (2, 2 * cells, 2 * cells, 3)
    assert torch.equal(images, decode(state._replace(features=small)))
    assert not torch.equal(decode(state)[:, ::2, ::2], images)


def test_no_sketch_is_smaller_than_what_the_tokenizer_was_trained_on_and_a_finished_picture_is_whole():
    model = model_trained_down_to(3 * 2)
    state = start(model, make_conditioning(), 2, 1)
    assert [sketch(sample(state, scale)).shape[1] for scale in range(5)] == [6, 6, 6, 8, 16]
    finished = sample(state, 4)
    assert torch.equal(sketch(finished), decode(finished))


def test_a_tokenizer_that_saw_whole_pictures_alone_shows_whole_sketches():
    model = make_tiny_model()
    state = sample(start(model, make_conditioning(), 2, 1), 1)
    assert TokenizerConfig(8).smallest_side == 256 and torch.equal(sketch(state), decode(state))
