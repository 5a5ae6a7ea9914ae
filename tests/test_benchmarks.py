"""The benchmark's report."""

import json
from functools import partial
from pathlib import Path

import pytest

from lab.benchmark import cards, models
from ttsvar_core.scales import official
from ttsvar_core.search.plan import tts_var


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
    assert figures["tokens"] == 940 and figures["tokens_raw"] == 661
    assert figures["images_decoded"] == {"decode": 1, "decode_for_selection": 6}
    assert figures["flops_by_part"]["transformer"] == sum(figures["flops_transformer_by_scale"])
    assert 0 < figures["overhead_share"] < 1 and figures["ceiling_flops_per_s"] > 1e8
    told = capsys.readouterr().out
    assert "search's own overhead" in told and f"{figures['ratio_to_raw_with_looking']:.2f}x in time" in told
    shares = [f"{part} {flops / figures['flops']:.1%}" for part, flops in figures["flops_by_part"].items() if flops]
    assert len(shares) == 3 and f"({', '.join(shares)})" in told and figures["ratio_to_raw_flops_with_looking"] > 1


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

    for name in ("reward_of", "extractor_of"):
        monkeypatch.setattr(bench, name, partial(getattr(models, name), tensors=models.tiny_tensors))
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


def test_the_published_shapes_are_where_they_are_looked_for():
    assert {path.stem for path in models.SHAPES.glob("*.json")} >= {"image_reward", "dinov2_vitl14_reg"}


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
