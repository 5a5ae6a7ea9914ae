"""The benchmark's counts against the code it counts, and its report."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import GOLDEN, make_conditioning, make_tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lab.benchmark import cards, count, models
from ttsvar_core.config import PRESETS
from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.sampling import sample
from ttsvar_core.scales import official, parse_schedule
from ttsvar_core.search.plan import tts_var
from ttsvar_core.state import LineageStep, start

WORDS, BERT_WORDS = "blip.text_encoder.embeddings.word_embeddings.weight", 30524


def counted(function):
    """Operations that PyTorch sees; attention as plain matrix products, which its counter knows on every device."""
    with sdpa_kernel(SDPBackend.MATH), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        result = function()
    return counter.get_total_flops(), result


def test_transformer_flops_are_those_that_run():
    model, conditioning = make_tiny_model(), make_conditioning(tokens=3)
    transformer, schedule = model.transformer, model.schedule()
    state = start(model, conditioning, samples=3, seed=0)
    running = [3] * len(schedule)
    expected = count.transformer_flops(transformer.config, schedule, running, text_tokens=3, branches=2)
    state = state._replace(cache=KVCache())
    for scale in range(len(schedule)):
        step = model.config.sampling.at(scale)
        flops, _ = counted(
            lambda state=state, scale=scale, step=step: transformer.forward_scale(
                state.features, scale, schedule, state.text, state.cache, step
            )
        )
        assert flops == expected[scale], scale
        state = sample(state, scale)


def test_text_flops_are_those_that_run():
    model, conditioning = make_tiny_model(), make_conditioning(tokens=3)
    texts = model.transformer.guidance_texts(conditioning)
    flops, _ = counted(lambda: model.transformer.project_text(texts))
    assert flops == count.text_flops(model.config.transformer, 3)


def test_decoder_flops_are_those_that_run():
    model = make_tiny_model()
    flops, _ = counted(lambda: model.tokenizer.decode(torch.randn(1, 8, 6, 6)))
    assert flops == count.decoder_flops(model.config.tokenizer, (6, 6))


def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    """TTS-VAR on the bundled model: the stages add up, and the cache holds what the lineage says it must."""
    from lab.benchmark.__main__ import main

    path = tmp_path / "figures" / "bundled.json"
    assert main(["--model", "bundled", "--plan", "tts-var", "--n", "1", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    stages = {stage: value for stage, value in figures["seconds"].items() if stage != "total"}
    assert sum(stages.values()) == pytest.approx(figures["seconds"]["total"])
    assert min(stages[stage] for stage in ("text", "transformer", "decode", "decode_for_selection", "reward")) > 0
    assert figures["peak_cache_bytes"] == pytest.approx(figures["formula_cache_bytes"], rel=0.05)
    assert figures["tokens"] == 556 and figures["tokens_raw"] == 278
    assert figures["images_decoded"] == {"decode": 1, "decode_for_selection": 6}
    assert figures["flops_by_part"]["transformer"] == sum(figures["flops_transformer_by_scale"])
    assert 0 < figures["overhead_share"] < 1 and figures["ceiling_flops_per_s"] > 1e8
    assert "search's own overhead" in capsys.readouterr().out


def test_paper_schedule_at_2b_proportions():
    """At 1M pixels TTS-VAR with N=1 forwards 14,656 tokens against 10,521 (paper's schedule), operations at most 1.45x."""
    config, schedule = PRESETS["2b"].transformer, official(1.0, "1M")
    plan = tts_var(1)
    running = [plan.running(scale) for scale in range(len(schedule))]
    assert sum(r * t for r, t in zip(running, schedule.tokens, strict=True)) == 14656
    ours = count.transformer_flops(config, schedule, running, 32, 2)
    raw = count.transformer_flops(config, schedule, [1] * 13, 32, 2)
    assert 1.2 < sum(ours) / sum(raw) < 1.45


def test_cache_of_a_search_without_duplicates_follows_the_formula():
    """8 samples, 4 kept after scale 1, 2 after scale 3: sum of tokens times the survivors that descend from each."""
    config, schedule = PRESETS["125m"].transformer, parse_schedule("1 2 3 4 6")
    steps = [
        LineageStep(1, (0, 2, 4, 6), (0.0,) * 8, 8.0, "test"),
        LineageStep(3, (1, 1), (0.0,) * 4, 4.0, "test"),
    ]
    per_token = 12 * 2 * 2 * 768 * 4
    found = count.cache_bytes(config, schedule, [8, 8, 4, 4, 2], steps, branches=2, bytes_per_value=4)
    assert found == [per_token * n for n in (8, 8 + 32, 4 + 16 + 36, 4 + 16 + 36 + 64)]


def test_random_models_of_published_sizes(tmp_path, capsys):
    """Fewer layers and a small tokenizer on a preset; the figures carry what ran."""
    from lab.benchmark.__main__ import main

    path = tmp_path / "figures.json"
    options = ["--model", "125m", "--depth", "1", "--small-tokenizer", "--pixels", "0.06M", "--plan", "best-of-n", "--n", "2"]
    assert main([*options, "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert (figures["layers"], figures["model"], figures["plan"]["name"]) == (1, "125m", "best-of-n")
    assert figures["tokens"] == 2 * figures["tokens_raw"] == 2 * sum(official(1.0, "0.06M").tokens)
    assert figures["peak_cache_bytes"] == figures["formula_cache_bytes"]
    assert "125m, 1 layers" in capsys.readouterr().out


def test_published_reward_and_extractor_at_a_small_size(tmp_path, monkeypatch):
    """The search runs through ImageReward and DINOv2 with random weights; here of the reference models' sizes."""
    import lab.benchmark.__main__ as bench

    def small(name):
        tiny = {"image_reward": "image_reward_tiny", "dinov2_vitl14_reg": "dinov2_reg_tiny"}[name]
        tensors = load_file(GOLDEN / f"{tiny}.safetensors")
        if WORDS in tensors:  # the tokenizer knows more words than the tiny text tower
            tensors[WORDS] = torch.nn.functional.pad(tensors[WORDS], (0, 0, 0, BERT_WORDS - len(tensors[WORDS])))
        return tensors

    monkeypatch.setattr(bench, "random_tensors", small)
    path = tmp_path / "figures.json"
    assert bench.main(["--reward", "image-reward", "--extractor", "dinov2", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures["reward"] == "ImageReward" and figures["extractor"] == "DINOv2 PCA"
    assert figures["seconds"]["reward"] > 0 and figures["seconds"]["features"] > 0
    assert figures["images_decoded"] == {"decode": 1, "decode_for_selection": 20}


def test_random_tensors_have_the_published_shapes(tmp_path, monkeypatch):
    listed = {"a.weight": {"shape": [3, 2], "dtype": "float32"}, "a.ids": [[1, 4], "int64"], "n.bias": [[2], "float32"]}
    (tmp_path / "some.json").write_text(json.dumps({"tensors": listed}))
    monkeypatch.setattr(models, "SHAPES", tmp_path)
    found = models.random_tensors("some")
    assert found["a.weight"].shape == (3, 2) and found["a.ids"].tolist() == [[0, 1, 2, 3]] and found["n.bias"].tolist() == [0, 0]


def test_live_bytes_are_those_alive_at_once():
    """Two tensors of 400 bytes at most at a time: the first is gone when the third is made; views count nothing."""
    with torch.device("meta"), cards.LiveBytes() as live:
        first = torch.empty(100)
        second = first + 1
        view = second.view(10, 10)
        del first
        third = view * 2
        assert (live.alive, live.peak) == (800, 800)
        del second, view, third
    assert live.alive == 0


def test_cards_table_on_file_is_what_the_command_prints():
    """One line of docs/memory.md computed again: 2B at 0.25M and N=1."""
    found = cards.need("2b", "0.25M", 1)
    numbers = " | ".join(f"{part / 1e9:.1f}" for part in (found.weights, found.cache, found.working, found.peak))
    text = (Path(__file__).parents[1] / "docs" / "memory.md").read_text(encoding="utf-8")
    assert f"| 2b | 0.25M | 1 | bfloat16 | {numbers} | 8 GB |" in text
    assert found.weights == pytest.approx(2 * 2.2047e9 + 2 * 35e6, rel=1e-3)  # 35 million parameters stay in float32


def test_what_a_graph_holds_is_counted():
    """Tokens of docs/memory.md, 2B at 1M and N = 1: what samplers that keep hold at the end, and the fullest moment otherwise."""
    tokens, plan = official(1.0, "1M").tokens, tts_var(1)
    made = [plan.running(scale) * count for scale, count in enumerate(tokens)]
    fullest = max(plan.running(scale) * sum(tokens[: scale + 1]) for scale in range(len(tokens) - 1))
    text = (Path(__file__).parents[1] / "docs" / "memory.md").read_text(encoding="utf-8")
    assert f"{sum(made[:-1]):,} tokens instead of {fullest:,}" in text
    gigabytes = [f"{count * 2**19 / 1e9:.1f} GB" for count in (sum(made[:-1]), fullest, sum(made[:10]))]
    assert "{} instead of {}. Of these {} stay".format(*gigabytes) in " ".join(text.split())
