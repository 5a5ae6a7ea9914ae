"""Foresight: what the network is told, what sketches show with it, where it is refused, what it costs, and that it learns."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from experiment_world import SCHEDULE, TinyFiles, Warmth, asked, prompts, use_tiny_world
from tiny_models import make_conditioning, make_tiny_model

import ttsvar_core
from lab.experiment.arms import Setting
from lab.experiment.definitions import build
from lab.experiment.prices import Prices, Scorer, scorer_named, widest
from lab.foresight.collect import drawn
from lab.foresight.train import NAME, train
from lab.value.collect import collect
from ttsvar_core.bsq.bits import average
from ttsvar_core.config import ForesightConfig
from ttsvar_core.costs import NOTHING, Look, Search
from ttsvar_core.decoding import decode_features, sketch
from ttsvar_core.flops import decoder_flops, foresight_flops
from ttsvar_core.footprint import cache_bytes
from ttsvar_core.foresight import (
    METADATA,
    Foresight,
    features_so_far,
    foresight_beside,
    network_for,
    save_foresight,
    values_of,
    with_foresight,
)
from ttsvar_core.looks import counted
from ttsvar_core.reading import UnusableFile
from ttsvar_core.sampling import sample
from ttsvar_core.search.budget import Measured, cost_in_pictures, from_json, plan_for, to_json
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import best_of_n, cut_once, raw
from ttsvar_core.search.plan_file import from_json as plan_from_json
from ttsvar_core.search.plan_file import to_json as plan_to_json
from ttsvar_core.search.run import run
from ttsvar_core.state import start
from ttsvar_core.weights import load_bundled, load_model, read_checkpoint
from ttsvar_core.weights.write import write_safetensors

SIZES = ForesightConfig(layers=(0, 1), scales=(3, 4), width=16, depth=2)
BUNDLED = Path(ttsvar_core.__file__).parent / "bundled"


def foreseeing(model, seed: int = 0):
    """The model with a network of random weights, which foretells nonsense, but always the same."""
    torch.manual_seed(seed)
    network = network_for(model, SIZES, len(model.schedule())).requires_grad_(False).eval()
    network.head[1].weight.normal_(std=0.1)
    ahead = Foresight(SIZES, network, model.fingerprint, model.schedule().grids)
    return replace(model, config=replace(model.config, foresight=SIZES), foresight=ahead)


@pytest.fixture(scope="module")
def model():
    return foreseeing(make_tiny_model(schedule=SCHEDULE))


def after(model, scale: int, samples: int = 4):
    return sample(start(model, make_conditioning(), samples, 3), scale)


# What it sees and foretells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patchify", [False, True])
def test_an_untrained_network_foretells_the_features_so_far(patchify):
    model = make_tiny_model(schedule=SCHEDULE, patchify=patchify)
    network = network_for(model, SIZES, len(model.schedule()))
    state = after(model, 3)
    found = Foresight(SIZES, network, "", model.schedule().grids).foresee(state, (12, 12))
    assert torch.equal(found, F.interpolate(features_so_far(state), size=(12, 12), mode="bicubic", align_corners=False))


def test_what_is_foretold_of_a_sample_depends_on_no_other_and_follows_it(model):
    state = after(model, 3)
    found = model.foresight.foresee(state, (4, 4))
    assert len({tuple(row.flatten()[:8].tolist()) for row in found}) == 4
    for rows in ([2], [3, 0, 3], [0, 1, 2, 3]):
        assert torch.equal(model.foresight.foresee(state.select(rows), (4, 4)), found[rows])
    assert torch.equal(model.foresight.foresee(after(model, 3, samples=2), (4, 4)), found[:2])


def test_values_are_those_of_the_prompted_branch_layer_by_layer(model):
    state = after(model, 3)
    chunk, side = state.cache.chunks[-1], state.schedule.grids[3][0]
    found = values_of(state, 2, (1, 0))
    plain = [chunk.layer(layer)[1][0, 2] for layer in (1, 0)]  # (H, L, D)
    for place, values in enumerate(plain):
        heads, _, width = values.shape
        for head, cell, at in ((0, 0, 0), (1, 5, 3), (heads - 1, side * side - 1, width - 1)):
            ours = found[place * heads * width + head * width + at, cell // side, cell % side]
            assert ours == values[head, cell, at].float()


def test_a_state_without_keys_and_values_has_them_replayed(model):
    state = after(model, 3).select([3, 1])
    found = model.foresight.foresee(state.without_cache(), (4, 4))
    torch.testing.assert_close(found, model.foresight.foresee(state, (4, 4)), rtol=1e-4, atol=1e-5)


def test_it_is_told_the_values_and_the_scale(model):
    state = after(model, 3, samples=2)
    features, values = features_so_far(state), torch.stack([values_of(state, row, SIZES.layers) for row in range(2)])
    network = model.foresight.network
    found = [network(features, other, scale, (4, 4)) for other, scale in ((values, 3), (values.flip(0), 3), (values, 4))]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


# Sketches and searches ------------------------------------------------------------------------------------------------


def test_sketches_are_foreseen_where_they_are_asked_to_be_and_can_be(model):
    for scale in range(len(model.schedule())):
        state = after(model, scale)
        cells = model.config.sketch_cells(model.schedule(), scale)
        plain, ahead = sketch(state), sketch(state, foreseen=True)
        assert torch.equal(plain, decode_features(model, average(state.features, cells)))
        if scale in SIZES.scales:
            assert torch.equal(ahead, decode_features(model, model.foresight.foresee(state, cells)))
            assert not torch.equal(ahead, plain)
        else:
            assert torch.equal(ahead, plain)


def test_another_size_than_it_was_trained_for_shows_plain_sketches(model):
    other = replace(model, config=replace(model.config, own_schedule=make_tiny_model(schedule="1 2 3 3 4 5 6").schedule()))
    state = after(other, 3)
    assert torch.equal(sketch(state, foreseen=True), sketch(state))


@pytest.mark.parametrize("cap", [False, True], ids=["together", "in turns"])
def test_a_plan_looks_at_foreseen_sketches_however_its_samples_ran(model, cap):
    plan = cut_once(6, 3, 2, foreseen=True)
    state = start(model, make_conditioning(), 6, 3)
    scores = Warmth().score(sketch(after(model, 3, samples=6), foreseen=True), "")
    most = 2**18
    assert 6 * cache_bytes(model, model.schedule(), 3, 2) > most, "six samples do not fit together"
    sampler = Sampler(max_cache_bytes=most) if cap else Sampler()
    result = run(state, plan, Warmth(), sampler=sampler)
    assert result.state.lineage[0].ancestors == tuple(scores.argsort(descending=True)[:2].tolist())
    assert torch.tensor(result.state.lineage[0].scores).sub(scores).abs().max() < 1e-4
    plain = run(state, replace(plan, foreseen=False), Warmth())
    assert plain.state.lineage[0].scores != result.state.lineage[0].scores


def test_a_plan_that_looks_ahead_is_refused_where_nothing_does():
    model = make_tiny_model(schedule=SCHEDULE)
    with pytest.raises(ValueError, match="tiny has nothing that foretells them"):
        run(start(model, make_conditioning(), 6, 3), cut_once(6, 3, 2, foreseen=True), Warmth())


def test_plan_files_say_so():
    plan = cut_once(6, 3, 2, foreseen=True)
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan
    assert "foreseen" not in plan_to_json(replace(plan, foreseen=False))
    with pytest.raises(ValueError, match="true or false"):
        plan_from_json({"samples": 2, "foreseen": 1})


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_file_beside_the_transformer_comes_with_it(tmp_path):
    names = ["m.transformer.safetensors", "m.safetensors", "infinity_2b_reg.pth", "folder"]
    assert [foresight_beside(Path(name)).name.removesuffix(".foresight.safetensors") for name in names] == [
        "m", "m", "infinity_2b_reg", "folder"
    ]
    model, _ = load_bundled()
    assert model.foresight is not None and model.config.foresight == model.foresight.sizes
    for name in ("transformer.safetensors", "vae.safetensors", "json"):
        (tmp_path / f"scenes128.{name}").symlink_to(BUNDLED / f"scenes128.{name}")
    alone = load_model(tmp_path / "scenes128.transformer.safetensors", tmp_path / "scenes128.vae.safetensors")
    assert alone.foresight is None and alone.fingerprint == model.fingerprint


def test_it_is_read_as_it_was_written(model, tmp_path):
    save_foresight(tmp_path / "f.safetensors", model.foresight)
    plain = make_tiny_model(schedule=SCHEDULE)
    again = with_foresight(plain, tmp_path / "f.safetensors")
    assert again.config == model.config and again.foresight.grids == model.schedule().grids
    ours, theirs = (copy.foresight.foresee(after(copy, 3), (4, 4)) for copy in (again, model))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": 2}, "the format 2; this version reads 1"),
        ({"fingerprint": "0123456789"}, "trained on another model"),
        ({"sizes": {"layers": [0, 2], "scales": [3, 4], "width": 16, "depth": 2}}, "2"),
        ({"sizes": {"layers": [0, 1], "scales": [3, 7], "width": 16, "depth": 2}}, "7"),
        ({"sizes": {"layers": [0, 1], "scales": [3], "width": 12, "depth": 2}}, "does not divide into 8 groups"),
        ({"sizes": {"layers": [0], "scales": [3], "width": 16, "depth": 2}}, "size mismatch"),
        ({"grids": [[1, 1], [0, 2]]}, "0"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(model, tmp_path, change, message):
    save_foresight(tmp_path / "f.safetensors", model.foresight)
    raw_file = read_checkpoint(tmp_path / "f.safetensors")
    about = {**json.loads(raw_file.metadata[METADATA]), **change}
    write_safetensors(tmp_path / "g.safetensors", raw_file.content, {METADATA: json.dumps(about)})
    with pytest.raises(UnusableFile, match=message) as error:
        with_foresight(make_tiny_model(schedule=SCHEDULE), tmp_path / "g.safetensors")
    assert "g.safetensors" in str(error.value)
    write_safetensors(tmp_path / "h.safetensors", raw_file.content, {})
    with pytest.raises(UnusableFile, match="says nothing of what it was trained on"):
        with_foresight(make_tiny_model(schedule=SCHEDULE), tmp_path / "h.safetensors")


# Costs ----------------------------------------------------------------------------------------------------------------


def test_operations_are_those_that_run(model):
    network, state = model.foresight.network, after(model, 3, samples=1)
    seen = features_so_far(state), values_of(state, 0, SIZES.layers)[None]
    assert foresight_flops(SIZES, model.config.transformer, (6, 5)) == counted(network, *seen, 3, (6, 5))


def test_searches_pay_for_looking_ahead(model):
    config, schedule = model.config, model.schedule()
    branches = (2,) * len(schedule)

    def search(plan):
        return Search(config, plan, schedule, branches, 3, NOTHING, Look(10))

    plain, ahead = (search(cut_once(6, 3, 2, foreseen=foreseen)) for foreseen in (False, True))
    cells = config.sketch_cells(schedule, 3)
    more = foresight_flops(SIZES, config.transformer, cells)
    assert ahead.total.flops - plain.total.flops == 6 * more
    assert ahead.scales[3].decode == 6 * (decoder_flops(config.tokenizer, cells) + more) and ahead.look(2) == plain.look(2)
    assert ahead.scales[-1] == plain.scales[-1]


def test_a_budget_looks_ahead_where_that_was_measured(model):
    spend = Search(model.config, raw(), model.schedule(), (2,) * 7, 3, NOTHING, Look(10))
    plain = Measured("tiny", "warmth", {3: 0.6}, scales=7)
    chosen, blind = (plan_for(4, spend, measured) for measured in (plain._replace(foreseen=True), plain))
    assert chosen.plan.foreseen and not blind.plan.foreseen and chosen.plan.samples <= blind.plan.samples
    assert "by foreseen sketches" in chosen.why and chosen.pictures <= 4
    assert cost_in_pictures(spend, chosen.plan) == chosen.pictures
    assert from_json(json.loads(json.dumps(to_json(plain._replace(foreseen=True))))) == plain._replace(foreseen=True)


def test_pools_are_scored_both_ways_and_priced_so(model):
    looks = {"warmth": Look(10), "value": Look(10, ahead=((3, 5),))}
    prices = Prices(model.config, model.schedule(), (2,) * 7, (3, 3), looks)
    again = Prices.from_json(json.loads(json.dumps(prices.to_json())))
    assert again.config.foresight == SIZES
    pool = build("pool", Setting(model.schedule().tokens, ("latent-pool",), ("warmth", "value"), prices), n=(4,))
    assert [arm.name for arm in pool.arms] == ["pool-4-by-warmth", "pool-4-by-value", "pool-4-by-warmth-foreseen"]
    assert [stage.scale for stage in pool.arms[2].plan.stages] == [3, 4] and pool.arms[2].plan.foreseen
    assert scorer_named("warmth-foreseen") == Scorer("warmth", True) and scorer_named("warmth") == Scorer("warmth")
    blind, ahead = (widest(again, best_of_n(40), 3, 2, scorer=Scorer("warmth", foreseen)) for foreseen in (False, True))
    assert ahead.foreseen and ahead.samples < blind.samples
    assert again.flops(cut_once(8, 3, 2, foreseen=True))[0] > again.flops(cut_once(8, 3, 2))[0]


# Learning -------------------------------------------------------------------------------------------------------------


def arguments(data, **changed):
    given = {"out": data, "data": [data], "steps": 60, "batch": 32, "rate": 3e-3, "width": SIZES.width, "depth": SIZES.depth}
    return asked(scales=SIZES.scales, layers=SIZES.layers, **{**given, **changed})


@pytest.fixture
def collected(tmp_path, monkeypatch):
    use_tiny_world(monkeypatch)
    return collect(arguments(tmp_path / "data"), 12, partial(drawn, SIZES.layers), layers=list(SIZES.layers))


def test_what_is_collected_is_what_a_state_says(collected):
    plain = make_tiny_model(schedule=SCHEDULE)
    name = f"{prompts(1)[0].key(0)}.safetensors"
    kept = read_checkpoint(collected / "samples" / name).content
    prompt = prompts(1)[0]
    state = sample(start(plain, TinyFiles()().encode(prompt.text), 4, prompt.seed(0)), 3)
    assert torch.equal(kept["features.3"], features_so_far(state).half())
    assert torch.equal(kept["values.3"][2], values_of(state, 2, SIZES.layers).half())
    ended = sample(state, 6)
    assert torch.equal(kept["final"], average(ended.features, plain.config.sketch_cells(plain.schedule(), 4)).half())


def test_it_learns_and_an_interrupted_training_ends_with_the_same_weights(collected, tmp_path):
    straight = train(arguments(collected, out=tmp_path / "straight", save_every=0.0))
    log = [json.loads(line) for line in (tmp_path / "straight" / "foresight.log.jsonl").read_text().splitlines()]
    first, last = log[0], log[-1]  # what random weights draw says little of what comes
    assert last["held_out_3"] < 0.98 * first["held_out_3"] and last["held_out_4"] < 0.99 * first["held_out_4"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lab.foresight.train.save_foresight", _stop)
        with pytest.raises(KeyboardInterrupt):
            train(arguments(collected, out=tmp_path / "parts", save_every=0.0))
    assert not (tmp_path / "parts" / NAME).exists() and (tmp_path / "parts" / "foresight.checkpoint.pt").exists()
    assert train(arguments(collected, out=tmp_path / "parts", save_every=0.0)).read_bytes() == straight.read_bytes()
    assert with_foresight(make_tiny_model(schedule=SCHEDULE), straight).foresight.sizes == SIZES
    whole = straight.read_bytes()
    straight.unlink()  # as where the last checkpoint was written and nothing after it
    assert train(arguments(collected, out=tmp_path / "straight")).read_bytes() == whole
    straight.write_bytes(b"of an earlier checkpoint")
    os.utime(straight, ns=(0, 0))
    assert train(arguments(collected, out=tmp_path / "straight")).read_bytes() == whole


def test_folders_of_another_model_or_other_shapes_are_not_trained_on_together(collected, tmp_path):
    for change, key in (
        ({"layers": [0]}, "layers"), ({"scales": [2, 3]}, "scales"), ({"world": {"fingerprint": "another"}}, "fingerprint"),
        ({"world": {"schedule": [[1, 1]]}}, "schedule"),
    ):
        other = tmp_path / key
        shutil.copytree(collected, other)
        about = json.loads((other / "experiment.json").read_text())
        changed = {**about, **change, "world": {**about["world"], **change.get("world", {})}}
        (other / "experiment.json").write_text(json.dumps(changed))
        args = arguments(collected, out=tmp_path / "out")
        args.data = [collected, other]
        with pytest.raises(ValueError, match=rf"{key} differs from {re.escape(str(collected))} in {key}; give folders that agree"):
            train(args)
    shutil.rmtree(collected / "samples")
    with pytest.raises(ValueError, match=r"no samples in .*: python -m lab\.foresight collect"):
        train(arguments(collected))


def test_a_live_preview_shows_what_samples_become_while_keys_and_values_are_at_hand():
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.inspect.canvas import to_pictures
    from ttsvar_core.inspect.preview import preview

    model, encoder = load_bundled()
    state = sample(start(model, encode_prompt(encoder, "a red circle"), 1, 5), 7)
    for shown, expected in ((state, sketch(state, foreseen=True)), (state.without_cache(), sketch(state))):
        picture = preview(shown)
        below = (0, picture.height // 4, *picture.size)  # the number stands above
        assert picture.crop(below).tobytes() == to_pictures(expected)[0].resize(picture.size, 0).crop(below).tobytes()


def _stop(*given):
    raise KeyboardInterrupt


def test_the_bundled_network_foretells_more_than_the_features_so_far():
    model, encoder = load_bundled()
    from ttsvar_core.infinity.text import encode_prompt

    for scale, share in ((6, 0.6), (7, 0.65)):
        state = sample(start(model, encode_prompt(encoder, "a red circle left of a blue square"), 3, 5), scale)
        cells = model.config.sketch_cells(state.schedule, scale)
        final = average(sample(state, 12).features, cells)
        ours, plain = model.foresight.foresee(state, cells), average(state.features, cells)
        assert (ours - final).abs().mean() < share * (plain - final).abs().mean(), scale
