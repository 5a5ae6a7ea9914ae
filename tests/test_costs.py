"""Every figure of what a search costs against the code that it counts, and against what is known of the published models."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model, squares

from lab.benchmark.formulas import shared_cache_tokens, traffic_bytes
from ttsvar_core import cli, footprint
from ttsvar_core.bsq.autoencoder import Decoder, Tokenizer
from ttsvar_core.config import PRESETS, Sampling
from ttsvar_core.costs import NOTHING, Look, Search
from ttsvar_core.flops import decoder_flops, scale_flops, text_flops
from ttsvar_core.footprint import cache_bytes, looking_bytes, showing_bytes, token_bytes
from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.looks import counted, extractor_look, reward_look
from ttsvar_core.networks import NETWORKS
from ttsvar_core.sampling import sample
from ttsvar_core.scales import official
from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.plan import Plan, best_of_n, raw, scored_at, tts_var
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.score import Score
from ttsvar_core.state import LineageStep, start

TERA = 1e12
BIG = PRESETS["2b"]
TEXT = 32  # tokens of an ordinary sentence
GUIDED = (2,) * 13
PARTLY = (2,) * 10 + (1,) * 3


def tera(search, part):
    return search.parts[part] / TERA


# The image model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patchify", [False, True])
@pytest.mark.parametrize("branches", [1, 2])
def test_operations_of_a_scale_are_those_that_run(patchify, branches):
    model, conditioning = make_tiny_model(patchify=patchify), make_conditioning(tokens=3)
    transformer, schedule, sampling = model.transformer, model.schedule(), Sampling(guidance=2.0 if branches == 2 else 1.0)
    state = start(model, conditioning, samples=3, seed=0)._replace(cache=KVCache())
    for scale in range(len(schedule)):
        found = counted(
            torch.inference_mode()(transformer.forward_scale), state.features, scale, schedule, state.text.branches(branches),
            state.cache, sampling.at(scale),
        )
        assert found == scale_flops(transformer.config, schedule, scale, 3, branches, 3), scale
        state = sample(state, scale, sampling)


def test_operations_of_the_prompt_are_those_that_run():
    transformer = make_tiny_model().transformer
    texts = transformer.guidance_texts(make_conditioning(tokens=3))
    assert counted(torch.no_grad()(transformer.project_text), texts) == text_flops(transformer.config, 3)


@pytest.mark.parametrize("name", ["tiny", "2b", "8b"])
@pytest.mark.parametrize("cells", [(6, 6), (12, 20)])
def test_operations_of_a_decode_are_those_that_run(name, cells):
    sizes = make_tiny_model().config.tokenizer if name == "tiny" else PRESETS[name].tokenizer
    with torch.device("meta"):
        assert counted(Decoder(sizes), torch.empty(1, sizes.codebook_dim, *cells)) == decoder_flops(sizes, cells)


@pytest.mark.parametrize(("side", "known"), [(64, 9.85), (32, 2.46), (16, 0.62)])
def test_one_decode_of_the_2b_tokenizer(side, known):
    assert decoder_flops(BIG.tokenizer, (side, side)) / TERA == pytest.approx(known, abs=0.005)


# What looks -----------------------------------------------------------------------------------------------------------


def on_meta(make):
    with torch.device("meta"):
        return make().eval().requires_grad_(False)


def pixels(side):
    return torch.empty(1, 3, side, side, device="meta")


def ids(tokens):
    return torch.zeros(1, tokens, dtype=torch.int64, device="meta")


def test_dinov2_on_paper_is_dinov2_as_it_runs():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes = Dinov2WithRegistersConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=14, num_register_tokens=4
    )
    assert counted(on_meta(lambda: Dinov2WithRegistersModel(sizes)), pixels(224)) == NETWORKS["dinov2"](TEXT).each
    assert NETWORKS["dinov2"](TEXT).each / TERA == pytest.approx(0.165, abs=0.0005)


def test_image_reward_on_paper_is_image_reward_as_it_runs():
    from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    vision = BlipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=16
    )
    text = BlipTextConfig(hidden_size=768, encoder_hidden_size=1024, num_attention_heads=12, is_decoder=True)
    seen = counted(on_meta(lambda: BlipVisionModel(vision)), pixels(224))
    reader = on_meta(lambda: BlipTextModel(text, add_pooling_layer=False)).to_empty(device="cpu")  # its mask is looked into
    reader.embeddings.position_ids = torch.arange(text.max_position_embeddings)[None]
    words = {"input_ids": torch.zeros(1, 9, dtype=torch.int64), "encoder_hidden_states": torch.zeros(1, 197, 1024)}
    read = counted(lambda: reader(**words, attention_mask=torch.ones(1, 9, dtype=torch.int64), is_decoder=False))
    head = 2 * (768 * 1024 + 1024 * 128 + 128 * 64 + 64 * 16 + 16)
    assert seen + read + head == NETWORKS["blip"](9).each


@pytest.mark.parametrize(
    ("name", "vision", "text", "joint"),
    [("vit-h", (1280, 32, 16), (1024, 24, 16), 1024), ("vit-l", (1024, 24, 16), (768, 12, 12), 768)],
)
def test_clip_on_paper_is_clip_as_it_runs(name, vision, text, joint):
    from transformers import CLIPConfig, CLIPModel

    from ttsvar_core.vision.clip import ClipNetwork

    def tower(width, layers, heads):
        return {
            "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "projection_dim": joint,
        }

    sizes = CLIPConfig(
        projection_dim=joint, text_config=tower(*text), vision_config={**tower(*vision), "image_size": 224, "patch_size": 14}
    )
    network, look = on_meta(lambda: ClipNetwork(CLIPModel(sizes))), NETWORKS[name](9)
    assert counted(network, pixels(224)) == look.each
    assert counted(network.embed_text, ids(9)) == look.prompt


def test_aesthetic_on_paper_is_its_tower_and_head_as_they_run():
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from ttsvar_core.rewards.aesthetic import AestheticModel

    sizes = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384, patch_size=14
    )
    widths = (1152, 1024, 128, 64, 16, 1)

    def network():
        head = torch.nn.Sequential(*(torch.nn.Linear(*pair) for pair in pairwise(widths)))
        return AestheticModel(SiglipVisionModel(sizes), head)

    assert counted(on_meta(network), pixels(384)) == NETWORKS["siglip"](9).each


def test_whatever_the_registry_offers_has_a_price():
    from ttsvar_core import registry

    entries = {**registry.REWARDS, **registry.EXTRACTORS}
    assert {key for key, entry in entries.items() if not entry.network} == {"scenes", "latent-pool"}
    assert {entry.network for entry in entries.values()} == {*NETWORKS, registry.BROUGHT}


def test_a_network_of_a_users_own_is_counted_while_it_runs():
    model = make_tiny_model()

    class Encoder:
        looks_at = "images"

        def describe(self, images):
            return model.tokenizer.encode(images.permute(0, 3, 1, 2)).flatten(1)

    image = torch.rand(1, 12, 12, 3)
    once = counted(Tokenizer.encode, model.tokenizer, image.permute(0, 3, 1, 2))
    assert extractor_look(Encoder(), image) == Look(once) and once > 0


# Whole searches -------------------------------------------------------------------------------------------------------


def test_raw_generation_and_tts_var_at_2b():
    """At 1M pixels: 115.2 TFLOP and one decode of 9.85; TTS-VAR 148.7, and 207 in 21 decodes where images are clustered."""
    schedule, extractor = BIG.schedule(), NETWORKS["dinov2"](TEXT)
    one = Search(BIG, raw(), schedule, GUIDED, TEXT)
    assert (round(tera(one, "transformer"), 1), round(tera(one, "decode"), 2)) == (115.2, 9.85)
    assert one.parts["features"] == one.parts["reward"] == 0
    search = Search(BIG, tts_var(1), schedule, GUIDED, TEXT, extractor, NETWORKS["blip"](TEXT), whole=True)
    assert (round(tera(search, "transformer"), 1), round(tera(search, "decode"))) == (148.7, 207)
    assert search.total.decodes == 21 and search.total.token_forwards == 14656
    assert search.parts["features"] == 14 * extractor.each and search.parts["reward"] == 7 * NETWORKS["blip"](TEXT).each
    small = replace(search, whole=False)
    assert [scale.cells for scale in small.scales if scale.pictures] == [(side, side) for side in (16, 16, 16, 32, 64)]
    assert small.total.flops / one.total.flops <= 1.45 < search.total.flops / one.total.flops


def test_guidance_that_ends_before_the_last_three_scales():
    one = Search(BIG, raw(), BIG.schedule(), GUIDED, TEXT)
    assert BIG.sampling.guided_until(9, 13).branches(13) == PARTLY and BIG.sampling.branches(13) == GUIDED
    assert round(tera(replace(one, branches=PARTLY), "transformer"), 1) == 68.1
    looks = NETWORKS["dinov2"](TEXT), NETWORKS["blip"](TEXT)
    search = Search(BIG, tts_var(1), BIG.schedule(), PARTLY, TEXT, *looks)
    assert search.total.flops / one.total.flops <= 1.05


def test_a_sketch_keeps_the_shape_of_the_picture_and_a_side_the_tokenizer_knows():
    tall = official(1.25)
    assert BIG.sketch_cells(tall, 2) == BIG.sketch_cells(tall, 6) == (20, 16)
    assert BIG.sketch_cells(tall, 12) == tall.final == (70, 56)
    assert PRESETS["8b"].sketch_cells(official(), 3) == (32, 32)  # 16x16 tokens: 256 pixels, as of the others
    tiny = make_tiny_model().config
    assert tiny.sketch_cells(tiny.schedule(), 0) == (6, 6)  # whole: as its own pictures are all smaller than 256 pixels


def test_looks_are_counted_by_who_asks_first():
    """Pictures are decoded and scored once per scale, for as many as the first that asks for them meets; each cluster describes."""
    model = make_tiny_model().config
    plan = Plan("many", 8, (Cluster(1, 6), Cluster(1, 4), Score(1), Resample(1, 2), Resample(3, 1)))

    def looked(extractor):
        search = Search(model, plan, model.schedule(), (2,) * 5, 3, extractor, Look(10, 1))
        return [(one.samples, one.pictures, one.described, one.scored) for one in search.scales]

    rest = [(2, 0, 0, 0), (2, 2, 0, 2), (1, 1, 0, 1)]
    assert looked(Look(7)) == [(8, 0, 0, 0), (8, 8, 14, 4), *rest]
    assert looked(NOTHING) == [(8, 0, 0, 0), (8, 4, 14, 4), *rest]
    search = Search(model, plan, model.schedule(), (2,) * 5, 3, Look(7), Look(10, 1))
    assert search.parts["features"] == 7 * 14 and search.parts["reward"] == 10 * 7 + 1


def test_n_pictures_cost_n_times_one():
    schedule = BIG.schedule()
    one, four = (Search(BIG, best_of_n(n), schedule, GUIDED, TEXT, NOTHING, Look(5)) for n in (1, 4))
    once = one.parts["text"] + 13 * 2 * 4 * 2048**2  # and the norm before the head, in each scale and branch
    assert four.total.flops - once == 4 * (one.total.flops - once)
    watched = replace(one, plan=scored_at(best_of_n(1), range(12)))
    assert watched.total.decodes == watched.total.scored == 13


@pytest.mark.parametrize("until", [6, 3])
@pytest.mark.parametrize("smallest", [256, 6])
def test_a_whole_search_costs_what_is_counted_while_it_runs(until, smallest):
    """Text, transformer, sketches, features and rewards: to the last operation."""
    from ttsvar_core.extractors.latent_pool import LatentPool
    from ttsvar_core.search.memory import Sampler
    from ttsvar_core.search.run import run

    class Grey:
        name, range = "grey", (0.0, 1.0)

        def score(self, images, prompt):
            return (images[:, :6, :6].flatten(1) @ torch.ones(108, 1))[:, 0]

    model = make_tiny_model(schedule="1 2 3 3 4 4 6")
    model = replace(model, config=replace(model.config, tokenizer=replace(model.config.tokenizer, smallest_side=smallest)))
    plan, schedule, reward = tts_var(1, 7), model.schedule(), Grey()
    sampling, look = model.config.sampling.guided_until(until, 7), reward_look(reward, torch.rand(1, 12, 12, 3), "")
    expected = Search(model.config, plan, schedule, sampling.branches(7), 3, NOTHING, look)
    assert look.each == 2 * 108 and (expected.total.decodes, expected.total.scored) == (7, 7)

    results = []

    def whole():
        state = start(model, make_conditioning(tokens=3), plan.samples, 0, schedule)
        results.append(run(state, plan, reward, LatentPool(), Sampler(sampling)))

    assert counted(whole) == expected.total.flops
    held = [scale["cache_bytes"] for scale in results[0].report["scales"]]
    assert max(held) == max(scale.cache_bytes for scale in replace(expected, itemsize=4).scales)


def test_an_experiments_costs_count_every_network():
    from lab.experiment.arms import Arm
    from lab.experiment.controls import TokenizerExtractor
    from lab.experiment.prompts import Prompt
    from lab.experiment.unit import Task, Unit, run_unit
    from lab.experiment.world import World
    from ttsvar_core.extractors.latent_pool import LatentPool
    from ttsvar_core.search.budget import cost_in_pictures

    model = make_tiny_model(schedule="1 2 3 3 4 4 6")
    encoder, schedule, plan = TokenizerExtractor(model, "Pool"), model.schedule(), tts_var(1, 7)

    class Encoded:
        name, range = "encoded", (0.0, 1.0)

        def score(self, images, prompt):
            return encoder.describe(images).mean(dim=1)

    extractors = {"pool": LatentPool(), "encoder": encoder}
    world = World(model, lambda prompt: make_conditioning(), {"encoded": Encoded()}, extractors, schedule, model.config.sampling)
    arms = tuple(Arm(name, plan, name) for name in extractors)
    ran = run_unit(Task(lambda: world, arms, Unit(Prompt("a tiny prompt"), 0, 0)))["arms"]
    once = Look(counted(encoder.describe, torch.rand(1, 12, 12, 3)))
    for name, look in (("pool", NOTHING), ("encoder", once)):
        expected = Search(model.config, plan, schedule, (2,) * 7, 3, look, once)
        spent = {**expected.total._asdict(), "pictures": cost_in_pictures(expected, plan)}
        assert ran[name]["cost"] == spent and expected.parts["reward"] == 7 * once.each > 0


# Bytes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("float8", [False, True])
def test_bytes_of_keys_and_values_are_those_of_the_cache(float8):
    model = make_tiny_model()
    state, schedule = start(model, make_conditioning(), 1, 0), model.schedule()
    for scale in range(len(schedule) - 1):
        state = sample(state, scale, cache_policy="float8" if float8 else "keep")
        assert state.cache.nbytes == cache_bytes(model, schedule, scale, 2, float8)
    assert cache_bytes(model, schedule, len(schedule) - 1) == cache_bytes(model, schedule, len(schedule) - 2)


def test_cache_of_a_search_without_duplicates_follows_the_formula():
    """8 samples, 4 kept after scale 1, 2 after scale 3: sum of tokens times the survivors that descend from each."""
    steps = [LineageStep(1, (0, 2, 4, 6), (0.0,) * 8, 8.0, "test"), LineageStep(3, (1, 1), (0.0,) * 4, 4.0, "test")]
    found = shared_cache_tokens(squares("1 2 3 4 6"), [8, 8, 4, 4, 2], steps)
    assert found == [8, 8 + 32, 4 + 16 + 36, 4 + 16 + 36 + 64]
    assert token_bytes(PRESETS["125m"].transformer, 2, 4) == 12 * 2 * 2 * 768 * 4


def test_keys_and_values_of_the_branch_that_is_gone_are_not_counted():
    scales = Search(BIG, tts_var(1), BIG.schedule(), PARTLY, TEXT).scales
    assert scales[9].cache_bytes == 2 * 2521 * 2**19 and scales[10].cache_bytes == 4121 * 2**18


def test_a_scale_reads_the_weights_and_all_before_it():
    sizes, schedule = BIG.transformer, squares("1 2 3")
    weights = 32 * (6 * 2048**2 + 2 * 2048 * 8192) * 2
    assert traffic_bytes(sizes, schedule, [8, 8, 4], 2, 2) == [weights, weights + 8 * 2**19, weights + 4 * 5 * 2**19]


def test_room_to_decode_and_to_look(monkeypatch):
    state = sample(start(make_tiny_model(), make_conditioning(), 3, 0), 0)
    pictures = 3 * 12 * 12 * 3 * 4
    whole, tile = showing_bytes(state, whole=True), showing_bytes(state, tile=6)
    assert whole - 2 * pictures == 3 * 4 * tile > 0  # three at once, and 3 of 6 cells a side
    half = state._replace(model=replace(state.model, transformer=make_tiny_model().transformer.in_precision(torch.bfloat16)))
    assert showing_bytes(half, tile=6) == tile // 2
    monkeypatch.setattr(footprint, "DECODED_TOGETHER", 12 * 12)
    assert showing_bytes(state, whole=True) - 2 * pictures == 4 * tile
    assert looking_bytes(2) == 2**27 and looking_bytes(100) == looking_bytes(32)


# The command ----------------------------------------------------------------------------------------------------------


def test_command_answers_before_anything_runs(tmp_path, capsys):
    path = tmp_path / "cost.json"
    words = "cost --model 2b --pixels 1M --n 1 --reward image-reward=ImageReward.pt --extractor dinov2-PCA"
    assert cli.main([*words.split(), "--guidance-until", "9", "--json", str(path)]) == 0
    found, told = json.loads(path.read_text()), capsys.readouterr().out
    assert found["ratio_to_raw"] <= 1.05 and sum(found["parts"].values()) == found["flops"]
    assert [scale["branches"] for scale in found["scales"]] == list(PARTLY)
    assert f"pictures' worth  {found['ratio_to_raw']:.2f}" in told and "TFLOP" in told
    assert found["peak_cache_bytes"] == max(scale["cache_bytes"] for scale in found["scales"])
    assert cli.main([*words.split(), "--sketches", "whole", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["ratio_to_raw"] == pytest.approx(2.87, abs=0.005)


def test_command_knows_the_bundled_model_and_plans_in_files(tmp_path, capsys):
    from ttsvar_core.search.plan_file import save_plan

    save_plan(best_of_n(3), tmp_path / "plan.json")
    path = tmp_path / "cost.json"
    assert cli.main(["cost", "--plan", str(tmp_path / "plan.json"), "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert (found["model"], found["plan"]) == ("scenes128", "best-of-n") and found["ratio_to_raw"] == pytest.approx(3, rel=0.03)
    assert "GFLOP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--guidance-until 13", "the last scale is 12"),
        ("--reward beauty", "no figures for 'beauty'; write one of scenes"),
        ("--extractor beauty", "no figures for 'beauty'; write one of latent-pool"),
        ("--plan beauty", "no plan 'beauty'"),
        ("--plan raw --n 2", "--n is for plans that grow with it, and raw does not; leave it out"),
        ("--pixels 0.25M", "scenes128 draws 128x128 pixels, by a schedule of its own; leave --pixels out"),
    ],
)
def test_command_says_what_it_cannot_count(words, said, capsys):
    assert cli.main(["cost", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_model_of_costs_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, ttsvar_core.networks, ttsvar_core.commands.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
